//! What becomes of the grants of deleted accounts.

use futures_util::future;

use super::{oauth, store};
use crate::context::Context;

/// A sweep: revokes the grants of deleted accounts at Google and removes them. It waits until the events that it must
/// delete with a grant are gone, but at most a day. A grant that cannot be revoked now stays for the next pass, and so
/// does a sealed one that does not open here: another server may have its key. The events of interviews that nobody has
/// cancelled stay, as after a disconnection.
///
/// Two servers at it at the same time do no harm: a grant can be revoked twice.
pub async fn forget_grants_of_deleted(ctx: &Context) -> anyhow::Result<()> {
    let Some(client) = &ctx.settings.google else { return Ok(()) };
    let (mut after, mut unopened) = (0, Vec::new());
    loop {
        let due = store::grants_of_deleted(&ctx.db, after, ctx.clock.now()).await?;
        let Some(&(last, _)) = due.last() else { break };
        after = last;
        let mut forgetting = Vec::new();
        for (user_id, row) in &due {
            match store::Grant::open(row, *user_id, Some(&client.sealer)) {
                Ok(grant) => forgetting.push(forget_grant_of_deleted(ctx, *user_id, row, grant)),
                Err(store::Unopened) => unopened.push(*user_id),
            }
        }
        let forgotten = future::try_join_all(forgetting).await?;
        // None succeeded: Google is probably unreachable for the next ones too.
        if !forgotten.is_empty() && !forgotten.contains(&true) {
            break;
        }
    }
    if !unopened.is_empty() {
        let (grants, first_user_ids) = (unopened.len(), &unopened[..unopened.len().min(20)]);
        tracing::warn!(grants, ?first_user_ids, "no key here opens these grants of deleted accounts: they are kept");
    }
    Ok(())
}

/// Whether the row is removed.
async fn forget_grant_of_deleted(
    ctx: &Context,
    user_id: i64,
    row: &str,
    grant: Option<store::Grant>,
) -> sqlx::Result<bool> {
    let is_over = match grant {
        Some(grant) => oauth::revoke(ctx, &grant).await,
        None => true,
    };
    let is_removed = is_over && store::remove_dead_grant(&ctx.db, user_id, row, ctx.clock.now()).await?;
    if is_removed {
        tracing::info!(user_id, "the grant of a deleted account was removed");
    }
    Ok(is_removed)
}
