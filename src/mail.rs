//! From a queued row to an accepted mail: once.
//!
//! A mail is a row of `ivs_mail` and a job, both written by the transaction that causes it. Whoever sends it has a lease on
//! the row (a request has queued it with one, the job takes one), renders the mail from what is true *now*, hands it to
//! the SMTP server without holding a database connection, and notes the outcome in one statement. So a mail is neither
//! lost nor doubled; only a death between the server's acceptance and our note leads to a second copy, which has the
//! same `Message-ID`. Bodies, tokens and addresses are neither kept nor logged; the row of a mail that goes to another
//! address than its user's own is the exception.

use std::{fs, future::Future, io, path::Path, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use lettre::{
    Address, Message,
    message::{
        Attachment, Mailbox, MultiPart, SinglePart,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
};
use serde::Deserialize;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::{
    clock::random_uuid,
    context::Context,
    icalendar::one_line,
    jobs::{self, Job, Outcome},
    metrics::EmailOutcome,
    smtp::SendError,
    telemetry::masked,
};

/// Also the head start of a request that sends its mails itself: their jobs are due when it ends.
const LEASE: Duration = Duration::from_secs(30);
/// What a mail that its sender has queued with a lease has for its number of tries.
const FIRST_TRY: i32 = 1;
const RENEWAL: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// How long sending is tried.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a mail's row is kept.
const KEPT: TimeDelta = TimeDelta::days(90);
/// How long the note of an accepted mail is tried, a try a second.
const NOTE_TRIES: u32 = 10 * 60;

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

/// A mail to be queued.
#[derive(Clone, Debug)]
pub struct NewMail {
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

impl NewMail {
    /// To a user's own address, about his account.
    pub fn new(kind: Kind, user_id: i64) -> NewMail {
        NewMail { kind, interview_id: None, user_id, recipient: None, sequence: 0, starts_at: None }
    }

    fn queued(&self, id: Uuid, queued_at: DateTime<Utc>) -> Queued {
        let NewMail { kind, interview_id, user_id, recipient, sequence, starts_at } = self.clone();
        Queued { id, kind, interview_id, user_id, recipient, sequence, starts_at, queued_at }
    }
}

/// A mail that is to be rendered.
#[derive(Clone, Debug)]
pub struct Queued {
    pub id: Uuid,
    pub kind: Kind,
    pub interview_id: Option<i64>,
    pub user_id: i64,
    pub recipient: Option<String>,
    pub sequence: i32,
    pub starts_at: Option<DateTime<Utc>>,
    /// The last time, where an operator has sent it again.
    pub queued_at: DateTime<Utc>,
}

/// A person to write to: the name shown, when there is one, and the address.
pub type Correspondent = (Option<String>, String);

/// A rendered mail. Names, addresses and the subject may hold anything: [`compose`] makes them harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub to: Correspondent,
    pub reply_to: Option<Correspondent>,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// The METHOD (RFC 5546) and the iCalendar object that says the same.
    pub calendar: Option<(&'static str, String)>,
}

/// A queued mail that nobody but who queued it sends for the next half minute.
#[derive(Debug)]
pub struct Held {
    pub mail: Queued,
    holder: Uuid,
}

/// Queues mails with their jobs, which are due at once.
///
/// Belongs into the transaction of what causes the mails. Without an SMTP server (`ctx.smtp`) nothing should be queued.
pub async fn enqueue(db: &mut PgConnection, now: DateTime<Utc>, mails: &[NewMail]) -> sqlx::Result<()> {
    insert(db, now, mails, None).await?;
    Ok(())
}

/// The same for mails that the caller sends himself after the commit, by [`deliver_held`]. Their jobs see to what comes of
/// that, half a minute later.
pub async fn enqueue_held(db: &mut PgConnection, now: DateTime<Utc>, mails: &[NewMail]) -> sqlx::Result<Vec<Held>> {
    let holder = random_uuid();
    let ids = insert(db, now, mails, Some(holder)).await?;
    let held = |(mail, id): (&NewMail, Uuid)| Held { mail: mail.queued(id, now), holder };
    Ok(mails.iter().zip(ids).map(held).collect())
}

/// Writes rows, leased to `holder`, and their jobs. Gives the ids, in order.
async fn insert(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    mails: &[NewMail],
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
             attempts, leased_by, leased_until)
         SELECT *, 'queued', $8, $9, $10, $11
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
        leased_until
    )
    .execute(&mut *db)
    .await?;
    let jobs: Vec<Job> = ids.iter().map(|id| Job::SendMail { mail: *id }).collect();
    jobs::enqueue(db, &jobs, leased_until.unwrap_or(now)).await?;
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

/// Queues a job for every mail that has waited for a minute without one: a worker that was taken for dead, and lived, may
/// have removed it.
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
    Ok(())
}

/// Tries once to send a queued mail, as its job.
///
/// `render` makes the mail from the present state of the world; `None` drops it: it is no longer true. A mail that is being
/// sent by somebody else is left alone. Errors are faults of the database or of `render`; whatever SMTP says, the mail has
/// ended or is to be tried again.
pub async fn deliver<F, R>(ctx: &Context, id: Uuid, render: F) -> anyhow::Result<Outcome>
where
    F: FnOnce(Queued) -> R,
    R: Future<Output = anyhow::Result<Option<Email>>>,
{
    let lease = Lease { ctx, mail: id, holder: random_uuid() };
    let Some((mail, attempts)) = lease.take().await? else { return standing(ctx, id).await };
    Ok(match lease.send(mail, attempts, render).await? {
        Tried::Sent | Tried::Ended => Outcome::Done,
        Tried::Later(wait) => Outcome::Again(wait),
    })
}

/// Tries once to send a mail just queued, likewise; whether the SMTP server has accepted it. What is not accepted is left
/// to its job.
pub async fn deliver_held<F, R>(ctx: &Context, held: Held, render: F) -> anyhow::Result<bool>
where
    F: FnOnce(Queued) -> R,
    R: Future<Output = anyhow::Result<Option<Email>>>,
{
    let Held { mail, holder } = held;
    let lease = Lease { ctx, mail: mail.id, holder };
    // A commit that took long has used up some of the lease, or all of it.
    let is_late = ctx.clock.now() > mail.queued_at + Duration::from_secs(1);
    if is_late && !lease.renew().await? {
        tracing::info!(mail = %mail.id, "a mail was taken over before it could be sent");
        return Ok(false);
    }
    Ok(matches!(lease.send(mail, FIRST_TRY, render).await?, Tried::Sent))
}

/// What a try has come to.
enum Tried {
    Sent,
    /// It will never be sent.
    Ended,
    Later(Duration),
}

enum Attempt {
    Sent,
    Outdated,
    Failed(SendError),
}

async fn attempt<F, R>(ctx: &Context, mail: &Queued, render: F) -> anyhow::Result<Attempt>
where
    F: FnOnce(Queued) -> R,
    R: Future<Output = anyhow::Result<Option<Email>>>,
{
    let Some(email) = render(mail.clone()).await? else { return Ok(Attempt::Outdated) };
    let message = match compose(&email, &ctx.settings.from_email, mail.id, ctx.clock.now()) {
        Ok(message) => message,
        Err(unusable) => return Ok(Attempt::Failed(SendError::Refused(unusable.to_string()))),
    };
    let Some(smtp) = &ctx.smtp else {
        return Ok(Attempt::Failed(SendError::Later("no SMTP server is configured".to_owned())));
    };
    match smtp.send(&message).await {
        Ok(()) => {
            let to = masked(&email.to.1);
            tracing::info!(mail = %mail.id, kind = mail.kind.as_str(), interview = mail.interview_id, to, "mail sent");
            Ok(Attempt::Sent)
        }
        Err(error) => Ok(Attempt::Failed(error)),
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

/// The right to send one mail: nobody else sends it while this is renewed.
struct Lease<'a> {
    ctx: &'a Context,
    mail: Uuid,
    holder: Uuid,
}

impl Lease<'_> {
    /// The mail and how often it was tried, this time included; `None` when it has ended or is leased already.
    async fn take(&self) -> anyhow::Result<Option<(Queued, i32)>> {
        let now = self.ctx.clock.now();
        // Not `state = 'queued'`: PostgreSQL would look for the id in the index of those that are queued, which it knows as
        // nearly empty, while thousands are.
        let row = sqlx::query!(
            r#"UPDATE ivs_mail SET leased_by = $2, leased_until = $3, attempts = attempts + 1
             WHERE id = $1 AND state || '' = 'queued' AND (leased_until IS NULL OR leased_until <= $4)
             RETURNING kind, interview_id, user_id, recipient, sequence, starts_at, attempts,
                       COALESCE(resent_at, created_at) AS "queued_at!""#,
            self.mail,
            self.holder,
            now + LEASE,
            now
        )
        .fetch_optional(&self.ctx.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mail = Queued {
            id: self.mail,
            kind: Kind::parse(&row.kind)?,
            interview_id: row.interview_id,
            user_id: row.user_id,
            recipient: row.recipient,
            sequence: row.sequence,
            starts_at: row.starts_at,
            queued_at: row.queued_at,
        };
        Ok(Some((mail, row.attempts)))
    }

    /// Tries to send the mail, for the `attempts`th time, as long as nobody else has the lease.
    async fn send<F, R>(&self, mail: Queued, attempts: i32, render: F) -> anyhow::Result<Tried>
    where
        F: FnOnce(Queued) -> R,
        R: Future<Output = anyhow::Result<Option<Email>>>,
    {
        let Lease { ctx, mail: id, .. } = *self;
        crash_point!("mail: leased");
        let attempt = tokio::select! {
            biased;
            attempt = attempt(ctx, &mail, render) => attempt,
            () = self.lost() => {
                tracing::warn!(mail = %id, "another sender took this mail over; leaving it to that one");
                return Ok(Tried::Later(LEASE));
            }
        };
        let count = |outcome| ctx.metrics.email(mail.kind.as_str(), outcome);
        match attempt {
            Err(fault) => {
                count(EmailOutcome::Later);
                self.give_back("it could not be rendered").await?;
                Err(fault.context("rendering a mail"))
            }
            Ok(Attempt::Sent) => {
                count(EmailOutcome::Sent);
                crash_point!("mail: accepted");
                self.note_sent(mail.kind).await?;
                Ok(Tried::Sent)
            }
            Ok(Attempt::Outdated) => {
                count(EmailOutcome::Dropped);
                tracing::info!(mail = %id, "mail dropped: what it would say is no longer true");
                self.finish(State::Dropped, None).await?;
                Ok(Tried::Ended)
            }
            Ok(Attempt::Failed(SendError::Refused(why))) => {
                count(EmailOutcome::Refused);
                tracing::warn!(mail = %id, attempts, error = why, "mail refused for good");
                self.finish(State::Refused, Some(&why)).await?;
                Ok(Tried::Ended)
            }
            Ok(Attempt::Failed(SendError::Later(why))) => {
                let age = (ctx.clock.now() - mail.queued_at).to_std().unwrap_or_default();
                let Some(wait) = retry_after(age, attempts) else {
                    count(EmailOutcome::Expired);
                    tracing::error!(mail = %id, attempts, error = why, "mail given up after a day");
                    self.finish(State::Expired, Some(&why)).await?;
                    return Ok(Tried::Ended);
                };
                count(EmailOutcome::Later);
                tracing::warn!(mail = %id, attempts, error = why, "mail not sent; it will be tried again");
                self.give_back(&why).await?;
                Ok(Tried::Later(wait))
            }
        }
    }

    /// Whether nobody else has it: then it lasts from now on.
    async fn renew(&self) -> sqlx::Result<bool> {
        let renewed = sqlx::query!(
            "UPDATE ivs_mail SET leased_until = $3 WHERE id = $1 AND leased_by = $2",
            self.mail,
            self.holder,
            self.ctx.clock.now() + LEASE
        );
        Ok(renewed.execute(&self.ctx.db).await?.rows_affected() > 0)
    }

    /// Renews the lease again and again; returns when somebody else has it.
    async fn lost(&self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.renew().await {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => tracing::warn!(mail = %self.mail, %error, "a mail's lease could not be renewed"),
            }
        }
    }

    async fn give_back(&self, why: &str) -> sqlx::Result<()> {
        sqlx::query!(
            "UPDATE ivs_mail SET leased_by = NULL, leased_until = NULL, error = $3 WHERE id = $1 AND leased_by = $2",
            self.mail,
            self.holder,
            why
        )
        .execute(&self.ctx.db)
        .await?;
        Ok(())
    }

    /// Ends a mail that is not sent; a lease lost meanwhile leaves that to the new holder.
    async fn finish(&self, state: State, why: Option<&str>) -> sqlx::Result<()> {
        sqlx::query!(
            "UPDATE ivs_mail SET state = $3, finished_at = $4, error = $5, leased_by = NULL, leased_until = NULL
             WHERE id = $1 AND leased_by = $2",
            self.mail,
            self.holder,
            state.as_str(),
            self.ctx.clock.now(),
            why
        )
        .execute(&self.ctx.db)
        .await?;
        Ok(())
    }

    /// Notes the server's acceptance, whoever holds the lease by now: it is a fact. A database that is away for a
    /// while must not lead to a second copy, so this is tried for long.
    async fn note_sent(&self, kind: Kind) -> sqlx::Result<()> {
        for _ in 0..NOTE_TRIES {
            match self.try_note_sent(kind).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(mail = %self.mail, %error, "a sent mail could not be noted; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        self.try_note_sent(kind).await
    }

    async fn try_note_sent(&self, kind: Kind) -> sqlx::Result<()> {
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
            self.mail,
            self.ctx.clock.now(),
            kind.carries_invitation()
        )
        .execute(&self.ctx.db)
        .await?;
        Ok(())
    }
}

/// When to try again a mail that is `age` old and was tried `attempts` times: first after half a minute, then with
/// doubling gaps of at most 5 minutes in the first hour and 30 minutes after it. The last try falls on the end of the
/// day; one that fails after it (each mail gets at least one) has no successor.
fn retry_after(age: Duration, attempts: i32) -> Option<Duration> {
    let longest = Duration::from_secs(60 * if age < HOUR { 5 } else { 30 });
    let gap = Duration::from_secs(30 << (attempts - 1).clamp(0, 10));
    (age < DAY).then(|| gap.min(longest).min(DAY - age).max(Duration::from_secs(1)))
}

/// Why a mail can never be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the recipient's address is not usable")]
    Recipient,
    #[error("DEFAULT_FROM_EMAIL is not usable")]
    Sender,
    #[error("the message cannot be built")]
    Message,
}

/// `email` as an Internet message (RFC 5322) with the MIME structure that calendars understand as an invitation
/// (RFC 6047): text, HTML and iCalendar as alternatives, the iCalendar object once more as a file.
///
/// The `Message-ID` follows from `id`, so a second copy can be told from a second mail. A `Reply-To` that is no address
/// is left out: the mail is worth more.
pub fn compose(email: &Email, from: &str, id: Uuid, date: DateTime<Utc>) -> Result<Message, Unusable> {
    let from: Mailbox = from.parse().map_err(|_| Unusable::Sender)?;
    let message_id = format!("<{id}@{}>", from.email.domain());
    let mut message = Message::builder()
        .from(from)
        .to(mailbox(&email.to).ok_or(Unusable::Recipient)?)
        .subject(header_text(&email.subject))
        .date(date.into())
        .message_id(Some(message_id))
        .header(AutoSubmitted);
    if let Some(reply_to) = email.reply_to.as_ref().and_then(mailbox) {
        message = message.reply_to(reply_to);
    }
    let alternatives = MultiPart::alternative()
        .singlepart(SinglePart::plain(email.text.clone()))
        .singlepart(SinglePart::html(email.html.clone()));
    let message = match &email.calendar {
        None => message.multipart(alternatives),
        Some((method, object)) => {
            let kind = ContentType::parse(&format!("text/calendar; method={method}; charset=utf-8"));
            let kind = kind.map_err(|_| Unusable::Message)?;
            let part = SinglePart::builder().header(kind.clone()).body(object.clone());
            let file = Attachment::new("interview.ics".to_owned()).body(object.clone(), kind);
            message.multipart(MultiPart::mixed().multipart(alternatives.singlepart(part)).singlepart(file))
        }
    };
    message.map_err(|_| Unusable::Message)
}

/// Tells auto-responders to keep quiet (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

fn mailbox((name, address): &Correspondent) -> Option<Mailbox> {
    let (local, domain) = address.trim().rsplit_once('@')?;
    // An international domain has an ASCII form that every server understands (RFC 5891); a local part has none.
    let domain = match domain.is_ascii() {
        true => domain.to_owned(),
        false => url::Host::parse(domain).ok()?.to_string(),
    };
    let address = Address::new(local, domain).ok()?;
    if address.user().contains(char::is_control) || address.domain().contains(char::is_control) {
        return None;
    }
    let name = name.as_deref().map(header_text).filter(|name| !name.is_empty());
    Some(Mailbox::new(name, address))
}

/// A text for a header: on one line, with one space at a time. Of two between words that are not ASCII the encoder leaves one
/// between its encoded words, where readers drop it (RFC 2047, section 6.2).
fn header_text(text: &str) -> String {
    one_line(text).split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Writes each mail to `dir` (made when missing) to be looked at: the message `.eml`, and its parts `.txt`, `.html`
/// and, with an invitation, `.ics`.
pub fn write_preview(dir: &Path, mails: &[(&str, Email)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (stem, email) in mails {
        let message =
            compose(email, "info@umemployed.com", Uuid::nil(), DateTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let write = |extension: &str, content: &[u8]| fs::write(dir.join(stem).with_extension(extension), content);
        write("eml", &message.formatted())?;
        write("txt", email.text.as_bytes())?;
        write("html", email.html.as_bytes())?;
        if let Some((_, object)) = &email.calendar {
            write("ics", object.as_bytes())?;
        }
    }
    Ok(())
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

/// How many mails of each kind are still to be sent.
pub async fn count_queued(db: &mut PgConnection) -> sqlx::Result<Vec<(&'static str, i64)>> {
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
pub struct Listed {
    pub id: Uuid,
    /// The last time, where an operator has sent it again.
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
pub async fn list(db: impl PgExecutor<'_>, wanted: &Wanted) -> sqlx::Result<Vec<Listed>> {
    sqlx::query_as!(
        Listed,
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
    /// It had ended in this state, and is queued anew for a day.
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

/// Queues a mail once more, whatever became of it, to be sent now; a copy of one that was sent has its `Message-ID`.
pub async fn resend(db: &mut PgConnection, id: Uuid, now: DateTime<Utc>) -> anyhow::Result<Resent> {
    let mut tx = sqlx::Connection::begin(db).await?;
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

#[cfg(test)]
mod tests {
    use mail_parser::{Message as Parsed, MessageParser, MimeHeaders, PartType};
    use proptest::prelude::*;

    use super::*;

    const FROM: &str = "info@umemployed.com";

    fn email() -> Email {
        Email {
            to: (Some("Carl Candy".to_owned()), "carl@x.test".to_owned()),
            reply_to: Some((Some("Rita Recruit".to_owned()), "rita@x.test".to_owned())),
            subject: "Interview Scheduled: Software Engineer".to_owned(),
            text: "Hi Carl,\n\nall is well – truly.\n".to_owned(),
            html: "<p>Hi Carl,</p>".to_owned(),
            calendar: Some(("REQUEST", "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n".to_owned())),
        }
    }

    fn composed(email: &Email) -> Vec<u8> {
        let date = "2026-11-20T21:46:15Z".parse().unwrap();
        compose(email, FROM, Uuid::from_u128(7), date).unwrap().formatted()
    }

    fn parsed(raw: &[u8]) -> Parsed<'_> {
        MessageParser::default().parse(raw).unwrap()
    }

    fn header(message: &Parsed<'_>, name: &str) -> Vec<String> {
        let named = message.headers_raw().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// The part's type with its parameters, indented by depth, and all it holds.
    fn outline(message: &Parsed<'_>, part: usize, depth: usize, to: &mut String) {
        let part = &message.parts[part];
        let kind = part.content_type().unwrap();
        let mut line = format!("{}{}/{}", "  ".repeat(depth), kind.c_type, kind.c_subtype.as_deref().unwrap_or("?"));
        for attribute in kind.attributes().unwrap_or_default().iter().filter(|attribute| attribute.name != "boundary") {
            line += &format!("; {}={}", attribute.name, attribute.value);
        }
        if let Some(disposition) = part.content_disposition() {
            line += &format!(" [{} {}]", disposition.c_type, part.attachment_name().unwrap_or("?"));
        }
        *to += &format!("{line}\n");
        if let PartType::Multipart(parts) = &part.body {
            for &inner in parts {
                outline(message, inner as usize, depth + 1, to);
            }
        }
    }

    #[test]
    fn an_invitation_has_the_structure_that_calendars_expect() {
        let raw = composed(&email());
        let message = parsed(&raw);
        let mut found = String::new();
        outline(&message, 0, 0, &mut found);
        insta::assert_snapshot!(found, @r"
        multipart/mixed
          multipart/alternative
            text/plain; charset=utf-8
            text/html; charset=utf-8
            text/calendar; method=REQUEST; charset=utf-8
          text/calendar; method=REQUEST; charset=utf-8 [attachment interview.ics]
        ");
        let object = email().calendar.unwrap().1;
        for part in message.parts.iter().filter(|part| part.is_content_type("text", "calendar")) {
            assert_eq!(part.text_contents(), Some(object.as_str()));
        }
        assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), email().text.trim_end());
    }

    #[test]
    fn the_header_names_one_recipient_the_date_and_an_id_made_from_the_queue() {
        let raw = composed(&email());
        let message = parsed(&raw);
        let found = ["From", "Reply-To", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"]
            .map(|name| format!("{name}: {}", header(&message, name).join(" | ")));
        insta::assert_snapshot!(found.join("\n"), @r#"
        From: info@umemployed.com
        Reply-To: "Rita Recruit" <rita@x.test>
        To: "Carl Candy" <carl@x.test>
        Subject: Interview Scheduled: Software Engineer
        Date: Fri, 20 Nov 2026 21:46:15 +0000
        Message-ID: <00000000-0000-0000-0000-000000000007@umemployed.com>
        Auto-Submitted: auto-generated
        MIME-Version: 1.0
        "#);
    }

    #[test]
    fn a_mail_without_an_invitation_is_two_alternatives() {
        let raw = composed(&Email { calendar: None, reply_to: None, ..email() });
        let mut found = String::new();
        outline(&parsed(&raw), 0, 0, &mut found);
        insta::assert_snapshot!(found, @r"
        multipart/alternative
          text/plain; charset=utf-8
          text/html; charset=utf-8
        ");
        assert!(header(&parsed(&raw), "Reply-To").is_empty());
    }

    #[test]
    fn line_breaks_of_a_subject_become_spaces_and_other_scripts_survive() {
        let raw = composed(&Email { subject: "Dev\r\nBcc: eve@x.test – Grüße 面接".to_owned(), ..email() });
        let message = parsed(&raw);
        assert!(header(&message, "Bcc").is_empty());
        assert_eq!(message.subject(), Some("Dev Bcc: eve@x.test – Grüße 面接"));
        assert!(raw.is_ascii());
    }

    #[test]
    fn an_international_domain_is_written_in_ascii() {
        let address = mailbox(&(None, " jürgen@bücher.example ".to_owned())).unwrap();
        assert_eq!(address.email.to_string(), "jürgen@xn--bcher-kva.example");
    }

    #[test]
    fn what_is_no_address_is_refused_as_recipient_and_left_out_as_reply_to() {
        for wrong in [
            "",
            "carl",
            "@x.test",
            "carl@",
            "carl@x.test\r\nBcc: eve@x.test",
            "a b@x.test",
            "c@x.test>",
            "carl@x..test",
        ] {
            let to = Email { to: (None, wrong.to_owned()), ..email() };
            assert_eq!(
                compose(&to, FROM, Uuid::nil(), DateTime::UNIX_EPOCH).err(),
                Some(Unusable::Recipient),
                "{wrong}"
            );
            let raw = composed(&Email { reply_to: Some((None, wrong.to_owned())), ..email() });
            assert!(header(&parsed(&raw), "Reply-To").is_empty(), "{wrong}");
        }
    }

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

    #[test]
    fn names_in_the_table_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()).unwrap(), kind);
        }
        assert!(Kind::parse("poem").is_err());
    }

    proptest! {
        /// Whatever names, addresses and titles hold, the header has each field once and the envelope one recipient.
        #[test]
        fn no_value_adds_a_header_or_a_recipient(
            name in any::<String>(), local in "\\PC{0,12}|[\\s\\S]{0,12}", domain in "[\\s\\S]{0,12}|x\\.test",
            subject in "[\\s\\S]{0,90}|(\r\nBcc: eve@x\\.test){1,2}", note in any::<String>(),
        ) {
            let address = format!("{local}@{domain}");
            let mail = Email {
                to: (Some(name.clone()), "carl@x.test".to_owned()),
                reply_to: Some((Some(name), address.clone())),
                subject, text: note.clone(), html: note.clone(), calendar: Some(("REQUEST", note)),
            };
            let raw = composed(&mail);
            let text = String::from_utf8_lossy(&raw).into_owned();
            let head = text.split("\r\n\r\n").next().unwrap();
            let fields: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split(':').next().unwrap()).collect();
            let with_reply = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Reply-To", "MIME-Version", "Content-Type"];
            let expected: Vec<&str> = with_reply.into_iter()
                .filter(|field| *field != "Reply-To" || mailbox(&(None, address.clone())).is_some()).collect();
            prop_assert_eq!(&fields, &expected);
            prop_assert!(!head.replace("\r\n", "").contains(|c: char| c.is_control() && c != '\t'));

            // As another parser reads it.
            prop_assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() <= 998 + 1));
            let read = mail_parser::MessageParser::default().parse(&raw).unwrap();
            let one_space = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(one_space(read.subject().unwrap_or_default()), one_space(&one_line(&mail.subject)));
            let name = one_space(&one_line(mail.to.0.as_deref().unwrap_or_default()));
            let to: Vec<_> = read.to().unwrap().clone().into_list();
            prop_assert_eq!(to.len(), 1);
            prop_assert_eq!(to[0].address.as_deref(), Some("carl@x.test"));
            prop_assert_eq!(one_space(to[0].name.as_deref().unwrap_or_default()), name);
            prop_assert!(read.bcc().is_none() && read.cc().is_none());

            let message = compose(&Email { to: (None, address), ..mail }, FROM, Uuid::nil(), DateTime::UNIX_EPOCH);
            if let Ok(message) = message {
                prop_assert_eq!(message.envelope().to().len(), 1);
                prop_assert!(!message.envelope().to()[0].to_string().contains(char::is_control));
            }
        }
    }
}
