//! The product under test: the production assembly on a database of its own, with a clock that is moved by hand, the
//! Google simulator and a mailbox over real TCP; and the people who use it.

pub mod cookie_client;
pub mod database;
pub mod document;
pub mod page;
pub mod process;
pub mod recaptcha;
pub mod relay;

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use interviews::{
    app,
    clock::Clock,
    config::{LogFormat, Settings, log_filter},
    context::Context,
    db,
    dev::{
        google::{self, Call, Fault, FaultKind, Simulator},
        mailbox::{Mailbox, Received},
    },
    http::server,
    jobs, telemetry,
};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap, redirect::Policy};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::span;
use tracing_subscriber::util::SubscriberInitExt;

use database::TestDatabase;
use relay::Relay;

pub const PASSWORD: &str = "Passw0rd!x";
pub const SECRET_KEY: &str = "the tests' key, shared with Django";
pub const NOW: &str = "2026-11-20T12:00:00Z";

/// The ids of the fixture's people.
pub const RITA: i64 = 101;
pub const OTTO: i64 = 102;
pub const NORA: i64 = 103;
pub const CARL: i64 = 201;
pub const DANA: i64 = 202;
pub const INES: i64 = 203;

/// The server with all that it talks to. Dropping it fails a test that leaves jobs due or failed.
pub struct TestApp {
    pub url: String,
    pub ctx: Context,
    pub google: Simulator,
    pub mailbox: Mailbox,
    http: reqwest::Client,
    served: tokio::task::JoinHandle<()>,
    // Last: what is above uses it.
    pub database: TestDatabase,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and body at once, so that a failing test shows both.
    #[track_caller]
    pub fn assert(&self, status: u16, body: Value) {
        assert_eq!((self.status.as_u16(), self.json()), (status, body));
    }
}

impl TestApp {
    /// With the fixture of the contract's examples.
    pub async fn start() -> TestApp {
        Self::start_with(&[]).await
    }

    /// The same with these settings instead of the usual ones; an empty value unsets.
    pub async fn start_with(settings: &[(&str, &str)]) -> TestApp {
        let database = database::fresh().await;
        sqlx::raw_sql(include_str!("fixture.sql")).execute(&database.pool).await.unwrap();
        Self::start_on(database, settings).await
    }

    /// The same with the server's connections going through a relay.
    pub async fn start_behind_relay() -> (TestApp, Relay) {
        let database = database::fresh().await;
        sqlx::raw_sql(include_str!("fixture.sql")).execute(&database.pool).await.unwrap();
        let relay = Relay::start(&database.url).await;
        let url = relay.url(&database.name);
        (Self::start_on(database, &[("DATABASE_URL", &url)]).await, relay)
    }

    /// On a database with the fixture in it.
    async fn start_on(database: TestDatabase, settings: &[(&str, &str)]) -> TestApp {
        // What the server logs is shown with a test that fails.
        let lines = tracing_subscriber::fmt::TestWriter::new;
        _ = telemetry::subscriber(log_filter("warn").unwrap(), LogFormat::Text, lines, false).try_init();
        let clock = Clock::manual(NOW.parse().unwrap());
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        let options = google::Options {
            clock: clock.clone(),
            client_id: "client".into(),
            client_secret: "client-secret-of-the-tests".into(),
            state_file: None,
            accounts: ["rita@gmail.test", "otto@gmail.test"].map(String::from).to_vec(),
        };
        let google = Simulator::start(here, options).await.unwrap();
        let mailbox = Mailbox::start(here, here, None).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut values: HashMap<&str, String> = HashMap::from([
            ("DATABASE_URL", database.url.clone()),
            ("SECRET_KEY", SECRET_KEY.into()),
            ("PUBLIC_URL", url.clone()),
            ("GOOGLE_CLIENT_ID", "client".into()),
            ("GOOGLE_CLIENT_SECRET", "client-secret-of-the-tests".into()),
            ("TOKEN_ENCRYPTION_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
            ("GOOGLE_BUDGET_SECONDS", "5".into()),
            ("EMAIL_HOST", "127.0.0.1".into()),
            ("EMAIL_PORT", mailbox.smtp_address().port().to_string()),
            ("EMAIL_USE_TLS", "false".into()),
        ]);
        values.extend(google::settings(google.url()));
        values.extend(settings.iter().map(|(name, value)| (*name, value.to_string())));
        let settings =
            Settings::from_layers(|name| values.get(name).filter(|value| !value.is_empty()).cloned()).unwrap();
        let pool = db::lazily(settings.database_url.expose_secret(), database::limits(8)).unwrap();
        let ctx = app::context(settings, clock, pool, tokio_util::sync::CancellationToken::new()).unwrap();
        let router = app::router(ctx.clone()).unwrap();
        let own = ctx.clone();
        let served = tokio::spawn(async move { server::serve(listener, router, &own, CancellationToken::new()).await });
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        TestApp { url, ctx, google, mailbox, http, served, database }
    }

    /// For the test's own statements.
    pub fn db(&self) -> &db::Pool {
        &self.database.pool
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.ctx.clock.now()
    }

    pub fn advance(&self, by: Duration) {
        self.ctx.clock.advance(by);
    }

    pub fn set_now(&self, now: &str) {
        self.ctx.clock.set(now.parse().unwrap());
    }

    /// Then the next update mail about an interview goes at once.
    pub async fn pass_a_minute(&self) {
        self.advance(Duration::from_secs(60));
        self.run_jobs().await;
    }

    /// Runs jobs until none is due.
    pub async fn run_jobs(&self) {
        while jobs::run_due(&self.ctx, app::run_job).await.unwrap() > 0 {}
    }

    pub async fn sweep(&self) {
        app::sweep(&self.ctx).await.unwrap();
    }

    /// A request from outside; `path` may be a whole URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.http.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    /// Somebody of the fixture, with an access token as Django makes them.
    pub fn user(&self, id: i64) -> User<'_> {
        User { app: self, token: access_token(self.now(), id) }
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(self.db())
            .await
            .unwrap()
    }

    /// Runs SQL without parameters, as Django or an operator might; several statements end with `;`.
    pub async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(self.db()).await.unwrap();
    }

    /// The mails so far, waiting for `count` of them.
    pub async fn mails(&self, count: usize) -> Vec<Received> {
        until(|| Some(self.mailbox.mails()).filter(|mails| mails.len() >= count)).await
    }

    /// The link to a room that this person was mailed last, the token included, waiting for one.
    pub async fn mailed_link(&self, to: &str) -> String {
        until(|| self.mailbox.mails().iter().rev().filter(|mail| mail.to() == [to]).find_map(room_link)).await
    }

    /// Rita, with her calendar connected.
    pub async fn connected(&self, id: i64) -> User<'_> {
        let user = self.user(id);
        let account = if id == RITA { "rita@gmail.test" } else { "otto@gmail.test" };
        let answer = user.connect(account).await;
        assert!(answer.header("location").unwrap().contains("google_oauth=success"), "{answer:?}");
        self.run_jobs().await;
        self.mailbox.clear();
        user
    }
}

impl TestApp {
    pub async fn row(&self, id: i64) -> Value {
        sqlx::query_scalar("SELECT to_jsonb(i) FROM company_interview i WHERE id = $1")
            .bind(id)
            .fetch_one(self.db())
            .await
            .unwrap()
    }

    /// The events that are not cancelled.
    pub fn live(&self) -> Vec<Value> {
        self.google.events().into_iter().filter(|event| event["status"] != "cancelled").collect()
    }

    /// The row's one live event says when the row does.
    pub async fn assert_agree(&self, id: i64) {
        let row = self.row(id).await;
        let live = self.live();
        if row["google_event_id"].is_null() || !row["cancelled_at"].is_null() {
            assert_eq!(live, Vec::<Value>::new());
            return;
        }
        let [event] = &live[..] else { panic!("{live:?}") };
        assert_eq!((&event["id"], &event["hangoutLink"]), (&row["google_event_id"], &row["meeting_link"]));
        for (edge, column) in [("start", "starts_at"), ("end", "ends_at")] {
            let instant = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
            assert_eq!(instant(&event[edge]["dateTime"]), instant(&row[column]), "{edge}");
        }
        assert_eq!(event["start"]["timeZone"], row["timezone"]);
    }

    pub fn fault(&self, on: Call, times: usize, kind: FaultKind) {
        self.google.order(Fault { on, times, kind });
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.served.abort();
        if std::thread::panicking() {
            return;
        }
        let (pool_url, now) = (self.database.url.clone(), self.now());
        let left = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(&pool_url).await.unwrap();
                let left: Vec<Value> = sqlx::query_scalar(
                    "SELECT payload::jsonb FROM ivs_jobs._private_jobs WHERE run_at <= $1 OR attempts > 0",
                )
                .bind(now)
                .fetch_all(&mut conn)
                .await
                .unwrap();
                left
            })
        })
        .join()
        .unwrap();
        assert!(left.is_empty(), "the test leaves jobs that are due or failed: {left:?}");
    }
}

/// Somebody who calls the API.
pub struct User<'a> {
    pub app: &'a TestApp,
    pub token: String,
}

impl User<'_> {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.app.request(method, path).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn change(&self, id: i64, body: Value) -> Answer {
        send(self.request(Method::PATCH, &format!("/api/company/interviews/{id}/")).json(&body)).await
    }

    pub async fn cancel(&self, id: i64) -> Answer {
        send(self.request(Method::DELETE, &format!("/api/company/interviews/{id}/"))).await
    }

    /// Rita's Google Meet interview of example 15.
    pub async fn meet(&self) -> i64 {
        let answer = self.schedule(body(json!({}))).await;
        answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// Otto's interview by phone of example 22.
    pub async fn phone(&self) -> i64 {
        let answer = self.schedule_otherwise(phone_body(json!({}))).await;
        answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// `POST /api/company/google/create-interview/`
    pub async fn schedule(&self, body: Value) -> Answer {
        self.post("/api/company/google/create-interview/", body).await
    }

    /// `POST /api/company/create-interview/`
    pub async fn schedule_otherwise(&self, body: Value) -> Answer {
        self.post("/api/company/create-interview/", body).await
    }

    pub async fn authorization_url(&self) -> String {
        let answer = self.get("/api/company/google/auth-url/").await;
        answer.json()["authorization_url"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    }

    /// The whole dance: ask, click "Allow" at Google, come back. Gives the callback's answer.
    pub async fn connect(&self, account: &str) -> Answer {
        let back = self.app.google.allow_as(&self.authorization_url().await, account).unwrap();
        self.app.get(&back).await
    }
}

/// The answer, which is as the server's OpenAPI document says.
pub async fn send(request: RequestBuilder) -> Answer {
    let (http, request) = request.build_split();
    let request = request.unwrap();
    let (method, url) = (request.method().clone(), request.url().clone());
    let response = http.execute(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let answer = Answer { status, headers, text: response.text().await.unwrap() };
    document::check(&method, url.path(), &answer);
    answer
}

/// An access token as SimpleJWT makes them, signed here by hand.
pub fn access_token(now: DateTime<Utc>, user_id: i64) -> String {
    let exp = (now + TimeDelta::days(30)).timestamp();
    token(
        &json!({"token_type": "access", "exp": exp, "iat": now.timestamp(), "jti": "0".repeat(32), "user_id": user_id}),
    )
}

/// A JWT with these claims.
pub fn token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET_KEY.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// The body `B` of the contract's examples with some fields replaced; null removes one.
pub fn body(changes: Value) -> Value {
    let mut body = json!({"candidate_id": CARL, "job_id": 21, "company_id": 11, "date": "2030-02-01", "time": "14:00",
        "timezone": "America/New_York", "notes": "hi", "interview_type": "google_meet"});
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = body.as_object_mut().unwrap().remove(key),
            value => body[key] = value.clone(),
        }
    }
    body
}

/// The body of example 22: by phone, for Otto's job.
pub fn phone_body(changes: Value) -> Value {
    let mut body = json!({"candidate_id": CARL, "job_id": "22", "company_id": 12, "date": "2030-01-16", "time": "10:00",
        "timezone": "Asia/Tokyo", "notes": "x", "interview_type": "phone"});
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The link to the room in a mail, the token included.
pub fn room_link(mail: &Received) -> Option<String> {
    mail.text().split_whitespace().find(|word| word.contains("/join/?token=")).map(str::to_owned)
}

/// Polls until there is something, for at most half a minute.
pub async fn until<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Polls until it is so, for at most a minute.
pub async fn until_async(mut ready: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !ready().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives a recruiter and Carl so many interviews with notes of 5,000 characters.
pub async fn long_rows(db: &db::Pool, recruiter: i64, many: i32) {
    sqlx::query(
        "INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time, timezone, meeting_link,
             room_id, note, created_at, updated_at)
         SELECT 201, $1, 'phone', '2030-01-01'::date + n % 1000, '09:00', 'Asia/Tokyo', '', 'R' || n, repeat('x', 5000),
                now(), now()
         FROM generate_series(1, $2) n",
    )
    .bind(recruiter)
    .bind(many)
    .execute(db)
    .await
    .unwrap();
}

/// How many SQL statements ran meanwhile, in this test's thread: the server runs in it too.
pub async fn counting_statements<T>(work: impl Future<Output = T>) -> (T, usize) {
    struct Counter(Arc<AtomicUsize>);

    impl tracing::Subscriber for Counter {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "sqlx::query"
        }

        fn event(&self, event: &tracing::Event<'_>) {
            // What a fresh connection is told first is nobody's query.
            let mut is_greeting = false;
            event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                is_greeting |= format!("{value:?}").contains("SET statement_timeout");
            });
            self.0.fetch_add(usize::from(!is_greeting), Ordering::Relaxed);
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    let counter = Arc::new(AtomicUsize::new(0));
    let _guard = tracing::subscriber::set_default(Counter(counter.clone()));
    let outcome = work.await;
    (outcome, counter.load(Ordering::Relaxed))
}

/// What a subscriber has written.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
