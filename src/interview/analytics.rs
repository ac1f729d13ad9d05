//! What a recruiter's interviews come to (contract §5.12): how many there were and are to come, who stayed away, how
//! long they took.
//!
//! The database counts by day in one statement, whatever the number of interviews; here days become weeks and sums
//! become means. Only interviews without their instants take two statements more.

use std::collections::{BTreeMap, HashMap};

use axum::{Json, extract::State};
use chrono::{DateTime, Datelike, NaiveDate, Utc, Weekday};
use serde::Serialize;
use sqlx::types::Json as Jsonb;
use utoipa::ToSchema;

use super::model;
use crate::{
    auth::CurrentUser,
    config::Settings,
    context::Context,
    db,
    http::{Error, Result, extract::QueryParams},
    zone::{self, Zone},
};

/// A recruiter's interviews in numbers. Cancelled ones count in `total_interviews` and `cancelled` alone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Analytics {
    pub total_interviews: i64,
    /// The meeting has ended, or it has begun and its time is over.
    pub completed_interviews: i64,
    /// Minutes from the first to join to the last to leave; null when no meeting has begun and ended.
    #[schema(required)]
    pub average_duration: Option<f64>,
    /// The door has closed and the candidate was never seen; by phone and in person nobody can be.
    pub no_shows: i64,
    /// Those of them where the recruiter was seen.
    pub no_shows_confirmed: i64,
    pub upcoming: i64,
    pub cancelled: i64,
    /// Minutes from the start to the first to join, 0 for who came early; null when no meeting has begun.
    #[schema(required)]
    pub average_join_delay_minutes: Option<f64>,
    pub by_type: ByType,
    /// By the interviews' own dates, ascending; only weeks with interviews.
    pub by_week: Vec<Week>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ByType {
    pub google_meet: i64,
    pub phone: i64,
    pub in_person: i64,
    /// And what is stored as none of these.
    pub custom: i64,
}

/// A week of ISO 8601.
#[derive(Debug, Serialize, ToSchema)]
pub struct Week {
    /// Such as `2026-W48`; the days around new year may belong to the other year's week.
    pub week: String,
    /// Its Monday.
    pub week_start: NaiveDate,
    pub total: i64,
    pub completed: i64,
}

/// The caller's interviews as a recruiter, in numbers.
#[utoipa::path(get, path = "/analytics/", tag = "interviews",
    params(
        ("from" = Option<String>, Query, description = "`YYYY-MM-DD`: the first of the interviews' own dates to count"),
        ("to" = Option<String>, Query, description = "`YYYY-MM-DD`: the last one"),
    ),
    responses(
        (status = 200, description = "The numbers", body = Analytics),
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
    let (from, to) = range(&query).ok_or(Error::bad_request("Invalid date range."))?;
    Ok(Json(between(&ctx, user.id, from, to).await?))
}

/// All of a recruiter's interviews in numbers.
pub async fn of_recruiter(ctx: &Context, recruiter_id: i64) -> sqlx::Result<Analytics> {
    between(ctx, recruiter_id, zone::FIRST.date_naive(), zone::LAST.date_naive()).await
}

/// Those from one date to another, both included.
async fn between(ctx: &Context, recruiter_id: i64, from: NaiveDate, to: NaiveDate) -> sqlx::Result<Analytics> {
    let mut db = ctx.db.acquire().await?;
    let now = ctx.clock.now();
    let closed = now - ctx.settings.join_closes_after_end;
    let mut question = Question { recruiter_id, from, to, now, closed, unplaced: Unplaced::new() };
    let mut counted = days(&mut db, &question).await?;
    if counted.iter().any(|day| !day.is_placed) {
        question.unplaced = unplaced(&mut db, recruiter_id, &ctx.settings).await?;
        counted = days(&mut db, &question).await?;
        // What Django has inserted since is not counted yet.
        counted.retain(|day| day.is_placed);
    }
    Ok(Analytics::of(&counted))
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
    fn of(days: &[Day]) -> Self {
        let waited_in_vain = days.first().map_or(0, |day| day.waited_in_vain);
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

/// What is asked of the database.
struct Question {
    recruiter_id: i64,
    /// The first and the last date.
    from: NaiveDate,
    to: NaiveDate,
    now: DateTime<Utc>,
    /// The door of what ended before this has closed.
    closed: DateTime<Utc>,
    unplaced: Unplaced,
}

/// What a recruiter's interviews of one day come to. Cancelled ones count in `total` and `cancelled` alone.
struct Day {
    date: NaiveDate,
    /// Start and end are known; false: what is said here of these interviews is wrong.
    is_placed: bool,
    total: i64,
    cancelled: i64,
    completed: i64,
    upcoming: i64,
    google_meet: i64,
    phone: i64,
    in_person: i64,
    /// The door has closed, and neither was seen where both can be.
    deserted: i64,
    /// How many meetings began and ended, and how long they were together.
    ended: i64,
    seconds: f64,
    /// How many meetings began, and how late they were together; one that began early was not late.
    started: i64,
    seconds_late: f64,
    /// Of all days together: how many interviews' recruiters waited in vain. The door has closed, and of the two only
    /// they were seen.
    waited_in_vain: i64,
}

/// The days from `from` to `to`, both included, on which a recruiter has interviews.
///
/// One pass over the recruiter's part of `ivs_interview_recruiter_days`, which has every column that is read here.
async fn days(db: &mut db::Connection, question: &Question) -> sqlx::Result<Vec<Day>> {
    sqlx::query_as!(
        Day,
        r#"
        SELECT date, is_placed AS "is_placed!", count(*) AS "total!",
               count(*) FILTER (WHERE is_cancelled) AS "cancelled!",
               count(*) FILTER (WHERE is_completed) AS "completed!", count(*) FILTER (WHERE is_upcoming) AS "upcoming!",
               count(*) FILTER (WHERE NOT is_cancelled AND interview_type = 'google_meet') AS "google_meet!",
               count(*) FILTER (WHERE NOT is_cancelled AND interview_type = 'phone') AS "phone!",
               count(*) FILTER (WHERE NOT is_cancelled AND interview_type = 'in_person') AS "in_person!",
               count(*) FILTER (WHERE is_deserted) AS "deserted!",
               count(*) FILTER (WHERE has_begun AND ended_at IS NOT NULL) AS "ended!",
               COALESCE(date_part('epoch', sum(ended_at - begun_at) FILTER (WHERE NOT is_cancelled)), 0) AS "seconds!",
               count(*) FILTER (WHERE has_begun) AS "started!",
               COALESCE(date_part('epoch', sum(begun_at - starts_at) FILTER (WHERE has_begun AND begun_at > starts_at)), 0)
                   AS "seconds_late!",
               (SELECT count(DISTINCT i.id)
                FROM ivs_presence p
                -- OFFSET 0: one by one, for they are few.
                CROSS JOIN LATERAL (SELECT * FROM company_interview WHERE id = p.interview_id OFFSET 0) i
                WHERE p.user_id = $1 AND p.user_role = 'recruiter' AND NOT p.met AND i.recruiter_id = p.user_id
                  AND i.date BETWEEN $2 AND $3
                  AND i.cancelled_at IS NULL AND i.interview_type NOT IN ('phone', 'in_person')
                  AND COALESCE(i.ends_at, ($6::jsonb -> i.id::text ->> 1)::timestamptz) < $5) AS "waited_in_vain!"
        FROM (SELECT i.date, i.interview_type, i.cancelled_at IS NOT NULL AS is_cancelled,
                     i.cancelled_at IS NOT NULL OR at.starts_at IS NOT NULL AND at.ends_at IS NOT NULL AS is_placed,
                     i.cancelled_at IS NULL AND (i.meeting_ended_at IS NOT NULL
                         OR i.meeting_started_at IS NOT NULL AND at.ends_at <= $4) AS is_completed,
                     i.cancelled_at IS NULL AND at.starts_at > $4 AS is_upcoming,
                     i.cancelled_at IS NULL AND i.interview_type NOT IN ('phone', 'in_person') AND at.ends_at < $5
                         AND i.portal_join_count = 0 AS is_deserted,
                     i.cancelled_at IS NULL AND i.meeting_started_at IS NOT NULL AS has_begun,
                     i.meeting_started_at AS begun_at, i.meeting_ended_at AS ended_at, at.starts_at
              FROM company_interview i
              CROSS JOIN LATERAL (
                  SELECT COALESCE(i.starts_at, ($6::jsonb -> i.id::text ->> 0)::timestamptz) AS starts_at,
                         COALESCE(i.ends_at, ($6::jsonb -> i.id::text ->> 1)::timestamptz) AS ends_at
              ) at
              WHERE i.recruiter_id = $1 AND i.date BETWEEN $2 AND $3
              ) AS interview
        GROUP BY date, is_placed
        "#,
        question.recruiter_id,
        question.from,
        question.to,
        question.now,
        question.closed,
        Jsonb(&question.unplaced) as _
    )
    .fetch_all(db)
    .await
}

/// Start and end of interviews that lack one of them, by id: those that Django inserted a moment ago.
type Unplaced = HashMap<i64, (DateTime<Utc>, DateTime<Utc>)>;

async fn unplaced(db: &mut db::Connection, recruiter_id: i64, settings: &Settings) -> sqlx::Result<Unplaced> {
    let rows = sqlx::query!(
        r#"SELECT id, date, time, timezone::text AS "timezone!", duration_minutes::int4 FROM company_interview
         WHERE recruiter_id = $1 AND cancelled_at IS NULL AND (starts_at IS NULL OR ends_at IS NULL)"#,
        recruiter_id
    )
    .fetch_all(db)
    .await?;
    let spans = rows.into_iter().map(|row| {
        let zone = Zone::stored(&row.timezone);
        (row.id, model::stored_span(&zone, row.date, row.time, row.duration_minutes, settings))
    });
    Ok(spans.collect())
}
