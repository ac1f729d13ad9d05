//! No secret is where it does not belong: the whole product is driven at the most verbose log level, and then the log,
//! the answers and every row that the database held meanwhile are searched for every secret that was used.

use std::{cell::RefCell, collections::BTreeSet};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use interviews::{
    config::LogFormat,
    dev::{
        google::{Behaviour, Call, Fault, FaultKind, Meet, Simulator},
        mailbox::{self, Mailbox, Step},
    },
    secret::{Place, Sealer},
    telemetry,
};
use reqwest::{Method, RequestBuilder, redirect::Policy};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tracing::subscriber::DefaultGuard;

use crate::support::{self, page::Page, process::World, *};

const WRONG_PASSWORD: &str = "correct-horse-battery-staple";
const CLIENT_SECRET: &str = "client-secret-of-the-tests";
const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const SMTP_PASSWORD: &str = "smtp-password-of-the-tests";
const DATABASE_PASSWORD: &str = "database-password-of-the-tests";

/// The same with which the server's key is replaced.
const NEW_ENCRYPTION_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// What is used by whoever uses everything; a kind that was never seen proves nothing.
const KINDS: [&str; 15] = [
    "Google access token",
    "Google refresh token",
    "SMTP login",
    "code",
    "code verifier",
    "form key",
    "form token",
    "idempotency key",
    "mailed token",
    "password",
    "session cookie",
    "setting",
    "state",
    "token",
    "visitor cookie",
];

/// What a page gives to whoever is signed in on it.
const ON_PAGES: &[&str] = &["form token", "form key"];

/// Everything is logged, of dependencies too, and the SMTP server wants a password.
const SETTINGS: [(&str, &str); 4] = [
    ("LOG_FILTER", "trace,sqlx=trace,hyper=trace,h2=trace,reqwest=trace,lettre=trace,yup_oauth2=trace"),
    ("GOOGLE_BUDGET_SECONDS", "1"),
    ("EMAIL_HOST_USER", "postmaster"),
    ("EMAIL_HOST_PASSWORD", SMTP_PASSWORD),
];

/// A server in this process or in another, and what was seen of it.
struct Product<'a> {
    url: String,
    google: &'a Simulator,
    mailbox: &'a Mailbox,
    pool: &'a interviews::db::Pool,
    /// Runs what is queued, where no worker does.
    app: Option<&'a TestApp>,
    sealer: Sealer,
    http: reqwest::Client,
    /// Each with its kind.
    secrets: RefCell<BTreeSet<(&'static str, String)>>,
    /// Each with the kinds of secrets that it is there to give.
    answers: RefCell<Vec<(Answer, &'static [&'static str])>>,
    /// Every row that was ever there, as JSON.
    rows: RefCell<BTreeSet<String>>,
}

impl<'a> Product<'a> {
    fn new(url: String, google: &'a Simulator, mailbox: &'a Mailbox, pool: &'a interviews::db::Pool) -> Product<'a> {
        let product = Product {
            url,
            google,
            mailbox,
            pool,
            app: None,
            sealer: Sealer::parse(ENCRYPTION_KEY).unwrap(),
            http: reqwest::Client::builder().redirect(Policy::none()).build().unwrap(),
            secrets: RefCell::default(),
            answers: RefCell::default(),
            rows: RefCell::default(),
        };
        for (kind, secret) in [
            ("password", PASSWORD),
            ("password", WRONG_PASSWORD),
            ("setting", CLIENT_SECRET),
            ("setting", SECRET_KEY),
            ("setting", ENCRYPTION_KEY),
            ("setting", NEW_ENCRYPTION_KEY),
            ("setting", SMTP_PASSWORD),
            ("setting", DATABASE_PASSWORD),
        ] {
            product.keep(kind, secret);
        }
        // As it goes over the wire.
        product.keep("SMTP login", BASE64_STANDARD.encode(format!("\0postmaster\0{SMTP_PASSWORD}")));
        product
    }

    /// Of this test's thread, in which the server runs too; and the lines that it logs until the guard is dropped.
    fn watched(app: &'a TestApp) -> (Product<'a>, Lines, DefaultGuard) {
        let lines = Lines::default();
        let (filter, writer) = (app.ctx.settings.log_filter.clone(), lines.clone());
        let subscriber = telemetry::subscriber(filter, LogFormat::Text, move || writer.clone(), false);
        let guard = tracing::subscriber::set_default(subscriber);
        let product = Product::new(app.url.clone(), &app.google, &app.mailbox, app.db());
        (Product { app: Some(app), ..product }, lines, guard)
    }

    fn keep(&self, kind: &'static str, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= 8, "{kind} {secret}");
        self.secrets.borrow_mut().insert((kind, secret.clone()));
        secret
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.http.request(method, url)
    }

    /// Sends a request, and looks at the answer and at the database. `gives`: the kinds of secrets that are the
    /// answer's purpose.
    async fn ask(&self, request: RequestBuilder, gives: &'static [&'static str]) -> Answer {
        let answer = send(request).await;
        if let Some(app) = self.app {
            app.run_jobs().await;
        }
        self.look_at_the_database().await;
        let copy = Answer { status: answer.status, headers: answer.headers.clone(), text: answer.text.clone() };
        self.answers.borrow_mut().push((copy, gives));
        answer
    }

    async fn get(&self, path: &str, gives: &'static [&'static str]) -> Answer {
        self.ask(self.request(Method::GET, path), gives).await
    }

    async fn look_at_the_database(&self) {
        let all: String = sqlx::query_scalar(
            "SELECT string_agg(format('SELECT %L || to_jsonb(t)::text FROM %I.%I AS t', table_name || ' ', table_schema,
                                      table_name), ' UNION ALL ')
             FROM information_schema.tables
             WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')",
        )
        .fetch_one(self.pool)
        .await
        .unwrap();
        assert!(all.contains("ivs_jobs._private_jobs") && all.contains("public.company_oauthstate"), "{all}");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(all)).fetch_all(self.pool).await.unwrap();
        self.rows.borrow_mut().extend(rows);

        let sealed: Vec<(i64, String)> =
            sqlx::query_as("SELECT user_id, code_verifier FROM company_oauthstate").fetch_all(self.pool).await.unwrap();
        for (row, sealed) in sealed {
            let place = Place { table: "company_oauthstate", row, column: "code_verifier" };
            let verifier = self.sealer.open(&place, &sealed).expect("a code verifier");
            self.keep("code verifier", String::from_utf8(verifier.expose_secret().to_vec()).unwrap());
        }
        let sealed: Vec<(i64, String)> =
            sqlx::query_as("SELECT user_id, credentials_json FROM company_googlecredentials")
                .fetch_all(self.pool)
                .await
                .unwrap();
        for (row, sealed) in sealed {
            let place = Place { table: "company_googlecredentials", row, column: "credentials_json" };
            let grant = self.sealer.open(&place, &sealed).expect("a grant");
            let grant: Value = serde_json::from_slice(grant.expose_secret()).unwrap();
            self.keep("Google access token", grant["access_token"].as_str().unwrap());
            self.keep("Google refresh token", grant["refresh_token"].as_str().unwrap());
        }
    }

    /// The state in an authorization URL.
    fn keep_state(&self, authorization_url: &str) -> String {
        self.keep("state", parameter(authorization_url, "state"))
    }

    /// The callback's address after "Allow", with its code.
    fn allowed(&self, authorization_url: &str) -> String {
        self.keep_state(authorization_url);
        let back = self.google.allow(authorization_url).unwrap();
        self.keep("code", parameter(&back, "code"));
        back
    }

    async fn authorization_url(&self, token: &str) -> String {
        let path = "/api/company/google/auth-url/";
        let answer = self.ask(self.request(Method::GET, path).bearer_auth(token), &["state"]).await;
        answer.json()["authorization_url"].as_str().unwrap().to_owned()
    }

    async fn connect(&self, token: &str) -> Answer {
        let back = self.allowed(&self.authorization_url(token).await);
        self.get(&back, &[]).await
    }

    async fn login(&self, email: &str, password: &str) -> Answer {
        let request = self.request(Method::POST, "/api/users/login/");
        self.ask(request.json(&json!({"email": email, "password": password})), &["token"]).await
    }

    /// Each with a key of its own.
    async fn schedule(&self, token: &str, changes: Value) -> Answer {
        let key = self.keep("idempotency key", format!("key-of-the-tests-{changes}"));
        let request = self.request(Method::POST, "/api/company/google/create-interview/").bearer_auth(token);
        let request = request.header("idempotency-key", key).json(&body(changes));
        let answer = self.ask(request, &["state"]).await;
        if let Some(url) = answer.json()["google_auth_url"].as_str() {
            self.keep_state(url);
        }
        answer
    }

    /// Uses everything that there is, and lets it go wrong in many ways.
    async fn drive(&self) {
        let token = self.sign_in().await;
        self.bring_bad_tokens(&token).await;
        self.dance(&token).await;
        self.book(&token).await;
        self.change_and_cancel(&token).await;
        self.let_google_fail(&token).await;
        self.let_the_mail_server_fail(&token).await;
        self.open_mailed_links().await;
        self.use_the_portal().await;
        self.let_the_database_fail(&token).await;
        self.let_the_grant_die(&token).await;
        assert!(self.connect(&token).await.header("location").unwrap().ends_with("success"));
        let disconnect = self.request(Method::POST, "/api/company/google/disconnect/").bearer_auth(&token);
        assert_eq!(self.ask(disconnect, &[]).await.status, 200);
    }

    async fn sign_in(&self) -> String {
        assert_eq!(self.login("rita@x.test", WRONG_PASSWORD).await.status, 400);
        assert_eq!(self.login("nobody@x.test", WRONG_PASSWORD).await.status, 400);
        assert_eq!(self.login("ines@x.test", PASSWORD).await.status, 403);
        let request = || self.request(Method::POST, "/api/users/login/");
        let broken = format!(r#"{{"email":"rita@x.test","password":"{PASSWORD}""#);
        for text in [broken.clone(), format!("[{broken}}}]"), format!("{PASSWORD}\"")] {
            let answer = self.ask(request().header("content-type", "application/json").body(text), &[]).await;
            assert_eq!(answer.status, 400);
        }
        let wrong_type = request().header("content-type", "text/plain").body(broken);
        assert_eq!(self.ask(wrong_type, &[]).await.status, 415);
        let form = request().form(&[("email", "rita@x.test"), ("password", PASSWORD)]);
        let answer = self.ask(form, &["token"]).await.json();
        self.keep("token", answer["refresh_token"].as_str().unwrap());
        self.keep("token", answer["access_token"].as_str().unwrap())
    }

    /// How many faults to try: a real server really waits between its attempts.
    fn patience(&self) -> usize {
        if self.app.is_some() { usize::MAX } else { 2 }
    }

    async fn bring_bad_tokens(&self, token: &str) {
        let profile = "/api/users/profile/";
        let claims = json!({"token_type": "access", "exp": 1, "jti": "0".repeat(32), "user_id": RITA});
        let expired = self.keep("token", support::token(&claims));
        let cut = self.keep("token", &token[..token.len() - 3]);
        let unknown = self.keep("token", "an-opaque-token-of-somebody-else");
        for bad in [&expired, &cut, &unknown] {
            assert_eq!(self.ask(self.request(Method::GET, profile).bearer_auth(bad), &[]).await.status, 401);
        }
        let twice = self.request(Method::GET, profile).header("authorization", format!("Bearer {token} {token}"));
        assert_eq!(self.ask(twice, &[]).await.status, 401);
        assert_eq!(self.get(&format!("{profile}?token={token}"), &[]).await.status, 401);
        assert_eq!(self.get(&format!("/nope/{token}/?token={token}"), &[]).await.status, 404);
        let redirected = self.get(&format!("/api/company/interviews?token={token}"), &["token"]).await;
        assert_eq!(redirected.status, 301);
        let good = self.request(Method::GET, profile).bearer_auth(token);
        assert_eq!(self.ask(good, &[]).await.status, 200);
    }

    async fn dance(&self, token: &str) {
        let connect = |accept: &str| {
            self.request(Method::GET, "/api/company/google/connect/").bearer_auth(token).header("accept", accept)
        };
        let answer = self.ask(connect("text/html"), &["state"]).await;
        self.keep_state(answer.header("location").unwrap());
        let answer = self.ask(connect("application/json"), &["state"]).await;
        self.keep_state(answer.json()["authorization_url"].as_str().unwrap());

        let url = self.authorization_url(token).await;
        self.keep_state(&url);
        let back = self.google.deny(&url).unwrap();
        assert!(self.get(&back, &[]).await.header("location").unwrap().ends_with("Authorization%20code%20missing"));
        let faults = [
            FaultKind::Echo { status: 400 },
            FaultKind::reason(400, "invalid_grant"),
            FaultKind::Garbage,
            FaultKind::AnswerLost,
            FaultKind::status(503),
            FaultKind::Echo { status: 500 },
            FaultKind::reason(401, "invalid_client"),
        ];
        for kind in faults.into_iter().take(self.patience()) {
            self.google.order(Fault { on: Call::Exchange, times: 9, kind });
            let answer = self.connect(token).await;
            assert!(answer.header("location").unwrap().ends_with("Could%20not%20connect%20Google%20Calendar"));
            self.google.clear_faults();
        }
        let scopes = Some(vec!["openid".to_owned()]);
        self.google.behave(Behaviour { granted_scopes: scopes, ..Behaviour::default() });
        self.connect(token).await;
        self.google.behave(Behaviour::default());

        let back = self.allowed(&self.authorization_url(token).await);
        assert!(self.get(&back, &[]).await.header("location").unwrap().ends_with("google_oauth=success"));
        assert!(self.get(&back, &[]).await.header("location").unwrap().ends_with("expired%20OAuth%20state"));
    }

    async fn book(&self, token: &str) {
        assert_eq!(self.schedule(token, json!({})).await.status, 200);
        let replayed = self.schedule(token, json!({})).await;
        assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
        let key = self.keep("idempotency key", "key-of-the-tests-{}");
        let other = self.request(Method::POST, "/api/company/google/create-interview/").bearer_auth(token);
        let other = other.header("idempotency-key", key).json(&body(json!({"time": "09:00"})));
        assert_eq!(self.ask(other, &[]).await.status, 422);
        self.google.behave(Behaviour { new_refresh_token_on_refresh: true, ..Behaviour::default() });
        self.google.expire_access_tokens();
        assert_eq!(self.schedule(token, json!({"date": "2030-02-02"})).await.status, 200);
        self.google.behave(Behaviour::default());
    }

    /// Everything that can be done with an interview, with Google failing and without.
    async fn change_and_cancel(&self, token: &str) {
        let own = "/api/company/interviews/";
        let call = |method: Method, path: &str| self.request(method, path).bearer_auth(token);
        let list = self.ask(call(Method::GET, own), &[]).await.json();
        let id = list[0]["id"].as_i64().unwrap();
        let at = |rest: &str| format!("{own}{id}/{rest}");
        let change = |time| call(Method::PATCH, &at("")).json(&json!({"time": time}));
        assert_eq!(self.ask(change("16:00"), &[]).await.status, 200);
        self.google.order(Fault { on: Call::Patch, times: 1, kind: FaultKind::reason(403, "forbidden") });
        assert_eq!(self.ask(change("17:00"), &[]).await.status, 502);
        for (method, rest, status) in [
            (Method::GET, "", 200),
            (Method::GET, "join/", 200),
            (Method::GET, "calendar.ics", 200),
            (Method::POST, "joined/", 409),
            (Method::POST, "left/", 200),
        ] {
            assert_eq!(self.ask(call(method, &at(rest)), &[]).await.status, status, "{rest}");
        }
        self.google.order(Fault { on: Call::Delete, times: 1, kind: FaultKind::status(400) });
        let cancel = call(Method::POST, &at("cancel/")).json(&json!({"reason": "Filled"}));
        assert_eq!(self.ask(cancel, &[]).await.status, 200);
        for path in ["/api/notifications/notifications/", "/metrics"] {
            assert_eq!(self.ask(call(Method::GET, path), &[]).await.status, 200);
        }
    }

    async fn let_google_fail(&self, token: &str) {
        let faults = [
            (Call::Insert, FaultKind::Echo { status: 400 }),
            (Call::Refresh, FaultKind::Echo { status: 400 }),
            (Call::Refresh, FaultKind::Echo { status: 500 }),
            (Call::Insert, FaultKind::Echo { status: 500 }),
            (Call::Insert, FaultKind::reason(403, "dailyLimitExceeded")),
            (Call::Refresh, FaultKind::Garbage),
            (Call::Insert, FaultKind::AnswerLost),
            (Call::Insert, FaultKind::status(500)),
            (Call::Insert, FaultKind::Garbage),
            (Call::Insert, FaultKind::Hang),
            (Call::Get, FaultKind::status(404)),
            (Call::Refresh, FaultKind::status(503)),
            (Call::Refresh, FaultKind::Hang),
        ];
        for (on, kind) in faults.into_iter().take(self.patience()) {
            if on == Call::Refresh {
                self.google.expire_access_tokens();
            }
            let what = format!("{on:?} {kind:?}");
            self.google.order(Fault { on, times: 99, kind });
            let answer = self.schedule(token, json!({"date": "2030-02-03", "notes": what})).await;
            assert_eq!(answer.status, 502, "{what} {answer:?}");
            self.google.clear_faults();
        }
        self.google.behave(Behaviour { meet: Meet::Missing, ..Behaviour::default() });
        assert_eq!(self.schedule(token, json!({"date": "2030-02-03"})).await.status, 502);
        self.google.behave(Behaviour::default());
    }

    async fn let_the_grant_die(&self, token: &str) {
        self.google.revoke_grants();
        let answer = self.schedule(token, json!({"date": "2030-02-05"})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["needs_google_auth"]), (401, &json!(true)));
    }

    async fn let_the_mail_server_fail(&self, token: &str) {
        for (number, (step, fault)) in [
            (Step::Content, mailbox::Fault::Echo(451)),
            (Step::Login, mailbox::Fault::Echo(535)),
            (Step::Content, mailbox::Fault::Echo(554)),
            (Step::Recipient, mailbox::Fault::Answer(550)),
            (Step::Sender, mailbox::Fault::Answer(451)),
            // The next ones have to sign in again.
            (Step::Content, mailbox::Fault::StoreThenClose),
            (Step::Login, mailbox::Fault::Answer(535)),
        ]
        .into_iter()
        .enumerate()
        {
            self.mailbox.order(step, fault, 4);
            let by_phone =
                json!({"date": "2030-02-04", "time": format!("{:02}:00", 9 + number), "interview_type": "phone"});
            let answer = self.schedule(token, by_phone).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            self.mailbox.release();
        }
    }

    /// The pages, with forms that are right, wrong, or somebody else's.
    async fn use_the_portal(&self) {
        let html = |request: RequestBuilder| request.header("accept", "text/html");
        let page = self.ask(html(self.request(Method::GET, "/login/")), &["visitor cookie", "form token"]).await;
        let visitor = format!("umemployed_visitor={}", self.keep("visitor cookie", cookie(&page)));
        let form_token = self.keep("form token", Page::of(&page).form_token());
        let sign_in = |password: &str, form_token: &str| {
            let request = html(self.request(Method::POST, "/login/")).header("cookie", &visitor);
            request.form(&[("email", "otto@x.test"), ("password", password), ("form_token", form_token)])
        };
        let again: &[&str] = &["visitor cookie", "form token"];
        for (password, form_token, status) in
            [(WRONG_PASSWORD, &*form_token, 400), (PASSWORD, "made-up", 403), ("", &form_token, 400)]
        {
            assert_eq!(self.ask(sign_in(password, form_token), again).await.status, status);
        }
        let answer = self.ask(sign_in(PASSWORD, &form_token), &["session cookie"]).await;
        assert_eq!(answer.status, 303);
        let session = self.keep("session cookie", cookie(&answer));
        let cookies = format!("umemployed_portal={session}; {visitor}");
        let get = |path: &str| html(self.request(Method::GET, path)).header("cookie", &cookies);
        // The cookie where it does not belong.
        for request in [
            self.request(Method::GET, "/api/users/profile/").bearer_auth(&session),
            self.request(Method::GET, "/api/users/profile/").header("cookie", &cookies),
        ] {
            assert_eq!(self.ask(request, &[]).await.status, 401);
        }
        assert_eq!(self.ask(get(&format!("/nope/{session}/?token={session}")), &[]).await.status, 404);

        let dashboard = self.ask(get("/dashboard/"), ON_PAGES).await;
        let form_token = self.keep("form token", Page::of(&dashboard).form_token());
        let post = |path: &str, fields: &[(&str, &str)]| {
            let fields: Vec<_> = [&[("form_token", &*form_token)], fields].concat();
            html(self.request(Method::POST, path)).header("cookie", &cookies).form(&fields)
        };
        let to_google = self.ask(post("/dashboard/google/connect/", &[]), &["state"]).await;
        let back = self.allowed(to_google.header("location").unwrap());
        let back = self.ask(get(&back), &[]).await;
        assert_eq!(back.header("location"), Some("/dashboard/?google_oauth=success"));
        let navigation = self.ask(get("/api/company/google/connect/"), &["state"]).await;
        self.keep_state(navigation.header("location").unwrap());

        let page = self.ask(get("/dashboard/schedule/?job=22"), ON_PAGES).await;
        let key = Page::of(&page).one("[name=key]").attribute("value").unwrap().to_owned();
        self.keep("form key", &key);
        let about = [("job_id", "22"), ("candidate_id", "201"), ("key", &key), ("timezone", "Asia/Tokyo")];
        let about = [&about[..], &[("date", "2030-01-16"), ("time", "09:30"), ("interview_type", "phone")]].concat();
        let about = [&about[..], &[("duration_minutes", "60"), ("location", ""), ("note", "")]].concat();
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&about).finish();
        // The interview 502 is at the same time: it speaks against the form.
        assert_eq!(self.ask(get(&format!("/dashboard/schedule/preview/?{query}")), &[]).await.status, 200);
        let page = self.ask(post("/dashboard/schedule/", &about), ON_PAGES).await;
        assert_eq!(page.status, 200);
        let seen = Page::of(&page).one("[name=seen]").attribute("value").unwrap().to_owned();
        let seen = [&about[..], &[("seen", &*seen)]].concat();
        for done in ["scheduled", "scheduled-before"] {
            let answer = self.ask(post("/dashboard/schedule/", &seen), ON_PAGES).await;
            assert_eq!(answer.header("location"), Some(&*format!("/dashboard/?done={done}")));
        }
        let other = [&seen[..], &[("note", "other")]].concat();
        assert_eq!(self.ask(post("/dashboard/schedule/", &other[..]), ON_PAGES).await.status, 422);

        for (what, field) in [("change", ("note", "new")), ("cancel", ("reason", "why not"))] {
            let path = format!("/dashboard/interviews/502/{what}/");
            let page = self.ask(get(&path), ON_PAGES).await;
            let digest = Page::of(&page).one("[name=digest]").attribute("value").unwrap().to_owned();
            let forged = [field, ("form_token", "made-up")];
            let forged = html(self.request(Method::POST, &path)).header("cookie", &cookies).form(&forged);
            assert_eq!(self.ask(forged, ON_PAGES).await.status, 403);
            assert_eq!(self.ask(post(&path, &[field, ("digest", "old")]), ON_PAGES).await.status, 409);
            assert_eq!(self.ask(post(&path, &[field, ("digest", &digest)]), ON_PAGES).await.status, 303);
        }
        let mail: String = sqlx::query_scalar(
            "SELECT m.id::text FROM ivs_mail m JOIN company_interview i ON i.id = interview_id
             WHERE recruiter_id = 102 LIMIT 1",
        )
        .fetch_one(self.pool)
        .await
        .unwrap();
        assert_eq!(self.ask(post(&format!("/dashboard/mails/{mail}/resend/"), &[]), ON_PAGES).await.status, 303);
        assert_eq!(self.ask(get("/interviews/502/join/"), ON_PAGES).await.status, 200);
        assert_eq!(self.ask(get("/interviews/502/calendar.ics"), &[]).await.status, 200);
        assert_eq!(self.ask(post("/dashboard/google/disconnect/", &[]), ON_PAGES).await.status, 303);
        assert_eq!(self.ask(post("/logout/", &[]), &[]).await.status, 303);
        assert_eq!(self.ask(get("/dashboard/"), &[]).await.status, 302);
    }

    /// Credentials of all kinds, where a fault of ours answers.
    async fn let_the_database_fail(&self, token: &str) {
        let secret = |kind| self.secrets.borrow().iter().find(|secret| secret.0 == kind).unwrap().1.clone();
        let (session, link) = (secret("session cookie"), secret("mailed token"));
        let url = self.authorization_url(token).await;
        let back = self.allowed(&url);
        sqlx::raw_sql("ALTER TABLE users_user RENAME TO gone").execute(self.pool).await.unwrap();
        let cookie = format!("umemployed_portal={session}");
        let login = json!({"email": "rita@x.test", "password": PASSWORD});
        for request in [
            self.request(Method::GET, "/api/users/profile/").bearer_auth(token),
            self.request(Method::POST, "/api/users/login/").json(&login),
            self.request(Method::GET, "/dashboard/").header("cookie", cookie).header("accept", "text/html"),
            self.request(Method::GET, &format!("/interviews/502/join/?token={link}")),
        ] {
            let answer = send(request).await;
            assert_eq!(answer.status, 500, "{answer:?}");
            self.answers.borrow_mut().push((answer, &[]));
        }
        let answer = send(self.request(Method::GET, &back)).await;
        assert!(answer.header("location").unwrap().ends_with("Could%20not%20connect%20Google%20Calendar"));
        self.answers.borrow_mut().push((answer, &[]));
        sqlx::raw_sql("ALTER TABLE gone RENAME TO users_user").execute(self.pool).await.unwrap();
    }

    /// The tokens of all mails that were ever delivered.
    fn keep_mailed_tokens(&self) {
        for link in self.mailbox.mails().iter().filter_map(room_link) {
            self.keep("mailed token", parameter(&link, "token"));
        }
    }

    async fn open_mailed_links(&self) {
        let mails = until(|| Some(self.mailbox.mails()).filter(|mails| mails.len() > 3)).await;
        let mut links = Vec::new();
        for mail in &mails {
            let Some(link) = room_link(mail) else { continue };
            let token = self.keep("mailed token", parameter(&link, "token"));
            assert!(!mail.calendar().unwrap().text.contains(&token), "calendar entries are shared");
            links.push((link, token));
        }
        let (link, token) = links.first().expect("a mailed link");
        assert_eq!(self.get(link, &["mailed token"]).await.status, 200);
        assert_eq!(self.get(&link.replace("join/?", "join?"), &["mailed token"]).await.status, 301);
        assert_eq!(self.ask(self.request(Method::POST, link), &["mailed token"]).await.status, 409);
        let page = link.split('?').next().unwrap();
        let form = self.request(Method::POST, page).form(&[("token", token)]);
        assert_eq!(self.ask(form, &["mailed token"]).await.status, 409);
        let file = self.get(&link.replace("join/?", "calendar.ics?"), &[]).await;
        assert!(file.status == 200 && file.text.starts_with("BEGIN:VCALENDAR"), "{file:?}");
        let left = self.ask(self.request(Method::POST, &link.replace("join/?", "left/?")), &["mailed token"]).await;
        assert_eq!(left.status, 303);
        assert_eq!(self.get(&format!("/interviews/nope/join/?token={token}"), &[]).await.status, 404);
        assert_eq!(self.get(&format!("/interviews/501/join/?token={token}"), &[]).await.status, 403);
        assert_eq!(self.get(&format!("/api/company/interviews/501/?token={token}"), &[]).await.status, 401);
        let bearer = self.request(Method::GET, "/api/company/interviews/").bearer_auth(token);
        assert_eq!(self.ask(bearer, &[]).await.status, 401);
    }

    /// Searches everything for everything; these kinds have been used.
    fn assert_kept(&self, log: &str, kinds: &[&str]) {
        self.keep_mailed_tokens();
        let secrets = self.secrets.borrow();
        let used: BTreeSet<_> = secrets.iter().map(|secret| secret.0).collect();
        assert_eq!(used, kinds.iter().copied().collect());
        for (kind, secret) in secrets.iter() {
            for form in forms(secret) {
                for row in self.rows.borrow().iter() {
                    assert!(!row.contains(&form), "the database has a {kind}, {secret}: {row}");
                }
                for line in log.lines() {
                    assert!(!line.contains(&form), "the log has a {kind}, {secret}: {line}");
                }
                for (answer, gives) in self.answers.borrow().iter() {
                    let shown = format!("{:?} {}", answer.headers, answer.text);
                    assert!(gives.contains(kind) || !shown.contains(&form), "an answer has a {kind}: {answer:?}");
                }
            }
        }
        // Tokens that never came our way, in the forms of Google's and of JWTs; and what surrounds them.
        // A JWT begins with one of its header's first two names; less of it also stands in random texts now and then.
        const JWT: [&str; 2] = ["eyJhbGci", "eyJ0eXAi"];
        let tokens = ["ya29.", "1//", "Bearer ", "client_secret"].into_iter().chain(JWT);
        for mark in tokens.clone().chain(["grant_type", "pbkdf2_", "code_challenge"]) {
            assert!(!log.contains(mark), "the log has {mark}");
        }
        for mark in tokens {
            for row in self.rows.borrow().iter() {
                assert!(!row.contains(mark), "the database has {mark}: {row}");
            }
            for (answer, _) in self.answers.borrow().iter().filter(|(_, gives)| !gives.contains(&"token")) {
                assert!(mark == "1//" || !answer.text.contains(mark), "an answer has {mark}: {answer:?}");
            }
        }
    }

    /// One line for each request, with its id and the template of its route; nobody's address; no query.
    fn assert_well_formed(&self, log: &str) {
        for line in log.lines() {
            assert!(line.starts_with("20") && line.contains("Z "), "a line without a time: {line}");
            assert!(!line.contains('?'), "a query: {line}");
            for (at, _) in line.match_indices('@') {
                assert!(line[..at].ends_with("***"), "an address: {line}");
            }
            if line.contains("operation=\"events.insert\"") {
                assert!(line.contains("request: ") && line.contains(" id=\""), "whose call was it? {line}");
            }
        }
        let answers = self.answers.borrow();
        assert!(answers.len() > 50);
        for (answer, _) in answers.iter() {
            let id = format!(" id=\"{}\"", answer.header("x-request-id").unwrap());
            let lines: Vec<&str> =
                log.lines().filter(|line| line.contains(": answered ") && line.contains(&id)).collect();
            let [line] = lines[..] else { panic!("lines of a request: {lines:?} {answer:?}") };
            let route = line.split_once(" route=\"").unwrap().1.split_once('"').unwrap().0;
            let is_template = route.starts_with('/') && !route.contains(|c: char| c.is_ascii_digit());
            assert!(is_template || route == "unmatched" && answer.status == 404, "{line}");
            assert!(line.contains(&format!(" status={} ", answer.status.as_u16())), "{line}");
        }
    }
}

/// The value of the cookie that an answer sets.
fn cookie(answer: &Answer) -> &str {
    answer.header("set-cookie").unwrap().split(['=', ';']).nth(1).unwrap()
}

/// A query parameter, decoded.
fn parameter(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).unwrap_or_else(|| panic!("{name} in {url}")).1.into_owned()
}

/// The secret itself, as it stands in a URL, and its bytes as `bytea` columns show them.
fn forms(secret: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([secret.to_owned(), hex::encode(secret)]);
    forms.insert(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
    forms.insert(Value::from(secret).to_string().trim_matches('"').to_owned());
    if let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(secret.trim_end_matches('=')) {
        forms.insert(hex::encode(bytes));
    }
    forms
}

#[tokio::test]
async fn no_secret_is_logged_answered_or_stored_and_every_request_is_one_line() {
    let app = TestApp::start_with(&SETTINGS).await;
    let (product, lines, _guard) = Product::watched(&app);
    product.drive().await;
    // One with reminders, and what was to be undone or sent later.
    let token = product.sign_in().await;
    let tomorrow = json!({"date": "2026-11-21", "time": "12:30", "timezone": "UTC", "interview_type": "phone"});
    assert_eq!(product.schedule(&token, tomorrow).await.status, 200);
    for _ in 0..5 {
        app.advance(std::time::Duration::from_secs(1800));
        app.sweep().await;
        app.run_jobs().await;
        product.look_at_the_database().await;
    }
    let log = lines.text();
    assert!(log.contains("reminders queued"), "{log}");
    product.assert_kept(&log, &KINDS);
    product.assert_well_formed(&log);
}

#[tokio::test]
async fn no_secret_is_logged_answered_or_stored_where_sign_ins_have_to_pass_recaptcha() {
    const KINDS: [&str; 6] = ["SMTP login", "password", "reCAPTCHA secret", "reCAPTCHA token", "setting", "token"];
    let verifier = recaptcha::Verifier::start().await;
    let app = verifier.app_with(&SETTINGS).await;
    let (product, lines, _guard) = Product::watched(&app);
    let secret = product.keep("reCAPTCHA secret", recaptcha::SECRET);
    let token = product.keep("reCAPTCHA token", recaptcha::TOKEN);
    let quoted = format!("{secret} {token}");
    let refused = |code: &str| json!({"success": false, "error-codes": [code]}).to_string();
    for (status, body, password, came) in [
        (200, json!({"success": true}).to_string(), PASSWORD, 200),
        (200, json!({"success": true}).to_string(), WRONG_PASSWORD, 400),
        (200, refused(&quoted), PASSWORD, 400),
        (200, refused("invalid-input-secret"), PASSWORD, 503),
        (200, quoted.clone(), PASSWORD, 503),
        (400, quoted.clone(), PASSWORD, 503),
    ] {
        verifier.answers(status, &body);
        let login = json!({"email": "rita@x.test", "password": password, "recaptchaToken": token});
        let request = product.request(Method::POST, "/api/users/login/").json(&login);
        let answer = product.ask(request, &["token"]).await;
        assert_eq!(answer.status, came, "{answer:?}");
        if let Some(token) = answer.json()["access_token"].as_str() {
            product.keep("token", token);
        }
    }
    let page = product.get("/login/", &[]).await;
    assert_eq!(page.status, 403, "{page:?}");
    product.assert_kept(&lines.text(), &KINDS);
}

#[tokio::test]
async fn no_secret_is_logged_answered_or_stored_by_a_real_server() {
    let world = World::new().await;
    let database = format!("{}&password={DATABASE_PASSWORD}", world.database.url);
    let server =
        world.serve_with(&[&SETTINGS[..], &[("DATABASE_URL", &database), ("RUST_LOG", "trace")]].concat()).await;
    let mut product = Product::new(world.url(), &world.google, &world.mailbox, &world.database.pool);
    product.drive().await;
    let token = product.sign_in().await;
    assert!(product.connect(&token).await.header("location").unwrap().ends_with("success"));
    let mut log = stopped(server).await;

    // Another key seals from now on; what the old one has sealed still opens.
    let keys = format!("{NEW_ENCRYPTION_KEY},{ENCRYPTION_KEY}");
    let settings = [&SETTINGS[..], &[("DATABASE_URL", &database), ("TOKEN_ENCRYPTION_KEY", &keys)]].concat();
    let server = world.serve_with(&settings).await;
    product.sealer = Sealer::parse(&keys).unwrap();
    let sealed = "SELECT credentials_json FROM company_googlecredentials WHERE user_id = 101";
    let before: String = sqlx::query_scalar(sealed).fetch_one(product.pool).await.unwrap();
    world.google.expire_access_tokens();
    assert_eq!(product.schedule(&token, json!({"date": "2030-03-01"})).await.status, 200);
    let after: String = sqlx::query_scalar(sealed).fetch_one(product.pool).await.unwrap();
    let place = Place { table: "company_googlecredentials", row: RITA, column: "credentials_json" };
    assert!(Sealer::parse(ENCRYPTION_KEY).unwrap().open(&place, &before).is_some());
    assert!(Sealer::parse(NEW_ENCRYPTION_KEY).unwrap().open(&place, &after).is_some());
    log += &stopped(server).await;
    product.assert_kept(&log, &KINDS);
    product.assert_well_formed(&log);
}

/// What a server has said until it stopped when it was asked to.
async fn stopped(mut server: support::process::Server) -> String {
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0));
    server.said()
}
