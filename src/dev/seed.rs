//! Demo people, companies, jobs and applications, written once into an empty database.

use crate::{auth::password, clock::Clock, db};

/// Everybody's password.
pub const PASSWORD: &str = "Interview-2026";
/// A candidate who applied to [`JOB`], a job of the first login's company.
pub const CANDIDATE: i64 = 3;
pub const JOB: i64 = 1;
/// Who can sign in, and as what. The ids are 1, 2, 3, 4 in this order.
pub const LOGINS: [(&str, &str); 4] = [
    ("rita@acme.test", "recruiter of Acme"),
    ("otto@other.test", "recruiter of Other Inc"),
    ("carl@mail.test", "candidate, applied to Acme"),
    ("dana@mail.test", "candidate, shortlisted by Other Inc"),
];

/// Seeds the database unless somebody is in it already.
pub async fn demo(db: &db::Pool, clock: &Clock, progress: impl Fn(&str)) -> anyhow::Result<()> {
    let is_empty: bool = sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM users_user)").fetch_one(db).await?;
    if !is_empty {
        return Ok(());
    }
    progress("Seeding demo people, jobs and applications.");
    let hash = password::hash(PASSWORD);
    let mut tx = db.begin().await?;
    for statement in DEMO {
        sqlx::query(statement).bind(clock.now()).bind(&hash).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

// $1 is now, $2 the password's hash; every statement names both, every NOT NULL column too.
const DEMO: [&str; 7] = [
    "INSERT INTO resume_skillcategory (name) SELECT 'General' WHERE $1::timestamptz IS NOT NULL AND $2::text IS NOT NULL",
    "INSERT INTO users_user (password, last_login, is_superuser, username, is_staff, is_active, date_joined, first_name,
         last_name, email, is_recruiter, is_applicant, has_resume, has_company, created_at, updated_at, deleted_at, is_deleted)
     SELECT $2::text, NULL, false, username, false, true, $1, first_name, last_name, email, is_recruiter,
            NOT is_recruiter, NOT is_recruiter, is_recruiter, $1, $1, NULL, false
     FROM (VALUES (1, 'rita', 'Rita', 'Recruit', 'rita@acme.test', true), (2, 'otto', 'Otto', 'Other', 'otto@other.test', true),
                  (3, 'carl', 'Carl', 'Candy', 'carl@mail.test', false), (4, 'dana', 'Dana', 'Dune', 'dana@mail.test', false))
          AS people (nr, username, first_name, last_name, email, is_recruiter)
     ORDER BY nr",
    "INSERT INTO company_company (user_id, name, country, logo, cover_photo, created_at, updated_at)
     SELECT user_id, name, 'US', 'resume/images/default.jpg', 'resume/images/default.jpg', $1::timestamptz, $1
     FROM (VALUES (1, 'Acme'), (2, 'Other Inc')) AS companies (user_id, name) WHERE $2::text IS NOT NULL ORDER BY user_id",
    "INSERT INTO job_job (user_id, company_id, title, hire_number, job_location_type, location, salary, salary_range,
         ideal_candidate, is_available, description, responsibilities, benefits, level, category_id, job_type,
         experience_levels, weekly_ranges, shifts, created_at, updated_at, job_creation_is_complete, questions_generation_progress)
     SELECT owner, owner, title, 1, 'remote', 'US', 35000, '30000-50000', '', true, '', '', '', 'Beginner', 1, '', '', '', '',
            $1::timestamptz, $1, true, '{}'
     FROM (VALUES (1, 1, 'Software Engineer'), (2, 2, 'Analyst')) AS jobs (nr, owner, title) WHERE $2::text IS NOT NULL
     ORDER BY nr",
    "INSERT INTO job_application (user_id, job_id, quiz_score, matching_percentage, overall_match_percentage,
         has_completed_quiz, round_scores, total_scores, status, has_started, created_at, updated_at)
     SELECT 3, 1, 0, 0, 0, false, '{}', '{}', 'pending', false, $1::timestamptz, $1 WHERE $2::text IS NOT NULL",
    "INSERT INTO job_shortlist (recruiter_id, candidate_id, job_id, shortlisted_at, created_at)
     SELECT 2, 4, 2, $1::timestamptz, $1 WHERE $2::text IS NOT NULL",
    "INSERT INTO job_shortlist (recruiter_id, candidate_id, job_id, shortlisted_at, created_at)
     SELECT 2, 3, 2, $1::timestamptz, $1 WHERE $2::text IS NOT NULL",
];
