//! The page that a mailed link opens.

use reqwest::Method;
use serde_json::json;

use crate::support::*;

/// Schedules an interview and gives its id and the links of the candidate's and the recruiter's mails.
async fn scheduled(app: &TestApp) -> (i64, String, String) {
    let rita = app.connected(RITA).await;
    let answer = rita.schedule(body(json!({"notes": "<script>alert(1)</script>"}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mails = app.mails(2).await;
    let link = |to: &str| {
        let mail = mails.iter().find(|mail| mail.to() == [to]).unwrap();
        let text = mail.text();
        text.split_whitespace().find(|word| word.contains("/join/?token=")).unwrap().to_owned()
    };
    (answer.json()["interview_id"].as_i64().unwrap(), link("carl@x.test"), link("rita@x.test"))
}

#[tokio::test]
async fn example_31_a_mailed_link_opens_one_page_and_nothing_else() {
    let app = TestApp::start().await;
    let (id, candidates, recruiters) = scheduled(&app).await;
    assert!(candidates.starts_with(&format!("{}/interviews/{id}/join/?token=", app.url)), "{candidates}");
    let page = app.get(&candidates).await;
    assert_eq!(page.status, 200);
    for text in [
        "Software Engineer",
        "Acme",
        "Rita Recruit",
        "Friday, February 01, 2030",
        "2:00 PM",
        "America/New_York",
        "UTC-05:00",
        "1 hour",
        "Upcoming",
        "1:45 PM",
    ] {
        assert!(page.text.contains(text), "{text} is missing in {}", page.text);
    }
    assert!(!page.text.contains("meet.google.com") && !page.text.contains("<script"), "{}", page.text);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-robots-tag", "noindex"),
        ("cross-origin-opener-policy", "same-origin-allow-popups"),
        ("content-type", "text/html; charset=utf-8"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    assert!(page.header("content-security-policy").unwrap().contains("form-action 'self' https://meet.google.com;"));
    assert!(app.get(&recruiters).await.text.contains("Carl Candy"));

    let token = candidates.split("token=").nth(1).unwrap();
    for path in ["/interviews/501/join/", "/interviews/999/join/", "/interviews/99999999999999999999/join/"] {
        let refused = app.get(&format!("{path}?token={token}")).await;
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.header("content-type").unwrap().starts_with("text/html"));
    }
    assert_eq!(app.get(&format!("/api/company/interviews/{id}/?token={token}")).await.status, 401);
    let bearer = app.request(Method::GET, &format!("/api/company/interviews/{id}/")).bearer_auth(token);
    assert_eq!(send(bearer).await.status, 401);
    assert_eq!(app.get(&format!("{candidates}x")).await.status, 403);
}

#[tokio::test]
async fn without_a_token_the_page_leads_to_the_frontend() {
    let app = TestApp::start().await;
    for path in ["/interviews/501/join/", "/interviews/501/join/?token="] {
        let page = app.get(path).await;
        assert_eq!(page.status, 401);
        assert!(page.text.contains("http://localhost:3000/interviews/501/join"), "{}", page.text);
    }
    assert_eq!(app.get("/interviews/501/join?token=x").await.header("location"), Some("/interviews/501/join/?token=x"));
}

#[tokio::test]
async fn the_link_to_the_meeting_appears_while_the_door_is_open() {
    let app = TestApp::start().await;
    let (_, link, _) = scheduled(&app).await;
    let post = |link: &str| send(app.request(Method::POST, link));
    let early = post(&link).await;
    assert_eq!(early.status, 409);
    assert!(!early.text.contains("meet.google.com"));

    app.set_now("2030-02-01T18:45:00Z");
    let open = app.get(&link).await;
    assert!(open.text.contains("https://meet.google.com/"), "{}", open.text);
    let joined = post(&link).await;
    assert_eq!(joined.status, 303);
    assert!(joined.header("location").unwrap().starts_with("https://meet.google.com/"));
    // The token may come in the form as well.
    let (page, token) = link.split_once("?token=").unwrap();
    let form = app.request(Method::POST, page).form(&[("token", token)]);
    assert_eq!(send(form).await.status, 303);

    app.set_now("2030-02-01T21:00:01Z");
    let over = app.get(&link).await;
    assert!(over.text.contains("over") && !over.text.contains("meet.google.com"), "{}", over.text);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_link_ends_a_day_after_the_door_closes_and_with_its_persons_account() {
    let app = TestApp::start().await;
    let (_, link, _) = scheduled(&app).await;
    app.set_now("2030-02-02T20:59:59Z");
    assert_eq!(app.get(&link).await.status, 200);
    app.set_now("2030-02-02T21:00:00Z");
    assert_eq!(app.get(&link).await.status, 403);
    app.sweep().await;
    assert_eq!(app.count("ivs_portal_token").await, 0);
    app.set_now(NOW);
    let (_, link, _) = scheduled(&app).await;
    assert_eq!(app.get(&link).await.status, 200);
    sqlx::query("UPDATE users_user SET is_active = false WHERE id = 201").execute(app.db()).await.unwrap();
    assert_eq!(app.get(&link).await.status, 403);
    app.set_now("2030-02-02T21:00:00Z");
    app.run_jobs().await;
}

#[tokio::test]
async fn a_cancelled_interview_says_so_and_shows_no_link() {
    let app = TestApp::start().await;
    let (id, link, _) = scheduled(&app).await;
    sqlx::query("UPDATE company_interview SET cancelled_at = now() WHERE id = $1")
        .bind(id)
        .execute(app.db())
        .await
        .unwrap();
    app.set_now("2030-02-01T19:00:00Z");
    let page = app.get(&link).await;
    assert!(page.text.contains("cancelled") && !page.text.contains("meet.google.com"), "{}", page.text);
    app.run_jobs().await;
}

#[tokio::test]
async fn tokens_are_kept_as_hashes_alone() {
    let app = TestApp::start().await;
    let (_, link, _) = scheduled(&app).await;
    let token = link.split("token=").nth(1).unwrap();
    let hashes: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT token_hash FROM ivs_portal_token").fetch_all(app.db()).await.unwrap();
    use sha2::Digest;
    assert!(hashes.contains(&sha2::Sha256::digest(token).to_vec()));
    assert_eq!(hashes.len(), 2);
}

#[tokio::test]
async fn a_meeting_link_that_is_no_web_address_is_never_a_link() {
    let app = TestApp::start().await;
    let (id, link, _) = scheduled(&app).await;
    sqlx::query("UPDATE company_interview SET meeting_link = 'javascript:alert(1)' WHERE id = $1")
        .bind(id)
        .execute(app.db())
        .await
        .unwrap();
    app.set_now("2030-02-01T19:00:00Z");
    assert!(!app.get(&link).await.text.contains("javascript:"));
    let back = send(app.request(Method::POST, &link)).await;
    assert_eq!(back.status, 303);
    assert!(back.header("location").unwrap().starts_with("/interviews/"));
    app.run_jobs().await;
}
