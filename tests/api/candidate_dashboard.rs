//! A candidate's dashboard.

use crate::support::{cookie_client::CookieClient, page::Page, *};

/// The section with this title, as HTML.
#[track_caller]
fn section(page: &Answer, title: &str) -> String {
    let page = Page::of(page);
    let sections = page.all("section").into_iter();
    let found =
        sections.filter(|section| section.all("h2").first().is_some_and(|h2| h2.text() == title)).collect::<Vec<_>>();
    let [section] = &found[..] else { panic!("{} sections {title} in {}", found.len(), page.text()) };
    section.html()
}

#[tokio::test]
async fn interviews_stand_by_application_and_what_is_over_or_cancelled_last() {
    let app = TestApp::start().await;
    let id = app.connected(RITA).await.meet().await;
    let gone = app.user(OTTO).phone().await;
    assert_eq!(app.user(OTTO).cancel(gone).await.status, 200);
    let phone = app.user(OTTO).phone().await;
    let mut carl = CookieClient::of(&app, "carl@x.test").await;
    let page = carl.get("/dashboard/jobseeker/").await;
    assert_eq!(page.status, 200);
    let room = |id: i64| format!("{}/interviews/{id}/join/", app.url);
    let applied = section(&page, "Jobs you applied for");
    for text in ["Software Engineer", "Acme", "Rita Recruit", "Upcoming", "America/New_York", &room(id)] {
        assert!(applied.contains(text), "{text} is missing in {applied}");
    }
    assert!(applied.contains(&format!("href=\"/interviews/{id}/calendar.ics\"")));
    assert!(applied.contains(&format!("data-copy=\"{}\"", room(id))), "{applied}");
    let others = section(&page, "Other invitations");
    assert!(others.contains(&room(phone)) && others.contains(&room(501)) && !others.contains(&room(id)), "{others}");
    let past = section(&page, "Past and cancelled");
    assert!(past.contains(&format!("/interviews/{gone}/join/")) && past.contains("Cancelled"), "{past}");
    assert!(past.contains("/interviews/503/join/") && past.contains("Unknown"), "{past}");
    assert!(!page.text.contains("token=") && !page.text.contains("meet.google.com"), "{}", page.text);

    app.set_now("2030-02-01T18:45:00Z");
    let mut carl = CookieClient::of(&app, "carl@x.test").await;
    for (now, status, words) in [
        ("2030-02-01T18:45:00Z", "Open", ">Join<"),
        ("2030-02-01T19:00:00Z", "In progress", ">Join<"),
        ("2030-02-01T20:00:00Z", "Over", ">Join<"),
    ] {
        app.set_now(now);
        let page = carl.get("/dashboard/jobseeker/").await;
        let applied = section(&page, "Jobs you applied for");
        assert!(applied.contains(status) && applied.contains(words), "{now} {applied}");
    }
    app.set_now("2030-02-01T21:00:01Z");
    let page = carl.get("/dashboard/jobseeker/").await.text;
    assert!(!page.contains("Jobs you applied for"), "{page}");
    app.run_jobs().await;
}

#[tokio::test]
async fn somebody_without_interviews_is_told_what_happens_next_and_sees_nobody_elses() {
    let app = TestApp::start().await;
    let mut dana = CookieClient::of(&app, "dana@x.test").await;
    let page = dana.get("/dashboard/jobseeker/").await.text;
    assert!(page.contains("No interviews yet") && !page.contains("/join/"), "{page}");
    let nobody = CookieClient::new(&app).get("/dashboard/jobseeker/").await;
    assert_eq!(nobody.header("location"), Some("/login/?next=/dashboard/jobseeker/"));
}

#[tokio::test]
async fn interviews_are_found_by_account_also_when_its_address_has_changed() {
    let app = TestApp::start().await;
    app.user(OTTO).phone().await;
    app.execute("UPDATE users_user SET email = 'new@x.test' WHERE id = 201").await;
    let mut carl = CookieClient::of(&app, "new@x.test").await;
    let page = carl.get("/dashboard/jobseeker/").await.text;
    assert!(page.contains("Otto Other"), "{page}");
    app.run_jobs().await;
}
