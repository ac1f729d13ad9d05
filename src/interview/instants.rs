//! The instants of interviews as SQL sees them (contract §6.1): a cache of what wall time and zone mean by the time
//! rules compiled in.
//!
//! Rows that Django inserted or changed are filled in silently. When this program brings newer rules than those a row
//! was computed by, and they give a coming interview another instant, that is news to the people who meet: its calendar
//! event and reminders move, and both get a mail. An instance with older rules takes what newer ones have written for
//! right ([`stored_zone`]), so that two versions side by side agree.
//!
//! Nothing tells us what Django has changed, so rows are looked at: every half minute those of these days and those
//! that an index knows as without instants or more than 16 hours from their wall time, and all others in turn, without
//! haste.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use sqlx::PgExecutor;
use tokio::time::Instant;

use super::{
    claim, emails,
    model::{stored_span, stored_zone},
    reminder::{DAY_BEFORE, HOUR_BEFORE},
};
use crate::{context::Context, db, mail::Kind, zone};

/// Which rows [`fill_instants`] looks at, besides those whose instants are missing or far from their wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of these days: all that reminders and rooms go by.
    Soon,
    /// Those that are not long past.
    Ahead,
    All,
}

/// "These days" and "long past": more than a reminder looks ahead, and by more than an instant can be wrong unnoticed,
/// 16 hours and the zone's own distance from UTC.
const DAYS: TimeDelta = TimeDelta::days(4);

/// How many rows are looked at in one go.
const CHUNK: i64 = 5000;

/// However long a chunk took, since the machine may have stood still.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The sweep: writes the instants of rows that have none or wrong ones. Beyond [`Reach::Soon`] it rests between chunks,
/// so that each walk of each server keeps no more than a tenth of a core busy, with rows by the million too.
pub async fn fill_instants(ctx: &Context, reach: Reach) -> anyhow::Result<()> {
    let mut has_newer = false;
    let begun = ctx.clock.now();
    let (from, to) = match reach {
        Reach::Soon => (begun - DAYS, begun + DAYS),
        Reach::Ahead => (begun - DAYS, zone::LAST),
        Reach::All => (zone::FIRST, zone::LAST),
    };
    for order in [Order::Misplaced, Order::Start] {
        let mut after = Cursor { id: 0, starts_at: from };
        loop {
            let (now, looking_since) = (ctx.clock.now(), Instant::now());
            let rows = instants_to_check(&ctx.db, order, &after, to).await?;
            let Some(last) = rows.last() else { break };
            let full = rows.len() as i64 == CHUNK;
            after = Cursor { id: last.id, starts_at: last.starts_at.unwrap_or(from) };
            let mut wrong = Vec::new();
            for row in rows {
                has_newer |= row.starts_at_tzdb.as_deref().is_some_and(zone::is_newer);
                let Some(right) = corrected(ctx, &row) else { continue };
                match is_news(&row, &right, now) {
                    true => move_by_rules(ctx, &row, &right).await?,
                    false => wrong.push((row, right)),
                }
            }
            if !wrong.is_empty() {
                write_instants(&ctx.db, &wrong, now).await?;
            }
            if !full {
                break;
            }
            if reach != Reach::Soon {
                ctx.clock.sleep((9 * looking_since.elapsed()).min(LONGEST_REST)).await;
            }
        }
    }
    if has_newer && reach == Reach::All {
        tracing::warn!(rules = zone::tzdb_version(), "interviews were placed by newer time rules: update this server");
    }
    Ok(())
}

/// The row with its right instants; `None` when it has them.
fn corrected(ctx: &Context, row: &Instants) -> Option<Instants> {
    let version = row.starts_at_tzdb.as_deref();
    let zone = stored_zone(row.date, row.time, &row.timezone, row.starts_at, version);
    let (start, end) = stored_span(&zone, row.date, row.time, row.duration_minutes, &ctx.settings);
    if (row.starts_at, row.ends_at) == (Some(start), Some(end)) && !version.is_none_or(zone::is_older) {
        return None;
    }
    // A server with newer rules puts right in silence what it finds under those rules' name: it is nobody's news.
    let rules = version.filter(|version| zone::is_newer(version)).unwrap_or(zone::tzdb_version());
    let starts_at_tzdb = Some(rules.to_owned());
    Some(Instants { starts_at: Some(start), ends_at: Some(end), starts_at_tzdb, ..row.clone() })
}

/// Whether newer rules have moved a coming interview. A row that Django moved in the moments before counts too: then
/// the mail is true as well.
fn is_news(row: &Instants, right: &Instants, now: DateTime<Utc>) -> bool {
    let has_older_rules = row.starts_at_tzdb.as_deref().is_some_and(zone::is_older);
    let is_ahead = right.starts_at > Some(now) || row.starts_at > Some(now);
    has_older_rules && row.starts_at.is_some() && row.starts_at != right.starts_at && is_ahead && !row.is_cancelled
}

/// Writes what the new rules say, once however many instances try, and tells the two.
async fn move_by_rules(ctx: &Context, row: &Instants, right: &Instants) -> anyhow::Result<()> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin().await?;
    // Before the interview, since changes lock the two in this order.
    claim::request_alignment(&mut *tx, row.id, now).await?;
    let Some(moved) = write_move(&mut tx, row, right, now).await? else { return Ok(tx.rollback().await?) };
    let users: Vec<i64> = std::iter::once(moved.candidate_id).chain(moved.recruiter_id).collect();
    emails::leave_to_queue(&mut tx, ctx, Kind::Updated, (row.id, moved.ical_sequence), &users).await?;
    tx.commit().await?;
    tracing::warn!(
        interview = row.id,
        zone = row.timezone,
        before = ?row.starts_at,
        after = ?right.starts_at,
        old_rules = row.starts_at_tzdb,
        new_rules = zone::tzdb_version(),
        "new time rules moved an interview"
    );
    Ok(())
}

/// A row whose cached instants may be wrong.
#[derive(Clone)]
struct Instants {
    id: i64,
    date: NaiveDate,
    time: NaiveTime,
    timezone: String,
    duration_minutes: Option<i32>,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    starts_at_tzdb: Option<String>,
    is_cancelled: bool,
}

/// Selects [`Instants`]: the condition, then its arguments.
macro_rules! instants {
    ($condition:literal $(, $argument:expr)+) => {
        sqlx::query_as!(
            Instants,
            r#"SELECT id, date, time, timezone::text AS "timezone!", duration_minutes::int4, starts_at, ends_at,
                      starts_at_tzdb::text,
                      cancelled_at IS NOT NULL AS "is_cancelled!"
               FROM company_interview WHERE "# + $condition
            $(, $argument)+
        )
    };
}

/// The walks of the sweep, each along an index, so that it costs what it looks at: the rows whose instants are missing
/// or far from their wall time, and those within reach by their instants.
#[derive(Clone, Copy)]
enum Order {
    Misplaced,
    Start,
}

/// What a walk goes on from: its last row so far.
struct Cursor {
    id: i64,
    starts_at: DateTime<Utc>,
}

/// The next rows of a walk.
async fn instants_to_check(
    db: impl PgExecutor<'_>,
    order: Order,
    after: &Cursor,
    to: DateTime<Utc>,
) -> sqlx::Result<Vec<Instants>> {
    match order {
        // In the words of its index. PostgreSQL takes what equals a constant for rare, and a condition that may be null
        // for common: then it would read the table.
        Order::Misplaced => {
            instants!(
                r#"CASE WHEN starts_at AT TIME ZONE 'UTC' BETWEEN date + "time" - interval '16 hours'
                                                              AND date + "time" + interval '16 hours'
                        THEN 'placed' ELSE 'misplaced' END = 'misplaced'
                   AND id > $1 ORDER BY id LIMIT $2"#,
                after.id,
                CHUNK
            )
            .fetch_all(db)
            .await
        }
        Order::Start => {
            instants!(
                "starts_at >= $2 AND starts_at <= $4 AND (starts_at, id) > ($2, $1) ORDER BY starts_at, id LIMIT $3",
                after.id,
                after.starts_at,
                CHUNK,
                to
            )
            .fetch_all(db)
            .await
        }
    }
}

/// Writes instants, of rows as they were read and as they are to be, where a row still says what they were computed
/// from. A row that somebody else has moved is to be reminded of again.
async fn write_instants(
    db: impl PgExecutor<'_>,
    rows: &[(Instants, Instants)],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let ids: Vec<i64> = rows.iter().map(|(_, row)| row.id).collect();
    let dates: Vec<NaiveDate> = rows.iter().map(|(_, row)| row.date).collect();
    let times: Vec<NaiveTime> = rows.iter().map(|(_, row)| row.time).collect();
    let zones: Vec<String> = rows.iter().map(|(_, row)| row.timezone.clone()).collect();
    let durations: Vec<Option<i32>> = rows.iter().map(|(_, row)| row.duration_minutes).collect();
    let starts: Vec<Option<DateTime<Utc>>> = rows.iter().map(|(_, row)| row.starts_at).collect();
    let ends: Vec<Option<DateTime<Utc>>> = rows.iter().map(|(_, row)| row.ends_at).collect();
    let rules: Vec<Option<String>> = rows.iter().map(|(_, row)| row.starts_at_tzdb.clone()).collect();
    let old_rules: Vec<Option<String>> = rows.iter().map(|(old, _)| old.starts_at_tzdb.clone()).collect();
    sqlx::query!(
        "UPDATE company_interview i
         SET starts_at = new.starts_at, ends_at = new.ends_at, starts_at_tzdb = new.rules, updated_at = $9,
             reminder_24h_sent = CASE WHEN i.starts_at <> new.starts_at THEN new.starts_at <= $10
                                      ELSE reminder_24h_sent END,
             reminder_1h_sent = CASE WHEN i.starts_at <> new.starts_at THEN new.starts_at <= $11
                                     ELSE reminder_1h_sent END
         -- In order, and without waiting: another instance may be at the same work.
         FROM (SELECT new.id, new.starts_at, new.ends_at, new.rules
               FROM unnest($1::bigint[], $2::date[], $3::time[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                           $7::text[], $8::int[], $12::text[])
                    AS new (id, date, time, timezone, starts_at, ends_at, rules, duration_minutes, old_rules)
               JOIN company_interview old ON old.id = new.id AND old.date = new.date AND old.time = new.time
                   AND old.timezone = new.timezone AND old.duration_minutes IS NOT DISTINCT FROM new.duration_minutes
                   AND old.starts_at_tzdb IS NOT DISTINCT FROM new.old_rules
               ORDER BY old.id FOR NO KEY UPDATE OF old SKIP LOCKED) AS new
         WHERE i.id = new.id",
        &ids,
        &dates,
        &times,
        &zones,
        &starts as &[Option<DateTime<Utc>>],
        &ends as &[Option<DateTime<Utc>>],
        &rules as &[Option<String>],
        &durations as &[Option<i32>],
        now,
        now + DAY_BEFORE,
        now + HOUR_BEFORE,
        &old_rules as &[Option<String>]
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An interview that new time rules have moved.
struct MovedByRules {
    ical_sequence: i32,
    candidate_id: i64,
    recruiter_id: Option<i64>,
}

/// Writes the instants that new rules give a row and raises its SEQUENCE; `None` when the row is not as it was read.
async fn write_move(
    db: &mut db::Connection,
    old: &Instants,
    new: &Instants,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<MovedByRules>> {
    sqlx::query_as!(
        MovedByRules,
        r#"UPDATE company_interview
         SET starts_at = $6::timestamptz, ends_at = $7, starts_at_tzdb = $8, updated_at = $9,
             ical_sequence = ical_sequence + 1,
             reminder_24h_sent = $6::timestamptz <= $10, reminder_1h_sent = $6::timestamptz <= $11
         WHERE id = $1 AND starts_at_tzdb = $2 AND date = $3 AND time = $4 AND timezone = $5 AND cancelled_at IS NULL
         RETURNING ical_sequence::int4 AS "ical_sequence!", candidate_id, recruiter_id"#,
        old.id,
        old.starts_at_tzdb,
        old.date,
        old.time,
        old.timezone,
        new.starts_at,
        new.ends_at,
        zone::tzdb_version(),
        now,
        now + DAY_BEFORE,
        now + HOUR_BEFORE
    )
    .fetch_optional(db)
    .await
}
