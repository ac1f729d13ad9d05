//! Changing and cancelling interviews: every rule, and that row, event and mails agree whatever fails.

use std::time::Duration;

use interviews::dev::google::{Call, FaultKind};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    parsers::{self, Sample},
    support::*,
};

const UNAVAILABLE: &str = "Google Calendar is unavailable. Please try again.";

impl TestApp {
    /// What the notifications to Carl say, oldest first.
    async fn notifications(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT message FROM notifications_notification ORDER BY id")
            .fetch_all(self.db())
            .await
            .unwrap()
    }

    /// The sweeps, until what failed has been settled: a call of it may reach Google for five minutes after its 45
    /// seconds.
    async fn settle(&self) {
        self.sweep().await;
        self.advance(Duration::from_secs(346));
        self.sweep().await;
        self.run_jobs().await;
        assert_eq!((self.count("ivs_change").await, self.count("ivs_intent").await), (0, 0));
    }
}

#[tokio::test]
async fn example_29_a_changed_time_reaches_everybody_with_the_same_uid() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    app.mailbox.clear();
    let answer = otto.change(id, json!({"time": "18:00"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    for (key, value) in [
        ("success", json!(true)),
        ("message", json!("Interview updated successfully")),
        ("interview_id", json!(id)),
        ("meeting_link", Value::Null),
        ("event_id", Value::Null),
        ("emails_sent", json!({"candidate": true, "recruiter": true})),
        ("calendar_invite_sent", json!(true)),
        ("warnings", json!([])),
    ] {
        assert_eq!(answer[key], value, "{key}");
    }
    assert_eq!(answer["interview"]["scheduled_time"], "2030-01-16T18:00:00+09:00");
    assert_eq!(answer["interview"]["user_role"], "recruiter");
    let mails = app.mails(2).await;
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        assert_eq!(mail.subject(), "Interview Updated: Analyst");
        let calendar = mail.calendar().unwrap();
        assert_eq!(calendar.method.as_deref(), Some("REQUEST"));
        for line in
            ["METHOD:REQUEST", "SEQUENCE:1", "DTSTART:20300116T090000Z", &format!("UID:interview-{id}@umemployed.com")]
        {
            assert!(calendar.text.contains(&format!("{line}\r\n")), "{line} is missing in {}", calendar.text);
        }
    }
    assert_eq!(
        app.notifications().await[1],
        "Your interview for the job 'Analyst' at Other Inc has been changed to 2030-01-16 18:00 (Asia/Tokyo)."
    );
    app.user(CARL)
        .change(id, json!({"time": "18:00"}))
        .await
        .assert(403, json!({"error": "You are not authorized to change this interview"}));
}

#[tokio::test]
async fn example_30_a_cancelled_interview_stays_and_is_cancelled_once() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    otto.change(id, json!({"time": "18:00"})).await;
    app.mailbox.clear();
    let path = format!("/api/company/interviews/{id}/");
    let reason = json!({"reason": "Filled.\nSorry"});
    let answer = send(otto.request(Method::DELETE, &path).json(&reason)).await;
    answer.assert(
        200,
        json!({"success": true, "message": "Interview cancelled successfully.", "interview_id": id,
            "status": "cancelled", "emails_sent": {"candidate": true, "recruiter": true}, "warnings": []}),
    );
    for mail in app.mails(2).await {
        assert_eq!(mail.subject(), "Interview Cancelled: Analyst");
        assert!(mail.text().contains("Reason: Filled.\nSorry") && !mail.text().contains("token="), "{}", mail.text());
        for part in [mail.calendar().unwrap(), mail.attachment().unwrap()] {
            assert_eq!(part.method.as_deref(), Some("CANCEL"));
            for line in
                ["METHOD:CANCEL", "SEQUENCE:2", "STATUS:CANCELLED", &format!("UID:interview-{id}@umemployed.com")]
            {
                assert!(part.text.contains(&format!("{line}\r\n")), "{line} is missing in {}", part.text);
            }
        }
    }
    let again = otto.post(&format!("{path}cancel/"), json!({"reason": "Another"})).await;
    again.assert(
        200,
        json!({"success": true, "message": "Interview was already cancelled.", "interview_id": id,
            "status": "cancelled", "emails_sent": {"candidate": false, "recruiter": false}, "warnings": []}),
    );
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2);
    let list = otto.get("/api/company/interviews/").await.json();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(id), &json!("cancelled")));
    let detail = otto.get(&path).await.json();
    assert_eq!(detail["cancellation_reason"], "Filled.\nSorry");
    let told = app.notifications().await;
    assert_eq!(told[2..], ["Your interview for the job 'Analyst' at Other Inc has been cancelled."]);
    otto.change(id, json!({"time": "19:00"})).await.assert(409, json!({"error": "This interview has been cancelled."}));
}

#[tokio::test]
async fn example_34_a_location_is_trimmed_and_told_everywhere() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    app.mailbox.clear();
    let answer = otto.change(id, json!({"location": " +44 20 7946 0000 "})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["interview"]["location"]), (200, &json!("+44 20 7946 0000")));
    for mail in app.mails(2).await {
        assert!(mail.text().contains("\nPhone: +44 20 7946 0000\n"));
        assert!(mail.calendar().unwrap().text.contains("LOCATION:+44 20 7946 0000\r\n"));
    }
    for blank in [json!(""), json!(null), json!("  ")] {
        otto.change(id, json!({"location": "here", "note": "n"})).await;
        let answer = otto.change(id, json!({"location": blank, "notes": blank})).await;
        let interview = &answer.json()["interview"];
        assert_eq!((&interview["location"], &interview["note"]), (&Value::Null, &Value::Null), "{blank}");
    }
}

#[tokio::test]
async fn example_35_one_change_at_a_time() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.fault(Call::Patch, 1, FaultKind::Hold);
    let second = async {
        until(|| app.google.requests().iter().any(|call| call.call == Call::Patch).then_some(())).await;
        let refused = json!({"error": "This interview is being changed. Please try again."});
        rita.change(id, json!({"time": "15:00"})).await.assert(409, refused.clone());
        rita.cancel(id).await.assert(409, refused);
        app.google.let_go();
    };
    let (first, ()) = tokio::join!(rita.change(id, json!({"time": "16:00"})), second);
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(rita.change(id, json!({"time": "15:00"})).await.status, 200);
    app.assert_agree(id).await;
    assert_eq!(app.row(id).await["ical_sequence"], 2);
}

#[tokio::test]
async fn example_36_a_cancellation_does_not_depend_on_google() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.mailbox.clear();
    app.fault(Call::Calendar, 1000, FaultKind::status(500));
    let answer = rita.cancel(id).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["warnings"], json!(["The Google Calendar event will be deleted later."]));
    assert_eq!(app.mails(2).await.len(), 2);
    app.sweep().await;
    assert_eq!(app.live().len(), 1);
    app.google.clear_faults();
    app.advance(Duration::from_secs(30));
    app.sweep().await;
    assert_eq!(app.live().len(), 0);
    assert_eq!(app.count("ivs_intent").await, 0);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_cancellation_without_a_grant_deletes_the_event_once_there_is_one_again() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.google.revoke_grants();
    let answer = rita.cancel(id).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["warnings"], json!(["The Google Calendar event will be deleted later."]));
    app.run_jobs().await;
    app.connected(RITA).await;
    app.sweep().await;
    app.assert_agree(id).await;
}

#[tokio::test]
async fn rescheduled_twice_and_cancelled_the_event_follows_and_three_versions_have_one_uid() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let uid = app.row(id).await["ical_uid"].as_str().unwrap().to_owned();
    let link = app.row(id).await["meeting_link"].clone();
    let changes =
        [json!({"date": "2030-07-01", "time": "09:30"}), json!({"timezone": "Europe/Paris", "duration_minutes": 45})];
    let mut versions = Vec::new();
    for (sequence, change) in changes.into_iter().enumerate() {
        app.pass_a_minute().await;
        app.mailbox.clear();
        let answer = rita.change(id, change).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["meeting_link"], link);
        app.assert_agree(id).await;
        let start = if sequence == 0 { "DTSTART:20300701T133000Z" } else { "DTSTART:20300701T073000Z" };
        for mail in app.mails(2).await {
            let calendar = mail.calendar().unwrap().text;
            for line in [start, &format!("SEQUENCE:{}", sequence + 1), &format!("UID:{uid}"), "METHOD:REQUEST"] {
                assert!(calendar.contains(&format!("{line}\r\n")), "{line} is missing in {calendar}");
            }
            versions.push(calendar);
        }
    }
    let event = &app.live()[0];
    assert_eq!(event["start"]["timeZone"], "Europe/Paris");
    let patch = app.google.requests().into_iter().rfind(|call| call.call == Call::Patch).unwrap();
    assert_eq!((patch.query("sendUpdates"), patch.query("conferenceDataVersion")), (Some("none"), Some("1")));
    let fields: Vec<&String> = patch.body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["description", "end", "start", "summary"]);
    app.mailbox.clear();
    assert_eq!(rita.cancel(id).await.json()["warnings"], json!([]));
    app.assert_agree(id).await;
    for mail in app.mails(2).await {
        let calendar = mail.calendar().unwrap().text;
        for line in ["SEQUENCE:3", "METHOD:CANCEL", &format!("UID:{uid}")] {
            assert!(calendar.contains(&format!("{line}\r\n")), "{line} is missing in {calendar}");
        }
        versions.push(calendar);
    }
    let meet = link.as_str().unwrap();
    let meant = |sequence, start, end| {
        let is_cancelled = sequence == 3;
        let meet_line = if is_cancelled { String::new() } else { format!("Google Meet: {meet}\n") };
        json!({
            "method": if is_cancelled { "CANCEL" } else { "REQUEST" },
            "status": if is_cancelled { "CANCELLED" } else { "CONFIRMED" },
            "uid": uid, "sequence": sequence, "start": start, "end": end,
            "summary": "Interview: Software Engineer",
            "location": (!is_cancelled).then_some(meet),
            "description": format!(
                "Position: Software Engineer\nCandidate: Carl Candy\nRecruiter: Rita Recruit\n{meet_line}\
                 Note: hi\nPortal: {}/interviews/{id}/join/", app.url
            ),
            "organizer": ["Rita Recruit", "mailto:rita@gmail.test"],
            "attendees": [["Carl Candy", "mailto:carl@x.test"], ["Rita Recruit", "mailto:rita@x.test"]],
            "properties": "ATTENDEE ATTENDEE DESCRIPTION DTEND DTSTAMP DTSTART LOCATION ORGANIZER SEQUENCE STATUS SUMMARY UID"
                .split(' ')
                .filter(|name| *name != "LOCATION" || !is_cancelled)
                .collect::<Vec<_>>(),
        })
    };
    let meant = [
        meant(1, "2030-07-01T13:30:00Z", "2030-07-01T14:30:00Z"),
        meant(2, "2030-07-01T07:30:00Z", "2030-07-01T08:15:00Z"),
        meant(3, "2030-07-01T07:30:00Z", "2030-07-01T08:15:00Z"),
    ];
    // Two mails of each version say the same.
    let samples = versions.chunks(2).zip(meant).map(|(mails, meant)| {
        assert_eq!(mails[0], mails[1]);
        Sample { ics: mails[0].clone(), meant }
    });
    parsers::assert_read_as_meant(&samples.collect::<Vec<_>>());
}

#[tokio::test]
async fn after_a_fault_at_any_step_row_and_event_agree_as_soon_as_google_allows() {
    let kinds = [FaultKind::status(500), FaultKind::status(400), FaultKind::AnswerLost, FaultKind::Garbage];
    let app = TestApp::start_with(&[("CANDIDATE_MAILS_PER_HOUR", "60")]).await;
    let rita = app.connected(RITA).await;
    for (n, kind) in kinds.into_iter().enumerate() {
        for (call, change) in [
            (Call::Patch, json!({"time": "18:00"})),
            (Call::Insert, json!({"interview_type": "google_meet"})),
            (Call::Get, json!({"interview_type": "google_meet"})),
            (Call::Delete, json!({"interview_type": "phone"})),
        ] {
            if (&kind, call) == (&FaultKind::Garbage, Call::Delete) {
                // What a deletion answers is not read.
                continue;
            }
            let id = rita.meet().await;
            if call == Call::Insert || call == Call::Get {
                rita.change(id, json!({"interview_type": "in_person"})).await;
            }
            let before = app.row(id).await;
            app.mailbox.clear();
            app.fault(call, 4, kind.clone());
            let answer = rita.change(id, change.clone()).await;
            answer.assert(502, json!({"error": UNAVAILABLE}));
            let mut after = app.row(id).await;
            after["updated_at"] = before["updated_at"].clone();
            assert_eq!(after, before, "{kind:?} at {call:?}");
            assert!(app.mailbox.mails().is_empty());
            app.google.clear_faults();
            app.settle().await;
            app.assert_agree(id).await;
            assert_eq!(rita.change(id, change).await.status, 200, "{n} {call:?}");
            app.assert_agree(id).await;
            rita.cancel(id).await;
            assert!(app.live().is_empty());
        }
    }
}

#[tokio::test]
async fn an_event_deleted_at_google_is_made_anew_by_the_next_change() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let before = app.row(id).await;
    app.google.delete_event(before["google_event_id"].as_str().unwrap());
    app.mailbox.clear();
    let answer = rita.change(id, json!({"time": "15:00"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    app.assert_agree(id).await;
    let after = app.row(id).await;
    assert_ne!(after["google_event_id"], before["google_event_id"]);
    assert_eq!((&answer.json()["event_id"], &after["ical_uid"]), (&after["google_event_id"], &before["ical_uid"]));
    assert!(app.mails(2).await[0].text().contains(after["meeting_link"].as_str().unwrap()));
    assert_eq!(app.count("ivs_intent").await, 0);
}

#[tokio::test]
async fn a_type_changed_to_phone_deletes_the_event_and_back_makes_another() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let answer = rita.change(id, json!({"interview_type": "phone", "location": "+1 555 0100"})).await;
    assert_eq!((&answer.json()["meeting_link"], &answer.json()["event_id"]), (&Value::Null, &Value::Null));
    let row = app.row(id).await;
    assert_eq!((&row["meeting_link"], &row["google_event_id"]), (&json!(""), &Value::Null));
    app.assert_agree(id).await;
    let answer = rita.change(id, json!({"interview_type": "google_meet"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    app.assert_agree(id).await;
    assert_eq!(answer.json()["meeting_link"], app.live()[0]["hangoutLink"]);
}

#[tokio::test]
async fn a_row_with_an_event_counts_as_google_meet_whatever_its_type_says() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    sqlx::query("UPDATE company_interview SET interview_type = 'custom' WHERE id = $1")
        .bind(id)
        .execute(app.db())
        .await
        .unwrap();
    let answer = rita.change(id, json!({"time": "16:00", "interview_type": "custom"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    app.assert_agree(id).await;
    assert_eq!(app.row(id).await["interview_type"], "custom");
}

#[tokio::test]
async fn without_a_grant_a_change_that_needs_google_is_refused_and_others_are_not() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    // 501 is on Google Meet and has an event that another program made.
    let answer = rita.change(501, json!({"time": "15:00"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["needs_google_auth"]), (401, &json!(true)));
    assert_eq!(app.row(501).await["time"], "14:00:00");
    assert_eq!(app.count("ivs_change").await, 0);
    assert_eq!(app.user(OTTO).change(502, json!({"time": "15:00"})).await.status, 200);
    let row = app.row(502).await;
    assert_eq!(
        (&row["ical_uid"], &row["ical_organizer"]),
        (&json!("interview-502@umemployed.com"), &json!("otto@x.test"))
    );
}

#[tokio::test]
async fn only_the_recruiter_of_an_interview_changes_or_cancels_it() {
    let app = TestApp::start().await;
    let change = json!({"error": "You are not authorized to change this interview"});
    let cancel = json!({"error": "You are not authorized to cancel this interview"});
    for (user, id) in [(CARL, 501), (OTTO, 501), (RITA, 502), (RITA, 503), (CARL, 503)] {
        let user = app.user(user);
        user.change(id, json!({"time": 7})).await.assert(403, change.clone());
        user.cancel(id).await.assert(403, cancel.clone());
        user.post(&format!("/api/interviews/{id}/cancel/"), json!({"reason": 7})).await.assert(403, cancel.clone());
    }
    let missing = json!({"error": "Interview not found", "detail": "No Interview matches the given query."});
    app.user(RITA).change(999, json!({})).await.assert(404, missing.clone());
    app.user(RITA).cancel(999).await.assert(404, missing);
}

#[tokio::test]
async fn a_change_is_checked_like_a_new_interview_and_has_to_say_something() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    for (field, value, text) in [
        ("date", json!("2030-02-30"), "Invalid date. Use YYYY-MM-DD."),
        ("date", json!(null), "Invalid date. Use YYYY-MM-DD."),
        ("date", json!(""), "Invalid date. Use YYYY-MM-DD."),
        ("time", json!(""), "Invalid time. Use HH:MM."),
        ("timezone", json!(""), "Invalid timezone. Use an IANA name such as America/New_York."),
        ("timezone", json!(null), "Invalid timezone. Use an IANA name such as America/New_York."),
        ("note", json!(7), "Invalid note."),
        ("notes", json!("x".repeat(5001)), "Note is too long (at most 5000 characters)."),
        ("interview_type", json!(""), "Invalid interview_type."),
        ("interview_type", json!(null), "Invalid interview_type."),
        ("duration_minutes", json!(null), "Invalid duration_minutes. Use a whole number from 5 to 480."),
        ("location", json!("x".repeat(256)), "Invalid location."),
    ] {
        otto.change(502, json!({field: value})).await.assert(400, json!({"error": text}));
    }
    otto.change(502, json!({"date": "9999-12-31", "time": "23:30", "timezone": "UTC"}))
        .await
        .assert(400, json!({"error": "Invalid date. Use YYYY-MM-DD."}));
    otto.change(502, json!({"candidate_id": 202})).await.assert(400, json!({"error": "Nothing to change."}));
    otto.change(502, json!([])).await.assert(400, json!({"error": "Invalid data. Expected a JSON object."}));
    otto.post("/api/company/interviews/502/cancel/", json!({"reason": "x".repeat(1001)}))
        .await
        .assert(400, json!({"error": "Invalid reason."}));
    let same = json!({"time": "09:30", "note": "", "timezone": "Asia/Tokyo", "interview_type": "phone"});
    let answer = otto.change(502, same).await.json();
    assert_eq!(answer["emails_sent"], json!({"candidate": false, "recruiter": false}));
    assert_eq!((app.count("ivs_mail").await, app.count("ivs_change").await), (0, 0));
    assert_eq!(app.row(502).await["ical_sequence"], 0);
}

#[tokio::test]
async fn a_change_warns_of_the_past_of_daylight_saving_and_of_overlaps() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    let answer = otto.change(id, json!({"date": "2027-03-14", "time": "02:30", "timezone": "America/New_York"})).await;
    assert_eq!(
        answer.json()["warnings"],
        json!(["02:30 does not exist on 2027-03-14 in America/New_York; the interview starts at 03:30."])
    );
    app.pass_a_minute().await;
    let answer = otto.change(id, json!({"date": "2020-01-01"})).await;
    assert_eq!(answer.json()["warnings"], json!(["The interview time is in the past."]));
    app.pass_a_minute().await;
    let answer = otto.change(id, json!({"date": "2030-01-16", "time": "10:00", "timezone": "Asia/Tokyo"})).await;
    assert_eq!(
        answer.json()["warnings"],
        json!(["Carl Candy already has an interview at this time.", "You already have an interview at this time."])
    );
    app.user(OTTO).cancel(502).await;
    app.pass_a_minute().await;
    assert_eq!(otto.change(id, json!({"note": "hm"})).await.json()["warnings"], json!([]));
}

#[tokio::test]
async fn what_django_writes_meanwhile_is_not_overwritten() {
    for (column, value) in
        [("time", "08:00:00"), ("candidate_id", "202"), ("meeting_link", "https://meet.google.com/new")]
    {
        let app = TestApp::start().await;
        let rita = app.connected(RITA).await;
        let id = rita.meet().await;
        app.fault(Call::Patch, 1, FaultKind::Hold);
        let django = async {
            until(|| app.google.requests().iter().any(|call| call.call == Call::Patch).then_some(())).await;
            let sql = format!("UPDATE company_interview SET {column} = '{value}' WHERE id = $1");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).execute(app.db()).await.unwrap();
            app.google.let_go();
        };
        let (answer, ()) = tokio::join!(rita.change(id, json!({"note": "new"})), django);
        answer.assert(409, json!({"error": "This interview is being changed. Please try again."}));
        app.settle().await;
        let row = app.row(id).await;
        assert_eq!(row[column].to_string().trim_matches('"'), value);
        assert_eq!((&row["note"], &row["ical_sequence"]), (&json!("hi"), &json!(0)));
        if column == "time" {
            app.assert_agree(id).await;
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_an_event_that_is_being_aligned() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for is_cancelled in [false, true] {
        let id = rita.meet().await;
        app.fault(Call::Patch, 1, FaultKind::status(400));
        assert_eq!(rita.change(id, json!({"time": "18:00"})).await.status, 502);
        app.fault(Call::Patch, 1, FaultKind::Hold);
        let calls = app.google.requests().len();
        let person = async {
            until(|| (app.google.requests().len() > calls).then_some(())).await;
            match is_cancelled {
                true => assert_eq!(rita.cancel(id).await.status, 200),
                false => assert_eq!(rita.change(id, json!({"time": "18:00"})).await.status, 200),
            }
            app.google.let_go();
        };
        let (aligned, ()) = tokio::join!(interviews::interview::align_events(&app.ctx), person);
        aligned.unwrap();
        app.settle().await;
        assert_eq!(app.row(id).await["time"], if is_cancelled { "14:00:00" } else { "18:00:00" });
        app.assert_agree(id).await;
        rita.cancel(id).await;
    }
}

#[tokio::test]
async fn a_change_that_took_several_attempts_is_made_sure_of_when_none_can_arrive_any_more() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let patches = || app.google.requests().iter().filter(|seen| seen.call == Call::Patch).count();
    app.fault(Call::Patch, 1, FaultKind::AnswerLost);
    assert_eq!(rita.change(id, json!({"time": "18:00"})).await.status, 200);
    app.sweep().await;
    assert_eq!((patches(), app.count("ivs_change").await), (2, 1));
    assert_eq!(rita.change(id, json!({"time": "19:00"})).await.status, 200);
    app.sweep().await;
    assert_eq!((patches(), app.count("ivs_change").await), (3, 1));
    app.advance(Duration::from_secs(301));
    app.sweep().await;
    assert_eq!((patches(), app.count("ivs_change").await), (4, 0));
    app.run_jobs().await;
    app.assert_agree(id).await;
}

/// While a change waits for Google, as if its request stood still for six minutes, which another server takes for its
/// death: until nobody knows of it any more.
async fn others_settle(app: &TestApp) {
    until(|| app.google.requests().iter().any(|seen| seen.call == Call::Patch).then_some(())).await;
    for seconds in [46, 301] {
        app.advance(Duration::from_secs(seconds));
        app.sweep().await;
    }
    assert_eq!(app.count("ivs_change").await, 0);
}

#[tokio::test]
async fn what_a_change_does_at_google_after_others_have_settled_it_is_put_right() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.fault(Call::Patch, 1, FaultKind::Hold);
    let others = async {
        others_settle(&app).await;
        app.google.let_go();
    };
    let (answer, ()) = tokio::join!(rita.change(id, json!({"time": "18:00"})), others);
    assert_eq!((answer.status.as_u16(), app.row(id).await["time"].clone()), (500, json!("14:00:00")));
    app.settle().await;
    app.assert_agree(id).await;
}

#[tokio::test]
async fn what_a_change_did_at_google_is_recorded_when_the_database_is_back() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.fault(Call::Patch, 1, FaultKind::Hold);
    // Then nothing can be written for a while.
    let others = async {
        others_settle(&app).await;
        let mut blocker = app.db().begin().await.unwrap();
        sqlx::query("LOCK TABLE ivs_change IN ACCESS EXCLUSIVE MODE").execute(&mut *blocker).await.unwrap();
        app.google.let_go();
        blocker
    };
    let (answer, blocker) = tokio::join!(rita.change(id, json!({"time": "18:00"})), others);
    assert_eq!(answer.status, 503);
    blocker.rollback().await.unwrap();
    until_async(async || app.count("ivs_change").await == 1).await;
    app.settle().await;
    app.assert_agree(id).await;
}

#[tokio::test]
async fn an_event_that_a_dead_request_changes_behind_another_change_is_aligned_at_once() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    let patches = || app.google.requests().iter().filter(|seen| seen.call == Call::Patch).count();
    let mut asked = 0;
    app.google.disturb(move |call| {
        asked += usize::from(call == Call::Patch);
        match (call, asked) {
            (Call::Patch, 1) => Some(FaultKind::Hold),
            (Call::Patch, 2) => Some(FaultKind::Delay { millis: 1500 }),
            _ => None,
        }
    });
    let other = async {
        until(|| (patches() == 1).then_some(())).await;
        app.advance(Duration::from_secs(46));
        let wakes = async {
            until(|| (patches() == 2).then_some(())).await;
            app.google.let_go();
        };
        tokio::join!(rita.change(id, json!({"time": "19:00"})), wakes).0
    };
    let (dead, other) = tokio::join!(rita.change(id, json!({"time": "18:00"})), other);
    assert_eq!((dead.status.as_u16(), other.status.as_u16()), (500, 200));
    app.sweep().await;
    assert_eq!(patches(), 3);
    app.assert_agree(id).await;
    app.settle().await;
}

#[tokio::test]
async fn an_event_whose_deletion_may_not_have_happened_is_deleted_later() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    // Something between us and Google answers in its place.
    app.fault(Call::Delete, 1, FaultKind::status(200));
    assert_eq!(rita.change(id, json!({"interview_type": "phone"})).await.status, 200);
    assert_eq!((app.live().len(), app.row(id).await["google_event_id"].clone()), (1, Value::Null));
    app.advance(Duration::from_secs(31));
    app.settle().await;
    app.assert_agree(id).await;
}

#[tokio::test]
async fn trying_to_align_an_event_without_a_grant_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let id = rita.meet().await;
    app.fault(Call::Patch, 1, FaultKind::status(400));
    assert_eq!(rita.change(id, json!({"time": "18:00"})).await.status, 502);
    assert_eq!(rita.post("/api/company/google/disconnect/", json!({})).await.status, 200);
    for _ in 0..20 {
        app.advance(Duration::from_secs(301));
        app.sweep().await;
    }
    assert_eq!((app.count("ivs_intent").await, app.count("ivs_change").await), (0, 1));
    app.run_jobs().await;
    app.connected(RITA).await;
    app.advance(Duration::from_secs(301));
    app.settle().await;
    app.assert_agree(id).await;
}

#[tokio::test]
async fn an_older_mails_link_opens_the_interview_where_it_was_moved_to() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    let id = otto.phone().await;
    let link =
        app.mails(2).await[0].text().split("Portal: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    otto.change(id, json!({"date": "2031-01-16"})).await;
    app.set_now("2030-06-01T00:00:00Z");
    app.run_jobs().await;
    app.sweep().await;
    assert_eq!(app.get(&link).await.status, 200);
    app.set_now("2031-01-20T00:00:00Z");
    assert_eq!(app.get(&link).await.status, 403);
    app.sweep().await;
    assert_eq!(app.count("ivs_portal_token").await, 0);
    app.run_jobs().await;
}
