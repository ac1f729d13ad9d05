//! The mails about an interview (contract §8.1): queued by what causes them, sent at once, and the words that a queued
//! one gets when it is sent.
//!
//! Rendering is pure: [`Facts`] in, an [`Email`] out, in two languages of one content, text and HTML. Whatever people
//! typed stays text: one line where a line is due, escaped in HTML.

use std::time::Duration;

use askama::Template;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::{
    model::{InterviewType, Person, Side, duration_words, link_expiry},
    store::{self, Interview},
};
use crate::{
    config::Settings,
    context::Context,
    db,
    icalendar::{self, Invitation, Method, one_line, plain_lines},
    mail::{self, Correspondent, Email, Kind, Leased, Mail, Queued},
    secret::PlainToken,
    zone::Zone,
};

/// How long an answer waits for the SMTP server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose mail the SMTP server has accepted.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct EmailsSent {
    pub candidate: bool,
    pub recruiter: bool,
}

impl EmailsSent {
    /// `[candidate, recruiter]`: who of them is among those whose mail was accepted.
    fn of(accepted: &[i64], users: [i64; 2]) -> Self {
        let [candidate, recruiter] = users.map(|user| accepted.contains(&user));
        EmailsSent { candidate, recruiter }
    }

    pub fn any(self) -> bool {
        self.candidate || self.recruiter
    }
}

/// Queues a mail to each of `users`, in the transaction that writes what it tells; none without an SMTP server. They
/// are for [`send_now`], right after the commit, unless they wait.
pub async fn queue(
    tx: &mut db::Connection,
    ctx: &Context,
    kind: Kind,
    about: (i64, i32),
    users: &[i64],
) -> sqlx::Result<Queued> {
    mail::enqueue_leased(tx, ctx, &mails(kind, about, users)).await
}

/// The same, for the queue to send at once.
pub async fn leave_to_queue(
    tx: &mut db::Connection,
    ctx: &Context,
    kind: Kind,
    about: (i64, i32),
    users: &[i64],
) -> sqlx::Result<()> {
    mail::enqueue(tx, ctx, &mails(kind, about, users)).await
}

fn mails(kind: Kind, (interview_id, sequence): (i64, i32), users: &[i64]) -> Vec<Mail> {
    let mail = |user_id: &i64| Mail { interview_id: Some(interview_id), sequence, ..Mail::new(kind, *user_id) };
    users.iter().map(mail).collect()
}

/// Sends mails just queued, about one thing, all at once, and waits for the SMTP server for a while; the sending goes
/// on beyond that. Gives whose mail has been accepted by then, as [`sent`] does.
pub async fn send_now(ctx: &Context, mails: Vec<Leased>, users: [i64; 2]) -> EmailsSent {
    let Some(&Mail { kind, interview_id: Some(interview_id), sequence, .. }) = mails.first().map(|leased| &leased.mail)
    else {
        return EmailsSent::default();
    };
    let sending: Vec<_> = mails
        .into_iter()
        .map(|leased| {
            let (ctx, tasks, id, user_id) = (ctx.clone(), ctx.tasks.clone(), leased.id, leased.mail.user_id);
            let sending = async move {
                let accepted = mail::send_leased(&ctx, leased, |mail| render(&ctx, mail)).await;
                accepted.unwrap_or_else(|fault| {
                    tracing::error!(mail = %id, error = format!("{fault:#}"), "a mail was left to the queue");
                    false
                })
            };
            (user_id, tasks.spawn(sending.in_current_span()))
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let (mut accepted, mut is_known) = (Vec::new(), true);
    for (user_id, task) in sending {
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(true)) => accepted.push(user_id),
            // Somebody else may have sent it meanwhile.
            _ => is_known = false,
        }
    }
    match is_known {
        true => EmailsSent::of(&accepted, users),
        false => sent(ctx, kind, (interview_id, sequence), users).await,
    }
}

/// Whose mail of this kind and SEQUENCE has been accepted; nobody's where that cannot be read: what is answered then
/// has happened anyway.
pub async fn sent(ctx: &Context, kind: Kind, (interview_id, sequence): (i64, i32), users: [i64; 2]) -> EmailsSent {
    let accepted = mail::accepted(&ctx.db, interview_id, kind, sequence).await.unwrap_or_else(|fault| {
        tracing::warn!(error = %fault, "an answer does not tell which mails were sent");
        Vec::new()
    });
    EmailsSent::of(&accepted, users)
}

/// A queued mail about an interview, as the interview is now; `None` when there is no longer anything true to say.
pub async fn render(ctx: &Context, mail: Mail) -> anyhow::Result<Option<Email>> {
    let Some(interview_id) = mail.interview_id else { return Ok(None) };
    let Some(interview) = store::by_id(&ctx.db, interview_id).await? else { return Ok(None) };
    let now = ctx.clock.now();
    let start = interview.window(&ctx.settings).start;
    let is_true = match mail.kind {
        // Whatever else has changed, it still begins then.
        Kind::Reminder => interview.cancelled_at.is_none() && mail.starts_at == Some(start) && now < start,
        _ => interview.ical_sequence == mail.sequence,
    };
    let (Some(to), Some(occasion)) = (interview.side_of(mail.user_id), Occasion::of(mail.kind)) else {
        return Ok(None);
    };
    // A closed account gets only cancellations: the interview may still be in their calendar.
    if !is_true || interview.is_closed(to) && occasion != Occasion::Cancelled {
        return Ok(None);
    }
    let token = PlainToken::generate();
    let expires_at = link_expiry(&interview.window(&ctx.settings));
    store::insert_portal_token(&ctx.db, &token.hash(), interview_id, mail.user_id, expires_at).await?;
    Ok(Some(write(&Facts::of(&interview, &ctx.settings), occasion, to, &token, now)))
}

/// What a mail about an interview is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Scheduled,
    Updated,
    Cancelled,
    Reminder,
}

impl Occasion {
    /// `None` for the mails of other features.
    fn of(kind: Kind) -> Option<Occasion> {
        Some(match kind {
            Kind::Scheduled => Occasion::Scheduled,
            Kind::Updated => Occasion::Updated,
            Kind::Cancelled => Occasion::Cancelled,
            Kind::Reminder => Occasion::Reminder,
            Kind::GoogleConnected | Kind::GoogleDisconnected => return None,
        })
    }

    fn heading(self) -> &'static str {
        match self {
            Occasion::Scheduled => "Interview Scheduled!",
            Occasion::Updated => "Interview Updated!",
            Occasion::Cancelled => "Interview Cancelled!",
            Occasion::Reminder => "Interview Reminder",
        }
    }

    /// The first sentence; the recruiter's names the candidate.
    fn intro(self, to: Side, candidate: &str) -> String {
        match (self, to) {
            (Occasion::Scheduled, Side::Candidate) => "Your interview has been scheduled!".to_owned(),
            (Occasion::Scheduled, Side::Recruiter) => {
                format!("You have successfully scheduled an interview with {candidate}.")
            }
            (Occasion::Updated, Side::Candidate) => "Your interview has been changed.".to_owned(),
            (Occasion::Updated, Side::Recruiter) => format!("You have changed the interview with {candidate}."),
            (Occasion::Cancelled, Side::Candidate) => "Your interview has been cancelled.".to_owned(),
            (Occasion::Cancelled, Side::Recruiter) => format!("You have cancelled the interview with {candidate}."),
            (Occasion::Reminder, _) => "This is a reminder of your interview.".to_owned(),
        }
    }

    /// The METHOD of the calendar object that goes along.
    fn method(self) -> Option<Method> {
        match self {
            Occasion::Scheduled | Occasion::Updated => Some(Method::Request),
            Occasion::Cancelled => Some(Method::Cancel),
            Occasion::Reminder => None,
        }
    }
}

/// All that the mails say about an interview. Texts are as stored; blank optional ones count as absent.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub interview_id: i64,
    pub job_title: &'a str,
    pub candidate: Person,
    /// Rows that Django made have none.
    pub recruiter: Option<Person>,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub minutes: i32,
    pub zone: Zone,
    pub interview_type: InterviewType,
    pub location: Option<&'a str>,
    pub meeting_link: Option<&'a str>,
    pub note: Option<&'a str>,
    /// Why it was cancelled.
    pub reason: Option<&'a str>,
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
    pub fn of(interview: &'a Interview, settings: &'a Settings) -> Facts<'a> {
        let window = interview.window(settings);
        Facts {
            interview_id: interview.id,
            job_title: &interview.job_title,
            candidate: interview.candidate(),
            recruiter: interview.recruiter(),
            start: window.start,
            end: window.end,
            minutes: interview.minutes(settings),
            zone: interview.zone(),
            interview_type: interview.kind(),
            location: interview.location.as_deref(),
            meeting_link: interview.link(),
            note: interview.note.as_deref(),
            reason: interview.cancellation_reason.as_deref(),
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
                Side::Candidate => {
                    let name = self.recruiter.as_ref().map_or("Unknown".to_owned(), Person::name);
                    ("Interviewer", one_line(&name))
                }
                Side::Recruiter => ("Candidate", one_line(&self.candidate.name())),
            },
        ];
        card.extend(self.type_label().map(|label| ("Type", label.to_owned())));
        let place = if self.interview_type == InterviewType::Phone { "Phone" } else { "Where" };
        card.extend(given(self.location).map(|location| (place, one_line(location))));
        card.extend(given(self.note).map(|note| ("Note", plain_lines(note))));
        card.extend(given(self.reason).map(|reason| ("Reason", plain_lines(reason))));
        card
    }

    /// The calendar object; `now` is its DTSTAMP.
    pub fn invitation(&self, method: Method, now: DateTime<Utc>) -> String {
        let (candidate, recruiter) = (self.candidate.name(), self.recruiter.as_ref().map(Person::name));
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
            recruiter: recruiter
                .as_deref()
                .zip(self.recruiter.as_ref())
                .map(|(name, person)| icalendar::Person { name, email: &person.email }),
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
    Facts::of(interview, settings).invitation(method, now)
}

/// A mail to one of the two. `token` opens the interview's page for that person alone; `now` is the DTSTAMP of the
/// calendar object.
pub fn write(facts: &Facts<'_>, occasion: Occasion, to: Side, token: &PlainToken, now: DateTime<Utc>) -> Email {
    let addressee = match (to, &facts.recruiter) {
        (Side::Recruiter, Some(recruiter)) => recruiter,
        _ => &facts.candidate,
    };
    let heading = occasion.heading();
    let subject = format!("{}: {}", heading.trim_end_matches('!'), one_line(facts.job_title));
    let first_name = addressee.first_name.trim();
    let portal_link = format!("{}?token={}", facts.portal_link(), token.expose());
    // An invitation needs somebody who invites (RFC 5546 §3.2.2).
    let method = occasion.method().filter(|_| facts.recruiter.is_some());
    let content = Content {
        subject: &subject,
        heading,
        greeting: one_line(if first_name.is_empty() { &addressee.email } else { first_name }),
        intro: &occasion.intro(to, &one_line(&facts.candidate.name())),
        card: facts.card(to),
        brand: facts.brand,
        portal_link: (occasion != Occasion::Cancelled).then_some(&portal_link),
        meeting_link: given(facts.meeting_link).map(one_line),
        has_calendar: method.is_some(),
    };
    let (text, html) = content.render();
    let reply_to = facts.recruiter.as_ref().filter(|_| to == Side::Candidate).map(correspondent);
    let calendar = method.map(|method| (method.name(), facts.invitation(method, now)));
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
    /// `None`: there is nothing to join.
    portal_link: Option<&'a String>,
    meeting_link: Option<String>,
    has_calendar: bool,
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
    let cancelled =
        Facts { meeting_link: None, reason: Some("The position has been filled."), sequence: 2, ..meet.clone() };
    let moved = Facts { sequence: 1, ..meet.clone() };
    let mail = |facts: &Facts<'_>, occasion, to| write(facts, occasion, to, &token, now);
    vec![
        ("scheduled-candidate", mail(&meet, Occasion::Scheduled, Side::Candidate)),
        ("scheduled-recruiter", mail(&meet, Occasion::Scheduled, Side::Recruiter)),
        ("scheduled-in-person", mail(&in_person, Occasion::Scheduled, Side::Candidate)),
        ("updated", mail(&moved, Occasion::Updated, Side::Candidate)),
        ("cancelled", mail(&cancelled, Occasion::Cancelled, Side::Candidate)),
        ("reminder", mail(&meet, Occasion::Reminder, Side::Candidate)),
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
        recruiter: Some(person(101, "Rita", "Recruit", "rita@x.test")),
        start: DateTime::from_timestamp(1_894_734_000, 0).unwrap_or_default(),
        end: DateTime::from_timestamp(1_894_737_600, 0).unwrap_or_default(),
        minutes: 60,
        zone: Zone::stored("America/New_York"),
        interview_type: InterviewType::GoogleMeet,
        location: None,
        meeting_link: Some("https://meet.google.com/abc-defg-hij"),
        note: Some("Looking forward to meeting you."),
        reason: None,
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
        about(facts, Occasion::Scheduled, to)
    }

    fn about(facts: &Facts<'_>, occasion: Occasion, to: Side) -> Email {
        write(facts, occasion, to, &PlainToken::from_outside("TOKEN"), "2026-11-20T21:46:15Z".parse().unwrap())
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
            recruiter: Some(nameless(101, "rita@x.test")),
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
    fn a_change_says_so_and_says_the_rest_alike() {
        let facts = Facts { sequence: 3, ..sample() };
        let (scheduled, email) = (mail(&facts, Side::Candidate), about(&facts, Occasion::Updated, Side::Candidate));
        assert_eq!(email.subject, "Interview Updated: Software Engineer");
        assert_eq!(
            email.text,
            scheduled.text.replace("Your interview has been scheduled!", "Your interview has been changed.")
        );
        assert!(email.html.contains(">Interview Updated!</h1>"));
        assert_eq!(email.calendar.as_ref().unwrap().0, "REQUEST");
        assert!(email.calendar.unwrap().1.contains("SEQUENCE:3\r\n"));
        let recruiters = about(&facts, Occasion::Updated, Side::Recruiter);
        assert!(recruiters.text.contains("\nYou have changed the interview with Carl Candy.\n"));
    }

    #[test]
    fn a_cancellation_gives_the_reason_and_nothing_to_join() {
        let facts = Facts { meeting_link: None, reason: Some(" Filled.\nSorry! "), note: None, ..sample() };
        let email = about(&facts, Occasion::Cancelled, Side::Candidate);
        assert_eq!(email.subject, "Interview Cancelled: Software Engineer");
        insta::assert_snapshot!(email.text, @r"
        Hi Carl,

        Your interview has been cancelled.

        Position: Software Engineer
        Date: January 15, 2030
        Time: 2:00 PM America/New_York
        Duration: 1 hour
        Interviewer: Rita Recruit
        Reason: Filled.
        Sorry!

        A calendar invitation is attached to this email.

        Good luck!
        The UmEmployed Team
        ");
        assert!(!email.html.contains("TOKEN") && !email.html.contains("Join your interview"));
        let (method, object) = email.calendar.unwrap();
        assert_eq!(method, "CANCEL");
        assert!(object.contains("METHOD:CANCEL\r\n") && object.contains("STATUS:CANCELLED\r\n"), "{object}");
        let recruiters = about(&facts, Occasion::Cancelled, Side::Recruiter);
        assert!(recruiters.text.contains("\nYou have cancelled the interview with Carl Candy.\n"));
    }

    #[test]
    fn a_reminder_has_no_calendar_and_can_do_without_a_recruiter() {
        let facts = Facts { recruiter: None, note: None, ..sample() };
        let email = about(&facts, Occasion::Reminder, Side::Candidate);
        assert_eq!(email.subject, "Interview Reminder: Software Engineer");
        assert_eq!((email.reply_to, email.calendar), (None, None));
        insta::assert_snapshot!(email.text, @r"
        Hi Carl,

        This is a reminder of your interview.

        Position: Software Engineer
        Date: January 15, 2030
        Time: 2:00 PM America/New_York
        Duration: 1 hour
        Interviewer: Unknown

        Join your interview:
        1. UmEmployed Portal: https://interviews.example.com/interviews/456/join/?token=TOKEN
        2. Google Meet Direct: https://meet.google.com/abc-defg-hij

        Good luck!
        The UmEmployed Team
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
            facts.recruiter.as_mut().unwrap().first_name = name.clone();
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
