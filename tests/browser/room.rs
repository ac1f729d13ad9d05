//! The interview's room, as the mailed link opens it.

use std::time::Duration;

use serde_json::json;

use crate::{
    browser::{Browser, Profile},
    support::{page::Page, *},
};

/// What the check of one device has come to.
async fn result(browser: &Browser, device: &str) -> String {
    browser.element(&format!("[data-check={device}] [data-result]")).await.text().await.unwrap()
}

async fn comes_to(browser: &Browser, device: &str, expected: &str) {
    let what = format!("{device}: {expected}");
    browser.sees_that(&what, async || result(browser, device).await == expected).await;
}

/// What a screen reader has been told last.
async fn announced(browser: &Browser) -> String {
    browser.run("return document.getElementById('said').textContent").await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_door_opens_without_a_reload_and_leads_in_and_out() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    app.mails(2).await;
    app.set_now("2030-02-01T18:44:57Z");
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await else { return };
    carl.sees("It opens in 0 min").await;
    assert!(!carl.has_button("Join in a new window").await);
    carl.run("window.isStillHere = true").await;
    app.set_now("2030-02-01T18:45:00Z");
    carl.sees("The door is open. You can join now.").await;
    carl.sees("It begins in 14 min").await;
    assert_eq!(carl.run("return window.isStillHere").await, true, "the page was not loaded again");
    assert!(announced(&carl).await.contains("The door is open."));

    carl.press("Copy link").await;
    carl.sees("Copied").await;
    carl.press("Join in a new window").await;
    until_async(async || app.count("ivs_presence WHERE user_id = 201 AND left_at IS NULL").await == 1).await;
    assert_eq!(carl.close_other_windows().await, 1);
    carl.sees("You are marked as here.").await;
    carl.press("I have left").await;
    carl.sees_that("nobody is here", async || !carl.has_button("I have left").await).await;
    assert_eq!(app.count("ivs_presence WHERE left_at IS NOT NULL").await, 1);

    carl.press("Join in a popup").await;
    until_async(async || app.count("ivs_presence WHERE left_at IS NULL").await == 1).await;
    assert_eq!(carl.close_other_windows().await, 1);
    carl.sees("You are marked as here.").await;
    carl.press("Join in this tab").await;
    carl.is_at("https://meet.google.com/").await;
    app.run_jobs().await;
}

#[tokio::test]
async fn who_waits_in_the_room_sees_that_the_interview_is_cancelled() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.mails(2).await;
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await else { return };
    carl.sees("Not open yet.").await;
    assert_eq!(rita.cancel(id).await.status, 200);
    // Somebody comes back to the tab.
    carl.run("dispatchEvent(new Event('focus'))").await;
    carl.sees("This interview has been cancelled.").await;
    assert!(announced(&carl).await.contains("cancelled"));
    app.run_jobs().await;
}

#[tokio::test]
async fn what_has_the_focus_stays_when_the_page_has_asked_again_and_nothing_has_changed() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    app.set_now("2030-02-01T18:00:00Z");
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await else { return };
    carl.sees("It opens in").await;
    // Counts the answers that the page has dealt with: what it does with one's text is done before the timer.
    carl.run(
        "window.answers = 0;
         const ask = window.fetch;
         window.fetch = async (...what) => {
           const answer = await ask(...what);
           const text = await answer.text();
           answer.text = () => { setTimeout(() => { answers++; }); return Promise.resolve(text); };
           return answer;
         };
         window.focused = [...document.links].find((link) => link.textContent === 'Add to your calendar');
         focused.focus()",
    )
    .await;
    assert_eq!(carl.run("return document.activeElement === focused").await, true);
    app.advance(Duration::from_secs(1));
    carl.run("dispatchEvent(new Event('focus'))").await;
    carl.sees_that("the page has asked again", async || carl.run("return answers").await == 1).await;
    let counted = carl.run("return document.querySelector('[data-countdown]').dataset.countdown").await;
    assert_eq!(counted, "2699000", "it counts on from what the server says now");
    assert_eq!(carl.run("return focused.isConnected && document.activeElement === focused").await, true);
    assert_eq!(announced(&carl).await, "", "nothing has changed");
    app.run_jobs().await;
}

#[tokio::test]
async fn the_script_says_what_is_left_in_the_servers_words() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    let link = app.mailed_link("carl@x.test").await;
    let Some(carl) = Browser::start(&app).await else { return };
    // Time goes on in the browser, but not for what it shows: it counts only when it has asked the server.
    let source = json!({"source": "window.setInterval = () => 0"});
    carl.tell("Page.addScriptToEvaluateOnNewDocument", source).await;
    for (now, expected) in [
        ("2030-01-30T18:44:59Z", "2 days 0 h"),
        ("2030-01-31T16:10:00Z", "1 day 2 h"),
        ("2030-01-31T18:45:00Z", "1 day 0 h"),
        ("2030-01-31T18:45:01Z", "23 h 59 min"),
        ("2030-02-01T17:45:00Z", "1 h 0 min"),
        ("2030-02-01T17:45:01Z", "59 min 59 s"),
        ("2030-02-01T18:43:59.500Z", "1 min 1 s"),
        ("2030-02-01T18:44:00Z", "1 min 0 s"),
        // Until it begins.
        ("2030-02-01T18:46:30Z", "13 min 30 s"),
    ] {
        app.set_now(now);
        let served = Page::of(&app.get(&link).await).one("[data-countdown]").text();
        carl.open(&link).await;
        let shown = async || carl.run("return document.querySelector('[data-countdown]').textContent").await;
        assert_eq!((&served, shown().await), (&expected.to_owned(), json!(served)), "{now}");
        carl.run("document.querySelector('[data-countdown]').textContent = ''; dispatchEvent(new Event('focus'))")
            .await;
        carl.sees_that("the script's words", async || shown().await != "").await;
        assert_eq!(shown().await, served, "{now}");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn the_check_says_works_only_of_what_was_seen_to_work() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    app.mails(2).await;
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await else { return };
    for device in ["browser", "connection", "camera", "microphone", "speaker"] {
        assert_eq!(result(&carl, device).await, "not tested");
    }
    carl.press("Test everything").await;
    for device in ["browser", "connection", "camera", "microphone"] {
        comes_to(&carl, device, "works").await;
    }
    carl.element("[data-check=camera] video").await;
    carl.sees("Did you hear the tone?").await;
    assert_eq!(result(&carl, "speaker").await, "testing", "only a person can tell");
    carl.press("Yes").await;
    comes_to(&carl, "speaker", "works").await;
    assert!(announced(&carl).await.starts_with("Speaker: works."));
    carl.press("Play a tone").await;
    carl.press("No").await;
    comes_to(&carl, "speaker", "problem").await;
    carl.press("Stop the camera").await;
    carl.sees_that("no picture", async || !carl.has_button("Stop the camera").await).await;
    assert_eq!(carl.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_check_says_what_to_do_where_microphone_and_camera_are_refused() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    app.mails(2).await;
    let profile = Profile { devices: false, ..Profile::default() };
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", profile).await else { return };
    carl.press("Test everything").await;
    for device in ["camera", "microphone"] {
        comes_to(&carl, device, "problem").await;
        carl.sees(&format!("The {device} is not allowed here. Allow it beside the address of this page")).await;
    }
    for device in ["browser", "connection"] {
        assert_eq!(result(&carl, device).await, "works");
    }
}
