//! A recruiter's interviews in numbers.

use std::sync::atomic::{AtomicI64, Ordering};

use interviews::interview::{Reach, fill_instants};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const ANALYTICS: &str = "/api/company/interviews/analytics/";
const REFUSAL: &str = "Only recruiters with a company can see interview analytics.";

/// Without interviews.
async fn without_interviews() -> TestApp {
    let app = TestApp::start().await;
    app.execute("DELETE FROM company_interview").await;
    app
}

/// Writes an interview of Rita and Carl as Django does, an hour from noon in UTC unless the columns say otherwise;
/// gives its id.
async fn add(app: &TestApp, date: &str, columns: Value) -> i64 {
    static ID: AtomicI64 = AtomicI64::new(2001);
    let id = ID.fetch_add(1, Ordering::Relaxed);
    let mut row = json!({"id": id, "candidate_id": CARL, "recruiter_id": RITA, "interview_type": "google_meet",
        "date": date, "time": "12:00", "timezone": "UTC", "meeting_link": "", "room_id": format!("{id:08}"),
        "created_at": NOW, "updated_at": NOW, "calendar_invite_sent": false, "portal_join_count": 0,
        "reminder_24h_sent": false, "reminder_1h_sent": false, "ical_sequence": 0});
    row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    sqlx::query("INSERT INTO company_interview SELECT * FROM jsonb_populate_record(NULL::company_interview, $1)")
        .bind(row)
        .execute(app.db())
        .await
        .unwrap();
    id
}

/// What Rita is answered, which must not depend on whether the rows have their instants yet.
async fn numbers(app: &TestApp, query: &str) -> Value {
    let rita = app.user(RITA);
    let before = rita.get(&format!("{ANALYTICS}{query}")).await;
    assert_eq!(before.status, 200, "{before:?}");
    fill_instants(&app.ctx, Reach::All).await.unwrap();
    let after = rita.get(&format!("{ANALYTICS}{query}")).await;
    assert_eq!(after.json(), before.json(), "before and after the instants were filled in");
    after.json()
}

/// The values of these keys, in their order.
fn pick(numbers: &Value, keys: &str) -> Vec<Value> {
    keys.split(' ').map(|key| numbers[key].clone()).collect()
}

#[tokio::test]
async fn everything_is_counted_at_once() {
    let app = without_interviews().await;
    let met = json!({"meeting_started_at": "2026-11-12T12:02:30Z", "meeting_ended_at": "2026-11-12T12:45:00Z"});
    add(&app, "2026-11-12", met).await;
    add(&app, "2026-11-13", json!({})).await;
    add(&app, "2026-11-16", json!({"interview_type": "phone", "meeting_started_at": "2026-11-16T12:02:30Z"})).await;
    add(&app, "2026-11-17", json!({"interview_type": "in_person"})).await;
    add(&app, "2026-11-18", json!({"cancelled_at": NOW})).await;
    add(&app, "2026-11-25", json!({"interview_type": "custom"})).await;
    let expected = json!({"total_interviews": 6, "completed_interviews": 2, "average_duration": 42.5, "no_shows": 2,
        "no_shows_confirmed": 0, "upcoming": 1, "cancelled": 1, "average_join_delay_minutes": 2.5,
        "by_type": {"google_meet": 2, "phone": 1, "in_person": 1, "custom": 1},
        "by_week": [{"week": "2026-W46", "week_start": "2026-11-09", "total": 2, "completed": 1},
            {"week": "2026-W47", "week_start": "2026-11-16", "total": 2, "completed": 1},
            {"week": "2026-W48", "week_start": "2026-11-23", "total": 1, "completed": 0}]});
    assert_eq!(numbers(&app, "").await, expected);
    app.user(RITA).get("/api/interviews/analytics/").await.assert(200, expected);
}

#[tokio::test]
async fn without_interviews_there_are_zeros_and_no_means() {
    let app = without_interviews().await;
    let nothing = json!({"total_interviews": 0, "completed_interviews": 0, "average_duration": null, "no_shows": 0,
        "no_shows_confirmed": 0, "upcoming": 0, "cancelled": 0, "average_join_delay_minutes": null,
        "by_type": {"google_meet": 0, "phone": 0, "in_person": 0, "custom": 0}, "by_week": []});
    assert_eq!(numbers(&app, "").await, nothing);
    add(&app, "2026-11-12", json!({})).await;
    assert_eq!(numbers(&app, "?from=2026-11-13").await, nothing);
}

#[tokio::test]
async fn only_recruiters_with_a_company_see_them_whatever_the_dates() {
    let app = TestApp::start().await;
    for user in [NORA, CARL] {
        for query in ["", "?from=x"] {
            app.user(user).get(&format!("{ANALYTICS}{query}")).await.assert(403, json!({ "error": REFUSAL }));
        }
    }
    // Neither does a company make a recruiter, nor does Django's flag make a company.
    app.execute("UPDATE users_user SET is_recruiter = false WHERE id = 102").await;
    app.execute("UPDATE users_user SET has_company = true WHERE id = 103").await;
    for user in [OTTO, NORA] {
        app.user(user).get(ANALYTICS).await.assert(403, json!({ "error": REFUSAL }));
    }
    app.execute("UPDATE users_user SET has_company = false WHERE id = 101").await;
    assert_eq!(app.user(RITA).get(ANALYTICS).await.status, 200);
    assert_eq!(app.get(ANALYTICS).await.status, 401);
}

#[tokio::test]
async fn malformed_and_reversed_ranges_are_refused_and_empty_dates_count_as_absent() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    for query in [
        "from=x",
        "to=x",
        "from=2026-11-20&to=2026-11-19",
        "from=2026-02-30",
        "to=2027-02-29",
        "from=2026-1-05",
        "from=2026-01-5",
        "from=0000-01-01",
        "to=10000-01-01",
        "to=20261120",
        "to=2026-W47-5",
        "from=2026-11-20T00:00:00Z",
        "from=%202026-11-20",
        "from=2026-11-20%00",
        "from=today",
        "from=null",
    ] {
        let answer = rita.get(&format!("{ANALYTICS}?{query}")).await;
        answer.assert(400, json!({"error": "Invalid date range."}));
    }
    for query in
        ["from=&to=", "from=0001-01-01&to=9999-12-31", "from=2030-01-15&to=2030-01-15", "for=x", "to=2030-01-15"]
    {
        let answer = rita.get(&format!("{ANALYTICS}?{query}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["total_interviews"]), (200, &json!(1)), "{query}");
    }
}

#[tokio::test]
async fn the_literal_path_wins_over_an_id_under_both_prefixes() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    for prefix in ["/api/company/interviews", "/api/interviews"] {
        let answer = rita.get(&format!("{prefix}/analytics/?from=2030-01-01")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["total_interviews"]), (200, &json!(1)));
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let redirect = rita.get(&format!("{prefix}/analytics?to=2030-01-01")).await;
        assert_eq!(redirect.status, 301);
        assert_eq!(redirect.header("location"), Some(&*format!("{prefix}/analytics/?to=2030-01-01")));
        let wrong = send(rita.request(Method::DELETE, &format!("{prefix}/analytics/"))).await;
        wrong.assert(405, json!({"detail": "Method \"DELETE\" not allowed."}));
    }
}

#[tokio::test]
async fn the_range_includes_both_dates_and_means_the_interviews_own() {
    let app = without_interviews().await;
    for date in ["2026-10-31", "2026-11-01", "2026-11-15", "2026-11-30", "2026-12-01"] {
        add(&app, date, json!({"interview_type": "phone"})).await;
    }
    for (query, total) in [
        ("", 5),
        ("?from=2026-11-01", 4),
        ("?to=2026-11-30", 4),
        ("?from=2026-11-01&to=2026-11-30", 3),
        ("?from=2026-11-02&to=2026-11-29", 1),
        ("?from=2026-11-15&to=2026-11-15", 1),
        ("?from=2026-11-16&to=2026-11-16", 0),
    ] {
        assert_eq!(numbers(&app, query).await["total_interviews"], total, "{query}");
    }
    // Half a day before and after that date in UTC.
    app.execute("DELETE FROM company_interview").await;
    add(&app, "2026-12-07", json!({"time": "01:00", "timezone": "Pacific/Kiritimati"})).await;
    add(&app, "2026-12-06", json!({"time": "23:30", "timezone": "Pacific/Pago_Pago"})).await;
    for (query, weeks) in [
        ("?from=2026-12-06&to=2026-12-06", json!(["2026-11-30"])),
        ("?from=2026-12-07&to=2026-12-07", json!(["2026-12-07"])),
        ("", json!(["2026-11-30", "2026-12-07"])),
    ] {
        let numbers = numbers(&app, query).await;
        let starts = numbers["by_week"].as_array().unwrap().iter().map(|week| week["week_start"].clone());
        assert_eq!(json!(starts.collect::<Vec<_>>()), weeks, "{query}");
    }
}

#[tokio::test]
async fn cancelled_interviews_count_in_the_total_and_as_cancelled_alone() {
    let app = without_interviews().await;
    for date in ["2026-11-12", "2026-11-20", "2026-12-24"] {
        let met = json!({"meeting_started_at": format!("{date}T12:05:00Z"),
            "meeting_ended_at": format!("{date}T12:45:00Z"), "cancelled_at": NOW});
        add(&app, date, met).await;
        add(&app, date, json!({"cancelled_at": NOW, "interview_type": "custom"})).await;
    }
    assert_eq!(
        numbers(&app, "").await,
        json!({"total_interviews": 6, "completed_interviews": 0, "average_duration": null, "no_shows": 0,
            "no_shows_confirmed": 0, "upcoming": 0, "cancelled": 6, "average_join_delay_minutes": null,
            "by_type": {"google_meet": 0, "phone": 0, "in_person": 0, "custom": 0}, "by_week": []})
    );
}

#[tokio::test]
async fn an_interview_is_completed_when_it_has_ended_or_has_begun_and_its_time_is_over() {
    let app = without_interviews().await;
    for (columns, now, completed) in [
        (json!({}), "2026-11-20T20:00:00Z", 0),
        (json!({"meeting_started_at": "2026-11-20T12:00:00Z"}), "2026-11-20T12:59:59Z", 0),
        (json!({"meeting_started_at": "2026-11-20T12:00:00Z"}), "2026-11-20T13:00:00Z", 1),
        (json!({"meeting_started_at": "2026-11-20T12:00:00Z", "duration_minutes": 90}), "2026-11-20T13:29:59Z", 0),
        (json!({"meeting_started_at": "2026-11-20T12:00:00Z", "duration_minutes": 90}), "2026-11-20T13:30:00Z", 1),
        (json!({"meeting_ended_at": "2026-11-20T12:10:00Z"}), "2026-11-20T12:11:00Z", 1),
        // Whoever has come and gone before the start: completed, and upcoming all the same.
        (json!({"meeting_ended_at": "2026-11-20T11:55:00Z"}), "2026-11-20T11:56:00Z", 1),
    ] {
        app.execute("DELETE FROM company_interview").await;
        add(&app, "2026-11-20", columns.clone()).await;
        app.set_now(now);
        let numbers = numbers(&app, "").await;
        assert_eq!(numbers["completed_interviews"], completed, "{columns} at {now}");
        assert_eq!(numbers["by_week"][0]["completed"], completed, "{columns} at {now}");
    }
}

#[tokio::test]
async fn an_interview_is_upcoming_until_the_instant_it_starts_wherever_it_is() {
    let app = without_interviews().await;
    add(&app, "2026-11-20", json!({"time": "09:00", "timezone": "America/New_York"})).await;
    add(&app, "2026-11-20", json!({"time": "23:00", "timezone": "Asia/Tokyo"})).await;
    // Where wall times mean UTC, since there is no such zone.
    add(&app, "2026-11-20", json!({"time": "14:00", "timezone": "Mars/Phobos"})).await;
    for (now, upcoming) in
        [("2026-11-20T13:59:59.999999Z", 3), ("2026-11-20T14:00:00Z", 0), ("2026-11-20T14:30:00Z", 0)]
    {
        app.set_now(now);
        assert_eq!(numbers(&app, "").await["upcoming"], upcoming, "{now}");
    }
}

#[tokio::test]
async fn nobody_has_stayed_away_until_the_door_has_closed() {
    for (settings, before, after) in [
        (&[][..], "2026-11-20T14:00:00Z", "2026-11-20T14:00:00.000001Z"),
        (&[("JOIN_CLOSES_MINUTES_AFTER_END", "0")], "2026-11-20T13:00:00Z", "2026-11-20T13:00:00.000001Z"),
        (&[("INTERVIEW_DURATION_MINUTES", "30")], "2026-11-20T13:30:00Z", "2026-11-20T13:30:00.000001Z"),
    ] {
        let app = TestApp::start_with(settings).await;
        app.execute("DELETE FROM company_interview").await;
        add(&app, "2026-11-20", json!({})).await;
        for (now, no_shows) in [(before, 0), (after, 1)] {
            app.set_now(now);
            let numbers = numbers(&app, "").await;
            assert_eq!(pick(&numbers, "no_shows no_shows_confirmed completed_interviews"), [no_shows, 0, 0], "{now}");
        }
    }
}

#[tokio::test]
async fn types_are_counted_and_by_phone_or_in_person_nobody_is_seen_to_stay_away() {
    let app = without_interviews().await;
    for (kind, no_shows) in [("google_meet", 1), ("custom", 1), ("phone", 0), ("in_person", 0), ("zoom", 1)] {
        app.execute("DELETE FROM company_interview").await;
        add(&app, "2026-11-12", json!({ "interview_type": kind })).await;
        let numbers = numbers(&app, "").await;
        let mut types = json!({"google_meet": 0, "phone": 0, "in_person": 0, "custom": 0});
        // What is stored as something else counts as custom, as everywhere.
        types[if kind == "zoom" { "custom" } else { kind }] = json!(1);
        assert_eq!((&numbers["by_type"], &numbers["no_shows"]), (&types, &json!(no_shows)), "{kind}");
    }
}

#[tokio::test]
async fn who_has_joined_through_the_portal_was_seen() {
    let app = without_interviews().await;
    app.set_now("2026-11-20T11:50:00Z");
    let mut interviews = [0; 5];
    for id in &mut interviews {
        *id = add(&app, "2026-11-20", json!({})).await;
    }
    let [_nobody, candidate, recruiter, both, both_otherwise] = interviews;
    for (user, id) in [
        (CARL, candidate),
        (RITA, recruiter),
        (RITA, both),
        (CARL, both),
        (CARL, both_otherwise),
        (RITA, both_otherwise),
    ] {
        for verb in ["joined", "left", "joined"] {
            let answer = app.user(user).post(&format!("/api/interviews/{id}/{verb}/"), json!({})).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    assert_eq!(pick(&numbers(&app, "").await, "no_shows no_shows_confirmed"), [0, 0]);
    app.set_now("2026-11-20T14:00:01Z");
    let keys = "total_interviews completed_interviews no_shows no_shows_confirmed";
    assert_eq!(pick(&numbers(&app, "").await, keys), [5, 4, 2, 1]);
}

#[tokio::test]
async fn who_has_joined_by_a_mailed_link_was_seen() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    let link = app.mailed_link("carl@x.test").await;
    let day = "?from=2030-02-01&to=2030-02-01";
    app.set_now("2030-02-01T21:00:01Z");
    app.run_jobs().await;
    assert_eq!(numbers(&app, day).await["no_shows"], 1);
    app.set_now("2030-02-01T21:00:00Z");
    assert_eq!(send(app.request(Method::POST, &link)).await.status, 303);
    app.set_now("2030-02-01T21:00:01Z");
    assert_eq!(numbers(&app, day).await["no_shows"], 0);
}

#[tokio::test]
async fn means_are_of_the_interviews_that_have_a_value_in_minutes_to_one_decimal() {
    let app = without_interviews().await;
    let (keys, noon) = ("average_duration average_join_delay_minutes", "2026-11-12T12:00:00Z");
    for (meetings, duration, delay) in [
        // Started when, ended when.
        (vec![(Some(noon), Some("2026-11-12T12:40:00Z"))], json!(40.0), json!(0.0)),
        (vec![(Some("2026-11-12T12:02:15Z"), None)], Value::Null, json!(2.3)),
        (vec![(None, Some("2026-11-12T12:40:00Z"))], Value::Null, Value::Null),
        (vec![(Some("2026-11-12T12:00:02.999999Z"), None)], Value::Null, json!(0.0)),
        // Early is not late, nor does it make up for others.
        (
            vec![
                (Some("2026-11-12T11:50:00Z"), Some("2026-11-12T12:40:00Z")),
                (Some("2026-11-12T12:05:00Z"), Some("2026-11-12T12:40:00Z")),
                (None, None),
            ],
            json!(42.5),
            json!(2.5),
        ),
        // Longer than a day, on several days.
        (
            vec![(Some(noon), Some("2026-11-14T12:00:00Z")), (Some("2026-11-13T12:00:00Z"), None)],
            json!(2880.0),
            json!(720.0),
        ),
        (
            vec![
                (Some(noon), Some("2026-11-12T12:01:00Z")),
                (Some(noon), Some("2026-11-12T12:01:00Z")),
                (Some(noon), Some("2026-11-12T12:02:00Z")),
            ],
            json!(1.3),
            json!(0.0),
        ),
    ] {
        app.execute("DELETE FROM company_interview").await;
        for (started, ended) in &meetings {
            add(&app, "2026-11-12", json!({"meeting_started_at": started, "meeting_ended_at": ended})).await;
        }
        assert_eq!(pick(&numbers(&app, "").await, keys), [duration, delay], "{meetings:?}");
    }
}

#[tokio::test]
async fn the_delay_counts_from_the_instant_of_the_start() {
    let app = without_interviews().await;
    let columns =
        json!({"time": "14:00", "timezone": "America/New_York", "meeting_started_at": "2026-11-12T19:10:00Z"});
    add(&app, "2026-11-12", columns).await;
    assert_eq!(numbers(&app, "").await["average_join_delay_minutes"], 10.0);
}

#[tokio::test]
async fn around_new_year_a_week_belongs_to_its_iso_year() {
    let app = without_interviews().await;
    let dates = ["2024-12-29", "2024-12-30", "2025-01-05", "2025-01-06", "2026-12-31", "2027-01-01", "2027-01-03"];
    // Not in the order of the dates.
    for date in dates.iter().rev().chain(["0001-01-01", "9999-12-31"].iter()) {
        add(&app, date, json!({"interview_type": "phone"})).await;
    }
    let numbers = numbers(&app, "").await;
    let weeks: Vec<_> =
        numbers["by_week"].as_array().unwrap().iter().map(|week| pick(week, "week week_start total")).collect();
    assert_eq!(
        json!(weeks),
        json!([
            ["0001-W01", "0001-01-01", 1],
            ["2024-W52", "2024-12-23", 1],
            ["2025-W01", "2024-12-30", 2],
            ["2025-W02", "2025-01-06", 1],
            ["2026-W53", "2026-12-28", 3],
            ["9999-W52", "9999-12-27", 1],
        ])
    );
}

#[tokio::test]
async fn interviews_of_other_recruiters_and_those_as_a_candidate_are_not_counted() {
    let app = without_interviews().await;
    for (candidate, recruiter) in [(CARL, json!(OTTO)), (CARL, Value::Null), (RITA, json!(OTTO)), (CARL, json!(RITA))] {
        add(&app, "2026-11-12", json!({"candidate_id": candidate, "recruiter_id": recruiter})).await;
    }
    assert_eq!(pick(&numbers(&app, "").await, "total_interviews no_shows"), [1, 1]);
    assert_eq!(app.user(OTTO).get(ANALYTICS).await.json()["total_interviews"], 2);
}

#[tokio::test]
async fn an_instant_that_is_missing_is_computed() {
    let app = without_interviews().await;
    let started = json!({"starts_at": "2026-11-20T10:00:00Z", "time": "10:00", "duration_minutes": 90,
        "meeting_started_at": "2026-11-20T10:01:00Z"});
    add(&app, "2026-11-20", started).await;
    add(&app, "2026-11-21", json!({"ends_at": "2026-11-21T13:00:00Z"})).await;
    add(&app, "2026-11-21", json!({"time": "02:00", "timezone": "Pacific/Kiritimati"})).await;
    let keys = "total_interviews completed_interviews upcoming average_join_delay_minutes";
    let now = |minute: &str| format!("2026-11-20T11:{minute}:00Z");
    for (minute, completed, upcoming) in [("29", 0, 2), ("30", 1, 2), ("59", 1, 2)] {
        app.set_now(&now(minute));
        app.execute("UPDATE company_interview SET ends_at = NULL WHERE date = '2026-11-20'").await;
        let expected = [json!(3), json!(completed), json!(upcoming), json!(1.0)];
        assert_eq!(pick(&numbers(&app, "").await, keys), expected, "{minute}");
    }
    app.set_now("2026-11-20T12:00:00Z");
    assert_eq!(numbers(&app, "").await["upcoming"], 1);
}

#[tokio::test]
async fn many_interviews_take_one_query_besides_the_look_up_of_the_caller_and_three_when_some_were_just_inserted() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let (answer, few) = counting_statements(rita.get(ANALYTICS)).await;
    assert_eq!((&answer.json()["total_interviews"], few), (&json!(1), 4));
    for date in ["2026-11-12", "2026-11-19", "2026-12-24"] {
        for _ in 0..40 {
            add(&app, date, json!({"portal_join_count": 1})).await;
        }
    }
    let (answer, many) = counting_statements(rita.get(ANALYTICS)).await;
    assert_eq!((&answer.json()["total_interviews"], many), (&json!(121), few));
    fill_instants(&app.ctx, Reach::All).await.unwrap();
    let (placed, one) = counting_statements(rita.get(ANALYTICS)).await;
    assert_eq!((placed.json(), one), (answer.json(), 2));
}
