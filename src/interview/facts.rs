//! What scheduling asks the database: who and what a request names, and who is busy meanwhile.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;

use super::model::{self, JobChoice, Person, Request};
use crate::config::Settings;

/// What the rules of contract §5.6 go by: `None` for what does not exist, or is not the caller's.
#[derive(Clone, Debug)]
pub struct Facts {
    pub company_id: Option<i64>,
    pub company_name: Option<String>,
    pub candidate_id: Option<i64>,
    pub candidate_first_name: Option<String>,
    pub candidate_last_name: Option<String>,
    pub candidate_email: Option<String>,
    pub job_id: Option<i64>,
    pub job_title: Option<String>,
    pub has_applied: bool,
}

impl Facts {
    /// `None` when there is no such person, or only an inactive or deleted one.
    pub fn candidate(&self) -> Option<Person> {
        Some(Person {
            id: self.candidate_id?,
            first_name: self.candidate_first_name.clone()?,
            last_name: self.candidate_last_name.clone()?,
            email: self.candidate_email.clone()?,
        })
    }
}

/// The facts of a user's request, in one statement.
pub async fn facts(db: impl PgExecutor<'_>, user_id: i64, request: &Request) -> sqlx::Result<Facts> {
    let (job_id, title) = match &request.job {
        JobChoice::Id(id) => (Some(*id), None),
        JobChoice::Title(title) => (None, Some(title)),
    };
    sqlx::query_as!(
        Facts,
        r#"
        SELECT company.id::bigint AS company_id, company.name::text AS company_name,
               candidate.id AS "candidate_id?", candidate.first_name::text AS "candidate_first_name?",
               candidate.last_name::text AS "candidate_last_name?", candidate.email::text AS "candidate_email?",
               job.id AS "job_id?", job.title::text AS "job_title?",
               CASE WHEN $3::bigint IS NOT NULL THEN COALESCE(job.is_candidates, false)
                    ELSE EXISTS (SELECT FROM job_application a JOIN job_job aj ON aj.id = a.job_id
                                 WHERE a.user_id = $2 AND aj.company_id = company.id)
                      OR EXISTS (SELECT FROM job_shortlist s JOIN job_job sj ON sj.id = s.job_id
                                 WHERE s.candidate_id = $2 AND sj.company_id = company.id)
               END AS "has_applied!"
        FROM (SELECT) AS caller
        LEFT JOIN company_company company ON company.user_id = $1
        LEFT JOIN users_user candidate ON candidate.id = $2 AND candidate.is_active AND NOT candidate.is_deleted
        LEFT JOIN LATERAL (
            SELECT j.id, j.title,
                   EXISTS (SELECT FROM job_application a WHERE a.user_id = $2 AND a.job_id = j.id)
                OR EXISTS (SELECT FROM job_shortlist s WHERE s.candidate_id = $2 AND s.job_id = j.id) AS is_candidates
            FROM job_job j
            WHERE j.company_id = company.id AND (j.id = $3 OR ($3 IS NULL AND lower(btrim(j.title)) = lower($4)))
            ORDER BY is_candidates DESC, j.id DESC
            LIMIT 1
        ) job ON true
        "#,
        user_id,
        request.candidate_id,
        job_id,
        title
    )
    .fetch_one(db)
    .await
}

/// Who of the two has another uncancelled interview that overlaps [start, end).
#[derive(Default)]
pub struct Busy {
    pub candidate: bool,
    pub recruiter: bool,
}

pub async fn busy(
    db: impl PgExecutor<'_>,
    candidate_id: i64,
    recruiter_id: i64,
    (start, end): (DateTime<Utc>, DateTime<Utc>),
    except: i64,
    settings: &Settings,
) -> sqlx::Result<Busy> {
    // By date, since rows that Django inserted a moment ago have no instants yet. A day and a half covers every zone's
    // offset and interviews of up to a day; the dates stay inside what `chrono` can hold.
    let nearby = TimeDelta::hours(36);
    let from = start.checked_sub_signed(nearby).unwrap_or(start).date_naive();
    let to = end.checked_add_signed(nearby).unwrap_or(end).date_naive();
    // Each role along an index of its own: with an OR, PostgreSQL may read everybody's rows of those days.
    let others = sqlx::query!(
        r#"
        SELECT candidate_id, recruiter_id, date, time, timezone::text AS "timezone!", duration_minutes::int4, starts_at,
               starts_at_tzdb::text
        FROM company_interview
        WHERE id IN (
            SELECT id FROM company_interview WHERE candidate_id IN ($1, $2) AND date BETWEEN $4 AND $5
            UNION ALL
            SELECT id FROM company_interview WHERE recruiter_id IN ($1, $2) AND date BETWEEN $4 AND $5)
          AND cancelled_at IS NULL AND NOT (id = $3 AND recruiter_id IS NOT DISTINCT FROM $2)
        "#,
        candidate_id,
        recruiter_id,
        except,
        from,
        to
    )
    .fetch_all(db)
    .await?;
    let mut busy = Busy { candidate: false, recruiter: false };
    for other in others {
        let version = other.starts_at_tzdb.as_deref();
        let zone = model::stored_zone(other.date, other.time, &other.timezone, other.starts_at, version);
        let (other_start, other_end) =
            model::stored_span(&zone, other.date, other.time, other.duration_minutes, settings);
        if other_start < end && other_end > start {
            let has = |user: i64| other.candidate_id == user || other.recruiter_id == Some(user);
            busy.candidate |= has(candidate_id);
            busy.recruiter |= has(recruiter_id);
        }
    }
    Ok(busy)
}
