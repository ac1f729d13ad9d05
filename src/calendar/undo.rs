//! The undoing of intents that were given up: their events are deleted, then they.
//!
//! Promises: an intent is forgotten only once its event is gone and can no longer appear, or after 90 days; one attempt
//! at it takes no more than 15 s; instances share the work, each intent with one of them at a time.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    CalendarError,
    google::{self, Deleted},
    store::{self, Abandoned, REQUEST_LIFETIME},
};
use crate::context::Context;

/// Undoing one intent.
const UNDO_BUDGET: Duration = Duration::from_secs(15);

/// So long after it was sent Google has dealt with every call that it will ever deal with.
pub const LATEST_CALL: TimeDelta = TimeDelta::minutes(5);

/// The sweep: undoes every intent that was given up or is older than any request lives. Meant to run every few seconds;
/// several instances share the work. What fails is tried again after 15 s, doubling to 30 min, for 90 days.
pub async fn undo_intents(ctx: &Context) -> anyhow::Result<()> {
    loop {
        let due = store::abandon_due(&ctx.db, ctx.clock.now()).await?;
        if due.is_empty() {
            return Ok(());
        }
        undo_all(ctx, due).await;
    }
}

/// Deletes the event that [`discard_event`](super::discard_event) has recorded; whether Google has taken that, or has
/// no such event. Where it has not, or one may still come, the sweep looks again.
pub async fn undo_now(ctx: &Context, discarded: &Abandoned) -> bool {
    undo(ctx, discarded).await
}

/// Removes what nobody needs any more. Meant to run now and then.
pub async fn remove_expired(ctx: &Context) -> anyhow::Result<()> {
    Ok(store::remove_expired(&ctx.db, ctx.clock.now()).await?)
}

/// How many calls to Google run at a time.
const AT_ONCE: usize = 32;

fn note_panic(ended: Option<Result<bool, JoinError>>) {
    if let Some(Err(_)) = ended {
        // Its claim ends by itself too.
        tracing::error!("the undoing of an intent panicked");
    }
}

async fn undo_all(ctx: &Context, intents: Vec<Abandoned>) {
    let mut tasks = JoinSet::new();
    for intent in intents {
        let ctx = ctx.clone();
        tasks.spawn(async move { undo(&ctx, &intent).await });
        if tasks.len() == AT_ONCE {
            note_panic(tasks.join_next().await);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        note_panic(Some(ended));
    }
}

/// Deletes the event of an abandoned intent, then the intent; whether there is no such event now.
async fn undo(ctx: &Context, intent: &Abandoned) -> bool {
    try_undo(ctx, intent).await.unwrap_or_else(|fault| {
        // Its claim ends by itself.
        tracing::error!(intent = %intent.id, error = format!("{fault:#}"), "could not undo an intent");
        false
    })
}

async fn try_undo(ctx: &Context, intent: &Abandoned) -> anyhow::Result<bool> {
    let now = ctx.clock.now();
    let deleted = match &intent.event_id {
        Some(event_id) => delete_event(ctx, intent.user_id, event_id).await,
        None => Ok(Deleted::Gone),
    };
    // Its request sends nothing any more when its time is over, unless it stood still meanwhile, perhaps with this
    // server.
    let settled = intent.undo_from.max(intent.created_at + REQUEST_LIFETIME) + LATEST_CALL;
    let none_is_there = deleted.is_ok();
    match deleted {
        Ok(Deleted::Gone) => {
            crash_point!("undoing: event deleted");
            store::forget_intent(&ctx.db, intent).await?;
        }
        Ok(Deleted::Unsure) if now >= settled => store::forget_intent(&ctx.db, intent).await?,
        // Google may still be at work on an insert whose answer nobody waited for: look again later.
        Ok(Deleted::Unsure) => store::postpone_intent(&ctx.db, intent.id, settled).await?,
        Err(CalendarError::Internal(fault)) => return Err(fault),
        Err(error) => {
            let wait = TimeDelta::seconds(15 << (intent.attempts - 1).clamp(0, 7)).min(TimeDelta::minutes(30));
            tracing::info!(intent = %intent.id, ?error, seconds = wait.num_seconds(), "an event waits to be deleted");
            store::postpone_intent(&ctx.db, intent.id, ctx.clock.now() + wait).await?;
        }
    }
    Ok(none_is_there)
}

async fn delete_event(ctx: &Context, user_id: i64, event_id: &str) -> Result<Deleted, CalendarError> {
    let budget = UNDO_BUDGET.min(ctx.settings.google_budget);
    google::Calendar::open(ctx, user_id, budget).await?.delete(event_id).await
}

/// Undoes all intents of a user while their grant still allows it. Those of requests under way cannot commit any more;
/// they get the time to end, since an event of theirs may appear until then.
pub async fn undo_intents_of(ctx: &Context, user_id: i64) -> sqlx::Result<()> {
    let intents = store::abandon_all_of(&ctx.db, user_id, ctx.clock.now()).await?;
    let deadline = Instant::now() + ctx.settings.google_budget;
    while store::any_runs(&ctx.db, &intents, ctx.clock.now()).await? && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    undo_all(ctx, intents).await;
    Ok(())
}
