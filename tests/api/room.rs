//! An interview's room: what it counts, what it offers by type, the calendar file; and the files that pages load.

use reqwest::Method;
use serde_json::json;

use crate::support::{browser::Browser, *};

/// Schedules Rita's Google Meet interview on 1 February 2030, 19:00 UTC, and gives the candidate's and her mailed links.
async fn meeting(app: &TestApp) -> (i64, String, String) {
    let id = app.connected(RITA).await.meet().await;
    let (carls, ritas) = (mailed_link(app, "carl@x.test").await, mailed_link(app, "rita@x.test").await);
    (id, carls, ritas)
}

async fn mailed_link(app: &TestApp, to: &str) -> String {
    let mails = app.mails(2).await;
    let text = mails.iter().rfind(|mail| mail.to() == [to]).unwrap().text();
    text.split_whitespace().find(|word| word.contains("/join/?token=")).unwrap().to_owned()
}

/// The value of the page's first attribute of this name.
fn attribute<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.split(&format!(" {name}=\"")).nth(1)?.split('"').next()
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
        let page = app.get(&link).await.text;
        assert_eq!(attribute(&page, "data-state"), Some(state), "{now}");
        assert_eq!(attribute(&page, "data-changes-in"), changes_in, "{now}");
        assert_eq!(attribute(&page, "data-countdown"), counted.map(|(milliseconds, _)| milliseconds), "{now}");
        assert!(counted.is_none_or(|(_, words)| page.contains(&format!(">{words}</b>"))), "{now} {page}");
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
        let page = app.get(&mailed_link(&app, "carl@x.test").await).await.text;
        assert!(page.contains(has) && !page.contains(has_not), "{page}");
        app.mailbox.clear();
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_cancelled_interviews_room_says_why() {
    let app = TestApp::start().await;
    let (id, link, _) = meeting(&app).await;
    let body = json!({"reason": "The <b>position</b> is filled."});
    let answer = app.user(RITA).post(&format!("/api/company/interviews/{id}/cancel/"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = app.get(&link).await.text;
    assert!(page.contains("The &#60;b&#62;position&#60;/b&#62; is filled."), "{page}");
    assert_eq!(attribute(&page, "data-state"), Some("cancelled"));
    assert!(!page.contains("Check your devices") && !page.contains("calendar.ics"), "{page}");
    app.run_jobs().await;
}

#[tokio::test]
async fn whom_the_room_opens_for_gets_it_as_a_file_for_calendars() {
    let app = TestApp::start().await;
    let (id, link, _) = meeting(&app).await;
    let path = format!("/interviews/{id}/calendar.ics");
    let page = app.get(&link).await.text;
    let address = link.strip_prefix(&app.url).unwrap().replace("/join/", "/calendar.ics");
    assert!(page.contains(&format!("href=\"{address}\"")), "{page}");
    let file = app.get(&address).await;
    assert_eq!(file.header("content-type"), Some("text/calendar; charset=utf-8"));
    assert!(file.text.contains("DTSTART:20300201T190000Z"), "{}", file.text);
    let mut carl = Browser::new(&app);
    carl.sign_in("carl@x.test").await;
    assert_eq!(carl.get(&path).await.text, file.text);
    let mut dana = Browser::new(&app);
    dana.sign_in("dana@x.test").await;
    assert_eq!(dana.get(&path).await.status, 403);
    assert_eq!(app.get(&path).await.status, 401);
    assert_eq!(app.get(&format!("{path}?token=wrong")).await.status, 403);
    app.run_jobs().await;
}

#[tokio::test]
async fn the_room_and_all_that_it_loads_are_less_than_60_kilobytes() {
    let app = TestApp::start().await;
    let (_, link, _) = meeting(&app).await;
    let page = app.get(&link).await.text;
    let files: Vec<&str> = page.split('"').filter(|part| part.starts_with("/interviews/static/")).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    let mut bytes = page.len();
    for file in files {
        let answer = app.get(file).await;
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
        bytes += answer.text.len();
    }
    assert!(bytes < 60_000, "{bytes}");
    // The check of the connection asks for a file's head alone.
    let head = send(app.request(Method::HEAD, "/interviews/static/style.css")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    app.run_jobs().await;
}

#[tokio::test]
async fn the_brand_colours_names_and_signs_the_pages() {
    let logo = std::env::temp_dir().join(format!("logo-{}.svg", std::process::id()));
    std::fs::write(&logo, "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").unwrap();
    let brand = [("BRAND_NAME", "<Hire> & Co"), ("BRAND_ACCENT", "#ffee00"), ("BRAND_LOGO", logo.to_str().unwrap())];
    let (plain, app) = (TestApp::start().await, TestApp::start_with(&brand).await);
    std::fs::remove_file(&logo).unwrap();
    let address = |page: &str, name: &str| {
        page.split('"').find(|part| part.starts_with(&format!("/interviews/static/{name}"))).unwrap().to_owned()
    };
    let (other, page) = (plain.get("/login/").await.text, app.get("/login/").await.text);
    assert!(page.contains("&#60;Hire&#62; &#38; Co") && !page.contains("<Hire>"), "{page}");
    assert_ne!(address(&page, "style.css"), address(&other, "style.css"), "browsers keep files by their addresses");
    let style = app.get(&address(&page, "style.css")).await;
    assert!(style.text.starts_with(":root{--accent:#"), "{}", style.text);
    let icon = app.get(&address(&page, "icon.svg")).await;
    assert!(icon.text.contains("fill=\"#ffee00\"") && icon.text.contains(">&#60;</text>"), "{}", icon.text);
    let logo = app.get(&address(&page, "logo")).await;
    assert_eq!(logo.header("content-type"), Some("image/svg+xml"));
    assert!(logo.header("content-security-policy").unwrap().ends_with("sandbox"), "a logo runs nothing");
    assert_eq!(
        (plain.get("/interviews/static/logo").await.status, app.get("/interviews/static/../x").await.status),
        (404.try_into().unwrap(), 404.try_into().unwrap())
    );
}
