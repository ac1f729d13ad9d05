//! For who looks after mails: how many wait, which there are, and sending one again.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Kind, State};
use crate::{
    db,
    jobs::{self, Job},
};

/// How many mails of each kind are still to be sent.
pub async fn count_queued(db: &mut db::Connection) -> sqlx::Result<Vec<(&'static str, i64)>> {
    let counted =
        sqlx::query!(r#"SELECT kind, count(*) AS "count!" FROM ivs_mail WHERE state = 'queued' GROUP BY kind"#)
            .fetch_all(db)
            .await?;
    let of = |kind: &str| counted.iter().find(|row| row.kind == kind).map_or(0, |row| row.count);
    Ok(Kind::ALL.iter().map(|kind| (kind.as_str(), of(kind.as_str()))).collect())
}

/// Which mails an operator wants to see.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As [`State::as_str`].
    pub state: Option<String>,
    pub interview_id: Option<i64>,
    /// So many of the newest.
    pub limit: i64,
}

/// A mail as an operator sees it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: Uuid,
    /// The last time, where it was sent again.
    pub queued_at: DateTime<Utc>,
    pub kind: String,
    pub interview_id: Option<i64>,
    /// In full.
    pub recipient: String,
    pub state: State,
    pub attempts: i32,
    pub error: Option<String>,
}

/// The newest mails first.
pub async fn list(db: impl PgExecutor<'_>, wanted: &Wanted) -> sqlx::Result<Vec<Entry>> {
    sqlx::query_as!(
        Entry,
        r#"SELECT mail.id, COALESCE(resent_at, mail.created_at) AS "queued_at!", kind, interview_id,
                  COALESCE(recipient, person.email) AS "recipient!", state AS "state: State", attempts, error
           FROM ivs_mail AS mail
           JOIN users_user AS person ON person.id = user_id
           WHERE ($1::text IS NULL OR state = $1) AND ($2::bigint IS NULL OR interview_id = $2)
           ORDER BY 2 DESC, mail.id
           LIMIT $3"#,
        wanted.state,
        wanted.interview_id,
        wanted.limit
    )
    .fetch_all(db)
    .await
}

/// The mails whose id begins so, at most two.
pub async fn find(db: impl PgExecutor<'_>, beginning: &str) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("SELECT id FROM ivs_mail WHERE starts_with(id::text, lower($1)) LIMIT 2", beginning)
        .fetch_all(db)
        .await
}

/// What came of sending a mail again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resent {
    /// It had ended in this state, and is queued again for a day.
    Again {
        state: State,
    },
    /// It was queued already, to be tried next at this time, if known; it is due now.
    Hurried {
        next: Option<DateTime<Utc>>,
    },
    /// Somebody is sending it at this moment. Nothing was done.
    BeingSent,
    /// The interview has moved past what it says, or has begun: it would be dropped. Nothing was done.
    Outdated,
    Unknown,
}

/// Queues a mail once more, whatever became of it, to be sent now, as an operator or its recruiter asks; a copy of one
/// that was sent has its `Message-ID`.
///
/// What is outdated here would be dropped by `interview::emails::render`.
pub async fn resend(db: &db::Pool, id: Uuid, now: DateTime<Utc>) -> anyhow::Result<Resent> {
    let mut tx = db.begin().await?;
    let row = sqlx::query!(
        r#"SELECT mail.state AS "state: State", leased_until > $2 AS is_leased,
                  CASE WHEN mail.starts_at IS NULL THEN ical_sequence <> sequence
                       ELSE interview.starts_at <> mail.starts_at OR mail.starts_at <= $2 OR cancelled_at IS NOT NULL
                  END AS is_outdated
           FROM ivs_mail AS mail
           LEFT JOIN company_interview AS interview ON interview.id = interview_id
           WHERE mail.id = $1
           FOR UPDATE OF mail"#,
        id,
        now
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Resent::Unknown) };
    if row.is_outdated == Some(true) {
        return Ok(Resent::Outdated);
    }
    let job = Job::SendMail { mail: id };
    let resent = if row.state != State::Queued {
        sqlx::query!(
            "UPDATE ivs_mail
             SET state = 'queued', resent_at = $2, attempts = 0, finished_at = NULL, error = NULL,
                 leased_by = NULL, leased_until = NULL
             WHERE id = $1",
            id,
            now
        )
        .execute(&mut *tx)
        .await?;
        Resent::Again { state: row.state }
    } else if row.is_leased == Some(true) {
        return Ok(Resent::BeingSent);
    } else {
        Resent::Hurried { next: jobs::next_run(&mut tx, &job).await? }
    };
    jobs::enqueue(&mut tx, std::slice::from_ref(&job), now).await?;
    tx.commit().await?;
    Ok(resent)
}
