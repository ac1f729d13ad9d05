//! The portal: pages on which a recruiter schedules and a candidate joins, without the web application (contract §4.1,
//! §5.19).
//!
//! Here is what all pages share: the shell around them, the headers that keep them to themselves, errors as pages; in
//! `files` what they load, from this server alone. A page is a struct beside its handler. GETs change nothing, because
//! mail scanners open links too; a form is taken only from a page of the same session.

mod candidate;
mod cards;
mod changing;
mod fields;
mod files;
mod local_times;
mod numbers;
mod recruiter;
mod request;
mod room;
mod schedule;
mod signing_in;

use askama::Template;
use axum::{
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    auth::{self, CurrentUser, Session},
    context::Context,
    http::Result,
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .merge(files::routes())
        .merge(local_times::routes())
        .merge(signing_in::routes())
        .merge(recruiter::routes())
        .merge(candidate::routes())
        .merge(changing::routes())
        .merge(schedule::routes())
        .merge(room::routes())
}

/// What stands around every page.
struct Shell {
    brand: String,
    style: String,
    script: String,
    icon: String,
    logo: Option<String>,
    /// Who is signed in: the name to show, and what this person's forms carry.
    who: Option<Who>,
}

struct Who {
    name: String,
    form_token: String,
}

impl Who {
    fn of(session: &Session) -> Who {
        let CurrentUser { first_name, last_name, email, .. } = &session.user;
        Who { name: auth::full_name(first_name, last_name, email), form_token: session.form_token() }
    }
}

impl Shell {
    fn new(ctx: &Context, session: Option<&Session>) -> Shell {
        let settings = &ctx.settings;
        Shell {
            brand: settings.brand_name.clone(),
            style: files::address("style.css", settings),
            script: files::address("app.js", settings),
            icon: files::address("icon.svg", settings),
            logo: settings.brand_logo.is_some().then(|| files::address("logo", settings)),
            who: session.map(Who::of),
        }
    }
}

/// A page with the headers that keep its address secret and its content its own. Its forms may lead to this server and
/// to these origins.
fn page(status: StatusCode, html: String, form_targets: &[String]) -> Result<Response> {
    let targets: String = form_targets.iter().map(|origin| format!(" {origin}")).collect();
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
         form-action 'self'{targets}; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy)?);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex"));
    Ok(response)
}

/// Leads on after a form.
fn see_other(to: &str) -> Result<Response> {
    let mut response = page(StatusCode::SEE_OTHER, String::new(), &[])?;
    response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(to)?);
    Ok(response)
}

/// A page that says one thing, and what to do.
#[derive(Template)]
#[template(path = "portal/message.html")]
struct MessagePage<'a> {
    shell: Shell,
    heading: &'a str,
    text: &'a str,
    /// Where to go from here, the best first: the words and the address.
    links: Vec<(&'a str, String)>,
    /// What somebody has written for nothing, to be kept.
    typed: &'a str,
    /// Where a mailed link may have led here: what takes its token out of the address.
    link_script: Option<String>,
}

impl<'a> MessagePage<'a> {
    fn new(
        ctx: &Context,
        session: Option<&Session>,
        heading: &'a str,
        text: &'a str,
        links: Vec<(&'a str, String)>,
    ) -> Self {
        MessagePage { shell: Shell::new(ctx, session), heading, text, links, typed: "", link_script: None }
    }

    fn answer(self, status: StatusCode) -> Result<Response> {
        page(status, self.render()?, &[])
    }
}

/// An error as a page: what happened and what to do, nothing of the inside.
pub fn error_page(ctx: &Context, method: &Method, status: StatusCode) -> Response {
    let (heading, text) = match status {
        StatusCode::NOT_FOUND => ("This page does not exist", "The address may be incomplete, or the page is gone."),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE => {
            ("This does not work this way", "Please go back and try again with the buttons of the page.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("This is too much", "Please go back and send less text."),
        status if status.is_server_error() && method.is_safe() => {
            ("Something went wrong", "It is not your fault, and nothing was lost. Please try again in a moment.")
        }
        status if status.is_server_error() => {
            ("Something went wrong", "It may have been done. Please look before you try again.")
        }
        _ => ("This did not work", "Please go back, check what you entered, and try again."),
    };
    let links = vec![("To the start page", "/".to_owned())];
    MessagePage::new(ctx, None, heading, text, links).answer(status).unwrap_or_else(IntoResponse::into_response)
}
