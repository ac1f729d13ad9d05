//! Who is in an interview (contract §5.13): a person comes in and leaves, once each, however often and from wherever
//! it is said.
//!
//! Every change takes the interview's lock first, so that it meets the interview as it is: not one that has just been
//! cancelled, not a count that another request is about to raise.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
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
        open(&mut *tx, interview.id, user_id, side, now).await?;
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
        close(&mut *tx, interview.id, user_id, ctx.clock.now()).await?;
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

/// Lets a person into a locked interview, unless they are there already, and notes which recruiters have met the
/// candidate.
async fn open(
    db: impl PgExecutor<'_>,
    interview_id: i64,
    user_id: i64,
    side: Side,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let role = match side {
        Side::Candidate => "candidate",
        Side::Recruiter => "recruiter",
    };
    sqlx::query!(
        "WITH met AS (
             UPDATE ivs_presence SET met = true
             WHERE interview_id = $1 AND user_role = 'recruiter' AND NOT met AND $3 = 'candidate'),
         opened AS (
             INSERT INTO ivs_presence (interview_id, user_id, user_role, joined_at, met)
             SELECT $1, $2, $3, $4,
                    $3 = 'recruiter'
                        AND EXISTS (SELECT FROM ivs_presence WHERE interview_id = $1 AND user_role = 'candidate')
             ON CONFLICT (interview_id, user_id) WHERE left_at IS NULL DO NOTHING
             RETURNING id)
         UPDATE company_interview
         SET portal_join_count = portal_join_count + 1, meeting_started_at = COALESCE(meeting_started_at, $4),
             meeting_ended_at = NULL, updated_at = $4
         WHERE id = $1 AND EXISTS (SELECT FROM opened)",
        interview_id,
        user_id,
        role,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a person out of a locked interview, if they are there; the last one ends the meeting. Servers' clocks differ a
/// little: nothing ends before it begins.
async fn close(db: impl PgExecutor<'_>, interview_id: i64, user_id: i64, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH closed AS (
             UPDATE ivs_presence SET left_at = GREATEST(joined_at, $3)
             WHERE interview_id = $1 AND user_id = $2 AND left_at IS NULL
             RETURNING id)
         UPDATE company_interview SET meeting_ended_at = GREATEST(meeting_started_at, $3), updated_at = $3
         WHERE id = $1 AND EXISTS (SELECT FROM closed)
           AND NOT EXISTS (SELECT FROM ivs_presence
                           WHERE interview_id = $1 AND user_id <> $2 AND left_at IS NULL)",
        interview_id,
        user_id,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}
