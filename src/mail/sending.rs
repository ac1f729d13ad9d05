//! Trying to send a queued mail: the lease, what is rendered, the SMTP server's verdict, and what is noted of it.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::{DAY, Email, HOUR, Kind, LEASE, Leased, Mail, State, compose};
use crate::{
    clock::random_uuid, context::Context, jobs::Outcome, metrics::EmailOutcome, smtp::SendError, telemetry::masked,
};

/// How often a lease is renewed while the mail is being sent.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long a job waits for a connection to the SMTP server. A request does not: it has the queue.
const JOB_PATIENCE: Duration = Duration::from_secs(10);

/// Tries once to send a queued mail, as its job.
///
/// `render` makes the mail from the present state of the world; `None` drops it: it is no longer true. A mail that is
/// being sent by somebody else is left alone. Errors are faults of the database or of `render`; whatever SMTP says, the
/// mail has ended or is to be tried again.
pub async fn send(
    ctx: &Context,
    id: Uuid,
    render: impl AsyncFnOnce(Mail) -> anyhow::Result<Option<Email>>,
) -> anyhow::Result<Outcome> {
    let Some(leased) = Leased::take(ctx, id).await? else { return standing(ctx, id).await };
    let tried = leased.attempt(ctx, JOB_PATIENCE, render).await;
    leased.note(ctx, tried).await
}

/// The same for a mail just queued: whether the SMTP server has accepted it. What is not accepted is left to its job.
pub async fn send_leased(
    ctx: &Context,
    leased: Leased,
    render: impl AsyncFnOnce(Mail) -> anyhow::Result<Option<Email>>,
) -> anyhow::Result<bool> {
    let tried = leased.attempt(ctx, Duration::ZERO, render).await;
    let is_accepted = matches!(tried, Ok(Tried::Sent));
    leased.note(ctx, tried).await?;
    Ok(is_accepted)
}

/// What a try has come to.
enum Tried {
    /// The SMTP server has accepted it.
    Sent,
    /// It would say what is no longer true.
    Outdated,
    /// It can never be sent; why.
    Refused(String),
    /// Not now; why.
    Later(String),
    /// Somebody else has the lease.
    TakenOver,
}

impl Leased {
    /// `None` when it has ended or is leased already.
    async fn take(ctx: &Context, id: Uuid) -> anyhow::Result<Option<Leased>> {
        let (now, holder) = (ctx.clock.now(), random_uuid());
        // Not `state = 'queued'`: PostgreSQL would look for the id in the index of those that are queued, which it
        // knows as nearly empty, while thousands are.
        let row = sqlx::query!(
            r#"UPDATE ivs_mail SET leased_by = $2, leased_until = $3, attempts = attempts + 1
             WHERE id = $1 AND state || '' = 'queued' AND (leased_until IS NULL OR leased_until <= $4)
             RETURNING kind, interview_id, user_id, recipient, sequence, starts_at, attempts,
                       COALESCE(resent_at, created_at) AS "queued_at!""#,
            id,
            holder,
            now + LEASE,
            now
        )
        .fetch_optional(&ctx.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mail = Mail {
            kind: Kind::parse(&row.kind)?,
            interview_id: row.interview_id,
            user_id: row.user_id,
            recipient: row.recipient,
            sequence: row.sequence,
            starts_at: row.starts_at,
        };
        Ok(Some(Leased { id, mail, holder, leased_at: now, queued_at: row.queued_at, attempts: row.attempts }))
    }

    /// Renders the mail and hands it to the SMTP server, as long as nobody else has the lease. Waits no longer than
    /// `patience` for a connection.
    async fn attempt(
        &self,
        ctx: &Context,
        patience: Duration,
        render: impl AsyncFnOnce(Mail) -> anyhow::Result<Option<Email>>,
    ) -> anyhow::Result<Tried> {
        crash_point!("mail: leased");
        tokio::select! {
            biased;
            tried = self.hand_over(ctx, patience, render) => tried,
            () = self.lost(ctx) => Ok(Tried::TakenOver),
        }
    }

    async fn hand_over(
        &self,
        ctx: &Context,
        patience: Duration,
        render: impl AsyncFnOnce(Mail) -> anyhow::Result<Option<Email>>,
    ) -> anyhow::Result<Tried> {
        let Some(email) = render(self.mail.clone()).await? else { return Ok(Tried::Outdated) };
        let message = match compose(&email, &ctx.settings.from_email, self.id, ctx.clock.now()) {
            Ok(message) => message,
            Err(unusable) => return Ok(Tried::Refused(unusable.to_string())),
        };
        let Some(smtp) = &ctx.smtp else { return Ok(Tried::Later("no SMTP server is configured".to_owned())) };
        // A commit or a rendering that took long has used up some of the lease, or all of it.
        if ctx.clock.now() > self.leased_at + Duration::from_secs(1) && !self.renew(ctx).await? {
            return Ok(Tried::TakenOver);
        }
        Ok(match smtp.send(&message, patience).await {
            Ok(()) => {
                let (kind, interview, to) = (self.mail.kind.as_str(), self.mail.interview_id, masked(&email.to.1));
                tracing::info!(mail = %self.id, kind, interview, to, "mail sent");
                Tried::Sent
            }
            Err(SendError::Refused(why)) => Tried::Refused(why),
            Err(SendError::Later(why)) => Tried::Later(why),
        })
    }

    /// Notes what a try has come to, and says what is left for the mail's job.
    async fn note(&self, ctx: &Context, tried: anyhow::Result<Tried>) -> anyhow::Result<Outcome> {
        let (id, attempts) = (self.id, self.attempts);
        let count = |outcome| ctx.metrics.email(self.mail.kind.as_str(), outcome);
        match tried {
            Err(fault) => {
                count(EmailOutcome::Later);
                // Where the database is away, the lease ends by itself.
                if let Err(error) = self.give_back(ctx, "it could not be prepared").await {
                    tracing::warn!(mail = %id, %error, "a mail's lease could not be given back");
                }
                return Err(fault.context("preparing a mail"));
            }
            Ok(Tried::Sent) => {
                count(EmailOutcome::Sent);
                crash_point!("mail: accepted");
                self.note_sent(ctx).await?;
            }
            Ok(Tried::Outdated) => {
                count(EmailOutcome::Dropped);
                tracing::info!(mail = %id, "mail dropped: what it would say is no longer true");
                self.finish(ctx, State::Dropped, None).await?;
            }
            Ok(Tried::Refused(why)) => {
                count(EmailOutcome::Refused);
                tracing::warn!(mail = %id, attempts, error = why, "mail refused for good");
                self.finish(ctx, State::Refused, Some(&why)).await?;
            }
            Ok(Tried::Later(why)) => {
                let age = (ctx.clock.now() - self.queued_at).to_std().unwrap_or_default();
                if let Some(wait) = retry_after(age, attempts) {
                    count(EmailOutcome::Later);
                    tracing::warn!(mail = %id, attempts, error = why, "mail not sent; it will be tried again");
                    self.give_back(ctx, &why).await?;
                    return Ok(Outcome::Again(wait));
                }
                count(EmailOutcome::Expired);
                tracing::error!(mail = %id, attempts, error = why, "mail given up after a day");
                self.finish(ctx, State::Expired, Some(&why)).await?;
            }
            Ok(Tried::TakenOver) => {
                tracing::warn!(mail = %id, "another sender took this mail over; leaving it to that one");
                return Ok(Outcome::Again(LEASE));
            }
        }
        Ok(Outcome::Done)
    }

    /// Makes the lease last as long again; false: somebody else has it.
    async fn renew(&self, ctx: &Context) -> sqlx::Result<bool> {
        let renewed = sqlx::query!(
            "UPDATE ivs_mail SET leased_until = $3 WHERE id = $1 AND leased_by = $2",
            self.id,
            self.holder,
            ctx.clock.now() + LEASE
        );
        Ok(renewed.execute(&ctx.db).await?.rows_affected() > 0)
    }

    /// Renews the lease again and again; returns when somebody else has it.
    async fn lost(&self, ctx: &Context) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.renew(ctx).await {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => tracing::warn!(mail = %self.id, %error, "a mail's lease could not be renewed"),
            }
        }
    }

    async fn give_back(&self, ctx: &Context, why: &str) -> sqlx::Result<()> {
        sqlx::query!(
            "UPDATE ivs_mail SET leased_by = NULL, leased_until = NULL, error = $3 WHERE id = $1 AND leased_by = $2",
            self.id,
            self.holder,
            why
        )
        .execute(&ctx.db)
        .await?;
        Ok(())
    }

    /// Ends a mail that is not sent; a lease lost meanwhile leaves that to the new holder.
    async fn finish(&self, ctx: &Context, state: State, why: Option<&str>) -> sqlx::Result<()> {
        sqlx::query!(
            "UPDATE ivs_mail SET state = $3, finished_at = $4, error = $5, leased_by = NULL, leased_until = NULL
             WHERE id = $1 AND leased_by = $2",
            self.id,
            self.holder,
            state.as_str(),
            ctx.clock.now(),
            why
        )
        .execute(&ctx.db)
        .await?;
        Ok(())
    }

    /// Notes the server's acceptance, whoever holds the lease by now: it is a fact. A database that is away for a
    /// while must not lead to a second copy, so this is tried for long.
    async fn note_sent(&self, ctx: &Context) -> sqlx::Result<()> {
        let what = format!("the acceptance of mail {}", self.id);
        ctx.insist(&what, |ctx| async move { self.try_note_sent(&ctx).await }).await
    }

    async fn try_note_sent(&self, ctx: &Context) -> sqlx::Result<()> {
        sqlx::query!(
            "WITH noted AS (
                 UPDATE ivs_mail
                 SET state = 'sent', finished_at = $2, error = NULL, leased_by = NULL, leased_until = NULL
                 WHERE id = $1 AND state <> 'sent'
                 RETURNING interview_id
             )
             UPDATE company_interview AS interview SET calendar_invite_sent = true, updated_at = $2
             FROM noted
             WHERE interview.id = noted.interview_id AND $3 AND NOT interview.calendar_invite_sent",
            self.id,
            ctx.clock.now(),
            self.mail.kind.carries_invitation()
        )
        .execute(&ctx.db)
        .await?;
        Ok(())
    }
}

/// What stands in the row of a mail that could not be leased.
async fn standing(ctx: &Context, id: Uuid) -> anyhow::Result<Outcome> {
    let row = sqlx::query!(r#"SELECT state AS "state: State", leased_until FROM ivs_mail WHERE id = $1"#, id)
        .fetch_optional(&ctx.db)
        .await?;
    Ok(match row {
        Some(row) if row.state == State::Queued => {
            let left = row.leased_until.map_or(TimeDelta::zero(), |until| until - ctx.clock.now());
            Outcome::Again(left.to_std().unwrap_or_default() + Duration::from_secs(1))
        }
        // Ended, or gone with its interview or user.
        _ => Outcome::Done,
    })
}

/// When to try again a mail that is `age` old and was tried `attempts` times: first after half a minute, then with
/// doubling gaps of at most 5 minutes in the first hour and 30 minutes after it. The last try falls on the end of the
/// day; one that fails after it (each mail gets at least one) has no successor.
fn retry_after(age: Duration, attempts: i32) -> Option<Duration> {
    let longest = Duration::from_secs(60 * if age < HOUR { 5 } else { 30 });
    let gap = Duration::from_secs(30 << (attempts - 1).clamp(0, 10));
    (age < DAY).then(|| gap.min(longest).min(DAY - age).max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_to_five_minutes_then_to_thirty_and_end_with_the_day() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let seconds = Duration::from_secs;
        for (age, attempts, gap) in [
            (seconds(1), 1, Some(seconds(30))),
            (seconds(31), 2, Some(minutes(1))),
            (minutes(2), 3, Some(minutes(2))),
            (minutes(4), 4, Some(minutes(4))),
            (minutes(8), 5, Some(minutes(5))),
            (minutes(59), 15, Some(minutes(5))),
            (minutes(60), 16, Some(minutes(30))),
            (minutes(23 * 60 + 50), 70, Some(minutes(10))),
            (minutes(24 * 60), 71, None),
            (minutes(48 * 60), 1, None),
        ] {
            assert_eq!(retry_after(age, attempts), gap, "{age:?} {attempts}");
        }
    }
}
