//! How a call to Google fails, and when it is made again (contract §9.6).
//!
//! Promises: no more than four attempts, none of them for longer than 8 s, and an end by the caller's deadline.

use std::{fmt::Display, time::Duration};

use axum::http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use crate::{clock::random_bytes, context::Context, metrics::GoogleOutcome};

/// One attempt at a call to Google.
const ATTEMPT: Duration = Duration::from_secs(8);

/// Before the second, third and fourth attempt.
pub const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// How an attempt at a call to Google failed.
#[derive(Debug)]
pub enum Setback {
    /// No answer, an unreadable one, or one that asks to come back: the next attempt may succeed.
    Passing {
        why: String,
        retry_after: Option<Duration>,
        /// No status came: the call may be under way still, and arrive late.
        unanswered: bool,
    },
    /// An answer that would be the same again. `reason` is Google's code for it, empty when unknown or no mere word.
    Refused { status: StatusCode, reason: String },
}

impl Setback {
    pub fn passing(why: impl Display) -> Self {
        Setback::Passing { why: why.to_string(), retry_after: None, unanswered: true }
    }

    /// An answer that came, and says nothing.
    pub fn unreadable(why: &str) -> Self {
        Setback::Passing { why: why.to_owned(), retry_after: None, unanswered: false }
    }

    /// Reads an error status of Google (contract §9.6).
    pub fn of(status: StatusCode, headers: &HeaderMap, reason: &str) -> Self {
        // It is logged: whatever else stands there may quote the request, and that has tokens.
        let is_word = reason.len() <= 64 && reason.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let reason = if is_word { reason } else { "" };
        let rate_limited = matches!(reason, "rateLimitExceeded" | "userRateLimitExceeded");
        match status {
            StatusCode::TOO_MANY_REQUESTS => {}
            StatusCode::FORBIDDEN if rate_limited => {}
            status if status.is_server_error() => {}
            _ => return Setback::Refused { status, reason: reason.to_owned() },
        }
        let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        Setback::Passing { why: format!("{status} {reason}"), retry_after, unanswered: false }
    }
}

/// Makes a call to Google: up to four attempts, with growing waits or those that Google asks for, until `deadline`.
/// What comes back as `Passing` was tried long enough.
pub async fn retrying<T, F>(
    ctx: &Context,
    deadline: Instant,
    operation: &'static str,
    attempt: impl Fn() -> F,
) -> Result<T, Setback>
where
    F: Future<Output = Result<T, Setback>>,
{
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut waits = WAITS.into_iter();
    loop {
        if left().is_zero() {
            return Err(Setback::passing("no time left"));
        }
        let attempt = tokio::time::timeout(left().min(ATTEMPT), attempt()).await;
        let outcome = match &attempt {
            Ok(Ok(_)) => GoogleOutcome::Ok,
            Ok(Err(Setback::Refused { .. })) => GoogleOutcome::Refused,
            Ok(Err(Setback::Passing { .. })) => GoogleOutcome::Failed,
            Err(_) => GoogleOutcome::Timeout,
        };
        ctx.metrics.google(operation, outcome);
        let setback = match attempt {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(setback)) => setback,
            Err(_) => Setback::passing("no answer in time"),
        };
        let retry_after = match &setback {
            Setback::Passing { why, retry_after, .. } => {
                tracing::warn!(operation, why, "a call to Google failed");
                *retry_after
            }
            Setback::Refused { status, reason } => {
                tracing::info!(operation, %status, reason, "Google refused a call");
                return Err(setback);
            }
        };
        // Between 3/4 and 5/4, so that many who failed together do not come back together.
        let jitter = 0.75 + f64::from(random_bytes::<1>()[0]) / 512.0;
        let Some(wait) = waits.next().map(|wait| wait.mul_f64(jitter)) else { return Err(setback) };
        let wait = retry_after.filter(|asked| *asked < left()).unwrap_or(wait);
        if wait >= left() {
            return Err(setback);
        }
        ctx.clock.sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use chrono::DateTime;

    use super::{super::tests::context, *};
    use crate::clock::Clock;

    #[test]
    fn what_may_help_is_tried_again_and_nothing_else() {
        let passes = |status: u16, reason: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            matches!(Setback::of(status, &HeaderMap::new(), reason), Setback::Passing { .. })
        };
        for (status, reason) in [
            (429, ""),
            (429, "rateLimitExceeded"),
            (500, "backendError"),
            (503, ""),
            (599, ""),
            (403, "rateLimitExceeded"),
            (403, "userRateLimitExceeded"),
        ] {
            assert!(passes(status, reason), "{status} {reason}");
        }
        for (status, reason) in [
            (400, "badRequest"),
            (401, "authError"),
            (403, ""),
            (403, "quotaExceeded"),
            (403, "forbidden"),
            (404, "notFound"),
            (409, "duplicate"),
            (410, "deleted"),
            (412, "rateLimitExceeded"),
            (302, ""),
        ] {
            assert!(!passes(status, reason), "{status} {reason}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().expect("a header"))]);
            match Setback::of(StatusCode::TOO_MANY_REQUESTS, &headers, "") {
                Setback::Passing { retry_after, .. } => retry_after,
                Setback::Refused { .. } => panic!("429 passes"),
            }
        };
        assert_eq!(asked("3"), Some(Duration::from_secs(3)));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
    }

    fn passing(retry_after: Duration) -> Setback {
        Setback::Passing { why: String::new(), retry_after: Some(retry_after), unanswered: false }
    }

    /// What four failing attempts with this setback come to, and how many there were.
    async fn attempts(ctx: &Context, budget: Duration, setback: fn() -> Setback) -> (Setback, usize) {
        let count = AtomicUsize::new(0);
        let outcome = retrying(ctx, Instant::now() + budget, "test", || async {
            count.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(setback())
        });
        (outcome.await.expect_err("every attempt fails"), count.into_inner())
    }

    #[tokio::test]
    async fn four_attempts_are_made_and_one_at_what_is_refused() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::manual(DateTime::UNIX_EPOCH));
        let minute = Duration::from_secs(60);
        assert!(matches!(attempts(&ctx, minute, || Setback::passing("x")).await, (Setback::Passing { .. }, 4)));
        let refused = || Setback::Refused { status: StatusCode::NOT_FOUND, reason: String::new() };
        assert!(matches!(attempts(&ctx, minute, refused).await, (Setback::Refused { .. }, 1)));
    }

    #[tokio::test]
    async fn no_attempt_is_made_when_the_wait_for_it_outlasts_the_budget() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::manual(DateTime::UNIX_EPOCH));
        let millis = Duration::from_millis;
        assert_eq!(attempts(&ctx, millis(300), || Setback::passing("x")).await.1, 1);
        assert_eq!(attempts(&ctx, Duration::ZERO, || Setback::passing("x")).await.1, 0);
        // A Retry-After that does not fit is not waited for; the usual waits are.
        let late = || passing(Duration::from_secs(3600));
        assert_eq!(attempts(&ctx, Duration::from_secs(60), late).await.1, 4);
    }

    #[tokio::test]
    async fn a_retry_after_that_fits_is_waited_for() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::System);
        let begun = Instant::now();
        let soon = || passing(Duration::from_millis(20));
        assert_eq!(attempts(&ctx, Duration::from_secs(60), soon).await.1, 4);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(60) && took < Duration::from_millis(500), "{took:?}");
    }
}
