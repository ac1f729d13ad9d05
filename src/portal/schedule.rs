//! The page on which a recruiter schedules an interview: a job, one of the people who applied for it, and when and how.
//!
//! Promises: before anything is made the recruiter has seen what the time means and what to warn of, with or
//! without a script; however often one form is sent, it makes one interview.

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    fields::{Fields, Outcome, Said},
    page,
    recruiter::Done,
    request::{Form, Result, SignedIn, text},
    see_other,
};
use crate::{
    auth::Session,
    clock::random_uuid,
    context::Context,
    http::{self, Error, extract::QueryParams},
    interview::{
        self,
        applicants::{Applicant, Job},
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
    job: Job,
    applicants: Vec<Applicant>,
    /// There are more people than are shown.
    is_cut: bool,
    form: Filled,
}

/// The form as it is shown.
struct Filled {
    /// Of this form: however often it is sent, it makes one interview.
    key: String,
    /// The id of a person.
    chosen: String,
    fields: Fields,
    said: Said,
}

/// First the recruiter's jobs, then with `job` the form.
#[utoipa::path(get, path = "/dashboard/schedule/", tag = "pages", security(()),
    responses((status = 200, description = "The page", content_type = "text/html")))]
async fn form(State(ctx): State<Context>, SignedIn(session): SignedIn, query: QueryParams) -> Result {
    let Some(company_id) = company_of(&session) else { return Ok(see_other("/dashboard/")?) };
    let Some(job) = query.get("job") else {
        let (jobs, is_cut) = interview::applicants::jobs(&ctx, company_id).await?;
        let jobs = JobsPage { shell: Shell::new(&ctx, Some(&session)), jobs, is_cut };
        return Ok(page(StatusCode::OK, jobs.render()?, &[])?);
    };
    let fields = Fields::fresh(&ctx.settings);
    let form = Filled { key: fresh_key(), chosen: String::new(), fields, said: Said::nothing() };
    show(&ctx, StatusCode::OK, &session, company_id, job, form).await
}

/// Schedules, or with `check` only says what the time means.
#[utoipa::path(post, path = "/dashboard/schedule/", tag = "pages", security(()),
    responses((status = 200, description = "The form, with what it means or what is wrong", content_type = "text/html")))]
async fn schedule(State(ctx): State<Context>, Form { session, mut fields }: Form) -> Result {
    let Some(company_id) = company_of(&session) else { return Ok(see_other("/dashboard/")?) };
    // What the API takes as a default, a page asks for.
    for required in ["candidate_id", "date", "time", "timezone", "duration_minutes", "interview_type"] {
        fields.entry(required).or_insert_with(|| json!(""));
    }
    let mut key = text(&fields, "key").to_owned();
    let (status, typed, said) = match make(&ctx, &session, &key, &fields).await {
        Ok(Outcome::Done(done)) => return Ok(done.see()?),
        Ok(Outcome::Show(said)) => (StatusCode::OK, Fields::typed(&fields), said),
        Err(fault @ Error::Internal(_)) => return Err(fault.into()),
        Err(refusal) => (refusal.status(), Fields::typed(&fields).refused(&fields, &refusal), Said::nothing()),
    };
    if status == StatusCode::UNPROCESSABLE_ENTITY || key.is_empty() {
        // It has made another interview already.
        key = fresh_key();
    }
    let (job, chosen) = (text(&fields, "job_id"), text(&fields, "candidate_id").to_owned());
    show(&ctx, status, &session, company_id, job, Filled { key, chosen, fields: typed, said }).await
}

/// Schedules what a form asks for, of the same form only once, and not before its recruiter has seen the warnings.
async fn make(ctx: &Context, session: &Session, key: &str, form: &Map<String, Value>) -> http::Result<Outcome> {
    if !model::malformed(form).is_empty() {
        return Err(Error::bad_request("A field is malformed."));
    }
    let key = (1..=255).contains(&key.len()).then_some(key);
    let said = Said::of(interview::preview(ctx, &session.user, form).await?, form);
    if let Some(said) = said.shown_first(form) {
        // What a form has made is no reason to warn of sending it again, which makes nothing.
        let is_used = match key {
            Some(key) => interview::is_key_used(ctx, session.user.id, key).await?,
            None => false,
        };
        if form.contains_key("check") || !is_used {
            return Ok(Outcome::Show(said));
        }
    }
    let (user, key) = (session.user.clone(), Ok(key.map(str::to_owned)));
    let made = interview::schedule_from_body(ctx, user, Endpoint::Company, key, asked(form)).await?;
    Ok(Outcome::Done(if made.replayed { Done::ScheduledBefore } else { Done::Scheduled }))
}

/// What a form asks for, without what belongs to the page: the same again is the same request.
fn asked(form: &Map<String, Value>) -> Map<String, Value> {
    let of_the_page = ["form_token", "key", "seen", "check"];
    form.iter().filter(|(name, _)| !of_the_page.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// The company for whose jobs somebody may schedule.
fn company_of(session: &Session) -> Option<i64> {
    session.user.company_id.filter(|_| session.user.is_recruiter)
}

fn fresh_key() -> String {
    random_uuid().to_string()
}

/// What the time of a form means and what to warn of: a part of the page, for its script.
#[utoipa::path(get, path = "/dashboard/schedule/preview/", tag = "pages", security(()),
    responses((status = 200, description = "The part", content_type = "text/html")))]
async fn preview(State(ctx): State<Context>, SignedIn(session): SignedIn, query: QueryParams) -> Result {
    let names = ["candidate_id", "interview_id", "date", "time", "timezone", "duration_minutes", "reader_zone"];
    let given = names.into_iter().filter_map(|name| Some((name.to_owned(), Value::from(query.get(name)?))));
    let form: Map<_, _> = given.collect();
    let said = match company_of(&session) {
        Some(_) => interview::preview(&ctx, &session.user, &form).await.map(|preview| Said::of(preview, &form)),
        None => Ok(Said::nothing()),
    };
    let said = match said {
        Ok(said) => said,
        Err(fault @ Error::Internal(_)) => return Err(fault.into()),
        Err(refusal) => Said::wrong(&Fields::default().refused(&form, &refusal)),
    };
    Ok(page(StatusCode::OK, said.render()?, &[])?)
}

async fn show(
    ctx: &Context,
    status: StatusCode,
    session: &Session,
    company_id: i64,
    job: &str,
    form: Filled,
) -> Result<Response> {
    let job_id = job.parse().map_err(|_| Error::NotFound)?;
    let found = interview::applicants::of_job(ctx, company_id, job_id, session.user.id).await?;
    let (job, applicants, is_cut) = found.ok_or(Error::NotFound)?;
    let schedule = SchedulePage { shell: Shell::new(ctx, Some(session)), job, applicants, is_cut, form };
    Ok(page(status, schedule.render()?, &[])?)
}
