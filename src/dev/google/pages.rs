//! `/_sim/`: what the simulator holds, and orders for faults, for people (HTML) and for other processes (JSON).

use std::sync::Arc;

use askama::Template;
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Behaviour, Fault, RecordedCall, Shared, World, oauth};

/// Calls shown on the page.
const CALLS_SHOWN: usize = 50;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/_sim/") }))
        .route("/_sim", get(|| async { Redirect::to("/_sim/") }))
        .route("/_sim/", get(overview))
        .route("/_sim/events", get(events))
        .route("/_sim/calls", get(calls))
        .route("/_sim/faults", get(faults).post(order).delete(clear))
        .route("/_sim/faults/clear", post(clear_and_show))
        .route("/_sim/behaviour", get(behaviour).put(behave))
        .route("/_sim/expire", post(expire))
        .route("/_sim/revoke", post(revoke))
}

/// A page that no frame may hold and that runs no script.
pub(super) fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => {
            let headers = [
                (header::CACHE_CONTROL, "no-store"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::X_FRAME_OPTIONS, "DENY"),
                (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
            ];
            (headers, Html(text)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page of the Google simulator does not render");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "dev/google_sim.html")]
struct Overview {
    url: String,
    accounts: Vec<Account>,
    faults: Vec<String>,
    behaviour: String,
    calls: Vec<RecordedCall>,
}

struct Account {
    email: String,
    connected: bool,
    events: Vec<Event>,
}

struct Event {
    summary: String,
    start: String,
    zone: String,
    status: String,
    meet: String,
    attendees: String,
    json: String,
}

impl Event {
    fn of(event: &Value) -> Event {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attendees = event["attendees"].as_array().map(Vec::as_slice).unwrap_or_default();
        Event {
            summary: text(&event["summary"]),
            start: text(&event["start"]["dateTime"]),
            zone: text(&event["start"]["timeZone"]),
            status: text(&event["status"]),
            meet: text(&event["hangoutLink"]),
            attendees: attendees.iter().map(|attendee| text(&attendee["email"])).collect::<Vec<_>>().join(", "),
            json: format!("{event:#}"),
        }
    }
}

async fn overview(State(shared): State<Arc<Shared>>) -> Response {
    let state = shared.lock();
    let account = |email: &String| Account {
        email: email.clone(),
        connected: state.world.refresh.values().any(|grant| grant.account == *email)
            || state.world.access.values().any(|access| access.grant.account == *email),
        events: state
            .world
            .events
            .iter()
            .rev()
            .filter(|stored| stored.account == *email)
            .map(|stored| Event::of(&stored.event))
            .collect(),
    };
    let page = Overview {
        url: shared.url.clone(),
        accounts: shared.options.accounts.iter().map(account).collect(),
        faults: state.faults.iter().map(|fault| json!(fault).to_string()).collect(),
        behaviour: format!("{:#}", json!(state.behaviour)),
        calls: state.calls.iter().rev().take(CALLS_SHOWN).cloned().collect(),
    };
    drop(state);
    html(&page)
}

async fn events(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.lock().world.events.iter().map(|stored| stored.event.clone()).collect())
}

async fn calls(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(shared.lock().calls))
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(shared.lock().faults))
}

async fn behaviour(State(shared): State<Arc<Shared>>) -> Json<Behaviour> {
    Json(shared.lock().behaviour.clone())
}

/// A value of this shape, or 400 with what is wrong.
fn read<T: DeserializeOwned>(value: Result<Value, serde_json::Error>) -> Result<T, (StatusCode, String)> {
    value.and_then(serde_json::from_value).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))
}

/// Takes a [`Fault`] as JSON (204), or as the page's form (back to the page).
async fn order(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let is_json = |value: &header::HeaderValue| value.as_bytes().starts_with(b"application/json");
    let by_page = !headers.get(header::CONTENT_TYPE).is_some_and(is_json);
    let value = if by_page { Ok(form_as_json(&body)) } else { serde_json::from_slice(&body) };
    match read::<Fault>(value) {
        Ok(fault) => shared.lock().faults.push_back(fault),
        Err(complaint) => return complaint.into_response(),
    }
    if by_page { Redirect::to("/_sim/").into_response() } else { StatusCode::NO_CONTENT.into_response() }
}

/// A form as a JSON object: digits are numbers, what was left empty is absent.
fn form_as_json(form: &[u8]) -> Value {
    let member = |(name, value): (String, String)| {
        let value = value.parse::<u64>().map_or(Value::String(value), Value::from);
        (name, value)
    };
    Value::Object(oauth::pairs(form).into_iter().filter(|(_, value)| !value.is_empty()).map(member).collect())
}

async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn clear_and_show(State(shared): State<Arc<Shared>>) -> Redirect {
    shared.lock().faults.clear();
    Redirect::to("/_sim/")
}

async fn behave(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<StatusCode, (StatusCode, String)> {
    shared.lock().behaviour = read(serde_json::from_slice(&body))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn expire(State(shared): State<Arc<Shared>>) -> Redirect {
    shared.change(|world| world.access.clear());
    Redirect::to("/_sim/")
}

async fn revoke(State(shared): State<Arc<Shared>>) -> Redirect {
    shared.change(World::forget_grants);
    Redirect::to("/_sim/")
}
