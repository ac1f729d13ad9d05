//! An interview as an iCalendar object (RFC 5545, scheduled by RFC 5546).
//!
//! Hides the text format. Promises: whatever the fields contain, the text has one VEVENT with exactly the lines below in
//! exactly that order, CRLF line ends, no line over 75 octets; instants are UTC, so no VTIMEZONE is needed.
//!
//! The icalendar crate writes each content line: it escapes TEXT and quotes parameters. Two things stand around it:
//! - in front, [`clean`]: the crate lets CR, LF and `"` through in parameters and addresses, and a bare CR in TEXT;
//! - behind, [`fold`] and the order of lines: the crate sorts the properties of a component and the parameters of a
//!   property by name, and its last folded line may have 76 octets.

use chrono::{DateTime, Utc};
use icalendar::{EventStatus, Property};

/// What the object asks of the receiving calendar (RFC 5546, section 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Request,
    Publish,
    Cancel,
}

impl Method {
    /// `REQUEST`, `PUBLISH` or `CANCEL`: also the `method` parameter of the MIME type.
    pub fn name(self) -> &'static str {
        match self {
            Method::Request => "REQUEST",
            Method::Publish => "PUBLISH",
            Method::Cancel => "CANCEL",
        }
    }
}

/// A person as calendars show one.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// Full name, else the e-mail.
    pub name: &'a str,
    pub email: &'a str,
}

/// Everything a calendar is told about an interview. Texts are taken as they are stored; blank optional ones count as
/// absent.
#[derive(Clone, Debug)]
pub struct Invitation<'a> {
    /// `BRAND_NAME`, for PRODID.
    pub brand: &'a str,
    pub method: Method,
    pub uid: &'a str,
    pub sequence: i32,
    /// When this object was made.
    pub dtstamp: DateTime<Utc>,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub job_title: &'a str,
    pub candidate: Person<'a>,
    /// Old rows have none: then there is no ORGANIZER and one ATTENDEE.
    pub recruiter: Option<Person<'a>>,
    /// The address of ORGANIZER where it is not the recruiter's own (Google's organizer).
    pub organizer_email: Option<&'a str>,
    pub meeting_link: Option<&'a str>,
    pub location: Option<&'a str>,
    /// LOCATION when there is neither a link nor a location: `Phone`, `In person`.
    pub kind_label: Option<&'a str>,
    pub note: Option<&'a str>,
    /// Without a token: calendar entries are shared.
    pub portal_link: &'a str,
}

/// The UID of an interview whose calendar event has none of its own.
pub fn own_uid(interview_id: i64) -> String {
    format!("interview-{interview_id}@umemployed.com")
}

impl Invitation<'_> {
    /// The whole object as text, for a mail part, an attachment or a download.
    pub fn render(&self) -> String {
        let given = |text: Option<&str>| text.map(line_of).filter(|text| !text.is_empty());
        let (title, link) = (line_of(self.job_title), given(self.meeting_link));
        let recruiter = self.recruiter.map_or("Unknown".to_owned(), |person| display_name(&person));
        let note = self.note.map(|note| clean(note, Some('\n'))).filter(|note| !note.is_empty());

        let mut about = vec![
            format!("Position: {title}"),
            format!("Candidate: {}", display_name(&self.candidate)),
            format!("Recruiter: {recruiter}"),
        ];
        about.extend(link.iter().map(|link| format!("Google Meet: {link}")));
        about.push(format!("Note: {}", note.as_deref().unwrap_or("No additional notes")));
        about.push(format!("Portal: {}", line_of(self.portal_link)));

        let instant = |at: DateTime<Utc>| at.format("%Y%m%dT%H%M%SZ").to_string();
        let status = if self.method == Method::Cancel { EventStatus::Cancelled } else { EventStatus::Confirmed };

        let mut lines = vec![
            "BEGIN:VCALENDAR".to_owned(),
            content("VERSION", "2.0"),
            content("PRODID", format!("-//{}//Interview Scheduler//EN", line_of(self.brand))),
            content("METHOD", self.method.name()),
            "BEGIN:VEVENT".to_owned(),
            content("UID", line_of(self.uid)),
            content("SEQUENCE", self.sequence.to_string()),
            content("DTSTAMP", instant(self.dtstamp)),
            content("DTSTART", instant(self.start)),
            content("DTEND", instant(self.end)),
            content("SUMMARY", format!("Interview: {title}")),
            content("DESCRIPTION", about.join("\n")),
        ];
        let place = link.or_else(|| given(self.location)).or_else(|| given(self.kind_label));
        lines.extend(place.map(|place| content("LOCATION", place)));
        lines.push(written(status.into()));
        if let Some(recruiter) = &self.recruiter {
            let email = self.organizer_email.filter(|email| !email.trim().is_empty()).unwrap_or(recruiter.email);
            lines.push(person("ORGANIZER", recruiter, "", email));
        }
        let parameters = ";ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE";
        lines.push(person("ATTENDEE", &self.candidate, parameters, self.candidate.email));
        if let Some(recruiter) = &self.recruiter {
            lines.push(person("ATTENDEE", recruiter, ";ROLE=REQ-PARTICIPANT;PARTSTAT=ACCEPTED", recruiter.email));
        }
        lines.extend(["END:VEVENT", "END:VCALENDAR"].map(str::to_owned));
        lines.iter().map(|line| fold(line)).collect()
    }
}

/// A content line without parameters.
fn content(name: &str, value: impl Into<String>) -> String {
    written(Property::new(name, value))
}

/// A content line with a person: the crate's CN, then the other parameters in our order, then the address.
fn person(name: &str, who: &Person, parameters: &str, email: &str) -> String {
    // A parameter has no escape for a quote; `^` starts an escape of RFC 6868, which not every calendar undoes.
    let cn = display_name(who).replace(['"', '^'], "");
    let line = written(Property::new(name, "").add_parameter("CN", &cn).done());
    format!("{}{parameters}:{}", line.strip_suffix(':').unwrap_or(&line), mailto(email))
}

/// The crate's text of a property as one unfolded line: a cleaned value holds no CR, so each CRLF is a fold or the end.
fn written(property: Property) -> String {
    let text: Result<String, _> = property.try_into();
    text.expect("writing to a String does not fail").replace("\r\n ", "").replace("\r\n", "")
}

/// The sanitiser. Line breaks of every kind (CRLF, CR, LF, vertical tab, form feed, NEL, the Unicode separators: some
/// parsers split at each of them) become `newline`, or a space; other control characters go; the ends are trimmed.
fn clean(text: &str, newline: Option<char>) -> String {
    let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    let text: String = text
        .replace("\r\n", "\n")
        .chars()
        .filter_map(|c| match c {
            c if breaks.contains(&c) => Some(newline.unwrap_or(' ')),
            '\t' => Some(' '),
            c => (!c.is_control()).then_some(c),
        })
        .collect();
    text.trim().to_owned()
}

/// [`clean`] for a text of one line.
fn line_of(text: &str) -> String {
    clean(text, None)
}

fn display_name(who: &Person) -> String {
    let name = line_of(who.name);
    if name.is_empty() { line_of(who.email) } else { name }
}

/// A `mailto:` URI (RFC 6068, section 2): bytes that may not stand in its address are percent-encoded, white space and
/// control characters are dropped.
fn mailto(email: &str) -> String {
    let email: String = email.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
    let encoded = email.bytes().map(|byte| match byte {
        b if b.is_ascii_alphanumeric() || b"-._~!$'()*+,:@".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    });
    format!("mailto:{}", encoded.collect::<String>())
}

/// Folds a content line (RFC 5545, section 3.1): at most 75 octets, the space that begins a continuation included, never
/// inside a character; ends with CRLF.
fn fold(line: &str) -> String {
    let (mut folded, mut octets) = (String::with_capacity(line.len() + line.len() / 20 + 2), 0);
    for c in line.chars() {
        if octets + c.len_utf8() > 75 {
            folded.push_str("\r\n ");
            octets = 1;
        }
        folded.push(c);
        octets += c.len_utf8();
    }
    folded + "\r\n"
}
