//! All pages of the portal, in all their states, with the longest texts that there may be: axe-core finds no serious or
//! critical fault (on a phone in light colours, on a wide screen in light and dark ones), the browser complains of
//! nothing, and each page fits a phone.

use std::{fs, io::Write as _, path::Path};

use serde_json::{Value, json};

use crate::{browser::Browser, support::*};

/// Leads a browser through every page in every state, and has `look_at` look at each; it is told what the page is.
///
/// The texts that people type are `long`: as long as databases may take, and without a space.
async fn walk(app: &TestApp, browser: &Browser, long: bool, mut look_at: impl AsyncFnMut(&str)) {
    // Not before the page's own words are there.
    let mut look = async |page: &str, words: &str| {
        browser.sees(words).await;
        look_at(page).await;
    };
    if long {
        app.execute(
            "ALTER TABLE job_job ALTER title TYPE varchar(255);
            UPDATE job_job SET title = repeat('W', 255);
            UPDATE company_company SET name = repeat('M', 100);
            UPDATE users_user SET first_name = repeat('Q', 50), last_name = repeat('W', 50)",
        )
        .await;
    }
    let texts = |usual: &str| if long { "W".repeat(255) } else { usual.to_owned() };

    browser.open("/login/").await;
    look("sign in", "Invited to an interview?").await;
    let label = "w".repeat(59);
    let email = if long { format!("{label}@{label}.{label}.{label}.test") } else { "rita@x.test".to_owned() };
    browser.fill("Email address", &email).await;
    browser.fill("Password", "wrong").await;
    browser.press("Sign in").await;
    look("sign in, refused", "Invalid email or password.").await;
    browser.open("/interviews/501/join/").await;
    look("error 401", "Please sign in").await;
    browser.open("/interviews/501/join/?token=wrong").await;
    look("error 403", "This link does not open an interview").await;
    browser.open("/nope/").await;
    look("error 404", "This page does not exist").await;

    browser.sign_in("nora@x.test").await;
    look("recruiter without a company", "Only recruiters with a company").await;
    post(browser, "/logout/").await;
    look("error 403 of a form", "This page was out of date").await;
    browser.press("Sign out").await;
    browser.sign_in("dana@x.test").await;
    look("candidate without interviews", "No interviews yet").await;
    browser.press("Sign out").await;

    app.execute("DELETE FROM company_interview").await;
    browser.sign_in("rita@x.test").await;
    look("recruiter without interviews, not connected", "No interviews yet").await;
    let rita = app.connected(RITA).await;
    let soon = json!({"date": "2026-11-20", "time": "12:10", "timezone": "UTC"});
    let open = rita.schedule(body(soon)).await.json()["interview_id"].as_i64().unwrap();
    let open = (open, app.mailed_link("carl@x.test").await);
    let mut ids = Vec::new();
    for (date, notes) in [("2026-11-20", "over"), ("2026-11-24", "cancelled"), ("2026-12-01", "ahead")] {
        let answer =
            rita.schedule(body(json!({"date": date, "time": "08:00", "timezone": "UTC", "notes": notes}))).await;
        let id = answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"));
        ids.push((id, app.mailed_link("carl@x.test").await));
    }
    for (kind, location) in [("phone", "+1 555 0100"), ("in_person", "Unter den Linden 1, Berlin")] {
        let changes = json!({"date": "2026-11-20", "time": "12:05", "timezone": "UTC", "interview_type": kind,
            "location": texts(location), "duration_minutes": 30});
        let answer = rita.schedule_otherwise(body(changes)).await;
        let id = answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"));
        ids.push((id, app.mailed_link("carl@x.test").await));
    }
    let [over, cancelled, ahead, phone, in_person] = &<[_; 5]>::try_from(ids).unwrap();
    assert_eq!(rita.cancel(cancelled.0).await.status, 200);
    app.mails(14).await;
    app.execute(
        "UPDATE ivs_mail SET state = 'refused' WHERE id = (SELECT id FROM ivs_mail WHERE interview_id > 1000 LIMIT 1)",
    )
    .await;

    browser.open("/dashboard/?google_oauth=success").await;
    look("recruiter with interviews", "Send again").await;
    browser.open("/dashboard/schedule/").await;
    look("schedule, the job", "Which job is it for?").await;
    browser.open("/dashboard/schedule/?job=21").await;
    look("schedule", "Schedule and invite").await;
    browser.element("#candidate_id [value='201']").await.click().await.unwrap();
    browser.fill("Date", "11202026").await;
    browser.fill("Time", "1210PM").await;
    browser.fill("Time zone", "UTC").await;
    look("schedule, with warnings", "already has an interview").await;
    for (field, wrong, words) in [
        ("Date", "12345-02-01", "Please enter a date"),
        ("Minutes", "1", "Please enter a whole number"),
        ("Time zone", "Nowhere", "Please choose a time zone of the list"),
    ] {
        browser.open("/dashboard/schedule/?job=21").await;
        // What the browser itself would refuse.
        browser.run("document.forms[1].noValidate = true; date.type = 'text'; date.value = '2030-02-01'").await;
        browser.element("#candidate_id [value='201']").await.click().await.unwrap();
        browser.fill("Time", "0200PM").await;
        browser.field("Other").await.click().await.unwrap();
        browser.fill(field, wrong).await;
        browser.press("Schedule and invite").await;
        browser.element("[aria-invalid]").await;
        look(&format!("schedule, refused for {field}"), words).await;
    }
    browser.open(&format!("/dashboard/interviews/{}/change/", in_person.0)).await;
    look("change", "Save and tell both").await;
    browser.fill("Time zone", "Nowhere").await;
    browser.press("Save and tell both").await;
    browser.element("[aria-invalid]").await;
    look("change, refused", "Please choose a time zone of the list").await;
    browser.open(&format!("/dashboard/interviews/{}/cancel/", ahead.0)).await;
    look("cancel", "Cancel the interview").await;

    app.google.revoke_grants();
    assert_eq!(rita.schedule(body(json!({"date": "2031-01-01"}))).await.status, 401);
    browser.open("/dashboard/").await;
    look("recruiter whose connection ended", "Connection ended").await;
    browser.open(&format!("/interviews/{}/join/", open.0)).await;
    look("room of the recruiter, open", "The door is open.").await;
    browser.press("Sign out").await;
    browser.is_at("/login/").await;

    for (what, (_, link), words) in [
        ("room, before", ahead, "Not open yet."),
        ("room, open", &open, "The door is open."),
        ("room, over", over, "This interview is over."),
        ("room, cancelled", cancelled, "This interview has been cancelled."),
        ("room by phone", phone, "This interview is by phone"),
        ("room in person", in_person, "You meet at the place below."),
    ] {
        browser.open(link).await;
        look(what, words).await;
    }
    browser.open(&ahead.1).await;
    post(browser, "").await;
    look("error 409", "Not open yet.").await;
    browser.open("/dashboard/jobseeker/").await;
    browser.sign_in("carl@x.test").await;
    look("candidate with interviews", "Jobs you applied for").await;
    app.run_jobs().await;
}

/// Sends a form that no page has, and waits for the answer; an empty path is the page's own.
async fn post(browser: &Browser, path: &str) {
    let form = "const form = document.createElement('form'); document.body.append(form); form.method = 'post';";
    let path = if path.is_empty() { "location.href".to_owned() } else { format!("{path:?}") };
    browser.leave(&format!("{form} form.action = {path}; form.submit()")).await;
}

/// How wide the page is when the screen has 360 pixels, and what makes it so, if it is wider than that.
async fn too_wide(browser: &Browser) -> Option<Value> {
    let script = "const wide = document.documentElement.scrollWidth;
        const causes = [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > 360);
        return wide > 360 ? { wide, causes: causes.map((one) => one.outerHTML.slice(0, 99)) } : null";
    browser.screen(360, false).await;
    Some(browser.run(script).await).filter(|found| !found.is_null())
}

#[tokio::test]
async fn no_page_has_a_serious_fault_or_is_wider_than_a_phone() {
    // Where `.ci/node` installs it.
    let axe = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser/node_modules/axe-core/axe.min.js");
    let Ok(axe) = fs::read_to_string(axe) else {
        assert!(std::env::var_os("CI").is_none(), "CI must install npm's packages with .ci/node");
        _ = writeln!(std::io::stderr(), "NOT RUN: axe-core is not here; bash .ci/node installs it");
        return;
    };
    let app = TestApp::start().await;
    let Some(browser) = Browser::start(&app).await else { return };
    let mut faults = Vec::new();
    walk(&app, &browser, true, async |page| {
        faults.extend(too_wide(&browser).await.map(|wide| format!("{page}: {wide}")));
        browser.run(&format!("{axe}; return null")).await;
        for (width, dark) in [(360, false), (1280, false), (1280, true)] {
            browser.screen(width, dark).await;
            let found =
                browser.run("return axe.run({ resultTypes: ['violations'] }).then((result) => result.violations)");
            for fault in found.await.as_array().unwrap() {
                if ["serious", "critical"].contains(&fault["impact"].as_str().unwrap_or("serious")) {
                    let places: Vec<_> = fault["nodes"].as_array().unwrap().iter().map(|node| &node["html"]).collect();
                    let scheme = if dark { "dark" } else { "light" };
                    faults.push(format!("{page} at {width}, {scheme}: {} {places:?}", fault["help"]));
                }
            }
        }
        faults.extend(browser.complaints().await.iter().map(|said| format!("{page}: {said}")));
        browser.screen(1280, false).await;
    })
    .await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// To look at: `cargo test --test browser -- --ignored` puts all pages into target/screenshots.
#[tokio::test]
#[ignore = "makes pictures"]
async fn pictures_of_all_pages() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
    fs::create_dir_all(&folder).unwrap();
    for long in [false, true] {
        let app = TestApp::start().await;
        let Some(browser) = Browser::start(&app).await else { return };
        let mut number = 0;
        walk(&app, &browser, long, async |page| {
            number += 1;
            for (width, dark) in [(360, false), (360, true), (1440, false), (1440, true)] {
                browser.screen(width, dark).await;
                let (texts, scheme) = (if long { " long" } else { "" }, if dark { "dark" } else { "light" });
                let name = format!("{number:02} {page}{texts} {width} {scheme}.png");
                fs::write(folder.join(name), browser.picture().await).unwrap();
            }
            browser.screen(1280, false).await;
        })
        .await;
    }
}
