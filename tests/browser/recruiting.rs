//! What a recruiter does on the portal, and what the candidate sees of it.

use serde_json::json;

use crate::{
    browser::{Browser, Profile},
    support::*,
};

/// Opens the form to schedule an interview for the fixture's job, with its candidate chosen.
async fn open_form(rita: &Browser) {
    rita.press("Schedule an interview").await;
    rita.press("Software Engineer").await;
    rita.choose("Candidate", "Carl Candy").await;
}

#[tokio::test]
async fn a_recruiter_signs_in_connects_google_and_schedules_and_the_candidates_link_opens_in_his_own_browser() {
    let app = TestApp::start().await;
    let Some(rita) = Browser::start(&app).await else { return };
    rita.open("/").await;
    rita.sign_in("rita@x.test").await;
    rita.is_at("/dashboard/").await;

    rita.press("Connect").await;
    rita.is_at(app.google.url()).await;
    rita.field("rita@gmail.test").await.click().await.unwrap();
    rita.press("Allow").await;
    rita.is_at("/dashboard/").await;
    rita.sees("Google Calendar is connected.").await;
    rita.sees("Connected as rita@gmail.test").await;
    app.run_jobs().await;
    app.mailbox.clear();

    open_form(&rita).await;
    let zone = rita.field("Time zone").await;
    assert_eq!(zone.value().await.unwrap().as_deref(), Some("Europe/Berlin"), "the browser's own zone");
    rita.fill("Time zone", "America/New_York").await;
    rita.fill("Date", "02012030").await;
    rita.fill("Time", "0200PM").await;
    rita.sees("Fri 1 Feb 2030, 14:00–15:00 in New York (UTC−5), 20:00 your time").await;
    rita.fill("Note", "Bring <b>questions</b>").await;
    rita.press("Schedule and invite").await;
    rita.sees("The interview is scheduled; the invitations to both of you are on their way.").await;
    rita.sees("Fri 1 Feb 2030, 14:00–15:00 in New York (UTC−5)").await;
    let mails = app.mails(2).await;
    let mut to: Vec<_> = mails.iter().flat_map(|mail| mail.to()).collect();
    to.sort();
    assert_eq!(to, ["carl@x.test", "rita@x.test"]);
    assert_eq!(app.live().len(), 1);
    assert_eq!(rita.complaints().await, Vec::<String>::new());
    drop(rita);

    let carl = Browser::of_mailed(&app, "carl@x.test", Profile::default()).await.unwrap();
    for words in ["Interview: Software Engineer", "Rita Recruit", "America/New_York"] {
        carl.sees(words).await;
    }
    assert_eq!(carl.complaints().await, Vec::<String>::new());
    assert!(!carl.cookies().await.contains_key("umemployed_portal"), "a link is no session");
}

#[tokio::test]
async fn the_form_warns_of_times_in_the_past_and_of_times_that_clocks_skip() {
    let app = TestApp::start().await;
    let Some(rita) = Browser::start(&app).await else { return };
    rita.open("/dashboard/schedule/?job=21").await;
    rita.sign_in("rita@x.test").await;
    rita.choose("Candidate", "Carl Candy").await;
    rita.fill("Time zone", "America/New_York").await;
    for (date, time, line, warning) in [
        ("02012020", "0200PM", "Sat 1 Feb 2020, 14:00–15:00", "The interview time is in the past."),
        ("03102030", "0230AM", "Sun 10 Mar 2030, 03:30–04:30", "does not exist"),
        ("01152030", "0230PM", "Tue 15 Jan 2030, 14:30–15:30", "You already have an interview at this time."),
    ] {
        rita.fill("Date", date).await;
        rita.fill("Time", time).await;
        rita.sees(line).await;
        rita.sees(warning).await;
        rita.sees("Please note").await;
    }
    rita.fill("Time zone", "Mars/Phobos").await;
    rita.sees("Please choose a time zone of the list").await;
    assert_eq!(app.count("company_interview").await, 3);
    assert_eq!(rita.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_double_click_makes_one_interview() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let Some(rita) = Browser::start(&app).await else { return };
    rita.open("/dashboard/").await;
    rita.sign_in("rita@x.test").await;
    open_form(&rita).await;
    rita.fill("Date", "02012030").await;
    rita.fill("Time", "0200PM").await;
    rita.sees("14:00–15:00 in Berlin").await;
    rita.double_click("Schedule and invite").await;
    rita.sees("The interview is scheduled; the invitations to both of you are on their way.").await;
    app.mails(2).await;
    assert_eq!((app.count("company_interview").await, app.live().len(), app.mailbox.mails().len()), (4, 1, 2));
}

#[tokio::test]
async fn a_recruiter_reschedules_and_cancels_with_a_reason_and_both_are_told() {
    let app = TestApp::start().await;
    let id = app.connected(RITA).await.meet().await;
    app.mails(2).await;
    app.mailbox.clear();
    let Some(rita) = Browser::start(&app).await else { return };
    rita.open(&format!("/dashboard/interviews/{id}/change/")).await;
    rita.sign_in("rita@x.test").await;
    rita.sees("Reschedule the interview with Carl Candy").await;
    rita.fill("Date", "02042030").await;
    rita.fill("Time", "0930AM").await;
    rita.press("Save and tell both").await;
    rita.sees("The interview is changed; the mails to both of you are on their way.").await;
    rita.sees("Mon 4 Feb 2030, 09:30–10:30").await;
    let mails = app.mails(2).await;
    assert!(mails.iter().all(|mail| mail.text().contains("February 04, 2030")), "{}", mails[0].text());
    app.assert_agree(id).await;
    app.mailbox.clear();

    rita.open(&format!("/dashboard/interviews/{id}/cancel/")).await;
    rita.fill("Reason", "The position is filled").await;
    rita.press("Cancel the interview").await;
    rita.sees("The interview is cancelled; the mails to both of you are on their way.").await;
    rita.sees("Cancelled").await;
    let mails = app.mails(2).await;
    assert!(mails.iter().all(|mail| mail.text().contains("The position is filled")), "{}", mails[0].text());
    until_async(async || app.live().is_empty()).await;
    assert_eq!(rita.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn copy_buttons_copy_the_rooms_address_and_say_so_also_without_the_browsers_clipboard() {
    let app = TestApp::start().await;
    let address = format!("{}/interviews/501/join/", app.url);
    let Some(browser) = Browser::start(&app).await else { return };
    let permissions = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.tell("Browser.grantPermissions", permissions).await;
    for (email, dashboard) in [("rita@x.test", "/dashboard/"), ("carl@x.test", "/dashboard/jobseeker/")] {
        browser.open(dashboard).await;
        browser.sign_in(email).await;
        for way in ["", "Object.defineProperty(navigator, 'clipboard', { value: undefined })"] {
            browser.open(dashboard).await;
            browser.run("window.kept = navigator.clipboard; return kept.writeText('before').then(() => true)").await;
            browser.run(way).await;
            let button = browser.element(&format!("[data-copy='{address}']")).await;
            assert_eq!(button.text().await.unwrap(), "Copy link");
            button.click().await.unwrap();
            browser.sees_that("Copied", async || button.text().await.unwrap() == "Copied").await;
            let told = "return [...document.querySelectorAll('[role=status]')].map((element) => element.textContent)";
            let told = browser.run(told).await;
            assert!(told.as_array().unwrap().contains(&json!("Copied")), "{told}");
            assert_eq!(browser.run("return document.activeElement.dataset.copy").await, address, "the focus stays");
            assert_eq!(browser.run("return kept.readText()").await, address, "{dashboard} {way}");
        }
        browser.press("Sign out").await;
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn without_javascript_a_recruiter_connects_checks_the_time_and_schedules_and_the_candidate_joins() {
    let app = TestApp::start().await;
    let plain = Profile { javascript: false, ..Profile::default() };
    let Some(rita) = Browser::of(&app, plain).await else { return };
    rita.open("/dashboard/").await;
    rita.sign_in("rita@x.test").await;
    assert!(!rita.has_button("Copy link").await, "what needs a script is hidden");
    rita.press("Connect").await;
    rita.field("rita@gmail.test").await.click().await.unwrap();
    rita.press("Allow").await;
    rita.sees("Google Calendar is connected.").await;
    app.run_jobs().await;
    app.mailbox.clear();

    open_form(&rita).await;
    rita.fill("Date", "11202026").await;
    rita.fill("Time", "0110PM").await;
    rita.fill("Time zone", "Europe/Paris").await;
    rita.press("Check the time").await;
    rita.sees("Fri 20 Nov 2026, 13:10–14:10 in Paris (UTC+1)").await;
    assert_eq!(app.count("company_interview").await, 3);
    rita.press("Schedule and invite").await;
    rita.sees("The interview is scheduled; the invitations to both of you are on their way.").await;
    app.mails(2).await;
    drop(rita);

    let carl = Browser::of_mailed(&app, "carl@x.test", plain).await.unwrap();
    carl.press("Join in this tab").await;
    carl.is_at("https://meet.google.com/").await;
    assert_eq!(app.count("ivs_presence").await, 1);
}

#[tokio::test]
async fn the_keyboard_alone_signs_in_and_schedules() {
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let Some(rita) = Browser::start(&app).await else { return };
    // Goes on until the focus is there, which must be visible; in dates and times the browser marks the part it is in.
    let tab_to = async |css: &str| {
        for _ in 0..30 {
            rita.keys(TAB).await;
            let found = rita.run(&format!("return document.activeElement.matches(`{css}`)")).await;
            let shown = "return document.activeElement.matches('[type=date], [type=time]')
                             || getComputedStyle(document.activeElement).outlineStyle == 'solid'";
            assert_eq!(rita.run(shown).await, true, "the focus is visible on the way to {css}");
            if found == true {
                return;
            }
        }
        panic!("the keyboard does not get to {css}");
    };
    rita.open("/login/").await;
    let focused = rita.run("return document.activeElement.id").await;
    assert_eq!(focused, "email", "typing can begin at once");
    rita.keys(format!("rita@x.test{TAB}{PASSWORD}{ENTER}")).await;
    rita.sees("Your interviews").await;
    rita.keys(TAB).await;
    rita.sees("Skip to the content").await;
    tab_to("[href='/dashboard/schedule/']").await;
    rita.keys(ENTER).await;
    rita.sees("Which job is it for?").await;
    tab_to("[href*='job=21']").await;
    rita.keys(ENTER).await;
    rita.sees("Candidate").await;
    tab_to("select").await;
    rita.keys("Carl").await;
    tab_to("#date").await;
    rita.keys("02012030").await;
    tab_to("#time").await;
    rita.keys("0200PM").await;
    tab_to("#note").await;
    rita.keys("Typed").await;
    rita.sees("Fri 1 Feb 2030, 14:00–15:00 in Berlin (UTC+1)").await;
    tab_to("form[data-schedule] button").await;
    rita.keys(ENTER).await;
    rita.sees("The interview is scheduled; the invitations to both of you are on their way.").await;
    app.mails(2).await;
}
