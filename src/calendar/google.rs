//! Events at Google (Calendar API v3, `events` of the calendar `primary`).
//!
//! Hides the API's client, its retries, the pending Meet link, and what a lost answer may have left behind. Promises:
//! repeating an insert never makes a second event; all calls of one [`Calendar`] end within its budget.

use std::{
    iter,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

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
        rt::{TokioExecutor, TokioTimer},
    },
};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::{
    CalendarError, Created, Event, Put, oauth,
    retry::{Setback, WAITS, retrying},
    store::{self, Intent, REQUEST_LIFETIME},
};
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

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long an unused connection is kept: not so long that firewalls forget it.
const IDLE: Duration = Duration::from_secs(20);

/// One pool of connections for everybody: the token is the call's, not the connection's.
///
/// HTTP/1.1 alone: an attempt that is dropped closes its connection, so the next one does not meet the same dead one,
/// as it would in HTTP/2 after a firewall has forgotten it.
static CONNECTIONS: LazyLock<Result<Client<Connector, common::Body>, String>> = LazyLock::new(|| {
    let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| error.to_string())?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_WITHIN));
    let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
    Ok(client.build(connector))
});

/// What a deletion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The event was there or had been deleted before.
    Gone,
    /// None is there, but one may still come: Google knows no such event (404), or answers with a success other than
    /// 204, which could hide that.
    Unsure,
}

/// A person's calendar for the length of one request.
pub struct Calendar<'a> {
    ctx: &'a Context,
    user_id: i64,
    access: oauth::Access,
    refreshed: bool,
    /// A call had an attempt that no answer came to: it may still reach Google.
    is_late_possible: bool,
    deadline: Instant,
}

/// A call of the API.
#[derive(Clone, Copy)]
enum Call<'a> {
    Insert(&'a api::Event),
    Get(&'a str),
    Patch(&'a str, &'a api::Event),
    Delete(&'a str),
}

impl Call<'_> {
    fn name(self) -> &'static str {
        match self {
            Call::Insert(_) => "events.insert",
            Call::Get(_) => "events.get",
            Call::Patch(..) => "events.patch",
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
        Ok(Calendar { ctx, user_id, access, refreshed: false, is_late_possible: false, deadline })
    }

    /// [`super::create_event`].
    pub async fn create(&mut self, intent: Intent, event: &Event<'_>) -> Result<Created, CalendarError> {
        let mut event_id = event.id.to_owned();
        let created = self.make(intent.id, event, &mut event_id).await;
        if self.ctx.clock.now() < intent.recorded_at + REQUEST_LIFETIME {
            return created;
        }
        // A process that stood still may have made the event after the intent was undone, and forgotten.
        match self.record_for_undoing(intent.id, event_id).await {
            true => created,
            false => Err(anyhow!("it could not be recorded that an event was made late").into()),
        }
    }

    /// Whether it is recorded already.
    async fn record_for_undoing(&self, intent: Uuid, event_id: String) -> bool {
        let user_id = self.user_id;
        let record = move |ctx: Context| {
            let event_id = event_id.clone();
            async move { store::record_for_undoing(&ctx.db, intent, user_id, &event_id, ctx.clock.now()).await }
        };
        self.ctx.persist("an event that is to be undone", record).await
    }

    /// Keeps in `id` which event is being made.
    async fn make(&mut self, intent: Uuid, event: &Event<'_>, id: &mut String) -> Result<Created, CalendarError> {
        let mut wanted = body(event);
        let mut spare_ids = 2;
        let mut made = loop {
            match self.insert(&wanted).await? {
                Inserted::Made(made) => break *made,
                Inserted::IdIsUsedUp if spare_ids == 0 => return Err(CalendarError::Unavailable),
                Inserted::IdIsUsedUp => {
                    spare_ids -= 1;
                    tracing::info!(%intent, "an event was deleted while it was made; making another");
                    *id = random_uuid().simple().to_string();
                    self.note(intent, id).await?;
                    wanted.conference_data = Some(meet_request(random_uuid()));
                    wanted.id = Some(id.clone());
                }
            }
        };
        crash_point!("event inserted");
        *id = made.id.clone().unwrap_or_default();
        if made.id != wanted.id
            && let Err(error) = self.note(intent, id).await
        {
            // No record leads to this event.
            if !matches!(self.delete(id).await, Ok(Deleted::Gone)) {
                self.record_for_undoing(random_uuid(), id.clone()).await;
            }
            return Err(error);
        }
        for wait in MEET_WAITS {
            if !matches!(meet(&made), Meet::Pending) {
                break;
            }
            self.pause(wait).await;
            made = match self.call(Call::Get(id)).await {
                Ok(event) => event,
                Err(Failure::Refused(StatusCode::NOT_FOUND | StatusCode::GONE)) => break,
                Err(failure) => return Err(failure.into()),
            };
        }
        match meet(&made) {
            Meet::Link(link) if !is_cancelled(&made) => Ok(Created {
                event_id: id.clone(),
                meeting_link: link.to_owned(),
                ical_uid: made.i_cal_uid,
                organizer: made.organizer.and_then(|organizer| organizer.email),
            }),
            _ => {
                tracing::warn!("Google made an event without a Meet link; deleting it");
                self.delete(id).await?;
                Err(CalendarError::Unavailable)
            }
        }
    }

    /// [`super::put_event`] without an event to change.
    pub async fn create_anew(&mut self, intent: Uuid, event: &Event<'_>) -> Result<Created, CalendarError> {
        let mut db = self.ctx.db.acquire().await?;
        let now = self.ctx.clock.now();
        let intent = store::record_intent(&mut db, intent, self.user_id, Some(event.id), now).await?;
        drop(db);
        self.create(intent, event).await
    }

    /// [`super::put_event`] with one.
    pub async fn change(&mut self, intent: Uuid, event_id: &str, event: &Event<'_>) -> Result<Put, CalendarError> {
        match self.call(Call::Patch(event_id, &facts(event))).await {
            Ok(event) if !is_cancelled(&event) => Ok(Put::Kept {
                ical_uid: event.i_cal_uid,
                organizer: event.organizer.and_then(|organizer| organizer.email),
                in_doubt: self.is_late_possible,
            }),
            Ok(_) | Err(Failure::Refused(StatusCode::NOT_FOUND | StatusCode::GONE)) => {
                tracing::info!(%intent, "an event is gone; making another");
                Ok(Put::Made(self.create_anew(intent, event).await?))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn insert(&mut self, wanted: &api::Event) -> Result<Inserted, CalendarError> {
        match self.call(Call::Insert(wanted)).await {
            Ok(event) => return Ok(Inserted::Made(Box::new(event))),
            // An earlier try of ours worked, its answer was lost.
            Err(Failure::Refused(StatusCode::CONFLICT)) => {}
            Err(failure) => return Err(failure.into()),
        }
        for wait in iter::once(Duration::ZERO).chain(WAITS) {
            self.pause(wait).await;
            match self.call(Call::Get(wanted.id.as_deref().unwrap_or_default())).await {
                Ok(event) if is_cancelled(&event) => return Ok(Inserted::IdIsUsedUp),
                Ok(event) => return Ok(Inserted::Made(Box::new(event))),
                // Not to be seen yet: it may still appear, and the intent must go on naming it.
                Err(Failure::Refused(StatusCode::NOT_FOUND | StatusCode::GONE)) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(CalendarError::Unavailable)
    }

    /// Notes in the intent which event it is about from now on.
    async fn note(&self, intent: Uuid, event_id: &str) -> Result<(), CalendarError> {
        match store::rename_intent(&self.ctx.db, intent, event_id).await? {
            true => Ok(()),
            false => Err(anyhow!("the intent was given up while its event was made").into()),
        }
    }

    /// Waits, but not beyond the budget.
    async fn pause(&self, wait: Duration) {
        self.ctx.clock.sleep(wait.min(self.deadline.saturating_duration_since(Instant::now()))).await;
    }

    /// Deletes an event; one that is gone already is fine.
    pub async fn delete(&mut self, event_id: &str) -> Result<Deleted, CalendarError> {
        match self.call(Call::Delete(event_id)).await {
            Ok(event) if is_cancelled(&event) => Ok(Deleted::Gone),
            Err(Failure::Refused(StatusCode::GONE)) => Ok(Deleted::Gone),
            Ok(_) | Err(Failure::Refused(StatusCode::NOT_FOUND)) => Ok(Deleted::Unsure),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes a call, again after passing setbacks, and once more with a fresh token when the first is refused.
    async fn call(&mut self, call: Call<'_>) -> Result<api::Event, Failure> {
        let connections =
            CONNECTIONS.as_ref().map_err(|error| CalendarError::from(anyhow!("no TLS roots: {error}")))?;
        loop {
            let mut hub = CalendarHub::new(connections.clone(), self.access.token.clone());
            hub.user_agent(concat!("umemployed-interviews/", env!("CARGO_PKG_VERSION")).to_owned());
            hub.base_url(format!("{}/calendar/v3/", self.ctx.settings.google_calendar_api_base));
            // One sender of invitations: our mails, or without them Google.
            let send_updates = if self.ctx.smtp.is_some() { "none" } else { "all" };
            let unanswered = AtomicU32::new(0);
            let attempt = || async {
                unanswered.fetch_add(1, Ordering::Relaxed);
                let answer = send(&hub, call, send_updates).await;
                if !matches!(answer, Err(Setback::Passing { unanswered: true, .. })) {
                    unanswered.fetch_sub(1, Ordering::Relaxed);
                }
                answer
            };
            let answer = retrying(self.ctx, self.deadline, call.name(), attempt).await;
            self.is_late_possible |= unanswered.into_inner() > 0;
            match answer {
                Err(Setback::Refused { status: StatusCode::UNAUTHORIZED, .. }) if !self.refreshed => {
                    self.refreshed = true;
                    self.access = oauth::access(self.ctx, self.user_id, Some(&self.access), self.deadline).await?;
                }
                Err(Setback::Refused { status: StatusCode::UNAUTHORIZED, .. }) => {
                    let why = "Google refuses a fresh access token";
                    let buried = oauth::bury(self.ctx, self.user_id, &self.access.row, why).await;
                    buried.map_err(CalendarError::from)?;
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

/// One attempt. A deletion answers with an event of which nothing is known but whether it is deleted now.
async fn send(hub: &CalendarHub<Connector>, call: Call<'_>, send_updates: &str) -> Result<api::Event, Setback> {
    let mut refusal = Refusal(None);
    let events = hub.events();
    let answer = match call {
        Call::Insert(event) => {
            let insert = events.insert(event.clone(), "primary").conference_data_version(1).send_updates(send_updates);
            insert.delegate(&mut refusal).doit().await.map(|(_, event)| event)
        }
        Call::Get(id) => {
            events.get("primary", &segment(id)).delegate(&mut refusal).doit().await.map(|(_, event)| event)
        }
        Call::Patch(id, event) => {
            let patch = events.patch(event.clone(), "primary", &segment(id));
            let patch = patch.conference_data_version(1).send_updates(send_updates);
            patch.delegate(&mut refusal).doit().await.map(|(_, event)| event)
        }
        Call::Delete(id) => {
            let delete = events.delete("primary", &segment(id)).send_updates(send_updates);
            delete.delegate(&mut refusal).doit().await.map(|answer| {
                let status = (answer.status() == StatusCode::NO_CONTENT).then(|| "cancelled".to_owned());
                api::Event { status, ..Default::default() }
            })
        }
    };
    match (answer, refusal.0) {
        (Err(_), Some(setback)) => Err(setback),
        (Err(common::Error::HttpError(error)), None) => Err(Setback::passing(error)),
        (Err(_), None) => Err(Setback::unreadable("unreadable answer")),
        (Ok(event), _) if event.id.is_none() && !matches!(call, Call::Delete(_)) => {
            Err(Setback::unreadable("an answer that is no event"))
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

/// A whole new event.
fn body(event: &Event<'_>) -> api::Event {
    let attendee = |email: &str| api::EventAttendee { email: Some(email.to_owned()), ..Default::default() };
    let reminder = |method: &str, minutes| EventReminder { method: Some(method.to_owned()), minutes: Some(minutes) };
    api::Event {
        id: Some(event.id.to_owned()),
        attendees: Some(event.attendees.iter().map(|email| attendee(email)).collect()),
        conference_data: Some(meet_request(event.request_id)),
        reminders: Some(EventReminders {
            use_default: Some(false),
            overrides: Some(vec![reminder("email", 24 * 60), reminder("popup", 10)]),
        }),
        ..facts(event)
    }
}

/// What a change of the interview changes.
fn facts(event: &Event<'_>) -> api::Event {
    let at = |instant: DateTime<Utc>| {
        Some(EventDateTime { date_time: Some(instant), time_zone: Some(event.zone.to_owned()), ..Default::default() })
    };
    api::Event {
        summary: Some(format!("Interview: {}", event.job_title)),
        description: Some(description(event)),
        start: at(event.start),
        end: at(event.end),
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
fn meet_request(id: Uuid) -> ConferenceData {
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Json, Router, extract::Path, routing};
    use serde_json::json;

    use super::{
        super::{
            oauth::tests::granted,
            tests::{context, stand_in, world},
        },
        *,
    };
    use crate::{
        clock::Clock,
        dev::google::{self as sim, Behaviour, Fault, FaultKind, Simulator},
    };

    const EVENT: Event<'_> = Event {
        id: "0123456789abcdef0123456789abcdef",
        request_id: Uuid::from_u128(7),
        job_title: "R&D <Lead>",
        candidate_name: "Carl <b>Candy</b>",
        recruiter_name: "Rita Recruit",
        note: Some("5 > 4 & \"x\""),
        start: DateTime::from_timestamp(1_894_734_000, 0).expect("an instant"),
        end: DateTime::from_timestamp(1_894_737_600, 0).expect("an instant"),
        zone: "America/New_York",
        attendees: ["carl@x.test", "rita@x.test"],
    };

    async fn calendar<'a>(google: &Simulator, ctx: &'a Context) -> Calendar<'a> {
        let access = oauth::Access::of(&granted(google, ctx).await.access_token);
        let deadline = Instant::now() + ctx.settings.google_budget;
        Calendar { ctx, user_id: 101, access, refreshed: false, is_late_possible: false, deadline }
    }

    async fn create(google: &Simulator, ctx: &Context) -> Result<Created, CalendarError> {
        calendar(google, ctx).await.create(intent(ctx), &EVENT).await
    }

    fn intent(ctx: &Context) -> Intent {
        Intent { id: Uuid::nil(), recorded_at: ctx.clock.now() }
    }

    fn disturb(google: &Simulator, on: sim::Call, times: usize, kind: FaultKind) {
        google.order(Fault { on, times, kind });
    }

    fn calls(google: &Simulator) -> Vec<sim::Call> {
        let calls = google.requests().into_iter().map(|request| request.call);
        calls.filter(|call| *call != sim::Call::Exchange).collect()
    }

    fn live(google: &Simulator) -> usize {
        google.events().iter().filter(|event| event["status"] != "cancelled").count()
    }

    #[tokio::test]
    async fn an_event_is_made_as_agreed_and_its_pending_link_is_awaited() {
        let (google, ctx) = world(&[]).await;
        google.behave(Behaviour { pending_answers: 3, ..Behaviour::default() });
        let created = create(&google, &ctx).await.expect("an event");
        assert_eq!(created.event_id, EVENT.id);
        assert!(created.meeting_link.starts_with("https://meet.google.com/"), "{created:?}");
        assert_eq!(created.ical_uid.as_deref(), Some("0123456789abcdef0123456789abcdef@google.com"));
        assert_eq!(created.organizer.as_deref(), Some("rita@gmail.test"));
        assert_eq!(calls(&google), [sim::Call::Insert, sim::Call::Get, sim::Call::Get, sim::Call::Get]);

        let insert = &google.requests()[1];
        assert_eq!((insert.query("conferenceDataVersion"), insert.query("sendUpdates")), (Some("1"), Some("none")));
        assert_eq!(
            insert.body,
            json!({
                "id": EVENT.id,
                "summary": "Interview: R&D <Lead>",
                "description": "Interview scheduled for R&amp;D &lt;Lead&gt;\nCandidate: Carl &lt;b&gt;Candy&lt;/b&gt;\n\
                                Recruiter: Rita Recruit\n\nNote: 5 &gt; 4 &amp; \"x\"",
                "start": {"dateTime": "2030-01-15T19:00:00Z", "timeZone": "America/New_York"},
                "end": {"dateTime": "2030-01-15T20:00:00Z", "timeZone": "America/New_York"},
                "attendees": [{"email": "carl@x.test"}, {"email": "rita@x.test"}],
                "conferenceData": {"createRequest": {
                    "requestId": "00000000-0000-0000-0000-000000000007",
                    "conferenceSolutionKey": {"type": "hangoutsMeet"}
                }},
                "reminders": {"useDefault": false, "overrides": [
                    {"method": "email", "minutes": 1440}, {"method": "popup", "minutes": 10}
                ]}
            })
        );
    }

    #[tokio::test]
    async fn without_mails_of_our_own_google_invites() {
        let (google, ctx) = world(&[("EMAIL_HOST", "")]).await;
        create(&google, &ctx).await.expect("an event");
        calendar(&google, &ctx).await.delete(EVENT.id).await.expect("deleted");
        let told = google.requests().into_iter().filter(|call| call.query("sendUpdates") == Some("all")).count();
        assert_eq!(told, 2);
    }

    #[tokio::test]
    async fn passing_faults_are_survived_and_make_one_event() {
        for kind in [
            FaultKind::status(500),
            FaultKind::status(503),
            FaultKind::Status { status: 429, reason: None, retry_after: Some(1) },
            FaultKind::reason(403, "rateLimitExceeded"),
            FaultKind::reason(403, "userRateLimitExceeded"),
            FaultKind::AnswerLost,
            FaultKind::Garbage,
        ] {
            let (google, ctx) = world(&[]).await;
            disturb(&google, sim::Call::Insert, 1, kind.clone());
            let created = create(&google, &ctx).await;
            assert_eq!(created.expect("an event").event_id, EVENT.id, "{kind:?}");
            assert_eq!(google.events().len(), 1, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn after_a_lost_answer_the_repeated_insert_is_a_conflict_and_the_event_is_read() {
        let (google, ctx) = world(&[]).await;
        google.behave(Behaviour { pending_answers: 0, ..Behaviour::default() });
        disturb(&google, sim::Call::Insert, 1, FaultKind::AnswerLost);
        create(&google, &ctx).await.expect("an event");
        assert_eq!(calls(&google), [sim::Call::Insert, sim::Call::Insert, sim::Call::Get]);
    }

    #[tokio::test]
    async fn a_refusal_that_would_come_again_ends_it_at_once() {
        for kind in [
            FaultKind::status(400),
            FaultKind::reason(403, "forbidden"),
            FaultKind::reason(403, "quotaExceeded"),
            FaultKind::status(404),
            FaultKind::status(412),
        ] {
            let (google, ctx) = world(&[]).await;
            disturb(&google, sim::Call::Calendar, 9, kind.clone());
            assert!(matches!(create(&google, &ctx).await, Err(CalendarError::Unavailable)), "{kind:?}");
            assert_eq!(calls(&google), [sim::Call::Insert], "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_lasting_fault_is_given_up_after_four_attempts() {
        let (google, ctx) = world(&[]).await;
        for kind in [FaultKind::status(500), FaultKind::status(429), FaultKind::AnswerLost, FaultKind::Garbage] {
            disturb(&google, sim::Call::Calendar, 99, kind.clone());
            let before = calls(&google).len();
            assert!(matches!(create(&google, &ctx).await, Err(CalendarError::Unavailable)), "{kind:?}");
            google.clear_faults();
            assert_eq!(calls(&google)[before..], [sim::Call::Insert; 4], "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_google_that_hangs_costs_no_more_than_the_budget() {
        let (google, ctx) = world(&[("GOOGLE_BUDGET_SECONDS", "1")]).await;
        disturb(&google, sim::Call::Calendar, 9, FaultKind::Hang);
        let begun = Instant::now();
        assert!(matches!(create(&google, &ctx).await, Err(CalendarError::Unavailable)));
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn nobody_listening_is_unavailable() {
        let ctx = context("http://127.0.0.1:1", &[], Clock::manual(DateTime::UNIX_EPOCH));
        let deadline = Instant::now() + Duration::from_secs(5);
        let access = oauth::Access::of("token");
        let mut calendar =
            Calendar { ctx: &ctx, user_id: 101, access, refreshed: false, is_late_possible: false, deadline };
        assert!(matches!(calendar.delete("x").await, Err(CalendarError::Unavailable)));
    }

    #[tokio::test]
    async fn an_event_that_gets_no_meet_link_is_deleted() {
        for (meet, pending_answers) in
            [(sim::Meet::Missing, 0), (sim::Meet::Failure, 2), (sim::Meet::PhoneOnly, 1), (sim::Meet::VideoFirst, 99)]
        {
            let (google, ctx) = world(&[]).await;
            google.behave(Behaviour { meet, pending_answers, ..Behaviour::default() });
            assert!(matches!(create(&google, &ctx).await, Err(CalendarError::Unavailable)), "{meet:?}");
            assert_eq!((live(&google), google.events().len()), (0, 1), "{meet:?}");
            let reads = calls(&google).into_iter().filter(|call| *call == sim::Call::Get).count();
            assert!(reads <= MEET_WAITS.len(), "{meet:?}: {reads}");
        }
    }

    #[tokio::test]
    async fn a_used_up_id_is_not_replaced_unless_the_intent_notes_the_new_one() {
        let (google, ctx) = world(&[]).await;
        create(&google, &ctx).await.expect("an event");
        calendar(&google, &ctx).await.delete(EVENT.id).await.expect("deleted");
        // There is no database here to note it in.
        assert!(matches!(create(&google, &ctx).await, Err(CalendarError::Internal(_))));
        assert_eq!(google.events().len(), 1);
        assert_eq!(calls(&google).iter().filter(|call| **call == sim::Call::Insert).count(), 2);
    }

    #[tokio::test]
    async fn a_conflict_with_an_event_that_is_not_shown_is_asked_about_again_and_uses_no_id_up() {
        let (google, ctx) = world(&[]).await;
        disturb(&google, sim::Call::Insert, 1, FaultKind::status(409));
        assert!(matches!(create(&google, &ctx).await, Err(CalendarError::Unavailable)));
        let get = sim::Call::Get;
        assert_eq!(calls(&google), [sim::Call::Insert, get, get, get, get]);

        disturb(&google, sim::Call::Insert, 1, FaultKind::AnswerLost);
        disturb(&google, get, 2, FaultKind::status(404));
        assert_eq!(create(&google, &ctx).await.expect("an event").event_id, EVENT.id);
        assert_eq!(google.events().len(), 1);
    }

    #[tokio::test]
    async fn an_event_of_another_id_that_cannot_be_noted_is_deleted() {
        let deleted = Arc::new(Mutex::new(Vec::new()));
        let of_another_id = json!({"id": "another", "hangoutLink": "https://meet.google.com/x"});
        let insert = routing::post(async || Json(of_another_id));
        let delete = routing::delete({
            let deleted = deleted.clone();
            async move |Path(id): Path<String>| {
                deleted.lock().expect("no panic").push(id);
                StatusCode::NO_CONTENT
            }
        });
        let events = "/calendar/v3/calendars/primary/events";
        let google = Router::new().route(events, insert).route(&format!("{events}/{{id}}"), delete);
        let ctx = context(&stand_in(google).await, &[], Clock::manual(DateTime::UNIX_EPOCH));
        let deadline = Instant::now() + Duration::from_secs(5);
        let access = oauth::Access::of("token");
        let mut calendar =
            Calendar { ctx: &ctx, user_id: 101, access, refreshed: false, is_late_possible: false, deadline };
        // There is no database here to note it in.
        assert!(matches!(calendar.create(intent(&ctx), &EVENT).await, Err(CalendarError::Internal(_))));
        assert_eq!(*deleted.lock().expect("no panic"), ["another"]);
    }

    #[tokio::test]
    async fn deleting_tells_a_deleted_event_from_one_that_was_never_there() {
        let (google, ctx) = world(&[]).await;
        create(&google, &ctx).await.expect("an event");
        let mut calendar = calendar(&google, &ctx).await;
        disturb(&google, sim::Call::Delete, 1, FaultKind::AnswerLost);
        assert_eq!(calendar.delete(EVENT.id).await.expect("deleted"), Deleted::Gone);
        assert_eq!(calendar.delete(EVENT.id).await.expect("deleted before"), Deleted::Gone);
        assert_eq!(calendar.delete("neverthere").await.expect("no event"), Deleted::Unsure);
        // An answer that says nothing may hide a 404.
        disturb(&google, sim::Call::Delete, 1, FaultKind::Garbage);
        assert_eq!(calendar.delete("neverthere").await.expect("no event"), Deleted::Unsure);
        assert_eq!(live(&google), 0);
    }

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        assert_eq!(segment("abc123"), "abc123");
        assert_eq!(segment("a/b?c#d%e f"), "a%2Fb%3Fc%23d%25e%20f");
        assert_eq!(segment("../x"), "..%2Fx");
        assert_eq!(segment(".."), "");
    }

    #[test]
    fn the_description_ends_after_the_recruiter_without_a_note() {
        let event = Event { note: None, job_title: "Engineer", candidate_name: "Carl Candy", ..EVENT };
        let expected = "Interview scheduled for Engineer\nCandidate: Carl Candy\nRecruiter: Rita Recruit";
        assert_eq!(description(&event), expected);
    }

    #[test]
    fn the_meet_link_is_the_first_video_entry_else_the_hangout_link() {
        let event = |value: serde_json::Value| serde_json::from_value::<api::Event>(value).expect("an event");
        let (video, phone) = (
            |uri: &str| json!({"entryPointType": "video", "uri": uri}),
            json!({"entryPointType": "phone", "uri": "tel:+1"}),
        );
        let entries = |entries: serde_json::Value| json!({"conferenceData": {"entryPoints": entries}});
        assert_eq!(meet(&event(entries(json!([phone, video("v1"), video("v2")])))), Meet::Link("v1"));
        assert_eq!(meet(&event(entries(json!([phone])))), Meet::None);
        assert_eq!(meet(&event(json!({"hangoutLink": "h"}))), Meet::Link("h"));
        assert_eq!(meet(&event(json!({"hangoutLink": ""}))), Meet::None);
        let request = |status: &str| json!({"createRequest": {"status": {"statusCode": status}}});
        assert_eq!(meet(&event(json!({"conferenceData": request("pending")}))), Meet::Pending);
        assert_eq!(meet(&event(json!({"conferenceData": request("failure")}))), Meet::None);
        assert_eq!(meet(&event(json!({"conferenceData": request("pending"), "hangoutLink": "h"}))), Meet::Link("h"));
        assert_eq!(meet(&event(json!({}))), Meet::None);
    }
}
