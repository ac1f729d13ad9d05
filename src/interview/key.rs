//! What keeps one wish from making two interviews (contract §5.6.2): a client's Idempotency-Key, or what a request without
//! one asks for.
//!
//! A key is a row. A request claims it together with its intent, and it is bound to the interview in the transaction that
//! writes that; one whose request came to nothing, or died, is free.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::model::Endpoint;
use crate::{calendar, context::Context};

/// How long a client's key stands for the interview it has made, and a row is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);

/// What keeps a request from making a second interview; only hashes are kept.
pub struct KeyUse {
    pub hash: Vec<u8>,
    pub fingerprint: [u8; 32],
    pub life: Life,
}

impl KeyUse {
    /// By the client's Idempotency-Key, or else by what it asks for.
    pub fn new(key: Option<&str>, endpoint: Endpoint, body: &Value) -> Self {
        // The order of the keys does not matter.
        let mut body = body.clone();
        body.sort_all_objects();
        let fingerprint = Sha256::new().chain_update(endpoint.path()).chain_update(body.to_string()).finalize();
        let (hash, life) = match key {
            Some(key) => (hash_of_clients(key), Life::OF_CLIENTS),
            // A byte longer than any that a client can choose.
            None => ([&b"="[..], &fingerprint[..]].concat(), Life::OF_BODIES),
        };
        KeyUse { hash, fingerprint: fingerprint.into(), life }
    }
}

fn hash_of_clients(key: &str) -> Vec<u8> {
    Sha256::digest(key).to_vec()
}

/// Whether somebody's Idempotency-Key stands for a request that runs or has made an interview.
pub async fn is_key_used(ctx: &Context, user_id: i64, key: &str) -> sqlx::Result<bool> {
    let known = find(&ctx.db, user_id, &hash_of_clients(key)).await?;
    Ok(known.is_some_and(|known| known.counts(&Life::OF_CLIENTS, ctx.clock.now())))
}

/// How long a key stands for a request and for what came of it.
pub struct Life {
    /// A request that has not ended after this long can no longer commit, and its key is free again.
    held: TimeDelta,
    /// How long the key stands for the interview.
    kept: TimeDelta,
    /// Whether a client has chosen it. Otherwise it no longer stands for an interview that was changed or cancelled.
    pub is_clients: bool,
}

impl Life {
    /// Of an Idempotency-Key.
    const OF_CLIENTS: Life = Life { held: TimeDelta::seconds(60), kept: KEPT, is_clients: true };
    /// Of what is asked for without one.
    const OF_BODIES: Life = Life { held: calendar::REQUEST_LIFETIME, kept: TimeDelta::seconds(60), is_clients: false };
}

/// What a key stands for.
pub struct Key {
    pub fingerprint: Vec<u8>,
    /// What came of it; `None`: its request still runs.
    pub interview_id: Option<i64>,
    created_at: DateTime<Utc>,
    /// Its interview was changed or cancelled.
    is_changed: bool,
}

impl Key {
    /// Whether it still counts.
    pub fn counts(&self, life: &Life, now: DateTime<Utc>) -> bool {
        let lasts = if self.interview_id.is_some() { life.kept } else { life.held };
        self.created_at >= now - lasts && (life.is_clients || !self.is_changed)
    }
}

pub async fn find(db: impl PgExecutor<'_>, user_id: i64, key_hash: &[u8]) -> sqlx::Result<Option<Key>> {
    sqlx::query_as!(
        Key,
        r#"SELECT fingerprint, interview_id, key.created_at, COALESCE(i.ical_sequence > 0, false) AS "is_changed!"
           FROM ivs_idempotency_key AS key LEFT JOIN company_interview AS i ON i.id = interview_id
           WHERE user_id = $1 AND key_hash = $2"#,
        user_id,
        key_hash
    )
    .fetch_optional(db)
    .await
}

/// Claims a key for an intent, or takes it over from one that no longer counts; `None`: somebody else holds it. Gives
/// the intent that held it before, if any.
pub async fn claim(
    db: impl PgExecutor<'_>,
    user_id: i64,
    key: &KeyUse,
    intent_id: Uuid,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Option<Uuid>>> {
    sqlx::query_scalar!(
        r#"INSERT INTO ivs_idempotency_key AS held (user_id, key_hash, fingerprint, intent_id, created_at)
           VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (user_id, key_hash) DO UPDATE
           SET fingerprint = $3, intent_id = $4, interview_id = NULL, created_at = $5
           WHERE CASE WHEN held.interview_id IS NULL THEN held.created_at < $6
                      ELSE held.created_at < $7 OR NOT $8
                           AND EXISTS (SELECT FROM company_interview WHERE id = held.interview_id AND ical_sequence > 0)
                 END
           RETURNING (SELECT before.intent_id FROM ivs_idempotency_key AS before
                      WHERE before.user_id = $1 AND before.key_hash = $2)"#,
        user_id,
        key.hash,
        &key.fingerprint,
        intent_id,
        now,
        now - key.life.held,
        now - key.life.kept,
        key.life.is_clients
    )
    .fetch_optional(db)
    .await
}

/// Binds a claimed key to what came of it; `false` when the claim was lost meanwhile.
pub async fn bind(
    db: impl PgExecutor<'_>,
    user_id: i64,
    key_hash: &[u8],
    intent_id: Uuid,
    interview_id: i64,
) -> sqlx::Result<bool> {
    let bound = sqlx::query!(
        "UPDATE ivs_idempotency_key SET interview_id = $4, intent_id = NULL
         WHERE user_id = $1 AND key_hash = $2 AND intent_id = $3",
        user_id,
        key_hash,
        intent_id,
        interview_id
    )
    .execute(db)
    .await?;
    Ok(bound.rows_affected() == 1)
}

/// Frees the key of a request that came to nothing.
pub async fn free(db: impl PgExecutor<'_>, user_id: i64, intent_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM ivs_idempotency_key WHERE user_id = $1 AND intent_id = $2", user_id, intent_id)
        .execute(db)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_key_of_a_client_stands_for_a_body() {
        let body = json!({"time": "14:00"});
        let without = KeyUse::new(None, Endpoint::Google, &body);
        // Even one that holds the very bytes.
        let bytes = String::from_utf8_lossy(&without.hash).into_owned();
        for key in ["k", &bytes] {
            let with = KeyUse::new(Some(key), Endpoint::Google, &body);
            assert_eq!((with.hash.len(), without.hash.len(), with.fingerprint), (32, 33, without.fingerprint));
        }
    }
}
