//! Reminders a day and an hour before an interview: who gets one, and who gets none.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use interviews::{app, clock::Clock, dev::mailbox::Received, operations, zone};
use serde_json::json;

use crate::support::{
    process::{Server, World, free_ports},
    *,
};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Without the fixture's interviews, which would be reminded of too.
async fn start_with(settings: &[(&str, &str)]) -> TestApp {
    let app = TestApp::start_with(settings).await;
    sqlx::query("DELETE FROM company_interview").execute(app.db()).await.unwrap();
    app
}

async fn start() -> TestApp {
    start_with(&[]).await
}

impl TestApp {
    /// What the sweep reminds of now, sent.
    async fn reminded(&self) -> Vec<Received> {
        self.mailbox.clear();
        self.sweep().await;
        self.run_jobs().await;
        self.mailbox.mails()
    }

    /// An interview as Django inserts one, in UTC.
    async fn inserted_by_django(&self, id: i64, start: &str, created_at: &str) {
        sqlx::query(
            "INSERT INTO company_interview (id, candidate_id, recruiter_id, date, time, timezone, meeting_link, room_id,
                 interview_type, note, created_at, updated_at)
             SELECT $1, 201, NULL, ($2::timestamp)::date, ($2::timestamp)::time, 'UTC', '', 'ROOM' || ($1 % 10000),
                 'custom', NULL, $3::timestamptz, $3::timestamptz",
        )
        .bind(id)
        .bind(start.parse::<chrono::NaiveDateTime>().unwrap())
        .bind(created_at.parse::<chrono::DateTime<chrono::Utc>>().unwrap())
        .execute(self.db())
        .await
        .unwrap();
    }
}

/// Otto's interview of Carl by phone at 10:00 in Tokyo, which is 01:00 UTC, on January 16, 2030; nothing is in the
/// mailbox.
async fn scheduled(app: &TestApp) -> i64 {
    let id = app.user(OTTO).phone().await;
    app.mails(2).await;
    app.sweep().await;
    id
}

fn subjects_and_people(mails: &[Received]) -> Vec<(String, String)> {
    let mut all: Vec<_> = mails.iter().map(|mail| (mail.subject(), mail.header("To").unwrap())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn both_people_are_reminded_a_day_and_an_hour_before_once_each() {
    let app = start().await;
    scheduled(&app).await;
    for (just_before, at) in [
        ("2030-01-15T00:59:59.999999Z", "2030-01-15T01:00:00Z"),
        ("2030-01-15T23:59:59.999999Z", "2030-01-16T00:00:00Z"),
    ] {
        app.set_now(just_before);
        assert_eq!(app.reminded().await.len(), 0, "{just_before}");
        app.set_now(at);
        let mails = app.reminded().await;
        let subject = "Interview Reminder: Analyst".to_owned();
        assert_eq!(
            subjects_and_people(&mails),
            [
                (subject.clone(), "\"Carl Candy\" <carl@x.test>".into()),
                (subject, "\"Otto Other\" <otto@x.test>".into())
            ],
            "{at}"
        );
        for _ in 0..3 {
            app.advance(MINUTE);
            assert_eq!(app.reminded().await.len(), 0);
        }
    }
}

#[tokio::test]
async fn a_reminder_says_when_and_where_and_carries_a_link_of_its_own_but_no_invitation() {
    let app = start().await;
    let id = scheduled(&app).await;
    app.set_now("2030-01-15T01:00:00Z");
    let mails = app.reminded().await;
    let mut links = Vec::new();
    for mail in &mails {
        let text = mail.text();
        assert!(text.contains("\n\nThis is a reminder of your interview.\n\nPosition: Analyst\n"), "{text}");
        assert!(text.contains("\nDate: January 16, 2030\nTime: 10:00 AM Asia/Tokyo\nDuration: 1 hour\n"), "{text}");
        assert!(!text.contains("calendar invitation"), "{text}");
        assert!(mail.calendar().is_none() && mail.attachment().is_none());
        let link = room_link(mail).unwrap();
        assert!(link.starts_with(&format!("{}/interviews/{id}/join/?token=", app.url)));
        assert_eq!(app.get(&link).await.status, 200);
        links.push(link);
    }
    assert_ne!(links[0], links[1]);
    let reply_to: Vec<_> = mails.iter().filter_map(|mail| mail.header("Reply-To")).collect();
    assert_eq!(reply_to, ["\"Otto Other\" <otto@x.test>"]);
}

#[tokio::test]
async fn of_two_reminders_due_at_once_only_the_later_is_sent() {
    let app = start().await;
    let id = scheduled(&app).await;
    // No server ran for two days.
    app.set_now("2030-01-16T00:30:00Z");
    assert_eq!(app.reminded().await.len(), 2);
    let row = app.row(id).await;
    assert_eq!((&row["reminder_24h_sent"], &row["reminder_1h_sent"]), (&json!(true), &json!(true)));
    app.advance(MINUTE);
    assert_eq!(app.reminded().await.len(), 0);
}

#[tokio::test]
async fn a_moment_that_had_passed_when_the_interview_was_made_is_not_reminded_of() {
    let app = start().await;
    app.set_now("2030-01-15T22:00:00Z");
    let id = scheduled(&app).await;
    assert_eq!(app.reminded().await.len(), 0, "three hours ahead: the day before has passed");
    assert_eq!(app.row(id).await["reminder_24h_sent"], true);
    app.set_now("2030-01-16T00:00:00Z");
    assert_eq!(app.reminded().await.len(), 2, "the hour before has not");
    app.set_now("2030-01-16T00:20:00Z");
    let late = app.user(OTTO).schedule_otherwise(phone_body(json!({"candidate_id": 201, "time": "10:10"}))).await;
    assert_eq!(late.status, 201);
    assert_eq!(app.reminded().await.len(), 0, "50 minutes ahead: both have");
}

#[tokio::test]
async fn nobody_is_reminded_of_what_has_begun() {
    let app = start().await;
    scheduled(&app).await;
    app.set_now("2030-01-16T01:00:00Z");
    assert_eq!(app.reminded().await.len(), 0);
}

#[tokio::test]
async fn nobody_is_reminded_of_what_is_cancelled() {
    let app = start().await;
    let id = scheduled(&app).await;
    app.user(OTTO).cancel(id).await;
    for now in ["2030-01-15T01:00:00Z", "2030-01-16T00:00:00Z"] {
        app.set_now(now);
        assert_eq!(app.reminded().await.len(), 0);
    }
}

#[tokio::test]
async fn a_moved_interview_is_reminded_of_when_it_takes_place() {
    let app = start().await;
    let id = scheduled(&app).await;
    app.set_now("2030-01-15T01:00:00Z");
    assert_eq!(app.reminded().await.len(), 2);
    // Three days on: both again.
    assert_eq!(app.user(OTTO).change(id, json!({"date": "2030-01-19"})).await.status, 200);
    assert_eq!(app.reminded().await.len(), 0);
    app.set_now("2030-01-16T00:00:00Z");
    assert_eq!(app.reminded().await.len(), 0, "where it was");
    app.set_now("2030-01-18T01:00:00Z");
    assert_eq!(app.reminded().await.len(), 2);
    // Nearer, so that the day before has passed again: the hour before alone.
    assert_eq!(app.user(OTTO).change(id, json!({"time": "09:00"})).await.status, 200);
    assert_eq!(app.reminded().await.len(), 0);
    app.set_now("2030-01-18T23:00:00Z");
    assert_eq!(app.reminded().await.len(), 2);
    // A note is no move.
    assert_eq!(app.user(OTTO).change(id, json!({"note": "new"})).await.status, 200);
    assert_eq!(app.reminded().await.len(), 0);
}

#[tokio::test]
async fn a_queued_reminder_is_dropped_when_it_is_no_longer_true_and_kept_when_it_is() {
    let app = start().await;
    for (change, left) in [(Some(json!({"time": "10:30"})), 0), (Some(json!({"note": "other"})), 2), (None, 0)] {
        app.set_now("2030-01-14T00:00:00Z");
        let id = scheduled(&app).await;
        app.set_now("2030-01-15T01:00:00Z");
        app.sweep().await;
        let otto = app.user(OTTO);
        match &change {
            Some(change) => assert_eq!(otto.change(id, change.clone()).await.status, 200),
            None => assert_eq!(otto.cancel(id).await.status, 200),
        }
        app.mailbox.clear();
        app.run_jobs().await;
        assert_eq!(app.mailbox.mails().len(), left, "{change:?}");
        sqlx::query("DELETE FROM company_interview").execute(app.db()).await.unwrap();
    }
    // Begun, before the mail server took it.
    app.set_now("2030-01-14T00:00:00Z");
    scheduled(&app).await;
    app.set_now("2030-01-16T00:00:00Z");
    app.sweep().await;
    app.mailbox.clear();
    app.set_now("2030-01-16T01:00:00Z");
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 0);
}

#[tokio::test]
async fn an_interview_that_django_inserted_is_reminded_of_once_to_its_candidate() {
    let app = start().await;
    app.inserted_by_django(601, "2026-11-21T13:00:00", "2026-11-20T12:00:00Z").await;
    app.inserted_by_django(602, "2026-11-21T13:00:00", "2026-11-20T13:00:01Z").await;
    app.advance(HOUR);
    let mails = app.reminded().await;
    assert_eq!(mails.len(), 1, "602 was inserted after its moment");
    let text = mails[0].text();
    assert!(text.contains("\nTime: 1:00 PM UTC\nDuration: 1 hour\nInterviewer: Unknown\n"), "{text}");
    assert_eq!(mails[0].header("Reply-To"), None);
    app.advance(MINUTE);
    assert_eq!(app.reminded().await.len(), 0);
}

#[tokio::test]
async fn an_interview_that_django_moves_is_reminded_of_at_its_new_time_only() {
    let app = start().await;
    app.inserted_by_django(601, "2026-11-21T13:00:00", "2026-11-20T12:00:00Z").await;
    app.sweep().await;
    let move_it = sqlx::query("UPDATE company_interview SET time = '16:00' WHERE id = 601");
    move_it.execute(app.db()).await.unwrap();
    app.set_now("2026-11-20T13:00:00Z");
    assert_eq!(app.reminded().await.len(), 0);
    app.set_now("2026-11-20T16:00:00Z");
    assert_eq!(app.reminded().await.len(), 1);
    let move_it = sqlx::query("UPDATE company_interview SET date = '2026-11-25' WHERE id = 601");
    move_it.execute(app.db()).await.unwrap();
    assert_eq!(app.reminded().await.len(), 0);
    app.set_now("2026-11-24T16:00:00Z");
    assert_eq!(app.reminded().await.len(), 1);
}

#[tokio::test]
async fn rows_that_are_not_placed_yet_do_not_stand_before_others() {
    let app = start().await;
    for id in 1000..1250 {
        app.inserted_by_django(id, "2026-11-21T12:30:00", "2026-11-20T12:00:00Z").await;
    }
    app.inserted_by_django(1300, "2026-11-21T13:00:00", "2026-11-20T12:00:00Z").await;
    app.sweep().await;
    // Django moves all but one, and the reminding comes before the filling.
    let moving = sqlx::query("UPDATE company_interview SET date = '2026-11-28' WHERE id < 1300");
    moving.execute(app.db()).await.unwrap();
    app.advance(HOUR);
    interviews::interview::remind(&app.ctx).await.unwrap();
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 1);
}

#[tokio::test]
async fn reminders_go_by_the_zone_of_the_interview() {
    let app = start().await;
    // 09:00 in Vancouver is 16:00 UTC by the rules of 2026; by older ones 17:00.
    let body = phone_body(json!({"date": "2026-12-01", "time": "09:00", "timezone": "America/Vancouver"}));
    assert_eq!(app.user(OTTO).schedule_otherwise(body).await.status, 201);
    app.set_now("2026-12-01T14:59:59Z");
    assert_eq!(app.reminded().await.len(), 2, "the day before");
    app.set_now("2026-12-01T15:00:00Z");
    assert_eq!(app.reminded().await.len(), 2, "the hour before");
}

#[tokio::test]
async fn without_a_mail_server_reminders_are_flagged_and_nothing_is_queued() {
    let app = start_with(&[("EMAIL_HOST", "")]).await;
    let id = app.user(OTTO).phone().await;
    app.set_now("2030-01-15T01:00:00Z");
    app.sweep().await;
    assert_eq!(app.row(id).await["reminder_24h_sent"], true);
    assert_eq!(app.count("ivs_mail").await, 0);
}

#[tokio::test]
async fn many_sweeps_at_once_remind_of_each_interview_once() {
    let app = start().await;
    for id in 1000..1450 {
        app.inserted_by_django(id, "2026-11-21T13:00:00", "2026-11-20T12:00:00Z").await;
    }
    app.sweep().await;
    app.advance(HOUR);
    let sweep = || interviews::interview::remind(&app.ctx);
    let (one, two, three, four) = tokio::join!(sweep(), sweep(), sweep(), sweep());
    for swept in [one, two, three, four] {
        swept.unwrap();
    }
    assert_eq!(app.count("ivs_mail").await, 450);
    let of: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT interview_id) FROM ivs_mail").fetch_one(app.db()).await.unwrap();
    assert_eq!(of, 450);
    let cancelled = sqlx::query("UPDATE company_interview SET cancelled_at = now() WHERE id >= 1000");
    cancelled.execute(app.db()).await.unwrap();
    while interviews::jobs::run_due(&app.ctx, app::run_job).await.unwrap() > 0 {}
    assert_eq!(app.mailbox.mails().len(), 0);
}

#[tokio::test]
async fn a_reminder_is_sent_again_as_long_as_it_is_true() {
    let app = start().await;
    let id = scheduled(&app).await;
    app.set_now("2030-01-15T01:00:00Z");
    assert_eq!(app.reminded().await.len(), 2);
    assert_eq!(app.user(OTTO).change(id, json!({"note": "SEQUENCE:1"})).await.status, 200);
    let mail: String =
        sqlx::query_scalar("SELECT id::text FROM ivs_mail WHERE kind = 'reminder'").fetch_one(app.db()).await.unwrap();
    let resend = || operations::resend_mail(app.db(), &mail, app.now());
    assert!(resend().await.unwrap().contains("is due now"));
    app.mailbox.clear();
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 1);
    app.set_now("2030-01-16T01:00:00Z");
    assert!(resend().await.unwrap_err().to_string().contains("would be dropped"));
    app.set_now("2030-01-15T01:00:00Z");
    assert_eq!(app.user(OTTO).change(id, json!({"time": "10:30"})).await.status, 200);
    assert!(resend().await.unwrap_err().to_string().contains("would be dropped"));
}

/// So many interviews, each of two people, that begin in an hour and a few seconds by the system's clock.
const MANY: i64 = 500;

#[tokio::test]
async fn while_two_servers_run_each_of_500_reminders_reaches_both_people_once() {
    let world = World::new().await;
    let other = free_ports(1);
    let [one, two] = [world.port, other].map(|port| Server::start(world.command(&[("PORT", &port.to_string())])));
    one.until_ready(world.port).await;
    two.until_ready(other).await;
    let start = Clock::System.now() + TimeDelta::hours(1) + TimeDelta::seconds(3);
    sqlx::query(
        "INSERT INTO company_interview (id, candidate_id, recruiter_id, date, time, timezone, meeting_link, room_id,
             interview_type, note, created_at, updated_at)
         SELECT n, 201, 102, $1::date, $1::time, 'UTC', '', 'R' || n, 'phone', NULL, $2, $2
         FROM generate_series(1001, 1000 + $3) n",
    )
    .bind(start.naive_utc())
    .bind(Clock::System.now() - TimeDelta::days(3))
    .bind(MANY)
    .execute(&world.database.pool)
    .await
    .unwrap();
    sqlx::query(
        "UPDATE company_interview SET starts_at = $1, ends_at = $1 + interval '1 hour', starts_at_tzdb = $2
                 WHERE id > 1000",
    )
    .bind(start)
    .bind(zone::tzdb_version())
    .execute(&world.database.pool)
    .await
    .unwrap();
    assert_eq!(world.mailbox.mails().len(), 0);
    until_async(async || world.count("ivs_mail WHERE state = 'sent'").await == 2 * MANY).await;
    until_async(async || world.count("ivs_jobs._private_jobs").await == 0).await;
    drop((one, two));
    let mails = world.mailbox.mails();
    assert_eq!(mails.len() as i64, 2 * MANY);
    let received: HashSet<(String, String)> = mails
        .iter()
        .map(|mail| {
            let text = mail.text();
            let link = text.split_whitespace().find(|word| word.contains("?token=")).unwrap();
            (link.split("?token=").next().unwrap().to_owned(), mail.to().concat())
        })
        .collect();
    assert_eq!(received.len() as i64, 2 * MANY, "each of both people, about each interview");
    assert_eq!(world.count("company_interview WHERE id > 1000 AND reminder_24h_sent AND reminder_1h_sent").await, MANY);
}
