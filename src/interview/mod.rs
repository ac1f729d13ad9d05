//! Interviews: scheduling, changing and cancelling them, listing, opening and joining them, reminding of them (contract
//! §5.6–5.16, §8).
//!
//! Handlers here turn HTTP into calls and back. `model` has the pure rules, `store` the SQL of whole interviews, `list`
//! an interview as lists show it, `page` which part of a list a request asks for. What crosses systems: `booking` makes
//! an interview, by the rules whose `facts` the database has, of one `key` once; `change` changes and cancels it under
//! a `claim` and aligns its event. `presence` knows who is there, `analytics` what interviews come to, `applicants` who
//! can be invited, `preview` what a time means and what to warn of; `reminder` and `instants` are sweeps, `emails` has
//! the words of the mails, `when` those of times.

pub mod analytics;
pub mod applicants;
mod booking;
mod change;
mod claim;
pub mod emails;
mod facts;
mod instants;
mod key;
mod list;
pub mod model;
mod page;
mod presence;
mod preview;
mod reminder;
mod store;
pub mod when;

pub use change::align_events;
pub use instants::{Reach, fill_instants};
pub use key::is_key_used;
pub use presence::{enter, leave};
pub use preview::{Preview, preview, preview_change};
pub use reminder::remind;
pub use store::{Interview, mail_of_recruiter, maybe_ahead, of_candidate_with_applications, of_recruiter_with_mails};

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    booking::Scheduled,
    change::{Cancelled, Changed},
    key::KeyUse,
    list::Entry,
    model::{CancelBody, Change, ChangeBody, Endpoint, MeetingStatus, Request, ScheduleBody, Side, Status},
    page::{Cursor, Page, query_after},
    store::Presence,
};
use crate::{
    auth::CurrentUser,
    calendar::NotConnected,
    context::Context,
    http::{
        Error, Result,
        array::{array, page},
        extract::{IdempotencyKey, PathId, QueryParams, RequestBody},
    },
    secret::TokenHash,
    zone,
};

/// Scheduling; these paths are mounted once.
pub fn scheduling_routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(create_google_interview)).routes(routes!(create_interview))
}

/// What is done with interviews; mounted under `/api/company/interviews/` and `/api/interviews/`.
pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(analytics::analytics))
        .routes(routes!(test_connection))
        .routes(routes!(show, change, cancel_by_delete))
        .routes(routes!(cancel))
        .routes(routes!(join))
        .routes(routes!(calendar))
        .routes(routes!(presence::joined))
        .routes(routes!(presence::left))
}

/// Schedules an interview, by default on Google Meet.
#[utoipa::path(post, path = "/api/company/google/create-interview/", tag = "interviews",
    params(IdempotencyKey), request_body = ScheduleBody, responses(
        (status = 200, description = "Scheduled", body = Scheduled,
            headers(("Idempotency-Replayed" = Option<String>, description = "`true`: it was scheduled before"))),
        NotScheduled,
    ))]
async fn create_google_interview(
    State(ctx): State<Context>,
    user: CurrentUser,
    key: IdempotencyKey,
    body: RequestBody,
) -> Result<Response> {
    let scheduled = schedule_from_body(&ctx, user, Endpoint::Google, key.key(), body.object().await?).await?;
    Ok(answer(StatusCode::OK, scheduled))
}

/// Schedules an interview by phone, in person or by other means.
#[utoipa::path(post, path = "/api/company/create-interview/", tag = "interviews",
    params(IdempotencyKey), request_body = ScheduleBody, responses(
        (status = 201, description = "Scheduled", body = Scheduled,
            headers(("Idempotency-Replayed" = Option<String>, description = "`true`: it was scheduled before"))),
        NotScheduled,
    ))]
async fn create_interview(
    State(ctx): State<Context>,
    user: CurrentUser,
    key: IdempotencyKey,
    body: RequestBody,
) -> Result<Response> {
    let scheduled = schedule_from_body(&ctx, user, Endpoint::Company, key.key(), body.object().await?).await?;
    Ok(answer(StatusCode::CREATED, scheduled))
}

/// Why an interview is not scheduled, besides what its body lacks.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only described here")]
enum NotScheduled {
    /// No valid Bearer token, or Google has to be connected first
    #[response(status = 401)]
    NotConnected(NotConnected),
    /// The caller is not a recruiter with a company
    #[response(status = 403)]
    Forbidden,
    /// No such candidate, or no such job or company of the caller's
    #[response(status = 404)]
    NotFound,
    /// A request with this Idempotency-Key, or the same without one, is still being processed
    #[response(status = 409)]
    Conflict,
    /// The Idempotency-Key was used with a different request
    #[response(status = 422)]
    AnotherRequest,
    /// Too many invitations and updates to this candidate, or invitations in a day; nothing was done
    #[response(status = 429, headers(("Retry-After" = u64, description = "Seconds until there is room for one more")))]
    TooManyMails,
    /// Google refused or did not answer in time; nothing is left of the interview
    #[response(status = 502)]
    GoogleUnavailable,
    /// Google is not configured
    #[response(status = 503)]
    GoogleNotConfigured,
}

/// Schedules an interview as a body of [`Endpoint`] asks for it, at most once with a key, or within a minute. The
/// answer tells what is wrong with the body before what is wrong with the key.
pub async fn schedule_from_body(
    ctx: &Context,
    user: CurrentUser,
    endpoint: Endpoint,
    key: Result<Option<String>>,
    body: Map<String, Value>,
) -> Result<Scheduled> {
    let request = Request::parse(&body, endpoint, ctx.settings.interview_duration_minutes)?;
    let key = KeyUse::new(key?.as_deref(), endpoint, &Value::Object(body));
    booking::schedule(ctx, user, request, key).await
}

fn answer(status: StatusCode, scheduled: Scheduled) -> Response {
    let replayed = scheduled.replayed;
    let mut response = (status, Json(scheduled)).into_response();
    if replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// An interview as the list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Interview, examples(json!({"id": 501, "candidate_name": "Carl Candy", "candidate_email": "carl@x.test",
    "recruiter_name": "Rita Recruit", "recruiter_email": "rita@x.test", "job_title": "Interview",
    "company_name": "Acme", "date": "2030-01-15", "time": "14:00", "timezone": "America/New_York",
    "interview_type": "google_meet", "meeting_link": "https://meet.google.com/abc-defg-hij", "note": "n",
    "status": "upcoming", "user_role": "recruiter", "can_join": false,
    "scheduled_time": "2030-01-15T14:00:00-05:00", "duration_minutes": 60, "location": null})))]
struct Summary {
    id: i64,
    candidate_name: String,
    candidate_email: String,
    recruiter_name: String,
    recruiter_email: String,
    job_title: String,
    company_name: String,
    #[schema(format = Date)]
    date: String,
    /// Wall time, `HH:MM`, or `HH:MM:SS` when the seconds are not 0.
    #[schema(pattern = "^[0-9]{2}:[0-9]{2}(:[0-9]{2})?$")]
    time: String,
    /// As stored: an IANA name, or in old rows any text.
    timezone: String,
    /// As stored: `google_meet`, `phone`, `in_person` or `custom`, which Django writes for everything.
    interview_type: String,
    #[schema(required)]
    meeting_link: Option<String>,
    #[schema(required)]
    note: Option<String>,
    status: Status,
    user_role: Side,
    can_join: bool,
    /// The start with the zone's offset.
    #[schema(format = DateTime)]
    scheduled_time: String,
    duration_minutes: i32,
    #[schema(required)]
    location: Option<String>,
}

impl Summary {
    fn new(interview: Entry, user_id: i64, now: DateTime<Utc>, ctx: &Context) -> Self {
        let window = interview.window(&ctx.settings);
        Summary {
            id: interview.id,
            candidate_name: interview.candidate_name(),
            recruiter_name: interview.recruiter_name(),
            date: interview.date.to_string(),
            time: zone::format_hm(interview.time),
            meeting_link: interview.link().map(str::to_owned),
            status: window.status(now),
            // The caller takes part: the queries and `participated` see to it.
            user_role: interview.side_of(user_id).unwrap_or(Side::Candidate),
            can_join: window.can_join(now),
            scheduled_time: interview.zone().rfc3339(window.start),
            duration_minutes: interview.minutes(&ctx.settings),
            candidate_email: interview.candidate_email,
            recruiter_email: interview.recruiter_email.unwrap_or_default(),
            job_title: interview.job_title,
            company_name: interview.company_name,
            timezone: interview.timezone,
            interview_type: interview.interview_type,
            note: interview.note,
            location: interview.location,
        }
    }
}

/// The caller's interviews, latest first: all of them, or page by page.
#[utoipa::path(get, path = "/", tag = "interviews",
    params(
        ("role" = Option<String>, Query, description = "`candidate` or `recruiter`: only those in which the caller is that"),
        ("limit" = Option<i64>, Query, minimum = 1,
            description = "So many at most: 1 or more, and more than 200 count as 200"),
        ("cursor" = Option<String>, Query, description = "From a `Link`; without a limit, 50 at most"),
    ),
    responses(
        (status = 200, description = "An array, whatever the parameters", body = Vec<Summary>,
            headers(("Link" = Option<String>, description = "`<…>; rel=\"next\"`: where a list that was cut goes on"))),
        (status = 400, description = "The limit or the cursor is malformed"),
    ))]
async fn list(State(ctx): State<Context>, user: CurrentUser, query: QueryParams) -> Result<Response> {
    let role = query.get("role").filter(|role| matches!(*role, "candidate" | "recruiter"));
    let side = role.map(|role| if role == "candidate" { Side::Candidate } else { Side::Recruiter });
    let Page { after, limit } = Page::parse(&query)?;
    let Some(limit) = limit else {
        return array(after, move |after, most| summaries(ctx.clone(), user.id, side, after, most)).await;
    };
    let public_url = ctx.settings.public_url.clone();
    let (answer, next) = page(&summaries(ctx, user.id, side, after, limit + 1).await?, limit)?;
    let next = next.map(|cursor| {
        let role = role.map(|role| format!("role={role}&")).unwrap_or_default();
        let query = query_after(cursor, limit);
        [(header::LINK, format!("<{public_url}/api/company/interviews/?{role}{query}>; rel=\"next\""))]
    });
    Ok((next, answer).into_response())
}

/// At most `most` of a user's interviews after a cursor, each with its own.
async fn summaries(
    ctx: Context,
    user_id: i64,
    side: Option<Side>,
    after: Cursor,
    most: i64,
) -> sqlx::Result<Vec<(Cursor, Summary)>> {
    let interviews = list::of_user(&ctx.db, user_id, side, after, most).await?;
    let now = ctx.clock.now();
    let summary = |interview| (Cursor::of(&interview), Summary::new(interview, user_id, now, &ctx));
    Ok(interviews.into_iter().map(summary).collect())
}

/// An interview in full.
#[derive(Debug, Serialize, ToSchema)]
struct Detail {
    #[serde(flatten)]
    summary: Summary,
    #[schema(required)]
    cancellation_reason: Option<String>,
    portal_join_count: i32,
    #[schema(required, format = DateTime)]
    meeting_started_at: Option<String>,
    #[schema(required, format = DateTime)]
    meeting_ended_at: Option<String>,
    /// Who was there, in the order in which they came.
    attendance: Vec<Attendance>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Attendance {
    /// `candidate` or `recruiter`.
    user_role: String,
    #[schema(format = DateTime)]
    joined_at: String,
    #[schema(required, format = DateTime)]
    left_at: Option<String>,
}

impl From<Presence> for Attendance {
    fn from(presence: Presence) -> Self {
        Attendance {
            user_role: presence.user_role,
            joined_at: zone::timestamp(presence.joined_at),
            left_at: presence.left_at.map(zone::timestamp),
        }
    }
}

/// One of the caller's interviews; its link only while it can be joined.
#[utoipa::path(get, path = "/{id}/", tag = "interviews", params(("id" = i64, Path)),
    responses((status = 200, description = "The interview", body = Detail)))]
async fn show(State(ctx): State<Context>, user: CurrentUser, PathId(id): PathId) -> Result<Json<Detail>> {
    let mut interview = participated(&ctx, id, &user, NOT_YOURS_TO_VIEW).await?;
    let attendance = interview.attendance.take().map(|attendance| attendance.0).unwrap_or_default();
    let (reason, joins) = (interview.cancellation_reason.clone(), interview.portal_join_count);
    let (started, ended) = (interview.meeting_started_at, interview.meeting_ended_at);
    let mut summary = Summary::new(interview.entry, user.id, ctx.clock.now(), &ctx);
    if !summary.can_join {
        summary.meeting_link = None;
    }
    Ok(Json(Detail {
        summary,
        cancellation_reason: reason,
        portal_join_count: joins,
        meeting_started_at: started.map(zone::timestamp),
        meeting_ended_at: ended.map(zone::timestamp),
        attendance: attendance.into_iter().map(Attendance::from).collect(),
    }))
}

/// Changes one of the caller's interviews: only what the body names.
#[utoipa::path(patch, path = "/{id}/", tag = "interviews", params(("id" = i64, Path)),
    request_body = ChangeBody, responses(
        (status = 200, description = "Changed, or nothing was different", body = Changed),
        (status = 401, description = "No valid Bearer token, or Google has to be connected first", body = NotConnected),
        (status = 409, description = "The interview is cancelled, or is being changed"),
        (status = 429, description = "Too many invitations and updates to this candidate; the interview is as it was",
            headers(("Retry-After" = u64, description = "Seconds until there is room for one more"))),
        (status = 502, description = "Google refused or did not answer in time; the interview is as it was"),
        (status = 503, description = "Google is not configured"),
    ))]
async fn change(
    State(ctx): State<Context>,
    user: CurrentUser,
    PathId(id): PathId,
    body: RequestBody,
) -> Result<Json<Changed>> {
    let interview = recruited(&ctx, id, &user, "You are not authorized to change this interview").await?;
    Ok(Json(change_from_body(&ctx, user, interview, &body.object().await?).await?))
}

/// Cancels one of the caller's interviews.
#[utoipa::path(delete, path = "/{id}/", tag = "interviews", params(("id" = i64, Path)),
    request_body = Option<CancelBody>, responses(
        (status = 200, description = "Cancelled, now or already before", body = Cancelled),
        (status = 409, description = "The interview is being changed"),
    ))]
async fn cancel_by_delete(
    ctx: State<Context>,
    user: CurrentUser,
    id: PathId,
    body: RequestBody,
) -> Result<Json<Cancelled>> {
    cancel(ctx, user, id, body).await
}

/// Cancels one of the caller's interviews.
#[utoipa::path(post, path = "/{id}/cancel/", tag = "interviews", params(("id" = i64, Path)),
    request_body = Option<CancelBody>, responses(
        (status = 200, description = "Cancelled, now or already before", body = Cancelled),
        (status = 409, description = "The interview is being changed"),
    ))]
async fn cancel(
    State(ctx): State<Context>,
    user: CurrentUser,
    PathId(id): PathId,
    body: RequestBody,
) -> Result<Json<Cancelled>> {
    let interview = recruited(&ctx, id, &user, "You are not authorized to cancel this interview").await?;
    Ok(Json(cancel_from_body(&ctx, user, interview, &body.object().await?).await?))
}

/// Changes an interview, whose recruiter `user` is, as a body of contract §5.14 asks for it.
pub async fn change_from_body(
    ctx: &Context,
    user: CurrentUser,
    interview: Interview,
    body: &Map<String, Value>,
) -> Result<Changed> {
    let change = Change::parse(body)?;
    ctx.to_its_end("a change", change::change(ctx.clone(), user, interview, change)).await?
}

/// Cancels an interview, whose recruiter `user` is, with the reason in a body of contract §5.15.
pub async fn cancel_from_body(
    ctx: &Context,
    user: CurrentUser,
    interview: Interview,
    body: &Map<String, Value>,
) -> Result<Cancelled> {
    let reason = model::cancellation_reason(body)?;
    ctx.to_its_end("a cancellation", change::cancel(ctx.clone(), user, interview, reason)).await?
}

/// One of the caller's interviews for a calendar; of a cancelled one, what takes it off again.
#[utoipa::path(get, path = "/{id}/calendar.ics", tag = "interviews", params(("id" = i64, Path)), responses(
    (status = 200, description = "An iCalendar object (RFC 5545)", body = String,
        content_type = "text/calendar; charset=utf-8",
        headers(("Content-Disposition" = String, description = "`attachment; filename=\"interview.ics\"`"))),
))]
async fn calendar(State(ctx): State<Context>, user: CurrentUser, PathId(id): PathId) -> Result<Response> {
    let interview = participated(&ctx, id, &user, NOT_YOURS_TO_VIEW).await?;
    Ok(calendar_file(&ctx, &interview))
}

/// An interview as a file that calendars take.
pub fn calendar_file(ctx: &Context, interview: &Interview) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/calendar; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"interview.ics\""),
    ];
    (headers, emails::calendar_file(interview, &ctx.settings, ctx.clock.now())).into_response()
}

/// What somebody needs to join.
#[derive(Debug, Serialize, ToSchema)]
struct Joining {
    interview_id: i64,
    #[schema(required)]
    meet_link: Option<String>,
    #[schema(required)]
    meeting_link: Option<String>,
    can_join: bool,
    meeting_status: MeetingStatus,
    status: Status,
    candidate_name: String,
    recruiter_name: String,
    job_title: String,
    #[schema(format = DateTime)]
    scheduled_time: String,
    /// Whole minutes until the start, truncated toward zero; negative once it has begun.
    time_until_meeting: i64,
    timezone: String,
    interview_type: String,
    #[schema(required)]
    location: Option<String>,
    user_role: Side,
}

/// Whether and how one of the caller's interviews can be joined. The SPA polls this: it changes nothing.
#[utoipa::path(get, path = "/{id}/join/", tag = "interviews", params(("id" = i64, Path)),
    responses((status = 200, description = "Whether and how to join", body = Joining)))]
async fn join(State(ctx): State<Context>, user: CurrentUser, PathId(id): PathId) -> Result<Json<Joining>> {
    let interview = participated(&ctx, id, &user, NOT_YOURS_TO_JOIN).await?;
    let (window, now) = (interview.window(&ctx.settings), ctx.clock.now());
    let summary = Summary::new(interview.entry, user.id, now, &ctx);
    Ok(Json(Joining {
        interview_id: summary.id,
        meet_link: summary.meeting_link.clone(),
        meeting_link: summary.meeting_link,
        can_join: summary.can_join,
        meeting_status: window.meeting_status(now),
        status: summary.status,
        candidate_name: summary.candidate_name,
        recruiter_name: summary.recruiter_name,
        job_title: summary.job_title,
        scheduled_time: summary.scheduled_time,
        time_until_meeting: window.minutes_until_start(now),
        timezone: summary.timezone,
        interview_type: summary.interview_type,
        location: summary.location,
        user_role: summary.user_role,
    }))
}

const NOT_YOURS_TO_VIEW: &str = "You are not authorized to view this interview";
const NOT_YOURS_TO_JOIN: &str = "You are not authorized to join this interview";

fn not_found() -> Error {
    Error::missing("Interview not found", "No Interview matches the given query.")
}

/// The interview of a path, if the caller takes part in it; 404 comes before 403.
async fn participated(ctx: &Context, id: Option<i64>, user: &CurrentUser, refusal: &'static str) -> Result<Interview> {
    let interview = found(ctx, id).await?;
    interview.side_of(user.id).ok_or(Error::forbidden(refusal))?;
    Ok(interview)
}

/// The interview of a path, if the caller is its recruiter; 404 comes before 403.
async fn recruited(ctx: &Context, id: Option<i64>, user: &CurrentUser, refusal: &'static str) -> Result<Interview> {
    let interview = found(ctx, id).await?;
    (interview.recruiter_id == Some(user.id)).then_some(interview).ok_or(Error::forbidden(refusal))
}

async fn found(ctx: &Context, id: Option<i64>) -> Result<Interview> {
    by_id(ctx, id).await?.ok_or_else(not_found)
}

#[derive(Serialize, ToSchema)]
struct DeviceCheck {
    connection_test: &'static str,
    camera_access: bool,
    microphone_access: bool,
    network_quality: &'static str,
    recommendations: [&'static str; 0],
}

/// What the SPA's device check asks for; the checks themselves are the browser's. The body is ignored.
#[utoipa::path(post, path = "/test-connection/", tag = "interviews",
    responses((status = 200, description = "Always well", body = DeviceCheck)))]
async fn test_connection(_user: CurrentUser) -> Json<DeviceCheck> {
    Json(DeviceCheck {
        connection_test: "success",
        camera_access: true,
        microphone_access: true,
        network_quality: "good",
        recommendations: [],
    })
}

/// An interview, with who was there; the caller has to see to it that the person may see it.
pub async fn by_id(ctx: &Context, id: Option<i64>) -> sqlx::Result<Option<Interview>> {
    match id {
        Some(id) => store::by_id(&ctx.db, id).await,
        None => Ok(None),
    }
}

/// The interview that a mailed link opens, and whom the link was made for.
pub async fn by_mailed_link(ctx: &Context, id: i64, token: &TokenHash) -> sqlx::Result<Option<(Interview, i64)>> {
    let now = ctx.clock.now();
    store::by_portal_token(&ctx.db, id, token, now, &ctx.settings).await
}

/// Removes idempotency keys, link tokens and wishes for alignment that have had their time.
pub async fn remove_expired(ctx: &Context) -> anyhow::Result<()> {
    claim::remove_expired(&ctx.db, ctx.clock.now()).await?;
    Ok(store::remove_expired(&ctx.db, ctx.clock.now(), &ctx.settings).await?)
}
