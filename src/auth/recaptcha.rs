//! reCAPTCHA: whether its verifier believes that a person is signing in.
//!
//! Follows [Google's description](https://developers.google.com/recaptcha/docs/verify). A token counts once. Neither it
//! nor our secret is ever logged.

use std::time::Duration;

use anyhow::{bail, ensure};
use axum::http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::{
    context::Context,
    http::{Error, Result},
};

/// How long the verifier may take.
const WITHIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Verdict {
    success: bool,
    #[serde(default, rename = "error-codes")]
    error_codes: Vec<String>,
}

/// Lets pass when the verifier takes `token`.
///
/// # Errors
/// 400 when there is no token or it is refused; 503 when the verifier cannot be asked, or refuses our secret.
pub async fn verify(ctx: &Context, secret: &SecretString, token: Option<SecretString>) -> Result<()> {
    let refused = || Error::bad_request("reCAPTCHA verification failed.");
    let token = token.ok_or_else(refused)?;
    match ask(ctx, secret, &token).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused()),
        Err(fault) => {
            tracing::error!(error = format!("{fault:#}"), "reCAPTCHA is unavailable");
            Err(Error::refused(StatusCode::SERVICE_UNAVAILABLE, "reCAPTCHA is unavailable. Please try again."))
        }
    }
}

async fn ask(ctx: &Context, secret: &SecretString, token: &SecretString) -> anyhow::Result<bool> {
    let form = [("secret", secret.expose_secret()), ("response", token.expose_secret())];
    let request = ctx.http.post(&ctx.settings.recaptcha_verify_uri).form(&form).timeout(WITHIN);
    let answer =
        request.send().await.and_then(|answer| answer.error_for_status()).map_err(|error| error.without_url())?;
    let answer = answer.bytes().await.map_err(|error| error.without_url())?;
    let Ok(verdict) = serde_json::from_slice::<Verdict>(&answer) else {
        // The error's own text may quote the answer.
        bail!("the verifier's answer cannot be read");
    };
    let ours = ["missing-input-secret", "invalid-input-secret"];
    let is_ours = verdict.error_codes.iter().any(|code| ours.contains(&code.as_str()));
    ensure!(!is_ours, "the verifier refuses RECAPTCHA_SECRET_KEY");
    Ok(verdict.success)
}
