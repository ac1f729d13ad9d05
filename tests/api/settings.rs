//! Settings as an operator meets them: what is refused or warned of at the start, and what the log then holds. Real
//! processes.

use reqwest::Method;

use crate::{
    process::queue_mails,
    support::{
        process::{Server, World, program, run},
        *,
    },
};

#[tokio::test]
async fn a_secret_among_the_databases_parameters_is_refused_by_name_and_not_logged() {
    let world = World::new().await;
    let separator = if world.database.url.contains('?') { '&' } else { '?' };
    let with = |parameter| format!("{}{separator}{parameter}", world.database.url);
    for (url, fault) in [
        (with("sslpassword=topsecret"), "has a parameter that is not known here: sslpassword\n"),
        (with("sslmode=topsecret"), "has a parameter whose value cannot be used: sslmode\n"),
        (
            "postgres://u:12?topsecret&x@localhost/x".to_owned(),
            "has a parameter that is not known here: (not a name)\n",
        ),
    ] {
        let mut command = program(&["migrate"]);
        command.env("DATABASE_URL", &url).env("SECRET_KEY", SECRET_KEY);
        let output = run(command, "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("topsecret"), "{said}");
        assert!(said.contains(&format!("DATABASE_URL: {fault}")), "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_together_and_by_name() {
    let world = World::new().await;
    let settings = [
        ("PUBLIC_URL", "https://x.test/topsecret"),
        ("PORTAL_URL", "https://topsecret@x.test"),
        ("FRONTEND_URL", "https://x.test/app?topsecret"),
        ("CORS_ALLOWED_ORIGINS", "https://topsecret.*.app"),
        ("CORS_ALLOWED_HEADERS", "top secret"),
        ("KEEP_ALIVE_SECONDS", "topsecret"),
        ("PORT", "0"),
        ("EMAIL_PORT", "0"),
        ("ACCESS_TOKEN_LIFETIME", "0"),
        ("REFRESH_TOKEN_LIFETIME", "0"),
    ];
    let mut server = Server::start(world.command(&settings));
    let status = server.ended().await;
    let said = server.said();
    assert_eq!(status.code(), Some(1), "{said}");
    for (name, _) in settings {
        assert!(said.contains(&format!("\n  {name}: ")), "{name} is missing in {said}");
    }
    assert!(!said.contains("topsecret"), "{said}");
}

#[tokio::test]
async fn what_is_weak_or_half_is_warned_of_at_the_start_without_a_value() {
    let world = World::new().await;
    let weak = [
        ("SECRET_KEY", "django-insecure-topsecret"),
        ("PUBLIC_URL", "http://interviews.example.com"),
        ("GOOGLE_CLIENT_SECRET", ""),
        ("EMAIL_HOST_PASSWORD", "topsecret"),
    ];
    let server = world.serve_with(&weak).await;
    let said = server.said();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    for words in [
        "SECRET_KEY can be guessed",
        "PUBLIC_URL is not https",
        "GOOGLE_CLIENT_SECRET is not set",
        "EMAIL_HOST_USER is not set",
    ] {
        let line = warnings.iter().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("{words} is missing in {said}"));
        assert!(!line.contains("topsecret") && !line.contains("example.com"), "{line}");
    }
    assert!(!said.contains("topsecret"), "{said}");
    drop(server);
    let server = world.serve().await;
    assert!(!server.said().contains("WARN"), "{}", server.said());
}

#[tokio::test]
async fn origins_of_one_label_and_named_headers_may_call() {
    let settings = [("CORS_ALLOWED_ORIGINS", "https://*.example.app"), ("CORS_ALLOWED_HEADERS", "X-Tenant")];
    let app = TestApp::start_with(&settings).await;
    let preflight = async |origin: &str| {
        let request = app.request(Method::OPTIONS, "/api/users/profile/").header("origin", origin);
        send(request.header("access-control-request-method", "GET")).await
    };
    let allowed = preflight("https://pr-7.example.app").await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://pr-7.example.app"));
    let headers: Vec<&str> = allowed.header("access-control-allow-headers").unwrap().split(", ").collect();
    for name in
        ["authorization", "baggage", "cache-control", "pragma", "sentry-trace", "traceparent", "tracestate", "x-tenant"]
    {
        assert!(headers.contains(&name), "{name} is missing in {headers:?}");
    }
    for origin in ["https://example.app", "https://a.b.example.app", "http://a.example.app", "https://evil.test"] {
        assert_eq!(preflight(origin).await.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test]
async fn a_first_start_says_nothing_of_errors() {
    let world = World::on(database::empty().await).await;
    let server = world.serve().await;
    let said = server.said();
    assert!(said.contains("serving"), "{said}");
    for word in ["error", "ERROR", "WARN"] {
        assert!(!said.contains(word), "{word} in {said}");
    }
}

#[tokio::test]
async fn the_queues_library_writes_no_line_for_a_job_that_went_well() {
    let world = World::new().await;
    let server = world.serve().await;
    queue_mails(&world, 30).await;
    until_async(async || world.count("ivs_jobs._private_jobs").await == 0).await;
    assert_eq!(world.count("ivs_mail WHERE state = 'sent'").await, 30);
    let said = server.said();
    let (queue, all) = (said.lines().filter(|line| line.contains("graphile_worker")).count(), said.lines().count());
    assert!(said.contains("serving") && queue == 0, "{queue} of {all} lines are the queue's:\n{said}");
}

/// The lines of the README that are for nginx.
fn nginx() -> Vec<&'static str> {
    let readme = include_str!("../../README.md").split("```");
    readme.filter_map(|block| block.strip_prefix("nginx\n")).flat_map(str::lines).collect()
}

#[test]
fn the_proxys_log_of_the_readme_holds_no_query() {
    let lines = nginx();
    let format = lines.iter().position(|line| line.starts_with("log_format ")).expect("a log format of its own");
    let format: String = lines[format..].iter().take_while(|line| !line.is_empty()).copied().collect();
    for variable in [
        "$request ",
        "$request\"",
        "$request_uri",
        "$args",
        "$query_string",
        "$http_referer",
        "$http_cookie",
        "$http_authorization",
    ] {
        assert!(!format.contains(variable), "{variable} in {format}");
    }
    assert!(format.contains("$uri"), "{format}");
    let name = format.split_whitespace().nth(1).unwrap();
    assert!(lines.iter().any(|line| line.trim().starts_with("access_log ") && line.contains(name)), "{lines:?}");
}
