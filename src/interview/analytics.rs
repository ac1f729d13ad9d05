//! What a recruiter's interviews come to (contract §5.12): how many there were and are to come, who stayed away, how
//! long they took.
//!
//! The database counts by day, whatever the number of interviews; here days become weeks and sums become means.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chrono::{Datelike, NaiveDate, Weekday};
use serde::Serialize;
use utoipa::ToSchema;

use super::store::{self, Day};
use crate::{
    auth::CurrentUser,
    context::Context,
    http::{Error, Result, extract::QueryParams},
    zone,
};

/// A recruiter's interviews in numbers. Cancelled ones count in `total_interviews` and `cancelled` alone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Analytics {
    total_interviews: i64,
    /// The meeting has ended, or it has begun and its time is over.
    completed_interviews: i64,
    /// Minutes from the first to join to the last to leave; null when no meeting has begun and ended.
    #[schema(required)]
    average_duration: Option<f64>,
    /// The door has closed and the candidate was never seen; by phone and in person nobody can be.
    no_shows: i64,
    /// Those of them where the recruiter was seen.
    no_shows_confirmed: i64,
    upcoming: i64,
    cancelled: i64,
    /// Minutes from the start to the first to join, 0 for who came early; null when no meeting has begun.
    #[schema(required)]
    average_join_delay_minutes: Option<f64>,
    by_type: ByType,
    /// By the interviews' own dates, ascending; only weeks with interviews.
    by_week: Vec<Week>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ByType {
    google_meet: i64,
    phone: i64,
    in_person: i64,
    /// And what is stored as none of these.
    custom: i64,
}

/// A week of ISO 8601.
#[derive(Debug, Serialize, ToSchema)]
struct Week {
    /// Such as `2026-W48`; the days around new year may belong to the other year's week.
    week: String,
    /// Its Monday.
    week_start: NaiveDate,
    total: i64,
    completed: i64,
}

/// The caller's interviews as a recruiter, in numbers.
#[utoipa::path(get, path = "/analytics/", tag = "interviews",
    params(
        ("from" = Option<String>, Query, description = "`YYYY-MM-DD`: the first of the interviews' own dates to count"),
        ("to" = Option<String>, Query, description = "`YYYY-MM-DD`: the last one"),
    ),
    responses(
        (status = 200, body = Analytics),
        (status = 400, description = "A date is malformed, or the first is after the last",
            body = ref("#/components/schemas/Refusal")),
        (status = 403, description = "Not a recruiter with a company", body = ref("#/components/schemas/Refusal")),
    ))]
pub(super) async fn analytics(
    State(ctx): State<Context>,
    user: CurrentUser,
    query: QueryParams,
) -> Result<Json<Analytics>> {
    if !user.is_recruiter_with_company() {
        return Err(Error::forbidden("Only recruiters with a company can see interview analytics."));
    }
    let range = range(&query).ok_or(Error::bad_request("Invalid date range."))?;
    let mut db = ctx.db.acquire().await?;
    let (now, settings) = (ctx.clock.now(), &ctx.settings);
    // What Django inserts from here on is not counted yet.
    let unplaced = store::unplaced(&mut *db, user.id, settings).await?;
    let days = store::days(&mut db, user.id, range, &unplaced, now, settings).await?;
    let waited_in_vain = store::waited_in_vain(&mut db, user.id, range, &unplaced, now, settings).await?;
    Ok(Json(Analytics::of(&days, waited_in_vain)))
}

/// The first and the last date to count, of the years 1–9999 unless the query says so; `None`: malformed or reversed.
fn range(query: &QueryParams) -> Option<(NaiveDate, NaiveDate)> {
    let date = |name, absent| match query.get(name) {
        // Two digits each: only scheduling takes one, as Django does.
        Some(text) => zone::parse_date(text).filter(|_| text.len() == "YYYY-MM-DD".len()),
        None => Some(absent),
    };
    let (from, to) = (date("from", zone::FIRST.date_naive())?, date("to", zone::LAST.date_naive())?);
    (from <= to).then_some((from, to))
}

impl Analytics {
    fn of(days: &[Day], waited_in_vain: i64) -> Self {
        let sum = |count: fn(&Day) -> i64| days.iter().map(count).sum::<i64>();
        let seconds = |seconds: fn(&Day) -> f64| days.iter().map(seconds).sum::<f64>();
        Analytics {
            total_interviews: sum(|day| day.total),
            completed_interviews: sum(|day| day.completed),
            average_duration: mean_minutes(seconds(|day| day.seconds), sum(|day| day.ended)),
            no_shows: sum(|day| day.deserted) + waited_in_vain,
            no_shows_confirmed: waited_in_vain,
            upcoming: sum(|day| day.upcoming),
            cancelled: sum(|day| day.cancelled),
            average_join_delay_minutes: mean_minutes(seconds(|day| day.seconds_late), sum(|day| day.started)),
            by_type: ByType {
                google_meet: sum(|day| day.google_meet),
                phone: sum(|day| day.phone),
                in_person: sum(|day| day.in_person),
                custom: sum(|day| day.total - day.cancelled - day.google_meet - day.phone - day.in_person),
            },
            by_week: weeks(days),
        }
    }
}

/// To one decimal; `None` of nothing.
fn mean_minutes(seconds: f64, count: i64) -> Option<f64> {
    (count > 0).then(|| (seconds / (6 * count) as f64).round() / 10.0)
}

fn weeks(days: &[Day]) -> Vec<Week> {
    let mut weeks: BTreeMap<NaiveDate, Week> = BTreeMap::new();
    for day in days.iter().filter(|day| day.total > day.cancelled) {
        let (iso, monday) = (day.date.iso_week(), day.date.week(Weekday::Mon).first_day());
        let week = weeks.entry(monday).or_insert_with(|| Week {
            week: format!("{:04}-W{:02}", iso.year(), iso.week()),
            week_start: monday,
            total: 0,
            completed: 0,
        });
        week.total += day.total - day.cancelled;
        week.completed += day.completed;
    }
    weeks.into_values().collect()
}
