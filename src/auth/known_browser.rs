//! Browsers in which somebody has signed in before: they wait for their sign-in in a lane of their own.
//!
//! Such a browser has a cookie from the portal's sign-in. The cookie proves the earlier sign-in, gives access to
//! nothing, and reveals nothing about the account to anyone without `SECRET_KEY`. All browsers of one account in which
//! somebody has signed in on the same day (UTC) have the same. No row remembers it, so nothing but its age ends it.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;

use super::session::{Name, cookie, set_cookie};
use crate::{config::Settings, context::Context, http::Result};

/// As long as browsers keep any cookie (RFC 6265bis, §5.5).
const MAX_AGE_IN_DAYS: i64 = 400;
const DAY: i64 = 24 * 3600;
const NAME: Name = ["umemployed_known", "__Host-umemployed_known"];

pub struct KnownBrowser {
    /// The same for all browsers of an account.
    pub account: Vec<u8>,
    /// When somebody has signed in, in days since 1970.
    day: i64,
}

impl KnownBrowser {
    /// One in which the user has just signed in.
    pub fn new(user_id: i64, ctx: &Context) -> Self {
        let id = hmac::sign(&key(&ctx.settings), format!("interviews known browser v1\0{user_id}").as_bytes());
        KnownBrowser { account: id.as_ref().to_vec(), day: today(ctx) }
    }

    /// The one whose cookie came with a request.
    pub fn of(headers: &HeaderMap, ctx: &Context) -> Option<Self> {
        let mut parts = cookie(headers, NAME, &ctx.settings)?.split('.');
        let mut part = || parts.next();
        let (account, day, proof) = (part()?, part()?, part()?);
        let known = KnownBrowser { account: BASE64_URL_SAFE_NO_PAD.decode(account).ok()?, day: day.parse().ok()? };
        let proof = BASE64_URL_SAFE_NO_PAD.decode(proof).ok()?;
        hmac::verify(&key(&ctx.settings), &known.proven(), &proof).ok()?;
        Some(known).filter(|known| today(ctx) - known.day <= MAX_AGE_IN_DAYS)
    }

    pub fn set_cookie(&self, settings: &Settings) -> Result<HeaderValue> {
        let proof = hmac::sign(&key(settings), &self.proven());
        let [account, proof] = [&self.account, proof.as_ref()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let (value, max_age) = (format!("{account}.{}.{proof}", self.day), MAX_AGE_IN_DAYS * DAY);
        set_cookie(NAME, &value, &format!("/; HttpOnly; SameSite=Lax; Max-Age={max_age}"), settings)
    }

    // Tokens are signed with the same key, but no token's text begins as this one or that of an account does.
    fn proven(&self) -> Vec<u8> {
        [format!("interviews known browser's cookie v2\0{}\0", self.day).as_bytes(), &self.account].concat()
    }
}

fn today(ctx: &Context) -> i64 {
    ctx.clock.now().timestamp() / DAY
}

fn key(settings: &Settings) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, settings.secret_key.expose_secret().as_bytes())
}
