//! What the handlers of pages are given: who is signed in, and a form of theirs.
//!
//! Somebody who is not signed in, or sends a form that no page of their session made (cross-site request forgery), gets
//! another page instead, so no handler has to ask.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

use super::MessagePage;
use crate::{
    auth::{self, CurrentUser, Session},
    context::Context,
    http::{self, Error, extract::RequestBody},
};

/// What somebody gets instead of what they asked for: another page, or an error.
pub struct Instead(Box<Response>);

impl Instead {
    pub fn page(response: Response) -> Self {
        Instead(Box::new(response))
    }
}

/// Of a page's handler.
pub type Result<T = Response, E = Instead> = std::result::Result<T, E>;

impl<E: Into<Error>> From<E> for Instead {
    fn from(error: E) -> Self {
        Instead::page(error.into().into_response())
    }
}

impl IntoResponse for Instead {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// Somebody who is signed in; others are led to sign in and back.
pub struct SignedIn(pub Session);

impl FromRequestParts<Context> for SignedIn {
    type Rejection = Instead;

    async fn from_request_parts(parts: &mut Parts, ctx: &Context) -> Result<Self> {
        let session = Session::of(ctx, &parts.headers).await?;
        session.map(SignedIn).ok_or_else(|| Instead::page(auth::to_sign_in(&parts.uri)))
    }
}

/// A form that somebody who is signed in sends from a page of their session.
pub struct Form {
    pub session: Session,
    pub fields: Map<String, Value>,
}

impl FromRequest<Context> for Form {
    type Rejection = Instead;

    async fn from_request(request: Request, ctx: &Context) -> Result<Self> {
        let session = Session::of(ctx, request.headers()).await?;
        let body = RequestBody::from_request(request, ctx).await.unwrap_or_else(|never| match never {});
        let Some(session) = session else {
            let sign_in = vec![("Sign in", "/login/?next=/dashboard/".to_owned())];
            let message = MessagePage::new(ctx, None, "Please sign in again", NOTHING_DONE, sign_in);
            // Nobody is signed in, whatever the form is like: it is read for what was typed alone.
            let fields = fields(body).await.unwrap_or_default();
            return Err(nothing_done(StatusCode::UNAUTHORIZED, message, &fields)?);
        };
        let fields = fields(body.of_somebody_known()).await?;
        own(ctx, &session, &fields)?;
        Ok(Form { session, fields })
    }
}

/// A form's fields as they were typed: browsers send the ends of lines as CR LF.
pub async fn fields(body: RequestBody) -> http::Result<Map<String, Value>> {
    let mut fields = body.object().await?;
    for name in ["note", "reason"] {
        if let Some(Value::String(text)) = fields.get_mut(name) {
            *text = with_plain_ends(text);
        }
    }
    Ok(fields)
}

pub fn with_plain_ends(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Refuses a form that no page of this session made.
pub fn own(ctx: &Context, session: &Session, fields: &Map<String, Value>) -> Result<()> {
    if session.has_sent(text(fields, "form_token")) {
        return Ok(());
    }
    let start = vec![("To the start page", "/".to_owned())];
    let message = MessagePage::new(ctx, Some(session), "This page was out of date", NOTHING_DONE, start);
    Err(nothing_done(StatusCode::FORBIDDEN, message, fields)?)
}

const NOTHING_DONE: &str = "Nothing was changed. Please open the page again and retry.";

/// What somebody gets whose form is not taken: its longest text is not lost.
fn nothing_done(status: StatusCode, message: MessagePage, fields: &Map<String, Value>) -> Result<Instead> {
    let typed = Some(text(fields, "note")).filter(|note| !note.is_empty()).unwrap_or(text(fields, "reason"));
    Ok(Instead::page(MessagePage { typed, ..message }.answer(status)?))
}

/// The text of a form's field; empty without one.
pub fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Where somebody belongs.
pub fn home(user: &CurrentUser) -> &'static str {
    if user.is_recruiter { "/dashboard/" } else { "/dashboard/jobseeker/" }
}
