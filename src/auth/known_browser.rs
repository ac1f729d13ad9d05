//! Browsers in which somebody has signed in before: they wait for their sign-in in a lane of their own.
//!
//! Such a browser has a cookie from the portal's sign-in. The cookie proves the earlier sign-in, gives access to
//! nothing, and reveals nothing about the account to anyone without `SECRET_KEY`. All browsers of one account have the
//! same.

use aws_lc_rs::constant_time;
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::cookie;
use crate::{config::Settings, http::Result, secret::mac};

/// As long as browsers keep any cookie (RFC 6265bis, §5.5): 400 days.
const MAX_AGE: u32 = 400 * 24 * 3600;
const NAME: cookie::Name = cookie::Name { plain: "umemployed_known", secure: "__Host-umemployed_known" };

pub struct KnownBrowser {
    /// The same for all browsers of an account.
    pub id: Vec<u8>,
}

impl KnownBrowser {
    /// One in which the user has just signed in.
    pub fn new(user_id: i64, settings: &Settings) -> Self {
        let id = mac(&settings.secret_key, "interviews known browser v1", user_id.to_string().as_bytes());
        KnownBrowser { id: id.to_vec() }
    }

    /// The one whose cookie came with a request.
    pub fn of(headers: &HeaderMap, settings: &Settings) -> Option<Self> {
        let (id, proof) = cookie::value(headers, NAME, settings)?.split_once('.')?;
        let id = BASE64_URL_SAFE_NO_PAD.decode(id).ok()?;
        let proof = BASE64_URL_SAFE_NO_PAD.decode(proof).ok()?;
        let browser = KnownBrowser { id };
        constant_time::verify_slices_are_equal(&browser.proof(settings), &proof).ok()?;
        Some(browser)
    }

    pub fn set_cookie(&self, settings: &Settings) -> Result<HeaderValue> {
        let value = [&self.id[..], &self.proof(settings)].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        cookie::set(NAME, &value, &format!("/; HttpOnly; SameSite=Lax; Max-Age={MAX_AGE}"), settings)
    }

    /// That the id comes from this server.
    fn proof(&self, settings: &Settings) -> [u8; 32] {
        mac(&settings.secret_key, "interviews known browser's cookie v1", &self.id)
    }
}
