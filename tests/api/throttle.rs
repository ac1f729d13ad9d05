//! How often one may guess a password, and from where.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use interviews::{
    app,
    gate::{Flow, Lane, PATIENCE, Permit},
    http::server,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::{cookie_client::CookieClient, process::World, *};

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

/// Those of the peer that has made most.
async fn attempts(app: &TestApp) -> i32 {
    sqlx::query_scalar("SELECT coalesce(max(cardinality(attempts)), 0) FROM ivs_login_throttle")
        .fetch_one(app.db())
        .await
        .unwrap()
}

/// Every permit for hashing.
async fn all_permits(app: &TestApp) -> Vec<Permit> {
    let mut permits = Vec::new();
    for id in 0..std::thread::available_parallelism().unwrap().get() {
        let flow = Flow::new(format!("permit {id}").into(), Lane::Strangers);
        permits.push(app.ctx.hashing.permit(flow).await.unwrap());
    }
    permits
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
    // Those of the peer over all e-mails stay.
    assert_eq!((app.count("ivs_login_throttle").await, attempts(&app).await), (1, 19));
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
async fn a_sign_in_that_finds_no_place_for_hashing_costs_no_statement_and_leaves_no_row() {
    let app = TestApp::start().await;
    let permits = all_permits(&app).await;
    let (busy, statements) = counting_statements(login(&app, RITAS, "wrong")).await;
    busy.assert(503, json!({"detail": "Too many sign-ins at once. Please try again."}));
    assert_eq!(busy.header("retry-after"), Some("3"));
    assert_eq!((statements, app.count("ivs_login_throttle").await), (0, 0));
    drop(permits);
    login(&app, RITAS, "wrong").await.assert(400, wrong());
}

#[tokio::test]
async fn of_32_people_at_once_from_one_address_or_many_nobody_is_turned_away_without_having_waited() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    for is_one_address in [false, true] {
        let mut logins = JoinSet::new();
        let start = Instant::now();
        for person in 0..32 {
            let email = ["rita@x.test", "otto@x.test", "nora@x.test", "carl@x.test"][person % 4];
            let forwarded = format!("203.0.113.{}", if is_one_address { 0 } else { person });
            let body = json!({"email": email, "password": PASSWORD});
            let request = app.request(Method::POST, LOGIN).header("x-forwarded-for", forwarded).json(&body);
            logins.spawn(async move { (send(request).await, start.elapsed()) });
        }
        for (answer, after) in logins.join_all().await {
            // A machine that is busy with other tests hashes fewer in that time.
            assert!(answer.status == 200 || answer.status == 503 && after >= PATIENCE, "{answer:?} after {after:?}");
        }
    }
}

#[tokio::test]
async fn while_40_clients_of_one_address_guess_everybody_else_signs_in() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    let mut guessers = JoinSet::new();
    for guesser in 0..40 {
        let request = app.request(Method::POST, LOGIN).header("x-forwarded-for", "203.0.113.1");
        guessers.spawn(async move {
            for guess in 0.. {
                let body = json!({"email": format!("{guesser}-{guess}@x.test"), "password": "guess"});
                send(request.try_clone().unwrap().json(&body)).await;
            }
        });
    }
    until(|| (app.ctx.hashing.waiting() >= 30).then_some(())).await;
    for person in 1..=8 {
        let answer = login_from(&app, &format!("198.51.100.{person}"), PASSWORD).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_browser_that_has_signed_in_before_overtakes_strangers_and_a_forged_cookie_does_not() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    let cookie = cookie_of_a_known_browser(&app, RITAS).await;
    let (name, value) = cookie.split_once('=').unwrap();
    let (known, proof) = value.rsplit_once('.').unwrap();
    let (later, other) = (format!("{known}0.{proof}"), format!("{known}.{known}"));
    for (value, overtakes) in [(value, true), (&later, false), (&other, false)] {
        let cookie = format!("{name}={value}");
        let addresses: Vec<_> = (0..6).map(|person| format!("203.0.113.{person}")).collect();
        let attempts = addresses
            .iter()
            .enumerate()
            .map(|(nr, address)| (address.as_str(), "nobody@x.test".to_owned(), (nr == 5).then_some(cookie.as_str())));
        assert_eq!(last_is_served_soon(&app, &attempts.collect::<Vec<_>>()).await, overtakes, "{cookie}");
    }
}

/// Whether the last of these sign-ins, each by way of an address and with an e-mail and perhaps a known browser's cookie,
/// is among the first three that are served. They queue in this order, and there is one core.
async fn last_is_served_soon(app: &TestApp, attempts: &[(&str, String, Option<&str>)]) -> bool {
    let mut permits = all_permits(app).await;
    let mut logins = JoinSet::new();
    for (nr, (forwarded, email, cookie)) in attempts.iter().enumerate() {
        let request = app
            .request(Method::POST, LOGIN)
            .header("x-forwarded-for", *forwarded)
            .json(&json!({"email": email, "password": "wrong"}));
        let request = cookie.iter().fold(request, |request, cookie| request.header("cookie", *cookie));
        logins.spawn(async move {
            send(request).await;
            nr
        });
        until(|| (app.ctx.hashing.waiting() == nr + 1).then_some(())).await;
    }
    permits.pop();
    for _ in 0..3 {
        if logins.join_next().await.unwrap().unwrap() == attempts.len() - 1 {
            return true;
        }
    }
    false
}

async fn cookie_of_a_known_browser(app: &TestApp, email: &str) -> String {
    let browser = CookieClient::of(app, email).await;
    let (name, value) = browser.cookies.into_iter().find(|(name, _)| name == "umemployed_known").unwrap();
    format!("{name}={value}")
}

#[tokio::test]
async fn cookies_of_many_accounts_give_one_address_no_more_turns() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    let mut attempts = Vec::new();
    let mut cookies = Vec::new();
    for email in ["rita@x.test", "otto@x.test", "nora@x.test", "carl@x.test"] {
        cookies.push(cookie_of_a_known_browser(&app, email).await);
    }
    for cookie in &cookies {
        attempts.push(("203.0.113.1", "nobody@x.test".to_owned(), Some(cookie.as_str())));
    }
    attempts.push(("198.51.100.1", "nobody@x.test".to_owned(), Some(cookies[0].as_str())));
    assert!(last_is_served_soon(&app, &attempts).await);
}

#[tokio::test]
async fn the_cookie_of_one_account_gives_many_addresses_no_more_turns() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    let (ritas, ottos) =
        (cookie_of_a_known_browser(&app, RITAS).await, cookie_of_a_known_browser(&app, "otto@x.test").await);
    let addresses: Vec<_> = (0..5).map(|nr| format!("203.0.113.{nr}")).collect();
    let of_rita = |address| (address, "nobody@x.test".to_owned(), Some(ritas.as_str()));
    let mut attempts: Vec<_> = addresses.iter().map(|address| of_rita(address.as_str())).collect();
    attempts.push(("198.51.100.1", "nobody@x.test".to_owned(), Some(&ottos)));
    assert!(last_is_served_soon(&app, &attempts).await);
}

#[tokio::test]
async fn a_browser_is_known_for_400_days() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    let cookie = cookie_of_a_known_browser(&app, RITAS).await;
    let addresses: Vec<_> = (0..6).map(|nr| format!("203.0.113.{nr}")).collect();
    for (days, is_known) in [(400, true), (1, false)] {
        app.advance(Duration::from_secs(days * 24 * 3600));
        let attempts = addresses
            .iter()
            .enumerate()
            .map(|(nr, address)| (address.as_str(), "nobody@x.test".to_owned(), (nr == 5).then_some(cookie.as_str())));
        assert_eq!(last_is_served_soon(&app, &attempts.collect::<Vec<_>>()).await, is_known, "{days}");
    }
}

#[tokio::test]
async fn a_crowd_in_a_64_network_delays_no_other_and_one_of_many_in_a_48_network_no_other_48_network() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    for (crowd, other) in [([1; 6], "2001:db8:0:2::1"), ([1, 2, 3, 4, 5, 6], "2001:db8:1:1::1")] {
        let crowd = crowd.map(|network| format!("2001:db8:0:{network}::1"));
        let addresses = crowd.iter().map(String::as_str).chain([other]);
        let attempts: Vec<_> = addresses.map(|address| (address, "nobody@x.test".to_owned(), None)).collect();
        assert!(last_is_served_soon(&app, &attempts).await, "{other}");
    }
}

#[tokio::test]
async fn a_crowd_of_emails_at_a_trusted_client_does_not_shut_out_strangers() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY, TRUSTED]).await;
    let mut attempts: Vec<_> = (0..6).map(|nr| ("198.51.100.7", format!("{nr}@x.test"), None)).collect();
    attempts.push(("203.0.113.1", "nobody@x.test".to_owned(), None));
    assert!(last_is_served_soon(&app, &attempts).await);
}

#[tokio::test]
async fn when_the_next_attempt_of_a_peer_begins_does_not_tell_what_is_stored() {
    let app = TestApp::start().await;
    let guess = || send(app.request(Method::POST, LOGIN).json(&json!({"email": "nobody@x.test", "password": "wrong"})));
    // Other tests take the cores away at times: what holds shows in one of three tries.
    for tries_left in (0..3).rev() {
        let start = Instant::now();
        let mut guesses = JoinSet::new();
        for _ in 0..3 {
            guesses.spawn(guess());
        }
        let begins = async {
            until(|| (app.ctx.hashing.waiting() == 1).then_some(())).await;
            until(|| (app.ctx.hashing.waiting() == 0).then_some(())).await;
            start.elapsed()
        };
        let answered = async {
            guesses.join_next().await.unwrap().unwrap().assert(400, wrong());
            start.elapsed()
        };
        let (begins, answered) = tokio::join!(begins, answered);
        guesses.join_all().await;
        if begins > answered.mul_f64(0.85) {
            return;
        }
        assert!(tries_left > 0, "the first is answered after {answered:?}, and the third begins after {begins:?}");
    }
}

#[tokio::test]
async fn an_attempt_whose_email_could_not_be_counted_is_not_counted_for_its_peer() {
    let app = TestApp::start().await;
    app.execute(
        "CREATE FUNCTION fail_at_the_second() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF EXISTS (SELECT FROM ivs_login_throttle) THEN RAISE 'disk full'; END IF;
             RETURN new; END $$",
    )
    .await;
    app.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON ivs_login_throttle FOR EACH ROW EXECUTE FUNCTION fail_at_the_second()",
    )
    .await;
    assert_eq!(login(&app, RITAS, PASSWORD).await.status, 500);
    assert_eq!(app.count("ivs_login_throttle").await, 0);
}

#[tokio::test]
async fn an_attempt_that_was_no_failure_is_taken_back_when_the_database_can_write_again() {
    let app = TestApp::start().await;
    login(&app, "ines@x.test", "wrong").await.assert(400, wrong());
    app.execute("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$").await;
    app.execute(
        "CREATE TRIGGER fail BEFORE UPDATE ON ivs_login_throttle FOR EACH ROW
         WHEN (cardinality(new.attempts) < cardinality(old.attempts)) EXECUTE FUNCTION fail()",
    )
    .await;
    assert_eq!(login(&app, "ines@x.test", PASSWORD).await.status, 403);
    assert_eq!(attempts(&app).await, 2);
    app.execute("DROP TRIGGER fail ON ivs_login_throttle").await;
    until_async(async || attempts(&app).await == 1).await;
}

#[tokio::test]
async fn an_attempt_whose_count_gets_no_answer_is_not_counted() {
    let (app, relay) = TestApp::start_behind_relay().await;
    login(&app, RITAS, "wrong").await.assert(400, wrong());
    let subject: Vec<u8> =
        sqlx::query_scalar("SELECT subject FROM ivs_login_throttle LIMIT 1").fetch_one(app.db()).await.unwrap();
    relay.lose_answer(&subject);
    let refused = login(&app, RITAS, PASSWORD).await;
    refused.assert(503, json!({"detail": "The server is busy. Please try again."}));
    until_async(async || attempts(&app).await == 1).await;
}

#[tokio::test]
async fn a_peer_that_has_failed_200_times_over_all_emails_has_to_wait_and_nobody_else() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    login_from(&app, "2001:db8:0:1::1", "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 199).await;
    // No success brings the peer more guesses.
    let from_there =
        async |email: &str, password: &str| login_at(&app, &app.url, email, password, Some("2001:db8:0:1:f::2")).await;
    assert_eq!(from_there("otto@x.test", PASSWORD).await.status, 200);
    from_there("nobody@x.test", PASSWORD).await.assert(400, wrong());
    let rows = app.count("ivs_login_throttle").await;
    for email in ["carl@x.test", "somebody@x.test"] {
        assert_throttled(&from_there(email, PASSWORD).await, 900);
    }
    assert_eq!(app.count("ivs_login_throttle").await, rows, "a refusal leaves no row");
    assert_eq!(login_from(&app, "2001:db8:0:2::1", PASSWORD).await.status, 200, "another /64 network");
    app.advance(Duration::from_secs(900));
    assert_eq!(from_there("carl@x.test", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_48_network_that_has_failed_2000_times_over_all_emails_has_to_wait_and_no_other() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY]).await;
    login_from(&app, "2001:db8:0:1::1", "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 1999).await;
    login_from(&app, "2001:db8:0:2::1", "wrong").await.assert(400, wrong());
    assert_throttled(&login_from(&app, "2001:db8:0:ffff::1", PASSWORD).await, 900);
    assert_eq!(login_from(&app, "2001:db8:1:1::1", PASSWORD).await.status, 200);
}

/// The web application's own server signs in from there, for everybody.
const TRUSTED: (&str, &str) = ("TRUSTED_CLIENTS", "198.51.100.0/24");

#[tokio::test]
async fn at_a_trusted_client_wrong_guesses_delay_the_owner_and_shut_nobody_out() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY, TRUSTED]).await;
    let web = "198.51.100.7";
    login_from(&app, web, "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 6).await;
    let start = Instant::now();
    let owner = tokio::spawn({
        let body = json!({"email": RITAS, "password": PASSWORD});
        send(app.request(Method::POST, LOGIN).header("x-forwarded-for", web).json(&body))
    });
    // The delay holds no place, and is that e-mail's alone.
    assert_eq!(login_at(&app, &app.url, "otto@x.test", PASSWORD, Some("198.51.100.8")).await.status, 200);
    assert!(!owner.is_finished());
    // Far more guesses than anybody else may make.
    repeat_the_last_attempt(&app, 250).await;
    let (owner, waited) = (owner.await.unwrap(), start.elapsed());
    assert!(owner.status == 200 && waited >= Duration::from_secs(3), "{owner:?} after {waited:?}");
    assert_eq!(app.count("ivs_login_throttle").await, 0, "a success forgets all failures, and nobody else is counted");
    let start = Instant::now();
    assert_eq!(login_from(&app, web, PASSWORD).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_delay_at_a_trusted_client_ends_with_the_server() {
    let app = TestApp::start_with(&[BEHIND_A_PROXY, TRUSTED]).await;
    let web = "198.51.100.7";
    login_from(&app, web, "wrong").await.assert(400, wrong());
    repeat_the_last_attempt(&app, 20).await;
    let start = Instant::now();
    let waiting = login_from(&app, web, PASSWORD);
    let (answer, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.ctx.stopping.cancel();
    });
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("3")));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_sign_in_that_waits_for_nothing_is_answered_while_the_server_stops() {
    let app = TestApp::start().await;
    app.ctx.stopping.cancel();
    assert_eq!(login(&app, RITAS, PASSWORD).await.status, 200);
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
async fn an_emails_failures_count_for_the_64_network_of_an_ipv6_peer() {
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
async fn a_proxy_that_is_not_trusted_is_warned_of_once() {
    let world = World::new().await;
    let server = world.serve().await;
    let client = reqwest::Client::new();
    for client_of_the_proxy in ["203.0.113.1", "203.0.113.2"] {
        let login = client.post(format!("{}{LOGIN}", world.url())).header("x-forwarded-for", client_of_the_proxy);
        login.json(&json!({"email": RITAS, "password": "wrong"})).send().await.unwrap();
    }
    let said = server.said();
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("TRUSTED_PROXIES")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("127.0.0.1") && !said.contains("203.0.113."), "{said}");
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
    let sql = "SELECT t::text || convert_from(subject, 'LATIN1') FROM ivs_login_throttle t";
    let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(app.db()).await.unwrap();
    assert_eq!(rows.len(), 2, "of the e-mail, and of all e-mails");
    for row in rows {
        assert!(!row.contains("rita") && !row.contains("127.0.0.1"), "{row}");
    }
    app.advance(Duration::from_secs(899));
    app.sweep().await;
    assert_eq!(app.count("ivs_login_throttle").await, 2);
    app.advance(Duration::from_secs(1));
    app.sweep().await;
    assert_eq!(app.count("ivs_login_throttle").await, 0);
}
