//! Authorization at Google: the authorization code flow with PKCE (RFC 6749, RFC 7636), refresh, revocation.
//!
//! Hides the token endpoint, whose answers become [`Grant`]s, and that of all requests of all instances only one
//! refreshes a grant at a time. Promises: no network call inside a transaction or with a pooled connection in hand;
//! no token, code or state in a log. Google's page on it: "Using OAuth 2.0 for Web Server Applications".

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use oauth2::{
    AuthType, AuthorizationCode, Client, ClientId, ClientSecret, EndpointNotSet, EndpointSet, ExtraTokenFields,
    HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError,
    StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
    basic::{
        BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
        BasicTokenType,
    },
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    CalendarError, Setback, retrying,
    store::{self, Grant},
};
use crate::{
    clock::{random_bytes, random_uuid},
    config::{GoogleClient, Settings},
    context::Context,
    http,
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

/// Begins an authorization of `user_id`: the URL to send the browser to and the state in it, valid once within 10 minutes.
pub async fn begin(ctx: &Context, user_id: i64) -> http::Result<(String, String)> {
    let Some(client) = &ctx.settings.google else { return Err(super::not_configured()) };
    let state = PlainToken::generate();
    let verifier = PkceCodeVerifier::new(URL_SAFE_NO_PAD.encode(random_bytes::<32>()));
    store::put_state(&ctx.db, user_id, &state, verifier.secret(), &client.sealer, ctx.clock.now()).await?;
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
    let endpoint = token_endpoint(&ctx.settings, client)?;
    let deadline = Instant::now() + ctx.settings.google_budget;
    let grant = retrying(ctx, deadline, "token.exchange", || async {
        let request = endpoint
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(code_verifier.to_owned()));
        let answer = request.request_async(&|request| send(&ctx.http, request)).await;
        read(answer, ctx.clock.now())
    });
    let grant = grant.await.map_err(|_| anyhow!("Google did not take the code"))?;
    ensure!(includes_calendar(&grant.scopes), "the calendar was not granted");
    Ok(grant)
}

fn includes_calendar(scopes: &[String]) -> bool {
    scopes.iter().any(|scope| CALENDAR_SCOPES.contains(&scope.as_str()))
}

/// An access token, and the row it is from.
pub struct Access {
    pub token: String,
    row: String,
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
    if turn.held {
        store::release(&ctx.db, user_id, turn.holder).await?;
    }
    access
}

/// Removes the grant that Google refused right after a refresh, unless another has taken its place.
pub async fn bury(ctx: &Context, user_id: i64, refused: &Access) -> Result<(), CalendarError> {
    tracing::warn!(user_id, "Google refuses a fresh access token; the grant is removed");
    store::remove_dead_grant(&ctx.db, user_id, &refused.row).await?;
    Ok(())
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
                tracing::info!(user_id, "the access token has ended and there is no refresh token; the grant is removed");
                store::remove_dead_grant(&ctx.db, user_id, &stored.text).await?;
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
                // Whoever had the turn may have refreshed it: read again, with or without the turn.
                continue;
            }
            // A row that changed meanwhile (connected anew, disconnected) is read again.
            match refresh(ctx, client, refresh_token, deadline.min(Instant::now() + REFRESH_WITHIN)).await {
                Ok(new) => {
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
                    tracing::info!(user_id, "Google declares the grant dead; it is removed");
                    if store::remove_dead_grant(&ctx.db, user_id, &stored.text).await? {
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
    let refresh_token = RefreshToken::new(refresh_token.to_owned());
    retrying(ctx, deadline, "token.refresh", || async {
        let request = endpoint.exchange_refresh_token(&refresh_token);
        read(request.request_async(&|request| send(&ctx.http, request)).await, ctx.clock.now())
    })
    .await
}

/// Takes a grant back at Google, as far as Google listens: with the refresh token go all access tokens.
pub async fn revoke(ctx: &Context, grant: &Grant) {
    let token = grant.refresh_token.as_ref().unwrap_or(&grant.access_token);
    let request = ctx.http.post(&ctx.settings.google_revoke_uri).form(&[("token", token)]).timeout(REVOKE_WITHIN);
    match request.send().await {
        Ok(answer) => tracing::info!(status = answer.status().as_u16(), "revoked a grant"),
        Err(error) => tracing::info!(error = %error.without_url(), "could not revoke a grant"),
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

/// No answer of the token endpoint that the protocol knows.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct NoAnswer(Setback);

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        NoAnswer(Setback::passing(error.without_url()))
    }
}

async fn send(http: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
    let answer = http.execute(request.try_into()?).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    if let passing @ Setback::Passing { .. } = Setback::of(status, &headers, "") {
        return Err(NoAnswer(passing));
    }
    let mut response = HttpResponse::new(answer.bytes().await?.to_vec());
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    Ok(response)
}

fn read(
    answer: Result<Tokens, RequestTokenError<NoAnswer, BasicErrorResponse>>,
    now: DateTime<Utc>,
) -> Result<Grant, Setback> {
    let tokens = answer.map_err(|error| match error {
        RequestTokenError::ServerResponse(refusal) => {
            Setback::Refused { status: StatusCode::BAD_REQUEST, reason: refusal.error().to_string() }
        }
        RequestTokenError::Request(NoAnswer(setback)) => setback,
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => Setback::passing("unreadable answer"),
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
