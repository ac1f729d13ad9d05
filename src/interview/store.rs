//! The SQL of interviews.

use std::ops::{Deref, DerefMut};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Deserialize;
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

use super::{
    key,
    list::Entry,
    model::{self, Request, Side},
    reminder,
};
use crate::{clock::random_bytes, config::Settings, context::Context, db, icalendar, mail, secret::TokenHash, zone};

/// An interview in full. What lists show of it is read as if it were its own.
#[derive(Clone, Debug)]
pub struct Interview {
    pub entry: Entry,
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
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl DerefMut for Interview {
    fn deref_mut(&mut self) -> &mut Entry {
        &mut self.entry
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
            entry: Entry {
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

/// A candidate's interviews, chosen in the same way, with whether the candidate applied for the job.
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
    // By the interview as it is now, which may have been moved. Somebody who no longer takes part (Django may have
    // changed the row) is not let in by an old mail.
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
