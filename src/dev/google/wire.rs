//! A call as it arrives and an answer as it leaves: reading and Google's error bodies, nothing of what they mean.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::Call;

/// A request, read once.
pub(super) struct Incoming {
    pub call: Call,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub form: Vec<(String, String)>,
    pub body: Bytes,
}

impl Incoming {
    pub fn has_content_type(&self, media_type: &str) -> bool {
        let given = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
    }

    /// The credentials after a scheme in `Authorization`.
    pub fn authorization(&self, scheme: &str) -> Option<&str> {
        let (given, credentials) = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        given.eq_ignore_ascii_case(scheme).then_some(credentials)
    }

    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as it is shown to people and tests.
    pub fn recorded_body(&self) -> Value {
        if !self.call.is_oauth() {
            return self.json().unwrap_or_default();
        }
        let shown = |(name, value): &(String, String)| {
            let secret = matches!(&**name, "code" | "code_verifier" | "refresh_token" | "client_secret" | "token");
            let kind = ["ya29.", "1//", "4/"].into_iter().find(|kind| value.starts_with(kind)).unwrap_or_default();
            (name.clone(), Value::String(if secret { format!("{kind}…") } else { value.clone() }))
        };
        Value::Object(self.form.iter().map(shown).collect())
    }
}

/// An answer of the OAuth server or of the API.
pub(super) struct Reply {
    pub status: u16,
    /// Null: no body.
    pub body: Value,
    pub retry_after: Option<u32>,
}

impl Reply {
    pub fn new(status: u16, body: Value) -> Reply {
        Reply { status, body, retry_after: None }
    }

    /// The Calendar API's error body, <https://developers.google.com/workspace/calendar/api/guides/errors>.
    pub fn api_error(status: u16, domain: &str, reason: &str, message: &str) -> Reply {
        let mut entry = json!({"domain": domain, "reason": reason, "message": message});
        if status == 401 {
            entry["locationType"] = "header".into();
            entry["location"] = "Authorization".into();
        }
        Reply::new(status, json!({"error": {"errors": [entry], "code": status, "message": message}}))
    }

    /// RFC 6749 section 5.2.
    pub fn oauth_error(status: u16, error: &str, description: &str) -> Reply {
        Reply::new(status, json!({"error": error, "error_description": description}))
    }

    /// An error that quotes all of a request wherever an error has words.
    pub fn echo(incoming: &Incoming, status: u16) -> Reply {
        let authorization = incoming.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let body = String::from_utf8_lossy(&incoming.body);
        let quoted = format!("{} {body} {:?}", authorization.unwrap_or_default(), incoming.form);
        match incoming.call.is_oauth() {
            true => Reply::oauth_error(status, &quoted, &quoted),
            false => Reply::api_error(status, &quoted, &quoted, &quoted),
        }
    }

    /// What a fault of this status answers.
    pub fn ordered(call: Call, status: u16, reason: Option<&str>, retry_after: Option<u32>) -> Reply {
        let (usual, usual_oauth, message) = match status {
            400 => ("badRequest", "invalid_grant", "Bad Request"),
            401 => ("authError", "invalid_client", "Invalid Credentials"),
            403 => ("forbidden", "access_denied", "Forbidden"),
            404 => ("notFound", "not_found", "Not Found"),
            409 => ("duplicate", "conflict", "The requested identifier already exists."),
            410 => ("deleted", "deleted", "Resource has been deleted"),
            412 => ("conditionNotMet", "condition_not_met", "Precondition Failed"),
            429 => ("rateLimitExceeded", "rate_limit_exceeded", "Rate Limit Exceeded"),
            402..=499 => ("badRequest", "invalid_request", "Bad Request"),
            503 => ("backendError", "temporarily_unavailable", "Service Unavailable"),
            _ => ("backendError", "internal_failure", "Backend Error"),
        };
        let mut reply = if call.is_oauth() {
            Reply::oauth_error(status, reason.unwrap_or(usual_oauth), message)
        } else {
            let reason = reason.unwrap_or(usual);
            let message = match reason {
                "rateLimitExceeded" => "Rate Limit Exceeded",
                "userRateLimitExceeded" => "User Rate Limit Exceeded",
                "quotaExceeded" => "Calendar usage limits exceeded.",
                _ => message,
            };
            let domain = if reason.ends_with("Exceeded") { "usageLimits" } else { "global" };
            Reply::api_error(status, domain, reason, message)
        };
        reply.retry_after = retry_after;
        reply
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match self.body {
            Value::Null => status.into_response(),
            body => {
                (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string()).into_response()
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == 401 {
            let realm =
                HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, realm);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
