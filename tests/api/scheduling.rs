//! Scheduling: every rule of the two create endpoints, and all that a booking leaves behind.

use interviews::dev::google::{Behaviour, Call, Fault, FaultKind, Meet};
use serde_json::{Value, json};

use crate::support::*;

const UNAVAILABLE: &str = "Google Calendar is unavailable. Please try again.";

/// Nothing of a refused request is left: no row beyond the fixture's, no notification, mail, intent or claimed key.
async fn assert_nothing_written(app: &TestApp) {
    app.sweep().await;
    assert_eq!(app.count("company_interview").await, 3);
    assert_eq!(app.count("notifications_notification").await, 0);
    assert_eq!(app.count("ivs_mail WHERE kind = 'scheduled'").await, 0);
    assert_eq!(app.count("ivs_idempotency_key").await, 0);
    assert!(live_events(app).is_empty());
    assert!(app.mailbox.mails().is_empty());
}

fn live_events(app: &TestApp) -> Vec<Value> {
    app.google.events().into_iter().filter(|event| event["status"] != "cancelled").collect()
}

fn fault(on: Call, times: usize, kind: FaultKind) -> Fault {
    Fault { on, times, kind }
}

#[tokio::test]
async fn example_14_without_a_connected_calendar_the_recruiter_is_sent_to_google() {
    let app = TestApp::start().await;
    let answer = app.user(RITA).schedule(body(json!({}))).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), None);
    let answer = answer.json();
    assert_eq!(answer["error"], "Google Calendar not connected");
    assert_eq!(answer["needs_google_auth"], true);
    assert_eq!(answer["connect_url"], "/api/company/google/connect/");
    let url = answer["google_auth_url"].as_str().unwrap();
    assert!(url.starts_with(&app.ctx.settings.google_auth_uri), "{url}");
    assert_nothing_written(&app).await;
    // The URL works without any credentials of ours.
    let back = app.google.allow(url).unwrap();
    assert!(app.get(&back).await.header("location").unwrap().contains("google_oauth=success"));
    app.run_jobs().await;
}

#[tokio::test]
async fn example_15_a_google_meet_interview_is_made_everywhere_once() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let answer = rita.schedule(body(json!({}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = live_events(&app);
    let [event] = &events[..] else { panic!("{events:?}") };
    let link = event["hangoutLink"].as_str().unwrap();
    let id = answer.json()["interview_id"].as_i64().unwrap();
    assert_eq!(
        answer.json(),
        json!({"success": true, "interview_id": id, "interview_type": "google_meet", "meeting_link": link,
            "meet_link": link, "event_id": event["id"], "calendar_event_id": event["id"],
            "portal_join_url": format!("/interviews/{id}/join"), "meet_embed_url": format!("/interviews/{id}/join/"),
            "emails_sent": {"candidate": true, "recruiter": true}, "calendar_invite_sent": true, "warnings": [],
            "message": "Google Meet interview created successfully!"})
    );

    assert_eq!(event["summary"], "Interview: Software Engineer");
    assert_eq!(
        event["description"],
        "Interview scheduled for Software Engineer\nCandidate: Carl Candy\nRecruiter: Rita Recruit\n\nNote: hi"
    );
    assert_eq!(event["start"]["timeZone"], "America/New_York");
    let start: chrono::DateTime<chrono::Utc> = event["start"]["dateTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(start.to_rfc3339(), "2030-02-01T19:00:00+00:00");
    let insert = app.google.requests().into_iter().find(|call| call.call == Call::Insert).unwrap();
    assert_eq!((insert.query("sendUpdates"), insert.query("conferenceDataVersion")), (Some("none"), Some("1")));
    assert_eq!(insert.body["attendees"], json!([{"email": "carl@x.test"}, {"email": "rita@x.test"}]));
    assert_eq!(
        insert.body["reminders"],
        json!({"useDefault": false, "overrides": [{"method": "email", "minutes": 1440}, {"method": "popup", "minutes": 10}]})
    );

    let row: Value = sqlx::query_scalar("SELECT to_jsonb(i) FROM company_interview i WHERE id = $1")
        .bind(id)
        .fetch_one(app.db())
        .await
        .unwrap();
    for (column, value) in [
        ("recruiter_id", json!(RITA)),
        ("candidate_id", json!(CARL)),
        ("job_id", json!(21)),
        ("job_title", json!("Software Engineer")),
        ("interview_type", json!("google_meet")),
        ("date", json!("2030-02-01")),
        ("time", json!("14:00:00")),
        ("timezone", json!("America/New_York")),
        ("meeting_link", json!(link)),
        ("google_event_id", event["id"].clone()),
        ("note", json!("hi")),
        ("ical_uid", event["iCalUID"].clone()),
        ("ical_organizer", json!("rita@gmail.test")),
        ("ical_sequence", json!(0)),
        ("duration_minutes", Value::Null),
        ("location", Value::Null),
        ("calendar_invite_sent", json!(true)),
        ("starts_at", json!("2030-02-01T19:00:00+00:00")),
        ("ends_at", json!("2030-02-01T20:00:00+00:00")),
        ("starts_at_tzdb", json!(interviews::zone::tzdb_version())),
        ("reminder_24h_sent", json!(false)),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    let room = row["room_id"].as_str().unwrap();
    assert!(room.len() == 8 && room.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{room}");

    let notifications: Vec<Value> =
        sqlx::query_scalar("SELECT to_jsonb(n) FROM notifications_notification n").fetch_all(app.db()).await.unwrap();
    let [notification] = &notifications[..] else { panic!("{notifications:?}") };
    assert_eq!(notification["user_id"], CARL);
    assert_eq!(notification["notification_type"], "interview_scheduled");
    assert_eq!(
        notification["message"],
        "An interview has been scheduled for you for the job 'Software Engineer' at Acme."
    );
    assert_eq!(notification["action_url"], format!("/interviews/{id}"));
    assert_eq!(notification["is_read"], false);

    let mails = app.mails(2).await;
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        assert_eq!(mail.subject(), "Interview Scheduled: Software Engineer");
        assert!(mail.calendar().unwrap().text.contains("DTSTART:20300201T190000Z\r\n"));
    }
    assert_eq!(app.count("ivs_intent").await, 0);
    app.advance(std::time::Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2, "the queued jobs do not send again");
}

#[tokio::test]
async fn example_16_what_other_clients_send_is_accepted() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let answer = rita
        .schedule(json!({"candidate_id": "201", "job_title": " software engineer ", "date": "2030-02-01",
            "time": "14:00:00", "timezone": "America/New_York", "note": "hi"}))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let job: (Option<i64>, String) = sqlx::query_as("SELECT job_id, job_title FROM company_interview WHERE id = $1")
        .bind(answer.json()["interview_id"].as_i64())
        .fetch_one(app.db())
        .await
        .unwrap();
    assert_eq!(job, (Some(21), "Software Engineer".into()));
}

#[tokio::test]
async fn a_title_that_no_job_has_is_stored_as_sent() {
    let app = TestApp::start().await;
    let answer = app
        .user(RITA)
        .schedule(body(json!({"job_id": null, "job_title": " Head of <Cooking> ", "interview_type": "in_person"})))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let job: (Option<i64>, String) = sqlx::query_as("SELECT job_id, job_title FROM company_interview WHERE id = $1")
        .bind(answer.json()["interview_id"].as_i64())
        .fetch_one(app.db())
        .await
        .unwrap();
    assert_eq!(job, (None, "Head of <Cooking>".into()));
}

#[tokio::test]
async fn example_17_missing_fields_are_named_as_each_endpoint_does() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    rita.schedule(body(json!({"time": null}))).await.assert(400, json!({"error": "Missing required fields"}));
    rita.schedule_otherwise(body(json!({"time": null})))
        .await
        .assert(400, json!({"error": "The 'time' field is required."}));
    rita.schedule_otherwise(body(json!({"time": null, "date": ""})))
        .await
        .assert(400, json!({"error": "The 'date' field is required."}));
    rita.schedule_otherwise(body(json!({"candidate_id": 0})))
        .await
        .assert(400, json!({"error": "Missing required fields"}));
    rita.schedule(json!({})).await.assert(400, json!({"error": "Missing required fields"}));
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn example_18_each_malformed_field_has_its_400() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    for (field, value, text) in [
        ("candidate_id", json!("abc"), "Invalid candidate_id."),
        ("job_id", json!(true), "Invalid job_id."),
        ("company_id", json!([1]), "Invalid company_id."),
        ("date", json!("2030-02-30"), "Invalid date. Use YYYY-MM-DD."),
        ("date", json!("9999-12-31"), "Invalid date. Use YYYY-MM-DD."),
        ("time", json!("25:00"), "Invalid time. Use HH:MM."),
        ("timezone", json!("Mars/Phobos"), "Invalid timezone. Use an IANA name such as America/New_York."),
        ("timezone", json!("america/new_york"), "Invalid timezone. Use an IANA name such as America/New_York."),
        ("notes", json!(7), "Invalid note."),
        ("notes", json!("x".repeat(5001)), "Note is too long (at most 5000 characters)."),
        ("interview_type", json!("zoom"), "Invalid interview_type."),
        ("duration_minutes", json!(481), "Invalid duration_minutes. Use a whole number from 5 to 480."),
        ("location", json!("x".repeat(256)), "Invalid location."),
    ] {
        let mut changed = body(json!({"time": "23:30"}));
        changed[field] = value;
        rita.schedule(changed).await.assert(400, json!({"error": text}));
    }
    let title = body(json!({"job_id": null, "job_title": "x".repeat(256)}));
    rita.schedule(title).await.assert(400, json!({"error": "Invalid job_title."}));
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused_and_nothing_is_written() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let path = "/api/company/google/create-interview/";
    let raw = |content_type: &'static str, bytes: Vec<u8>| {
        send(rita.request(reqwest::Method::POST, path).header("content-type", content_type).body(bytes))
    };
    rita.schedule(json!([1])).await.assert(400, json!({"error": "Invalid data. Expected a JSON object."}));
    rita.schedule(json!(null)).await.assert(400, json!({"error": "Invalid data. Expected a JSON object."}));
    rita.schedule(body(json!({"notes": "a\u{0}b"})))
        .await
        .assert(400, json!({"error": "Null characters are not allowed."}));
    let bad_utf8 = raw("application/json", b"{\"notes\":\"\xff\"}".to_vec()).await;
    assert_eq!(bad_utf8.status, 400);
    assert!(bad_utf8.json()["detail"].as_str().unwrap().starts_with("JSON parse error - "), "{bad_utf8:?}");
    assert_eq!(raw("application/json", b"{\"a\":NaN}".to_vec()).await.status, 400);
    raw("text/xml", b"<a/>".to_vec())
        .await
        .assert(415, json!({"detail": "Unsupported media type \"text/xml\" in request."}));
    raw("application/json", vec![b' '; 2 << 20]).await.assert(413, json!({"detail": "Request body too large."}));
    send(rita.request(reqwest::Method::POST, path)).await.assert(400, json!({"error": "Missing required fields"}));
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn forms_are_accepted_wherever_json_is() {
    let app = TestApp::start().await;
    let form = [
        ("candidate_id", "201"),
        ("job_id", "21"),
        ("date", "2030-02-01"),
        ("time", "14:00"),
        ("timezone", "Europe/Paris"),
        ("interview_type", "phone"),
        ("duration_minutes", "45"),
    ];
    let path = "/api/company/create-interview";
    let answer = send(app.user(RITA).request(reqwest::Method::POST, path).form(&form)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test]
async fn example_19_only_recruiters_with_a_company_can_schedule() {
    let app = TestApp::start().await;
    for user in [CARL, NORA] {
        app.user(user)
            .schedule(body(json!({})))
            .await
            .assert(403, json!({"error": "Only recruiters with a company can schedule interviews."}));
    }
    app.post("/api/company/google/create-interview/", body(json!({})))
        .await
        .assert(401, json!({"detail": "Authentication credentials were not provided."}));
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn example_20_the_candidate_must_exist_and_have_applied() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let unknown = json!({"error": "Candidate not found", "detail": "No User matches the given query."});
    for (candidate, status, answer) in [
        (json!(RITA), 400, json!({"error": "You cannot schedule an interview with yourself."})),
        (json!(999), 404, unknown.clone()),
        (json!(INES), 404, unknown.clone()),
        (json!("99999999999999999999999"), 404, unknown),
        (json!(DANA), 400, json!({"error": "This candidate has not applied to this job."})),
    ] {
        rita.schedule(body(json!({"candidate_id": candidate}))).await.assert(status, answer);
    }
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn example_21_job_and_company_must_be_the_callers() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let job = json!({"error": "Job not found", "detail": "No Job matches the given query."});
    let company = json!({"error": "Company not found", "detail": "No Company matches the given query."});
    rita.schedule(body(json!({"job_id": 22}))).await.assert(404, job.clone());
    rita.schedule(body(json!({"job_id": 999}))).await.assert(404, job);
    rita.schedule(body(json!({"company_id": 12}))).await.assert(404, company);
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn example_22_a_phone_interview_warns_of_both_overlaps() {
    let app = TestApp::start().await;
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let answer = answer.json();
    for key in ["meeting_link", "meet_link", "event_id", "calendar_event_id"] {
        assert_eq!(answer[key], Value::Null, "{key}");
    }
    assert_eq!(answer["message"], "Interview created successfully");
    assert_eq!(
        answer["warnings"],
        json!(["Carl Candy already has an interview at this time.", "You already have an interview at this time."])
    );
    let stored: (String, Option<String>, String) =
        sqlx::query_as("SELECT meeting_link, google_event_id, ical_uid FROM company_interview WHERE id = $1")
            .bind(answer["interview_id"].as_i64())
            .fetch_one(app.db())
            .await
            .unwrap();
    let uid = format!("interview-{}@umemployed.com", answer["interview_id"]);
    assert_eq!(stored, (String::new(), None, uid));
    assert!(app.google.requests().is_empty());
}

#[tokio::test]
async fn example_23_the_past_only_warns() {
    let app = TestApp::start().await;
    let answer = app.user(OTTO).schedule_otherwise(phone_body(json!({"date": "2020-01-01"}))).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["warnings"]),
        (201, &json!(["The interview time is in the past."]))
    );
}

#[tokio::test]
async fn gaps_and_overlaps_of_daylight_saving_time_warn_and_are_resolved() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    for (date, time, warning, starts_at) in [
        (
            "2027-03-14",
            "02:30",
            "02:30 does not exist on 2027-03-14 in America/New_York; the interview starts at 03:30.",
            "2027-03-14T07:30:00+00:00",
        ),
        (
            "2027-11-07",
            "01:30",
            "01:30 happens twice on 2027-11-07 in America/New_York; the first one is used.",
            "2027-11-07T05:30:00+00:00",
        ),
    ] {
        let changes = json!({"date": date, "time": time, "timezone": "America/New_York"});
        let answer = otto.schedule_otherwise(phone_body(changes)).await;
        assert_eq!(answer.json()["warnings"], json!([warning]));
        let stored: chrono::DateTime<chrono::Utc> =
            sqlx::query_scalar("SELECT starts_at FROM company_interview WHERE id = $1")
                .bind(answer.json()["interview_id"].as_i64())
                .fetch_one(app.db())
                .await
                .unwrap();
        assert_eq!(stored.to_rfc3339(), starts_at);
    }
}

#[tokio::test]
async fn an_interview_that_ends_when_another_begins_does_not_overlap_it() {
    let app = TestApp::start().await;
    // 502 runs from 09:30 to 10:30.
    for (time, minutes, overlaps) in
        [("10:30", 60, false), ("08:30", 60, false), ("08:30", 61, true), ("10:29", 5, true)]
    {
        let changes = json!({"time": time, "duration_minutes": minutes});
        let answer = app.user(OTTO).schedule_otherwise(phone_body(changes)).await;
        assert_eq!(
            answer.json()["warnings"].as_array().unwrap().len(),
            if overlaps { 2 } else { 0 },
            "{time} {minutes}"
        );
        sqlx::query("DELETE FROM company_interview WHERE id > 1000").execute(app.db()).await.unwrap();
    }
}

#[tokio::test]
async fn example_24_an_idempotency_key_makes_one_interview() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let with_key = |key: &'static str, body: Value| {
        let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/");
        send(request.header("Idempotency-Key", key).json(&body))
    };
    let first = with_key("k1", body(json!({}))).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (200, None));
    let again = with_key("k1", body(json!({}))).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(again.json(), first.json());
    // Whatever the order of the keys.
    let backwards: Vec<String> =
        body(json!({})).as_object().unwrap().iter().rev().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/");
    let request = request.header("Idempotency-Key", "k1").header("content-type", "application/json");
    assert_eq!(send(request.body(format!("{{{}}}", backwards.join(",")))).await.json(), first.json());
    assert_eq!(live_events(&app).len(), 1);
    assert_eq!(app.count("company_interview").await, 4);
    assert_eq!(app.count("notifications_notification").await, 1);
    assert_eq!(app.mails(2).await.len(), 2);
    with_key("k1", body(json!({"time": "15:00"})))
        .await
        .assert(422, json!({"error": "This Idempotency-Key was already used with a different request."}));
    // Another person's key of the same name is another key; another endpoint is another request.
    let request = rita.request(reqwest::Method::POST, "/api/company/create-interview/");
    assert_eq!(send(request.header("Idempotency-Key", "k1").json(&body(json!({})))).await.status, 422);
    let request = app.user(OTTO).request(reqwest::Method::POST, "/api/company/create-interview/");
    assert_eq!(send(request.header("Idempotency-Key", "k1").json(&phone_body(json!({})))).await.status, 201);
    let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/");
    send(request.header("Idempotency-Key", "x".repeat(256)).json(&body(json!({}))))
        .await
        .assert(400, json!({"error": "Invalid Idempotency-Key header."}));
}

#[tokio::test]
async fn a_key_is_free_again_after_a_refusal_and_after_a_day() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let with_key = |body: Value| {
        let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/");
        send(request.header("Idempotency-Key", "k").json(&body))
    };
    assert_eq!(with_key(body(json!({}))).await.status, 401);
    rita.connect("rita@gmail.test").await;
    app.run_jobs().await;
    app.google.order(fault(Call::Insert, 1, FaultKind::status(400)));
    assert_eq!(with_key(body(json!({}))).await.status, 502);
    assert_eq!(with_key(body(json!({}))).await.status, 200);
    assert_eq!(with_key(body(json!({"time": "15:00"}))).await.status, 422);
    app.advance(std::time::Duration::from_secs(24 * 3600 + 1));
    assert_eq!(with_key(body(json!({"time": "15:00"}))).await.status, 200);
    app.run_jobs().await;
}

#[tokio::test]
async fn a_double_click_with_a_key_makes_one_interview() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let click = || {
        let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/");
        send(request.header("Idempotency-Key", "k").json(&body(json!({}))))
    };
    let (first, second) = tokio::join!(click(), click());
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort();
    assert!(statuses == [200, 409] || statuses == [200, 200], "{first:?} {second:?}");
    assert_eq!((live_events(&app).len(), app.count("company_interview").await), (1, 4));
}

#[tokio::test]
async fn a_request_that_hangs_holds_its_key_for_a_minute_and_can_no_longer_commit() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let with_key = || {
        let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/");
        send(request.header("Idempotency-Key", "k").json(&body(json!({}))))
    };
    app.google.order(fault(Call::Insert, 1, FaultKind::Delay { millis: 1500 }));
    let slow = with_key();
    let others = async {
        until_calls(&app, Call::Insert, 1).await;
        with_key().await.assert(409, json!({"error": "A request with this Idempotency-Key is still being processed."}));
        app.advance(std::time::Duration::from_secs(61));
        with_key().await
    };
    let (slow, second) = tokio::join!(slow, others);
    assert_eq!((slow.status.as_u16(), second.status.as_u16()), (500, 200));
    slow.assert(500, json!({"detail": "Internal server error."}));
    until_async(async || live_events(&app).len() == 1).await;
    assert_eq!(app.count("company_interview").await, 4);
}

#[tokio::test]
async fn an_event_that_a_request_makes_after_its_intent_was_forgotten_is_undone() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.fault(Call::Insert, 1, FaultKind::Hold);
    // As if the request stood still for six minutes, which another server takes for its death.
    let others = async {
        until_calls(&app, Call::Insert, 1).await;
        for seconds in [46, 300] {
            assert_eq!(app.count("ivs_intent").await, 1);
            app.advance(std::time::Duration::from_secs(seconds));
            app.sweep().await;
        }
        assert_eq!((app.count("ivs_intent").await, live_events(&app).len()), (0, 0));
        app.google.let_go();
    };
    let (answer, ()) = tokio::join!(rita.schedule(body(json!({}))), others);
    assert_eq!((answer.status.as_u16(), app.count("company_interview").await), (500, 3));
    until_async(async || app.google.events().len() == 1 && live_events(&app).is_empty()).await;
    until_async(async || app.count("ivs_intent").await == 0).await;
}

async fn until_calls(app: &TestApp, call: Call, count: usize) {
    until(|| (app.google.requests().iter().filter(|seen| seen.call == call).count() >= count).then_some(())).await
}

#[tokio::test]
async fn example_25_when_google_refuses_or_fails_nothing_is_left() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for kind in [
        FaultKind::reason(403, "forbidden"),
        FaultKind::status(400),
        FaultKind::status(500),
        FaultKind::status(503),
        FaultKind::reason(429, "rateLimitExceeded"),
        FaultKind::reason(403, "userRateLimitExceeded"),
    ] {
        app.google.order(fault(Call::Calendar, 50, kind));
        rita.schedule(body(json!({}))).await.assert(502, json!({"error": UNAVAILABLE}));
        app.google.clear_faults();
        assert_nothing_written(&app).await;
    }
    for meet in [Meet::Missing, Meet::Failure, Meet::PhoneOnly] {
        app.google.behave(Behaviour { meet, ..Behaviour::default() });
        rita.schedule(body(json!({}))).await.assert(502, json!({"error": UNAVAILABLE}));
        assert!(live_events(&app).is_empty(), "the event was deleted before the answer");
        assert_nothing_written(&app).await;
    }
}

#[tokio::test]
async fn faults_that_pass_are_survived_and_make_one_event() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for (nr, kind) in [
        FaultKind::status(500),
        FaultKind::reason(403, "rateLimitExceeded"),
        FaultKind::Status { status: 429, reason: None, retry_after: Some(1) },
        FaultKind::AnswerLost,
        FaultKind::Garbage,
    ]
    .into_iter()
    .enumerate()
    {
        app.google.order(fault(Call::Insert, 1, kind.clone()));
        let answer = rita.schedule(body(json!({"notes": format!("{kind:?}")}))).await;
        assert_eq!(answer.status, 200, "{kind:?} {answer:?}");
        assert_eq!(live_events(&app).len(), nr + 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_google_that_hangs_is_given_up_within_the_budget_and_its_event_is_undone() {
    let app = TestApp::start_with(&[("GOOGLE_BUDGET_SECONDS", "1")]).await;
    let rita = app.connected(RITA).await;
    app.google.order(fault(Call::Insert, 9, FaultKind::Hang));
    rita.schedule(body(json!({}))).await.assert(502, json!({"error": UNAVAILABLE}));
    app.google.clear_faults();
    // The effect comes after we have given up.
    app.google.order(fault(Call::Insert, 1, FaultKind::Delay { millis: 1500 }));
    rita.schedule(body(json!({}))).await.assert(502, json!({"error": UNAVAILABLE}));
    until(|| (!app.google.events().is_empty()).then_some(())).await;
    app.advance(std::time::Duration::from_secs(15 * 60));
    app.sweep().await;
    app.advance(std::time::Duration::from_secs(30 * 60));
    assert_nothing_written(&app).await;
}

#[tokio::test]
async fn example_26_an_expired_access_token_is_refreshed_once_and_kept() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.google.expire_access_tokens();
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    assert_eq!(rita.schedule(body(json!({"time": "16:00"}))).await.status, 200);
    let refreshes = app.google.requests().into_iter().filter(|call| call.call == Call::Refresh).count();
    assert_eq!(refreshes, 1);
}

#[tokio::test]
async fn the_first_video_entry_point_is_the_link() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for meet in [Meet::PhoneFirst, Meet::HangoutLinkOnly] {
        app.google.behave(Behaviour { meet, ..Behaviour::default() });
        let answer = rita.schedule(body(json!({}))).await;
        assert!(answer.json()["meeting_link"].as_str().unwrap().starts_with("https://meet.google.com/"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_a_booking() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.google.order(fault(Call::Insert, 1, FaultKind::Delay { millis: 300 }));
    let request = rita.request(reqwest::Method::POST, "/api/company/google/create-interview/").json(&body(json!({})));
    let gone = tokio::time::timeout(std::time::Duration::from_millis(150), request.send()).await;
    assert!(gone.is_err());
    assert_eq!(app.mails(2).await.len(), 2);
    assert_eq!(app.count("company_interview").await, 4);
}

#[tokio::test]
async fn the_id_in_googles_answer_is_the_one_that_is_undone() {
    use axum::{Json, Router, http::StatusCode, routing};
    // A Google that chooses the id itself, makes no link, and will not delete.
    let google = Router::new()
        .route("/calendar/v3/calendars/primary/events", routing::post(async || Json(json!({"id": "another"}))))
        .fallback(async || StatusCode::FORBIDDEN);
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, google).into_future());
    let app = TestApp::start_with(&[("GOOGLE_CALENDAR_API_BASE", &url)]).await;
    let rita = app.connected(RITA).await;
    rita.schedule(body(json!({}))).await.assert(502, json!({"error": UNAVAILABLE}));
    let noted: Vec<String> = sqlx::query_scalar("SELECT event_id FROM ivs_intent").fetch_all(app.db()).await.unwrap();
    assert_eq!(noted, ["another"]);
}

#[tokio::test]
async fn without_google_settings_meet_interviews_are_503_and_the_others_work() {
    let app = TestApp::start_with(&[("TOKEN_ENCRYPTION_KEY", "")]).await;
    let rita = app.user(RITA);
    rita.schedule(body(json!({}))).await.assert(503, json!({"error": "Google integration is not configured"}));
    assert_eq!(rita.schedule(body(json!({"interview_type": "phone"}))).await.status, 200);
    rita.get("/api/company/google/auth-url/")
        .await
        .assert(503, json!({"error": "Google integration is not configured"}));
}

#[tokio::test]
async fn without_an_smtp_server_google_invites_and_nothing_is_queued() {
    let app = TestApp::start_with(&[("EMAIL_HOST", "")]).await;
    let rita = app.connected(RITA).await;
    let answer = rita.schedule(body(json!({}))).await;
    assert_eq!(answer.json()["emails_sent"], json!({"candidate": false, "recruiter": false}));
    assert_eq!(answer.json()["calendar_invite_sent"], false);
    let insert = app.google.requests().into_iter().find(|call| call.call == Call::Insert).unwrap();
    assert_eq!(insert.query("sendUpdates"), Some("all"));
    assert_eq!(app.count("ivs_mail").await, 0);
}

#[tokio::test]
async fn the_zone_is_honoured_at_google_and_in_the_invitation() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for (date, time, zone, utc) in [
        ("2030-01-15", "14:00", "America/New_York", "20300115T190000Z"),
        ("2030-07-15", "14:00", "America/New_York", "20300715T180000Z"),
        ("2030-07-15", "14:00", "Asia/Tokyo", "20300715T050000Z"),
        ("2030-07-15", "14:00", "Asia/Kolkata", "20300715T083000Z"),
        ("2027-03-14", "02:30", "America/New_York", "20270314T073000Z"),
        ("2027-11-07", "01:30", "America/New_York", "20271107T053000Z"),
        ("2026-12-01", "09:00", "America/Vancouver", "20261201T160000Z"),
        ("2026-12-01", "09:00", "America/Edmonton", "20261201T150000Z"),
        ("2026-12-01", "09:00", "Africa/Casablanca", "20261201T090000Z"),
    ] {
        app.mailbox.clear();
        let answer = rita.schedule(body(json!({"date": date, "time": time, "timezone": zone}))).await;
        assert_eq!(answer.status, 200, "{zone} {answer:?}");
        let events = app.google.events();
        let start = &events.last().unwrap()["start"];
        let instant: chrono::DateTime<chrono::Utc> = start["dateTime"].as_str().unwrap().parse().unwrap();
        assert_eq!(instant.format("%Y%m%dT%H%M%SZ").to_string(), utc, "{zone}");
        assert_eq!(start["timeZone"], zone);
        for mail in app.mails(2).await {
            assert!(mail.calendar().unwrap().text.contains(&format!("DTSTART:{utc}\r\n")), "{zone}");
        }
    }
}

#[tokio::test]
async fn hostile_texts_are_harmless_at_google() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    let note = "<b>bold</b> & \"quoted\"\r\nBCC: x";
    assert_eq!(rita.schedule(body(json!({"notes": note}))).await.status, 200);
    let event = &app.google.events()[0];
    let description = event["description"].as_str().unwrap();
    assert!(description.contains("Note: &lt;b&gt;bold&lt;/b&gt; &amp; "), "{description}");
    let stored: String =
        sqlx::query_scalar("SELECT note FROM company_interview WHERE id > 1000").fetch_one(app.db()).await.unwrap();
    assert_eq!(stored, note);
}
