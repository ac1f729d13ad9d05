//! How many mails people get: one update a minute about an interview, and so many in an hour and a day from one
//! recruiter.
//!
//! Hides how both hold on any number of servers. An update within another one's minute waits for its end, and one that
//! waits already says what is new too. A mail that a recruiter is about to cause is reserved before Google is asked,
//! under a lock of that recruiter that lasts as long as the caller's short transaction, and released when nothing comes
//! of it. So no number of requests at once gets more mails through than the limit, and those of a request that died
//! count for their hour or day. Reminders, cancellations and what sweeps send are not counted.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Kind, Mail};
use crate::{context::Context, db, http};

/// So far apart are the updates that somebody gets about one interview.
const GAP: TimeDelta = TimeDelta::minutes(1);

const HOUR: TimeDelta = TimeDelta::hours(1);
const DAY: TimeDelta = TimeDelta::days(1);

/// When a mail that is queued now leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Departure {
    Now,
    Later(DateTime<Utc>),
    /// With another of the same kind that nobody has tried to send yet: that one says what this one would.
    Joined,
}

/// The departures of mails that the transaction is to queue, in order. A mail that others join gets their SEQUENCE.
pub async fn departures(db: &mut db::Connection, mails: &[Mail], now: DateTime<Utc>) -> sqlx::Result<Vec<Departure>> {
    let updates: Vec<&Mail> = mails.iter().filter(|mail| mail.kind == Kind::Updated).collect();
    if updates.is_empty() {
        return Ok(vec![Departure::Now; mails.len()]);
    }
    let interviews: Vec<i64> = updates.iter().map(|mail| mail.interview_id.unwrap_or_default()).collect();
    let users: Vec<i64> = updates.iter().map(|mail| mail.user_id).collect();
    let sequences: Vec<i32> = updates.iter().map(|mail| mail.sequence).collect();
    // One that was tried may have arrived with what it said.
    let latest = sqlx::query!(
        r#"WITH wanted AS (
               SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[]) AS w (interview_id, user_id, sequence)),
           joined AS (
               UPDATE ivs_mail AS mail SET sequence = wanted.sequence FROM wanted
               WHERE mail.interview_id = wanted.interview_id AND mail.user_id = wanted.user_id
                 AND mail.kind = $4 AND mail.attempts = 0 AND mail.finished_at IS NULL AND mail.resent_at IS NULL
               RETURNING mail.id)
           SELECT wanted.interview_id AS "interview_id!", wanted.user_id AS "user_id!",
                  max(COALESCE(mail.due_at, mail.created_at)) AS "at!",
                  bool_or(mail.id IN (SELECT id FROM joined)) AS "is_joined!"
           FROM wanted
           JOIN ivs_mail AS mail ON mail.interview_id = wanted.interview_id AND mail.user_id = wanted.user_id
           WHERE mail.kind = $4
             AND (COALESCE(mail.due_at, mail.created_at) > $5 OR mail.id IN (SELECT id FROM joined))
           GROUP BY 1, 2"#,
        &interviews,
        &users,
        &sequences,
        Kind::Updated.as_str(),
        now - GAP
    )
    .fetch_all(db)
    .await?;
    let latest: BTreeMap<_, _> =
        latest.into_iter().map(|row| ((row.interview_id, row.user_id), (row.at, row.is_joined))).collect();
    let departure = |mail: &Mail| {
        let of_person = mail.interview_id.and_then(|interview| latest.get(&(interview, mail.user_id)));
        match of_person.filter(|_| mail.kind == Kind::Updated) {
            None => Departure::Now,
            Some((_, true)) => Departure::Joined,
            // One that waits has been tried at somebody's wish; this one takes its place.
            Some((at, false)) if *at > now => Departure::Later(*at),
            Some((at, false)) => Departure::Later(*at + GAP),
        }
    };
    Ok(mails.iter().map(departure).collect())
}

/// Counts a mail that a recruiter is about to cause to a candidate, under an `id` of the caller's: the first about an
/// interview ([`Kind::Scheduled`]) or an update. Nothing is limited where nothing is sent: without an SMTP server only
/// Google sends something, when there is an event.
///
/// # Errors
/// [`http::Error::Throttled`] when there were too many; then it is not counted.
pub async fn reserve(
    tx: &mut db::Connection,
    ctx: &Context,
    id: Uuid,
    (recruiter_id, candidate_id): (i64, i64),
    kind: Kind,
    has_event: bool,
) -> http::Result<()> {
    if ctx.smtp.is_none() && !has_event {
        return Ok(());
    }
    let (limits, now) = (&ctx.settings.mail_limits, ctx.clock.now());
    // A statement of its own, since one sees only what was committed before it began.
    sqlx::query!("SELECT FROM pg_advisory_xact_lock(hashtextextended('ivs_counted_mail', $1))", recruiter_id)
        .execute(&mut *tx)
        .await?;
    // A limit is reached when as many are there, and has room again when the oldest of those is out of its time.
    let full_until = sqlx::query_scalar!(
        r#"WITH full_until AS MATERIALIZED (
               SELECT max(until) AS until FROM (
                   (SELECT counted_at + interval '1 hour' AS until FROM ivs_counted_mail
                    WHERE recruiter_id = $2 AND candidate_id = $3 AND counted_at > $6
                    ORDER BY counted_at DESC OFFSET $8 LIMIT 1)
                   UNION ALL
                   (SELECT counted_at + interval '24 hours' FROM ivs_counted_mail
                    WHERE recruiter_id = $2 AND candidate_id = $3 AND counted_at > $7
                    ORDER BY counted_at DESC OFFSET $9 LIMIT 1)
                   UNION ALL
                   (SELECT counted_at + interval '24 hours' FROM ivs_counted_mail
                    WHERE $4 AND is_invitation AND recruiter_id = $2 AND counted_at > $7
                    ORDER BY counted_at DESC OFFSET $10 LIMIT 1)) AS reached),
           counted AS (
               INSERT INTO ivs_counted_mail (id, recruiter_id, candidate_id, is_invitation, counted_at)
               SELECT $1, $2, $3, $4, $5 FROM full_until WHERE until IS NULL)
           SELECT until FROM full_until"#,
        id,
        recruiter_id,
        candidate_id,
        kind == Kind::Scheduled,
        now,
        now - HOUR,
        now - DAY,
        limits.candidate_hour - 1,
        limits.candidate_day - 1,
        limits.invitations_day - 1
    )
    .fetch_one(tx)
    .await?;
    full_until.map_or(Ok(()), |until| Err(http::Error::throttled_until(until, now)))
}

/// Forgets a reserved mail that nobody will get.
pub async fn release(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM ivs_counted_mail WHERE id = $1", id).execute(db).await?;
    Ok(())
}

/// Forgets what no limit looks at any more.
pub async fn remove_expired(db: impl PgExecutor<'_>, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM ivs_counted_mail WHERE counted_at <= $1", now - DAY).execute(db).await?;
    Ok(())
}
