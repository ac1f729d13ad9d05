//! The recruiter's dashboard: what it shows of their interviews, the mails and the connection to Google, and what can
//! be done there.

use std::time::Duration;

use interviews::dev::mailbox::{Fault, Step};
use serde_json::{Value, json};

use crate::support::{cookie_client::CookieClient, page::Page, *};

const DASHBOARD: &str = "/dashboard/";

/// Writes an interview of Rita and Carl as Django does; gives its id.
async fn add(app: &TestApp, columns: Value) -> i64 {
    let mut row = json!({"candidate_id": CARL, "recruiter_id": RITA, "interview_type": "phone", "date": "2026-11-20",
        "time": "12:00", "timezone": "UTC", "meeting_link": "", "created_at": NOW, "updated_at": NOW,
        "calendar_invite_sent": false, "portal_join_count": 0, "reminder_24h_sent": false, "reminder_1h_sent": false,
        "ical_sequence": 0});
    row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    let id: i64 = sqlx::query_scalar("SELECT nextval(pg_get_serial_sequence('company_interview', 'id'))")
        .fetch_one(app.db())
        .await
        .unwrap();
    row.as_object_mut().unwrap().extend([("id".into(), json!(id)), ("room_id".into(), json!(format!("{id:08}")))]);
    sqlx::query("INSERT INTO company_interview SELECT * FROM jsonb_populate_record(NULL::company_interview, $1)")
        .bind(row)
        .execute(app.db())
        .await
        .unwrap();
    id
}

/// The sections with the titles of their interviews.
fn sections(page: &Page) -> Vec<(String, Vec<String>)> {
    let sections = page.all("section:has(.grid)").into_iter();
    sections
        .map(|section| (section.one("h2").text(), section.all("article h3").iter().map(|h3| h3.text()).collect()))
        .collect()
}

/// What the card of an interview says of its mails.
fn mails(page: &Page, id: i64) -> Vec<String> {
    let card = page.one(&format!("article[aria-labelledby=interview-{id}]"));
    card.all(".told").iter().map(|told| format!("{}{}", told.one("span").text(), told.one(".chip").text())).collect()
}

#[tokio::test]
async fn connecting_google_begins_and_ends_on_the_dashboard() {
    let app = TestApp::start().await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let page = rita.get(DASHBOARD).await;
    assert!(page.text.contains("Not connected."), "{}", page.text);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains(&format!("form-action 'self' {}", app.google.url())), "{policy}");
    let away = rita.submit(&page, "/dashboard/google/connect/", &[]).await;
    assert_eq!(away.status, 303);
    let google = away.header("location").unwrap();
    assert!(google.starts_with(&app.ctx.settings.google_auth_uri), "{google}");

    let denied = rita.get(&app.google.deny(google).unwrap()).await;
    let back = denied.header("location").unwrap();
    assert!(back.starts_with("/dashboard/?google_oauth=error&message="), "{back}");
    let page = rita.get(back).await;
    assert!(page.text.contains("was not connected") && page.text.contains("Not connected."), "{}", page.text);
    assert_eq!(app.count("company_googlecredentials").await, 0);

    let page = rita.get(DASHBOARD).await;
    let away = rita.submit(&page, "/dashboard/google/connect/", &[]).await;
    let back = rita.get(&app.google.allow_as(away.header("location").unwrap(), "rita@gmail.test").unwrap()).await;
    assert_eq!((back.status.as_u16(), back.header("location")), (302, Some("/dashboard/?google_oauth=success")));
    let page = rita.get("/dashboard/?google_oauth=success").await;
    assert!(page.text.contains("Google Calendar is connected."), "{}", page.text);
    assert!(Page::of(&page).one("#google + p").text().contains("Connected as rita@gmail.test"));

    let gone = rita.submit(&page, "/dashboard/google/disconnect/", &[]).await;
    assert_eq!((gone.status.as_u16(), gone.header("location")), (303, Some("/dashboard/?done=disconnected")));
    let page = rita.get("/dashboard/?done=disconnected").await;
    assert!(page.text.contains("is disconnected") && page.text.contains("Not connected."), "{}", page.text);
    assert_eq!(app.count("company_googlecredentials").await, 0);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_callback_in_the_browser_of_somebody_else_connects_nothing() {
    let app = TestApp::start().await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let page = rita.get(DASHBOARD).await;
    let away = rita.submit(&page, "/dashboard/google/connect/", &[]).await;
    let callback = app.google.allow_as(away.header("location").unwrap(), "rita@gmail.test").unwrap();
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let back = otto.get(&callback).await;
    assert!(back.header("location").unwrap().starts_with("/dashboard/?google_oauth=error"), "{back:?}");
    assert_eq!(app.count("company_googlecredentials").await, 0);
}

#[tokio::test]
async fn what_was_begun_on_the_portal_is_finished_only_in_that_session() {
    let app = TestApp::start().await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let begin = async |rita: &mut CookieClient<'_>| {
        let page = rita.get(DASHBOARD).await;
        let away = rita.submit(&page, "/dashboard/google/connect/", &[]).await;
        app.google.allow_as(away.header("location").unwrap(), "rita@gmail.test").unwrap()
    };
    let mut nobody = CookieClient::new(&app);
    let mut elsewhere = CookieClient::of(&app, "rita@x.test").await;
    for other in [&mut nobody, &mut elsewhere] {
        let callback = begin(&mut rita).await;
        let back = other.get(&callback).await;
        let refused = "/dashboard/?google_oauth=error&message=Could%20not%20connect%20Google%20Calendar";
        assert_eq!(back.header("location"), Some(refused));
        let used = "/dashboard/?google_oauth=error&message=Invalid%20or%20expired%20OAuth%20state";
        assert_eq!(rita.get(&callback).await.header("location"), Some(used));
    }
    // Nor by a session that has taken its place in the same browser.
    let callback = begin(&mut rita).await;
    let page = rita.get(DASHBOARD).await;
    rita.submit(&page, "/logout/", &[]).await;
    rita.sign_in("rita@x.test").await;
    assert!(rita.get(&callback).await.header("location").unwrap().contains("google_oauth=error"));
    assert_eq!(app.count("company_googlecredentials").await, 0);
    let callback = begin(&mut rita).await;
    assert_eq!(rita.get(&callback).await.header("location"), Some("/dashboard/?google_oauth=success"));
    app.run_jobs().await;
}

#[tokio::test]
async fn a_connection_that_google_has_ended_is_to_be_made_again() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    app.google.revoke_grants();
    app.advance(Duration::from_secs(2 * 3600));
    let refused = app.user(RITA).schedule(body(json!({}))).await;
    assert_eq!(refused.status, 401, "{refused:?}");
    let page = rita.get(DASHBOARD).await;
    assert!(page.text.contains("Connection ended"), "{}", page.text);
    assert_eq!(Page::of(&page).one("form[action='/dashboard/google/connect/'] button").text(), "Reconnect");
    app.run_jobs().await;
}

#[tokio::test]
async fn interviews_stand_by_when_they_are_and_today_is_the_day_of_the_interviews_own_zone() {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    // It is noon in UTC on 20 November: early on the 21st in Kiritimati (+14), still 1 a.m. of the 20th in Pago Pago.
    for (title, date, time, zone) in [
        ("ended", "2026-11-20", "11:00", "UTC"),
        ("lasts", "2026-11-20", "11:30", "UTC"),
        ("tonight", "2026-11-20", "23:30", "UTC"),
        ("tomorrow", "2026-11-21", "00:30", "UTC"),
        ("kiritimati's today", "2026-11-21", "23:00", "Pacific/Kiritimati"),
        ("pago pago's today", "2026-11-20", "23:00", "Pacific/Pago_Pago"),
        ("pago pago's tomorrow", "2026-11-21", "00:00", "Pacific/Pago_Pago"),
        ("in a week", "2026-11-27", "11:59", "UTC"),
        ("later", "2026-11-27", "12:00", "UTC"),
        ("years ago", "2020-01-01", "10:00", "Mars/Phobos"),
    ] {
        add(&app, json!({"job_title": title, "date": date, "time": time, "timezone": zone})).await;
    }
    let page = Page::of(&CookieClient::of(&app, "rita@x.test").await.get(DASHBOARD).await);
    let expected = [
        ("Today", vec!["lasts", "tonight", "kiritimati's today", "pago pago's today"]),
        ("Next 7 days", vec!["tomorrow", "pago pago's tomorrow", "in a week"]),
        ("Later", vec!["later"]),
        ("Past", vec!["ended", "years ago"]),
    ];
    let expected = expected.map(|(title, names)| (title.to_owned(), names.into_iter().map(String::from).collect()));
    assert_eq!(sections(&page), expected);
    let late = page.all("article").into_iter().find(|card| card.one("h3").text() == "tonight").unwrap();
    assert!(late.text().contains("Fri 20 Nov 2026, 23:30–00:30 (+1 day)"), "{}", late.text());
}

#[tokio::test]
async fn a_card_says_what_the_interview_is_and_what_can_be_done() {
    let app = TestApp::start().await;
    app.set_now("2030-01-15T18:00:00Z");
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let page = Page::of(&rita.get(DASHBOARD).await);
    let card = page.one("article");
    for words in [
        "Interview",
        "Carl Candy",
        "Acme",
        "Tue 15 Jan 2030, 14:00–15:00",
        "in New York (UTC−5)",
        "Google Meet, 1 hour",
    ] {
        assert!(card.text().contains(words), "{words} is missing in {}", card.text());
    }
    assert_eq!(card.one("[data-local]").attribute("data-local"), Some("1894734000"));
    assert_eq!(card.one(".chip").text(), "Upcoming");
    let links: Vec<_> = card.all("a").iter().map(|a| (a.text(), a.attribute("href").unwrap().to_owned())).collect();
    let expected = [
        ("Open", "/interviews/501/join/"),
        ("Reschedule", "/dashboard/interviews/501/change/"),
        ("Cancel", "/dashboard/interviews/501/cancel/"),
    ];
    assert_eq!(links, expected.map(|(words, to)| (words.to_owned(), to.to_owned())));
    let room = format!("{}/interviews/501/join/", app.url);
    assert_eq!(card.one("[data-copy]").attribute("data-copy"), Some(&*room));

    app.set_now("2030-01-15T18:45:00Z");
    let page = Page::of(&rita.get(DASHBOARD).await);
    assert_eq!((page.one("article .chip").text(), page.one("article a.button").text()), ("Open".into(), "Join".into()));
    // It is over, but its door is still open.
    app.set_now("2030-01-15T20:30:00Z");
    let page = Page::of(&rita.get(DASHBOARD).await);
    assert_eq!((page.one("article .chip").text(), page.one("article a.button").text()), ("Over".into(), "Join".into()));
    assert_eq!(page.all("article a").len(), 1, "nothing is left to reschedule or cancel");
}

#[tokio::test]
async fn the_mails_of_each_interview_are_shown_as_they_are_and_those_that_failed_can_be_sent_again() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Connect, Fault::Close, 100);
    let id = app.user(OTTO).phone().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let page = otto.get(DASHBOARD).await;
    let both = |state: &str| vec![format!("Mail to candidate:{state}"), format!("Mail to you:{state}")];
    assert_eq!(mails(&Page::of(&page), id), both("waits to be sent"));
    assert!(!page.text.contains("/resend/"), "{}", page.text);

    for (state, words) in [("refused", "refused by the mail server"), ("expired", "could not be sent")] {
        sqlx::query("UPDATE ivs_mail SET state = $1").bind(state).execute(app.db()).await.unwrap();
        let page = otto.get(DASHBOARD).await;
        assert_eq!(mails(&Page::of(&page), id), both(words));
        assert_eq!(page.text.matches("/resend/").count(), 2);
    }
    app.mailbox.release();
    let page = otto.get(DASHBOARD).await;
    let again = Page::of(&page).all("form[action$='/resend/']")[0].attribute("action").unwrap().to_owned();

    // Not by somebody else, who cannot even learn that there is such a mail.
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let own = rita.get(DASHBOARD).await;
    let token = Page::of(&own).form_token().to_owned();
    for path in [&again, "/dashboard/mails/00000000-0000-0000-0000-000000000000/resend/", "/dashboard/mails/x/resend/"]
    {
        assert_eq!(rita.post(path, &[("form_token", &token)]).await.status, 404, "{path}");
    }
    assert_eq!(app.count("ivs_mail WHERE state = 'expired'").await, 2);

    let sent = otto.submit(&page, &again, &[]).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, Some("/dashboard/?done=resent")));
    // The same page once more: it is on its way already.
    let again = otto.submit(&page, &again, &[]).await;
    assert_eq!(again.header("location"), Some("/dashboard/?done=not-resent"));
    assert!(otto.get("/dashboard/?done=not-resent").await.text.contains("was sent or is on its way"));
    app.run_jobs().await;
    app.mails(1).await;
    let page = Page::of(&otto.get(DASHBOARD).await);
    let mut states = mails(&page, id);
    states.sort();
    assert_eq!(states.iter().filter(|said| said.ends_with(":sent")).count(), 1, "{states:?}");
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
}

#[tokio::test]
async fn only_the_mails_about_the_interview_as_it_is_are_shown() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    app.mails(2).await;
    let mut browser = CookieClient::of(&app, "otto@x.test").await;
    let shown = |page: &Answer| mails(&Page::of(page), id);
    assert_eq!(shown(&browser.get(DASHBOARD).await), ["Mail to candidate:sent", "Mail to you:sent"]);
    app.mailbox.order(Step::Sender, Fault::Answer(451), 100);
    assert_eq!(otto.change(id, json!({"time": "11:00"})).await.status, 200);
    let waiting = ["Mail to candidate:waits to be sent", "Mail to you:waits to be sent"];
    let page = browser.get(DASHBOARD).await;
    assert_eq!(shown(&page), waiting);
    app.execute("UPDATE ivs_mail SET state = 'expired' WHERE state = 'queued'").await;
    let page = browser.get(DASHBOARD).await;
    assert_eq!(shown(&page), ["Mail to candidate:could not be sent", "Mail to you:could not be sent"]);
    let again = Page::of(&page).all("form[action$='/resend/']")[0].attribute("action").unwrap().to_owned();

    assert_eq!(otto.cancel(id).await.status, 200);
    let cancelled = browser.get(DASHBOARD).await;
    assert_eq!(shown(&cancelled), waiting, "the cancellation's");
    // What an older page offers is out of date.
    let late = browser.submit(&page, &again, &[]).await;
    assert_eq!(late.header("location"), Some("/dashboard/?done=not-resent"));
    app.mailbox.release();
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!(shown(&browser.get(DASHBOARD).await), ["Mail to candidate:sent", "Mail to you:sent"]);
    // Raised by somebody who sent no mail.
    app.execute("UPDATE company_interview SET ical_sequence = 9").await;
    assert!(shown(&browser.get(DASHBOARD).await).is_empty());
}

#[tokio::test]
async fn who_is_no_recruiter_is_led_to_their_own_dashboard_and_who_is_not_signed_in_to_sign_in() {
    let app = TestApp::start().await;
    let mut carl = CookieClient::of(&app, "carl@x.test").await;
    let led = carl.get(DASHBOARD).await;
    assert_eq!((led.status.as_u16(), led.header("location")), (303, Some("/dashboard/jobseeker/")));
    let mut nobody = CookieClient::new(&app);
    let led = nobody.get("/dashboard/?done=changed").await;
    assert_eq!((led.status.as_u16(), led.header("location")), (302, Some("/login/?next=/dashboard/%3Fdone%3Dchanged")));
}

#[tokio::test]
async fn a_recruiter_without_a_company_and_one_without_interviews_are_told_what_to_do_next() {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    let page = CookieClient::of(&app, "nora@x.test").await.get(DASHBOARD).await;
    assert!(
        page.text.contains("complete your company") && !page.text.contains("/dashboard/schedule/"),
        "{}",
        page.text
    );
    let page = CookieClient::of(&app, "rita@x.test").await.get(DASHBOARD).await;
    assert!(page.text.contains("No interviews yet") && page.text.contains("/dashboard/schedule/"), "{}", page.text);
    assert!(!page.text.contains("Your numbers"), "{}", page.text);
}

#[tokio::test]
async fn the_numbers_are_those_of_the_analytics_as_figures_charts_and_tables() {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    let met = json!({"interview_type": "google_meet", "date": "2026-11-12", "portal_join_count": 1,
        "meeting_started_at": "2026-11-12T12:02:30Z", "meeting_ended_at": "2026-11-12T12:45:00Z"});
    add(&app, met).await;
    add(&app, json!({"interview_type": "google_meet", "date": "2026-11-13"})).await;
    add(&app, json!({"date": "2026-11-18", "cancelled_at": NOW})).await;
    add(&app, json!({"date": "2026-11-25"})).await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let page = Page::of(&rita.get(DASHBOARD).await);
    let figures: Vec<_> = page.all(".numbers strong").iter().map(|value| value.text()).collect();
    assert_eq!(figures, ["4", "1", "1", "1", "1", "42.5 min", "2.5 min"]);
    let tables: Vec<Vec<String>> =
        page.all("table").iter().map(|table| table.all("tbody td").iter().map(|td| td.text()).collect()).collect();
    assert_eq!(tables[0], ["Google Meet", "2", "Phone", "1", "In person", "0", "Other", "0"]);
    assert_eq!(tables[1], ["9 Nov 2026 2026-W46", "2", "1", "23 Nov 2026 2026-W48", "1", "0"]);
    let charts: Vec<_> =
        page.all("svg[role=img]").iter().map(|svg| svg.attribute("aria-label").unwrap().to_owned()).collect();
    assert_eq!(
        charts,
        [
            "Interviews by type: Google Meet 2, Phone 1, In person 0, Other 0.",
            "Interviews by week. week of 9 Nov 2026: 2, 1 completed; week of 23 Nov 2026: 1, 0 completed."
        ]
    );
    assert!(page.all("[style]").is_empty(), "the policy of the pages forbids styles in the page");
    app.execute("UPDATE company_interview SET meeting_started_at = NULL, meeting_ended_at = NULL").await;
    let page = Page::of(&rita.get(DASHBOARD).await);
    let figures: Vec<_> = page.all(".numbers strong").iter().map(|value| value.text()).collect();
    assert_eq!(figures[5..], ["–", "–"]);
}

#[tokio::test]
async fn the_dashboard_asks_the_database_four_times_however_much_it_shows() {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    let instants =
        json!({"starts_at": "2026-11-20T12:00:00Z", "ends_at": "2026-11-20T13:00:00Z", "starts_at_tzdb": "2026a"});
    add(&app, instants.clone()).await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let (_, few) = counting_statements(rita.get(DASHBOARD)).await;
    for _ in 0..30 {
        add(&app, instants.clone()).await;
    }
    let (page, many) = counting_statements(rita.get(DASHBOARD)).await;
    assert_eq!((Page::of(&page).all("article").len(), few, many), (31, 4, 4), "the session, then three side by side");
}

#[tokio::test]
async fn of_very_many_interviews_the_next_and_the_latest_are_shown() {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    sqlx::query(
        "INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time, timezone, meeting_link,
             room_id, created_at, updated_at)
         SELECT 201, 101, 'phone', date '2026-11-20' + n, '14:00', 'UTC', '', 'ROOM' || n, now(), now()
         FROM generate_series(-300, 300) n",
    )
    .execute(app.db())
    .await
    .unwrap();
    let page = Page::of(&CookieClient::of(&app, "rita@x.test").await.get(DASHBOARD).await);
    assert_eq!(page.all("article").len(), 200);
    let titles: Vec<_> = sections(&page).into_iter().map(|(title, cards)| (title, cards.len())).collect();
    let expected = [("Today", 1), ("Next 7 days", 6), ("Later", 92), ("Past", 101)];
    assert_eq!(titles, expected.map(|(title, count)| (title.to_owned(), count)));
    assert!(page.text().contains("more interviews than are shown"));
}
