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

mod google;
mod oauth;
mod store;

use std::{fmt::Display, time::Duration};

use anyhow::ensure;
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
    mail,
    secret::PlainToken,
};

pub use self::store::{record_intent, take_intent};

/// One attempt at a call to Google.
const ATTEMPT: Duration = Duration::from_secs(8);

/// Before the second, third and fourth attempt.
const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Undoing one intent.
const UNDO_BUDGET: Duration = Duration::from_secs(15);

/// After this long Google has dealt with every insert that it will ever deal with.
const LATEST_INSERT: TimeDelta = TimeDelta::minutes(5);

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
    /// Of [`new_event_id`], noted in the intent; the same on every try.
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

/// A new id for an event: 32 characters of Google's `0-9a-v` (RFC 2938 base32hex).
pub fn new_event_id() -> String {
    hex::encode(random_bytes::<16>())
}

/// Makes the event with the grant of `user_id` and waits for its Meet link; without one the event is deleted again.
///
/// Repeats the call as long as it may help and the budget lasts. When the event turns out to be made and deleted
/// already, another id is needed: it is given to `rename`, to be noted in the intent, before it is used; a fault of
/// `rename` ends it.
///
/// After an error the event may exist: [`give_up`] the intent.
pub async fn create_event(
    ctx: &Context,
    user_id: i64,
    event: &Event<'_>,
    rename: impl AsyncFn(&str) -> anyhow::Result<()>,
) -> Result<Created, CalendarError> {
    google::Calendar::open(ctx, user_id, ctx.settings.google_budget).await?.create(event, rename).await
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

/// Whether the user's grant might work, as far as is known without asking Google. False when Google is not configured.
pub async fn has_usable_grant(ctx: &Context, user_id: i64) -> sqlx::Result<bool> {
    let Some(client) = &ctx.settings.google else { return Ok(false) };
    let stored = store::grant(&ctx.db, user_id, Some(&client.sealer)).await?;
    Ok(stored.is_some_and(|stored| stored.grant.is_usable(ctx.clock.now())))
}

/// A fresh authorization URL, usable without our credentials, and the state in it. 503 when Google is not configured.
pub async fn authorization_url(ctx: &Context, user_id: i64) -> http::Result<(String, String)> {
    oauth::begin(ctx, user_id).await
}

/// What to answer `user_id` (contract §9.6).
pub async fn error_answer(ctx: &Context, user_id: i64, error: CalendarError) -> Error {
    match error {
        CalendarError::NotConfigured => not_configured(),
        CalendarError::NotConnected => match authorization_url(ctx, user_id).await {
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

/// Notes another event id in an intent. Fails if the intent was given up meanwhile.
pub async fn rename_intent(ctx: &Context, id: Uuid, event_id: &str) -> anyhow::Result<()> {
    ensure!(store::rename_intent(&ctx.db, id, event_id).await?, "the intent was given up meanwhile");
    Ok(())
}

/// Gives an intent up, so that it can never be taken, and undoes it in the background: at once if Google allows, else
/// by the sweep.
pub async fn give_up(ctx: &Context, id: Uuid) -> sqlx::Result<()> {
    if let Some(intent) = store::abandon(&ctx.db, id, ctx.clock.now()).await? {
        let ctx = ctx.clone();
        ctx.tasks.clone().spawn(async move { undo(&ctx, &intent).await });
    }
    Ok(())
}

/// The sweep: undoes every intent that was given up or is older than any request lives. Meant to run every few seconds;
/// several instances share the work. What fails is tried again after 15 s, doubling to 30 min, for 90 days.
pub async fn undo_intents(ctx: &Context) -> anyhow::Result<()> {
    store::forget_old_intents(&ctx.db, ctx.clock.now()).await?;
    loop {
        let due = store::abandon_due(&ctx.db, ctx.clock.now()).await?;
        if due.is_empty() {
            return Ok(());
        }
        undo_all(ctx, due).await;
    }
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
    let deleted = match &intent.event_id {
        Some(event_id) => delete_event(ctx, intent.user_id, event_id, UNDO_BUDGET).await,
        None => Ok(Deleted::Gone),
    };
    let now = ctx.clock.now();
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
            store::postpone_intent(&ctx.db, intent.id, now + wait).await?;
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
        let setback = match tokio::time::timeout(left().min(ATTEMPT), attempt()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(setback)) => setback,
            Err(_) => Setback::passing("no answer in time"),
        };
        tracing::warn!(operation, ?setback, "a call to Google failed");
        let Setback::Passing { retry_after, .. } = setback else { return Err(setback) };
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
