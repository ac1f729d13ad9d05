//! Changing and cancelling an interview across systems, so that row, event and mails agree whatever fails.
//!
//! A change holds a [`Claim`] while Google is asked, and commits row, notification and mails together with the claim's
//! end. A change that fails leaves the row as it was and its event in doubt: [`align_events`] makes the event equal to
//! the row again. A cancellation commits at once and leaves the event to be deleted.

use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;
use tokio::task::JoinSet;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Summary, booking,
    claim::{self, Claim},
    emails::{self, EmailsSent},
    model::{self, Change, InterviewType},
    store::{self, Interview},
};
use crate::{
    auth::CurrentUser,
    calendar::{self, CalendarError},
    clock::random_uuid,
    context::Context,
    db::{self, MayBeDatabase},
    http::{Error, Result},
    mail::{self, Kind, Queued},
    notification,
};

/// How long the answer to a cancellation waits for Google.
const DELETION_PATIENCE: Duration = Duration::from_secs(5);

/// A changed interview.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changed {
    success: bool,
    message: &'static str,
    interview_id: i64,
    #[schema(required)]
    meeting_link: Option<String>,
    #[schema(required)]
    event_id: Option<String>,
    emails_sent: EmailsSent,
    calendar_invite_sent: bool,
    warnings: Vec<String>,
    interview: Summary,
    /// The mail waits until the minute after the last one is over.
    #[serde(skip)]
    pub mail_follows: bool,
}

/// A cancelled interview.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cancelled {
    success: bool,
    message: &'static str,
    interview_id: i64,
    status: model::Status,
    emails_sent: EmailsSent,
    warnings: Vec<String>,
}

/// Changes an interview, as it was a moment ago, of the recruiter `user` (contract §5.14, from the formats on). It must
/// run [to its end](Context::to_its_end).
pub async fn change(ctx: Context, user: CurrentUser, interview: Interview, change: Change) -> Result<Changed> {
    let id = interview.id;
    let planned = plan(&ctx, interview, &change)?;
    if planned.is_nothing() {
        return match Claim::is_held(&ctx.db, id, ctx.clock.now()).await? {
            true => Err(being_changed()),
            false => Ok(changed(&ctx, &user, planned.after, EmailsSent::default()).await),
        };
    }
    let claim = Claim::take(&ctx.db, id, ctx.clock.now()).await.map_err(|error| Error::from(error).undone())?;
    let claim = claim.ok_or_else(being_changed)?;
    let intent = random_uuid();
    // Again, now that nobody else changes it.
    let Planned { before, after } = match plan_and_reserve(&ctx, &user, id, &change, intent).await {
        Ok(planned) if !planned.is_nothing() => planned,
        other => {
            let give_back = move |ctx: Context| async move {
                // A reservation whose commit got no answer may be there.
                mail::release(&ctx.db, intent).await?;
                claim.give_back(&ctx.db, ctx.clock.now()).await
            };
            ctx.persist("that nothing is changed", give_back).await;
            return Ok(changed(&ctx, &user, other.map_err(Error::undone)?.after, EmailsSent::default()).await);
        }
    };
    crash_point!("change: claimed");
    let changing = Changing { ctx: &ctx, claim: &claim, intent, recruiter_id: user.id, before, after };
    match changing.carry_out().await {
        Ok(Written { interview, mails }) => {
            // Nothing from here on can undo the change.
            crash_point!("change: committed");
            let sent = emails::send_now(&ctx, mails.leased, [interview.candidate_id, user.id]).await;
            let mut changed = changed(&ctx, &user, interview, sent).await;
            changed.mail_follows = !mails.waiting.is_empty();
            changed.warnings.extend(changed.mail_follows.then(|| "The mail follows in a minute.".to_owned()));
            Ok(changed)
        }
        Err(failure) => {
            changing.abandon().await;
            Err(match failure {
                Failure::Calendar(error) => calendar::error_answer(&ctx, user.id, error).await.undone(),
                Failure::Lost => anyhow::anyhow!("the change lost its claim before it could commit").into(),
                Failure::Other(error) => error,
            })
        }
    }
}

/// What a change would do.
struct Planned {
    before: Interview,
    after: Interview,
}

impl Planned {
    fn is_nothing(&self) -> bool {
        self.after.says_the_same_as(&self.before)
    }
}

/// [`plan`] for the interview as it is now, if it can be carried out as far as is known without asking Google. A mail
/// to the candidate is reserved under the change's intent.
async fn plan_and_reserve(
    ctx: &Context,
    user: &CurrentUser,
    id: i64,
    change: &Change,
    intent: Uuid,
) -> Result<Planned> {
    let interview = store::by_id(&ctx.db, id).await?.ok_or_else(super::not_found)?;
    let planned = plan(ctx, interview, change)?;
    if planned.is_nothing() {
        return Ok(planned);
    }
    let has_event = needs_google(&planned.before, &planned.after);
    if has_event {
        calendar::require_grant(ctx, user.id).await.map_err(|refusal| refusal.about("interview_type"))?;
    }
    let people = (user.id, planned.after.candidate_id);
    db::repeated(|| async move {
        let mut tx = ctx.db.begin().await?;
        mail::reserve(&mut tx, ctx, intent, people, Kind::Updated, has_event).await?;
        Ok::<_, Error>(tx.commit().await?)
    })
    .await?;
    Ok(planned)
}

/// What the change would do to the interview, unless that is impossible or the interview is cancelled.
fn plan(ctx: &Context, before: Interview, change: &Change) -> Result<Planned> {
    let after = change.applied_to(&before, &ctx.settings)?;
    match before.cancelled_at {
        None => Ok(Planned { before, after }),
        Some(_) => Err(Error::refused(StatusCode::CONFLICT, "This interview has been cancelled.")),
    }
}

fn being_changed() -> Error {
    Error::refused(StatusCode::CONFLICT, "This interview is being changed. Please try again.")
}

async fn changed(ctx: &Context, user: &CurrentUser, interview: Interview, emails_sent: EmailsSent) -> Changed {
    let (zone, window, now) = (interview.zone(), interview.window(&ctx.settings), ctx.clock.now());
    let start = zone.instant(interview.date, interview.time);
    let mut warnings =
        start.map(|start| model::time_warnings(&zone, interview.date, interview.time, &start, now)).unwrap_or_default();
    let span = (window.start, window.end);
    warnings.extend(booking::overlaps_if_known(ctx, &interview.candidate(), user.id, span, interview.id).await);
    Changed {
        success: true,
        message: "Interview updated successfully",
        interview_id: interview.id,
        meeting_link: interview.link().map(str::to_owned),
        event_id: interview.google_event_id.clone(),
        emails_sent,
        calendar_invite_sent: interview.calendar_invite_sent || emails_sent.any(),
        warnings,
        interview: Summary::new(interview.entry, user.id, now, ctx),
        mail_follows: false,
    }
}

/// Whether the interview, changed so, is or becomes one with an event. A row with an event counts as Google Meet as
/// long as its type is left alone: Django stores `custom` for those.
fn is_meet(before: &Interview, after: &Interview) -> bool {
    match after.interview_type == before.interview_type {
        true => before.kind() == InterviewType::GoogleMeet || before.google_event_id.is_some(),
        false => after.kind() == InterviewType::GoogleMeet,
    }
}

fn needs_google(before: &Interview, after: &Interview) -> bool {
    is_meet(before, after) || before.google_event_id.is_some()
}

/// A change under its claim.
struct Changing<'a> {
    ctx: &'a Context,
    claim: &'a Claim,
    /// Of an event that may have to be made.
    intent: Uuid,
    recruiter_id: i64,
    before: Interview,
    after: Interview,
}

/// The row as it was written, and the mails about it.
struct Written {
    interview: Interview,
    mails: Queued,
}

/// Why a change was not made.
enum Failure {
    Calendar(CalendarError),
    /// Somebody else has taken its claim over.
    Lost,
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Other(error.into())
    }
}

impl MayBeDatabase for Failure {
    fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Failure::Other(error) => error.database_error(),
            Failure::Calendar(_) | Failure::Lost => None,
        }
    }
}

/// What the row is to say of its event.
#[derive(Clone)]
struct Placed {
    interview: Interview,
    /// The event's own, for a row that has none yet.
    ical_uid: Option<String>,
    organizer: Option<String>,
    /// Another event was made, under the change's intent.
    is_made: bool,
    /// The event may still come to differ.
    in_doubt: bool,
    /// An event that was deleted, but may be there or still come.
    left_event: Option<String>,
}

impl Changing<'_> {
    /// The event, then everything of ours in one transaction. Where nothing was to be changed (an alignment), the row
    /// is written only if another event had to be made.
    async fn carry_out(&self) -> Result<Written, Failure> {
        let placed = self.place_event().await?;
        crash_point!("change: event placed");
        db::repeated(|| self.commit(placed.clone())).await
    }

    async fn commit(&self, placed: Placed) -> Result<Written, Failure> {
        let (ctx, now) = (self.ctx, self.ctx.clock.now());
        let mut tx = ctx.db.begin().await?;
        if !self.claim.finish(&mut tx, now).await? {
            return Err(Failure::Lost);
        }
        let Placed { mut interview, ical_uid, organizer, is_made, in_doubt, left_event } = placed;
        if in_doubt {
            claim::request_alignment(&mut *tx, interview.id, now + calendar::LATEST_CALL).await?;
        }
        if let Some(event_id) = left_event {
            calendar::discard_event(&mut tx, self.recruiter_id, &event_id, now).await?;
        }
        let mut mails = Queued::default();
        let is_change = !interview.says_the_same_as(&self.before);
        if !is_change && ical_uid.is_some() && self.before.ical_uid.is_none() {
            store::keep_identity(&mut tx, interview.id, ical_uid.as_deref(), organizer.as_deref()).await?;
        }
        if is_change || interview.google_event_id != self.before.google_event_id {
            let organizer = organizer.or_else(|| Some(self.before.recruiter()?.email));
            let written =
                store::update(&mut tx, &self.before, &interview, ical_uid, organizer, &ctx.settings, now).await?;
            interview.ical_sequence = written.ok_or_else(being_changed)?;
            if is_change {
                let message = model::changed_notification(&interview);
                notification::tell(&mut tx, interview.candidate_id, interview.id, &message, now).await?;
            }
            let about = (interview.id, interview.ical_sequence);
            let users = [interview.candidate_id, self.recruiter_id];
            mails = emails::queue(&mut tx, ctx, Kind::Updated, about, &users).await?;
            if mails.joined.contains(&interview.candidate_id) {
                mail::release(&mut *tx, self.intent).await?;
            }
        }
        if is_made && !calendar::take_intent(&mut tx, self.intent).await? {
            return Err(anyhow::anyhow!("the intent was given up before it could commit").into());
        }
        crash_point!("change: about to commit");
        tx.commit().await?;
        Ok(Written { interview, mails })
    }

    /// Makes Google's side equal to `after`.
    async fn place_event(&self) -> Result<Placed, Failure> {
        let mut placed = Placed {
            interview: self.after.clone(),
            ical_uid: None,
            organizer: None,
            is_made: false,
            in_doubt: false,
            left_event: None,
        };
        let interview = &mut placed.interview;
        let old_event = self.before.google_event_id.as_deref();
        if is_meet(&self.before, &self.after) {
            match self.put_event(old_event).await? {
                calendar::Put::Kept { ical_uid, organizer, in_doubt } => {
                    (placed.ical_uid, placed.organizer, placed.in_doubt) = (ical_uid, organizer, in_doubt);
                }
                calendar::Put::Made(created) => {
                    interview.meeting_link = created.meeting_link;
                    interview.google_event_id = Some(created.event_id);
                    (placed.ical_uid, placed.organizer, placed.is_made) = (created.ical_uid, created.organizer, true);
                }
            }
            return Ok(placed);
        }
        if is_meet(&self.before, &self.before) {
            interview.meeting_link = String::new();
        }
        if let Some(event_id) = old_event {
            interview.google_event_id = None;
            let deleted = calendar::delete_event(self.ctx, self.recruiter_id, event_id).await;
            if deleted.map_err(Failure::Calendar)? == calendar::Deleted::Unsure {
                placed.left_event = Some(event_id.to_owned());
            }
        }
        Ok(placed)
    }

    async fn put_event(&self, old_event: Option<&str>) -> Result<calendar::Put, Failure> {
        let (ctx, after) = (self.ctx, &self.after);
        let new_event = random_uuid().simple().to_string();
        let (zone, window) = (after.zone(), after.window(&ctx.settings));
        let event = calendar::Event {
            id: &new_event,
            request_id: self.intent,
            job_title: &after.job_title,
            candidate_name: &after.candidate_name(),
            recruiter_name: &after.recruiter_name(),
            note: after.note.as_deref().filter(|note| !note.trim().is_empty()),
            start: window.start,
            end: window.end,
            zone: zone.name(),
            attendees: [&after.candidate_email, after.recruiter_email.as_deref().unwrap_or_default()],
        };
        let put = calendar::put_event(ctx, self.recruiter_id, self.intent, old_event, &event).await;
        put.map_err(Failure::Calendar)
    }

    /// Leaves a failed change or alignment to the sweeps: an event that it made is deleted, the interview's own is
    /// aligned.
    async fn abandon(&self) {
        let (claim, intent) = (*self.claim, self.intent);
        let abandon = move |ctx: Context| async move {
            let (mut db, now) = (ctx.db.acquire().await?, ctx.clock.now());
            calendar::give_up(&mut db, intent, now).await?;
            // Otherwise it may have been committed although its answer was lost: then the mails go.
            if claim.is_ours(&mut *db).await? {
                mail::release(&mut *db, intent).await?;
            }
            claim.fail(&mut *db, now).await
        };
        self.ctx.persist("a change's failure", abandon).await;
    }
}

/// The sweep: makes the events of interviews whose change failed or died, or whose instant has changed by new rules,
/// equal to the interviews. Meant to run every few seconds; several instances share the work.
pub async fn align_events(ctx: &Context) -> anyhow::Result<()> {
    loop {
        let due = Claim::take_due(&ctx.db, ctx.clock.now()).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut tasks = JoinSet::new();
        for claim in due {
            let ctx = ctx.clone();
            tasks.spawn(async move {
                if let Err(fault) = align(&ctx, &claim).await {
                    // A refusal's body is for its caller alone.
                    let error = match fault {
                        Error::Internal(fault) => format!("{fault:#}"),
                        refusal => refusal.status().to_string(),
                    };
                    // Its claim ends by itself.
                    tracing::error!(interview = claim.interview_id, error, "could not align an event");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                tracing::error!("the alignment of an event panicked");
            }
        }
    }
}

async fn align(ctx: &Context, claim: &Claim) -> Result<()> {
    crash_point!("aligning: taken");
    let interview = store::by_id(&ctx.db, claim.interview_id).await?;
    let has_event = |interview: &Interview| interview.cancelled_at.is_none() && interview.google_event_id.is_some();
    let Some((recruiter_id, interview)) =
        interview.filter(has_event).and_then(|interview| Some((interview.recruiter_id?, interview)))
    else {
        claim.finish(&mut *ctx.db.acquire().await?, ctx.clock.now()).await?;
        return Ok(());
    };
    let changing =
        Changing { ctx, claim, intent: random_uuid(), recruiter_id, before: interview.clone(), after: interview };
    match changing.carry_out().await {
        Ok(written) => {
            tracing::info!(interview = claim.interview_id, "an event was aligned with its interview");
            emails::send_now(ctx, written.mails.leased, [written.interview.candidate_id, recruiter_id]).await;
        }
        Err(failure) => {
            changing.abandon().await;
            match failure {
                Failure::Calendar(CalendarError::Internal(fault)) => return Err(Error::Internal(fault)),
                Failure::Calendar(error) => {
                    tracing::info!(interview = claim.interview_id, ?error, "an event waits to be aligned");
                }
                Failure::Lost => tracing::info!(interview = claim.interview_id, "an alignment gave way to a change"),
                Failure::Other(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Cancels an interview, as it was a moment ago, of the recruiter `user` (contract §5.15). Never waits long for Google,
/// whatever it says. It must run [to its end](Context::to_its_end).
pub async fn cancel(
    ctx: Context,
    user: CurrentUser,
    interview: Interview,
    reason: Option<String>,
) -> Result<Cancelled> {
    let id = interview.id;
    if interview.cancelled_at.is_some() {
        return Ok(cancelled(id, "Interview was already cancelled."));
    }
    let users = [interview.candidate_id, user.id];
    let committed = db::repeated(|| commit_cancellation(&ctx, &interview, users, reason.as_deref())).await?;
    let Some((mails, discarded)) = committed else {
        return Ok(cancelled(id, "Interview was already cancelled."));
    };
    crash_point!("cancellation: committed");

    let deleting = async {
        let Some(discarded) = discarded else { return true };
        let task = {
            let ctx = ctx.clone();
            ctx.tasks.clone().spawn(async move { calendar::undo_now(&ctx, &discarded).await })
        };
        matches!(tokio::time::timeout(DELETION_PATIENCE, task).await, Ok(Ok(true)))
    };
    let (is_deleted, emails_sent) = tokio::join!(deleting, emails::send_now(&ctx, mails.leased, users));
    let mut answer = cancelled(id, "Interview cancelled successfully.");
    answer.emails_sent = emails_sent;
    if !is_deleted {
        answer.warnings.push("The Google Calendar event will be deleted later.".to_owned());
    }
    Ok(answer)
}

/// Everything of ours in one transaction: the mails, and the event that is to be deleted. `None`: the interview was
/// cancelled already.
async fn commit_cancellation(
    ctx: &Context,
    interview: &Interview,
    users: [i64; 2],
    reason: Option<&str>,
) -> Result<Option<(Queued, Option<calendar::Abandoned>)>> {
    let (id, now) = (interview.id, ctx.clock.now());
    let mut tx = ctx.db.begin().await?;
    let claim = Claim::take(&mut *tx, id, now).await?.ok_or_else(being_changed)?;
    let organizer = interview.recruiter_email.as_deref();
    let Some(row) = store::cancel(&mut tx, id, reason, organizer, now).await? else { return Ok(None) };
    let message = model::cancelled_notification(interview);
    notification::tell(&mut tx, interview.candidate_id, id, &message, now).await?;
    let mails = emails::queue(&mut tx, ctx, Kind::Cancelled, (id, row.ical_sequence), &users).await?;
    let [_, recruiter_id] = users;
    let discarded = match &row.google_event_id {
        Some(event_id) => Some(calendar::discard_event(&mut tx, recruiter_id, event_id, now).await?),
        None => None,
    };
    claim.finish(&mut tx, now).await?;
    crash_point!("cancellation: about to commit");
    tx.commit().await?;
    Ok(Some((mails, discarded)))
}

fn cancelled(interview_id: i64, message: &'static str) -> Cancelled {
    Cancelled {
        success: true,
        message,
        interview_id,
        status: model::Status::Cancelled,
        emails_sent: EmailsSent::default(),
        warnings: Vec::new(),
    }
}
