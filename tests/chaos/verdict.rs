//! What is left when everything has settled: interviews from the database, events from Google, mails from the SMTP
//! server, compared with what the people were told and with each other.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    time::Duration,
};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use interviews::{
    clock::Clock,
    db,
    dev::{
        google::{RecordedCall, Simulator},
        mailbox::Received,
    },
};
use serde_json::Value;
use sqlx::FromRow;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    faults,
    figures::Figures,
    people::{Facts, Known, People, account},
    servers::Servers,
    support::process::{Server, World},
};

struct Verdict<'a> {
    figures: &'a Figures,
    /// How many servers died or stood still: what that alone may lead to happens no more often.
    deaths: u64,
    wrong: Vec<String>,
}

impl Verdict<'_> {
    fn count(&self, what: &str, many: usize) {
        self.figures.add(format!("in the end: {what}"), many);
    }

    fn expect(&mut self, is_well: bool, otherwise: impl FnOnce() -> String) {
        if !is_well {
            self.wrong.push(otherwise());
        }
    }
}

/// Waits until nothing is left to do, then compares, and says what is wrong.
pub async fn reach(
    world: &World,
    people: &People,
    servers: &Servers,
    last: Vec<Server>,
    figures: &Figures,
    patience: u64,
) -> Vec<String> {
    let is_real = patience > 0;
    let ends = Instant::now() + Duration::from_secs(if is_real { 60 * patience } else { 120 });
    while !left_to_do(world, is_real).await.is_empty() && Instant::now() < ends {
        if !is_real {
            let_six_minutes_pass(world).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Somebody's disconnection may have ended after the faults did.
        people.reconnect_all().await;
    }
    // Two seconds of quiet: whatever is still sent, doubly perhaps, is seen.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let deaths = servers.kills() + figures.sum("servers: paused") + figures.sum("servers: asked to end");
    let mut verdict = Verdict { figures, deaths, wrong: Vec::new() };
    for (what, count) in left_to_do(world, is_real).await {
        verdict.wrong.push(format!("{count} {what}"));
    }
    compare(world, &people.known(), &mut verdict).await;
    look_for_leaks(world, &last, &mut verdict).await;
    for mut server in last {
        servers.expect_to_end(&mut server).await;
    }
    let (faults, requests) = (figures.sum("people: answers 500 with PostgreSQL"), figures.sum("people: HTTP requests"));
    verdict.expect(faults * 100 < requests, || format!("{faults} of {requests} requests were answered 500"));
    for what in ["operations: cancellations", "operations: changes", "in the end: reminders that had to come"] {
        verdict.expect(figures.sum(what) > 0, || format!("no {what}: this run shows nothing"));
    }
    verdict.wrong.extend(servers.wrong());
    verdict.wrong
}

/// What waits for a moment is told that it has come.
async fn let_six_minutes_pass(world: &World) {
    sqlx::raw_sql(
        "UPDATE ivs_intent SET created_at = created_at - interval '6 min', undo_from = undo_from - interval '6 min',
                               next_attempt_at = next_attempt_at - interval '6 min';
         UPDATE ivs_change SET held_until = held_until - interval '6 min', in_doubt_until = in_doubt_until - interval '6 min',
                               next_attempt_at = next_attempt_at - interval '6 min';
         UPDATE ivs_mail SET leased_until = leased_until - interval '6 min' WHERE leased_until < now();
         UPDATE ivs_jobs._private_jobs SET run_at = run_at - interval '6 min' WHERE locked_at IS NULL",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
}

async fn left_to_do(world: &World, is_real: bool) -> Vec<(&'static str, i64)> {
    // Runs that others have replaced are removed every ten minutes.
    let jobs = match is_real {
        true => "ivs_jobs._private_jobs",
        false => "ivs_jobs._private_jobs WHERE id NOT IN (SELECT id FROM ivs_jobs._private_job_retirements)",
    };
    let due = "company_interview WHERE cancelled_at IS NULL AND starts_at > now()
        AND (NOT reminder_24h_sent AND starts_at < now() + interval '24 h 2 min'
             OR NOT reminder_1h_sent AND starts_at < now() + interval '1 h 2 min')";
    let mut left = Vec::new();
    for (what, table) in [
        ("intents are not settled", "ivs_intent"),
        ("changes are not settled", "ivs_change"),
        ("mails are still queued", "ivs_mail WHERE state = 'queued'"),
        ("jobs are left", jobs),
        ("reminders are still due", due),
    ] {
        let count = world.count(table).await;
        if count > 0 {
            left.push((what, count));
        }
    }
    left
}

#[derive(FromRow)]
struct InterviewRow {
    id: i64,
    recruiter_id: i64,
    candidate_id: i64,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    interview_type: String,
    google_event_id: Option<String>,
    meeting_link: String,
    cancelled_at: Option<DateTime<Utc>>,
    ical_sequence: i32,
    ical_uid: Option<String>,
    created_at: DateTime<Utc>,
}

impl InterviewRow {
    fn facts(&self) -> Facts {
        Facts {
            starts_at: self.starts_at,
            minutes: (self.ends_at - self.starts_at).num_minutes(),
            is_meet: self.interview_type == "google_meet",
            is_cancelled: self.cancelled_at.is_some(),
        }
    }
}

/// A mail as our database knows it.
#[derive(FromRow)]
struct MailRow {
    id: Uuid,
    kind: String,
    interview_id: Option<i64>,
    user_id: i64,
    sequence: i32,
    starts_at: Option<DateTime<Utc>>,
    state: String,
}

/// Why there is a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reason<'a> {
    interview_id: i64,
    user_id: i64,
    kind: &'a str,
    /// 0 of reminders.
    sequence: i32,
    /// Of reminders alone.
    starts_at: Option<DateTime<Utc>>,
}

impl MailRow {
    /// `None` of mails that are not about an interview.
    fn reason(&self) -> Option<Reason<'_>> {
        let &MailRow { interview_id, user_id, ref kind, sequence, starts_at, .. } = self;
        let sequence = if kind == REMINDER { 0 } else { sequence };
        Some(Reason { interview_id: interview_id?, user_id, kind, sequence, starts_at })
    }
}

const REMINDER: &str = "reminder";

async fn compare(world: &World, known: &[Known], verdict: &mut Verdict<'_>) {
    let pool = &world.database.pool;
    let rows: Vec<InterviewRow> =
        sqlx::query_as("SELECT * FROM company_interview ORDER BY id").fetch_all(pool).await.unwrap();
    let queued: Vec<MailRow> = sqlx::query_as("SELECT * FROM ivs_mail").fetch_all(pool).await.unwrap();
    verdict.count("interviews in the end", rows.len());
    told(&rows, known, verdict);
    events(&rows, &world.google, known, verdict);
    mails(&rows, &queued, &world.mailbox.mails(), known, verdict);
    notifications(world, &rows, verdict).await;
}

/// Every interview is what its recruiter was told, and there are no others.
fn told(rows: &[InterviewRow], known: &[Known], verdict: &mut Verdict<'_>) {
    let by_id: HashMap<i64, &Known> = known.iter().filter_map(|known| Some((known.id?, known))).collect();
    let existing: HashMap<i64, &InterviewRow> = rows.iter().map(|row| (row.id, row)).collect();
    for (id, known) in &by_id {
        match existing.get(id) {
            None => verdict.expect(known.is_deleted, || format!("interview {id} was acknowledged and is lost")),
            Some(row) => {
                let is_told = row.facts() == known.facts || Some(row.facts()) == known.in_doubt;
                verdict.expect(is_told, || format!("interview {id} is {:?}, not as told: {known:?}", row.facts()));
                verdict
                    .expect((row.recruiter_id, row.candidate_id) == (known.recruiter_id, known.candidate_id), || {
                        format!("interview {id} is between others")
                    });
            }
        }
    }
    // Whoever was never answered may have an interview, one at most; whoever was refused has none.
    let mut unanswered: Vec<&Known> = known.iter().filter(|known| known.id.is_none() && !known.is_refused).collect();
    for row in rows.iter().filter(|row| !by_id.contains_key(&row.id)) {
        let asked = unanswered.iter().position(|known| {
            (known.recruiter_id, known.candidate_id, known.facts) == (row.recruiter_id, row.candidate_id, row.facts())
        });
        match asked {
            Some(index) => _ = unanswered.swap_remove(index),
            None => verdict.wrong.push(format!("nobody was told of interview {}", row.id)),
        }
    }
}

/// Every interview at Google Meet has one event, which says the same; every event has its interview.
fn events(rows: &[InterviewRow], google: &Simulator, known: &[Known], verdict: &mut Verdict<'_>) {
    let events = google.events();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let instant = |value: &Value| text(&value["dateTime"]).parse::<DateTime<Utc>>().ok();
    let live: Vec<&Value> = events.iter().filter(|event| event["status"] != "cancelled").collect();
    verdict.count("events ever made at Google", events.len());
    verdict.count("events in the end", live.len());
    let mut by_id: HashMap<String, &Value> = live.iter().map(|event| (text(&event["id"]), *event)).collect();
    verdict.expect(by_id.len() == live.len(), || "two events have one id".to_owned());
    for row in rows.iter().filter(|row| row.cancelled_at.is_none()) {
        let id = row.id;
        let Some(event_id) = &row.google_event_id else {
            verdict.expect(row.interview_type != "google_meet", || format!("interview {id} has no event"));
            continue;
        };
        verdict.expect(row.interview_type == "google_meet", || format!("interview {id} has an event and needs none"));
        let Some(event) = by_id.remove(event_id) else {
            verdict.wrong.push(format!("the event of interview {id} is lost"));
            continue;
        };
        verdict.expect(
            (instant(&event["start"]), instant(&event["end"])) == (Some(row.starts_at), Some(row.ends_at)),
            || format!("the event of interview {id} is at {} and not at {}", event["start"], row.starts_at),
        );
        let attendees: BTreeSet<String> =
            event["attendees"].as_array().into_iter().flatten().map(|attendee| text(&attendee["email"])).collect();
        let wanted = [row.candidate_id, row.recruiter_id].map(address);
        verdict.expect(attendees == BTreeSet::from(wanted), || format!("the event of {id} invites {attendees:?}"));
        verdict.expect(text(&event["organizer"]["email"]) == account(row.recruiter_id), || {
            format!("the event of interview {id} is in the calendar of {}", event["organizer"])
        });
        verdict
            .expect(event["hangoutLink"] == row.meeting_link.as_str(), || format!("interview {id}'s link is another"));
    }
    // Django deletes rows without telling anybody.
    let left: HashSet<&str> = known.iter().filter_map(|known| known.left_event.as_deref()).collect();
    verdict.count("events of interviews that Django deleted", by_id.len());
    for (id, event) in by_id.iter().filter(|(id, _)| !left.contains(id.as_str())) {
        let is_about = |call: &RecordedCall| call.path.contains(id.as_str()) || call.body["id"] == id.as_str();
        let calls: Vec<_> = google.requests().into_iter().filter(is_about).collect();
        verdict.wrong.push(format!("event {id} has no interview, and Django deleted none of it: {event} {calls:?}"));
    }
}

fn address(user_id: i64) -> String {
    format!("person{user_id}@x.test")
}

/// One calendar mail as the SMTP server has it.
struct Invitation {
    method: String,
    sequence: i32,
    starts_at: DateTime<Utc>,
    uid: String,
}

impl Invitation {
    fn of(mail: &Received) -> Option<Invitation> {
        let calendar = mail.calendar()?;
        let property = |name: &str| {
            let text = calendar.text.replace("\r\n ", "");
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
                .unwrap_or_default()
        };
        let start = NaiveDateTime::parse_from_str(&property("DTSTART"), "%Y%m%dT%H%M%SZ").unwrap().and_utc();
        let (method, sequence, uid) = (property("METHOD"), property("SEQUENCE").parse().unwrap(), property("UID"));
        Some(Invitation { method, sequence, starts_at: start, uid })
    }
}

type Copies<'a> = HashMap<Uuid, Vec<&'a Received>>;
type ByReason<'a> = HashMap<Reason<'a>, Vec<Uuid>>;

/// Nobody gets two mails for one reason; everybody has the last one.
fn mails(rows: &[InterviewRow], queued: &[MailRow], received: &[Received], known: &[Known], verdict: &mut Verdict<'_>) {
    verdict.count("mails received", received.len());
    let copies = by_message_id(received, verdict);
    let by_reason = mails_received(&copies, queued, known, verdict);
    for (reason, mails) in &by_reason {
        verdict.expect(mails.len() == 1, || format!("{} mails for one reason: {reason:?}", mails.len()));
    }
    ends(queued, &copies, verdict);
    let refused: HashSet<Reason<'_>> =
        queued.iter().filter(|mail| mail.state == "refused").filter_map(MailRow::reason).collect();
    last_mails(rows, &copies, &by_reason, &refused, verdict);
    reminders(rows, &by_reason, &refused, verdict);
}

fn by_message_id<'a>(received: &'a [Received], verdict: &mut Verdict<'_>) -> Copies<'a> {
    let mut copies = Copies::new();
    for mail in received {
        let id = mail.header("Message-ID").unwrap_or_default();
        match id.trim_start_matches('<').split('@').next().and_then(|id| id.parse().ok()) {
            Some(id) => copies.entry(id).or_default().push(mail),
            None => verdict.wrong.push("a mail has no Message-ID of ours".to_owned()),
        }
    }
    copies
}

/// Each mail that was received is one that was queued, and says what that one is about.
fn mails_received<'a>(
    copies: &Copies<'_>,
    queued: &'a [MailRow],
    known: &[Known],
    verdict: &mut Verdict<'_>,
) -> ByReason<'a> {
    let queued_by_id: HashMap<Uuid, &MailRow> = queued.iter().map(|mail| (mail.id, mail)).collect();
    let deleted: HashSet<i64> = known.iter().filter(|known| known.is_deleted).filter_map(|known| known.id).collect();
    let mut by_reason = ByReason::new();
    // Only who died or stood still at that moment did not hear, or note, that a mail was accepted.
    let mut unheard = 0;
    for (id, copies) in copies {
        let told = copies.iter().filter(|copy| copy.acknowledged).count();
        verdict.count("second copies with the same Message-ID", copies.len() - 1);
        unheard += told.saturating_sub(1);
        let Some(mail) = queued_by_id.get(id) else {
            let about = interview_of(copies[0]);
            verdict.expect(about.is_some_and(|id| deleted.contains(&id)), || format!("mail {id} is about {about:?}"));
            verdict.count("mails about interviews that Django deleted", 1);
            continue;
        };
        match mail.state.as_str() {
            "sent" => {}
            // It was overtaken, or refused, at the next try.
            "dropped" | "refused" => {
                verdict.count("mails received whose acceptance we never heard of", 1);
                unheard += told;
            }
            state => verdict.wrong.push(format!("mail {id} was received and counts as {state}")),
        }
        let Some(reason) = mail.reason() else { continue };
        for copy in copies {
            verdict.expect(copy.to() == [address(mail.user_id)], || format!("mail {id} went to {:?}", copy.to()));
            let said = Invitation::of(copy).map(|invitation| (invitation.sequence, invitation.method));
            let wanted = match reason.kind {
                REMINDER => None,
                "cancelled" => Some((mail.sequence, "CANCEL".to_owned())),
                _ => Some((mail.sequence, "REQUEST".to_owned())),
            };
            verdict.expect(said == wanted, || format!("mail {id} says {said:?} and not {wanted:?}"));
        }
        by_reason.entry(reason).or_default().push(*id);
    }
    verdict.count("acceptances told and not noted", unheard);
    // A server sends a few mails at a time, and most die while they send none.
    let deaths = verdict.deaths;
    verdict.expect(unheard as u64 <= 2 * deaths, || {
        format!("{unheard} acceptances were not noted, {deaths} servers died")
    });
    by_reason
}

/// What counts as sent was received; no more counts as refused than was; none was given up.
fn ends(queued: &[MailRow], copies: &Copies<'_>, verdict: &mut Verdict<'_>) {
    for mail in queued.iter().filter(|mail| mail.state == "sent" && !copies.contains_key(&mail.id)) {
        verdict.wrong.push(format!("mail {} counts as sent and was never received", mail.id));
    }
    let state = |state: &str| queued.iter().filter(|mail| mail.state == state).count();
    verdict.count("mails dropped: overtaken by a later change", state("dropped"));
    verdict.count("mails refused by the SMTP server for good", state("refused"));
    let refusals = verdict.figures.sum(faults::REFUSED);
    verdict.expect(state("refused") as u64 <= refusals, || "more mails count as refused than were".to_owned());
    verdict.expect(state("expired") == 0, || "mails expired within an hour".to_owned());
}

/// Both people of every interview have the mail of its last SEQUENCE, with the instant where it takes place.
fn last_mails(
    rows: &[InterviewRow],
    copies: &Copies<'_>,
    by_reason: &ByReason<'_>,
    refused: &HashSet<Reason<'_>>,
    verdict: &mut Verdict<'_>,
) {
    for row in rows {
        let kind = match (row.cancelled_at, row.ical_sequence) {
            (Some(_), _) => "cancelled",
            (None, 0) => "scheduled",
            (None, _) => "updated",
        };
        for user_id in [row.candidate_id, row.recruiter_id] {
            let (interview_id, sequence) = (row.id, row.ical_sequence);
            let reason = Reason { interview_id, user_id, kind, sequence, starts_at: None };
            let Some(mails) = by_reason.get(&reason) else {
                verdict.expect(refused.contains(&reason), || format!("nobody got the mail {reason:?}"));
                continue;
            };
            verdict.count("last mails of interviews, one to each person", 1);
            for copy in &copies[&mails[0]] {
                let invitation = Invitation::of(copy);
                let is_well = invitation.is_some_and(|invitation| {
                    invitation.starts_at == row.starts_at
                        && row.ical_uid.as_ref().is_none_or(|uid| *uid == invitation.uid)
                });
                verdict.expect(is_well, || format!("a last mail of interview {} tells something else", row.id));
            }
        }
    }
}

/// By the link to the interview's room.
fn interview_of(mail: &Received) -> Option<i64> {
    mail.text().split("/interviews/").nth(1)?.split('/').next()?.parse().ok()
}

/// Whoever has an interview a day or an hour before which has come since it was made was reminded, and nobody else.
fn reminders(
    rows: &[InterviewRow],
    by_reason: &ByReason<'_>,
    refused: &HashSet<Reason<'_>>,
    verdict: &mut Verdict<'_>,
) {
    let now = Clock::System.now();
    let has_come = |row: &InterviewRow, starts_at: DateTime<Utc>, until: DateTime<Utc>| {
        let moments = [TimeDelta::days(1), TimeDelta::hours(1)].map(|before| starts_at - before);
        moments.iter().any(|moment| row.created_at <= *moment && *moment <= until)
    };
    let by_id: HashMap<i64, &InterviewRow> = rows.iter().map(|row| (row.id, row)).collect();
    for reason in by_reason.keys().filter(|reason| reason.kind == REMINDER) {
        verdict.count("reminders received", 1);
        let is_well = reason.starts_at.is_some_and(|start| has_come(by_id[&reason.interview_id], start, now));
        verdict.expect(is_well, || format!("nothing was to be reminded of: {reason:?}"));
    }
    for row in rows.iter().filter(|row| row.cancelled_at.is_none()) {
        // One that was moved to a start whose moment had passed already is not reminded of; when it was moved is
        // not to be seen.
        if row.ical_sequence > 0 || !has_come(row, row.starts_at, now - TimeDelta::minutes(1)) {
            continue;
        }
        for user_id in [row.candidate_id, row.recruiter_id] {
            verdict.count("reminders that had to come", 1);
            let (interview_id, starts_at) = (row.id, Some(row.starts_at));
            let reason = Reason { interview_id, user_id, kind: REMINDER, sequence: 0, starts_at };
            verdict.expect(by_reason.contains_key(&reason) || refused.contains(&reason), || {
                format!("nobody got the reminder {reason:?}")
            });
        }
    }
}

/// One for each interview that was scheduled, one for each that was cancelled; of changes no more than there were.
async fn notifications(world: &World, rows: &[InterviewRow], verdict: &mut Verdict<'_>) {
    let told: Vec<(String, i64)> = sqlx::query_as(
        "SELECT action_url || CASE WHEN message LIKE '%cancelled%' THEN ' cancelled' WHEN message LIKE '%changed%'
             THEN ' changed' ELSE ' scheduled' END, count(*) FROM notifications_notification GROUP BY 1",
    )
    .fetch_all(&world.database.pool)
    .await
    .unwrap();
    let told: HashMap<String, i64> = told.into_iter().collect();
    for row in rows {
        let count = |what: &str| told.get(&format!("/interviews/{} {what}", row.id)).copied().unwrap_or(0);
        let cancelled = i64::from(row.cancelled_at.is_some());
        let found = (count("scheduled"), count("cancelled"));
        verdict.expect(found == (1, cancelled), || format!("interview {} was notified of {found:?} times", row.id));
        let changes = i64::from(row.ical_sequence) - cancelled;
        verdict.expect(count("changed") <= changes, || format!("interview {} has too many changes", row.id));
    }
}

/// The servers that are left hold nothing that they need not.
async fn look_for_leaks(world: &World, servers: &[Server], verdict: &mut Verdict<'_>) {
    let connections = world.count("pg_stat_activity WHERE datname = current_database()").await;
    let open = world.count("pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'").await;
    // Ten of each server for requests, and those of its queue; eight of ours.
    let allowed = (10 + i64::from(db::queue::CONNECTIONS + db::RESERVED)) * servers.len() as i64 + 8;
    verdict.expect(connections <= allowed, || format!("{connections} connections to the database"));
    verdict.expect(open == 0, || format!("{open} transactions are left open"));
    // Besides those to the database, up to eight to the SMTP server, and some that a process has in any case.
    let files = |server: &Server| fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let are_few = || servers.iter().all(|server| files(server) < 45);
    // Connections to Google are kept for 20 s after their use.
    let ends = Instant::now() + Duration::from_secs(60);
    while !are_few() && Instant::now() < ends {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for server in servers {
        verdict.count("open files of the last servers", files(server));
    }
    verdict.expect(are_few(), || "a server keeps files open".to_owned());
}
