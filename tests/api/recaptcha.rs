//! Signing in where reCAPTCHA is configured, with a verifier of our own.

use std::{collections::HashMap, net::Ipv4Addr};

use interviews::{
    config::{LogFormat, log_filter},
    telemetry,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{
    recaptcha::{SECRET, TOKEN, Verifier},
    *,
};

const LOGIN: &str = "/api/users/login/";

async fn login(app: &TestApp, password: &str, token: Value) -> Answer {
    app.post(LOGIN, json!({"email": "rita@x.test", "password": password, "recaptchaToken": token})).await
}

fn refused() -> Value {
    json!({"error": "reCAPTCHA verification failed."})
}

fn unavailable() -> Value {
    json!({"error": "reCAPTCHA is unavailable. Please try again."})
}

#[tokio::test]
async fn a_token_that_the_verifier_takes_lets_the_password_decide() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    assert_eq!(login(&app, PASSWORD, json!(TOKEN)).await.status, 200);
    let form = [("secret", SECRET), ("response", TOKEN)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(verifier.asked()[0], HashMap::from(form));
    let wrong = json!({"non_field_errors": ["Invalid email or password."]});
    login(&app, "wrong", json!(TOKEN)).await.assert(400, wrong);
}

#[tokio::test]
async fn a_refused_token_is_told_before_the_password_is_looked_at() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    for body in [
        r#"{"success": false, "error-codes": ["invalid-input-response"]}"#,
        r#"{"success": false, "error-codes": ["timeout-or-duplicate"]}"#,
        r#"{"success": false}"#,
    ] {
        verifier.answers(200, body);
        for password in [PASSWORD, "wrong"] {
            login(&app, password, json!(TOKEN)).await.assert(400, refused());
        }
    }
    assert_eq!(app.count("ivs_login_throttle").await, 0, "nobody has failed");
}

#[tokio::test]
async fn without_a_token_nobody_is_asked() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    for token in [json!(null), json!(""), json!(" \t"), json!(7), json!(true), json!([TOKEN]), json!({"a": TOKEN})] {
        login(&app, PASSWORD, token).await.assert(400, refused());
    }
    app.post(LOGIN, json!({"email": "rita@x.test", "password": PASSWORD})).await.assert(400, refused());
    let required = json!({"password": ["This field is required."]});
    app.post(LOGIN, json!({"email": "rita@x.test"})).await.assert(400, required);
    assert!(verifier.asked().is_empty());
}

#[tokio::test]
async fn a_verifier_that_says_nothing_of_use_is_unavailable() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    for (status, body) in [
        (500, r#"{"success": true}"#),
        (503, ""),
        (403, "<html>"),
        (302, ""),
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, r#"{"success": "true"}"#),
        (200, r#"{"error-codes": []}"#),
    ] {
        verifier.answers(status, body);
        login(&app, PASSWORD, json!(TOKEN)).await.assert(503, unavailable());
    }
    assert_eq!(app.count("ivs_login_throttle").await, 0, "nobody has failed");
}

#[tokio::test]
async fn a_verifier_that_is_not_there_is_unavailable() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let uri = format!("http://{closed}/siteverify");
    let app = TestApp::start_with(&[("RECAPTCHA_SECRET_KEY", SECRET), ("RECAPTCHA_VERIFY_URI", &uri)]).await;
    login(&app, PASSWORD, json!(TOKEN)).await.assert(503, unavailable());
}

#[tokio::test]
async fn a_verifier_that_refuses_our_secret_is_not_the_persons_fault() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    for code in ["invalid-input-secret", "missing-input-secret"] {
        verifier.answers(200, &json!({"success": false, "error-codes": [code]}).to_string());
        login(&app, PASSWORD, json!(TOKEN)).await.assert(503, unavailable());
    }
}

#[tokio::test]
async fn neither_token_nor_secret_is_logged_and_a_refused_secret_is_an_error() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    let lines = Lines::default();
    let writer = lines.clone();
    // For this test's thread, in which the server runs too.
    let subscriber =
        telemetry::subscriber(log_filter("trace").unwrap(), LogFormat::Text, move || writer.clone(), false);
    let _guard = tracing::subscriber::set_default(subscriber);
    for (status, body) in [
        (200, r#"{"success": true}"#.to_owned()),
        (200, r#"{"success": false}"#.to_owned()),
        (200, format!("{SECRET} {TOKEN}")),
        (200, json!(TOKEN).to_string()),
        (500, TOKEN.to_owned()),
        (200, r#"{"success": false, "error-codes": ["invalid-input-secret"]}"#.to_owned()),
    ] {
        verifier.answers(status, &body);
        login(&app, PASSWORD, json!(TOKEN)).await;
    }
    assert_eq!(verifier.asked().len(), 6);
    let log = lines.text();
    for line in log.lines() {
        assert!(!line.contains(SECRET) && !line.contains(TOKEN) && !line.contains("siteverify"), "{line}");
    }
    let is_told = |line: &str| line.contains("ERROR") && line.contains("refuses RECAPTCHA_SECRET_KEY");
    assert!(log.lines().any(is_told), "{log}");
}

#[tokio::test]
async fn who_is_throttled_costs_the_verifier_nothing() {
    let verifier = Verifier::start().await;
    let app = verifier.app().await;
    assert_eq!(login(&app, "wrong", json!(TOKEN)).await.status, 400);
    let many = "UPDATE ivs_login_throttle SET attempts = array_fill(attempts[1], ARRAY[20])";
    sqlx::query(many).execute(app.db()).await.unwrap();
    verifier.asked();
    for token in [json!(TOKEN), json!(null)] {
        let answer = login(&app, PASSWORD, token).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("900")));
    }
    assert!(verifier.asked().is_empty());
}

#[tokio::test]
async fn where_it_is_not_configured_a_token_is_ignored() {
    let app = TestApp::start().await;
    assert_eq!(login(&app, PASSWORD, json!(7)).await.status, 200);
}
