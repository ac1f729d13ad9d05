//! How many mails people get, and what an SMTP server that says nothing costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use interviews::dev::google::{Call, FaultKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    schedule::{SCHEDULE, with},
    support::{cookie_client::CookieClient, page::Page, *},
};

const FOLLOWS: &str = "The mail follows in a minute.";

/// Otto's interview by phone on the nth day of a month.
fn on_day(nth: usize) -> Value {
    phone_body(json!({"date": format!("2030-03-{:02}", nth + 1)}))
}

impl TestApp {
    /// The SEQUENCEs that Carl has been sent, in the order of their acceptance.
    fn sequences(&self) -> Vec<String> {
        let to_carl = self.mailbox.mails().into_iter().filter(|mail| mail.to() == ["carl@x.test"]);
        let calendar = to_carl.map(|mail| mail.calendar().unwrap().text);
        calendar.map(|text| text.lines().find(|line| line.starts_with("SEQUENCE")).unwrap()[9..].to_owned()).collect()
    }

    fn wait(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    /// Lets Dana be invited for Otto's job too.
    async fn shortlist_dana(&self) {
        self.execute(
            "INSERT INTO job_shortlist (id, recruiter_id, candidate_id, job_id, shortlisted_at, created_at)
             VALUES (900, 102, 202, 22, now(), now())",
        )
        .await;
    }
}

#[track_caller]
fn assert_throttled(answer: &Answer, seconds: u64) {
    let detail = format!("Request was throttled. Expected available in {seconds} seconds.");
    answer.assert(429, json!({ "detail": detail }));
    assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()));
}

#[tokio::test]
async fn a_second_update_within_a_minute_waits_for_its_end_and_a_third_overtakes_it() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    let change = async |time: &str| {
        let answer = otto.change(id, json!({ "time": time })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let warnings = answer.json()["warnings"].as_array().unwrap().clone();
        (answer.json()["emails_sent"]["candidate"] == true, warnings.contains(&json!(FOLLOWS)))
    };
    assert_eq!(change("18:00").await, (true, false));
    app.wait(10);
    assert_eq!(change("19:00").await, (false, true));
    app.wait(10);
    assert_eq!(change("20:00").await, (false, true));
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1"]);
    app.wait(39);
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1"]);
    app.wait(1);
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1", "3"], "when the first one's minute is over");
    let last = app.mailbox.mails().pop().unwrap();
    assert!(last.text().contains("\nTime: 8:00 PM Asia/Tokyo\n"), "{}", last.text());

    app.wait(59);
    assert_eq!(change("21:00").await, (false, true));
    app.wait(1);
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1", "3", "4"]);
    app.wait(60);
    assert_eq!(change("22:00").await, (true, false));
    assert_eq!(app.mailbox.mails().len(), 10, "the recruiter's copies wait too");
    app.wait(3600);
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 10);
}

#[tokio::test]
async fn updates_of_two_interviews_do_not_wait_for_each_other() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let (one, other) = (otto.phone().await, otto.schedule_otherwise(on_day(3)).await.json()["interview_id"].as_i64());
    for id in [one, other.unwrap()] {
        let answer = otto.change(id, json!({"time": "18:00"})).await.json();
        assert_eq!(answer["emails_sent"], json!({"candidate": true, "recruiter": true}));
    }
}

#[tokio::test]
async fn a_cancellation_goes_at_once_and_overtakes_the_update_that_waits() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    otto.change(id, json!({"time": "18:00"})).await;
    assert_eq!(otto.change(id, json!({"time": "19:00"})).await.json()["emails_sent"]["candidate"], false);
    let answer = otto.cancel(id).await.json();
    assert_eq!(answer["emails_sent"], json!({"candidate": true, "recruiter": true}));
    app.wait(3600);
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1", "3"]);
}

#[tokio::test]
async fn two_hundred_changes_send_one_mail_a_minute_and_are_no_more_mails_than_they_send() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "4")]).await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    for nth in 0..200 {
        let answer = otto.change(id, json!({"note": format!("{nth}")})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(app.mailbox.mails().len(), 4, "the invitation and the first change, to both");
    app.wait(60);
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1", "200"]);
    // One more of the four.
    assert_eq!(otto.change(id, json!({"note": "more"})).await.status, 200);
    assert_throttled(&otto.change(id, json!({"note": "too much"})).await, 3540);
    app.wait(60);
    app.run_jobs().await;
}

#[tokio::test]
async fn after_twenty_mails_in_an_hour_a_recruiter_waits_and_nothing_has_happened() {
    let app = TestApp::start().await;
    app.shortlist_dana().await;
    let (rita, otto) = (app.connected(RITA).await, app.user(OTTO));
    let mut ids = Vec::new();
    for nth in 0..20 {
        let answer = otto.schedule_otherwise(on_day(nth)).await;
        assert_eq!(answer.status, 201, "{nth}: {answer:?}");
        ids.push(answer.json()["interview_id"].as_i64().unwrap());
        app.wait(1);
    }
    let before = (app.count("company_interview").await, app.mailbox.mails().len());
    assert_throttled(&otto.schedule_otherwise(on_day(20)).await, 3580);
    assert_throttled(&otto.change(ids[0], json!({"time": "18:00"})).await, 3580);
    assert_eq!((app.count("company_interview").await, app.mailbox.mails().len()), before);
    for table in ["ivs_intent", "ivs_change"] {
        assert_eq!(app.count(table).await, 0, "{table}");
    }
    let row = app.row(ids[0]).await;
    assert_eq!((&row["time"], &row["ical_sequence"]), (&json!("10:00:00"), &json!(0)));

    // What sends nothing to him is not refused: the same again, another candidate, another recruiter.
    assert_eq!(otto.change(ids[0], json!({"time": "10:00"})).await.status, 200);
    let again = otto.schedule_otherwise(on_day(19)).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, Some("true")));
    let mut to_dana = on_day(21);
    to_dana["candidate_id"] = json!(DANA);
    assert_eq!(otto.schedule_otherwise(to_dana).await.status, 201);
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    // A cancellation is never refused.
    assert_eq!(otto.cancel(ids[0]).await.json()["emails_sent"]["candidate"], true);
    app.wait(3580);
    assert_eq!(otto.schedule_otherwise(on_day(20)).await.status, 201);
    app.run_jobs().await;
}

#[tokio::test]
async fn what_is_refused_never_reaches_google() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "1")]).await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let calls = app.google.requests().len();
    assert_throttled(&rita.schedule(body(json!({"time": "16:00"}))).await, 3600);
    assert_throttled(&rita.change(id, json!({"time": "16:00"})).await, 3600);
    assert_eq!(app.google.requests().len(), calls);
    app.assert_agree(id).await;
}

#[tokio::test]
async fn at_the_limit_of_a_day_a_recruiter_waits() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "1"), ("CANDIDATE_MAILS_PER_DAY", "2")]).await;
    let otto = app.user(OTTO);
    for nth in 0..2 {
        assert_eq!(otto.schedule_otherwise(on_day(nth)).await.status, 201);
        app.wait(3600);
    }
    assert_throttled(&otto.schedule_otherwise(on_day(2)).await, 22 * 3600);
    app.wait(22 * 3600);
    assert_eq!(otto.schedule_otherwise(on_day(2)).await.status, 201);
    app.run_jobs().await;
    app.sweep().await;
    assert_eq!(app.count("ivs_counted_mail").await, 2, "a day is all that is kept");
}

#[tokio::test]
async fn first_invitations_of_a_recruiter_are_limited_to_all_candidates_together() {
    let app = TestApp::start_with(&[("INVITATIONS_PER_DAY", "2")]).await;
    app.shortlist_dana().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    let mut to_dana = on_day(1);
    to_dana["candidate_id"] = json!(DANA);
    assert_eq!(otto.schedule_otherwise(to_dana).await.status, 201);
    assert_throttled(&otto.schedule_otherwise(on_day(2)).await, 24 * 3600);
    assert_eq!(otto.change(id, json!({"time": "18:00"})).await.status, 200, "an update is no invitation");
    app.wait(24 * 3600);
    assert_eq!(otto.schedule_otherwise(on_day(2)).await.status, 201);
    app.run_jobs().await;
}

#[tokio::test]
async fn of_many_requests_at_once_as_many_get_through_as_there_is_room_for() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "9")]).await;
    let otto = app.user(OTTO);
    let ids: Vec<i64> = join_all(
        (0..5).map(async |nth| otto.schedule_otherwise(on_day(nth)).await.json()["interview_id"].as_i64().unwrap()),
    )
    .await;
    let changes = join_all(ids.iter().map(|id| otto.change(*id, json!({"time": "18:00"}))));
    let bookings = join_all((5..10).map(|nth| otto.schedule_otherwise(on_day(nth))));
    let (changes, bookings) = tokio::join!(changes, bookings);
    let statuses: Vec<u16> = changes.iter().chain(&bookings).map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status < 300).count(), 4, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 201 | 429)), "{statuses:?}");
    assert_eq!(app.sequences().len(), 9);
}

#[tokio::test]
async fn what_comes_to_nothing_is_not_counted() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "2")]).await;
    let rita = app.connected(RITA).await;
    for _ in 0..3 {
        app.fault(Call::Insert, 1, FaultKind::status(400));
        assert_eq!(rita.schedule(body(json!({}))).await.status, 502);
    }
    let id = rita.meet().await;
    for _ in 0..3 {
        app.fault(Call::Patch, 1, FaultKind::status(400));
        assert_eq!(rita.change(id, json!({"time": "16:00"})).await.status, 502);
        app.sweep().await;
    }
    assert_eq!(rita.change(id, json!({"time": "16:00"})).await.status, 200);
    assert_throttled(&rita.change(id, json!({"time": "17:00"})).await, 3600);
    app.wait(346);
    app.sweep().await;
    app.run_jobs().await;
}

#[tokio::test]
async fn a_change_whose_commit_gets_no_answer_counts_if_its_mails_go() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    // The first commit counts the mail, the second makes the change.
    relay.lose_commit(0);
    let busy = json!({"detail": "The server is busy. Please try again."});
    otto.change(id, json!({"time": "18:00"})).await.assert(503, busy);
    assert_eq!((app.count("ivs_counted_mail").await, app.count("ivs_change").await), (1, 0));
    relay.lose_commit(1);
    let unknown = json!({"detail": "It is not known whether this was done. Please check before you try again."});
    otto.change(id, json!({"time": "18:00"})).await.assert(500, unknown);
    assert_eq!((&app.row(id).await["time"], app.count("ivs_counted_mail").await), (&json!("18:00:00"), 2));
    app.wait(60);
    app.sweep().await;
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["0", "1"]);
}

#[tokio::test]
async fn without_an_smtp_server_what_google_announces_is_limited() {
    let app = TestApp::start_with(&[("EMAIL_HOST", ""), ("CANDIDATE_MAILS_PER_HOUR", "2")]).await;
    let (rita, otto) = (app.connected(RITA).await, app.user(OTTO));
    let id = rita.meet().await;
    assert_eq!(rita.change(id, json!({"time": "16:00"})).await.status, 200);
    assert_throttled(&rita.change(id, json!({"interview_type": "phone"})).await, 3600);
    assert_throttled(&rita.schedule(body(json!({"time": "18:00"}))).await, 3600);
    let announced = app.google.requests().into_iter().filter(|call| call.query("sendUpdates") == Some("all")).count();
    assert_eq!(announced, 2);
    // Of these nobody is told.
    for nth in 0..3 {
        assert_eq!(otto.schedule_otherwise(on_day(nth)).await.status, 201);
    }
}

#[tokio::test]
async fn what_a_sweep_sends_is_not_counted() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "1")]).await;
    app.execute(
        "UPDATE company_interview SET date = '2026-12-01', time = '09:00', timezone = 'America/Vancouver',
             interview_type = 'phone', google_event_id = NULL, starts_at = '2026-12-01T17:00:00Z',
             ends_at = '2026-12-01T18:00:00Z', starts_at_tzdb = '2025a' WHERE id = 501",
    )
    .await;
    app.sweep().await;
    app.run_jobs().await;
    assert_eq!(app.sequences(), ["1"], "new time rules are told");
    let by_phone = body(json!({"interview_type": "phone"}));
    assert_eq!(app.user(RITA).schedule(by_phone).await.status, 200);
    app.wait(60);
    app.run_jobs().await;
}

#[tokio::test]
async fn the_pages_say_that_a_mail_follows_and_that_there_were_too_many() {
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "3")]).await;
    let id = app.user(OTTO).phone().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let path = format!("/dashboard/interviews/{id}/change/");
    for (note, led) in [("one", "/dashboard/?done=changed"), ("two", "/dashboard/?done=changed-later")] {
        let page = otto.get(&path).await;
        let sent = otto.submit(&page, &path, &[("note", note)]).await;
        assert_eq!((sent.status.as_u16(), sent.header("location")), (303, Some(led)));
    }
    let shown = Page::of(&otto.get("/dashboard/?done=changed-later").await).text();
    assert!(shown.contains("The interview is changed; the mails to both of you follow in a minute."), "{shown}");
    const WORDS: &str = "Nothing was done, because too many mails would leave: this person has had many from you lately, or \
                         you have invited people to many interviews today. Please try again in 59 minutes.";
    app.wait(60);
    app.run_jobs().await;
    let page = otto.get(&path).await;
    let refused = otto.submit(&page, &path, &[("note", "three")]).await;
    assert_eq!(refused.status, 429);
    let shown = Page::of(&refused).text();
    assert!(shown.contains(WORDS) && shown.contains("three"), "{shown}");
    let page = otto.get(&format!("{SCHEDULE}?job=22")).await;
    let refused = otto.submit(&page, SCHEDULE, &with(&[("job_id", "22")])).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(Page::of(&refused).text().contains(WORDS));
}

#[tokio::test]
async fn an_smtp_server_that_says_nothing_costs_32_connections_and_after_ten_seconds_no_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let hole = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let app = TestApp::start_with(&[("EMAIL_PORT", &port), ("CANDIDATE_MAILS_PER_HOUR", "1000")]).await;
    let otto = app.user(OTTO);
    let schedule = async |nth: usize| {
        let answer = otto.schedule_otherwise(phone_body(json!({"notes": format!("the {nth}th")}))).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.json()["emails_sent"], json!({"candidate": false, "recruiter": false}));
    };
    join_all((0..40).map(&schedule)).await;
    assert!(accepted.load(Ordering::Relaxed) <= 32, "{accepted:?} connections");
    let begun = Instant::now();
    schedule(40).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(accepted.load(Ordering::Relaxed) <= 32, "{accepted:?} connections");
    hole.abort();
}
