//! Reminders a day and an hour before an interview (contract §8.2).
//!
//! Only a sweep makes them, so they also come for rows that Django inserted, and there is nothing to take back when an
//! interview is moved or cancelled. Of any number of instances one reminds of each moment: it sets the row's flag in the
//! transaction that queues the mails. A moment that had passed when the interview was made is not reminded of.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::store::{self, Upcoming};
use crate::{
    context::Context,
    mail::{self, Kind, NewMail},
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
        let mut due = store::due_for_reminders(&mut tx, now, after, BATCH).await?;
        let Some(last) = due.last() else { return Ok(()) };
        after = (last.starts_at, last.id);
        // Instants are a cache: a row that Django has just moved waits until its instants are right again.
        due.retain(Upcoming::is_placed);
        if due.is_empty() {
            continue;
        }
        store::set_reminded(&mut tx, &due, now).await?;
        let mails: Vec<NewMail> = due.iter().filter(|row| is_wanted(row, now)).flat_map(mails).collect();
        if ctx.smtp.is_some() && !mails.is_empty() {
            mail::enqueue(&mut tx, now, &mails, Duration::ZERO).await?;
        }
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

fn mails(row: &Upcoming) -> impl Iterator<Item = NewMail> {
    let people = std::iter::once(row.candidate_id).chain(row.recruiter_id);
    people.map(|user_id| NewMail {
        kind: Kind::Reminder,
        interview_id: Some(row.id),
        user_id,
        recipient: None,
        sequence: row.ical_sequence,
        starts_at: Some(row.starts_at),
    })
}
