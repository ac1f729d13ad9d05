//! Google Calendar: connecting an account, and the events that interviews need there.
//!
//! Hides OAuth, the sealed grants and their refresh, the API and its retries, and the undoing of what a dead request
//! left at Google. Promises: a token is never stored or logged in clear; all calls to Google of one request end within
//! its budget; no transaction or pooled connection waits for Google; an event whose interview was never written is
//! deleted as soon as Google allows.
//!
//! An **intent** is the record that makes the last one true. It is written before the first call to Google
//! ([`record_intent`]) and removed in the transaction that writes the interview ([`take_intent`]). One that is given up
//! ([`give_up`]: the request failed; [`undo_intents`]: it is older than any request lives; a disconnection) can no
//! longer be taken, and its event is deleted.

pub mod emails;
mod google;
mod oauth;
mod store;

use std::{fmt::Display, time::Duration};

use anyhow::Context as _;
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::store::Abandoned;
use crate::{
    auth::CurrentUser,
    clock::random_bytes,
    context::Context,
    http::{self, Error, extract::QueryParams},
    mail::{self, NewMail},
    secret::PlainToken,
};

pub use self::store::{give_up, record_intent, take_intent};

/// One attempt at a call to Google.
const ATTEMPT: Duration = Duration::from_secs(8);

/// Before the second, third and fourth attempt.
const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Undoing one intent.
const UNDO_BUDGET: Duration = Duration::from_secs(15);

/// After this long Google has dealt with every insert that it will ever deal with.
const LATEST_INSERT: TimeDelta = TimeDelta::minutes(5);

const INACTIVE: &str = "the user is not active";

/// The endpoints of contract §5.1–5.5.
pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(check_connection))
        .routes(routes!(auth_url))
        .routes(routes!(connect))
        .routes(routes!(callback))
        .routes(routes!(disconnect))
}

#[derive(Serialize, ToSchema)]
struct Connection {
    connected: bool,
    /// The connected Google account, null when unknown.
    email: Option<String>,
}

/// Whether the caller's Google Calendar is connected, as far as is known without asking Google.
#[utoipa::path(get, path = "/api/company/google/check-connection/", tag = "google",
    responses((status = 200, body = Connection)))]
async fn check_connection(State(ctx): State<Context>, user: CurrentUser) -> http::Result<Json<Connection>> {
    let sealer = ctx.settings.google.as_ref().map(|client| &client.sealer);
    let grant = store::grant(&ctx.db, user.id, sealer).await?.map(|stored| stored.grant);
    let usable = grant.filter(|grant| grant.is_usable(ctx.clock.now()));
    Ok(Json(Connection { connected: usable.is_some(), email: usable.and_then(|grant| grant.email) }))
}

#[derive(Serialize, ToSchema)]
struct Authorization {
    /// Google's page that asks for consent.
    authorization_url: String,
    /// In the URL too; valid once, for 10 minutes.
    state: String,
}

/// A fresh authorization URL.
#[utoipa::path(get, path = "/api/company/google/auth-url/", tag = "google",
    responses((status = 200, body = Authorization), (status = 503, description = "Google is not configured")))]
async fn auth_url(State(ctx): State<Context>, user: CurrentUser) -> http::Result<Json<Authorization>> {
    let (authorization_url, state) = oauth::begin(&ctx, user.id).await?;
    Ok(Json(Authorization { authorization_url, state }))
}

/// Sends a browser to Google; tells other clients where to go.
#[utoipa::path(method(get, post), path = "/api/company/google/connect/", tag = "google",
    responses((status = 200, body = Authorization), (status = 302, description = "a navigation: to Google"),
        (status = 503, description = "Google is not configured")))]
async fn connect(
    State(ctx): State<Context>,
    user: CurrentUser,
    method: Method,
    headers: HeaderMap,
) -> http::Result<Response> {
    let (authorization_url, state) = oauth::begin(&ctx, user.id).await?;
    Ok(match method != Method::POST && is_navigation(&headers) {
        true => found(authorization_url),
        false => Json(Authorization { authorization_url, state }).into_response(),
    })
}

fn is_navigation(headers: &HeaderMap) -> bool {
    let says =
        |name, text| headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(text)));
    headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate") || says(header::ACCEPT, "text/html")
}

fn found(location: String) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

/// Where Google sends the browser back to. Always answers with a redirect to the SPA.
#[utoipa::path(get, path = "/api/company/google/callback/", tag = "google", security(()),
    params(("code" = Option<String>, Query), ("state" = Option<String>, Query), ("error" = Option<String>, Query)),
    responses((status = 302, description = "to the SPA, with the outcome")))]
async fn callback(State(ctx): State<Context>, query: QueryParams) -> Response {
    let frontend = &ctx.settings.frontend_url;
    found(match finish(&ctx, query.get("code"), query.get("state")).await {
        Ok(Some(company_id)) => format!("{frontend}/companies/{company_id}/dashboard?google_oauth=success"),
        Ok(None) => format!("{frontend}/dashboard/settings?google_oauth=success"),
        Err(refusal) => {
            let message = refusal.0.replace(' ', "%20");
            format!("{frontend}/dashboard/settings?google_oauth=error&message={message}")
        }
    })
}

/// Why an authorization did not end in a connection: a fixed sentence.
struct NotFinished(&'static str);

impl<E: Into<anyhow::Error>> From<E> for NotFinished {
    fn from(fault: E) -> Self {
        tracing::warn!(error = format!("{:#}", fault.into()), "a Google Calendar could not be connected");
        NotFinished("Could not connect Google Calendar")
    }
}

/// Uses up the state and stores the grant that the code stands for; gives the company that its user owns.
async fn finish(ctx: &Context, code: Option<&str>, state: Option<&str>) -> Result<Option<i32>, NotFinished> {
    let sealer = ctx.settings.google.as_ref().map(|client| &client.sealer);
    // Before anything else: whatever comes of it, a state is used once.
    let begun = match state {
        Some(state) => store::take_state(&ctx.db, &PlainToken::from_outside(state), sealer).await?,
        None => None,
    };
    let code = code.ok_or(NotFinished("Authorization code missing"))?;
    state.ok_or(NotFinished("State parameter missing"))?;
    let begun = begun
        .filter(|begun| ctx.clock.now() - begun.created_at <= store::STATE_LIFETIME)
        .ok_or(NotFinished("Invalid or expired OAuth state"))?;
    let sealer = sealer.context("Google is not configured")?;
    let code_verifier = begun.code_verifier.context("the code verifier cannot be opened")?;
    begun.user_is_active.then_some(()).context(INACTIVE)?;
    let grant = oauth::exchange(ctx, code, &code_verifier).await?;

    let now = ctx.clock.now();
    let mut tx = ctx.db.begin().await?;
    store::lock_user(&mut tx, begun.user_id).await?.then_some(()).context(INACTIVE)?;
    let recipient = grant.email.clone();
    store::put_grant(&mut tx, begun.user_id, grant, sealer, now).await?;
    store::hasten_intents_of(&mut *tx, begun.user_id).await?;
    if ctx.smtp.is_some() && recipient.is_some() {
        let mail = NewMail {
            kind: mail::Kind::GoogleConnected,
            interview_id: None,
            user_id: begun.user_id,
            recipient,
            sequence: 0,
        };
        mail::enqueue(&mut tx, now, mail, Duration::ZERO).await?;
    }
    let company_id = store::company_of(&mut *tx, begun.user_id).await?;
    tx.commit().await?;
    Ok(company_id)
}

#[derive(Serialize, ToSchema)]
struct Disconnected {
    success: bool,
    message: &'static str,
}

/// Forgets the caller's grant and takes it back at Google. What requests under way have made there is deleted first.
#[utoipa::path(method(post, delete), path = "/api/company/google/disconnect/", tag = "google",
    responses((status = 200, body = Disconnected)))]
async fn disconnect(State(ctx): State<Context>, user: CurrentUser) -> http::Result<Json<Disconnected>> {
    undo_intents_of(&ctx, user.id).await?;
    let sealer = ctx.settings.google.as_ref().map(|client| &client.sealer);
    let removed = store::remove_grant(&ctx.db, user.id, sealer).await?;
    let message = match removed {
        Some(_) => "Google Calendar disconnected successfully.",
        None => "Google Calendar was not connected.",
    };
    if let Some(grant) = removed.flatten() {
        // A task of its own: nobody could revoke it later.
        let task = ctx.clone();
        _ = ctx.tasks.spawn(async move { oauth::revoke(&task, &grant).await }).await;
    }
    Ok(Json(Disconnected { success: true, message }))
}

/// Why there is no event.
#[derive(Debug)]
pub enum CalendarError {
    NotConfigured,
    /// No grant, or Google declared it dead (it is removed then).
    NotConnected,
    /// Google refused or did not answer in time; why is in the log.
    Unavailable,
    /// A fault of ours.
    Internal(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for CalendarError {
    fn from(fault: E) -> Self {
        CalendarError::Internal(fault.into())
    }
}

/// The event to make for an interview.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Noted in the intent, 5 to 1024 characters of `0-9a-v`; the same on every try.
    pub id: &'a str,
    /// Of the Meet link's creation; the same on every try.
    pub request_id: Uuid,
    pub job_title: &'a str,
    pub candidate_name: &'a str,
    pub recruiter_name: &'a str,
    pub note: Option<&'a str>,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    /// The IANA name that was asked for.
    pub zone: &'a str,
    /// E-mail addresses.
    pub attendees: [&'a str; 2],
}

/// An event with a Meet link, as Google answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub event_id: String,
    pub meeting_link: String,
    pub ical_uid: Option<String>,
    /// E-mail address.
    pub organizer: Option<String>,
}

/// What a deletion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The event was there or had been deleted before.
    Gone,
    /// Google knows no such event (404): perhaps not yet.
    NeverThere,
}

/// Makes the event with the grant of `user_id` and waits for its Meet link; without one the event is deleted again.
///
/// Repeats the call as long as it may help and the budget lasts. When the event turns out to have been made and deleted
/// already it is made under another id, noted in the intent first.
///
/// After an error the event may exist: [`give_up`] the intent.
pub async fn create_event(
    ctx: &Context,
    user_id: i64,
    intent: Uuid,
    event: &Event<'_>,
) -> Result<Created, CalendarError> {
    google::Calendar::open(ctx, user_id, ctx.settings.google_budget).await?.create(intent, event).await
}

/// Deletes an event with the grant of `user_id`, within `budget`.
pub async fn delete_event(
    ctx: &Context,
    user_id: i64,
    event_id: &str,
    budget: Duration,
) -> Result<Deleted, CalendarError> {
    google::Calendar::open(ctx, user_id, budget).await?.delete(event_id).await
}

/// Refuses (contract §5.6, rule 11) unless the user's grant might work, as far as is known without asking Google.
pub async fn require_grant(ctx: &Context, user_id: i64) -> http::Result<()> {
    let Some(client) = &ctx.settings.google else { return Err(not_configured()) };
    let stored = store::grant(&ctx.db, user_id, Some(&client.sealer)).await?;
    match stored.is_some_and(|stored| stored.grant.is_usable(ctx.clock.now())) {
        true => Ok(()),
        false => Err(error_answer(ctx, user_id, CalendarError::NotConnected).await),
    }
}

/// What to answer `user_id` (contract §9.6).
pub async fn error_answer(ctx: &Context, user_id: i64, error: CalendarError) -> Error {
    match error {
        CalendarError::NotConfigured => not_configured(),
        CalendarError::NotConnected => match oauth::begin(ctx, user_id).await {
            Ok((url, _)) => Error::Body(
                StatusCode::UNAUTHORIZED,
                json!({
                    "error": "Google Calendar not connected",
                    "needs_google_auth": true,
                    "google_auth_url": url,
                    "connect_url": "/api/company/google/connect/",
                }),
            ),
            Err(error) => error,
        },
        CalendarError::Unavailable => {
            Error::refused(StatusCode::BAD_GATEWAY, "Google Calendar is unavailable. Please try again.")
        }
        CalendarError::Internal(fault) => Error::Internal(fault),
    }
}

fn not_configured() -> Error {
    Error::refused(StatusCode::SERVICE_UNAVAILABLE, "Google integration is not configured")
}

/// The sweep: undoes every intent that was given up or is older than any request lives. Meant to run every few seconds;
/// several instances share the work. What fails is tried again after 15 s, doubling to 30 min, for 90 days.
pub async fn undo_intents(ctx: &Context) -> anyhow::Result<()> {
    loop {
        let due = store::abandon_due(&ctx.db, ctx.clock.now()).await?;
        if due.is_empty() {
            return Ok(());
        }
        undo_all(ctx, due).await;
    }
}

/// Removes what nobody needs any more. Meant to run now and then.
pub async fn remove_expired(ctx: &Context) -> anyhow::Result<()> {
    Ok(store::remove_expired(&ctx.db, ctx.clock.now()).await?)
}

async fn undo_all(ctx: &Context, intents: Vec<Abandoned>) {
    let mut tasks = JoinSet::new();
    for intent in intents {
        let ctx = ctx.clone();
        tasks.spawn(async move { undo(&ctx, &intent).await });
    }
    tasks.join_all().await;
}

/// Deletes the event of an abandoned intent, then the intent.
async fn undo(ctx: &Context, intent: &Abandoned) {
    if let Err(fault) = try_undo(ctx, intent).await {
        // Its claim ends by itself.
        tracing::error!(intent = %intent.id, error = format!("{fault:#}"), "could not undo an intent");
    }
}

async fn try_undo(ctx: &Context, intent: &Abandoned) -> anyhow::Result<()> {
    let now = ctx.clock.now();
    let deleted = match &intent.event_id {
        Some(event_id) => {
            delete_event(ctx, intent.user_id, event_id, UNDO_BUDGET.min(ctx.settings.google_budget)).await
        }
        None => Ok(Deleted::Gone),
    };
    let settled = intent.created_at + LATEST_INSERT;
    match deleted {
        Ok(Deleted::Gone) => store::forget_intent(&ctx.db, intent.id).await?,
        Ok(Deleted::NeverThere) if now >= settled => store::forget_intent(&ctx.db, intent.id).await?,
        // Google may still be at work on an insert whose answer nobody waited for: look again later.
        Ok(Deleted::NeverThere) => store::postpone_intent(&ctx.db, intent.id, settled).await?,
        Err(CalendarError::Internal(fault)) => return Err(fault),
        Err(error) => {
            let wait = TimeDelta::seconds(15 << (intent.attempts - 1).clamp(0, 7)).min(TimeDelta::minutes(30));
            tracing::info!(intent = %intent.id, ?error, seconds = wait.num_seconds(), "an event waits to be deleted");
            store::postpone_intent(&ctx.db, intent.id, ctx.clock.now() + wait).await?;
        }
    }
    Ok(())
}

/// Undoes all intents of a user while his grant still allows it. Those of requests under way cannot commit any more;
/// they get the time to end, since an event of theirs may appear until then.
async fn undo_intents_of(ctx: &Context, user_id: i64) -> sqlx::Result<()> {
    let intents = store::abandon_all_of(&ctx.db, user_id, ctx.clock.now()).await?;
    let deadline = Instant::now() + ctx.settings.google_budget;
    while store::any_runs(&ctx.db, &intents, ctx.clock.now()).await? && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    undo_all(ctx, intents).await;
    Ok(())
}

/// How an attempt at a call to Google failed.
#[derive(Debug)]
enum Setback {
    /// No answer, an unreadable one, or one that asks to come back: the next attempt may succeed.
    Passing { why: String, retry_after: Option<Duration> },
    /// An answer that would be the same again. `reason` is Google's code for it, empty when unknown.
    Refused { status: StatusCode, reason: String },
}

impl Setback {
    fn passing(why: impl Display) -> Self {
        Setback::Passing { why: why.to_string(), retry_after: None }
    }

    /// Reads an error status of Google (contract §9.6).
    fn of(status: StatusCode, headers: &HeaderMap, reason: &str) -> Self {
        let rate_limited = matches!(reason, "rateLimitExceeded" | "userRateLimitExceeded");
        match status {
            StatusCode::TOO_MANY_REQUESTS => {}
            StatusCode::FORBIDDEN if rate_limited => {}
            status if status.is_server_error() => {}
            _ => return Setback::Refused { status, reason: reason.to_owned() },
        }
        let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Setback::Passing { why: format!("{status} {reason}"), retry_after: seconds.map(Duration::from_secs) }
    }
}

/// Makes a call to Google: up to four attempts, with growing waits or those that Google asks for, until `deadline`.
/// What comes back as `Passing` was tried long enough.
async fn retrying<T, F>(
    ctx: &Context,
    deadline: Instant,
    operation: &'static str,
    attempt: impl Fn() -> F,
) -> Result<T, Setback>
where
    F: Future<Output = Result<T, Setback>>,
{
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut waits = WAITS.into_iter();
    loop {
        if left().is_zero() {
            return Err(Setback::passing("no time left"));
        }
        let setback = match tokio::time::timeout(left().min(ATTEMPT), attempt()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(setback)) => setback,
            Err(_) => Setback::passing("no answer in time"),
        };
        let retry_after = match &setback {
            Setback::Passing { why, retry_after } => {
                tracing::warn!(operation, why, "a call to Google failed");
                *retry_after
            }
            Setback::Refused { status, reason } => {
                tracing::info!(operation, %status, reason, "Google refused a call");
                return Err(setback);
            }
        };
        // Between 3/4 and 5/4, so that many who failed together do not come back together.
        let jitter = 0.75 + f64::from(random_bytes::<1>()[0]) / 512.0;
        let Some(wait) = waits.next().map(|wait| wait.mul_f64(jitter)) else { return Err(setback) };
        let wait = retry_after.filter(|asked| *asked < left()).unwrap_or(wait);
        if wait >= left() {
            return Err(setback);
        }
        ctx.clock.sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use sqlx::postgres::PgPoolOptions;

    use super::*;
    use crate::{
        clock::Clock,
        config::Settings,
        context::Parts,
        dev::google::{Options, Simulator},
    };

    /// A simulator and a context that speaks with it; there is no database.
    pub(super) async fn world(changes: &[(&str, &str)]) -> (Simulator, Context) {
        let clock = Clock::manual("2026-11-20T12:00:00Z".parse().expect("an instant"));
        let options = Options {
            clock: clock.clone(),
            client_id: "client".into(),
            client_secret: "secret".into(),
            state_file: None,
            accounts: vec!["rita@gmail.test".into()],
        };
        let google = Simulator::start((Ipv4Addr::LOCALHOST, 0).into(), options).await.expect("a free port");
        let ctx = context(google.url(), changes, clock);
        (google, ctx)
    }

    pub(super) fn context(google: &str, changes: &[(&str, &str)], clock: Clock) -> Context {
        let urls = [
            ("GOOGLE_AUTH_URI", format!("{google}/o/oauth2/auth")),
            ("GOOGLE_TOKEN_URI", format!("{google}/token")),
            ("GOOGLE_REVOKE_URI", format!("{google}/revoke")),
            ("GOOGLE_CALENDAR_API_BASE", google.to_owned()),
        ];
        let fixed = [
            ("DATABASE_URL", "postgres://127.0.0.1:1/none"),
            ("SECRET_KEY", "key"),
            ("PUBLIC_URL", "https://api.test"),
            ("GOOGLE_CLIENT_ID", "client"),
            ("GOOGLE_CLIENT_SECRET", "secret"),
            ("TOKEN_ENCRYPTION_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="),
            ("EMAIL_HOST", "mail.test"),
        ];
        let urls = urls.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = changes.iter().copied().chain(urls).chain(fixed).collect();
        let value = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let settings = Settings::from_layers(|name| value(name).filter(|value| !value.is_empty())).expect("settings");
        let db = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50));
        let db = db.connect_lazy("postgres://127.0.0.1:1/none").expect("a URL");
        Context::new(Parts { settings, clock, db, http: Default::default(), smtp: None, tasks: Default::default() })
    }

    #[test]
    fn what_may_help_is_tried_again_and_nothing_else() {
        let passes = |status: u16, reason: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            matches!(Setback::of(status, &HeaderMap::new(), reason), Setback::Passing { .. })
        };
        for (status, reason) in [
            (429, ""),
            (429, "rateLimitExceeded"),
            (500, "backendError"),
            (503, ""),
            (599, ""),
            (403, "rateLimitExceeded"),
            (403, "userRateLimitExceeded"),
        ] {
            assert!(passes(status, reason), "{status} {reason}");
        }
        for (status, reason) in [
            (400, "badRequest"),
            (401, "authError"),
            (403, ""),
            (403, "quotaExceeded"),
            (403, "forbidden"),
            (404, "notFound"),
            (409, "duplicate"),
            (410, "deleted"),
            (412, "rateLimitExceeded"),
            (302, ""),
        ] {
            assert!(!passes(status, reason), "{status} {reason}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().expect("a header"))]);
            match Setback::of(StatusCode::TOO_MANY_REQUESTS, &headers, "") {
                Setback::Passing { retry_after, .. } => retry_after,
                Setback::Refused { .. } => panic!("429 passes"),
            }
        };
        assert_eq!(asked("3"), Some(Duration::from_secs(3)));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
    }

    /// What four failing attempts with this setback come to, and how many there were.
    async fn attempts(ctx: &Context, budget: Duration, setback: fn() -> Setback) -> (Setback, usize) {
        let count = AtomicUsize::new(0);
        let outcome = retrying(ctx, Instant::now() + budget, "test", || async {
            count.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(setback())
        });
        (outcome.await.expect_err("every attempt fails"), count.into_inner())
    }

    #[tokio::test]
    async fn four_attempts_are_made_and_one_at_what_is_refused() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::manual(DateTime::UNIX_EPOCH));
        let minute = Duration::from_secs(60);
        assert!(matches!(attempts(&ctx, minute, || Setback::passing("x")).await, (Setback::Passing { .. }, 4)));
        let refused = || Setback::Refused { status: StatusCode::NOT_FOUND, reason: String::new() };
        assert!(matches!(attempts(&ctx, minute, refused).await, (Setback::Refused { .. }, 1)));
    }

    #[tokio::test]
    async fn no_attempt_is_made_when_the_wait_for_it_outlasts_the_budget() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::manual(DateTime::UNIX_EPOCH));
        let millis = Duration::from_millis;
        assert_eq!(attempts(&ctx, millis(300), || Setback::passing("x")).await.1, 1);
        assert_eq!(attempts(&ctx, Duration::ZERO, || Setback::passing("x")).await.1, 0);
        // A Retry-After that does not fit is not waited for; the usual waits are.
        let late = || Setback::Passing { why: String::new(), retry_after: Some(Duration::from_secs(3600)) };
        assert_eq!(attempts(&ctx, Duration::from_secs(60), late).await.1, 4);
    }

    #[tokio::test]
    async fn a_retry_after_that_fits_is_waited_for() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::System);
        let begun = Instant::now();
        let soon = || Setback::Passing { why: String::new(), retry_after: Some(Duration::from_millis(20)) };
        assert_eq!(attempts(&ctx, Duration::from_secs(60), soon).await.1, 4);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(60) && took < Duration::from_millis(500), "{took:?}");
    }

    #[test]
    fn a_navigation_is_known_by_its_mode_or_by_wanting_html() {
        let of = |name: &'static str, value: &str| {
            is_navigation(&HeaderMap::from_iter([(name.parse().expect("a name"), value.parse().expect("a value"))]))
        };
        assert!(of("sec-fetch-mode", "navigate") && of("accept", "text/html,application/xhtml+xml;q=0.9"));
        assert!(!of("sec-fetch-mode", "cors") && !of("accept", "*/*") && !of("accept", "application/json"));
    }
}
