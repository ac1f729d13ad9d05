//! An interview as an iCalendar object (RFC 5545, scheduled by RFC 5546).
//!
//! Hides the text format. Promises: whatever the fields contain, the text has one VEVENT with exactly the lines below
//! in exactly that order, CRLF line ends, no line over 75 octets; instants are UTC, so no VTIMEZONE is needed.
//!
//! The icalendar crate writes the content lines without parameters: it escapes TEXT. Two things stand around it:
//! - in front, [`clean`]: the crate lets a bare CR through;
//! - behind, [`fold`] and the order of lines: the crate sorts the properties of a component by name, and its last
//!   folded line may have 76 octets.

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
        let given = |text: Option<&str>| text.map(one_line).filter(|text| !text.is_empty());
        let (title, link) = (one_line(self.job_title), given(self.meeting_link));
        let recruiter = self.recruiter.map_or("Unknown".to_owned(), |person| display_name(&person));
        let note = self.note.map(plain_lines).filter(|note| !note.is_empty());

        let mut about = vec![
            format!("Position: {title}"),
            format!("Candidate: {}", display_name(&self.candidate)),
            format!("Recruiter: {recruiter}"),
        ];
        about.extend(link.iter().map(|link| format!("Google Meet: {link}")));
        about.push(format!("Note: {}", note.as_deref().unwrap_or("No additional notes")));
        about.push(format!("Portal: {}", one_line(self.portal_link)));

        let instant = |at: DateTime<Utc>| at.format("%Y%m%dT%H%M%SZ").to_string();
        let status = if self.method == Method::Cancel { EventStatus::Cancelled } else { EventStatus::Confirmed };

        let mut lines = vec![
            "BEGIN:VCALENDAR".to_owned(),
            content("VERSION", "2.0"),
            content("PRODID", format!("-//{}//Interview Scheduler//EN", one_line(self.brand))),
            content("METHOD", self.method.name()),
            "BEGIN:VEVENT".to_owned(),
            content("UID", one_line(self.uid)),
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

/// A content line with a person: CN, then the other parameters, then the address.
fn person(name: &str, who: &Person, parameters: &str, email: &str) -> String {
    // A parameter cannot hold a quote, and calendars differ on `^` (escapes of RFC 6868) and on backslashes there.
    let bare = |text: &str| text.replace(['"', '^', '\\'], "");
    let cn = display_name(&Person { name: &bare(who.name), email: &bare(who.email) });
    // In quotes some parsers would do without: PyPI's icalendar drops the spaces around a bare `=`.
    let cn = if cn.contains([':', ';', ',', '=']) { format!("\"{cn}\"") } else { cn };
    format!("{name};CN={cn}{parameters}:{}", mailto(email))
}

/// The crate's text of a property as one unfolded line: a cleaned value holds no CR, so each CRLF is a fold or the end.
fn written(property: Property) -> String {
    let text: Result<String, _> = property.try_into();
    text.expect("writing to a String does not fail").replace("\r\n ", "").replace("\r\n", "")
}

/// A text as it may stand on one line, of a calendar, a mail or its header: see [`plain_lines`].
pub fn one_line(text: &str) -> String {
    clean(text, ' ')
}

/// A text of several lines, ended by `\n`: line breaks of every kind become one, other control characters go, the ends
/// are trimmed.
pub fn plain_lines(text: &str) -> String {
    clean(text, '\n')
}

/// The sanitiser. Line breaks of every kind (CRLF, CR, LF, vertical tab, form feed, NEL, the Unicode separators: some
/// parsers split at each of them) become `newline`; other control characters go; the ends are trimmed.
fn clean(text: &str, newline: char) -> String {
    let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    let text: String = text
        .replace("\r\n", "\n")
        .chars()
        .filter_map(|c| match c {
            c if breaks.contains(&c) => Some(newline),
            '\t' => Some(' '),
            c => (!c.is_control()).then_some(c),
        })
        .collect();
    text.trim().to_owned()
}

fn display_name(who: &Person) -> String {
    let name = one_line(who.name);
    if name.is_empty() { one_line(who.email) } else { name }
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

/// Folds a content line (RFC 5545, section 3.1): at most 75 octets, the space that begins a continuation included,
/// never inside a character; ends with CRLF.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    fn sample() -> Invitation<'static> {
        Invitation {
            brand: "UmEmployed",
            method: Method::Request,
            uid: "interview-456@umemployed.com",
            sequence: 0,
            dtstamp: utc("2026-11-20T21:46:15.989523Z"),
            start: utc("2030-01-15T19:00:00Z"),
            end: utc("2030-01-15T20:00:00Z"),
            job_title: "Software Engineer",
            candidate: Person { name: "Carl Candy", email: "carl@x.test" },
            recruiter: Some(Person { name: "Rita Recruit", email: "rita@x.test" }),
            organizer_email: None,
            meeting_link: Some("https://meet.google.com/abc-defg-hij"),
            location: None,
            kind_label: None,
            note: None,
            portal_link: "https://portal.x.test/interviews/456/join/",
        }
    }

    /// Checks what holds of every object, and returns its lines unfolded. Written against RFC 5545, not against the
    /// code above.
    fn unfolded(text: &str) -> Vec<String> {
        let raw: Vec<_> = text.strip_suffix("\r\n").expect("ends with CRLF").split("\r\n").collect();
        let mut lines: Vec<String> = Vec::new();
        for line in raw {
            assert!(line.len() <= 75, "{} octets: {line}", line.len());
            assert!(!line.is_empty() && !line.chars().any(char::is_control), "{line:?}");
            match line.strip_prefix(' ') {
                Some(rest) => lines.last_mut().expect("a line to continue").push_str(rest),
                None => lines.push(line.to_owned()),
            }
        }
        lines
    }

    /// A content line's name, parameters and value: `:` and `;` inside quotes belong to a parameter.
    fn parsed(line: &str) -> (&str, Vec<(&str, &str)>, &str) {
        let mut quoted = false;
        let ends = |c: char| {
            quoted ^= c == '"';
            c == ':' && !quoted
        };
        let (head, value) = line.split_once(ends).unwrap_or_else(|| panic!("no value: {line}"));
        let mut quoted = false;
        let ends = |c: char| {
            quoted ^= c == '"';
            c == ';' && !quoted
        };
        let mut parts = head.split(ends);
        let name = parts.next().expect("a name");
        let parameters = parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap_or_else(|| panic!("no parameter: {line}"));
            let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            assert!(!bare.contains('"') && (bare.len() < value.len() || !bare.contains([',', ';', ':'])), "{line}");
            (name, bare)
        });
        (name, parameters.collect(), value)
    }

    fn unescaped(text: &str) -> String {
        let (mut plain, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            plain.push(match c {
                '\\' => match chars.next().expect("an escaped character") {
                    'n' => '\n',
                    c @ ('\\' | ',' | ';') => c,
                    c => panic!("\\{c} is no escape: {text}"),
                },
                ',' | ';' => panic!("{c} is not escaped: {text}"),
                c => c,
            });
        }
        plain
    }

    fn value_of(text: &str, name: &str) -> Option<String> {
        unfolded(text).iter().map(|line| parsed(line)).find(|line| line.0 == name).map(|line| line.2.to_owned())
    }

    #[test]
    fn an_invitation_has_the_lines_of_the_contract_in_their_order() {
        insta::assert_snapshot!(unfolded(&sample().render()).join("\n"), @r"
        BEGIN:VCALENDAR
        VERSION:2.0
        PRODID:-//UmEmployed//Interview Scheduler//EN
        METHOD:REQUEST
        BEGIN:VEVENT
        UID:interview-456@umemployed.com
        SEQUENCE:0
        DTSTAMP:20261120T214615Z
        DTSTART:20300115T190000Z
        DTEND:20300115T200000Z
        SUMMARY:Interview: Software Engineer
        DESCRIPTION:Position: Software Engineer\nCandidate: Carl Candy\nRecruiter: Rita Recruit\nGoogle Meet: https://meet.google.com/abc-defg-hij\nNote: No additional notes\nPortal: https://portal.x.test/interviews/456/join/
        LOCATION:https://meet.google.com/abc-defg-hij
        STATUS:CONFIRMED
        ORGANIZER;CN=Rita Recruit:mailto:rita@x.test
        ATTENDEE;CN=Carl Candy;ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:carl@x.test
        ATTENDEE;CN=Rita Recruit;ROLE=REQ-PARTICIPANT;PARTSTAT=ACCEPTED:mailto:rita@x.test
        END:VEVENT
        END:VCALENDAR
        ");
    }

    #[test]
    fn a_note_stands_in_the_description_with_its_line_breaks() {
        let text = Invitation { note: Some(" Bring:\r\na CV, a pen; \\o/\rand\nyou "), ..sample() }.render();
        let description = value_of(&text, "DESCRIPTION").expect("a description");
        assert!(description.contains(r"\nNote: Bring:\na CV\, a pen\; \\o/\nand\nyou\nPortal: "), "{description}");
        let blank = Invitation { note: Some(" \r\n "), ..sample() }.render();
        assert!(value_of(&blank, "DESCRIPTION").expect("a description").contains(r"\nNote: No additional notes\n"));
    }

    #[test]
    fn a_cancellation_says_so_with_the_same_uid_and_a_raised_sequence() {
        let text = Invitation { method: Method::Cancel, sequence: 2, ..sample() }.render();
        for (name, value) in
            [("METHOD", "CANCEL"), ("STATUS", "CANCELLED"), ("SEQUENCE", "2"), ("UID", "interview-456@umemployed.com")]
        {
            assert_eq!(value_of(&text, name).as_deref(), Some(value));
        }
        let published = Invitation { method: Method::Publish, ..sample() }.render();
        assert_eq!(value_of(&published, "METHOD").as_deref(), Some("PUBLISH"));
        assert_eq!(value_of(&published, "STATUS").as_deref(), Some("CONFIRMED"));
    }

    #[test]
    fn the_location_is_the_link_else_the_location_else_the_kind_else_absent() {
        let link = Some("https://meet.google.com/abc-defg-hij");
        for (meeting_link, location, kind_label, expected) in [
            (link, Some("Room 1"), Some("In person"), link),
            (None, Some("+44 20 7946 0000"), Some("Phone"), Some("+44 20 7946 0000")),
            (Some(""), Some(" "), Some("Phone"), Some("Phone")),
            (None, None, Some("In person"), Some("In person")),
            (None, None, None, None),
        ] {
            let text = Invitation { meeting_link, location, kind_label, ..sample() }.render();
            assert_eq!(value_of(&text, "LOCATION").as_deref(), expected);
            let description = value_of(&text, "DESCRIPTION").expect("a description");
            assert_eq!(description.contains("Google Meet: "), meeting_link == link, "{description}");
        }
    }

    #[test]
    fn without_a_recruiter_there_is_no_organizer_and_one_attendee() {
        let text = Invitation { recruiter: None, method: Method::Publish, ..sample() }.render();
        assert_eq!(value_of(&text, "ORGANIZER"), None);
        assert_eq!(text.matches("\r\nATTENDEE").count(), 1);
        assert!(value_of(&text, "DESCRIPTION").expect("a description").contains(r"\nRecruiter: Unknown\n"));
    }

    #[test]
    fn the_organizer_is_the_calendars_address_with_the_recruiters_name() {
        let lines = unfolded(&Invitation { organizer_email: Some("cal@group.x.test"), ..sample() }.render());
        assert!(lines.contains(&"ORGANIZER;CN=Rita Recruit:mailto:cal@group.x.test".to_owned()), "{lines:#?}");
        let blank = unfolded(&Invitation { organizer_email: Some(""), ..sample() }.render());
        assert!(blank.contains(&"ORGANIZER;CN=Rita Recruit:mailto:rita@x.test".to_owned()), "{blank:#?}");
    }

    #[test]
    fn a_name_with_separators_is_quoted_and_loses_its_quotes() {
        for (name, parameter) in [
            ("Candy, Carl", r#"CN="Candy, Carl""#),
            ("Carl; Candy", r#"CN="Carl; Candy""#),
            ("Dr: Candy", r#"CN="Dr: Candy""#),
            (r#"Carl "CC" Candy"#, "CN=Carl CC Candy"),
            (r#""Carl":evil@x.test"#, r#"CN="Carl:evil@x.test""#),
            ("Carl^nCandy", "CN=CarlnCandy"),
            (r"Carl\, Candy\", r#"CN="Carl, Candy""#),
            ("Carl\r\nATTENDEE:mailto:evil@x.test", r#"CN="Carl ATTENDEE:mailto:evil@x.test""#),
            ("Zoë 🎉", "CN=Zoë 🎉"),
            (" ", "CN=carl@x.test"),
            (r#""""#, "CN=carl@x.test"),
        ] {
            let lines = unfolded(&Invitation { candidate: Person { name, email: "carl@x.test" }, ..sample() }.render());
            let line =
                format!("ATTENDEE;{parameter};ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:carl@x.test");
            assert!(lines.contains(&line), "{line}\n{lines:#?}");
        }
    }

    #[test]
    fn an_address_is_a_uri_and_nothing_more() {
        for (email, uri) in [
            ("o'neil+jobs@x.test", "mailto:o'neil+jobs@x.test"),
            ("a?subject=x&y#z@x.test", "mailto:a%3Fsubject%3Dx%26y%23z@x.test"),
            ("100%@x.test", "mailto:100%25@x.test"),
            ("zoë@x.test", "mailto:zo%C3%AB@x.test"),
            (" a@x.test\r\nATTACH:evil", "mailto:a@x.testATTACH:evil"),
            ("\"a;b\"@x.test", "mailto:%22a%3Bb%22@x.test"),
        ] {
            assert_eq!(mailto(email), uri);
        }
    }

    #[test]
    fn a_long_line_is_folded_at_75_octets_and_not_inside_a_character() {
        for (text, lines) in [("a".repeat(75), 1), ("a".repeat(76), 2), ("a".repeat(149), 2), ("a".repeat(150), 3)] {
            let folded = fold(&text);
            assert_eq!(folded.matches("\r\n").count(), lines, "{}", text.len());
            assert_eq!(unfolded(&folded), [text]);
        }
        assert_eq!(fold(&format!("{}é", "a".repeat(74))), format!("{}\r\n é\r\n", "a".repeat(74)));
    }

    /// Text with whatever could break out of a line, a parameter or a character.
    fn hostile() -> impl Strategy<Value = String> {
        let fragments = [
            "\r\n",
            "\n",
            "\r",
            "\r\n ",
            "\u{85}",
            "\u{2028}",
            "\u{b}",
            "\0",
            "\u{7f}",
            "\t",
            "  ",
            "\"",
            ";",
            ",",
            ":",
            "\\",
            "\\n",
            "^n",
            "^'",
            "=",
            "%0D%0A",
            "é",
            "漢",
            "🎉",
            "\u{202e}",
            "<b>&amp;</b>",
            "\r\nATTACH:http://e.test",
            "\nEND:VEVENT\nBEGIN:VEVENT",
            "\rBEGIN:VALARM",
            ";CN=x:mailto:evil@x.test",
            "\nTZID=X",
            "abcdefghijklmnop",
        ];
        prop_oneof![
            any::<String>(),
            prop::collection::vec(
                prop_oneof![prop::sample::select(fragments.to_vec()).prop_map(str::to_owned), any::<String>()],
                0..30
            )
            .prop_map(|parts| parts.concat()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_changes_the_lines_of_an_object(
            texts in prop::collection::vec(hostile(), 13), method in 0..3usize, present in any::<[bool; 6]>(),
            sequence in 0..i32::MAX, start in 0..253_402_000_000i64,
        ) {
            let some = |n: usize| present[n].then_some(texts[n].as_str());
            let start = DateTime::from_timestamp(start, 0).expect("in range");
            let invitation = Invitation {
                brand: &texts[6],
                method: [Method::Request, Method::Publish, Method::Cancel][method],
                uid: &texts[7],
                sequence,
                dtstamp: start,
                start,
                end: start,
                job_title: &texts[8],
                candidate: Person { name: &texts[9], email: &texts[10] },
                recruiter: some(0).map(|name| Person { name, email: &texts[11] }),
                organizer_email: some(1),
                meeting_link: some(2),
                location: some(3),
                kind_label: some(4),
                note: some(5),
                portal_link: &texts[12],
            };
            let text = invitation.render();
            let lines = unfolded(&text);
            let lines: Vec<_> = lines.iter().map(|line| parsed(line)).collect();

            let names: Vec<_> = lines.iter().map(|line| line.0).collect();
            let mut expected = vec![
                "BEGIN", "VERSION", "PRODID", "METHOD", "BEGIN", "UID", "SEQUENCE", "DTSTAMP", "DTSTART", "DTEND",
                "SUMMARY", "DESCRIPTION",
            ];
            expected.extend(names.contains(&"LOCATION").then_some("LOCATION"));
            expected.push("STATUS");
            expected.extend(present[0].then_some("ORGANIZER"));
            expected.push("ATTENDEE");
            expected.extend(present[0].then_some("ATTENDEE"));
            expected.extend(["END", "END"]);
            prop_assert_eq!(names, expected);

            for (name, parameters, value) in lines {
                let named: Vec<_> = parameters.iter().map(|parameter| parameter.0).collect();
                match name {
                    "ORGANIZER" => prop_assert_eq!(named, ["CN"]),
                    "ATTENDEE" => prop_assert_eq!(&named[..3], ["CN", "ROLE", "PARTSTAT"]),
                    _ => prop_assert!(named.is_empty()),
                }
                match name {
                    "ORGANIZER" | "ATTENDEE" => prop_assert!(value.starts_with("mailto:") && value.is_ascii()),
                    "SUMMARY" => prop_assert!(!unescaped(value).contains('\n')),
                    "PRODID" | "UID" | "DESCRIPTION" | "LOCATION" => _ = unescaped(value),
                    _ => {}
                }
            }
        }
    }
}
