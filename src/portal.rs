//! The page that a mailed link opens, and its two buttons (contract §5.19). A page is a struct beside its handler; GETs change nothing,
//! because mail scanners open links too.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use url::Url;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    clock::random_bytes,
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
async fn room(State(ctx): State<Context>, PathId(id): PathId, query: QueryParams) -> Result<Response> {
    match opened(&ctx, id, query.get("token")).await? {
        Ok((interview, user_id)) => room_page(&ctx, StatusCode::OK, &interview, user_id, query.get("token")),
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
    body: RequestBody,
) -> Result<Response> {
    let form = body.object().await?;
    let token = query.get("token").or(form.get("token").and_then(|token| token.as_str()));
    let user_id = match opened(&ctx, id, token).await? {
        Ok((_, user_id)) => user_id,
        Err(refusal) => return refusal.page(&ctx),
    };
    match interview::enter(&ctx, id, user_id).await {
        Ok(interview) => {
            let to = safe_link(&interview).map_or_else(|| page_address(&interview, token), |link| link.to_string());
            see_other(&to)
        }
        // The door is closed, or this has changed a moment ago: the page as it is now says so.
        Err(Error::Refused { .. }) => match opened(&ctx, id, token).await? {
            Ok((interview, user_id)) => room_page(&ctx, StatusCode::CONFLICT, &interview, user_id, token),
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
    body: RequestBody,
) -> Result<Response> {
    let form = body.object().await?;
    let token = query.get("token").or(form.get("token").and_then(|token| token.as_str()));
    let (interview, user_id) = match opened(&ctx, id, token).await? {
        Ok(opened) => opened,
        Err(refusal) => return refusal.page(&ctx),
    };
    match interview::leave(&ctx, id, user_id).await {
        Ok(_) => see_other(&page_address(&interview, token)),
        Err(Error::Refused { .. }) => Refusal::Forbidden.page(&ctx),
        Err(fault) => Err(fault),
    }
}

/// Why somebody does not see the page.
enum Refusal {
    /// Neither a link's token nor a session.
    NotSignedIn { id: Option<i64> },
    /// One answer for all links that open nothing, so that none tells what exists.
    Forbidden,
}

async fn opened(ctx: &Context, id: Option<i64>, token: Option<&str>) -> Result<Result<(Interview, i64), Refusal>> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(Err(Refusal::NotSignedIn { id })) };
    let Some(id) = id else { return Ok(Err(Refusal::Forbidden)) };
    let hash = PlainToken::from_outside(token).hash();
    Ok(interview::by_mailed_link(ctx, id, &hash).await?.ok_or(Refusal::Forbidden))
}

impl Refusal {
    fn page(self, ctx: &Context) -> Result<Response> {
        let nonce = nonce();
        let (status, heading, text, link) = match self {
            Refusal::NotSignedIn { id } => (
                StatusCode::UNAUTHORIZED,
                "Please sign in",
                "Open the link in your invitation mail, or sign in to see this interview.",
                Some(match id {
                    Some(id) => format!("{}/interviews/{id}/join", ctx.settings.frontend_url),
                    None => ctx.settings.frontend_url.clone(),
                }),
            ),
            Refusal::Forbidden => (
                StatusCode::FORBIDDEN,
                "This link does not open an interview",
                "It may have expired, or a part of it is missing. Please use the link in your latest invitation mail.",
                None,
            ),
        };
        let message = MessagePage { brand: &ctx.settings.brand_name, nonce: &nonce, heading, text, link };
        page(status, message.render()?, None, &nonce, None)
    }
}

#[derive(Template)]
#[template(path = "portal/message.html")]
struct MessagePage<'a> {
    brand: &'a str,
    nonce: &'a str,
    heading: &'a str,
    text: &'a str,
    link: Option<String>,
}

#[derive(Template)]
#[template(path = "portal/interview.html")]
struct RoomPage<'a> {
    brand: &'a str,
    nonce: &'a str,
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

fn room_page(
    ctx: &Context,
    status: StatusCode,
    interview: &Interview,
    user_id: i64,
    token: Option<&str>,
) -> Result<Response> {
    let (window, zone, now) = (interview.window(&ctx.settings), interview.zone(), ctx.clock.now());
    let local = |instant: DateTime<Utc>| zone.local(instant);
    let other = match interview.side_of(user_id) {
        Some(Side::Recruiter) => interview.candidate().name(),
        _ => interview.recruiter_name(),
    };
    let can_join = window.can_join(now);
    let link = safe_link(interview);
    let start = local(window.start);
    let nonce = nonce();
    let html = RoomPage {
        brand: &ctx.settings.brand_name,
        nonce: &nonce,
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
        join_action: page_address(interview, token),
        leave_action: interview.is_present(user_id).then(|| address(interview, "left", token)),
        cancelled: window.cancelled,
        can_join,
        over: now > window.closes,
        phone: interview.kind() == InterviewType::Phone,
        online: link.is_some(),
    }
    .render()?;
    page(status, html, link.as_ref(), &nonce, None)
}

/// The meeting link, when it is one that a browser may follow: never `javascript:` and the like.
fn safe_link(interview: &Interview) -> Option<Url> {
    Url::parse(interview.link()?).ok().filter(|url| matches!(url.scheme(), "https" | "http"))
}

fn page_address(interview: &Interview, token: Option<&str>) -> String {
    address(interview, "join", token)
}

fn address(interview: &Interview, what: &str, token: Option<&str>) -> String {
    let query =
        form_urlencoded::Serializer::new(String::new()).extend_pairs(token.map(|token| ("token", token))).finish();
    format!("/interviews/{}/{what}/?{query}", interview.id)
}

fn see_other(to: &str) -> Result<Response> {
    page(StatusCode::SEE_OTHER, String::new(), None, &nonce(), Some(to))
}

fn nonce() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random_bytes::<16>())
}

/// A page with the headers that keep its link secret and its content its own.
fn page(
    status: StatusCode,
    html: String,
    meeting: Option<&Url>,
    nonce: &str,
    location: Option<&str>,
) -> Result<Response> {
    let meeting = meeting.map(|url| format!(" {}", url.origin().ascii_serialization())).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'{meeting}; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy)?);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex"));
    if let Some(location) = location {
        headers.insert(header::LOCATION, HeaderValue::try_from(location)?);
    }
    Ok(response)
}
