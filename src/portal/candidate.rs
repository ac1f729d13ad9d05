//! A candidate's dashboard: the interviews of the account, whichever mail or job they came by.

use askama::Template;
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    cards::{MOST, Section, sections},
    page,
    request::{Result, SignedIn},
};
use crate::{
    context::Context,
    interview::{
        self, Interview,
        model::{MeetingStatus, Side, Window},
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
    /// There may be more than are shown.
    is_cut: bool,
}

/// A candidate's interviews.
#[utoipa::path(get, path = "/dashboard/jobseeker/", tag = "pages", security(()),
    responses((status = 200, description = "The page", content_type = "text/html")))]
async fn candidate(State(ctx): State<Context>, SignedIn(session): SignedIn) -> Result {
    let interviews = interview::of_candidate_with_applications(&ctx, session.user.id, MOST).await?;
    let ahead = interview::maybe_ahead(ctx.clock.now());
    let (ahead, past): (Vec<_>, Vec<_>) = interviews.iter().partition(|interview| interview.date >= ahead);
    let is_cut = ahead.len().max(past.len()) as i64 >= MOST;
    let dashboard = CandidatePage {
        is_recruiter: session.user.is_recruiter,
        is_cut,
        sections: sections(&ctx, interviews, Side::Candidate, TITLES, by_application),
        shell: Shell::new(&ctx, Some(&session)),
    };
    Ok(page(StatusCode::OK, dashboard.render()?, &[])?)
}

const TITLES: [&str; 3] = ["Jobs you applied for", "Other invitations", "Past and cancelled"];

fn by_application(interview: &Interview, window: &Window, now: DateTime<Utc>) -> usize {
    match interview.has_applied {
        _ if window.meeting_status(now) == MeetingStatus::Ended => 2,
        Some(true) => 0,
        _ => 1,
    }
}
