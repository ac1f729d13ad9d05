//! One sign-in, from its fields to an account: its turn at the gate, the count of failures, the password.
//!
//! The order matters. An attempt gets its permit before any statement runs, so a crowd that finds no permit costs nothing
//! and leaves no row. It is counted before its password is checked, so parallel attempts allow no more guesses. The
//! answer to a wrong password is delayed until its time reveals nothing. Its place is taken until then, for the next
//! attempt of its flow would tell as well when it ended; its core is free, so that others get in. One thing remains:
//! whoever fills all cores can see from another network when one becomes free.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;

use super::{Account, KnownBrowser, password, recaptcha, store, throttle::Throttle};
use crate::{
    context::Context,
    gate::{PATIENCE, Permit, Place},
    http::{Error, Result},
    metrics::LoginOutcome,
    telemetry::masked,
};

const BUSY: Error =
    Error::Busy { detail: "Too many sign-ins at once. Please try again.", retry_after: PATIENCE.as_secs() };

/// What a sign-in sends, trimmed and well-formed.
#[derive(Debug, ToSchema)]
#[schema(examples(json!({"email": "rita@x.test", "password": "Passw0rd!x"})))]
pub struct Credentials {
    /// Compared case-sensitively.
    #[schema(format = Email)]
    pub email: String,
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
    /// Where reCAPTCHA is configured.
    #[schema(rename = "recaptchaToken", value_type = Option<String>)]
    pub recaptcha_token: Option<SecretString>,
}

impl Credentials {
    /// # Errors
    /// 400 in Django's words, with all wrong fields together.
    pub fn parse(body: &Value) -> Result<Self> {
        let refused = |errors: Value| Error::Body(StatusCode::BAD_REQUEST, errors);
        let fields = match body {
            Value::Object(fields) => fields,
            Value::Null => return Err(refused(json!({ "non_field_errors": ["No data provided"] }))),
            other => {
                let text = format!("Invalid data. Expected a dictionary, but got {}.", python_type(other));
                return Err(refused(json!({ "non_field_errors": [text] })));
            }
        };
        let email = text_field(fields, "email").and_then(|email| match is_email(&email) {
            true => Ok(email),
            false => Err("Enter a valid email address."),
        });
        match (email, text_field(fields, "password")) {
            (Ok(email), Ok(password)) => {
                let token = fields.get("recaptchaToken").and_then(Value::as_str).map(trimmed);
                let recaptcha_token = token.filter(|token| !token.is_empty()).map(Into::into);
                Ok(Credentials { email, password: password.into(), recaptcha_token })
            }
            (email, password) => {
                let faults = [("email", email.err()), ("password", password.err())];
                let faults = faults.into_iter().filter_map(|(field, fault)| Some((field.into(), json!([fault?]))));
                Err(refused(Value::Object(faults.collect())))
            }
        }
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn text_field(fields: &Map<String, Value>, name: &str) -> Result<String, &'static str> {
    let text = match fields.get(name) {
        None => return Err("This field is required."),
        Some(Value::Null) => return Err("This field may not be null."),
        Some(Value::String(text)) => trimmed(text).to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err("Not a valid string."),
    };
    match text {
        text if text.is_empty() => Err("This field may not be blank."),
        text if text.contains('\0') => Err("Null characters are not allowed."),
        text => Ok(text),
    }
}

/// Without what Python's `str.strip` takes away: Unicode's white space and four separators.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// An address that mail can go to, in a domain with a dot and a last label of two characters or more.
pub(super) fn is_email(text: &str) -> bool {
    text.parse::<lettre::Address>().is_ok_and(|address| {
        address.domain().starts_with('[') || address.domain().rsplit_once('.').is_some_and(|(_, last)| last.len() > 1)
    })
}

/// Why an email and a password were rejected.
enum Refusal {
    Wrong,
    UnsupportedHash,
    Deleted,
    Inactive,
}

/// A refusal that would tell what is stored, if it were sent, or let another attempt in, before its time.
struct PendingRefusal {
    refusal: Refusal,
    until: Instant,
    _place: Place,
}

/// The account that these credentials sign in to.
///
/// # Errors
/// Every row of contract §4.1's table from the throttle on.
pub async fn sign_in(ctx: &Context, peer: IpAddr, headers: &HeaderMap, credentials: Credentials) -> Result<Account> {
    let email = masked(&credentials.email);
    let ended = attempt(ctx, peer, headers, credentials).await;
    let outcome = match &ended {
        Ok(Ok(_)) => LoginOutcome::Success,
        Ok(Err(refusal)) => refusal.outcome(),
        Err(Error::Throttled { .. }) => LoginOutcome::Throttled,
        Err(Error::Busy { .. }) => LoginOutcome::Busy,
        // reCAPTCHA, or a fault: told where they are met.
        Err(_) => return ended?.map_err(Refusal::into),
    };
    ctx.metrics.login(outcome);
    tracing::info!(email, %peer, outcome = outcome.as_str(), "sign-in");
    ended?.map_err(Refusal::into)
}

async fn attempt(
    ctx: &Context,
    peer: IpAddr,
    headers: &HeaderMap,
    credentials: Credentials,
) -> Result<Result<Account, Refusal>> {
    let Credentials { email, password, recaptcha_token } = credentials;
    let throttle = Throttle::of(ctx, peer, &email);
    if let Some(secret) = &ctx.settings.recaptcha_secret_key {
        throttle.check().await?;
        recaptcha::verify(ctx, secret, recaptcha_token).await?;
    }
    let delay = throttle.delay().await?;
    if !delay.is_zero() {
        ctx.stopping.run_until_cancelled(sleep(delay)).await.ok_or(BUSY)?;
    }
    let flow = throttle.flow(KnownBrowser::of(headers, ctx));
    let permit = ctx.hashing.permit(flow).await.ok_or(BUSY)?;
    // It runs to its end even if the client disconnects, so that only failures stay counted, and none ends early.
    ctx.to_its_end("a sign-in", judge(ctx.clone(), throttle, permit, email, password)).await?
}

/// Looks at the password, and counts it as a failure if it is one. A refusal comes when it may.
async fn judge(
    ctx: Context,
    throttle: Throttle,
    permit: Permit,
    email: String,
    password: SecretString,
) -> Result<Result<Account, Refusal>> {
    let attempt = throttle.attempt().await?;
    let entered = enter(&ctx, permit, &email, password).await;
    match &entered {
        Ok(Ok(_)) => throttle.reset(attempt).await,
        Ok(Err(PendingRefusal { refusal: Refusal::Wrong | Refusal::UnsupportedHash, .. })) => {}
        Ok(Err(PendingRefusal { refusal: Refusal::Deleted | Refusal::Inactive, .. })) | Err(_) => {
            throttle.take_back(attempt).await;
        }
    }
    match entered? {
        Ok(account) => Ok(Ok(account)),
        Err(pending) => {
            sleep_until(pending.until).await;
            Ok(Err(pending.refusal))
        }
    }
}

/// The account that email and password sign in to, with the stored hash that they matched.
async fn enter(
    ctx: &Context,
    permit: Permit,
    email: &str,
    password: SecretString,
) -> Result<Result<Account, PendingRefusal>> {
    let account = store::account_by_email(&ctx.db.reserved(), email).await?;
    let stored = account.as_ref().map(|account| account.password.clone());
    let (permit, verdict) = password::verify(permit, password.clone(), stored).await?;
    let refused = |permit: Permit, refusal| {
        Ok(Err(PendingRefusal { refusal, until: verdict.refused_at, _place: permit.free_core() }))
    };
    let Some(mut account) = account.filter(|_| verdict.right) else {
        return refused(permit, if verdict.is_unsupported { Refusal::UnsupportedHash } else { Refusal::Wrong });
    };
    if account.is_deleted {
        return refused(permit, Refusal::Deleted);
    }
    if !account.is_active {
        return refused(permit, Refusal::Inactive);
    }
    if let Some(strong) = verdict.upgrade {
        let (id, weak) = (account.user.id, &account.password);
        let is_stored = store::upgrade_password(&ctx.db.reserved(), id, weak, &strong).await?;
        if !is_stored {
            // Another sign-in has upgraded it, or somebody has changed it: what is stored now decides.
            return Box::pin(enter(ctx, permit, email, password)).await;
        }
        account.password = strong;
    }
    Ok(Ok(account))
}

impl Refusal {
    fn outcome(&self) -> LoginOutcome {
        match self {
            Refusal::Wrong => LoginOutcome::Wrong,
            Refusal::UnsupportedHash => LoginOutcome::UnsupportedHash,
            Refusal::Deleted => LoginOutcome::Deleted,
            Refusal::Inactive => LoginOutcome::Inactive,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let text = match refusal {
            Refusal::Wrong | Refusal::UnsupportedHash => "Invalid email or password.",
            Refusal::Deleted => "This account has been deleted. Please contact support.",
            Refusal::Inactive => return Error::forbidden("Email not verified."),
        };
        Error::Body(StatusCode::BAD_REQUEST, json!({ "non_field_errors": [text] }))
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, response::IntoResponse};
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::http::extract::any_json;

    /// The 400 that a sign-in body gets.
    async fn refusal(body: Value) -> Value {
        let response = Credentials::parse(&body).unwrap_err().into_response();
        assert_eq!(response.status(), 400);
        serde_json::from_slice(&to_bytes(response.into_body(), 1000).await.unwrap()).unwrap()
    }

    fn accepted(email: Value, password: Value) -> (String, String) {
        let Credentials { email, password, .. } =
            Credentials::parse(&json!({ "email": email, "password": password, "more": 1 })).unwrap();
        (email, password.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn a_body_that_is_no_object_is_named_in_pythons_words() {
        for (body, name) in
            [(json!([]), "list"), (json!("x"), "str"), (json!(1), "int"), (json!(1.5), "float"), (json!(true), "bool")]
        {
            let text = format!("Invalid data. Expected a dictionary, but got {name}.");
            assert_eq!(refusal(body).await, json!({ "non_field_errors": [text] }));
        }
        assert_eq!(refusal(Value::Null).await, json!({ "non_field_errors": ["No data provided"] }));
    }

    #[tokio::test]
    async fn every_wrong_field_is_named_together() {
        let required = json!(["This field is required."]);
        assert_eq!(refusal(json!({})).await, json!({ "email": required, "password": required }));
        assert_eq!(refusal(json!({ "email": "rita@x.test" })).await, json!({ "password": required }));
        for (value, text) in [
            (json!(null), "This field may not be null."),
            (json!(""), "This field may not be blank."),
            (json!(" \t\u{a0}\u{1f}\u{3000}"), "This field may not be blank."),
            (json!(true), "Not a valid string."),
            (json!([]), "Not a valid string."),
            (json!({}), "Not a valid string."),
            (json!("a\0@x.test"), "Null characters are not allowed."),
        ] {
            let both = json!({ "email": [text], "password": [text] });
            assert_eq!(refusal(json!({ "email": value, "password": value })).await, both, "{value}");
        }
        let both = json!({ "email": ["Enter a valid email address."], "password": required });
        assert_eq!(refusal(json!({ "email": 7 })).await, both);
    }

    #[test]
    fn fields_are_trimmed_as_python_does_and_numbers_are_texts() {
        assert_eq!(accepted(json!("\u{1c}\u{85} RITA@x.test\r\n"), json!("\u{2003}pass word\u{a0}")).0, "RITA@x.test");
        assert_eq!(accepted(json!("rita@x.test"), json!("\u{2003}pass word\u{a0}")).1, "pass word");
        // Not white space in Python either.
        assert_eq!(accepted(json!("rita@x.test"), json!("\u{200b}x")).1, "\u{200b}x");
        for (number, text) in
            [(json!(12345678), "12345678"), (json!(-1), "-1"), (json!(1.5), "1.5"), (json!(1e3), "1000.0")]
        {
            assert_eq!(accepted(json!("rita@x.test"), number).1, text);
        }
    }

    #[test]
    fn only_addresses_that_mail_can_go_to_are_emails() {
        for email in
            ["rita@x.test", "R.i+t_a-1@mail.x.test", "o'neil@x.test", "a@bücher.example", "a@1.co", "a@[127.0.0.1]"]
        {
            assert!(is_email(email), "{email}");
        }
        for email in [
            "rita",
            "@x.test",
            "rita@",
            "rita@x",
            "rita@localhost",
            "rita@.test",
            "rita@x.",
            "rita@x.t",
            "rita@x..test",
            "ri ta@x.test",
            "rita@x .test",
            ".rita@x.test",
            "rita.@x.test",
            "ri..ta@x.test",
            "a@b@x.test",
            "rita@-x.test",
            "rita@x-.test",
            "Rita <rita@x.test>",
            "rita@x.test\nBcc: a@x.test",
            "rita@x.test,b@x.test",
        ] {
            assert!(!is_email(email), "{email}");
        }
    }

    #[test]
    fn a_password_is_not_shown_by_debug() {
        let credentials = Credentials::parse(&json!({ "email": "rita@x.test", "password": "hush" })).unwrap();
        assert!(!format!("{credentials:?}").contains("hush"));
    }

    proptest! {
        #[test]
        fn any_json_is_credentials_or_a_400(body in any_json()) {
            match Credentials::parse(&body) {
                Ok(found) => prop_assert!(is_email(&found.email) && !found.password.expose_secret().is_empty()),
                Err(error) => prop_assert!(matches!(error, Error::Body(StatusCode::BAD_REQUEST, _))),
            }
        }
    }
}
