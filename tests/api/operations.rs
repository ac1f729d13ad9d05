//! What an operator is told: metrics, probes, and the commands that show mails and jobs and set them going again.

use std::{
    collections::BTreeSet,
    process::Output,
    time::{Duration, Instant},
};

use interviews::{
    config::PoolLimits,
    db,
    dev::{
        google::{Call, Fault, FaultKind},
        mailbox::{self, Step},
    },
    jobs::{self, Job},
    mail, operations,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    process::{World, program, run},
    *,
};

/// The number in the line of a scrape that begins so; nothing where there is no such line.
fn metric(text: &str, series: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(rest.parse().unwrap())
}

/// Every pair of a label and its value.
fn labels(text: &str) -> BTreeSet<(String, String)> {
    let sets = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('{'));
    let mut labels = BTreeSet::new();
    for (_, set) in sets {
        let set = set.rsplit_once("\"}").unwrap().0;
        for pair in set.split("\",") {
            let (name, value) = pair.split_once("=\"").unwrap();
            labels.insert((name.to_owned(), value.to_owned()));
        }
    }
    labels
}

#[tokio::test]
async fn every_answer_is_counted_under_its_template_and_nothing_that_clients_invent_becomes_a_label() {
    let app = TestApp::start().await;
    app.post("/api/users/login/", json!({"email": "rita@x.test", "password": PASSWORD})).await;
    app.post("/api/users/login/", json!({"email": "rita@x.test", "password": "wrong"})).await;
    for path in ["/nope/4711/", "/?secret=4711", "/api/interviews/rita@x.test/"] {
        app.get(path).await;
    }
    for id in [501, 502, 4711] {
        app.user(RITA).get(&format!("/api/company/interviews/{id}/")).await;
    }
    send(app.request(Method::from_bytes(b"BREW").unwrap(), "/nope/")).await;
    for path in ["/nope/", "/api/users/login/"] {
        let preflight = app.request(Method::OPTIONS, path).header("origin", "http://localhost:3000");
        send(preflight.header("access-control-request-method", "POST")).await;
    }
    app.get("/metrics").await;

    let text = app.get("/metrics").await.text;
    for (method, route, status, count) in [
        ("POST", "/api/users/login/", 200, 1.0),
        ("POST", "/api/users/login/", 400, 1.0),
        ("GET", "unmatched", 404, 2.0),
        ("GET", "/", 302, 1.0),
        ("GET", "/api/company/interviews/{id}/", 200, 1.0),
        ("other", "unmatched", 404, 1.0),
        ("OPTIONS", "unmatched", 200, 1.0),
        ("OPTIONS", "/api/users/login/", 200, 1.0),
        ("GET", "/metrics", 200, 1.0),
    ] {
        let series = format!("http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(metric(&text, &series), Some(count), "{series} in\n{text}");
    }
    let one = "{method=\"POST\",route=\"/api/users/login/\"}";
    // A scrape does not count its own, and a connection is given back a moment after its use.
    let in_use = async || metric(&app.get("/metrics").await.text, "database_connections{state=\"in_use\"}");
    until_async(async || in_use().await == Some(0.0)).await;
    assert_eq!(metric(&text, &format!("http_request_duration_seconds_count{one}")), Some(2.0));
    assert!(metric(&text, &format!("http_request_duration_seconds_sum{one}")).unwrap() > 0.0);

    let documented = app.get("/openapi.json").await.json();
    for (name, value) in labels(&text) {
        let is_known = match name.as_str() {
            "route" => ["unmatched", "/metrics", "/"].contains(&&*value) || !documented["paths"][&value].is_null(),
            "status" => (200..600).contains(&value.parse().unwrap()),
            "method" => ["GET", "POST", "OPTIONS", "other"].contains(&value.as_str()),
            "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
            "state" => ["in_use", "idle", "failed", "running", "due", "waiting"].contains(&value.as_str()),
            "outcome" => ["success", "wrong"].contains(&value.as_str()),
            "kind" | "event" => value.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            _ => false,
        };
        assert!(is_known, "{name}=\"{value}\"");
    }
    assert!(!text.contains("4711") && !text.contains('@'), "{text}");
}

#[tokio::test]
async fn metrics_are_prometheus_text_for_every_caller_and_every_accept() {
    let app = TestApp::start().await;
    for accept in ["*/*", "text/csv", "application/openmetrics-text; version=1.0.0"] {
        let answer = send(app.request(Method::GET, "/metrics").header("accept", accept)).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/plain; version=0.0.4")));
        assert_eq!(metric(&answer.text, "database_up"), Some(1.0), "{answer:?}");
    }
    let head = send(app.request(Method::HEAD, "/metrics")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.header("content-type"), Some("text/plain; version=0.0.4"));
    assert_eq!(app.post("/metrics", json!({})).await.status, 405);
}

#[tokio::test]
async fn each_attempt_at_a_call_to_google_is_counted_by_its_outcome() {
    let app = TestApp::start_with(&[("GOOGLE_BUDGET_SECONDS", "2")]).await;
    let rita = app.connected(RITA).await;
    let fault = |kind| Fault { on: Call::Insert, times: 1, kind };
    app.google.order(fault(FaultKind::status(500)));
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    app.google.order(fault(FaultKind::reason(403, "forbidden")));
    assert_ne!(rita.schedule(body(json!({"date": "2030-02-02"}))).await.status, 200);
    app.google.order(fault(FaultKind::Hang));
    assert_ne!(rita.schedule(body(json!({"date": "2030-02-03"}))).await.status, 200);
    assert_eq!(send(rita.request(Method::DELETE, "/api/company/google/disconnect/")).await.status, 200);
    let text = app.get("/metrics").await.text;
    for (operation, outcome) in [
        ("token.exchange", "ok"),
        ("events.insert", "ok"),
        ("events.insert", "failed"),
        ("events.insert", "refused"),
        ("events.insert", "timeout"),
        ("token.revoke", "ok"),
    ] {
        let series = format!("google_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}");
        assert_eq!(metric(&text, &series), Some(1.0), "{series} in\n{text}");
    }
    app.advance(Duration::from_secs(60));
    app.sweep().await;
    app.run_jobs().await;
}

#[tokio::test]
async fn each_try_of_a_mail_is_counted_by_its_outcome_and_what_waits_is_told() {
    let app = TestApp::start().await;
    let told = async |series: &str| {
        let text = app.get("/metrics").await.text;
        metric(&text, series).unwrap_or_else(|| panic!("{series} is missing in\n{text}"))
    };
    let tries = async |outcome| told(&format!("emails_total{{kind=\"scheduled\",outcome=\"{outcome}\"}}")).await;
    // One of the two meets the one, the other the other.
    app.mailbox.order(Step::Sender, mailbox::Fault::Answer(451), 1);
    app.mailbox.order(Step::Recipient, mailbox::Fault::Answer(550), 1);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!((tries("later").await, tries("refused").await), (1.0, 1.0));
    assert_eq!(told("emails_queued{kind=\"scheduled\"}").await, 1.0);
    assert_eq!(told("emails_queued{kind=\"google_connected\"}").await, 0.0);
    assert_eq!(told("jobs{state=\"failed\"}").await, 0.0);

    app.user(OTTO).schedule_otherwise(phone_body(json!({"date": "2030-03-16"}))).await;
    assert_eq!(tries("sent").await, 2.0);
    sqlx::query("UPDATE company_interview SET ical_sequence = 1 WHERE id > 1000").execute(app.db()).await.unwrap();
    app.advance(Duration::from_secs(60));
    assert_eq!(told("jobs{state=\"due\"}").await, 4.0, "those of the mails that were sent at once are there too");
    app.run_jobs().await;
    assert_eq!((tries("dropped").await, tries("sent").await), (1.0, 2.0));

    app.mailbox.order(Step::Sender, mailbox::Fault::Answer(451), 10_000);
    sqlx::query("DELETE FROM ivs_mail").execute(app.db()).await.unwrap();
    app.user(OTTO).schedule_otherwise(phone_body(json!({"date": "2030-04-16"}))).await;
    // One is given up by its job, the other by the sweep, as if its job had been lost.
    sqlx::query("DELETE FROM ivs_jobs._private_jobs WHERE id = (SELECT max(id) FROM ivs_jobs._private_jobs)")
        .execute(app.db())
        .await
        .unwrap();
    app.advance(Duration::from_secs(26 * 3600));
    app.run_jobs().await;
    assert_eq!(tries("expired").await, 1.0);
    app.sweep().await;
    assert_eq!(tries("expired").await, 2.0);
    assert_eq!(told("emails_queued{kind=\"scheduled\"}").await, 0.0);
}

#[tokio::test]
async fn a_scrape_without_a_database_says_so_and_tells_the_rest() {
    let app = TestApp::start().await;
    app.get("/healthz").await;
    app.ctx.db.close();
    let answer = app.get("/metrics").await;
    assert_eq!((answer.status.as_u16(), metric(&answer.text, "database_up")), (200, Some(0.0)), "{answer:?}");
    let probe = "http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"}";
    assert_eq!(metric(&answer.text, probe), Some(1.0));
    assert!(!answer.text.contains("jobs{") && !answer.text.contains("emails_queued{"), "{answer:?}");
}

#[tokio::test]
async fn a_scrape_is_answered_soon_while_all_connections_are_in_use() {
    let app = TestApp::start().await;
    let most = app.ctx.db.most();
    let mut held = vec![app.ctx.db.probing().acquire().await.unwrap()];
    for _ in 1..most {
        held.push(app.ctx.db.reserved().acquire().await.unwrap());
    }
    let begun = Instant::now();
    let text = app.get("/metrics").await.text;
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(metric(&text, "database_up"), Some(0.0), "{text}");
    for (series, count) in [
        ("database_connections{state=\"in_use\"}", most),
        ("database_connections{state=\"idle\"}", 0),
        ("database_connections_max", most),
    ] {
        assert_eq!(metric(&text, series), Some(count as f64), "{series} in\n{text}");
    }
}

#[tokio::test]
async fn the_limits_of_the_pool_are_those_that_are_set() {
    let database = database::empty().await;
    let second = Duration::from_secs(1);
    let limits = PoolLimits { connections: 1, acquire: second, statement: second };
    let pool = db::connect(&database.url, limits).await.unwrap();
    let mut held = pool.acquire().await.unwrap();
    let begun = Instant::now();
    assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
    assert!(begun.elapsed() < 4 * second);
    assert!(sqlx::query("SELECT pg_sleep(20)").execute(&mut *held).await.is_err());
    assert!(begun.elapsed() < 10 * second);
}

#[tokio::test]
async fn without_one_of_its_migrations_an_instance_is_not_ready_and_commands_are_refused() {
    let app = TestApp::start().await;
    app.get("/readyz").await.assert(200, json!({"status": "ready"}));
    app.execute("DELETE FROM ivs_migrations WHERE version = 13").await;
    assert_eq!(app.get("/readyz").await.status, 503);
    let world = World::new().await;
    sqlx::query("DELETE FROM ivs_migrations WHERE version = 13").execute(&world.database.pool).await.unwrap();
    assert_eq!(refused(&world, &["jobs"]), "the database is not up to date: run `interviews migrate`");
}

#[tokio::test]
async fn a_mail_that_is_sent_again_gets_a_day_of_its_own() {
    let app = TestApp::start().await;
    let states = async || -> Vec<String> {
        sqlx::query_scalar("SELECT state FROM ivs_mail ORDER BY state").fetch_all(app.db()).await.unwrap()
    };
    app.mailbox.order(Step::Connect, mailbox::Fault::Close, 10_000);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    app.advance(Duration::from_secs(25 * 3600));
    app.run_jobs().await;
    assert_eq!(states().await, ["expired", "expired"]);

    let ids: Vec<String> = sqlx::query_scalar("SELECT id::text FROM ivs_mail").fetch_all(app.db()).await.unwrap();
    for id in &ids {
        let said = operations::resend_mail(app.db(), id, app.now()).await.unwrap();
        assert_eq!(said, format!("Mail {id} was expired; it is queued again and due now.\n"));
    }
    app.run_jobs().await;
    app.sweep().await;
    assert_eq!(states().await, ["queued", "queued"], "its day has begun anew");
    app.advance(Duration::from_secs(23 * 3600));
    app.run_jobs().await;
    app.sweep().await;
    assert_eq!(states().await, ["queued", "queued"]);
    app.mailbox.release();
    app.advance(Duration::from_secs(1800));
    app.run_jobs().await;
    assert_eq!((states().await, app.mailbox.mails().len()), (vec!["sent".to_owned(); 2], 2));

    app.advance(Duration::from_secs(89 * 24 * 3600));
    app.sweep().await;
    assert_eq!(states().await.len(), 2, "it is kept for 90 days from then on");
    app.advance(Duration::from_secs(2 * 24 * 3600));
    app.sweep().await;
    assert_eq!(states().await.len(), 0);
}

/// A command of the program, beside a server with the same settings.
fn command(world: &World, arguments: &[&str]) -> Output {
    let mut command = program(arguments);
    command.env("DATABASE_URL", &world.database.url).env("SECRET_KEY", SECRET_KEY);
    run(command, "")
}

/// What a command that went well has said.
#[track_caller]
fn said(world: &World, arguments: &[&str]) -> String {
    let output = command(world, arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The sentence of one that did not.
#[track_caller]
fn refused(world: &World, arguments: &[&str]) -> String {
    let output = command(world, arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{output:?}");
    String::from_utf8(output.stderr).unwrap().trim_end().trim_start_matches("interviews: ").to_owned()
}

/// Otto schedules an interview by phone, on this day of February 2030.
async fn schedule(world: &World, day: u32) -> i64 {
    let token = access_token(interviews::clock::Clock::System.now(), OTTO);
    let request = reqwest::Client::new().post(format!("{}/api/company/create-interview/", world.url()));
    let body = phone_body(json!({"date": format!("2030-02-{day:02}")}));
    let answer = request.bearer_auth(token).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json::<Value>().await.unwrap()["interview_id"].as_i64().unwrap()
}

async fn scrape(world: &World) -> String {
    reqwest::get(format!("{}/metrics", world.url())).await.unwrap().text().await.unwrap()
}

/// The words of the table's lines below its head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn while_the_mail_server_is_down_metrics_and_commands_say_what_waits_and_then_each_pair_arrives_once() {
    let world = World::new().await;
    let _server = world.serve().await;
    world.mailbox.order(Step::Connect, mailbox::Fault::Close, 10_000);
    let mut interviews = Vec::new();
    for day in [1, 2, 3] {
        interviews.push(schedule(&world, day).await);
    }
    let text = scrape(&world).await;
    assert_eq!(metric(&text, "emails_queued{kind=\"scheduled\"}"), Some(6.0), "{text}");
    assert_eq!(metric(&text, "emails_total{kind=\"scheduled\",outcome=\"later\"}"), Some(6.0), "{text}");
    assert_eq!(metric(&text, "emails_total{kind=\"scheduled\",outcome=\"sent\"}"), None, "{text}");
    assert_eq!(metric(&text, "jobs{state=\"waiting\"}"), Some(6.0), "{text}");
    assert_eq!(rows(&said(&world, &["jobs"])).len(), 6);

    let table = said(&world, &["mails", "--state", "queued"]);
    let found = rows(&table);
    assert_eq!(found.len(), 6, "{table}");
    for row in &found {
        let [id, _day, _time, kind, interview, to, state, tries, error @ ..] = row.as_slice() else {
            panic!("{table}")
        };
        assert_eq!((id.len(), *kind, *state, *tries), (8, "scheduled", "queued", "1"), "{table}");
        assert!(interviews.contains(&interview.parse().unwrap()), "{table}");
        assert!(["c***@x.test", "o***@x.test"].contains(to), "{table}");
        assert_eq!(error.join(" "), "connecting: no answer", "{table}");
    }
    assert_eq!(said(&world, &["mails", "--state", "sent"]).lines().count(), 1, "the head alone");
    let of_one = said(&world, &["mails", "--interview", &interviews[1].to_string()]);
    assert_eq!(rows(&of_one).len(), 2, "{of_one}");
    assert_eq!(rows(&said(&world, &["mails", "--limit", "4"])).len(), 4);

    // One of them need not wait until the others are tried again.
    world.mailbox.release();
    let hurried = said(&world, &["mails", "resend", found[0][0]]);
    assert!(
        hurried.contains(" is still queued; its next try, at 20") && hurried.ends_with(" is due now.\n"),
        "{hurried}"
    );
    until(|| (world.mailbox.mails().len() == 1).then_some(())).await;
    world.let_a_minute_pass().await;
    until_async(async || world.count("ivs_mail WHERE state = 'sent'").await == 6).await;
    until_async(async || world.count("ivs_jobs._private_jobs").await == 0).await;
    let mails = world.mailbox.mails();
    let ids: BTreeSet<_> = mails.iter().map(|mail| mail.header("Message-ID").unwrap()).collect();
    assert_eq!((mails.len(), ids.len()), (6, 6));
    for address in ["carl@x.test", "otto@x.test"] {
        assert_eq!(mails.iter().filter(|mail| mail.to() == [address]).count(), 3);
    }
    let text = scrape(&world).await;
    assert_eq!(metric(&text, "emails_queued{kind=\"scheduled\"}"), Some(0.0), "{text}");
    assert_eq!(metric(&text, "emails_total{kind=\"scheduled\",outcome=\"sent\"}"), Some(6.0), "{text}");
    assert_eq!(rows(&said(&world, &["mails", "--state", "sent"])).len(), 6);
    assert_eq!(rows(&said(&world, &["jobs"])).len(), 0);
}

#[tokio::test]
async fn a_refused_mail_is_shown_with_its_reason_and_arrives_when_it_is_sent_again() {
    let world = World::new().await;
    let _server = world.serve().await;
    world.mailbox.order(Step::Recipient, mailbox::Fault::Answer(550), 2);
    let interview = schedule(&world, 1).await;
    let table = said(&world, &["mails"]);
    let found = rows(&table);
    assert_eq!(found.len(), 2, "{table}");
    assert!(found.iter().all(|row| row[6] == "refused" && row[8..].join(" ").starts_with("RCPT TO: 550")), "{table}");
    assert!(!table.contains("carl@") && !table.contains("otto@"), "{table}");

    let id = found[0][0];
    let again = said(&world, &["mails", "resend", id]);
    assert!(
        again.starts_with(&format!("Mail {id}")) && again.ends_with(" was refused; it is queued again and due now.\n")
    );
    until_async(async || world.count("ivs_mail WHERE state = 'sent'").await == 1).await;
    let first = world.mailbox.mails().remove(0);

    let copy = said(&world, &["mails", "resend", id]);
    assert!(copy.ends_with(" was sent already; a second copy, with the same Message-ID, is due now.\n"), "{copy}");
    until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
    let second = world.mailbox.mails().remove(1);
    assert_eq!((second.to(), second.header("Message-ID")), (first.to(), first.header("Message-ID")));
    until_async(async || world.count("ivs_mail WHERE state = 'sent'").await == 1).await;

    sqlx::query("UPDATE company_interview SET ical_sequence = 1 WHERE id = $1")
        .bind(interview)
        .execute(&world.database.pool)
        .await
        .unwrap();
    let outdated = refused(&world, &["mails", "resend", id]);
    assert!(outdated.contains("would be dropped: the interview has changed or begun since"), "{outdated}");
    assert_eq!(world.count("ivs_mail WHERE state = 'queued'").await, 0);
}

#[tokio::test]
async fn a_failed_job_is_listed_and_runs_when_it_is_told_to() {
    let world = World::new().await;
    let _server = world.serve().await;
    world.mailbox.order(Step::Connect, mailbox::Fault::Close, 10_000);
    schedule(&world, 1).await;
    sqlx::query("UPDATE ivs_jobs._private_jobs SET attempts = max_attempts, last_error = 'the job panicked'")
        .execute(&world.database.pool)
        .await
        .unwrap();
    world.mailbox.release();
    let text = scrape(&world).await;
    assert_eq!(metric(&text, "jobs{state=\"failed\"}"), Some(2.0), "{text}");
    let table = said(&world, &["jobs"]);
    let lines: Vec<&str> = table.lines().skip(1).collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!((&words[1..3], words[3].len(), words[6]), (&["failed", "send_mail"][..], 36, "25/25"), "{table}");
    assert!(table.contains("the job panicked") && table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert_eq!(world.count("ivs_mail WHERE state = 'queued'").await, 2);

    let retried = said(&world, &["jobs", "retry", words[0]]);
    assert_eq!(retried, format!("Job {} is due now.\n", words[0]));
    until(|| (world.mailbox.mails().len() == 1).then_some(())).await;
    until_async(async || world.count("ivs_jobs._private_jobs").await == 1).await;
    assert_eq!(refused(&world, &["jobs", "retry", words[0]]), format!("there is no job {}", words[0]));
    sqlx::query("UPDATE ivs_jobs._private_jobs SET attempts = 0, run_at = now() + interval '1 hour'")
        .execute(&world.database.pool)
        .await
        .unwrap();
    let waiting: i64 =
        sqlx::query_scalar("SELECT id FROM ivs_jobs._private_jobs").fetch_one(&world.database.pool).await.unwrap();
    let said = refused(&world, &["jobs", "retry", &waiting.to_string()]);
    assert_eq!(said, format!("job {waiting} has not failed: it is waiting"));
}

#[tokio::test]
async fn a_job_that_met_a_fault_says_so_while_it_waits() {
    let world = World::new().await;
    let _server = world.serve().await;
    world.mailbox.order(Step::Connect, mailbox::Fault::Close, 10_000);
    schedule(&world, 1).await;
    world.mailbox.release();
    // A kind of a version to come: it cannot be rendered here.
    sqlx::query("UPDATE ivs_mail SET kind = 'poem'").execute(&world.database.pool).await.unwrap();
    world.let_a_minute_pass().await;
    let noted = "ivs_jobs._private_jobs WHERE run_at > now() AND last_error LIKE '%see the log%'";
    until_async(async || world.count(noted).await == 2).await;
    assert_eq!(said(&world, &["jobs"]).matches("the last run failed, see the log").count(), 2);
    assert_eq!(metric(&scrape(&world).await, "emails_queued{kind=\"scheduled\"}"), Some(0.0));
}

#[tokio::test]
async fn a_run_that_was_replaced_and_whose_process_died_is_forgotten() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Connect, mailbox::Fault::Close, 10_000);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    app.mailbox.release();
    let jobs = async || app.count("ivs_jobs._private_jobs").await;
    assert_eq!(jobs().await, 2);
    app.execute("UPDATE ivs_jobs._private_jobs SET locked_at = now(), locked_by = 'a process'").await;
    let mail = sqlx::query_scalar("SELECT id FROM ivs_mail LIMIT 1").fetch_one(app.db()).await.unwrap();
    let again = [Job::SendMail { mail }];
    jobs::enqueue(&mut app.db().acquire().await.unwrap(), &again, app.now()).await.unwrap();
    app.sweep().await;
    assert_eq!(jobs().await, 3);
    app.execute("UPDATE ivs_jobs._private_jobs SET locked_at = NULL, locked_by = NULL").await;
    app.sweep().await;
    assert_eq!(jobs().await, 2);
    app.advance(Duration::from_secs(60));
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2);
}

#[tokio::test]
async fn a_mail_that_waits_without_a_job_gets_one_and_one_whose_job_has_failed_does_not() {
    let app = TestApp::start().await;
    app.mailbox.order(Step::Connect, mailbox::Fault::Close, 10_000);
    app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await;
    app.mailbox.release();
    app.execute("UPDATE ivs_jobs._private_jobs SET attempts = max_attempts").await;
    app.execute("DELETE FROM ivs_jobs._private_jobs WHERE id = (SELECT min(id) FROM ivs_jobs._private_jobs)").await;
    app.sweep().await;
    assert_eq!(app.count("ivs_jobs._private_jobs").await, 1);
    app.advance(Duration::from_secs(61));
    app.sweep().await;
    app.sweep().await;
    assert_eq!(app.count("ivs_jobs._private_jobs WHERE attempts = 0").await, 1);
    assert_eq!(app.count("ivs_jobs._private_jobs WHERE attempts = max_attempts").await, 1);
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2);
}

#[tokio::test]
async fn commands_say_what_is_wrong_in_a_sentence() {
    let world = World::new().await;
    assert_eq!(refused(&world, &["mails", "resend", "0123abcd"]), "there is no mail whose id begins with 0123abcd");
    assert_eq!(refused(&world, &["jobs", "retry", "1"]), "there is no job 1");
    for id in ["10000000-0000-0000-0000-000000000001", "10000000-0000-0000-0000-000000000002"] {
        sqlx::query(
            "INSERT INTO ivs_mail (id, kind, user_id, sequence, state, created_at)
             VALUES ($1::uuid, 'google_connected', 101, 0, 'sent', now())",
        )
        .bind(id)
        .execute(&world.database.pool)
        .await
        .unwrap();
    }
    assert_eq!(
        refused(&world, &["mails", "resend", "10000000"]),
        "several mails have ids that begin with 10000000: give more of it"
    );
    let usage = command(&world, &["mails", "--state", "lost"]);
    let usage = String::from_utf8(usage.stderr).unwrap();
    assert!(mail::State::ALL.iter().all(|state| usage.contains(state.as_str())), "{usage}");

    let empty = World::on(database::empty().await).await;
    assert_eq!(refused(&empty, &["mails"]), "the database is not up to date: run `interviews migrate`");
}

#[tokio::test]
async fn a_log_of_objects_is_nothing_but_objects_and_holds_no_address() {
    let world = World::new().await;
    let mut server = world.serve_with(&[("LOG_FORMAT", "json")]).await;
    schedule(&world, 1).await;
    until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
    server.signal("TERM");
    server.ended().await;
    let log = server.said();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let answered = lines.iter().find(|line| line["spans"][0]["method"] == "POST").unwrap();
    assert_eq!(answered["spans"][0]["route"], "/api/company/create-interview/", "{log}");
    assert!(lines.iter().any(|line| line["message"] == "mail sent" && line["to"] == "c***@x.test"), "{log}");
    assert!(!log.contains("carl@x.test"), "{log}");
}

#[tokio::test]
async fn as_many_jobs_run_at_once_as_are_set() {
    let world = World::new().await;
    let _server = world.serve_with(&[("JOB_WORKERS", "1")]).await;
    world.mailbox.order(Step::Connect, mailbox::Fault::Close, 2);
    schedule(&world, 1).await;
    world.mailbox.order(Step::Sender, mailbox::Fault::Hang, 10);
    world.let_a_minute_pass().await;
    until(|| (world.mailbox.hanging() == 1).then_some(())).await;
    // A second worker would have begun by the time that a command has run.
    let table = said(&world, &["mails"]);
    let tries: BTreeSet<&str> = rows(&table).iter().map(|row| row[7]).collect();
    assert_eq!((tries, world.mailbox.hanging()), (BTreeSet::from(["1", "2"]), 1), "{table}");
    world.mailbox.release();
    until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
}
