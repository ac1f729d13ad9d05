//! Time and randomness: the only callers of the system's clock and of its random generator.
//!
//! Everything else asks a [`Clock`], so a test can move time by hand, and takes random bytes from here, so one place
//! decides where they come from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};

/// What time it is: the system's, or a test's.
#[derive(Clone, Debug)]
pub enum Clock {
    System,
    /// Microseconds since the Unix epoch, moved by [`Clock::advance`] alone.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `now`.
    pub fn manual(now: DateTime<Utc>) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(now.timestamp_micros())))
    }

    /// The present instant, in whole microseconds: what PostgreSQL can keep.
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn now(&self) -> DateTime<Utc> {
        let micros = match self {
            Clock::System => Utc::now().timestamp_micros(),
            Clock::Manual(micros) => micros.load(Ordering::SeqCst),
        };
        DateTime::from_timestamp_micros(micros).unwrap_or_default()
    }

    /// Moves a manual clock; the system's clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(micros) = self {
            micros.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock; the system's clock stays as it is.
    pub fn set(&self, now: DateTime<Utc>) {
        if let Clock::Manual(micros) = self {
            micros.store(now.timestamp_micros(), Ordering::SeqCst);
        }
    }

    /// Waits for `duration`; with a manual clock only for a moment, so that retries cost a test no time.
    pub async fn sleep(&self, duration: Duration) {
        let duration = match self {
            Clock::System => duration,
            Clock::Manual(_) => duration.min(Duration::from_millis(5)),
        };
        tokio::time::sleep(duration).await;
    }
}

/// Cryptographically secure random bytes from the operating system.
#[allow(clippy::disallowed_methods, reason = "the one place that asks the system")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has a random generator");
    bytes
}

/// A random (version 4) UUID.
pub fn random_uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid()
}
