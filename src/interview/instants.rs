//! The instants of interviews as SQL sees them (contract §6.1): a cache of what wall time and zone mean by the time rules
//! compiled in.
//!
//! Rows that Django inserted or changed are filled in silently. When this program brings newer rules than those a row was
//! computed by, and they give a coming interview another instant, that is news to the people who meet: its calendar
//! event and reminders move, and both get a mail. An instance with older rules takes what newer ones have written for
//! right ([`stored_zone`]), so that two versions side by side agree.

use std::cmp::Ordering;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    claim, emails,
    model::{stored_span, stored_zone},
    store::{self, Instants},
};
use crate::{context::Context, mail::Kind, zone};

/// Which rows [`fill_instants`] looks at, besides those that lack their instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that are not long past: all that a reminder or a new interview can meet.
    Ahead,
    All,
}

/// The sweep: writes the instants of rows that have none or wrong ones.
pub async fn fill_instants(ctx: &Context, reach: Reach) -> anyhow::Result<()> {
    const CHUNK: i64 = 5000;
    let (mut after, mut has_newer) = (0, false);
    let now = ctx.clock.now();
    let past = match reach {
        Reach::Ahead => now - TimeDelta::days(2),
        Reach::All => zone::FIRST,
    };
    loop {
        let rows = store::instants_to_check(&ctx.db, after, CHUNK, past).await?;
        let (Some(last), full) = (rows.last().map(|row| row.id), rows.len() as i64 == CHUNK) else { break };
        let mut wrong = Vec::new();
        for row in rows {
            has_newer |= row.starts_at_tzdb.as_deref().is_some_and(zone::is_newer);
            let Some(right) = corrected(ctx, &row) else { continue };
            match is_news(&row, &right, now) {
                true => move_by_rules(ctx, &row, &right).await?,
                false => wrong.push(right),
            }
        }
        if !wrong.is_empty() {
            store::write_instants(&ctx.db, &wrong, now).await?;
        }
        if !full {
            break;
        }
        after = last;
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
    let rules = version.filter(|_| zone.is_observed()).unwrap_or(zone::tzdb_version());
    let right =
        Instants { starts_at: Some(start), ends_at: Some(end), starts_at_tzdb: Some(rules.to_owned()), ..row.clone() };
    let is_right = row.starts_at == right.starts_at && row.ends_at == right.ends_at;
    let is_of_older_rules = version.is_none_or(|version| zone::compare_versions(version, zone::tzdb_version()).is_lt());
    (!is_right || is_of_older_rules).then_some(right)
}

/// Whether newer rules have moved a coming interview. A row that Django moved in the moments before counts too: then
/// the mail is true as well.
fn is_news(row: &Instants, right: &Instants, now: DateTime<Utc>) -> bool {
    let has_older_rules = row
        .starts_at_tzdb
        .as_deref()
        .is_some_and(|version| zone::compare_versions(version, zone::tzdb_version()) == Ordering::Less);
    let is_ahead = right.starts_at > Some(now) || row.starts_at > Some(now);
    has_older_rules && row.starts_at.is_some() && row.starts_at != right.starts_at && is_ahead && !row.is_cancelled
}

/// Writes what the new rules say, once however many instances try, and tells the two.
async fn move_by_rules(ctx: &Context, row: &Instants, right: &Instants) -> anyhow::Result<()> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin().await?;
    // Before the interview, since changes lock the two in this order.
    claim::request_alignment(&mut *tx, row.id, now).await?;
    let Some(moved) = store::move_by_rules(&mut tx, row, right, now).await? else { return Ok(()) };
    let users: Vec<i64> = std::iter::once(moved.candidate_id).chain(moved.recruiter_id).collect();
    emails::queue(&mut tx, ctx, Kind::Updated, (row.id, moved.ical_sequence), &users).await?;
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
