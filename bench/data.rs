//! The rows that the load is put on: people and two years of interviews, in proportion to a scale.

use interviews::{
    clock::Clock,
    secret::{Place, Sealer},
    zone,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

/// How many interviews a candidate and a recruiter have, whatever the scale.
pub const OF_CANDIDATE: i64 = 25;
pub const OF_RECRUITER: i64 = 250;
/// So many people, at most, are online at once: a larger installation has more rows around those that are asked for.
const ONLINE: i64 = 2000;
/// Scatters a person's interviews over the table, as years of use do; no factor of any scale.
const PRIME: i64 = 7_368_787;

/// How much there is.
#[derive(Clone, Copy)]
pub struct Scale {
    pub interviews: i64,
}

impl Scale {
    pub fn recruiters(self) -> i64 {
        self.interviews / OF_RECRUITER
    }

    pub fn candidates(self) -> i64 {
        self.interviews / OF_CANDIDATE
    }

    /// The ids of those who are online: `first + n * step` for n in `0..count`. Recruiters come first.
    pub fn online(self, recruiters: bool) -> Online {
        let (first, all) = if recruiters { (1, self.recruiters()) } else { (self.recruiters() + 1, self.candidates()) };
        let count = all.min(if recruiters { ONLINE / 10 } else { ONLINE });
        Online { first, count, step: all / count }
    }

    /// The id of the `nth` interview of a candidate, from 0.
    pub fn interview_of(self, candidate: i64, nth: i64) -> i64 {
        ((candidate - self.recruiters() - 1) * OF_CANDIDATE + nth) * PRIME % self.interviews + 1
    }

    /// The same for pgbench, of the variable `user`.
    pub fn interview_expression(self, nth: &str) -> String {
        let (first, interviews) = (self.recruiters() + 1, self.interviews);
        format!("((:user - {first}) * {OF_CANDIDATE} + {nth}) * {PRIME} % {interviews} + 1")
    }
}

#[derive(Clone, Copy)]
pub struct Online {
    pub first: i64,
    pub count: i64,
    pub step: i64,
}

impl Online {
    pub fn ids(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |n| self.first + n * self.step)
    }
}

/// Fills a migrated, empty database. Secondary indexes are built at the end, as any import does.
pub async fn fill(db: &PgPool, scale: Scale, encryption_key: &str) -> anyhow::Result<()> {
    let mut conn = db.acquire().await?;
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname::text, indexdef FROM pg_indexes
         WHERE schemaname = 'public' AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)",
    )
    .fetch_all(&mut *conn)
    .await?;
    // No keys are checked: the rows are ours, and right.
    let mut sql =
        "SET session_replication_role = replica; SET maintenance_work_mem = '512MB'; SET statement_timeout = 0;\n"
            .to_owned();
    for (name, _) in &indexes {
        sql += &format!("DROP INDEX {name};\n");
    }
    sql += &ROWS
        .replace(":interviews", &scale.interviews.to_string())
        .replace(":recruiters", &scale.recruiters().to_string())
        .replace(":candidates", &scale.candidates().to_string())
        .replace(":of_candidate", &OF_CANDIDATE.to_string())
        .replace(":prime", &PRIME.to_string())
        .replace(":tzdb", &format!("'{}'", zone::tzdb_version()));
    for (_, definition) in &indexes {
        sql += &format!("{definition};\n");
    }
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await?;
    grants(&mut conn, scale, encryption_key).await?;
    // As autovacuum leaves the tables of an installation that has run for a while.
    for statement in ["RESET session_replication_role", "VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::raw_sql(statement).execute(&mut *conn).await?;
    }
    conn.close().await?;
    Ok(())
}

/// Every recruiter has connected Google.
async fn grants(db: &mut sqlx::PgConnection, scale: Scale, encryption_key: &str) -> anyhow::Result<()> {
    let sealer = Sealer::parse(encryption_key).map_err(anyhow::Error::msg)?;
    let ids: Vec<i64> = (1..=scale.recruiters()).collect();
    let sealed: Vec<String> = ids
        .iter()
        .map(|id| {
            let place = Place { table: "company_googlecredentials", row: *id, column: "credentials_json" };
            let grant = json!({"access_token": "a".repeat(220), "refresh_token": "r".repeat(103),
                "expires_at": "2020-01-01T00:00:00Z", "scopes": ["https://www.googleapis.com/auth/calendar.events",
                "openid", "https://www.googleapis.com/auth/userinfo.email"], "email": format!("user{id}@mail.example")});
            sealer.seal(&place, grant.to_string().as_bytes())
        })
        .collect();
    sqlx::query(
        "INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at)
         SELECT *, $3, $3 FROM unnest($1::bigint[], $2::text[])",
    )
    .bind(ids)
    .bind(sealed)
    .bind(Clock::System.now())
    .execute(db)
    .await?;
    Ok(())
}

const ROWS: &str = r#"
CREATE FUNCTION pg_temp.pick(choices text[], number bigint) RETURNS text IMMUTABLE LANGUAGE sql
AS 'SELECT choices[1 + number % cardinality(choices)]';

INSERT INTO resume_skillcategory (name) VALUES ('General');

INSERT INTO users_user (id, password, last_login, is_superuser, username, is_staff, is_active, date_joined, first_name,
    last_name, email, is_recruiter, is_applicant, has_resume, has_company, created_at, updated_at, is_deleted)
SELECT id, 'pbkdf2_sha256$870000$' || left(md5(id::text), 22) || '$' || encode(sha256(id::text::bytea), 'base64'),
       now() - interval '1 day', false, 'user' || id, false, true, now() - interval '2 years',
       pg_temp.pick('{Ada,Bruno,Chidi,Dana,Emeka,Fatou,Goran,Hanna,Ines,Jonas,Kofi,Lena,Marie}', id),
       pg_temp.pick('{Abena,Biya,Candy,Diallo,Eto''o,Fischer,Garcia,Haddad,Ivanova,Jensen,Kamara}', id * 7 / 3),
       'user' || id || '@mail.example', id <= :recruiters, id > :recruiters, id > :recruiters, id <= :recruiters,
       now() - interval '2 years', now() - interval '1 day', false
FROM generate_series(1, :recruiters + :candidates) AS id;

INSERT INTO company_company (id, user_id, name, country, logo, cover_photo, description, created_at, updated_at)
SELECT id, id, 'Company ' || id, 'CM', 'resume/images/default.jpg', 'resume/images/default.jpg', repeat('We hire. ', 60),
       now() - interval '2 years', now() - interval '1 year'
FROM generate_series(1, :recruiters) AS id;

INSERT INTO job_job (id, user_id, company_id, title, hire_number, job_location_type, location, salary, salary_range,
    ideal_candidate, is_available, description, responsibilities, benefits, level, category_id, job_type,
    experience_levels, weekly_ranges, shifts, created_at, updated_at, job_creation_is_complete, questions_generation_progress)
SELECT id, 1 + (id - 1) / 5, 1 + (id - 1) / 5,
       pg_temp.pick('{Software Engineer,Accountant,Nurse,Data Analyst,Driver,Product Designer,Teacher,Cook}', id), 2,
       'remote', 'CM', 35000, '30000-50000', 'Curious.', true, repeat('What you will do, day by day. ', 30),
       repeat('You own it. ', 20), 'Tea.', 'Beginner', 1, 'Full_time', '', '', '', now() - interval '2 years',
       now() - interval '1 year', true, '{}'
FROM generate_series(1, :recruiters * 5) AS id;

INSERT INTO company_interview (id, date, time, timezone, interview_type, meeting_link, room_id, note, created_at,
    updated_at, candidate_id, recruiter_id, google_event_id, job_id, job_title, duration_minutes, location, ical_uid,
    ical_organizer, calendar_invite_sent, starts_at, ends_at, starts_at_tzdb, cancelled_at, portal_join_count,
    meeting_started_at, meeting_ended_at, reminder_24h_sent, reminder_1h_sent)
SELECT id, date, time, timezone, kind, CASE kind WHEN 'google_meet' THEN 'https://meet.google.com/abc-' || id ELSE '' END,
       lpad(to_hex(id), 8, '0'), CASE WHEN n % 5 < 3 THEN repeat('Please bring your papers along. ', 1 + (n % 6)::int) END,
       least(starts_at - interval '14 days', now() - interval '1 hour'),
       least(starts_at - interval '14 days', now() - interval '1 hour'), candidate_id, recruiter_id,
       CASE kind WHEN 'google_meet' THEN md5(id::text) END, job_id,
       pg_temp.pick('{Software Engineer,Accountant,Nurse,Data Analyst,Driver,Product Designer,Teacher,Cook}', job_id),
       CASE n % 3 WHEN 0 THEN 45 END, CASE kind WHEN 'phone' THEN '+237 6 70 00 00 00' WHEN 'in_person' THEN 'Douala' END,
       md5(id::text) || '@google.com', 'user' || recruiter_id || '@mail.example', true, starts_at,
       starts_at + CASE n % 3 WHEN 0 THEN interval '45 min' ELSE interval '1 hour' END, :tzdb,
       CASE WHEN cancelled THEN starts_at - interval '7 days' END, CASE WHEN held THEN 2 ELSE 0 END,
       CASE WHEN held THEN starts_at END, CASE WHEN held THEN starts_at + interval '40 min' END,
       starts_at < now() + interval '3 days', starts_at < now() + interval '3 days'
FROM (SELECT *, (date + time) AT TIME ZONE timezone AS starts_at,
             kind = 'google_meet' AND NOT cancelled AND date < current_date - 1 AS held
      FROM (SELECT n, id, current_date - 365 + ((id - 1) * 730 / :interviews)::int AS date,
                   make_time((8 + n % 10)::int, (n % 4 * 15)::int, 0) AS time,
                   pg_temp.pick('{UTC,Africa/Douala,Europe/Berlin,America/New_York,Asia/Tokyo}', n / 7) AS timezone,
                   pg_temp.pick('{google_meet,google_meet,google_meet,phone,in_person}', n / 3) AS kind,
                   :recruiters + 1 + n / :of_candidate AS candidate_id, 1 + n % :recruiters AS recruiter_id,
                   n % :recruiters * 5 + 1 + n / :of_candidate % 5 AS job_id,
                   n % 20 = 7 AND id < :interviews / 2 AS cancelled
            FROM (SELECT n, n * :prime % :interviews + 1 AS id FROM generate_series(0, :interviews - 1::bigint) AS n
                  ORDER BY id) AS numbers) AS drawn) AS placed;

INSERT INTO job_application (id, user_id, job_id, quiz_score, matching_percentage, overall_match_percentage,
    has_completed_quiz, round_scores, total_scores, status, has_started, created_at, updated_at)
SELECT id, candidate_id, job_id, 70, 0.7, 70.0, true, '{}', '{}', 'pending', true, created_at, created_at
FROM company_interview;

INSERT INTO notifications_notification (id, notification_type, message, "timestamp", is_read, user_id, action_url)
SELECT id, 'interview_scheduled', 'An interview has been scheduled for you for the job ''' || job_title || '''.', created_at,
       starts_at < now(), candidate_id, '/interviews/' || id
FROM company_interview;

INSERT INTO ivs_presence (interview_id, user_id, user_role, joined_at, left_at, met)
SELECT id, user_id, role, meeting_started_at, meeting_ended_at, true
FROM company_interview, LATERAL (VALUES (candidate_id, 'candidate'), (recruiter_id, 'recruiter')) AS people (user_id, role)
WHERE meeting_started_at IS NOT NULL;

INSERT INTO ivs_mail (id, kind, interview_id, user_id, sequence, state, attempts, created_at, finished_at)
SELECT gen_random_uuid(), 'scheduled', id, user_id, 0, 'sent', 1, created_at, created_at
FROM company_interview, LATERAL (VALUES (candidate_id), (recruiter_id)) AS people (user_id)
WHERE created_at > now() - interval '90 days';

INSERT INTO ivs_portal_token (token_hash, interview_id, user_id, expires_at)
SELECT sha256(uuid_send(m.id)), i.id, m.user_id, i.ends_at + interval '25 hours'
FROM ivs_mail m JOIN company_interview i ON i.id = m.interview_id WHERE i.ends_at > now();

SELECT setval(pg_get_serial_sequence(name, 'id'), :interviews + :recruiters * 20)
FROM unnest('{users_user,company_company,job_job,company_interview,job_application,notifications_notification}'::text[]) AS name;
"#;
