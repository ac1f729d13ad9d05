//! The page on which a recruiter schedules an interview: a job, one of the people who applied for it, and when and how.
//!
//! Before anything is sent the page says what the time means and what speaks against it; a script asks for that while
//! somebody types, without one there is a button.

use askama::Template;
use axum::{
    Json,
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
    clock::random_uuid,
    context::Context,
    http::{
        Error, Result,
        extract::{QueryParams, RequestBody},
    },
    interview::{
        self, Preview,
        applicants::{Applicant, Job},
        model::Endpoint,
    },
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(form, schedule)).routes(routes!(preview))
}

#[derive(Template)]
#[template(path = "portal/schedule_job.html")]
struct JobsPage {
    shell: Shell,
    jobs: Vec<Job>,
}

#[derive(Template)]
#[template(path = "portal/schedule.html")]
struct SchedulePage {
    shell: Shell,
    form_token: String,
    /// Of this form: however often it is sent, it makes one interview.
    key: String,
    job: Job,
    applicants: Vec<Applicant>,
    chosen: String,
    fields: Fields,
    preview: Option<Preview>,
}

/// First the recruiter's jobs, then with `job` the form.
#[utoipa::path(get, path = "/dashboard/schedule/", tag = "pages", security(()),
    params(("job" = Option<i64>, Query, description = "One of the recruiter's jobs")),
    responses((status = 200, description = "The page", content_type = "text/html"), (status = 302, description = "To sign in"),
        (status = 404, description = "No such job of this recruiter")))]
async fn form(State(ctx): State<Context>, headers: HeaderMap, uri: Uri, query: QueryParams) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let Some(company_id) = session.user.company_id.filter(|_| session.user.is_recruiter) else {
        return see_other("/dashboard/");
    };
    match query.get("job") {
        None => {
            let jobs = interview::applicants::jobs(&ctx, company_id).await?;
            page(StatusCode::OK, JobsPage { shell: Shell::new(&ctx, Some(&session)), jobs }.render()?, &[])
        }
        Some(job) => {
            let fields = Fields {
                duration_minutes: ctx.settings.interview_duration_minutes.to_string(),
                interview_type: if ctx.settings.google.is_some() { "google_meet" } else { "phone" }.to_owned(),
                timezone: "UTC".to_owned(),
                ..Fields::default()
            };
            show(&ctx, StatusCode::OK, &session, job, "", random_uuid().to_string(), fields, None).await
        }
    }
}

/// Schedules, or with `check` only says what the time means.
#[utoipa::path(post, path = "/dashboard/schedule/", tag = "pages", security(()), responses(
    (status = 303, description = "Scheduled: to the dashboard"), (status = 400, description = "The form, with what is wrong")))]
async fn schedule(State(ctx): State<Context>, headers: HeaderMap, body: RequestBody) -> Result<Response> {
    let form = body.object().await?;
    let Some(session) = Session::of(&ctx, &headers).await? else {
        return see_other("/login/?next=/dashboard/schedule/");
    };
    let field = |name: &str| form.get(name).and_then(Value::as_str).unwrap_or_default();
    if !session.has_sent(field("form_token")) {
        return not_sent_from_here(&ctx, &session);
    }
    let (job, chosen, key) = (field("job_id"), field("candidate_id"), field("key").to_owned());
    if form.contains_key("check") {
        let (fields, preview) = match interview::preview(&ctx, &session.user, &form).await {
            Ok(preview) => (Fields::typed(&form), Some(preview)),
            Err(refusal) => (Fields::refused(&form, &refusal), None),
        };
        return show(&ctx, StatusCode::OK, &session, job, chosen, key, fields, preview).await;
    }
    let asked = interview::schedule_as_asked(&ctx, session.user.clone(), Endpoint::Company, Some(&key), form.clone());
    match asked.await {
        Ok(_) => see_other("/dashboard/?done=scheduled"),
        Err(Error::Internal(fault)) => Err(Error::Internal(fault)),
        Err(refusal) => {
            let fields = Fields::refused(&form, &refusal);
            show(&ctx, refusal.status(), &session, job, chosen, key, fields, None).await
        }
    }
}

/// What the time of a form means and what speaks against it, for the page's script.
#[utoipa::path(get, path = "/dashboard/schedule/preview/", tag = "pages", security(()),
    responses((status = 200, description = "The preview"), (status = 400, description = "What is wrong"),
        (status = 401, description = "Not signed in")))]
async fn preview(State(ctx): State<Context>, headers: HeaderMap, query: QueryParams) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let names = ["candidate_id", "date", "time", "timezone", "duration_minutes"];
    let given = names.into_iter().filter_map(|name| Some((name.to_owned(), Value::from(query.get(name)?))));
    Ok(match interview::preview(&ctx, &session.user, &given.collect::<Map<_, _>>()).await {
        Ok(preview) => Json(preview).into_response(),
        Err(Error::Internal(fault)) => return Err(Error::Internal(fault)),
        Err(refusal) => (refusal.status(), Json(serde_json::json!({ "error": sentence(&refusal) }))).into_response(),
    })
}

#[allow(clippy::too_many_arguments, reason = "what a form shows")]
async fn show(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    job: &str,
    chosen: &str,
    key: String,
    fields: Fields,
    preview: Option<Preview>,
) -> Result<Response> {
    let job_id = job.parse().map_err(|_| Error::NotFound)?;
    let company_id = session.user.company_id.ok_or(Error::NotFound)?;
    let (job, applicants) =
        interview::applicants::of_job(ctx, company_id, job_id, session.user.id).await?.ok_or(Error::NotFound)?;
    let schedule = SchedulePage {
        shell: Shell::new(ctx, Some(session)),
        form_token: session.form_token(),
        key,
        job,
        applicants,
        chosen: chosen.to_owned(),
        fields,
        preview,
    };
    page(status, schedule.render()?, &[])
}
