//! The simulator's Calendar API v3: <https://developers.google.com/workspace/calendar/api/v3/reference/events>.
//!
//! Hides each account's events and Google's rules for them. Answers are whole event resources; what Google keeps
//! read-only cannot be written here either.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Behaviour, Call, Meet, World,
    oauth::field,
    wire::{Incoming, Reply},
};
use crate::clock::random_bytes;

/// The fields a client may set, besides `id` and `conferenceData`.
const WRITABLE: [&str; 20] = [
    "summary",
    "description",
    "location",
    "start",
    "end",
    "attendees",
    "reminders",
    "status",
    "visibility",
    "transparency",
    "colorId",
    "source",
    "extendedProperties",
    "recurrence",
    "guestsCanInviteOthers",
    "guestsCanModify",
    "guestsCanSeeOtherGuests",
    "anyoneCanAddSelf",
    "attachments",
    "eventType",
];

/// An event and what Google knows beside it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub account: String,
    /// The resource as it is answered.
    pub event: Value,
    conference: Option<Pending>,
}

/// A conference that is not there yet.
#[derive(Clone, Serialize, Deserialize)]
struct Pending {
    request_id: String,
    answers_left: u32,
}

/// One authorized call.
struct Desk<'a> {
    world: &'a mut World,
    behaviour: &'a Behaviour,
    incoming: &'a Incoming,
    account: String,
    now: DateTime<Utc>,
}

type Answer = Result<Reply, Reply>;

fn invalid(reason: &str, message: &str) -> Reply {
    Reply::api_error(400, "global", reason, message)
}

fn not_found() -> Reply {
    Reply::api_error(404, "global", "notFound", "Not Found")
}

/// Answers a call of the calendar API.
pub(super) fn answer(world: &mut World, behaviour: &Behaviour, incoming: &Incoming, now: DateTime<Utc>) -> Answer {
    let account = authorized(world, incoming, now)?;
    let segments: Vec<&str> = incoming.path.split('/').collect();
    if let [_, _, _, "calendars", calendar, ..] = *segments
        && calendar != "primary"
        && calendar.replace("%40", "@") != account
    {
        return Err(not_found());
    }
    let id = segments.get(6).copied().unwrap_or_default();
    let mut desk = Desk { world, behaviour, incoming, account, now };
    match incoming.call {
        Call::Insert => desk.insert(),
        Call::Get => desk.get(id),
        Call::List => desk.list(),
        Call::Patch => desk.patch(id),
        Call::Delete => desk.delete(id),
        Call::FreeBusy => desk.free_busy(),
        _ => Err(not_found()),
    }
}

/// The account whose valid access token came along, if its scopes allow the call.
fn authorized(world: &World, incoming: &Incoming, now: DateTime<Utc>) -> Result<String, Reply> {
    if !incoming.headers.contains_key("authorization") {
        return Err(Reply::api_error(401, "global", "required", "Login Required."));
    }
    let access = incoming.authorization("Bearer").and_then(|token| world.access.get(token));
    let Some(access) = access.filter(|access| access.expires_at > now) else {
        return Err(Reply::api_error(401, "global", "authError", "Invalid Credentials"));
    };
    let sufficient: &[&str] = match incoming.call {
        Call::FreeBusy => &["calendar", "calendar.readonly", "calendar.freebusy", "calendar.events.freebusy"],
        Call::Get | Call::List => &["calendar", "calendar.readonly", "calendar.events", "calendar.events.readonly"],
        _ => &["calendar", "calendar.events"],
    };
    if !access.grant.has_any(sufficient) {
        let message = "Request had insufficient authentication scopes.";
        return Err(Reply::api_error(403, "global", "insufficientPermissions", message));
    }
    Ok(access.grant.account.clone())
}

impl Desk<'_> {
    fn insert(&mut self) -> Answer {
        let with_conference = self.conference_data_version()?;
        self.check_send_updates()?;
        let mut body = self.body()?;
        let id = match body.remove("id") {
            None | Some(Value::Null) => fresh_id(),
            Some(Value::String(id)) if is_event_id(&id) => id,
            Some(_) => return Err(invalid("invalid", "Invalid resource id value.")),
        };
        let organizer = self.behaviour.organizer.as_deref().unwrap_or(&self.account);
        let mut event = json!({
            "kind": "calendar#event",
            "id": id,
            "status": "confirmed",
            "htmlLink": format!("https://www.google.com/calendar/event?eid={id}"),
            "created": millis(self.now),
            "creator": {"email": self.account, "self": true},
            "organizer": {"email": organizer, "self": organizer == self.account},
            "iCalUID": format!("{id}@google.com"),
            "sequence": 0,
            "reminders": {"useDefault": true},
            "eventType": "default",
        });
        let conference = body.remove("conferenceData").filter(|_| with_conference);
        merge(&mut event, writable(body));
        check(&event)?;
        complete_attendees(&mut event);
        if self.world.events.iter().any(|stored| stored.account == self.account && stored.event["id"] == id.as_str()) {
            return Err(Reply::api_error(409, "global", "duplicate", "The requested identifier already exists."));
        }
        let mut stored = Stored { account: self.account.clone(), event, conference: None };
        self.set_conference(&mut stored, conference)?;
        self.stamp(&mut stored);
        let answer = self.shown(&mut stored);
        self.world.events.push(stored);
        Ok(answer)
    }

    fn get(&mut self, id: &str) -> Answer {
        self.with_event(id, |desk, stored| Ok(desk.shown(stored)))
    }

    fn patch(&mut self, id: &str) -> Answer {
        let with_conference = self.conference_data_version()?;
        self.check_send_updates()?;
        let mut body = self.body()?;
        self.with_event(id, |desk, stored| {
            desk.check_etag(stored)?;
            let conference = body.remove("conferenceData").filter(|_| with_conference);
            let mut event = stored.event.clone();
            merge(&mut event, writable(body));
            check(&event)?;
            complete_attendees(&mut event);
            if (&event["start"], &event["end"]) != (&stored.event["start"], &stored.event["end"]) {
                event["sequence"] = (event["sequence"].as_i64().unwrap_or_default() + 1).into();
            }
            stored.event = event;
            desk.set_conference(stored, conference)?;
            desk.stamp(stored);
            Ok(desk.shown(stored))
        })
    }

    fn delete(&mut self, id: &str) -> Answer {
        self.check_send_updates()?;
        self.with_event(id, |desk, stored| {
            if is_cancelled(stored) {
                return Err(Reply::api_error(410, "global", "deleted", "Resource has been deleted"));
            }
            desk.check_etag(stored)?;
            stored.event["status"] = "cancelled".into();
            desk.stamp(stored);
            Ok(Reply::new(204, Value::Null))
        })
    }

    fn list(&mut self) -> Answer {
        let query = &self.incoming.query;
        let bound = |name| match field(query, name).map(DateTime::parse_from_rfc3339) {
            None => Ok(None),
            Some(Ok(bound)) => Ok(Some(bound)),
            Some(Err(_)) => Err(invalid("badRequest", "Bad Request")),
        };
        let (from, to) = (bound("timeMin")?, bound("timeMax")?);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(empty_range());
        }
        let with_deleted = field(query, "showDeleted") == Some("true");
        let wanted = |stored: &&Stored| {
            let span = span(&stored.event);
            stored.account == self.account
                && (with_deleted || !is_cancelled(stored))
                && field(query, "iCalUID").is_none_or(|uid| stored.event["iCalUID"] == uid)
                && span.is_ok_and(|(start, end)| from.is_none_or(|from| end > from) && to.is_none_or(|to| start < to))
        };
        let items: Vec<&Value> = self.world.events.iter().filter(wanted).map(|stored| &stored.event).collect();
        Ok(Reply::new(
            200,
            json!({
                "kind": "calendar#events",
                "etag": format!("\"p{}\"", self.world.revision),
                "summary": self.account,
                "updated": millis(self.now),
                "timeZone": "UTC",
                "accessRole": "owner",
                "defaultReminders": [],
                "items": items,
            }),
        ))
    }

    fn free_busy(&mut self) -> Answer {
        let body = self.body()?;
        let bound = |name| {
            let text = body.get(name).and_then(Value::as_str).unwrap_or_default();
            DateTime::parse_from_rfc3339(text).map_err(|_| invalid("required", &format!("Missing or invalid {name}.")))
        };
        let (from, to) = (bound("timeMin")?, bound("timeMax")?);
        if from >= to {
            return Err(empty_range());
        }
        let counts = |stored: &&Stored| {
            stored.account == self.account
                && !is_cancelled(stored)
                && stored.event.get("transparency").is_none_or(|value| value == "opaque")
        };
        let mut busy: Vec<_> =
            self.world.events.iter().filter(counts).filter_map(|stored| span(&stored.event).ok()).collect();
        busy.retain(|(start, end)| *end > from && *start < to);
        busy.sort();
        let mut merged: Vec<(DateTime<FixedOffset>, DateTime<FixedOffset>)> = Vec::new();
        for (start, end) in busy {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        let busy: Vec<Value> = merged
            .into_iter()
            .map(|(start, end)| json!({"start": seconds(start.max(from)), "end": seconds(end.min(to))}))
            .collect();
        let items = body.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let calendar = |item: &Value| {
            let id = item["id"].as_str().unwrap_or_default();
            let known = id == "primary" || id == self.account;
            let unknown = json!({"errors": [{"domain": "global", "reason": "notFound"}], "busy": []});
            (id.to_owned(), if known { json!({"busy": busy}) } else { unknown })
        };
        let calendars: Map<String, Value> = items.iter().map(calendar).collect();
        let (from, to) = (seconds(from), seconds(to));
        Ok(Reply::new(
            200,
            json!({"kind": "calendar#freeBusy", "timeMin": from, "timeMax": to, "calendars": calendars}),
        ))
    }

    /// Lends a copy of one of the account's events to `use_it`, and keeps the copy if that succeeds.
    fn with_event(&mut self, id: &str, use_it: impl FnOnce(&mut Self, &mut Stored) -> Answer) -> Answer {
        let mine = |stored: &Stored| stored.account == self.account && stored.event["id"] == id;
        let index = self.world.events.iter().position(mine).ok_or_else(not_found)?;
        let mut stored = self.world.events[index].clone();
        let answer = use_it(self, &mut stored)?;
        self.world.events[index] = stored;
        Ok(answer)
    }

    fn body(&self) -> Result<Map<String, Value>, Reply> {
        if !self.incoming.has_content_type("application/json") {
            return Err(invalid("badContent", "Unsupported content with type"));
        }
        match self.incoming.json() {
            Some(Value::Object(body)) => Ok(body),
            Some(_) => Err(invalid("badRequest", "Bad Request")),
            None => Err(invalid("parseError", "Parse Error")),
        }
    }

    /// Whether the client understands conferences; if not, Google ignores what it says about them.
    fn conference_data_version(&self) -> Result<bool, Reply> {
        match field(&self.incoming.query, "conferenceDataVersion") {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(invalid(
                "invalidParameter",
                &format!("Invalid value '{other}'. Values must be within the range: [0, 1]"),
            )),
        }
    }

    fn check_send_updates(&self) -> Result<(), Reply> {
        match field(&self.incoming.query, "sendUpdates") {
            None | Some("all" | "externalOnly" | "none") => Ok(()),
            Some(other) => {
                let message = format!("Invalid string value: '{other}'. Allowed values: [all, externalOnly, none]");
                Err(invalid("invalidParameter", &message))
            }
        }
    }

    fn check_etag(&self, stored: &Stored) -> Result<(), Reply> {
        match self.incoming.headers.get("if-match") {
            Some(wanted) if wanted != "*" && stored.event["etag"] != wanted.to_str().unwrap_or_default() => {
                Err(Reply::api_error(412, "global", "conditionNotMet", "Precondition Failed"))
            }
            _ => Ok(()),
        }
    }

    /// Makes, keeps or removes the event's conference as `conferenceData` of a body says.
    fn set_conference(&mut self, stored: &mut Stored, asked: Option<Value>) -> Result<(), Reply> {
        let Some(asked) = asked else { return Ok(()) };
        if asked.is_null() {
            stored.conference = None;
            remove(&mut stored.event, "conferenceData");
            remove(&mut stored.event, "hangoutLink");
            return Ok(());
        }
        let Some(request) = asked.get("createRequest") else { return Ok(()) };
        let Some(request_id) = request["requestId"].as_str().filter(|id| !id.is_empty()) else {
            return Err(invalid("required", "Missing conference request id."));
        };
        if !matches!(request["conferenceSolutionKey"]["type"].as_str(), None | Some("hangoutsMeet")) {
            return Err(invalid("invalid", "Invalid conference type value."));
        }
        // A request id that was seen before is no new request: Google ignores it.
        if !self.world.conferences.insert((self.account.clone(), request_id.into())) {
            return Ok(());
        }
        if self.behaviour.meet == Meet::Missing {
            return Ok(());
        }
        stored.conference =
            Some(Pending { request_id: request_id.into(), answers_left: self.behaviour.pending_answers });
        remove(&mut stored.event, "hangoutLink");
        stored.event["conferenceData"] = create_request(request_id, "pending");
        Ok(())
    }

    /// Gives a changed event a new etag and time of change.
    fn stamp(&mut self, stored: &mut Stored) {
        self.world.revision += 1;
        stored.event["etag"] = format!("\"{:016}\"", self.world.revision).into();
        stored.event["updated"] = millis(self.now).into();
    }

    /// The event as it is answered; a pending conference comes one answer nearer.
    fn shown(&mut self, stored: &mut Stored) -> Reply {
        match &mut stored.conference {
            Some(pending) if pending.answers_left > 0 => pending.answers_left -= 1,
            Some(pending) => {
                finish_conference(&mut stored.event, &pending.request_id, self.behaviour.meet);
                stored.conference = None;
                self.stamp(stored);
            }
            None => {}
        }
        Reply::new(200, stored.event.clone())
    }
}

fn create_request(request_id: &str, status: &str) -> Value {
    json!({"createRequest": {
        "requestId": request_id,
        "conferenceSolutionKey": {"type": "hangoutsMeet"},
        "status": {"statusCode": status},
    }})
}

/// Turns a pending conference into what `meet` says.
fn finish_conference(event: &mut Value, request_id: &str, meet: Meet) {
    let letter = |byte: u8| char::from(b'a' + byte % 26);
    let letters: String = random_bytes::<10>().map(letter).iter().collect();
    let code = format!("{}-{}-{}", &letters[..3], &letters[3..7], &letters[7..]);
    let link = format!("https://meet.google.com/{code}");
    let video = json!({"entryPointType": "video", "uri": link, "label": format!("meet.google.com/{code}")});
    let phone = json!({"entryPointType": "phone", "uri": "tel:+1-555-010-0199", "label": "+1 555-010-0199",
        "pin": "123456789", "regionCode": "US"});
    let entry_points = match meet {
        Meet::VideoFirst => vec![video, phone],
        Meet::PhoneFirst => vec![phone, video],
        Meet::PhoneOnly => vec![phone],
        Meet::HangoutLinkOnly | Meet::Missing | Meet::Failure => vec![],
    };
    if matches!(meet, Meet::VideoFirst | Meet::PhoneFirst | Meet::HangoutLinkOnly) {
        event["hangoutLink"] = link.into();
    }
    let mut conference = create_request(request_id, if meet == Meet::Failure { "failure" } else { "success" });
    if !entry_points.is_empty() {
        conference["entryPoints"] = entry_points.into();
        conference["conferenceSolution"] = json!({"key": {"type": "hangoutsMeet"}, "name": "Google Meet"});
        conference["conferenceId"] = code.into();
    }
    match meet {
        Meet::HangoutLinkOnly | Meet::Missing => remove(event, "conferenceData"),
        _ => event["conferenceData"] = conference,
    };
}

/// 5 to 1024 characters of base32hex, lower case.
fn is_event_id(id: &str) -> bool {
    (5..=1024).contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v'))
}

fn fresh_id() -> String {
    random_bytes::<26>()
        .map(|byte| char::from(b"0123456789abcdefghijklmnopqrstuv"[usize::from(byte % 32)]))
        .iter()
        .collect()
}

fn is_cancelled(stored: &Stored) -> bool {
    stored.event["status"] == "cancelled"
}

fn writable(mut body: Map<String, Value>) -> Map<String, Value> {
    body.retain(|name, _| WRITABLE.contains(&name.as_str()));
    body
}

fn remove(event: &mut Value, name: &str) {
    if let Some(members) = event.as_object_mut() {
        members.remove(name);
    }
}

/// Google's patch semantics: null removes, objects are merged, anything else replaces.
fn merge(target: &mut Value, patch: Map<String, Value>) {
    for (name, value) in patch {
        match (&mut target[&name], value) {
            (_, Value::Null) => remove(target, &name),
            (old @ Value::Object(_), Value::Object(new)) => merge(old, new),
            (old, value) => *old = value,
        }
    }
}

/// The rules a whole event keeps, after an insert or a patch.
fn check(event: &Value) -> Result<(), Reply> {
    let (start, end) = span(event)?;
    if end <= start {
        return Err(empty_range());
    }
    for name in ["summary", "description", "location"] {
        if event.get(name).is_some_and(|value| !value.is_string()) {
            return Err(invalid("invalid", &format!("Invalid value for: {name} is not a string")));
        }
    }
    if !matches!(event["status"].as_str(), Some("confirmed" | "tentative" | "cancelled")) {
        return Err(invalid("invalid", "Invalid status value."));
    }
    let attendees = match event.get("attendees") {
        None => &[],
        Some(Value::Array(attendees)) => attendees.as_slice(),
        Some(_) => return Err(invalid("invalid", "Invalid value for: attendees is not a list")),
    };
    let reachable = |attendee: &Value| attendee["email"].as_str().is_some_and(is_address);
    if !attendees.iter().all(reachable) {
        return Err(invalid("invalid", "Invalid attendee email."));
    }
    check_reminders(event)
}

fn is_address(email: &str) -> bool {
    !email.contains(char::is_whitespace)
        && email.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

fn check_reminders(event: &Value) -> Result<(), Reply> {
    let Some(reminders) = event.get("reminders") else { return Ok(()) };
    let overrides = reminders.get("overrides").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if reminders.get("useDefault").is_some_and(|value| value == true) && !overrides.is_empty() {
        let message = "Cannot specify both default reminders and overrides at the same time.";
        return Err(Reply::api_error(400, "calendar", "cannotUseDefaultRemindersAndSpecifyOverride", message));
    }
    let good = |reminder: &Value| {
        matches!(reminder["method"].as_str(), Some("email" | "popup"))
            && reminder["minutes"].as_u64().is_some_and(|minutes| minutes <= 40_320)
    };
    if overrides.len() > 5 || !overrides.iter().all(good) {
        return Err(invalid("invalid", "Invalid reminder."));
    }
    Ok(())
}

fn empty_range() -> Reply {
    Reply::api_error(400, "calendar", "timeRangeEmpty", "The specified time range is empty.")
}

/// Start and end of an event.
fn span(event: &Value) -> Result<(DateTime<FixedOffset>, DateTime<FixedOffset>), Reply> {
    Ok((instant(event, "start")?, instant(event, "end")?))
}

/// A `dateTime` with its own offset, and a `timeZone` that could be a name.
fn instant(event: &Value, name: &str) -> Result<DateTime<FixedOffset>, Reply> {
    let time = event.get(name).filter(|time| time.get("dateTime").is_some());
    let Some(time) = time else { return Err(invalid("required", &format!("Missing {name} time."))) };
    if let Some(zone) = time.get("timeZone") {
        let plausible = |zone: &str| {
            zone.starts_with(|first: char| first.is_ascii_alphabetic())
                && zone.chars().all(|char| char.is_ascii_alphanumeric() || "/_+-".contains(char))
        };
        if !zone.as_str().is_some_and(plausible) {
            return Err(invalid("invalid", &format!("Invalid time zone definition for {name} time.")));
        }
    }
    let text = time["dateTime"].as_str().unwrap_or_default();
    // chrono also takes a blank or a small letter between date and time.
    match DateTime::parse_from_rfc3339(text) {
        Ok(instant) if text.as_bytes().get(10) == Some(&b'T') => Ok(instant),
        _ => Err(invalid("badRequest", "Bad Request")),
    }
}

/// Gives attendees what Google adds to them.
fn complete_attendees(event: &mut Value) {
    let organizer = event["organizer"]["email"].clone();
    for attendee in event.get_mut("attendees").and_then(Value::as_array_mut).into_iter().flatten() {
        if attendee.get("responseStatus").is_none() {
            attendee["responseStatus"] = "needsAction".into();
        }
        if attendee["email"] == organizer {
            attendee["organizer"] = true.into();
        }
    }
}

fn millis(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn seconds(instant: DateTime<FixedOffset>) -> String {
    instant.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true)
}
