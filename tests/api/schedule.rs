//! The pages on which a recruiter schedules an interview.

use serde_json::json;

use crate::support::{cookie_client::CookieClient, page::Page, *};

pub const SCHEDULE: &str = "/dashboard/schedule/";

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

/// The same with some fields otherwise, or more of them.
pub fn with<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    FIELDS.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name)).chain(changes).copied().collect()
}

/// The form for a job.
async fn form(browser: &mut CookieClient<'_>, job: i64) -> Answer {
    let page = browser.get(&format!("{SCHEDULE}?job={job}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page
}

/// The id of the one interview that the fixture has not made.
async fn made(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT id FROM company_interview WHERE id > 1000").fetch_one(app.db()).await.unwrap()
}

#[tokio::test]
async fn an_interview_is_scheduled_by_choosing_a_job_and_one_of_its_people() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
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
        "The interview is scheduled; the invitations to both of you are on their way.",
        "Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)",
        "Mail to candidate: sent",
    ] {
        assert!(shown.contains(words), "{words} is missing in {shown}");
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn who_is_shortlisted_stands_first_and_who_left_or_schedules_does_not_stand_there() {
    let app = TestApp::start().await;
    app.execute("INSERT INTO job_application SELECT (jsonb_populate_record(a, jsonb_build_object('id', 900 + u, 'user_id', u, 'job_id', 22))).*
         FROM job_application a, unnest(ARRAY[101, 102, 202, 203]) u").await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = Page::of(&form(&mut otto, 22).await);
    let people: Vec<_> = page.all("#candidate_id option").iter().map(|option| option.text()).collect();
    assert_eq!(
        people,
        ["Choose a person", "Carl Candy (carl@x.test), shortlisted", "dana@x.test", "Rita Recruit (rita@x.test)"]
    );
    app.execute("DELETE FROM job_application").await;
    app.execute("DELETE FROM job_shortlist").await;
    assert!(Page::of(&form(&mut otto, 22).await).text().contains("Nobody has applied for this job yet"));
    let jobs = |page: &Answer| Page::of(page).all("main li a").len();
    app.execute(
        "INSERT INTO job_job SELECT (jsonb_populate_record(j, jsonb_build_object('id', 900 + n))).*
         FROM job_job j, generate_series(1, 199) n WHERE j.id = 22",
    )
    .await;
    let page = otto.get(SCHEDULE).await;
    assert_eq!((jobs(&page), page.text.contains("more jobs than are shown")), (200, false));
    app.execute(
        "INSERT INTO job_job SELECT (jsonb_populate_record(j, '{\"id\": 2000}')).* FROM job_job j WHERE id = 22",
    )
    .await;
    let page = otto.get(SCHEDULE).await;
    assert_eq!((jobs(&page), page.text.contains("more jobs than are shown")), (200, true));
    app.execute("DELETE FROM company_interview").await;
    app.execute("DELETE FROM job_job").await;
    assert!(otto.get(SCHEDULE).await.text.contains("no jobs yet"));
}

#[tokio::test]
async fn each_field_is_refused_beside_itself_and_what_was_typed_is_kept() {
    let app = TestApp::start().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
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
            assert_eq!(shown.error_of(field), words, "{field} {value}");
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
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
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
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = form(&mut otto, 22).await;
    let mut other = CookieClient::new(&app);
    other.cookies = otto.cookies.clone();
    let fields = with(&[]);
    let (one, two) = tokio::join!(otto.submit(&page, SCHEDULE, &fields), other.submit(&page, SCHEDULE, &fields));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort();
    assert!(matches!(statuses, [303, 303] | [303, 409]), "{one:?} {two:?}");
    let again = otto.submit(&page, SCHEDULE, &fields).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (303, Some("/dashboard/?done=scheduled-before")));
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

/// What the preview says, line by line.
async fn said(browser: &mut CookieClient<'_>, path: &str) -> Vec<String> {
    let mut answer = browser.fetch(path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // A part of a page.
    answer.text = format!("<!doctype html><html lang=\"en\"><title>x</title>{}", answer.text);
    let lines = Page::of(&answer).all("[data-preview] p").iter().map(|line| line.text()).collect::<Vec<_>>();
    lines.iter().map(|line| line.strip_prefix("Please note ").unwrap_or(line).to_owned()).collect()
}

#[tokio::test]
async fn what_speaks_against_a_form_is_shown_before_anything_is_made() {
    let app = TestApp::start().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = form(&mut otto, 22).await;
    let past = with(&[("date", "2026-11-20"), ("time", "01:00")]);
    let asked = otto.submit(&page, SCHEDULE, &past).await;
    assert_eq!(asked.status, 200);
    let words = Page::of(&asked).one("[data-preview]").text();
    assert!(words.contains("is in the past") && words.contains("Nothing has been done yet."), "{words}");
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 0);
    // Another warning than the one that was seen is shown, too.
    let twice = with(&[("date", "2026-11-01"), ("time", "01:30"), ("timezone", "America/New_York")]);
    let asked_again = otto.submit(&asked, SCHEDULE, &twice).await;
    assert!(Page::of(&asked_again).one("[data-preview]").text().contains("happens twice"));
    assert_eq!(otto.submit(&asked, SCHEDULE, &past).await.header("location"), Some("/dashboard/?done=scheduled"));
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 1);

    // A form that was filled in anew because an answer was lost does not make a second interview unasked.
    let other = form(&mut otto, 22).await;
    let asked = otto.submit(&other, SCHEDULE, &past).await;
    assert!(Page::of(&asked).one("[data-preview]").text().contains("You already have an interview at this time."));
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 1);
    app.run_jobs().await;
}

#[tokio::test]
async fn the_preview_says_what_the_time_means_and_what_speaks_against_it() {
    let app = TestApp::start().await;
    app.execute("UPDATE company_interview SET date = '2026-12-01', time = '09:30', timezone = 'America/Vancouver' WHERE id = 502").await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let base = "/dashboard/schedule/preview/?candidate_id=201&duration_minutes=60";
    for (when, line, warnings) in [
        (
            "date=2026-12-01&time=08:00&timezone=America/Vancouver",
            "Tue 1 Dec 2026, 08:00–09:00 in Vancouver (UTC−7)",
            vec![],
        ),
        (
            "date=2026-12-01&time=09:00&timezone=America/Vancouver",
            "Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)",
            vec!["Carl Candy already has an interview at this time.", "You already have an interview at this time."],
        ),
        (
            "date=2026-11-20&time=11:00&timezone=UTC",
            "Fri 20 Nov 2026, 11:00–12:00 UTC",
            vec!["The interview time is in the past."],
        ),
        (
            "date=2027-03-14&time=02:30&timezone=America/New_York",
            "Sun 14 Mar 2027, 03:30–04:30 in New York (UTC−4)",
            vec!["02:30 does not exist on 2027-03-14 in America/New_York; the interview starts at 03:30."],
        ),
        (
            "date=2027-11-07&time=01:30&timezone=America/New_York",
            "Sun 7 Nov 2027, 01:30–01:30 in New York (UTC−4, then UTC−5)",
            vec!["01:30 happens twice on 2027-11-07 in America/New_York; the first one is used."],
        ),
        (
            "date=2027-01-15&time=23:30&timezone=Asia/Kolkata",
            "Fri 15 Jan 2027, 23:30–00:30 (+1 day) in Kolkata (UTC+5:30)",
            vec![],
        ),
    ] {
        assert_eq!(said(&mut otto, &format!("{base}&{when}")).await, [vec![line], warnings].concat());
    }
    // And for a reader elsewhere, by the rules of this server, not of the browser.
    for (reader, own) in [
        ("Europe/Berlin", ", 16:00 your time"),
        ("Asia/Tokyo", ", Wed 2 Dec, 00:00 your time"),
        ("America/Edmonton", ", 09:00 your time"),
        ("America/Vancouver", ""),
        ("Mars/Phobos", ""),
    ] {
        let when = "date=2026-12-01&time=08:00&timezone=America/Vancouver";
        let line = said(&mut otto, &format!("{base}&{when}&reader_zone={reader}")).await.concat();
        assert_eq!(line, format!("Tue 1 Dec 2026, 08:00–09:00 in Vancouver (UTC−7){own}"), "{reader}");
    }
    // The interview that is to be moved does not stand in its own way.
    let moved = format!("{base}&interview_id=502&date=2026-12-01&time=09:00&timezone=America/Vancouver");
    assert_eq!(said(&mut otto, &moved).await.len(), 1);
    for (when, error) in [
        (
            "date=2026-12-01&time=09:00&timezone=Mars/Phobos",
            "Please choose a time zone of the list, such as America/New_York.",
        ),
        ("date=2026-12-01&time=9am&timezone=UTC", "Please enter a time, such as 14:00."),
        ("date=9999-12-31&time=23:30&timezone=UTC", "Invalid date. Use YYYY-MM-DD."),
    ] {
        assert_eq!(said(&mut otto, &format!("{base}&{when}")).await, [error]);
    }
    // Who has nothing to do with a person learns nothing of him.
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    app.execute("DELETE FROM job_application").await;
    let when = "date=2026-12-01&time=09:00&timezone=America/Vancouver";
    assert_eq!(said(&mut rita, &format!("{base}&{when}")).await.len(), 1);
    // Nor does somebody else's interview stand aside for whoever guesses its number.
    app.execute("UPDATE job_shortlist SET job_id = 21").await;
    let lines = said(&mut rita, &format!("{base}&{when}&interview_id=502")).await;
    assert_eq!(lines[1..], ["Carl Candy already has an interview at this time."]);
    let nobody = CookieClient::new(&app).fetch(&format!("{base}&{when}")).await;
    assert!(nobody.header("location").unwrap().starts_with("/login/"), "{nobody:?}");
}

#[tokio::test]
async fn without_a_script_a_button_shows_the_preview_in_the_page_and_schedules_nothing() {
    let app = TestApp::start().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
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
}
