//! Browsers in which somebody has signed in before: they wait for their sign-in in a lane of their own.
//!
//! Such a browser has a cookie from the portal's sign-in. The cookie proves the earlier sign-in, gives access to
//! nothing, and reveals nothing about the account to anyone without `SECRET_KEY`. All browsers of one account have the
//! same.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;

use super::session::{Name, cookie, set_cookie};
use crate::{config::Settings, http::Result};

/// As long as browsers keep any cookie (RFC 6265bis, §5.5): 400 days.
const MAX_AGE: u32 = 400 * 24 * 3600;
const NAME: Name = ["umemployed_known", "__Host-umemployed_known"];

pub struct KnownBrowser {
    /// The same for all browsers of an account.
    pub id: Vec<u8>,
}

impl KnownBrowser {
    /// One in which the user has just signed in.
    pub fn new(user_id: i64, settings: &Settings) -> Self {
        let id = hmac::sign(&key(settings), format!("interviews known browser v1\0{user_id}").as_bytes());
        KnownBrowser { id: id.as_ref().to_vec() }
    }

    /// The one whose cookie came with a request.
    pub fn of(headers: &HeaderMap, settings: &Settings) -> Option<Self> {
        let (id, proof) = cookie(headers, NAME, settings)?.split_once('.')?;
        let id = BASE64_URL_SAFE_NO_PAD.decode(id).ok()?;
        let proof = BASE64_URL_SAFE_NO_PAD.decode(proof).ok()?;
        hmac::verify(&key(settings), &proven(&id), &proof).ok()?;
        Some(KnownBrowser { id })
    }

    pub fn set_cookie(&self, settings: &Settings) -> Result<HeaderValue> {
        let proof = hmac::sign(&key(settings), &proven(&self.id));
        let value = [&self.id, proof.as_ref()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        set_cookie(NAME, &value, &format!("/; HttpOnly; SameSite=Lax; Max-Age={MAX_AGE}"), settings)
    }
}

// Tokens are signed with the same key, but no token's text begins as these two texts do.
fn proven(id: &[u8]) -> Vec<u8> {
    [b"interviews known browser's cookie v1\0", id].concat()
}

fn key(settings: &Settings) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, settings.secret_key.expose_secret().as_bytes())
}
