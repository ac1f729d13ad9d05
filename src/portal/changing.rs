//! The pages on which a recruiter reschedules and cancels an interview.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    fields::{Fields, sentence},
    page, see_other,
    signing_in::not_sent_from_here,
};
use crate::{
    auth::{self, Session},
    context::Context,
    http::{
        Error, Result,
        extract::{PathId, RequestBody},
    },
    interview::{self, Interview},
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(change_page, change)).routes(routes!(cancel_page, cancel))
}

#[derive(Template)]
#[template(path = "portal/change.html")]
struct ChangePage {
    shell: Shell,
    form_token: String,
    id: i64,
    candidate: String,
    fields: Fields,
}

#[derive(Template)]
#[template(path = "portal/cancel.html")]
struct CancelPage {
    shell: Shell,
    form_token: String,
    id: i64,
    job_title: String,
    candidate: String,
    when: String,
    reason: String,
    error: Option<String>,
}

/// The form to reschedule an interview.
#[utoipa::path(get, path = "/dashboard/interviews/{id}/change/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form", content_type = "text/html"), (status = 302, description = "To sign in"),
        (status = 404, description = "No such interview of this recruiter")))]
async fn change_page(State(ctx): State<Context>, PathId(id): PathId, headers: HeaderMap, uri: Uri) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let interview = own(&ctx, id, &session).await?;
    show_change(&ctx, StatusCode::OK, &session, &interview, Fields::of(&interview, &ctx.settings))
}

/// Reschedules an interview.
#[utoipa::path(post, path = "/dashboard/interviews/{id}/change/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 303, description = "Back to the dashboard"), (status = 400, description = "The form, with what is wrong")))]
async fn change(
    State(ctx): State<Context>,
    PathId(id): PathId,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let form = body.object().await?;
    let (session, interview) = match sent(&ctx, id, &headers, &form).await? {
        Ok(found) => found,
        Err(answer) => return Ok(answer),
    };
    match interview::change_as_asked(&ctx, session.user.clone(), interview.clone(), &form).await {
        Ok(_) => see_other("/dashboard/?done=changed"),
        Err(Error::Internal(fault)) => Err(Error::Internal(fault)),
        Err(refusal) => {
            let fields = Fields::refused(&form, &refusal);
            show_change(&ctx, refusal.status(), &session, &interview, fields)
        }
    }
}

/// The form to cancel an interview.
#[utoipa::path(get, path = "/dashboard/interviews/{id}/cancel/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form", content_type = "text/html"), (status = 302, description = "To sign in"),
        (status = 404, description = "No such interview of this recruiter")))]
async fn cancel_page(State(ctx): State<Context>, PathId(id): PathId, headers: HeaderMap, uri: Uri) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let interview = own(&ctx, id, &session).await?;
    show_cancel(&ctx, StatusCode::OK, &session, &interview, "", None)
}

/// Cancels an interview.
#[utoipa::path(post, path = "/dashboard/interviews/{id}/cancel/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 303, description = "Back to the dashboard"), (status = 400, description = "The form, with what is wrong")))]
async fn cancel(
    State(ctx): State<Context>,
    PathId(id): PathId,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let form = body.object().await?;
    let (session, interview) = match sent(&ctx, id, &headers, &form).await? {
        Ok(found) => found,
        Err(answer) => return Ok(answer),
    };
    match interview::cancel_as_asked(&ctx, session.user.clone(), interview.clone(), &form).await {
        Ok(_) => see_other("/dashboard/?done=cancelled"),
        Err(Error::Internal(fault)) => Err(Error::Internal(fault)),
        Err(refusal) => {
            let reason = form.get("reason").and_then(Value::as_str).unwrap_or_default();
            show_cancel(&ctx, refusal.status(), &session, &interview, reason, Some(sentence(&refusal)))
        }
    }
}

/// The interview of a path, whose recruiter is signed in; of all others it is not even said that they exist.
async fn own(ctx: &Context, id: Option<i64>, session: &Session) -> Result<Interview> {
    let interview = interview::by_id(ctx, id).await?;
    interview.filter(|interview| interview.recruiter_id == Some(session.user.id)).ok_or(Error::NotFound)
}

/// Who sends a form about which interview, or what to answer instead.
async fn sent(
    ctx: &Context,
    id: Option<i64>,
    headers: &HeaderMap,
    form: &Map<String, Value>,
) -> Result<Result<(Session, Interview), Response>> {
    let Some(session) = Session::of(ctx, headers).await? else {
        return Ok(Err(see_other("/login/?next=/dashboard/")?));
    };
    if !session.has_sent(form.get("form_token").and_then(Value::as_str).unwrap_or_default()) {
        return Ok(Err(not_sent_from_here(ctx, &session)?));
    }
    let interview = own(ctx, id, &session).await?;
    Ok(Ok((session, interview)))
}

fn show_change(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    interview: &Interview,
    fields: Fields,
) -> Result<Response> {
    let change = ChangePage {
        shell: Shell::new(ctx, Some(session)),
        form_token: session.form_token(),
        id: interview.id,
        candidate: interview.candidate().name(),
        fields,
    };
    Ok(page(status, change.render()?, &[])?.into_response())
}

fn show_cancel(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    interview: &Interview,
    reason: &str,
    error: Option<String>,
) -> Result<Response> {
    let (zone, window) = (interview.zone(), interview.window(&ctx.settings));
    let cancel = CancelPage {
        shell: Shell::new(ctx, Some(session)),
        form_token: session.form_token(),
        id: interview.id,
        job_title: interview.job_title.clone(),
        candidate: interview.candidate().name(),
        when: format!("{} {}", zone.local(window.start).format("%a, %-d %B %Y, %H:%M"), zone.name()),
        reason: reason.to_owned(),
        error,
    };
    page(status, cancel.render()?, &[])
}
