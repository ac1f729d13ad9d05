//! Lists, details and joining.

use chrono::{Days, NaiveDate};
use interviews::interview::{Reach, fill_instants};
use serde_json::{Value, json};

use crate::support::*;

const LIST: &str = "/api/company/interviews/";

fn ids(answer: &Answer) -> Vec<i64> {
    answer.json().as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn example_8_a_recruiters_list_is_the_array_of_the_contract() {
    let app = TestApp::start().await;
    app.user(RITA).get(&format!("{LIST}?role=recruiter")).await.assert(
        200,
        json!([{"id": 501, "candidate_name": "Carl Candy", "candidate_email": "carl@x.test",
            "recruiter_name": "Rita Recruit", "recruiter_email": "rita@x.test", "job_title": "Interview",
            "company_name": "Acme", "date": "2030-01-15", "time": "14:00", "timezone": "America/New_York",
            "interview_type": "google_meet", "meeting_link": "https://meet.google.com/abc-defg-hij", "note": "n",
            "status": "upcoming", "user_role": "recruiter", "can_join": false,
            "scheduled_time": "2030-01-15T14:00:00-05:00", "duration_minutes": 60, "location": null}]),
    );
}

#[tokio::test]
async fn example_9_a_candidate_sees_interviews_of_all_companies_latest_first() {
    let app = TestApp::start().await;
    let answer = app.user(CARL).get(LIST).await;
    assert_eq!(ids(&answer), [502, 501, 503]);
    let list = answer.json();
    assert_eq!((&list[0]["meeting_link"], &list[0]["note"]), (&Value::Null, &Value::Null));
    assert_eq!(list[0]["scheduled_time"], "2030-01-16T09:30:00+09:00");
    assert_eq!(list[0]["user_role"], "candidate");
    for (key, value) in [
        ("recruiter_name", json!("Unknown")),
        ("recruiter_email", json!("")),
        ("timezone", json!("Mars/Phobos")),
        ("status", json!("completed")),
        ("meeting_link", json!("https://meet.google.com/old-link-abc")),
        ("scheduled_time", json!("2020-01-01T10:00:00+00:00")),
        ("company_name", json!("")),
        ("note", json!("")),
        ("interview_type", json!("custom")),
    ] {
        assert_eq!(list[2][key], value, "{key}");
    }
}

#[tokio::test]
async fn example_11_nobody_sees_interviews_of_others() {
    let app = TestApp::start().await;
    for user in [DANA, NORA] {
        app.user(user).get(LIST).await.assert(200, json!([]));
    }
    // Carl applied to Acme; the company's owner still sees only his own interview with her.
    assert_eq!(ids(&app.user(RITA).get(LIST).await), [501]);
    assert_eq!(ids(&app.user(OTTO).get(LIST).await), [502]);
    assert_eq!(ids(&app.user(CARL).get(&format!("{LIST}?role=recruiter")).await), [0i64; 0]);
    assert_eq!(ids(&app.user(CARL).get(&format!("{LIST}?role=nonsense")).await), [502, 501, 503]);
}

#[tokio::test]
async fn both_mount_points_answer_alike() {
    let app = TestApp::start().await;
    let carl = app.user(CARL);
    for path in ["", "501/", "501/join/"] {
        let here = carl.get(&format!("/api/company/interviews/{path}")).await;
        let there = carl.get(&format!("/api/interviews/{path}")).await;
        assert_eq!((here.status.as_u16(), here.json()), (200, there.json()), "{path}");
    }
}

#[tokio::test]
async fn example_12_details_are_for_participants_and_hide_the_link_until_the_door_opens() {
    let app = TestApp::start().await;
    let detail = app.user(CARL).get("/api/company/interviews/501/").await;
    assert_eq!(detail.status, 200);
    let detail = detail.json();
    for (key, value) in [
        ("meeting_link", Value::Null),
        ("cancellation_reason", Value::Null),
        ("portal_join_count", json!(0)),
        ("meeting_started_at", Value::Null),
        ("meeting_ended_at", Value::Null),
        ("attendance", json!([])),
        ("id", json!(501)),
        ("can_join", json!(false)),
    ] {
        assert_eq!(detail[key], value, "{key}");
    }
    app.user(OTTO)
        .get("/api/company/interviews/501/")
        .await
        .assert(403, json!({"error": "You are not authorized to view this interview"}));
    let missing = json!({"error": "Interview not found", "detail": "No Interview matches the given query."});
    app.user(CARL).get("/api/company/interviews/999/").await.assert(404, missing.clone());
    app.user(CARL).get("/api/interviews/99999999999999999999999/").await.assert(404, missing);
    app.user(CARL).get("/api/interviews/5a/").await.assert(404, json!({"detail": "Not found."}));

    app.set_now("2030-01-15T18:45:00Z");
    let open = app.user(CARL).get("/api/company/interviews/501/").await.json();
    assert_eq!(
        (&open["can_join"], &open["meeting_link"]),
        (&json!(true), &json!("https://meet.google.com/abc-defg-hij"))
    );
}

#[tokio::test]
async fn details_show_who_was_there() {
    let app = TestApp::start().await;
    sqlx::query(
        "INSERT INTO ivs_presence (interview_id, user_id, user_role, joined_at, left_at)
         VALUES (501, 101, 'recruiter', '2030-01-15T19:01:00.5Z', NULL),
                (501, 201, 'candidate', '2030-01-15T19:00:00Z', '2030-01-15T19:30:00Z')",
    )
    .execute(app.db())
    .await
    .unwrap();
    let detail = app.user(RITA).get("/api/company/interviews/501/").await.json();
    assert_eq!(
        detail["attendance"],
        json!([{"user_role": "candidate", "joined_at": "2030-01-15T19:00:00Z", "left_at": "2030-01-15T19:30:00Z"},
            {"user_role": "recruiter", "joined_at": "2030-01-15T19:01:00.500000Z", "left_at": null}])
    );
}

#[tokio::test]
async fn example_13_joining_tells_when_and_where() {
    let app = TestApp::start().await;
    let link = "https://meet.google.com/abc-defg-hij";
    app.set_now("2030-01-15T18:00:30Z");
    app.user(CARL).get("/api/interviews/501/join/").await.assert(
        200,
        json!({"interview_id": 501, "meet_link": link, "meeting_link": link, "can_join": false,
            "meeting_status": "upcoming", "status": "upcoming", "candidate_name": "Carl Candy",
            "recruiter_name": "Rita Recruit", "job_title": "Interview", "scheduled_time": "2030-01-15T14:00:00-05:00",
            "time_until_meeting": 59, "timezone": "America/New_York", "interview_type": "google_meet",
            "location": null, "user_role": "candidate"}),
    );
    app.user(DANA)
        .get("/api/interviews/501/join/")
        .await
        .assert(403, json!({"error": "You are not authorized to join this interview"}));
}

#[tokio::test]
async fn the_door_opens_and_closes_by_the_table() {
    let app = TestApp::start().await;
    for (now, can_join, meeting_status, status, until) in [
        ("2030-01-15T18:44:59Z", false, "upcoming", "upcoming", 15),
        ("2030-01-15T18:45:00Z", true, "ready", "upcoming", 15),
        ("2030-01-15T18:59:59Z", true, "ready", "upcoming", 0),
        ("2030-01-15T19:00:00Z", true, "ready", "in_progress", 0),
        ("2030-01-15T19:59:00Z", true, "ready", "in_progress", -59),
        ("2030-01-15T20:00:00Z", true, "ready", "completed", -60),
        ("2030-01-15T21:00:00Z", true, "ready", "completed", -120),
        ("2030-01-15T21:01:00Z", false, "ended", "completed", -121),
    ] {
        app.set_now(now);
        // The token is fresh at every moment.
        let seen = app.user(RITA).get("/api/interviews/501/join/").await.json();
        assert_eq!(seen["can_join"], can_join, "{now}");
        assert_eq!(seen["meeting_status"], meeting_status, "{now}");
        assert_eq!(seen["status"], status, "{now}");
        assert_eq!(seen["time_until_meeting"], until, "{now}");
    }
}

#[tokio::test]
async fn a_cancelled_interview_stays_in_the_list_without_its_link() {
    let app = TestApp::start().await;
    sqlx::query("UPDATE company_interview SET cancelled_at = now(), cancellation_reason = 'ill' WHERE id = 501")
        .execute(app.db())
        .await
        .unwrap();
    app.set_now("2030-01-15T19:00:00Z");
    let rita = app.user(RITA);
    let list = rita.get(LIST).await.json();
    assert_eq!((&list[0]["status"], &list[0]["meeting_link"]), (&json!("cancelled"), &Value::Null));
    let detail = rita.get("/api/interviews/501/").await.json();
    assert_eq!((&detail["cancellation_reason"], &detail["can_join"]), (&json!("ill"), &json!(false)));
    let join = rita.get("/api/interviews/501/join/").await.json();
    assert_eq!((&join["meeting_status"], &join["meet_link"]), (&json!("ended"), &Value::Null));
}

#[tokio::test]
async fn reading_changes_nothing() {
    let app = TestApp::start().await;
    app.set_now("2030-01-15T19:00:00Z");
    let rows = || async {
        let rows: Vec<Value> = sqlx::query_scalar("SELECT to_jsonb(i) FROM company_interview i ORDER BY id")
            .fetch_all(app.db())
            .await
            .unwrap();
        rows
    };
    let before = rows().await;
    for path in ["", "501/", "501/join/"] {
        app.user(CARL).get(&format!("/api/interviews/{path}")).await;
    }
    assert_eq!(rows().await, before);
    assert_eq!(app.count("ivs_presence").await, 0);
}

#[tokio::test]
async fn the_device_check_is_posted_and_its_body_is_ignored() {
    let app = TestApp::start().await;
    app.user(CARL).post("/api/company/interviews/test-connection/", json!([1])).await.assert(
        200,
        json!({"connection_test": "success", "camera_access": true, "microphone_access": true, "network_quality": "good",
            "recommendations": []}),
    );
    let answer = app.user(CARL).get("/api/company/interviews/test-connection/").await;
    answer.assert(405, json!({"detail": "Method \"GET\" not allowed."}));
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
}

#[tokio::test]
async fn a_list_of_250_interviews_is_one_query_besides_the_look_up_of_the_caller() {
    let app = TestApp::start().await;
    sqlx::query(
        "INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time, timezone, meeting_link,
             room_id, created_at, updated_at)
         SELECT 201, 102, 'phone', '2030-01-01'::date + n, '09:00', 'Asia/Tokyo', '', 'R' || n, now(), now()
         FROM generate_series(1, 249) n",
    )
    .execute(app.db())
    .await
    .unwrap();
    let otto = app.user(OTTO);
    let (list, statements) = counting_statements(otto.get(LIST)).await;
    assert_eq!((ids(&list).len(), statements), (250, 2));
    for path in ["/api/interviews/502/", "/api/interviews/502/join/"] {
        assert_eq!(counting_statements(otto.get(path)).await.1, 2, "{path}");
    }
}

/// Interviews of every shape that a row of the two servers' can have, with Otto or with Carl in them.
const SHAPES: &str = "
    UPDATE users_user SET first_name = '', last_name = 'Only' WHERE id = 103;
    INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time, timezone, meeting_link, room_id,
        note, location, job_id, job_title, duration_minutes, starts_at, starts_at_tzdb, cancelled_at, created_at, updated_at)
    SELECT candidate, recruiter, kind, day, at, zone, link, 'R' || row_number() OVER (), note, place, job, title, minutes, starts_at, tzdb,
           CASE WHEN n % 7 = 0 THEN now() END, now(), now()
    FROM (VALUES (201, 102), (201, NULL), (202, 102), (102, 101), (102, 102), (201, 103), (102, NULL), (201, 201))
             AS people (candidate, recruiter),
         (VALUES (NULL, NULL), (21, NULL), (22, ''), (21, 'Another title'), (NULL, ' ')) AS jobs (job, title),
         (VALUES ('google_meet', 'https://meet.google.com/a', NULL, NULL), ('phone', '', 'n \"€\" \\ </', '+1'),
                 ('custom', '', '', ''), ('in_person', 'x', 'n', 'Rue 5'), ('unheard', 'x', NULL, NULL))
             AS kinds (kind, link, note, place),
         (VALUES ('Asia/Tokyo', date '2026-11-20', time '21:00', NULL, NULL, NULL),
                 ('Mars/Phobos', '2020-01-01', '10:00', 15, NULL, NULL), ('', '0001-01-01', '00:00', NULL, NULL, NULL),
                 ('America/New_York', '9999-12-31', '23:59:59.999999', 480, NULL, NULL),
                 ('Europe/Berlin', '2026-03-29', '02:30', 45, NULL, NULL),
                 ('Africa/Casablanca', '2031-01-01', '12:00:01', NULL, timestamptz '2031-01-01 10:00Z', '2099z'))
             AS times (zone, day, at, minutes, starts_at, tzdb),
         LATERAL (SELECT length(kind || zone || link) + COALESCE(job, 0) AS n) numbers";

#[tokio::test]
async fn every_row_of_a_list_says_what_its_own_page_says_whatever_the_row_is_like() {
    let app = TestApp::start().await;
    app.execute(SHAPES).await;
    for id in [OTTO, CARL, RITA, DANA, NORA] {
        let user = app.user(id);
        let list = user.get(LIST).await;
        let rows = list.json();
        let ordered: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM company_interview WHERE candidate_id = $1 OR recruiter_id = $1
             ORDER BY date DESC, time DESC, id DESC",
        )
        .bind(id)
        .fetch_all(app.db())
        .await
        .unwrap();
        assert_eq!(ids(&list), ordered, "of user {id}");
        // One of eleven, which meets every shape.
        for row in rows.as_array().unwrap().iter().step_by(11) {
            let detail = user.get(&format!("{LIST}{}/", row["id"])).await.json();
            for (key, value) in row.as_object().unwrap().iter().filter(|(key, _)| *key != "meeting_link") {
                assert_eq!((key, &detail[key]), (key, value), "{row}");
            }
            assert!(detail["can_join"] == false || detail["meeting_link"] == row["meeting_link"], "{row} {detail}");
        }
        // Its parts by role and by page are the same rows.
        let text = |row: &Value| row.to_string();
        for role in ["candidate", "recruiter"] {
            let own: Vec<String> = rows
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| {
                    let (mine, both) = (format!("{role}_email"), row["candidate_email"] == row["recruiter_email"]);
                    both && row[&mine] == user_email(id) || row["user_role"] == role
                })
                .map(text)
                .collect();
            let (mut seen, mut url) = (Vec::new(), Some(format!("{LIST}?role={role}&limit=37")));
            while let Some(page) = url {
                let page = user.get(&page).await;
                seen.extend(page.json().as_array().unwrap().iter().map(text));
                url = next(&page);
            }
            assert_eq!(seen, own, "user {id} as {role}");
        }
    }
}

fn user_email(id: i64) -> String {
    let name = [(RITA, "rita"), (OTTO, "otto"), (NORA, "nora"), (CARL, "carl"), (DANA, "dana")];
    format!("{}@x.test", name.iter().find(|(of, _)| *of == id).unwrap().1)
}

#[tokio::test]
async fn a_long_list_is_read_in_pieces_and_is_the_array_that_its_pages_are() {
    let app = TestApp::start().await;
    long_rows(app.db(), OTTO, 767).await;
    let otto = app.user(OTTO);
    let (list, statements) = counting_statements(otto.get(LIST)).await;
    assert_eq!((list.status.as_u16(), list.header("content-type")), (200, Some("application/json")));
    assert_eq!(list.header("content-length"), None);
    // One for the caller, and one for every 256 KiB and a row.
    let most = list.text.len().div_ceil(256 << 10);
    assert!((most..=most + 1).contains(&statements), "{statements} for {} bytes", list.text.len());
    let (mut pages, mut url) = (Vec::new(), Some(format!("{LIST}?limit=200")));
    while let Some(page) = url {
        let page = otto.get(&page).await;
        assert!(page.header("content-length").is_some());
        pages.extend(page.json().as_array().unwrap().clone());
        url = next(&page);
    }
    assert!(list.json() == Value::Array(pages), "the list and its pages differ");
    assert!(!list.text.contains(",]") && !list.text.contains(", "), "as it was written before there were pieces");
    let head = send(otto.request(reqwest::Method::HEAD, LIST)).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, Some("application/json")));
}

#[tokio::test]
async fn a_usual_list_of_256_rows_is_one_statement_and_a_longer_one_is_read_256_at_a_time() {
    let app = TestApp::start().await;
    let mut rooms = 1;
    // One of Otto's is there already.
    for (rows, pieces) in [(25, 1), (256, 1), (257, 2), (768, 3)] {
        many(&app, rooms..=rows - 1).await;
        rooms = rows;
        let (list, statements) = counting_statements(app.user(OTTO).get(LIST)).await;
        assert_eq!((ids(&list).len() as i32, statements), (rows, 1 + pieces));
        let length = (pieces == 1).then(|| list.text.len().to_string());
        assert_eq!(list.header("content-length"), length.as_deref(), "{rows} rows");
    }
}

#[tokio::test]
async fn a_page_of_long_rows_ends_at_256_kib_and_the_next_one_goes_on_there() {
    let app = TestApp::start().await;
    long_rows(app.db(), OTTO, 99).await;
    let otto = app.user(OTTO);
    let (mut seen, mut url) = (Vec::new(), Some(format!("{LIST}?limit=100")));
    let mut lengths = Vec::new();
    while let Some(page) = url {
        let page = otto.get(&page).await;
        seen.extend(ids(&page));
        lengths.push(page.text.len() >> 10);
        url = next(&page);
    }
    assert!(seen == ids(&otto.get(LIST).await) && seen.len() == 100, "{seen:?}");
    assert!(lengths.len() == 3 && lengths[..2].iter().all(|kib| (256..264).contains(kib)), "{lengths:?} KiB");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_to_its_end_breaks_off_and_is_no_shorter_list() {
    let app = TestApp::start().await;
    // More than the system keeps for a connection.
    long_rows(app.db(), OTTO, 3_000).await;
    let otto = app.user(OTTO);
    let mut answer = otto.request(reqwest::Method::GET, LIST).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    app.execute("ALTER TABLE company_interview RENAME TO away").await;
    let mut text = Vec::new();
    let broken = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => text.extend(chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "a list of {} bytes ends as if it were whole", text.len());
    assert!(serde_json::from_slice::<Value>(&text).is_err(), "{} bytes are an array", text.len());
    // What cannot be read at all is a fault from the start.
    let fault = otto.get(LIST).await;
    fault.assert(500, json!({"detail": "Internal server error."}));
    app.execute("ALTER TABLE away RENAME TO company_interview").await;
    assert_eq!(otto.get(&format!("{LIST}?limit=1")).await.status, 200);
}

#[tokio::test]
async fn the_sweep_fills_the_instants_of_rows_that_django_wrote() {
    let app = TestApp::start().await;
    let starts = || async {
        let rows: Vec<(i64, Option<chrono::DateTime<chrono::Utc>>, Option<String>)> =
            sqlx::query_as("SELECT id, starts_at, starts_at_tzdb FROM company_interview ORDER BY id")
                .fetch_all(app.db())
                .await
                .unwrap();
        rows.into_iter().map(|(id, at, version)| (id, at.map(|at| at.to_rfc3339()), version)).collect::<Vec<_>>()
    };
    let version = || Some(interviews::zone::tzdb_version().to_owned());
    app.sweep().await;
    assert_eq!(
        starts().await,
        [
            (501, Some("2030-01-15T19:00:00+00:00".into()), version()),
            (502, Some("2030-01-16T00:30:00+00:00".into()), version()),
            (503, Some("2020-01-01T10:00:00+00:00".into()), version()),
        ]
    );
    // Django moves one, and does not even touch `updated_at`.
    sqlx::query("UPDATE company_interview SET timezone = 'Asia/Kolkata' WHERE id = 501")
        .execute(app.db())
        .await
        .unwrap();
    app.sweep().await;
    assert_eq!(starts().await[0].1.as_deref(), Some("2030-01-15T08:30:00+00:00"));
}

#[tokio::test]
async fn what_django_moves_by_a_day_and_what_is_soon_is_put_right_without_looking_at_all_others() {
    let app = TestApp::start().await;
    let update = async |id: i64, date: NaiveDate, time: &str| {
        let moved =
            sqlx::query("UPDATE company_interview SET date = $2, time = $3::time, timezone = 'UTC' WHERE id = $1");
        moved.bind(id).bind(date).bind(time).execute(app.db()).await.unwrap();
    };
    let tomorrow = app.now().date_naive() + Days::new(1);
    update(502, tomorrow, "10:00").await;
    app.sweep().await;
    // From far to soon, an hour later tomorrow, and from the past to far.
    update(501, tomorrow, "12:00").await;
    update(502, tomorrow, "11:00").await;
    update(503, NaiveDate::from_ymd_opt(2030, 5, 5).unwrap(), "10:00").await;
    let are_right = async || {
        let right = "SELECT array_agg(id ORDER BY id) FROM company_interview WHERE starts_at = (date + time) AT TIME ZONE 'UTC'";
        sqlx::query_scalar::<_, Vec<i64>>(right).fetch_one(app.db()).await.unwrap()
    };
    fill_instants(&app.ctx, Reach::Soon).await.unwrap();
    assert_eq!(are_right().await, [501, 502, 503]);
    update(503, NaiveDate::from_ymd_opt(2030, 5, 5).unwrap(), "09:00").await;
    fill_instants(&app.ctx, Reach::Soon).await.unwrap();
    assert_eq!(are_right().await, [501, 502]);
    fill_instants(&app.ctx, Reach::Ahead).await.unwrap();
    assert_eq!(are_right().await, [501, 502, 503]);
}

/// Interviews at 10 in UTC on the days from 2030-02-02 on, placed by old time rules, and rightly.
const MANY: &str = "
    INSERT INTO company_interview (interview_type, date, time, timezone, note, meeting_link, room_id, recruiter_id, candidate_id,
                                   created_at, updated_at, starts_at, ends_at, starts_at_tzdb)
    SELECT 'phone', day, '10:00', 'UTC', '', '', 'R' || n, 201, 101, day, day, start, start + interval '1 hour', '2020a'
    FROM generate_series(1, 6000) n, LATERAL (SELECT date '2030-02-01' + n AS day) days,
         LATERAL (SELECT (day + time '10:00') AT TIME ZONE 'UTC' AS start) starts";

#[tokio::test]
async fn new_time_rules_are_noted_in_thousands_of_rows() {
    // A look-up of each row takes 0.2 s in all, one of each row for each other row 6 s.
    let app = TestApp::start_with(&[("DATABASE_STATEMENT_SECONDS", "3")]).await;
    sqlx::raw_sql(MANY).execute(app.db()).await.unwrap();
    fill_instants(&app.ctx, Reach::Ahead).await.unwrap();
    let old = "SELECT count(*) FROM company_interview WHERE starts_at_tzdb = '2020a'";
    assert_eq!(sqlx::query_scalar::<_, i64>(old).fetch_one(app.db()).await.unwrap(), 0);
}

#[tokio::test]
async fn misplaced_rows_are_found_by_their_index() {
    let app = TestApp::start().await;
    let mut tx = app.db().begin().await.unwrap();
    sqlx::raw_sql(MANY).execute(&mut *tx).await.unwrap();
    sqlx::raw_sql("ANALYZE company_interview").execute(&mut *tx).await.unwrap();
    // As the sweep asks.
    let query = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx"))
        .unwrap()
        .map(|file| serde_json::from_slice::<Value>(&std::fs::read(file.unwrap().path()).unwrap()).unwrap())
        .find_map(|query| query["query"].as_str().filter(|text| text.contains("'misplaced'")).map(str::to_owned))
        .expect("the query of misplaced rows");
    let explain = format!("EXPLAIN {}", query.replace("$1", "0").replace("$2", "5000"));
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *tx).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("ivs_interview_misplaced") && !plan.contains("Sort"), "{plan}");
}

fn lines(calendar: &Answer) -> Vec<String> {
    calendar.text.replace("\r\n ", "").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn example_33_an_interview_can_be_put_into_a_calendar() {
    let app = TestApp::start().await;
    let calendar = app.user(CARL).get("/api/company/interviews/501/calendar.ics").await;
    assert_eq!(calendar.status, 200);
    assert_eq!(calendar.header("content-type"), Some("text/calendar; charset=utf-8"));
    assert_eq!(calendar.header("content-disposition"), Some(r#"attachment; filename="interview.ics""#));
    assert_eq!(calendar.header("cache-control"), Some("no-store"));
    let portal = format!("{}/interviews/501/join/", app.url);
    let description = format!(
        "DESCRIPTION:Position: Interview\\nCandidate: Carl Candy\\nRecruiter: Rita Recruit\\n\
         Google Meet: https://meet.google.com/abc-defg-hij\\nNote: n\\nPortal: {portal}"
    );
    let expected = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//UmEmployed//Interview Scheduler//EN",
        "METHOD:PUBLISH",
        "BEGIN:VEVENT",
        "UID:interview-501@umemployed.com",
        "SEQUENCE:0",
        "DTSTAMP:20261120T120000Z",
        "DTSTART:20300115T190000Z",
        "DTEND:20300115T200000Z",
        "SUMMARY:Interview: Interview",
        &description,
        "LOCATION:https://meet.google.com/abc-defg-hij",
        "STATUS:CONFIRMED",
        "ORGANIZER;CN=Rita Recruit:mailto:rita@x.test",
        "ATTENDEE;CN=Carl Candy;ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:carl@x.test",
        "ATTENDEE;CN=Rita Recruit;ROLE=REQ-PARTICIPANT;PARTSTAT=ACCEPTED:mailto:rita@x.test",
        "END:VEVENT",
        "END:VCALENDAR",
    ];
    assert_eq!(lines(&calendar), expected);
}

#[tokio::test]
async fn the_calendar_file_of_a_cancelled_interview_takes_it_off() {
    let app = TestApp::start().await;
    sqlx::query("UPDATE company_interview SET cancelled_at = now(), ical_sequence = 2, ical_uid = 'evt@google.com' WHERE id = 501")
        .execute(app.db())
        .await
        .unwrap();
    let calendar = lines(&app.user(RITA).get("/api/interviews/501/calendar.ics").await);
    for line in ["METHOD:CANCEL", "STATUS:CANCELLED", "SEQUENCE:2", "UID:evt@google.com"] {
        assert!(calendar.iter().any(|found| found == line), "{line} in {calendar:?}");
    }
}

#[tokio::test]
async fn the_calendar_file_of_an_interview_without_recruiter_has_no_organizer() {
    let app = TestApp::start().await;
    let calendar = lines(&app.user(CARL).get("/api/interviews/503/calendar.ics").await);
    let people: Vec<_> =
        calendar.iter().filter(|line| line.starts_with("ORGANIZER") || line.starts_with("ATTENDEE")).collect();
    assert!(people.len() == 1 && people[0].starts_with("ATTENDEE;CN=Carl Candy;"), "{people:?}");
    let description = calendar.iter().find(|line| line.starts_with("DESCRIPTION:")).unwrap();
    assert!(description.contains(r"\nRecruiter: Unknown\n"), "{description}");
}

#[tokio::test]
async fn the_calendar_file_is_for_participants_and_answers_calendars_and_everybody_else() {
    let app = TestApp::start().await;
    let path = "/api/company/interviews/501/calendar.ics";
    let refusal = json!({"error": "You are not authorized to view this interview"});
    app.user(OTTO).get(path).await.assert(403, refusal);
    let missing = json!({"error": "Interview not found", "detail": "No Interview matches the given query."});
    app.user(CARL).get("/api/interviews/999/calendar.ics").await.assert(404, missing);
    assert_eq!(app.get(path).await.status, 401);
    assert_eq!(app.user(CARL).get(&format!("{path}/")).await.status, 404);
    for (accept, status) in
        [("text/calendar", 200), ("application/json", 200), ("text/html", 200), ("*/*", 200), ("text/csv", 406)]
    {
        let request = app.user(CARL).request(reqwest::Method::GET, path).header("accept", accept);
        assert_eq!(send(request).await.status, status, "{accept}");
    }
    let head = send(app.user(CARL).request(reqwest::Method::HEAD, path)).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, Some("text/calendar; charset=utf-8")));
}

/// The URL of `Link: <…>; rel="next"`.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?.strip_prefix('<').unwrap();
    Some(link.strip_suffix(r#">; rel="next""#).unwrap().to_owned())
}

/// Gives Otto and Carl interviews of which many are on the same day, at the same time or both.
async fn many(app: &TestApp, rooms: std::ops::RangeInclusive<i32>) {
    sqlx::query(
        "INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time, timezone, meeting_link,
             room_id, created_at, updated_at)
         SELECT 201, 102, 'phone', '2030-01-01'::date + n % 5, make_time(9 + n % 3, 0, n % 2 * 0.000001), 'Asia/Tokyo',
                '', 'R' || n, now(), now()
         FROM generate_series($1, $2) n",
    )
    .bind(rooms.start())
    .bind(rooms.end())
    .execute(app.db())
    .await
    .unwrap();
}

#[tokio::test]
async fn example_10_a_list_can_be_read_page_by_page() {
    let app = TestApp::start().await;
    let carl = app.user(CARL);
    let first = carl.get(&format!("{LIST}?limit=2")).await;
    assert_eq!(ids(&first), [502, 501]);
    let url = next(&first).unwrap();
    assert!(url.starts_with(&format!("{}{LIST}?limit=2&cursor=", app.url)), "{url}");
    let last = carl.get(&url).await;
    assert_eq!((ids(&last), next(&last)), (vec![503], None));
    // Nothing follows the last row, and without a limit there are no pages.
    assert_eq!(next(&carl.get(&format!("{LIST}?limit=3")).await), None);
    assert_eq!(next(&carl.get(LIST).await), None);
    let empty = carl.get(&format!("{LIST}?limit=&cursor=")).await;
    assert_eq!((ids(&empty).len(), next(&empty)), (3, None));
}

#[tokio::test]
async fn the_next_page_is_of_the_same_role_and_can_be_asked_for_by_browsers() {
    let app = TestApp::start().await;
    let carl = app.user(CARL);
    let url = next(&carl.get("/api/interviews/?limit=1&role=candidate").await).unwrap();
    assert!(url.starts_with(&format!("{}{LIST}?role=candidate&limit=1&cursor=", app.url)), "{url}");
    assert_eq!(ids(&carl.get(&url).await), [501]);
    let url = next(&carl.get(&format!("{LIST}?role=nonsense&limit=1")).await).unwrap();
    assert!(url.starts_with(&format!("{}{LIST}?limit=1&cursor=", app.url)), "{url}");
    let request = carl.request(reqwest::Method::GET, &format!("{LIST}?limit=1"));
    let answer = send(request.header("origin", "http://localhost:3000")).await;
    assert!(answer.header("access-control-expose-headers").unwrap().contains("Link"));
}

#[tokio::test]
async fn malformed_limits_and_cursors_are_refused() {
    let app = TestApp::start().await;
    let carl = app.user(CARL);
    for limit in ["0", "-1", "x", "1.5", "%2B1", "1e3"] {
        let answer = carl.get(&format!("{LIST}?limit={limit}&cursor=x")).await;
        answer.assert(400, json!({"error": "Invalid limit."}));
    }
    // The last one is a date that no calendar has.
    for cursor in ["x", "!", "501", "MjAzMC0wMi0zMCAxNDowMDowMCAx"] {
        carl.get(&format!("{LIST}?cursor={cursor}")).await.assert(400, json!({"error": "Invalid cursor."}));
    }
}

#[tokio::test]
async fn a_page_has_200_interviews_at_most_and_50_for_a_cursor_alone() {
    let app = TestApp::start().await;
    many(&app, 1..=260).await;
    let otto = app.user(OTTO);
    for limit in ["200", "201", "99999999999999999999"] {
        let (page, statements) = counting_statements(otto.get(&format!("{LIST}?limit={limit}"))).await;
        assert_eq!((ids(&page).len(), statements), (200, 2), "{limit}");
        let url = next(&page).unwrap();
        assert!(url.contains("?limit=200&"), "{url}");
        assert_eq!(ids(&otto.get(&url).await).len(), 61);
        let unlimited = otto.get(&url.replace("limit=200&", "")).await;
        assert_eq!(ids(&unlimited).len(), 50);
        assert!(next(&unlimited).unwrap().contains("?limit=50&"));
    }
}

#[tokio::test]
async fn pages_show_every_row_once_in_order_while_others_are_inserted() {
    let app = TestApp::start().await;
    many(&app, 1..=60).await;
    let mut inserted = 60;
    for (user, query) in [(OTTO, ""), (CARL, ""), (CARL, "role=candidate&"), (OTTO, "role=recruiter&")] {
        for limit in [1, 7, 60, 61] {
            let user = app.user(user);
            let before = ids(&user.get(&format!("{LIST}?{query}")).await);
            let (mut seen, mut url) = (Vec::new(), Some(format!("{LIST}?{query}limit={limit}")));
            while let Some(page) = url {
                let page = user.get(&page).await;
                seen.extend(ids(&page));
                url = next(&page);
                // Rows come in everywhere: before, among and after what has been shown.
                many(&app, inserted + 1..=inserted + 1).await;
                inserted += 1;
            }
            let mut once = seen.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), seen.len(), "limit {limit}: twice in {seen:?}");
            let old: Vec<i64> = seen.iter().copied().filter(|id| before.contains(id)).collect();
            assert_eq!(old, before, "limit {limit}");
            sqlx::query("DELETE FROM company_interview WHERE room_id LIKE 'R%' AND substr(room_id, 2)::int > 60")
                .execute(app.db())
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn somebody_who_is_both_sides_sees_the_interview_once() {
    let app = TestApp::start().await;
    sqlx::query("UPDATE company_interview SET recruiter_id = 201 WHERE id IN (501, 502)")
        .execute(app.db())
        .await
        .unwrap();
    let carl = app.user(CARL);
    assert_eq!(ids(&carl.get(LIST).await), [502, 501, 503]);
    let first = carl.get(&format!("{LIST}?limit=1")).await;
    let second = carl.get(&next(&first).unwrap()).await;
    let third = carl.get(&next(&second).unwrap()).await;
    assert_eq!([ids(&first), ids(&second), ids(&third)], [[502], [501], [503]]);
    assert_eq!(next(&third), None);
}
