//! The pure rules of an interview: what a request may ask for, and what state an interview is in. No database, no
//! network.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{SchemaType, Type},
    },
};

use super::{list::Entry, store::Interview};
use crate::{
    auth,
    config::Settings,
    http::{Error, Result},
    zone::{self, Resolved, Zone},
};

/// How the two meet, as `company_interview.interview_type` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterviewType {
    GoogleMeet,
    Phone,
    InPerson,
    /// Also what Django writes for everything.
    Custom,
}

impl InterviewType {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "google_meet" => Self::GoogleMeet,
            "phone" => Self::Phone,
            "in_person" => Self::InPerson,
            "custom" => Self::Custom,
            _ => return None,
        })
    }

    /// As stored: an unknown text counts as [`Self::Custom`].
    pub fn stored(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::Custom)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::GoogleMeet => "google_meet",
            Self::Phone => "phone",
            Self::InPerson => "in_person",
            Self::Custom => "custom",
        }
    }

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Self::GoogleMeet => "Google Meet",
            Self::Phone => "Phone",
            Self::InPerson => "In person",
            Self::Custom => "Other",
        }
    }
}

/// Which of the two somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Candidate,
    Recruiter,
}

/// A person as interviews show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: i64,
    pub first_name: String,
    pub last_name: String,
    pub email: String,
}

impl Person {
    /// `First Last`, trimmed; the e-mail address of somebody without a name.
    pub fn name(&self) -> String {
        auth::full_name(&self.first_name, &self.last_name, &self.email)
    }
}

/// The two create endpoints, which differ in little (contract §5.6, §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /api/company/google/create-interview/`
    Google,
    /// `POST /api/company/create-interview/`
    Company,
}

impl Endpoint {
    pub fn path(self) -> &'static str {
        match self {
            Self::Google => "/api/company/google/create-interview/",
            Self::Company => "/api/company/create-interview/",
        }
    }

    fn default_type(self) -> InterviewType {
        match self {
            Self::Google => InterviewType::GoogleMeet,
            Self::Company => InterviewType::Custom,
        }
    }
}

/// A field of a body as it came; the parser says what is wrong with it, in the contract's words and order.
#[derive(Default, PartialEq)]
struct Given(Option<Value>);

impl Given {
    fn get(&self) -> Option<&Value> {
        self.0.as_ref()
    }

    fn if_given<T>(&self, parse: impl Fn(Option<&Value>) -> Result<T>) -> Result<Option<T>> {
        self.0.as_ref().map(|value| parse(Some(value))).transpose()
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde calls this for a missing field too, with a deserializer that fails: `None`. Null is a value.
        Ok(Given(Value::deserialize(deserializer).ok()))
    }
}

/// An id as clients may send it.
struct Id;

impl ToSchema for Id {}

impl PartialSchema for Id {
    fn schema() -> RefOr<Schema> {
        let kinds = SchemaType::from_iter([Type::Integer, Type::String]);
        let schema = ObjectBuilder::new().schema_type(kinds).minimum(Some(1)).pattern(Some("^[0-9]+$"));
        schema.description(Some("An integer, or a string of digits")).into()
    }
}

/// What a recruiter may send to schedule an interview.
#[derive(Deserialize, ToSchema)]
#[schema(as = ScheduleInterview, examples(json!({"candidate_id": 201, "job_id": 21, "company_id": 11,
    "date": "2030-02-01", "time": "14:00", "timezone": "America/New_York", "notes": "hi",
    "interview_type": "google_meet"})))]
pub struct ScheduleBody {
    /// Somebody who has applied to the job, or is shortlisted for it.
    #[schema(value_type = Id)]
    candidate_id: Given,
    /// A job of the caller's company; required without `job_title`, and wins over it.
    #[schema(value_type = Option<Id>)]
    job_id: Given,
    /// The company's job of this title, or else any title.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    job_title: Given,
    /// If given, it has to be the caller's.
    #[schema(value_type = Option<Id>)]
    company_id: Given,
    #[schema(value_type = String, format = Date)]
    date: Given,
    /// Wall time in `timezone`: `HH:MM` or `HH:MM:SS`.
    #[schema(value_type = String, pattern = "^([01]?[0-9]|2[0-3]):[0-5]?[0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?$")]
    time: Given,
    /// An IANA name; UTC if absent.
    #[schema(value_type = Option<String>, max_length = 50)]
    timezone: Given,
    /// The first of `note` and `notes` that is not blank counts.
    #[schema(value_type = Option<String>, max_length = 5000)]
    note: Given,
    #[schema(value_type = Option<String>, max_length = 5000)]
    notes: Given,
    /// If absent, as the path says: `google_meet` or `custom`.
    #[schema(value_type = Option<InterviewType>)]
    interview_type: Given,
    /// If absent, as the server is set up: usually 60.
    #[schema(value_type = Option<i32>, minimum = 5, maximum = 480)]
    duration_minutes: Given,
    /// A phone number, an address, or an https link.
    #[schema(value_type = Option<String>, max_length = 255)]
    location: Given,
}

/// What a recruiter may send to change an interview; what is absent stays as it is.
#[derive(Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = ChangeInterview, examples(json!({"time": "18:00"})))]
pub struct ChangeBody {
    #[schema(value_type = String, required = false, format = Date)]
    date: Given,
    /// Wall time: `HH:MM` or `HH:MM:SS`.
    #[schema(value_type = String, required = false, pattern = "^([01]?[0-9]|2[0-3]):[0-5]?[0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?$")]
    time: Given,
    /// An IANA name.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 50)]
    timezone: Given,
    /// Null or blank removes it. The first of `note` and `notes` that is not blank counts.
    #[schema(value_type = Option<String>, max_length = 5000)]
    note: Given,
    #[schema(value_type = Option<String>, max_length = 5000)]
    notes: Given,
    #[schema(value_type = InterviewType, required = false)]
    interview_type: Given,
    #[schema(value_type = i32, required = false, minimum = 5, maximum = 480)]
    duration_minutes: Given,
    /// Null or blank removes it.
    #[schema(value_type = Option<String>, max_length = 255)]
    location: Given,
}

/// What a recruiter may send to cancel an interview.
#[derive(Deserialize, ToSchema)]
#[schema(as = CancelInterview, examples(json!({"reason": "The position is filled."})))]
pub struct CancelBody {
    #[schema(value_type = Option<String>, max_length = 1000)]
    reason: Given,
}

/// Which job the interview is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobChoice {
    Id(i64),
    /// 1–255 characters, trimmed.
    Title(String),
}

/// What a recruiter asks for; every value is in its allowed form.
#[derive(Clone, Debug)]
pub struct Request {
    pub candidate_id: i64,
    pub job: JobChoice,
    pub company_id: Option<i64>,
    pub date: NaiveDate,
    pub time: NaiveTime,
    pub zone: Zone,
    pub note: Option<String>,
    pub interview_type: InterviewType,
    pub duration_minutes: Option<i32>,
    pub location: Option<String>,
    pub start: Resolved,
    pub end: DateTime<Utc>,
}

const NOTE_LIMIT: usize = 5000;
const TEXT_LIMIT: usize = 255;
const REASON_LIMIT: usize = 1000;

impl Request {
    /// Rules 2 and 3 of contract §5.6: what is missing, then what is malformed, in the table's order.
    pub fn parse(body: &Map<String, Value>, endpoint: Endpoint, default_duration: i32) -> Result<Request> {
        let asked = ScheduleBody::deserialize(body)?;
        if endpoint == Endpoint::Company {
            for (key, value) in [("date", &asked.date), ("time", &asked.time)] {
                if is_falsy(value) {
                    return Err(Error::bad_request(format!("The '{key}' field is required.")).about(key));
                }
            }
        }
        let no_job = is_falsy(&asked.job_id);
        if [&asked.candidate_id, &asked.date, &asked.time].into_iter().any(is_falsy)
            || (no_job && is_falsy(&asked.job_title))
        {
            return Err(Error::bad_request("Missing required fields"));
        }
        let candidate_id = id(asked.candidate_id.get()).ok_or(invalid("candidate_id"))?;
        let job = match no_job {
            false => JobChoice::Id(id(asked.job_id.get()).ok_or(invalid("job_id"))?),
            true => JobChoice::Title(job_title(asked.job_title.get()).ok_or(invalid("job_title"))?),
        };
        let company_id = match asked.company_id.get() {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            some => match id(some).ok_or(invalid("company_id"))? {
                0 => None,
                id => Some(id),
            },
        };
        let date = date(asked.date.get())?;
        let time = time(asked.time.get())?;
        let zone = match asked.timezone.get() {
            None | Some(Value::Null) => Zone::UTC,
            Some(Value::String(text)) if text.is_empty() => Zone::UTC,
            some => zone(some)?,
        };
        let note = note(&asked.note, &asked.notes)?;
        let interview_type = match asked.interview_type.get() {
            None | Some(Value::Null) => endpoint.default_type(),
            Some(Value::String(text)) if text.is_empty() => endpoint.default_type(),
            some => interview_type(some)?,
        };
        let duration_minutes = match asked.duration_minutes.get() {
            None | Some(Value::Null) => None,
            some => Some(duration_minutes(some)?),
        };
        let location = location(asked.location.get())?;
        let (start, end) = span(&zone, date, time, duration_minutes.unwrap_or(default_duration))?;
        Ok(Request {
            candidate_id,
            job,
            company_id,
            date,
            time,
            zone,
            note,
            interview_type,
            duration_minutes,
            location,
            start,
            end,
        })
    }
}

/// What a recruiter wants to be different; `None`: as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub date: Option<NaiveDate>,
    pub time: Option<NaiveTime>,
    pub zone: Option<Zone>,
    /// `Some(None)` removes it; so for the location.
    pub note: Option<Option<String>>,
    pub interview_type: Option<InterviewType>,
    pub duration_minutes: Option<i32>,
    pub location: Option<Option<String>>,
}

impl Change {
    /// Rule 2 of contract §5.14: the formats of [`Request::parse`], but what is there has to say something.
    pub fn parse(body: &Map<String, Value>) -> Result<Change> {
        let wanted = ChangeBody::deserialize(body)?;
        if wanted == ChangeBody::default() {
            return Err(Error::bad_request("Nothing to change."));
        }
        Ok(Change {
            date: wanted.date.if_given(date)?,
            time: wanted.time.if_given(time)?,
            zone: wanted.timezone.if_given(zone)?,
            note: match wanted.note.get().or(wanted.notes.get()) {
                Some(_) => Some(note(&wanted.note, &wanted.notes)?),
                None => None,
            },
            interview_type: wanted.interview_type.if_given(interview_type)?,
            duration_minutes: wanted.duration_minutes.if_given(duration_minutes)?,
            location: wanted.location.if_given(location)?,
        })
    }

    /// The interview as it would be; refused when its start or end leaves the years 1–9999.
    pub fn applied_to(&self, before: &Interview, settings: &Settings) -> Result<Interview> {
        let mut after = before.clone();
        after.date = self.date.unwrap_or(before.date);
        after.time = self.time.unwrap_or(before.time);
        if let Some(zone) = &self.zone {
            after.timezone = zone.name().to_owned();
        }
        if (after.date, after.time, &after.timezone) != (before.date, before.time, &before.timezone) {
            after.starts_at = None;
        }
        if let Some(note) = &self.note {
            after.note = note.clone();
        }
        if let Some(interview_type) = self.interview_type {
            after.interview_type = interview_type.as_str().to_owned();
        }
        after.duration_minutes = self.duration_minutes.or(before.duration_minutes);
        if let Some(location) = &self.location {
            after.location = location.clone();
        }
        span(&after.zone(), after.date, after.time, after.minutes(settings))?;
        Ok(after)
    }
}

/// Why an interview is cancelled; blank is none.
pub fn cancellation_reason(body: &Map<String, Value>) -> Result<Option<String>> {
    match CancelBody::deserialize(body)?.reason.0 {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= REASON_LIMIT => {
            Ok(Some(text).filter(|text| !text.trim().is_empty()))
        }
        Some(_) => Err(invalid("reason")),
    }
}

/// Missing, null, `""`, `0` or `false`.
fn is_falsy(field: &Given) -> bool {
    match field.get() {
        None | Some(Value::Null) | Some(Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(_) => false,
    }
}

/// An integer, a number without a fraction, or a string of digits; beyond 64 bit it is an id that no row has.
pub fn id(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(id), _) => Some(id),
            (None, Some(float)) if float.fract() == 0.0 => Some(float as i64),
            _ => None,
        },
        Value::String(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().unwrap_or(i64::MAX))
        }
        _ => None,
    }
}

fn job_title(value: Option<&Value>) -> Option<String> {
    let title = value?.as_str()?.trim();
    (1..=TEXT_LIMIT).contains(&title.chars().count()).then(|| title.to_owned())
}

pub fn date(value: Option<&Value>) -> Result<NaiveDate> {
    value.and_then(Value::as_str).and_then(zone::parse_date).ok_or_else(invalid_date)
}

fn invalid(field: &'static str) -> Error {
    Error::bad_request(format!("Invalid {field}.")).about(field)
}

fn invalid_date() -> Error {
    Error::bad_request("Invalid date. Use YYYY-MM-DD.").about("date")
}

pub fn time(value: Option<&Value>) -> Result<NaiveTime> {
    value
        .and_then(Value::as_str)
        .and_then(zone::parse_time)
        .ok_or(Error::bad_request("Invalid time. Use HH:MM.").about("time"))
}

pub fn zone(value: Option<&Value>) -> Result<Zone> {
    let zone = value.and_then(Value::as_str).and_then(Zone::parse);
    zone.ok_or(Error::bad_request("Invalid timezone. Use an IANA name such as America/New_York.").about("timezone"))
}

/// The first of `note` and `notes` that is not blank.
fn note(note: &Given, notes: &Given) -> Result<Option<String>> {
    let mut chosen = None;
    for field in [note, notes] {
        match field.get() {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.trim().is_empty() => {}
            Some(Value::String(text)) => chosen = chosen.or(Some(text.clone())),
            Some(_) => return Err(invalid("note")),
        }
    }
    match chosen {
        Some(text) if text.chars().count() > NOTE_LIMIT => {
            Err(Error::bad_request("Note is too long (at most 5000 characters).").about("note"))
        }
        chosen => Ok(chosen),
    }
}

fn interview_type(value: Option<&Value>) -> Result<InterviewType> {
    value.and_then(Value::as_str).and_then(InterviewType::parse).ok_or(invalid("interview_type"))
}

pub fn duration_minutes(value: Option<&Value>) -> Result<i32> {
    id(value).filter(|minutes| (5..=480).contains(minutes)).map(|minutes| minutes as i32).ok_or(
        Error::bad_request("Invalid duration_minutes. Use a whole number from 5 to 480.").about("duration_minutes"),
    )
}

fn location(value: Option<&Value>) -> Result<Option<String>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().chars().count() <= TEXT_LIMIT => {
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Some(_) => Err(invalid("location")),
    }
}

/// The fields of a form that are not in the formats of [`Request::parse`], each looked at by itself. What is absent is
/// left alone, but what is there has to say something.
pub fn malformed(form: &Map<String, Value>) -> Vec<&'static str> {
    type Check = fn(Option<&Value>) -> bool;
    let checks: [(&str, Check); 8] = [
        ("candidate_id", |value| id(value).is_some()),
        ("date", |value| date(value).is_ok()),
        ("time", |value| time(value).is_ok()),
        ("duration_minutes", |value| duration_minutes(value).is_ok()),
        ("timezone", |value| zone(value).is_ok()),
        ("interview_type", |value| interview_type(value).is_ok()),
        ("location", |value| location(value).is_ok()),
        ("note", |value| note(&Given(value.cloned()), &Given::default()).is_ok()),
    ];
    let is_wrong = |(name, is_well): &(&str, Check)| form.get(*name).is_some_and(|value| !is_well(Some(value)));
    checks.into_iter().filter(is_wrong).map(|(name, _)| name).collect()
}

/// Start and end, both within the years 1–9999 in UTC.
pub fn span(zone: &Zone, date: NaiveDate, time: NaiveTime, minutes: i32) -> Result<(Resolved, DateTime<Utc>)> {
    let start = zone.instant(date, time).ok_or_else(invalid_date)?;
    let end = start.at + TimeDelta::minutes(minutes.into());
    if end > zone::LAST {
        return Err(invalid_date());
    }
    Ok((start, end))
}

/// The zone of a row: UTC for a text that is no zone. Where a server with newer time rules than ours has placed the
/// row, it is right and we are not: then the zone as it must be by those rules.
pub fn stored_zone(
    date: NaiveDate,
    time: NaiveTime,
    timezone: &str,
    starts_at: Option<DateTime<Utc>>,
    starts_at_tzdb: Option<&str>,
) -> Zone {
    let placed = starts_at.filter(|_| starts_at_tzdb.is_some_and(zone::is_newer));
    let observed = placed.and_then(|start| Zone::observed(timezone, date.and_time(time), start));
    observed.unwrap_or_else(|| Zone::stored(timezone))
}

/// Start and end of what a row says, whatever it says: what lies outside the years 1–9999 is moved to their edge.
pub fn stored_span(
    zone: &Zone,
    date: NaiveDate,
    time: NaiveTime,
    minutes: Option<i32>,
    settings: &Settings,
) -> (DateTime<Utc>, DateTime<Utc>) {
    let start = zone.stored_instant(date, time);
    let minutes = minutes.unwrap_or(settings.interview_duration_minutes);
    (start, (start + TimeDelta::minutes(minutes.into())).clamp(start, zone::LAST))
}

/// The length of an interview in words: whole hours as such, everything else in minutes.
pub fn duration_words(minutes: i32) -> String {
    match minutes {
        60 => "1 hour".to_owned(),
        minutes if minutes > 0 && minutes % 60 == 0 => format!("{} hours", minutes / 60),
        minutes => format!("{minutes} minutes"),
    }
}

/// When an interview happens and when its door is open (contract §6.2); both ends of the window belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub opens: DateTime<Utc>,
    pub closes: DateTime<Utc>,
    pub cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Upcoming,
    InProgress,
    Completed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MeetingStatus {
    Upcoming,
    Ready,
    Ended,
}

impl Window {
    pub fn new((start, end): (DateTime<Utc>, DateTime<Utc>), cancelled: bool, settings: &Settings) -> Self {
        // Ten years at most each (`config`), and what `chrono` can hold reaches far beyond the year 9999.
        let [before, after] = [settings.join_opens_before, settings.join_closes_after_end];
        Window { start, end, opens: start - before, closes: end + after, cancelled }
    }

    pub fn can_join(&self, now: DateTime<Utc>) -> bool {
        !self.cancelled && self.opens <= now && now <= self.closes
    }

    /// It is not cancelled and has not ended, so changing and cancelling it make sense.
    pub fn can_change(&self, now: DateTime<Utc>) -> bool {
        !self.cancelled && now < self.end
    }

    pub fn meeting_status(&self, now: DateTime<Utc>) -> MeetingStatus {
        match () {
            () if self.cancelled || now > self.closes => MeetingStatus::Ended,
            () if now < self.opens => MeetingStatus::Upcoming,
            () => MeetingStatus::Ready,
        }
    }

    pub fn status(&self, now: DateTime<Utc>) -> Status {
        match () {
            () if self.cancelled => Status::Cancelled,
            () if now < self.start => Status::Upcoming,
            () if now < self.end => Status::InProgress,
            () => Status::Completed,
        }
    }

    /// Whole minutes until the start, truncated toward zero; negative afterwards.
    pub fn minutes_until_start(&self, now: DateTime<Utc>) -> i64 {
        (self.start - now).num_minutes()
    }
}

/// How much longer than the door a mailed link stays open.
pub const LINK_OUTLIVES_WINDOW: TimeDelta = TimeDelta::hours(24);

/// Until when a mailed link opens the interview's page.
pub fn link_expiry(window: &Window) -> DateTime<Utc> {
    window.closes + LINK_OUTLIVES_WINDOW
}

/// The sentences of contract §5.6.1 that follow from the time alone.
pub fn time_warnings(
    zone: &Zone,
    date: NaiveDate,
    time: NaiveTime,
    start: &Resolved,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if start.at < now {
        warnings.push("The interview time is in the past.".to_owned());
    }
    warnings.extend(zone.shift_warning(date, time, start.shift));
    warnings
}

/// The sentences of contract §5.6.1 about other interviews at the same time.
pub fn overlap_warnings(candidate: &Person, candidate_busy: bool, recruiter_busy: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if candidate_busy {
        warnings.push(format!("{} already has an interview at this time.", candidate.name()));
    }
    if recruiter_busy {
        warnings.push("You already have an interview at this time.".to_owned());
    }
    warnings
}

/// The candidate's notification about a new interview.
pub fn scheduled_notification(job_title: &str, company_name: &str) -> String {
    format!("An interview has been scheduled for you for the job '{job_title}'{}.", at_company(company_name))
}

/// The candidate's notification about a changed interview.
pub fn changed_notification(interview: &Interview) -> String {
    let Entry { job_title, company_name, date, time, timezone, .. } = &interview.entry;
    let (company, time) = (at_company(company_name), zone::format_hm(*time));
    format!("Your interview for the job '{job_title}'{company} has been changed to {date} {time} ({timezone}).")
}

/// The candidate's notification about a cancelled interview.
pub fn cancelled_notification(interview: &Interview) -> String {
    let company = at_company(&interview.company_name);
    format!("Your interview for the job '{}'{company} has been cancelled.", interview.job_title)
}

fn at_company(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" at {name}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::http::extract::any_json;

    fn parse(body: Value) -> Result<Request, String> {
        let Value::Object(body) = body else { panic!("an object") };
        Request::parse(&body, Endpoint::Google, 60).map_err(|error| match error {
            Error::Refused { error, .. } => error.into_owned(),
            other => panic!("{other:?}"),
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut body = json!({"candidate_id": 201, "job_id": 21, "date": "2030-02-01", "time": "14:00",
            "timezone": "America/New_York", "interview_type": "google_meet"});
        body[key] = value;
        body
    }

    #[test]
    fn each_field_is_refused_in_its_own_words() {
        let long_note = "x".repeat(5001);
        let long_name = "x".repeat(256);
        for (key, values, text) in [
            (
                "candidate_id",
                vec![json!("abc"), json!(true), json!(1.5), json!([1]), json!({}), json!("-1"), json!("1 ")],
                "Invalid candidate_id.",
            ),
            ("job_id", vec![json!("abc"), json!(true), json!(1.5)], "Invalid job_id."),
            ("company_id", vec![json!("abc"), json!(true), json!(false), json!([])], "Invalid company_id."),
            (
                "date",
                vec![json!("2030-02-30"), json!(20300201), json!("01/02/2030"), json!(["2030-02-01"])],
                "Invalid date. Use YYYY-MM-DD.",
            ),
            (
                "time",
                vec![json!("25:00"), json!("24:00"), json!("14:00Z"), json!(" 14:00"), json!(14)],
                "Invalid time. Use HH:MM.",
            ),
            (
                "timezone",
                vec![json!("Mars/Phobos"), json!("america/new_york"), json!(5), json!("Etc/Unknown")],
                "Invalid timezone. Use an IANA name such as America/New_York.",
            ),
            ("note", vec![json!(5), json!({})], "Invalid note."),
            ("notes", vec![json!(long_note)], "Note is too long (at most 5000 characters)."),
            ("interview_type", vec![json!("zoom"), json!(5)], "Invalid interview_type."),
            (
                "duration_minutes",
                vec![json!(4), json!(481), json!(5.5), json!(true), json!("x"), json!("")],
                "Invalid duration_minutes. Use a whole number from 5 to 480.",
            ),
            ("location", vec![json!(5), json!(long_name)], "Invalid location."),
        ] {
            for value in values {
                let asked = with(key, value.clone());
                assert_eq!(parse(asked.clone()).unwrap_err(), text, "{key}: {value}");
                let refusal = Request::parse(asked.as_object().unwrap(), Endpoint::Google, 60).unwrap_err();
                let Error::Refused { field: Some(field), .. } = refusal else { panic!("{refusal:?}") };
                assert_eq!(field, if key == "notes" { "note" } else { key });
            }
        }
    }

    #[test]
    fn what_the_spa_and_other_clients_send_is_accepted() {
        let request = parse(with("candidate_id", json!("201"))).unwrap();
        assert_eq!((request.candidate_id, request.job), (201, JobChoice::Id(21)));
        assert_eq!(parse(with("candidate_id", json!(2.0))).unwrap().candidate_id, 2);
        assert_eq!(parse(with("location", json!("  +44 20 "))).unwrap().location.as_deref(), Some("+44 20"));
        assert_eq!(parse(with("timezone", Value::Null)).unwrap().zone.name(), "UTC");
        assert_eq!(parse(with("interview_type", json!(""))).unwrap().interview_type, InterviewType::GoogleMeet);
        assert_eq!(parse(with("note", json!(" \n"))).unwrap().note, None);
        let mut both = with("note", json!(" "));
        both["notes"] = json!("hi");
        assert_eq!(parse(both).unwrap().note.as_deref(), Some("hi"));
        let mut titled = with("job_id", json!(""));
        titled["job_title"] = json!(" Cook ");
        assert_eq!(parse(titled).unwrap().job, JobChoice::Title("Cook".into()));
    }

    #[test]
    fn falsy_required_fields_count_as_missing() {
        for key in ["candidate_id", "date", "time", "job_id"] {
            for value in [Value::Null, json!(""), json!(0), json!(false)] {
                assert_eq!(parse(with(key, value)).unwrap_err(), "Missing required fields", "{key}");
            }
        }
        assert_eq!(parse(with("date", json!("0001-01-01"))).map(|_| ()), Ok(()));
        let mut early = with("date", json!("0001-01-01"));
        early["timezone"] = json!("Asia/Tokyo");
        early["time"] = json!("01:00");
        assert_eq!(parse(early).unwrap_err(), "Invalid date. Use YYYY-MM-DD.");
        let mut late = with("date", json!("9999-12-31"));
        late["timezone"] = json!("UTC");
        late["time"] = json!("23:30");
        assert_eq!(parse(late).unwrap_err(), "Invalid date. Use YYYY-MM-DD.");
    }

    #[test]
    fn states_follow_the_table_of_the_contract() {
        let start = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let settings = Settings::from_layers(|name| match name {
            "DATABASE_URL" => Some("postgres://localhost/x".into()),
            "SECRET_KEY" => Some("k".into()),
            _ => None,
        })
        .unwrap();
        let span = (start, start + TimeDelta::hours(1));
        let window = Window::new(span, false, &settings);
        use {MeetingStatus as M, Status as S};
        for (seconds, can_join, meeting, status, until) in [
            (-16 * 60, false, M::Upcoming, S::Upcoming, 16),
            (-15 * 60, true, M::Ready, S::Upcoming, 15),
            (-1, true, M::Ready, S::Upcoming, 0),
            (0, true, M::Ready, S::InProgress, 0),
            (59 * 60, true, M::Ready, S::InProgress, -59),
            (60 * 60, true, M::Ready, S::Completed, -60),
            (120 * 60, true, M::Ready, S::Completed, -120),
            (121 * 60, false, M::Ended, S::Completed, -121),
        ] {
            let now = start + TimeDelta::seconds(seconds);
            let seen =
                (window.can_join(now), window.meeting_status(now), window.status(now), window.minutes_until_start(now));
            assert_eq!(seen, (can_join, meeting, status, until), "at {seconds} s");
            assert_eq!(window.can_change(now), status != S::Completed, "at {seconds} s");
        }
        let cancelled = Window::new(span, true, &settings);
        assert!(!cancelled.can_join(start) && !cancelled.can_change(start));
        assert_eq!((cancelled.meeting_status(start), cancelled.status(start)), (M::Ended, S::Cancelled));
    }

    proptest! {
        #[test]
        fn a_duration_is_a_whole_number_from_5_to_480_or_its_digits(value in any_json()) {
            let whole = match &value {
                Value::Number(number) => number.as_f64().filter(|number| number.fract() == 0.0),
                Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
                _ => None,
            };
            let expected = whole.filter(|minutes| (5.0..=480.0).contains(minutes)).map(|minutes| minutes as i32);
            prop_assert_eq!(duration_minutes(Some(&value)).ok(), expected);
        }

        /// Whatever a body's fields hold, it asks for something possible or is refused with a 400.
        #[test]
        fn any_fields_are_a_request_a_change_and_a_reason_or_a_400(
            fields in prop::collection::hash_map(
                prop::sample::select(vec!["candidate_id", "job_id", "job_title", "company_id", "date", "time",
                    "timezone", "note", "notes", "interview_type", "duration_minutes", "location", "reason"]),
                any_json(), 0..4,
            ),
        ) {
            let mut body = with("note", json!("n")).as_object().unwrap().clone();
            body.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            for endpoint in [Endpoint::Google, Endpoint::Company] {
                match Request::parse(&body, endpoint, 60) {
                    Ok(request) => {
                        prop_assert!((zone::FIRST..=zone::LAST).contains(&request.start.at) && request.end <= zone::LAST);
                        prop_assert!(request.duration_minutes.is_none_or(|minutes| (5..=480).contains(&minutes)));
                        prop_assert!(request.location.is_none_or(|text| (1..=255).contains(&text.chars().count())));
                        prop_assert!(request.note.is_none_or(|text| text.chars().count() <= 5000));
                    }
                    Err(refusal) => prop_assert_eq!(refusal.status(), 400),
                }
            }
            prop_assert!(Change::parse(&body).map_or_else(|refusal| refusal.status() == 400, |_| true));
            prop_assert!(cancellation_reason(&body).map_or_else(|refusal| refusal.status() == 400, |_| true));
            malformed(&body);
        }
    }
}
