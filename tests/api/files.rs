//! The files that pages load: what they cost, how long they are kept, and the brand in them.

use reqwest::Method;
use serde_json::json;

use crate::{
    room,
    support::{page::Page, *},
};

#[tokio::test]
async fn a_room_and_all_that_it_loads_are_less_than_60_kilobytes() {
    let app = TestApp::start().await;
    let (_, link, _) = room::meeting(&app).await;
    let answer = app.get(&link).await;
    let page = Page::of(&answer);
    let loaded = page.all("link, script, img").into_iter();
    let files: Vec<&str> = loaded.filter_map(|file| file.attribute("href").or(file.attribute("src"))).collect();
    assert_eq!(files.len(), 5, "{files:?}");
    let mut bytes = answer.text.len();
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
    let file = std::env::temp_dir().join(format!("logo-{}.svg", std::process::id()));
    std::fs::write(&file, "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").unwrap();
    let brand = [("BRAND_NAME", "<Hire> & Co"), ("BRAND_ACCENT", "#ffee00"), ("BRAND_LOGO", file.to_str().unwrap())];
    let (plain, app) = (TestApp::start().await, TestApp::start_with(&brand).await);
    std::fs::remove_file(&file).unwrap();
    let (other, page) = (Page::of(&plain.get("/login/").await), Page::of(&app.get("/login/").await));
    assert_eq!(
        (page.one("a.brand").text(), page.one("title").text()),
        ("<Hire> & Co".into(), "Sign in · <Hire> & Co".into())
    );

    let address = |page: &Page| page.one("link[rel=stylesheet]").attribute("href").unwrap().to_owned();
    assert_ne!(address(&page), address(&other), "browsers keep files by their addresses");
    let (plain_style, style) = (plain.get(&address(&other)).await.text, app.get(&address(&page)).await.text);
    let [(plain_colours, plain_rest), (colours, rest)] =
        [&plain_style, &style].map(|style| style.split_once('\n').unwrap());
    assert_eq!(rest, plain_rest);
    // Yellow can be read in the dark as it is; in the light it is darkened.
    let (dark, yellow) = ("@media(prefers-color-scheme:dark)", "--accent:#ffee00;");
    let [light, dark] = [colours.split_once(dark).unwrap().0, colours.split_once(dark).unwrap().1];
    assert!(dark.contains(yellow) && !light.contains(yellow) && !plain_colours.contains(yellow), "{colours}");

    let icon = app.get(page.one("link[rel=icon]").attribute("href").unwrap()).await;
    assert!(icon.text.contains("fill=\"#ffee00\"") && icon.text.contains(">&#60;</text>"), "{}", icon.text);
    let logo = app.get(page.one("a.brand img").attribute("src").unwrap()).await;
    assert_eq!(logo.header("content-type"), Some("image/svg+xml"));
    assert!(logo.header("content-security-policy").unwrap().ends_with("sandbox"), "a logo runs nothing");
    assert!(other.all("img").is_empty());
    assert_eq!(plain.get("/interviews/static/logo").await.status, 404);
}

#[tokio::test]
async fn readers_times_are_said_by_this_servers_time_rules() {
    let app = TestApp::start().await;
    // 1 December 2026, 16:00 UTC, in the zones whose rules changed that year; and what is no instant.
    for (zone, words) in [
        ("America/Vancouver", "Tue 1 Dec 2026, 09:00"),
        ("America/Edmonton", "Tue 1 Dec 2026, 10:00"),
        ("Africa/Casablanca", "Tue 1 Dec 2026, 16:00"),
        ("Asia/Tokyo", "Wed 2 Dec 2026, 01:00"),
    ] {
        let answer = app.get(&format!("/interviews/local-times/?zone={zone}&at=1796140800,x,99999999999999")).await;
        answer.assert(200, json!([words, null, null]));
    }
    for zone in ["", "Mars/Phobos"] {
        assert_eq!(app.get(&format!("/interviews/local-times/?zone={zone}&at=0")).await.status, 400);
    }
}

#[tokio::test]
async fn a_file_asked_for_by_a_page_of_another_version_is_not_kept() {
    let app = TestApp::start().await;
    let page = app.get("/login/").await.text;
    let address = page.split('"').find(|part| part.starts_with("/interviews/static/style.css?v=")).unwrap();
    let kept = |answer: &Answer| answer.header("cache-control").unwrap().to_owned();
    assert_eq!(kept(&app.get(address).await), "public, max-age=31536000, immutable");
    for other in ["/interviews/static/style.css?v=abc", "/interviews/static/style.css"] {
        assert_eq!(kept(&app.get(other).await), "no-store");
    }
}

#[tokio::test]
async fn no_other_sites_script_reads_a_page_and_calls_may_be_read_as_before() {
    let app = TestApp::start().await;
    let from = |path: &str| send(app.request(Method::GET, path).header("origin", "http://localhost:3000"));
    for (path, allowed) in [("/login/", None), ("/api/users/profile/", Some("http://localhost:3000"))] {
        assert_eq!(from(path).await.header("access-control-allow-origin"), allowed, "{path}");
    }
}
