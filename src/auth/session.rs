//! Portal sessions (contract §4.1): who has signed in on the portal's own page, and the cookie that says so.
//!
//! Promises: the cookie's secret is kept only as a hash; a session ends after 14 days, when the password changes that
//! was shown for it, and when it is ended; while its user is deactivated or deleted it is worth nothing. It opens pages
//! and the way to Google, never the JSON API. What its pages' forms carry, no other site can know (CSRF).

use aws_lc_rs::{constant_time, hmac};
use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};

use super::{Account, CurrentUser, cookie, store};
use crate::{config::Settings, context::Context, http::Result, secret::PlainToken};

/// The session's cookie where there is no TLS.
pub const COOKIE: &str = "umemployed_portal";
/// How long a session lasts.
const LIFETIME: TimeDelta = TimeDelta::days(14);

/// A signed-in browser.
#[derive(Clone, Debug)]
pub struct Session {
    pub user: CurrentUser,
    token: PlainToken,
}

impl Session {
    /// Starts a session of somebody who has just shown who they are. It hangs on the hash that their password was checked
    /// against: one that has replaced it meanwhile ends it before it has begun.
    ///
    /// The sign-in began at `begun`, before the account was read: a revocation that overtook it ends the session.
    pub async fn begin(ctx: &Context, account: Account, begun: DateTime<Utc>) -> Result<Session> {
        let token = PlainToken::generate();
        let expires_at = account.issue_moment(begun) + LIFETIME;
        let Account { user, password, .. } = account;
        store::insert_session(&ctx.db.reserved(), &token.hash(), user.id, &password, expires_at).await?;
        Ok(Session { user, token })
    }

    /// The session that a browser's cookie stands for.
    pub async fn of(ctx: &Context, headers: &HeaderMap) -> Result<Option<Session>> {
        let Some(token) = cookie::value(headers, SESSION, &ctx.settings).map(PlainToken::from_outside) else {
            return Ok(None);
        };
        let now = ctx.clock.now();
        let user = store::session_user(&ctx.db.reserved(), &token.hash(), now, LIFETIME).await?;
        Ok(user.map(|user| Session { user, token }))
    }

    pub async fn end(&self, ctx: &Context) -> Result<()> {
        Ok(store::remove_session(&ctx.db.reserved(), &self.token.hash()).await?)
    }

    /// `Set-Cookie`, for the whole session.
    pub fn set_cookie(&self, settings: &Settings) -> Result<HeaderValue> {
        let more = format!("/; HttpOnly; SameSite=Lax; Max-Age={}", LIFETIME.num_seconds());
        cookie::set(SESSION, self.token.expose(), &more, settings)
    }

    /// What a form of this session's pages carries, so that no other site can send it: derived from the cookie's
    /// secret, which other sites cannot read.
    pub fn form_token(&self) -> String {
        form_token(&self.token)
    }

    /// Whether a form came from a page of this session.
    pub fn has_sent(&self, form_token: &str) -> bool {
        is_form_token(&self.token, form_token)
    }

    /// Signs a text with this session's secret.
    pub fn sign(&self, text: &str) -> String {
        signature(&self.token, &format!("text {text}"))
    }

    /// Whether this session made that signature of the text.
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        constant_time::verify_slices_are_equal(self.sign(text).as_bytes(), signature.as_bytes()).is_ok()
    }
}

/// `Set-Cookie` that makes a browser forget its session.
pub fn forget_cookie(settings: &Settings) -> Result<HeaderValue> {
    cookie::set(SESSION, "", "/; HttpOnly; SameSite=Lax; Max-Age=0", settings)
}

/// A browser that has not signed in: what keeps other sites from signing it in.
pub struct Visitor(PlainToken);

impl Visitor {
    /// The one that a browser's cookie stands for, or a new one.
    pub fn of(headers: &HeaderMap, settings: &Settings) -> Visitor {
        let known = cookie::value(headers, VISITOR, settings);
        Visitor(known.map_or_else(PlainToken::generate, PlainToken::from_outside))
    }

    /// `Set-Cookie`, until the browser is closed.
    pub fn set_cookie(&self, settings: &Settings) -> Result<HeaderValue> {
        cookie::set(VISITOR, self.0.expose(), "/; HttpOnly; SameSite=Strict", settings)
    }

    /// As [`Session::form_token`].
    pub fn form_token(&self) -> String {
        form_token(&self.0)
    }

    /// As [`Session::has_sent`].
    pub fn has_sent(&self, form_token: &str) -> bool {
        is_form_token(&self.0, form_token)
    }
}

const SESSION: cookie::Name = cookie::Name { plain: COOKIE, secure: "__Host-umemployed_portal" };
const VISITOR: cookie::Name = cookie::Name { plain: "umemployed_visitor", secure: "__Host-umemployed_visitor" };

fn form_token(secret: &PlainToken) -> String {
    signature(secret, "form")
}

fn signature(secret: &PlainToken, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

fn is_form_token(secret: &PlainToken, shown: &str) -> bool {
    constant_time::verify_slices_are_equal(form_token(secret).as_bytes(), shown.as_bytes()).is_ok()
}
