//! The interview's room, as the mailed link opens it.

use crate::{
    browser::{Browser, Profile},
    support::*,
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
