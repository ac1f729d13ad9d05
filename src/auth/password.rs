//! Django's password hashes, `pbkdf2_sha256$<iterations>$<salt>$<hash>` and `pbkdf2_sha1$…`: PBKDF2-HMAC over the
//! salt's bytes as they stand, 32 or 20 bytes in standard base64.
//!
//! Hashing is slow on purpose, so it needs a [`Permit`]. The time of a refusal reveals nothing about the account. At
//! least [`ITERATIONS`] are computed, whatever is stored. By [`Verdict::refused_at`] even the slowest stored hash would
//! have been computed.

use std::{
    hint::black_box,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::{Duration, Instant};

use crate::{clock::random_bytes, gate::Permit};

/// What new hashes cost; a weaker stored one of SHA-256 is replaced after a successful login.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(870_000).unwrap();

/// A stored count beyond this matches nothing: it would only hold up everybody else.
const MOST_ITERATIONS: u32 = 10_000_000;

/// What a password is worth against a stored hash.
#[derive(Debug)]
pub struct Verdict {
    pub right: bool,
    /// A stronger hash to store in place of a weak one that matched.
    pub upgrade: Option<String>,
    /// Something is stored that no password can be checked against: another scheme, too many iterations, garbage.
    pub is_unsupported: bool,
    /// A refusal before this moment would tell what is stored.
    pub refused_at: Instant,
}

/// Checks `password` against what is stored, `None` for nobody.
///
/// # Errors
/// A panic.
pub async fn verify(
    permit: Permit,
    password: SecretString,
    stored: Option<String>,
) -> anyhow::Result<(Permit, Verdict)> {
    permit.work(move || judge(password.expose_secret(), stored.as_deref())).await
}

fn judge(password: &str, stored: Option<&str>) -> Verdict {
    let start = Instant::now();
    let stored = stored.map_or(Stored::Unusable, Stored::parse);
    let right = matches!(&stored, Stored::Hash(hash) if hash.matches(password));
    let (spent, may_be_upgraded) = match &stored {
        Stored::Hash(hash) => (hash.iterations.get(), hash.algorithm == PBKDF2_HMAC_SHA256),
        _ => (0, false),
    };
    let mut upgrade = None;
    if let Some(unspent) = NonZeroU32::new(ITERATIONS.get().saturating_sub(spent)) {
        match right {
            true if may_be_upgraded => upgrade = Some(hash(password)),
            true => {}
            false => derive(PBKDF2_HMAC_SHA256, password, "", unspent, black_box(&mut [0; 32])),
        }
    }
    PACE.dearest.fetch_max(spent, Ordering::Relaxed);
    let refused_at = start + PACE.of_the_dearest();
    Verdict { right, upgrade, is_unsupported: matches!(stored, Stored::Unsupported), refused_at }
}

/// A hash to store: today's iterations, a fresh salt. Takes a good part of a second: not for a thread that serves.
pub fn hash(password: &str) -> String {
    let (salt, mut hash) = (salt(), [0; 32]);
    derive(PBKDF2_HMAC_SHA256, password, &salt, ITERATIONS, &mut hash);
    format!("pbkdf2_sha256${ITERATIONS}${salt}${}", STANDARD.encode(hash))
}

/// 22 alphanumeric characters, about 131 random bits.
fn salt() -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // The remainder of 128 bits favours no character by more than 2^-122.
    (0..22).map(|_| ALPHABET[(u128::from_le_bytes(random_bytes()) % 62) as usize] as char).collect()
}

fn derive(algorithm: pbkdf2::Algorithm, password: &str, salt: &str, iterations: NonZeroU32, hash: &mut [u8]) {
    #[cfg(test)]
    tests::SPENT.with(|spent| spent.set(spent.get() + iterations.get()));
    let start = Instant::now();
    pbkdf2::derive(algorithm, iterations, salt.as_bytes(), password.as_bytes(), hash);
    if algorithm == PBKDF2_HMAC_SHA256 {
        PACE.learn(iterations.get(), start.elapsed());
    }
}

/// How fast this process currently hashes, and the slowest stored hash: together they set the time of a refusal.
struct Pace {
    /// For an iteration with SHA-256, averaged over the last hashes; 0 before the first. With SHA-1 it takes no longer.
    picoseconds: AtomicU64,
    /// The most iterations of a stored hash.
    dearest: AtomicU32,
}

/// Django 6.0's own hashes have 1,200,000 iterations, its next ones 1,500,000; dearer ones raise it when they are met.
static PACE: Pace = Pace { picoseconds: AtomicU64::new(0), dearest: AtomicU32::new(1_500_000) };

impl Pace {
    fn learn(&self, iterations: u32, took: Duration) {
        // Shorter ones measure the system's scheduler.
        if iterations < 100_000 {
            return;
        }
        let now = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(1000) / u64::from(iterations);
        let average = match self.picoseconds.load(Ordering::Relaxed) {
            0 => now,
            // At most so much slower: a process that stood still has not hashed all that time.
            before => before - before / 8 + now.min(before.saturating_mul(4)) / 8,
        };
        self.picoseconds.store(average, Ordering::Relaxed);
    }

    /// How long the dearest hash takes.
    fn of_the_dearest(&self) -> Duration {
        if self.picoseconds.load(Ordering::Relaxed) == 0 {
            // Only SHA-1 so far.
            derive(PBKDF2_HMAC_SHA256, "", "", ITERATIONS, &mut [0; 32]);
        }
        let dearest = u64::from(self.dearest.load(Ordering::Relaxed));
        Duration::from_nanos(self.picoseconds.load(Ordering::Relaxed) / 1000 * dearest)
    }
}

/// What lies in the column.
enum Stored<'a> {
    /// Empty or locked (`!…`): the account has no password.
    Unusable,
    Unsupported,
    Hash(Hash<'a>),
}

/// A stored hash that some password could match.
struct Hash<'a> {
    algorithm: pbkdf2::Algorithm,
    iterations: NonZeroU32,
    salt: &'a str,
    hash: Vec<u8>,
}

impl<'a> Stored<'a> {
    fn parse(text: &'a str) -> Self {
        match text {
            "" => Stored::Unusable,
            text if text.starts_with('!') => Stored::Unusable,
            text => Hash::parse(text).map_or(Stored::Unsupported, Stored::Hash),
        }
    }
}

impl<'a> Hash<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once('$')?;
        let (algorithm, length) = match scheme {
            "pbkdf2_sha256" => (PBKDF2_HMAC_SHA256, 32),
            "pbkdf2_sha1" => (PBKDF2_HMAC_SHA1, 20),
            _ => return None,
        };
        let (iterations, rest) = rest.split_once('$')?;
        let (salt, hash) = rest.split_once('$')?;
        let iterations: NonZeroU32 =
            iterations.parse().ok().filter(|count: &NonZeroU32| count.get() <= MOST_ITERATIONS)?;
        let hash = STANDARD.decode(hash).ok().filter(|hash| hash.len() == length)?;
        Some(Hash { algorithm, iterations, salt, hash })
    }

    fn matches(&self, password: &str) -> bool {
        let mut derived = vec![0; self.hash.len()];
        derive(self.algorithm, password, self.salt, self.iterations, &mut derived);
        derived.ct_eq(&self.hash).into()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// The iterations this thread has computed.
        pub static SPENT: Cell<u32> = const { Cell::new(0) };
    }

    const PASSWORD: &str = "Passw0rd!x";
    const WEAK: &str = "pbkdf2_sha256$1000$contractsalt0123456789$bb0H4lFL10+249dOvv9+JDn6dSJk4bNiLkzR17guNew=";
    const STRONG: &str = "pbkdf2_sha256$870000$contractsalt0123456789$dsKsiUXpSLWUDIG72X/4B4Bxq9aA/rTZc3oDJThxs4M=";

    const SHA1: &str = "pbkdf2_sha1$1000$contractsalt0123456789$cpA5zGxiyi9YF1cGJzqmB4xbEz0=";

    fn matches(password: &str, stored: &str) -> bool {
        Hash::parse(stored).is_some_and(|stored| stored.matches(password))
    }

    #[test]
    fn djangos_hashes_match_their_password_alone() {
        for stored in [WEAK, STRONG, SHA1] {
            assert!(matches(PASSWORD, stored), "{stored}");
            assert!(!matches("Passw0rd!y", stored), "{stored}");
        }
    }

    #[test]
    fn unusable_hashes_match_nothing() {
        let changed = |from: &str, to: &str| WEAK.replacen(from, to, 1);
        for stored in [
            "",
            "!",
            "argon2$argon2id$v=19$m=102400,t=2,p=8$c29tZXNhbHQ$aGFzaA",
            "!pbkdf2_sha256$1000$contractsalt0123456789$bb0H4lFL10+249dOvv9+JDn6dSJk4bNiLkzR17guNew=",
            "pbkdf2_sha256",
            "pbkdf2_sha256$1000$salt",
            &changed("pbkdf2_sha256", "pbkdf2_sha1"),
            &changed("pbkdf2_sha256", "argon2"),
            &SHA1.replacen("pbkdf2_sha1", "pbkdf2_sha256", 1),
            &changed("$1000$", "$0$"),
            &changed("$1000$", "$-1000$"),
            &changed("$1000$", "$many$"),
            &changed("$1000$", "$10000001$"),
            &changed("$1000$", "$99999999999999999999$"),
            &changed("ew=", "ew"),
            &changed("ew=", "e"),
            &changed("bb0", "b*0"),
            &changed("ew=", "ew=="),
            &format!("{WEAK}$"),
        ] {
            assert!(Hash::parse(stored).is_none(), "{stored}");
            let is_locked = stored.is_empty() || stored.starts_with('!');
            assert_eq!(judge(PASSWORD, Some(stored)).is_unsupported, !is_locked, "{stored}");
        }
    }

    #[test]
    fn a_weak_hash_that_matched_is_replaced_and_a_strong_one_or_one_of_sha1_is_kept() {
        let verdict = judge(PASSWORD, Some(WEAK));
        let upgrade = verdict.upgrade.unwrap();
        let parts: Vec<&str> = upgrade.split('$').collect();
        assert_eq!(parts[..2], ["pbkdf2_sha256", "870000"]);
        assert!(parts[2].len() == 22 && parts[2].chars().all(|c| c.is_ascii_alphanumeric()), "{upgrade}");
        assert!(verdict.right && matches(PASSWORD, &upgrade));

        let verdict = judge(PASSWORD, Some(STRONG));
        assert!(verdict.right && verdict.upgrade.is_none());
        assert!(judge("wrong", Some(WEAK)).upgrade.is_none());
        let verdict = judge(PASSWORD, Some(SHA1));
        assert!(verdict.right && verdict.upgrade.is_none(), "Django would put its own back");
    }

    #[test]
    fn a_refusal_comes_when_the_dearest_hash_would_be_done_and_costs_no_more_than_needed() {
        let with = |scheme, count| {
            format!("{scheme}${count}$salt${}", STANDARD.encode(vec![0; if scheme == "pbkdf2_sha1" { 20 } else { 32 }]))
        };
        for (stored, cost) in [
            (None, 870_000),
            (Some(WEAK.to_owned()), 870_000),
            (Some("!locked".to_owned()), 870_000),
            (Some("argon2$x".to_owned()), 870_000),
            (Some("pbkdf2_sha256$99999999$s$AA==".to_owned()), 870_000),
            (Some(with("pbkdf2_sha256", 600_000)), 870_000),
            (Some(with("pbkdf2_sha1", 600_000)), 870_000),
            (Some(with("pbkdf2_sha1", 1_200_000)), 1_200_000),
            (Some(with("pbkdf2_sha256", 1_200_000)), 1_200_000),
        ] {
            SPENT.set(0);
            let start = Instant::now();
            let verdict = judge("wrong", stored.as_deref());
            assert!(!verdict.right);
            assert_eq!(SPENT.get(), cost, "{stored:?}");
            // Whatever it cost: as long as the dearest does, by this machine's pace.
            let (pace, wait) = (PACE.of_the_dearest().as_secs_f64(), (verdict.refused_at - start).as_secs_f64());
            assert!((0.5..2.0).contains(&(wait / pace)), "{wait} s instead of {pace} s for {stored:?}");
        }
        SPENT.set(0);
        assert!(judge(PASSWORD, Some(WEAK)).right);
        assert!(SPENT.get() >= 870_000, "an account that may not come in costs as much");
    }

    #[test]
    fn a_dearer_hash_than_usual_makes_every_refusal_wait_for_it() {
        let pace = Pace { picoseconds: AtomicU64::new(100_000), dearest: AtomicU32::new(1_500_000) };
        assert_eq!(pace.of_the_dearest(), Duration::from_millis(150));
        pace.dearest.fetch_max(3_000_000, Ordering::Relaxed);
        assert_eq!(pace.of_the_dearest(), Duration::from_millis(300));
        for _ in 0..50 {
            pace.learn(1000, Duration::from_secs(1));
            pace.learn(1_000_000, Duration::from_millis(200));
        }
        let slower = pace.of_the_dearest().as_secs_f64();
        assert!((0.59..0.61).contains(&slower), "{slower}");
    }

    #[test]
    fn a_hash_during_which_the_process_stood_still_does_not_slow_all_refusals() {
        let pace = Pace { picoseconds: AtomicU64::new(100_000), dearest: AtomicU32::new(1_500_000) };
        pace.learn(1_000_000, Duration::from_secs(60));
        assert!(pace.of_the_dearest() < Duration::from_millis(225), "{:?}", pace.of_the_dearest());
        for _ in 0..10 {
            pace.learn(1_000_000, Duration::from_millis(100));
        }
        assert!(pace.of_the_dearest() < Duration::from_millis(170), "{:?}", pace.of_the_dearest());
    }

    proptest! {
        #[test]
        fn random_text_is_parsed_without_a_panic(text: String, iterations: u64) {
            prop_assert!(Hash::parse(&text).is_none());
            Hash::parse(&format!("pbkdf2_sha256${iterations}${text}"));
        }

        /// Not even one of the right form makes somebody else's password match, and none costs more than its limit.
        #[test]
        fn no_stored_text_matches_a_password_that_it_was_not_made_of(
            iterations in prop_oneof![1..50u64, any::<u64>()], salt in any::<String>(), hash: [u8; 32], password: String,
        ) {
            let stored = format!("pbkdf2_sha256${iterations}${salt}${}", STANDARD.encode(hash));
            match Hash::parse(&stored) {
                Some(parsed) => {
                    prop_assert!(u64::from(parsed.iterations.get()) == iterations && iterations <= MOST_ITERATIONS.into());
                    prop_assert!(iterations >= 50 || !parsed.matches(&password));
                }
                None => prop_assert!(iterations > MOST_ITERATIONS.into() || salt.contains('$')),
            }
        }

        #[test]
        fn every_password_matches_its_own_hash_alone(password in "\\PC{0,80}", other in "\\PC{0,80}", salt in "[A-Za-z0-9]{22}") {
            let mut hash = [0; 32];
            derive(PBKDF2_HMAC_SHA256, &password, &salt, NonZeroU32::MIN, &mut hash);
            let stored = format!("pbkdf2_sha256$1${salt}${}", STANDARD.encode(hash));
            prop_assert!(matches(&password, &stored));
            prop_assert_eq!(matches(&other, &stored), other == password);
        }
    }
}
