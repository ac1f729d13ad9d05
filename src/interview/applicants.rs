//! Whom a recruiter may invite: a company's jobs, and the people who applied for one or are shortlisted for it.

use super::model::Person;
use crate::context::Context;

/// A company's job.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: i64,
    pub title: String,
    /// Somebody has applied for it or is shortlisted.
    pub has_people: bool,
}

/// Somebody who can be invited.
#[derive(Clone, Debug)]
pub struct Applicant {
    pub person: Person,
    pub is_shortlisted: bool,
}

/// So many of a company's jobs can be chosen from.
const MOST_JOBS: usize = 200;
/// And so many people for a job.
const MOST_PEOPLE: usize = 500;

/// A company's newest jobs, the newest first, at most 200; and whether it has more.
pub async fn jobs(ctx: &Context, company_id: i64) -> sqlx::Result<(Vec<Job>, bool)> {
    let mut jobs = sqlx::query_as!(
        Job,
        r#"SELECT id, title::text AS "title!",
                  EXISTS (SELECT FROM job_application WHERE job_id = j.id)
                  OR EXISTS (SELECT FROM job_shortlist WHERE job_id = j.id) AS "has_people!"
           FROM job_job j WHERE company_id = $1::bigint ORDER BY id DESC LIMIT $2"#,
        company_id,
        MOST_JOBS as i64 + 1
    )
    .fetch_all(&ctx.db)
    .await?;
    let is_cut = jobs.len() > MOST_JOBS;
    jobs.truncate(MOST_JOBS);
    Ok((jobs, is_cut))
}

/// A job of a company and who can be invited for it, but for the recruiter: the shortlisted first, then by
/// name, at most 500; and whether there are more. `None`: the company has no such job.
pub async fn of_job(
    ctx: &Context,
    company_id: i64,
    job_id: i64,
    recruiter_id: i64,
) -> sqlx::Result<Option<(Job, Vec<Applicant>, bool)>> {
    let rows = sqlx::query!(
        r#"SELECT j.title::text AS "title!", u.id AS "id?", u.first_name::text AS "first_name?",
                  u.last_name::text AS "last_name?", u.email::text AS "email?",
                  u.is_shortlisted AS "is_shortlisted?"
           FROM job_job j
           LEFT JOIN LATERAL (
               SELECT person.*, bool_or(chosen.is_shortlisted) AS is_shortlisted
               FROM (SELECT user_id, false AS is_shortlisted FROM job_application WHERE job_id = j.id
                     UNION ALL SELECT candidate_id, true FROM job_shortlist WHERE job_id = j.id) chosen
               -- OFFSET 0: one by one, for they are few among all users.
               CROSS JOIN LATERAL (SELECT id, first_name, last_name, email FROM users_user
                                   WHERE id = chosen.user_id AND is_active AND NOT is_deleted AND id <> $3 OFFSET 0) person
               GROUP BY person.id, person.first_name, person.last_name, person.email
           ) u ON true
           WHERE j.id = $2 AND j.company_id = $1::bigint
           ORDER BY u.is_shortlisted DESC, u.first_name, u.last_name, u.id LIMIT $4"#,
        company_id,
        job_id,
        recruiter_id,
        MOST_PEOPLE as i64 + 1
    )
    .fetch_all(&ctx.db)
    .await?;
    let Some(title) = rows.first().map(|row| row.title.clone()) else { return Ok(None) };
    let mut applicants: Vec<Applicant> = rows
        .into_iter()
        .filter_map(|row| {
            let person =
                Person { id: row.id?, first_name: row.first_name?, last_name: row.last_name?, email: row.email? };
            Some(Applicant { person, is_shortlisted: row.is_shortlisted? })
        })
        .collect();
    let is_cut = applicants.len() > MOST_PEOPLE;
    applicants.truncate(MOST_PEOPLE);
    Ok(Some((Job { id: job_id, title, has_people: !applicants.is_empty() }, applicants, is_cut)))
}

/// Somebody who applied for a job of a company, or is shortlisted for one.
pub async fn person(ctx: &Context, company_id: i64, id: i64) -> sqlx::Result<Option<Person>> {
    sqlx::query_as!(
        Person,
        r#"SELECT id, first_name::text AS "first_name!", last_name::text AS "last_name!", email::text AS "email!"
           FROM users_user u
         WHERE id = $2 AND is_active AND NOT is_deleted
           AND (EXISTS (SELECT FROM job_application a JOIN job_job j ON j.id = a.job_id
                        WHERE a.user_id = u.id AND j.company_id = $1::bigint)
                OR EXISTS (SELECT FROM job_shortlist s JOIN job_job j ON j.id = s.job_id
                           WHERE s.candidate_id = u.id AND j.company_id = $1::bigint))"#,
        company_id,
        id
    )
    .fetch_optional(&ctx.db)
    .await
}
