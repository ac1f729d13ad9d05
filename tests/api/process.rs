//! The program as an operator meets it: its commands, its stops, and what goes wrong around it. Real processes.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use interviews::{
    clock::Clock,
    db,
    dev::{
        google::{Call, Fault, FaultKind},
        mailbox::{self, Step},
        postgres::{Cluster, Durability},
    },
    mail::{self, Kind, Mail},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    database::PROGRAM,
    process::{Server, World, call, free_ports, is_free, program, run},
    *,
};

/// What a command said that ended with 1: a sentence of its own on the standard error, the last line there.
#[track_caller]
fn refusal(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let sentence = said.lines().last().unwrap_or_default();
    assert!(!said.contains("panicked") && sentence.starts_with("interviews: "), "{said}");
    sentence.trim_start_matches("interviews: ").to_owned()
}

#[test]
fn serve_without_settings_names_every_fault_at_once_and_shows_no_value() {
    let said = |settings: &[(&str, &str)]| {
        let mut command = program(&["serve"]);
        command.envs(settings.iter().copied());
        let output = run(command, "");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        said(&[]),
        "interviews: the settings are not usable:\n  DATABASE_URL: is required\n  SECRET_KEY: is required\n"
    );
    let said = said(&[("PORT", "topsecret"), ("DATABASE_URL", "topsecret"), ("TOKEN_ENCRYPTION_KEY", "topsecret")]);
    for name in ["DATABASE_URL", "SECRET_KEY", "PORT", "TOKEN_ENCRYPTION_KEY"] {
        assert!(said.contains(&format!("\n  {name}: ")), "{name} is missing in {said}");
    }
    assert!(!said.contains("topsecret"), "{said}");
}

#[tokio::test]
async fn a_busy_port_is_named_with_what_to_do() {
    let world = World::new().await;
    let _busy = std::net::TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    let said = refusal(&run(world.command(&[]), ""));
    let expected = format!("cannot listen on 127.0.0.1:{}: ", world.port);
    assert!(said.starts_with(&expected) && said.ends_with("; set HOST and PORT"), "{said}");
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_named_without_its_password() {
    let world = World::new().await;
    let nowhere = format!("postgres://somebody:topsecret@127.0.0.1:{}/none", free_ports(1));
    let missing = world.database.url.replacen(&world.database.name, "there_is_none", 1);
    for (url, why) in [(nowhere, "Connection refused"), (missing, "database \"there_is_none\" does not exist")] {
        let output = run(world.command(&[("DATABASE_URL", &url)]), "");
        let said = refusal(&output);
        assert!(said.starts_with("cannot connect to the database") && said.contains(why), "{said}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("topsecret"));
    }
}

#[tokio::test]
async fn the_command_that_revokes_tokens_ends_those_made_before_and_none_made_after() {
    let world = World::new().await;
    let _server = world.serve().await;
    let profile = async |token: &str| {
        call(world.port, Method::GET, "/api/users/profile/", Some(token), None).await.unwrap().0.as_u16()
    };
    for user in ["rita@x.test", "101"] {
        let before = access_token(Clock::System.now(), RITA);
        assert_eq!(profile(&before).await, 200);
        let mut command = program(&["revoke-tokens", "--user", user]);
        command.env("DATABASE_URL", &world.database.url).env("SECRET_KEY", SECRET_KEY);
        let output = run(command, "");
        let after = access_token(Clock::System.now(), RITA);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("Bearer tokens of user 101 issued before ") && said.contains("Django"), "{said}");
        assert_eq!((profile(&before).await, profile(&after).await), (401, 200), "{said}");
    }
    let mut command = program(&["revoke-tokens", "--user", "nobody@x.test"]);
    command.env("DATABASE_URL", &world.database.url).env("SECRET_KEY", SECRET_KEY);
    assert_eq!(refusal(&run(command, "")), "there is no account with the id or e-mail address nobody@x.test");
}

#[tokio::test]
async fn a_stop_waits_for_the_booking_under_way_and_its_mails() {
    let world = World::new().await;
    let mut server = world.serve().await;
    world.connect().await;
    world.google.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::Delay { millis: 700 } });
    let stopped = async {
        world.until_called(Call::Insert, 1).await;
        server.signal("TERM");
        // It takes no new requests from now on.
        until(|| is_free(world.port).then_some(())).await;
        server.ended().await
    };
    let (answer, status) = tokio::join!(world.schedule(), stopped);
    let (code, answer) = answer.unwrap();
    assert_eq!((code.as_u16(), &answer["emails_sent"]), (200, &json!({"candidate": true, "recruiter": true})));
    assert_eq!(status.code(), Some(0));
    assert_eq!(world.mailbox.mails().len(), 2);
    assert_eq!(world.count("ivs_mail WHERE state = 'sent' AND kind = 'scheduled'").await, 2);
    assert_eq!(world.count("ivs_intent").await, 0);
    assert_nothing_is_locked(&world).await;
}

#[tokio::test]
async fn a_stop_finishes_the_job_under_way() {
    let world = World::new().await;
    let mut server = world.serve().await;
    world.connect().await;
    world.mailbox.order(Step::Sender, mailbox::Fault::Hang, 1);
    queue_mails(&world, 1).await;
    until(|| (world.mailbox.hanging() == 1).then_some(())).await;
    server.signal("TERM");
    until(|| is_free(world.port).then_some(())).await;
    world.mailbox.release();
    assert_eq!(server.ended().await.code(), Some(0));
    assert_eq!(world.mailbox.mails().len(), 1);
    assert_eq!(world.count("ivs_jobs._private_jobs").await, 0);
}

#[tokio::test]
async fn a_stop_waits_for_a_mail_that_is_being_taken_and_gives_its_job_back() {
    let world = World::new().await;
    let mut server = world.serve().await;
    world.connect().await;
    world.mailbox.order(Step::Content, mailbox::Fault::Hang, 1);
    queue_mails(&world, 1).await;
    until(|| (world.mailbox.hanging() == 1).then_some(())).await;
    server.signal("TERM");
    // The worker's patience ends here, the sending's does not.
    until_async(async || world.count("ivs_jobs._private_jobs WHERE locked_at IS NOT NULL").await == 0).await;
    world.mailbox.release();
    assert_eq!(server.ended().await.code(), Some(0));
    assert_eq!(world.count("ivs_mail WHERE state = 'sent'").await, 2);
    assert_nothing_is_locked(&world).await;
    let _server = world.serve().await;
    world.let_a_minute_pass().await;
    until_async(async || world.count("ivs_jobs._private_jobs").await == 0).await;
    assert_eq!(world.mailbox.mails().len(), 1);
}

async fn assert_nothing_is_locked(world: &World) {
    assert_eq!(world.count("ivs_jobs._private_jobs WHERE locked_at IS NOT NULL OR locked_by IS NOT NULL").await, 0);
    assert_eq!(world.count("ivs_jobs._private_job_queues WHERE locked_at IS NOT NULL").await, 0);
}

/// So many mails to Rita's Google account, to be sent at once.
pub async fn queue_mails(world: &World, count: usize) {
    let ctx = world.context();
    let mut tx = loop {
        // A test may have cut the connections: then each fails once.
        if let Ok(tx) = ctx.db.begin().await {
            break tx;
        }
    };
    for _ in 0..count {
        let mail = Mail { recipient: Some("rita@gmail.test".into()), ..Mail::new(Kind::GoogleConnected, RITA) };
        mail::enqueue(&mut tx, &ctx, &[mail]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn two_servers_that_start_at_once_on_an_empty_database_both_serve_and_share_the_jobs() {
    let world = World::on(database::empty().await).await;
    let other = free_ports(1);
    let port = other.to_string();
    let servers = [Server::start(world.command(&[])), Server::start(world.command(&[("PORT", &port)]))];
    servers[0].until_ready(world.port).await;
    servers[1].until_ready(other).await;
    let created = servers.iter().filter(|server| server.said().contains("none of Django's tables, creating them"));
    assert_eq!(created.count(), 1);
    sqlx::raw_sql(include_str!("support/fixture.sql")).execute(&world.database.pool).await.unwrap();
    for port in [world.port, other] {
        let login = json!({"email": "rita@x.test", "password": PASSWORD});
        let (status, answer) = call(port, Method::POST, "/api/users/login/", None, Some(login)).await.unwrap();
        assert_eq!((status.as_u16(), &answer["user_id"]), (200, &json!(RITA)));
    }
    queue_mails(&world, 30).await;
    until_async(async || world.count("ivs_jobs._private_jobs").await == 0).await;
    assert_eq!(world.count("ivs_mail WHERE state = 'sent' AND attempts = 1").await, 30);
    assert_eq!(world.mailbox.mails().len(), 30);
}

#[tokio::test]
async fn an_installation_without_django_is_migrated_gets_its_people_and_schedules() {
    let world = World::on(database::empty().await).await;
    let command = |arguments: &[&str]| {
        let mut command = program(arguments);
        command.env("DATABASE_URL", &world.database.url).env("SECRET_KEY", SECRET_KEY);
        command
    };
    for _ in 0..2 {
        let output = run(command(&["migrate"]), "");
        assert!(output.status.success(), "{output:?}");
    }
    let create = |arguments: &[&str], password: &str| run(command(&[&["create-user"], arguments].concat()), password);
    let recruiter = ["--email", "rosa@x.test", "--first-name", "Rosa", "--company", "Rosa's"];
    let made = create(&recruiter, "a pass phrase\n");
    assert_eq!((made.status.code(), made.stdout.as_slice()), (Some(0), b"made user 1\n".as_slice()), "{made:?}");
    let made = create(&["--email", "casper@x.test"], "another pass phrase");
    assert_eq!(made.stdout, b"made user 2\n", "{made:?}");
    let again = refusal(&create(&recruiter, "a pass phrase"));
    assert_eq!(again, "there already is an account with the e-mail address rosa@x.test");
    assert_eq!(refusal(&create(&["--email", "nina@x.test"], "")), "the password is empty");
    assert_eq!(refusal(&create(&["--email", "nina"], "x")), "\"nina\" is not an e-mail address");

    sqlx::raw_sql(
        "INSERT INTO resume_skillcategory (name) VALUES ('General');
         INSERT INTO job_job (user_id, company_id, title, hire_number, job_location_type, location, salary, salary_range,
             ideal_candidate, is_available, description, responsibilities, benefits, level, category_id, job_type,
             experience_levels, weekly_ranges, shifts, created_at, updated_at, job_creation_is_complete,
             questions_generation_progress)
         SELECT user_id, id, 'Engineer', 1, 'remote', 'US', 1, '', '', true, '', '', '', 'Beginner', 1, '', '', '', '',
             now(), now(), true, '{}' FROM company_company;
         INSERT INTO job_application (user_id, job_id, quiz_score, matching_percentage, overall_match_percentage,
             has_completed_quiz, round_scores, total_scores, status, has_started, created_at, updated_at)
         SELECT 2, id, 0, 0, 0, false, '{}', '{}', 'pending', false, now(), now() FROM job_job",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    let _server = world.serve().await;
    let login = |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        call(world.port, Method::POST, "/api/users/login/", None, Some(body))
    };
    let (status, candidate) = login("casper@x.test", "another pass phrase").await.unwrap();
    assert_eq!((status.as_u16(), &candidate["role"]), (200, &json!("job_seeker")));
    let (status, recruiter) = login("rosa@x.test", "a pass phrase").await.unwrap();
    assert_eq!((status.as_u16(), &recruiter["role"]), (200, &json!("recruiter")));
    let body =
        json!({"candidate_id": 2, "job_id": 1, "date": "2030-01-16", "time": "10:00", "interview_type": "phone"});
    let token = recruiter["access_token"].as_str();
    let (status, answer) =
        call(world.port, Method::POST, "/api/company/create-interview/", token, Some(body)).await.unwrap();
    assert_eq!((status.as_u16(), &answer["success"]), (201, &json!(true)), "{answer}");
    assert_eq!(world.mailbox.mails().len(), 2);
}

#[test]
fn preview_mail_writes_every_sample_as_text_html_and_invitation() {
    let folder = Folder::new("preview");
    let dir = folder.0.join("made when missing");
    let output = run(program(&["preview-mail", dir.to_str().unwrap()]), "");
    assert!(output.status.success(), "{output:?}");
    let files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let samples: Vec<&PathBuf> = files.iter().filter(|file| file.extension().unwrap() == "eml").collect();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{} mails in {}\n", samples.len(), dir.display()));
    assert!(samples.len() >= 3, "{files:?}");
    for sample in samples {
        let read = |extension| fs::read_to_string(sample.with_extension(extension)).unwrap();
        assert!(!read("txt").is_empty());
        assert!(read("html").contains("<html"));
        if !["connected", "reminder"].iter().any(|kind| sample.to_string_lossy().contains(kind)) {
            assert!(read("ics").starts_with("BEGIN:VCALENDAR\r\n"));
        }
    }
}

#[tokio::test]
async fn an_idle_server_leaves_the_database_alone_and_takes_a_new_job_soon() {
    let world = World::new().await;
    let _server = world.serve().await;
    // Asked from another database, so that the asking does not count; the counts come once in a second.
    let mut elsewhere =
        PgConnection::connect(&world.database.url.replacen(&world.database.name, "postgres", 1)).await.unwrap();
    let mut transactions = async || -> i64 {
        sqlx::query_scalar("SELECT xact_commit FROM pg_stat_database WHERE datname = $1")
            .bind(&world.database.name)
            .fetch_one(&mut elsewhere)
            .await
            .unwrap()
    };
    // After what happens at the start, 60 transactions take longer than a second or two.
    let (mut since, mut before) = (Instant::now(), transactions().await);
    until_async(async || {
        let took = since.elapsed();
        if transactions().await - before >= 60 {
            (since, before) = (Instant::now(), transactions().await);
            return took > Duration::from_millis(1500);
        }
        took > Duration::from_secs(4)
    })
    .await;
    queue_mails(&world, 1).await;
    let queued = Instant::now();
    until(|| (world.mailbox.mails().len() == 1).then_some(())).await;
    // A second, and what a busy machine adds to it.
    assert!(queued.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_whose_database_is_gone_says_so_now_and_then_and_comes_back() {
    let folder = Folder::new("gone");
    let cluster = Cluster::start(&folder.0, Durability::Fast, Path::new(PROGRAM), |_| ()).await.unwrap();
    cluster.create_database("gone").await.unwrap();
    let port = free_ports(1);
    let mut command = program(&["serve"]);
    let (url, port_text) = (cluster.url("gone"), port.to_string());
    command.envs([("DATABASE_URL", url.as_str()), ("SECRET_KEY", SECRET_KEY), ("PORT", port_text.as_str())]);
    let server = Server::start(command);
    server.until_ready(port).await;
    cluster.stop().await.unwrap();
    until_async(async || call(port, Method::GET, "/readyz", None, None).await.unwrap().0 == 503).await;
    let complaints = || server.said().matches("the job worker ended; starting it again").count();
    until_async(async || complaints() >= 2).await;
    let lines = server.said().lines().count();
    assert!(lines < 200, "{lines} lines in some seconds");
    let cluster = Cluster::start(&folder.0, Durability::Fast, Path::new(PROGRAM), |_| ()).await.unwrap();
    server.until_ready(port).await;
    drop(server);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_database_can_only_be_read_says_so_and_goes_on_when_it_can_be_written() {
    let world = World::new().await;
    let server = world.serve().await;
    let mut elsewhere =
        PgConnection::connect(&world.database.url.replacen(&world.database.name, "postgres", 1)).await.unwrap();
    // As after a change to a standby.
    let mut let_write = async |writable: bool| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = {};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            !writable,
            name = world.database.name,
        )))
        .execute(&mut elsewhere)
        .await
        .unwrap();
    };
    let sends = async |count: usize| {
        queue_mails(&world, 1).await;
        until(|| (world.mailbox.mails().len() == count).then_some(())).await;
    };
    sends(1).await;
    let_write(false).await;
    // Which of the two depends on what the worker was at.
    let complaints = ["no jobs are run while the database", "the job worker ended; starting it again"];
    until(|| complaints.iter().any(|complaint| server.said().contains(complaint)).then_some(())).await;
    let_write(true).await;
    sends(2).await;
    assert!(server.said().lines().count() < 200);
}

#[tokio::test]
async fn the_job_queue_has_four_connections_and_plans_each_statement_each_time() {
    let database = database::fresh().await;
    let queue = db::queue::pool(&database.pool);
    let mode: String = sqlx::query_scalar("SHOW plan_cache_mode").fetch_one(&queue).await.unwrap();
    assert_eq!((mode.as_str(), queue.most()), ("force_custom_plan", i64::from(db::queue::CONNECTIONS)));
    let limit: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&queue).await.unwrap();
    assert_ne!(limit, "0");
    queue.close();
}

#[tokio::test]
async fn requests_and_mails_go_on_after_the_database_was_away() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.mailbox.order(Step::Sender, mailbox::Fault::Answer(451), 100);
    let (status, answer) = world.schedule().await.unwrap();
    assert_eq!((status.as_u16(), &answer["emails_sent"]), (200, &json!({"candidate": false, "recruiter": false})));
    // Twice: the second time it cuts off those who are just coming back.
    for _ in 0..2 {
        let cut: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
        assert!(cut > 0);
        until_async(async || {
            let path = "/api/company/interviews/";
            world.call(Method::GET, path, None).await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }
    world.mailbox.release();
    // More than once, since a job too may meet a connection that has just been cut, and is tried again later.
    until_async(async || {
        world.let_a_minute_pass().await;
        world.mailbox.mails().len() == 2 && world.count("ivs_jobs._private_jobs").await == 0
    })
    .await;
    drop(server);
}

/// A folder of one test, removed at its end; root's PostgreSQL can enter it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = database::folder(&format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// `interviews dev` on a folder and four ports of its own.
struct Dev {
    folder: Folder,
    port: u16,
}

impl Dev {
    fn new(name: &str) -> Dev {
        Dev { folder: Folder::new(name), port: free_ports(4) }
    }

    fn command(&self) -> Command {
        let mut command = program(&["dev"]);
        command.env("DEV_DATA_DIR", &self.folder.0).env("PORT", self.port.to_string());
        command
    }

    /// Starts it and waits for the banner; gives the four lines in it.
    async fn start(&self) -> (Server, [String; 4]) {
        Dev::until_up(Server::start(self.command())).await
    }

    async fn until_up(mut server: Server) -> (Server, [String; 4]) {
        let is_up = |said: &str| said.contains("in four lines to paste:\n") && said.ends_with("; echo\n\n");
        until_async(async || is_up(&server.said()) || server.has_ended()).await;
        let said = server.said();
        let (_, lines) = said.split_once("in four lines to paste:\n\n").expect("a banner");
        let lines: Vec<String> = lines.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
        (server, lines.try_into().expect("four lines"))
    }

    fn is_free(&self) -> bool {
        (self.port..self.port + 4).all(is_free)
    }

    fn has_postgres(&self) -> bool {
        self.folder.0.join("postgres/data/postmaster.pid").exists()
    }
}

/// What a shell says to lines that are pasted into it.
fn paste(lines: &[&str]) -> Vec<String> {
    let output = run(Command::new("bash"), &format!("{}\n", lines.join("\n")));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI must install curl");
        // Not `eprintln!`, which is shown with failures alone.
        _ = writeln!(std::io::stderr(), "NOT TRIED: the four printed lines, because curl is not installed");
    }
    found
}

#[tokio::test]
async fn development_mode_does_the_main_job_as_printed_and_keeps_it_through_every_kind_of_stop() {
    let dev = Dev::new("dev");
    let (mut server, [login, connect, schedule, list]) = dev.start().await;
    assert!(server.said().contains(&format!("http://127.0.0.1:{}/api/", dev.port)));
    let mut made = Vec::new();
    if has_curl() {
        let answers = paste(&[&login, &connect, &schedule, &list]);
        let [token, landed, scheduled, listed] = answers.try_into().unwrap();
        assert_eq!(token.split('.').count(), 3, "{token}");
        assert!(landed.ends_with("?google_oauth=success"), "{landed}");
        let scheduled: Value = serde_json::from_str(&scheduled).unwrap();
        assert_eq!((&scheduled["success"], &scheduled["warnings"]), (&json!(true), &json!([])), "{scheduled}");
        assert_eq!(scheduled["emails_sent"], json!({"candidate": true, "recruiter": true}));
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        assert_eq!((listed.len(), &listed[0]["id"]), (1, &scheduled["interview_id"]));
        assert!(listed[0]["meeting_link"].as_str().unwrap().starts_with("https://meet.google.com/"));
        made = listed;
        // The commands find the private database at the address that is shown.
        let shown = server.said();
        let url = shown.lines().find_map(|line| line.strip_prefix("  Database   ")).unwrap();
        let mut mails = program(&["mails", "--state", "sent"]);
        mails.env("DATABASE_URL", url).env("SECRET_KEY", "any");
        let table = String::from_utf8(run(mails, "").stdout).unwrap();
        assert_eq!(table.matches(" scheduled ").count(), 2, "{table}");
    }
    assert!(dev.has_postgres());
    server.signal("INT");
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.said());
    assert!(dev.is_free() && !dev.has_postgres());

    let still_there = |login: &str, list: &str| {
        if made.is_empty() {
            return;
        }
        let listed: Vec<Value> = serde_json::from_str(&paste(&[login, list])[1]).unwrap();
        assert_eq!(listed[0]["id"], made[0]["id"]);
    };
    let (mut server, [login, .., list]) = dev.start().await;
    still_there(&login, &list);
    server.signal("KILL");
    server.ended().await;
    let (mut server, [login, .., list]) = dev.start().await;
    still_there(&login, &list);
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(dev.is_free() && !dev.has_postgres());
}

#[tokio::test]
async fn development_mode_uses_the_database_that_is_set_and_starts_none() {
    let dev = Dev::new("dev-elsewhere");
    let database = database::empty().await;
    let mut command = dev.command();
    command.env("DATABASE_URL", &database.url);
    let (mut server, _) = Dev::until_up(Server::start(command)).await;
    server.signal("INT");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(!dev.folder.0.join("postgres").exists());
}

#[test]
fn development_mode_says_in_one_sentence_which_port_is_busy() {
    let dev = Dev::new("dev-busy");
    for offset in [0, 3] {
        let port = dev.port + offset;
        let _busy = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let said = format!(
            "port {port} is busy: stop what uses it, or choose another with PORT (it and the three above it are used)"
        );
        assert_eq!(refusal(&run(dev.command(), "")), said);
    }
    assert_eq!(fs::read_dir(&dev.folder.0).unwrap().count(), 0, "nothing was made before");
}

#[test]
fn development_mode_says_in_one_sentence_that_its_folder_cannot_be_written() {
    let dev = Dev::new("dev-unwritable");
    let file = dev.folder.0.join("file");
    fs::write(&file, "").unwrap();
    let dir = file.join("data");
    let mut command = dev.command();
    command.env("DEV_DATA_DIR", &dir);
    let said = refusal(&run(command, ""));
    let expected =
        format!("cannot write {}: set DEV_DATA_DIR to a folder that can be written: Not a directory", dir.display());
    assert!(said.starts_with(&expected), "{said}");
}
