//! What every path does alike: order of checks, Django's error bodies, slashes, CORS, headers.

use reqwest::Method;
use serde_json::json;

use crate::support::*;

const OURS: &str = "http://localhost:3000";

#[tokio::test]
async fn example_6_a_missing_slash_is_redirected_for_get_and_served_for_the_rest() {
    let app = TestApp::start().await;
    let answer = app.get("/api/company/interviews?role=candidate").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (301, Some("/api/company/interviews/?role=candidate"))
    );
    let answer = app.post("/api/users/login", json!({"email": "rita@x.test", "password": PASSWORD})).await;
    assert_eq!(answer.status, 200);
    app.get("/healthz").await.assert(200, json!({"status": "ok", "tzdb": interviews::zone::tzdb_version()}));
    app.get("/api/nope").await.assert(404, json!({"detail": "Not found."}));
    assert_eq!(app.get("//evil.test/api/company/interviews").await.status, 404);
}

#[tokio::test]
async fn example_7_a_preflight_is_answered_on_every_url() {
    let app = TestApp::start().await;
    let preflight = |path: &'static str, origin: &'static str| {
        let request = app.request(Method::OPTIONS, path).header("origin", origin);
        send(request.header("access-control-request-method", "POST"))
    };
    for path in ["/nope/", "/api/company/google/create-interview/"] {
        let answer = preflight(path, OURS).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
        for (name, value) in [
            ("access-control-allow-origin", OURS),
            ("access-control-allow-credentials", "true"),
            (
                "access-control-allow-headers",
                "accept, accept-encoding, authorization, baggage, cache-control, content-type, dnt, idempotency-key, origin, pragma, sentry-trace, traceparent, tracestate, user-agent, x-csrftoken, x-requested-with",
            ),
            ("access-control-allow-methods", "DELETE, GET, OPTIONS, PATCH, POST, PUT"),
            ("access-control-max-age", "86400"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    let foreign = preflight("/nope/", "http://evil.test").await;
    assert_eq!(foreign.status, 200);
    assert!(foreign.headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{foreign:?}");
}

#[tokio::test]
async fn answers_errors_included_carry_cors_and_security_headers() {
    let app = TestApp::start().await;
    for (path, status) in [("/api/users/profile/", 401), ("/api/nope/", 404), ("/healthz", 200)] {
        let answer = send(app.request(Method::GET, path).header("origin", OURS)).await;
        assert_eq!(answer.status, status);
        for (name, value) in [
            ("access-control-allow-origin", OURS),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "Idempotency-Replayed, Link, Retry-After, X-Request-Id"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("vary", "Accept, Cookie, origin"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
        assert_eq!(answer.header("cache-control"), path.starts_with("/api").then_some("no-store"), "{path}");
    }
    let foreign = send(app.request(Method::GET, "/healthz").header("origin", "http://evil.test")).await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn existing_paths_name_their_methods() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    for (path, allow) in [
        ("/api/users/profile/", "GET, HEAD, OPTIONS"),
        ("/api/company/google/connect/", "GET, POST, HEAD, OPTIONS"),
        ("/api/company/interviews/501/", "GET, PATCH, DELETE, HEAD, OPTIONS"),
        ("/api/interviews/", "GET, HEAD, OPTIONS"),
    ] {
        assert_eq!(rita.get(path).await.header("allow"), Some(allow), "{path}");
        let put = send(rita.request(Method::PUT, path)).await;
        put.assert(405, json!({"detail": "Method \"PUT\" not allowed."}));
        assert_eq!(put.header("allow"), Some(allow), "{path}");
        let options = send(rita.request(Method::OPTIONS, path)).await;
        assert_eq!(options.status, 200);
        for key in ["name", "description", "renders", "parses"] {
            assert!(options.json().get(key).is_some(), "{path} {key}");
        }
        assert_eq!(send(app.request(Method::OPTIONS, path)).await.status, 401);
        assert_eq!(send(rita.request(Method::HEAD, path)).await.text, "");
    }
}

#[tokio::test]
async fn only_json_is_spoken() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let accepting =
        |accept: &'static str| send(rita.request(Method::GET, "/api/users/profile/").header("accept", accept));
    for accept in ["text/csv", "application/xml", "application/json;q=0"] {
        accepting(accept).await.assert(406, json!({"detail": "Could not satisfy the request Accept header."}));
    }
    for accept in ["application/json", "text/html", "*/*", "text/csv, application/*;q=0.1"] {
        let answer = accepting(accept).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, Some("application/json")),
            "{accept}"
        );
    }
    let without = send(app.request(Method::GET, "/api/users/profile/").header("accept", "text/csv")).await;
    assert_eq!(without.status, 406, "406 comes before 401");
}

#[tokio::test]
async fn paths_that_django_had_and_this_server_does_not_are_404() {
    let app = TestApp::start().await;
    for path in ["/debug-settings/", "/api/token/refresh/", "/api/token/", "/admin/"] {
        app.get(path).await.assert(404, json!({"detail": "Not found."}));
    }
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let app = TestApp::start().await;
    app.get("/readyz").await.assert(200, json!({"status": "ready"}));
    app.ctx.db.close();
    app.get("/readyz").await.assert(503, json!({"status": "unavailable"}));
    app.get("/healthz").await.assert(200, json!({"status": "ok", "tzdb": interviews::zone::tzdb_version()}));
    app.user(RITA).get("/api/users/profile/").await.assert(500, json!({"detail": "Internal server error."}));
}

#[tokio::test]
async fn the_openapi_document_lists_every_api_path_and_the_pages_show_it() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/api/users/login/",
        "/api/users/profile/",
        "/api/users/google-auth/",
        "/api/company/google/check-connection/",
        "/api/company/google/auth-url/",
        "/api/company/google/connect/",
        "/api/company/google/callback/",
        "/api/company/google/disconnect/",
        "/api/company/google/create-interview/",
        "/api/company/create-interview/",
        "/api/company/interviews/",
        "/api/company/interviews/{id}/",
        "/api/company/interviews/{id}/join/",
        "/api/company/interviews/test-connection/",
        "/api/interviews/",
        "/api/interviews/{id}/",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let mut ids: Vec<&str> = paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    assert!(paths["/api/interviews/{id}/"]["get"]["responses"]["404"].is_object());
    let login = &paths["/api/users/login/"]["post"];
    assert!(login["responses"]["429"]["headers"]["Retry-After"].is_object());
    assert_eq!(
        document["components"]["schemas"]["Credentials"]["required"],
        json!(["email", "password"]),
        "{}",
        document["components"]["schemas"]["Credentials"]
    );
    assert!(document["components"]["schemas"]["Credentials"]["properties"]["recaptchaToken"].is_object());
    for path in ["/swagger/", "/redoc/"] {
        let page = app.get(path).await;
        assert_eq!((page.status.as_u16(), page.header("content-type")), (200, Some("text/html")), "{path}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
        for part in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
            assert!(page.text.contains(part));
            assert_eq!(app.get(&format!("{path}{part}")).await.status, 200, "{part}");
        }
        assert_eq!(app.get(&format!("{path}nothing")).await.status, 404);
    }
    let served = app.get("/swagger/?format=openapi").await;
    assert_eq!(served.header("content-type"), Some("application/openapi+json"));
    assert_eq!(served.json(), document);
}
