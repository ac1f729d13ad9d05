//! The OpenAPI document. That every answer is as it says is checked wherever a test gets one (`support::document`).

use interviews::zone;

use crate::support::{document::DOCUMENT, *};

#[test]
fn every_operation_names_the_errors_that_its_rules_have() {
    let shared = "400 401 406 414 431 500 503";
    let body = "408 413 415";
    for (operations, own) in [
        ("POST /api/users/login/", [body, "200 403 429 503"].join(" ")),
        ("GET /api/users/profile/", "200".into()),
        ("POST /api/users/google-auth/", body.into()),
        ("GET /api/company/google/check-connection/", "200".into()),
        ("GET /api/company/google/auth-url/", "200 503".into()),
        ("GET /api/company/google/connect/", "200 302 503".into()),
        ("POST /api/company/google/connect/", "200 503".into()),
        ("GET /api/company/google/callback/", "302".into()),
        ("POST /api/company/google/disconnect/, DELETE /api/company/google/disconnect/", "200".into()),
        ("POST /api/company/google/create-interview/", [body, "200 403 404 409 422 429 502 503"].join(" ")),
        ("POST /api/company/create-interview/", [body, "201 403 404 409 422 429 502 503"].join(" ")),
        ("GET /api/interviews/, GET /api/company/interviews/", "200".into()),
        ("GET /api/interviews/{id}/, GET /api/company/interviews/{id}/", "200 403 404".into()),
        (
            "PATCH /api/interviews/{id}/, PATCH /api/company/interviews/{id}/",
            [body, "200 403 404 409 429 502 503"].join(" "),
        ),
        ("DELETE /api/interviews/{id}/, DELETE /api/company/interviews/{id}/", [body, "200 403 404 409"].join(" ")),
        (
            "POST /api/interviews/{id}/cancel/, POST /api/company/interviews/{id}/cancel/",
            [body, "200 403 404 409"].join(" "),
        ),
        ("GET /api/interviews/{id}/join/, GET /api/company/interviews/{id}/join/", "200 403 404".into()),
        ("POST /api/interviews/{id}/joined/, POST /api/company/interviews/{id}/joined/", "200 403 404 409".into()),
        ("POST /api/interviews/{id}/left/, POST /api/company/interviews/{id}/left/", "200 403 404".into()),
        ("GET /api/interviews/{id}/calendar.ics, GET /api/company/interviews/{id}/calendar.ics", "200 403 404".into()),
        ("POST /api/interviews/test-connection/, POST /api/company/interviews/test-connection/", "200".into()),
        ("GET /api/interviews/analytics/, GET /api/company/interviews/analytics/", "200 403".into()),
        ("GET /api/notifications/notifications/", "200".into()),
        ("POST /api/notifications/notifications/{nid}/read/", "200 404".into()),
    ] {
        for operation in operations.split(", ") {
            let (method, path) = operation.split_once(' ').unwrap();
            let described = &DOCUMENT["paths"][path][method.to_lowercase()]["responses"];
            let mut described: Vec<&str> = described.as_object().expect(operation).keys().map(String::as_str).collect();
            described.sort();
            let mut expected: Vec<&str> = shared.split(' ').chain(own.split(' ')).collect();
            expected.sort();
            expected.dedup();
            assert_eq!(described, expected, "{operation}");
        }
    }
}

#[test]
fn bodies_may_be_json_or_forms_and_list_what_the_server_reads() {
    let mut bodies = 0;
    for item in DOCUMENT["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|operation| operation["requestBody"].is_object()) {
            let content = operation["requestBody"]["content"].as_object().unwrap();
            let types: Vec<&str> = content.keys().map(String::as_str).collect();
            assert_eq!(types, ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]);
            bodies += 1;
        }
    }
    assert!(bodies >= 10, "{bodies}");
    let schedule = &DOCUMENT["components"]["schemas"]["ScheduleInterview"];
    for key in body(serde_json::json!({})).as_object().unwrap().keys().map(String::as_str).chain(["job_title", "note"])
    {
        assert!(schedule["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schedule["required"], serde_json::json!(["candidate_id", "date", "time"]));
}

#[test]
fn the_pattern_of_a_time_admits_what_is_parsed() {
    let pattern = &DOCUMENT["components"]["schemas"]["ScheduleInterview"]["properties"]["time"];
    let is_admitted = jsonschema::validator_for(pattern).unwrap();
    for text in [
        "14:00",
        "9:5",
        "00:00",
        "23:59:59",
        "14:00:30.5",
        "14:00:30.1234567",
        "14:00:3",
        "24:00",
        "14:60",
        "1400",
        " 14:00",
        "14:00Z",
        "14:00:",
        "",
    ] {
        assert_eq!(is_admitted.is_valid(&serde_json::json!(text)), zone::parse_time(text).is_some(), "{text}");
    }
}

#[test]
fn pages_and_probes_are_no_part_of_it() {
    assert!(DOCUMENT["paths"].as_object().unwrap().keys().all(|path| path.starts_with("/api/")));
}
