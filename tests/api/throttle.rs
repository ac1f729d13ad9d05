//! How often one may guess a password, and from where.

use std::{net::Ipv4Addr, time::Duration};

use interviews::{app, http::server};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::*;

const LOGIN: &str = "/api/users/login/";
const RITAS: &str = "rita@x.test";
const BEHIND_A_PROXY: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");

/// Signs in, by way of `forwarded`, at the server of `url`.
async fn login_at(app: &TestApp, url: &str, email: &str, password: &str, forwarded: Option<&str>) -> Answer {
    let request =
        app.request(Method::POST, &format!("{url}{LOGIN}")).json(&json!({"email": email, "password": password}));
    send(forwarded.into_iter().fold(request, |request, hops| request.header("x-forwarded-for", hops))).await
}

async fn login(app: &TestApp, email: &str, password: &str) -> Answer {
    login_at(app, &app.url, email, password, None).await
}

async fn login_from(app: &TestApp, forwarded: &str, password: &str) -> Answer {
    login_at(app, &app.url, RITAS, password, Some(forwarded)).await
}

/// Makes the newest attempt of whoever has made one so many; hashing each of them would take seconds.
async fn repeat_the_last_attempt(app: &TestApp, times: i32) {
    sqlx::query(
        "UPDATE ivs_login_throttle
         SET attempts = attempts || array_fill(attempts[cardinality(attempts)], ARRAY[$1 - 1]) WHERE attempts <> '{}'",
    )
    .bind(times)
    .execute(app.db())
    .await
    .unwrap();
}

async fn attempts(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT coalesce(sum(cardinality(attempts)), 0) FROM ivs_login_throttle")
        .fetch_one(app.db())
        .await
        .unwrap()
}

fn wrong() -> Value {
    json!({"non_field_errors": ["Invalid email or password."]})
}

#[track_caller]
fn assert_throttled(answer: &Answer, seconds: u64) {
    let detail = format!("Request was throttled. Expected available in {seconds} seconds.");
    answer.assert(429, json!({ "detail": detail }));
    assert_eq!(answer.header("retry-after"), Some(seconds.to_string().as_str()));
}

#[tokio::test]
async fn after_20_failures_the_right_password_too_has_to_wait_until_the_oldest_is_15_minutes_old() {
    let app = TestApp::start().await;
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    app.advance(Duration::from_secs(27));
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 18).await;
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    for password in [PASSWORD, "wrong"] {
        assert_throttled(&login(&app, RITAS, password).await, 873);
    }
    app.advance(Duration::from_millis(872_500));
    assert_throttled(&login(&app, RITAS, PASSWORD).await, 1);
    app.advance(Duration::from_millis(500));
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    assert_throttled(&login(&app, RITAS, PASSWORD).await, 27);
    app.advance(Duration::from_secs(27));
    assert_eq!(login(&app, RITAS, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn unknown_emails_are_counted_alike_and_each_for_itself_whatever_its_case() {
    let app = TestApp::start().await;
    login(&app, "nobody@x.test", PASSWORD).await.assert(400, wrong());
    repeat_the_last_attempt(&app, 20).await;
    for email in ["nobody@x.test", "NoBody@X.test", " nobody@x.test "] {
        assert_throttled(&login(&app, email, PASSWORD).await, 900);
    }
    assert_eq!(login(&app, RITAS, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_right_sign_in_whose_client_has_gone_away_does_not_count() {
    let app = TestApp::start().await;
    let right = app.request(Method::POST, LOGIN).json(&json!({"email": RITAS, "password": PASSWORD}));
    let client = tokio::spawn(send(right));
    until_async(async || attempts(&app).await == 1).await;
    client.abort();
    until_async(async || attempts(&app).await == 0).await;
}

#[tokio::test]
async fn a_success_forgets_all_failures() {
    let app = TestApp::start().await;
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 19).await;
    assert_eq!(login(&app, RITAS, PASSWORD).await.status, 200);
    assert_eq!(app.count("ivs_login_throttle").await, 0);
}

#[tokio::test]
async fn what_is_no_failure_is_not_counted() {
    let app = TestApp::start().await;
    sqlx::query("UPDATE users_user SET is_deleted = true WHERE id = 202").execute(app.db()).await.unwrap();
    assert_eq!(login(&app, "ines@x.test", PASSWORD).await.status, 403);
    assert_eq!(login(&app, "dana@x.test", PASSWORD).await.status, 400);
    app.post(LOGIN, json!({"email": RITAS})).await.assert(400, json!({"password": ["This field is required."]}));
    assert_eq!(attempts(&app).await, 0);
    // But a failure before it stays one.
    login(&app, "ines@x.test", "wrong").await.assert(400, wrong());
    assert_eq!(login(&app, "ines@x.test", PASSWORD).await.status, 403);
    assert_eq!(attempts(&app).await, 1);
}

#[tokio::test]
async fn a_sign_in_that_finds_no_place_for_hashing_is_not_counted() {
    let app = TestApp::start().await;
    let crowd = std::thread::available_parallelism().unwrap().get() + 20;
    let mut logins = JoinSet::new();
    for number in 0..crowd {
        let body = json!({"email": format!("nobody-{number}@x.test"), "password": "wrong"});
        logins.spawn(send(app.request(Method::POST, LOGIN).json(&body)));
    }
    let busy = loop {
        let answer = logins.join_next().await.expect("more than can wait").unwrap();
        if answer.status == 503 {
            break answer;
        }
    };
    assert_eq!(busy.json(), json!({"detail": "Too many sign-ins at once. Please try again."}));
    assert!(app.count("ivs_login_throttle WHERE attempts = '{}'").await > 0);
}

#[tokio::test]
async fn another_peer_is_not_kept_out_and_who_is_one_the_trusted_proxy_says() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    login_from(&app, "203.0.113.1", "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 20).await;
    for hops in ["203.0.113.1", "203.0.113.2, 203.0.113.1:4711", "203.0.113.2, ::ffff:203.0.113.1, 127.0.0.9"] {
        assert_throttled(&login_from(&app, hops, PASSWORD).await, 900);
    }
    assert_eq!(login_from(&app, "203.0.113.1, 203.0.113.2", PASSWORD).await.status, 200);
    assert_throttled(&login_from(&app, "203.0.113.1", PASSWORD).await, 900);
    assert_eq!(login(&app, RITAS, PASSWORD).await.status, 200, "the proxy itself is another peer");
}

#[tokio::test]
async fn an_ipv6_peer_is_its_64_network() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    login_from(&app, "2001:db8:0:1::1", "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 20).await;
    assert_throttled(&login_from(&app, "[2001:db8:0:1:a:b:c:d]:4711", PASSWORD).await, 900);
    assert_eq!(login_from(&app, "2001:db8:0:2::1", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn what_an_untrusted_peer_says_of_itself_changes_nothing() {
    let app = TestApp::start_with(&[("TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    login_from(&app, "203.0.113.1", "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 20).await;
    for hops in ["203.0.113.1", "203.0.113.2", "10.0.0.1", ""] {
        assert_throttled(&login_from(&app, hops, PASSWORD).await, 900);
    }
    assert_throttled(&login(&app, RITAS, PASSWORD).await, 900);
}

#[tokio::test]
async fn servers_on_one_database_count_together() {
    let app = TestApp::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let other = format!("http://{}", listener.local_addr().unwrap());
    let (ctx, router) = (app.ctx.clone(), app::router(app.ctx.clone()).unwrap());
    tokio::spawn(async move { server::serve(listener, router, &ctx, CancellationToken::new()).await });
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 19).await;
    login_at(&app, &other, RITAS, "wrong", None).await.assert(400, wrong());
    for url in [&app.url, &other] {
        assert_throttled(&login_at(&app, url, RITAS, PASSWORD, None).await, 900);
    }
}

#[tokio::test]
async fn of_40_guesses_at_once_no_more_are_hashed_than_one_after_the_other() {
    let app = TestApp::start().await;
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 17).await;
    let mut logins = JoinSet::new();
    for _ in 0..40 {
        let request = app.request(Method::POST, LOGIN).json(&json!({"email": RITAS, "password": "wrong"}));
        // Who finds no place for hashing comes again.
        logins.spawn(async move {
            loop {
                let answer = send(request.try_clone().unwrap()).await;
                if answer.status != 503 {
                    return answer.status.as_u16();
                }
            }
        });
    }
    let mut answers = logins.join_all().await;
    answers.sort();
    assert_eq!(answers, [vec![400; 3], vec![429; 37]].concat());
    assert_eq!(attempts(&app).await, 20);
}

#[tokio::test]
async fn the_database_names_nobody_and_forgets_what_counts_no_longer() {
    let app = TestApp::start().await;
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    let row: String = sqlx::query_scalar("SELECT t::text || convert_from(subject, 'LATIN1') FROM ivs_login_throttle t")
        .fetch_one(app.db())
        .await
        .unwrap();
    assert!(!row.contains("rita") && !row.contains("127.0.0.1"), "{row}");
    app.advance(Duration::from_secs(899));
    app.sweep().await;
    assert_eq!(app.count("ivs_login_throttle").await, 1);
    app.advance(Duration::from_secs(1));
    app.sweep().await;
    assert_eq!(app.count("ivs_login_throttle").await, 0);
}
