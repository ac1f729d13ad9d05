//! A recruiter's dashboard: the connection to Google, the interviews, and what can be done with them.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde_json::Value;
use url::Url;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shell,
    cards::{MOST, Section, by_time},
    numbers::Numbers,
    page, see_other,
    signing_in::{home, not_sent_from_here},
};
use crate::{
    auth::{self, Session},
    calendar::{self, Connection},
    context::Context,
    http::{
        Error, Result,
        extract::{QueryParams, RequestBody},
    },
    interview,
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
    form_token: String,
    /// What has just happened: the words and whether it is good.
    notice: Option<(&'static str, bool)>,
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
async fn recruiter(State(ctx): State<Context>, headers: HeaderMap, uri: Uri, query: QueryParams) -> Result<Response> {
    let Some(session) = Session::of(&ctx, &headers).await? else { return Ok(auth::to_sign_in(&uri)) };
    if !session.user.is_recruiter {
        return see_other(home(&session.user));
    }
    let id = session.user.id;
    // Side by side: the page waits for one round trip.
    let (interviews, google, numbers) = tokio::try_join!(
        interview::of_recruiter_with_mails(&ctx, id, MOST),
        calendar::connection(&ctx, id),
        interview::analytics::of_recruiter(&ctx, id),
    )?;
    let dashboard = RecruiterPage {
        notice: notice(&query),
        google,
        is_google_configured: ctx.settings.google.is_some(),
        can_schedule: session.user.is_recruiter_with_company(),
        is_cut: numbers.total_interviews > interviews.len() as i64,
        numbers: (numbers.total_interviews > 0).then(|| Numbers::of(&numbers)),
        sections: by_time(&ctx, interviews),
        form_token: session.form_token(),
        shell: Shell::new(&ctx, Some(&session)),
    };
    // The form to connect leads on to Google.
    let google = Url::parse(&ctx.settings.google_auth_uri).map(|url| url.origin().ascii_serialization());
    page(StatusCode::OK, dashboard.render()?, &google.into_iter().collect::<Vec<_>>())
}

/// What has just happened, and whether it is good.
fn notice(query: &QueryParams) -> Option<(&'static str, bool)> {
    Some(match (query.get("google_oauth"), query.get("done")) {
        (Some("success"), _) => ("Google Calendar is connected.", true),
        (Some(_), _) => ("Google Calendar was not connected. Please try again, and allow the access at Google.", false),
        (_, Some("disconnected")) => ("Google Calendar is disconnected.", true),
        (_, Some("scheduled")) => ("The interview is scheduled, and both of you are invited.", true),
        (_, Some("changed")) => ("The interview is changed, and both of you are told.", true),
        (_, Some("unchanged")) => ("Nothing was different, so nothing was changed and nobody was told.", true),
        (_, Some("cancelled")) => ("The interview is cancelled, and both of you are told.", true),
        (_, Some("resent")) => ("The mail is on its way again.", true),
        (_, Some("hurried")) => ("The mail was waiting already, and is tried again now.", true),
        (_, Some("sending")) => ("The mail is being sent at this moment. Nothing else was done.", true),
        (_, Some("outdated")) => ("That mail is out of date: the interview has changed since.", false),
        _ => return None,
    })
}

/// A signed-in recruiter who sends a form of his own page, or what to answer instead.
async fn sender(ctx: &Context, headers: &HeaderMap, body: RequestBody) -> Result<Result<Session, Response>> {
    let form = body.object().await?;
    let Some(session) = Session::of(ctx, headers).await? else {
        return Ok(Err(see_other("/login/?next=/dashboard/")?));
    };
    let is_own = session.has_sent(form.get("form_token").and_then(Value::as_str).unwrap_or_default());
    Ok(if is_own { Ok(session) } else { Err(not_sent_from_here(ctx, &session)?) })
}

/// Leads to Google to connect a calendar, and back to the dashboard.
#[utoipa::path(post, path = "/dashboard/google/connect/", tag = "pages", security(()),
    responses((status = 303, description = "To Google"), (status = 403, description = "Not from a page of this session")))]
async fn connect(State(ctx): State<Context>, headers: HeaderMap, body: RequestBody) -> Result<Response> {
    match sender(&ctx, &headers, body).await? {
        Ok(session) => see_other(&calendar::begin_on_portal(&ctx, session.user.id).await?),
        Err(answer) => Ok(answer),
    }
}

/// Disconnects the calendar.
#[utoipa::path(post, path = "/dashboard/google/disconnect/", tag = "pages", security(()), responses(
    (status = 303, description = "Back to the dashboard"), (status = 403, description = "Not from a page of this session")))]
async fn disconnect(State(ctx): State<Context>, headers: HeaderMap, body: RequestBody) -> Result<Response> {
    let session = match sender(&ctx, &headers, body).await? {
        Ok(session) => session,
        Err(answer) => return Ok(answer),
    };
    calendar::disconnect_user(&ctx, session.user.id).await?;
    see_other("/dashboard/?done=disconnected")
}

/// Sends an invitation of one of the recruiter's interviews again.
#[utoipa::path(post, path = "/dashboard/mails/{mail}/resend/", tag = "pages", security(()), params(("mail" = String, Path)),
    responses((status = 303, description = "Back to the dashboard"), (status = 404, description = "No such mail of his")))]
async fn resend(
    State(ctx): State<Context>,
    Path(mail): Path<String>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response> {
    let session = match sender(&ctx, &headers, body).await? {
        Ok(session) => session,
        Err(answer) => return Ok(answer),
    };
    let mail = mail.parse().map_err(|_| Error::NotFound)?;
    if !interview::is_mail_of_recruiter(&ctx, mail, session.user.id).await? {
        return Err(Error::NotFound);
    }
    match mail::resend(&mut *ctx.db.acquire().await?, mail, ctx.clock.now()).await? {
        Resent::Again { .. } => see_other("/dashboard/?done=resent"),
        Resent::Hurried { .. } => see_other("/dashboard/?done=hurried"),
        Resent::BeingSent => see_other("/dashboard/?done=sending"),
        Resent::Outdated => see_other("/dashboard/?done=outdated"),
        // It has gone since it was looked up.
        Resent::Unknown => Err(Error::NotFound),
    }
}
