//! The fields of an interview in a form, with what was typed and what is wrong with it.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::{
    config::Settings,
    http::{Error, extract::IdempotencyKey},
    interview::{
        Interview,
        model::{self, InterviewType},
    },
    zone,
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
            // The page's script puts the browser's own there.
            timezone: "UTC".to_owned(),
            ..Fields::default()
        }
    }

    /// As an interview is.
    pub fn of(interview: &Interview, settings: &Settings) -> Fields {
        Fields {
            date: interview.date.to_string(),
            time: zone::format_hm(interview.time),
            timezone: interview.timezone.clone(),
            duration_minutes: interview.minutes(settings).to_string(),
            interview_type: interview.kind().as_str().to_owned(),
            location: interview.location.clone().unwrap_or_default(),
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

    /// What a form changes of what its page showed: the fields that differ.
    pub fn changes(&self, form: &Map<String, Value>) -> Map<String, Value> {
        let shown = [
            &self.date,
            &self.time,
            &self.timezone,
            &self.duration_minutes,
            &self.interview_type,
            &self.location,
            &self.note,
        ];
        let differs = |(name, shown): &(&str, &String)| form.contains_key(*name) && text(form, name) != shown.as_str();
        let changed = NAMES.into_iter().zip(shown).filter(differs);
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

/// The text of a form's field; empty without one.
pub fn text<'a>(form: &'a Map<String, Value>, name: &str) -> &'a str {
    form.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A form as it was typed: browsers send the ends of lines as CR LF.
pub fn as_typed(mut form: Map<String, Value>) -> Map<String, Value> {
    for name in ["note", "reason"] {
        if let Some(Value::String(text)) = form.get_mut(name) {
            *text = with_plain_ends(text);
        }
    }
    form
}

fn with_plain_ends(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
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
                "The interview is being scheduled at this moment. It is on your dashboard in a few seconds."
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
        _ => "This did not work. Please check what you entered.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(value: Value) -> Map<String, Value> {
        let Value::Object(form) = value else { panic!("an object") };
        as_typed(form)
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
    fn lines_end_as_they_were_typed_and_only_what_differs_is_changed() {
        let shown = Fields { note: "one\ntwo".to_owned(), date: "2030-01-15".to_owned(), ..Fields::default() };
        let same = form(json!({"note": "one\r\ntwo", "date": "2030-01-15", "form_token": "x"}));
        assert_eq!(shown.changes(&same), Map::new());
        let other = form(json!({"note": "one\r\ntwo\r\n", "date": "2030-01-15"}));
        assert_eq!(json!(shown.changes(&other)), json!({"note": "one\ntwo\n"}));
    }
}
