//! An interview's room: whom it opens for, what it shows and counts, its buttons, the calendar file.

use reqwest::Method;
use serde_json::json;

use crate::support::{cookie_client::CookieClient, page::Page, *};

/// Schedules Rita's Google Meet interview on 1 February 2030, 19:00 UTC, with a hostile note; gives its id, and the
/// links that the candidate and she were mailed.
pub async fn meeting(app: &TestApp) -> (i64, String, String) {
    let answer = app.connected(RITA).await.schedule(body(json!({"notes": "<script>alert(1)</script>"}))).await;
    let id = answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"));
    (id, app.mailed_link("carl@x.test").await, app.mailed_link("rita@x.test").await)
}

#[tokio::test]
async fn example_31_a_mailed_link_opens_one_page_and_nothing_else() {
    let app = TestApp::start().await;
    let (id, candidates, recruiters) = meeting(&app).await;
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
    assert!(!page.text.contains("meet.google.com") && !page.text.contains("<script>alert"), "{}", page.text);
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
    let (_, link, _) = meeting(&app).await;
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
async fn the_room_says_how_long_the_door_stays_as_it_is_by_the_servers_clock() {
    let app = TestApp::start().await;
    let (_, link, _) = meeting(&app).await;
    for (now, state, changes_in, counted) in [
        ("2030-01-30T18:44:59Z", "early", Some("172801000"), Some(("172801000", "2 days 0 h"))),
        ("2030-02-01T18:44:59.500Z", "early", Some("500"), Some(("500", "0 min 1 s"))),
        ("2030-02-01T18:45:00Z", "open", Some("900000"), Some(("900000", "15 min 0 s"))),
        ("2030-02-01T19:00:00Z", "open", Some("3600000"), None),
        ("2030-02-01T20:00:00Z", "open", Some("3600001"), None),
        ("2030-02-01T21:00:00.001Z", "over", None, None),
    ] {
        app.set_now(now);
        let page = Page::of(&app.get(&link).await);
        let door = page.one("#door");
        assert_eq!(door.attribute("data-state"), Some(state), "{now}");
        assert_eq!(door.attribute("data-changes-in"), changes_in, "{now}");
        let place = door.all("[data-countdown]");
        let shown = place.first().map(|place| (place.attribute("data-countdown").unwrap(), place.text()));
        assert_eq!(shown, counted.map(|(milliseconds, words)| (milliseconds, words.to_owned())), "{now}");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_room_offers_what_makes_sense_for_its_type() {
    let app = TestApp::start().await;
    let (_, meet, recruiters) = meeting(&app).await;
    let page = app.get(&meet).await.text;
    for part in ["Check your devices", "not tested", "mailto:rita@x.test?subject=Interview%3A%20Software%20Engineer"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(!page.contains("/change/") && !page.contains(">works<"), "{page}");
    let page = app.get(&recruiters).await.text;
    assert!(page.contains("mailto:carl@x.test") && page.contains("/change/") && page.contains("/cancel/"), "{page}");
    app.mailbox.clear();

    for (changes, has, has_not) in [
        (json!({"location": "+1 (212) 555-0143"}), "href=\"tel:+12125550143\"", "Check your devices"),
        (json!({"interview_type": "in_person", "location": "Main Street 1"}), "Main Street 1", "tel:"),
    ] {
        let answer = app.user(OTTO).schedule_otherwise(phone_body(changes)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let page = app.get(&app.mailed_link("carl@x.test").await).await.text;
        assert!(page.contains(has) && !page.contains(has_not), "{page}");
        app.mailbox.clear();
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_cancelled_interviews_room_says_so_and_why_and_shows_no_link() {
    let app = TestApp::start().await;
    let (id, link, _) = meeting(&app).await;
    let body = json!({"reason": "The <b>position</b> is filled."});
    let answer = app.user(RITA).post(&format!("/api/company/interviews/{id}/cancel/"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Also while its door would be open.
    for now in [NOW, "2030-02-01T19:00:00Z"] {
        app.set_now(now);
        let answer = app.get(&link).await;
        let page = Page::of(&answer);
        assert_eq!(page.one("#door").attribute("data-state"), Some("cancelled"));
        let text = page.text();
        assert!(text.contains("has been cancelled") && text.contains("The <b>position</b> is filled."), "{text}");
        for gone in ["Check your devices", "calendar.ics", "meet.google.com"] {
            assert!(!answer.text.contains(gone), "{gone} is in {}", answer.text);
        }
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_link_ends_a_day_after_the_door_closes_and_with_its_persons_account() {
    let app = TestApp::start().await;
    let (_, link, _) = meeting(&app).await;
    app.set_now("2030-02-02T20:59:59Z");
    assert_eq!(app.get(&link).await.status, 200);
    app.set_now("2030-02-02T21:00:00Z");
    assert_eq!(app.get(&link).await.status, 403);
    app.sweep().await;
    assert_eq!(app.count("ivs_portal_token").await, 0);
    app.set_now(NOW);
    let (_, link, _) = meeting(&app).await;
    assert_eq!(app.get(&link).await.status, 200);
    app.execute("UPDATE users_user SET is_active = false WHERE id = 201").await;
    assert_eq!(app.get(&link).await.status, 403);
    app.set_now("2030-02-02T21:00:00Z");
    app.run_jobs().await;
}

#[tokio::test]
async fn tokens_are_kept_as_hashes_alone() {
    let app = TestApp::start().await;
    let (_, link, _) = meeting(&app).await;
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
    let (_, link, _) = meeting(&app).await;
    app.execute("UPDATE company_interview SET meeting_link = 'javascript:alert(1)' WHERE id > 1000").await;
    app.set_now("2030-02-01T19:00:00Z");
    assert!(!app.get(&link).await.text.contains("javascript:"));
    let back = send(app.request(Method::POST, &link)).await;
    assert_eq!(back.status, 303);
    assert!(back.header("location").unwrap().starts_with("/interviews/"));
    app.run_jobs().await;
}

/// The candidate's link to an interview by phone, half an hour after its start.
async fn phoned() -> (TestApp, String) {
    let app = TestApp::start().await;
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let link = app.mailed_link("carl@x.test").await;
    app.set_now("2030-01-16T01:30:00Z");
    (app, link)
}

/// Who was there, as the interview's details tell.
async fn attendance(app: &TestApp, id: i64) -> serde_json::Value {
    app.user(CARL).get(&format!("/api/interviews/{id}/")).await.json()["attendance"].clone()
}

#[tokio::test]
async fn joining_and_leaving_on_the_page_are_recorded_for_the_links_person() {
    let app = TestApp::start().await;
    let (id, candidates, recruiters) = meeting(&app).await;
    app.set_now("2030-02-01T18:45:00Z");
    assert!(!app.get(&candidates).await.text.contains("I have left"));
    assert_eq!(app.count("ivs_presence").await, 0, "opening the page records nothing");
    for link in [&candidates, &candidates, &recruiters] {
        assert_eq!(send(app.request(Method::POST, link)).await.status, 303);
    }
    let joined = |role: &str, left: Option<&str>| json!({"user_role": role, "joined_at": "2030-02-01T18:45:00Z", "left_at": left});
    assert_eq!(attendance(&app, id).await, json!([joined("candidate", None), joined("recruiter", None)]));

    // The page's own form leads out, and back to the page.
    app.set_now("2030-02-01T22:00:00Z");
    let page = app.get(&candidates).await.text;
    let leave = candidates.replace("/join/", "/left/");
    let action = leave.strip_prefix(&app.url).unwrap();
    assert!(page.contains(&format!(r#"<form method="post" action="{action}""#)), "{page}");
    for _ in 0..2 {
        let left = send(app.request(Method::POST, &leave)).await;
        assert_eq!((left.status.as_u16(), left.header("location")), (303, candidates.strip_prefix(&app.url)));
        assert_eq!(left.header("referrer-policy"), Some("no-referrer"));
    }
    let page = app.get(&candidates).await.text;
    assert!(!page.contains("I have left"), "{page}");
    let ended = Some("2030-02-01T22:00:00Z");
    assert_eq!(attendance(&app, id).await, json!([joined("candidate", ended), joined("recruiter", None)]));
    app.run_jobs().await;
}

#[tokio::test]
async fn without_a_link_to_follow_joining_leads_back_to_the_page() {
    let (app, link) = phoned().await;
    let (page, token) = link.split_once("?token=").unwrap();
    let text = app.get(&link).await.text;
    assert!(text.contains("I am here") && !text.contains("I have left"), "{text}");
    let back = send(app.request(Method::POST, page).form(&[("token", token)])).await;
    assert_eq!((back.status.as_u16(), back.header("location")), (303, link.strip_prefix(&app.url)));
    let text = app.get(&link).await.text;
    assert!(text.contains("I have left") && !text.contains("I am here"), "{text}");
    assert_eq!(app.count("ivs_presence WHERE user_id = 201").await, 1);
    // The token may come in the form when leaving, too.
    let left = app.request(Method::POST, &page.replace("/join/", "/left/")).form(&[("token", token)]);
    assert_eq!(send(left).await.status, 303);
    assert_eq!(app.count("ivs_presence WHERE left_at IS NOT NULL").await, 1);
    app.run_jobs().await;
}

#[tokio::test]
async fn nothing_is_recorded_without_a_valid_link_or_while_the_door_is_closed() {
    let (app, link) = phoned().await;
    let leave = link.replace("/join/", "/left/");
    let post = |path: &str| send(app.request(Method::POST, path));
    let other = leave.replace("/interviews/", "/interviews/9");
    for (path, status) in [
        (format!("{leave}x"), 403),
        (other, 403),
        ("/interviews/99999999999999999999/left/?token=x".into(), 403),
        ("/interviews/502/left/".into(), 401),
    ] {
        let refused = post(&path).await;
        assert_eq!(refused.status, status, "{path}");
        assert!(refused.header("content-type").unwrap().starts_with("text/html"));
    }
    assert_eq!(app.get(&leave).await.status, 405);
    app.set_now("2030-01-16T03:00:01Z");
    assert_eq!((post(&link).await.status.as_u16(), post(&leave).await.status.as_u16()), (409, 303));
    assert_eq!(app.count("ivs_presence").await, 0);
    app.run_jobs().await;
}

#[tokio::test]
async fn whom_the_room_opens_for_gets_it_as_a_file_for_calendars() {
    let app = TestApp::start().await;
    let (id, link, _) = meeting(&app).await;
    let path = format!("/interviews/{id}/calendar.ics");
    let address = link.strip_prefix(&app.url).unwrap().replace("/join/", "/calendar.ics");
    let page = Page::of(&app.get(&link).await);
    assert_eq!(page.one("[href*='calendar.ics']").attribute("href"), Some(&*address));
    let file = app.get(&address).await;
    assert_eq!(file.header("content-type"), Some("text/calendar; charset=utf-8"));
    assert!(file.text.contains("DTSTART:20300201T190000Z"), "{}", file.text);
    let mut carl = CookieClient::of(&app, "carl@x.test").await;
    assert_eq!(carl.get(&path).await.text, file.text);
    let mut dana = CookieClient::of(&app, "dana@x.test").await;
    assert_eq!(dana.get(&path).await.status, 403);
    assert_eq!(app.get(&path).await.status, 401);
    assert_eq!(app.get(&format!("{path}?token=wrong")).await.status, 403);
    app.run_jobs().await;
}
