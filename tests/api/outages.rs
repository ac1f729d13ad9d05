//! PostgreSQL stops answering, closes connections, becomes read-only; its tables are locked, its columns altered.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use futures_util::future::join_all;
use interviews::{
    app,
    config::{PoolLimits, Settings},
    context::Context,
    db,
    dev::mailbox,
    jobs,
    metrics::{SweepOutcome, SweepPatience},
};
use reqwest::Method;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{process::World, relay::Relay, *};

const LIST: &str = "/api/company/interviews/";
const PROFILE: &str = "/api/users/profile/";

/// As many requests at once as there are connections, so that each has been used a moment ago.
async fn warm(user: &User<'_>) {
    for answer in join_all((0..10).map(|_| user.get(LIST))).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Runs SQL on the server's database that names it.
async fn on_database(app: &TestApp, sql: &str) {
    let sql = sql.replace("$name", &app.database.name);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(app.db()).await.unwrap();
}

async fn end_connections(app: &TestApp) {
    app.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
}

#[tokio::test]
async fn after_a_silent_loss_of_all_connections_requests_are_answered_within_seconds() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let rita = app.user(RITA);
    warm(&rita).await;
    relay.silence_open();
    let begun = Instant::now();
    // More than there are connections: each of those has a statement under way that nobody will answer.
    for answer in join_all((0..24).map(|_| rita.get(LIST))).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await.status, 201);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    app.run_jobs().await;
}

#[tokio::test]
async fn connections_that_rested_while_the_network_was_lost_cost_a_request_half_a_second_at_most_once() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let rita = app.user(RITA);
    warm(&rita).await;
    relay.silence_open();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let begun = Instant::now();
    assert_eq!(rita.get(LIST).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn after_a_silence_of_the_whole_network_the_next_requests_are_answered() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let rita = app.user(RITA);
    warm(&rita).await;
    relay.silence_all();
    let asked = join_all((0..12).map(|_| rita.get(LIST)));
    let (answers, ()) = tokio::join!(asked, async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let ready = app.get("/readyz").await;
        assert_eq!(ready.status, 503);
        relay.silence_open();
        relay.resume();
    });
    // Those that waited for a connection were told so.
    assert!(answers.iter().all(|answer| matches!(answer.status.as_u16(), 200 | 503)), "{answers:?}");
    let begun = Instant::now();
    until_async(async || rita.get(LIST).await.status == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(app.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn background_work_runs_again_within_a_minute_after_its_connections_have_vanished() {
    let world = World::new().await;
    let relay = Relay::start(&world.database.url).await;
    let url = relay.url(&world.database.name);
    let server = world.serve_with(&[("DATABASE_URL", &url)]).await;
    world.connect().await;
    // Sweeps, the queue and its probe ask every few seconds: some are always under way.
    for _ in 0..3 {
        relay.silence_open();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let begun = Instant::now();
    // The reminder is a sweep's, its mails are jobs.
    sqlx::raw_sql(
        "INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time, timezone, meeting_link,
             room_id, created_at, updated_at)
         SELECT 201, 101, 'phone', at::date, at::time, 'UTC', '', 'SOON0001', now() - interval '2 days', now()
         FROM (SELECT now() AT TIME ZONE 'UTC' + interval '30 min' AS at) AS soon",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    until_async(async || world.mailbox.mails().len() == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(60));
    drop(server);
}

#[tokio::test]
async fn a_stop_ends_although_the_database_is_silent() {
    let world = World::new().await;
    let relay = Relay::start(&world.database.url).await;
    let url = relay.url(&world.database.name);
    let mut server = world.serve_with(&[("DATABASE_URL", &url), ("DATABASE_STATEMENT_SECONDS", "2")]).await;
    relay.silence_all();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal("TERM");
    let begun = Instant::now();
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn no_request_fails_because_its_connection_was_ended() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    for round in 0..3 {
        warm(&rita).await;
        end_connections(&app).await;
        let lists = join_all((0..10).map(|_| rita.get(LIST)));
        let day = format!("2030-02-{:02}", round + 1);
        let scheduled = rita.schedule(body(json!({ "date": day })));
        let (lists, scheduled) = tokio::join!(lists, scheduled);
        for answer in lists.iter().chain([&scheduled]) {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    app.run_jobs().await;
}

#[tokio::test]
async fn after_a_failover_no_connection_that_can_only_read_is_used_for_long() {
    let app = TestApp::start().await;
    let otto = app.user(OTTO);
    on_database(&app, "ALTER DATABASE $name SET default_transaction_read_only = on").await;
    end_connections(&app).await;
    warm(&otto).await;
    assert_eq!(app.get("/readyz").await.status, 503, "one can read, but not write");
    let refused = otto.schedule_otherwise(phone_body(json!({}))).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["detail"].as_str()),
        (503, Some("The server is busy. Please try again."))
    );

    let reset = "SET default_transaction_read_only = off; ALTER DATABASE $name RESET default_transaction_read_only";
    on_database(&app, reset).await;
    until_async(async || app.get("/readyz").await.status == 200).await;
    // The probe has found that its connection could only read: so could all others.
    let dates = (1..=10).map(|day| json!({ "date": format!("2030-03-{day:02}") }));
    let scheduled = join_all(dates.map(|date| otto.schedule_otherwise(phone_body(date)))).await;
    for answer in scheduled {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(app.get("/readyz").await.status, 200);
    app.run_jobs().await;
}

#[tokio::test]
async fn columns_that_django_alters_fail_no_request() {
    let app = TestApp::start().await;
    app.connected(RITA).await;
    let work = async |day: u32| {
        let rita = app.user(RITA);
        let (carl, dana) = (app.user(CARL), app.user(DANA));
        let date = json!({ "date": format!("2030-04-{day:02}") });
        let scheduled = rita.schedule(body(date.clone())).await;
        assert_eq!(scheduled.status, 200, "{scheduled:?}");
        let id = scheduled.json()["interview_id"].as_i64().unwrap();
        let time = json!({ "time": "15:00" });
        let answers = [
            rita.change(id, time).await,
            rita.get(&format!("{LIST}{id}/")).await,
            carl.get(&format!("{LIST}{id}/join/")).await,
            carl.get("/api/notifications/notifications/").await,
            rita.get(&format!("{LIST}analytics/")).await,
            rita.get("/api/company/google/check-connection/").await,
            dana.get(PROFILE).await,
            rita.cancel(id).await,
        ];
        for answer in &answers {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        app.set_now(&format!("2030-04-{:02}T03:00:00Z", day - 1));
        let tokyo = json!({ "date": format!("2030-04-{day:02}"), "time": "09:30" });
        assert_eq!(app.user(OTTO).schedule_otherwise(phone_body(tokyo)).await.status, 201);
        app.sweep().await;
        app.run_jobs().await;
        warm(&app.user(OTTO)).await;
    };
    work(2).await;
    for (day, change) in (4..).step_by(2).zip([
        "ALTER TABLE users_user ALTER first_name TYPE varchar(90), ALTER password TYPE varchar(200), ALTER email TYPE text",
        "ALTER TABLE company_interview ALTER timezone TYPE varchar(80), ALTER note TYPE varchar(9000),
             ALTER meeting_link TYPE text, ALTER ical_sequence TYPE bigint, ALTER duration_minutes TYPE bigint,
             ALTER portal_join_count TYPE bigint, ALTER google_event_id TYPE varchar(400)",
        "ALTER TABLE notifications_notification ALTER message TYPE varchar(900), ALTER notification_type TYPE varchar(600)",
        "ALTER TABLE job_job ALTER title TYPE varchar(200)",
        "ALTER TABLE company_company ALTER name TYPE varchar(200), ALTER id TYPE bigint",
        "ALTER TABLE company_googlecredentials ALTER credentials_json TYPE varchar(90000)",
    ]) {
        app.execute(change).await;
        work(day).await;
    }
}

#[tokio::test]
async fn a_booking_whose_commit_gets_no_answer_is_answered_as_it_ended() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let otto = app.user(OTTO);
    // The first commit claims the key, the second makes the interview.
    relay.lose_commit(0);
    let refused = otto.schedule_otherwise(phone_body(json!({}))).await;
    refused.assert(503, json!({"detail": "The server is busy. Please try again."}));
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 0);
    relay.lose_commit(1);
    let next = json!({ "date": "2030-03-05" });
    let scheduled = otto.schedule_otherwise(phone_body(next)).await;
    assert_eq!(scheduled.status, 201, "{scheduled:?}");
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 1);
    app.advance(Duration::from_secs(3600));
    app.sweep().await;
    app.run_jobs().await;
    assert_eq!(app.mailbox.mails().len(), 2);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_500_and_never_try_again() {
    let (app, relay) = TestApp::start_behind_relay().await;
    let otto = app.user(OTTO);
    let scheduled = otto.schedule_otherwise(phone_body(json!({}))).await;
    let id = scheduled.json()["interview_id"].as_i64().unwrap();
    relay.lose_commit(0);
    let cancelled = otto.cancel(id).await;
    let text = "It is not known whether this was done. Please check before you try again.";
    cancelled.assert(500, json!({ "detail": text }));
    app.run_jobs().await;
}

#[tokio::test]
async fn a_server_that_may_not_see_a_connections_state_does_not_take_it_for_lost() {
    let app = TestApp::start().await;
    // Sessions of a role that becomes another one, as credentials that are made for a time have them.
    on_database(
        &app,
        "CREATE ROLE \"$name-owner\"; CREATE ROLE \"$name-login\" LOGIN IN ROLE \"$name-owner\";
         ALTER ROLE \"$name-login\" SET role = '$name-owner'",
    )
    .await;
    let url = app.database.url.replace("user=postgres", &format!("user={}-login", app.database.name));
    assert_ne!(url, app.database.url);
    let pool = db::connect(&url, app.ctx.settings.pool).await.unwrap();
    sqlx::query("SELECT pg_sleep(2.5)").execute(&pool).await.unwrap();
    on_database(&app, "DROP ROLE \"$name-login\"; DROP ROLE \"$name-owner\"").await;
}

#[tokio::test]
async fn credentials_are_checked_on_what_becomes_free_while_the_server_gives_no_more_connections() {
    let app = TestApp::start().await;
    on_database(&app, "CREATE ROLE \"$name-few\" LOGIN CONNECTION LIMIT 1").await;
    let url = app.database.url.replace("user=postgres", &format!("user={}-few", app.database.name));
    let limits = PoolLimits { connections: 1, ..app.ctx.settings.pool };
    let pool = db::Pool::new(url.parse().unwrap(), limits, &[]).with_reserve();
    let only = pool.acquire().await.unwrap();
    let reserved = pool.reserved();
    // More than are set aside, so that some wait for these.
    let checks = join_all((0..4).map(|_| sqlx::query("SELECT 1").execute(&reserved)));
    let release = async {
        // All of them have begun: some open a connection, which they will not get, and the others wait.
        tokio::task::yield_now().await;
        drop(only);
    };
    let begun = Instant::now();
    let (checked, ()) = tokio::join!(checks, release);
    for answer in checked {
        answer.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    pool.close();
    until_async(async || connections_of(&app, "few").await == 0).await;
    on_database(&app, "DROP ROLE \"$name-few\"").await;
}

/// Of the role with that name behind the database's.
async fn connections_of(app: &TestApp, role: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_database() || '-' || $1";
    sqlx::query_scalar(count).bind(role).fetch_one(app.db()).await.unwrap()
}

#[tokio::test]
async fn a_statement_whose_client_has_gone_is_ended_by_the_server() {
    let app = TestApp::start().await;
    let mut connection = app.ctx.db.acquire().await.unwrap();
    _ = tokio::time::timeout(Duration::from_millis(200), sqlx::query("SELECT pg_sleep(20)").execute(&mut *connection))
        .await;
    drop(connection);
    // Whoever takes it next finds that it does not answer.
    assert_eq!(app.user(RITA).get(LIST).await.status, 200);
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(20)%' AND state = 'active'
                   AND datname = current_database()";
    let begun = Instant::now();
    until_async(async || sqlx::query_scalar::<_, i64>(running).fetch_one(app.db()).await.unwrap() == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn roles_whose_transactions_are_serializable_see_no_failure() {
    let app = TestApp::start().await;
    on_database(&app, "ALTER DATABASE $name SET default_transaction_isolation = 'serializable'").await;
    end_connections(&app).await;
    let otto = app.user(OTTO);
    let dates = (1..=12).map(|day| json!({ "date": format!("2030-05-{day:02}") }));
    for answer in join_all(dates.map(|date| otto.schedule_otherwise(phone_body(date)))).await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let level: String = sqlx::query_scalar("SHOW transaction_isolation").fetch_one(&app.ctx.db).await.unwrap();
    assert_eq!(level, "read committed");
    app.run_jobs().await;
}

async fn waiting_for_locks(app: &TestApp) -> i64 {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    sqlx::query_scalar(waiting).fetch_one(app.db()).await.unwrap()
}

#[tokio::test]
async fn an_instance_stays_ready_while_nobodys_credentials_can_be_checked() {
    let app = TestApp::start().await;
    let rita = app.user(RITA);
    let mut django = app.db().begin().await.unwrap();
    sqlx::query("LOCK TABLE users_user IN ACCESS EXCLUSIVE MODE").execute(&mut *django).await.unwrap();
    let profiles = join_all((0..60).map(|_| rita.get(PROFILE)));
    let probes = async {
        until_async(async || waiting_for_locks(&app).await >= 10).await;
        for _ in 0..3 {
            assert_eq!(app.get("/readyz").await.status, 200);
        }
    };
    let (profiles, ()) = tokio::join!(profiles, probes);
    assert!(profiles.iter().all(|answer| answer.status == 503), "{profiles:?}");
    django.rollback().await.unwrap();
    assert_eq!(rita.get(PROFILE).await.status, 200);
}

#[tokio::test]
async fn a_locked_table_takes_only_its_own_requests_down_and_they_say_that_the_server_is_busy() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    assert_eq!(rita.schedule(body(json!({}))).await.status, 200);
    app.run_jobs().await;
    let link = app.mailed_link("carl@x.test").await;
    let mut django = app.db().begin().await.unwrap();
    sqlx::query("LOCK TABLE company_interview IN ACCESS EXCLUSIVE MODE").execute(&mut *django).await.unwrap();
    let begun = Instant::now();
    // So many that each waits for a connection as long as it may. Rooms ask again every few seconds.
    let lists = join_all((0..40).map(|_| rita.get(LIST)));
    let rooms = join_all((0..4).map(|_| app.get(&link)));
    let others = async {
        // By now all connections for requests wait.
        until_async(async || waiting_for_locks(&app).await == 8).await;
        let credentials = json!({"email": "rita@x.test", "password": PASSWORD});
        for answer in
            [app.post("/api/users/login/", credentials).await, rita.get(PROFILE).await, app.get("/readyz").await]
        {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        begun.elapsed()
    };
    let (lists, _, took) = tokio::join!(lists, rooms, others);
    assert!(took < Duration::from_secs(5), "{took:?}");
    for answer in lists {
        answer.assert(503, json!({"detail": "The server is busy. Please try again."}));
        assert!(answer.header("retry-after").is_some());
    }
    django.rollback().await.unwrap();
    warm(&rita).await;
}

#[tokio::test]
async fn a_sweep_that_does_not_come_to_its_end_is_named_by_the_probe_and_the_metrics() {
    let app = TestApp::start().await;
    let patience = SweepPatience { finished: TimeDelta::hours(24), after_failure: TimeDelta::minutes(2) };
    app.ctx.metrics.expect_sweep("remind", patience, app.now());
    app.advance(Duration::from_secs(23 * 3600));
    app.get("/readyz").await.assert(200, json!({"status": "ready"}));
    // One that fails is named long before one that only takes its time.
    app.ctx.metrics.sweep("remind", SweepOutcome::Failed, app.now());
    app.advance(Duration::from_secs(121));
    app.ctx.metrics.sweep("remind", SweepOutcome::Failed, app.now());
    app.get("/readyz").await.assert(200, json!({"status": "ready", "overdue_sweeps": ["remind"]}));
    let text = app.get("/metrics").await.text;
    for line in ["sweep_overdue{sweep=\"remind\"} 1", "sweeps_total{outcome=\"failed\",sweep=\"remind\"} 2"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    app.ctx.metrics.sweep("remind", SweepOutcome::Finished, app.now());
    app.get("/readyz").await.assert(200, json!({"status": "ready"}));
}

fn work(ctx: &Context) -> (JoinHandle<()>, CancellationToken) {
    let stop = CancellationToken::new();
    (tokio::spawn(jobs::work(ctx.clone(), app::run_job, stop.clone())), stop)
}

async fn until_queue_works(app: &TestApp) {
    let finished = "sweeps_total{outcome=\"finished\",sweep=\"jobs\"}";
    until_async(async || app.get("/metrics").await.text.contains(finished)).await;
    until_async(async || app.get("/readyz").await.json() == json!({"status": "ready"})).await;
}

/// The probe and the metrics name the job queue as overdue, and go on to.
async fn until_queue_stays_overdue(app: &TestApp) {
    let mut since = Instant::now();
    until_async(async || {
        if app.get("/readyz").await.json() != json!({"status": "ready", "overdue_sweeps": ["jobs"]}) {
            app.advance(Duration::from_secs(121));
            since = Instant::now();
        }
        since.elapsed() > Duration::from_secs(4)
    })
    .await;
    let text = app.get("/metrics").await.text;
    assert!(text.contains("sweep_overdue{sweep=\"jobs\"} 1"), "{text}");
}

#[tokio::test]
async fn a_job_queue_that_is_locked_is_named_by_the_probe_and_the_metrics() {
    let app = TestApp::start().await;
    let (worker, stop) = work(&app.ctx);
    until_queue_works(&app).await;
    let mut somebody = app.db().begin().await.unwrap();
    sqlx::query("LOCK TABLE ivs_jobs._private_jobs IN ACCESS EXCLUSIVE MODE").execute(&mut *somebody).await.unwrap();
    until_queue_stays_overdue(&app).await;
    somebody.rollback().await.unwrap();
    until_queue_works(&app).await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_job_queue_whose_worker_takes_no_due_jobs_is_named_too() {
    let app = TestApp::start().await;
    app.mailbox.order(mailbox::Step::Connect, mailbox::Fault::Close, 2);
    assert_eq!(app.user(OTTO).schedule_otherwise(phone_body(json!({}))).await.status, 201);
    app.execute("UPDATE ivs_jobs._private_jobs SET run_at = now() - interval '1 hour'").await;
    // The worker passes over rows that are locked.
    let mut somebody = app.db().begin().await.unwrap();
    sqlx::query("SELECT FROM ivs_jobs._private_jobs FOR UPDATE").execute(&mut *somebody).await.unwrap();
    let (worker, stop) = work(&app.ctx);
    until_queue_stays_overdue(&app).await;
    somebody.rollback().await.unwrap();
    until_queue_works(&app).await;
    until_async(async || app.mailbox.mails().len() == 2 && app.count("ivs_jobs._private_jobs").await == 0).await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_job_worker_that_panics_is_started_again() {
    let app = TestApp::start().await;
    let required = |name: &str| match name {
        "DATABASE_URL" => Some(app.database.url.clone()),
        "SECRET_KEY" => Some(SECRET_KEY.to_owned()),
        _ => None,
    };
    // None at all: the library does not bear that.
    let settings = Settings { job_workers: 0, ..Settings::from_layers(required).unwrap() };
    let stop = CancellationToken::new();
    let ctx = app::context(settings, app.ctx.clock.clone(), app.ctx.db.clone(), stop).unwrap();
    let (worker, stop) = work(&ctx);
    let again = "sweeps_total{outcome=\"failed\",sweep=\"jobs\"} 2";
    until(|| ctx.metrics.text(&[]).unwrap().contains(again).then_some(())).await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn what_must_not_be_lost_is_written_again_where_that_can_help() {
    let app = TestApp::start().await;
    let tries = AtomicU32::new(0);
    let write = async |fault: fn() -> sqlx::Error, times| {
        tries.store(0, Ordering::Relaxed);
        let write = |_| async { if tries.fetch_add(1, Ordering::Relaxed) < times { Err(fault()) } else { Ok(()) } };
        let written = tokio::time::timeout(Duration::from_secs(30), app.ctx.insist("a test", write)).await.unwrap();
        (written.is_ok(), tries.load(Ordering::Relaxed))
    };
    assert_eq!(write(|| sqlx::Error::PoolTimedOut, 2).await, (true, 3));
    assert_eq!(write(|| sqlx::Error::RowNotFound, 100).await, (false, 1));
}

#[tokio::test]
async fn a_server_counts_how_its_sweeps_end_and_stays_ready_while_a_table_is_locked() {
    let world = World::new().await;
    let _server = world.serve().await;
    let mut django = world.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE company_interview IN ACCESS EXCLUSIVE MODE").execute(&mut *django).await.unwrap();
    let http = reqwest::Client::new();
    let scrape = async || http.get(format!("{}/metrics", world.url())).send().await.unwrap().text().await.unwrap();
    until_async(async || scrape().await.contains("sweeps_total{outcome=\"failed\",sweep=\"interview::remind\"}")).await;
    assert_eq!(http.get(format!("{}/readyz", world.url())).send().await.unwrap().status(), 200);
    django.rollback().await.unwrap();
    until_async(async || scrape().await.contains("sweeps_total{outcome=\"finished\",sweep=\"interview::remind\"}"))
        .await;
    assert!(scrape().await.contains("sweep_overdue{sweep=\"interview::remind\"} 0"));
}

#[tokio::test]
async fn a_locked_table_keeps_no_rows_of_other_tables_from_being_removed() {
    let world = World::new().await;
    sqlx::raw_sql(
        "INSERT INTO ivs_idempotency_key (user_id, key_hash, fingerprint, created_at)
             VALUES (101, '\\x01', '\\x02', now() - interval '2 days');
         INSERT INTO company_oauthstate (state, created_at, user_id) VALUES ('abandoned', now() - interval '1 day', 101);
         INSERT INTO ivs_counted_mail (id, recruiter_id, candidate_id, is_invitation, counted_at)
             VALUES (gen_random_uuid(), 101, 201, true, now() - interval '2 days')",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    let mut somebody = world.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE ivs_login_throttle IN ACCESS EXCLUSIVE MODE").execute(&mut *somebody).await.unwrap();
    let _server = world.serve().await;
    let left = async || {
        let tables = ["ivs_idempotency_key", "company_oauthstate", "ivs_counted_mail"];
        join_all(tables.map(|table| world.count(table))).await
    };
    until_async(async || left().await == [0, 0, 0]).await;
    let failed = "sweeps_total{outcome=\"failed\",sweep=\"auth::remove_expired\"} 1";
    let scrape = async || reqwest::get(format!("{}/metrics", world.url())).await.unwrap().text().await.unwrap();
    until_async(async || scrape().await.contains(failed)).await;
}

#[tokio::test]
async fn an_instance_whose_clock_is_off_runs_no_sweeps_and_is_not_ready() {
    let app = TestApp::start().await;
    // By the manual clock it is another week than for the database.
    sqlx::raw_sql(
        "UPDATE company_interview SET timezone = 'UTC', date = '2026-11-20', time = '12:30', created_at = '2026-11-01'
         WHERE id = 501",
    )
    .execute(app.db())
    .await
    .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(app::serve(app.ctx.clone(), listener));
    until_async(async || app.request(Method::GET, &format!("{url}/healthz")).send().await.is_ok()).await;
    assert_eq!(app.get(&format!("{url}/readyz")).await.status, 503);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.count("ivs_mail").await, 0);

    let theirs = db::now(app.db()).await.unwrap();
    app.ctx.clock.set(theirs);
    until_async(async || {
        app.ctx.clock.set(db::now(app.db()).await.unwrap());
        app.get(&format!("{url}/readyz")).await.status == 200
    })
    .await;
    app.ctx.stopping.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_statements_result_depends_on_what_django_makes_of_a_text_or_a_number() {
    let app = TestApp::start().await;
    let mut db = <sqlx::PgConnection as sqlx::Connection>::connect(&app.database.url).await.unwrap();
    let mut statements = Vec::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx")).unwrap() {
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let sql = file["query"].as_str().unwrap().to_owned();
        let parameters = file["describe"]["parameters"]["Left"].as_array().unwrap().len();
        let name = format!("s{}", statements.len());
        let prepare = format!("PREPARE {name} AS {sql}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut db).await.unwrap();
        statements.push((name, parameters, sql));
    }
    // As AlterField does it, to every column of Django's tables, ours among them.
    app.execute(
        "DO $$ DECLARE changed record; BEGIN
             FOR changed IN
                 SELECT attrelid::regclass AS name, attname,
                        CASE WHEN atttypid = 'varchar'::regtype THEN 'varchar(' || atttypmod + 50 || ')'
                             WHEN atttypid = 'text'::regtype THEN 'varchar(100000)' ELSE 'bigint' END AS kind
                 FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT LIKE 'ivs\\_%'
                   AND attnum > 0 AND NOT attisdropped
                   AND atttypid IN ('varchar'::regtype, 'text'::regtype, 'int4'::regtype)
             LOOP EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s', changed.name, changed.attname, changed.kind);
             END LOOP; END $$",
    )
    .await;
    let mut broken = Vec::new();
    for (name, parameters, sql) in &statements {
        let nulls =
            if *parameters == 0 { String::new() } else { format!("({})", vec!["NULL"; *parameters].join(", ")) };
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE {name}{nulls}"));
        if let Err(error) = sqlx::raw_sql(explain).execute(&mut db).await {
            broken.push(format!("{error} in {sql}"));
        }
    }
    assert!(statements.len() > 80 && broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test]
async fn a_deadlocks_victim_is_retried_and_nobody_notices() {
    let app = TestApp::start().await;
    let rita = app.connected(RITA).await;
    app.execute(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION deadlocked_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('tries') = 1 THEN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER one BEFORE INSERT OR UPDATE ON company_interview FOR EACH ROW EXECUTE FUNCTION deadlocked_once();
         CREATE TRIGGER two BEFORE INSERT OR UPDATE ON ivs_presence FOR EACH ROW EXECUTE FUNCTION deadlocked_once();
         CREATE TRIGGER three BEFORE UPDATE ON notifications_notification FOR EACH ROW EXECUTE FUNCTION deadlocked_once();
         CREATE TRIGGER four BEFORE INSERT ON company_oauthstate FOR EACH ROW EXECUTE FUNCTION deadlocked_once();
         CREATE TRIGGER five BEFORE INSERT OR UPDATE ON company_googlecredentials
             FOR EACH ROW EXECUTE FUNCTION deadlocked_once();
         CREATE TRIGGER six BEFORE INSERT ON ivs_idempotency_key FOR EACH ROW EXECUTE FUNCTION deadlocked_once();
         SELECT nextval('tries')",
    )
    .await;
    let again = async || app.execute("ALTER SEQUENCE tries RESTART").await;
    let met = async || {
        let tries: i64 = sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(app.db()).await.unwrap();
        assert!(tries >= 2, "no deadlock was met");
    };
    again().await;
    let scheduled = rita.schedule(body(json!({}))).await;
    assert_eq!(scheduled.status, 200, "{scheduled:?}");
    met().await;
    let id = scheduled.json()["interview_id"].as_i64().unwrap();
    again().await;
    let keyed = rita.request(Method::POST, "/api/company/google/create-interview/").header("Idempotency-Key", "k");
    assert_eq!(send(keyed.json(&body(json!({ "date": "2030-02-02" })))).await.status, 200);
    met().await;
    again().await;
    let changed = rita.change(id, json!({ "time": "15:00" })).await;
    assert_eq!((changed.status.as_u16(), changed.json()["success"].as_bool()), (200, Some(true)), "{changed:?}");
    met().await;
    app.set_now("2030-02-01T20:00:00Z");
    let carl = app.user(CARL);
    for way in ["joined", "left"] {
        again().await;
        assert_eq!(carl.post(&format!("{LIST}{id}/{way}/"), json!({})).await.status, 200, "{way}");
        met().await;
    }
    let notifications = carl.get("/api/notifications/notifications/").await.json();
    again().await;
    let read = format!("/api/notifications/notifications/{}/read/", notifications[0]["id"]);
    assert_eq!(carl.post(&read, json!({})).await.status, 200);
    met().await;
    let rita = app.user(RITA);
    again().await;
    assert_eq!(rita.cancel(id).await.status, 200);
    met().await;
    again().await;
    let back = app.google.allow_as(&rita.authorization_url().await, "rita@gmail.test").unwrap();
    met().await;
    again().await;
    let connected = app.get(&back).await;
    assert!(connected.header("location").unwrap().contains("google_oauth=success"), "{connected:?}");
    met().await;
    // One of each, however often it was tried.
    assert_eq!(app.count("company_interview WHERE id > 1000").await, 2);
    app.run_jobs().await;
    assert_eq!(app.live().len(), 1);
}
