//! Signing in and out on the portal's own pages, and the way from `/` to where somebody belongs.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    MessagePage, Shell, page,
    request::{self, Result, home, text},
    see_other,
};
use crate::{
    auth::{self, Credentials, KnownBrowser, Session, Visitor},
    context::Context,
    http::{
        self, Error,
        extract::{QueryParams, RequestBody},
        peer::Peer,
    },
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(start)).routes(routes!(login_page, login)).routes(routes!(logout))
}

/// Leads to the dashboard of whoever is signed in, or to the sign-in page.
#[utoipa::path(get, path = "/", tag = "pages", security(()),
    responses((status = 302, description = "Where to go", content_type = "text/html")))]
async fn start(State(ctx): State<Context>, headers: HeaderMap) -> Result {
    let to = Session::of(&ctx, &headers).await?.map_or("/login/", |session| home(&session.user));
    Ok((StatusCode::FOUND, [(header::LOCATION, to)]).into_response())
}

#[derive(Template)]
#[template(path = "portal/login.html")]
struct LoginPage {
    shell: Shell,
    form_token: String,
    next: String,
    email: String,
    error: Option<String>,
}

/// The sign-in page.
#[utoipa::path(get, path = "/login/", tag = "pages", security(()),
    params(("next" = Option<String>, Query, description = "A path of this server: where to go then")),
    responses((status = 200, description = "The page", content_type = "text/html"),
        (status = 303, description = "Signed in already"),
        (status = 403, description = "Sign-ins have to pass reCAPTCHA, which this page has not")))]
async fn login_page(State(ctx): State<Context>, headers: HeaderMap, query: QueryParams) -> http::Result<Response> {
    let next = query.get("next").filter(|next| is_own_path(next)).unwrap_or_default();
    match Session::of(&ctx, &headers).await? {
        _ if ctx.settings.recaptcha_secret_key.is_some() => sign_in_elsewhere(&ctx),
        Some(session) => see_other(if next.is_empty() { home(&session.user) } else { next }),
        None => show_login(&ctx, StatusCode::OK, &Visitor::of(&headers, &ctx.settings), next, "", None),
    }
}

/// Signs in with e-mail and password, by the rules and the throttle of the API.
#[utoipa::path(post, path = "/login/", tag = "pages", security(()), responses(
    (status = 303, description = "Signed in: on to `next`, or to the dashboard"),
    (status = 400, description = "The page, with what was wrong"),
    (status = 403, description = "Not from this page, not verified, or sign-ins have to pass reCAPTCHA"),
    (status = 429, description = "The page: after too many failures"),
    (status = 503, description = "The page: too many sign-ins at once"),
))]
async fn login(
    State(ctx): State<Context>,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: RequestBody,
) -> http::Result<Response> {
    if ctx.settings.recaptcha_secret_key.is_some() {
        return sign_in_elsewhere(&ctx);
    }
    let form = request::fields(body).await?;
    let visitor = Visitor::of(&headers, &ctx.settings);
    let next = Some(text(&form, "next")).filter(|next| is_own_path(next)).unwrap_or_default();
    let again = |status, error: String| show_login(&ctx, status, &visitor, next, text(&form, "email"), Some(error));
    if !visitor.has_sent(text(&form, "form_token")) {
        return again(StatusCode::FORBIDDEN, "This page was open for too long. Please sign in again.".to_owned());
    }
    let begun = ctx.clock.now();
    let signed_in = match Credentials::parse(&Value::Object(form.clone())) {
        Ok(credentials) => auth::sign_in(&ctx, peer, &headers, credentials).await,
        Err(malformed) => Err(malformed),
    };
    let account = match signed_in {
        Ok(account) => account,
        Err(Error::Internal(fault)) => return Err(Error::Internal(fault)),
        Err(refusal) => return again(refusal.status(), sentence(&refusal)),
    };
    let to = if next.is_empty() { home(&account.user) } else { next };
    let mut response = see_other(to)?;
    let known = KnownBrowser::new(account.user.id, &ctx);
    let session = Session::begin(&ctx, account, begun).await?;
    for cookie in [session.set_cookie(&ctx.settings)?, known.set_cookie(&ctx.settings)?] {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Signs out.
#[utoipa::path(post, path = "/logout/", tag = "pages", security(()),
    responses((status = 303, description = "Signed out", content_type = "text/html")))]
async fn logout(State(ctx): State<Context>, headers: HeaderMap, body: RequestBody) -> Result {
    if let Some(session) = Session::of(&ctx, &headers).await? {
        request::own(&ctx, &session, &request::fields(body.of_somebody_known()).await?)?;
        session.end(&ctx).await?;
    }
    let mut response = see_other("/login/")?;
    response.headers_mut().append(header::SET_COOKIE, auth::forget_cookie(&ctx.settings)?);
    Ok(response)
}

/// Where a sign-in has to pass reCAPTCHA: this page, which loads nothing from other hosts, cannot show one.
fn sign_in_elsewhere(ctx: &Context) -> http::Result<Response> {
    let words = "Signing in on this page is switched off. The links in your invitation mails work without.";
    let links = vec![("To the application", ctx.settings.frontend_url.clone())];
    MessagePage::new(ctx, None, "Please sign in in the application", words, links).answer(StatusCode::FORBIDDEN)
}

fn show_login(
    ctx: &Context,
    status: StatusCode,
    visitor: &Visitor,
    next: &str,
    email: &str,
    error: Option<String>,
) -> http::Result<Response> {
    let login = LoginPage {
        shell: Shell::new(ctx, None),
        form_token: visitor.form_token(),
        next: next.to_owned(),
        email: email.to_owned(),
        error,
    };
    let mut response = page(status, login.render()?, &[])?;
    let cookie: HeaderValue = visitor.set_cookie(&ctx.settings)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// What a person can do about a refused sign-in.
fn sentence(refusal: &Error) -> String {
    match refusal {
        Error::Throttled { retry_after } => {
            let minutes = retry_after.div_ceil(60);
            format!("Too many failed attempts. Please try again in {minutes} minutes.")
        }
        Error::Busy { .. } => "Too many people are signing in at this moment. Please try again.".to_owned(),
        Error::Refused { error, .. } => error.to_string(),
        Error::Body(_, body) => match body["non_field_errors"][0].as_str() {
            Some(said) => said.to_owned(),
            None => "Please enter the e-mail address of your account, and your password.".to_owned(),
        },
        _ => "Signing in did not work. Please try again.".to_owned(),
    }
}

/// Whether a browser that follows this stays on this server: never `//host`, `/\host` or another scheme.
fn is_own_path(path: &str) -> bool {
    let mut characters = path.chars();
    characters.next() == Some('/')
        && !matches!(characters.next(), Some('/' | '\\'))
        && path.chars().all(|c| c.is_ascii_graphic() && c != '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_server_are_own() {
        for own in ["/", "/dashboard/", "/interviews/1/join/?a=b#c", "/api/company/google/connect/"] {
            assert!(is_own_path(own), "{own}");
        }
        for other in [
            "",
            "dashboard/",
            "//evil.test/",
            "/\\evil.test",
            "https://evil.test/",
            "/a\nb",
            "/ä",
            "/a b",
            "javascript:1",
        ] {
            assert!(!is_own_path(other), "{other}");
        }
    }
}
