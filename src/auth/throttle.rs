//! Limits guesses, counted in the database and so for all servers together: [`FAILURES`] wrong passwords (or unknown
//! emails) for an email from a peer in [`WINDOW`], and [`FAILURES_OF_A_PEER`] over all emails.
//!
//! An attempt is counted before its password is checked, and taken back if it was no failure. So parallel attempts
//! allow no more guesses than successive ones. The count is by peer, so nobody can lock out somebody who comes from
//! elsewhere. The peer is an IPv4 address or an IPv6 /64 network, which is what one connection has. Some customers have a
//! whole /48 network, but some providers put thousands into one: it may have the failures of ten peers.
//!
//! A peer in `TRUSTED_CLIENTS` signs in for many people, who would lock each other out. There nobody is throttled.
//! Instead each attempt waits, longer with every failure of its email. The waits run side by side: an attempt that had to
//! wait for the other ones' waits would be shut out by them.

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use secrecy::SecretString;

use super::{KnownBrowser, store};
use crate::{
    context::Context,
    gate::{Flow, Lane},
    http::{Error, Result, peer::is_in},
    secret::mac,
};

/// After this many failures of an email that still count, further attempts are refused.
const FAILURES: i64 = 20;
/// The same for all e-mails of a peer together.
const FAILURES_OF_A_PEER: i64 = 200;
/// The same for all peers of an IPv6 /48 network together.
const FAILURES_OF_A_NETWORK: i64 = 10 * FAILURES_OF_A_PEER;
/// How long a failure counts.
pub const WINDOW: TimeDelta = TimeDelta::minutes(15);
/// What each failure adds to the wait of an attempt from a trusted client: 10 s after 20 of them, and no more.
const DELAY: Duration = Duration::from_millis(500);

/// The counts of one e-mail, whatever its case, from one peer.
pub struct Throttle {
    ctx: Context,
    email: Vec<u8>,
    /// `None` for a trusted client.
    peer: Option<Peer>,
}

/// Where an attempt comes from, as subjects of counts.
struct Peer {
    id: Vec<u8>,
    /// The /48 network of an IPv6 peer; an IPv4 peer is its own.
    network: Vec<u8>,
}

/// An attempt that is counted as a failure until it is known to be none.
pub struct Attempt(DateTime<Utc>);

impl Throttle {
    pub fn of(ctx: &Context, peer: IpAddr, email: &str) -> Self {
        let subject = |place: &str, email| subject(&ctx.settings.secret_key, place, email);
        let (place, peer) = match is_in(&ctx.settings.trusted_clients, peer) {
            true => ("trusted clients".to_owned(), None),
            false => {
                let [id, network] = [64, 48].map(|length| subject(&network(peer, length), ""));
                (self::network(peer, 64), Some(Peer { id, network }))
            }
        };
        Throttle { ctx: ctx.clone(), email: subject(&place, email), peer }
    }

    /// Whose turn an attempt takes: its peer's. At a trusted client it is the browser's or, as far as it is unknown, the
    /// email's.
    pub fn flow(&self, browser: Option<KnownBrowser>) -> Flow {
        let account = browser.map(|browser| browser.account);
        match &self.peer {
            Some(Peer { id, network }) => {
                Flow { id: id.clone(), network: network.clone(), lane: Lane::Strangers, account }
            }
            None => {
                let id = account.as_ref().unwrap_or(&self.email).clone();
                Flow { account, ..Flow::new(id, Lane::TrustedClients) }
            }
        }
    }

    /// How long an attempt waits before its turn.
    pub async fn delay(&self) -> Result<Duration> {
        if self.peer.is_some() {
            return Ok(Duration::ZERO);
        }
        let since = self.ctx.clock.now() - WINDOW;
        Ok(delay_after(store::attempts(&self.ctx.db.reserved(), &self.email, since).await?))
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
        let (subjects, most) = self.counts();
        match store::oldest_if_full(&self.ctx.db.reserved(), &subjects, &most, now - WINDOW).await? {
            Some(oldest) => Err(Error::throttled_until(oldest + WINDOW, now)),
            None => Ok(()),
        }
    }

    /// Counts an attempt, under its peer and its email or not at all.
    ///
    /// # Errors
    /// [`Error::Throttled`] after too many failures; it is not counted then, nor when the database fails.
    pub async fn attempt(&self) -> Result<Attempt> {
        let now = self.ctx.clock.now();
        let (db, always) = (&self.ctx.db.reserved(), self.peer.is_none());
        let (subjects, most) = self.counts();
        match store::count_attempt(db, &subjects, &most, now, now - WINDOW, always).await {
            Ok(true) => return Ok(Attempt(now)),
            Ok(false) => {}
            Err(fault) => {
                // Perhaps it has been counted, and only the answer was lost.
                self.take_back(Attempt(now)).await;
                return Err(fault.into());
            }
        }
        self.check().await?;
        // Somebody has just come in or taken an attempt back.
        Err(Error::Throttled { retry_after: 1 })
    }

    /// An attempt was none: no password was found wrong. A database that is away for a moment learns it later, so that
    /// it does not use up the peer's guesses.
    pub async fn take_back(&self, attempt: Attempt) {
        self.write(attempt, false).await;
    }

    /// Forgets all failures of the e-mail, after a success; those of the peer's others stay.
    pub async fn reset(&self, attempt: Attempt) {
        self.write(attempt, true).await;
    }

    async fn write(&self, Attempt(at): Attempt, is_success: bool) {
        let subjects: Vec<_> = self.counts().0.into_iter().map(<[u8]>::to_vec).collect();
        let email = self.email.clone();
        let write = move |ctx: Context| {
            let (subjects, email) = (subjects.clone(), email.clone());
            async move {
                let db = &ctx.db.reserved();
                store::take_attempt_back(db, &subjects, at).await?;
                if is_success {
                    store::forget_attempts(db, &email).await?;
                }
                Ok(())
            }
        };
        self.ctx.persist("that a sign-in was no failure", write).await;
    }

    /// What an attempt is counted under, and how many may fail. The widest comes first: those who count wait there.
    fn counts(&self) -> (Vec<&[u8]>, Vec<i64>) {
        let network = self.peer.as_ref().filter(|peer| peer.network != peer.id);
        let network = network.map(|peer| (&*peer.network, FAILURES_OF_A_NETWORK));
        let peer = self.peer.as_ref().map(|peer| (&*peer.id, FAILURES_OF_A_PEER));
        network.into_iter().chain(peer).chain([(&*self.email, FAILURES)]).unzip()
    }
}

fn delay_after(failures: i64) -> Duration {
    DELAY * u32::try_from(failures.min(FAILURES)).unwrap_or_default()
}

/// An IPv4 address, or an IPv6 network of this length.
fn network(peer: IpAddr, length: u8) -> String {
    IpNet::new_assert(peer, if peer.is_ipv4() { 32 } else { length }).trunc().to_string()
}

/// Reveals nothing about peer and email to a reader of the database without the key. The one for all emails has an
/// empty email.
fn subject(key: &SecretString, place: &str, email: &str) -> Vec<u8> {
    mac(key, "interviews login throttle v1", format!("{place}\0{}", email.to_lowercase()).as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: (&str, &str), other: (&str, &str)) -> bool {
        let of = |(peer, email): (&str, &str)| subject(&"key".into(), &network(peer.parse().unwrap(), 64), email);
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
    fn an_ipv6_address_is_its_64_network_and_that_belongs_to_a_48_network() {
        assert!(same(("2001:db8:0:1::1", "a@x.test"), ("2001:db8:0:1:ffff:ffff:ffff:ffff", "a@x.test")));
        assert!(!same(("2001:db8:0:1::1", "a@x.test"), ("2001:db8:0:2::1", "a@x.test")));
        let peer = |text: &str| network(text.parse().unwrap(), 48);
        assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:ffff::1"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:1:1::1"));
    }

    #[test]
    fn another_key_gives_another_subject() {
        let place = network("192.0.2.1".parse().unwrap(), 64);
        assert_ne!(subject(&"key".into(), &place, "a@x.test"), subject(&"other".into(), &place, "a@x.test"));
    }

    #[test]
    fn at_a_trusted_client_a_failure_delays_by_half_a_second_up_to_ten() {
        for (failures, millis) in [(0, 0), (1, 500), (6, 3000), (20, 10_000), (250, 10_000)] {
            assert_eq!(delay_after(failures), Duration::from_millis(millis), "after {failures}");
        }
    }

    #[test]
    fn waits_are_rounded_up() {
        let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
        for (micros, seconds) in [(1, 1), (1_000_000, 1), (1_000_001, 2), (872_000_001, 873), (900_000_000, 900)] {
            let refusal = Error::throttled_until(now + TimeDelta::microseconds(micros), now);
            assert!(matches!(refusal, Error::Throttled { retry_after } if retry_after == seconds), "{refusal:?}");
        }
    }
}
