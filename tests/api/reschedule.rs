//! The pages on which a recruiter reschedules and cancels an interview.

use serde_json::{Value, json};

use crate::support::{cookie_client::CookieClient, page::Page, *};

#[tokio::test]
async fn an_interview_is_rescheduled_and_only_what_differs_is_changed() {
    let app = TestApp::start().await;
    let id = app.user(OTTO).phone().await;
    app.execute("UPDATE company_interview SET note = E'one\ntwo' WHERE id > 1000").await;
    app.mails(2).await;
    app.mailbox.clear();
    let change = format!("/dashboard/interviews/{id}/change/");
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let answer = otto.get(&change).await;
    let page = Page::of(&answer);
    let value = |name: &str| page.one(&format!("#{name}")).attribute("value").unwrap().to_owned();
    let shown = [value("date"), value("time"), value("timezone"), value("duration_minutes"), value("location")];
    assert_eq!(shown, ["2030-01-16", "10:00", "Asia/Tokyo", "60", ""]);
    let same = [
        ("date", &*shown[0]),
        ("time", &*shown[1]),
        ("timezone", &*shown[2]),
        ("duration_minutes", &*shown[3]),
        ("interview_type", "phone"),
        ("location", ""),
        ("note", "one\r\ntwo"),
    ];
    let sent = otto.submit(&answer, &change, &same).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, Some("/dashboard/?done=unchanged")));
    assert_eq!((&app.row(id).await["ical_sequence"], app.mailbox.mails().len()), (&json!(0), 0));

    let mut moved = same;
    moved[1].1 = "11:00";
    moved[5].1 = "+81 3 0000";
    let sent = otto.submit(&answer, &change, &moved).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, Some("/dashboard/?done=changed")), "{sent:?}");
    let row = app.row(id).await;
    let seen = ["time", "location", "duration_minutes", "note", "ical_sequence"].map(|name| row[name].clone());
    assert_eq!(json!(seen), json!(["11:00:00", "+81 3 0000", Value::Null, "one\ntwo", 1]));
    let mails = app.mails(2).await;
    assert!(mails.iter().all(|mail| mail.subject().starts_with("Interview Updated")), "{mails:?}");

    for (field, value, words) in [
        ("date", "x", "Please enter a date, such as 2030-02-01."),
        ("timezone", "Mars/Phobos", "Please choose a time zone of the list, such as America/New_York."),
        ("duration_minutes", "3", "Please enter a whole number from 5 to 480."),
    ] {
        let mut wrong = moved;
        wrong.iter_mut().find(|(name, _)| *name == field).unwrap().1 = value;
        let answer = otto.get(&change).await;
        let refused = otto.submit(&answer, &change, &wrong).await;
        assert_eq!(refused.status, 400);
        assert_eq!(Page::of(&refused).error_of(field), words);
        assert_eq!(Page::of(&refused).one(&format!("#{field}")).attribute("value"), Some(value));
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn without_a_script_a_button_shows_the_preview_in_the_page_and_changes_nothing() {
    let app = TestApp::start().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let change = "/dashboard/interviews/502/change/";
    let page = otto.get(change).await;
    let checked = otto
        .submit(
            &page,
            change,
            &[
                ("date", "2026-12-02"),
                ("time", "10:00"),
                ("timezone", "UTC"),
                ("duration_minutes", "30"),
                ("check", "1"),
            ],
        )
        .await;
    assert_eq!(Page::of(&checked).one("[data-preview]").text(), "Wed 2 Dec 2026, 10:00–10:30 UTC");
    assert_eq!(app.row(502).await["date"], "2030-01-16");
}

#[tokio::test]
async fn a_form_whose_interview_has_changed_since_changes_nothing() {
    let app = TestApp::start().await;
    let id = app.user(OTTO).phone().await;
    let change = format!("/dashboard/interviews/{id}/change/");
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = otto.get(&change).await;
    assert_eq!(app.user(OTTO).change(id, json!({"time": "16:00"})).await.status, 200);
    let old = [
        ("date", "2030-01-16"),
        ("time", "10:00"),
        ("timezone", "Asia/Tokyo"),
        ("duration_minutes", "60"),
        ("interview_type", "phone"),
        ("location", ""),
        ("note", "new"),
    ];
    let refused = otto.submit(&page, &change, &old).await;
    assert_eq!(refused.status, 409);
    let shown = Page::of(&refused);
    assert!(shown.one(".note.bad").text().contains("has been changed since this page was opened"));
    assert_eq!(shown.one("#time").attribute("value"), Some("16:00"));
    assert_eq!(shown.one("#typed").raw_text(), "new");
    // Nor does a page that says another time cancel it.
    let cancel = format!("/dashboard/interviews/{id}/cancel/");
    let page = otto.get(&cancel).await;
    app.pass_a_minute().await;
    assert_eq!(app.user(OTTO).change(id, json!({"time": "17:00"})).await.status, 200);
    let refused = otto.submit(&page, &cancel, &[("reason", "")]).await;
    assert!(refused.status == 409 && Page::of(&refused).text().contains("17:00–18:00"), "{refused:?}");
    let row = app.row(id).await;
    assert_eq!(
        (&row["time"], &row["ical_sequence"], &row["cancelled_at"]),
        (&json!("17:00:00"), &json!(2), &json!(null))
    );
    app.pass_a_minute().await;
    // The same form once more, when its answer was lost: it is done already.
    let page = otto.get(&change).await;
    let same = old.map(|(name, value)| (name, if name == "time" { "18:00" } else { value }));
    for done in ["/dashboard/?done=changed", "/dashboard/?done=changed-before"] {
        assert_eq!(otto.submit(&page, &change, &same).await.header("location"), Some(done));
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn what_speaks_against_a_new_time_is_shown_before_it_is_changed() {
    let app = TestApp::start().await;
    let id = app.user(OTTO).phone().await;
    let change = format!("/dashboard/interviews/{id}/change/");
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = otto.get(&change).await;
    let past = [
        ("date", "2026-11-20"),
        ("time", "10:00"),
        ("timezone", "Asia/Tokyo"),
        ("duration_minutes", "60"),
        ("interview_type", "phone"),
        ("location", ""),
        ("note", ""),
    ];
    let asked = otto.submit(&page, &change, &past).await;
    assert!(Page::of(&asked).one("[data-preview]").text().contains("is in the past"), "{asked:?}");
    assert_eq!(app.row(id).await["date"], "2030-01-16");
    assert_eq!(otto.submit(&asked, &change, &past).await.header("location"), Some("/dashboard/?done=changed"));
    assert_eq!(app.row(id).await["date"], "2026-11-20");
    app.run_jobs().await;
}

#[tokio::test]
async fn a_row_of_djangos_whose_zone_is_none_can_be_moved_without_naming_one() {
    let app = TestApp::start().await;
    app.execute(
        "UPDATE company_interview SET recruiter_id = 102, google_event_id = NULL, date = '2030-01-01' WHERE id = 503",
    )
    .await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let change = "/dashboard/interviews/503/change/";
    let page = otto.get(change).await;
    assert_eq!(Page::of(&page).one("#timezone").attribute("value"), Some("Mars/Phobos"));
    let fields = [
        ("date", "2030-01-02"),
        ("time", "10:00"),
        ("timezone", "Mars/Phobos"),
        ("duration_minutes", "60"),
        ("interview_type", "custom"),
        ("location", ""),
        ("note", ""),
    ];
    assert_eq!(otto.submit(&page, change, &fields).await.header("location"), Some("/dashboard/?done=changed"));
    assert_eq!(app.row(503).await["date"], "2030-01-02");
    app.run_jobs().await;
}

#[tokio::test]
async fn an_interview_is_cancelled_with_a_reason() {
    let app = TestApp::start().await;
    let id = app.user(OTTO).phone().await;
    app.mails(2).await;
    app.mailbox.clear();
    let cancel = format!("/dashboard/interviews/{id}/cancel/");
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = otto.get(&cancel).await;
    assert!(
        Page::of(&page).text().contains("Analyst, Wed 16 Jan 2030, 10:00–11:00 in Tokyo (UTC+9)."),
        "{}",
        page.text
    );
    let long = "r".repeat(1001);
    let refused = otto.submit(&page, &cancel, &[("reason", &long)]).await;
    assert_eq!(
        (refused.status.as_u16(), Page::of(&refused).error_of("reason")),
        (400, "Please use at most 1000 characters.".into())
    );
    assert_eq!(Page::of(&refused).one("#reason").raw_text(), long);
    assert!(app.row(id).await["cancelled_at"].is_null());

    // As many characters as the browser allows, with lines that it ends with two.
    let reason = "r\r\n".repeat(500);
    let sent = otto.submit(&page, &cancel, &[("reason", &reason)]).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, Some("/dashboard/?done=cancelled")));
    assert_eq!(app.row(id).await["cancellation_reason"], "r\n".repeat(500));
    assert!(app.mails(2).await.iter().all(|mail| mail.subject().starts_with("Interview Cancelled")));

    let twice = otto.submit(&page, &cancel, &[("reason", "other")]).await;
    assert_eq!(twice.header("location"), Some("/dashboard/?done=cancelled-before"));
    assert_eq!(app.row(id).await["ical_sequence"], 1);
    assert!(otto.get(&cancel).await.text.contains("This interview is cancelled"));
    let change = otto.get(&format!("/dashboard/interviews/{id}/change/")).await;
    assert!(
        change.text.contains("has been cancelled") && !change.text.contains("Save and tell both"),
        "{}",
        change.text
    );
    app.run_jobs().await;
}
