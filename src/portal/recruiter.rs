//! A recruiter's dashboard: the connection to Google, the interviews, and what can be done with them.

use askama::Template;
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use url::Url;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    cards::{MOST, Section, sections},
    numbers::Numbers,
    page,
    request::{Form, Result, SignedIn, home},
    see_other,
};
use crate::{
    calendar::{self, Connection},
    context::Context,
    http::{self, Error, extract::QueryParams},
    interview::{
        self, Interview,
        model::{Side, Window},
    },
    mail::{self, Resent},
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(recruiter))
        .routes(routes!(connect))
        .routes(routes!(disconnect))
        .routes(routes!(resend))
}

#[derive(Template)]
#[template(path = "portal/recruiter.html")]
struct RecruiterPage {
    shell: Shell,
    /// What has just happened: the words and their tone.
    notice: Option<(&'static str, &'static str)>,
    google: Connection,
    is_google_configured: bool,
    can_schedule: bool,
    sections: Vec<Section>,
    /// There are so many that not all are shown.
    is_cut: bool,
    /// `None` without interviews.
    numbers: Option<Numbers>,
}

/// A recruiter's interviews, and the connection to Google.
#[utoipa::path(get, path = "/dashboard/", tag = "pages", security(()), responses(
    (status = 200, description = "The page", content_type = "text/html"),
    (status = 302, description = "To sign in"),
    (status = 303, description = "To the dashboard of somebody who is no recruiter"),
))]
async fn recruiter(State(ctx): State<Context>, SignedIn(session): SignedIn, query: QueryParams) -> Result {
    if !session.user.is_recruiter {
        return Ok(see_other(home(&session.user))?);
    }
    let id = session.user.id;
    // Side by side: the page waits for one round trip.
    let (interviews, google, numbers) = tokio::try_join!(
        interview::of_recruiter_with_mails(&ctx, id, MOST),
        calendar::connection(&ctx, id),
        interview::analytics::of_recruiter(&ctx, id),
    )?;
    let dashboard = RecruiterPage {
        notice: notice(&ctx, &query),
        google,
        is_google_configured: ctx.settings.google.is_some(),
        can_schedule: session.user.is_recruiter_with_company(),
        is_cut: numbers.total_interviews > interviews.len() as i64,
        numbers: (numbers.total_interviews > 0).then(|| Numbers::of(&numbers)),
        sections: sections(&ctx, interviews, Side::Recruiter, ["Today", "Next 7 days", "Later", "Past"], by_time),
        shell: Shell::new(&ctx, Some(&session)),
    };
    // The form to connect leads on to Google.
    let google = Url::parse(&ctx.settings.google_auth_uri).map(|url| url.origin().ascii_serialization());
    Ok(page(StatusCode::OK, dashboard.render()?, &google.into_iter().collect::<Vec<_>>())?)
}

/// Today by the interview's own clock, the next days, later, past.
fn by_time(interview: &Interview, window: &Window, now: DateTime<Utc>) -> usize {
    let zone = interview.zone();
    match window {
        _ if window.end <= now => 3,
        _ if zone.local(window.start).date_naive() <= zone.local(now).date_naive() => 0,
        _ if window.start < now + TimeDelta::days(7) => 1,
        _ => 2,
    }
}

/// What has just been done; the dashboard says so.
#[derive(Clone, Copy, PartialEq)]
pub enum Done {
    Scheduled,
    ScheduledBefore,
    Changed,
    /// The mails wait until a minute has passed since the last ones.
    ChangedLater,
    ChangedBefore,
    Unchanged,
    Cancelled,
    CancelledBefore,
    Disconnected,
    NotDisconnected,
    Resent,
    NotResent,
}

impl Done {
    const ALL: [(Done, &str); 12] = [
        (Done::Scheduled, "scheduled"),
        (Done::ScheduledBefore, "scheduled-before"),
        (Done::Changed, "changed"),
        (Done::ChangedLater, "changed-later"),
        (Done::ChangedBefore, "changed-before"),
        (Done::Unchanged, "unchanged"),
        (Done::Cancelled, "cancelled"),
        (Done::CancelledBefore, "cancelled-before"),
        (Done::Disconnected, "disconnected"),
        (Done::NotDisconnected, "not-disconnected"),
        (Done::Resent, "resent"),
        (Done::NotResent, "not-resent"),
    ];

    /// Leads to the dashboard, which says it.
    pub fn see(self) -> http::Result<Response> {
        let name = Done::ALL.iter().find(|(done, _)| *done == self).map_or("", |(_, name)| name);
        see_other(&format!("/dashboard/?done={name}"))
    }

    /// The words, and their tone.
    fn words(self, sends_mails: bool) -> (&'static str, &'static str) {
        match self {
            Done::Scheduled if sends_mails => {
                ("The interview is scheduled; the invitations to both of you are on their way.", "good")
            }
            Done::Scheduled => {
                ("The interview is scheduled. This server sends no mails: please tell the candidate.", "warn")
            }
            Done::ScheduledBefore => ("That form had made its interview already; nothing new was scheduled.", "warn"),
            Done::Changed if sends_mails => {
                ("The interview is changed; the mails to both of you are on their way.", "good")
            }
            Done::Changed => {
                ("The interview is changed. This server sends no mails: please tell the candidate.", "warn")
            }
            Done::ChangedLater => ("The interview is changed; the mails to both of you follow in a minute.", "good"),
            Done::Unchanged => ("Nothing was different, so nothing was changed and nobody was told.", "good"),
            Done::Cancelled if sends_mails => {
                ("The interview is cancelled; the mails to both of you are on their way.", "good")
            }
            Done::Cancelled => {
                ("The interview is cancelled. This server sends no mails: please tell the candidate.", "warn")
            }
            Done::ChangedBefore => ("The interview is as you want it already; nothing more was done.", "good"),
            Done::CancelledBefore => ("The interview is cancelled already; nothing more was done.", "good"),
            Done::Disconnected => ("Google Calendar is disconnected.", "good"),
            Done::NotDisconnected => (calendar::CANNOT_DISCONNECT, "bad"),
            Done::Resent => ("The mail is on its way again.", "good"),
            Done::NotResent => {
                ("Nothing was done: that mail was sent or is on its way, is out of date, or comes too late.", "warn")
            }
        }
    }
}

/// What has just happened, and its tone.
fn notice(ctx: &Context, query: &QueryParams) -> Option<(&'static str, &'static str)> {
    if let Some(result) = query.get("google_oauth") {
        return Some(match result {
            "success" => ("Google Calendar is connected.", "good"),
            _ => ("Google Calendar was not connected. Please try again, and allow the access at Google.", "bad"),
        });
    }
    let (done, _) = Done::ALL.into_iter().find(|(_, name)| query.get("done") == Some(name))?;
    Some(done.words(ctx.settings.email.is_some()))
}

/// Leads to Google to connect a calendar, and back to the dashboard.
#[utoipa::path(post, path = "/dashboard/google/connect/", tag = "pages", security(()),
    responses((status = 303, description = "To Google", content_type = "text/html")))]
async fn connect(State(ctx): State<Context>, Form { session, .. }: Form) -> Result {
    Ok(see_other(&calendar::begin_on_portal(&ctx, &session).await?)?)
}

/// Disconnects the calendar.
#[utoipa::path(post, path = "/dashboard/google/disconnect/", tag = "pages", security(()),
    responses((status = 303, description = "To the dashboard", content_type = "text/html")))]
async fn disconnect(State(ctx): State<Context>, Form { session, .. }: Form) -> Result {
    match calendar::disconnect_user(&ctx, session.user.id).await {
        Err(Error::Refused { .. }) => Ok(Done::NotDisconnected.see()?),
        disconnected => {
            disconnected?;
            Ok(Done::Disconnected.see()?)
        }
    }
}

/// Sends a mail about one of the recruiter's interviews again.
#[utoipa::path(post, path = "/dashboard/mails/{mail}/resend/", tag = "pages", security(()), params(("mail" = String, Path)),
    responses((status = 303, description = "To the dashboard", content_type = "text/html")))]
async fn resend(
    State(ctx): State<Context>,
    mail: Result<Path<String>, PathRejection>,
    Form { session, .. }: Form,
) -> Result {
    let Path(mail) = mail.map_err(|_| Error::NotFound)?;
    let mail = mail.parse().map_err(|_| Error::NotFound)?;
    let found = interview::mail_of_recruiter(&ctx, mail, session.user.id).await?;
    let (state, ends_at) = found.ok_or(Error::NotFound)?;
    let now = ctx.clock.now();
    if !state.can_be_resent() || ends_at.is_some_and(|end| end <= now) {
        return Ok(Done::NotResent.see()?);
    }
    match mail::resend(&ctx.db, mail, now).await? {
        Resent::Again { .. } | Resent::Hurried { .. } | Resent::BeingSent => Ok(Done::Resent.see()?),
        Resent::Outdated | Resent::Unknown => Ok(Done::NotResent.see()?),
    }
}
