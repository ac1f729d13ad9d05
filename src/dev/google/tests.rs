//! The simulator against a plain HTTP client over TCP: what it grants, what it refuses, how it fails on order.

use reqwest::{Client, Response, redirect::Policy};
use serde_json::json;

use super::{oauth::pairs, *};

const VERIFIER: &str = "a-verifier.of_more~than-forty-three-characters";
const CALLBACK: &str = "http://127.0.0.1:8000/api/company/google/callback/";
const EVENTS: &str = "/calendar/v3/calendars/primary/events";
const ID: &str = "0123456789abcdefghijklmnopqrstuv";
const SCOPE: &str = "openid https://www.googleapis.com/auth/userinfo.email \
                     https://www.googleapis.com/auth/userinfo.profile https://www.googleapis.com/auth/calendar.events";

struct World {
    sim: Simulator,
    http: Client,
    clock: Clock,
}

fn options(clock: &Clock) -> Options {
    Options {
        clock: clock.clone(),
        client_id: "the client".into(),
        client_secret: "a+secret/with:marks".into(),
        state_file: None,
        accounts: vec!["rita@x.test".into(), "otto@x.test".into()],
    }
}

#[allow(clippy::disallowed_methods, reason = "a browser of the tests, outside the program")]
fn client() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

async fn started() -> World {
    let clock = Clock::manual("2026-11-20T10:00:00Z".parse().unwrap());
    let sim = Simulator::start("127.0.0.1:0".parse().unwrap(), options(&clock)).await.unwrap();
    World { sim, http: client(), clock }
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn challenge() -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use sha2::{Digest, Sha256};
    URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// The authorization URL of the product, with some parameters changed (`None`: left out).
fn authorization_url(sim: &Simulator, changes: &[(&str, Option<&str>)]) -> String {
    let challenge = challenge();
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", "the client"),
        ("redirect_uri", CALLBACK),
        ("scope", SCOPE),
        ("state", "a state & more"),
        ("access_type", "offline"),
        ("include_granted_scopes", "true"),
        ("prompt", "consent"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    for (name, value) in changes {
        parameters.retain(|(known, _)| known != name);
        parameters.extend(value.map(|value| (*name, value)));
    }
    format!("{}/o/oauth2/auth?{}", sim.url(), encoded(&parameters))
}

/// A parameter of the URL a browser was sent to.
fn sent(location: &str, name: &str) -> Option<String> {
    let query = location.split_once('?')?.1;
    pairs(query.as_bytes()).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

impl World {
    fn code(&self) -> String {
        sent(&self.sim.allow(&authorization_url(&self.sim, &[])).unwrap(), "code").unwrap()
    }

    /// `POST /token` with the client's credentials and these fields.
    async fn token(&self, fields: &[(&str, &str)]) -> (u16, Value) {
        let mut form = vec![("client_id", "the client"), ("client_secret", "a+secret/with:marks")];
        for (name, value) in fields {
            form.retain(|(known, _)| known != name);
            form.push((name, value));
        }
        let response = self.http.post(format!("{}/token", self.sim.url())).form(&form).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> (u16, Value) {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        form.extend(changes);
        let mut last: Vec<(&str, &str)> = Vec::new();
        for (name, value) in form {
            last.retain(|(known, _)| *known != name);
            last.push((name, value));
        }
        self.token(&last).await
    }

    /// Access and refresh token of an account.
    async fn connected_as(&self, account: &str) -> (String, String) {
        let location = self.sim.allow_as(&authorization_url(&self.sim, &[]), account).unwrap();
        let (status, tokens) = self.exchange(&sent(&location, "code").unwrap(), &[]).await;
        assert_eq!(status, 200, "{tokens}");
        (tokens["access_token"].as_str().unwrap().into(), tokens["refresh_token"].as_str().unwrap().into())
    }

    async fn connected(&self) -> String {
        self.connected_as("rita@x.test").await.0
    }

    async fn refresh(&self, refresh_token: &str) -> (u16, Value) {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
    }

    fn request(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.sim.url()));
        let request = request.bearer_auth(token);
        if let Some(body) = body { request.json(body) } else { request }
    }

    async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> (u16, Value) {
        answer(self.request(method, path, token, body.as_ref()).send().await.unwrap()).await
    }

    async fn insert(&self, token: &str, body: Value) -> (u16, Value) {
        self.call("POST", &format!("{EVENTS}?conferenceDataVersion=1&sendUpdates=none"), token, Some(body)).await
    }

    async fn event(&self, token: &str) -> (u16, Value) {
        self.call("GET", &format!("{EVENTS}/{ID}"), token, None).await
    }
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() })
}

/// What the contract sends.
fn interview() -> Value {
    json!({
        "id": ID,
        "summary": "Interview: Software Engineer",
        "description": "Interview scheduled for Software Engineer",
        "start": {"dateTime": "2030-01-15T19:00:00Z", "timeZone": "America/New_York"},
        "end": {"dateTime": "2030-01-15T20:00:00Z", "timeZone": "America/New_York"},
        "attendees": [{"email": "carl@x.test"}, {"email": "rita@x.test"}],
        "conferenceData": {"createRequest": {"requestId": "9f0c", "conferenceSolutionKey": {"type": "hangoutsMeet"}}},
        "reminders": {"useDefault": false, "overrides": [{"method": "email", "minutes": 1440}]},
    })
}

fn reason(body: &Value) -> &str {
    body["error"]["errors"][0]["reason"].as_str().unwrap_or_default()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}

#[tokio::test]
async fn the_whole_dance_from_the_authorization_page_to_a_cancelled_event() {
    let world = started().await;
    let url = authorization_url(&world.sim, &[]);
    let page = world.http.get(&url).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("SIMULATOR") && page.contains("otto@x.test") && page.contains("calendar.events"), "{page}");

    let form = [("decision", "allow"), ("account", "rita@x.test")];
    let allowed = world.http.post(&url).form(&form).send().await.unwrap();
    assert_eq!(allowed.status(), 302);
    let location = allowed.headers()["location"].to_str().unwrap();
    assert!(location.starts_with(CALLBACK));
    assert_eq!(sent(location, "state").unwrap(), "a state & more");

    let (status, tokens) = world.exchange(&sent(location, "code").unwrap(), &[]).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(3599)));
    assert!(tokens["refresh_token"].is_string());
    let token = tokens["access_token"].as_str().unwrap();

    let (status, event) = world.insert(token, interview()).await;
    assert_eq!(status, 200, "{event}");
    assert_eq!(event["conferenceData"]["createRequest"]["status"]["statusCode"], "pending");
    assert!(event["conferenceData"]["entryPoints"].is_null() && event["hangoutLink"].is_null());
    assert_eq!(event["iCalUID"], format!("{ID}@google.com"));
    assert_eq!(event["organizer"], json!({"email": "rita@x.test", "self": true}));
    assert_eq!(event["attendees"][0]["responseStatus"], "needsAction");

    let (status, event) = world.event(token).await;
    assert_eq!(status, 200);
    assert_eq!(event["conferenceData"]["createRequest"]["status"]["statusCode"], "success");
    let link = event["conferenceData"]["entryPoints"][0]["uri"].as_str().unwrap();
    assert!(link.starts_with("https://meet.google.com/") && event["hangoutLink"] == link);

    let later = json!({
        "summary": "Interview: later",
        "start": {"dateTime": "2030-01-15T15:00:00-05:00", "timeZone": "America/New_York"},
        "end": {"dateTime": "2030-01-15T16:00:00-05:00", "timeZone": "America/New_York"},
    });
    let path = format!("{EVENTS}/{ID}?conferenceDataVersion=1&sendUpdates=none");
    let (status, changed) = world.call("PATCH", &path, token, Some(later)).await;
    assert_eq!((status, &changed["sequence"]), (200, &json!(1)));
    assert_eq!(changed["description"], event["description"]);
    assert_eq!(changed["hangoutLink"], event["hangoutLink"]);
    assert_ne!(changed["etag"], event["etag"]);

    let path = format!("{EVENTS}/{ID}?sendUpdates=none");
    assert_eq!(world.call("DELETE", &path, token, None).await, (204, Value::Null));
    let (status, event) = world.event(token).await;
    assert_eq!((status, &event["status"]), (200, &json!("cancelled")));
    let (status, gone) = world.call("DELETE", &path, token, None).await;
    assert_eq!((status, reason(&gone)), (410, "deleted"));

    let path = format!("{EVENTS}/{ID}");
    let (status, event) = world.call("PATCH", &path, token, Some(json!({"summary": "x"}))).await;
    assert_eq!((status, &event["status"]), (200, &json!("cancelled")));
    let calls: Vec<Call> = world.sim.requests().iter().map(|call| call.call).collect();
    use Call::*;
    assert_eq!(calls, [Exchange, Insert, Get, Patch, Delete, Get, Delete, Patch]);
}

#[tokio::test]
async fn a_wrong_authorization_request_is_refused_with_the_name_of_what_is_wrong() {
    let world = started().await;
    let wrong: [(&str, Option<&str>); 20] = [
        ("response_type", Some("token")),
        ("response_type", None),
        ("client_id", Some("another")),
        ("redirect_uri", Some("http://x.test/callback")),
        ("redirect_uri", Some("https://x.test/callback#part")),
        ("redirect_uri", None),
        ("scope", Some("https://www.googleapis.com/auth/calendar.events")),
        ("scope", Some("openid email profile")),
        ("scope", Some("openid https://www.googleapis.com/auth/calendar.events events")),
        ("scope", None),
        ("state", None),
        ("state", Some("")),
        ("access_type", Some("Offline")),
        ("prompt", Some("always")),
        ("include_granted_scopes", Some("yes")),
        ("code_challenge", None),
        ("code_challenge", Some("short")),
        ("code_challenge", Some("a/+________________________________________")),
        ("code_challenge_method", Some("plain")),
        ("code_challenge_method", None),
    ];
    for (name, value) in wrong {
        let url = authorization_url(&world.sim, &[(name, value)]);
        let page = world.http.get(&url).send().await.unwrap();
        assert_eq!(page.status(), 400, "{name}={value:?}");
        assert!(page.text().await.unwrap().contains(name), "{name}={value:?}");
        assert!(world.sim.allow(&url).unwrap_err().contains(name), "{name}={value:?}");
    }
    let twice = authorization_url(&world.sim, &[]) + "&state=another";
    assert!(world.sim.allow(&twice).unwrap_err().contains("state occurs twice"));
    assert!(world.sim.allow("https://accounts.google.com/o/oauth2/auth?x").is_err());
    let hostile = authorization_url(&world.sim, &[("prompt", Some("<script>"))]);
    assert!(!world.http.get(hostile).send().await.unwrap().text().await.unwrap().contains("<script>"));
    for good in ["https://x.test/callback?a=b", "http://localhost:3000/", "http://[::1]:8000/"] {
        let location = world.sim.allow(&authorization_url(&world.sim, &[("redirect_uri", Some(good))])).unwrap();
        assert!(location.starts_with(good) && sent(&location, "code").is_some(), "{location}");
    }
}

#[tokio::test]
async fn a_person_can_deny_choose_another_account_or_be_skipped_by_a_script() {
    let world = started().await;
    let url = authorization_url(&world.sim, &[]);
    let denied = world.http.post(&url).form(&[("decision", "deny")]).send().await.unwrap();
    let location = denied.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, world.sim.deny(&url).unwrap());
    assert_eq!(location, format!("{CALLBACK}?error=access_denied&state=a+state+%26+more"));
    let undecided = world.http.post(&url).form(&[("account", "rita@x.test")]).send().await.unwrap();
    assert_eq!(undecided.status(), 400);
    assert!(world.sim.allow_as(&url, "stranger@x.test").is_err());

    for (extra, account) in
        [("&_sim_allow=1", "rita@x.test"), ("&_sim_allow=1&_sim_account=otto@x.test", "otto@x.test")]
    {
        let skipped = world.http.get(format!("{url}{extra}")).send().await.unwrap();
        assert_eq!(skipped.status(), 302);
        let code = sent(skipped.headers()["location"].to_str().unwrap(), "code").unwrap();
        let (_, tokens) = world.exchange(&code, &[]).await;
        assert_eq!(claims(&tokens)["email"], account);
    }
}

/// The claims of an id_token whose signature is right.
fn claims(tokens: &Value) -> Value {
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.validate_exp = false;
    validation.set_audience(&["the client"]);
    let key = jsonwebtoken::DecodingKey::from_secret(b"a+secret/with:marks");
    let token = tokens["id_token"].as_str().unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims
}

#[tokio::test]
async fn the_id_token_is_a_signed_jwt_that_names_account_and_client() {
    let world = started().await;
    let (_, tokens) = world.exchange(&world.code(), &[]).await;
    let claims = claims(&tokens);
    assert_eq!(claims["iss"], "https://accounts.google.com");
    assert_eq!((&claims["email"], &claims["email_verified"]), (&json!("rita@x.test"), &json!(true)));
    assert_eq!(claims["exp"].as_i64().unwrap() - world.clock.now().timestamp(), 3600);
    assert!(claims["sub"].as_str().unwrap().bytes().all(|byte| byte.is_ascii_digit()));
}

#[tokio::test]
async fn a_code_is_good_once_for_its_client_its_redirect_uri_and_its_verifier() {
    let world = started().await;
    let other = "another-verifier-of-more-than-forty-three-chars";
    for (change, error) in [
        (("code_verifier", other), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (("code_verifier", "short"), "invalid_grant"),
        (("redirect_uri", "http://127.0.0.1:8000/"), "redirect_uri_mismatch"),
    ] {
        let code = world.code();
        let (status, body) = world.exchange(&code, &[change]).await;
        assert_eq!((status, &body["error"]), (400, &json!(error)), "{change:?}");
        let (status, body) = world.exchange(&code, &[]).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")), "spent after {change:?}");
    }
    let code = world.code();
    assert_eq!(world.exchange(&code, &[("client_secret", "wrong")]).await.0, 401);
    assert_eq!(world.exchange(&code, &[("client_id", "wrong")]).await.1["error"], "invalid_client");
    assert_eq!(world.exchange(&code, &[]).await.0, 200);
    assert_eq!(world.exchange(&code, &[]).await.1["error"], "invalid_grant");

    let code = world.code();
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(world.exchange(&code, &[]).await.1["error"], "invalid_grant");
    assert_eq!(world.exchange(&world.code(), &[("grant_type", "password")]).await.1["error"], "unsupported_grant_type");
    let kept = world.sim.requests();
    assert!(!format!("{kept:?}").contains(&code) && !format!("{kept:?}").contains(VERIFIER), "no secret is recorded");
}

#[tokio::test]
async fn client_credentials_are_taken_from_http_basic_too_form_encoded_inside() {
    let world = started().await;
    let code = world.code();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let request = world.http.post(format!("{}/token", world.sim.url())).form(&form);
    let response = request.basic_auth("the+client", Some("a%2Bsecret%2Fwith%3Amarks")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let request = world.http.post(format!("{}/token", world.sim.url())).json(&json!({"grant_type": "refresh_token"}));
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_access_token_ends_after_3599_seconds_and_a_refresh_token_gives_the_next() {
    let world = started().await;
    let (token, refresh_token) = world.connected_as("rita@x.test").await;
    world.clock.advance(Duration::from_secs(3598));
    assert_eq!(world.insert(&token, interview()).await.0, 200);
    world.clock.advance(Duration::from_secs(1));
    let response = world.request("GET", &format!("{EVENTS}/{ID}"), &token, None).send().await.unwrap();
    assert!(response.headers().contains_key("www-authenticate"));
    let (status, body) = answer(response).await;
    assert_eq!((status, reason(&body)), (401, "authError"));

    let (status, refreshed) = world.refresh(&refresh_token).await;
    assert_eq!(status, 200, "{refreshed}");
    assert!(refreshed["refresh_token"].is_null());
    let token = refreshed["access_token"].as_str().unwrap();
    assert_eq!(world.event(token).await.0, 200);
    world.sim.expire_access_tokens();
    assert_eq!(world.event(token).await.0, 401);
    assert_eq!(world.refresh(&refresh_token).await.0, 200);
    assert_eq!(world.refresh("1//unknown").await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn a_refresh_token_comes_only_with_offline_access_and_consent() {
    let world = started().await;
    for change in [("access_type", Some("online")), ("access_type", None), ("prompt", None), ("prompt", Some("none"))] {
        let location = world.sim.allow(&authorization_url(&world.sim, &[change])).unwrap();
        let (status, tokens) = world.exchange(&sent(&location, "code").unwrap(), &[]).await;
        assert_eq!((status, &tokens["refresh_token"]), (200, &Value::Null), "{change:?}");
    }
}

#[tokio::test]
async fn revoking_one_token_ends_everything_its_account_granted() {
    let world = started().await;
    let (first, _) = world.connected_as("rita@x.test").await;
    let (second, refresh_token) = world.connected_as("rita@x.test").await;
    let (other, _) = world.connected_as("otto@x.test").await;
    let revoke = |token: String| {
        let request = world.http.post(format!("{}/revoke", world.sim.url())).form(&[("token", token)]);
        async { answer(request.send().await.unwrap()).await }
    };
    assert_eq!(revoke(refresh_token.clone()).await, (200, json!({})));
    let (status, body) = revoke(refresh_token.clone()).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_token")));
    assert_eq!(world.refresh(&refresh_token).await.1["error"], "invalid_grant");
    assert_eq!(world.event(&first).await.0, 401);
    assert_eq!(world.event(&second).await.0, 401);
    assert_eq!(world.event(&other).await.0, 404);
    world.sim.revoke_grants();
    assert_eq!(world.event(&other).await.0, 401);
    assert_eq!(
        world.sim.requests().iter().find(|call| call.call == Call::Revoke).unwrap().body,
        json!({"token": "1//…"})
    );
}

#[tokio::test]
async fn grants_differ_as_ordered() {
    let world = started().await;
    let fewer = vec!["openid".to_owned(), "https://www.googleapis.com/auth/userinfo.email".to_owned()];
    world.sim.behave(Behaviour {
        granted_scopes: Some(fewer.clone()),
        refresh_token: false,
        id_token: false,
        ..Behaviour::default()
    });
    let (_, tokens) = world.exchange(&world.code(), &[]).await;
    assert_eq!(tokens["scope"], fewer.join(" "));
    assert!(tokens["refresh_token"].is_null() && tokens["id_token"].is_null());
    let (status, body) = world.insert(tokens["access_token"].as_str().unwrap(), interview()).await;
    assert_eq!((status, reason(&body)), (403, "insufficientPermissions"));

    world.sim.behave(Behaviour {
        names_scopes: false,
        new_refresh_token_on_refresh: true,
        organizer: Some("team@x.test".into()),
        ..Behaviour::default()
    });
    let (token, refresh_token) = world.connected_as("rita@x.test").await;
    let (_, refreshed) = world.refresh(&refresh_token).await;
    assert!(refreshed["scope"].is_null());
    assert_ne!(refreshed["refresh_token"], refresh_token);
    assert_eq!(world.refresh(refreshed["refresh_token"].as_str().unwrap()).await.0, 200);
    let (_, event) = world.insert(&token, interview()).await;
    assert_eq!(event["organizer"]["email"], "team@x.test");
}

#[tokio::test]
async fn an_event_google_would_refuse_is_refused() {
    let world = started().await;
    let token = world.connected().await;
    let wrong: [(&str, Value, &str); 26] = [
        ("/id", json!("abcd"), "invalid"),
        ("/id", json!("abcdw"), "invalid"),
        ("/id", json!("ABCDE"), "invalid"),
        ("/id", json!("a".repeat(1025)), "invalid"),
        ("/id", json!(12345), "invalid"),
        ("/start", Value::Null, "required"),
        ("/end", json!({"timeZone": "UTC"}), "required"),
        ("/end", json!("2030-01-15T20:00:00Z"), "required"),
        ("/start/dateTime", json!("2030-01-15T19:00:00"), "badRequest"),
        ("/start/dateTime", json!("2030-01-15 19:00:00Z"), "badRequest"),
        ("/start/dateTime", json!(1_900_000_000), "badRequest"),
        ("/start/timeZone", json!(""), "invalid"),
        ("/end/timeZone", json!("New York"), "invalid"),
        ("/end/dateTime", json!("2030-01-15T19:00:00Z"), "timeRangeEmpty"),
        ("/end/dateTime", json!("2030-01-15T20:00:00+02:00"), "timeRangeEmpty"),
        ("/attendees", json!({}), "invalid"),
        ("/attendees/0/email", json!("carl"), "invalid"),
        ("/attendees/0", json!("carl@x.test"), "invalid"),
        ("/attendees/0/email", json!("carl@"), "invalid"),
        ("/summary", json!(7), "invalid"),
        ("/status", json!("gone"), "invalid"),
        ("/status", Value::Null, "invalid"),
        ("/reminders/useDefault", json!(true), "cannotUseDefaultRemindersAndSpecifyOverride"),
        ("/reminders/overrides/0/method", json!("sms"), "invalid"),
        ("/conferenceData/createRequest/requestId", json!(""), "required"),
        ("/conferenceData/createRequest/conferenceSolutionKey/type", json!("zoom"), "invalid"),
    ];
    for (pointer, value, expected) in wrong {
        let mut body = interview();
        match pointer {
            "/status" => body["status"] = value.clone(),
            _ => *body.pointer_mut(pointer).unwrap() = value.clone(),
        }
        let (status, answer) = world.insert(&token, body).await;
        assert_eq!((status, reason(&answer)), (400, expected), "{pointer} = {value}");
    }
    for (path, reason_) in [("?conferenceDataVersion=2", "invalidParameter"), ("?sendUpdates=some", "invalidParameter")]
    {
        let (status, answer) = world.call("POST", &format!("{EVENTS}{path}"), &token, Some(interview())).await;
        assert_eq!((status, reason(&answer)), (400, reason_), "{path}");
    }
    assert_eq!(world.insert(&token, json!([])).await.0, 400);
    let request = world.request("POST", EVENTS, &token, None);
    let broken = request.header("content-type", "application/json").body("{").send().await.unwrap();
    assert_eq!(reason(&answer(broken).await.1), "parseError");
    let unlabelled = world.request("POST", EVENTS, &token, None).body(interview().to_string()).send().await.unwrap();
    assert_eq!(unlabelled.status(), 400);
    assert_eq!(world.sim.events(), [] as [Value; 0]);
}

#[tokio::test]
async fn an_id_cannot_be_used_twice_even_after_its_event_is_deleted() {
    let world = started().await;
    let token = world.connected().await;
    assert_eq!(world.insert(&token, interview()).await.0, 200);
    let (status, body) = world.insert(&token, interview()).await;
    assert_eq!((status, reason(&body)), (409, "duplicate"));
    assert_eq!(world.call("DELETE", &format!("{EVENTS}/{ID}"), &token, None).await.0, 204);
    assert_eq!(world.insert(&token, interview()).await.0, 409);

    let other = world.connected_as("otto@x.test").await.0;
    let (status, body) = world.event(&other).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "another account's events are not there");
    let mut body = interview();
    body["id"] = Value::Null;
    let (_, event) = world.insert(&other, body).await;
    assert!(event["id"].as_str().is_some_and(|id| id.len() == 26), "an id is chosen when none is given");
    assert_eq!(world.sim.events().len(), 2);
}

#[tokio::test]
async fn credentials_are_asked_for() {
    let world = started().await;
    let response = world.http.get(format!("{}{EVENTS}/{ID}", world.sim.url())).send().await.unwrap();
    let (status, body) = answer(response).await;
    assert_eq!((status, reason(&body)), (401, "required"));
    assert_eq!(world.event("made-up").await.0, 401);
    assert_eq!(world.call("GET", "/calendar/v3/users/me", &world.connected().await, None).await.0, 404);
}

#[tokio::test]
async fn a_conference_needs_version_1_of_conference_data_and_a_new_request_id() {
    let world = started().await;
    let token = world.connected().await;
    let (status, event) = world.call("POST", EVENTS, &token, Some(interview())).await;
    assert_eq!((status, &event["conferenceData"]), (200, &Value::Null));

    let ask = |request_id: &str| json!({"conferenceData": {"createRequest": {"requestId": request_id}}});
    let path = format!("{EVENTS}/{ID}?conferenceDataVersion=1");
    world.sim.behave(Behaviour { pending_answers: 0, ..Behaviour::default() });
    let (_, event) = world.call("PATCH", &path, &token, Some(ask("one"))).await;
    let link = event["hangoutLink"].clone();
    assert!(link.is_string());
    let (_, event) = world.call("PATCH", &path, &token, Some(ask("one"))).await;
    assert_eq!(event["hangoutLink"], link, "a request id seen before is ignored");
    let (_, event) = world.call("PATCH", &path, &token, Some(ask("two"))).await;
    assert_ne!(event["hangoutLink"], link);
    let (_, event) = world.call("PATCH", &path, &token, Some(json!({"conferenceData": null}))).await;
    assert!(event["hangoutLink"].is_null() && event["conferenceData"].is_null());
}

#[tokio::test]
async fn a_meet_link_takes_the_ordered_shape_after_the_ordered_wait() {
    let world = started().await;
    let token = world.connected().await;
    for (number, meet) in
        [Meet::PhoneFirst, Meet::PhoneOnly, Meet::HangoutLinkOnly, Meet::Failure, Meet::Missing].into_iter().enumerate()
    {
        world.sim.behave(Behaviour { meet, pending_answers: 0, ..Behaviour::default() });
        let mut body = interview();
        body["id"] = format!("event{number}").into();
        body["conferenceData"]["createRequest"]["requestId"] = number.to_string().into();
        let (_, event) = world.insert(&token, body).await;
        let conference = &event["conferenceData"];
        let kinds: Vec<&Value> =
            conference["entryPoints"].as_array().into_iter().flatten().map(|entry| &entry["entryPointType"]).collect();
        match meet {
            Meet::PhoneFirst => assert_eq!(kinds, ["phone", "video"]),
            Meet::PhoneOnly => assert!(kinds == ["phone"] && event["hangoutLink"].is_null()),
            Meet::HangoutLinkOnly => assert!(conference.is_null() && event["hangoutLink"].is_string()),
            Meet::Failure => assert_eq!(conference["createRequest"]["status"]["statusCode"], "failure"),
            _ => assert!(conference.is_null() && event["hangoutLink"].is_null()),
        }
    }
    world.sim.behave(Behaviour { pending_answers: 3, ..Behaviour::default() });
    let (_, event) = world.insert(&token, interview()).await;
    let pending = |event: &Value| event["conferenceData"]["createRequest"]["status"]["statusCode"] == "pending";
    assert!(pending(&event));
    assert!(pending(&world.event(&token).await.1) && pending(&world.event(&token).await.1));
    assert!(!pending(&world.event(&token).await.1));
}

#[tokio::test]
async fn a_patch_merges_and_is_refused_whole() {
    let world = started().await;
    let token = world.connected().await;
    let (_, event) = world.insert(&token, interview()).await;
    let path = format!("{EVENTS}/{ID}?conferenceDataVersion=1");
    let bad = json!({"summary": "changed", "end": {"dateTime": "2030-01-15T18:00:00Z"}});
    assert_eq!(reason(&world.call("PATCH", &path, &token, Some(bad)).await.1), "timeRangeEmpty");
    let bad = json!({"summary": "changed", "conferenceData": {"createRequest": {}}});
    assert_eq!(world.call("PATCH", &path, &token, Some(bad)).await.0, 400);
    assert_eq!(world.sim.events()[0]["summary"], event["summary"], "a refused patch changes nothing");

    let patch = json!({"description": null, "id": "other", "iCalUID": "other", "unknown": 1});
    let (_, changed) = world.call("PATCH", &path, &token, Some(patch)).await;
    assert!(changed["description"].is_null() && changed["unknown"].is_null());
    assert_eq!((&changed["id"], &changed["sequence"]), (&json!(ID), &json!(0)));
    assert_eq!(changed["iCalUID"], event["iCalUID"]);

    let old = event["etag"].as_str().unwrap();
    let request = world.request("PATCH", &path, &token, Some(&json!({"summary": "x"}))).header("if-match", old);
    assert_eq!(request.send().await.unwrap().status(), 412);
    let deleted = json!({"status": "cancelled"});
    assert_eq!(world.call("PATCH", &path, &token, Some(deleted)).await.1["status"], "cancelled");
    assert_eq!(world.call("PATCH", &path, &token, Some(json!({"status": "confirmed"}))).await.1["status"], "confirmed");
    assert_eq!(world.call("PATCH", &format!("{EVENTS}/absent"), &token, Some(json!({}))).await.0, 404);
}

#[tokio::test]
async fn busy_times_are_merged_and_need_a_scope_of_their_own() {
    let world = started().await;
    let ask = json!({"timeMin": "2030-01-15T00:00:00Z", "timeMax": "2030-01-15T20:30:00Z",
        "items": [{"id": "primary"}, {"id": "stranger@x.test"}]});
    let token = world.connected().await;
    let (status, body) = world.call("POST", "/calendar/v3/freeBusy", &token, Some(ask.clone())).await;
    assert_eq!((status, reason(&body)), (403, "insufficientPermissions"));

    let wider = format!("{SCOPE} https://www.googleapis.com/auth/calendar.freebusy");
    let location = world.sim.allow(&authorization_url(&world.sim, &[("scope", Some(&wider))])).unwrap();
    let (_, tokens) = world.exchange(&sent(&location, "code").unwrap(), &[]).await;
    let token = tokens["access_token"].as_str().unwrap();
    for (id, start, end) in [("first", "19:00", "20:00"), ("second", "19:30", "21:00"), ("third", "10:00", "11:00")] {
        let at = |time| json!({"dateTime": format!("2030-01-15T{time}:00Z")});
        assert_eq!(world.insert(token, json!({"id": id, "start": at(start), "end": at(end)})).await.0, 200);
    }
    let (_, body) = world.call("POST", "/calendar/v3/freeBusy", token, Some(ask.clone())).await;
    assert_eq!(
        body["calendars"]["primary"]["busy"],
        json!([{"start": "2030-01-15T10:00:00Z", "end": "2030-01-15T11:00:00Z"},
               {"start": "2030-01-15T19:00:00Z", "end": "2030-01-15T20:30:00Z"}])
    );
    assert_eq!(body["calendars"]["stranger@x.test"]["errors"][0]["reason"], "notFound");

    assert_eq!(world.call("DELETE", &format!("{EVENTS}/third"), token, None).await.0, 204);
    let count = |body: &Value| body["items"].as_array().unwrap().len();
    assert_eq!(count(&world.call("GET", EVENTS, token, None).await.1), 2);
    assert_eq!(count(&world.call("GET", &format!("{EVENTS}?showDeleted=true"), token, None).await.1), 3);
    let late = format!("{EVENTS}?timeMin=2030-01-15T20:00:00Z");
    assert_eq!(count(&world.call("GET", &late, token, None).await.1), 1);
}

#[tokio::test]
async fn ordered_statuses_come_with_googles_error_bodies_as_often_as_ordered() {
    let world = started().await;
    let token = world.connected().await;
    let kind = FaultKind::Status { status: 429, reason: None, retry_after: Some(7) };
    world.sim.order(Fault { on: Call::Insert, times: 2, kind });
    for _ in 0..2 {
        assert_eq!(world.event(&token).await.0, 404, "other calls are not disturbed");
        let response = world.request("POST", EVENTS, &token, Some(&interview())).send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], "7");
        let (status, body) = answer(response).await;
        assert_eq!((status, reason(&body)), (429, "rateLimitExceeded"));
        assert_eq!(body["error"]["code"], 429);
    }
    assert_eq!(world.insert(&token, interview()).await.0, 200);

    for (kind, expected) in [
        (FaultKind::status(401), (401, "authError")),
        (FaultKind::reason(403, "userRateLimitExceeded"), (403, "userRateLimitExceeded")),
        (FaultKind::status(403), (403, "forbidden")),
        (FaultKind::status(500), (500, "backendError")),
        (FaultKind::status(503), (503, "backendError")),
        (FaultKind::status(418), (418, "badRequest")),
    ] {
        world.sim.order(Fault { on: Call::Calendar, times: 1, kind });
        let (status, body) = world.event(&token).await;
        assert_eq!((status, reason(&body)), expected);
    }
    world.sim.order(Fault { on: Call::Exchange, times: 1, kind: FaultKind::status(400) });
    assert_eq!(world.exchange(&world.code(), &[]).await.1["error"], "invalid_grant");
    world.sim.order(Fault { on: Call::Refresh, times: 1, kind: FaultKind::status(503) });
    assert_eq!(world.event(&token).await.0, 200);
    assert_eq!(world.refresh("1//x").await.0, 503);
    world.sim.order(Fault { on: Call::Calendar, times: 9, kind: FaultKind::status(500) });
    world.sim.clear_faults();
    assert_eq!(world.event(&token).await.0, 200);
}

#[tokio::test]
async fn a_call_that_hangs_does_nothing_and_is_seen_without_an_answer() {
    let world = started().await;
    let token = world.connected().await;
    world.sim.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::Hang });
    let request = world.request("POST", EVENTS, &token, Some(&interview()));
    let error = request.timeout(Duration::from_millis(100)).send().await.unwrap_err();
    assert!(error.is_timeout());
    assert!(world.sim.events().is_empty());
    let call = world.sim.requests().pop().unwrap();
    assert_eq!((call.call, call.status), (Call::Insert, None));
    assert_eq!(call.account.as_deref(), Some("rita@x.test"));
}

#[tokio::test]
async fn an_answer_can_be_lost_or_garbled_after_the_event_was_made() {
    let world = started().await;
    let token = world.connected().await;
    world.sim.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::AnswerLost });
    let error = world.request("POST", EVENTS, &token, Some(&interview())).send().await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(world.sim.events().len(), 1);
    assert_eq!(world.insert(&token, interview()).await.0, 409);

    world.sim.order(Fault { on: Call::Delete, times: 1, kind: FaultKind::Garbage });
    let response = world.request("DELETE", &format!("{EVENTS}/{ID}"), &token, None).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.json::<Value>().await.is_err());
    assert_eq!(world.sim.events()[0]["status"], "cancelled");
}

#[tokio::test]
async fn a_slow_call_is_done_even_when_its_client_has_gone() {
    let world = started().await;
    let token = world.connected().await;
    world.sim.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::Delay { millis: 200 } });
    let request = world.request("POST", EVENTS, &token, Some(&interview()));
    assert!(request.timeout(Duration::from_millis(50)).send().await.unwrap_err().is_timeout());
    assert!(world.sim.events().is_empty());
    eventually("the late event", || world.sim.events().len() == 1).await;

    world.sim.order(Fault { on: Call::Get, times: 1, kind: FaultKind::Delay { millis: 1 } });
    assert_eq!(world.event(&token).await.0, 200);
}

#[tokio::test]
async fn grants_and_events_survive_a_restart() {
    let folder = std::env::temp_dir().join(format!("google-simulator-{}", crate::clock::random_uuid()));
    let file = folder.join("state.json");
    let mut world = started().await;
    let with_file = || Options { state_file: Some(file.clone()), ..options(&world.clock) };
    let (first, second) = (with_file(), with_file());
    world.sim = Simulator::start("127.0.0.1:0".parse().unwrap(), first).await.unwrap();
    let (token, refresh_token) = world.connected_as("rita@x.test").await;
    world.insert(&token, interview()).await;
    let code = world.code();
    let (address, events) = (world.sim.url().trim_start_matches("http://").parse().unwrap(), world.sim.events());

    std::mem::replace(&mut world.sim, started().await.sim).stop().await;
    world.sim = Simulator::start(address, second).await.unwrap();
    assert_eq!(world.sim.events(), events);
    assert_eq!(world.event(&token).await.0, 200);
    assert_eq!(world.refresh(&refresh_token).await.0, 200);
    assert_eq!(world.exchange(&code, &[]).await.0, 200);

    std::fs::write(&file, "{").unwrap();
    let broken = Options { state_file: Some(file.clone()), ..options(&world.clock) };
    let error = Simulator::start("127.0.0.1:0".parse().unwrap(), broken).await.err().unwrap();
    assert!(error.to_string().contains("state.json"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn other_processes_drive_it_through_json_and_people_through_the_page() {
    let world = started().await;
    let token = world.connected().await;
    let mut event = interview();
    event["summary"] = "<script>alert(1)</script>".into();
    world.insert(&token, event).await;
    let url = format!("{}/_sim/", world.sim.url());
    let get = |path: &str| {
        let request = world.http.get(format!("{url}{path}"));
        async { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    assert_eq!(get("events").await[0]["id"], ID);
    assert_eq!(get("calls").await[1]["call"], "insert");

    let fault = json!({"on": "insert", "times": 2, "kind": "status", "status": 429, "retry_after": 1});
    assert_eq!(world.http.post(format!("{url}faults")).json(&fault).send().await.unwrap().status(), 204);
    assert_eq!(get("faults").await[0]["status"], 429);
    assert_eq!(world.insert(&token, interview()).await.0, 429);
    assert_eq!(world.http.delete(format!("{url}faults")).send().await.unwrap().status(), 204);
    assert_eq!(get("faults").await, json!([]));
    let wrong = json!({"on": "insert", "times": 2, "kind": "boom"});
    assert_eq!(world.http.post(format!("{url}faults")).json(&wrong).send().await.unwrap().status(), 400);

    let form = [("on", "calendar"), ("times", "1"), ("kind", "answer_lost"), ("status", "500"), ("reason", "")];
    let ordered = world.http.post(format!("{url}faults")).form(&form).send().await.unwrap();
    assert_eq!((ordered.status().as_u16(), &ordered.headers()["location"]), (303, &"/_sim/".parse().unwrap()));
    let page = world.http.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("SIMULATOR") && page.contains("answer_lost") && page.contains("rita@x.test (connected)"));
    assert!(page.contains("alert(1)") && !page.contains("<script"), "what is shown is escaped");
    world.http.post(format!("{url}faults/clear")).send().await.unwrap();

    let behaviour = json!({"meet": "phone_first", "pending_answers": 0});
    assert_eq!(world.http.put(format!("{url}behaviour")).json(&behaviour).send().await.unwrap().status(), 204);
    assert_eq!(get("behaviour").await["meet"], "phone_first");
    world.http.post(format!("{url}expire")).send().await.unwrap();
    assert_eq!(world.event(&token).await.0, 401);
}
