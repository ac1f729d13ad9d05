//! The list of a person's notifications, in pieces, and marking one as read.

use serde_json::{Value, json};

use crate::support::*;

const LIST: &str = "/api/notifications/notifications/";

/// Three as Django makes them, of which two are Carl's, and one as this server makes it.
async fn notified() -> TestApp {
    let app = TestApp::start().await;
    sqlx::query(
        r#"INSERT INTO notifications_notification (id, user_id, notification_type, message, "timestamp", is_read)
           VALUES (91, 201, 'other', 'first', '2026-11-20T10:00:00Z', true),
                  (92, 201, 'other', 'second', '2026-11-20T10:00:00Z', false),
                  (93, 202, 'other', 'somebody else''s', '2026-11-20T11:00:00Z', false)"#,
    )
    .execute(app.db())
    .await
    .unwrap();
    app.set_now("2026-11-20T21:47:37.274794Z");
    let scheduled = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!(scheduled.status, 201, "{scheduled:?}");
    app.mails(2).await;
    app.run_jobs().await;
    app
}

async fn list(app: &TestApp) -> Vec<Value> {
    app.user(CARL).get(LIST).await.json().as_array().unwrap().clone()
}

#[tokio::test]
async fn the_list_is_the_callers_own_newest_first() {
    let app = notified().await;
    let newest = list(&app).await[0].clone();
    let interview =
        sqlx::query_scalar::<_, i64>("SELECT max(id) FROM company_interview").fetch_one(app.db()).await.unwrap();
    let old = |id: i64, message: &str, is_read: bool| {
        json!({"id": id, "user": 201, "notification_type": "other",
        "message": message, "timestamp": "2026-11-20T10:00:00Z", "is_read": is_read, "action_url": null})
    };
    app.user(CARL).get(LIST).await.assert(
        200,
        json!([{"id": newest["id"], "user": 201, "notification_type": "interview_scheduled",
            "message": "An interview has been scheduled for you for the job 'Analyst' at Other Inc.",
            "timestamp": "2026-11-20T21:47:37.274794Z", "is_read": false,
            "action_url": format!("/interviews/{interview}")},
            old(92, "second", false), old(91, "first", true)]),
    );
    app.user(RITA).get(LIST).await.assert(200, json!([]));
    assert_eq!(app.get(LIST).await.status, 401);
}

#[tokio::test]
async fn a_long_list_is_read_in_pieces_and_has_every_row_once() {
    let app = TestApp::start().await;
    // Many of the same instant.
    app.execute(
        r#"INSERT INTO notifications_notification (user_id, notification_type, message, "timestamp", is_read)
           SELECT 201, 'other', 'm' || n, timestamptz '2026-11-20T10:00:00Z' + interval '1 s' * (n / 100), false
           FROM generate_series(1, 600) n"#,
    )
    .await;
    let (answer, statements) = counting_statements(app.user(CARL).get(LIST)).await;
    assert_eq!((answer.status.as_u16(), statements), (200, 1 + 3));
    let seen: Vec<i64> = answer.json().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    let all: Vec<i64> =
        sqlx::query_scalar(r#"SELECT id FROM notifications_notification ORDER BY "timestamp" DESC, id DESC"#)
            .fetch_all(app.db())
            .await
            .unwrap();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn page_and_limit_are_ignored() {
    let app = notified().await;
    let all = list(&app).await;
    app.user(CARL).get(&format!("{LIST}?page=2&limit=1")).await.assert(200, json!(all));
    app.user(CARL).get(&format!("{LIST}?page=x&limit=-1")).await.assert(200, json!(all));
}

#[tokio::test]
async fn a_notification_is_marked_as_read_once_and_for_all() {
    let app = notified().await;
    let done = json!({"detail": "Notification marked as read."});
    for _ in 0..2 {
        app.user(CARL).post(&format!("{LIST}92/read/"), json!({})).await.assert(200, done.clone());
    }
    let read = |list: Vec<Value>| list.iter().map(|item| item["is_read"].clone()).collect::<Vec<_>>();
    assert_eq!(read(list(&app).await), [false, true, true]);
    assert_eq!(app.user(CARL).get(&format!("{LIST}92/read/")).await.header("allow"), Some("POST, OPTIONS"));
}

#[tokio::test]
async fn unknown_notifications_and_those_of_others_are_not_found() {
    let app = notified().await;
    for id in ["93", "999", "99999999999999999999"] {
        let answer = app.user(CARL).post(&format!("{LIST}{id}/read/"), json!({})).await;
        answer.assert(404, json!({"detail": "Notification not found."}));
    }
    app.user(CARL).post(&format!("{LIST}92a/read/"), json!({})).await.assert(404, json!({"detail": "Not found."}));
    assert_eq!(app.count("notifications_notification WHERE id = 93 AND NOT is_read").await, 1);
}

#[tokio::test]
async fn there_is_an_index_in_the_order_of_the_list() {
    let app = TestApp::start().await;
    let mut tx = app.db().begin().await.unwrap();
    sqlx::raw_sql(
        r#"INSERT INTO notifications_notification (user_id, notification_type, message, "timestamp", is_read)
           SELECT 201 + n % 2, 'x', repeat('x', 200), now() - make_interval(mins => n), false FROM generate_series(1, 5000) n;
           ANALYZE notifications_notification;"#,
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        r#"EXPLAIN SELECT * FROM notifications_notification WHERE user_id = 202 ORDER BY "timestamp" DESC, id DESC LIMIT 20"#,
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("ivs_notification_user") && !plan.contains("Sort"), "{plan}");
}
