//! Reminders a day and an hour before an interview (contract §8.2).
//!
//! Only a sweep makes them, so they also come for rows that Django inserted, and there is nothing to take back when an
//! interview is moved or cancelled. Of any number of instances one reminds of each moment: it sets the row's flag in
//! the transaction that queues the mails. A moment that had passed when the interview was made is not reminded of.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::model;
use crate::{
    context::Context,
    db,
    mail::{self, Kind, Mail},
    zone,
};

pub const DAY_BEFORE: TimeDelta = TimeDelta::hours(24);
pub const HOUR_BEFORE: TimeDelta = TimeDelta::hours(1);

/// How many interviews one transaction reminds of.
const BATCH: i64 = 200;

/// The sweep: queues every reminder that is due. Meant to run at least once a minute.
pub async fn remind(ctx: &Context) -> anyhow::Result<()> {
    let mut after = (zone::FIRST, 0);
    loop {
        let now = ctx.clock.now();
        let mut tx = ctx.db.begin().await?;
        let mut due = due_for_reminders(&mut tx, now, after, BATCH).await?;
        let Some(last) = due.last() else { return Ok(()) };
        after = (last.starts_at, last.id);
        // Instants are a cache: a row that Django has just moved waits until its instants are right again.
        due.retain(Upcoming::is_placed);
        if due.is_empty() {
            continue;
        }
        set_reminded(&mut tx, &due, now).await?;
        let mails: Vec<Mail> = due.iter().filter(|row| is_wanted(row, now)).flat_map(mails).collect();
        mail::enqueue(&mut tx, ctx, &mails).await?;
        crash_point!("reminders: about to commit");
        tx.commit().await?;
        tracing::info!(interviews = due.len(), mails = mails.len(), "reminders queued");
    }
}

/// Whether the moment that is due (the later one, where both are) was still to come when the interview was made.
fn is_wanted(row: &Upcoming, now: DateTime<Utc>) -> bool {
    let moment = match row.starts_at - HOUR_BEFORE <= now {
        true => row.starts_at - HOUR_BEFORE,
        false => row.starts_at - DAY_BEFORE,
    };
    row.created_at <= moment
}

fn mails(row: &Upcoming) -> impl Iterator<Item = Mail> {
    let people = std::iter::once(row.candidate_id).chain(row.recruiter_id);
    people.map(|user_id| Mail {
        interview_id: Some(row.id),
        sequence: row.ical_sequence,
        starts_at: Some(row.starts_at),
        ..Mail::new(Kind::Reminder, user_id)
    })
}

/// An interview that begins soon.
struct Upcoming {
    id: i64,
    date: NaiveDate,
    time: NaiveTime,
    timezone: String,
    starts_at: DateTime<Utc>,
    starts_at_tzdb: Option<String>,
    ical_sequence: i32,
    candidate_id: i64,
    recruiter_id: Option<i64>,
    created_at: DateTime<Utc>,
}

impl Upcoming {
    /// Whether its cached start is right.
    fn is_placed(&self) -> bool {
        let version = self.starts_at_tzdb.as_deref();
        let zone = model::stored_zone(self.date, self.time, &self.timezone, Some(self.starts_at), version);
        zone.stored_instant(self.date, self.time) == self.starts_at
    }
}

/// Locks the next interviews that have a reminder due by their cached start; those that somebody else has locked are
/// theirs.
async fn due_for_reminders(
    tx: &mut db::Connection,
    now: DateTime<Utc>,
    (after_start, after_id): (DateTime<Utc>, i64),
    limit: i64,
) -> sqlx::Result<Vec<Upcoming>> {
    sqlx::query_as!(
        Upcoming,
        r#"SELECT id, date, time, timezone::text AS "timezone!", starts_at AS "starts_at!", starts_at_tzdb::text,
                  ical_sequence::int4 AS "ical_sequence!", candidate_id, recruiter_id, created_at
           FROM company_interview
           WHERE cancelled_at IS NULL AND starts_at > $1 AND starts_at <= $3 AND (starts_at, id) > ($5, $6)
             AND ((NOT reminder_1h_sent AND starts_at <= $2) OR (NOT reminder_24h_sent AND starts_at <= $3))
           ORDER BY starts_at, id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED"#,
        now,
        now + HOUR_BEFORE,
        now + DAY_BEFORE,
        limit,
        after_start,
        after_id
    )
    .fetch_all(tx)
    .await
}

/// Flags what the rows have been reminded of: of the day, and within the hour of the hour too.
async fn set_reminded(tx: &mut db::Connection, rows: &[Upcoming], now: DateTime<Utc>) -> sqlx::Result<()> {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    sqlx::query!(
        "UPDATE company_interview
         SET reminder_24h_sent = true, reminder_1h_sent = reminder_1h_sent OR starts_at <= $2, updated_at = $3
         WHERE id = ANY($1)",
        &ids,
        now + HOUR_BEFORE,
        now
    )
    .execute(tx)
    .await?;
    Ok(())
}
