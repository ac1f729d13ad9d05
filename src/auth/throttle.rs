//! How often one may guess: [`FAILURES`] wrong passwords (or unknown e-mails) for an e-mail from a peer in [`WINDOW`],
//! counted in the database, so by all servers together.
//!
//! An attempt is counted before its password is looked at, and taken back when it turns out to be none, so that many at
//! the same time guess no more often than one after the other. The count is by peer too: nobody can shut out somebody
//! who comes from elsewhere. An IPv6 peer is its /64 network, which is what one customer gets.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use secrecy::ExposeSecret;

use super::store;
use crate::{
    context::Context,
    http::{Error, Result},
};

/// So many failures that still count, and no further attempt is let in.
const FAILURES: i64 = 20;
/// How long a failure counts.
pub const WINDOW: TimeDelta = TimeDelta::minutes(15);

/// The count of one e-mail, whatever its case, from one peer.
pub struct Throttle {
    ctx: Context,
    subject: Vec<u8>,
}

/// An attempt that is counted as a failure until it is known to be none.
pub struct Attempt(DateTime<Utc>);

impl Throttle {
    pub fn of(ctx: &Context, peer: IpAddr, email: &str) -> Self {
        Throttle { ctx: ctx.clone(), subject: subject(ctx.settings.secret_key.expose_secret(), peer, email) }
    }

    /// Counts nothing.
    ///
    /// # Errors
    /// [`Error::Throttled`] after too many failures.
    pub async fn check(&self) -> Result<()> {
        let now = self.ctx.clock.now();
        let oldest = store::oldest_if_full(&self.ctx.db.reserved(), &self.subject, now - WINDOW, FAILURES).await?;
        match oldest {
            Some(oldest) => Err(Error::Throttled { retry_after: seconds_until(oldest + WINDOW, now) }),
            None => Ok(()),
        }
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// [`Error::Throttled`] after too many failures; then it is not counted.
    pub async fn attempt(&self) -> Result<Attempt> {
        let now = self.ctx.clock.now();
        let db = &self.ctx.db.reserved();
        if store::count_attempt(db, &self.subject, now, now - WINDOW, FAILURES).await? {
            return Ok(Attempt(now));
        }
        let oldest = store::oldest_if_full(db, &self.subject, now - WINDOW, FAILURES).await?;
        // None: somebody has just come in or taken an attempt back.
        let retry_after = oldest.map_or(1, |oldest| seconds_until(oldest + WINDOW, now));
        Err(Error::Throttled { retry_after })
    }

    /// An attempt was none: no password was found wrong.
    pub async fn take_back(&self, Attempt(at): Attempt) -> Result<()> {
        Ok(store::take_attempt_back(&self.ctx.db.reserved(), &self.subject, at).await?)
    }

    /// Forgets all failures, after a success.
    pub async fn reset(&self) -> Result<()> {
        Ok(store::forget_attempts(&self.ctx.db.reserved(), &self.subject).await?)
    }
}

/// Says nothing about peer and e-mail to whoever reads the database without the key.
fn subject(key: &str, peer: IpAddr, email: &str) -> Vec<u8> {
    let network = IpNet::new_assert(peer, if peer.is_ipv4() { 32 } else { 64 }).trunc();
    // No token's text begins so, whose signatures are under the same key.
    let text = format!("interviews login throttle v1\0{network}\0{}", email.to_lowercase());
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
        let of = |(peer, email): (&str, &str)| subject("key", peer.parse().unwrap(), email);
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
        let peer = "192.0.2.1".parse().unwrap();
        assert_ne!(subject("key", peer, "a@x.test"), subject("other", peer, "a@x.test"));
    }

    #[test]
    fn waits_are_rounded_up() {
        let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
        for (micros, seconds) in [(1, 1), (1_000_000, 1), (1_000_001, 2), (872_000_001, 873), (900_000_000, 900)] {
            assert_eq!(seconds_until(now + TimeDelta::microseconds(micros), now), seconds);
        }
    }
}
