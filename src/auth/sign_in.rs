//! One sign-in, from its fields to an account: its turn at the gate, the count of failures, the password.
//!
//! The order matters. An attempt gets its permit before any statement runs, so a crowd that finds no permit costs nothing
//! and leaves no row. It is counted before its password is checked, so parallel attempts allow no more guesses. The
//! answer to a wrong password is delayed, without a permit, until its time reveals nothing.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Account, Credentials, KnownBrowser, password, recaptcha, store,
    throttle::{Attempt, Throttle},
};
use crate::{
    context::Context,
    gate::{Flow, PATIENCE, Permit},
    http::{Error, Result},
    metrics::LoginOutcome,
    telemetry::masked,
};

const BUSY: Error =
    Error::Busy { detail: "Too many sign-ins at once. Please try again.", retry_after: PATIENCE.as_secs() };

/// Why an email and a password were rejected.
enum Refusal {
    Wrong,
    UnsupportedHash,
    Deleted,
    Inactive,
}

/// The result of checking a password, and the instant before which a refusal must not be sent.
type Judged = (Result<Account, Refusal>, Instant);

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
    tracing::info!(email, %peer, outcome = outcome.label(), "sign-in");
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
    ctx.stopping.run_until_cancelled(sleep(delay)).await.ok_or(BUSY)?;
    let flow = match KnownBrowser::of(headers, &ctx.settings) {
        Some(browser) => Flow { id: browser.id, is_preferred: true },
        None => Flow { id: throttle.flow().to_vec(), is_preferred: false },
    };
    let permit = ctx.hashing.permit(flow).await.ok_or(BUSY)?;
    // It runs to its end even if the client disconnects, so that only failures stay counted.
    let judging = judge(ctx.clone(), throttle, permit, email, password);
    let (judged, refused_at) = ctx.to_its_end("a sign-in", judging).await??;
    if judged.is_err() {
        sleep_until(refused_at).await;
    }
    Ok(judged)
}

/// Looks at the password, and counts it as a failure if it is one.
async fn judge(
    ctx: Context,
    throttle: Throttle,
    permit: Permit,
    email: String,
    password: SecretString,
) -> Result<Judged> {
    let attempt: Attempt = throttle.attempt().await?;
    let judged = enter(&ctx, permit, &email, password).await;
    match &judged {
        Ok((Ok(_), _)) => throttle.reset(attempt).await?,
        Ok((Err(Refusal::Wrong | Refusal::UnsupportedHash), _)) => {}
        Ok((Err(Refusal::Deleted | Refusal::Inactive), _)) | Err(_) => throttle.take_back(attempt).await?,
    }
    judged
}

/// The account that email and password sign in to, with the stored hash that they matched.
async fn enter(ctx: &Context, permit: Permit, email: &str, password: SecretString) -> Result<Judged> {
    let account = store::account_by_email(&ctx.db.reserved(), email).await?;
    let stored = account.as_ref().map(|account| account.password.clone());
    let (permit, verdict) = password::verify(permit, password.clone(), stored).await?;
    let refused = |refusal| Ok((Err(refusal), verdict.refused_at));
    let Some(mut account) = account.filter(|_| verdict.right) else {
        return refused(if verdict.is_unsupported { Refusal::UnsupportedHash } else { Refusal::Wrong });
    };
    if account.is_deleted {
        return refused(Refusal::Deleted);
    }
    if !account.is_active {
        return refused(Refusal::Inactive);
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
    Ok((Ok(account), verdict.refused_at))
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
