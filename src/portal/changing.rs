//! The pages on which a recruiter reschedules and cancels an interview.
//!
//! Promises: only what the recruiter has changed is changed, and nothing when the interview is no longer as the page
//! showed it; warnings about a new time have been seen before.

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    fields::{Fields, Outcome, Said, sentence},
    page,
    recruiter::Done,
    request::{Form, Result, SignedIn, text},
};
use crate::{
    auth::Session,
    context::Context,
    http::{self, Error, extract::PathId},
    interview::{self, Interview, model, when},
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(change_page, change)).routes(routes!(cancel_page, cancel))
}

#[derive(Template)]
#[template(path = "portal/change.html")]
struct ChangePage {
    shell: Shell,
    about: About,
    fields: Fields,
    said: Said,
    /// A note that was written for nothing, to be kept.
    typed: String,
}

#[derive(Template)]
#[template(path = "portal/cancel.html")]
struct CancelPage {
    shell: Shell,
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
    /// Of the interview as the page shows it.
    digest: String,
    /// Nothing can be done about it any more.
    is_cancelled: bool,
}

/// The form to reschedule an interview.
#[utoipa::path(get, path = "/dashboard/interviews/{id}/change/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form", content_type = "text/html")))]
async fn change_page(State(ctx): State<Context>, PathId(id): PathId, SignedIn(session): SignedIn) -> Result {
    let interview = own(&ctx, id, &session).await?;
    let fields = Fields::of(&interview, &ctx.settings);
    ChangePage::new(&ctx, &session, &interview, fields, Said::nothing()).show(StatusCode::OK)
}

/// Reschedules an interview, or with `check` only says what the time means.
#[utoipa::path(post, path = "/dashboard/interviews/{id}/change/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form, with what it means or what is wrong", content_type = "text/html")))]
async fn change(State(ctx): State<Context>, PathId(id): PathId, Form { session, fields }: Form) -> Result {
    let interview = own(&ctx, id, &session).await?;
    let as_it_is = Fields::of(&interview, &ctx.settings);
    // The rest may be as no form would take it.
    let changes = as_it_is.changes(&fields);
    if text(&fields, "digest") != as_it_is.digest() {
        if changes.is_empty() && !fields.contains_key("check") {
            // The same form was sent before, and its answer was lost.
            return Ok(Done::ChangedBefore.see()?);
        }
        let page = ChangePage::new(&ctx, &session, &interview, as_it_is.wrong(CHANGED_SINCE), Said::nothing());
        return ChangePage { typed: text(&fields, "note").to_owned(), ..page }.show(StatusCode::CONFLICT);
    }
    let typed = Fields::typed(&fields);
    let (status, typed, said) = match make(&ctx, &session, &interview, &changes, &fields).await {
        Ok(Outcome::Done(done)) => return Ok(done.see()?),
        Ok(Outcome::Show(said)) => (StatusCode::OK, typed, said),
        Err(fault @ Error::Internal(_)) => return Err(fault.into()),
        Err(refusal) => (refusal.status(), typed.refused(&changes, &refusal), Said::nothing()),
    };
    ChangePage::new(&ctx, &session, &interview, typed, said).show(status)
}

const CHANGED_SINCE: &str =
    "The interview has been changed since this page was opened. This is how it is now; nothing of yours was saved.";

/// Changes what a form changes, and not before its recruiter has seen the warnings about a new time.
async fn make(
    ctx: &Context,
    session: &Session,
    interview: &Interview,
    changes: &Map<String, Value>,
    form: &Map<String, Value>,
) -> http::Result<Outcome> {
    const TIME: [&str; 4] = ["date", "time", "timezone", "duration_minutes"];
    if !form.contains_key("check") && changes.is_empty() {
        return Ok(Outcome::Done(Done::Unchanged));
    }
    if !model::malformed(changes).is_empty() {
        return Err(Error::bad_request("A field is malformed."));
    }
    if form.contains_key("check") || TIME.iter().any(|name| changes.contains_key(*name)) {
        let said = Said::of(interview::preview_change(ctx, &session.user, interview, changes).await?, form);
        if let Some(said) = said.shown_first(form) {
            return Ok(Outcome::Show(said));
        }
    }
    let changed = interview::change_from_body(ctx, session.user.clone(), interview.clone(), changes).await?;
    Ok(Outcome::Done(if changed.mail_follows { Done::ChangedLater } else { Done::Changed }))
}

/// The form to cancel an interview.
#[utoipa::path(get, path = "/dashboard/interviews/{id}/cancel/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 200, description = "The form", content_type = "text/html")))]
async fn cancel_page(State(ctx): State<Context>, PathId(id): PathId, SignedIn(session): SignedIn) -> Result {
    let interview = own(&ctx, id, &session).await?;
    show_cancel(&ctx, StatusCode::OK, &session, &interview, "", None)
}

/// Cancels an interview.
#[utoipa::path(post, path = "/dashboard/interviews/{id}/cancel/", tag = "pages", security(()), params(("id" = i64, Path)),
    responses((status = 400, description = "The form, with what is wrong", content_type = "text/html")))]
async fn cancel(State(ctx): State<Context>, PathId(id): PathId, Form { session, fields }: Form) -> Result {
    let interview = own(&ctx, id, &session).await?;
    if interview.cancelled_at.is_some() {
        return Ok(Done::CancelledBefore.see()?);
    }
    let reason = text(&fields, "reason");
    if text(&fields, "digest") != Fields::of(&interview, &ctx.settings).digest() {
        let error = CHANGED_SINCE.to_owned();
        return show_cancel(&ctx, StatusCode::CONFLICT, &session, &interview, reason, Some(error));
    }
    match interview::cancel_from_body(&ctx, session.user.clone(), interview.clone(), &fields).await {
        Ok(_) => Ok(Done::Cancelled.see()?),
        Err(fault @ Error::Internal(_)) => Err(fault.into()),
        Err(refusal) => show_cancel(&ctx, refusal.status(), &session, &interview, reason, Some(sentence(&refusal))),
    }
}

/// The interview of a path, whose recruiter is signed in; of all others it is not even said that they exist.
async fn own(ctx: &Context, id: Option<i64>, session: &Session) -> http::Result<Interview> {
    let interview = interview::by_id(ctx, id).await?;
    interview.filter(|interview| interview.recruiter_id == Some(session.user.id)).ok_or(Error::NotFound)
}

impl About {
    fn new(ctx: &Context, interview: &Interview) -> About {
        let window = interview.window(&ctx.settings);
        About {
            id: interview.id,
            job_title: interview.job_title.clone(),
            candidate: interview.candidate_name(),
            candidate_id: interview.candidate_id,
            when: when::line(&interview.zone(), (window.start, window.end)),
            digest: Fields::of(interview, &ctx.settings).digest(),
            is_cancelled: interview.cancelled_at.is_some(),
        }
    }
}

impl ChangePage {
    fn new(ctx: &Context, session: &Session, interview: &Interview, fields: Fields, said: Said) -> Self {
        ChangePage {
            shell: Shell::new(ctx, Some(session)),
            about: About::new(ctx, interview),
            fields,
            said,
            typed: String::new(),
        }
    }

    fn show(self, status: StatusCode) -> Result {
        Ok(page(status, self.render()?, &[])?)
    }
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
        about: About::new(ctx, interview),
        reason: reason.to_owned(),
        error,
    };
    Ok(page(status, cancel.render()?, &[])?)
}
