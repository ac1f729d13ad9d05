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
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    fields::{Fields, as_typed, text},
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
        applicants::{Applicant, Job, MOST},
        model::{self, Endpoint},
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
    /// There are more than are shown.
    is_cut: bool,
}

#[derive(Template)]
#[template(path = "portal/schedule.html")]
struct SchedulePage {
    shell: Shell,
    form_token: String,
    job: Job,
    applicants: Vec<Applicant>,
    form: Form,
}

impl SchedulePage {
    /// There are more people than are shown.
    fn is_cut(&self) -> bool {
        self.applicants.len() as i64 == MOST
    }
}

/// The form as it is shown.
struct Form {
    /// Of this form: however often it is sent, it makes one interview.
    key: String,
    /// The id of a person.
    chosen: String,
    fields: Fields,
    preview: Option<Preview>,
}

/// First the recruiter's jobs, then with `job` the form.
#[utoipa::path(get, path = "/dashboard/schedule/", tag = "pages", security(()),
    params(("job" = Option<i64>, Query, description = "One of the recruiter's jobs")),
    responses((status = 200, description = "The page", content_type = "text/html"), (status = 302, description = "To sign in"),
        (status = 303, description = "To the dashboard: only recruiters with a company schedule"),
        (status = 404, description = "No such job of this recruiter")))]
async fn form(State(ctx): State<Context>, headers: HeaderMap, uri: Uri, query: QueryParams) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let Some(company_id) = company_of(&session) else { return see_other("/dashboard/") };
    let Some(job) = query.get("job") else {
        let (jobs, is_cut) = interview::applicants::jobs(&ctx, company_id).await?;
        return page(StatusCode::OK, JobsPage { shell: Shell::new(&ctx, Some(&session)), jobs, is_cut }.render()?, &[]);
    };
    let fields = Fields::fresh(&ctx.settings);
    let form = Form { key: fresh_key(), chosen: String::new(), fields, preview: None };
    show(&ctx, StatusCode::OK, &session, company_id, job, form).await
}

/// Schedules, or with `check` only says what the time means.
#[utoipa::path(post, path = "/dashboard/schedule/", tag = "pages", security(()), responses(
    (status = 200, description = "The form, with what the time means"),
    (status = 303, description = "Scheduled: to the dashboard"), (status = 400, description = "The form, with what is wrong"),
    (status = 403, description = "Not from a page of this session")))]
async fn schedule(State(ctx): State<Context>, headers: HeaderMap, body: RequestBody) -> Result<Response> {
    let mut form = as_typed(body.object().await?);
    let Some(session) = Session::of(&ctx, &headers).await? else {
        return see_other("/login/?next=/dashboard/schedule/");
    };
    if !session.has_sent(text(&form, "form_token")) {
        return not_sent_from_here(&ctx, &session);
    }
    let Some(company_id) = company_of(&session) else { return see_other("/dashboard/") };
    // What the API takes as a default, a page asks for.
    for required in ["candidate_id", "date", "time", "timezone", "duration_minutes", "interview_type"] {
        form.entry(required).or_insert_with(|| json!(""));
    }
    let (job, mut key) = (text(&form, "job_id").to_owned(), text(&form, "key").to_owned());
    let said = match form.contains_key("check") {
        true => interview::preview(&ctx, &session.user, &form).await.map(Some),
        false => make(&ctx, &session, &key, &form).await.map(|()| None),
    };
    let (status, fields, preview) = match said {
        Ok(None) => return see_other("/dashboard/?done=scheduled"),
        Ok(Some(preview)) => (StatusCode::OK, Fields::typed(&form), Some(preview)),
        Err(fault @ Error::Internal(_)) => return Err(fault),
        Err(refusal) => (refusal.status(), Fields::typed(&form).refused(&form, &refusal), None),
    };
    if status == StatusCode::UNPROCESSABLE_ENTITY || key.is_empty() {
        // It has made another interview already.
        key = fresh_key();
    }
    let chosen = text(&form, "candidate_id").to_owned();
    show(&ctx, status, &session, company_id, &job, Form { key, chosen, fields, preview }).await
}

/// Schedules what a form asks for; of the same form only once.
async fn make(ctx: &Context, session: &Session, key: &str, form: &Map<String, Value>) -> Result<()> {
    if !model::malformed(form).is_empty() {
        return Err(Error::bad_request("A field is malformed."));
    }
    let key = (1..=255).contains(&key.len()).then_some(key);
    interview::schedule_from_body(ctx, session.user.clone(), Endpoint::Company, key, form.clone()).await?;
    Ok(())
}

/// The company for whose jobs somebody may schedule.
fn company_of(session: &Session) -> Option<i64> {
    session.user.company_id.filter(|_| session.user.is_recruiter)
}

fn fresh_key() -> String {
    random_uuid().to_string()
}

/// What the time of a form means and what speaks against it, for the page's script.
#[utoipa::path(get, path = "/dashboard/schedule/preview/", tag = "pages", security(()),
    params(("candidate_id" = Option<i64>, Query, description = "Who is to be invited"),
        ("interview_id" = Option<i64>, Query, description = "The interview that is to be moved"),
        ("date" = String, Query), ("time" = String, Query), ("timezone" = String, Query),
        ("duration_minutes" = Option<i32>, Query)),
    responses((status = 200, description = "The preview"), (status = 400, description = "What is wrong"),
        (status = 401, description = "Not signed in")))]
async fn preview(State(ctx): State<Context>, headers: HeaderMap, query: QueryParams) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let names = ["candidate_id", "interview_id", "date", "time", "timezone", "duration_minutes"];
    let given = names.into_iter().filter_map(|name| Some((name.to_owned(), Value::from(query.get(name)?))));
    let form: Map<_, _> = given.collect();
    Ok(match interview::preview(&ctx, &session.user, &form).await {
        Ok(preview) => Json(preview).into_response(),
        Err(fault @ Error::Internal(_)) => return Err(fault),
        Err(refusal) => {
            let fields = Fields::default().refused(&form, &refusal);
            (refusal.status(), Json(json!({ "error": fields.first_error() }))).into_response()
        }
    })
}

async fn show(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    company_id: i64,
    job: &str,
    form: Form,
) -> Result<Response> {
    let job_id = job.parse().map_err(|_| Error::NotFound)?;
    let found = interview::applicants::of_job(ctx, company_id, job_id, session.user.id).await?;
    let (job, applicants) = found.ok_or(Error::NotFound)?;
    let schedule =
        SchedulePage { shell: Shell::new(ctx, Some(session)), form_token: session.form_token(), job, applicants, form };
    page(status, schedule.render()?, &[])
}
