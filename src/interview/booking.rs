//! Scheduling across systems: our database, Google's calendar, the mails; none of them left without the others.
//!
//! An intent is recorded before the first effect and removed in the transaction that writes the interview and queues
//! its mails. Whatever ends in between (a refusal, a crash, a slow Google) leaves an intent, and an intent that does
//! not commit is undone by the calendar's sweep: its event is deleted.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    emails::{self, EmailsSent},
    facts::{self, Facts},
    key::{self, Key, KeyUse},
    model::{self, InterviewType, JobChoice, Person, Request},
    store::{self, NewInterview},
};
use crate::{
    auth::CurrentUser,
    calendar, clock,
    context::Context,
    db,
    http::{Error, Result, extract::IdempotencyKey},
    mail::{self, Kind, Leased},
    notification,
};

/// How long a request waits for another one that asks for the same without a key: longer than a dead one holds it.
const PATIENCE: Duration = Duration::from_secs(50);
/// How many requests of a user wait so at a time, on this server.
const MOST_WAITING: usize = 8;
/// How often it looks: first after this, then after twice as long each time, up to a second.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// A scheduled interview, as both create endpoints answer it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"success": true, "interview_id": 456, "interview_type": "google_meet",
    "meeting_link": "https://meet.google.com/abc-defg-hij", "meet_link": "https://meet.google.com/abc-defg-hij",
    "event_id": "event123", "calendar_event_id": "event123", "portal_join_url": "/interviews/456/join",
    "meet_embed_url": "/interviews/456/join/", "emails_sent": {"candidate": true, "recruiter": true},
    "calendar_invite_sent": true, "warnings": [], "message": "Google Meet interview created successfully!"})))]
pub struct Scheduled {
    success: bool,
    interview_id: i64,
    interview_type: InterviewType,
    #[schema(required)]
    meeting_link: Option<String>,
    #[schema(required)]
    meet_link: Option<String>,
    #[schema(required)]
    event_id: Option<String>,
    #[schema(required)]
    calendar_event_id: Option<String>,
    portal_join_url: String,
    meet_embed_url: String,
    emails_sent: EmailsSent,
    calendar_invite_sent: bool,
    warnings: Vec<String>,
    message: &'static str,
    #[serde(skip)]
    pub replayed: bool,
}

/// Schedules an interview, or answers again what a request with the same key, or without one a moment ago, has made.
/// Waits for the end of another one that asks for the same without a key.
///
/// Follows the rules of contract §5.6 from the fourth on. What it does runs to its end when the caller goes away; the
/// waiting ends then.
pub async fn schedule(ctx: &Context, user: CurrentUser, request: Request, key: KeyUse) -> Result<Scheduled> {
    let asked = Arc::new(Asked { user, request, key });
    let ends = Instant::now() + PATIENCE;
    loop {
        let attempt = attempt(ctx.clone(), asked.clone());
        if let Some(scheduled) = ctx.to_its_end("a booking", attempt).await?? {
            return Ok(scheduled);
        }
        until_free(ctx, asked.user.id, &asked.key, ends).await?;
    }
}

/// What a request asks for.
struct Asked {
    user: CurrentUser,
    request: Request,
    key: KeyUse,
}

/// `None`: another request holds the key.
async fn attempt(ctx: Context, asked: Arc<Asked>) -> Result<Option<Scheduled>> {
    let Asked { user, request, key } = &*asked;
    let before = standing(&ctx, user.id, key).await?;
    let facts = facts::facts(&ctx.db, user.id, request).await?;
    if !user.is_recruiter_with_company() {
        return Err(Error::forbidden("Only recruiters with a company can schedule interviews."));
    }
    if let Standing::Made(interview_id) = before {
        return replay(&ctx, interview_id).await.map(Some);
    }
    let parties = check(user, request, facts)?;
    let is_meet = request.interview_type == InterviewType::GoogleMeet;
    if is_meet {
        calendar::require_grant(&ctx, user.id).await.map_err(|refusal| refusal.undone().about("interview_type"))?;
    }
    let people = (user.id, parties.candidate.id);
    if let Standing::Running = before {
        return Ok(None);
    }
    let claimed = db::repeated(|| claim(&ctx, people, is_meet, key)).await.map_err(Error::undone)?;
    let Some((intent, event_id)) = claimed else { return Ok(None) };
    crash_point!("booking: intent recorded");
    let booking = Booking { ctx: &ctx, user, request, parties: &parties, intent, event_id };
    match booking.carry_out(key).await {
        Ok((made, mails)) => {
            // Nothing from here on can undo the interview.
            crash_point!("booking: committed");
            let users = [made.candidate.id, made.recruiter_id];
            let sending = emails::send_now(&ctx, mails, users);
            let (emails_sent, overlaps) = tokio::join!(sending, overlaps_of(&ctx, &made));
            Ok(Some(answer(made, emails_sent, overlaps, false)))
        }
        Err(error) => {
            let is_abandoned = booking.abandon().await;
            if !db::is_unanswered(&error) {
                return Err(error);
            }
            // If the commit happened, the intent could not be given up, and the key stands for the interview.
            match standing(&ctx, user.id, key).await {
                Ok(Standing::Made(interview_id)) => replay(&ctx, interview_id).await.map(Some),
                Ok(_) if is_abandoned => Err(error.undone()),
                _ => Err(error),
            }
        }
    }
}

/// What a key stands for at the moment.
enum Standing {
    Nothing,
    /// A request that runs, without a client's key.
    Running,
    Made(i64),
}

/// Rule 4.
async fn standing(ctx: &Context, user_id: i64, key: &KeyUse) -> Result<Standing> {
    let held = key::find(&ctx.db, user_id, &key.hash).await?;
    match held.filter(|held| held.counts(&key.life, ctx.clock.now())) {
        None => Ok(Standing::Nothing),
        Some(held) if held.fingerprint != key.fingerprint => Err(Error::refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was already used with a different request.",
        )
        .about(IdempotencyKey::NAME)),
        Some(Key { interview_id: Some(interview_id), .. }) => Ok(Standing::Made(interview_id)),
        Some(_) if key.life.is_clients => Err(still_processed()),
        Some(_) => Ok(Standing::Running),
    }
}

fn still_processed() -> Error {
    Error::refused(StatusCode::CONFLICT, "A request with this Idempotency-Key is still being processed.")
        .about(IdempotencyKey::NAME)
}

/// Who and what the interview is about, once the rules have been checked.
struct Parties {
    candidate: Person,
    recruiter: Person,
    company_name: Option<String>,
    job_id: Option<i64>,
    job_title: String,
}

/// Rules 6 to 10.
fn check(user: &CurrentUser, request: &Request, facts: Facts) -> Result<Parties> {
    if request.candidate_id == user.id {
        return Err(Error::bad_request("You cannot schedule an interview with yourself.").about("candidate_id"));
    }
    if request.company_id.is_some_and(|asked| facts.company_id != Some(asked)) {
        return Err(Error::missing("Company not found", "No Company matches the given query.").about("company_id"));
    }
    let Some(candidate) = facts.candidate() else {
        return Err(Error::missing("Candidate not found", "No User matches the given query.").about("candidate_id"));
    };
    let job_title = match (&request.job, facts.job_title) {
        (_, Some(title)) => title,
        (JobChoice::Title(title), None) => title.clone(),
        (JobChoice::Id(_), None) => {
            return Err(Error::missing("Job not found", "No Job matches the given query.").about("job_id"));
        }
    };
    if !facts.has_applied {
        return Err(Error::bad_request("This candidate has not applied to this job.").about("candidate_id"));
    }
    Ok(Parties {
        candidate,
        recruiter: person_of(user),
        company_name: facts.company_name,
        job_id: facts.job_id,
        job_title,
    })
}

fn person_of(user: &CurrentUser) -> Person {
    Person {
        id: user.id,
        first_name: user.first_name.clone(),
        last_name: user.last_name.clone(),
        email: user.email.clone(),
    }
}

/// What a request owns while it runs: its intent, and its event's id. That is chosen once and repeated on every retry,
/// so that a lost answer cannot make a second event; `None` without Google.
type Owned = (calendar::Intent, Option<String>);

/// Waits until no other request holds the key.
async fn until_free(ctx: &Context, user_id: i64, key: &KeyUse, ends: Instant) -> Result<()> {
    let (mut waiter, mut pause) = (None, FIRST_LOOK);
    loop {
        match standing(ctx, user_id, key).await? {
            Standing::Made(_) => return Ok(()),
            _ if Instant::now() > ends => return Err(still_processed()),
            Standing::Nothing => return Ok(()),
            Standing::Running if waiter.is_some() => {}
            Standing::Running => waiter = Some(Waiter::of(ctx, user_id).ok_or_else(still_processed)?),
        }
        ctx.clock.sleep(pause).await;
        pause = (2 * pause).min(Duration::from_secs(1));
    }
}

/// A request among those of its user that wait.
struct Waiter<'a> {
    ctx: &'a Context,
    user_id: i64,
}

impl<'a> Waiter<'a> {
    /// `None`: as many wait already as may.
    fn of(ctx: &'a Context, user_id: i64) -> Option<Self> {
        let mut waiting = all_waiting(ctx);
        let is_allowed = waiting.iter().filter(|id| **id == user_id).count() < MOST_WAITING;
        is_allowed.then(|| {
            waiting.push(user_id);
            Waiter { ctx, user_id }
        })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = all_waiting(self.ctx);
        if let Some(place) = waiting.iter().position(|id| *id == self.user_id) {
            waiting.swap_remove(place);
        }
    }
}

fn all_waiting(ctx: &Context) -> MutexGuard<'_, Vec<i64>> {
    ctx.waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The intent and, in one transaction with it, the key and a reserved mail to the candidate; `None` when somebody else
/// holds the key.
async fn claim(ctx: &Context, people @ (user_id, _): (i64, i64), is_meet: bool, key: &KeyUse) -> Result<Option<Owned>> {
    let id = clock::random_uuid();
    // A UUID's 32 hexadecimal digits are letters that Google allows in an id (0-9, a-v).
    let event_id = is_meet.then(|| clock::random_uuid().simple().to_string());
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin().await?;
    let Some(before) = key::claim(&mut *tx, user_id, key, id, now).await? else {
        return Ok(None);
    };
    // A request that held the key before and counts no longer must not commit any more.
    if let Some(dead) = before {
        calendar::give_up(&mut tx, dead, now).await?;
        mail::release(&mut *tx, dead).await?;
    }
    let intent = calendar::record_intent(&mut tx, id, user_id, event_id.as_deref(), now).await?;
    mail::reserve(&mut tx, ctx, id, people, Kind::Scheduled, is_meet).await?;
    tx.commit().await?;
    Ok(Some((intent, event_id)))
}

/// One scheduling request between its intent and its answer.
struct Booking<'a> {
    ctx: &'a Context,
    user: &'a CurrentUser,
    request: &'a Request,
    parties: &'a Parties,
    intent: calendar::Intent,
    event_id: Option<String>,
}

impl Booking<'_> {
    /// Rules 12 and 13: the event, then everything of ours in one transaction. Gives what was made and its mails.
    async fn carry_out(&self, key: &KeyUse) -> Result<(Made, Vec<Leased>)> {
        let event = match &self.event_id {
            Some(event_id) => Some(self.create_event(event_id).await?),
            None => None,
        };
        crash_point!("booking: event made");
        let (interview_id, mails) = db::repeated(|| self.commit(event.as_ref(), key)).await?;
        Ok((self.made(interview_id, event), mails))
    }

    /// Rule 13: the interview's id, and its mails.
    async fn commit(&self, event: Option<&calendar::Created>, key: &KeyUse) -> Result<(i64, Vec<Leased>)> {
        let mut tx = self.ctx.db.begin().await?;
        let interview_id = self.write(&mut tx, event).await?;
        let users = [self.parties.candidate.id, self.user.id];
        let mails = emails::queue(&mut tx, self.ctx, Kind::Scheduled, (interview_id, 0), &users).await?;
        if !key::bind(&mut *tx, self.user.id, &key.hash, self.intent.id, interview_id).await? {
            return Err(anyhow::anyhow!("the idempotency key was taken over before the request could commit").into());
        }
        // Last, because who takes a key over locks it and the intent in this order too.
        if !calendar::take_intent(&mut tx, self.intent.id).await? {
            return Err(anyhow::anyhow!("the intent was given up before it could commit").into());
        }
        crash_point!("booking: about to commit");
        tx.commit().await?;
        Ok((interview_id, mails.leased))
    }

    fn made(&self, interview_id: i64, event: Option<calendar::Created>) -> Made {
        let request = self.request;
        let (meeting_link, event_id) = event.map(|event| (event.meeting_link, event.event_id)).unzip();
        Made {
            interview_id,
            interview_type: request.interview_type,
            meeting_link,
            event_id,
            candidate: self.parties.candidate.clone(),
            recruiter_id: self.user.id,
            calendar_invite_sent: false,
            time_warnings: model::time_warnings(
                &request.zone,
                request.date,
                request.time,
                &request.start,
                self.ctx.clock.now(),
            ),
            span: (request.start.at, request.end),
        }
    }

    async fn create_event(&self, event_id: &str) -> Result<calendar::Created> {
        let (request, parties) = (self.request, self.parties);
        let event = calendar::Event {
            id: event_id,
            request_id: self.intent.id,
            job_title: &parties.job_title,
            candidate_name: &parties.candidate.name(),
            recruiter_name: &parties.recruiter.name(),
            note: request.note.as_deref(),
            start: request.start.at,
            end: request.end,
            zone: request.zone.name(),
            attendees: [&parties.candidate.email, &parties.recruiter.email],
        };
        match calendar::create_event(self.ctx, self.user.id, self.intent, &event).await {
            Ok(created) => Ok(created),
            Err(error) => Err(calendar::error_answer(self.ctx, self.user.id, error).await),
        }
    }

    async fn write(&self, tx: &mut db::Connection, event: Option<&calendar::Created>) -> Result<i64> {
        let parties = self.parties;
        let now = self.ctx.clock.now();
        let new = NewInterview {
            recruiter_id: self.user.id,
            request: self.request,
            job_id: parties.job_id,
            job_title: &parties.job_title,
            meeting_link: event.map_or("", |event| &event.meeting_link),
            google_event_id: event.map(|event| event.event_id.as_str()),
            ical_uid: event.and_then(|event| event.ical_uid.as_deref()),
            ical_organizer: event.and_then(|event| event.organizer.as_deref()).unwrap_or(&parties.recruiter.email),
        };
        let id = store::insert(tx, &new, now).await?;
        let message =
            model::scheduled_notification(&parties.job_title, parties.company_name.as_deref().unwrap_or_default());
        notification::tell(tx, parties.candidate.id, id, &message, now).await?;
        Ok(id)
    }

    /// Makes sure that nothing of a failed request stays. What cannot be undone now is left to the sweep. Whether it is
    /// now certain that nothing stays, or that the commit did happen.
    async fn abandon(&self) -> bool {
        let (user_id, intent) = (self.user.id, self.intent.id);
        let give_up = move |ctx: Context| async move {
            let mut db = ctx.db.acquire().await?;
            // The intent is gone when the transaction did commit although its answer was lost: then all of it stays.
            if calendar::give_up(&mut db, intent, ctx.clock.now()).await? {
                key::free(&mut *db, user_id, intent).await?;
                mail::release(&mut *db, intent).await?;
            }
            Ok(())
        };
        if !self.ctx.persist("a booking's failure", give_up).await {
            return false;
        }
        let ctx = self.ctx.clone();
        self.ctx.tasks.spawn(async move {
            if let Err(fault) = calendar::undo_intents(&ctx).await {
                tracing::error!(error = format!("{fault:#}"), "a failed booking could not be undone yet");
            }
        });
        true
    }
}

/// What an answer tells of an interview that has been made.
struct Made {
    interview_id: i64,
    interview_type: InterviewType,
    meeting_link: Option<String>,
    event_id: Option<String>,
    candidate: Person,
    recruiter_id: i64,
    calendar_invite_sent: bool,
    time_warnings: Vec<String>,
    /// Start and end.
    span: (DateTime<Utc>, DateTime<Utc>),
}

/// The answer of a request whose key stands for this interview: as the interview's row tells it.
async fn replay(ctx: &Context, interview_id: i64) -> Result<Scheduled> {
    let interview = store::by_id(&ctx.db, interview_id).await?;
    let interview = interview.ok_or_else(|| anyhow::anyhow!("the interview is gone before it could be answered"))?;
    let (zone, window) = (interview.zone(), interview.window(&ctx.settings));
    let (date, time) = (interview.date, interview.time);
    let start = zone.instant(date, time);
    let is_meet = interview.kind() == InterviewType::GoogleMeet;
    let made = Made {
        interview_id,
        interview_type: interview.kind(),
        candidate: interview.candidate(),
        recruiter_id: interview.recruiter_id.unwrap_or_default(),
        calendar_invite_sent: interview.calendar_invite_sent,
        time_warnings: start
            .map(|start| model::time_warnings(&zone, date, time, &start, ctx.clock.now()))
            .unwrap_or_default(),
        span: (window.start, window.end),
        meeting_link: Some(interview.entry.meeting_link).filter(|link| is_meet && !link.is_empty()),
        event_id: interview.google_event_id.filter(|_| is_meet),
    };
    let users = [made.candidate.id, made.recruiter_id];
    let (emails_sent, overlaps) =
        tokio::join!(emails::sent(ctx, Kind::Scheduled, (interview_id, 0), users), overlaps_of(ctx, &made));
    Ok(answer(made, emails_sent, overlaps, true))
}

async fn overlaps_of(ctx: &Context, made: &Made) -> Vec<String> {
    overlaps_if_known(ctx, &made.candidate, made.recruiter_id, made.span, made.interview_id).await
}

fn answer(made: Made, emails_sent: EmailsSent, overlaps: Vec<String>, replayed: bool) -> Scheduled {
    let interview_id = made.interview_id;
    let mut warnings = made.time_warnings;
    warnings.extend(overlaps);
    Scheduled {
        success: true,
        interview_id,
        interview_type: made.interview_type,
        meeting_link: made.meeting_link.clone(),
        meet_link: made.meeting_link,
        event_id: made.event_id.clone(),
        calendar_event_id: made.event_id,
        portal_join_url: format!("/interviews/{interview_id}/join"),
        meet_embed_url: format!("/interviews/{interview_id}/join/"),
        emails_sent,
        calendar_invite_sent: made.calendar_invite_sent || emails_sent.any(),
        warnings,
        message: match made.interview_type {
            InterviewType::GoogleMeet => "Google Meet interview created successfully!",
            _ => "Interview created successfully",
        },
        replayed,
    }
}

/// The warnings about other interviews of the two at the same time.
pub async fn overlaps(
    ctx: &Context,
    candidate: &Person,
    recruiter_id: i64,
    span: (DateTime<Utc>, DateTime<Utc>),
    interview_id: i64,
) -> sqlx::Result<Vec<String>> {
    let busy = facts::busy(&ctx.db, candidate.id, recruiter_id, span, interview_id, &ctx.settings).await?;
    Ok(model::overlap_warnings(candidate, busy.candidate, busy.recruiter))
}

/// The same of an interview that stands already; none where they cannot be read.
pub async fn overlaps_if_known(
    ctx: &Context,
    candidate: &Person,
    recruiter_id: i64,
    span: (DateTime<Utc>, DateTime<Utc>),
    interview_id: i64,
) -> Vec<String> {
    overlaps(ctx, candidate, recruiter_id, span, interview_id).await.unwrap_or_else(|fault| {
        tracing::warn!(error = %fault, "an answer does not warn of overlaps");
        Vec::new()
    })
}
