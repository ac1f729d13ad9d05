//! The SQL of interviews.

use std::ops::{Deref, DerefMut};

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::Deserialize;
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

use super::{
    key,
    model::{self, InterviewType, JobChoice, Person, Request, Side, Window},
    page::Place,
    reminder,
};
use crate::{
    auth,
    clock::random_bytes,
    config::Settings,
    context::Context,
    db,
    http::array::cut,
    icalendar, mail,
    secret::TokenHash,
    zone::{self, Zone},
};

/// An interview as lists show it, with the people, the job and the company that belong to it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub id: i64,
    pub date: NaiveDate,
    pub time: NaiveTime,
    /// As stored: maybe no zone at all.
    pub timezone: String,
    /// As stored.
    pub interview_type: String,
    /// `''` when there is none.
    pub meeting_link: String,
    pub note: Option<String>,
    pub location: Option<String>,
    pub duration_minutes: Option<i32>,
    /// As cached, maybe wrong: [`Listed::window`] is right.
    pub starts_at: Option<DateTime<Utc>>,
    pub starts_at_tzdb: Option<String>,
    pub cancelled_at: Option<DateTime<Utc>>,
    pub candidate_id: i64,
    pub candidate_first_name: String,
    pub candidate_last_name: String,
    pub candidate_email: String,
    pub recruiter_id: Option<i64>,
    pub recruiter_first_name: Option<String>,
    pub recruiter_last_name: Option<String>,
    pub recruiter_email: Option<String>,
    pub job_title: String,
    pub company_name: String,
}

/// An interview in full. What lists show of it is read as if it were its own.
#[derive(Clone, Debug)]
pub struct Interview {
    pub listed: Listed,
    /// The account is inactive or deleted.
    pub candidate_is_closed: bool,
    pub recruiter_is_closed: bool,
    pub cancellation_reason: Option<String>,
    pub portal_join_count: i32,
    pub meeting_started_at: Option<DateTime<Utc>>,
    pub meeting_ended_at: Option<DateTime<Utc>>,
    pub google_event_id: Option<String>,
    pub ical_uid: Option<String>,
    pub ical_sequence: i32,
    pub ical_organizer: Option<String>,
    pub calendar_invite_sent: bool,
    pub created_at: DateTime<Utc>,
    /// Who was there, in the order of joining; only [`by_id`] reads it.
    pub attendance: Option<Json<Vec<Presence>>>,
    /// What became of each person's latest invitation; only [`of_recruiter_with_mails`] reads it.
    pub invitations: Option<Json<Vec<InvitationMail>>>,
    /// Whether the candidate applied for the job; only [`of_candidate_with_applications`] reads it.
    pub has_applied: Option<bool>,
}

impl Interview {
    /// Whether that person's account is closed.
    pub fn is_closed(&self, side: Side) -> bool {
        match side {
            Side::Candidate => self.candidate_is_closed,
            Side::Recruiter => self.recruiter_is_closed,
        }
    }
}

impl Deref for Interview {
    type Target = Listed;

    fn deref(&self) -> &Listed {
        &self.listed
    }
}

impl DerefMut for Interview {
    fn deref_mut(&mut self) -> &mut Listed {
        &mut self.listed
    }
}

/// The mail that told a person of an interview as it is.
#[derive(Clone, Debug, Deserialize)]
pub struct InvitationMail {
    pub id: Uuid,
    pub user_id: i64,
    pub state: mail::State,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Presence {
    pub user_id: i64,
    pub user_role: String,
    pub joined_at: DateTime<Utc>,
    pub left_at: Option<DateTime<Utc>>,
}

impl Listed {
    pub fn candidate(&self) -> Person {
        Person {
            id: self.candidate_id,
            first_name: self.candidate_first_name.clone(),
            last_name: self.candidate_last_name.clone(),
            email: self.candidate_email.clone(),
        }
    }

    /// `None` for rows that Django made.
    pub fn recruiter(&self) -> Option<Person> {
        Some(Person {
            id: self.recruiter_id?,
            first_name: self.recruiter_first_name.clone()?,
            last_name: self.recruiter_last_name.clone()?,
            email: self.recruiter_email.clone()?,
        })
    }

    pub fn candidate_name(&self) -> String {
        auth::full_name(&self.candidate_first_name, &self.candidate_last_name, &self.candidate_email)
    }

    /// `Unknown` for rows that Django made.
    pub fn recruiter_name(&self) -> String {
        match (&self.recruiter_first_name, &self.recruiter_last_name, &self.recruiter_email) {
            (Some(first), Some(last), Some(email)) => auth::full_name(first, last, email),
            _ => "Unknown".to_owned(),
        }
    }

    /// `None` for somebody who does not take part.
    pub fn side_of(&self, user_id: i64) -> Option<Side> {
        match user_id {
            id if self.recruiter_id == Some(id) => Some(Side::Recruiter),
            id if self.candidate_id == id => Some(Side::Candidate),
            _ => None,
        }
    }

    /// The interview's zone; UTC for what is no zone.
    pub fn zone(&self) -> Zone {
        let version = self.starts_at_tzdb.as_deref();
        model::stored_zone(self.date, self.time, &self.timezone, self.starts_at, version)
    }

    pub fn minutes(&self, settings: &Settings) -> i32 {
        self.duration_minutes.unwrap_or(settings.interview_duration_minutes)
    }

    pub fn window(&self, settings: &Settings) -> Window {
        let span = model::stored_span(&self.zone(), self.date, self.time, self.duration_minutes, settings);
        Window::new(span, self.cancelled_at.is_some(), settings)
    }

    pub fn kind(&self) -> InterviewType {
        InterviewType::stored(&self.interview_type)
    }

    /// Whether the two agree in everything that a recruiter can change.
    pub fn says_the_same_as(&self, other: &Listed) -> bool {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        (self.date, self.time, &self.timezone, &self.interview_type, self.duration_minutes)
            == (other.date, other.time, &other.timezone, &other.interview_type, other.duration_minutes)
            && (given(&self.note), given(&self.location)) == (given(&other.note), given(&other.location))
    }

    /// The link to the meeting, as long as there is one to join.
    pub fn link(&self) -> Option<&str> {
        let has_link = matches!(self.kind(), InterviewType::GoogleMeet | InterviewType::Custom);
        (has_link && self.cancelled_at.is_none() && !self.meeting_link.is_empty()).then_some(&*self.meeting_link)
    }
}

/// Selects [`Interview`]s: what follows the joins, with its arguments. Before it may stand the expression of one of the
/// columns that are null otherwise: `attendance`, `invitations` or `has_applied`.
macro_rules! interviews {
    (attendance: $sql:literal, $($rest:tt)*) => { interviews!(@ $sql, "NULL::jsonb", "NULL::bool", $($rest)*) };
    (invitations: $sql:literal, $($rest:tt)*) => { interviews!(@ "NULL::jsonb", $sql, "NULL::bool", $($rest)*) };
    (has_applied: $sql:literal, $($rest:tt)*) => { interviews!(@ "NULL::jsonb", "NULL::jsonb", $sql, $($rest)*) };
    (@ $attendance:literal, $invitations:literal, $has_applied:literal, $first:literal $(+ $rest:literal)* $(, $argument:expr)*) => {
        sqlx::query!(
            r#"
            SELECT i.id, i.date, i.time, i.timezone::text AS "timezone!", i.interview_type::text AS "interview_type!",
                   i.meeting_link::text AS "meeting_link!", i.note::text, i.location::text,
                   i.duration_minutes::int4, i.starts_at, i.starts_at_tzdb::text, i.cancelled_at,
                   i.cancellation_reason::text, i.portal_join_count::int4 AS "portal_join_count!",
                   i.meeting_started_at, i.meeting_ended_at, i.google_event_id::text, i.ical_uid::text,
                   i.ical_sequence::int4 AS "ical_sequence!", i.ical_organizer::text, i.calendar_invite_sent,
                   i.created_at, i.candidate_id, c.first_name::text AS "candidate_first_name!",
                   c.last_name::text AS "candidate_last_name!", c.email::text AS "candidate_email!",
                   NOT (c.is_active AND NOT c.is_deleted) AS "candidate_is_closed!",
                   COALESCE(NOT (r.is_active AND NOT r.is_deleted), false) AS "recruiter_is_closed!",
                   i.recruiter_id, r.first_name::text AS "recruiter_first_name?",
                   r.last_name::text AS "recruiter_last_name?", r.email::text AS "recruiter_email?",
                   COALESCE(NULLIF(i.job_title, ''), j.title, 'Interview')::text AS "job_title!",
                   COALESCE((SELECT name FROM company_company WHERE id = j.company_id),
                            (SELECT name FROM company_company WHERE user_id = i.recruiter_id), '')::text AS "company_name!",
            "# + $attendance + r#" AS "attendance: Json<Vec<Presence>>",
            "# + $invitations + r#" AS "invitations: Json<Vec<InvitationMail>>",
            "# + $has_applied + r#" AS has_applied
            FROM company_interview i
            JOIN users_user c ON c.id = i.candidate_id
            LEFT JOIN users_user r ON r.id = i.recruiter_id
            LEFT JOIN job_job j ON j.id = i.job_id
            "# + $first $(+ $rest)*
            $(, $argument)*
        )
        .map(|row| Interview {
            listed: Listed {
                id: row.id,
                date: row.date,
                time: row.time,
                timezone: row.timezone,
                interview_type: row.interview_type,
                meeting_link: row.meeting_link,
                note: row.note,
                location: row.location,
                duration_minutes: row.duration_minutes,
                starts_at: row.starts_at,
                starts_at_tzdb: row.starts_at_tzdb,
                cancelled_at: row.cancelled_at,
                candidate_id: row.candidate_id,
                candidate_first_name: row.candidate_first_name,
                candidate_last_name: row.candidate_last_name,
                candidate_email: row.candidate_email,
                recruiter_id: row.recruiter_id,
                recruiter_first_name: row.recruiter_first_name,
                recruiter_last_name: row.recruiter_last_name,
                recruiter_email: row.recruiter_email,
                job_title: row.job_title,
                company_name: row.company_name,
            },
            candidate_is_closed: row.candidate_is_closed,
            recruiter_is_closed: row.recruiter_is_closed,
            cancellation_reason: row.cancellation_reason,
            portal_join_count: row.portal_join_count,
            meeting_started_at: row.meeting_started_at,
            meeting_ended_at: row.meeting_ended_at,
            google_event_id: row.google_event_id,
            ical_uid: row.ical_uid,
            ical_sequence: row.ical_sequence,
            ical_organizer: row.ical_organizer,
            calendar_invite_sent: row.calendar_invite_sent,
            created_at: row.created_at,
            attendance: row.attendance,
            invitations: row.invitations,
            has_applied: row.has_applied,
        })
    };
    ($($rest:tt)*) => { interviews!(@ "NULL::jsonb", "NULL::jsonb", "NULL::bool", $($rest)*) };
}

/// Selects the [`Interview`]s in which the person of `$column` is `$user`: at most `$most` of those that may be ahead
/// wherever they are, the soonest, and as many of the others, the latest; with one more column as [`interviews!`] has
/// it.
macro_rules! nearest_interviews {
    ($column:literal, $user:expr, $most:expr, $now:expr, $more:ident: $sql:literal) => {
        interviews!(
            $more: $sql,
            "WHERE i.id IN (
                 (SELECT id FROM company_interview WHERE " + $column + " = $1 AND date >= $3
                  ORDER BY date, time, id LIMIT $2)
                 UNION ALL
                 (SELECT id FROM company_interview WHERE " + $column + " = $1 AND date < $3
                  ORDER BY date DESC, time DESC, id DESC LIMIT $2))
             ORDER BY i.date DESC, i.time DESC, i.id DESC",
            $user,
            $most,
            maybe_ahead($now)
        )
    };
}

/// The interviews somebody takes part in, latest first: at most `most` of those after a place, and the place after
/// which there are more. Each side's rows come in order from its index and are read once, so a page costs only what it
/// shows. The caller is looked up once, and a recruiter's company only if the job has none.
pub async fn of_user(
    db: impl PgExecutor<'_>,
    user_id: i64,
    side: Option<Side>,
    after: Place,
    most: i64,
) -> sqlx::Result<(Vec<Listed>, Option<Place>)> {
    let rows = sqlx::query_as!(
        Listed,
        r#"
        SELECT i.id::bigint AS "id!", i.date::date AS "date!", i.time::time AS "time!", i.timezone::text AS "timezone!",
               i.interview_type::text AS "interview_type!", i.meeting_link::text AS "meeting_link!", i.note::text,
               i.location::text, i.duration_minutes::int, i.starts_at::timestamptz, i.starts_at_tzdb::text,
               i.cancelled_at::timestamptz, i.candidate_id::bigint AS "candidate_id!",
               i.candidate_first_name::text AS "candidate_first_name!",
               i.candidate_last_name::text AS "candidate_last_name!", i.candidate_email::text AS "candidate_email!",
               i.recruiter_id::bigint, i.recruiter_first_name::text, i.recruiter_last_name::text, i.recruiter_email::text,
               COALESCE(NULLIF(i.job_title, ''), j.title, 'Interview')::text AS "job_title!",
               COALESCE((SELECT name FROM company_company WHERE id = j.company_id),
                        (SELECT name FROM company_company WHERE user_id = i.recruiter_id), '')::text AS "company_name!"
        FROM ((SELECT i.id, i.date, i.time, i.timezone, i.interview_type, i.meeting_link, i.note, i.location,
                      i.duration_minutes, i.starts_at, i.starts_at_tzdb, i.cancelled_at, i.job_id, i.job_title,
                      i.candidate_id, c.first_name AS candidate_first_name, c.last_name AS candidate_last_name,
                      c.email AS candidate_email, i.recruiter_id, r.first_name AS recruiter_first_name,
                      r.last_name AS recruiter_last_name, r.email AS recruiter_email
               FROM company_interview i
               JOIN users_user c ON c.id = $1
               LEFT JOIN users_user r ON r.id = i.recruiter_id
               WHERE i.candidate_id = $1 AND $2 AND (i.date, i.time, i.id) < ($4, $5, $6)
               ORDER BY i.date DESC, i.time DESC, i.id DESC LIMIT $7)
              UNION ALL
              (SELECT i.id, i.date, i.time, i.timezone, i.interview_type, i.meeting_link, i.note, i.location,
                      i.duration_minutes, i.starts_at, i.starts_at_tzdb, i.cancelled_at, i.job_id, i.job_title,
                      i.candidate_id, c.first_name, c.last_name, c.email,
                      i.recruiter_id, r.first_name, r.last_name, r.email
               FROM company_interview i
               JOIN users_user c ON c.id = i.candidate_id
               JOIN users_user r ON r.id = $1
               WHERE i.recruiter_id = $1 AND $3 AND NOT ($2 AND i.candidate_id = $1)
                 AND (i.date, i.time, i.id) < ($4, $5, $6)
               ORDER BY i.date DESC, i.time DESC, i.id DESC LIMIT $7)) i
        LEFT JOIN job_job j ON j.id = i.job_id
        ORDER BY i.date DESC, i.time DESC, i.id DESC LIMIT $7
        "#,
        user_id,
        side != Some(Side::Recruiter),
        side != Some(Side::Candidate),
        after.date,
        after.time,
        after.id,
        most + 1
    )
    .fetch_all(db)
    .await?;
    Ok(cut(rows, most, Place::of))
}

/// A recruiter's interviews, with what became of their invitations: at most `most` of those that may be ahead wherever
/// they are, the soonest, and as many of the others, the latest.
pub async fn of_recruiter_with_mails(ctx: &Context, user_id: i64, most: i64) -> sqlx::Result<Vec<Interview>> {
    nearest_interviews!(
        "recruiter_id",
        user_id,
        most,
        ctx.clock.now(),
        invitations: "(SELECT jsonb_agg(jsonb_build_object('id', m.id, 'user_id', m.user_id, 'state', m.state))
                       FROM (SELECT DISTINCT ON (user_id) id, user_id, state FROM ivs_mail
                             WHERE interview_id = i.id AND kind IN ('scheduled', 'updated', 'cancelled')
                               AND sequence = i.ical_sequence
                             ORDER BY user_id, created_at DESC) m)"
    )
    .fetch_all(&ctx.db)
    .await
}

/// A candidate's interviews, so many likewise, with whether he applied for the job.
pub async fn of_candidate_with_applications(ctx: &Context, user_id: i64, most: i64) -> sqlx::Result<Vec<Interview>> {
    nearest_interviews!(
        "candidate_id",
        user_id,
        most,
        ctx.clock.now(),
        has_applied: "EXISTS (SELECT FROM job_application a WHERE a.user_id = i.candidate_id AND a.job_id = i.job_id)"
    )
    .fetch_all(&ctx.db)
    .await
}

/// What has not ended has a date, by its own clock, from this one on: eight hours and the offset of any zone are
/// together less than a day.
pub fn maybe_ahead(now: DateTime<Utc>) -> NaiveDate {
    (now - TimeDelta::days(1)).date_naive()
}

/// What became of a mail about an interview of this recruiter, and when that ends, if that is known.
pub async fn mail_of_recruiter(
    ctx: &Context,
    mail: Uuid,
    recruiter_id: i64,
) -> sqlx::Result<Option<(mail::State, Option<DateTime<Utc>>)>> {
    let row = sqlx::query!(
        r#"SELECT m.state AS "state: mail::State", i.ends_at FROM ivs_mail m JOIN company_interview i ON i.id = m.interview_id
           WHERE m.id = $1 AND i.recruiter_id = $2"#,
        mail,
        recruiter_id
    );
    Ok(row.fetch_optional(&ctx.db).await?.map(|row| (row.state, row.ends_at)))
}

pub async fn by_id(db: impl PgExecutor<'_>, id: i64) -> sqlx::Result<Option<Interview>> {
    interviews!(
        attendance: "(SELECT jsonb_agg(jsonb_build_object('user_id', p.user_id, 'user_role', p.user_role,
                                                          'joined_at', p.joined_at, 'left_at', p.left_at)
                                       ORDER BY p.joined_at, p.id)
                      FROM ivs_presence p WHERE p.interview_id = i.id)",
        "WHERE i.id = $1",
        id
    )
    .fetch_optional(db)
    .await
}

/// Keeps others from changing an interview until the transaction ends; `false`: there is none.
pub async fn lock(db: impl PgExecutor<'_>, id: i64) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!("SELECT id FROM company_interview WHERE id = $1 FOR NO KEY UPDATE", id)
        .fetch_optional(db)
        .await?;
    Ok(found.is_some())
}

/// Lets a person into a locked interview, unless he is there already, and notes which recruiters have met the
/// candidate.
pub async fn open_presence(
    db: impl PgExecutor<'_>,
    interview_id: i64,
    user_id: i64,
    side: Side,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let role = match side {
        Side::Candidate => "candidate",
        Side::Recruiter => "recruiter",
    };
    sqlx::query!(
        "WITH met AS (
             UPDATE ivs_presence SET met = true
             WHERE interview_id = $1 AND user_role = 'recruiter' AND NOT met AND $3 = 'candidate'),
         opened AS (
             INSERT INTO ivs_presence (interview_id, user_id, user_role, joined_at, met)
             SELECT $1, $2, $3, $4,
                    $3 = 'recruiter'
                        AND EXISTS (SELECT FROM ivs_presence WHERE interview_id = $1 AND user_role = 'candidate')
             ON CONFLICT (interview_id, user_id) WHERE left_at IS NULL DO NOTHING
             RETURNING id)
         UPDATE company_interview
         SET portal_join_count = portal_join_count + 1, meeting_started_at = COALESCE(meeting_started_at, $4),
             meeting_ended_at = NULL, updated_at = $4
         WHERE id = $1 AND EXISTS (SELECT FROM opened)",
        interview_id,
        user_id,
        role,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a person out of a locked interview, if he is there; the last one ends the meeting. Servers' clocks differ a
/// little: nothing ends before it begins.
pub async fn close_presence(
    db: impl PgExecutor<'_>,
    interview_id: i64,
    user_id: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH closed AS (
             UPDATE ivs_presence SET left_at = GREATEST(joined_at, $3)
             WHERE interview_id = $1 AND user_id = $2 AND left_at IS NULL
             RETURNING id)
         UPDATE company_interview SET meeting_ended_at = GREATEST(meeting_started_at, $3), updated_at = $3
         WHERE id = $1 AND EXISTS (SELECT FROM closed)
           AND NOT EXISTS (SELECT FROM ivs_presence
                           WHERE interview_id = $1 AND user_id <> $2 AND left_at IS NULL)",
        interview_id,
        user_id,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The interview that a mailed link opens, and whom it was made for; `None` unless the link is valid now.
pub async fn by_portal_token(
    db: &db::Pool,
    id: i64,
    token: &TokenHash,
    now: DateTime<Utc>,
    settings: &Settings,
) -> sqlx::Result<Option<(Interview, i64)>> {
    let owner = sqlx::query_scalar!(
        "SELECT t.user_id FROM ivs_portal_token t JOIN users_user u ON u.id = t.user_id
         WHERE t.token_hash = $1 AND t.interview_id = $2 AND u.is_active AND NOT u.is_deleted",
        token.as_bytes(),
        id
    )
    .fetch_optional(db)
    .await?;
    let Some(owner) = owner else { return Ok(None) };
    // By the interview as it is now, which may have been moved. Whoever no longer takes part (Django may have changed
    // the row) is not let in by an old mail.
    let is_open = |interview: &Interview| {
        now < model::link_expiry(&interview.window(settings)) && interview.side_of(owner).is_some()
    };
    Ok(by_id(db, id).await?.filter(is_open).map(|interview| (interview, owner)))
}

/// Keeps the hash of a fresh link token.
pub async fn insert_portal_token(
    db: impl PgExecutor<'_>,
    token: &TokenHash,
    interview_id: i64,
    user_id: i64,
    expires_at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO ivs_portal_token (token_hash, interview_id, user_id, expires_at) VALUES ($1, $2, $3, $4)",
        token.as_bytes(),
        interview_id,
        user_id,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What the rules of contract §5.6 ask the database about a request.
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

/// Everything a new interview row holds.
pub struct NewInterview<'a> {
    pub recruiter_id: i64,
    pub request: &'a Request,
    pub job_id: Option<i64>,
    pub job_title: &'a str,
    pub meeting_link: &'a str,
    pub google_event_id: Option<&'a str>,
    /// `None`: `interview-{id}@umemployed.com`.
    pub ical_uid: Option<&'a str>,
    pub ical_organizer: &'a str,
}

/// Writes the row and gives its id.
pub async fn insert(db: &mut db::Connection, new: &NewInterview<'_>, now: DateTime<Utc>) -> sqlx::Result<i64> {
    let request = new.request;
    // Two rooms of one name are so rare that a second try settles it; the bound only keeps a fault from looping.
    for _ in 0..8 {
        let id = sqlx::query_scalar!(
            "WITH next AS (SELECT nextval(pg_get_serial_sequence('company_interview', 'id')) AS id)
             INSERT INTO company_interview (id, date, time, timezone, interview_type, meeting_link, room_id, note,
                 created_at, updated_at, candidate_id, recruiter_id, google_event_id, job_id, job_title,
                 duration_minutes, location, ical_uid, ical_organizer, starts_at, ends_at, starts_at_tzdb)
             SELECT id, $1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10, $11, $12, $13, $14, $15,
                    COALESCE($16, 'interview-' || id || '@umemployed.com'), $17, $18, $19, $20
             FROM next
             ON CONFLICT (room_id) DO NOTHING
             RETURNING id",
            request.date,
            request.time,
            request.zone.name(),
            request.interview_type.as_str(),
            new.meeting_link,
            room_id(),
            request.note,
            now,
            request.candidate_id,
            new.recruiter_id,
            new.google_event_id,
            new.job_id,
            new.job_title,
            request.duration_minutes,
            request.location,
            new.ical_uid,
            new.ical_organizer,
            request.start.at,
            request.end,
            zone::tzdb_version()
        )
        .fetch_optional(&mut *db)
        .await?;
        if let Some(id) = id {
            return Ok(id);
        }
    }
    Err(sqlx::Error::Protocol("no free room id".into()))
}

/// Writes `after` over `before` and gives the new SEQUENCE; `None` when the row no longer says what `before` does.
///
/// `ical_uid` and `organizer` are kept where the row has none yet. Moments for a reminder that have passed count as
/// reminded of, the others are to come again if the start has moved.
pub async fn update(
    db: &mut db::Connection,
    before: &Interview,
    after: &Interview,
    ical_uid: Option<String>,
    organizer: Option<String>,
    settings: &Settings,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<i32>> {
    let window = after.window(settings);
    let moved = window.start != before.window(settings).start;
    sqlx::query_scalar!(
        "UPDATE company_interview
         SET date = $2, time = $3, timezone = $4, interview_type = $5, note = $6, duration_minutes = $7, location = $8,
             meeting_link = $9, google_event_id = $10, starts_at = $11, ends_at = $12, starts_at_tzdb = $13,
             ical_uid = COALESCE(ical_uid, $14), ical_organizer = COALESCE(ical_organizer, $15),
             ical_sequence = ical_sequence + 1, updated_at = $16,
             reminder_24h_sent = CASE WHEN $17 THEN $18 ELSE reminder_24h_sent END,
             reminder_1h_sent = CASE WHEN $17 THEN $19 ELSE reminder_1h_sent END
         WHERE id = $1 AND cancelled_at IS NULL AND date = $20 AND time = $21 AND timezone = $22
           AND interview_type = $23 AND note IS NOT DISTINCT FROM $24 AND duration_minutes IS NOT DISTINCT FROM $25
           AND location IS NOT DISTINCT FROM $26 AND google_event_id IS NOT DISTINCT FROM $27
           AND meeting_link = $28 AND candidate_id = $29 AND recruiter_id IS NOT DISTINCT FROM $30
         RETURNING ical_sequence::int4 AS \"ical_sequence!\"",
        after.id,
        after.date,
        after.time,
        after.timezone,
        after.interview_type,
        after.note,
        after.duration_minutes,
        after.location,
        after.meeting_link,
        after.google_event_id,
        window.start,
        window.end,
        after.zone().rules(after.starts_at_tzdb.as_deref()),
        ical_uid.unwrap_or_else(|| icalendar::own_uid(after.id)),
        organizer,
        now,
        moved,
        window.start - reminder::DAY_BEFORE <= now,
        window.start - reminder::HOUR_BEFORE <= now,
        before.date,
        before.time,
        before.timezone,
        before.interview_type,
        before.note,
        before.duration_minutes,
        before.location,
        before.google_event_id,
        before.meeting_link,
        before.candidate_id,
        before.recruiter_id
    )
    .fetch_optional(db)
    .await
}

/// Keeps the UID and the organizer of an event that we did not make, where the row has none yet.
pub async fn keep_identity(
    db: &mut db::Connection,
    id: i64,
    ical_uid: Option<&str>,
    organizer: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE company_interview
         SET ical_uid = COALESCE(ical_uid, $2), ical_organizer = COALESCE(ical_organizer, $3) WHERE id = $1",
        id,
        ical_uid,
        organizer
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A row just cancelled.
pub struct CancelledRow {
    pub ical_sequence: i32,
    pub google_event_id: Option<String>,
}

/// Cancels an interview; `None` when it was cancelled already. `organizer` is kept where the row has none yet.
pub async fn cancel(
    db: &mut db::Connection,
    id: i64,
    reason: Option<&str>,
    organizer: Option<&str>,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<CancelledRow>> {
    sqlx::query_as!(
        CancelledRow,
        "UPDATE company_interview
         SET cancelled_at = $2, cancellation_reason = $3, ical_sequence = ical_sequence + 1, updated_at = $2,
             ical_uid = COALESCE(ical_uid, $4), ical_organizer = COALESCE(ical_organizer, $5)
         WHERE id = $1 AND cancelled_at IS NULL
         RETURNING ical_sequence::int4 AS \"ical_sequence!\", google_event_id::text",
        id,
        now,
        reason,
        icalendar::own_uid(id),
        organizer
    )
    .fetch_optional(db)
    .await
}

/// Eight characters of `[A-Z0-9]`, each equally likely.
fn room_id() -> String {
    const ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut room = String::with_capacity(8);
    while room.len() < 8 {
        // 252 = 7 × 36: the bytes above it would favour the first letters.
        let fair = random_bytes::<16>().into_iter().filter(|byte| *byte < 252);
        room.extend(fair.take(8 - room.len()).map(|byte| char::from(ALPHABET[usize::from(byte % 36)])));
    }
    room
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

/// Removes what has had its time: keys after a day, links whose interview (it may have been moved since) is over.
pub async fn remove_expired(db: impl PgExecutor<'_>, now: DateTime<Utc>, settings: &Settings) -> sqlx::Result<()> {
    let over = now - settings.join_closes_after_end - model::LINK_OUTLIVES_WINDOW;
    sqlx::query!(
        "WITH keys AS (DELETE FROM ivs_idempotency_key WHERE created_at < $1)
         DELETE FROM ivs_portal_token t USING company_interview i
         WHERE t.expires_at <= $2 AND i.id = t.interview_id AND i.ends_at <= $3",
        now - key::KEPT,
        now,
        over
    )
    .execute(db)
    .await?;
    Ok(())
}
