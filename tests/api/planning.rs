//! Scheduling, rescheduling and cancelling on the portal's pages.

use serde_json::{Value, json};

use crate::support::{browser::Browser, page::Page, *};

const SCHEDULE: &str = "/dashboard/schedule/";

/// What Otto types to invite Carl.
const FIELDS: [(&str, &str); 8] = [
    ("candidate_id", "201"),
    ("date", "2026-12-01"),
    ("time", "09:00"),
    ("timezone", "America/Vancouver"),
    ("duration_minutes", "60"),
    ("interview_type", "phone"),
    ("location", "+1 604 000"),
    ("note", "one\r\ntwo"),
];

fn with<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    FIELDS.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name)).chain(changes).copied().collect()
}

async fn execute(app: &TestApp, sql: &'static str) {
    sqlx::query(sql).execute(app.db()).await.unwrap();
}

/// The form for a job.
async fn form(browser: &mut Browser<'_>, job: i64) -> Answer {
    let page = browser.get(&format!("{SCHEDULE}?job={job}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page
}

/// The id of the one interview that the fixture has not made.
async fn made(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT id FROM company_interview WHERE id > 1000").fetch_one(app.db()).await.unwrap()
}

/// What a page says beside a field.
fn error_of(page: &Page, field: &str) -> String {
    let field = page.one(&format!("[name={field}]"));
    assert_eq!(field.attribute("aria-invalid"), Some("true"));
    let described = field.attribute("aria-describedby").unwrap();
    let error = described.split(' ').find(|id| id.ends_with("-error")).unwrap();
    page.one(&format!("#{error}")).text()
}

#[tokio::test]
async fn an_interview_is_scheduled_by_choosing_a_job_and_one_of_its_people() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let mut rita = Browser::of(&app, "rita@x.test").await;
    let page = Page::of(&rita.get(SCHEDULE).await);
    assert_eq!(page.one("main li").text(), "Software Engineer");
    let answer = rita.get(page.one("main li a").attribute("href").unwrap()).await;
    let page = Page::of(&answer);
    let people: Vec<_> = page.all("#candidate_id option").iter().map(|option| option.text()).collect();
    assert_eq!(people, ["Choose a person", "Carl Candy (carl@x.test)"]);
    assert_eq!(page.one("[name=interview_type][checked]").attribute("value"), Some("google_meet"));
    assert!(page.all("#zones option").len() > 500, "every zone can be searched");
    assert_eq!(page.one("#timezone").attribute("list"), Some("zones"));

    let sent = rita.submit(&answer, SCHEDULE, &with(&[("interview_type", "google_meet")])).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, Some("/dashboard/?done=scheduled")), "{sent:?}");
    let row = app.row(made(&app).await).await;
    let expected = json!({"candidate_id": CARL, "recruiter_id": RITA, "job_id": 21, "date": "2026-12-01",
        "time": "09:00:00", "timezone": "America/Vancouver", "duration_minutes": 60, "note": "one\ntwo",
        "location": "+1 604 000", "starts_at": "2026-12-01T16:00:00+00:00"});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
    app.assert_agree(made(&app).await).await;
    let mut told: Vec<_> = app.mails(2).await.iter().map(|mail| mail.to().join(",")).collect();
    told.sort();
    assert_eq!(told, ["carl@x.test", "rita@x.test"]);
    let page = rita.get("/dashboard/?done=scheduled").await;
    let shown = Page::of(&page).text();
    for words in [
        "The interview is scheduled, and both of you are invited.",
        "Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)",
        "Mail to candidate: sent",
    ] {
        assert!(shown.contains(words), "{words} is missing in {shown}");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn each_field_is_refused_beside_itself_and_what_was_typed_is_kept() {
    let app = TestApp::start().await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let page = form(&mut otto, 22).await;
    let (long_note, long_place) = ("n".repeat(5001), "p".repeat(256));
    for (field, values, words) in [
        ("candidate_id", vec!["", "x"], "Please choose a person."),
        ("candidate_id", vec!["202"], "This candidate has not applied to this job."),
        ("candidate_id", vec!["203", "999"], "This person cannot be invited any more."),
        ("candidate_id", vec!["102"], "You cannot schedule an interview with yourself."),
        ("date", vec!["", "2027-02-30", "tomorrow"], "Please enter a date, such as 2030-02-01."),
        ("time", vec!["", "25:00", "9 am"], "Please enter a time, such as 14:00."),
        (
            "timezone",
            vec!["", "Mars/Phobos", "america/vancouver"],
            "Please choose a time zone of the list, such as America/New_York.",
        ),
        ("duration_minutes", vec!["", "4", "481", "1.5"], "Please enter a whole number from 5 to 480."),
        ("location", vec![&*long_place], "Please use at most 255 characters."),
        ("note", vec![&*long_note], "Please use at most 5000 characters."),
    ] {
        for value in values {
            let answer = otto.submit(&page, SCHEDULE, &with(&[(field, value)])).await;
            assert!(answer.status.is_client_error(), "{field} {value}: {answer:?}");
            let shown = Page::of(&answer);
            assert_eq!(error_of(&shown, field), words, "{field} {value}");
            assert_eq!(shown.all("[aria-invalid=true]").len(), 1, "{field} {value}");
            let typed = [("date", "#date"), ("time", "#time"), ("timezone", "#timezone"), ("location", "#location")];
            for (name, input) in typed.into_iter().filter(|(name, _)| *name != field) {
                let expected = FIELDS.iter().find(|(known, _)| *known == name).unwrap().1;
                assert_eq!(shown.one(input).attribute("value"), Some(expected), "{field} {value}");
            }
            if field == "timezone" {
                assert_eq!(shown.one("#timezone").attribute("value"), Some(value));
            }
            if field != "note" {
                assert_eq!(shown.one("#note").raw_text(), "one\ntwo");
            }
            assert_eq!(shown.one("[name=interview_type][checked]").attribute("value"), Some("phone"));
            if field != "candidate_id" {
                assert_eq!(shown.one("option[selected]").attribute("value"), Some("201"));
            }
        }
    }
    // Several at once; and a type that was not chosen.
    let several = with(&[("date", ""), ("timezone", "x"), ("interview_type", "")]);
    let shown = Page::of(&otto.submit(&page, SCHEDULE, &several).await);
    assert_eq!(shown.all("[aria-invalid=true]").len(), 2);
    assert_eq!(shown.one("#type-error").text(), "Please choose how you meet.");
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 0);
    assert!(app.mailbox.mails().is_empty());
}

#[tokio::test]
async fn what_google_refuses_is_said_and_the_same_form_works_afterwards() {
    let app = TestApp::start().await;
    let mut rita = Browser::of(&app, "rita@x.test").await;
    let page = form(&mut rita, 21).await;
    let fields = with(&[("interview_type", "google_meet")]);
    let refused = rita.submit(&page, SCHEDULE, &fields).await;
    assert_eq!(refused.status, 401);
    assert!(Page::of(&refused).one("#type-error").text().starts_with("Google Calendar is not connected."));
    app.connected(RITA).await;
    app.fault(interviews::dev::google::Call::Insert, 1, interviews::dev::google::FaultKind::status(400));
    let refused = rita.submit(&refused, SCHEDULE, &fields).await;
    assert_eq!(refused.status, 502);
    assert!(Page::of(&refused).one(".note.bad").text().contains("Google Calendar is unavailable"));
    let sent = rita.submit(&refused, SCHEDULE, &fields).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 1);
    app.sweep().await;
    app.run_jobs().await;
}

#[tokio::test]
async fn a_form_that_is_sent_twice_at_once_makes_one_interview() {
    let app = TestApp::start().await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let page = form(&mut otto, 22).await;
    let mut other = Browser::new(&app);
    other.cookies = otto.cookies.clone();
    let fields = with(&[]);
    let (one, two) = tokio::join!(otto.submit(&page, SCHEDULE, &fields), other.submit(&page, SCHEDULE, &fields));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort();
    assert!(matches!(statuses, [303, 303] | [303, 409]), "{one:?} {two:?}");
    let again = otto.submit(&page, SCHEDULE, &fields).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (303, Some("/dashboard/?done=scheduled")));
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 1);
    assert_eq!(app.mails(2).await.len(), 2);

    // Gone back and changed: that is another interview, and only meant if it is sent once more.
    let moved = with(&[("time", "15:00")]);
    let asked = otto.submit(&page, SCHEDULE, &moved).await;
    assert_eq!(asked.status, 422);
    assert!(Page::of(&asked).one(".note.bad").text().contains("Send the form again"));
    assert_eq!(otto.submit(&asked, SCHEDULE, &moved).await.status, 303);
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 2);
    app.run_jobs().await;
}

#[tokio::test]
async fn the_preview_says_what_the_time_means_and_what_speaks_against_it() {
    let app = TestApp::start().await;
    execute(&app, "UPDATE company_interview SET date = '2026-12-01', time = '09:30', timezone = 'America/Vancouver' WHERE id = 502").await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let base = "/dashboard/schedule/preview/?candidate_id=201&duration_minutes=60";
    for (when, line, start, warnings) in [
        (
            "date=2026-12-01&time=08:00&timezone=America/Vancouver",
            "Tue 1 Dec 2026, 08:00–09:00 in Vancouver (UTC−7)",
            "2026-12-01T15:00:00+00:00",
            json!([]),
        ),
        (
            "date=2026-12-01&time=09:00&timezone=America/Vancouver",
            "Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)",
            "2026-12-01T16:00:00+00:00",
            json!(["Carl Candy already has an interview at this time.", "You already have an interview at this time."]),
        ),
        (
            "date=2026-11-20&time=11:00&timezone=UTC",
            "Fri 20 Nov 2026, 11:00–12:00 UTC",
            "2026-11-20T11:00:00+00:00",
            json!(["The interview time is in the past."]),
        ),
        (
            "date=2027-03-14&time=02:30&timezone=America/New_York",
            "Sun 14 Mar 2027, 03:30–04:30 in New York (UTC−4)",
            "2027-03-14T07:30:00+00:00",
            json!(["02:30 does not exist on 2027-03-14 in America/New_York; the interview starts at 03:30."]),
        ),
        (
            "date=2027-11-07&time=01:30&timezone=America/New_York",
            "Sun 7 Nov 2027, 01:30–01:30 in New York (UTC−4, then UTC−5)",
            "2027-11-07T05:30:00+00:00",
            json!(["01:30 happens twice on 2027-11-07 in America/New_York; the first one is used."]),
        ),
        (
            "date=2027-01-15&time=23:30&timezone=Asia/Kolkata",
            "Fri 15 Jan 2027, 23:30–00:30 (+1 day) in Kolkata (UTC+5:30)",
            "2027-01-15T18:00:00+00:00",
            json!([]),
        ),
    ] {
        let said = otto.fetch(&format!("{base}&{when}")).await;
        let day = when.split(['=', '&']).nth(1).unwrap();
        said.assert(200, json!({"line": line, "start": start, "day": day, "warnings": warnings}));
    }
    // The interview that is to be moved does not stand in its own way.
    let moved =
        otto.fetch(&format!("{base}&interview_id=502&date=2026-12-01&time=09:00&timezone=America/Vancouver")).await;
    assert_eq!(moved.json()["warnings"], json!([]));
    for (when, error) in [
        (
            "date=2026-12-01&time=09:00&timezone=Mars/Phobos",
            "Please choose a time zone of the list, such as America/New_York.",
        ),
        ("date=2026-12-01&time=9am&timezone=UTC", "Please enter a time, such as 14:00."),
        ("date=9999-12-31&time=23:30&timezone=UTC", "Invalid date. Use YYYY-MM-DD."),
    ] {
        otto.fetch(&format!("{base}&{when}")).await.assert(400, json!({ "error": error }));
    }
    // Who has nothing to do with a person learns nothing of him.
    let mut rita = Browser::of(&app, "rita@x.test").await;
    execute(&app, "DELETE FROM job_application").await;
    let said = rita.fetch(&format!("{base}&date=2026-12-01&time=09:00&timezone=America/Vancouver")).await;
    assert_eq!(said.json()["warnings"], json!([]));
    assert_eq!(Browser::new(&app).fetch(&format!("{base}&date=2026-12-01&time=09:00&timezone=UTC")).await.status, 401);
}

#[tokio::test]
async fn without_a_script_a_button_shows_the_preview_in_the_page_and_schedules_nothing() {
    let app = TestApp::start().await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let page = form(&mut otto, 22).await;
    let fields = with(&[("date", "2026-11-20"), ("time", "01:00"), ("check", "1")]);
    let checked = otto.submit(&page, SCHEDULE, &fields).await;
    assert_eq!(checked.status, 200);
    let preview = Page::of(&checked);
    let preview: Vec<_> = preview.all("[data-preview] p").iter().map(|line| line.text()).collect();
    assert_eq!(
        preview,
        ["Fri 20 Nov 2026, 01:00–02:00 in Vancouver (UTC−7)", "Please note The interview time is in the past."]
    );
    let wrong = otto.submit(&page, SCHEDULE, &with(&[("timezone", "x"), ("check", "1")])).await;
    assert_eq!((wrong.status.as_u16(), Page::of(&wrong).all("#timezone-error").len()), (400, 1));
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 0);
    assert_eq!(otto.submit(&checked, SCHEDULE, &with(&[])).await.status, 303);
    app.run_jobs().await;

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
async fn an_interview_is_rescheduled_and_only_what_differs_is_changed() {
    let app = TestApp::start().await;
    let id = app.user(OTTO).phone().await;
    execute(&app, "UPDATE company_interview SET note = E'one\ntwo' WHERE id > 1000").await;
    app.mails(2).await;
    app.mailbox.clear();
    let change = format!("/dashboard/interviews/{id}/change/");
    let mut otto = Browser::of(&app, "otto@x.test").await;
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
        let refused = otto.submit(&answer, &change, &wrong).await;
        assert_eq!(refused.status, 400);
        assert_eq!(error_of(&Page::of(&refused), field), words);
        assert_eq!(Page::of(&refused).one(&format!("#{field}")).attribute("value"), Some(value));
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn a_row_of_djangos_whose_zone_is_none_can_be_moved_without_naming_one() {
    let app = TestApp::start().await;
    execute(
        &app,
        "UPDATE company_interview SET recruiter_id = 102, google_event_id = NULL, date = '2030-01-01' WHERE id = 503",
    )
    .await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
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
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let page = otto.get(&cancel).await;
    assert!(
        Page::of(&page).text().contains("Analyst, Wed 16 Jan 2030, 10:00–11:00 in Tokyo (UTC+9)."),
        "{}",
        page.text
    );
    let long = "r".repeat(1001);
    let refused = otto.submit(&page, &cancel, &[("reason", &long)]).await;
    assert_eq!(
        (refused.status.as_u16(), error_of(&Page::of(&refused), "reason")),
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
    assert_eq!(twice.header("location"), Some("/dashboard/?done=unchanged"));
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

/// Every form of the recruiter's pages: where it is sent, and where one is signed in again.
const FORMS: [&str; 6] = [
    "/dashboard/google/connect/",
    "/dashboard/google/disconnect/",
    "/dashboard/mails/00000000-0000-0000-0000-000000000001/resend/",
    "/dashboard/schedule/",
    "/dashboard/interviews/502/change/",
    "/dashboard/interviews/502/cancel/",
];

#[tokio::test]
async fn forms_of_other_sites_and_of_other_sessions_change_nothing() {
    let app = TestApp::start().await;
    app.connected(OTTO).await;
    let grants = app.count("company_googlecredentials").await;
    execute(
        &app,
        "INSERT INTO ivs_mail (id, kind, interview_id, user_id, sequence, state, created_at)
         VALUES ('00000000-0000-0000-0000-000000000001', 'scheduled', 502, 201, 0, 'refused', now())",
    )
    .await;
    let (row, states) = (app.row(502).await, app.count("company_oauthstate").await);
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let mut elsewhere = Browser::of(&app, "otto@x.test").await;
    let page = elsewhere.get("/dashboard/").await;
    let others = Page::of(&page).one("input[name=form_token]").attribute("value").unwrap().to_owned();
    let mut fields = with(&[("job_id", "22"), ("key", "k"), ("reason", "r")]);
    for path in FORMS {
        for token in ["", "made-up", &others] {
            fields.push(("form_token", token));
            let refused = otto.post(path, &fields).await;
            assert_eq!(refused.status, 403, "{path} {token}");
            assert!(Page::of(&refused).text().contains("Nothing was changed"), "{path}");
            fields.pop();
        }
        assert_eq!(otto.post(path, &fields).await.status, 403, "{path} without a token");
        let nobody = Browser::new(&app).post(path, &fields).await;
        assert!(
            nobody.status == 303 && nobody.header("location").unwrap().starts_with("/login/?next=/dashboard/"),
            "{path}"
        );
    }
    assert_eq!(app.row(502).await, row);
    let after = [
        app.count("company_googlecredentials").await,
        app.count("company_oauthstate").await,
        app.count("ivs_mail WHERE state = 'refused'").await,
        app.count("company_interview").await,
    ];
    assert_eq!(after, [grants, states, 1, 3]);
    app.run_jobs().await;
}

#[tokio::test]
async fn interviews_and_jobs_of_other_recruiters_do_not_exist() {
    let app = TestApp::start().await;
    let mut rita = Browser::of(&app, "rita@x.test").await;
    let page = rita.get("/dashboard/").await;
    let token = Page::of(&page).one("input[name=form_token]").attribute("value").unwrap().to_owned();
    let fields = with(&[("form_token", &token), ("job_id", "22"), ("key", "k")]);
    for id in ["502", "503", "999", "99999999999999999999"] {
        for verb in ["change", "cancel"] {
            let path = format!("/dashboard/interviews/{id}/{verb}/");
            assert_eq!(rita.get(&path).await.status, 404, "{path}");
            assert_eq!(rita.post(&path, &fields).await.status, 404, "{path}");
        }
    }
    for job in ["22", "999", "x", "99999999999999999999"] {
        assert_eq!(rita.get(&format!("{SCHEDULE}?job={job}")).await.status, 404, "{job}");
    }
    assert_eq!(rita.post(SCHEDULE, &fields).await.status, 404);
    // Neither do candidates, or recruiters without a company, schedule.
    for (email, home) in [("carl@x.test", "/dashboard/jobseeker/"), ("nora@x.test", "/dashboard/")] {
        let mut browser = Browser::of(&app, email).await;
        let page = browser.get(home).await;
        let token = Page::of(&page).one("input[name=form_token]").attribute("value").unwrap().to_owned();
        assert_eq!(browser.get(SCHEDULE).await.header("location"), Some("/dashboard/"));
        let sent = browser.post(SCHEDULE, &with(&[("form_token", &token), ("job_id", "21"), ("key", "k")])).await;
        assert_eq!(sent.header("location"), Some("/dashboard/"), "{email}");
    }
    assert_eq!(app.count("company_interview").await, 3);
}

#[tokio::test]
async fn each_page_of_planning_takes_one_query_besides_the_session() {
    let app = TestApp::start().await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    for path in [
        SCHEDULE,
        "/dashboard/schedule/?job=22",
        "/dashboard/interviews/502/change/",
        "/dashboard/interviews/502/cancel/",
    ] {
        let (page, statements) = counting_statements(otto.get(path)).await;
        assert_eq!((page.status.as_u16(), statements), (200, 2), "{path}");
    }
}

#[tokio::test]
async fn who_is_shortlisted_stands_first_and_who_left_or_schedules_does_not_stand_there() {
    let app = TestApp::start().await;
    execute(&app, "INSERT INTO job_application SELECT (jsonb_populate_record(a, jsonb_build_object('id', 900 + u, 'user_id', u, 'job_id', 22))).*
         FROM job_application a, unnest(ARRAY[101, 102, 202, 203]) u").await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let page = Page::of(&form(&mut otto, 22).await);
    let people: Vec<_> = page.all("#candidate_id option").iter().map(|option| option.text()).collect();
    assert_eq!(
        people,
        ["Choose a person", "Carl Candy (carl@x.test), shortlisted", "dana@x.test", "Rita Recruit (rita@x.test)"]
    );
    execute(&app, "DELETE FROM job_application").await;
    execute(&app, "DELETE FROM job_shortlist").await;
    assert!(Page::of(&form(&mut otto, 22).await).text().contains("Nobody has applied for this job yet"));
    let jobs = |page: &Answer| Page::of(page).all("main li a").len();
    let insert = "INSERT INTO job_job SELECT (jsonb_populate_record(j, jsonb_build_object('id', 900 + n))).*
         FROM job_job j, generate_series(1, 199) n WHERE j.id = 22";
    execute(&app, insert).await;
    let page = otto.get(SCHEDULE).await;
    assert_eq!((jobs(&page), page.text.contains("more jobs than stand here")), (200, false));
    execute(
        &app,
        "INSERT INTO job_job SELECT (jsonb_populate_record(j, '{\"id\": 2000}')).* FROM job_job j WHERE id = 22",
    )
    .await;
    let page = otto.get(SCHEDULE).await;
    assert_eq!((jobs(&page), page.text.contains("more jobs than stand here")), (200, true));
    execute(&app, "DELETE FROM company_interview").await;
    execute(&app, "DELETE FROM job_job").await;
    assert!(otto.get(SCHEDULE).await.text.contains("no jobs yet"));
}

/// What people may be called, and write.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "<script>alert(1)</script>",
        "</textarea></option></select></title><script src=//evil.test></script>",
        "\"><img src=x onerror=alert(1)>",
        "' onfocus='alert(1)' autofocus='",
        "&lt;b&gt; &amp;amp; <b>&quot;\"",
        "\u{202e}txet desrever\u{202c} \u{200f}שלום \u{2067}x",
        "-->]]>{{ 7*7 }}{% raw %}${x}`",
    ]
    .map(String::from)
    .into();
    texts.push("ü".repeat(255));
    texts.push("<".repeat(255));
    texts.push(format!("{}\"", "W".repeat(254)));
    texts
}

#[tokio::test]
async fn hostile_texts_are_text_on_every_page() {
    let app = TestApp::start().await;
    let mut otto = Browser::of(&app, "otto@x.test").await;
    let texts = hostile();
    for round in 0..100 {
        let text = &texts[round % texts.len()];
        // Django's limits.
        let (name, hundred): (String, String) = (text.chars().take(50).collect(), text.chars().take(100).collect());
        sqlx::query("UPDATE users_user SET first_name = $1, last_name = '' WHERE id IN (201, 102)")
            .bind(&name)
            .execute(app.db())
            .await
            .unwrap();
        sqlx::query("UPDATE company_company SET name = $1").bind(&hundred).execute(app.db()).await.unwrap();
        sqlx::query("UPDATE job_job SET title = $1").bind(&hundred).execute(app.db()).await.unwrap();
        sqlx::query("UPDATE company_interview SET job_title = $1, note = $1, location = $1, cancellation_reason = $1 WHERE id = 502").bind(text).execute(app.db()).await.unwrap();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (text_words, name_words, hundred_words) = (words(text), words(&name), words(&hundred));

        let page = Page::of(&otto.get("/dashboard/").await);
        assert_eq!(page.one("article h3").text(), text_words);
        let isolated: Vec<_> = page.all("article bdi").iter().map(|bdi| bdi.text()).collect();
        assert_eq!(isolated, [&*name_words, &hundred_words, &text_words]);
        let page = Page::of(&otto.get(SCHEDULE).await);
        assert_eq!(page.one("main li bdi").text(), hundred_words);
        let page = Page::of(&otto.get("/dashboard/schedule/?job=22").await);
        assert_eq!(page.one("h1 + p bdi").text(), hundred_words);
        assert!(page.all("#candidate_id option")[1].text().starts_with(&name_words));
        let page = Page::of(&otto.get("/dashboard/interviews/502/change/").await);
        assert_eq!((page.one("h1 bdi").text(), page.one("#note").raw_text()), (name_words.clone(), text.clone()));
        assert_eq!(page.one("#location").attribute("value"), Some(&**text));
        let page = Page::of(&otto.get("/dashboard/interviews/502/cancel/").await);
        assert_eq!((page.one("h1 bdi").text(), page.one("h1 + p bdi").text()), (name_words, text_words));
        // What was typed comes back as it was.
        let page = otto.get("/dashboard/schedule/?job=22").await;
        let typed = [("timezone", &**text), ("date", text), ("location", text), ("note", text)];
        let page = Page::of(&otto.submit(&page, SCHEDULE, &with(&typed)).await);
        assert_eq!(page.one("#timezone").attribute("value"), Some(&**text));
        assert_eq!(page.one("#date").attribute("value"), Some(&**text));
        assert_eq!(page.one("#note").raw_text(), *text);
        let cancel = "/dashboard/interviews/502/cancel/";
        let page = otto.get(cancel).await;
        let reason = format!("{text}{}", "x".repeat(1000));
        let page = Page::of(&otto.submit(&page, cancel, &[("reason", &reason)]).await);
        assert_eq!(page.one("#reason").raw_text(), reason);
    }
}
