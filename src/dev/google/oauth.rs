//! The simulator's OAuth 2.0 server (RFC 6749, RFC 7636) as
//! <https://developers.google.com/identity/protocols/oauth2/web-server> describes Google's.
//!
//! Hides the rules of authorization requests, codes, tokens and client credentials. As at Google, revoking one token
//! ends everything the account granted to this client.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Behaviour, Options, Shared, World, pages,
    wire::{Incoming, Reply},
};
use crate::clock::random_bytes;

const SCOPE_PREFIX: &str = "https://www.googleapis.com/auth/";
const CODE_LIFETIME: TimeDelta = TimeDelta::minutes(10);
/// Seconds, as Google says it.
const ACCESS_LIFETIME: i64 = 3599;

/// What an account allowed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    pub account: String,
    pub scopes: Vec<String>,
}

impl Grant {
    /// Whether one of these calendar scopes (without Google's prefix) was granted.
    pub fn has_any(&self, names: &[&str]) -> bool {
        let granted = |scope: &String| scope.strip_prefix(SCOPE_PREFIX).is_some_and(|name| names.contains(&name));
        self.scopes.iter().any(granted)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Access {
    pub grant: Grant,
    pub expires_at: DateTime<Utc>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Code {
    grant: Grant,
    redirect_uri: String,
    challenge: String,
    /// Whether the exchange answers a refresh token.
    offline: bool,
    expires_at: DateTime<Utc>,
}

/// An authorization request that passed every check.
pub(super) struct Consent {
    redirect_uri: String,
    state: String,
    scopes: Vec<String>,
    prompt: String,
    offline: bool,
    challenge: String,
    login_hint: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/o/oauth2/auth", get(authorize).post(decide))
        .route("/o/oauth2/v2/auth", get(authorize).post(decide))
}

/// The pairs of a query or form.
pub(super) fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// The first non-empty value of this name.
pub(super) fn field<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// The first name that occurs twice.
fn repeated(pairs: &[(String, String)]) -> Option<&str> {
    let twice =
        |&(index, (name, _)): &(usize, &(String, String))| pairs[..index].iter().any(|(other, _)| other == name);
    pairs.iter().enumerate().find(twice).map(|(_, (name, _))| name.as_str())
}

fn secret<const N: usize>(kind: &str) -> String {
    format!("{kind}{}", URL_SAFE_NO_PAD.encode(random_bytes::<N>()))
}

/// A URI followed by these query parameters.
fn with_query(uri: &str, parameters: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{uri}{}{query}", if uri.contains('?') { '&' } else { '?' })
}

impl Consent {
    /// Checks an authorization request.
    ///
    /// # Errors
    /// A sentence that says what is wrong, begun with OAuth's error code.
    fn read(client_id: &str, query: &[(String, String)]) -> Result<Consent, String> {
        if let Some(name) = repeated(query) {
            return Err(format!("invalid_request: the parameter {name} occurs twice"));
        }
        let required = |name| field(query, name).ok_or_else(|| format!("invalid_request: {name} is missing"));
        let one_of = |name, default, known: &[&str]| {
            let value = field(query, name).unwrap_or(default);
            known.contains(&value).then_some(value).ok_or_else(|| format!("invalid_request: {name} is {value:?}"))
        };
        if required("client_id")? != client_id {
            return Err("invalid_client: the OAuth client was not found (client_id)".into());
        }
        let redirect_uri = required("redirect_uri")?;
        if !acceptable(redirect_uri) {
            return Err("redirect_uri_mismatch: redirect_uri is neither https nor http on a loopback host".into());
        }
        match required("response_type")? {
            "code" => {}
            other => return Err(format!("unsupported_response_type: response_type is {other:?}, not \"code\"")),
        }
        let scopes: Vec<String> = required("scope")?.split(' ').map(full_scope).collect();
        if let Some(odd) = scopes.iter().find(|scope| *scope != "openid" && !scope.starts_with(SCOPE_PREFIX)) {
            return Err(format!("invalid_scope: scope has {odd:?}, which does not exist"));
        }
        for needed in ["openid".to_owned(), format!("{SCOPE_PREFIX}calendar.events")] {
            if !scopes.contains(&needed) {
                return Err(format!("invalid_scope: scope lacks {needed}, which this server lives on"));
            }
        }
        let state = required("state")?;
        let offline = one_of("access_type", "online", &["online", "offline"])? == "offline";
        let prompt = field(query, "prompt").unwrap_or_default();
        if !prompt.split(' ').all(|word| matches!(word, "" | "none" | "consent" | "select_account")) {
            return Err(format!("invalid_request: prompt is {prompt:?}"));
        }
        one_of("include_granted_scopes", "false", &["true", "false"])?;
        if required("code_challenge_method")? != "S256" {
            return Err("invalid_request: code_challenge_method is not S256".into());
        }
        let challenge = required("code_challenge")?;
        if challenge.len() != 43 || URL_SAFE_NO_PAD.decode(challenge).is_err() {
            return Err("invalid_request: code_challenge is not the base64url of a SHA-256, 43 characters".into());
        }
        Ok(Consent {
            redirect_uri: redirect_uri.into(),
            state: state.into(),
            scopes,
            prompt: prompt.into(),
            offline: offline && prompt.split(' ').any(|word| word == "consent"),
            challenge: challenge.into(),
            login_hint: field(query, "login_hint").map(str::to_owned),
        })
    }

    /// The account that is chosen unless the person chooses another one.
    pub fn preselected<'a>(&self, accounts: &'a [String]) -> &'a str {
        let hinted = accounts.iter().find(|account| Some(*account) == self.login_hint.as_ref());
        hinted.or(accounts.first()).map_or("", String::as_str)
    }

    pub fn denied(&self) -> String {
        with_query(&self.redirect_uri, &[("error", "access_denied"), ("state", &self.state)])
    }
}

/// The scope's long name; Google answers these two only in that form.
fn full_scope(scope: &str) -> String {
    match scope {
        "email" | "profile" => format!("{SCOPE_PREFIX}userinfo.{scope}"),
        _ => scope.into(),
    }
}

/// Google takes https, and http on this machine alone; never a fragment.
fn acceptable(redirect_uri: &str) -> bool {
    url::Url::parse(redirect_uri).is_ok_and(|url| {
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.fragment().is_none() && (url.scheme() == "https" || url.scheme() == "http" && loopback)
    })
}

impl Shared {
    /// The authorization request in a URL of this simulator.
    pub(super) fn consent_at(&self, authorization_url: &str) -> Result<Consent, String> {
        let (page, query) = authorization_url.split_once('?').unwrap_or((authorization_url, ""));
        let path = page.strip_prefix(self.url.as_str()).unwrap_or_default();
        if !matches!(path, "/o/oauth2/auth" | "/o/oauth2/v2/auth") {
            return Err(format!("{page} is not this simulator's authorization page"));
        }
        Consent::read(&self.options.client_id, &pairs(query.as_bytes()))
    }

    /// Makes a code for an account and gives the `Location` it travels in.
    pub(super) fn allow(&self, consent: Consent, account: &str) -> Result<String, String> {
        if !self.options.accounts.iter().any(|known| known == account) {
            return Err(format!("invalid_request: there is no account {account:?} here"));
        }
        let now = self.options.clock.now();
        let code = secret::<32>("4/0A");
        let state = &mut *self.lock();
        let scopes = state.behaviour.granted_scopes.clone().unwrap_or_else(|| {
            let mut scopes = consent.scopes.clone();
            scopes.sort();
            scopes.dedup();
            scopes
        });
        let location = with_query(
            &consent.redirect_uri,
            &[
                ("state", &consent.state),
                ("code", &code),
                ("scope", &scopes.join(" ")),
                ("authuser", "0"),
                ("prompt", if consent.prompt.is_empty() { "none" } else { &consent.prompt }),
            ],
        );
        state.world.codes.retain(|_, code| code.expires_at > now);
        let code_ = Code {
            grant: Grant { account: account.into(), scopes },
            redirect_uri: consent.redirect_uri,
            challenge: consent.challenge,
            offline: consent.offline,
            expires_at: now + CODE_LIFETIME,
        };
        state.world.codes.insert(code, code_);
        self.keep(&state.world);
        Ok(location)
    }
}

#[derive(Template)]
#[template(path = "dev/google_consent.html")]
struct ConsentPage<'a> {
    accounts: &'a [String],
    preselected: &'a str,
    scopes: &'a [String],
    client_id: &'a str,
    redirect_uri: &'a str,
}

#[derive(Template)]
#[template(path = "dev/google_refused.html")]
struct RefusedPage<'a> {
    complaint: &'a str,
}

fn refused(complaint: &str) -> Response {
    (StatusCode::BAD_REQUEST, pages::html(&RefusedPage { complaint })).into_response()
}

fn sent_to(location: Result<String, String>) -> Response {
    match location {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(complaint) => refused(&complaint),
    }
}

async fn authorize(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = pairs(query.unwrap_or_default().as_bytes());
    let consent = match Consent::read(&shared.options.client_id, &query) {
        Ok(consent) => consent,
        Err(complaint) => return refused(&complaint),
    };
    let accounts = &shared.options.accounts;
    if field(&query, "_sim_allow") == Some("1") {
        let account = field(&query, "_sim_account").unwrap_or_else(|| consent.preselected(accounts)).to_owned();
        return sent_to(shared.allow(consent, &account));
    }
    pages::html(&ConsentPage {
        accounts,
        preselected: consent.preselected(accounts),
        scopes: &consent.scopes,
        client_id: &shared.options.client_id,
        redirect_uri: &consent.redirect_uri,
    })
}

/// "Allow" or "Deny" on the page, which posts to its own URL: the request is checked a second time.
async fn decide(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let form = pairs(&body);
    let decided =
        Consent::read(&shared.options.client_id, &pairs(query.unwrap_or_default().as_bytes())).and_then(|consent| {
            match field(&form, "decision") {
                Some("allow") => shared.allow(consent, field(&form, "account").unwrap_or_default()),
                Some("deny") => Ok(consent.denied()),
                _ => Err("invalid_request: neither allowed nor denied".into()),
            }
        });
    sent_to(decided)
}

/// `POST /token`.
pub(super) fn token(
    options: &Options,
    world: &mut World,
    behaviour: &Behaviour,
    incoming: &Incoming,
    now: DateTime<Utc>,
) -> Result<Reply, Reply> {
    let form = &incoming.form;
    let invalid = |description: &str| Reply::oauth_error(400, "invalid_request", description);
    let bad_grant = |description: &str| Reply::oauth_error(400, "invalid_grant", description);
    if !incoming.has_content_type("application/x-www-form-urlencoded") {
        return Err(invalid("The body is not a form."));
    }
    if let Some(name) = repeated(form) {
        return Err(invalid(&format!("OAuth 2 parameters can only have a single value: {name}")));
    }
    check_client(options, incoming)?;
    let required =
        |name: &str| field(form, name).ok_or_else(|| invalid(&format!("Missing required parameter: {name}")));
    let (grant, offline, refreshed) = match required("grant_type")? {
        "authorization_code" => {
            // Gone whatever comes next: a code is good for one attempt.
            let code = world.codes.remove(required("code")?).ok_or_else(|| bad_grant("Malformed auth code."))?;
            if code.expires_at <= now {
                return Err(bad_grant("Bad Request"));
            }
            if required("redirect_uri")? != code.redirect_uri {
                return Err(Reply::oauth_error(400, "redirect_uri_mismatch", "Bad Request"));
            }
            let verifier = field(form, "code_verifier").ok_or_else(|| bad_grant("Missing code verifier."))?;
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if !(43..=128).contains(&verifier.len())
                || !verifier.bytes().all(unreserved)
                || URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != code.challenge
            {
                return Err(bad_grant("Invalid code verifier."));
            }
            (code.grant, code.offline, false)
        }
        "refresh_token" => {
            let grant = world.refresh.get(required("refresh_token")?);
            let grant = grant.ok_or_else(|| bad_grant("Token has been expired or revoked."))?;
            (grant.clone(), behaviour.new_refresh_token_on_refresh, true)
        }
        other => {
            let description = format!("Invalid grant_type: {other}");
            return Err(Reply::oauth_error(400, "unsupported_grant_type", &description));
        }
    };
    let access_token = secret::<48>("ya29.a0");
    let mut answer = json!({"access_token": access_token, "expires_in": ACCESS_LIFETIME, "token_type": "Bearer"});
    if behaviour.names_scopes {
        answer["scope"] = grant.scopes.join(" ").into();
    }
    if behaviour.id_token && grant.scopes.iter().any(|scope| scope == "openid") {
        answer["id_token"] = id_token(options, &grant, now).into();
    }
    if offline && (refreshed || behaviour.refresh_token) {
        let refresh_token = secret::<48>("1//0");
        answer["refresh_token"] = refresh_token.as_str().into();
        world.refresh.insert(refresh_token, grant.clone());
    }
    world.access.retain(|_, access| access.expires_at > now);
    let expires_at = now + TimeDelta::seconds(ACCESS_LIFETIME);
    world.access.insert(access_token, Access { grant, expires_at });
    Ok(Reply::new(200, answer))
}

/// The client's id and secret, by HTTP Basic (RFC 6749 section 2.3.1) or in the body.
fn check_client(options: &Options, incoming: &Incoming) -> Result<(), Reply> {
    let decoded = |part: &str| pairs(format!("_={part}").as_bytes()).pop().map(|(_, value)| value);
    let by_header = incoming.authorization("Basic").map(|credentials| {
        let text = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
        let (id, secret) = text.split_once(':')?;
        Some((decoded(id)?, decoded(secret)?))
    });
    let in_body = || {
        let part = |name| field(&incoming.form, name).map(str::to_owned);
        Some((part("client_id")?, part("client_secret")?))
    };
    match by_header.unwrap_or_else(in_body) {
        Some((id, _)) if id != options.client_id => {
            Err(Reply::oauth_error(401, "invalid_client", "The OAuth client was not found."))
        }
        Some((_, secret)) if secret == options.client_secret => Ok(()),
        _ => Err(Reply::oauth_error(401, "invalid_client", "Unauthorized")),
    }
}

/// `POST /revoke`: everything the token's account granted ends.
pub(super) fn revoke(world: &mut World, incoming: &Incoming, now: DateTime<Utc>) -> Result<Reply, Reply> {
    let token = field(&incoming.form, "token").or_else(|| field(&incoming.query, "token"));
    let token = token.ok_or_else(|| Reply::oauth_error(400, "invalid_request", "Missing required parameter: token"))?;
    let by_access = || world.access.get(token).filter(|access| access.expires_at > now).map(|access| &access.grant);
    let Some(grant) = world.refresh.get(token).or_else(by_access) else {
        return Err(Reply::oauth_error(400, "invalid_token", "Token expired or revoked"));
    };
    let account = grant.account.clone();
    world.refresh.retain(|_, grant| grant.account != account);
    world.access.retain(|_, access| access.grant.account != account);
    Ok(Reply::new(200, json!({})))
}

/// An OpenID Connect id_token, signed with the client's secret (Google signs with RS256; who gets it directly from
/// the token endpoint need not verify it).
fn id_token(options: &Options, grant: &Grant, now: DateTime<Utc>) -> String {
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let digits: String = Sha256::digest(&grant.account)[..10].iter().map(|byte| format!("{:02}", byte % 100)).collect();
    let mut claims = json!({
        "iss": "https://accounts.google.com",
        "azp": options.client_id,
        "aud": options.client_id,
        "sub": format!("1{digits}"),
        "iat": now.timestamp(),
        "exp": now.timestamp() + ACCESS_LIFETIME + 1,
    });
    if grant.has_any(&["userinfo.email"]) {
        claims["email"] = grant.account.as_str().into();
        claims["email_verified"] = true.into();
    }
    let signed = format!("{}.{}", encoded(json!({"alg": "HS256", "typ": "JWT"})), encoded(claims));
    let signature = hmac_sha256(options.client_secret.as_bytes(), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// RFC 2104 with SHA-256.
fn hmac_sha256(key: &[u8], message: &[u8]) -> impl AsRef<[u8]> {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize()
}
