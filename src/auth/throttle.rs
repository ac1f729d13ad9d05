//! Limits guesses, counted in the database and so for all servers together: [`FAILURES`] wrong passwords (or unknown
//! emails) for an email from a peer in [`WINDOW`], and [`FAILURES_OF_A_PEER`] over all emails.
//!
//! An attempt is counted before its password is checked, and taken back if it was no failure. So parallel attempts
//! allow no more guesses than successive ones. The count is by peer, so nobody can lock out somebody who comes from
//! elsewhere. An IPv6 peer is its /64 network, which is what one customer gets.
//!
//! A peer in `TRUSTED_CLIENTS` signs in for many people, who would lock each other out. There nobody is throttled.
//! Instead each attempt waits, longer with every failure of its email.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::hmac;
use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use secrecy::ExposeSecret;

use super::store;
use crate::{
    context::Context,
    http::{Error, Result},
};

/// After this many failures of an email that still count, further attempts are refused.
const FAILURES: i64 = 20;
/// The same for all e-mails of a peer together.
const FAILURES_OF_A_PEER: i64 = 200;
/// How long a failure counts.
pub const WINDOW: TimeDelta = TimeDelta::minutes(15);
/// What each failure adds to the wait of an attempt from a trusted client: 10 s after 20 of them, and no more.
const DELAY: Duration = Duration::from_millis(500);

/// The counts of one e-mail, whatever its case, from one peer.
pub struct Throttle {
    ctx: Context,
    email: Vec<u8>,
    /// `None` for a trusted client.
    peer: Option<Vec<u8>>,
}

/// An attempt that is counted as a failure until it is known to be none.
pub struct Attempt(DateTime<Utc>);

impl Throttle {
    pub fn of(ctx: &Context, peer: IpAddr, email: &str) -> Self {
        let subject = |place: &str, email| subject(ctx.settings.secret_key.expose_secret(), place, email);
        let is_trusted = ctx.settings.trusted_clients.iter().any(|network| network.contains(&peer));
        let (place, peer) = match is_trusted {
            true => ("trusted clients".to_owned(), None),
            false => (network(peer), Some(subject(&network(peer), ""))),
        };
        Throttle { ctx: ctx.clone(), email: subject(&place, email), peer }
    }

    /// The flow whose turn an attempt takes: its peer, or at a trusted client its email.
    pub fn flow(&self) -> &[u8] {
        self.peer.as_ref().unwrap_or(&self.email)
    }

    /// How long an attempt waits before its turn.
    pub async fn delay(&self) -> Result<Duration> {
        if self.peer.is_some() {
            return Ok(Duration::ZERO);
        }
        let since = self.ctx.clock.now() - WINDOW;
        let failures = store::attempts(&self.ctx.db.reserved(), &self.email, since).await?;
        Ok(DELAY * u32::try_from(failures.min(FAILURES)).unwrap_or_default())
    }

    /// Counts nothing.
    ///
    /// # Errors
    /// [`Error::Throttled`] after too many failures.
    pub async fn check(&self) -> Result<()> {
        if self.peer.is_none() {
            return Ok(());
        }
        let now = self.ctx.clock.now();
        let db = &self.ctx.db.reserved();
        for (subject, most) in self.counts() {
            if let Some(oldest) = store::oldest_if_full(db, subject, now - WINDOW, most).await? {
                return Err(throttled(Some(oldest), now));
            }
        }
        Ok(())
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// [`Error::Throttled`] after too many failures; then it is not counted.
    pub async fn attempt(&self) -> Result<Attempt> {
        let now = self.ctx.clock.now();
        let db = &self.ctx.db.reserved();
        for (nr, (subject, most)) in self.counts().enumerate() {
            if store::count_attempt(db, subject, now, now - WINDOW, most, self.peer.is_none()).await? {
                continue;
            }
            for (counted, _) in self.counts().take(nr) {
                store::take_attempt_back(db, counted, now).await?;
            }
            return Err(throttled(store::oldest_if_full(db, subject, now - WINDOW, most).await?, now));
        }
        Ok(Attempt(now))
    }

    /// An attempt was none: no password was found wrong.
    pub async fn take_back(&self, Attempt(at): Attempt) -> Result<()> {
        let db = &self.ctx.db.reserved();
        for (subject, _) in self.counts() {
            store::take_attempt_back(db, subject, at).await?;
        }
        Ok(())
    }

    /// Forgets all failures of the e-mail, after a success; those of the peer's others stay.
    pub async fn reset(&self, attempt: Attempt) -> Result<()> {
        self.take_back(attempt).await?;
        Ok(store::forget_attempts(&self.ctx.db.reserved(), &self.email).await?)
    }

    /// What an attempt is counted under, and how many may fail. The peer comes first, so that one that is full leaves
    /// no row for each e-mail.
    fn counts(&self) -> impl Iterator<Item = (&[u8], i64)> {
        let peer = self.peer.as_deref().map(|peer| (peer, FAILURES_OF_A_PEER));
        peer.into_iter().chain([(&*self.email, FAILURES)])
    }
}

/// `oldest` is `None` when somebody has just come in or taken an attempt back.
fn throttled(oldest: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Error {
    Error::Throttled { retry_after: oldest.map_or(1, |oldest| seconds_until(oldest + WINDOW, now)) }
}

fn network(peer: IpAddr) -> String {
    IpNet::new_assert(peer, if peer.is_ipv4() { 32 } else { 64 }).trunc().to_string()
}

/// Reveals nothing about peer and email to a reader of the database without the key. The one for all emails has an
/// empty email.
fn subject(key: &str, place: &str, email: &str) -> Vec<u8> {
    // No token's text begins so, whose signatures are under the same key.
    let text = format!("interviews login throttle v1\0{place}\0{}", email.to_lowercase());
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes()).as_ref().to_vec()
}

/// Rounded up: who waits so long is let in.
fn seconds_until(then: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    let micros = (then - now).num_microseconds().unwrap_or_default();
    u64::try_from(micros).unwrap_or_default().div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: (&str, &str), other: (&str, &str)) -> bool {
        let of = |(peer, email): (&str, &str)| subject("key", &network(peer.parse().unwrap()), email);
        of(one) == of(other)
    }

    #[test]
    fn the_count_is_by_peer_and_email_whatever_its_case() {
        assert!(same(("192.0.2.1", "rita@x.test"), ("192.0.2.1", "RITA@X.test")));
        assert!(same(("192.0.2.1", "j\u{fc}rgen@x.test"), ("192.0.2.1", "J\u{dc}RGEN@x.test")));
        assert!(!same(("192.0.2.1", "rita@x.test"), ("192.0.2.1", "otto@x.test")));
        assert!(!same(("192.0.2.1", "rita@x.test"), ("192.0.2.2", "rita@x.test")));
        assert!(!same(("192.0.2.1", "1@x.test"), ("192.0.2.11", "@x.test")));
    }

    #[test]
    fn an_ipv6_peer_is_its_64_network() {
        assert!(same(("2001:db8:0:1::1", "a@x.test"), ("2001:db8:0:1:ffff:ffff:ffff:ffff", "a@x.test")));
        assert!(!same(("2001:db8:0:1::1", "a@x.test"), ("2001:db8:0:2::1", "a@x.test")));
    }

    #[test]
    fn another_key_gives_another_subject() {
        let place = network("192.0.2.1".parse().unwrap());
        assert_ne!(subject("key", &place, "a@x.test"), subject("other", &place, "a@x.test"));
    }

    #[test]
    fn waits_are_rounded_up() {
        let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
        for (micros, seconds) in [(1, 1), (1_000_000, 1), (1_000_001, 2), (872_000_001, 873), (900_000_000, 900)] {
            assert_eq!(seconds_until(now + TimeDelta::microseconds(micros), now), seconds);
        }
    }
}
