//! Mails: what they say, and that each is sent once, whatever the SMTP server does.

use std::time::Duration;

use interviews::{
    dev::mailbox::{Fault, Step},
    mail::{self, Email, Kind, Leased, Mail},
};
use serde_json::json;

use crate::support::*;

async fn states(app: &TestApp) -> Vec<String> {
    sqlx::query_scalar("SELECT state FROM ivs_mail WHERE kind = 'scheduled' ORDER BY state")
        .fetch_all(app.db())
        .await
        .unwrap()
}

/// Removes what differs from run to run.
fn steady(text: &str, app: &TestApp, id: i64) -> String {
    let text = text
        .replace(&app.url, "https://portal.test")
        .replace(&format!("/{id}/"), "/456/")
        .replace(&format!("interview-{id}@"), "interview-456@");
    let mut steady = String::new();
    for part in text.split_inclusive("?token=") {
        let part = if steady.is_empty() {
            part
        } else {
            part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        steady.push_str(part);
    }
    steady
}

#[tokio::test]
async fn both_people_get_a_mail_of_their_own_with_the_invitation() {
    let app = TestApp::start().await;
    let answer = app
        .user(OTTO)
        .schedule_otherwise(phone_body(json!({"location": "+81 3 0000 0000", "date": "2030-03-16"})))
        .await;
    let id = answer.json()["interview_id"].as_i64().unwrap();
    let mails = app.mails(2).await;
    let to = |address: &str| mails.iter().find(|mail| mail.to() == [address]).unwrap();
    let (candidates, recruiters) = (to("carl@x.test"), to("otto@x.test"));
    assert_eq!(
        steady(&candidates.text(), &app, id),
        "Hi Carl,\n\nYour interview has been scheduled!\n\nPosition: Analyst\nDate: March 16, 2030\n\
         Time: 10:00 AM Asia/Tokyo\nDuration: 1 hour\nInterviewer: Otto Other\nType: Phone\nPhone: +81 3 0000 0000\n\
         Note: x\n\nJoin your interview:\n1. UmEmployed Portal: https://portal.test/interviews/456/join/?token=\n\n\
         A calendar invitation is attached to this email.\n\nGood luck!\nThe UmEmployed Team"
    );
    assert_eq!(
        steady(&recruiters.text(), &app, id),
        "Hi Otto,\n\nYou have successfully scheduled an interview with Carl Candy.\n\nPosition: Analyst\n\
         Date: March 16, 2030\nTime: 10:00 AM Asia/Tokyo\nDuration: 1 hour\nCandidate: Carl Candy\nType: Phone\n\
         Phone: +81 3 0000 0000\nNote: x\n\nJoin your interview:\n\
         1. UmEmployed Portal: https://portal.test/interviews/456/join/?token=\n\n\
         A calendar invitation is attached to this email.\n\nGood luck!\nThe UmEmployed Team"
    );
    assert_eq!(candidates.envelope_to, ["carl@x.test"]);
    assert!(candidates.header("Reply-To").unwrap().contains("otto@x.test"));
    assert_eq!(recruiters.header("Reply-To"), None);
    for mail in &mails {
        assert_eq!(mail.header("Auto-Submitted").as_deref(), Some("auto-generated"));
        assert!(mail.header("From").unwrap().contains("info@umemployed.com"));
        assert!(mail.header("Message-ID").unwrap().ends_with("@umemployed.com>"));
        assert!(mail.header("Date").unwrap().starts_with("Fri, 20 Nov 2026 12:00:00"), "{:?}", mail.header("Date"));
        assert!(mail.html().contains("<h1") && mail.html().contains("Interview Scheduled!"));
        let (part, file) = (mail.calendar().unwrap(), mail.attachment().unwrap());
        assert_eq!((part.method.as_deref(), file.method.as_deref()), (Some("REQUEST"), Some("REQUEST")));
        assert_eq!((file.file_name.as_deref(), &part.text), (Some("interview.ics"), &file.text));
        for line in [
            "METHOD:REQUEST",
            "SEQUENCE:0",
            "DTSTAMP:20261120T120000Z",
            "DTSTART:20300316T010000Z",
            "DTEND:20300316T020000Z",
            "SUMMARY:Interview: Analyst",
            "LOCATION:+81 3 0000 0000",
            "STATUS:CONFIRMED",
            "ORGANIZER;CN=Otto Other:mailto:otto@x.test",
            &format!("UID:interview-{id}@umemployed.com"),
        ] {
            assert!(part.text.contains(&format!("{line}\r\n")), "{line} is missing in {}", part.text);
        }
        assert!(!part.text.contains("token="), "calendar entries are shared");
    }
    let token = |text: String| text.split("token=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_ne!(token(candidates.text()), token(recruiters.text()));
}

#[tokio::test]
async fn the_invitation_has_googles_uid_and_organizer() {
    let app = TestApp::start().await;
    app.connected(RITA).await.schedule(body(json!({}))).await;
    let event = &app.google.events()[0];
    let calendar = app.mails(2).await[0].calendar().unwrap().text;
    assert!(calendar.contains(&format!("UID:{}\r\n", event["iCalUID"].as_str().unwrap())), "{calendar}");
    assert!(calendar.contains("ORGANIZER;CN=Rita Recruit:mailto:rita@gmail.test\r\n"), "{calendar}");
}

#[tokio::test]
async fn hostile_texts_change_neither_headers_nor_html_nor_calendar() {
    let app = TestApp::start().await;
    sqlx::query(
        "UPDATE users_user SET first_name = E'Carl\r\nBcc: evil@x.test', last_name = '<img src=x>\"' WHERE id = 201",
    )
    .execute(app.db())
    .await
    .unwrap();
    let title = "Cook\r\nBcc: evil@x.test <b>\"Größe\"</b>";
    let note = "line one\r\nATTENDEE:mailto:evil@x.test\r\nEND:VCALENDAR <script>";
    let changes = json!({"job_id": null, "job_title": title, "notes": note});
    assert_eq!(app.user(OTTO).schedule_otherwise(phone_body(changes)).await.status, 201);
    for mail in app.mails(2).await {
        assert_eq!(mail.subject(), "Interview Scheduled: Cook Bcc: evil@x.test <b>\"Größe\"</b>");
        assert_eq!((mail.header("Bcc"), mail.envelope_to.len()), (None, 1));
        assert!(!mail.html().contains("<script>") && !mail.html().contains("<img src=x>"));
        let calendar = mail.calendar().unwrap().text;
        assert_eq!(calendar.matches("\r\nATTENDEE").count(), 2, "{calendar}");
        assert!(calendar.ends_with("END:VEVENT\r\nEND:VCALENDAR\r\n"));
    }
}

#[tokio::test]
async fn a_server_that_is_down_gets_the_mails_later() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Connect, Fault::Close, 100);
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!(answer.status, 201, "a mail failure never fails the request");
    assert_eq!(answer.json()["emails_sent"], json!({"candidate": false, "recruiter": false}));
    assert_eq!(answer.json()["calendar_invite_sent"], false);
    assert_eq!(states(&app).await, ["queued", "queued"]);
    app.run_jobs().await;
    assert!(app.mailbox.mails().is_empty(), "nothing is due before 30 s");
    for _ in 0..5 {
        app.advance(Duration::from_secs(300));
        app.run_jobs().await;
    }
    assert_eq!(states(&app).await, ["queued", "queued"]);
    app.mailbox.release();
    app.advance(Duration::from_secs(300));
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2, "due at least every five minutes in the first hour");
    assert_eq!(states(&app).await, ["sent", "sent"]);
    let sent: bool = sqlx::query_scalar("SELECT calendar_invite_sent FROM company_interview WHERE id = $1")
        .bind(answer.json()["interview_id"].as_i64())
        .fetch_one(app.db())
        .await
        .unwrap();
    assert!(sent, "later acceptance counts too");
}

#[tokio::test]
async fn a_mail_is_given_up_after_a_day() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Sender, Fault::Answer(451), 10_000);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    let mut hours = 0;
    while states(&app).await == ["queued", "queued"] {
        app.advance(Duration::from_secs(1800));
        app.run_jobs().await;
        hours += 1;
        assert!(hours < 60, "it never ends");
    }
    assert_eq!((states(&app).await, hours / 2), (vec!["expired".to_owned(); 2], 24));
    app.advance(Duration::from_secs(90 * 24 * 3600));
    app.sweep().await;
    assert_eq!(states(&app).await, [""; 0]);
}

#[tokio::test]
async fn a_refused_recipient_is_not_tried_again_and_the_other_gets_his_mail() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Recipient, Fault::Answer(550), 1);
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await.json();
    let sent = &answer["emails_sent"];
    assert_ne!(sent["candidate"], sent["recruiter"], "{sent}");
    assert_eq!(answer["calendar_invite_sent"], true);
    app.advance(Duration::from_secs(3600));
    app.run_jobs().await;
    assert_eq!((app.mailbox.mails().len(), states(&app).await), (1, vec!["refused".to_owned(), "sent".to_owned()]));
}

#[tokio::test]
async fn the_answer_waits_ten_seconds_for_a_slow_server_and_the_sending_goes_on() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Content, Fault::Hang, 2);
    let begun = std::time::Instant::now();
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    let waited = begun.elapsed();
    assert_eq!(answer.json()["emails_sent"], json!({"candidate": false, "recruiter": false}));
    assert!((9..15).contains(&waited.as_secs()), "{waited:?}");
    app.advance(Duration::from_secs(25));
    app.mailbox.release();
    until_async(async || states(&app).await == ["sent", "sent"]).await;
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2);
}

/// Otto schedules an interview by phone on this day of March 2030; what came of its mails, and how long he waited.
async fn schedule(app: &TestApp, day: u32) -> (serde_json::Value, Duration) {
    let (begun, date) = (std::time::Instant::now(), format!("2030-03-{day:02}"));
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({ "date": date }))).await;
    (answer.json()["emails_sent"].clone(), begun.elapsed())
}

#[tokio::test]
async fn after_silences_in_a_row_at_any_step_nobody_waits_for_the_server() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Sender, Fault::Hang, 100);
    tokio::join!(schedule(&app, 1), schedule(&app, 2));
    let mut day = 2;
    until_async(async || {
        day += 1;
        let (sent, waited) = schedule(&app, day).await;
        assert_eq!(sent, json!({"candidate": false, "recruiter": false}));
        waited < Duration::from_secs(5)
    })
    .await;
    let hanging = app.mailbox.hanging();
    app.mailbox.release();
    // Those that hung are accepted: that is an answer.
    until(|| (app.mailbox.mails().len() == hanging).then_some(())).await;
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!(states(&app).await, vec!["sent"; 2 * day as usize]);
}

#[tokio::test]
async fn of_kept_connections_that_are_silent_one_is_asked() {
    let app = TestApp::start().await;
    tokio::join!(schedule(&app, 1), schedule(&app, 2), schedule(&app, 3));
    app.mailbox.order(Step::Probe, Fault::Hang, 100);
    let (sent, waited) = schedule(&app, 4).await;
    assert_eq!(sent, json!({"candidate": true, "recruiter": true}), "{waited:?}");
    app.mailbox.release();
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
}

#[tokio::test]
async fn a_second_sender_finds_the_lease_taken() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Connect, Fault::Close, 100);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    app.mailbox.release();
    app.advance(Duration::from_secs(30));
    // Another server's worker at the same moment.
    tokio::join!(app.run_jobs(), app.run_jobs());
    app.advance(Duration::from_secs(600));
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2);
}

/// A mail about the interview 501, as the request that causes it queues it.
async fn leased(app: &TestApp) -> Leased {
    let mail = Mail { interview_id: Some(501), ..Mail::new(Kind::Scheduled, CARL) };
    let mut db = app.db().acquire().await.unwrap();
    mail::enqueue_leased(&mut db, &app.ctx, &[mail]).await.unwrap().leased.remove(0)
}

fn hello() -> Email {
    let to = (None, "carl@x.test".to_owned());
    let (subject, text, html) = ("Hello".to_owned(), "Hello".to_owned(), "Hello".to_owned());
    Email { to, reply_to: None, subject, text, html, calendar: None }
}

/// Sends it as the request does, with words of its own.
async fn send(app: &TestApp, leased: Leased) -> bool {
    mail::send_leased(&app.ctx, leased, async |_| Ok(Some(hello()))).await.unwrap()
}

#[tokio::test]
async fn a_mail_that_others_have_sent_while_it_was_rendered_is_not_sent_again() {
    let app = TestApp::start().await;
    let mail = leased(&app).await;
    let render = async |_| {
        app.advance(Duration::from_secs(30));
        app.run_jobs().await;
        Ok(Some(hello()))
    };
    assert!(!mail::send_leased(&app.ctx, mail, render).await.unwrap());
    assert_eq!((app.mailbox.mails().len(), states(&app).await), (1, vec!["sent".to_owned()]));
}

#[tokio::test]
async fn a_mail_whose_commit_took_long_is_left_to_who_has_taken_it_over() {
    let app = TestApp::start().await;
    let mail = leased(&app).await;
    app.advance(Duration::from_secs(30));
    app.run_jobs().await;
    assert!(!send(&app, mail).await);
    assert_eq!((app.mailbox.mails().len(), states(&app).await), (1, vec!["sent".to_owned()]));
}

#[tokio::test]
async fn a_mail_whose_commit_took_long_is_sent_by_its_request_when_nobody_has_taken_it_over() {
    let app = TestApp::start().await;
    let mail = leased(&app).await;
    app.advance(Duration::from_secs(40));
    app.mailbox.order(Step::Connect, Fault::Hang, 1);
    let (sent, ()) = tokio::join!(send(&app, mail), async {
        until(|| (app.mailbox.hanging() == 1).then_some(())).await;
        // It has the lease anew: the job leaves it alone.
        app.run_jobs().await;
        app.mailbox.release();
    });
    assert!(sent);
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!((app.mailbox.mails().len(), states(&app).await), (1, vec!["sent".to_owned()]));
}

#[tokio::test]
async fn a_mail_about_what_the_row_has_moved_past_is_dropped() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Connect, Fault::Close, 100);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    sqlx::query("UPDATE company_interview SET ical_sequence = 1 WHERE id > 1000").execute(app.db()).await.unwrap();
    app.mailbox.release();
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!((app.mailbox.mails().len(), states(&app).await), (0, vec!["dropped".to_owned(); 2]));
}

#[tokio::test]
async fn an_address_that_cannot_be_written_to_is_refused_without_a_loop() {
    let app = TestApp::start().await;
    sqlx::query("UPDATE users_user SET email = 'not an address' WHERE id = 201").execute(app.db()).await.unwrap();
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!(answer.json()["emails_sent"], json!({"candidate": false, "recruiter": true}));
    assert_eq!(states(&app).await, ["refused", "sent"]);
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
}
