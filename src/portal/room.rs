//! An interview's room: the page that a mailed link opens, and its buttons (contract §5.19).

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::TimeDelta;
use serde_json::{Map, Value};
use url::Url;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{MessagePage, Shell, files, page, see_other};
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
    OpenApiRouter::new().routes(routes!(room, enter)).routes(routes!(leave)).routes(routes!(calendar_file))
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
            let to = safe_link(&interview).map_or_else(|| visit.address("join/"), |link| link.to_string());
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
        Ok(_) => see_other(&visit.address("join/")),
        Err(Error::Refused { .. }) => Refusal::Closed.page(&ctx),
        Err(fault) => Err(fault),
    }
}

/// The interview for a calendar, for whom the page opens.
#[utoipa::path(get, path = "/interviews/{id}/calendar.ics", tag = "pages", security(()),
    params(("id" = i64, Path), ("token" = Option<String>, Query, description = "The secret of a mailed link")),
    responses((status = 200, description = "An iCalendar object", body = String, content_type = "text/calendar"),
        (status = 401, description = "Neither a token nor a session"), (status = 403, description = "Not for this one")))]
async fn calendar_file(
    State(ctx): State<Context>,
    PathId(id): PathId,
    query: QueryParams,
    headers: HeaderMap,
) -> Result<Response> {
    match Visit::of(&ctx, id, query.get("token"), &headers).await? {
        Ok(visit) => Ok(interview::calendar_file(&ctx, &visit.interview)),
        Err(refusal) => refusal.page(&ctx),
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

    /// Something of this interview's, as this visitor reaches it.
    fn address(&self, what: &str) -> String {
        let mut address = format!("/interviews/{}/{what}", self.interview.id);
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
        let sign_in = |id: Option<i64>| match id {
            Some(id) => format!("/login/?next=/interviews/{id}/join/"),
            None => "/login/".to_owned(),
        };
        let home = || vec![("To the start page", "/".to_owned())];
        let (status, heading, text, links) = match &self {
            Refusal::NotSignedIn { id } => (
                StatusCode::UNAUTHORIZED,
                "Please sign in",
                "Open the link in your invitation mail, or sign in to see this interview.",
                vec![("Sign in", sign_in(*id)), ("Open it in the application", frontend(*id))],
            ),
            Refusal::Closed => (
                StatusCode::FORBIDDEN,
                "This link does not open an interview",
                "It may have expired, or a part of it is missing. Please use the link in your latest invitation mail, or sign in.",
                vec![("Sign in", "/login/".to_owned())],
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
        let message = MessagePage { shell: Shell::new(ctx, session), heading, text, links };
        page(status, message.render()?, &[])
    }
}

#[derive(Template)]
#[template(path = "portal/room.html")]
struct RoomPage<'a> {
    shell: Shell,
    room_script: String,
    form_token: Option<String>,
    id: i64,
    job_title: &'a str,
    company_name: &'a str,
    other: String,
    /// Writes to the other person.
    contact: Option<String>,
    is_recruiter: bool,
    date: String,
    time: String,
    timezone: &'a str,
    offset: String,
    /// RFC 3339, for the reader's own clock.
    starts: String,
    opens: String,
    closes: String,
    duration: String,
    type_name: &'static str,
    status: &'static str,
    location: Option<&'a str>,
    /// Calls the location, when that is a number.
    dial: Option<String>,
    note: Option<&'a str>,
    reason: Option<&'a str>,
    calendar: String,
    link: Option<String>,
    join_action: String,
    /// While this page's reader is in the interview.
    leave_action: Option<String>,
    /// The door's, in one word.
    state: &'static str,
    /// Milliseconds until the door shows something else.
    changes_in: Option<i64>,
    /// Until what the reader waits for: milliseconds, and in words.
    counted: Option<(i64, String)>,
    cancelled: bool,
    can_join: bool,
    /// The door has closed.
    over: bool,
    is_past_end: bool,
    /// Neither over nor cancelled.
    is_ahead: bool,
    phone: bool,
    in_person: bool,
    online: bool,
}

impl Visit {
    fn page(&self, ctx: &Context, status: StatusCode) -> Result<Response> {
        let (interview, user_id) = (&self.interview, self.user_id);
        let (window, zone, now) = (interview.window(&ctx.settings), interview.zone(), ctx.clock.now());
        let is_recruiter = interview.side_of(user_id) == Some(Side::Recruiter);
        let other = if is_recruiter { Some(interview.candidate()) } else { interview.recruiter() };
        let (can_join, over, kind) = (window.can_join(now), now > window.closes, interview.kind());
        let link = safe_link(interview);
        let start = zone.local(window.start);
        let clock = |instant| zone.local(instant).format("%-I:%M %p on %B %-d").to_string();
        let awaited = if can_join { window.start } else { window.opens };
        let changes = [window.opens, window.start, window.end, window.closes + TimeDelta::milliseconds(1)];
        let html = RoomPage {
            shell: Shell::new(ctx, self.session.as_ref()),
            room_script: files::address("room.js", &ctx.settings),
            form_token: self.session.as_ref().map(Session::form_token),
            id: interview.id,
            job_title: &interview.job_title,
            company_name: &interview.company_name,
            contact: other.as_ref().map(|other| mailto(&other.email, &format!("Interview: {}", interview.job_title))),
            other: other.map_or_else(|| interview.recruiter_name(), |other| other.name()),
            is_recruiter,
            date: start.format("%A, %B %d, %Y").to_string(),
            time: start.format("%-I:%M %p").to_string(),
            timezone: zone.name(),
            offset: format!("UTC{}", start.format("%:z")),
            starts: window.start.to_rfc3339(),
            opens: clock(window.opens),
            closes: clock(window.closes),
            duration: duration_words(interview.minutes(&ctx.settings)),
            type_name: kind.label(),
            status: match window.status(now) {
                Status::Upcoming => "Upcoming",
                Status::InProgress => "In progress",
                Status::Completed => "Over",
                Status::Cancelled => "Cancelled",
            },
            location: interview.location.as_deref(),
            dial: interview.location.as_deref().filter(|_| kind == InterviewType::Phone).and_then(dial),
            note: interview.note.as_deref().filter(|note| !note.trim().is_empty()),
            reason: interview.cancellation_reason.as_deref().filter(|reason| !reason.trim().is_empty()),
            calendar: self.address("calendar.ics"),
            link: link.as_ref().filter(|_| can_join).map(Url::to_string),
            join_action: self.address("join/"),
            leave_action: interview.is_present(user_id).then(|| self.address("left/")),
            state: match () {
                () if window.cancelled => "cancelled",
                () if over => "over",
                () if can_join => "open",
                () => "early",
            },
            changes_in: changes
                .into_iter()
                .find(|change| *change > now)
                .map(|change| (change - now).num_milliseconds()),
            counted: Some(awaited - now)
                .filter(|left| *left > TimeDelta::zero())
                .map(|left| (left.num_milliseconds(), countdown_words(left))),
            cancelled: window.cancelled,
            can_join,
            over,
            is_past_end: now >= window.end,
            is_ahead: !window.cancelled && !over,
            phone: kind == InterviewType::Phone,
            in_person: kind == InterviewType::InPerson,
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

/// A link that writes a mail (RFC 6068).
fn mailto(address: &str, subject: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    format!("mailto:{}?subject={}", encoded(address).replace("%40", "@"), encoded(subject))
}

/// A link that dials (RFC 3966), of what looks like a telephone number and like nothing else.
fn dial(location: &str) -> Option<String> {
    let digits = location.chars().filter(char::is_ascii_digit).count();
    let is_number = (5..=15).contains(&digits)
        && location.trim_start_matches([' ', '+']).chars().all(|c| c.is_ascii_digit() || " -./()".contains(c));
    let plus = if location.trim_start().starts_with('+') { "+" } else { "" };
    is_number.then(|| format!("tel:{plus}{}", location.chars().filter(char::is_ascii_digit).collect::<String>()))
}

/// As `assets/room.js` goes on counting.
fn countdown_words(left: TimeDelta) -> String {
    // Rounded up: it says 0 when it is 0.
    let seconds = (left.num_milliseconds() + 999) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        (1, _) => format!("1 day {hours} h"),
        _ => format!("{days} days {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_two_units() {
        for (milliseconds, words) in [
            (1, "0 min 1 s"),
            (60_000, "1 min 0 s"),
            (3_599_001, "1 h 0 min"),
            (86_399_000, "23 h 59 min"),
            (86_400_000, "1 day 0 h"),
            (200_000_000, "2 days 7 h"),
        ] {
            assert_eq!(countdown_words(TimeDelta::milliseconds(milliseconds)), words);
        }
    }

    #[test]
    fn only_numbers_can_be_dialled() {
        assert_eq!(dial("+49 (170) 123-456").as_deref(), Some("tel:+49170123456"));
        assert_eq!(dial("0170/123.456").as_deref(), Some("tel:0170123456"));
        for other in ["", "123", "Room 12345", "javascript:12345", "+", "1234567890123456"] {
            assert_eq!(dial(other), None, "{other}");
        }
    }

    #[test]
    fn addresses_and_subjects_cannot_add_to_a_mail() {
        let link = mailto("a?bcc=b@x.test", "R&D + \"ops\"\r\nBcc: c@x.test");
        assert_eq!(link, "mailto:a%3Fbcc%3Db@x.test?subject=R%26D%20%2B%20%22ops%22%0D%0ABcc%3A%20c%40x.test");
    }
}
