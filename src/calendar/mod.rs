//! Google Calendar: connecting an account, and the events that interviews need there.
//!
//! Hides OAuth, the sealed grants and their refresh, the API and its retries, and the undoing of what a dead request
//! left at Google. Promises: a token is never stored or logged in clear; no transaction or pooled connection waits for
//! Google; scheduling and connecting wait for it no longer than the budget in the settings; an event whose interview
//! was never written is deleted as soon as Google allows. A disconnection may outlast the budget: it gives requests
//! under way that long to end, then takes up to 15 s to delete their events and 5 s to take back the grant.
//!
//! An **intent** is the record that makes the last one true. It is written before the first call to Google
//! ([`record_intent`]) and removed in the transaction that writes the interview ([`take_intent`]). One that is given up
//! ([`give_up`]: the request failed; [`undo_intents`]: it is older than any request lives; a disconnection) can no
//! longer be taken, and its event is deleted.

mod closed;
pub mod emails;
mod google;
mod oauth;
mod retry;
mod state;
mod store;
mod undo;

use anyhow::{Context as _, anyhow};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::{CurrentUser, Session},
    context::Context,
    db,
    http::{self, Error, door, extract::QueryParams},
    mail::{self, Mail},
    secret::{PlainToken, Sealer},
};

pub use self::{
    closed::forget_grants_of_deleted,
    google::Deleted,
    oauth::begin_on_portal,
    store::{Abandoned, Intent, REQUEST_LIFETIME, discard_event, give_up, record_intent, take_intent},
    undo::{LATEST_CALL, remove_expired, undo_intents, undo_now},
};

/// What a person can do whose stored grant does not open here.
pub const CANNOT_DISCONNECT: &str = "Google Calendar cannot be disconnected at the moment. \
                                     You can end the access at https://myaccount.google.com/connections.";

const CLOSED: &str = "the account is inactive or deleted";

/// The endpoints of contract §5.1–5.5.
pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(check_connection))
        .routes(routes!(auth_url))
        .routes(routes!(connect, connect_by_post))
        .routes(routes!(callback))
        .routes(routes!(disconnect))
}

#[derive(Serialize, ToSchema)]
pub struct Connection {
    pub connected: bool,
    /// The connected Google account, null when unknown.
    #[schema(required)]
    pub email: Option<String>,
    /// True where Google has ended the connection, and its recruiter should connect again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_reconnect: bool,
}

/// Whether the caller's Google Calendar is connected, as far as is known without asking Google.
#[utoipa::path(get, path = "/api/company/google/check-connection/", tag = "google",
    responses((status = 200, description = "Connected or not", body = Connection)))]
async fn check_connection(State(ctx): State<Context>, user: CurrentUser) -> http::Result<Json<Connection>> {
    Ok(Json(connection(&ctx, user.id).await?))
}

/// Whether a person's calendar is connected, as far as is known without asking Google.
pub async fn connection(ctx: &Context, user_id: i64) -> sqlx::Result<Connection> {
    let (grant, is_dead) = store::grant_alive_or_dead(&ctx.db, user_id, sealer(ctx)).await?;
    let usable = grant.filter(|grant| grant.is_usable(ctx.clock.now()));
    let needs_reconnect = usable.is_none() && is_dead;
    let (connected, email) = (usable.is_some(), usable.and_then(|grant| grant.email));
    Ok(Connection { connected, email, needs_reconnect })
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
    responses(
        (status = 200, description = "Where to ask for consent", body = Authorization),
        (status = 503, description = "Google is not configured"),
    ))]
async fn auth_url(State(ctx): State<Context>, user: CurrentUser) -> http::Result<Json<Authorization>> {
    let (authorization_url, state) = oauth::begin(&ctx, user.id).await?;
    Ok(Json(Authorization { authorization_url, state }))
}

/// Sends a browser to Google; tells other clients where to go.
#[utoipa::path(get, path = "/api/company/google/connect/", tag = "google",
    security(("bearer" = []), ("portal_session" = [])), responses(
        (status = 200, description = "Where to ask for consent", body = Authorization),
        (status = 302, description = "A navigation: to Google, or to the sign-in page",
            headers(("Location" = String, description = "A fresh authorization URL"))),
        (status = 503, description = "Google is not configured"),
    ))]
async fn connect(ctx: State<Context>, user: CurrentUser, headers: HeaderMap) -> http::Result<Response> {
    let fresh = auth_url(ctx, user).await?;
    Ok(match door::is_navigation(&headers) {
        true => found(fresh.0.authorization_url),
        false => fresh.into_response(),
    })
}

/// Tells where to go to connect Google.
#[utoipa::path(post, path = "/api/company/google/connect/", tag = "google",
    responses(
        (status = 200, description = "Where to ask for consent", body = Authorization),
        (status = 503, description = "Google is not configured"),
    ))]
async fn connect_by_post(ctx: State<Context>, user: CurrentUser) -> http::Result<Json<Authorization>> {
    auth_url(ctx, user).await
}

fn found(location: String) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

/// Where Google sends the browser back to. Always answers with a redirect to the SPA.
#[utoipa::path(get, path = "/api/company/google/callback/", tag = "google", security(()),
    params(
        ("code" = Option<String>, Query, description = "What Google gives for a grant"),
        ("state" = Option<String>, Query, description = "Of the authorization URL"),
        ("error" = Option<String>, Query, description = "Why Google gives no code"),
        ("scope" = Option<String>, Query, description = "What the user allows"),
    ),
    responses((status = 302, description = "To the SPA, or to the portal's dashboard when it was begun there",
        headers(("Location" = String, description = "With the outcome in `google_oauth` and `message`")))))]
async fn callback(State(ctx): State<Context>, headers: HeaderMap, query: QueryParams) -> Response {
    let state = query.get("state");
    let finished = finish(&ctx, query.get("code"), state, &headers).await;
    let frontend = &ctx.settings.frontend_url;
    let page = match &finished {
        _ if oauth::is_of_portal(state) => "/dashboard/".to_owned(),
        Ok(Some(company_id)) => format!("{frontend}/companies/{company_id}/dashboard"),
        _ => format!("{frontend}/dashboard/settings"),
    };
    found(match finished {
        Ok(_) => format!("{page}?google_oauth=success"),
        Err(refusal) => format!("{page}?google_oauth=error&message={}", refusal.0.replace(' ', "%20")),
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
async fn finish(
    ctx: &Context,
    code: Option<&str>,
    state: Option<&str>,
    headers: &HeaderMap,
) -> Result<Option<i64>, NotFinished> {
    let sealer = sealer(ctx);
    // Before anything else: whatever comes of it, a state is used once.
    let begun = match state {
        Some(state) => state::take(&ctx.db, &PlainToken::from_outside(state), sealer).await?,
        None => None,
    };
    let code = code.ok_or(NotFinished("Authorization code missing"))?;
    let state = state.ok_or(NotFinished("State parameter missing"))?;
    let begun = begun
        .filter(|begun| ctx.clock.now() - begun.created_at <= state::LIFETIME)
        .ok_or(NotFinished("Invalid or expired OAuth state"))?;
    // In somebody else's browser, the sender of the link would get that person's calendar.
    let session = Session::of(ctx, headers).await.map_err(|_| anyhow!("the session could not be read"))?;
    let may_finish = oauth::may_finish(state, begun.user_id, session.as_ref());
    may_finish.then_some(()).context("it was begun in another session")?;
    let sealer = sealer.context("Google is not configured")?;
    let code_verifier = begun.code_verifier.context("the code verifier cannot be opened")?;
    begun.user_is_open.then_some(()).context(CLOSED)?;
    let grant = oauth::exchange(ctx, code, &code_verifier).await?;
    crash_point!("connecting: grant given");

    let kept = db::repeated(|| keep_grant(ctx, begun.user_id, &grant, sealer)).await?;
    let Some(company_id) = kept else {
        // It is not stored, so nothing could revoke it later.
        oauth::revoke(ctx, &grant).await;
        return Err(anyhow!(CLOSED).into());
    };
    Ok(company_id)
}

/// Stores a new grant and tells its owner; gives the company that its user owns. `None`: the account is closed.
async fn keep_grant(
    ctx: &Context,
    user_id: i64,
    grant: &store::Grant,
    sealer: &Sealer,
) -> anyhow::Result<Option<Option<i64>>> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin().await?;
    if !store::lock_user(&mut tx, user_id).await? {
        return Ok(None);
    }
    store::put_grant(&mut tx, user_id, grant.clone(), sealer, now).await?;
    store::forget_dead_grant(&mut *tx, user_id).await?;
    store::hasten_intents_of(&mut *tx, user_id).await?;
    if let Some(recipient) = &grant.email {
        let mail = Mail { recipient: Some(recipient.clone()), ..Mail::new(mail::Kind::GoogleConnected, user_id) };
        mail::enqueue(&mut tx, ctx, &[mail]).await?;
    }
    let company_id = store::company_of(&mut *tx, user_id).await?;
    tx.commit().await?;
    Ok(Some(company_id))
}

#[derive(Serialize, ToSchema)]
struct Disconnected {
    success: bool,
    message: &'static str,
}

/// Takes the caller's grant back at Google and forgets it. What requests under way have made there is deleted first.
#[utoipa::path(method(post, delete), path = "/api/company/google/disconnect/", tag = "google",
    responses(
        (status = 200, description = "Not connected any more", body = Disconnected),
        (status = 503, description = "No key here opens the stored connection; nothing was done"),
    ))]
async fn disconnect(State(ctx): State<Context>, user: CurrentUser) -> http::Result<Json<Disconnected>> {
    let message = match disconnect_user(&ctx, user.id).await? {
        true => "Google Calendar disconnected successfully.",
        false => "Google Calendar was not connected.",
    };
    Ok(Json(Disconnected { success: true, message }))
}

/// Takes a person's grant back and forgets it, to the end even when nobody waits for it. Whether there was one.
///
/// # Errors
/// [`Error::Refused`] with [`CANNOT_DISCONNECT`]: nothing was done.
pub async fn disconnect_user(ctx: &Context, user_id: i64) -> http::Result<bool> {
    let own = ctx.clone();
    ctx.to_its_end("a disconnection", async move { forget_grant(&own, user_id).await }).await?
}

async fn forget_grant(ctx: &Context, user_id: i64) -> http::Result<bool> {
    // The intents are undone with the grant.
    opened_row(ctx, user_id).await?;
    undo::undo_intents_of(ctx, user_id).await?;
    let mut was_connected = false;
    while let Some((row, grant)) = opened_row(ctx, user_id).await? {
        was_connected = true;
        // First: nobody could revoke a grant whose row is gone, and a row whose grant is revoked can be removed later.
        if let Some(grant) = &grant {
            oauth::revoke(ctx, grant).await;
        }
        crash_point!("disconnecting: grant revoked");
        // One that was written meanwhile is read again.
        if store::remove_grant(&ctx.db, user_id, &row).await? {
            break;
        }
    }
    store::forget_dead_grant(&ctx.db, user_id).await?;
    Ok(was_connected)
}

/// The user's row, and its grant if it can be read.
async fn opened_row(ctx: &Context, user_id: i64) -> http::Result<Option<(String, Option<store::Grant>)>> {
    let Some(row) = store::row(&ctx.db, user_id).await? else { return Ok(None) };
    match store::Grant::open(&row, user_id, sealer(ctx)) {
        Ok(grant) => Ok(Some((row, grant))),
        Err(store::Unopened) => {
            tracing::warn!(user_id, "no key here opens this grant: it is kept, although its owner disconnects");
            Err(Error::refused(StatusCode::SERVICE_UNAVAILABLE, CANNOT_DISCONNECT))
        }
    }
}

/// What opens sealed values; none where Google is not configured.
fn sealer(ctx: &Context) -> Option<&Sealer> {
    ctx.settings.google.as_ref().map(|client| &client.sealer)
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

/// Makes the event with the grant of `user_id` and waits for its Meet link; without one the event is deleted again.
///
/// Repeats the call as long as it may help and the budget lasts. When the event turns out to have been made and deleted
/// already it is made under another id, noted in the intent first.
///
/// After an error the event may exist: [`give_up`] the intent. A call that ends when the intent may have been undone
/// and forgotten already records its event itself, to be undone.
pub async fn create_event(
    ctx: &Context,
    user_id: i64,
    intent: Intent,
    event: &Event<'_>,
) -> Result<Created, CalendarError> {
    google::Calendar::open(ctx, user_id, ctx.settings.google_budget).await?.create(intent, event).await
}

/// What became of an event that was to be as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    Kept {
        ical_uid: Option<String>,
        organizer: Option<String>,
        /// An attempt at it that no answer came to may arrive late ([`LATEST_CALL`]) and undo what comes after this.
        in_doubt: bool,
    },
    /// There was none, or it was gone: the one that was made. [`take_intent`] belongs into the transaction that keeps
    /// it.
    Made(Created),
}

/// Changes title, description and time of an event of `user_id` to those of `event`. Without one, or when it is gone,
/// it is made as by [`create_event`], after `intent` has been recorded.
///
/// After an error the event may have been changed or made: [`give_up`] the intent, and call this again later.
pub async fn put_event(
    ctx: &Context,
    user_id: i64,
    intent: Uuid,
    old_event: Option<&str>,
    event: &Event<'_>,
) -> Result<Put, CalendarError> {
    let mut calendar = google::Calendar::open(ctx, user_id, ctx.settings.google_budget).await?;
    match old_event {
        Some(event_id) => calendar.change(intent, event_id, event).await,
        None => Ok(Put::Made(calendar.create_anew(intent, event).await?)),
    }
}

/// Deletes an event of `user_id`; one that is gone already is fine. After an error it may have been deleted; what is
/// [`Deleted::Unsure`] is to be recorded by [`discard_event`].
pub async fn delete_event(ctx: &Context, user_id: i64, event_id: &str) -> Result<Deleted, CalendarError> {
    google::Calendar::open(ctx, user_id, ctx.settings.google_budget).await?.delete(event_id).await
}

/// Refuses (contract §5.6, rule 11) unless the user's grant might work, as far as is known without asking Google. One
/// that has ended and cannot be refreshed is removed.
pub async fn require_grant(ctx: &Context, user_id: i64) -> http::Result<()> {
    let Some(client) = &ctx.settings.google else { return Err(not_configured()) };
    if let Some(stored) = store::grant(&ctx.db, user_id, Some(&client.sealer)).await? {
        if stored.grant.is_usable(ctx.clock.now()) {
            return Ok(());
        }
        oauth::bury(ctx, user_id, &stored.text, oauth::ENDED).await?;
    }
    Err(error_answer(ctx, user_id, CalendarError::NotConnected).await)
}

/// A recruiter has to connect Google first.
#[derive(Serialize, ToSchema)]
pub struct NotConnected {
    error: &'static str,
    needs_google_auth: bool,
    /// A fresh authorization URL, to be opened in a browser.
    google_auth_url: String,
    connect_url: &'static str,
}

/// What to answer `user_id` (contract §9.6).
pub async fn error_answer(ctx: &Context, user_id: i64, error: CalendarError) -> Error {
    match error {
        CalendarError::NotConfigured => not_configured(),
        CalendarError::NotConnected => match oauth::begin(ctx, user_id).await {
            Ok((google_auth_url, _)) => {
                let body = json!(NotConnected {
                    error: "Google Calendar not connected",
                    needs_google_auth: true,
                    google_auth_url,
                    connect_url: "/api/company/google/connect/",
                });
                Error::Body(StatusCode::UNAUTHORIZED, body)
            }
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

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use axum::Router;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        clock::Clock,
        config::{PoolLimits, Settings},
        context::Parts,
        dev::google::{Options, Simulator},
        smtp::Smtp,
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

    /// The URL of a Google of one's own.
    pub(super) async fn stand_in(google: Router) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(axum::serve(listener, google).into_future());
        url
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
            ("EMAIL_USE_TLS", "false"),
        ];
        let urls = urls.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = changes.iter().copied().chain(urls).chain(fixed).collect();
        let value = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let settings = Settings::from_layers(|name| value(name).filter(|value| !value.is_empty())).expect("settings");
        let limits = PoolLimits { acquire: Duration::from_millis(50), ..settings.pool };
        let db = db::lazily("postgres://127.0.0.1:1/none", limits).expect("a URL");
        let smtp = settings.email.as_ref().map(|server| Smtp::new(server).expect("no TLS to set up"));
        let metrics = crate::metrics::Metrics::new().expect("counters");
        let (http, waiting, hashing, stopping, tasks, clock_is_off) = Default::default();
        Context::new(Parts {
            settings,
            clock,
            clock_is_off,
            db,
            http,
            smtp,
            metrics,
            waiting,
            hashing,
            stopping,
            tasks,
        })
    }
}
