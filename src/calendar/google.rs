//! Events at Google (Calendar API v3, `events` of the calendar `primary`).
//!
//! Hides the API's client, its retries, the pending Meet link, and what a lost answer may have left behind. Promises:
//! repeating an insert never makes a second event; all calls of one [`Calendar`] end within its budget.

use std::{sync::LazyLock, time::Duration};

use anyhow::anyhow;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use google_calendar3::{
    CalendarHub,
    api::{self, ConferenceData, CreateConferenceRequest, EventDateTime, EventReminder, EventReminders},
    common,
    hyper_rustls::{HttpsConnector, HttpsConnectorBuilder},
    hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    },
};
use tokio::time::Instant;
use url::Url;

use super::{CalendarError, Created, Deleted, Event, Setback, oauth, retrying};
use crate::{clock::random_uuid, context::Context};

/// How often a Meet link that is still being made is asked for, and how long we wait before each time.
const MEET_WAITS: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(1000),
    Duration::from_millis(1500),
    Duration::from_millis(2000),
];

type Connector = HttpsConnector<HttpConnector>;

/// One pool of connections for everybody: the token is the call's, not the connection's.
static CONNECTIONS: LazyLock<Result<Client<Connector, common::Body>, String>> = LazyLock::new(|| {
    let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| error.to_string())?;
    let connector = tls.https_or_http().enable_http1().enable_http2().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
});

/// A person's calendar for the length of one request.
pub struct Calendar<'a> {
    ctx: &'a Context,
    user_id: i64,
    access: oauth::Access,
    refreshed: bool,
    deadline: Instant,
}

/// A call of the API.
#[derive(Clone, Copy)]
enum Call<'a> {
    Insert(&'a api::Event),
    Get(&'a str),
    Delete(&'a str),
}

impl Call<'_> {
    fn name(self) -> &'static str {
        match self {
            Call::Insert(_) => "events.insert",
            Call::Get(_) => "events.get",
            Call::Delete(_) => "events.delete",
        }
    }
}

/// What came of an insert.
enum Inserted {
    Made(Box<api::Event>),
    /// An event of this id was there once and has been deleted: the id cannot be used again.
    IdIsUsedUp,
}

impl<'a> Calendar<'a> {
    /// Takes the user's grant in hand. All that follows ends within `budget`.
    pub async fn open(ctx: &'a Context, user_id: i64, budget: Duration) -> Result<Self, CalendarError> {
        let deadline = Instant::now() + budget;
        let access = oauth::access(ctx, user_id, None, deadline).await?;
        Ok(Calendar { ctx, user_id, access, refreshed: false, deadline })
    }

    /// [`super::create_event`].
    pub async fn create(
        &mut self,
        event: &Event<'_>,
        rename: impl AsyncFn(&str) -> anyhow::Result<()>,
    ) -> Result<Created, CalendarError> {
        let mut wanted = body(event);
        let mut spare_ids = 2;
        let mut made = loop {
            match self.insert(&wanted).await? {
                Inserted::Made(made) => break *made,
                Inserted::IdIsUsedUp if spare_ids == 0 => return Err(CalendarError::Unavailable),
                Inserted::IdIsUsedUp => {
                    spare_ids -= 1;
                    let id = super::new_event_id();
                    rename(&id).await?;
                    tracing::info!("an event was deleted while it was made; making another");
                    wanted.conference_data = Some(meet_request(random_uuid()));
                    wanted.id = Some(id);
                }
            }
        };
        let id = made.id.clone().unwrap_or_default();
        for wait in MEET_WAITS {
            if !matches!(meet(&made), Meet::Pending) {
                break;
            }
            self.ctx.clock.sleep(wait.min(self.deadline.saturating_duration_since(Instant::now()))).await;
            made = match self.call(Call::Get(&id)).await {
                Ok(event) => event,
                Err(Failure::Refused(StatusCode::NOT_FOUND | StatusCode::GONE)) => break,
                Err(failure) => return Err(failure.into()),
            };
        }
        match meet(&made) {
            Meet::Link(link) if !is_cancelled(&made) => Ok(Created {
                event_id: id,
                meeting_link: link.to_owned(),
                ical_uid: made.i_cal_uid,
                organizer: made.organizer.and_then(|organizer| organizer.email),
            }),
            _ => {
                tracing::warn!("Google made an event without a Meet link; deleting it");
                self.delete(&id).await?;
                Err(CalendarError::Unavailable)
            }
        }
    }

    async fn insert(&mut self, wanted: &api::Event) -> Result<Inserted, CalendarError> {
        match self.call(Call::Insert(wanted)).await {
            Ok(event) => return Ok(Inserted::Made(Box::new(event))),
            // An earlier try of ours worked, its answer was lost.
            Err(Failure::Refused(StatusCode::CONFLICT)) => {}
            Err(failure) => return Err(failure.into()),
        }
        match self.call(Call::Get(wanted.id.as_deref().unwrap_or_default())).await {
            Ok(event) if !is_cancelled(&event) => Ok(Inserted::Made(Box::new(event))),
            Ok(_) | Err(Failure::Refused(StatusCode::NOT_FOUND | StatusCode::GONE)) => Ok(Inserted::IdIsUsedUp),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Deletes an event; one that is gone already is fine.
    pub async fn delete(&mut self, event_id: &str) -> Result<Deleted, CalendarError> {
        match self.call(Call::Delete(event_id)).await {
            Ok(_) | Err(Failure::Refused(StatusCode::GONE)) => Ok(Deleted::Gone),
            Err(Failure::Refused(StatusCode::NOT_FOUND)) => Ok(Deleted::NeverThere),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes a call, again after passing setbacks, and once more with a fresh token when the first is refused.
    async fn call(&mut self, call: Call<'_>) -> Result<api::Event, Failure> {
        let connections = CONNECTIONS.as_ref().map_err(|error| CalendarError::from(anyhow!("no TLS roots: {error}")))?;
        loop {
            let mut hub = CalendarHub::new(connections.clone(), self.access.token.clone());
            hub.user_agent(concat!("umemployed-interviews/", env!("CARGO_PKG_VERSION")).to_owned());
            hub.base_url(format!("{}/calendar/v3/", self.ctx.settings.google_calendar_api_base));
            // One sender of invitations: our mails, or without them Google.
            let send_updates = if self.ctx.settings.email.is_some() { "none" } else { "all" };
            let answer = retrying(self.ctx, self.deadline, call.name(), || send(&hub, call, send_updates)).await;
            match answer {
                Err(Setback::Refused { status: StatusCode::UNAUTHORIZED, .. }) if !self.refreshed => {
                    self.refreshed = true;
                    self.access = oauth::access(self.ctx, self.user_id, Some(&self.access), self.deadline).await?;
                }
                Err(Setback::Refused { status: StatusCode::UNAUTHORIZED, .. }) => {
                    oauth::bury(self.ctx, self.user_id, &self.access).await?;
                    return Err(CalendarError::NotConnected.into());
                }
                Err(Setback::Refused { status, .. }) => return Err(Failure::Refused(status)),
                Err(Setback::Passing { .. }) => return Err(CalendarError::Unavailable.into()),
                Ok(event) => return Ok(event),
            }
        }
    }
}

/// How a call failed for good.
enum Failure {
    /// An answer that some calls expect.
    Refused(StatusCode),
    Other(CalendarError),
}

impl From<CalendarError> for Failure {
    fn from(error: CalendarError) -> Self {
        Failure::Other(error)
    }
}

impl From<Failure> for CalendarError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(_) => CalendarError::Unavailable,
            Failure::Other(error) => error,
        }
    }
}

/// One attempt. A deletion answers with an empty event.
async fn send(hub: &CalendarHub<Connector>, call: Call<'_>, send_updates: &str) -> Result<api::Event, Setback> {
    let mut refusal = Refusal(None);
    let events = hub.events();
    let answer = match call {
        Call::Insert(event) => {
            let insert = events.insert(event.clone(), "primary").conference_data_version(1).send_updates(send_updates);
            insert.delegate(&mut refusal).doit().await.map(|(_, event)| event)
        }
        Call::Get(id) => events.get("primary", &segment(id)).delegate(&mut refusal).doit().await.map(|(_, event)| event),
        Call::Delete(id) => {
            let delete = events.delete("primary", &segment(id)).send_updates(send_updates);
            delete.delegate(&mut refusal).doit().await.map(|_| api::Event::default())
        }
    };
    match (answer, refusal.0) {
        (Err(_), Some(setback)) => Err(setback),
        (Err(common::Error::HttpError(error)), None) => Err(Setback::passing(error)),
        (Err(_), None) => Err(Setback::passing("unreadable answer")),
        (Ok(event), _) if event.id.is_none() && !matches!(call, Call::Delete(_)) => {
            Err(Setback::passing("an answer that is no event"))
        }
        (Ok(event), _) => Ok(event),
    }
}

/// Catches what the client's errors do not tell: status, headers and the reason of a refusal.
struct Refusal(Option<Setback>);

impl common::Delegate for Refusal {
    fn http_failure(&mut self, response: &common::Response, error: Option<&serde_json::Value>) -> common::Retry {
        let reason = error.and_then(|error| error.pointer("/error/errors/0/reason")?.as_str()).unwrap_or_default();
        self.0 = Some(Setback::of(response.status(), response.headers(), reason));
        common::Retry::Abort
    }
}

/// An id as one segment of a path: the client takes it as it is.
fn segment(id: &str) -> String {
    let mut url = Url::parse("http://host").expect("a URL");
    url.path_segments_mut().expect("it has a path").push(id);
    url.path()[1..].to_owned()
}

fn body(event: &Event<'_>) -> api::Event {
    let at = |instant: DateTime<Utc>| {
        Some(EventDateTime { date_time: Some(instant), time_zone: Some(event.zone.to_owned()), ..Default::default() })
    };
    let attendee = |email: &str| api::EventAttendee { email: Some(email.to_owned()), ..Default::default() };
    let reminder = |method: &str, minutes| EventReminder { method: Some(method.to_owned()), minutes: Some(minutes) };
    api::Event {
        id: Some(event.id.to_owned()),
        summary: Some(format!("Interview: {}", event.job_title)),
        description: Some(description(event)),
        start: at(event.start),
        end: at(event.end),
        attendees: Some(event.attendees.iter().map(|email| attendee(email)).collect()),
        conference_data: Some(meet_request(event.request_id)),
        reminders: Some(EventReminders {
            use_default: Some(false),
            overrides: Some(vec![reminder("email", 24 * 60), reminder("popup", 10)]),
        }),
        ..Default::default()
    }
}

/// Google renders HTML in a description.
fn description(event: &Event<'_>) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut text = format!(
        "Interview scheduled for {}\nCandidate: {}\nRecruiter: {}",
        escape(event.job_title),
        escape(event.candidate_name),
        escape(event.recruiter_name)
    );
    if let Some(note) = event.note {
        text += &format!("\n\nNote: {}", escape(note));
    }
    text
}

/// Google ignores a request id that it has seen: every event needs its own.
fn meet_request(id: uuid::Uuid) -> ConferenceData {
    ConferenceData {
        create_request: Some(CreateConferenceRequest {
            request_id: Some(id.to_string()),
            conference_solution_key: Some(api::ConferenceSolutionKey { type_: Some("hangoutsMeet".to_owned()) }),
            status: None,
        }),
        ..Default::default()
    }
}

/// A deleted event can still be read.
fn is_cancelled(event: &api::Event) -> bool {
    event.status.as_deref() == Some("cancelled")
}

#[derive(Debug, PartialEq)]
enum Meet<'a> {
    Link(&'a str),
    Pending,
    None,
}

/// The event's Meet link. Entry points may be phone numbers.
fn meet(event: &api::Event) -> Meet<'_> {
    let conference = event.conference_data.as_ref();
    let mut entry_points = conference.and_then(|data| data.entry_points.as_deref()).unwrap_or_default().iter();
    let video = entry_points
        .find(|entry| entry.entry_point_type.as_deref() == Some("video"))
        .and_then(|entry| entry.uri.as_deref());
    let link = video.into_iter().chain(event.hangout_link.as_deref()).find(|link| !link.is_empty());
    let status = || conference?.create_request.as_ref()?.status.as_ref()?.status_code.as_deref();
    match link {
        Some(link) => Meet::Link(link),
        None if status() == Some("pending") => Meet::Pending,
        None => Meet::None,
    }
}
