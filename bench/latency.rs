//! What is measured one by one: the start, what scheduling costs beside Google and SMTP, and reminders leaving.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use chrono::{Days, NaiveDate, TimeDelta, Utc};
use interviews::dev::google::{Behaviour, Simulator};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    others::{Relay, Sink},
    server::Server,
};

/// Times, to be sorted into percentiles.
pub struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// From the start of the process to its first answer, so many times.
pub fn starts(settings: &[(&str, String)], log: &Path, times: usize) -> anyhow::Result<Times> {
    let starts = (0..times).map(|_| Ok(Server::start(settings, log)?.1)).collect::<anyhow::Result<_>>()?;
    Ok(Times::new(starts))
}

/// Scheduling, one request after the other.
pub struct Scheduling {
    pub total: Times,
    /// While it was Google's or the SMTP server's turn.
    pub others: Times,
    pub ours: Times,
}

/// Schedules interviews of `kind` as a recruiter, whose server reaches the others through `relays`.
pub async fn schedule(
    client: &Client,
    server: &Server,
    relays: &[Relay],
    token: &str,
    (candidate, job): (i64, i64),
    kind: &str,
    times: usize,
) -> anyhow::Result<Scheduling> {
    const WARM_UP: usize = 10;
    let first_day = NaiveDate::from_ymd_opt(2031, 1, 1).context("a date")?;
    let url = format!("http://127.0.0.1:{}/api/company/create-interview/", server.port);
    let (mut total, mut others, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..times + WARM_UP {
        let body = json!({"candidate_id": candidate, "job_id": job, "date": first_day + Days::new(nth as u64), "time": "14:00",
            "timezone": "America/New_York", "interview_type": kind, "notes": "Please bring your papers along."});
        Relay::taken(relays);
        let begun = Instant::now();
        let answer = client.post(&url).bearer_auth(token).json(&body).send().await?;
        let (status, answer) = (answer.status(), answer.text().await?);
        let took = begun.elapsed();
        ensure!(status.is_success(), "an interview was not scheduled: {status} {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["emails_sent"]["candidate"] == true, "a mail was not sent: {answer}");
        if nth >= WARM_UP {
            let taken = Relay::taken(relays).min(took);
            total.push(took);
            others.push(taken);
            ours.push(took - taken);
        }
    }
    Ok(Scheduling { total: Times::new(total), others: Times::new(others), ours: Times::new(ours) })
}

/// Connects a recruiter's Google account, at the simulator.
pub async fn connect(client: &Client, server: &Server, google: &Simulator, token: &str) -> anyhow::Result<()> {
    google.behave(Behaviour { pending_answers: 0, ..Behaviour::default() });
    let url = format!("http://127.0.0.1:{}/api/company/google/auth-url/", server.port);
    let answer: Value = client.get(url).bearer_auth(token).send().await?.json().await?;
    let wanted = answer["authorization_url"].as_str().context("no authorization URL")?;
    let back = google.allow(wanted).map_err(anyhow::Error::msg)?;
    let path = back.splitn(4, '/').nth(3).context("no path to come back to")?;
    let answer = client.get(format!("http://127.0.0.1:{}/{path}", server.port)).send().await?;
    let location = answer.headers().get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
    ensure!(location.contains("google_oauth=success"), "Google was not connected: {location}");
    Ok(())
}

/// One durable commit of one row, as the disk allows it.
pub async fn commits(db: &PgPool, times: usize) -> anyhow::Result<Times> {
    let mut conn = db.acquire().await?;
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        sqlx::query("UPDATE users_user SET last_login = now() WHERE id = 1").execute(&mut *conn).await?;
        took.push(begun.elapsed());
    }
    Ok(Times::new(took))
}

/// How reminders left.
pub struct Reminders {
    pub mails: usize,
    /// From the rows' commit to the last mail's acceptance.
    pub all: Duration,
    /// From the first mail's acceptance to the last one's.
    pub leaving: Duration,
}

/// Inserts interviews that begin within the hour and have not been reminded of; both people of each get a mail.
pub async fn remind(db: &PgPool, sink: &Sink, interviews: i64) -> anyhow::Result<Reminders> {
    let before = sink.accepted();
    let mails = 2 * interviews as usize;
    #[allow(clippy::disallowed_methods, reason = "the bench's rows are due by the machine's clock")]
    let starts = Utc::now() + TimeDelta::minutes(45);
    sqlx::query(
        "INSERT INTO company_interview (id, date, time, timezone, interview_type, meeting_link, room_id, created_at,
             updated_at, candidate_id, recruiter_id, job_id, job_title, ical_uid, ical_organizer, starts_at, ends_at,
             starts_at_tzdb)
         SELECT nextval(pg_get_serial_sequence('company_interview', 'id')), $2::date, $2::time(0), 'UTC', 'phone', '',
                'R' || lpad(id::text, 7, '0'), created_at, updated_at, candidate_id, recruiter_id, job_id, job_title,
                'r' || id, ical_organizer, $2::date + $2::time(0), $2::date + $2::time(0) + interval '1 hour', $3
         FROM (SELECT * FROM company_interview WHERE created_at < $4 ORDER BY id LIMIT $1) AS earlier",
    )
    .bind(interviews)
    .bind(starts.naive_utc())
    .bind(interviews::zone::tzdb_version())
    .bind(starts - TimeDelta::days(3))
    .execute(db)
    .await?;
    let inserted = Instant::now();
    let mut first = None;
    loop {
        let accepted = sink.accepted() - before;
        if accepted > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if accepted >= mails {
            break;
        }
        ensure!(inserted.elapsed() < Duration::from_secs(600), "{accepted} of {mails} reminders left in ten minutes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let leaving = first.map_or(Duration::ZERO, |first| first.elapsed());
    Ok(Reminders { mails, all: inserted.elapsed(), leaving })
}

/// The address in a URL of the simulator.
pub fn address(url: &str) -> anyhow::Result<SocketAddr> {
    Ok(url.trim_start_matches("http://").parse()?)
}
