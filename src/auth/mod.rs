//! Who is calling: signing in with a Django password, the Bearer token of every later call, the caller's own profile.
//!
//! [`authenticate`] stands before every route and decides, by contract §4.3, who the caller is; a handler just asks for
//! a [`CurrentUser`]. Neither an answer nor its time reveals whether an email has an account. One address can guess a
//! password 20 times in 15 minutes, and a crowd at one address keeps nobody else from signing in.

mod cookie;
pub mod jwt;
mod known_browser;
mod operator;
pub mod password;
mod recaptcha;
mod session;
mod sign_in;
mod store;
mod throttle;

use axum::{
    Json,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::jwt::{Stranger, TokenType};
pub use self::known_browser::KnownBrowser;
pub use self::operator::{NewUser, Revoked, Role, create_user, revoke_tokens};
pub use self::session::{COOKIE as SESSION_COOKIE, Session, Visitor, forget_cookie};
pub use self::sign_in::{Credentials, sign_in};
pub use self::store::Account;
use crate::{
    config::Settings,
    context::Context,
    http::{Error, Result, door, extract::RequestBody, peer::Peer, routes::Route},
    zone,
};

/// `POST /api/users/login/`, `GET /api/users/profile/`, `POST /api/users/google-auth/`.
pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(profile)).routes(routes!(google_auth))
}

/// The user whose access token came with the request, as the database knows it now; also the body of the profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Profile)]
pub struct CurrentUser {
    pub id: i64,
    pub email: String,
    pub username: String,
    pub first_name: String,
    pub last_name: String,
    pub is_recruiter: bool,
    pub is_applicant: bool,
    pub has_resume: bool,
    /// Django's flag; nothing here relies on it.
    pub has_company: bool,
    /// The company this user owns.
    #[schema(required)]
    pub company_id: Option<i64>,
    #[serde(serialize_with = "zone::serialize_timestamp")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "zone::serialize_timestamp")]
    pub updated_at: DateTime<Utc>,
}

impl CurrentUser {
    /// By the company's row, not by Django's flag.
    pub fn is_recruiter_with_company(&self) -> bool {
        self.is_recruiter && self.company_id.is_some()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().ok_or_else(|| Stranger::NoCredentials.refusal())
    }
}

/// Puts the [`CurrentUser`] into the request, or answers: 401 to most.
///
/// A bad Bearer header is refused on public API routes too. Outside `/api` and the routes that need credentials, the
/// header is ignored. A browser that goes where its portal session counts needs no header, and is sent to sign in when
/// it has neither.
pub async fn authenticate(ctx: &Context, route: &Route, mut request: Request) -> Result<Request, Response> {
    if !route.credentials && !route.is_api() {
        return Ok(request);
    }
    let is_browser = route.session && request.method().is_safe() && door::is_navigation(request.headers());
    let user = match jwt::bearer(request.headers()) {
        Ok(Some(token)) => bearer_of(ctx, &token).await,
        Ok(None) if is_browser => match Session::of(ctx, request.headers()).await {
            Ok(Some(session)) => Ok(session.user),
            Ok(None) => return Err(to_sign_in(request.uri())),
            Err(fault) => Err(fault),
        },
        Ok(None) if !route.credentials => return Ok(request),
        Ok(None) => Err(Stranger::NoCredentials.refusal()),
        Err(stranger) => Err(stranger.refusal()),
    };
    request.extensions_mut().insert(user.map_err(Error::into_response)?);
    Ok(request)
}

/// Sends a browser to the sign-in page, and from there back to where it wanted to go.
pub fn to_sign_in(wanted: &Uri) -> Response {
    let wanted = wanted.path_and_query().map_or("/", |wanted| wanted.as_str());
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("next", wanted).finish();
    // As people write it: a slash is allowed in a query.
    let location = format!("/login/?{}", query.replace("%2F", "/"));
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

async fn bearer_of(ctx: &Context, token: &[u8]) -> Result<CurrentUser> {
    let key = ctx.settings.secret_key.expose_secret().as_bytes();
    let access = jwt::verify(token, key, ctx.clock.now()).map_err(Stranger::refusal)?;
    match store::account_by_id(&ctx.db.reserved(), access.user_id).await? {
        Some(account) if account.has_revoked(access.issued_at) => Err(Stranger::InvalidToken.refusal()),
        Some(account) if account.is_open() => Ok(account.user),
        Some(_) => Err(Stranger::Inactive.refusal()),
        None => Err(Stranger::NoSuchUser.refusal()),
    }
}

/// The answer to a sign-in: the same keys for everybody.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignedIn {
    email: String,
    /// `recruiter`, `job_seeker` or null.
    #[schema(required)]
    role: Option<&'static str>,
    user_id: i64,
    access_token: String,
    refresh_token: String,
    has_company: bool,
    #[schema(required)]
    company_id: Option<i64>,
    has_resume: bool,
    is_recruiter: bool,
    is_applicant: bool,
}

impl SignedIn {
    /// For a sign-in that began at `begun`, before the account was read: a revocation that overtook it ends its tokens.
    /// One that it knew of does not, even if the clock here is behind.
    fn new(settings: &Settings, account: Account, begun: DateTime<Utc>) -> Self {
        let (now, user) = (account.issue_moment(begun), account.user);
        let key = settings.secret_key.expose_secret().as_bytes();
        SignedIn {
            role: match (user.is_recruiter, user.is_applicant) {
                (true, _) => Some("recruiter"),
                (false, true) => Some("job_seeker"),
                (false, false) => None,
            },
            access_token: jwt::issue(TokenType::Access, user.id, now, now + settings.access_token_lifetime, key),
            refresh_token: jwt::issue(TokenType::Refresh, user.id, now, now + settings.refresh_token_lifetime, key),
            email: user.email,
            user_id: user.id,
            has_company: user.has_company,
            company_id: user.company_id,
            has_resume: user.has_resume,
            is_recruiter: user.is_recruiter,
            is_applicant: user.is_applicant,
        }
    }
}

/// What is wrong with which field, or, as `non_field_errors`, with all of them together.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `Credentials::parse` and `sign_in` answer")]
struct FieldErrors {
    #[schema(required = false)]
    email: Vec<String>,
    #[schema(required = false)]
    password: Vec<String>,
    #[schema(required = false)]
    non_field_errors: Vec<String>,
}

/// Sign in with e-mail and password.
#[utoipa::path(post, path = "/api/users/login/", tag = "users", security(()), request_body = Credentials, responses(
    (status = 200, description = "Signed in", body = SignedIn),
    (status = 400, body = FieldErrors,
        description = "Malformed fields, reCAPTCHA failed, wrong e-mail or password, or a deleted account"),
    (status = 403, description = "E-mail not verified"),
    (status = 429, description = "Within 15 minutes 20 failures of this e-mail from this peer, or 200 of all e-mails",
        headers(("Retry-After" = u64, description = "Seconds until the next attempt is let in"))),
    (status = 503, description = "Too many sign-ins at once, or reCAPTCHA cannot be asked",
        body = ref("#/components/schemas/AnyError"),
        headers(("Retry-After" = Option<u64>, description = "Seconds; not with reCAPTCHA"))),
))]
async fn login(
    State(ctx): State<Context>,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<SignedIn>> {
    let credentials = Credentials::parse(&body.value().await?)?;
    let begun = ctx.clock.now();
    let account = sign_in(&ctx, peer, &headers, credentials).await?;
    Ok(Json(SignedIn::new(&ctx.settings, account, begun)))
}

/// `First Last`, trimmed; the e-mail address of somebody without a name.
pub fn full_name(first: &str, last: &str, email: &str) -> String {
    match format!("{first} {last}").trim() {
        "" => email.to_owned(),
        name => name.to_owned(),
    }
}

/// The caller's own account.
#[utoipa::path(get, path = "/api/users/profile/", tag = "users", responses(
    (status = 200, description = "The account", body = CurrentUser),
))]
async fn profile(user: CurrentUser) -> Json<CurrentUser> {
    Json(user)
}

/// Always refused: nothing a client sends here proves who it is.
#[utoipa::path(post, path = "/api/users/google-auth/", tag = "users", security(()),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 400, description = "Always")))]
async fn google_auth(body: RequestBody) -> Result<()> {
    body.value().await?;
    Err(Error::bad_request("Token and email are required."))
}

/// Removes failed sign-ins that count no longer, and sessions that have ended.
pub async fn remove_expired(ctx: &Context) -> anyhow::Result<()> {
    let (db, now) = (&ctx.db, ctx.clock.now());
    store::remove_old_attempts(db, now - throttle::WINDOW).await?;
    Ok(store::remove_old_sessions(db, now).await?)
}
