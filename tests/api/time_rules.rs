//! New time rules: interviews that were placed by older ones move, and their people are told, once.

use std::time::Duration;

use interviews::{
    dev::google::{Call, FaultKind},
    interview::{self, Reach},
    mail::{self, Kind, Mail},
    zone,
};
use serde_json::{Value, json};

use crate::support::*;

impl TestApp {
    /// The sweeps, and the mails that they have queued.
    async fn swept(&self) {
        self.sweep().await;
        self.advance(Duration::from_secs(30));
        self.run_jobs().await;
    }

    /// As if the interview had been placed by the rules of `version`, which said `starts_at`.
    async fn placed_by(&self, id: i64, version: &str, starts_at: &str) {
        sqlx::query(
            "UPDATE company_interview
             SET starts_at = $2::timestamptz, ends_at = $2::timestamptz + interval '1 hour', starts_at_tzdb = $3
             WHERE id = $1",
        )
        .bind(id)
        .bind(starts_at.parse::<chrono::DateTime<chrono::Utc>>().unwrap())
        .bind(version)
        .execute(self.db())
        .await
        .unwrap();
    }
}

/// Rita's Meet interview at 09:00 in Vancouver on December 1, 2026, which is 17:00 UTC by the rules of 2025 and 16:00
/// by those of 2026; placed by the old ones, its event too.
async fn vancouver(app: &TestApp, rita: &User<'_>) -> i64 {
    let notes = format!("the {}th", app.count("company_interview").await);
    let body = body(json!({"date": "2026-12-01", "time": "09:00", "timezone": "America/Vancouver", "notes": notes}));
    let id = rita.schedule(body).await.json()["interview_id"].as_i64().unwrap();
    app.mails(2).await;
    app.mailbox.clear();
    app.placed_by(id, "2025a", "2026-12-01T17:00:00Z").await;
    id
}

fn patches(app: &TestApp) -> Vec<Value> {
    let calls = app.google.requests().into_iter().filter(|seen| seen.call == Call::Patch);
    calls.map(|call| call.body).collect()
}

#[tokio::test]
async fn an_interview_that_newer_rules_move_is_moved_everywhere_and_told_once() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    app.swept().await;

    let row = app.row(id).await;
    assert_eq!(row["starts_at"], "2026-12-01T16:00:00+00:00");
    assert_eq!((&row["starts_at_tzdb"], &row["ical_sequence"]), (&json!(zone::tzdb_version()), &json!(1)));
    assert_eq!((&row["date"], &row["time"]), (&json!("2026-12-01"), &json!("09:00:00")), "the wall time is the truth");
    let mails = app.mails(2).await;
    assert_eq!(mails.len(), 2);
    for mail in mails {
        assert_eq!(mail.subject(), "Interview Updated: Software Engineer");
        assert!(mail.text().contains("\nTime: 9:00 AM America/Vancouver\n"));
        let calendar = mail.calendar().unwrap().text;
        for line in ["DTSTART:20261201T160000Z", "SEQUENCE:1"] {
            assert!(calendar.contains(&format!("{line}\r\n")), "{line} is missing in {calendar}");
        }
    }
    app.sweep().await;
    app.assert_agree(id).await;
    let [patch] = &patches(&app)[..] else { panic!("{:?}", patches(&app)) };
    assert_eq!(patch["start"]["dateTime"], "2026-12-01T16:00:00Z");

    for _ in 0..3 {
        app.swept().await;
    }
    assert_eq!((app.mailbox.mails().len(), patches(&app).len()), (2, 1));
    assert_eq!(app.row(id).await["ical_sequence"], 1);
}

#[tokio::test]
async fn of_several_servers_with_new_rules_one_moves_an_interview() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    let fill = || interview::fill_instants(&app.ctx, Reach::Ahead);
    let filled = tokio::join!(fill(), fill(), fill(), fill());
    for filled in [filled.0, filled.1, filled.2, filled.3] {
        filled.unwrap();
    }
    // A transaction that is dropped ends a moment later: until then it may hold the row that says what is to be
    // aligned, and a sweep leaves that to the next one.
    until_async(async || {
        app.sweep().await;
        !patches(&app).is_empty()
    })
    .await;
    app.swept().await;
    assert_eq!(app.row(id).await["ical_sequence"], 1);
    assert_eq!((app.mailbox.mails().len(), patches(&app).len()), (2, 1));
}

#[tokio::test]
async fn its_reminders_come_by_the_new_rules() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    sqlx::query("UPDATE company_interview SET reminder_24h_sent = true, reminder_1h_sent = true WHERE id = $1")
        .bind(id)
        .execute(app.db())
        .await
        .unwrap();
    app.swept().await;
    for (now, count) in [
        ("2026-11-30T15:59:59Z", 0),
        ("2026-11-30T16:00:00Z", 2),
        ("2026-12-01T14:59:59Z", 0),
        ("2026-12-01T15:00:00Z", 2),
        ("2026-12-01T16:00:00Z", 0),
    ] {
        app.set_now(now);
        app.mailbox.clear();
        app.sweep().await;
        app.run_jobs().await;
        assert_eq!(app.mailbox.mails().len(), count, "{now}");
    }
}

#[tokio::test]
async fn a_server_with_older_rules_leaves_what_newer_ones_placed_alone() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    app.placed_by(id, "2099a", "2026-12-01T18:00:00Z").await;
    app.swept().await;
    let row = app.row(id).await;
    assert_eq!(row["starts_at"], "2026-12-01T18:00:00+00:00");
    assert_eq!((&row["starts_at_tzdb"], &row["ical_sequence"]), (&json!("2099a"), &json!(0)));
    assert_eq!((app.mailbox.mails().len(), patches(&app).len()), (0, 0));
}

#[tokio::test]
async fn what_newer_rules_have_placed_is_told_and_shown_by_older_ones_as_it_is() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    // Newer rules have just moved it by an hour; what follows from that falls to this server.
    app.placed_by(id, "2099a", "2026-12-01T15:00:00Z").await;
    sqlx::query("UPDATE company_interview SET ical_sequence = 1 WHERE id = $1")
        .bind(id)
        .execute(app.db())
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO ivs_change (interview_id, held_until, in_doubt_until, next_attempt_at) VALUES ($1, $2, $2, $2)",
    )
    .bind(id)
    .bind(app.now())
    .execute(app.db())
    .await
    .unwrap();
    let updated = |user_id| Mail { interview_id: Some(id), sequence: 1, ..Mail::new(Kind::Updated, user_id) };
    let mut db = app.db().acquire().await.unwrap();
    mail::enqueue(&mut db, &app.ctx, &[updated(CARL), updated(RITA)]).await.unwrap();
    drop(db);
    app.swept().await;

    assert_eq!(patches(&app).last().unwrap()["start"]["dateTime"], "2026-12-01T15:00:00Z");
    for mail in app.mails(2).await {
        assert!(mail.text().contains("\nTime: 9:00 AM America/Vancouver\n"), "{}", mail.text());
        assert!(mail.calendar().unwrap().text.contains("DTSTART:20261201T150000Z\r\n"));
    }
    let shown = rita.get(&format!("/api/company/interviews/{id}/")).await.json();
    assert_eq!(shown["scheduled_time"], "2026-12-01T09:00:00-06:00");
    app.mailbox.clear();
    app.set_now("2026-12-01T14:00:00Z");
    app.swept().await;
    assert_eq!(app.mailbox.mails().len(), 2, "reminders");
    let join = rita.get(&format!("/api/company/interviews/{id}/join/")).await.json();
    assert_eq!((&join["time_until_meeting"], &join["can_join"]), (&json!(59), &json!(false)));

    // What says nothing of the time leaves it alone, what does goes by the rules at hand.
    assert_eq!(rita.change(id, json!({"duration_minutes": 30})).await.status, 200);
    let row = app.row(id).await;
    assert_eq!((&row["starts_at_tzdb"], &row["ends_at"]), (&json!("2099a"), &json!("2026-12-01T15:30:00+00:00")));
    assert_eq!(rita.change(id, json!({"time": "10:00"})).await.status, 200);
    let row = app.row(id).await;
    assert_eq!(
        (&row["starts_at_tzdb"], &row["starts_at"]),
        (&json!(zone::tzdb_version()), &json!("2026-12-01T17:00:00+00:00"))
    );
}

#[tokio::test]
async fn a_row_that_newer_rules_placed_and_django_moved_by_hours_is_placed_again_in_silence() {
    let app = TestApp::start().await;
    for (moved, starts_at) in [
        ("date = '2030-01-20'", "2030-01-20T00:30:00+00:00"),
        ("date = '2030-01-16', time = time - interval '4 hours'", "2030-01-15T20:30:00+00:00"),
    ] {
        app.placed_by(502, "2099a", "2030-01-16T00:30:00Z").await;
        let moved = format!("UPDATE company_interview SET {moved} WHERE id = 502");
        sqlx::query(sqlx::AssertSqlSafe(moved)).execute(app.db()).await.unwrap();
        app.sweep().await;
        let row = app.row(502).await;
        assert_eq!((&row["starts_at_tzdb"], &row["starts_at"]), (&json!("2099a"), &json!(starts_at)));
    }
    assert_eq!(app.count("ivs_mail").await, 0);
}

#[tokio::test]
async fn a_change_of_nothing_does_not_keep_the_event_from_moving() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    interview::fill_instants(&app.ctx, Reach::Ahead).await.unwrap();
    assert_eq!(rita.change(id, json!({"time": "09:00"})).await.status, 200);
    app.swept().await;
    assert_eq!(patches(&app).len(), 1);
    app.assert_agree(id).await;
}

#[tokio::test]
async fn an_event_that_is_being_aligned_while_its_interview_moves_is_aligned_again() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = vancouver(&app, &rita).await;
    interview::fill_instants(&app.ctx, Reach::Ahead).await.unwrap();
    app.fault(Call::Patch, 1, FaultKind::Hold);
    let meanwhile = async {
        until(|| (patches(&app).len() == 1).then_some(())).await;
        app.placed_by(id, "2025a", "2026-12-01T17:00:00Z").await;
        interview::fill_instants(&app.ctx, Reach::Ahead).await.unwrap();
        app.google.let_go();
    };
    let (aligned, ()) = tokio::join!(interview::align_events(&app.ctx), meanwhile);
    aligned.unwrap();
    assert_eq!((patches(&app).len(), app.count("ivs_change").await), (2, 0));
    app.swept().await;
    app.assert_agree(id).await;
}

#[tokio::test]
async fn people_of_djangos_interviews_are_told_with_the_uid_of_the_event_or_without_an_invitation() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let event = app.google.events().len();
    sqlx::query(
        "UPDATE company_interview SET timezone = 'America/Vancouver', date = '2026-12-01', time = '09:00' WHERE id IN (501, 503)",
    )
    .execute(app.db())
    .await
    .unwrap();
    for id in [501, 503] {
        app.placed_by(id, "2025a", "2026-12-01T17:00:00Z").await;
    }
    // The first sweep moves them, the next one aligns the event (there is none at Google: it is made).
    app.sweep().await;
    app.swept().await;
    assert_eq!(app.google.events().len(), event + 1);
    let uid = app.row(501).await["ical_uid"].as_str().unwrap().to_owned();
    assert!(uid.ends_with("@google.com"), "{uid}");
    let mails = app.mails(3).await;
    let (with, without): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| mail.calendar().is_some());
    assert!(with.iter().all(|mail| mail.calendar().unwrap().text.contains(&format!("UID:{uid}\r\n"))));
    assert_eq!((with.len(), without.len()), (2, 1));
    assert!(without[0].text().contains("Interviewer: Unknown") && !without[0].text().contains("invitation"));
}

#[tokio::test]
async fn only_what_is_still_to_come_and_takes_place_at_another_instant_is_news() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let cancelled = vancouver(&app, &rita).await;
    rita.cancel(cancelled).await;
    let past = vancouver(&app, &rita).await;
    let same = vancouver(&app, &rita).await;
    app.placed_by(same, "2025a", "2026-12-01T16:00:00Z").await;
    app.mailbox.clear();
    app.set_now("2026-12-02T12:00:00Z");
    app.swept().await;
    assert_eq!((app.mailbox.mails().len(), patches(&app).len()), (0, 0));
    for id in [cancelled, past, same] {
        let row = app.row(id).await;
        assert_eq!(
            (&row["starts_at"], &row["starts_at_tzdb"]),
            (&json!("2026-12-01T16:00:00+00:00"), &json!(zone::tzdb_version()))
        );
    }
}

#[tokio::test]
async fn healthz_names_the_rules() {
    let app = TestApp::start().await;
    let said = app.get("/healthz").await.json();
    assert_eq!((&said["status"], &said["tzdb"]), (&json!("ok"), &json!(zone::tzdb_version())));
}
