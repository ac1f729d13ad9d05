//! The pages on which a recruiter reschedules and cancels an interview.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    fields::{Fields, as_typed, sentence, text},
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
    interview::{self, Interview, Preview, model, when},
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(change_page, change)).routes(routes!(cancel_page, cancel))
}

#[derive(Template)]
#[template(path = "portal/change.html")]
struct ChangePage {
    shell: Shell,
    form_token: String,
    about: About,
    fields: Fields,
    preview: Option<Preview>,
}

#[derive(Template)]
#[template(path = "portal/cancel.html")]
struct CancelPage {
    shell: Shell,
    form_token: String,
    about: About,
    reason: String,
    error: Option<String>,
}

/// The interview that a page is about.
struct About {
    id: i64,
    job_title: String,
    candidate: String,
    candidate_id: i64,
    when: String,
    /// Nothing can be done about it any more.
    is_cancelled: bool,
}

/// The form to reschedule an interview.
#[utoipa::path(get, path = "/dashboard/interviews/{id}/change/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form", content_type = "text/html"), (status = 302, description = "To sign in"),
        (status = 404, description = "No such interview of this recruiter")))]
async fn change_page(State(ctx): State<Context>, PathId(id): PathId, headers: HeaderMap, uri: Uri) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let interview = own(&ctx, id, &session).await?;
    show_change(&ctx, StatusCode::OK, &session, &interview, Fields::of(&interview, &ctx.settings), None)
}

/// Reschedules an interview, or with `check` only says what the time means.
#[utoipa::path(post, path = "/dashboard/interviews/{id}/change/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form, with what the time means"),
        (status = 303, description = "Back to the dashboard"), (status = 400, description = "The form, with what is wrong"),
        (status = 403, description = "Not from a page of this session"),
        (status = 404, description = "No such interview of this recruiter")))]
async fn change(
    State(ctx): State<Context>,
    PathId(id): PathId,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let form = as_typed(body.object().await?);
    let (session, interview) = match sent(&ctx, id, &headers, &form).await? {
        Ok(found) => found,
        Err(answer) => return Ok(answer),
    };
    let typed = Fields::typed(&form);
    if form.contains_key("check") {
        let (status, fields, preview) = match interview::preview(&ctx, &session.user, &form).await {
            Ok(preview) => (StatusCode::OK, typed, Some(preview)),
            Err(fault @ Error::Internal(_)) => return Err(fault),
            Err(refusal) => (refusal.status(), typed.refused(&form, &refusal), None),
        };
        return show_change(&ctx, status, &session, &interview, fields, preview);
    }
    // Only what the form says otherwise than its page did: the rest may be as no form would take it.
    let changes = Fields::of(&interview, &ctx.settings).changes(&form);
    if changes.is_empty() {
        return see_other("/dashboard/?done=unchanged");
    }
    match make(&ctx, &session, &interview, &changes).await {
        Ok(()) => see_other("/dashboard/?done=changed"),
        Err(fault @ Error::Internal(_)) => Err(fault),
        Err(refusal) => {
            let fields = typed.refused(&changes, &refusal);
            show_change(&ctx, refusal.status(), &session, &interview, fields, None)
        }
    }
}

async fn make(ctx: &Context, session: &Session, interview: &Interview, changes: &Map<String, Value>) -> Result<()> {
    if !model::malformed(changes).is_empty() {
        return Err(Error::bad_request("A field is malformed."));
    }
    interview::change_from_body(ctx, session.user.clone(), interview.clone(), changes).await?;
    Ok(())
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
    responses((status = 303, description = "Back to the dashboard"), (status = 400, description = "The form, with what is wrong"),
        (status = 403, description = "Not from a page of this session"),
        (status = 404, description = "No such interview of this recruiter")))]
async fn cancel(
    State(ctx): State<Context>,
    PathId(id): PathId,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let form = as_typed(body.object().await?);
    let (session, interview) = match sent(&ctx, id, &headers, &form).await? {
        Ok(found) => found,
        Err(answer) => return Ok(answer),
    };
    if interview.cancelled_at.is_some() {
        return see_other("/dashboard/?done=unchanged");
    }
    match interview::cancel_from_body(&ctx, session.user.clone(), interview.clone(), &form).await {
        Ok(_) => see_other("/dashboard/?done=cancelled"),
        Err(fault @ Error::Internal(_)) => Err(fault),
        Err(refusal) => {
            let reason = text(&form, "reason");
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
    if !session.has_sent(text(form, "form_token")) {
        return Ok(Err(not_sent_from_here(ctx, &session)?));
    }
    let interview = own(ctx, id, &session).await?;
    Ok(Ok((session, interview)))
}

impl About {
    fn new(ctx: &Context, interview: &Interview) -> About {
        let window = interview.window(&ctx.settings);
        About {
            id: interview.id,
            job_title: interview.job_title.clone(),
            candidate: interview.candidate().name(),
            candidate_id: interview.candidate_id,
            when: when::line(&interview.zone(), (window.start, window.end)),
            is_cancelled: interview.cancelled_at.is_some(),
        }
    }
}

fn show_change(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    interview: &Interview,
    fields: Fields,
    preview: Option<Preview>,
) -> Result<Response> {
    let change = ChangePage {
        shell: Shell::new(ctx, Some(session)),
        form_token: session.form_token(),
        about: About::new(ctx, interview),
        fields,
        preview,
    };
    page(status, change.render()?, &[])
}

fn show_cancel(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    interview: &Interview,
    reason: &str,
    error: Option<String>,
) -> Result<Response> {
    let cancel = CancelPage {
        shell: Shell::new(ctx, Some(session)),
        form_token: session.form_token(),
        about: About::new(ctx, interview),
        reason: reason.to_owned(),
        error,
    };
    page(status, cancel.render()?, &[])
}
