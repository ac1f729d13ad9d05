//! Who is in an interview: joining and leaving.

use interviews::app;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::support::*;

const JOINED: &str = "/api/interviews/501/joined/";
const LEFT: &str = "/api/interviews/501/left/";
const ATTENDED: [&str; 3] = ["portal_join_count", "meeting_started_at", "meeting_ended_at"];

/// Fourteen minutes before the fixture's interview 501.
async fn at_the_door() -> TestApp {
    let app = TestApp::start().await;
    app.set_now("2030-01-15T18:46:00Z");
    app
}

async fn row(app: &TestApp) -> Value {
    sqlx::query_scalar("SELECT to_jsonb(i) FROM company_interview i WHERE id = 501").fetch_one(app.db()).await.unwrap()
}

async fn presences(app: &TestApp) -> Vec<Value> {
    sqlx::query_scalar("SELECT to_jsonb(p) FROM ivs_presence p ORDER BY id").fetch_all(app.db()).await.unwrap()
}

#[tokio::test]
async fn example_32_the_meeting_lasts_from_the_first_to_join_to_the_last_to_leave() {
    let app = at_the_door().await;
    for (minute, (user, path), count, ended) in [
        (46, (CARL, JOINED), 1, Value::Null),
        (47, (CARL, JOINED), 1, Value::Null),
        (48, (RITA, JOINED), 2, Value::Null),
        (49, (CARL, LEFT), 2, Value::Null),
        (50, (RITA, LEFT), 2, json!("2030-01-15T18:50:00Z")),
    ] {
        app.set_now(&format!("2030-01-15T18:{minute}:00Z"));
        let role = if user == CARL { "candidate" } else { "recruiter" };
        let joined = if user == CARL { "2030-01-15T18:46:00Z" } else { "2030-01-15T18:48:00Z" };
        let left = (path == LEFT).then(|| format!("2030-01-15T18:{minute}:00Z"));
        app.user(user).post(path, json!({})).await.assert(
            200,
            json!({"success": true, "interview_id": 501, "user_role": role, "joined_at": joined, "left_at": left,
                "portal_join_count": count, "meeting_started_at": "2030-01-15T18:46:00Z", "meeting_ended_at": ended}),
        );
    }
    let detail = app.user(CARL).get("/api/interviews/501/").await.json();
    assert_eq!(
        detail["attendance"],
        json!([{"user_role": "candidate", "joined_at": "2030-01-15T18:46:00Z", "left_at": "2030-01-15T18:49:00Z"},
            {"user_role": "recruiter", "joined_at": "2030-01-15T18:48:00Z", "left_at": "2030-01-15T18:50:00Z"}])
    );
}

#[tokio::test]
async fn joining_is_possible_exactly_while_the_door_is_open() {
    let app = at_the_door().await;
    let closed = json!({"error": "This interview is not open for joining."});
    for (now, status) in [
        ("2030-01-15T18:44:59Z", 409),
        ("2030-01-15T18:45:00Z", 200),
        ("2030-01-15T21:00:00Z", 200),
        ("2030-01-15T21:00:01Z", 409),
    ] {
        app.set_now(now);
        let answer = app.user(CARL).post(JOINED, json!({})).await;
        assert_eq!(answer.status, status, "{now}");
        if status == 409 {
            answer.assert(409, closed.clone());
        }
    }
    app.execute("UPDATE company_interview SET cancelled_at = now() WHERE id = 501").await;
    app.set_now("2030-01-15T19:00:00Z");
    app.user(RITA).post(JOINED, json!({})).await.assert(409, closed);
    assert_eq!((app.count("ivs_presence").await, row(&app).await["portal_join_count"].clone()), (1, json!(1)));
}

#[tokio::test]
async fn whoever_comes_back_is_counted_again_and_the_meeting_goes_on() {
    let app = at_the_door().await;
    let carl = app.user(CARL);
    carl.post(JOINED, json!({})).await;
    app.set_now("2030-01-15T18:50:00Z");
    carl.post(LEFT, json!({})).await;
    app.set_now("2030-01-15T18:55:00.25Z");
    let back = carl.post(JOINED, json!({})).await.json();
    let started = "2030-01-15T18:46:00Z";
    assert_eq!(ATTENDED.map(|key| back[key].clone()), [json!(2), json!(started), Value::Null]);
    assert_eq!((&back["joined_at"], &back["left_at"]), (&json!("2030-01-15T18:55:00.250000Z"), &Value::Null));
}

#[tokio::test]
async fn every_change_says_when_the_row_was_updated_and_repeating_changes_nothing() {
    let app = at_the_door().await;
    let carl = app.user(CARL);
    for (path, now, later) in [
        (JOINED, "2030-01-15T18:46:00Z", "2030-01-15T18:47:00Z"),
        (LEFT, "2030-01-15T18:48:00Z", "2030-01-15T18:49:00Z"),
    ] {
        app.set_now(now);
        let first = carl.post(path, json!({})).await;
        let (changed, present) = (row(&app).await, presences(&app).await);
        assert_eq!(changed["updated_at"], now.replace('Z', "+00:00"));
        app.set_now(later);
        carl.post(path, json!({})).await.assert(200, first.json());
        assert_eq!((row(&app).await, presences(&app).await), (changed, present), "{path}");
    }
}

#[tokio::test]
async fn leaving_without_having_come_changes_nothing() {
    let app = at_the_door().await;
    let before = row(&app).await;
    app.user(RITA).post(LEFT, json!({})).await.assert(
        200,
        json!({"success": true, "interview_id": 501, "user_role": "recruiter", "joined_at": null, "left_at": null,
            "portal_join_count": 0, "meeting_started_at": null, "meeting_ended_at": null}),
    );
    // Nor does it put out who is there.
    app.user(CARL).post(JOINED, json!({})).await;
    let seen = app.user(RITA).post(LEFT, json!({})).await.json();
    assert_eq!((&seen["meeting_ended_at"], &seen["portal_join_count"]), (&Value::Null, &json!(1)));
    assert_eq!(before["meeting_started_at"], Value::Null);
}

#[tokio::test]
async fn leaving_is_possible_at_any_time_and_who_never_leaves_stays() {
    let app = at_the_door().await;
    let (carl, rita) = (app.user(CARL), app.user(RITA));
    carl.post(JOINED, json!({})).await;
    rita.post(JOINED, json!({})).await;
    app.execute("UPDATE company_interview SET cancelled_at = now() WHERE id = 501").await;
    app.set_now("2030-01-16T12:00:00Z");
    let left = rita.post(LEFT, json!({})).await.json();
    assert_eq!((&left["left_at"], &left["meeting_ended_at"]), (&json!("2030-01-16T12:00:00Z"), &Value::Null));
    app.sweep().await;
    let stayed = carl.get("/api/interviews/501/").await.json();
    assert_eq!(stayed["attendance"][0]["left_at"], Value::Null);
}

#[tokio::test]
async fn a_missing_interview_is_told_before_a_strange_caller_and_the_body_is_ignored() {
    let app = at_the_door().await;
    let missing = json!({"error": "Interview not found", "detail": "No Interview matches the given query."});
    let stranger = json!({"error": "You are not authorized to join this interview"});
    for mount in ["/api/company/interviews", "/api/interviews"] {
        for verb in ["joined", "left"] {
            for id in ["999", "99999999999999999999"] {
                app.user(CARL).post(&format!("{mount}/{id}/{verb}/"), json!({})).await.assert(404, missing.clone());
            }
            for user in [OTTO, DANA] {
                let answer = app.user(user).post(&format!("{mount}/501/{verb}/"), json!({})).await;
                answer.assert(403, stranger.clone());
            }
            let path = format!("{mount}/501/{verb}/");
            let bad = app.user(CARL).request(Method::POST, &path).header("content-type", "text/x").body("{");
            assert_eq!(send(bad).await.status, 200, "{path}");
            assert_eq!(app.user(CARL).get(&path).await.header("allow"), Some("POST, OPTIONS"));
            assert_eq!(app.post(&path, json!({})).await.status, 401);
        }
    }
    // Strangers are told so before they are told that the door is closed.
    app.set_now(NOW);
    app.user(DANA).post(JOINED, json!({})).await.assert(403, stranger);
}

/// Posts while the test holds the row, one after the other, until each waits for it.
async fn waiting(app: &TestApp, requests: Vec<reqwest::RequestBuilder>) -> Vec<JoinHandle<Answer>> {
    let mut sent = Vec::new();
    for request in requests {
        sent.push(tokio::spawn(send(request)));
        let waiters = sent.len() as i64;
        until_async(async || {
            app.count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await
                == waiters
        })
        .await;
    }
    sent
}

#[tokio::test]
async fn a_double_click_and_a_second_server_open_one_presence() {
    let app = at_the_door().await;
    // Another process on the same database, as far as the two can tell.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let other = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(axum::serve(listener, app::router(app.ctx.clone()).unwrap()).into_future());

    let mut tx = app.db().begin().await.unwrap();
    sqlx::query("SELECT FROM company_interview WHERE id = 501 FOR UPDATE").execute(&mut *tx).await.unwrap();
    let carl = app.user(CARL);
    let post = |base: &str| carl.request(Method::POST, &format!("{base}{JOINED}"));
    let clicks = waiting(&app, vec![post(""), post(&other), post(""), post(&other)]).await;
    tx.commit().await.unwrap();
    for click in clicks {
        let answer = click.await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json()["portal_join_count"]), (200, &json!(1)));
    }
    assert_eq!((app.count("ivs_presence").await, row(&app).await["portal_join_count"].clone()), (1, json!(1)));
    serving.abort();
}

#[tokio::test]
async fn two_who_leave_at_once_end_the_meeting_and_one_who_comes_meanwhile_keeps_it_going() {
    let app = at_the_door().await;
    let (carl, rita) = (app.user(CARL), app.user(RITA));
    carl.post(JOINED, json!({})).await;
    rita.post(JOINED, json!({})).await;
    for (requests, ended) in [
        (vec![carl.request(Method::POST, LEFT), rita.request(Method::POST, LEFT)], true),
        (vec![carl.request(Method::POST, JOINED), rita.request(Method::POST, LEFT)], false),
        (vec![carl.request(Method::POST, LEFT), rita.request(Method::POST, JOINED)], false),
    ] {
        let mut tx = app.db().begin().await.unwrap();
        sqlx::query("SELECT FROM company_interview WHERE id = 501 FOR UPDATE").execute(&mut *tx).await.unwrap();
        let posts = waiting(&app, requests).await;
        tx.commit().await.unwrap();
        for post in posts {
            assert_eq!(post.await.unwrap().status, 200);
        }
        assert_eq!(!row(&app).await["meeting_ended_at"].is_null(), ended);
    }
}

#[tokio::test]
async fn nobody_joins_an_interview_that_is_cancelled_while_he_waits() {
    let app = at_the_door().await;
    let mut tx = app.db().begin().await.unwrap();
    sqlx::query("UPDATE company_interview SET cancelled_at = now() WHERE id = 501").execute(&mut *tx).await.unwrap();
    let joining = waiting(&app, vec![app.user(CARL).request(Method::POST, JOINED)]).await;
    tx.commit().await.unwrap();
    for joining in joining {
        joining.await.unwrap().assert(409, json!({"error": "This interview is not open for joining."}));
    }
    assert_eq!(app.count("ivs_presence").await, 0);
}

#[tokio::test]
async fn django_can_delete_an_interview_that_people_were_in() {
    let app = at_the_door().await;
    app.user(CARL).post(JOINED, json!({})).await;
    app.execute("DELETE FROM company_interview WHERE id = 501").await;
    assert_eq!(app.count("ivs_presence").await, 0);
    assert_eq!(app.user(CARL).post(LEFT, json!({})).await.status, 404);
}
