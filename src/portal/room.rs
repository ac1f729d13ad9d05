//! An interview's room: the page that a mailed link opens, and its buttons (contract §5.19).

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use url::Url;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{MessagePage, Shell, page, see_other};
use crate::{
    auth::Session,
    context::Context,
    http::{
        Error, Result,
        extract::{PathId, QueryParams, RequestBody},
    },
    interview::{
        self, Interview,
        model::{InterviewType, Side, Status, duration_words},
    },
    secret::PlainToken,
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(room, enter)).routes(routes!(leave))
}

/// The interview's page, for whom the link was made.
#[utoipa::path(get, path = "/interviews/{id}/join/", tag = "pages", security(()),
    params(("id" = i64, Path), ("token" = Option<String>, Query, description = "The secret of a mailed link")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 401, description = "No token: a page that leads to the frontend"),
        (status = 403, description = "The token opens no interview"),
    ))]
async fn room(
    State(ctx): State<Context>,
    PathId(id): PathId,
    query: QueryParams,
    headers: HeaderMap,
) -> Result<Response> {
    match Visit::of(&ctx, id, query.get("token"), &headers).await? {
        Ok(visit) => visit.page(&ctx, StatusCode::OK),
        Err(refusal) => refusal.page(&ctx),
    }
}

/// Goes in: on to the meeting, or back to the page when there is no link to follow.
#[utoipa::path(post, path = "/interviews/{id}/join/", tag = "pages", security(()),
    params(("id" = i64, Path), ("token" = Option<String>, Query, description = "May also be a field of a form")),
    responses(
        (status = 303, description = "To the meeting, or back to the page without a link"),
        (status = 401, description = "No token: a page that leads to the frontend"),
        (status = 403, description = "The token opens no interview"),
        (status = 409, description = "The door is closed: the page"),
    ))]
async fn enter(
    State(ctx): State<Context>,
    PathId(id): PathId,
    query: QueryParams,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let form = body.object().await?;
    let token = query.get("token").or(form.get("token").and_then(Value::as_str));
    let visit = match Visit::by_form(&ctx, id, token, &headers, &form).await? {
        Ok(visit) => visit,
        Err(refusal) => return refusal.page(&ctx),
    };
    match interview::enter(&ctx, id, visit.user_id).await {
        Ok(interview) => {
            let to = safe_link(&interview).map_or_else(|| visit.address("join"), |link| link.to_string());
            see_other(&to)
        }
        // The door is closed, or this has changed a moment ago: the page as it is now says so.
        Err(Error::Refused { .. }) => match Visit::of(&ctx, id, token, &headers).await? {
            Ok(visit) => visit.page(&ctx, StatusCode::CONFLICT),
            Err(refusal) => refusal.page(&ctx),
        },
        Err(fault) => Err(fault),
    }
}

/// Goes out, and back to the page.
#[utoipa::path(post, path = "/interviews/{id}/left/", tag = "pages", security(()),
    params(("id" = i64, Path), ("token" = Option<String>, Query, description = "May also be a field of a form")),
    responses(
        (status = 303, description = "Back to the page"),
        (status = 401, description = "No token: a page that leads to the frontend"),
        (status = 403, description = "The token opens no interview"),
    ))]
async fn leave(
    State(ctx): State<Context>,
    PathId(id): PathId,
    query: QueryParams,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let form = body.object().await?;
    let token = query.get("token").or(form.get("token").and_then(Value::as_str));
    let visit = match Visit::by_form(&ctx, id, token, &headers, &form).await? {
        Ok(visit) => visit,
        Err(refusal) => return refusal.page(&ctx),
    };
    match interview::leave(&ctx, id, visit.user_id).await {
        Ok(_) => see_other(&visit.address("join")),
        Err(Error::Refused { .. }) => Refusal::Closed.page(&ctx),
        Err(fault) => Err(fault),
    }
}

/// Somebody at the door of his interview.
struct Visit {
    interview: Interview,
    user_id: i64,
    /// `None`: by session.
    token: Option<String>,
    session: Option<Session>,
}

/// Why somebody does not see the page.
enum Refusal {
    /// Neither a link's token nor a session.
    NotSignedIn { id: Option<i64> },
    /// One answer for all links that open nothing, so that none tells what exists.
    Closed,
    /// Signed in, and no such interview.
    Unknown(Session),
    /// Signed in as somebody who does not take part.
    NotYours(Session),
    /// A form that does not come from a page of this session.
    Foreign(Session),
}

impl Visit {
    /// By the token of a mailed link, which wins, or by the portal session.
    async fn of(
        ctx: &Context,
        id: Option<i64>,
        token: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Result<Visit, Refusal>> {
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            let Some(id) = id else { return Ok(Err(Refusal::Closed)) };
            let found = interview::by_mailed_link(ctx, id, &PlainToken::from_outside(token).hash()).await?;
            let visit =
                |(interview, user_id)| Visit { interview, user_id, token: Some(token.to_owned()), session: None };
            return Ok(found.map(visit).ok_or(Refusal::Closed));
        }
        let Some(session) = Session::of(ctx, headers).await? else { return Ok(Err(Refusal::NotSignedIn { id })) };
        let user_id = session.user.id;
        Ok(match interview::by_id(ctx, id).await? {
            None => Err(Refusal::Unknown(session)),
            Some(interview) if interview.side_of(user_id).is_none() => Err(Refusal::NotYours(session)),
            Some(interview) => Ok(Visit { interview, user_id, token: None, session: Some(session) }),
        })
    }

    /// The same of somebody who sends a form.
    async fn by_form(
        ctx: &Context,
        id: Option<i64>,
        token: Option<&str>,
        headers: &HeaderMap,
        form: &Map<String, Value>,
    ) -> Result<Result<Visit, Refusal>> {
        let sent = form.get("form_token").and_then(Value::as_str).unwrap_or_default();
        Ok(match Visit::of(ctx, id, token, headers).await? {
            Ok(Visit { session: Some(session), .. }) if !session.has_sent(sent) => Err(Refusal::Foreign(session)),
            visit => visit,
        })
    }

    /// A page of this interview, as this visitor reaches it.
    fn address(&self, what: &str) -> String {
        let mut address = format!("/interviews/{}/{what}/", self.interview.id);
        if let Some(token) = &self.token {
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
            address.push('?');
            address.push_str(&query);
        }
        address
    }
}

impl Refusal {
    fn page(self, ctx: &Context) -> Result<Response> {
        let frontend = |id: Option<i64>| match id {
            Some(id) => format!("{}/interviews/{id}/join", ctx.settings.frontend_url),
            None => ctx.settings.frontend_url.clone(),
        };
        let home = || Some(("To the start page", "/".to_owned()));
        let (status, heading, text, link) = match &self {
            Refusal::NotSignedIn { id } => (
                StatusCode::UNAUTHORIZED,
                "Please sign in",
                "Open the link in your invitation mail, or sign in to see this interview.",
                Some(("Sign in", frontend(*id))),
            ),
            Refusal::Closed => (
                StatusCode::FORBIDDEN,
                "This link does not open an interview",
                "It may have expired, or a part of it is missing. Please use the link in your latest invitation mail.",
                None,
            ),
            Refusal::Unknown(_) => {
                (StatusCode::NOT_FOUND, "This interview does not exist", "It may have been removed.", home())
            }
            Refusal::NotYours(_) => (
                StatusCode::FORBIDDEN,
                "This interview is not yours",
                "You are signed in as somebody who does not take part in it.",
                home(),
            ),
            Refusal::Foreign(session) => return super::signing_in::not_sent_from_here(ctx, session),
        };
        let session = match &self {
            Refusal::Unknown(session) | Refusal::NotYours(session) => Some(session),
            _ => None,
        };
        let message = MessagePage { shell: Shell::new(ctx, session), heading, text, link };
        page(status, message.render()?, &[])
    }
}

#[derive(Template)]
#[template(path = "portal/interview.html")]
struct RoomPage<'a> {
    shell: Shell,
    form_token: Option<String>,
    job_title: &'a str,
    company_name: &'a str,
    other: String,
    date: String,
    time: String,
    timezone: &'a str,
    offset: String,
    opens: String,
    duration: String,
    type_name: &'static str,
    status: &'static str,
    location: Option<&'a str>,
    link: Option<String>,
    join_action: String,
    /// While this page's reader is in the interview.
    leave_action: Option<String>,
    cancelled: bool,
    can_join: bool,
    over: bool,
    phone: bool,
    online: bool,
}

impl Visit {
    fn page(&self, ctx: &Context, status: StatusCode) -> Result<Response> {
        let (interview, user_id) = (&self.interview, self.user_id);
        let (window, zone, now) = (interview.window(&ctx.settings), interview.zone(), ctx.clock.now());
        let local = |instant: DateTime<Utc>| zone.local(instant);
        let other = match interview.side_of(user_id) {
            Some(Side::Recruiter) => interview.candidate().name(),
            _ => interview.recruiter_name(),
        };
        let can_join = window.can_join(now);
        let link = safe_link(interview);
        let start = local(window.start);
        let html = RoomPage {
            shell: Shell::new(ctx, self.session.as_ref()),
            form_token: self.session.as_ref().map(Session::form_token),
            job_title: &interview.job_title,
            company_name: &interview.company_name,
            other,
            date: start.format("%A, %B %d, %Y").to_string(),
            time: start.format("%-I:%M %p").to_string(),
            timezone: zone.name(),
            offset: format!("UTC{}", start.format("%:z")),
            opens: local(window.opens).format("%-I:%M %p on %B %-d").to_string(),
            duration: duration_words(interview.minutes(&ctx.settings)),
            type_name: interview.kind().label(),
            status: match window.status(now) {
                Status::Upcoming => "Upcoming",
                Status::InProgress => "In progress",
                Status::Completed => "Over",
                Status::Cancelled => "Cancelled",
            },
            location: interview.location.as_deref(),
            link: link.as_ref().filter(|_| can_join).map(Url::to_string),
            join_action: self.address("join"),
            leave_action: interview.is_present(user_id).then(|| self.address("left")),
            cancelled: window.cancelled,
            can_join,
            over: now > window.closes,
            phone: interview.kind() == InterviewType::Phone,
            online: link.is_some(),
        }
        .render()?;
        let origin: Vec<String> = link.iter().map(|url| url.origin().ascii_serialization()).collect();
        page(status, html, &origin)
    }
}

/// The meeting link, when it is one that a browser may follow: never `javascript:` and the like.
fn safe_link(interview: &Interview) -> Option<Url> {
    Url::parse(interview.link()?).ok().filter(|url| matches!(url.scheme(), "https" | "http"))
}
