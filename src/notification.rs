//! What a person has been told in the web application (contract §5.17). Django writes such rows too.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::CurrentUser,
    context::Context,
    db,
    http::{Error, Result, array::array, extract::PathId},
    zone,
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

#[derive(Debug, Serialize, ToSchema)]
struct Notification {
    id: i64,
    /// Whom it is for.
    user: i64,
    notification_type: String,
    message: String,
    #[serde(serialize_with = "zone::serialize_timestamp")]
    timestamp: DateTime<Utc>,
    is_read: bool,
    /// Where it leads to, relative to the frontend; null for rows that Django made.
    #[schema(required)]
    action_url: Option<String>,
}

/// The caller's notifications, newest first; always all of them.
#[utoipa::path(get, path = "/api/notifications/notifications/", tag = "notifications",
    responses((status = 200, description = "All of them", body = Vec<Notification>)))]
async fn list(State(ctx): State<Context>, user: CurrentUser) -> Result<Response> {
    array((zone::LAST, i64::MAX), move |after, most| notifications(ctx.clone(), user.id, after, most)).await
}

/// What the list goes on from: when a notification was made, and its id.
type Cursor = (DateTime<Utc>, i64);

/// A user's notifications after a cursor, at most `most`.
async fn notifications(
    ctx: Context,
    user_id: i64,
    after: Cursor,
    most: i64,
) -> sqlx::Result<Vec<(Cursor, Notification)>> {
    let rows = sqlx::query_as!(
        Notification,
        r#"SELECT id, user_id AS "user", notification_type::text AS "notification_type!", message::text AS "message!",
                  "timestamp", is_read, action_url::text
           FROM notifications_notification WHERE user_id = $1 AND ("timestamp", id) < ($2, $3)
           ORDER BY "timestamp" DESC, id DESC LIMIT $4"#,
        user_id,
        after.0,
        after.1,
        most
    );
    let rows = rows.fetch_all(&ctx.db).await?;
    Ok(rows.into_iter().map(|row| ((row.timestamp, row.id), row)).collect())
}

#[derive(Serialize, ToSchema)]
struct Marked {
    detail: &'static str,
}

/// Marks one of the caller's notifications as read; repeatable.
#[utoipa::path(post, path = "/api/notifications/notifications/{nid}/read/", tag = "notifications",
    params(("nid" = i64, Path)), responses(
        (status = 200, description = "It is read, now or already before", body = Marked),
        (status = 404, description = "None of the caller's has this id",
            body = ref("#/components/schemas/FrameworkError")),
    ))]
async fn read(State(ctx): State<Context>, user: CurrentUser, PathId(id): PathId) -> Result<Json<Marked>> {
    let marked = sqlx::query!(
        "UPDATE notifications_notification SET is_read = true WHERE id = $1 AND user_id = $2",
        id,
        user.id
    );
    if marked.execute(&ctx.db).await?.rows_affected() == 0 {
        return Err(Error::Body(StatusCode::NOT_FOUND, json!({ "detail": "Notification not found." })));
    }
    Ok(Json(Marked { detail: "Notification marked as read." }))
}

/// Tells a person something about an interview. Of whatever kind it is, its type is the one that the web application
/// knows.
pub async fn tell(
    db: &mut db::Connection,
    user_id: i64,
    interview_id: i64,
    message: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"INSERT INTO notifications_notification (user_id, notification_type, message, action_url, "timestamp", is_read)
           VALUES ($1, 'interview_scheduled', $2, $3, $4, false)"#,
        user_id,
        message,
        format!("/interviews/{interview_id}"),
        now
    )
    .execute(db)
    .await?;
    Ok(())
}
