//! What a failure of the database means for its connection, for a retry, and for the caller.

use sqlx::{
    Error,
    postgres::{PgDatabaseError, PgSeverity},
};

/// A commit that no answer came to: it may have happened.
#[derive(Debug, thiserror::Error)]
#[error("no answer came to a commit: {0}")]
pub struct Unanswered(#[source] pub Error);

/// `read_only_sql_transaction`.
pub const READ_ONLY: &str = "25006";

/// The SQLSTATE (PostgreSQL's documentation, appendix A), where the server has answered.
pub fn code(error: &Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error()?.code()
}

fn has_code(error: &Error, codes: &[&str]) -> bool {
    code(error).is_some_and(|code| codes.contains(&&*code))
}

/// Whether the connection serves nobody any more.
pub fn is_useless(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) => true,
        Error::Database(_) => has_ended(error) || is_useless_code(code(error).as_deref()) || is_refused(error),
        _ => false,
    }
}

/// Whether the server has ended the session with this error.
fn has_ended(error: &Error) -> bool {
    let of_postgres = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    of_postgres.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// The same by a SQLSTATE; there is none where the server has not answered.
pub fn is_useless_code(code: Option<&str>) -> bool {
    // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped, idle_session_timeout,
    // idle_in_transaction_session_timeout, transaction_timeout; connection exceptions
    let listed = |code| matches!(code, "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04" | READ_ONLY);
    code.is_none_or(|code| listed(code) || code.starts_with("08"))
}

/// Whether the server refused the statement before it did anything, because of its session. Either the server is
/// read-only since a failover, or the statement was prepared for a type that a column no longer has.
pub fn is_refused(error: &Error) -> bool {
    // By the place in PostgreSQL's source: the code says less, and the message is in the server's language.
    let place = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()?.routine());
    has_code(error, &[READ_ONLY]) || place == Some("RevalidateCachedQuery")
}

/// Whether the server has undone it for the sake of another transaction: a serialization failure or a deadlock.
pub fn is_rolled_back(error: &Error) -> bool {
    has_code(error, &["40001", "40P01"])
}

/// Whether the server is likely to accept connections soon.
pub fn is_starting(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        // cannot_connect_now, too_many_connections
        _ => has_code(error, &["57P03", "53300"]),
    }
}

/// Whether a retry is likely to succeed soon: no connection was free, a lock or a statement timed out, or the server is
/// unreachable or read-only.
pub fn is_passing(error: &Error) -> bool {
    match error {
        Error::PoolTimedOut => true,
        // lock_not_available, query_canceled, too_many_connections
        _ => is_useless(error) || is_rolled_back(error) || is_starting(error) || has_code(error, &["55P03", "57014"]),
    }
}

/// Whether a commit has no answer: it must be looked up whether it happened.
pub fn is_unanswered(error: &Error) -> bool {
    matches!(error, Error::AnyDriverError(error) if error.is::<Unanswered>())
}

/// How often something is done once more that had no effect.
pub struct Tries {
    is_read: bool,
    /// After it was rolled back for the sake of another transaction.
    rolled_back: u32,
    /// After a connection was of no use.
    fresh: u32,
}

impl Tries {
    pub fn new(is_read: bool) -> Tries {
        Tries { is_read, rolled_back: 3, fresh: 1 }
    }

    /// What fails before it has any effect.
    pub fn of_read() -> Tries {
        Tries::new(true)
    }

    /// Whether to try once more.
    pub fn again(&mut self, error: &Error) -> bool {
        let left = if is_rolled_back(error) {
            &mut self.rolled_back
        } else if is_refused(error) || self.is_read && is_useless(error) {
            &mut self.fresh
        } else {
            return false;
        };
        let is_left = *left > 0;
        *left = left.saturating_sub(1);
        is_left
    }
}
