//! Accounts in Django's tables, and the count of failed sign-ins.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgExecutor, Result};

use super::{CurrentUser, NewUser, Role};
use crate::{db, secret::TokenHash};

/// A user with what decides whether it may come in.
pub struct Account {
    pub user: CurrentUser,
    /// In Django's format.
    pub password: String,
    pub is_active: bool,
    pub is_deleted: bool,
    /// Its Bearer tokens that were issued earlier have been revoked.
    pub revoked_before: Option<DateTime<Utc>>,
}

impl Account {
    /// Whether anybody may sign in to it. SQL checks `is_active AND NOT is_deleted`, and nothing checks less.
    pub fn is_open(&self) -> bool {
        self.is_active && !self.is_deleted
    }

    /// When a sign-in that began at `begun` issues what it gives out: never before the last revocation that it has seen,
    /// wherever a clock is behind.
    pub fn issue_moment(&self, begun: DateTime<Utc>) -> DateTime<Utc> {
        self.revoked_before.map_or(begun, |moment| moment.max(begun))
    }

    /// Whether a Bearer token that was issued then, in seconds since 1970, has been revoked; without an instant it counts
    /// as old.
    pub fn has_revoked(&self, issued_at: Option<f64>) -> bool {
        self.revoked_before
            .is_some_and(|moment| issued_at.is_none_or(|issued_at| issued_at < moment.timestamp() as f64))
    }
}

/// Selects [`Account`]s: the condition, then its arguments.
macro_rules! accounts {
    ($condition:literal $(, $argument:expr)+) => {
        sqlx::query!(
            r#"SELECT u.id, u.email::text AS "email!", u.username::text AS "username!", u.first_name::text AS "first_name!",
                      u.last_name::text AS "last_name!", u.is_recruiter, u.is_applicant, u.has_resume, u.has_company,
                      c.id::bigint AS company_id, u.created_at, u.updated_at, u.password::text AS "password!",
                      u.is_active, u.is_deleted,
                      revoked.issued_before AS "revoked_before?"
               FROM users_user u LEFT JOIN company_company c ON c.user_id = u.id
               LEFT JOIN ivs_token_revocation revoked ON revoked.user_id = u.id
               WHERE "#
                + $condition
            $(, $argument)+
        )
        .map(|row| Account {
            user: CurrentUser {
                id: row.id,
                email: row.email,
                username: row.username,
                first_name: row.first_name,
                last_name: row.last_name,
                is_recruiter: row.is_recruiter,
                is_applicant: row.is_applicant,
                has_resume: row.has_resume,
                has_company: row.has_company,
                company_id: row.company_id,
                created_at: row.created_at,
                updated_at: row.updated_at,
            },
            password: row.password,
            is_active: row.is_active,
            is_deleted: row.is_deleted,
            revoked_before: row.revoked_before,
        })
    };
}

pub async fn account_by_id(db: impl PgExecutor<'_>, id: i64) -> Result<Option<Account>> {
    accounts!("u.id = $1", id).fetch_optional(db).await
}

/// Compared to the letter, as Django does.
pub async fn account_by_email(db: impl PgExecutor<'_>, email: &str) -> Result<Option<Account>> {
    accounts!("u.email = $1", email).fetch_optional(db).await
}

pub async fn insert_session(
    db: impl PgExecutor<'_>,
    token: &TokenHash,
    user_id: i64,
    password: &str,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO ivs_portal_session (token_hash, user_id, password_digest, expires_at)
         SELECT $1, $2, sha256(convert_to($3, 'UTF8')), $4",
        token.as_bytes(),
        user_id,
        password,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whose session it is, if that has not ended: `lifetime` after it was issued, or by a revocation since.
pub async fn session_user(
    db: impl PgExecutor<'_>,
    token: &TokenHash,
    now: DateTime<Utc>,
    lifetime: TimeDelta,
) -> Result<Option<CurrentUser>> {
    let account = accounts!(
        "u.id = (SELECT user_id FROM ivs_portal_session WHERE token_hash = $1 AND expires_at > $2)
         AND EXISTS (SELECT FROM ivs_portal_session
                     WHERE token_hash = $1 AND password_digest = sha256(convert_to(u.password, 'UTF8'))
                           AND (revoked.issued_before + $3 <= expires_at) IS NOT FALSE)",
        token.as_bytes(),
        now,
        lifetime as _
    );
    let account = account.fetch_optional(db).await?;
    Ok(account.filter(Account::is_open).map(|account| account.user))
}

pub async fn remove_session(db: impl PgExecutor<'_>, token: &TokenHash) -> Result<()> {
    sqlx::query!("DELETE FROM ivs_portal_session WHERE token_hash = $1", token.as_bytes()).execute(db).await?;
    Ok(())
}

/// Revokes a user's Bearer tokens issued before the moment. Ends their portal sessions and authorizations under way,
/// and returns how many sessions there were.
pub async fn revoke_tokens(db: impl PgExecutor<'_>, user_id: i64, issued_before: DateTime<Utc>) -> Result<u64> {
    let sessions = sqlx::query!(
        "WITH tokens AS (
             INSERT INTO ivs_token_revocation AS known (user_id, issued_before) VALUES ($1, $2)
             ON CONFLICT (user_id) DO UPDATE SET issued_before = GREATEST(known.issued_before, excluded.issued_before)),
         authorizations AS (DELETE FROM company_oauthstate WHERE user_id = $1)
         DELETE FROM ivs_portal_session WHERE user_id = $1",
        user_id,
        issued_before
    );
    Ok(sessions.execute(db).await?.rows_affected())
}

pub async fn remove_old_sessions(db: impl PgExecutor<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM ivs_portal_session WHERE expires_at <= $1", now).execute(db).await?;
    Ok(())
}

/// Stores a stronger hash of the same password, unless the stored one has been replaced meanwhile (`false`). Like
/// Django's own upgrade it leaves every other column alone.
pub async fn upgrade_password(db: impl PgExecutor<'_>, id: i64, weak: &str, strong: &str) -> Result<bool> {
    let upgraded =
        sqlx::query!("UPDATE users_user SET password = $3 WHERE id = $1 AND password = $2", id, weak, strong)
            .execute(db)
            .await?;
    Ok(upgraded.rows_affected() == 1)
}

/// The new user's id; `None` when the e-mail (or, by it, the user name) is taken.
pub async fn insert_user(
    db: &mut db::Connection,
    now: DateTime<Utc>,
    user: &NewUser,
    password: &str,
) -> Result<Option<i64>> {
    let (recruiter, company) = match &user.role {
        Role::Recruiter { company } => (true, company.is_some()),
        Role::Applicant => (false, false),
    };
    sqlx::query_scalar!(
        "INSERT INTO users_user (password, is_superuser, username, is_staff, is_active, date_joined, first_name,
             last_name, email, is_recruiter, is_applicant, has_resume, has_company, created_at, updated_at, is_deleted)
         VALUES ($1, false, $2, false, true, $3, $4, $5, $2, $6, NOT $6, false, $7, $3, $3, false)
         ON CONFLICT DO NOTHING RETURNING id",
        password,
        user.email,
        now,
        user.first_name,
        user.last_name,
        recruiter,
        company
    )
    .fetch_optional(db)
    .await
}

pub async fn insert_company(db: &mut db::Connection, now: DateTime<Utc>, owner: i64, name: &str) -> Result<()> {
    // The pictures are those Django gives a company without its own.
    sqlx::query!(
        "INSERT INTO company_company (user_id, name, country, logo, cover_photo, created_at, updated_at)
         VALUES ($1, $2, '', 'resume/images/default.jpg', 'resume/images/default.jpg', $3, $3)",
        owner,
        name,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Adds the attempt `now` to all subjects, unless one of them has as many after `since` as it may have (`most`, in the
/// same order); says whether it did. Of any number at the same time no more are added than there is room for. `always`
/// makes room: the oldest goes.
pub async fn count_attempt(
    db: impl PgExecutor<'_>,
    subjects: &[&[u8]],
    most: &[i64],
    now: DateTime<Utc>,
    since: DateTime<Utc>,
    always: bool,
) -> Result<bool> {
    // What is locked is also the newest. A row that was not there yet is looked at by the last condition, which then
    // leaves the attempt at the first subject; only dozens of servers together could make it full so quickly.
    let counted = sqlx::query!(
        "WITH counts AS (
             SELECT * FROM unnest($1::bytea[], $2::bigint[]) WITH ORDINALITY AS counts (subject, most, nr)),
         locked AS (
             SELECT known.attempts, counts.most FROM counts JOIN ivs_login_throttle known USING (subject)
             ORDER BY nr FOR UPDATE OF known)
         INSERT INTO ivs_login_throttle AS t (subject, attempts)
         SELECT subject, ARRAY[$3::timestamptz] FROM counts
         WHERE $5 OR NOT EXISTS (SELECT FROM locked
                                 WHERE (SELECT count(*) FROM unnest(attempts) AS at WHERE at > $4) >= most)
         ORDER BY nr
         ON CONFLICT (subject) DO UPDATE
         SET attempts = ARRAY(SELECT at FROM unnest(t.attempts) AS at WHERE at > $4 ORDER BY at DESC
                              LIMIT (SELECT most - 1 FROM counts WHERE counts.subject = t.subject))
                        || $3::timestamptz
         WHERE $5 OR (SELECT count(*) FROM unnest(t.attempts) AS at WHERE at > $4)
                     < (SELECT most FROM counts WHERE counts.subject = t.subject)",
        subjects as &[&[u8]],
        most,
        now,
        since,
        always
    )
    .execute(db)
    .await?;
    Ok(counted.rows_affected() == subjects.len() as u64)
}

/// How many attempts there are after `since`.
pub async fn attempts(db: impl PgExecutor<'_>, subject: &[u8], since: DateTime<Utc>) -> Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM ivs_login_throttle, unnest(attempts) AS at WHERE subject = $1 AND at > $2"#,
        subject,
        since
    )
    .fetch_one(db)
    .await
}

/// The oldest attempt after `since` of the subject that is full, which has `most` of them; of several full ones that
/// which has room last.
pub async fn oldest_if_full(
    db: impl PgExecutor<'_>,
    subjects: &[&[u8]],
    most: &[i64],
    since: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "SELECT max(oldest) FROM (
             SELECT min(at) AS oldest
             FROM unnest($1::bytea[], $2::bigint[]) AS counts (subject, most)
             JOIN ivs_login_throttle USING (subject), unnest(attempts) AS at
             WHERE at > $3 GROUP BY subject, most HAVING count(*) >= most) AS full_subjects",
        subjects as &[&[u8]],
        most,
        since
    )
    .fetch_one(db)
    .await
}

/// Removes one attempt of the instant `at` from all subjects. They are locked in the order in which they are counted.
pub async fn take_attempt_back(db: impl PgExecutor<'_>, subjects: &[Vec<u8>], at: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "WITH locked AS (
             SELECT subject FROM unnest($1::bytea[]) WITH ORDINALITY AS counts (subject, nr)
             JOIN ivs_login_throttle known USING (subject) ORDER BY nr FOR UPDATE OF known)
         UPDATE ivs_login_throttle
         SET attempts = attempts[:array_position(attempts, $2) - 1] || attempts[array_position(attempts, $2) + 1:]
         WHERE subject IN (SELECT subject FROM locked) AND $2 = ANY (attempts)",
        subjects,
        at
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn forget_attempts(db: impl PgExecutor<'_>, subject: &[u8]) -> Result<()> {
    sqlx::query!("DELETE FROM ivs_login_throttle WHERE subject = $1", subject).execute(db).await?;
    Ok(())
}

/// Removes whoever has made no attempt after `since`.
pub async fn remove_old_attempts(db: impl PgExecutor<'_>, since: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM ivs_login_throttle WHERE $1 >= ALL (attempts)", since).execute(db).await?;
    Ok(())
}
