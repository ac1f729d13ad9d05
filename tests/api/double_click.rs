//! Scheduling without an Idempotency-Key: what is sent twice within a minute makes one interview.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use interviews::{
    clock::Clock,
    dev::google::{Call, Fault, FaultKind},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{process::World, *};

impl TestApp {
    async fn until_inserting(&self, times: usize) {
        until(|| {
            (self.google.requests().iter().filter(|seen| seen.call == Call::Insert).count() >= times).then_some(())
        })
        .await;
    }
}

#[track_caller]
fn id_of(answer: &Answer) -> i64 {
    answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

#[tokio::test]
async fn a_second_click_gets_the_first_ones_answer_on_both_endpoints() {
    let app = TestApp::start().await;
    let (rita, otto) = (app.connected(RITA).await, app.user(OTTO));
    let (first, second) = (rita.schedule(body(json!({}))).await, rita.schedule(body(json!({}))).await);
    assert_eq!((is_replayed(&first), is_replayed(&second)), (false, true));
    second.assert(200, first.json());
    let first = otto.schedule_otherwise(phone_body(json!({}))).await;
    let second = otto.schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!((is_replayed(&first), is_replayed(&second)), (false, true));
    second.assert(201, first.json());
    assert_eq!((app.live().len(), app.count("company_interview").await), (1, 5));
    assert_eq!((app.mailbox.mails().len(), app.count("notifications_notification").await), (4, 2));
}

#[tokio::test]
async fn clicks_at_the_same_time_make_one_interview() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let answers = join_all((0..8).map(|_| rita.schedule(body(json!({}))))).await;
    let id = id_of(&answers[0]);
    assert!(answers.iter().all(|answer| answer.status == 200 && id_of(answer) == id), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 7);
    assert_eq!((app.live().len(), app.count("company_interview").await), (1, 4));
}

#[tokio::test]
async fn while_the_first_runs_eight_others_wait_without_a_connection_and_more_are_refused() {
    let app = TestApp::start().await;
    let (rita, otto) = (app.connected(RITA).await, app.user(OTTO));
    app.fault(Call::Insert, 1, FaultKind::Hold);
    let first = rita.schedule(body(json!({})));
    let refused = Cell::new(0);
    let other = async || {
        let answer = rita.schedule(body(json!({}))).await;
        refused.set(refused.get() + usize::from(answer.status == 409));
        answer
    };
    let others = async {
        app.until_inserting(1).await;
        let waiting = join_all((0..40).map(|_| other()));
        let meanwhile = async {
            until(|| (refused.get() == 32).then_some(())).await;
            // As many wait as the pool has connections.
            for _ in 0..20 {
                assert_eq!(rita.get("/api/company/interviews/").await.status, 200);
            }
            assert_eq!(otto.schedule_otherwise(phone_body(json!({}))).await.status, 201);
            app.google.let_go();
        };
        tokio::join!(waiting, meanwhile).0
    };
    let (first, others) = tokio::join!(first, others);
    let id = id_of(&first);
    let (waited, refused): (Vec<_>, Vec<_>) = others.into_iter().partition(|answer| answer.status == 200);
    assert!(waited.iter().all(|answer| is_replayed(answer) && id_of(answer) == id), "{waited:?}");
    let text = "A request with this Idempotency-Key is still being processed.";
    refused.iter().for_each(|answer| answer.assert(409, json!({ "error": text })));
    assert_eq!((waited.len(), app.live().len(), app.count("company_interview").await), (8, 1, 5));
}

#[tokio::test]
async fn one_whose_client_goes_away_waits_no_longer() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.fault(Call::Insert, 1, FaultKind::Hold);
    let waiting = || app.ctx.waiting.lock().unwrap().len();
    let others = async {
        app.until_inserting(1).await;
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let request = rita.request(Method::POST, "/api/company/google/create-interview/");
            clients.spawn(request.json(&body(json!({}))).send());
        }
        until(|| (waiting() == 8).then_some(())).await;
        clients.shutdown().await;
        // The first one's task is all that is left.
        until(|| (waiting() == 0 && app.ctx.tasks.len() == 1).then_some(())).await;
        app.google.let_go();
    };
    assert_eq!(tokio::join!(rita.schedule(body(json!({}))), others).0.status, 200);
}

#[tokio::test]
async fn the_second_does_the_work_when_the_first_fails() {
    // How long the first one's call to Google hangs.
    let app = TestApp::start_with(&[("GOOGLE_BUDGET_SECONDS", "1")]).await;
    let rita = app.connected(RITA).await;
    app.fault(Call::Insert, 1, FaultKind::Hang);
    let second = async {
        app.until_inserting(1).await;
        let begun = Instant::now();
        (rita.schedule(body(json!({}))).await, begun.elapsed())
    };
    let (first, (second, waited)) = tokio::join!(rita.schedule(body(json!({}))), second);
    assert_eq!((first.status.as_u16(), second.status.as_u16(), is_replayed(&second)), (502, 200, false), "{second:?}");
    assert!(waited > Duration::from_millis(500), "the second did not wait: {waited:?}");
    assert_eq!((app.live().len(), app.count("company_interview").await), (1, 4));
}

#[tokio::test]
async fn a_dead_requests_key_is_waited_for_until_45_s_and_then_taken_over() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.fault(Call::Insert, 1, FaultKind::Hold);
    let others = async {
        app.until_inserting(1).await;
        let second = rita.schedule(body(json!({})));
        let later = async {
            app.advance(Duration::from_secs(44));
            // Time enough for it.
            for _ in 0..20 {
                assert_eq!(rita.get("/api/users/profile/").await.status, 200);
            }
            let made = app.count("company_interview").await;
            app.advance(Duration::from_secs(2));
            made
        };
        let (second, made) = tokio::join!(second, later);
        app.google.let_go();
        (second, made)
    };
    let (first, (second, made)) = tokio::join!(rita.schedule(body(json!({}))), others);
    assert_eq!(made, 3, "before 45 s the first may still commit");
    assert_eq!((first.status.as_u16(), second.status.as_u16(), is_replayed(&second)), (500, 200, false), "{first:?}");
    until_async(async || app.live().len() == 1 && app.count("company_interview").await == 4).await;
}

#[tokio::test]
async fn when_the_first_ones_server_is_killed_the_second_takes_over_on_another() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.google.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::Hang });
    let post = async || {
        let token = access_token(Clock::System.now(), RITA);
        let url = format!("{}/api/company/google/create-interview/", world.url());
        let request = reqwest::Client::new().post(url).bearer_auth(token).json(&body(json!({})));
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.headers().contains_key("idempotency-replayed")))
    };
    let kill = async {
        world.until_called(Call::Insert, 1).await;
        drop(server);
    };
    assert_eq!(tokio::join!(post(), kill).0, None);
    let _server = world.serve().await;
    let later = async {
        // It looks for the end of the first.
        until_async(async || world.count("pg_stat_activity WHERE query LIKE '%ivs_idempotency_key AS key%'").await > 0)
            .await;
        assert_eq!((world.count("company_interview").await, world.live_events()), (3, 0));
        world.let_a_minute_pass().await;
    };
    assert_eq!(tokio::join!(post(), later).0, Some((200, false)));
    assert_eq!((world.count("company_interview").await, world.live_events()), (4, 1));
}

#[tokio::test]
async fn after_a_minute_the_same_is_another_interview() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let first = otto.schedule_otherwise(phone_body(json!({}))).await;
    app.advance(Duration::from_secs(60));
    let second = otto.schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!((id_of(&second), is_replayed(&second)), (id_of(&first), true));
    app.advance(Duration::from_secs(1));
    let third = otto.schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!((id_of(&third) == id_of(&first), is_replayed(&third)), (false, false));
    app.run_jobs().await;
}

#[tokio::test]
async fn one_that_was_changed_or_cancelled_since_is_not_answered_again() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let again = async || {
        let answer = otto.schedule_otherwise(phone_body(json!({}))).await;
        assert!(!is_replayed(&answer), "{answer:?}");
        id_of(&answer)
    };
    let first = again().await;
    assert_eq!(otto.change(first, json!({"time": "12:00"})).await.status, 200);
    let second = again().await;
    assert_eq!(otto.cancel(second).await.status, 200);
    let third = again().await;
    assert!(first != second && second != third);
    assert!(is_replayed(&otto.schedule_otherwise(phone_body(json!({}))).await));
    // Two at once, of which one makes it.
    assert_eq!(otto.cancel(third).await.status, 200);
    let (one, other) =
        tokio::join!(otto.schedule_otherwise(phone_body(json!({}))), otto.schedule_otherwise(phone_body(json!({}))));
    assert_eq!((id_of(&one), is_replayed(&one) ^ is_replayed(&other)), (id_of(&other), true));
}

#[tokio::test]
async fn another_body_endpoint_caller_or_key_is_another_request() {
    let app = TestApp::start().await;
    let (rita, otto) = (app.user(RITA), app.user(OTTO));
    let by_phone = |changes: Value| {
        let mut body =
            body(json!({"interview_type": "phone", "company_id": null, "job_id": null, "job_title": "Cook"}));
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let with_key = rita.request(Method::POST, "/api/company/google/create-interview/").header("Idempotency-Key", "k");
    let answers = [
        rita.schedule(by_phone(json!({}))).await,
        rita.schedule(by_phone(json!({"notes": "hi "}))).await,
        rita.schedule_otherwise(by_phone(json!({}))).await,
        send(with_key.json(&by_phone(json!({})))).await,
        otto.schedule(by_phone(json!({}))).await,
    ];
    let mut ids: Vec<i64> = answers.iter().map(id_of).collect();
    ids.dedup();
    assert_eq!((ids.len(), answers.iter().any(is_replayed)), (5, false), "{answers:?}");
}
