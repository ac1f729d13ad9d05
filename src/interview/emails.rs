//! The words of the mails about an interview (contract §8.1), and how a queued one gets them.
//!
//! Rendering is pure: [`Facts`] in, an [`Email`] out, in two languages of one content, text and HTML. Whatever people
//! typed stays text: one line where a line is due, escaped in HTML.

use askama::Template;
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    model::{InterviewType, Person, Side, duration_words},
    store::{self, Interview},
};
use crate::{
    config::Settings,
    context::Context,
    icalendar::{self, Invitation, Method, one_line, plain_lines},
    mail::{Correspondent, Email, Queued},
    secret::PlainToken,
    zone::Zone,
};

/// How much longer than the door a mailed link stays open.
const LINK_OUTLIVES_WINDOW: TimeDelta = TimeDelta::hours(24);

/// A queued mail about an interview, as the interview is now; `None` when there is no longer anything true to say.
pub async fn compose(ctx: &Context, mail: Queued) -> anyhow::Result<Option<Email>> {
    let Some(interview_id) = mail.interview_id else { return Ok(None) };
    let Some(interview) = store::by_id(&ctx.db, interview_id).await? else { return Ok(None) };
    let Some(facts) = Facts::of(&interview, &ctx.settings) else { return Ok(None) };
    if interview.ical_sequence != mail.sequence {
        return Ok(None);
    }
    let Some(to) = interview.side_of(mail.user_id) else { return Ok(None) };
    let token = PlainToken::generate();
    let expires_at = interview.window(&ctx.settings).closes + LINK_OUTLIVES_WINDOW;
    store::insert_portal_token(&ctx.db, &token.hash(), interview_id, mail.user_id, expires_at).await?;
    Ok(Some(scheduled(&facts, to, &token, ctx.clock.now())))
}

/// All that the mails say about an interview. Texts are as stored; blank optional ones count as absent.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub interview_id: i64,
    pub job_title: &'a str,
    pub candidate: Person,
    pub recruiter: Person,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub minutes: i32,
    pub zone: Zone,
    pub interview_type: InterviewType,
    pub location: Option<&'a str>,
    pub meeting_link: Option<&'a str>,
    pub note: Option<&'a str>,
    pub uid: String,
    pub sequence: i32,
    /// The address of ORGANIZER where it is not the recruiter's own.
    pub organizer: Option<&'a str>,
    /// `PORTAL_URL`
    pub portal_url: &'a str,
    /// `BRAND_NAME`
    pub brand: &'a str,
}

impl<'a> Facts<'a> {
    /// `None` for an interview without a recruiter.
    fn of(interview: &'a Interview, settings: &'a Settings) -> Option<Facts<'a>> {
        Some(Facts::with(interview, interview.recruiter()?, settings))
    }

    fn with(interview: &'a Interview, recruiter: Person, settings: &'a Settings) -> Facts<'a> {
        let window = interview.window(settings);
        Facts {
            interview_id: interview.id,
            job_title: &interview.job_title,
            candidate: interview.candidate(),
            recruiter,
            start: window.start,
            end: window.end,
            minutes: interview.minutes(settings),
            zone: interview.zone(),
            interview_type: interview.kind(),
            location: interview.location.as_deref(),
            meeting_link: interview.link(),
            note: interview.note.as_deref(),
            uid: interview.ical_uid.clone().unwrap_or_else(|| icalendar::own_uid(interview.id)),
            sequence: interview.ical_sequence,
            organizer: interview.ical_organizer.as_deref(),
            portal_url: &settings.portal_url,
            brand: &settings.brand_name,
        }
    }

    /// The page of the interview, without a token.
    fn portal_link(&self) -> String {
        format!("{}/interviews/{}/join/", self.portal_url, self.interview_id)
    }

    /// Said where there is no link that tells.
    fn type_label(&self) -> Option<&'static str> {
        let is_said = matches!(self.interview_type, InterviewType::Phone | InterviewType::InPerson);
        is_said.then(|| self.interview_type.label())
    }

    /// The card: what is said about the interview, line by line.
    fn card(&self, to: Side) -> Vec<(&'static str, String)> {
        let local = self.zone.local(self.start);
        let mut card = vec![
            ("Position", one_line(self.job_title)),
            ("Date", local.format("%B %d, %Y").to_string()),
            ("Time", format!("{} {}", local.format("%-I:%M %p"), self.zone.name())),
            ("Duration", duration_words(self.minutes)),
            match to {
                Side::Candidate => ("Interviewer", one_line(&self.recruiter.name())),
                Side::Recruiter => ("Candidate", one_line(&self.candidate.name())),
            },
        ];
        card.extend(self.type_label().map(|label| ("Type", label.to_owned())));
        let place = if self.interview_type == InterviewType::Phone { "Phone" } else { "Where" };
        card.extend(given(self.location).map(|location| (place, one_line(location))));
        card.extend(given(self.note).map(|note| ("Note", plain_lines(note))));
        card
    }

    fn invitation(&self, method: Method, now: DateTime<Utc>) -> String {
        self.calendar(method, Some(&self.recruiter), now)
    }

    fn calendar(&self, method: Method, recruiter: Option<&Person>, now: DateTime<Utc>) -> String {
        let (candidate, name) = (self.candidate.name(), recruiter.map(Person::name).unwrap_or_default());
        Invitation {
            brand: self.brand,
            method,
            uid: &self.uid,
            sequence: self.sequence,
            dtstamp: now,
            start: self.start,
            end: self.end,
            job_title: self.job_title,
            candidate: icalendar::Person { name: &candidate, email: &self.candidate.email },
            recruiter: recruiter.map(|recruiter| icalendar::Person { name: &name, email: &recruiter.email }),
            organizer_email: self.organizer,
            meeting_link: self.meeting_link,
            location: self.location,
            kind_label: self.type_label(),
            note: self.note,
            portal_link: &self.portal_link(),
        }
        .render()
    }
}

/// The interview for somebody's calendar, made at `now`; a cancelled one is taken off it.
pub fn calendar_file(interview: &Interview, settings: &Settings, now: DateTime<Utc>) -> String {
    let method = if interview.cancelled_at.is_some() { Method::Cancel } else { Method::Publish };
    let recruiter = interview.recruiter();
    // Whoever stands in for the recruiter is not named.
    let facts = Facts::with(interview, recruiter.clone().unwrap_or_else(|| interview.candidate()), settings);
    facts.calendar(method, recruiter.as_ref(), now)
}

/// Tells somebody of a new interview. `token` opens its page for that person alone; `now` is the invitation's DTSTAMP.
pub fn scheduled(facts: &Facts<'_>, to: Side, token: &PlainToken, now: DateTime<Utc>) -> Email {
    let (addressee, intro) = match to {
        Side::Candidate => (&facts.candidate, "Your interview has been scheduled!".to_owned()),
        Side::Recruiter => {
            let name = one_line(&facts.candidate.name());
            (&facts.recruiter, format!("You have successfully scheduled an interview with {name}."))
        }
    };
    let subject = format!("Interview Scheduled: {}", one_line(facts.job_title));
    let first_name = addressee.first_name.trim();
    let content = Content {
        subject: &subject,
        heading: "Interview Scheduled!",
        greeting: one_line(if first_name.is_empty() { &addressee.email } else { first_name }),
        intro: &intro,
        card: facts.card(to),
        brand: facts.brand,
        portal_link: &format!("{}?token={}", facts.portal_link(), token.expose()),
        meeting_link: given(facts.meeting_link).map(one_line),
    };
    let (text, html) = content.render();
    let reply_to = (to == Side::Candidate).then(|| correspondent(&facts.recruiter));
    let calendar = Some((Method::Request.name(), facts.invitation(Method::Request, now)));
    Email { to: correspondent(addressee), reply_to, subject, text, html, calendar }
}

/// What both parts say.
struct Content<'a> {
    subject: &'a str,
    heading: &'static str,
    greeting: String,
    intro: &'a str,
    card: Vec<(&'static str, String)>,
    brand: &'a str,
    portal_link: &'a str,
    meeting_link: Option<String>,
}

#[derive(Template)]
#[template(path = "mail/interview.txt")]
struct Text<'a> {
    mail: &'a Content<'a>,
}

#[derive(Template)]
#[template(path = "mail/interview.html")]
struct Html<'a> {
    mail: &'a Content<'a>,
}

impl Content<'_> {
    fn render(&self) -> (String, String) {
        let (text, html) = (Text { mail: self }.render(), Html { mail: self }.render());
        (text.expect("a text in memory can be written"), html.expect("a text in memory can be written"))
    }
}

/// A text that is there and not blank, trimmed.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn correspondent(person: &Person) -> Correspondent {
    (Some(person.name()).filter(|name| *name != person.email), person.email.clone())
}

/// A mail of each kind, to look at.
pub fn samples() -> Vec<(&'static str, Email)> {
    let meet = sample();
    let in_person = Facts {
        interview_type: InterviewType::InPerson,
        location: Some("12 Example Street, 3rd floor"),
        meeting_link: None,
        note: Some("Please bring a photo ID.\nThe bell says “Acme”."),
        minutes: 45,
        ..meet.clone()
    };
    let token = PlainToken::from_outside("c2FtcGxlLW9mLWEtbGluay10b2tlbi0tMjU2LWJpdHM");
    let now = DateTime::from_timestamp(1_795_211_175, 0).unwrap_or_default();
    vec![
        ("scheduled-candidate", scheduled(&meet, Side::Candidate, &token, now)),
        ("scheduled-recruiter", scheduled(&meet, Side::Recruiter, &token, now)),
        ("scheduled-in-person", scheduled(&in_person, Side::Candidate, &token, now)),
    ]
}

/// An interview on Google Meet, on a winter's afternoon in New York.
fn sample() -> Facts<'static> {
    let person = |id, first_name: &str, last_name: &str, email: &str| Person {
        id,
        first_name: first_name.to_owned(),
        last_name: last_name.to_owned(),
        email: email.to_owned(),
    };
    Facts {
        interview_id: 456,
        job_title: "Software Engineer",
        candidate: person(201, "Carl", "Candy", "carl@x.test"),
        recruiter: person(101, "Rita", "Recruit", "rita@x.test"),
        start: DateTime::from_timestamp(1_894_734_000, 0).unwrap_or_default(),
        end: DateTime::from_timestamp(1_894_737_600, 0).unwrap_or_default(),
        minutes: 60,
        zone: Zone::stored("America/New_York"),
        interview_type: InterviewType::GoogleMeet,
        location: None,
        meeting_link: Some("https://meet.google.com/abc-defg-hij"),
        note: Some("Looking forward to meeting you."),
        uid: icalendar::own_uid(456),
        sequence: 0,
        organizer: None,
        portal_url: "https://interviews.example.com",
        brand: "UmEmployed",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mail(facts: &Facts<'_>, to: Side) -> Email {
        scheduled(facts, to, &PlainToken::from_outside("TOKEN"), "2026-11-20T21:46:15Z".parse().unwrap())
    }

    #[test]
    fn the_candidate_is_told_of_a_google_meet_interview() {
        let email = mail(&sample(), Side::Candidate);
        assert_eq!(email.subject, "Interview Scheduled: Software Engineer");
        assert_eq!(email.to, (Some("Carl Candy".to_owned()), "carl@x.test".to_owned()));
        assert_eq!(email.reply_to, Some((Some("Rita Recruit".to_owned()), "rita@x.test".to_owned())));
        insta::assert_snapshot!(email.text, @r"
        Hi Carl,

        Your interview has been scheduled!

        Position: Software Engineer
        Date: January 15, 2030
        Time: 2:00 PM America/New_York
        Duration: 1 hour
        Interviewer: Rita Recruit
        Note: Looking forward to meeting you.

        Join your interview:
        1. UmEmployed Portal: https://interviews.example.com/interviews/456/join/?token=TOKEN
        2. Google Meet Direct: https://meet.google.com/abc-defg-hij

        A calendar invitation is attached to this email.

        Good luck!
        The UmEmployed Team
        ");
    }

    #[test]
    fn the_recruiter_is_told_the_same_with_the_candidate_named() {
        let email = mail(&sample(), Side::Recruiter);
        assert_eq!(email.to, (Some("Rita Recruit".to_owned()), "rita@x.test".to_owned()));
        assert_eq!(email.reply_to, None);
        insta::assert_snapshot!(email.text, @r"
        Hi Rita,

        You have successfully scheduled an interview with Carl Candy.

        Position: Software Engineer
        Date: January 15, 2030
        Time: 2:00 PM America/New_York
        Duration: 1 hour
        Candidate: Carl Candy
        Note: Looking forward to meeting you.

        Join your interview:
        1. UmEmployed Portal: https://interviews.example.com/interviews/456/join/?token=TOKEN
        2. Google Meet Direct: https://meet.google.com/abc-defg-hij

        A calendar invitation is attached to this email.

        Good luck!
        The UmEmployed Team
        ");
    }

    #[test]
    fn an_interview_by_phone_names_the_number_and_no_link() {
        let facts = Facts {
            interview_type: InterviewType::Phone,
            location: Some(" +44 20 7946 0000 "),
            meeting_link: None,
            note: None,
            minutes: 90,
            zone: Zone::stored("Asia/Kolkata"),
            ..sample()
        };
        insta::assert_snapshot!(mail(&facts, Side::Candidate).text, @r"
        Hi Carl,

        Your interview has been scheduled!

        Position: Software Engineer
        Date: January 16, 2030
        Time: 12:30 AM Asia/Kolkata
        Duration: 90 minutes
        Interviewer: Rita Recruit
        Type: Phone
        Phone: +44 20 7946 0000

        Join your interview:
        1. UmEmployed Portal: https://interviews.example.com/interviews/456/join/?token=TOKEN

        A calendar invitation is attached to this email.

        Good luck!
        The UmEmployed Team
        ");
    }

    #[test]
    fn an_interview_in_person_names_the_place_and_keeps_the_lines_of_its_note() {
        let facts = Facts {
            interview_type: InterviewType::InPerson,
            location: Some("12 Example Street"),
            meeting_link: Some(""),
            note: Some("Bring an ID.\r\nRing twice.\u{7}"),
            minutes: 120,
            ..sample()
        };
        insta::assert_snapshot!(mail(&facts, Side::Recruiter).text, @r"
        Hi Rita,

        You have successfully scheduled an interview with Carl Candy.

        Position: Software Engineer
        Date: January 15, 2030
        Time: 2:00 PM America/New_York
        Duration: 2 hours
        Candidate: Carl Candy
        Type: In person
        Where: 12 Example Street
        Note: Bring an ID.
        Ring twice.

        Join your interview:
        1. UmEmployed Portal: https://interviews.example.com/interviews/456/join/?token=TOKEN

        A calendar invitation is attached to this email.

        Good luck!
        The UmEmployed Team
        ");
    }

    #[test]
    fn a_custom_interview_names_no_type_and_people_without_a_name_their_address() {
        let nameless = |id, email: &str| Person {
            id,
            first_name: " ".to_owned(),
            last_name: String::new(),
            email: email.to_owned(),
        };
        let facts = Facts {
            interview_type: InterviewType::Custom,
            location: Some("https://meet.example.com/room"),
            meeting_link: None,
            note: Some("  "),
            candidate: nameless(202, "dana@x.test"),
            recruiter: nameless(101, "rita@x.test"),
            zone: Zone::stored("Mars/Phobos"),
            brand: "Acme",
            ..sample()
        };
        let email = mail(&facts, Side::Candidate);
        assert_eq!(email.to, (None, "dana@x.test".to_owned()));
        insta::assert_snapshot!(email.text, @r"
        Hi dana@x.test,

        Your interview has been scheduled!

        Position: Software Engineer
        Date: January 15, 2030
        Time: 7:00 PM UTC
        Duration: 1 hour
        Interviewer: rita@x.test
        Where: https://meet.example.com/room

        Join your interview:
        1. Acme Portal: https://interviews.example.com/interviews/456/join/?token=TOKEN

        A calendar invitation is attached to this email.

        Good luck!
        The Acme Team
        ");
    }

    #[test]
    fn times_are_those_of_the_interviews_zone_in_summer_winter_and_a_gap() {
        for (start, zone, time) in [
            ("2030-01-15T19:00:00Z", "America/New_York", "January 15, 2030 2:00 PM America/New_York"),
            ("2030-07-15T18:00:00Z", "America/New_York", "July 15, 2030 2:00 PM America/New_York"),
            ("2027-03-14T07:30:00Z", "America/New_York", "March 14, 2027 3:30 AM America/New_York"),
            ("2026-12-01T16:00:00Z", "America/Vancouver", "December 01, 2026 9:00 AM America/Vancouver"),
            ("2030-01-15T15:00:00Z", "Asia/Tokyo", "January 16, 2030 12:00 AM Asia/Tokyo"),
            ("2030-01-15T12:00:00Z", "UTC", "January 15, 2030 12:00 PM UTC"),
        ] {
            let facts = Facts { start: start.parse().unwrap(), zone: Zone::stored(zone), ..sample() };
            let card = facts.card(Side::Candidate);
            assert_eq!(format!("{} {}", card[1].1, card[2].1), time);
        }
    }

    #[test]
    fn durations_are_whole_hours_or_minutes() {
        let words = [5, 45, 60, 61, 90, 120, 480].map(duration_words);
        assert_eq!(words, ["5 minutes", "45 minutes", "1 hour", "61 minutes", "90 minutes", "2 hours", "8 hours"]);
    }

    #[test]
    fn the_html_says_the_same_and_has_a_button_for_each_link() {
        for to in [Side::Candidate, Side::Recruiter] {
            let email = mail(&sample(), to);
            assert!(email.html.contains(">Interview Scheduled!</h1>"));
            for (label, value) in sample().card(to) {
                assert!(email.html.contains(&format!(">{label}</td>")), "{label}");
                assert!(email.html.contains(&format!(">{value}</td>")), "{value}");
            }
            for link in [
                "https://interviews.example.com/interviews/456/join/?token=TOKEN",
                "https://meet.google.com/abc-defg-hij",
            ] {
                assert!(email.html.contains(&format!(r#"" href="{link}""#)), "{link}");
            }
        }
        let phone = Facts { interview_type: InterviewType::Phone, meeting_link: None, ..sample() };
        assert!(!mail(&phone, Side::Candidate).html.contains("Google Meet"));
    }

    #[test]
    fn a_link_that_browsers_must_not_follow_gets_no_button() {
        let facts = Facts { meeting_link: Some("javascript:alert(1)"), ..sample() };
        assert!(!mail(&facts, Side::Candidate).html.contains(r#"href="javascript"#));
    }

    #[test]
    fn the_invitation_carries_no_token_and_googles_organizer() {
        let facts = Facts { organizer: Some("rita@gmail.test"), uid: "evt@google.com".to_owned(), ..sample() };
        let (method, object) = mail(&facts, Side::Candidate).calendar.unwrap();
        assert_eq!(method, "REQUEST");
        assert!(!object.contains("TOKEN"));
        for line in [
            "METHOD:REQUEST",
            "UID:evt@google.com",
            "SEQUENCE:0",
            "DTSTAMP:20261120T214615Z",
            "DTSTART:20300115T190000Z",
            "DTEND:20300115T200000Z",
            "ORGANIZER;CN=Rita Recruit:mailto:rita@gmail.test",
        ] {
            assert!(object.lines().any(|found| found == line), "{line} in {object}");
        }
    }

    #[test]
    fn samples_can_be_sent() {
        for (stem, email) in samples() {
            let message = crate::mail::compose(&email, "info@x.test", uuid::Uuid::nil(), DateTime::UNIX_EPOCH);
            assert!(message.is_ok(), "{stem}");
        }
    }

    proptest! {
        /// Whatever people type, the text part keeps its lines, and the HTML part its elements.
        #[test]
        fn typed_text_makes_no_lines_and_no_markup(
            title in ".{0,40}|[\\s\\S]{0,40}|<script>alert\\(1\\)</script>\r\nBcc: eve@x\\.test",
            name in "[\\s\\S]{0,20}|\"><img src=x onerror=x>", location in proptest::option::of("[\\s\\S]{0,30}"),
        ) {
            let mut facts = Facts { job_title: &title, location: location.as_deref(), ..sample() };
            facts.recruiter.first_name = name.clone();
            facts.candidate.first_name = name;
            let plain = sample();
            let lines = |facts: &Facts<'_>, to| mail(facts, to).text.lines().count();
            let elements = |facts: &Facts<'_>, to| mail(facts, to).html.matches('<').count();
            for to in [Side::Candidate, Side::Recruiter] {
                let placed = usize::from(given(facts.location).is_some());
                prop_assert_eq!(lines(&facts, to), lines(&plain, to) + placed);
                prop_assert_eq!(elements(&facts, to), elements(&plain, to) + placed * 6);
            }
            prop_assert!(!mail(&facts, Side::Candidate).subject.contains(char::is_control));
        }
    }
}
