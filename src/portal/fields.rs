//! The fields of an interview in a form, with what was typed and what is wrong with it.

use serde_json::{Map, Value};

use crate::{config::Settings, http::Error, interview::Interview, zone};

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
    /// The field that is wrong, empty for the whole form, and why.
    pub error: Option<(&'static str, String)>,
}

impl Fields {
    /// As an interview is.
    pub fn of(interview: &Interview, settings: &Settings) -> Fields {
        Fields {
            date: interview.date.to_string(),
            time: zone::format_hm(interview.time),
            timezone: interview.timezone.clone(),
            duration_minutes: interview.minutes(settings).to_string(),
            interview_type: interview.kind().as_str().to_owned(),
            location: interview.location.clone().unwrap_or_default(),
            note: interview.note.clone().unwrap_or_default(),
            error: None,
        }
    }

    /// As somebody has typed them.
    pub fn typed(form: &Map<String, Value>) -> Fields {
        let field = |name: &str| form.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Fields {
            date: field("date"),
            time: field("time"),
            timezone: field("timezone"),
            duration_minutes: field("duration_minutes"),
            interview_type: field("interview_type"),
            location: field("location"),
            note: field("note"),
            error: None,
        }
    }

    /// As they were refused.
    pub fn refused(form: &Map<String, Value>, refusal: &Error) -> Fields {
        let said = sentence(refusal);
        let field = [
            ("Invalid date", "date"),
            ("Invalid timezone", "timezone"),
            ("Invalid time", "time"),
            ("Invalid duration", "duration_minutes"),
            ("Invalid location", "location"),
            ("Note is too long", "note"),
            ("Invalid note", "note"),
            ("Invalid interview_type", "interview_type"),
        ];
        let field = field.into_iter().find(|(beginning, _)| said.starts_with(beginning)).map_or("", |(_, field)| field);
        Fields { error: Some((field, said)), ..Fields::typed(form) }
    }

    /// What is wrong with a field; of the whole form for the empty name.
    pub fn error(&self, field: &str) -> Option<&str> {
        self.error.as_ref().filter(|(wrong, _)| *wrong == field).map(|(_, why)| why.as_str())
    }
}

/// A refusal in the words of the API, for people.
pub fn sentence(refusal: &Error) -> String {
    match refusal {
        Error::Refused { error, .. } => error.to_string(),
        Error::Body(_, body) if body["needs_google_auth"] == true => {
            "Google Calendar is not connected. Connect it on the dashboard first.".to_owned()
        }
        _ => "This did not work. Please check what you entered.".to_owned(),
    }
}
