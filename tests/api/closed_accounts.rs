//! Closed accounts: what becomes of their tokens, authorizations and grants, and what the other person sees.

use std::time::Duration;

use interviews::{
    config::{LogFormat, log_filter},
    dev::google::{Call, FaultKind},
    secret::{Place, Sealer},
    telemetry,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{cookie_client::CookieClient, page::Page, *};

const DELETE_RITA: &str = "UPDATE users_user SET is_deleted = true WHERE id = 101";
const REFUSED: &str =
    "http://localhost:3000/dashboard/settings?google_oauth=error&message=Could%20not%20connect%20Google%20Calendar";

fn calls(app: &TestApp, call: Call) -> usize {
    app.google.requests().iter().filter(|seen| seen.call == call).count()
}

async fn grants(app: &TestApp) -> Vec<i64> {
    sqlx::query_scalar("SELECT user_id FROM company_googlecredentials ORDER BY 1").fetch_all(app.db()).await.unwrap()
}

#[tokio::test]
async fn the_token_of_a_deleted_account_is_answered_as_an_inactive_users() {
    let app = TestApp::start().await;
    app.execute(DELETE_RITA).await;
    let inactive = json!({"detail": "User is inactive", "code": "user_inactive"});
    for path in ["/api/users/profile/", "/api/company/interviews/", "/api/company/google/auth-url/"] {
        app.user(RITA).get(path).await.assert(401, inactive.clone());
    }
    app.user(RITA).schedule(body(json!({}))).await.assert(401, inactive);
    assert_eq!(app.count("company_oauthstate").await, 0);
}

#[tokio::test]
async fn an_authorization_of_an_account_deleted_since_is_not_finished() {
    let app = TestApp::start().await;
    let back = app.google.allow(&app.user(RITA).authorization_url().await).unwrap();
    app.execute(DELETE_RITA).await;
    assert_eq!(app.get(&back).await.header("location"), Some(REFUSED));
    assert_eq!((grants(&app).await.len(), calls(&app, Call::Exchange)), (0, 0));
}

#[tokio::test]
async fn a_grant_for_an_account_closed_during_the_exchange_is_revoked_at_once() {
    let app = TestApp::start().await;
    for close in [DELETE_RITA, "UPDATE users_user SET is_active = false WHERE id = 101"] {
        let back = app.google.allow(&app.user(RITA).authorization_url().await).unwrap();
        app.fault(Call::Exchange, 1, FaultKind::Hold);
        let (exchanges, revocations) = (calls(&app, Call::Exchange), calls(&app, Call::Revoke));
        let closing = async {
            until(|| (calls(&app, Call::Exchange) > exchanges).then_some(())).await;
            app.execute(close).await;
            app.google.let_go();
        };
        let (answer, ()) = tokio::join!(app.get(&back), closing);
        assert_eq!(answer.header("location"), Some(REFUSED), "{close}");
        assert_eq!((grants(&app).await.len(), calls(&app, Call::Revoke)), (0, revocations + 1), "{close}");
        app.execute("UPDATE users_user SET is_active = true, is_deleted = false WHERE id = 101").await;
    }
}

#[tokio::test]
async fn the_grant_of_a_deleted_account_is_revoked_and_removed_by_a_sweep() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.connected(OTTO).await;
    let id = rita.meet().await;
    app.execute("UPDATE users_user SET is_active = false WHERE id = 102").await;
    app.execute(DELETE_RITA).await;
    let (one, other) = tokio::join!(interviews::app::sweep(&app.ctx), interviews::app::sweep(&app.ctx));
    one.and(other).unwrap();
    assert_eq!(grants(&app).await, [OTTO], "an account that is only inactive may come back");
    assert!(calls(&app, Call::Revoke) >= 1);
    // Nobody has cancelled the interview: it is on, and its event stays in the calendar.
    assert_eq!((app.live().len(), &app.row(id).await["cancelled_at"]), (1, &Value::Null));
    app.sweep().await;
    app.run_jobs().await;
}

#[tokio::test]
async fn the_grant_of_a_deleted_account_waits_for_a_google_that_cannot_be_asked() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    app.execute(DELETE_RITA).await;
    for away in [FaultKind::status(503), FaultKind::status(429), FaultKind::Hang] {
        app.fault(Call::Revoke, 1, away);
        app.sweep().await;
        assert_eq!(grants(&app).await, [RITA]);
    }
    // Google knows no such grant any more: nothing is left to revoke.
    app.fault(Call::Revoke, 1, FaultKind::reason(400, "invalid_token"));
    app.sweep().await;
    assert_eq!(grants(&app).await.len(), 0);
}

#[tokio::test]
async fn a_deleted_accounts_row_that_cannot_be_read_is_removed_too() {
    let app = TestApp::start().await;
    app.execute(
        "INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at)
         VALUES (101, 'not json', now(), now())",
    )
    .await;
    app.execute(DELETE_RITA).await;
    app.sweep().await;
    assert_eq!((grants(&app).await.len(), calls(&app, Call::Revoke)), (0, 0));
}

#[tokio::test]
async fn sealed_grants_that_no_key_here_opens_are_kept_and_hold_up_no_other() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    // More than are read at a time, all of them before Rita's.
    app.execute(
        "INSERT INTO users_user SELECT (jsonb_populate_record(u, jsonb_build_object('id', n, 'username', n, 'email', n))).*
         FROM users_user u, generate_series(1, 40) n WHERE u.id = 101",
    )
    .await;
    let foreign = Sealer::parse("CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=").unwrap();
    let (users, mut rows): (Vec<i64>, Vec<String>) = (1..=40)
        .map(|row| {
            let place = Place { table: "company_googlecredentials", row, column: "credentials_json" };
            (row, foreign.seal(&place, b"{}"))
        })
        .unzip();
    rows[39] = "not json".to_owned();
    sqlx::query(
        "INSERT INTO company_googlecredentials (user_id, credentials_json, created_at, updated_at)
         SELECT user_id, text, now(), now() FROM unnest($1::bigint[], $2::text[]) AS row (user_id, text)",
    )
    .bind(&users)
    .bind(&rows)
    .execute(app.db())
    .await
    .unwrap();
    app.execute("UPDATE users_user SET is_deleted = true WHERE id <= 101").await;
    let (lines, revocations) = (Lines::default(), calls(&app, Call::Revoke));
    let writer = lines.clone();
    let subscriber = telemetry::subscriber(log_filter("warn").unwrap(), LogFormat::Text, move || writer.clone(), false);
    let guard = tracing::subscriber::set_default(subscriber);
    app.sweep().await;
    drop(guard);
    assert_eq!(grants(&app).await, users[..39]);
    assert_eq!(calls(&app, Call::Revoke), revocations + 1);
    let log = lines.text();
    assert_eq!(log.matches("no key here opens these grants").count(), 1, "{log}");
    assert!(log.contains("grants=39 first_user_ids=[1, 2, ") && !log.contains("sealed\":"), "{log}");
}

#[tokio::test]
async fn events_that_are_to_be_deleted_go_before_the_grant_but_it_waits_no_longer_than_a_day() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for waits_for in [Duration::from_secs(3600), Duration::from_secs(25 * 3600)] {
        let id = rita.meet().await;
        app.fault(Call::Delete, 99, FaultKind::status(403));
        assert_eq!(rita.cancel(id).await.status, 200);
        app.execute(DELETE_RITA).await;
        app.sweep().await;
        assert_eq!((grants(&app).await.len(), app.live().len()), (1, 1), "the event is still to be deleted");
        app.advance(waits_for);
        if waits_for < Duration::from_secs(24 * 3600) {
            app.google.clear_faults();
        }
        app.sweep().await;
        let is_deleted = waits_for < Duration::from_secs(24 * 3600);
        assert_eq!((grants(&app).await.len(), app.live().is_empty()), (0, is_deleted), "after {waits_for:?}");
        app.google.clear_faults();
        app.execute("UPDATE users_user SET is_deleted = false WHERE id = 101").await;
        app.connected(RITA).await;
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_closed_account_gets_no_mail_but_a_cancellation() {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    app.execute("UPDATE users_user SET is_deleted = true WHERE id = 201").await;
    let sent = |answer: &Answer| answer.json()["emails_sent"].clone();
    app.mailbox.clear();
    assert_eq!(sent(&otto.change(id, json!({"time": "18:00"})).await), json!({"candidate": false, "recruiter": true}));
    app.set_now("2030-01-15T10:00:00Z");
    app.sweep().await;
    app.run_jobs().await;
    let to: Vec<_> = app.mailbox.mails().iter().map(|mail| mail.envelope_to.join(" ")).collect();
    assert_eq!(to, ["otto@x.test", "otto@x.test"], "an update and a reminder");
    // It may still be in the calendar of somebody who would come.
    assert_eq!(sent(&app.user(OTTO).cancel(id).await), json!({"candidate": true, "recruiter": true}));
    app.run_jobs().await;
}

#[tokio::test]
async fn pages_show_that_the_other_persons_account_is_closed_and_the_api_answers_as_before() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let id = app.user(RITA).meet().await;
    let sides = [(RITA, "rita@x.test", "/dashboard/"), (CARL, "carl@x.test", "/dashboard/jobseeker/")];
    for (own, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
        let (user, email, dashboard) = own;
        let api = [format!("/api/company/interviews/{id}/"), "/api/company/interviews/".to_owned()];
        let mut answers = Vec::new();
        for path in &api {
            answers.push(app.user(user).get(path).await.json());
        }
        let mut browser = CookieClient::of(&app, email).await;
        let room = format!("/interviews/{id}/join/");
        for close in ["is_deleted = true", "is_active = false", ""] {
            if !close.is_empty() {
                let sql = format!("UPDATE users_user SET {close} WHERE id = {}", other.0);
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(app.db()).await.unwrap();
            }
            let (cards, page) = (browser.get(dashboard).await, browser.get(&room).await);
            let card = Page::of(&cards).one(&format!("article[aria-labelledby=interview-{id}]")).text();
            let facts = Page::of(&page).one("dl.facts").text();
            let is_closed = !close.is_empty();
            assert_eq!(card.contains("account closed"), is_closed, "{card}");
            assert_eq!(facts.contains("account closed"), is_closed, "{facts}");
            assert_eq!(page.text.contains(&format!("mailto:{}", other.1)), !is_closed, "{}", page.text);
            for (path, answer) in api.iter().zip(&answers) {
                assert_eq!(&app.user(user).get(path).await.json(), answer, "{path}");
            }
            app.execute("UPDATE users_user SET is_active = true, is_deleted = false WHERE id IN (101, 201)").await;
        }
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_closed_accounts_mailed_link_opens_nothing() {
    let app = TestApp::start().await;
    app.user(OTTO).phone().await;
    let link = app.mailed_link("carl@x.test").await;
    app.execute("UPDATE users_user SET is_deleted = true WHERE id = 201").await;
    for method in [Method::GET, Method::POST] {
        assert_eq!(send(app.request(method, &link)).await.status, 403);
    }
    app.run_jobs().await;
}
