//! A candidate's dashboard: the interviews of the account, whichever mail or job they came by.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    cards::{Card, MOST, Section},
    page,
};
use crate::{
    auth::{self, Session},
    context::Context,
    http::Result,
    interview::{
        self, Interview,
        model::{MeetingStatus, Side},
    },
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(candidate))
}

#[derive(Template)]
#[template(path = "portal/candidate.html")]
struct CandidatePage {
    shell: Shell,
    is_recruiter: bool,
    sections: Vec<Section>,
}

/// A candidate's interviews.
#[utoipa::path(get, path = "/dashboard/jobseeker/", tag = "pages", security(()), responses(
    (status = 200, description = "The page", content_type = "text/html"),
    (status = 302, description = "To sign in"),
))]
async fn candidate(State(ctx): State<Context>, headers: HeaderMap, uri: Uri) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    let interviews = interview::of_candidate_with_applications(&ctx, session.user.id, MOST).await?;
    let dashboard = CandidatePage {
        is_recruiter: session.user.is_recruiter,
        sections: sections(&ctx, interviews),
        shell: Shell::new(&ctx, Some(&session)),
    };
    page(StatusCode::OK, dashboard.render()?, &[])
}

/// What is ahead, soonest first, by whether the candidate applied for the job; then what is past, latest first.
fn sections(ctx: &Context, interviews: Vec<Interview>) -> Vec<Section> {
    let now = ctx.clock.now();
    let titles = ["Jobs you applied for", "Other invitations", "Past and cancelled"];
    let mut sections = titles.map(|title| Section { title, cards: Vec::new() });
    for interview in interviews {
        let window = interview.window(&ctx.settings);
        let part = match interview.has_applied {
            _ if window.meeting_status(now) == MeetingStatus::Ended => 2,
            Some(true) => 0,
            _ => 1,
        };
        sections[part].cards.push(Card::new(ctx, interview, Side::Candidate, now));
    }
    for section in &mut sections {
        section.cards.sort_by(|one, other| one.start.cmp(&other.start));
    }
    sections[2].cards.reverse();
    sections.into_iter().filter(|section| !section.cards.is_empty()).collect()
}
