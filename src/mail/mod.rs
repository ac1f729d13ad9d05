//! From a queued row to an accepted mail: once.
//!
//! A mail is a row of `ivs_mail` and a job, both written by the transaction that causes it. Its sender has a lease on
//! the row (a request has queued it with one, the job takes one), renders the mail from what is true *now*, hands it to
//! the SMTP server without holding a database connection, and notes the outcome in one statement. So a mail is neither
//! lost nor doubled; only a death between the server's acceptance and our note leads to a second copy, which has the
//! same `Message-ID`. Bodies, tokens and addresses are neither kept nor logged; the row of a mail that goes to another
//! address than its user's own is the exception.
//!
//! Here a mail is queued, and swept up when its job was lost or its time is over; [`limits`] says how many there may be
//! and when the next may leave, [`sending`] has the lease and the tries, [`message`] makes an Internet message of what
//! is to be said, and [`operator`] is for who looks after mails: lists, and sending again.

mod limits;
mod message;
mod operator;
mod sending;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use self::limits::Departure;
pub use self::{
    limits::{release, reserve},
    message::{Correspondent, Email, compose, write_preview},
    operator::{Resent, Wanted, count_queued, find, list, resend},
    sending::{send, send_leased},
};
use crate::{
    clock::random_uuid,
    context::Context,
    db,
    jobs::{self, Job},
    metrics::EmailOutcome,
};

/// How long a sender has a mail to itself, unless it renews the lease. Also the head start of a request that sends its
/// mails itself: their jobs are due when it ends.
const LEASE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// How long sending is tried.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a mail's row is kept.
const KEPT: TimeDelta = TimeDelta::days(90);

/// What a mail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new interview, with its invitation.
    Scheduled,
    /// A changed interview, with its invitation.
    Updated,
    /// A cancelled interview, with its cancellation.
    Cancelled,
    /// An interview that begins soon.
    Reminder,
    /// A Google Calendar was connected.
    GoogleConnected,
    /// Google no longer honours a connection.
    GoogleDisconnected,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Scheduled,
        Kind::Updated,
        Kind::Cancelled,
        Kind::Reminder,
        Kind::GoogleConnected,
        Kind::GoogleDisconnected,
    ];

    /// As `ivs_mail.kind` keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Scheduled => "scheduled",
            Kind::Updated => "updated",
            Kind::Cancelled => "cancelled",
            Kind::Reminder => "reminder",
            Kind::GoogleConnected => "google_connected",
            Kind::GoogleDisconnected => "google_disconnected",
        }
    }

    fn parse(text: &str) -> anyhow::Result<Kind> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        kind.with_context(|| format!("there is no kind of mail named {text}"))
    }

    /// Whether its acceptance turns `company_interview.calendar_invite_sent` true.
    fn carries_invitation(self) -> bool {
        match self {
            Kind::Scheduled | Kind::Updated => true,
            Kind::Cancelled | Kind::Reminder | Kind::GoogleConnected | Kind::GoogleDisconnected => false,
        }
    }
}

/// What there is to tell somebody: the cause of a mail, not its words.
#[derive(Clone, Debug)]
pub struct Mail {
    pub kind: Kind,
    pub interview_id: Option<i64>,
    pub user_id: i64,
    /// Only where it is not the user's own address.
    pub recipient: Option<String>,
    /// Of the interview, when the mail was caused; 0 without one.
    pub sequence: i32,
    /// The start that a reminder is about.
    pub starts_at: Option<DateTime<Utc>>,
}

impl Mail {
    /// To a user's own address, about their account.
    pub fn new(kind: Kind, user_id: i64) -> Mail {
        Mail { kind, interview_id: None, user_id, recipient: None, sequence: 0, starts_at: None }
    }
}

/// A queued mail that nobody but its holder sends while the lease lasts.
#[derive(Debug)]
pub struct Leased {
    pub id: Uuid,
    pub mail: Mail,
    holder: Uuid,
    leased_at: DateTime<Utc>,
    /// The last time, where it was sent again.
    queued_at: DateTime<Utc>,
    /// How often it has been tried, this time included.
    attempts: i32,
}

/// `attempts` in the row of a mail that is queued with a lease: the holder's try counts from the start.
const FIRST_TRY: i32 = 1;

/// What has become of mails that were to be queued.
#[derive(Debug, Default)]
pub struct Queued {
    /// For their sender to send, right after the commit.
    pub leased: Vec<Leased>,
    /// Whose mail waits until the minute after their last update is over.
    pub waiting: Vec<i64>,
    /// Those of them whose mail waited already: no further one was queued.
    pub joined: Vec<i64>,
}

/// Queues mails with their jobs, which are due at the mails' departure; none without an SMTP server.
///
/// Belongs into the transaction of what causes the mails.
pub async fn enqueue(tx: &mut db::Connection, ctx: &Context, mails: &[Mail]) -> sqlx::Result<()> {
    queue(tx, ctx, mails, None).await?;
    Ok(())
}

/// The same for mails that the caller sends itself after the commit, by [`send_leased`], unless they wait. Their jobs
/// see to what comes of that, half a minute later.
pub async fn enqueue_leased(tx: &mut db::Connection, ctx: &Context, mails: &[Mail]) -> sqlx::Result<Queued> {
    queue(tx, ctx, mails, Some(random_uuid())).await
}

async fn queue(tx: &mut db::Connection, ctx: &Context, mails: &[Mail], holder: Option<Uuid>) -> sqlx::Result<Queued> {
    let (now, mut queued) = (ctx.clock.now(), Queued::default());
    if ctx.smtp.is_none() || mails.is_empty() {
        return Ok(queued);
    }
    let mut by_departure: BTreeMap<Departure, Vec<Mail>> = BTreeMap::new();
    for (mail, departure) in mails.iter().zip(limits::departures(tx, mails, now).await?) {
        by_departure.entry(departure).or_default().push(mail.clone());
    }
    for (departure, mails) in by_departure {
        let people = mails.iter().map(|mail| mail.user_id);
        match departure {
            Departure::Now => {
                let ids = insert(tx, now, &mails, None, holder).await?;
                let Some(holder) = holder else { continue };
                let leased =
                    |(id, mail)| Leased { id, mail, holder, leased_at: now, queued_at: now, attempts: FIRST_TRY };
                queued.leased = ids.into_iter().zip(mails).map(leased).collect();
            }
            Departure::Later(due_at) => {
                queued.waiting.extend(people);
                insert(tx, now, &mails, Some(due_at), None).await?;
            }
            Departure::Joined => {
                queued.waiting.extend(people.clone());
                queued.joined.extend(people);
            }
        }
    }
    Ok(queued)
}

/// Writes rows, leased to `holder`, and their jobs, due at `due_at`, when the lease ends, or at once. Gives the ids, in
/// order.
async fn insert(
    db: &mut db::Connection,
    now: DateTime<Utc>,
    mails: &[Mail],
    due_at: Option<DateTime<Utc>>,
    holder: Option<Uuid>,
) -> sqlx::Result<Vec<Uuid>> {
    let ids: Vec<Uuid> = mails.iter().map(|_| random_uuid()).collect();
    let kinds: Vec<&str> = mails.iter().map(|mail| mail.kind.as_str()).collect();
    let interviews: Vec<Option<i64>> = mails.iter().map(|mail| mail.interview_id).collect();
    let users: Vec<i64> = mails.iter().map(|mail| mail.user_id).collect();
    let recipients: Vec<Option<String>> = mails.iter().map(|mail| mail.recipient.clone()).collect();
    let sequences: Vec<i32> = mails.iter().map(|mail| mail.sequence).collect();
    let starts: Vec<Option<DateTime<Utc>>> = mails.iter().map(|mail| mail.starts_at).collect();
    let leased_until = holder.map(|_| now + LEASE);
    let attempts = if holder.is_some() { FIRST_TRY } else { 0 };
    sqlx::query!(
        "INSERT INTO ivs_mail (id, kind, interview_id, user_id, recipient, sequence, starts_at, state, created_at,
             attempts, leased_by, leased_until, due_at)
         SELECT *, 'queued', $8, $9, $10, $11, $12
         FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::int[], $7::timestamptz[])",
        &ids,
        &kinds as &[&str],
        &interviews as &[Option<i64>],
        &users,
        &recipients as &[Option<String>],
        &sequences,
        &starts as &[Option<DateTime<Utc>>],
        now,
        attempts,
        holder,
        leased_until,
        due_at
    )
    .execute(&mut *db)
    .await?;
    let jobs: Vec<Job> = ids.iter().map(|id| Job::SendMail { mail: *id }).collect();
    jobs::enqueue(db, &jobs, due_at.or(leased_until).unwrap_or(now)).await?;
    Ok(ids)
}

/// The users whose mails of `kind` about an interview at this SEQUENCE were accepted.
pub async fn accepted(db: impl PgExecutor<'_>, interview_id: i64, kind: Kind, sequence: i32) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        "SELECT user_id FROM ivs_mail WHERE interview_id = $1 AND kind = $2 AND sequence = $3 AND state = 'sent'",
        interview_id,
        kind.as_str(),
        sequence
    )
    .fetch_all(db)
    .await
}

/// Queues a job for every mail that has waited for a minute without one: a worker that was taken for dead, and lived,
/// may have removed it.
pub async fn requeue_orphans(ctx: &Context) -> anyhow::Result<()> {
    let now = ctx.clock.now();
    let waiting = sqlx::query_scalar!(
        "SELECT id FROM ivs_mail
         WHERE state = 'queued' AND COALESCE(resent_at, created_at) < $2
             AND (leased_until IS NULL OR leased_until < $1)",
        now,
        now - TimeDelta::minutes(1)
    )
    .fetch_all(&ctx.db)
    .await?;
    let waiting = waiting.into_iter().map(|mail| Job::SendMail { mail }).collect();
    let orphans = jobs::missing(&ctx.db, waiting).await?;
    if !orphans.is_empty() {
        tracing::warn!(mails = orphans.len(), "mails waited without a job");
        jobs::enqueue(&mut *ctx.db.acquire().await?, &orphans, now).await?;
    }
    Ok(())
}

/// Ends mails whose day is over although no try has ended them (their job was lost to a fault), and forgets old ones.
pub async fn remove_expired(ctx: &Context) -> anyhow::Result<()> {
    let now = ctx.clock.now();
    // An hour later than the last try, which may still be under way.
    let expired = sqlx::query_scalar!(
        "UPDATE ivs_mail SET state = 'expired', finished_at = $1
         WHERE state = 'queued' AND COALESCE(resent_at, created_at) < $2
             AND (leased_until IS NULL OR leased_until < $1)
         RETURNING kind",
        now,
        now - DAY - HOUR
    )
    .fetch_all(&ctx.db)
    .await?;
    for kind in expired {
        ctx.metrics.email(Kind::parse(&kind)?.as_str(), EmailOutcome::Expired);
    }
    sqlx::query!("DELETE FROM ivs_mail WHERE created_at < $1 AND (resent_at IS NULL OR resent_at < $1)", now - KEPT)
        .execute(&ctx.db)
        .await?;
    Ok(limits::remove_expired(&ctx.db, now).await?)
}

/// What has become of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum State {
    Queued,
    /// The SMTP server has accepted it.
    Sent,
    /// Sending it can never work.
    Refused,
    /// It was tried for a day.
    Expired,
    /// What it would say was no longer true.
    Dropped,
}

impl State {
    pub const ALL: [State; 5] = [State::Queued, State::Sent, State::Refused, State::Expired, State::Dropped];

    /// As `ivs_mail.state` keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Sent => "sent",
            State::Refused => "refused",
            State::Expired => "expired",
            State::Dropped => "dropped",
        }
    }

    /// It has not arrived and is no longer tried, and somebody may still want it to.
    pub fn can_be_resent(self) -> bool {
        matches!(self, State::Refused | State::Expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_table_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()).unwrap(), kind);
        }
        assert!(Kind::parse("poem").is_err());
    }
}
