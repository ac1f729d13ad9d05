//! The states of authorizations under way: only their hashes are stored, and the code verifiers sealed.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret;
use sqlx::PgExecutor;

use crate::{
    db,
    secret::{Place, PlainToken, Sealer},
};

/// How long a state is valid.
pub const LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// How many authorizations of a user can be under way.
const MOST: i64 = 20;

/// An authorization that a user began.
pub struct Begun {
    pub user_id: i64,
    pub created_at: DateTime<Utc>,
    /// None when it cannot be opened.
    pub code_verifier: Option<String>,
    pub user_is_open: bool,
}

/// Remembers an authorization under its state's hash. Of the user's states it forgets those that are too old to be used
/// and, beyond [`MOST`], the oldest.
pub async fn put(
    db: &db::Pool,
    user_id: i64,
    state: &PlainToken,
    code_verifier: &str,
    sealer: &Sealer,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO company_oauthstate (user_id, state, code_verifier, created_at) VALUES ($1, $2, $3, $4)",
        user_id,
        state.hash().hex(),
        sealer.seal(&verifier_place(user_id), code_verifier.as_bytes()),
        now
    )
    .execute(db)
    .await?;
    // Once the new one can be seen: of several at the same time, the last to look sees them all.
    sqlx::query!(
        "DELETE FROM company_oauthstate WHERE id IN (
             SELECT id FROM company_oauthstate
             WHERE user_id = $1 AND (created_at < $2 OR id <= (
                 SELECT id FROM company_oauthstate WHERE user_id = $1 ORDER BY id DESC OFFSET $3 LIMIT 1))
             FOR UPDATE SKIP LOCKED)",
        user_id,
        now - LIFETIME,
        MOST
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Uses up a state, valid or too old: of two who bring it, one gets it. None: it is unknown.
pub async fn take(db: impl PgExecutor<'_>, state: &PlainToken, sealer: Option<&Sealer>) -> sqlx::Result<Option<Begun>> {
    let row = sqlx::query!(
        r#"DELETE FROM company_oauthstate USING users_user WHERE state = $1 AND users_user.id = user_id
           RETURNING user_id, company_oauthstate.created_at, code_verifier::text,
                     is_active AND NOT is_deleted AS "user_is_open!""#,
        state.hash().hex()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| {
        let plain = row.code_verifier.and_then(|sealed| sealer?.open(&verifier_place(row.user_id), &sealed));
        let code_verifier = plain.and_then(|plain| String::from_utf8(plain.expose_secret().to_vec()).ok());
        Begun { user_id: row.user_id, created_at: row.created_at, code_verifier, user_is_open: row.user_is_open }
    }))
}

fn verifier_place(user_id: i64) -> Place {
    Place { table: "company_oauthstate", row: user_id, column: "code_verifier" }
}
