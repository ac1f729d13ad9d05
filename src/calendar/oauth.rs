//! Authorization at Google: the authorization code flow with PKCE (RFC 6749, RFC 7636), refresh, revocation.
//!
//! Hides the token endpoint, whose answers become [`Grant`]s, and that of all requests of all instances only one
//! refreshes a grant at a time. Promises: no network call inside a transaction or with a pooled connection in hand;
//! no token, code or state in a log. Google's page on it: "Using OAuth 2.0 for Web Server Applications".

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, Client, ClientId, ClientSecret, EndpointNotSet, EndpointSet,
    ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken,
    RequestTokenError, StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    CalendarError,
    retry::{Setback, retrying},
    state,
    store::{self, Grant},
};
use crate::{
    auth::Session,
    clock::{random_bytes, random_uuid},
    config::{GoogleClient, Settings},
    context::Context,
    http,
    mail::{self, Mail},
    metrics::GoogleOutcome,
    secret::PlainToken,
};

const CALLBACK: &str = "/api/company/google/callback/";

const SCOPES: &str = "openid https://www.googleapis.com/auth/userinfo.email \
                      https://www.googleapis.com/auth/userinfo.profile https://www.googleapis.com/auth/calendar.events";

/// Either of these lets us make events.
const CALENDAR_SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/calendar.events", "https://www.googleapis.com/auth/calendar"];

/// A refresher finishes well before its lease ends.
const REFRESH_WITHIN: Duration = Duration::from_secs(12);

const REVOKE_WITHIN: Duration = Duration::from_secs(5);

/// The suffix of a state that was begun on the portal, and is finished there. Before it comes the session's signature.
const OF_PORTAL: &str = ".portal";

/// Whether an authorization with this state was begun on the portal.
pub fn is_of_portal(state: Option<&str>) -> bool {
    state.is_some_and(|state| state.ends_with(OF_PORTAL))
}

/// Begins an authorization of `user_id`: the URL to send the browser to and the state in it, valid once within 10
/// minutes.
pub async fn begin(ctx: &Context, user_id: i64) -> http::Result<(String, String)> {
    begin_with(ctx, user_id, PlainToken::generate()).await
}

/// The same on the portal, to be finished in the same session; the URL alone.
pub async fn begin_on_portal(ctx: &Context, session: &Session) -> http::Result<String> {
    let random = PlainToken::generate();
    let state = format!("{}.{}{OF_PORTAL}", random.expose(), session.sign(random.expose()));
    Ok(begin_with(ctx, session.user.id, PlainToken::from_outside(&state)).await?.0)
}

/// Whether an authorization of `user_id` with this state may be finished in a browser with this session, or with none.
pub fn may_finish(state: &str, user_id: i64, session: Option<&Session>) -> bool {
    let Some(state) = state.strip_suffix(OF_PORTAL) else {
        return session.is_none_or(|session| session.user.id == user_id);
    };
    let signed = state.split_once('.').zip(session);
    signed.is_some_and(|((random, signature), session)| session.has_signed(random, signature))
}

async fn begin_with(ctx: &Context, user_id: i64, state: PlainToken) -> http::Result<(String, String)> {
    let Some(client) = &ctx.settings.google else { return Err(super::not_configured()) };
    let verifier = PkceCodeVerifier::new(URL_SAFE_NO_PAD.encode(random_bytes::<32>()));
    state::put(&ctx.db, user_id, &state, verifier.secret(), &client.sealer, ctx.clock.now()).await?;
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
    Ok((authorization_url(&ctx.settings, client, state.expose(), challenge.as_str()), state.expose().to_owned()))
}

fn authorization_url(settings: &Settings, client: &GoogleClient, state: &str, challenge: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", &client.client_id)
        .append_pair("redirect_uri", &redirect_uri(settings))
        .append_pair("scope", SCOPES)
        .append_pair("state", state)
        .append_pair("access_type", "offline")
        .append_pair("include_granted_scopes", "true")
        .append_pair("prompt", "consent")
        .append_pair("code_challenge", challenge)
        .append_pair("code_challenge_method", "S256")
        .finish();
    let page = &settings.google_auth_uri;
    format!("{page}{}{query}", if page.contains('?') { '&' } else { '?' })
}

fn redirect_uri(settings: &Settings) -> String {
    format!("{}{CALLBACK}", settings.public_url)
}

/// Exchanges the code that the browser brought for a grant, which must include the calendar.
pub async fn exchange(ctx: &Context, code: &str, code_verifier: &str) -> anyhow::Result<Grant> {
    let client = ctx.settings.google.as_ref().context("Google is not configured")?;
    let (endpoint, http) = (token_endpoint(&ctx.settings, client)?, Http(ctx.http.clone()));
    let deadline = Instant::now() + ctx.settings.google_budget;
    let grant = retrying(ctx, deadline, "token.exchange", || async {
        let request = endpoint
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(code_verifier.to_owned()));
        let answer = request.request_async(&http).await;
        read(answer, ctx.clock.now())
    });
    let grant = grant.await.map_err(|_| anyhow!("Google did not take the code"))?;
    ensure!(includes_calendar(&grant.scopes), "the calendar was not granted");
    Ok(grant)
}

fn includes_calendar(scopes: &[String]) -> bool {
    scopes.iter().any(|scope| CALENDAR_SCOPES.contains(&scope.as_str()))
}

/// An access token, and the text of the row it is from.
pub struct Access {
    pub token: String,
    pub row: String,
}

/// The user's access token, refreshed if it has less than a minute left or is the one that Google `refused`.
///
/// # Errors
/// `NotConnected` when there is no grant or Google declared it dead; then its row is gone.
pub async fn access(
    ctx: &Context,
    user_id: i64,
    refused: Option<&Access>,
    deadline: Instant,
) -> Result<Access, CalendarError> {
    let client = ctx.settings.google.as_ref().ok_or(CalendarError::NotConfigured)?;
    let mut turn = Turn { ctx, user_id, holder: random_uuid(), held: false };
    let access = turn.access(client, refused, deadline).await;
    if turn.held
        && let Err(fault) = store::release(&ctx.db, user_id, turn.holder).await
    {
        tracing::warn!(error = %fault, "a lease was not released; it ends by itself");
    }
    access
}

/// Why a grant is dead that nobody need ask Google about.
pub const ENDED: &str = "the access token has ended and there is no refresh token";

/// Removes a dead grant, the row whose text is `row`, and tells its owner by one mail; false if another grant has taken
/// its place.
pub async fn bury(ctx: &Context, user_id: i64, row: &str, why: &str) -> sqlx::Result<bool> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin().await?;
    if !store::remove_dead_grant(&mut *tx, user_id, row, now).await? {
        return Ok(false);
    }
    mail::enqueue(&mut tx, ctx, &[Mail::new(mail::Kind::GoogleDisconnected, user_id)]).await?;
    tx.commit().await?;
    tracing::info!(user_id, why, "a grant was removed");
    Ok(true)
}

/// One request's wish to have a fresh token, and its turn to refresh.
struct Turn<'a> {
    ctx: &'a Context,
    user_id: i64,
    holder: uuid::Uuid,
    held: bool,
}

impl Turn<'_> {
    async fn access(
        &mut self,
        client: &GoogleClient,
        refused: Option<&Access>,
        deadline: Instant,
    ) -> Result<Access, CalendarError> {
        let &mut Turn { ctx, user_id, holder, .. } = self;
        loop {
            let now = ctx.clock.now();
            let Some(stored) = store::grant(&ctx.db, user_id, Some(&client.sealer)).await? else {
                return Err(CalendarError::NotConnected);
            };
            if let Some(token) = stored.grant.fresh_token(now)
                && refused.is_none_or(|refused| refused.token != token)
            {
                return Ok(Access { token: token.to_owned(), row: stored.text });
            }
            let Some(refresh_token) = &stored.grant.refresh_token else {
                bury(ctx, user_id, &stored.text, ENDED).await?;
                return Err(CalendarError::NotConnected);
            };
            if Instant::now() >= deadline {
                return Err(CalendarError::Unavailable);
            }
            if !self.held {
                self.held = store::lease(&ctx.db, user_id, holder, now).await?;
                if !self.held {
                    ctx.clock.sleep(Duration::from_millis(200)).await;
                }
                // The request that had the turn may have refreshed it: read again, with or without the turn.
                continue;
            }
            // A row that changed meanwhile (connected again, disconnected) is read again.
            match refresh(ctx, client, refresh_token, deadline.min(Instant::now() + REFRESH_WITHIN)).await {
                Ok(new) => {
                    crash_point!("refreshing: token given");
                    let grant = Grant {
                        refresh_token: new.refresh_token.or(stored.grant.refresh_token),
                        email: stored.grant.email,
                        scopes: stored.grant.scopes,
                        ..new
                    };
                    let row = grant.seal(user_id, &client.sealer);
                    if store::replace_grant(&ctx.db, user_id, &stored.text, &row, ctx.clock.now()).await? {
                        return Ok(Access { token: grant.access_token, row });
                    }
                }
                Err(Setback::Refused { reason, .. }) if reason == "invalid_grant" => {
                    if bury(ctx, user_id, &stored.text, "Google declares it dead").await? {
                        return Err(CalendarError::NotConnected);
                    }
                }
                Err(_) => return Err(CalendarError::Unavailable),
            }
        }
    }
}

async fn refresh(
    ctx: &Context,
    client: &GoogleClient,
    refresh_token: &str,
    deadline: Instant,
) -> Result<Grant, Setback> {
    let endpoint = token_endpoint(&ctx.settings, client).map_err(|_| Setback::passing("the token URI is no URL"))?;
    let (refresh_token, http) = (RefreshToken::new(refresh_token.to_owned()), Http(ctx.http.clone()));
    retrying(ctx, deadline, "token.refresh", || async {
        let request = endpoint.exchange_refresh_token(&refresh_token);
        read(request.request_async(&http).await, ctx.clock.now())
    })
    .await
}

/// Revokes a grant at Google: all access tokens go with the refresh token. False if a retry may succeed. If Google
/// refuses to revoke a grant, it no longer knows that grant.
pub async fn revoke(ctx: &Context, grant: &Grant) -> bool {
    let token = grant.refresh_token.as_ref().unwrap_or(&grant.access_token);
    let request = ctx.http.post(&ctx.settings.google_revoke_uri).form(&[("token", token)]).timeout(REVOKE_WITHIN);
    let answer = request.send().await;
    let outcome = match &answer {
        Ok(answer) if answer.status().is_success() => GoogleOutcome::Ok,
        Ok(_) => GoogleOutcome::Refused,
        Err(error) if error.is_timeout() => GoogleOutcome::Timeout,
        Err(_) => GoogleOutcome::Failed,
    };
    ctx.metrics.google("token.revoke", outcome);
    match answer {
        Ok(answer) => {
            let status = answer.status();
            tracing::info!(status = status.as_u16(), "asked Google to revoke a grant");
            !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
        }
        Err(error) => {
            tracing::info!(error = %error.without_url(), "could not revoke a grant");
            false
        }
    }
}

type TokenEndpoint = Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

type Tokens = StandardTokenResponse<OpenId, BasicTokenType>;

/// What OpenID Connect adds to the token endpoint's answer.
#[derive(Debug, Serialize, Deserialize)]
struct OpenId {
    id_token: Option<String>,
}

impl ExtraTokenFields for OpenId {}

fn token_endpoint(settings: &Settings, client: &GoogleClient) -> anyhow::Result<TokenEndpoint> {
    Ok(Client::new(ClientId::new(client.client_id.clone()))
        .set_client_secret(ClientSecret::new(client.client_secret.expose_secret().to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_redirect_uri(RedirectUrl::new(redirect_uri(settings))?)
        .set_token_uri(TokenUrl::new(settings.google_token_uri.clone())?))
}

/// No tokens from the token endpoint.
#[derive(Debug, thiserror::Error)]
#[error("no tokens")]
struct NoTokens(Setback);

impl From<reqwest::Error> for NoTokens {
    fn from(error: reqwest::Error) -> Self {
        NoTokens(Setback::passing(error.without_url()))
    }
}

/// Our HTTP client, as the protocol's library wants it.
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = NoTokens;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, NoTokens>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.0.execute(request.try_into()?).await?;
            let (status, headers, body) = (answer.status(), answer.headers().clone(), answer.bytes().await?);
            if !status.is_success() {
                // Read here: the library tells neither the status nor a refusal in another form from a garbled answer.
                let refusal = serde_json::from_slice::<BasicErrorResponse>(&body);
                let reason = refusal.map(|refusal| refusal.error().to_string()).unwrap_or_default();
                return Err(NoTokens(Setback::of(status, &headers, &reason)));
            }
            let mut response = HttpResponse::new(body.to_vec());
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok(response)
        })
    }
}

fn read(
    answer: Result<Tokens, RequestTokenError<NoTokens, BasicErrorResponse>>,
    now: DateTime<Utc>,
) -> Result<Grant, Setback> {
    let tokens = answer.map_err(|error| match error {
        RequestTokenError::Request(NoTokens(setback)) => setback,
        _ => Setback::passing("unreadable answer"),
    })?;
    let access_token = tokens.access_token().secret();
    if !store::is_sendable(access_token) {
        return Err(Setback::passing("unreadable access token"));
    }
    // Nobody grants tokens for more than a year.
    let lifetime = tokens.expires_in().map(|lifetime| lifetime.min(Duration::from_secs(365 * 24 * 3600)));
    Ok(Grant {
        access_token: access_token.clone(),
        refresh_token: tokens.refresh_token().map(|token| token.secret().clone()).filter(|token| !token.is_empty()),
        expires_at: lifetime.map(|lifetime| now + lifetime),
        scopes: match tokens.scopes() {
            Some(scopes) => scopes.iter().map(|scope| scope.to_string()).collect(),
            // RFC 6749 5.1: as asked.
            None => SCOPES.split(' ').map(str::to_owned).collect(),
        },
        email: tokens.extra_fields().id_token.as_deref().and_then(email_of),
    })
}

/// The account's address in an id_token. Its signature need not be checked: it came from Google itself over TLS
/// (OpenID Connect Core 3.1.3.7).
fn email_of(id_token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        email: Option<String>,
    }
    let payload = id_token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok()?.email.filter(|email| !email.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::Router;

    use super::{super::tests::*, *};
    use crate::{
        clock::Clock,
        dev::google::{Behaviour, Call, Fault, FaultKind, Simulator},
    };

    const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";

    impl Access {
        pub fn of(token: &str) -> Self {
            Access { token: token.to_owned(), row: String::new() }
        }
    }

    /// A click on "Allow": the code that the browser brings.
    fn code(google: &Simulator, ctx: &Context) -> String {
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(VERIFIER.into()));
        let client = ctx.settings.google.as_ref().expect("configured");
        let url = authorization_url(&ctx.settings, client, "a-state", challenge.as_str());
        let back = url::Url::parse(&google.allow(&url).expect("allowed")).expect("a URL");
        assert!(back.as_str().starts_with("https://api.test/api/company/google/callback/?"), "{back}");
        back.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned()
    }

    pub async fn granted(google: &Simulator, ctx: &Context) -> Grant {
        exchange(ctx, &code(google, ctx), VERIFIER).await.expect("a grant")
    }

    #[test]
    fn the_authorization_url_has_its_parameters_in_the_agreed_order() {
        let changes = [("GOOGLE_AUTH_URI", "https://accounts.google.com/o/oauth2/auth"), ("GOOGLE_CLIENT_ID", "c&d")];
        let ctx = tokio_context(&changes);
        let client = ctx.settings.google.as_ref().expect("configured");
        assert_eq!(
            authorization_url(&ctx.settings, client, "st-_1", "ch"),
            "https://accounts.google.com/o/oauth2/auth?response_type=code&client_id=c%26d\
             &redirect_uri=https%3A%2F%2Fapi.test%2Fapi%2Fcompany%2Fgoogle%2Fcallback%2F\
             &scope=openid+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.email\
             +https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.profile\
             +https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcalendar.events&state=st-_1&access_type=offline\
             &include_granted_scopes=true&prompt=consent&code_challenge=ch&code_challenge_method=S256"
        );
        let with_query = tokio_context(&[("GOOGLE_AUTH_URI", "http://stand-in.test/auth?a=b")]);
        let client = with_query.settings.google.as_ref().expect("configured");
        let url = authorization_url(&with_query.settings, client, "s", "c");
        assert!(url.starts_with("http://stand-in.test/auth?a=b&response_type=code&"), "{url}");
    }

    fn tokio_context(changes: &[(&str, &str)]) -> Context {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _entered = runtime.enter();
        context("http://127.0.0.1:1", changes, Clock::manual(DateTime::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_code_is_exchanged_for_a_whole_grant() {
        let (google, ctx) = world(&[]).await;
        let grant = granted(&google, &ctx).await;
        assert!(store::is_sendable(&grant.access_token) && grant.refresh_token.is_some());
        assert_eq!(grant.email.as_deref(), Some("rita@gmail.test"));
        let lasts = grant.expires_at.expect("an expiry") - ctx.clock.now();
        assert!((3000..=3600).contains(&lasts.num_seconds()), "{lasts}");
        assert!(includes_calendar(&grant.scopes));
    }

    #[tokio::test]
    async fn an_exchange_survives_passing_faults_and_refuses_a_missing_calendar() {
        let (google, ctx) = world(&[]).await;
        for kind in [FaultKind::status(503), FaultKind::status(429)] {
            google.order(Fault { on: Call::Exchange, times: 3, kind });
            granted(&google, &ctx).await;
        }
        let scopes = Some(vec!["openid".into(), "https://www.googleapis.com/auth/calendar.readonly".into()]);
        google.behave(Behaviour { granted_scopes: scopes, ..Behaviour::default() });
        assert!(exchange(&ctx, &code(&google, &ctx), VERIFIER).await.is_err());
        google.behave(Behaviour { names_scopes: false, id_token: false, refresh_token: false, ..Behaviour::default() });
        let bare = granted(&google, &ctx).await;
        assert!(includes_calendar(&bare.scopes) && bare.email.is_none() && bare.refresh_token.is_none());
        assert!(exchange(&ctx, "forged", VERIFIER).await.is_err());
        let wrong = exchange(&ctx, &code(&google, &ctx), "another-verifier-of-forty-three-characters-x").await;
        assert!(wrong.is_err());
    }

    #[tokio::test]
    async fn a_refresh_gives_a_new_token_until_the_grant_is_revoked() {
        let (google, ctx) = world(&[]).await;
        let grant = granted(&google, &ctx).await;
        let client = ctx.settings.google.as_ref().expect("configured");
        let refresh_token = grant.refresh_token.clone().expect("a refresh token");
        let soon = || Instant::now() + Duration::from_secs(5);
        let new = refresh(&ctx, client, &refresh_token, soon()).await.expect("a new token");
        assert!(new.access_token != grant.access_token);
        revoke(&ctx, &grant).await;
        let dead = refresh(&ctx, client, &refresh_token, soon()).await.err().expect("a refusal");
        assert!(matches!(&dead, Setback::Refused { reason, .. } if reason == "invalid_grant"), "{dead:?}");
        google.order(Fault { on: Call::Refresh, times: 4, kind: FaultKind::Garbage });
        let unreadable = refresh(&ctx, client, &refresh_token, soon()).await.err().expect("a setback");
        assert!(matches!(unreadable, Setback::Passing { .. }), "{unreadable:?}");
    }

    #[tokio::test]
    async fn a_refusal_in_whatever_form_ends_a_refresh_at_once_and_a_passing_fault_does_not() {
        for (status, body, attempts) in [
            (400, "<html>Bad Request</html>", 1),
            (403, "", 1),
            (401, r#"{"error":"invalid_client"}"#, 1),
            (429, "<html>Too Many Requests</html>", 4),
            (503, "", 4),
            (200, "<html>OK</html>", 4),
        ] {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = count.clone();
            let google = Router::new().fallback(async move || {
                counted.fetch_add(1, Ordering::Relaxed);
                (StatusCode::from_u16(status).expect("a status"), body)
            });
            let ctx = context(&stand_in(google).await, &[], Clock::manual(DateTime::UNIX_EPOCH));
            let client = ctx.settings.google.as_ref().expect("configured");
            let deadline = Instant::now() + Duration::from_secs(5);
            let setback = refresh(&ctx, client, "1//token", deadline).await.err().expect("a setback");
            assert_eq!(matches!(setback, Setback::Refused { .. }), attempts == 1, "{status} {body}: {setback:?}");
            assert_eq!(count.load(Ordering::Relaxed), attempts, "{status} {body}");
        }
    }

    #[test]
    fn the_address_is_read_from_the_id_token_if_there_is_one() {
        let token = |payload: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(email_of(&token(r#"{"email":"rita@gmail.test","aud":"c"}"#)).as_deref(), Some("rita@gmail.test"));
        for other in ["", "a", "a.b.c", &token("{}"), &token(r#"{"email":""}"#), &token(r#"{"email":7}"#), &token("[]")]
        {
            assert_eq!(email_of(other), None, "{other}");
        }
    }
}
