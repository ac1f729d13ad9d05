//! The Google simulator: what "Connect Google" and the calendar lead to in development and in tests.
//!
//! It hides a stand-in for Google's OAuth 2.0 server and Calendar API v3, spoken to over real TCP, with a page at
//! `/_sim/` that shows what it holds and takes orders for faults. It promises to be as strict as Google is: one-time
//! codes bound to client, redirect URI and PKCE challenge, tokens that expire by the [`Clock`], scopes that are
//! checked, ids that cannot be used twice, deleted events that stay readable, and Google's own error bodies. It shares
//! no type with the code it checks, or it would agree with that code's mistakes.
//!
//! | path | what |
//! |---|---|
//! | `/o/oauth2/auth` | the authorization page; `_sim_allow=1` in the query counts as a click on "Allow" |
//! | `/token`, `/revoke` | codes and refresh tokens against access tokens; the end of a grant |
//! | `/calendar/v3/calendars/primary/events[/{id}]` | insert, list, get, patch, delete |
//! | `/calendar/v3/freeBusy` | busy times |
//! | `/_sim/` | the page; `events`, `calls`, `faults`, `behaviour`, `expire`, `revoke` below it speak JSON |
//!
//! What it does not check: whether a time zone exists (only that it could be a name), and quotas (order a fault).

mod calendar;
mod oauth;
mod pages;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use self::wire::{Incoming, Reply};
use crate::clock::Clock;

/// Calls that are remembered; the oldest go first.
const CALLS_KEPT: usize = 50_000;

/// A running simulator. Dropping it frees the port and lets the calls under way finish.
pub struct Simulator {
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// What a simulator is started with.
pub struct Options {
    pub clock: Clock,
    pub client_id: String,
    pub client_secret: String,
    /// Where grants and events are kept across restarts, as JSON; `None` forgets them.
    pub state_file: Option<PathBuf>,
    /// E-mail addresses offered on the authorization page; the first is preselected. At least one.
    pub accounts: Vec<String>,
}

/// How the simulator answers where Google's answers differ from account to account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The scopes that "Allow" grants, in the order of the answer; `None` grants what was asked, sorted.
    pub granted_scopes: Option<Vec<String>>,
    /// Whether the token answers name the granted scopes.
    pub names_scopes: bool,
    /// Whether an exchange may answer a refresh token (for `access_type=offline` and `prompt=consent` only).
    pub refresh_token: bool,
    /// Whether a refresh answers a new refresh token as well; the old one stays valid.
    pub new_refresh_token_on_refresh: bool,
    pub id_token: bool,
    /// In how many answers a new Meet link is still `pending`, the insert's own included. 0: it is there at once.
    pub pending_answers: u32,
    pub meet: Meet,
    /// The organizer's e-mail in new events; `None`: the account's.
    pub organizer: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            granted_scopes: None,
            names_scopes: true,
            refresh_token: true,
            new_refresh_token_on_refresh: false,
            id_token: true,
            pending_answers: 1,
            meet: Meet::VideoFirst,
            organizer: None,
        }
    }
}

/// What a `conferenceData.createRequest` leads to once it is no longer pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meet {
    /// `entryPoints` video, phone; `hangoutLink`.
    #[default]
    VideoFirst,
    /// `entryPoints` phone, video; `hangoutLink`.
    PhoneFirst,
    /// `entryPoints` phone alone, no `hangoutLink`.
    PhoneOnly,
    /// `hangoutLink` alone.
    HangoutLinkOnly,
    /// `createRequest.status.statusCode` is `failure`; no link.
    Failure,
    /// The event says nothing of a conference.
    Missing,
}

/// One kind of call, recorded or to be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// In a [`Fault`]: any call of the calendar API. Recorded: one that is none of the next six.
    Calendar,
    Insert,
    List,
    Get,
    Patch,
    Delete,
    FreeBusy,
    /// `POST /token` with anything but a refresh token.
    Exchange,
    /// `POST /token` with `grant_type=refresh_token`.
    Refresh,
    Revoke,
}

impl Call {
    /// Which call a request is; `None` when Google has no such path.
    fn of(method: &Method, path: &str, form: &[(String, String)]) -> Option<Call> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        Some(match (method.as_str(), segments.as_slice()) {
            ("POST", ["token"]) if oauth::field(form, "grant_type") == Some("refresh_token") => Call::Refresh,
            ("POST", ["token"]) => Call::Exchange,
            ("POST", ["revoke"]) => Call::Revoke,
            ("POST", ["calendar", "v3", "freeBusy"]) => Call::FreeBusy,
            ("POST", ["calendar", "v3", "calendars", _, "events"]) => Call::Insert,
            ("GET", ["calendar", "v3", "calendars", _, "events"]) => Call::List,
            ("GET", ["calendar", "v3", "calendars", _, "events", _]) => Call::Get,
            ("PATCH", ["calendar", "v3", "calendars", _, "events", _]) => Call::Patch,
            ("DELETE", ["calendar", "v3", "calendars", _, "events", _]) => Call::Delete,
            (_, ["calendar", ..]) => Call::Calendar,
            _ => return None,
        })
    }

    fn is_oauth(self) -> bool {
        matches!(self, Call::Exchange | Call::Refresh | Call::Revoke)
    }

    fn covers(self, other: Call) -> bool {
        self == other || self == Call::Calendar && !other.is_oauth()
    }
}

/// A disturbance of the next `times` calls of one kind. Faults apply in the order they were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub on: Call,
    pub times: usize,
    #[serde(flatten)]
    pub kind: FaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing is done, and Google's error body of this status is answered.
    Status {
        status: u16,
        /// The machine-readable reason, or OAuth's `error`; without one the status's usual one.
        #[serde(default)]
        reason: Option<String>,
        /// Seconds, as the header `Retry-After`.
        #[serde(default)]
        retry_after: Option<u32>,
    },
    /// Nothing is done, and no answer comes until the client goes away.
    Hang,
    /// The call is done, then the connection is closed without an answer.
    AnswerLost,
    /// The call is done, and answered with status 200 and a body that is no JSON.
    Garbage,
    /// Nothing is done, and an error of this status quotes the whole request, its credentials included.
    Echo { status: u16 },
    /// The call is done and answered this much later (real time), even when the client has gone away by then.
    Delay { millis: u64 },
    /// The call is done and answered after [`Simulator::let_go`], even when the client has gone away by then.
    Hold,
}

impl FaultKind {
    /// An error answer with the status's usual reason.
    pub fn status(status: u16) -> Self {
        FaultKind::Status { status, reason: None, retry_after: None }
    }

    /// An error answer with this reason.
    pub fn reason(status: u16, reason: &str) -> Self {
        FaultKind::Status { status, reason: Some(reason.into()), retry_after: None }
    }
}

/// A call of the calendar API or of the token endpoints, as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedCall {
    /// Counts from 1 since the start.
    pub number: u64,
    pub at: DateTime<Utc>,
    pub call: Call,
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    /// The JSON body; a form as an object, its secrets cut to their kind (`1//…`); else null.
    pub body: Value,
    /// Whose access token a calendar call carried, valid or not.
    pub account: Option<String>,
    /// What was answered; `None`: nothing (yet).
    pub status: Option<u16>,
}

impl RecordedCall {
    /// The first query parameter of this name.
    pub fn query(&self, name: &str) -> Option<&str> {
        oauth::field(&self.query, name)
    }
}

/// What tells a server to use the simulator at `url` in place of Google.
pub fn settings(url: &str) -> [(&'static str, String); 4] {
    [
        ("GOOGLE_AUTH_URI", format!("{url}/o/oauth2/auth")),
        ("GOOGLE_TOKEN_URI", format!("{url}/token")),
        ("GOOGLE_REVOKE_URI", format!("{url}/revoke")),
        ("GOOGLE_CALENDAR_API_BASE", url.to_owned()),
    ]
}

impl Simulator {
    /// Starts a simulator on this address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be had, no account was given, or the state file cannot be read.
    pub async fn start(listen: SocketAddr, options: Options) -> io::Result<Simulator> {
        Simulator::on(TcpListener::bind(listen).await?, options)
    }

    /// Starts a simulator on a listener that is already bound.
    ///
    /// # Errors
    /// No account was given, or the state file cannot be read.
    pub fn on(listener: TcpListener, options: Options) -> io::Result<Simulator> {
        if options.accounts.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the Google simulator needs an account"));
        }
        let state = Memory { world: load(&options)?, ..Memory::default() };
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared { options, url, state: Mutex::new(state), let_go: watch::Sender::new(()) });
        let router = router(shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let until = async move { drop(stopped.await) };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
                tracing::error!(%error, "the Google simulator ended");
            }
        });
        Ok(Simulator { shared, stop, server })
    }

    /// Stops answering and frees the port; calls that hang are cut off after a moment.
    pub async fn stop(self) {
        drop(self.stop);
        let mut server = self.server;
        if tokio::time::timeout(Duration::from_secs(1), &mut server).await.is_err() {
            server.abort();
        }
    }

    /// `http://127.0.0.1:PORT`, without a final slash.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Disturbs calls to come.
    pub fn order(&self, fault: Fault) {
        self.shared.lock().faults.push_back(fault);
    }

    /// Has `fault` decide about every call for which no fault was ordered.
    pub fn disturb(&self, fault: impl FnMut(Call) -> Option<FaultKind> + Send + 'static) {
        self.shared.lock().disturbance = Some(Box::new(fault));
    }

    /// Answers the calls that [`FaultKind::Hold`] keeps waiting.
    pub fn let_go(&self) {
        self.shared.let_go.send_replace(());
    }

    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Answers in this way from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.lock().behaviour = behaviour;
    }

    /// All events of all accounts as Google would answer them now, cancelled ones included, in order of creation.
    pub fn events(&self) -> Vec<Value> {
        self.shared.lock().world.events.iter().map(|stored| stored.event.clone()).collect()
    }

    /// The calls of the calendar API and of the token endpoints, in order of arrival.
    pub fn requests(&self) -> Vec<RecordedCall> {
        self.shared.lock().calls.iter().cloned().collect()
    }

    /// Every access token issued so far gets 401 from now on; refresh tokens stay.
    pub fn expire_access_tokens(&self) {
        self.shared.change(|world| world.access.clear());
    }

    /// As if everybody had removed the app from their account: 401 for access, `invalid_grant` for refresh tokens.
    pub fn revoke_grants(&self) {
        self.shared.change(World::forget_grants);
    }

    /// As if the event had been deleted in the calendar itself.
    pub fn delete_event(&self, id: &str) {
        self.shared.change(|world| {
            for stored in world.events.iter_mut().filter(|stored| stored.event["id"] == id) {
                stored.event["status"] = "cancelled".into();
            }
        });
    }

    /// A person's click on "Allow" with the preselected account: takes the authorization URL, gives the `Location`
    /// the browser is sent to. In process, by the same checks as the page.
    ///
    /// # Errors
    /// What the page would complain about.
    pub fn allow(&self, authorization_url: &str) -> Result<String, String> {
        let request = self.shared.consent_at(authorization_url)?;
        let account = request.preselected(&self.shared.options.accounts).to_owned();
        self.shared.allow(request, &account)
    }

    /// [`Simulator::allow`] with another account of those offered.
    ///
    /// # Errors
    /// What the page would complain about.
    pub fn allow_as(&self, authorization_url: &str, account: &str) -> Result<String, String> {
        let request = self.shared.consent_at(authorization_url)?;
        self.shared.allow(request, account)
    }

    /// A person's click on "Deny".
    ///
    /// # Errors
    /// What the page would complain about.
    pub fn deny(&self, authorization_url: &str) -> Result<String, String> {
        Ok(self.shared.consent_at(authorization_url)?.denied())
    }
}

struct Shared {
    options: Options,
    url: String,
    state: Mutex<Memory>,
    let_go: watch::Sender<()>,
}

type Disturbance = Box<dyn FnMut(Call) -> Option<FaultKind> + Send>;

#[derive(Default)]
struct Memory {
    world: World,
    behaviour: Behaviour,
    faults: VecDeque<Fault>,
    disturbance: Option<Disturbance>,
    calls: VecDeque<RecordedCall>,
    received: u64,
}

/// What survives a restart.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct World {
    codes: BTreeMap<String, oauth::Code>,
    access: BTreeMap<String, oauth::Access>,
    refresh: BTreeMap<String, oauth::Grant>,
    events: Vec<calendar::Stored>,
    /// Account and `requestId` of every conference ever made.
    conferences: BTreeSet<(String, String)>,
    /// Rises with every change of an event; the etags.
    revision: u64,
}

impl World {
    fn forget_grants(&mut self) {
        self.codes.clear();
        self.access.clear();
        self.refresh.clear();
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/token", any(api))
        .route("/revoke", any(api))
        .route("/calendar/{*path}", any(api))
        .merge(oauth::routes())
        .merge(pages::routes())
        .fallback(|| async { Reply::api_error(404, "global", "notFound", "Not Found") })
        .with_state(shared)
}

/// Every call of the calendar API and of the token endpoints: recorded, disturbed if so ordered, done, answered.
async fn api(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let form = if path.starts_with("/calendar/") { Vec::new() } else { oauth::pairs(&body) };
    let Some(call) = Call::of(&method, &path, &form) else {
        return Reply::api_error(404, "global", "notFound", "Not Found").into_response();
    };
    let query = oauth::pairs(uri.query().unwrap_or_default().as_bytes());
    let incoming = Incoming { call, path, query, headers, form, body };
    // From before the call can be seen.
    let mut let_go = shared.let_go.subscribe();
    let (number, fault) = shared.receive(&method, &incoming);
    match fault {
        None => shared.answer(&incoming, number).into_response(),
        Some(FaultKind::Status { status, reason, retry_after }) => {
            shared.note(number, status);
            Reply::ordered(call, status, reason.as_deref(), retry_after).into_response()
        }
        Some(FaultKind::Echo { status }) => {
            shared.note(number, status);
            Reply::echo(&incoming, status).into_response()
        }
        Some(FaultKind::Hang) => std::future::pending().await,
        Some(FaultKind::AnswerLost) => {
            shared.perform(&incoming);
            // Unwinding ends the connection's task, and with it the connection, before a byte of an answer is written.
            std::panic::resume_unwind(Box::new("an answer was to be lost"))
        }
        Some(FaultKind::Garbage) => {
            shared.perform(&incoming);
            shared.note(number, 200);
            ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], "{\"kind\": \"calendar#ev").into_response()
        }
        Some(kind @ (FaultKind::Delay { .. } | FaultKind::Hold)) => {
            // A task of its own: it goes on when the client goes away.
            let late = tokio::spawn(async move {
                match kind {
                    FaultKind::Delay { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
                    _ => _ = let_go.changed().await,
                }
                shared.answer(&incoming, number)
            });
            late.await.map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), Reply::into_response)
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and takes the fault that waits for it.
    fn receive(&self, method: &Method, incoming: &Incoming) -> (u64, Option<FaultKind>) {
        let at = self.options.clock.now();
        let state = &mut *self.lock();
        state.received += 1;
        if state.calls.len() == CALLS_KEPT {
            state.calls.pop_front();
        }
        let token = incoming.authorization("Bearer").unwrap_or_default();
        state.calls.push_back(RecordedCall {
            number: state.received,
            at,
            call: incoming.call,
            method: method.to_string(),
            path: incoming.path.clone(),
            query: incoming.query.clone(),
            body: incoming.recorded_body(),
            account: state.world.access.get(token).map(|access| access.grant.account.clone()),
            status: None,
        });
        let index = state.faults.iter().position(|fault| fault.times > 0 && fault.on.covers(incoming.call));
        let fault = index.map(|index| {
            let fault = &mut state.faults[index];
            fault.times -= 1;
            fault.kind.clone()
        });
        state.faults.retain(|fault| fault.times > 0);
        let fault = fault.or_else(|| state.disturbance.as_mut()?(incoming.call));
        (state.received, fault)
    }

    /// Does what a call asks for.
    fn perform(&self, incoming: &Incoming) -> Reply {
        let now = self.options.clock.now();
        let state = &mut *self.lock();
        let reply = match incoming.call {
            Call::Exchange | Call::Refresh => {
                oauth::token(&self.options, &mut state.world, &state.behaviour, incoming, now)
            }
            Call::Revoke => oauth::revoke(&mut state.world, incoming, now),
            _ => calendar::answer(&mut state.world, &state.behaviour, incoming, now),
        };
        self.keep(&state.world);
        reply.unwrap_or_else(|refusal| refusal)
    }

    fn note(&self, number: u64, status: u16) {
        if let Some(call) = self.lock().calls.iter_mut().find(|call| call.number == number) {
            call.status = Some(status);
        }
    }

    fn answer(&self, incoming: &Incoming, number: u64) -> Reply {
        let reply = self.perform(incoming);
        self.note(number, reply.status);
        reply
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let state = &mut *self.lock();
        let result = change(&mut state.world);
        self.keep(&state.world);
        result
    }

    /// Writes the state file, whole or not at all, while the state is locked: writes never overtake each other.
    fn keep(&self, world: &World) {
        let Some(path) = &self.options.state_file else { return };
        let draft = path.with_extension("new");
        let kept = serde_json::to_vec(world)
            .map_err(io::Error::from)
            .and_then(|json| std::fs::write(&draft, json))
            .and_then(|()| std::fs::rename(&draft, path));
        if let Err(error) = kept {
            tracing::warn!(%error, path = %path.display(), "the Google simulator cannot keep its state");
        }
    }
}

fn load(options: &Options) -> io::Result<World> {
    let Some(path) = &options.state_file else { return Ok(World::default()) };
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("the Google simulator's state {}: {error}", path.display()))
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(named)?;
    }
    match std::fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| named(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(World::default()),
        Err(error) => Err(named(error)),
    }
}
