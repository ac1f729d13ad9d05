//! One error type for everything a handler can answer instead of success, and one place that words it.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::db::{self, MayBeDatabase};

/// Seconds, in an answer that says the database is busy.
const RETRY_AFTER: u64 = 2;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request was not served. Framework refusals carry `detail` alone, an endpoint's own carry `error`
/// (contract §1: the SPA shows `error`, and words framework refusals itself).
#[derive(Debug)]
pub enum Error {
    /// No `Host`, or two.
    HostNotNamed,
    /// No such URL.
    NotFound,
    MethodNotAllowed(Method),
    NotAcceptable,
    /// The media type as sent, empty when absent.
    UnsupportedMediaType(String),
    /// The body is encoded (compressed), which no body may be; how, as sent.
    UnsupportedEncoding(String),
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    UriTooLong,
    HeadersTooLarge,
    /// The body is not JSON; a free text says where.
    JsonParse(String),
    /// A row of the 401 table of contract §4.3.
    Unauthenticated(Value),
    /// An endpoint's refusal: `{"error": …}` and, for missing rows, `detail`.
    Refused {
        status: StatusCode,
        error: Cow<'static, str>,
        detail: Option<&'static str>,
        /// The body's field or the header that it is about. Clients are not told: it is for pages, which show the error
        /// there.
        field: Option<&'static str>,
    },
    /// A refusal with a body of its own shape.
    Body(StatusCode, Value),
    /// Too many attempts; whole seconds until the next is let in.
    Throttled {
        retry_after: u64,
    },
    /// Too busy for now; seconds to wait.
    Busy {
        detail: &'static str,
        retry_after: u64,
    },
    /// A fault of ours, or a database that is busy or away: answered without its cause, which goes to the log.
    Internal(anyhow::Error),
}

impl Error {
    /// The database is busy or away: nothing was done, and a retry is likely to succeed soon.
    pub const DATABASE_BUSY: Error =
        Error::Busy { detail: "The server is busy. Please try again.", retry_after: RETRY_AFTER };

    pub fn refused(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Error::Refused { status, error: error.into(), detail: None, field: None }
    }

    pub fn bad_request(error: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, error)
    }

    pub fn forbidden(error: &'static str) -> Self {
        Self::refused(StatusCode::FORBIDDEN, error)
    }

    /// A row that does not exist: 404 in Django's words.
    pub fn missing(error: &'static str, detail: &'static str) -> Self {
        Error::Refused { status: StatusCode::NOT_FOUND, error: error.into(), detail: Some(detail), field: None }
    }

    /// Too many, until `then`. The seconds are rounded up: anyone who waits so long gets through.
    pub fn throttled_until(then: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let micros = (then - now).num_microseconds().unwrap_or_default();
        Error::Throttled { retry_after: u64::try_from(micros).unwrap_or_default().div_ceil(1_000_000) }
    }

    /// The same, where it is certain that nothing was done although a commit was not answered.
    pub fn undone(self) -> Self {
        if !db::is_unanswered(&self) {
            return self;
        }
        tracing::error!(error = ?self, "request failed");
        Error::DATABASE_BUSY
    }

    /// The same refusal, about this field of the request; other errors are about none.
    pub fn about(mut self, name: &'static str) -> Self {
        if let Error::Refused { field, .. } = &mut self {
            *field = Some(name);
        }
        self
    }

    /// Of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::HostNotNamed => StatusCode::BAD_REQUEST,
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Error::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Error::UnsupportedMediaType(_) | Error::UnsupportedEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Error::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Error::UriTooLong => StatusCode::URI_TOO_LONG,
            Error::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Error::JsonParse(_) => StatusCode::BAD_REQUEST,
            Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Error::Refused { status, .. } | Error::Body(status, _) => *status,
            Error::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(fault) if db::is_passing(fault) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl MayBeDatabase for Error {
    fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Error::Internal(fault) => fault.database_error(),
            _ => None,
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(fault: E) -> Self {
        Error::Internal(fault.into())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let detail = |text: &str| json!({ "detail": text });
        let wait = |seconds: u64| [(header::RETRY_AFTER, HeaderValue::from(seconds))];
        let body = match self {
            Error::HostNotNamed => detail("A request needs one Host header."),
            Error::NotFound => detail("Not found."),
            Error::MethodNotAllowed(method) => detail(&format!("Method \"{method}\" not allowed.")),
            Error::NotAcceptable => detail("Could not satisfy the request Accept header."),
            Error::UnsupportedMediaType(sent) => detail(&format!("Unsupported media type \"{sent}\" in request.")),
            Error::UnsupportedEncoding(sent) => detail(&format!("Unsupported content encoding \"{sent}\" in request.")),
            Error::BodyTooLarge => detail("Request body too large."),
            Error::BodyTooSlow => {
                // What is still to come of it must not be taken for another request.
                let text = "The request body did not arrive in time.";
                return (status, [(header::CONNECTION, "close")], Json(detail(text))).into_response();
            }
            Error::UriTooLong => detail("Request URI too long."),
            Error::HeadersTooLarge => detail("Request headers too large."),
            Error::JsonParse(text) => detail(&format!("JSON parse error - {text}")),
            Error::Unauthenticated(body) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"api\"")];
                return (status, challenge, Json(body)).into_response();
            }
            Error::Refused { error, detail: None, .. } => json!({ "error": error }),
            Error::Refused { error, detail: Some(detail), .. } => json!({ "error": error, "detail": detail }),
            Error::Body(_, body) => body,
            Error::Throttled { retry_after } => {
                let text = format!("Request was throttled. Expected available in {retry_after} seconds.");
                return (status, wait(retry_after), Json(detail(&text))).into_response();
            }
            Error::Busy { detail: text, retry_after } => {
                return (status, wait(retry_after), Json(detail(text))).into_response();
            }
            Error::Internal(fault) => {
                tracing::error!(error = format!("{fault:#}"), "request failed");
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    return Error::DATABASE_BUSY.into_response();
                }
                detail(match db::is_unanswered(&fault) {
                    true => "It is not known whether this was done. Please check before you try again.",
                    false => "Internal server error.",
                })
            }
        };
        (status, Json(body)).into_response()
    }
}
