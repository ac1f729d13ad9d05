//! A candidate's dashboard.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    cards::{MOST, Section, by_time},
    page,
};
use crate::{
    auth::{self, Session},
    context::Context,
    http::Result,
    interview::{self, model::Side},
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(candidate))
}

#[derive(Template)]
#[template(path = "portal/candidate.html")]
struct CandidatePage {
    shell: Shell,
    sections: Vec<Section>,
}

/// A candidate's interviews.
#[utoipa::path(get, path = "/dashboard/jobseeker/", tag = "pages", security(()), responses(
    (status = 200, description = "The page", content_type = "text/html"),
    (status = 302, description = "To sign in"),
))]
async fn candidate(State(ctx): State<Context>, headers: HeaderMap, uri: Uri) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let interviews = interview::of_user_with_mails(&ctx, session.user.id, Side::Candidate, MOST).await?;
    let sections = by_time(&ctx, interviews, Side::Candidate);
    page(StatusCode::OK, CandidatePage { shell: Shell::new(&ctx, Some(&session)), sections }.render()?, &[])
}
