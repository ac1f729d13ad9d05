//! What is left when everything has settled: interviews from the database, events from Google, mails from the SMTP
//! server, compared with what the people were told and with each other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    time::Duration,
};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use interviews::{clock::Clock, dev::mailbox::Received};
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    people::{Facts, Known, People},
    servers::Servers,
    support::process::{Server, World},
};

pub struct Verdict {
    figures: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

impl Verdict {
    pub fn figures(&self) -> Vec<(String, u64)> {
        self.figures.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
    }

    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn count(&mut self, what: &'static str, count: usize) {
        *self.figures.entry(what).or_default() += count as u64;
    }

    fn expect(&mut self, is_well: bool, otherwise: impl FnOnce() -> String) {
        if !is_well {
            self.wrong.push(otherwise());
        }
    }
}

/// Waits until nothing is left to do, then compares.
pub async fn reach(world: &World, people: &People, killed: &Servers, servers: &[Server], patience: u64) -> Verdict {
    let patience = match patience {
        0 => {
            // Longer than the latest fault takes: no call is under way any more.
            tokio::time::sleep(Duration::from_secs(22)).await;
            Duration::from_secs(120)
        }
        minutes => Duration::from_secs(60 * minutes),
    };
    let ends = Instant::now() + patience;
    let is_real = patience > Duration::from_secs(120);
    while !left_to_do(world).await.is_empty() && Instant::now() < ends {
        if !is_real {
            let_six_minutes_pass(world).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let mut verdict = Verdict { figures: BTreeMap::new(), wrong: killed.panics() };
    for (what, count) in left_to_do(world).await {
        verdict.wrong.push(format!("{count} {what}"));
    }
    // Two seconds of quiet: whatever is still sent, doubly perhaps, is seen.
    tokio::time::sleep(Duration::from_secs(2)).await;
    compare(world, &people.known(), &mut verdict).await;
    look_for_leaks(world, servers, &mut verdict).await;
    verdict
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

async fn left_to_do(world: &World) -> Vec<(&'static str, i64)> {
    let mut left = Vec::new();
    for (what, table) in [
        ("intents are not settled", "ivs_intent"),
        ("changes are not settled", "ivs_change"),
        ("mails are still queued", "ivs_mail WHERE state = 'queued'"),
        // But for runs that others have replaced: those are removed every ten minutes.
        ("jobs are left", "ivs_jobs._private_jobs WHERE id NOT IN (SELECT id FROM ivs_jobs._private_job_retirements)"),
        (
            "reminders are still due",
            "company_interview WHERE cancelled_at IS NULL AND NOT reminder_24h_sent AND starts_at > now()
                 AND starts_at < now() + interval '24 h 2 min'",
        ),
        (
            "idempotency keys wait for a request",
            "ivs_idempotency_key WHERE interview_id IS NULL
             AND intent_id IN (SELECT id FROM ivs_intent)",
        ),
    ] {
        let count = world.count_of(table).await;
        if count > 0 {
            left.push((what, count));
        }
    }
    left
}

impl World {
    async fn count_of(&self, what: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {what}");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.database.pool).await.unwrap()
    }
}

#[derive(FromRow)]
struct Row {
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
    reminder_24h_sent: bool,
    created_at: DateTime<Utc>,
}

impl Row {
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
struct Queued {
    id: Uuid,
    kind: String,
    interview_id: Option<i64>,
    user_id: i64,
    sequence: i32,
    starts_at: Option<DateTime<Utc>>,
    state: String,
}

async fn compare(world: &World, known: &[Known], verdict: &mut Verdict) {
    let pool = &world.database.pool;
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM company_interview ORDER BY id").fetch_all(pool).await.unwrap();
    let queued: Vec<Queued> = sqlx::query_as("SELECT * FROM ivs_mail").fetch_all(pool).await.unwrap();
    verdict.count("interviews in the end", rows.len());
    told(&rows, known, verdict);
    events(&rows, &world.google.events(), known, verdict);
    mails(&rows, &queued, &world.mailbox.mails(), verdict);
    notifications(world, &rows, verdict).await;
}

/// Every interview is what its recruiter was told, and there are no others.
fn told(rows: &[Row], known: &[Known], verdict: &mut Verdict) {
    let by_id: HashMap<i64, &Known> = known.iter().filter_map(|known| Some((known.id?, known))).collect();
    let existing: HashMap<i64, &Row> = rows.iter().map(|row| (row.id, row)).collect();
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
fn events(rows: &[Row], events: &[Value], known: &[Known], verdict: &mut Verdict) {
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
        verdict
            .expect(event["hangoutLink"] == row.meeting_link.as_str(), || format!("interview {id}'s link is another"));
    }
    // Django deletes rows without telling anybody.
    let deleted = known.iter().filter(|known| known.is_deleted && known.facts.is_meet).count();
    let orphans = by_id.len();
    verdict.count("events of interviews that Django deleted", orphans);
    verdict
        .expect(orphans <= deleted, || format!("{orphans} events without an interview, and Django deleted {deleted}"));
}

fn address(user_id: i64) -> String {
    format!("person{user_id}@x.test")
}

/// One calendar mail as the SMTP server has it.
struct Invitation {
    method: String,
    sequence: i32,
    starts_at: DateTime<Utc>,
}

impl Invitation {
    fn of(mail: &Received) -> Option<Invitation> {
        let calendar = mail.calendar()?;
        let property = |name: &str| {
            calendar.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
        };
        let start = NaiveDateTime::parse_from_str(property("DTSTART"), "%Y%m%dT%H%M%SZ").unwrap().and_utc();
        let (method, sequence) = (property("METHOD").to_owned(), property("SEQUENCE").parse().unwrap());
        Some(Invitation { method, sequence, starts_at: start })
    }
}

/// Nobody gets two mails for one reason; everybody has the last one.
fn mails(rows: &[Row], queued: &[Queued], received: &[Received], verdict: &mut Verdict) {
    verdict.count("mails received", received.len());
    let mut copies: HashMap<Uuid, Vec<&Received>> = HashMap::new();
    for mail in received {
        let id = mail.header("Message-ID").unwrap_or_default();
        let id = id.trim_start_matches('<').split('@').next().and_then(|id| id.parse().ok());
        match id {
            Some(id) => copies.entry(id).or_default().push(mail),
            None => verdict.wrong.push("a mail has no Message-ID of ours".to_owned()),
        }
    }
    let again = received.len() - copies.len();
    verdict.count("second copies with the same Message-ID", again);

    let queued_by_id: HashMap<Uuid, &Queued> = queued.iter().map(|mail| (mail.id, mail)).collect();
    // Interview, person, kind, SEQUENCE, and of reminders the start: how many different mails.
    let mut of_reason: HashMap<(i64, i64, &str, i32, Option<DateTime<Utc>>), Vec<Uuid>> = HashMap::new();
    for (id, copies) in &copies {
        let Some(mail) = queued_by_id.get(id) else {
            verdict.count("mails about interviews that Django deleted", 1);
            continue;
        };
        let Some(interview_id) = mail.interview_id else { continue };
        match mail.state.as_str() {
            "sent" => {}
            // We were not told of its acceptance, and then it was overtaken, or refused at the next try.
            "dropped" | "refused" => verdict.count("mails received whose acceptance we were never told of", 1),
            state => verdict.wrong.push(format!("mail {id} was received and counts as {state}")),
        }
        for copy in copies {
            verdict.expect(copy.to() == [address(mail.user_id)], || format!("mail {id} went to {:?}", copy.to()));
            if let Some(invitation) = Invitation::of(copy) {
                let is_cancellation = mail.kind == "cancelled";
                verdict.expect(
                    (invitation.sequence, invitation.method == "CANCEL") == (mail.sequence, is_cancellation),
                    || format!("mail {id}: {} {}", invitation.method, invitation.sequence),
                );
            }
        }
        let sequence = if mail.kind == "reminder" { 0 } else { mail.sequence };
        of_reason.entry((interview_id, mail.user_id, &mail.kind, sequence, mail.starts_at)).or_default().push(*id);
    }
    for (reason, mails) in &of_reason {
        verdict.expect(mails.len() == 1, || format!("{} mails for one reason: {reason:?}", mails.len()));
    }
    for mail in queued.iter().filter(|mail| mail.state == "sent" && !copies.contains_key(&mail.id)) {
        verdict.wrong.push(format!("mail {} counts as sent and was never received", mail.id));
    }
    verdict.count("mails dropped: overtaken by a later change", state(queued, "dropped"));
    verdict.count("mails refused by the SMTP server for good", state(queued, "refused"));

    let is_refused = |row: &Row, user_id, kind: &str, sequence| {
        queued.iter().any(|mail| {
            (mail.interview_id, mail.user_id, mail.kind.as_str()) == (Some(row.id), user_id, kind)
                && (kind == "reminder" || mail.sequence == sequence)
                && mail.state == "refused"
        })
    };
    for row in rows {
        let kind = match (row.cancelled_at, row.ical_sequence) {
            (Some(_), _) => "cancelled",
            (None, 0) => "scheduled",
            (None, _) => "updated",
        };
        for user_id in [row.candidate_id, row.recruiter_id] {
            match of_reason.get(&(row.id, user_id, kind, row.ical_sequence, None)) {
                Some(mails) => {
                    verdict.count("last mails of interviews, as they should be", 1);
                    let invitation = Invitation::of(copies[&mails[0]][0]);
                    verdict.expect(invitation.is_some_and(|invitation| invitation.starts_at == row.starts_at), || {
                        format!("the last mail of interview {} tells another time", row.id)
                    });
                }
                None => verdict.expect(is_refused(row, user_id, kind, row.ical_sequence), || {
                    format!("{user_id} has no mail \"{kind}\" {} of interview {}", row.ical_sequence, row.id)
                }),
            }
        }
    }
    reminders(rows, &of_reason, is_refused, verdict);
}

fn state(queued: &[Queued], state: &str) -> usize {
    queued.iter().filter(|mail| mail.state == state).count()
}

type Reasons<'a> = HashMap<(i64, i64, &'a str, i32, Option<DateTime<Utc>>), Vec<Uuid>>;

/// Whoever has an interview whose day before has come since it was made was reminded.
fn reminders(
    rows: &[Row],
    of_reason: &Reasons<'_>,
    is_refused: impl Fn(&Row, i64, &str, i32) -> bool,
    verdict: &mut Verdict,
) {
    verdict.count("reminders received", of_reason.keys().filter(|reason| reason.2 == "reminder").count());
    let now = Clock::System.now();
    for row in rows.iter().filter(|row| row.cancelled_at.is_none()) {
        let moment = row.starts_at - TimeDelta::days(1);
        // One moved there after the moment is not reminded of any more; `changed` leaves no trace of when.
        let is_due = row.created_at < moment && moment < now - TimeDelta::minutes(1) && row.ical_sequence == 0;
        if !is_due {
            continue;
        }
        verdict.expect(row.reminder_24h_sent, || format!("interview {} was not reminded of", row.id));
        for user_id in [row.candidate_id, row.recruiter_id] {
            verdict.count("reminders that had to come", 1);
            let came = of_reason.contains_key(&(row.id, user_id, "reminder", 0, Some(row.starts_at)));
            verdict.expect(came || is_refused(row, user_id, "reminder", 0), || {
                format!("{user_id} was not reminded of interview {}", row.id)
            });
        }
    }
}

/// One for each interview that was scheduled, one for each that was cancelled.
async fn notifications(world: &World, rows: &[Row], verdict: &mut Verdict) {
    let told: Vec<(String, i64)> = sqlx::query_as(
        "SELECT action_url || ' ' || CASE WHEN message LIKE '%cancelled%' THEN 'cancelled' WHEN message LIKE '%changed%'
             THEN 'changed' ELSE 'scheduled' END, count(*) FROM notifications_notification GROUP BY 1",
    )
    .fetch_all(&world.database.pool)
    .await
    .unwrap();
    let told: HashMap<String, i64> = told.into_iter().collect();
    for row in rows {
        let count = |what: &str| {
            let mine = |(key, _): &(&String, &i64)| **key == format!("/interviews/{} {what}", row.id);
            told.iter().find(mine).map_or(0, |(_, count)| *count)
        };
        let wanted = (1, i64::from(row.cancelled_at.is_some()));
        let found = (count("scheduled"), count("cancelled"));
        verdict.expect(found == wanted, || format!("interview {} was notified of {found:?} times", row.id));
    }
}

/// The servers that are left hold nothing that they need not, and end when they are asked to.
async fn look_for_leaks(world: &World, servers: &[Server], verdict: &mut Verdict) {
    let connections =
        world.count_of("pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
    let stuck = world
        .count_of("pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'")
        .await;
    // Ten of each server's pool and one that listens; eight of ours.
    let allowed = 12 * servers.len() as i64 + 8;
    verdict.expect(connections <= allowed, || format!("{connections} connections to the database"));
    verdict.expect(stuck == 0, || format!("{stuck} transactions are left open"));
    for server in servers {
        let files = fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
        verdict.count("open files of the servers in the end", files);
        verdict.expect(files < 60, || format!("a server has {files} files open"));
    }
    for server in servers {
        server.signal("TERM");
    }
    let ends = Instant::now() + Duration::from_secs(10);
    for server in servers {
        while fs::read_to_string(format!("/proc/{}/stat", server.id())).is_ok_and(|stat| !stat.contains(") Z ")) {
            if Instant::now() > ends {
                verdict.wrong.push("a server does not end: something in it still runs".to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
