//! An interview's room: the page that a mailed link opens, and its buttons (contract §5.19).
//!
//! The page says by the server's clock how long what it shows stays true; its script then asks for the page again and
//! puts the live part in place. It knows no rule of its own.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use url::Url;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    MessagePage, Shell, files, page,
    request::{self, Instead, Result, text},
    see_other,
};
use crate::{
    auth::Session,
    context::Context,
    http::{
        Error,
        extract::{PathId, QueryParams, RequestBody},
    },
    interview::{
        self, Interview,
        model::{InterviewType, Side, Status, Window, duration_words},
    },
    secret::PlainToken,
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(room, enter)).routes(routes!(leave)).routes(routes!(calendar))
}

/// The interview's page, for whom the link was made.
#[utoipa::path(get, path = "/interviews/{id}/join/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The page", content_type = "text/html")))]
async fn room(State(ctx): State<Context>, PathId(id): PathId, query: QueryParams, headers: HeaderMap) -> Result {
    Visit::of(&ctx, id, query.get("token"), &headers).await?.page(&ctx, StatusCode::OK)
}

/// Goes in: on to the meeting, or back to the page when there is no link to follow.
#[utoipa::path(post, path = "/interviews/{id}/join/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 409, description = "The door is closed: the page", content_type = "text/html")))]
async fn enter(
    State(ctx): State<Context>,
    PathId(id): PathId,
    query: QueryParams,
    headers: HeaderMap,
    body: RequestBody,
) -> Result {
    let visit = Visit::by_form(&ctx, id, &query, &headers, body).await?;
    match interview::enter(&ctx, id, visit.user_id).await {
        Ok(interview) => {
            let link = safe_link(&interview);
            Ok(see_other(&link.map_or_else(|| visit.address("join/"), |link| link.to_string()))?)
        }
        // The door is closed, or this has changed a moment ago: the page as it is now says so.
        Err(Error::Refused { .. }) => {
            Visit::of(&ctx, id, visit.token.as_deref(), &headers).await?.page(&ctx, StatusCode::CONFLICT)
        }
        Err(fault) => Err(fault.into()),
    }
}

/// Goes out, and back to the page.
#[utoipa::path(post, path = "/interviews/{id}/left/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 303, description = "Back to the page", content_type = "text/html")))]
async fn leave(
    State(ctx): State<Context>,
    PathId(id): PathId,
    query: QueryParams,
    headers: HeaderMap,
    body: RequestBody,
) -> Result {
    let visit = Visit::by_form(&ctx, id, &query, &headers, body).await?;
    match interview::leave(&ctx, id, visit.user_id).await {
        Ok(_) => Ok(see_other(&visit.address("join/"))?),
        Err(Error::Refused { .. }) => Err(closed(&ctx)?),
        Err(fault) => Err(fault.into()),
    }
}

/// The interview for a calendar, for whom the page opens.
#[utoipa::path(get, path = "/interviews/{id}/calendar.ics", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "An iCalendar object", body = String, content_type = "text/calendar"),
        (status = 403, description = "Not for this one: a page", content_type = "text/html")))]
async fn calendar(State(ctx): State<Context>, PathId(id): PathId, query: QueryParams, headers: HeaderMap) -> Result {
    let visit = Visit::of(&ctx, id, query.get("token"), &headers).await?;
    let mut file = interview::calendar_file(&ctx, &visit.interview);
    // As the pages' own: the address may hold a token.
    file.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    file.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(file)
}

/// Somebody at the door of their interview.
struct Visit {
    interview: Interview,
    user_id: i64,
    /// `None`: by session.
    token: Option<String>,
    session: Option<Session>,
}

impl Visit {
    /// By the token of a mailed link, which wins, or by the portal session.
    async fn of(ctx: &Context, id: Option<i64>, token: Option<&str>, headers: &HeaderMap) -> Result<Visit> {
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            let Some(id) = id else { return Err(closed(ctx)?) };
            let found = interview::by_mailed_link(ctx, id, &PlainToken::from_outside(token).hash()).await?;
            let Some((interview, user_id)) = found else { return Err(closed(ctx)?) };
            return Ok(Visit { interview, user_id, token: Some(token.to_owned()), session: None });
        }
        let Some(session) = Session::of(ctx, headers).await? else { return Err(not_signed_in(ctx, id)?) };
        let user_id = session.user.id;
        let refusal = match interview::by_id(ctx, id).await? {
            Some(interview) if interview.side_of(user_id).is_some() => {
                return Ok(Visit { interview, user_id, token: None, session: Some(session) });
            }
            Some(_) => (
                StatusCode::FORBIDDEN,
                "This interview is not yours",
                "You are signed in as somebody who does not take part in it.",
            ),
            None => (StatusCode::NOT_FOUND, "This interview does not exist", "It may have been removed."),
        };
        let (status, heading, words) = refusal;
        let links = vec![("To the start page", "/".to_owned())];
        Err(refused(ctx, status, MessagePage::new(ctx, Some(&session), heading, words, links))?)
    }

    /// The same of somebody who sends a form, whose `token` may also be a field.
    async fn by_form(
        ctx: &Context,
        id: Option<i64>,
        query: &QueryParams,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Visit> {
        let fields = request::fields(body).await?;
        let token = query.get("token").unwrap_or(text(&fields, "token"));
        let visit = Visit::of(ctx, id, Some(token), headers).await?;
        if let Some(session) = &visit.session {
            request::own(ctx, session, &fields)?;
        }
        Ok(visit)
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

    fn page(&self, ctx: &Context, status: StatusCode) -> Result {
        let link = safe_link(&self.interview);
        let origin: Vec<String> = link.iter().map(|url| url.origin().ascii_serialization()).collect();
        Ok(page(status, RoomPage::new(ctx, self, link).render()?, &origin)?)
    }
}

/// One answer for all links that open nothing, so that none tells what exists.
fn closed(ctx: &Context) -> Result<Instead> {
    let words = "It may have expired, or a part of it is missing. Please use the link in your latest invitation mail, or sign in.";
    let links = vec![("Sign in", "/login/".to_owned())];
    let heading = "This link does not open an interview";
    refused(ctx, StatusCode::FORBIDDEN, MessagePage::new(ctx, None, heading, words, links))
}

/// A page in place of the room. Its script looks whether this tab has been in the room by a mailed link.
fn refused(ctx: &Context, status: StatusCode, message: MessagePage) -> Result<Instead> {
    let link_script = Some(files::address("link.js", &ctx.settings));
    Ok(Instead::page(MessagePage { link_script, ..message }.answer(status)?))
}

/// Neither a link's token nor a session.
fn not_signed_in(ctx: &Context, id: Option<i64>) -> Result<Instead> {
    let frontend = &ctx.settings.frontend_url;
    let (next, there) = match id {
        Some(id) => (format!("?next=/interviews/{id}/join/"), format!("{frontend}/interviews/{id}/join")),
        None => (String::new(), frontend.clone()),
    };
    let links = vec![("Sign in", format!("/login/{next}")), ("Open it in the application", there)];
    let words = "Open the link in your invitation mail, or sign in to see this interview.";
    refused(ctx, StatusCode::UNAUTHORIZED, MessagePage::new(ctx, None, "Please sign in", words, links))
}

/// What the door is like.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Early,
    Open,
    Over,
    Cancelled,
}

impl Door {
    fn of(window: &Window, now: DateTime<Utc>) -> Door {
        match () {
            () if window.cancelled => Door::Cancelled,
            () if window.can_join(now) => Door::Open,
            () if now < window.opens => Door::Early,
            () => Door::Over,
        }
    }

    /// For the page's script, which only compares.
    fn as_str(self) -> &'static str {
        match self {
            Door::Early => "early",
            Door::Open => "open",
            Door::Over => "over",
            Door::Cancelled => "cancelled",
        }
    }
}

#[derive(Template)]
#[template(path = "portal/room.html")]
struct RoomPage<'a> {
    shell: Shell,
    room_script: String,
    link_script: String,
    interview: &'a Interview,
    door: Door,
    kind: InterviewType,
    is_recruiter: bool,
    other: String,
    /// The other person's account is closed.
    other_is_closed: bool,
    /// Writes to the other person, unless the account is closed.
    contact: Option<String>,
    date: String,
    time: String,
    timezone: String,
    offset: String,
    /// Seconds since 1970, for the reader's own clock.
    starts: i64,
    opens: String,
    closes: String,
    duration: String,
    status: &'static str,
    /// Calls the location, when that is a number.
    dial: Option<String>,
    calendar: String,
    /// Another one for another origin of the link, open or not.
    leads_to: Option<String>,
    /// While the door is open.
    link: Option<String>,
    /// This page's own address, the token included.
    join_action: String,
    /// While this page's reader is in the interview.
    leave_action: Option<String>,
    /// Milliseconds until the door shows something else.
    changes_in: Option<i64>,
    /// Until what the reader waits for: milliseconds, and in words.
    counted: Option<(i64, String)>,
    is_past_end: bool,
    /// It can still be moved and cancelled.
    can_change: bool,
}

impl<'a> RoomPage<'a> {
    fn new(ctx: &Context, visit: &'a Visit, link: Option<Url>) -> Self {
        let (interview, settings, now) = (&visit.interview, &ctx.settings, ctx.clock.now());
        let (zone, window) = (interview.zone(), interview.window(settings));
        let (start, door, kind) = (zone.local(window.start), Door::of(&window, now), interview.kind());
        let is_recruiter = interview.side_of(visit.user_id) == Some(Side::Recruiter);
        let other_is_closed = interview.is_closed(if is_recruiter { Side::Candidate } else { Side::Recruiter });
        let other = if is_recruiter { Some(interview.candidate()) } else { interview.recruiter() };
        let clock = |at| format!("{} {}", zone.local(at).format("%-I:%M %p on %B %-d"), zone.name());
        let subject = format!("Interview: {}", interview.job_title);
        RoomPage {
            shell: Shell::new(ctx, visit.session.as_ref()),
            room_script: files::address("room.js", settings),
            link_script: files::address("link.js", settings),
            interview,
            door,
            kind,
            is_recruiter,
            other_is_closed,
            contact: other.as_ref().filter(|_| !other_is_closed).map(|other| mailto(&other.email, &subject)),
            other: other.map_or_else(|| interview.recruiter_name(), |other| other.name()),
            date: start.format("%A, %B %d, %Y").to_string(),
            time: start.format("%-I:%M %p").to_string(),
            timezone: zone.name().to_owned(),
            offset: format!("UTC{}", start.format("%:z")),
            starts: window.start.timestamp(),
            opens: clock(window.opens),
            closes: clock(window.closes),
            duration: duration_words(interview.minutes(settings)),
            status: status_words(window.status(now)),
            dial: interview.location.as_deref().filter(|_| kind == InterviewType::Phone).and_then(dial),
            calendar: visit.address("calendar.ics"),
            leads_to: link.as_ref().map(|link| hex::encode(&Sha256::digest(link.origin().ascii_serialization())[..6])),
            link: link.filter(|_| door == Door::Open).map(String::from),
            join_action: visit.address("join/"),
            leave_action: interview.is_present(visit.user_id).then(|| visit.address("left/")),
            changes_in: changes_in(&window, now),
            counted: counted(if door == Door::Open { window.start } else { window.opens }, now),
            is_past_end: now >= window.end,
            can_change: window.can_change(now),
        }
    }

    /// Neither over nor cancelled.
    fn is_ahead(&self) -> bool {
        matches!(self.door, Door::Early | Door::Open)
    }

    fn note(&self) -> Option<&str> {
        self.interview.note.as_deref().filter(|note| !note.trim().is_empty())
    }

    fn reason(&self) -> Option<&str> {
        self.interview.cancellation_reason.as_deref().filter(|reason| !reason.trim().is_empty())
    }
}

/// Milliseconds until the page shows something else.
fn changes_in(window: &Window, now: DateTime<Utc>) -> Option<i64> {
    let changes = [window.opens, window.start, window.end, window.closes + TimeDelta::milliseconds(1)];
    changes.into_iter().find(|change| *change > now).map(|change| (change - now).num_milliseconds())
}

fn counted(awaited: DateTime<Utc>, now: DateTime<Utc>) -> Option<(i64, String)> {
    let left = awaited - now;
    (left > TimeDelta::zero()).then(|| (left.num_milliseconds(), countdown_words(left)))
}

/// As the details say it.
pub fn status_words(status: Status) -> &'static str {
    match status {
        Status::Upcoming => "Upcoming",
        Status::InProgress => "In progress",
        Status::Completed => "Over",
        Status::Cancelled => "Cancelled",
    }
}

/// The meeting link, when it is one that a browser may follow, never `javascript:` and the like, and whose host can
/// stand in a policy's list.
fn safe_link(interview: &Interview) -> Option<Url> {
    let is_plain = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    let link = Url::parse(interview.link()?).ok()?;
    (matches!(link.scheme(), "https" | "http") && link.host_str().is_some_and(is_plain)).then_some(link)
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
