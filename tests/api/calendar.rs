//! The calendar's own face, where the front door shows only the outcome: one refresher at a time, what is undone when,
//! and what happens at once.

use std::time::Duration;

use chrono::DateTime;
use interviews::{
    calendar::{self, CalendarError, Created, Event, Intent},
    clock::random_uuid,
    dev::google::{Call, Fault, FaultKind},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const ID: &str = "0123456789abcdef0123456789abcdef";

/// Records an intent for an event of this id.
async fn intend(app: &TestApp, event_id: &str) -> Intent {
    let mut db = app.db().acquire().await.unwrap();
    calendar::record_intent(&mut db, random_uuid(), RITA, Some(event_id), app.now()).await.unwrap()
}

async fn make(app: &TestApp, intent: Intent) -> Result<Created, CalendarError> {
    let event = Event {
        id: ID,
        request_id: intent.id,
        job_title: "Software Engineer",
        candidate_name: "Carl Candy",
        recruiter_name: "Rita Recruit",
        note: Some("hello"),
        start: DateTime::from_timestamp(1_894_734_000, 0).unwrap(),
        end: DateTime::from_timestamp(1_894_737_600, 0).unwrap(),
        zone: "America/New_York",
        attendees: ["carl@x.test", "rita@x.test"],
    };
    calendar::create_event(&app.ctx, RITA, intent, &event).await
}

/// As Rita, with an intent and her calendar connected.
async fn create(app: &TestApp) -> Result<Created, CalendarError> {
    let intent = intend(app, ID).await;
    make(app, intent).await
}

async fn give_up(app: &TestApp, intent: Intent) {
    assert!(calendar::give_up(&mut app.db().acquire().await.unwrap(), intent.id, app.now()).await.unwrap());
}

async fn take(app: &TestApp, intent: Intent) -> bool {
    calendar::take_intent(&mut app.db().acquire().await.unwrap(), intent.id).await.unwrap()
}

fn order(app: &TestApp, on: Call, times: usize, kind: FaultKind) {
    app.google.order(Fault { on, times, kind });
}

/// The calls of the calendar API and the refreshes.
fn calls(app: &TestApp) -> Vec<Call> {
    app.google.requests().into_iter().map(|seen| seen.call).filter(|call| *call != Call::Exchange).collect()
}

fn live(app: &TestApp) -> Vec<Value> {
    app.google.events().into_iter().filter(|event| event["status"] != "cancelled").collect()
}

#[tokio::test]
async fn a_deleted_event_is_made_under_another_id_that_the_intent_notes_first() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let first = intend(&app, ID).await;
    make(&app, first).await.unwrap();
    give_up(&app, first).await;
    app.sweep().await;
    assert!(live(&app).is_empty());

    let intent = intend(&app, ID).await;
    let created = make(&app, intent).await.unwrap();
    assert_ne!(created.event_id, ID);
    assert_eq!(live(&app).len(), 1);
    let noted: String = sqlx::query_scalar("SELECT event_id FROM ivs_intent WHERE id = $1")
        .bind(intent.id)
        .fetch_one(app.db())
        .await
        .unwrap();
    assert_eq!(noted, created.event_id);

    // Given up meanwhile: no other event may be made.
    let intent = intend(&app, ID).await;
    give_up(&app, intent).await;
    assert!(matches!(make(&app, intent).await, Err(CalendarError::Internal(_))));
    assert_eq!(live(&app).len(), 1);
}

#[tokio::test]
async fn a_401_right_after_a_refresh_ends_the_grant() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    order(&app, Call::Calendar, 2, FaultKind::status(401));
    assert!(matches!(create(&app).await, Err(CalendarError::NotConnected)));
    assert_eq!(calls(&app), [Call::Insert, Call::Refresh, Call::Insert]);
    assert_eq!(app.count("company_googlecredentials").await, 0);
    assert_eq!(app.count("ivs_grant_lease").await, 0);
    assert!(rita.connect("rita@gmail.test").await.header("location").unwrap().ends_with("=success"));
    app.run_jobs().await;
}

#[tokio::test]
async fn the_lease_of_a_dead_refresher_is_waited_out() {
    let app = TestApp::start_with(&[("GOOGLE_BUDGET_SECONDS", "1")]).await;
    app.connected(RITA).await;
    app.advance(Duration::from_secs(3600));
    sqlx::query("INSERT INTO ivs_grant_lease VALUES ($1, $2, $3)")
        .bind(RITA)
        .bind(random_uuid())
        .bind(app.now() + Duration::from_secs(15))
        .execute(app.db())
        .await
        .unwrap();
    assert!(matches!(create(&app).await, Err(CalendarError::Unavailable)));
    assert_eq!(calls(&app), []);
    app.advance(Duration::from_secs(15));
    create(&app).await.unwrap();
    assert_eq!(calls(&app)[..2], [Call::Refresh, Call::Insert]);
}

#[tokio::test]
async fn a_refresh_does_not_overwrite_a_grant_that_was_connected_meanwhile() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.advance(Duration::from_secs(3600));
    order(&app, Call::Refresh, 1, FaultKind::Delay { millis: 400 });
    let meanwhile = async {
        until(|| calls(&app).contains(&Call::Refresh).then_some(())).await;
        rita.connect("otto@gmail.test").await
    };
    let (created, _) = tokio::join!(create(&app), meanwhile);
    assert_eq!(created.unwrap().organizer.as_deref(), Some("otto@gmail.test"));
    let answer = rita.get("/api/company/google/check-connection/").await;
    answer.assert(200, json!({"connected": true, "email": "otto@gmail.test"}));
    app.run_jobs().await;
}

#[tokio::test]
async fn a_dead_refresh_does_not_remove_a_grant_that_was_connected_meanwhile() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.google.revoke_grants();
    app.advance(Duration::from_secs(3600));
    order(&app, Call::Refresh, 1, FaultKind::Delay { millis: 400 });
    let meanwhile = async {
        until(|| calls(&app).contains(&Call::Refresh).then_some(())).await;
        // The simulator looks the token up when the delay is over: it stays unknown.
        rita.connect("otto@gmail.test").await
    };
    let (created, _) = tokio::join!(create(&app), meanwhile);
    created.unwrap();
    app.run_jobs().await;
}

#[tokio::test]
async fn an_intent_is_undone_after_45_seconds_and_cannot_be_taken_any_more() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let intent = intend(&app, ID).await;
    make(&app, intent).await.unwrap();
    app.advance(Duration::from_secs(44));
    app.sweep().await;
    assert_eq!(live(&app).len(), 1);
    app.advance(Duration::from_secs(1));
    app.sweep().await;
    assert!(live(&app).is_empty());
    assert!(!take(&app, intent).await);
    assert_eq!(app.count("ivs_intent").await, 0);
}

#[tokio::test]
async fn an_intent_that_is_taken_leaves_its_event_alone() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let intent = intend(&app, ID).await;
    make(&app, intent).await.unwrap();
    assert!(take(&app, intent).await);
    assert!(!calendar::give_up(&mut app.db().acquire().await.unwrap(), intent.id, app.now()).await.unwrap());
    app.advance(Duration::from_secs(3600));
    app.sweep().await;
    assert_eq!(live(&app).len(), 1);
}

#[tokio::test]
async fn an_event_that_was_never_there_is_looked_for_again_minutes_later() {
    lands_late(None).await;
}

#[tokio::test]
async fn an_event_whose_deletion_was_answered_in_a_way_that_says_nothing_is_looked_for_again() {
    lands_late(Some(FaultKind::Garbage)).await;
}

#[tokio::test]
async fn an_event_whose_request_is_found_to_be_over_late_is_looked_for_minutes_after_that() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    intend(&app, ID).await;
    // Everything stood still, the request and the sweep.
    app.advance(Duration::from_secs(600));
    app.sweep().await;
    insert_lands(&app).await;
    gone_after(&app, 300).await;
}

#[tokio::test]
async fn an_event_whose_request_wakes_while_its_intent_is_undone_is_looked_for_minutes_after_that() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let intent = intend(&app, ID).await;
    app.advance(Duration::from_secs(46));
    app.sweep().await;
    // The insert is answered with an error; Google may do it all the same.
    app.advance(Duration::from_secs(154));
    order(&app, Call::Insert, 1, FaultKind::status(400));
    make(&app, intent).await.unwrap_err();
    app.advance(Duration::from_secs(146));
    app.sweep().await;
    insert_lands(&app).await;
    gone_after(&app, 154).await;
}

#[tokio::test]
async fn an_intent_is_not_forgotten_while_its_request_wakes() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let intent = intend(&app, ID).await;
    app.advance(Duration::from_secs(46));
    app.sweep().await;
    app.advance(Duration::from_secs(300));
    // Google knows no such event; before we hear that, the request asks for it.
    order(&app, Call::Delete, 1, FaultKind::Hold);
    order(&app, Call::Insert, 1, FaultKind::status(400));
    let wakes = async {
        until(|| (calls(&app).iter().filter(|call| **call == Call::Delete).count() == 2).then_some(())).await;
        make(&app, intent).await.unwrap_err();
        app.google.let_go();
    };
    tokio::join!(app.sweep(), wakes);
    assert_eq!(app.count("ivs_intent").await, 1);
    app.advance(Duration::from_secs(300));
    app.sweep().await;
    assert_eq!(app.count("ivs_intent").await, 0);
}

#[tokio::test]
async fn a_request_that_wakes_records_the_event_that_it_was_making_last() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let first = intend(&app, ID).await;
    make(&app, first).await.unwrap();
    give_up(&app, first).await;
    app.sweep().await;

    // Its id is used up, so it makes another one, and is never told of its Meet link.
    let intent = intend(&app, ID).await;
    let mut inserts = 0;
    app.google.disturb(move |call| {
        inserts += usize::from(call == Call::Insert);
        match call {
            Call::Insert if inserts == 2 => Some(FaultKind::Hold),
            Call::Get if inserts == 2 => Some(FaultKind::status(400)),
            _ => None,
        }
    });
    let others = async {
        until(|| (calls(&app).iter().filter(|call| **call == Call::Insert).count() == 3).then_some(())).await;
        for seconds in [46, 300] {
            app.advance(Duration::from_secs(seconds));
            app.sweep().await;
        }
        app.google.let_go();
    };
    let (made, ()) = tokio::join!(make(&app, intent), others);
    made.unwrap_err();
    assert_eq!(live(&app).len(), 1);
    app.sweep().await;
    assert!(live(&app).is_empty());
}

/// An insert that Google does only after it was asked to delete the event.
async fn lands_late(fault: Option<FaultKind>) {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let intent = intend(&app, ID).await;
    give_up(&app, intent).await;
    fault.into_iter().for_each(|fault| order(&app, Call::Delete, 1, fault));
    app.sweep().await;
    assert_eq!(calls(&app), [Call::Delete]);
    insert_lands(&app).await;
    // Five minutes after the last moment at which its request can have asked for it.
    gone_after(&app, 45 + 300).await;
}

/// Google does an insert that nobody waits for any more.
async fn insert_lands(app: &TestApp) {
    let late = intend(app, "ffff0000").await;
    make(app, late).await.unwrap();
    assert!(take(app, late).await);
}

/// The event is deleted and its intent forgotten after so many seconds, not one before.
async fn gone_after(app: &TestApp, seconds: u64) {
    for (seconds, left) in [(seconds - 1, 1), (1, 0)] {
        app.advance(Duration::from_secs(seconds));
        app.sweep().await;
        assert_eq!((live(app).len(), app.count("ivs_intent").await), (left, left as i64));
    }
}

#[tokio::test]
async fn undoing_backs_off_while_google_fails_and_hastens_with_a_new_grant() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let intent = intend(&app, ID).await;
    make(&app, intent).await.unwrap();
    give_up(&app, intent).await;
    let wait = async || {
        app.sweep().await;
        let next: DateTime<chrono::Utc> =
            sqlx::query_scalar("SELECT next_attempt_at FROM ivs_intent").fetch_one(app.db()).await.unwrap();
        let wait = next - app.now();
        app.ctx.clock.set(next);
        wait.num_seconds()
    };
    app.google.revoke_grants();
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(wait().await);
    }
    assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1800, 1800]);
    assert_eq!(live(&app).len(), 1);
    app.sweep().await;
    // Not due for half an hour; but now it can be done.
    rita.connect("rita@gmail.test").await;
    app.sweep().await;
    assert!(live(&app).is_empty());
    app.run_jobs().await;
}

#[tokio::test]
async fn an_intent_that_cannot_be_undone_is_forgotten_after_90_days() {
    let app = TestApp::start().await;
    let intent = intend(&app, ID).await;
    give_up(&app, intent).await;
    app.sweep().await;
    app.advance(Duration::from_secs(90 * 24 * 3600));
    app.sweep().await;
    assert_eq!(app.count("ivs_intent").await, 1);
    app.advance(Duration::from_secs(1));
    app.sweep().await;
    assert_eq!(app.count("ivs_intent").await, 0);
}

#[tokio::test]
async fn an_intent_without_an_event_is_just_removed() {
    let app = TestApp::start().await;
    let mut db = app.db().acquire().await.unwrap();
    calendar::record_intent(&mut db, random_uuid(), RITA, None, app.now()).await.unwrap();
    app.advance(Duration::from_secs(45));
    app.sweep().await;
    assert_eq!(app.count("ivs_intent").await, 0);
}

#[tokio::test]
async fn several_sweeps_at_once_undo_each_intent_once() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    for number in 0..40 {
        let intent = intend(&app, &format!("{number:032x}")).await;
        give_up(&app, intent).await;
    }
    let (a, b, c) = tokio::join!(
        calendar::undo_intents(&app.ctx),
        calendar::undo_intents(&app.ctx),
        calendar::undo_intents(&app.ctx)
    );
    a.and(b).and(c).unwrap();
    assert_eq!(calls(&app), vec![Call::Delete; 40]);
}

#[tokio::test]
async fn disconnecting_first_undoes_what_a_request_under_way_makes() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    order(&app, Call::Insert, 1, FaultKind::Delay { millis: 600 });
    let disconnect = async {
        until(|| calls(&app).contains(&Call::Insert).then_some(())).await;
        send(rita.request(Method::POST, "/api/company/google/disconnect/")).await
    };
    let (scheduled, disconnected) = tokio::join!(rita.schedule(body(json!({}))), disconnect);
    scheduled.assert(500, json!({"detail": "Internal server error."}));
    assert_eq!(disconnected.status, 200);
    assert!(live(&app).is_empty());
    assert_eq!((app.count("ivs_intent").await, app.count("company_interview").await), (0, 3));
    assert_eq!(app.count("company_googlecredentials").await, 0);
}

#[tokio::test]
async fn two_callbacks_at_once_store_one_grant_and_of_one_state_one_is_refused() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let [one, two] = [rita.authorization_url().await, rita.authorization_url().await];
    let one = app.google.allow_as(&one, "rita@gmail.test").unwrap();
    let two = app.google.allow_as(&two, "otto@gmail.test").unwrap();
    let (a, b, again) = tokio::join!(app.get(&one), app.get(&two), app.get(&two));
    let ended = |answer: &Answer, with: &str| answer.header("location").unwrap().ends_with(with);
    assert!(ended(&a, "=success"));
    let expired = "message=Invalid%20or%20expired%20OAuth%20state";
    assert!(ended(&b, "=success") && ended(&again, expired) || ended(&again, "=success") && ended(&b, expired));
    assert_eq!(app.count("company_googlecredentials").await, 1);
    app.run_jobs().await;
}
