//! Browsers in which somebody has signed in before: they wait for their sign-in in a lane of their own.
//!
//! Such a browser has a cookie from the portal's sign-in. The cookie proves the earlier sign-in, gives access to
//! nothing, and reveals nothing about the account to anyone without `SECRET_KEY`. All browsers of one account in which
//! somebody has signed in on the same day (UTC) have the same. No row remembers it, so nothing but its age ends it.

use aws_lc_rs::constant_time;
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::cookie;
use crate::{config::Settings, context::Context, http::Result, secret::mac};

/// As long as browsers keep any cookie (RFC 6265bis, §5.5).
const MAX_AGE_IN_DAYS: i64 = 400;
const DAY: i64 = 24 * 3600;
const NAME: cookie::Name = cookie::Name { plain: "umemployed_known", secure: "__Host-umemployed_known" };

pub struct KnownBrowser {
    /// The same for all browsers of an account.
    pub account: Vec<u8>,
    /// When somebody has signed in, in days since 1970.
    day: i64,
}

impl KnownBrowser {
    /// One in which the user has just signed in.
    pub fn new(user_id: i64, ctx: &Context) -> Self {
        let account = mac(&ctx.settings.secret_key, "interviews known browser v1", user_id.to_string().as_bytes());
        KnownBrowser { account: account.to_vec(), day: today(ctx) }
    }

    /// The one whose cookie came with a request.
    pub fn of(headers: &HeaderMap, ctx: &Context) -> Option<Self> {
        let mut parts = cookie::value(headers, NAME, &ctx.settings)?.split('.');
        let mut part = || parts.next();
        let (account, day, proof) = (part()?, part()?, part()?);
        let known = KnownBrowser { account: BASE64_URL_SAFE_NO_PAD.decode(account).ok()?, day: day.parse().ok()? };
        let proof = BASE64_URL_SAFE_NO_PAD.decode(proof).ok()?;
        constant_time::verify_slices_are_equal(&known.proof(&ctx.settings), &proof).ok()?;
        Some(known).filter(|known| today(ctx) - known.day <= MAX_AGE_IN_DAYS)
    }

    pub fn set_cookie(&self, settings: &Settings) -> Result<HeaderValue> {
        let [account, proof] =
            [&self.account[..], &self.proof(settings)].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let (value, max_age) = (format!("{account}.{}.{proof}", self.day), MAX_AGE_IN_DAYS * DAY);
        cookie::set(NAME, &value, &format!("/; HttpOnly; SameSite=Lax; Max-Age={max_age}"), settings)
    }

    /// That account and day come from this server.
    fn proof(&self, settings: &Settings) -> [u8; 32] {
        let proven = [format!("{}\0", self.day).as_bytes(), &self.account].concat();
        mac(&settings.secret_key, "interviews known browser's cookie v2", &proven)
    }
}

fn today(ctx: &Context) -> i64 {
    ctx.clock.now().timestamp() / DAY
}
