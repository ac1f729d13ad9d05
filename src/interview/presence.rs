//! Who is in an interview (contract §5.13): a person comes in and leaves, once each, however often and from wherever
//! it is said.
//!
//! Every change takes the interview's lock first, so that it meets the interview as it is: not one that has just been
//! cancelled, not a count that another request is about to raise.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Interview,
    model::Side,
    store::{self, Presence},
};
use crate::{
    auth::CurrentUser,
    context::Context,
    db,
    http::{Error, Result, extract::PathId},
    zone,
};

/// A caller's presence in an interview, and what it has come to for everybody.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Present {
    success: bool,
    interview_id: i64,
    user_role: Side,
    /// Of the caller's latest presence.
    #[schema(required, format = DateTime)]
    joined_at: Option<String>,
    #[schema(required, format = DateTime)]
    left_at: Option<String>,
    /// How many presences there have been, of both people.
    portal_join_count: i32,
    /// When the first of the two came.
    #[schema(required, format = DateTime)]
    meeting_started_at: Option<String>,
    /// When the last one left; null while somebody is there.
    #[schema(required, format = DateTime)]
    meeting_ended_at: Option<String>,
}

impl Present {
    fn new(interview: &Interview, user_id: i64) -> Self {
        let latest = interview.presences().rfind(|presence| presence.user_id == user_id);
        Present {
            success: true,
            interview_id: interview.id,
            // The caller takes part: `locked` sees to it.
            user_role: interview.side_of(user_id).unwrap_or(Side::Candidate),
            joined_at: latest.map(|presence| zone::timestamp(presence.joined_at)),
            left_at: latest.and_then(|presence| presence.left_at).map(zone::timestamp),
            portal_join_count: interview.portal_join_count,
            meeting_started_at: interview.meeting_started_at.map(zone::timestamp),
            meeting_ended_at: interview.meeting_ended_at.map(zone::timestamp),
        }
    }
}

/// Says that the caller has joined; repeating it changes nothing. The body is ignored.
#[utoipa::path(post, path = "/{id}/joined/", tag = "interviews", params(("id" = i64, Path)), responses(
    (status = 200, description = "The caller is there", body = Present),
    (status = 409, description = "The interview is not open for joining"),
))]
pub(super) async fn joined(State(ctx): State<Context>, user: CurrentUser, PathId(id): PathId) -> Result<Json<Present>> {
    let interview = enter(&ctx, id, user.id).await?;
    Ok(Json(Present::new(&interview, user.id)))
}

/// Says that the caller has left; repeating it changes nothing, and it is allowed at any time. The body is ignored.
#[utoipa::path(post, path = "/{id}/left/", tag = "interviews", params(("id" = i64, Path)),
    responses((status = 200, description = "The caller is not there", body = Present)))]
pub(super) async fn left(State(ctx): State<Context>, user: CurrentUser, PathId(id): PathId) -> Result<Json<Present>> {
    let interview = leave(&ctx, id, user.id).await?;
    Ok(Json(Present::new(&interview, user.id)))
}

/// Records that a person is there, and gives the interview as it is then.
///
/// # Errors
/// 404, 403 for somebody who does not take part, 409 while the door is closed.
pub async fn enter(ctx: &Context, id: Option<i64>, user_id: i64) -> Result<Interview> {
    db::repeated(|| async move {
        let mut tx = ctx.db.begin().await?;
        let (interview, side) = locked(&mut tx, id, user_id).await?;
        // Read after the wait for the lock, so that people come and go in the order in which they got it.
        let now = ctx.clock.now();
        if !interview.window(&ctx.settings).can_join(now) {
            return Err(Error::refused(StatusCode::CONFLICT, "This interview is not open for joining."));
        }
        store::open_presence(&mut *tx, interview.id, user_id, side, now).await?;
        finish(tx, interview.id).await
    })
    .await
}

/// Records that a person is no longer there, and gives the interview as it is then.
///
/// # Errors
/// 404, 403 for somebody who does not take part.
pub async fn leave(ctx: &Context, id: Option<i64>, user_id: i64) -> Result<Interview> {
    db::repeated(|| async move {
        let mut tx = ctx.db.begin().await?;
        let (interview, _) = locked(&mut tx, id, user_id).await?;
        store::close_presence(&mut *tx, interview.id, user_id, ctx.clock.now()).await?;
        finish(tx, interview.id).await
    })
    .await
}

/// An interview that nobody else changes until the transaction ends, and who of it the person is.
async fn locked(db: &mut db::Connection, id: Option<i64>, user_id: i64) -> Result<(Interview, Side)> {
    let interview = match id {
        Some(id) if store::lock(&mut *db, id).await? => store::by_id(db, id).await?,
        _ => None,
    };
    let interview = interview.ok_or_else(super::not_found)?;
    let side = interview.side_of(user_id).ok_or(Error::forbidden(super::NOT_YOURS_TO_JOIN))?;
    Ok((interview, side))
}

async fn finish(mut tx: db::Transaction, id: i64) -> Result<Interview> {
    let interview = store::by_id(&mut *tx, id).await?.ok_or_else(super::not_found)?;
    tx.commit().await?;
    Ok(interview)
}

impl Interview {
    /// In the order of joining; none unless [`store::by_id`] read them.
    fn presences(&self) -> impl DoubleEndedIterator<Item = &Presence> {
        self.attendance.iter().flat_map(|attendance| &attendance.0)
    }

    /// Whether somebody has come in and not left.
    pub fn is_present(&self, user_id: i64) -> bool {
        self.presences().any(|presence| presence.user_id == user_id && presence.left_at.is_none())
    }
}
