//! The calendar's rows: grants (sealed), refresh leases and scheduling intents.
//!
//! Hides the SQL and the sealing. Promises: a token is in no column in clear once it was written here; a row is
//! replaced or removed only while it is still the one that was read; nothing here talks to Google.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::state;
use crate::{
    clock::random_uuid,
    db,
    secret::{Place, Sealer, is_sealed},
};

/// How long the grant of a deleted account is kept for the events that are to be deleted with it.
const GRANT_OUTLIVES_INTENT: TimeDelta = TimeDelta::days(1);

/// How long a refresher keeps others from refreshing.
pub const LEASE: TimeDelta = TimeDelta::seconds(15);

/// After this long a request counts as dead: its event is undone and it can no longer commit.
pub const REQUEST_LIFETIME: TimeDelta = TimeDelta::seconds(45);

/// How long whoever took an intent has for one attempt at undoing it.
const UNDO_CLAIM: TimeDelta = TimeDelta::seconds(30);

/// How long undoing is tried.
const UNDO_FOR: TimeDelta = TimeDelta::days(90);

/// An access token is not used in its last minute.
const SPARE: TimeDelta = TimeDelta::seconds(60);

/// What a person granted us at Google. Has no `Debug`: it holds tokens.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub struct Grant {
    pub access_token: String,
    pub refresh_token: Option<String>,
    /// Unknown: used until Google says 401.
    pub expires_at: Option<DateTime<Utc>>,
    pub scopes: Vec<String>,
    /// The Google account's address.
    pub email: Option<String>,
}

/// A grant as Django stores it. Its client and token URI are not looked at: ours come from the settings.
#[derive(Deserialize)]
struct DjangoGrant {
    token: Option<String>,
    refresh_token: Option<String>,
    scopes: Option<Vec<String>>,
}

impl Grant {
    /// The access token, if it can be sent and lasts another minute.
    pub fn fresh_token(&self, now: DateTime<Utc>) -> Option<&str> {
        let lasts = self.expires_at.is_none_or(|end| end - now >= SPARE);
        (lasts && is_sendable(&self.access_token)).then_some(&self.access_token)
    }

    /// Whether a call might succeed, as far as is known without asking Google.
    pub fn is_usable(&self, now: DateTime<Utc>) -> bool {
        let lasts = self.expires_at.is_none_or(|end| end > now);
        self.refresh_token.is_some() || lasts && is_sendable(&self.access_token)
    }

    /// Reads a row in our sealed form or in Django's; none if it is neither or holds no token.
    pub fn read(text: &str, user_id: i64, sealer: Option<&Sealer>) -> Option<Grant> {
        if let Some(plain) = sealer.and_then(|sealer| sealer.open(&grant_place(user_id), text)) {
            return serde_json::from_slice(plain.expose_secret()).ok();
        }
        let django: DjangoGrant = serde_json::from_str(text).ok()?;
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (token, refresh_token) = (some(django.token), some(django.refresh_token));
        (token.is_some() || refresh_token.is_some()).then(|| Grant {
            access_token: token.unwrap_or_default(),
            refresh_token,
            expires_at: None,
            scopes: django.scopes.unwrap_or_default(),
            email: None,
        })
    }

    /// [`Grant::read`] for what replaces or removes the row: one whose key is not here may hold a grant.
    pub fn open(text: &str, user_id: i64, sealer: Option<&Sealer>) -> Result<Option<Grant>, Unopened> {
        match Grant::read(text, user_id, sealer) {
            None if is_sealed(text) => Err(Unopened),
            grant => Ok(grant),
        }
    }

    /// The text of the column.
    pub fn seal(&self, user_id: i64, sealer: &Sealer) -> String {
        let plain = serde_json::to_vec(self).expect("strings and dates are JSON");
        sealer.seal(&grant_place(user_id), &plain)
    }
}

/// A sealed row does not open here: another server may have its key, and nothing else leads to its grant.
#[derive(Debug, thiserror::Error)]
#[error("no key here opens the stored grant")]
pub struct Unopened;

/// Whether a token fits into an `Authorization` header.
pub fn is_sendable(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn grant_place(user_id: i64) -> Place {
    Place { table: "company_googlecredentials", row: user_id, column: "credentials_json" }
}

/// A grant and the text it was read from: what "unchanged" is measured by.
pub struct Stored {
    pub grant: Grant,
    pub text: String,
}

/// The user's grant; none when there is no row or it cannot be read.
pub async fn grant(db: impl PgExecutor<'_>, user_id: i64, sealer: Option<&Sealer>) -> sqlx::Result<Option<Stored>> {
    let text = row(db, user_id).await?;
    Ok(text.and_then(|text| Some(Stored { grant: Grant::read(&text, user_id, sealer)?, text })))
}

/// The text of the user's row, readable or not.
pub async fn row(db: impl PgExecutor<'_>, user_id: i64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"SELECT credentials_json::text AS "text!" FROM company_googlecredentials WHERE user_id = $1"#,
        user_id
    )
    .fetch_optional(db)
    .await
}

/// Writes a new grant over the user's old one. Without a refresh token of its own it keeps the stored one.
///
/// The caller's transaction must hold the user's row ([`lock_user`]), so that of two at once the later sees the
/// earlier.
///
/// # Errors
/// [`Unopened`] when that refresh token is not readable here; then the row stays.
pub async fn put_grant(
    tx: &mut db::Connection,
    user_id: i64,
    mut grant: Grant,
    sealer: &Sealer,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    // Locked against a refresh that would put a newer token there meanwhile.
    let stored = sqlx::query_scalar!(
        r#"SELECT credentials_json::text AS "text!" FROM company_googlecredentials WHERE user_id = $1 FOR UPDATE"#,
        user_id
    )
    .fetch_optional(&mut *tx)
    .await?;
    match stored.map(|text| Grant::open(&text, user_id, Some(sealer))).transpose() {
        Ok(stored) => {
            let stored = stored.flatten().and_then(|stored| stored.refresh_token);
            grant.refresh_token = grant.refresh_token.or(stored);
        }
        Err(Unopened) if grant.refresh_token.is_some() => {
            tracing::warn!(user_id, "a new grant replaces one that no key here opens");
        }
        Err(unopened) => return Err(unopened.into()),
    }
    sqlx::query!(
        "INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at)
         VALUES ($1, $2, $3, $3)
         ON CONFLICT (user_id)
         DO UPDATE SET credentials_json = excluded.credentials_json, updated_at = excluded.updated_at",
        user_id,
        grant.seal(user_id, sealer),
        now
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Replaces the row whose text is `old`; false if there is no such row any more.
pub async fn replace_grant(
    db: impl PgExecutor<'_>,
    user_id: i64,
    old: &str,
    new: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE company_googlecredentials SET credentials_json = $3, updated_at = $4
         WHERE user_id = $1 AND credentials_json = $2",
        user_id,
        old,
        new,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes the row whose text is `old` and notes that the grant died; false if there is no such row any more.
pub async fn remove_dead_grant(
    db: impl PgExecutor<'_>,
    user_id: i64,
    old: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "WITH dead AS (
             DELETE FROM company_googlecredentials WHERE user_id = $1 AND credentials_json = $2 RETURNING user_id
         )
         INSERT INTO ivs_dead_grant (user_id, died_at) SELECT user_id, $3 FROM dead
         ON CONFLICT (user_id) DO UPDATE SET died_at = excluded.died_at",
        user_id,
        old,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The user's grant, as [`grant`] gives it, and [`has_dead_grant`], at once.
pub async fn grant_alive_or_dead(
    db: impl PgExecutor<'_>,
    user_id: i64,
    sealer: Option<&Sealer>,
) -> sqlx::Result<(Option<Grant>, bool)> {
    let row = sqlx::query!(
        r#"SELECT (SELECT credentials_json::text FROM company_googlecredentials WHERE user_id = $1) AS text,
                  EXISTS (SELECT FROM ivs_dead_grant WHERE user_id = $1) AS "is_dead!""#,
        user_id
    )
    .fetch_one(db)
    .await?;
    Ok((row.text.and_then(|text| Grant::read(&text, user_id, sealer)), row.is_dead))
}

/// Whether the user's last grant has died and nobody has dealt with it yet.
pub async fn has_dead_grant(db: impl PgExecutor<'_>, user_id: i64) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM ivs_dead_grant WHERE user_id = $1) AS "dead!""#, user_id)
        .fetch_one(db)
        .await
}

/// A new grant, or a disconnection, has dealt with the dead one.
pub async fn forget_dead_grant(db: impl PgExecutor<'_>, user_id: i64) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM ivs_dead_grant WHERE user_id = $1", user_id).execute(db).await?;
    Ok(())
}

/// Removes the row whose text is `old`; false if there is no such row any more.
pub async fn remove_grant(db: impl PgExecutor<'_>, user_id: i64, old: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM company_googlecredentials WHERE user_id = $1 AND credentials_json = $2",
        user_id,
        old
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Some rows of deleted accounts, by user, after the user `after`. Leaves out accounts that still have an event to be
/// deleted, unless that has been tried for a day.
pub async fn grants_of_deleted(
    db: impl PgExecutor<'_>,
    after: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<(i64, String)>> {
    let rows = sqlx::query!(
        r#"SELECT g.user_id::bigint AS "user_id!", g.credentials_json::text AS "text!"
           FROM company_googlecredentials g JOIN users_user u ON u.id = g.user_id
           WHERE u.is_deleted AND g.user_id > $1
             AND NOT EXISTS (SELECT FROM ivs_intent i
                             WHERE i.user_id = g.user_id AND i.event_id IS NOT NULL AND i.created_at > $2)
           ORDER BY g.user_id LIMIT 32"#,
        after,
        now - GRANT_OUTLIVES_INTENT
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.user_id, row.text)).collect())
}

/// Makes `holder` the user's only refresher until the lease ends; false while somebody else is.
pub async fn lease(db: impl PgExecutor<'_>, user_id: i64, holder: Uuid, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO ivs_grant_lease AS lease (user_id, holder, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
         WHERE lease.expires_at <= $4",
        user_id,
        holder,
        now + LEASE,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends the lease, if it is still `holder`'s.
pub async fn release(db: impl PgExecutor<'_>, user_id: i64, holder: Uuid) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM ivs_grant_lease WHERE user_id = $1 AND holder = $2", user_id, holder).execute(db).await?;
    Ok(())
}

/// Holds the user's row until the caller's transaction ends (others may still refer to it); whether the account is
/// open.
pub async fn lock_user(tx: &mut db::Connection, user_id: i64) -> sqlx::Result<bool> {
    let open = sqlx::query_scalar!(
        r#"SELECT is_active AND NOT is_deleted AS "is_open!" FROM users_user WHERE id = $1 FOR NO KEY UPDATE"#,
        user_id
    );
    Ok(open.fetch_optional(tx).await?.unwrap_or(false))
}

/// The address of a user whose account is open.
pub async fn open_email(db: impl PgExecutor<'_>, user_id: i64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"SELECT email::text AS "email!" FROM users_user WHERE id = $1 AND is_active AND NOT is_deleted"#,
        user_id
    )
    .fetch_optional(db)
    .await
}

/// The id of the company that the user owns.
pub async fn company_of(db: impl PgExecutor<'_>, user_id: i64) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(r#"SELECT id::bigint AS "id!" FROM company_company WHERE user_id = $1"#, user_id)
        .fetch_optional(db)
        .await
}

/// What a request means to do, recorded before its first effect.
#[derive(Clone, Copy, Debug)]
pub struct Intent {
    pub id: Uuid,
    pub recorded_at: DateTime<Utc>,
}

/// An intent that can no longer commit.
#[derive(Clone, Debug)]
pub struct Abandoned {
    pub id: Uuid,
    pub user_id: i64,
    pub event_id: Option<String>,
    pub created_at: DateTime<Utc>,
    /// When it could first no longer commit.
    pub undo_from: DateTime<Utc>,
    /// Attempts at undoing it, this one included.
    pub attempts: i32,
    /// Nobody had given it up before: its request may still run.
    pub was_open: bool,
}

/// Records the intent `id`: the event of this id may exist without an interview.
pub async fn record_intent(
    db: &mut db::Connection,
    id: Uuid,
    user_id: i64,
    event_id: Option<&str>,
    now: DateTime<Utc>,
) -> sqlx::Result<Intent> {
    sqlx::query!(
        "INSERT INTO ivs_intent (id, user_id, event_id, created_at) VALUES ($1, $2, $3, $4)",
        id,
        user_id,
        event_id,
        now
    )
    .execute(db)
    .await?;
    Ok(Intent { id, recorded_at: now })
}

/// Records an intent that was given up, or undone and forgotten already, as one that is to be undone from now on.
pub async fn record_for_undoing(
    db: impl PgExecutor<'_>,
    id: Uuid,
    user_id: i64,
    event_id: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO ivs_intent (id, user_id, event_id, created_at, undo_from) VALUES ($1, $2, $3, $4, $4)
         ON CONFLICT (id) DO UPDATE SET event_id = excluded.event_id, undo_from = excluded.undo_from
         WHERE ivs_intent.undo_from IS NOT NULL",
        id,
        user_id,
        event_id,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes another event id. False: the intent was given up meanwhile.
pub async fn rename_intent(db: impl PgExecutor<'_>, id: Uuid, event_id: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!("UPDATE ivs_intent SET event_id = $2 WHERE id = $1 AND undo_from IS NULL", id, event_id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes an intent in the transaction that writes its interview. False: it was given up meanwhile, and the caller
/// must abort.
pub async fn take_intent(tx: &mut db::Connection, id: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM ivs_intent WHERE id = $1 AND undo_from IS NULL", id).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

/// Gives an intent up: it can never be taken, and is due to be undone. False: there is none, it was taken or undone.
pub async fn give_up(db: &mut db::Connection, id: Uuid, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE ivs_intent SET undo_from = coalesce(undo_from, $2), next_attempt_at = NULL WHERE id = $1",
        id,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Records that an event is to be deleted: as an intent that has been given up. For [`UNDO_CLAIM`] it is the caller's,
/// who may do it themselves; then it is the sweep's.
pub async fn discard_event(
    tx: &mut db::Connection,
    user_id: i64,
    event_id: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<Abandoned> {
    sqlx::query_as!(
        Abandoned,
        r#"INSERT INTO ivs_intent (id, user_id, event_id, created_at, undo_from, next_attempt_at, attempts)
         VALUES ($1, $2, $3, $4, $4, $5, 1)
         RETURNING id, user_id, event_id, created_at, undo_from AS "undo_from!", attempts, false AS "was_open!""#,
        random_uuid(),
        user_id,
        event_id,
        now,
        now + UNDO_CLAIM
    )
    .fetch_one(tx)
    .await
}

/// Gives up all intents of a user that may have an event, and claims them for undoing.
pub async fn abandon_all_of(db: impl PgExecutor<'_>, user_id: i64, now: DateTime<Utc>) -> sqlx::Result<Vec<Abandoned>> {
    sqlx::query_as!(
        Abandoned,
        r#"WITH mine AS MATERIALIZED (
             SELECT id, undo_from IS NULL AND created_at > $4 AS was_open FROM ivs_intent
             WHERE user_id = $1 AND event_id IS NOT NULL ORDER BY id FOR UPDATE
         )
         UPDATE ivs_intent AS intent
         SET undo_from = coalesce(undo_from, $2), next_attempt_at = $3, attempts = attempts + 1
         FROM mine WHERE intent.id = mine.id
         RETURNING intent.id, user_id, event_id, created_at, undo_from AS "undo_from!", attempts,
                   was_open AS "was_open!""#,
        user_id,
        now,
        now + UNDO_CLAIM,
        now - REQUEST_LIFETIME
    )
    .fetch_all(db)
    .await
}

/// Whether the request of one of these may still run: it has neither given up nor outlived its time.
pub async fn any_runs(db: impl PgExecutor<'_>, intents: &[Abandoned], now: DateTime<Utc>) -> sqlx::Result<bool> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) =
        intents.iter().filter(|intent| intent.was_open).map(|intent| (intent.id, intent.attempts)).unzip();
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT FROM ivs_intent JOIN unnest($1::uuid[], $2::int[]) AS known (id, attempts) USING (id, attempts)
             WHERE created_at > $3 AND next_attempt_at IS NOT NULL
         ) AS "runs!""#,
        &ids,
        &attempts,
        now - REQUEST_LIFETIME
    )
    .fetch_one(db)
    .await
}

/// Claims some intents that are due to be undone: given up, or older than any request lives. Of several instances each
/// gets others.
pub async fn abandon_due(db: impl PgExecutor<'_>, now: DateTime<Utc>) -> sqlx::Result<Vec<Abandoned>> {
    sqlx::query_as!(
        Abandoned,
        r#"WITH due AS MATERIALIZED (
             SELECT id FROM ivs_intent
             WHERE (undo_from IS NOT NULL OR created_at <= $3) AND (next_attempt_at IS NULL OR next_attempt_at <= $1)
             ORDER BY created_at LIMIT 32 FOR UPDATE SKIP LOCKED
         )
         UPDATE ivs_intent AS intent
         SET undo_from = coalesce(undo_from, $1), next_attempt_at = $2, attempts = attempts + 1
         FROM due WHERE intent.id = due.id
         RETURNING intent.id, user_id, event_id, created_at, undo_from AS "undo_from!", attempts,
                   false AS "was_open!""#,
        now,
        now + UNDO_CLAIM,
        now - REQUEST_LIFETIME
    )
    .fetch_all(db)
    .await
}

/// Removes an undone intent; not one that has something else, or something later, to be undone by now.
pub async fn forget_intent(db: impl PgExecutor<'_>, undone: &Abandoned) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM ivs_intent WHERE id = $1 AND undo_from = $2 AND event_id IS NOT DISTINCT FROM $3",
        undone.id,
        undone.undo_from,
        undone.event_id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Sets the next attempt at undoing.
pub async fn postpone_intent(db: impl PgExecutor<'_>, id: Uuid, until: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("UPDATE ivs_intent SET next_attempt_at = $2 WHERE id = $1", id, until).execute(db).await?;
    Ok(())
}

/// Makes what waits to be undone for a user due at once: a new grant may make it possible.
pub async fn hasten_intents_of(db: impl PgExecutor<'_>, user_id: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE ivs_intent SET next_attempt_at = NULL, attempts = 0 WHERE user_id = $1 AND undo_from IS NOT NULL",
        user_id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes the leases of dead refreshers, states that are too old to be used, and intents that could not be undone for
/// too long.
pub async fn remove_expired(db: impl PgExecutor<'_>, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH leases AS (DELETE FROM ivs_grant_lease WHERE expires_at <= $1),
              states AS (DELETE FROM company_oauthstate WHERE created_at < $3)
         DELETE FROM ivs_intent WHERE created_at < $2",
        now,
        now - UNDO_FOR,
        now - state::LIFETIME
    )
    .execute(db)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED_FOR: i64 = 101;

    fn sealer() -> Sealer {
        Sealer::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").expect("a key")
    }

    fn noon() -> DateTime<Utc> {
        "2026-11-20T12:00:00Z".parse().expect("an instant")
    }

    fn grant() -> Grant {
        Grant {
            access_token: "ya29.access".into(),
            refresh_token: Some("1//refresh".into()),
            expires_at: Some(noon()),
            scopes: vec!["openid".into()],
            email: Some("rita@gmail.test".into()),
        }
    }

    #[test]
    fn a_sealed_grant_is_read_back_whole_and_by_its_owner_only() {
        let text = grant().seal(SEALED_FOR, &sealer());
        assert!(Grant::read(&text, SEALED_FOR, Some(&sealer())) == Some(grant()));
        assert!(Grant::read(&text, 102, Some(&sealer())).is_none());
        assert!(Grant::read(&text, SEALED_FOR, None).is_none(), "without the key");
        assert!(!text.contains("access") && !text.contains("refresh\"") && !text.contains("rita"), "{text}");
        assert!(serde_json::from_str::<serde_json::Map<_, _>>(&text).is_ok(), "{text}");
    }

    #[test]
    fn djangos_plaintext_row_is_read_without_expiry_and_address() {
        let text = r#"{"token":"ya29.old","refresh_token":"1//old","token_uri":"https://elsewhere.test/token",
                       "client_id":"c","client_secret":"s","scopes":["a","b"]}"#;
        let grant = Grant::read(text, 1, Some(&sealer())).expect("readable");
        assert_eq!((grant.access_token.as_str(), grant.refresh_token.as_deref()), ("ya29.old", Some("1//old")));
        assert!(grant.expires_at.is_none() && grant.email.is_none());
        assert_eq!(grant.scopes, ["a", "b"]);
        assert_eq!(grant.fresh_token(noon()), Some("ya29.old"), "used until Google says 401");
        let no_refresh = r#"{"token":"ya29.old","refresh_token":null,"scopes":null}"#;
        assert!(Grant::read(no_refresh, 1, None).expect("readable").is_usable(noon()));
    }

    #[test]
    fn a_row_without_any_token_or_of_another_form_counts_as_none() {
        for text in ["", "{}", "[]", "null", "garbage", r#"{"token":null,"refresh_token":""}"#, r#"{"token":7}"#] {
            assert!(Grant::read(text, 1, Some(&sealer())).is_none(), "{text}");
        }
    }

    #[test]
    fn an_access_token_is_fresh_until_a_minute_before_its_end() {
        let grant = grant();
        let before = |seconds| noon() - TimeDelta::seconds(seconds);
        assert_eq!(grant.fresh_token(before(60)), Some("ya29.access"));
        assert_eq!(grant.fresh_token(before(59)), None);
        let lone = Grant { refresh_token: None, ..grant.clone() };
        assert!(lone.is_usable(before(1)) && !lone.is_usable(before(0)));
        assert!(grant.is_usable(before(-1000)), "it can be refreshed");
        let unsendable = Grant { access_token: "a\nb".into(), refresh_token: None, ..grant };
        assert!(unsendable.fresh_token(before(600)).is_none() && !unsendable.is_usable(before(600)));
    }
}
