//! What becomes of a mailed link's token in the address bar and the history, and that the room opens again all the same.

use serde_json::{Value, json};

use crate::{
    browser::{Browser, Profile},
    support::*,
};

/// The addresses that this window's Back and Forward lead to.
async fn history(browser: &Browser) -> Vec<String> {
    let history = browser.tell("Page.getNavigationHistory", json!({})).await;
    let entries = history["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["url"].as_str().unwrap().to_owned()).collect()
}

async fn shows_no_token(browser: &Browser, path: &str) {
    browser.sees_that("an address without a token", async || browser.address().await == path).await;
    let history = history(browser).await;
    assert!(history.iter().all(|url| !url.contains("token")), "{history:?}");
}

#[tokio::test]
async fn a_links_token_is_in_neither_address_nor_history_and_reload_and_back_open_the_room() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await else { return };
    let room = format!("/interviews/{id}/join/");
    carl.sees("Not open yet.").await;
    shows_no_token(&carl, &room).await;

    // As a phone does with a tab that it has put away: it keeps the address and what the tab has stored.
    carl.leave("location.reload()").await;
    carl.sees("Not open yet.").await;
    shows_no_token(&carl, &room).await;

    carl.open("/login/").await;
    carl.sees("Invited to an interview?").await;
    carl.leave("history.back()").await;
    carl.sees("Not open yet.").await;
    shows_no_token(&carl, &room).await;

    // What the page itself asks for, and its links and forms.
    app.set_now("2030-02-01T18:45:00Z");
    carl.run("dispatchEvent(new Event('focus'))").await;
    carl.sees("The door is open. You can join now.").await;
    let calendar = carl.button("Add to your calendar").await.attr("href").await.unwrap().unwrap();
    assert!(app.get(&calendar).await.text.starts_with("BEGIN:VCALENDAR"));
    carl.press("Join in a new window").await;
    until_async(async || app.count("ivs_presence WHERE user_id = 201 AND left_at IS NULL").await == 1).await;
    carl.close_other_windows().await;
    carl.press("I have left").await;
    carl.sees_that("nobody is here", async || !carl.has_button("I have left").await).await;
    shows_no_token(&carl, &room).await;
    assert_eq!(carl.complaints().await, Vec::<String>::new());

    // In another tab nobody is known.
    carl.run("sessionStorage.clear()").await;
    carl.leave("location.reload()").await;
    carl.sees("Please sign in").await;
    app.run_jobs().await;
}

#[tokio::test]
async fn a_link_opens_the_room_again_for_somebody_who_is_signed_in_as_another() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    let link = app.mailed_link("carl@x.test").await;
    let Some(otto) = Browser::start(&app).await else { return };
    otto.sign_in("otto@x.test").await;
    otto.open(&link).await;
    otto.sees("Not open yet.").await;
    otto.leave("location.reload()").await;
    otto.sees("Not open yet.").await;
    // Without the link it is nothing to them.
    otto.run("sessionStorage.clear()").await;
    otto.leave("location.reload()").await;
    otto.sees("This interview is not yours").await;
    app.run_jobs().await;
}

#[tokio::test]
async fn a_link_that_opens_nothing_any_more_leaves_the_address_too_and_is_not_tried_again() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    let Some(carl) = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await else { return };
    carl.sees("Not open yet.").await;
    app.execute("DELETE FROM ivs_portal_token").await;
    carl.leave("location.reload()").await;
    carl.sees("This link does not open an interview").await;
    let path = carl.address().await;
    shows_no_token(&carl, &path).await;
    carl.leave("location.reload()").await;
    carl.sees("Please sign in").await;
    app.run_jobs().await;
}

#[tokio::test]
async fn where_nothing_can_be_stored_or_no_script_runs_the_address_stays_and_opens_the_room() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    for profile in
        [Profile { storage: false, ..Profile::default() }, Profile { javascript: false, ..Profile::default() }]
    {
        let Some(carl) = Browser::of_mailed(&app, "carl@x.test", profile).await else { return };
        carl.sees("Not open yet.").await;
        assert!(carl.address().await.contains("?token="));
        carl.open(&carl.address().await).await;
        carl.sees("Not open yet.").await;
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn the_pages_of_the_api_work_under_their_policy() {
    let app = TestApp::start().await;
    let Some(browser) = Browser::start(&app).await else { return };
    for path in ["/swagger/", "/redoc/"] {
        browser.open(path).await;
        browser.sees("Sign in with e-mail and password.").await;
        // Some operation is opened and tried.
        browser.run("document.querySelector('#operations-users-get_api_users_profile button, .opblock-summary-control').click()").await;
        browser.press("Try it out").await;
        browser.press("Execute").await;
        browser.sees("Server response").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new(), "{path}");
        let styles = browser.run("return getComputedStyle(document.querySelector('.opblock')).borderStyle").await;
        assert_eq!(styles, Value::from("solid"), "{path}");
    }
}
