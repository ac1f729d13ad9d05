//! The right to change an interview, held by one request or sweep at a time, and what a dead one leaves behind.
//!
//! A claim is a row of `ivs_change`. It is taken before the first effect and ended in the transaction that writes the
//! change, so a change that lost its claim cannot commit. Whatever does not end that way (a failure, a crash) leaves
//! the row *in doubt*: then the event at Google may differ from the interview, and is aligned with it, again when no
//! call of the failed change can still arrive. So is that of a change that succeeded after an attempt without an
//! answer. A person's change takes the claim of an alignment over.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::{
    calendar::{LATEST_CALL, REQUEST_LIFETIME as LIFETIME},
    clock::random_uuid,
    db,
};

/// So long after an interview's end its event is still aligned.
const ALIGN_FOR: TimeDelta = TimeDelta::days(7);

/// One holder's right to change one interview.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub interview_id: i64,
    holder: Uuid,
    /// Attempts at aligning, this one included; none for a person's change.
    attempts: i32,
}

impl Claim {
    /// Takes the claim; `None` while somebody else holds it, or without such an interview.
    pub async fn take(db: impl PgExecutor<'_>, interview_id: i64, now: DateTime<Utc>) -> sqlx::Result<Option<Claim>> {
        let holder = random_uuid();
        let taken = sqlx::query!(
            "INSERT INTO ivs_change AS held (interview_id, holder, held_until, next_attempt_at)
             SELECT id, $2, $3, $3 FROM company_interview WHERE id = $1
             ON CONFLICT (interview_id) DO UPDATE
             SET holder = $2, aligning = false, held_until = $3, next_attempt_at = $3,
                 in_doubt_until = CASE WHEN held.holder IS NULL THEN held.in_doubt_until ELSE $5 END
             WHERE held.holder IS NULL OR held.held_until <= $4 OR held.aligning",
            interview_id,
            holder,
            now + LIFETIME,
            now,
            now + LATEST_CALL
        )
        .execute(db)
        .await?;
        Ok((taken.rows_affected() == 1).then_some(Claim { interview_id, holder, attempts: 0 }))
    }

    /// Takes some interviews whose events may differ from them; of several instances each gets others.
    pub async fn take_due(db: impl PgExecutor<'_>, now: DateTime<Utc>) -> sqlx::Result<Vec<Claim>> {
        let holder = random_uuid();
        let taken = sqlx::query!(
            "WITH due AS MATERIALIZED (
                 SELECT interview_id FROM ivs_change
                 WHERE next_attempt_at <= $1 AND (holder IS NULL OR held_until <= $1)
                 ORDER BY next_attempt_at LIMIT 16 FOR UPDATE SKIP LOCKED
             )
             UPDATE ivs_change AS held
             SET holder = $2, aligning = true, held_until = $3, next_attempt_at = $3, attempts = attempts + 1,
                 in_doubt_until = CASE WHEN holder IS NULL THEN in_doubt_until ELSE $4 END
             FROM due WHERE held.interview_id = due.interview_id
             RETURNING held.interview_id, attempts",
            now,
            holder,
            now + LIFETIME,
            now + LATEST_CALL
        )
        .fetch_all(db)
        .await?;
        Ok(taken
            .into_iter()
            .map(|row| Claim { interview_id: row.interview_id, holder, attempts: row.attempts })
            .collect())
    }

    /// Whether somebody changes the interview at this moment.
    pub async fn is_held(db: impl PgExecutor<'_>, interview_id: i64, now: DateTime<Utc>) -> sqlx::Result<bool> {
        sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM ivs_change WHERE interview_id = $1 AND holder IS NOT NULL AND NOT aligning
                              AND held_until > $2) AS "is_held!""#,
            interview_id,
            now
        )
        .fetch_one(db)
        .await
    }

    /// Ends the claim in the transaction that writes the change. False: it was lost, and the caller must abort.
    pub async fn finish(&self, tx: &mut db::Connection, now: DateTime<Utc>) -> sqlx::Result<bool> {
        let removed = sqlx::query!(
            "DELETE FROM ivs_change WHERE interview_id = $1 AND holder = $2 AND held_until > $3
             AND (in_doubt_until IS NULL OR in_doubt_until <= $3) AND next_attempt_at >= held_until",
            self.interview_id,
            self.holder,
            now
        )
        .execute(&mut *tx)
        .await?;
        if removed.rows_affected() > 0 {
            return Ok(true);
        }
        // A call of an earlier, failed change may still reach Google, or an alignment was asked for meanwhile.
        let released = sqlx::query!(
            "UPDATE ivs_change
             SET holder = NULL, attempts = 0,
                 next_attempt_at = CASE WHEN next_attempt_at < held_until THEN next_attempt_at ELSE in_doubt_until END
             WHERE interview_id = $1 AND holder = $2 AND held_until > $3",
            self.interview_id,
            self.holder,
            now
        )
        .execute(tx)
        .await?;
        Ok(released.rows_affected() > 0)
    }

    /// Whether the claim is still ours, so that our change was not committed; waits for a transaction that is about to
    /// end it.
    pub async fn is_ours(&self, db: impl PgExecutor<'_>) -> sqlx::Result<bool> {
        let ours = sqlx::query!(
            r#"SELECT true AS "ours!" FROM ivs_change WHERE interview_id = $1 AND holder = $2 FOR UPDATE"#,
            self.interview_id,
            self.holder
        );
        Ok(ours.fetch_optional(db).await?.is_some())
    }

    /// Ends the claim before anything was done. What was in doubt before remains so.
    pub async fn give_back(&self, db: impl PgExecutor<'_>, now: DateTime<Utc>) -> sqlx::Result<()> {
        sqlx::query!(
            "WITH kept AS (UPDATE ivs_change SET holder = NULL, next_attempt_at = $3
                           WHERE interview_id = $1 AND holder = $2 AND in_doubt_until IS NOT NULL)
             DELETE FROM ivs_change WHERE interview_id = $1 AND holder = $2 AND in_doubt_until IS NULL",
            self.interview_id,
            self.holder,
            now
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Ends the claim if it is still ours, after a failure, and leaves the event in doubt in any case: what the holder
    /// of a lost claim has done there may have come after everything that others did. It is aligned at once, after a
    /// failed alignment in 15 s, doubling to 5 min.
    pub async fn fail(&self, db: impl PgExecutor<'_>, now: DateTime<Utc>) -> sqlx::Result<()> {
        let wait = match self.attempts {
            0 => TimeDelta::zero(),
            attempts => TimeDelta::seconds(15 << (attempts - 1).min(5)).min(TimeDelta::minutes(5)),
        };
        sqlx::query!(
            "INSERT INTO ivs_change AS held (interview_id, held_until, in_doubt_until, next_attempt_at)
             SELECT id, $4, $3, $4 FROM company_interview WHERE id = $1
             ON CONFLICT (interview_id) DO UPDATE
             SET holder = nullif(held.holder, $2), in_doubt_until = GREATEST(held.in_doubt_until, $3),
                 next_attempt_at = CASE WHEN held.holder = $2 THEN $4 ELSE least(held.next_attempt_at, $4) END",
            self.interview_id,
            self.holder,
            now + LATEST_CALL,
            now + wait
        )
        .execute(db)
        .await?;
        Ok(())
    }
}

/// Has an interview's event aligned at this time, since the interview itself has changed, or the event may have; again
/// after a change or an alignment that is under way, which may have read it before.
pub async fn request_alignment(db: impl PgExecutor<'_>, interview_id: i64, at: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO ivs_change AS held (interview_id, held_until, in_doubt_until, next_attempt_at)
         VALUES ($1, $2, $2, $2)
         ON CONFLICT (interview_id) DO UPDATE
         SET in_doubt_until = GREATEST(held.in_doubt_until, $2),
             next_attempt_at = least(held.next_attempt_at, $2)",
        interview_id,
        at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets events that could not be aligned for too long, of interviews that are over.
pub async fn remove_expired(db: &db::Pool, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM ivs_change held USING company_interview i
         WHERE i.id = held.interview_id AND held.holder IS NULL AND i.ends_at < $1",
        now - ALIGN_FOR
    )
    .execute(db)
    .await?;
    Ok(())
}
