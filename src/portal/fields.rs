//! The fields of an interview in a form: what was typed, what is wrong with it, what it means.

use askama::Template;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    local_times,
    recruiter::Done,
    request::{text, with_plain_ends},
};
use crate::{
    config::Settings,
    http::{Error, extract::IdempotencyKey},
    interview::{
        Interview, Preview,
        model::{self, InterviewType},
    },
    zone::{self, Zone},
};

/// What a form shows.
#[derive(Default)]
pub struct Fields {
    pub date: String,
    pub time: String,
    pub timezone: String,
    pub duration_minutes: String,
    pub interview_type: String,
    pub location: String,
    pub note: String,
    /// The fields that are wrong, empty for the whole form, and why.
    errors: Vec<(&'static str, String)>,
}

/// The names of the fields that an interview's own form has.
const NAMES: [&str; 7] = ["date", "time", "timezone", "duration_minutes", "interview_type", "location", "note"];

impl Fields {
    /// Of an interview to be.
    pub fn fresh(settings: &Settings) -> Fields {
        let kind = if settings.google.is_some() { InterviewType::GoogleMeet } else { InterviewType::Phone };
        Fields {
            duration_minutes: settings.interview_duration_minutes.to_string(),
            interview_type: kind.as_str().to_owned(),
            // The page's script puts the browser's own there; without one it is asked for.
            timezone: String::new(),
            ..Fields::default()
        }
    }

    /// As an interview is.
    pub fn of(interview: &Interview, settings: &Settings) -> Fields {
        Fields {
            date: interview.date.to_string(),
            time: zone::format_hm(interview.time),
            // What is no zone counts as UTC; an empty one would be asked for.
            timezone: Some(&interview.timezone).filter(|zone| !zone.is_empty()).map_or("UTC".into(), String::clone),
            duration_minutes: interview.minutes(settings).to_string(),
            interview_type: interview.kind().as_str().to_owned(),
            // The field has one line.
            location: interview.location.as_deref().unwrap_or_default().lines().collect::<Vec<_>>().join(" "),
            note: with_plain_ends(interview.note.as_deref().unwrap_or_default()),
            errors: Vec::new(),
        }
    }

    /// As somebody has typed them.
    pub fn typed(form: &Map<String, Value>) -> Fields {
        let [date, time, timezone, duration_minutes, interview_type, location, note] =
            NAMES.map(|name| text(form, name).to_owned());
        let errors = Vec::new();
        Fields { date, time, timezone, duration_minutes, interview_type, location, note, errors }
    }

    /// With the reason why they were refused: what is malformed in what was `sent`, or else the `refusal`.
    pub fn refused(self, sent: &Map<String, Value>, refusal: &Error) -> Fields {
        let errors: Vec<_> = model::malformed(sent).into_iter().map(|name| (name, advice(name).to_owned())).collect();
        let errors = if errors.is_empty() { vec![(field_of(refusal), sentence(refusal))] } else { errors };
        Fields { errors, ..self }
    }

    /// The same, with what is wrong with the whole form.
    pub fn wrong(self, why: &str) -> Fields {
        Fields { errors: vec![("", why.to_owned())], ..self }
    }

    /// In the order of [`NAMES`].
    fn values(&self) -> [&str; 7] {
        let Fields { date, time, timezone, duration_minutes, interview_type, location, note, .. } = self;
        [date, time, timezone, duration_minutes, interview_type, location, note]
    }

    /// Another for fields that say something else.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.values().join("\0")))
    }

    /// Whether a browser may insist on the usual bounds: Django's rows may lie outside.
    pub fn has_usual_duration(&self) -> bool {
        self.duration_minutes.parse().map_or(true, |minutes: i64| (5..=480).contains(&minutes))
    }

    /// What a form changes of what its page showed: the fields that differ.
    pub fn changes(&self, form: &Map<String, Value>) -> Map<String, Value> {
        let differs = |(name, shown): &(&str, &str)| form.contains_key(*name) && text(form, name) != *shown;
        let changed = NAMES.into_iter().zip(self.values()).filter(differs);
        changed.map(|(name, _)| (name.to_owned(), form[name].clone())).collect()
    }

    /// What is wrong with a field; of the whole form for the empty name.
    pub fn error(&self, field: &str) -> Option<&str> {
        self.errors.iter().find(|(wrong, _)| *wrong == field).map(|(_, why)| why.as_str())
    }

    /// What is wrong first.
    pub fn first_error(&self) -> Option<&str> {
        self.errors.first().map(|(_, why)| why.as_str())
    }

    /// The ways to meet: value, words, and whether it is chosen.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        use InterviewType::{Custom, GoogleMeet, InPerson, Phone};
        let choice = |kind: InterviewType| (kind.as_str(), kind.label(), self.interview_type == kind.as_str());
        [GoogleMeet, Phone, InPerson, Custom].map(choice).into_iter()
    }
}

/// What a form's time means and what to warn of, as a part of its page.
#[derive(Template)]
#[template(path = "portal/preview.html")]
pub struct Said {
    /// Such as `Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)`; empty when nothing can be said.
    line: String,
    /// By the reader's clock, when that shows another time.
    own: Option<String>,
    warnings: Vec<String>,
    error: Option<String>,
    /// The form was sent, and waits for its sender to have seen this.
    is_asking: bool,
}

impl Said {
    pub fn nothing() -> Said {
        Said { line: String::new(), own: None, warnings: Vec::new(), error: None, is_asking: false }
    }

    /// Why nothing can be said of fields.
    pub fn wrong(fields: &Fields) -> Said {
        Said { error: fields.first_error().map(str::to_owned), ..Said::nothing() }
    }

    pub fn of(preview: Preview, form: &Map<String, Value>) -> Said {
        let zone = Zone::parse(text(form, "reader_zone"));
        let zone = zone.filter(|zone| !preview.line.starts_with(&local_times::words(zone, preview.start)));
        let own = zone.map(|zone| zone.local(preview.start)).map(|local| {
            let is_same_day = local.date_naive() == preview.day;
            local.format(if is_same_day { "%H:%M" } else { "%a %-d %b, %H:%M" }).to_string()
        });
        Said { line: preview.line, own, warnings: preview.warnings, ..Said::nothing() }
    }

    /// What a form's sender is to see before anything is done: what they ask for, or warnings that they have not seen.
    pub fn shown_first(self, form: &Map<String, Value>) -> Option<Said> {
        match form.contains_key("check") {
            true => Some(self),
            false if self.warnings.is_empty() || text(form, "seen") == self.digest() => None,
            false => Some(Said { is_asking: true, ..self }),
        }
    }

    fn digest(&self) -> String {
        hex::encode(Sha256::digest(format!("{}\n{}", self.line, self.warnings.join("\n"))))
    }
}

/// What has come of a form.
pub enum Outcome {
    Done(Done),
    /// Nothing has been done: its sender is to see this first.
    Show(Said),
}

/// What to do about a malformed field.
fn advice(field: &str) -> &'static str {
    match field {
        "candidate_id" => "Please choose a person.",
        "date" => "Please enter a date, such as 2030-02-01.",
        "time" => "Please enter a time, such as 14:00.",
        "timezone" => "Please choose a time zone of the list, such as America/New_York.",
        "duration_minutes" => "Please enter a whole number from 5 to 480.",
        "interview_type" => "Please choose how you meet.",
        "location" => "Please use at most 255 characters.",
        _ => "Please use at most 5000 characters.",
    }
}

/// The field that a refusal of a well-formed form is about; empty for the whole form.
fn field_of(refusal: &Error) -> &'static str {
    match refusal {
        Error::Body(_, body) if body["needs_google_auth"] == true => "interview_type",
        Error::Refused { field: Some(field), .. } if *field == "candidate_id" || NAMES.contains(field) => field,
        _ => "",
    }
}

/// A refusal in the words of the API, for people.
pub fn sentence(refusal: &Error) -> String {
    match refusal {
        Error::Refused { status, error, field, .. } => match (*status, *field) {
            (StatusCode::SERVICE_UNAVAILABLE, Some("interview_type")) => "Google Meet is not set up on this server.",
            (StatusCode::NOT_FOUND, Some("candidate_id")) => "This person cannot be invited any more.",
            (_, Some("reason")) => "Please use at most 1000 characters.",
            (StatusCode::CONFLICT, Some(IdempotencyKey::NAME)) => {
                "This form is being worked on already. Look at your dashboard in a moment; if the interview is not \
                 there, send the form again."
            }
            (StatusCode::UNPROCESSABLE_ENTITY, Some(IdempotencyKey::NAME)) => {
                "An interview was scheduled with this form already; you find it on your dashboard. Send the form again \
                 to schedule another one."
            }
            _ => error,
        }
        .to_owned(),
        Error::Body(_, body) if body["needs_google_auth"] == true => {
            "Google Calendar is not connected. Connect it on your dashboard first, or choose another way to meet."
                .to_owned()
        }
        Error::Throttled { retry_after } => {
            let wait = match retry_after.div_ceil(60) {
                ..=1 => "a minute".to_owned(),
                minutes @ 2..=90 => format!("{minutes} minutes"),
                minutes => format!("{} hours", minutes.div_ceil(60)),
            };
            format!("{TOO_MANY} Please try again in {wait}.")
        }
        _ => "This did not work. Please check what you entered.".to_owned(),
    }
}

const TOO_MANY: &str = "Nothing was done, because too many mails would leave: this person has had many from you lately, \
                        or you have invited people to many interviews today.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(value: Value) -> Map<String, Value> {
        let Value::Object(form) = value else { panic!("an object") };
        form
    }

    #[test]
    fn every_malformed_field_has_its_own_words_and_what_was_typed_stays() {
        let note = "x".repeat(5001);
        let typed = form(json!({"candidate_id": "", "date": "", "time": "25:00", "timezone": "Mars", "location": "x",
            "duration_minutes": "4", "interview_type": "zoom", "note": note}));
        let fields = Fields::typed(&typed).refused(&typed, &Error::bad_request("whatever"));
        for name in ["candidate_id", "date", "time", "timezone", "duration_minutes", "interview_type", "note"] {
            assert_eq!(fields.error(name), Some(advice(name)), "{name}");
        }
        assert_eq!((fields.error("location"), fields.error("")), (None, None));
        assert_eq!((&*fields.time, &*fields.timezone, fields.note.len()), ("25:00", "Mars", 5001));
    }

    #[test]
    fn only_what_differs_is_changed() {
        let shown = Fields { note: "one\ntwo".to_owned(), date: "2030-01-15".to_owned(), ..Fields::default() };
        let same = form(json!({"note": "one\ntwo", "date": "2030-01-15", "form_token": "x"}));
        assert_eq!(shown.changes(&same), Map::new());
        let other = form(json!({"note": "one\ntwo\n", "date": "2030-01-15"}));
        assert_eq!(json!(shown.changes(&other)), json!({"note": "one\ntwo\n"}));
    }
}
