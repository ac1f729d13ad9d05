//! The program as real processes, and the world around them: a database, the Google simulator, a mailbox.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
};

use interviews::{
    app,
    clock::Clock,
    config::Settings,
    context::Context,
    dev::{
        google::{self, Call, Simulator},
        mailbox::Mailbox,
    },
};
use reqwest::{Method, StatusCode, redirect::Policy};
use serde_json::{Value, json};

use super::{
    RITA, SECRET_KEY, access_token, body,
    database::{self, PROGRAM, TestDatabase},
    until, until_async,
};

/// Everything around the server, which outlives its processes.
pub struct World {
    pub database: TestDatabase,
    pub google: Simulator,
    pub mailbox: Mailbox,
    pub port: u16,
}

/// A running process of the program; it is killed with this.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl World {
    /// With the fixture of the contract's examples.
    pub async fn new() -> World {
        let database = database::fresh().await;
        sqlx::raw_sql(include_str!("fixture.sql")).execute(&database.pool).await.unwrap();
        World::on(database).await
    }

    /// Around a database as it is.
    pub async fn on(database: TestDatabase) -> World {
        World::with_accounts(database, vec!["rita@gmail.test".into()]).await
    }

    /// The same, where Google has these accounts.
    pub async fn with_accounts(database: TestDatabase, accounts: Vec<String>) -> World {
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        let options = google::Options {
            clock: Clock::System,
            client_id: "client".into(),
            client_secret: "client-secret-of-the-tests".into(),
            state_file: None,
            accounts,
        };
        let google = Simulator::start(here, options).await.unwrap();
        let mailbox = Mailbox::start(here, here, None).await.unwrap();
        World { database, google, mailbox, port: free_ports(1) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `interviews serve` with these settings besides the usual ones, as a command to start.
    pub fn command(&self, settings: &[(&str, &str)]) -> Command {
        let mut command = program(&["serve"]);
        command.envs(self.settings()).envs(google::settings(self.google.url())).envs(settings.iter().copied());
        command
    }

    fn settings(&self) -> HashMap<&'static str, String> {
        HashMap::from([
            ("DATABASE_URL", self.database.url.clone()),
            ("SECRET_KEY", SECRET_KEY.into()),
            ("PORT", self.port.to_string()),
            ("GOOGLE_CLIENT_ID", "client".into()),
            ("GOOGLE_CLIENT_SECRET", "client-secret-of-the-tests".into()),
            ("TOKEN_ENCRYPTION_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
            ("EMAIL_HOST", "127.0.0.1".into()),
            ("EMAIL_PORT", self.mailbox.smtp_address().port().to_string()),
            ("EMAIL_USE_TLS", "false".into()),
        ])
    }

    /// What the processes have, for this one.
    pub fn context(&self) -> Context {
        let settings = self.settings();
        let settings = Settings::from_layers(|name| settings.get(name).cloned()).unwrap();
        app::context(settings, Clock::System, self.database.pool.clone(), tokio_util::sync::CancellationToken::new())
            .unwrap()
    }

    /// Starts the server and waits until it is ready.
    pub async fn serve(&self) -> Server {
        self.serve_with(&[]).await
    }

    /// The same with these settings instead of the usual ones.
    pub async fn serve_with(&self, settings: &[(&str, &str)]) -> Server {
        let server = Server::start(self.command(settings));
        server.until_ready(self.port).await;
        server
    }

    /// A call of Rita's; `None` when the server does not answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<(StatusCode, Value)> {
        let token = access_token(Clock::System.now(), RITA);
        call(self.port, method, path, Some(&token), body).await
    }

    pub async fn schedule(&self) -> Option<(StatusCode, Value)> {
        self.call(Method::POST, "/api/company/google/create-interview/", Some(body(json!({})))).await
    }

    pub async fn connect(&self) {
        let (_, urls) = self.call(Method::GET, "/api/company/google/auth-url/", None).await.unwrap();
        let back = self.google.allow(urls["authorization_url"].as_str().unwrap()).unwrap();
        let path = back.strip_prefix(&self.url()).unwrap();
        call(self.port, Method::GET, path, None, None).await.unwrap();
        until(|| (self.mailbox.mails().len() == 1).then_some(())).await;
        self.mailbox.clear();
    }

    pub async fn count(&self, what: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {what}")))
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }

    pub fn live_events(&self) -> usize {
        self.google.events().iter().filter(|event| event["status"] != "cancelled").count()
    }

    pub async fn until_called(&self, call: Call, times: usize) {
        until(|| (self.google.requests().iter().filter(|seen| seen.call == call).count() >= times).then_some(())).await
    }

    /// As if a minute had passed.
    pub async fn let_a_minute_pass(&self) {
        sqlx::raw_sql(
            "UPDATE ivs_intent SET created_at = created_at - interval '60 s', next_attempt_at = NULL;
             UPDATE ivs_idempotency_key SET created_at = created_at - interval '60 s';
             UPDATE ivs_change SET held_until = held_until - interval '60 s',
                                   next_attempt_at = next_attempt_at - interval '60 s';
             UPDATE ivs_mail SET leased_until = leased_until - interval '60 s', due_at = due_at - interval '60 s',
                                 created_at = created_at - interval '60 s';
             UPDATE ivs_jobs._private_jobs SET run_at = run_at - interval '60 s'",
        )
        .execute(&self.database.pool)
        .await
        .unwrap();
    }
}

impl Server {
    /// Starts a command and keeps what it says.
    pub fn start(mut command: Command) -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("said-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Server { child: command.spawn().unwrap(), log }
    }

    /// What it has written to its standard output and error.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub async fn until_ready(&self, port: u16) {
        until_async(async || {
            let answer = call(port, Method::GET, "/readyz", None, None).await;
            answer.is_some_and(|answer| answer.0 == 200)
        })
        .await;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `TERM`, `INT` and the like.
    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    pub fn has_ended(&mut self) -> bool {
        self.exit_status().is_some()
    }

    /// `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        until_async(async || self.has_ended()).await;
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the process said:\n{}---", self.said());
        }
        _ = fs::remove_file(&self.log);
    }
}

/// The program with these arguments, an environment of its own, and nothing on its standard input.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read may be gone by now.
    _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Asks the server on this port; `None` when it does not answer.
pub async fn call(
    port: u16,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> Option<(StatusCode, Value)> {
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let mut request = client.request(method, format!("http://127.0.0.1:{port}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token).header("idempotency-key", "the one booking");
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.ok()?;
    Some((response.status(), response.json().await.unwrap_or(Value::Null)))
}

/// The first of so many free ports in a row. They lie below those that the system gives to outgoing connections, and
/// where another test's process does not look first.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let block = std::process::id() % 500 * 32 + u32::from(NEXT.fetch_add(8, Ordering::Relaxed));
        let first = 10_000 + (block % 16_000) as u16;
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
