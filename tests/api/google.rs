//! Connecting Google: the dance from the authorization page to a sealed grant, to refresh, to its end.

use std::time::Duration;

use interviews::{
    config::{LogFormat, log_filter},
    dev::google::{Behaviour, Call, Fault, FaultKind},
    secret::{Place, Sealer},
    telemetry,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{cookie_client::CookieClient, *};

const CHECK: &str = "/api/company/google/check-connection/";
const CALLBACK: &str = "/api/company/google/callback/";
const FRONTEND: &str = "http://localhost:3000";

fn refused(message: &str) -> String {
    format!("{FRONTEND}/dashboard/settings?google_oauth=error&message={message}")
}

async fn credentials(app: &TestApp) -> Option<String> {
    sqlx::query_scalar("SELECT credentials_json FROM company_googlecredentials WHERE user_id = 101")
        .fetch_optional(app.db())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_authorization_url_is_as_google_wants_it_and_its_secrets_are_not_kept_in_clear() {
    let app = TestApp::start().await;
    let answer = app.user(RITA).get("/api/company/google/auth-url/").await.json();
    let url = url::Url::parse(answer["authorization_url"].as_str().unwrap()).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "response_type",
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "access_type",
            "include_granted_scopes",
            "prompt",
            "code_challenge",
            "code_challenge_method"
        ]
    );
    assert!(url.as_str().contains("scope=openid+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.email+"), "{url}");
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).unwrap().1.clone();
    assert_eq!(value("redirect_uri"), format!("{}{CALLBACK}", app.url));
    assert_eq!(
        value("scope"),
        "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile \
         https://www.googleapis.com/auth/calendar.events"
    );
    assert_eq!(
        (value("access_type"), value("prompt"), value("code_challenge_method")),
        ("offline".into(), "consent".into(), "S256".into())
    );
    let state = answer["state"].as_str().unwrap();
    assert_eq!(value("state"), state);
    assert!(state.len() >= 22);
    let stored: (String, String) =
        sqlx::query_as("SELECT state, code_verifier FROM company_oauthstate").fetch_one(app.db()).await.unwrap();
    use sha2::Digest;
    assert_eq!(stored.0, hex::encode(sha2::Sha256::digest(state)));
    assert!(serde_json::from_str::<Value>(&stored.1).is_ok_and(|sealed| sealed["sealed"].is_string()), "{}", stored.1);
}

#[tokio::test]
async fn a_recruiter_connects_and_the_google_account_is_told() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    rita.get(CHECK).await.assert(200, json!({"connected": false, "email": null}));
    let back = rita.connect("rita@gmail.test").await;
    assert_eq!(back.status, 302);
    assert_eq!(
        back.header("location"),
        Some(format!("{FRONTEND}/companies/11/dashboard?google_oauth=success").as_str())
    );
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": "rita@gmail.test"}));
    let sealed = credentials(&app).await.unwrap();
    assert!(!sealed.contains("ya29") && !sealed.contains("1//") && !sealed.contains("gmail"), "{sealed}");
    assert_eq!(app.count("company_oauthstate").await, 0);

    app.run_jobs().await;
    let mails = app.mailbox.mails();
    let [mail] = &mails[..] else { panic!("{} mails", mails.len()) };
    assert_eq!(
        (mail.subject(), mail.envelope_to.clone()),
        ("Google Calendar connected".into(), vec!["rita@gmail.test".to_string()])
    );
    assert!(mail.text().contains("rita@x.test"));
    assert!(mail.calendar().is_none());
}

#[tokio::test]
async fn a_candidate_without_a_company_comes_back_to_the_settings() {
    let app = TestApp::start().await;
    let back = app.user(CARL).connect("otto@gmail.test").await;
    assert_eq!(back.header("location"), Some(format!("{FRONTEND}/dashboard/settings?google_oauth=success").as_str()));
    app.run_jobs().await;
}

#[tokio::test]
async fn example_27_connecting_by_navigation_and_by_call() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let connect = |method: Method, accept: &'static str| {
        send(rita.request(method, "/api/company/google/connect/").header("accept", accept))
    };
    let json = connect(Method::GET, "application/json").await;
    assert_eq!(json.status, 200);
    assert!(json.json()["authorization_url"].as_str().unwrap().starts_with(app.google.url()));
    let html = connect(Method::GET, "text/html").await;
    assert_eq!(html.status, 302);
    assert!(html.header("location").unwrap().starts_with(app.google.url()));
    assert_eq!(connect(Method::POST, "text/html").await.status, 200);
    let navigation = rita.request(Method::GET, "/api/company/google/connect/").header("sec-fetch-mode", "navigate");
    assert_eq!(send(navigation).await.status, 302);
    let nobody = |accept| send(app.request(Method::GET, "/api/company/google/connect/").header("accept", accept));
    nobody("*/*").await.assert(401, json!({"detail": "Authentication credentials were not provided."}));
    let to_sign_in = nobody("text/html").await;
    let location = to_sign_in.header("location");
    assert_eq!((to_sign_in.status.as_u16(), location), (302, Some("/login/?next=/api/company/google/connect/")));
}

#[tokio::test]
async fn example_28_the_callback_refuses_in_fixed_words() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let location = async |query: &str| {
        let answer = app.get(&format!("{CALLBACK}{query}")).await;
        assert_eq!(answer.status, 302);
        answer.header("location").unwrap().to_owned()
    };
    assert_eq!(location("").await, refused("Authorization%20code%20missing"));
    assert_eq!(location("?code=&state=x").await, refused("Authorization%20code%20missing"));
    assert_eq!(location("?code=x").await, refused("State%20parameter%20missing"));
    assert_eq!(location("?code=x&state=unknown").await, refused("Invalid%20or%20expired%20OAuth%20state"));

    // A person says no: the state is used up all the same.
    let denied = app.google.deny(&rita.authorization_url().await).unwrap();
    assert_eq!(app.get(&denied).await.header("location").unwrap(), refused("Authorization%20code%20missing"));
    assert_eq!(app.count("company_oauthstate").await, 0);

    // Replayed.
    let back = app.google.allow(&rita.authorization_url().await).unwrap();
    assert!(app.get(&back).await.header("location").unwrap().ends_with("google_oauth=success"));
    assert_eq!(app.get(&back).await.header("location").unwrap(), refused("Invalid%20or%20expired%20OAuth%20state"));

    // Eleven minutes old.
    let late = app.google.allow(&rita.authorization_url().await).unwrap();
    app.advance(Duration::from_secs(11 * 60));
    assert_eq!(app.get(&late).await.header("location").unwrap(), refused("Invalid%20or%20expired%20OAuth%20state"));
    app.run_jobs().await;
}

#[tokio::test]
async fn a_person_has_the_20_newest_states_and_abandoned_ones_are_swept() {
    let app = TestApp::start().await;
    let (rita, otto) = (app.user(RITA), app.user(OTTO));
    let first = rita.authorization_url().await;
    otto.authorization_url().await;
    let mut later: Vec<String> = Vec::new();
    for _ in 0..5 {
        let (a, b, c, d) = tokio::join!(
            rita.authorization_url(),
            rita.authorization_url(),
            rita.authorization_url(),
            rita.authorization_url()
        );
        later.extend([a, b, c, d]);
    }
    assert_eq!(app.count("company_oauthstate WHERE user_id = 101").await, 20);
    assert_eq!(app.count("company_oauthstate WHERE user_id = 102").await, 1);
    let gone = app.get(&app.google.allow(&first).unwrap()).await;
    assert_eq!(gone.header("location"), Some(&*refused("Invalid%20or%20expired%20OAuth%20state")));
    for url in [&later[0], &later[19]] {
        let back = app.get(&app.google.allow(url).unwrap()).await;
        assert!(back.header("location").unwrap().ends_with("google_oauth=success"), "{back:?}");
    }
    app.advance(Duration::from_secs(600));
    app.sweep().await;
    assert_eq!(app.count("company_oauthstate").await, 19, "they can still be used");
    app.advance(Duration::from_secs(1));
    app.sweep().await;
    assert_eq!(app.count("company_oauthstate").await, 0);
    app.run_jobs().await;
}

#[tokio::test]
async fn an_exchange_that_fails_uses_the_state_up_and_says_nothing_of_google() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let failed = refused("Could%20not%20connect%20Google%20Calendar");
    for kind in [FaultKind::status(400), FaultKind::Garbage, FaultKind::reason(401, "invalid_client")] {
        app.google.order(Fault { on: Call::Exchange, times: 9, kind });
        let back = app.google.allow(&rita.authorization_url().await).unwrap();
        assert_eq!(app.get(&back).await.header("location"), Some(&*failed));
        app.google.clear_faults();
        assert_eq!(app.get(&back).await.header("location").unwrap(), refused("Invalid%20or%20expired%20OAuth%20state"));
    }
    // A forged code.
    let state = rita.get("/api/company/google/auth-url/").await.json()["state"].as_str().unwrap().to_owned();
    assert_eq!(app.get(&format!("{CALLBACK}?code=forged&state={state}")).await.header("location"), Some(&*failed));
    // The calendar was not ticked.
    app.google.behave(Behaviour { granted_scopes: Some(vec!["openid".into()]), ..Behaviour::default() });
    let back = app.google.allow(&rita.authorization_url().await).unwrap();
    assert_eq!(app.get(&back).await.header("location"), Some(&*failed));
    assert_eq!(credentials(&app).await, None);
    rita.get(CHECK).await.assert(200, json!({"connected": false, "email": null}));
}

#[tokio::test]
async fn more_scopes_in_another_order_are_fine_and_a_missing_id_token_only_hides_the_address() {
    let app = TestApp::start().await;
    let scopes = ["https://www.googleapis.com/auth/calendar", "email", "openid"].map(String::from).to_vec();
    app.google.behave(Behaviour { granted_scopes: Some(scopes), id_token: false, ..Behaviour::default() });
    let rita = app.user(RITA);
    assert!(rita.connect("rita@gmail.test").await.header("location").unwrap().ends_with("google_oauth=success"));
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": null}));
    app.run_jobs().await;
    assert!(app.mailbox.mails().is_empty(), "nobody is told where the address is unknown");
}

#[tokio::test]
async fn connecting_again_without_a_new_refresh_token_keeps_the_old_one() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.google.behave(Behaviour { refresh_token: false, ..Behaviour::default() });
    assert!(rita.connect("rita@gmail.test").await.header("location").unwrap().ends_with("google_oauth=success"));
    app.run_jobs().await;
    app.google.expire_access_tokens();
    app.google.behave(Behaviour::default());
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200, "the refresh token still works");
}

#[tokio::test]
async fn an_access_token_near_its_end_is_refreshed_before_the_call() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3599 - 59));
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    let calls: Vec<Call> = app.google.requests().into_iter().map(|call| call.call).collect();
    let refresh = calls.iter().position(|call| *call == Call::Refresh).unwrap();
    let insert = calls.iter().position(|call| *call == Call::Insert).unwrap();
    assert!(refresh < insert && calls.iter().filter(|call| **call == Call::Insert).count() == 1, "{calls:?}");
}

#[tokio::test]
async fn many_bookings_at_once_refresh_once() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3600));
    let (a, b, c) = tokio::join!(
        rita.schedule(body(json!({"time": "10:00"}))),
        rita.schedule(body(json!({"time": "12:00"}))),
        rita.schedule(body(json!({"time": "14:00"})))
    );
    assert_eq!([a.status, b.status, c.status].map(|status| status.as_u16()), [200; 3]);
    assert_eq!(app.google.requests().iter().filter(|call| call.call == Call::Refresh).count(), 1);
}

#[tokio::test]
async fn a_revoked_grant_is_removed_and_the_recruiter_is_asked_to_connect_again() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.google.revoke_grants();
    let answer = rita.schedule(body(json!({}))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["needs_google_auth"]), (401, &json!(true)));
    rita.get(CHECK).await.assert(200, json!({"connected": false, "email": null, "needs_reconnect": true}));
    assert_eq!(credentials(&app).await, None);
    assert_eq!(app.count("company_interview").await, 3);
    app.advance(Duration::from_secs(600));
    app.sweep().await;
    app.run_jobs().await;
}

#[tokio::test]
async fn a_recruiter_is_told_once_that_google_ended_the_connection_and_no_longer_after_connecting_again() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.google.revoke_grants();
    let (one, other) = tokio::join!(rita.schedule(body(json!({}))), rita.schedule(body(json!({"time": "16:00"}))));
    assert_eq!((one.status.as_u16(), other.status.as_u16()), (401, 401));
    app.run_jobs().await;
    let mails = app.mailbox.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].subject(), "Please reconnect Google Calendar");
    assert_eq!(mails[0].envelope_to, ["rita@x.test"]);
    assert!(mails[0].text().contains(&app.ctx.settings.frontend_url));
    app.connected(RITA).await;
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": "rita@gmail.test"}));
    app.google.revoke_grants();
    rita.schedule(body(json!({}))).await;
    // She connects again before that mail has left: it has nothing true to say any more.
    rita.connect("rita@gmail.test").await;
    app.run_jobs().await;
    let subjects: Vec<String> = app.mailbox.mails().iter().map(|mail| mail.subject()).collect();
    assert_eq!(subjects, ["Google Calendar connected"]);
    rita.request(reqwest::Method::DELETE, "/api/company/google/disconnect/").send().await.unwrap();
    rita.get(CHECK).await.assert(200, json!({"connected": false, "email": null}));
}

#[tokio::test]
async fn nobody_is_asked_to_reconnect_who_has_done_so_in_django() {
    let app = TestApp::start().await;
    app.google.behave(Behaviour { refresh_token: false, ..Behaviour::default() });
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3601));
    assert_eq!(rita.schedule(body(json!({}))).await.status, 401);
    sqlx::query(
        "INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at)
         VALUES (101, '{\"token\":\"t\",\"refresh_token\":\"r\",\"scopes\":[]}', now(), now())",
    )
    .execute(app.db())
    .await
    .unwrap();
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": null}));
    app.run_jobs().await;
    let subjects: Vec<String> = app.mailbox.mails().iter().map(|mail| mail.subject()).collect();
    assert_eq!(subjects, [""; 0]);
}

#[tokio::test]
async fn a_grant_that_ended_without_a_refresh_token_is_removed_by_scheduling_and_not_by_looking() {
    let app = TestApp::start().await;
    app.google.behave(Behaviour { refresh_token: false, ..Behaviour::default() });
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3601));
    rita.get(CHECK).await.assert(200, json!({"connected": false, "email": null}));
    assert!(credentials(&app).await.is_some(), "looking writes nothing");
    let answer = rita.schedule(body(json!({}))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["needs_google_auth"]), (401, &json!(true)));
    assert_eq!(credentials(&app).await, None);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_released_does_not_cost_the_fresh_token() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3600));
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON ivs_grant_lease FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(app.db())
    .await
    .unwrap();
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_refresh_that_fails_for_now_keeps_the_grant() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3600));
    app.google.order(Fault { on: Call::Refresh, times: 9, kind: FaultKind::status(503) });
    assert_eq!(rita.schedule(body(json!({}))).await.status, 502);
    app.google.clear_faults();
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": "rita@gmail.test"}));
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
}

#[tokio::test]
async fn djangos_plain_credentials_are_read_and_sealed_at_the_first_refresh() {
    let app = TestApp::start().await;
    // What Django would have stored: real tokens of the simulator, in clear.
    let rita = app.user(RITA);
    let plain = django_tokens(&app, &rita).await;
    sqlx::query("INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at) VALUES (101, $1, now(), now())")
        .bind(plain.to_string())
        .execute(app.db())
        .await
        .unwrap();
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": null}));
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    app.google.expire_access_tokens();
    assert_eq!(rita.schedule(body(json!({"time": "16:00"}))).await.status, 200);
    let stored = credentials(&app).await.unwrap();
    for secret in [&plain["token"], &plain["refresh_token"], &json!("djangos-client-secret")] {
        assert!(!stored.contains(secret.as_str().unwrap()), "{stored}");
    }
}

/// Goes through the dance by hand, as Django did, and gives its row.
async fn django_tokens(app: &TestApp, user: &User<'_>) -> Value {
    let verifier = "django-verifier-django-verifier-django-verifier";
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use sha2::Digest;
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier));
    let mut url = url::Url::parse(&user.authorization_url().await).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(pairs.iter().map(|(key, value)| (key, if key == "code_challenge" { &challenge } else { value })));
    let back = url::Url::parse(&app.google.allow_as(url.as_str(), "rita@gmail.test").unwrap()).unwrap();
    let code = back.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned();
    let redirect_uri = format!("{}{CALLBACK}", app.url);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &redirect_uri),
        ("code_verifier", verifier),
        ("client_id", "client"),
        ("client_secret", "client-secret-of-the-tests"),
    ];
    let tokens = send(app.request(Method::POST, &app.ctx.settings.google_token_uri).form(&form)).await.json();
    sqlx::query("DELETE FROM company_oauthstate").execute(app.db()).await.unwrap();
    json!({"token": tokens["access_token"], "refresh_token": tokens["refresh_token"], "token_uri": "https://evil.test/token",
        "client_id": "djangos", "client_secret": "djangos-client-secret", "scopes": ["https://www.googleapis.com/auth/calendar.events"]})
}

#[tokio::test]
async fn rows_that_cannot_be_read_count_as_not_connected() {
    let app = TestApp::start().await;
    for text in ["", "{}", "not json", "[1]", r#"{"version":1,"key":"00000000","sealed":"AAAA"}"#, r#"{"token":5}"#] {
        store(&app, text).await;
        app.user(RITA).get(CHECK).await.assert(200, json!({"connected": false, "email": null}));
        assert_eq!(app.user(RITA).schedule(body(json!({}))).await.status, 401, "{text}");
    }
}

#[tokio::test]
async fn a_sealed_grant_moved_to_another_row_opens_nothing() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    sqlx::query("UPDATE company_googlecredentials SET user_id = 102").execute(app.db()).await.unwrap();
    app.user(OTTO).get(CHECK).await.assert(200, json!({"connected": false, "email": null}));
}

#[tokio::test]
async fn disconnecting_deletes_the_row_and_revokes_the_grant() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let disconnect = |method| send(rita.request(method, "/api/company/google/disconnect/"));
    let done = json!({"success": true, "message": "Google Calendar disconnected successfully."});
    disconnect(Method::DELETE).await.assert(200, done.clone());
    assert_eq!(credentials(&app).await, None);
    assert_eq!(app.google.requests().iter().filter(|call| call.call == Call::Revoke).count(), 1);
    disconnect(Method::POST)
        .await
        .assert(200, json!({"success": true, "message": "Google Calendar was not connected."}));
    disconnect(Method::GET).await.assert(405, json!({"detail": "Method \"GET\" not allowed."}));
    // Google's refusal to revoke changes nothing.
    rita.connect("rita@gmail.test").await;
    app.run_jobs().await;
    app.google.order(Fault { on: Call::Revoke, times: 1, kind: FaultKind::status(500) });
    disconnect(Method::POST).await.assert(200, done);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_a_disconnection() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let called = |call| app.google.requests().iter().any(|seen| seen.call == call).then_some(());
    // A disconnection waits for a booking under way.
    app.google.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::Delay { millis: 600 } });
    let leave = async {
        until(|| called(Call::Insert)).await;
        let request = rita.request(Method::POST, "/api/company/google/disconnect/").send();
        assert!(tokio::time::timeout(Duration::from_millis(200), request).await.is_err());
    };
    let (booking, ()) = tokio::join!(rita.schedule(body(json!({}))), leave);
    assert_eq!(booking.status, 500, "it can no longer commit");
    until(|| called(Call::Revoke)).await;
    until_async(async || credentials(&app).await.is_none()).await;
    assert!(app.google.events().iter().all(|event| event["status"] == "cancelled"));
}

const DISCONNECT: &str = "/api/company/google/disconnect/";

fn revocations(app: &TestApp) -> usize {
    app.google.requests().iter().filter(|seen| seen.call == Call::Revoke).count()
}

/// What Rita's row says.
async fn store(app: &TestApp, text: &str) {
    sqlx::query(
        "INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at)
         VALUES (101, $1, now(), now()) ON CONFLICT (user_id) DO UPDATE SET credentials_json = $1",
    )
    .bind(text)
    .execute(app.db())
    .await
    .unwrap();
}

/// Stores a grant of Rita's, sealed with a key that the server does not have.
async fn store_foreign_grant(app: &TestApp) -> Option<String> {
    let foreign = Sealer::parse("CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=").unwrap();
    let place = Place { table: "company_googlecredentials", row: RITA, column: "credentials_json" };
    let row = foreign.seal(&place, b"{}");
    store(app, &row).await;
    Some(row)
}

#[tokio::test]
async fn a_grant_that_no_key_here_opens_is_not_disconnected_and_its_owner_is_told_what_to_do() {
    const TEXT: &str = "Google Calendar cannot be disconnected at the moment. You can end the access at \
                        https://myaccount.google.com/connections.";
    for settings in [&[][..], &[("TOKEN_ENCRYPTION_KEY", "")]] {
        let app = TestApp::start_with(settings).await;
        let mut browser = CookieClient::of(&app, "rita@x.test").await;
        store(&app, r#"{"token":"t","refresh_token":"r","scopes":[]}"#).await;
        let page = browser.get("/dashboard/").await;
        let row = store_foreign_grant(&app).await;
        app.execute(
            "INSERT INTO ivs_intent (id, user_id, event_id, created_at) VALUES (gen_random_uuid(), 101, 'e', now())",
        )
        .await;
        let lines = Lines::default();
        let writer = lines.clone();
        let log = telemetry::subscriber(log_filter("warn").unwrap(), LogFormat::Text, move || writer.clone(), false);
        let guard = tracing::subscriber::set_default(log);
        app.user(RITA).post(DISCONNECT, json!({})).await.assert(503, json!({ "error": TEXT }));
        drop(guard);
        let log = lines.text();
        assert!(log.contains("no key here opens this grant") && log.contains("user_id=101"), "{log}");
        assert!(!log.contains("sealed\":"), "{log}");
        let led = browser.submit(&page, "/dashboard/google/disconnect/", &[]).await;
        assert_eq!(led.status, 303);
        let page = browser.get(led.header("location").unwrap()).await;
        assert!(page.text.contains(TEXT), "{}", page.text);
        assert_eq!((credentials(&app).await, revocations(&app)), (row, 0));
        assert_eq!(app.count("ivs_intent WHERE undo_from IS NULL").await, 1, "its event needs the grant");
    }
}

#[tokio::test]
async fn a_new_grant_replaces_one_that_no_key_here_opens_unless_it_lacks_the_refresh_token() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let row = store_foreign_grant(&app).await;
    app.google.behave(Behaviour { refresh_token: false, ..Behaviour::default() });
    let back = rita.connect("rita@gmail.test").await;
    assert_eq!(back.header("location"), Some(&*refused("Could%20not%20connect%20Google%20Calendar")));
    assert_eq!((credentials(&app).await, revocations(&app)), (row, 0));
    app.google.behave(Behaviour::default());
    assert!(rita.connect("rita@gmail.test").await.header("location").unwrap().ends_with("success"));
    rita.get(CHECK).await.assert(200, json!({"connected": true, "email": "rita@gmail.test"}));
    app.run_jobs().await;
}

#[tokio::test]
async fn a_disconnection_whose_deletion_gets_no_answer_has_revoked_the_grant() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let rita = app.connected(RITA).await;
    // Nothing but the deletion names the row by its text.
    relay.lose_answer(credentials(&app).await.unwrap().as_bytes());
    let answer = rita.post(DISCONNECT, json!({})).await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    assert_eq!((credentials(&app).await, revocations(&app)), (None, 1));
    let none = json!({"success": true, "message": "Google Calendar was not connected."});
    rita.post(DISCONNECT, json!({})).await.assert(200, none);
}

#[tokio::test]
async fn a_grant_that_is_stored_while_another_is_disconnected_goes_too() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.fault(Call::Revoke, 1, FaultKind::Hold);
    let connect = async {
        until(|| (revocations(&app) == 1).then_some(())).await;
        rita.connect("rita@gmail.test").await;
        app.google.let_go();
    };
    let (answer, ()) = tokio::join!(rita.post(DISCONNECT, json!({})), connect);
    assert_eq!((answer.status.as_u16(), revocations(&app), credentials(&app).await), (200, 2, None));
    app.run_jobs().await;
}

#[tokio::test]
async fn forged_host_headers_change_no_redirect() {
    let app = TestApp::start().await;
    let request = app
        .user(RITA)
        .request(Method::GET, "/api/company/google/connect/")
        .header("host", "evil.test")
        .header("x-forwarded-host", "evil.test")
        .header("x-forwarded-proto", "https");
    let answer = send(request).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text.contains("evil"), "{answer:?}");
}
