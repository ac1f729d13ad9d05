//! Django's password hashes, `pbkdf2_sha256$<iterations>$<salt>$<hash>`: PBKDF2-HMAC-SHA256 over the salt's bytes as
//! they stand, 32 bytes in standard base64.
//!
//! Hashing is slow on purpose, so it goes through a [`Gate`]; whoever is turned away there is told to come back. A
//! refused password costs [`ITERATIONS`] whatever is stored, so the time of an answer tells nothing about the account.

use std::{hint::black_box, num::NonZeroU32};

use aws_lc_rs::pbkdf2;
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::{
    clock::random_bytes,
    gate::{self, Gate},
    http::{Error, Result},
};

/// What new hashes cost; a weaker stored one is replaced after a successful login.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(870_000).unwrap();

/// A stored count beyond this matches nothing: it would only hold up everybody else.
const MOST_ITERATIONS: u32 = 10_000_000;

/// What a password is worth against a stored hash.
#[derive(Debug)]
pub struct Verdict {
    pub right: bool,
    /// A stronger hash to store in place of a weak one that matched.
    pub upgrade: Option<String>,
}

/// Checks `password` against what is stored, `None` for nobody.
///
/// # Errors
/// [`Error::Busy`] when too many passwords are being hashed.
pub async fn verify(gate: &Gate, password: SecretString, stored: Option<String>) -> Result<Verdict> {
    let verdict = gate.run(move || judge(password.expose_secret(), stored.as_deref())).await?;
    let retry_after = gate::PATIENCE.as_secs();
    verdict.ok_or(Error::Busy { detail: "Too many sign-ins at once. Please try again.", retry_after })
}

fn judge(password: &str, stored: Option<&str>) -> Verdict {
    let stored = stored.and_then(Stored::parse);
    let right = stored.as_ref().is_some_and(|stored| stored.matches(password));
    let spent = stored.map_or(0, |stored| stored.iterations.get());
    let mut upgrade = None;
    if let Some(unspent) = NonZeroU32::new(ITERATIONS.get().saturating_sub(spent)) {
        match right {
            true => upgrade = Some(hash(password)),
            false => _ = black_box(derive(password, "", unspent)),
        }
    }
    Verdict { right, upgrade }
}

/// A hash to store: today's iterations, a fresh salt. Takes a good part of a second: not for a thread that serves.
pub fn hash(password: &str) -> String {
    let salt = salt();
    format!("pbkdf2_sha256${ITERATIONS}${salt}${}", STANDARD.encode(derive(password, &salt, ITERATIONS)))
}

/// 22 alphanumeric characters, about 131 random bits.
fn salt() -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // The remainder of 128 bits favours no character by more than 2^-122.
    (0..22).map(|_| ALPHABET[(u128::from_le_bytes(random_bytes()) % 62) as usize] as char).collect()
}

fn derive(password: &str, salt: &str, iterations: NonZeroU32) -> [u8; 32] {
    #[cfg(test)]
    tests::SPENT.with(|spent| spent.set(spent.get() + iterations.get()));
    let mut hash = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt.as_bytes(), password.as_bytes(), &mut hash);
    hash
}

/// A stored hash that some password could match.
struct Stored<'a> {
    iterations: NonZeroU32,
    salt: &'a str,
    hash: [u8; 32],
}

impl<'a> Stored<'a> {
    /// `None` for an empty or locked (`!…`) value, another scheme, and anything malformed.
    fn parse(text: &'a str) -> Option<Self> {
        let (iterations, rest) = text.strip_prefix("pbkdf2_sha256$")?.split_once('$')?;
        let (salt, hash) = rest.split_once('$')?;
        let iterations: NonZeroU32 =
            iterations.parse().ok().filter(|count: &NonZeroU32| count.get() <= MOST_ITERATIONS)?;
        Some(Stored { iterations, salt, hash: STANDARD.decode(hash).ok()?.try_into().ok()? })
    }

    fn matches(&self, password: &str) -> bool {
        derive(password, self.salt, self.iterations).ct_eq(&self.hash).into()
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

    fn matches(password: &str, stored: &str) -> bool {
        Stored::parse(stored).is_some_and(|stored| stored.matches(password))
    }

    #[test]
    fn djangos_hashes_match_their_password_alone() {
        for stored in [WEAK, STRONG] {
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
            "!pbkdf2_sha256$1000$contractsalt0123456789$bb0H4lFL10+249dOvv9+JDn6dSJk4bNiLkzR17guNew=",
            "pbkdf2_sha256",
            "pbkdf2_sha256$1000$salt",
            &changed("pbkdf2_sha256", "pbkdf2_sha1"),
            &changed("pbkdf2_sha256", "argon2"),
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
            assert!(Stored::parse(stored).is_none(), "{stored}");
        }
    }

    #[test]
    fn a_weak_hash_that_matched_is_replaced_and_a_strong_one_is_kept() {
        let verdict = judge(PASSWORD, Some(WEAK));
        let upgrade = verdict.upgrade.unwrap();
        let parts: Vec<&str> = upgrade.split('$').collect();
        assert_eq!(parts[..2], ["pbkdf2_sha256", "870000"]);
        assert!(parts[2].len() == 22 && parts[2].chars().all(|c| c.is_ascii_alphanumeric()), "{upgrade}");
        assert!(verdict.right && matches(PASSWORD, &upgrade));

        let verdict = judge(PASSWORD, Some(STRONG));
        assert!(verdict.right && verdict.upgrade.is_none());
        assert!(judge("wrong", Some(WEAK)).upgrade.is_none());
    }

    #[test]
    fn a_refusal_costs_the_same_for_nobody_and_for_a_weak_an_unusable_and_a_strong_hash() {
        let older = "pbkdf2_sha256$600000$salt$bb0H4lFL10+249dOvv9+JDn6dSJk4bNiLkzR17guNew=";
        for stored in
            [None, Some(WEAK), Some(older), Some("!locked"), Some("pbkdf2_sha256$99999999$s$AA=="), Some(STRONG)]
        {
            SPENT.set(0);
            assert!(!judge("wrong", stored).right);
            assert_eq!(SPENT.get(), 870_000, "{stored:?}");
        }
        SPENT.set(0);
        assert!(judge(PASSWORD, Some(WEAK)).right);
        assert!(SPENT.get() >= 870_000, "an account that may not come in costs as much");
    }

    proptest! {
        #[test]
        fn random_text_is_parsed_without_a_panic(text: String, iterations: u64) {
            prop_assert!(Stored::parse(&text).is_none());
            Stored::parse(&format!("pbkdf2_sha256${iterations}${text}"));
        }

        /// Not even one of the right form makes somebody else's password match, and none costs more than its limit.
        #[test]
        fn no_stored_text_matches_a_password_that_it_was_not_made_of(
            iterations in prop_oneof![1..50u64, any::<u64>()], salt in any::<String>(), hash: [u8; 32], password: String,
        ) {
            let stored = format!("pbkdf2_sha256${iterations}${salt}${}", STANDARD.encode(hash));
            match Stored::parse(&stored) {
                Some(parsed) => {
                    prop_assert!(u64::from(parsed.iterations.get()) == iterations && iterations <= MOST_ITERATIONS.into());
                    prop_assert!(iterations >= 50 || !parsed.matches(&password));
                }
                None => prop_assert!(iterations > MOST_ITERATIONS.into() || salt.contains('$')),
            }
        }

        #[test]
        fn every_password_matches_its_own_hash_alone(password in "\\PC{0,80}", other in "\\PC{0,80}", salt in "[A-Za-z0-9]{22}") {
            let stored = format!("pbkdf2_sha256$1${salt}${}", STANDARD.encode(derive(&password, &salt, NonZeroU32::MIN)));
            prop_assert!(matches(&password, &stored));
            prop_assert_eq!(matches(&other, &stored), other == password);
        }
    }
}
