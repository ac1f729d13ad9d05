//! Our calendar objects as two parsers that are not ours read them.

#[path = "python/parsers.rs"]
mod parsers;
mod python;

use interviews::{
    icalendar::{Invitation, Method, Person},
    zone::{Zone, parse_date, parse_time},
};
use parsers::Sample;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::json;

/// A text as given, and as it should be understood.
#[derive(Clone, Debug)]
struct Text {
    given: String,
    meant: String,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text { given: text.to_owned(), meant: text.to_owned() }
    }
}

/// A wall time such as `2030-01-15 14:00 America/New_York`, the instant it must become, and some texts.
struct Case {
    wall: &'static str,
    start: &'static str,
    end: &'static str,
    method: Method,
    title: Text,
    candidate: Text,
    recruiter: Option<Text>,
    note: Option<Text>,
    location: Option<Text>,
}

fn plain() -> Case {
    Case {
        wall: "2030-01-15 14:00 America/New_York",
        start: "2030-01-15T19:00:00Z",
        end: "2030-01-15T20:00:00Z",
        method: Method::Request,
        title: "Software Engineer".into(),
        candidate: "Carl Candy".into(),
        recruiter: Some("Rita Recruit".into()),
        note: None,
        location: None,
    }
}

impl Case {
    fn sample(&self, number: i32) -> Sample {
        let [date, time, zone] = self.wall.split(' ').collect::<Vec<_>>().try_into().expect("date, time, zone");
        let (date, time) = (parse_date(date).expect("a date"), parse_time(time).expect("a time"));
        let start = Zone::parse(zone).expect("a zone").instant(date, time).expect("in range").at;
        let link = self.location.is_none().then_some("https://meet.google.com/abc-defg-hij");
        let invitation = Invitation {
            brand: "UmEmployed",
            method: self.method,
            uid: "interview-456@umemployed.com",
            sequence: number,
            dtstamp: start,
            start,
            end: start + chrono::TimeDelta::hours(1),
            job_title: &self.title.given,
            candidate: Person { name: &self.candidate.given, email: "carl@x.test" },
            recruiter: self.recruiter.as_ref().map(|name| Person { name: &name.given, email: "rita+jobs@x.test" }),
            organizer_email: self.recruiter.as_ref().map(|_| "cal@group.x.test"),
            meeting_link: link,
            location: self.location.as_ref().map(|text| text.given.as_str()),
            kind_label: Some("In person"),
            note: self.note.as_ref().map(|text| text.given.as_str()),
            portal_link: "https://portal.x.test/interviews/456/join/",
        };

        let (title, candidate) = (&self.title.meant, &self.candidate.meant);
        let recruiter = self.recruiter.as_ref().map_or("Unknown", |name| &name.meant);
        let note = self.note.as_ref().map_or("No additional notes", |note| &note.meant);
        let meet = link.map(|link| format!("Google Meet: {link}\n")).unwrap_or_default();
        // Parameters have no way to write these characters that every calendar understands.
        let cn = |name: &str| name.replace(['"', '^', '\\'], "");
        let mut attendees = vec![json!([cn(candidate), "mailto:carl@x.test"])];
        attendees.extend(self.recruiter.as_ref().map(|_| json!([cn(recruiter), "mailto:rita+jobs@x.test"])));
        let mut properties = vec![
            "ATTENDEE",
            "DESCRIPTION",
            "DTEND",
            "DTSTAMP",
            "DTSTART",
            "LOCATION",
            "SEQUENCE",
            "STATUS",
            "SUMMARY",
            "UID",
        ];
        properties.extend(self.recruiter.as_ref().map_or(vec![], |_| vec!["ATTENDEE", "ORGANIZER"]));
        properties.sort_unstable();
        let ics = invitation.render();
        assert!(ics.split_inclusive("\r\n").all(|line| line.len() <= 75 + 2 && line.ends_with("\r\n")), "{ics:?}");
        Sample {
            ics,
            meant: json!({
                "method": self.method.name(),
                "uid": "interview-456@umemployed.com",
                "sequence": number,
                "start": self.start,
                "end": self.end,
                "summary": format!("Interview: {title}"),
                "description": format!(
                    "Position: {title}\nCandidate: {candidate}\nRecruiter: {recruiter}\n{meet}Note: {note}\n\
                     Portal: https://portal.x.test/interviews/456/join/"
                ),
                "location": link.or(self.location.as_ref().map(|text| text.meant.as_str())),
                "status": if self.method == Method::Cancel { "CANCELLED" } else { "CONFIRMED" },
                "organizer": self.recruiter.as_ref().map(|_| json!([cn(recruiter), "mailto:cal@group.x.test"])),
                "attendees": attendees,
                "properties": properties,
            }),
        }
    }
}

/// Wall times in summer, winter, a gap, an overlap, and zones whose rules changed in 2026.
fn walls() -> Vec<Case> {
    [
        ("2030-01-15 14:00 America/New_York", "2030-01-15T19:00:00Z", "2030-01-15T20:00:00Z"),
        ("2030-07-15 14:00 America/New_York", "2030-07-15T18:00:00Z", "2030-07-15T19:00:00Z"),
        ("2030-01-16 09:30 Asia/Tokyo", "2030-01-16T00:30:00Z", "2030-01-16T01:30:00Z"),
        ("2030-01-16 09:30 Asia/Kolkata", "2030-01-16T04:00:00Z", "2030-01-16T05:00:00Z"),
        ("2027-03-14 02:30 America/New_York", "2027-03-14T07:30:00Z", "2027-03-14T08:30:00Z"),
        ("2027-11-07 01:30 America/New_York", "2027-11-07T05:30:00Z", "2027-11-07T06:30:00Z"),
        ("2026-12-01 09:00 America/Vancouver", "2026-12-01T16:00:00Z", "2026-12-01T17:00:00Z"),
        ("2026-12-01 09:00 America/Edmonton", "2026-12-01T15:00:00Z", "2026-12-01T16:00:00Z"),
        ("2026-12-01 09:00 Africa/Casablanca", "2026-12-01T09:00:00Z", "2026-12-01T10:00:00Z"),
    ]
    .map(|(wall, start, end)| Case { wall, start, end, ..plain() })
    .into()
}

fn kinds() -> Vec<Case> {
    vec![
        Case { method: Method::Cancel, ..plain() },
        Case { method: Method::Publish, ..plain() },
        Case { method: Method::Publish, recruiter: None, ..plain() },
        Case { method: Method::Cancel, recruiter: None, location: Some("Room 1".into()), ..plain() },
        Case { location: Some("12, Main Street; 2nd floor".into()), ..plain() },
        Case { note: Some("Bring: a CV, a pen;\nand time".into()), ..plain() },
        Case { title: "漢字 🎉 ".repeat(30).trim().into(), candidate: "Zoë Ångström-Ñandú".into(), ..plain() },
    ]
}

/// Texts that try to leave their line: fragments whose understood form is known, joined by words.
fn hostile(newline: &'static str) -> impl Strategy<Value = Text> {
    let breaks = [
        ("\r\nATTACH:https://e.test", "ATTACH:https://e.test"),
        ("\nEND:VEVENT", "END:VEVENT"),
        ("\rBEGIN:VALARM", "BEGIN:VALARM"),
        ("\u{2028}X-EVIL:1", "X-EVIL:1"),
        ("\u{85}X-EVIL:2", "X-EVIL:2"),
        ("\u{b}X-EVIL:3", "X-EVIL:3"),
    ];
    let dropped = [("\0", ""), ("\u{1c}", ""), ("\u{7f}", ""), ("\t", " ")];
    let kept = [
        ";CN=x:mailto:evil@x.test",
        "a, b; c: d = e",
        "\"quoted\"",
        "'",
        "\\",
        "\\n",
        "\\,",
        "^n^'^^",
        "%0D%0A",
        "<b>&amp;",
        "\u{202e}",
        "é漢🎉",
        "two  spaces",
    ];
    let fragments: Vec<(&str, String)> = breaks
        .map(|(given, rest)| (given, format!("{newline}{rest}")))
        .into_iter()
        .chain(dropped.map(|(given, meant)| (given, meant.to_owned())))
        .chain(kept.map(|text| (text, text.to_owned())))
        .collect();
    let words = prop::sample::select(vec!["Software", "x", "Engineering and a long word after it", "漢"]);
    prop::collection::vec((words, prop::sample::select(fragments)), 1..8).prop_map(|parts| Text {
        given: parts.iter().map(|(word, (given, _))| format!("{word}{given}")).collect::<String>() + "end",
        meant: parts.iter().map(|(word, (_, meant))| format!("{word}{meant}")).collect::<String>() + "end",
    })
}

/// Any characters at all, with those that mean something to parsers more often than by chance, and what is left of
/// them: written by the words of contract §8.3, not by the program's own sanitiser.
fn arbitrary(newline: &'static str, most: usize) -> impl Strategy<Value = Text> {
    let special = "\r\n\u{b}\u{c}\u{85}\u{2028}\u{2029}\t\0\u{1b}\u{7f}\u{9f}\"':;,=\\^%\u{301}\u{20dd}\u{200d}\u{feff}\u{202e}\u{a0}é漢🎉ｱ ";
    let piece = prop_oneof![
        4 => prop::sample::select(special.chars().map(String::from).collect::<Vec<_>>()),
        3 => any::<char>().prop_map(String::from),
        2 => "[ -~]{1,30}",
        1 => prop::sample::select(vec![
            "\r\nBEGIN:VEVENT\r\nEND:VEVENT", "\r\n ATTACH:x", "\nEND:VCALENDAR\n", "\\n\\,\\;\\\\", ";CN=\"x\":mailto:e@x.test", "e\u{301}\u{308}",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..most).prop_map(move |pieces| {
        // Something to see at both ends: what is blank counts as absent.
        let given: String =
            format!("a{}z", pieces.concat()).chars().take(255).collect::<String>().trim_end().to_owned() + "z";
        let is_break = |c| "\n\r\u{b}\u{c}\u{85}\u{2028}\u{2029}".contains(c);
        let meant = given.replace("\r\n", "\n").replace(is_break, newline).replace('\t', " ");
        let meant = meant.chars().filter(|c| newline.contains(*c) || !c.is_control()).collect();
        Text { given, meant }
    })
}

#[test]
fn two_other_parsers_read_400_objects_of_any_characters() {
    let mut runner = TestRunner::deterministic();
    let mut draw = |newline, most| arbitrary(newline, most).new_tree(&mut runner).expect("a text").current();
    let samples: Vec<Sample> = (0..400)
        .map(|number| {
            let case = Case {
                title: draw(" ", 80),
                candidate: draw(" ", 20),
                recruiter: (number % 3 != 0).then(|| draw(" ", 20)),
                note: Some(draw("\n", 80)),
                location: (number % 2 == 0).then(|| draw(" ", 60)),
                method: [Method::Request, Method::Publish, Method::Cancel][number as usize % 3],
                ..plain()
            };
            case.sample(number)
        })
        .collect();
    parsers::assert_read_as_meant(&samples);
}

#[test]
fn two_other_parsers_read_what_we_meant() {
    // Seeded: the same texts in every run.
    let mut runner = TestRunner::deterministic();
    let mut draw = |newline| hostile(newline).new_tree(&mut runner).expect("a text").current();
    let hostile = (0..40).map(|_| Case {
        title: draw(" "),
        candidate: draw(" "),
        recruiter: Some(draw(" ")),
        note: Some(draw("\n")),
        location: Some(draw(" ")),
        ..plain()
    });

    let samples: Vec<Sample> = walls()
        .into_iter()
        .chain(kinds())
        .chain(hostile)
        .enumerate()
        .map(|(number, case)| case.sample(number as i32))
        .collect();
    parsers::assert_read_as_meant(&samples);
}
