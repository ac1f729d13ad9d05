//! Hostile clients, over raw connections to a real process: what they send is refused in the contract's words where it
//! can be, nothing of it is a fault of the server's, and nothing of it stays.

use std::{
    cell::Cell,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use interviews::clock::Clock;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    document::DOCUMENT,
    process::{Server, World},
    *,
};

const JSON: &str = "content-type: application/json\r\n";
const LOGIN: &str = "/api/users/login/";

/// A running server, and Rita's tokens.
struct Target {
    world: World,
    server: Server,
    token: String,
    /// With the visitor's, by which one signs in.
    cookie: String,
    visitors_form_token: String,
    form_token: String,
    /// Of her interview, for its form.
    digest: String,
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Reply {
    status: u16,
    /// With the status line, in lower case.
    head: String,
    body: String,
}

impl Target {
    /// Waits a second for slow clients.
    async fn start() -> Target {
        Target::start_with(&[("CLIENT_SECONDS", "1")]).await
    }

    async fn start_with(settings: &[(&str, &str)]) -> Target {
        let world = World::new().await;
        let server = world.serve_with(settings).await;
        Target::of(world, server)
    }

    /// A process that may have no more files open than this, and waits for slow clients as long.
    async fn with_few_files(files: usize, patience: &str) -> Target {
        let world = World::new().await;
        let usual = world.command(&[("CLIENT_SECONDS", patience)]);
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(usual.get_program()).args(usual.get_args());
        command.env_clear().envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let server = Server::start(command);
        server.until_ready(world.port).await;
        Target::of(world, server)
    }

    fn of(world: World, server: Server) -> Target {
        let token = access_token(Clock::System.now(), RITA);
        let (cookie, visitors_form_token, form_token, digest) = Default::default();
        Target { world, server, token, cookie, visitors_form_token, form_token, digest }
    }

    /// The same, where Rita has signed in to the portal.
    async fn start_signed_in() -> Target {
        let mut target = Target::start().await;
        let hidden = |page: &Reply, name: &str| {
            let (_, rest) = page.body.split_once(&format!("name=\"{name}\" value=\"")).expect("a form");
            rest.split('"').next().unwrap().to_owned()
        };
        let cookie = |page: &Reply| {
            let line = page.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
            line.split(';').next().unwrap().to_owned()
        };
        let page = target.ask("GET", "/login/", "accept: text/html\r\n", b"").await;
        target.visitors_form_token = hidden(&page, "form_token");
        let form = [("email", "rita@x.test"), ("password", PASSWORD), ("form_token", &target.visitors_form_token)];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = format!("content-type: application/x-www-form-urlencoded\r\ncookie: {}\r\n", cookie(&page));
        let signed_in = target.ask("POST", "/login/", &headers, body.as_bytes()).await;
        assert_eq!(signed_in.status, 303, "{signed_in:?}");
        target.cookie = format!("{}; {}", cookie(&page), cookie(&signed_in));
        let headers = format!("accept: text/html\r\ncookie: {}\r\n", target.cookie);
        let page = target.ask("GET", "/dashboard/interviews/501/change/", &headers, b"").await;
        target.form_token = hidden(&page, "form_token");
        target.digest = hidden(&page, "digest");
        target
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.world.port)).await.unwrap()
    }

    /// The answers that come back until the server closes the connection, which it must.
    async fn exchange(&self, sent: &[u8]) -> Vec<Reply> {
        let mut socket = self.connect().await;
        let (mut from, mut to) = socket.split();
        let mut said = Vec::new();
        // It may have heard enough before it has heard all; what it said before it hung up stays.
        let all = async { tokio::join!(to.write_all(sent), from.read_to_end(&mut said)) };
        timeout(Duration::from_secs(10), all)
            .await
            .unwrap_or_else(|_| panic!("stays open after {}", shown(sent)))
            .0
            .ok();
        replies(&said)
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let sent =
            [request(method, path, &format!("connection: close\r\n{headers}"), body.len()).as_bytes(), body].concat();
        let mut replies = self.exchange(&sent).await;
        assert_eq!(replies.len(), 1, "{replies:?} to {}", shown(&sent));
        replies.remove(0)
    }

    /// The same as Rita, to an endpoint of the API.
    async fn call(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        self.ask(method, path, &format!("authorization: Bearer {}\r\n{headers}", self.token), body).await
    }

    /// It serves, at once.
    async fn assert_well(&self) {
        let asked = Instant::now();
        let reply = self.call("GET", "/api/company/interviews/?limit=1", "", b"").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(asked.elapsed() < Duration::from_secs(3), "answers after {:?}", asked.elapsed());
    }

    /// It has answered nothing as if it were its own fault.
    async fn assert_blameless(&self) {
        let metrics = self.ask("GET", "/metrics", "", b"").await.body;
        let faults: Vec<&str> = metrics.lines().filter(|line| line.contains("status=\"5")).collect();
        assert!(metrics.contains("status=\"200\"") && faults.is_empty(), "{faults:?}\n{}", self.server.said());
        assert!(!self.server.said().contains("panicked"), "{}", self.server.said());
    }

    /// What it holds in memory, in KiB.
    fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it has ever held.
    fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// How many files and sockets it has open.
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.server.id())).unwrap().count()
    }

    /// How many connections of clients it has open.
    fn connections(&self) -> usize {
        let port = format!(":{:04X}", self.world.port);
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.server.id())).unwrap();
        // Established, and those of which the client has closed its side.
        let is_open = |line: &str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns[1].ends_with(&port) && matches!(columns[3], "01" | "08")
        };
        table.lines().skip(1).filter(|line| is_open(line)).count()
    }

    async fn until_all_are_closed(&self) {
        until(|| (self.connections() == 0).then_some(())).await;
    }
}

fn request(method: &str, path: &str, headers: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x.test\r\ncontent-length: {length}\r\n{headers}\r\n")
}

fn replies(mut said: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !said.is_empty() {
        let end =
            said.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", shown(said))) + 4;
        let head = String::from_utf8_lossy(&said[..end]).into_owned();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or_else(|| panic!("{head}"));
        let body = &said[end..][..length.parse().unwrap()];
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        replies.push(Reply { status, head, body: String::from_utf8(body.to_vec()).unwrap() });
        said = &said[end + body.len()..];
    }
    replies
}

/// The beginning of it, in one line.
fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}

/// A refusal that clients of the API understand: contract §3.2.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, sent: &str) {
    assert_eq!(reply.status, status, "{reply:?} to {sent}");
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{reply:?} to {sent}"));
    let is_text = |name: &str| body[name].as_str().is_some_and(|text| !text.is_empty());
    let is_of_fields = || body.as_object().is_some_and(|body| !body.is_empty() && body.values().all(Value::is_array));
    assert!(is_text("detail") || is_text("error") || is_of_fields(), "{reply:?} to {sent}");
    assert!(reply.head.contains("\r\nx-request-id: "), "{reply:?}");
}

// --- Sizes
// ------------------------------------------------------------------------------------------------------------

async fn send_too_much(target: &Target) {
    let detail = |reply: &Reply| serde_json::from_str::<Value>(&reply.body).unwrap()["detail"].clone();
    let cancel = "/api/interviews/501/cancel/";
    let known = format!("authorization: Bearer {}\r\n{JSON}", target.token);
    // Strangers may send less than people who are signed in.
    for (path, headers, most) in [(LOGIN, JSON, 16 << 10), (cancel, &known, 1 << 20)] {
        let announced = request("POST", path, headers, most + 1);
        let chunk = format!("{:x}\r\n{}\r\n", most / 2, " ".repeat(most / 2));
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}transfer-encoding: chunked\r\n\r\n");
        for sent in [announced, head + chunk.repeat(4).as_str() + "0\r\n\r\n"] {
            let replies = target.exchange(sent.as_bytes()).await;
            assert_eq!(replies.len(), 1, "{}", shown(sent.as_bytes()));
            assert_refused(&replies[0], 413, "too much");
            assert_eq!(detail(&replies[0]), "Request body too large.");
        }
        let exactly = format!("{{\"reason\":1,\"email\":\"{}\"}}", "x".repeat(most - 23));
        assert_eq!(exactly.len(), most);
        assert_refused(&target.ask("POST", path, headers, exactly.as_bytes()).await, 400, "as much as there may be");
    }

    let long = target.call("GET", &format!("/api/company/interviews/?role={}", "x".repeat(16 << 10)), "", b"").await;
    assert_refused(&long, 414, "a long query");
    assert_eq!(detail(&long), "Request URI too long.");
    let cookies = format!("cookie: {}\r\n", "x".repeat(64 << 10));
    let large = target.call("GET", "/api/company/interviews/", &cookies, b"").await;
    assert_refused(&large, 431, "a large header");
    assert_eq!(detail(&large), "Request headers too large.");

    // Beyond what is read at all.
    for (path, headers, status) in [
        (format!("/{}", "x".repeat(70_000)), String::new(), 414),
        ("/".to_owned(), format!("cookie: {}\r\n", "x".repeat(200_000)), 431),
        ("/".to_owned(), (0..101).map(|number| format!("x-{number}: y\r\n")).collect(), 431),
    ] {
        assert_eq!(target.ask("GET", &path, &headers, b"").await.status, status);
    }
}

// --- Framing
// ----------------------------------------------------------------------------------------------------------

/// What stands behind a request that is refused, in the hope of being taken for one of its own.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nhost: smuggled\r\n\r\n";

async fn send_what_is_no_http(target: &Target) {
    let post = format!("POST {LOGIN} HTTP/1.1\r\nhost: x\r\n{JSON}");
    for lines in [
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5, 6\r\n\r\nhello",
        "content-length: +5\r\n\r\nhello",
        "content-length: -1\r\n\r\n",
        "content-length: 0x5\r\n\r\nhello",
        "content-length: 99999999999999999999\r\n\r\n",
        "transfer-encoding: gzip\r\n\r\n",
        "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "content-length : 5\r\n\r\nhello",
        "x: a\0b\r\n\r\n",
        "x: a\rb\r\n\r\n",
        "x: a\r\n folded\r\n\r\n",
        "\u{1}: a\r\n\r\n",
        "no colon\r\n\r\n",
    ] {
        let sent = format!("{post}{lines}{SMUGGLED}");
        let replies = target.exchange(sent.as_bytes()).await;
        let seen: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(seen, [400], "{lines:?}");
    }
    for line in [
        "GET /\0 HTTP/1.1",
        "GET /healthz HTTP/9.9",
        "GET  /healthz HTTP/1.1",
        "GET /healthz extra HTTP/1.1",
        " GET /healthz HTTP/1.1",
        "G\u{1}T /healthz HTTP/1.1",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}",
        "PRI * HTTP/2.0",
    ] {
        let replies = target.exchange(format!("{line}\r\nhost: x\r\n\r\n{SMUGGLED}").as_bytes()).await;
        assert!(matches!(&replies[..], [reply] if reply.status == 400), "{line:?}: {replies:?}");
    }
    // Where both are said the chunks count, and what follows them is not heard.
    for lines in ["content-length: 44\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
    {
        let replies = target.exchange(format!("{post}{lines}\r\n\r\n0\r\n\r\n{SMUGGLED}").as_bytes()).await;
        assert!(matches!(&replies[..], [reply] if reply.status == 400), "{lines:?}: {replies:?}");
    }
    let old = format!("POST {LOGIN} HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    let replies = target.exchange(old.as_bytes()).await;
    assert!(replies.iter().all(|reply| reply.status == 400) && replies.len() <= 1, "{replies:?}");
}

async fn send_malformed_chunks(target: &Target) {
    let head = format!("POST {LOGIN} HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    let extended = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(100_000));
    let trailed = format!("2\r\n{{}}\r\n0\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "\r\n\r\n",
        "2\r\n{}xx0\r\n\r\n",
        "2\n{}\n0\n\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}",
        &extended,
        &trailed,
    ] {
        let replies = target.exchange(format!("{head}{chunks}{SMUGGLED}").as_bytes()).await;
        assert_eq!(replies.len(), 1, "{} {replies:?}", shown(chunks.as_bytes()));
        assert_refused(&replies[0], 400, chunks);
    }
}

async fn pipeline(target: &Target) {
    let many: String =
        (0..50).map(|id| format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\n\r\n")).collect();
    let replies = target
        .exchange(format!("{many}GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await;
    assert_eq!(replies.len(), 51);
    for (id, reply) in replies[..50].iter().enumerate() {
        assert!(reply.status == 200 && reply.head.contains(&format!("x-request-id: {id}\r\n")), "{reply:?}");
    }
}

// --- Targets and encodings
// --------------------------------------------------------------------------------------------

async fn ask_for_odd_targets(target: &Target) {
    let absolute = target.ask("GET", "http://evil.test/healthz", "", b"").await;
    assert_eq!(absolute.status, 200, "{absolute:?}");
    for (method, path, status) in [
        ("OPTIONS", "*", 404),
        ("CONNECT", "evil.test:443", 404),
        // The start page leads to the sign-in.
        ("GET", "http://evil.test", 302),
        ("BREW", "/nowhere", 404),
    ] {
        let reply = target.ask(method, path, "", b"").await;
        match status {
            302 => assert_eq!(reply.status, 302, "{method} {path}: {reply:?}"),
            _ => assert_refused(&reply, status, path),
        }
    }
    for path in [
        "/api/%ff%fe/",
        "/api/interviews/%ff/",
        "/api/interviews/%00/",
        "/swagger/%ff",
        "/redoc/%00",
        "/redoc/..%2f..%2fetc%2fpasswd",
        "/interviews/static/%ff",
        "/interviews/static/%00",
        "/interviews/501/calendar.ics%00",
        "/%",
        "/%zz",
    ] {
        assert_refused(&target.call("GET", path, "", b"").await, 404, path);
    }
    for (path, status) in [
        ("/api/company/interviews/?role=%ff%00", 200),
        ("/api/company/interviews/?limit=%00", 400),
        ("/api/company/interviews/?cursor=%00%ff", 400),
        ("/api/company/interviews/analytics/?from=%00", 400),
        ("/interviews/local-times/?zone=%00&at=%ff", 400),
        ("/api/company/google/callback/?state=%00&code=%00%ff", 302),
        ("/api/company/google/callback/?error=%00", 302),
        ("/interviews/501/join/?token=%00%ff", 403),
        ("/login/?next=%00%0d%0aset-cookie:x", 200),
    ] {
        let reply = target.call("GET", path, "", b"").await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    // Bytes that no URL has.
    let mut raw = b"GET /api/\xff\xfe/?\xff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec();
    assert!(matches!(target.exchange(&raw).await[..], [Reply { status: 400, .. }]));
    raw = b"GET /healthz HTTP/1.1\r\nhost: \xff\r\ncookie: \xff\r\naccept: \xff\r\norigin: \xff\r\nconnection: close\r\n\r\n".to_vec();
    assert!(matches!(target.exchange(&raw).await[..], [Reply { status: 200, .. }]));
}

async fn send_compressed_bodies(target: &Target) {
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip", "x", "\u{ff}"] {
        for kind in ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "x"] {
            let headers = format!("content-type: {kind}\r\ncontent-encoding: {encoding}\r\n");
            let reply = target.ask("POST", LOGIN, &headers, b"\x1f\x8b\x08\0\0\0\0\0\0\x03").await;
            assert_refused(&reply, 415, &headers);
            assert!(reply.body.contains("Unsupported content encoding"), "{reply:?}");
        }
    }
    let plain = target.ask("POST", LOGIN, &format!("{JSON}content-encoding: identity\r\n"), b"{}").await;
    assert!(plain.body.contains("This field is required."), "{plain:?}");
}

// --- Bodies
// -----------------------------------------------------------------------------------------------------------

/// The API's operations that have a body, at Rita's interview; and the names of their texts.
fn operations() -> Vec<(String, String, Vec<String>)> {
    let mut found = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") else { continue };
            let schema = schema["$ref"].as_str().map_or(schema, |to| DOCUMENT.pointer(&to[1..]).unwrap());
            let is_text = |schema: &Value| {
                schema["type"].to_string().contains("string")
                    || schema.get("$ref").is_some()
                    || schema.get("oneOf").is_some()
            };
            let properties = schema["properties"].as_object().into_iter().flatten();
            let texts = properties.filter(|(_, schema)| is_text(schema)).map(|(name, _)| name.clone()).collect();
            found.push((method.to_uppercase(), path.replace("{id}", "501"), texts));
        }
    }
    assert!(found.len() >= 10, "{found:?}");
    found
}

/// To one operation of so many.
async fn send_hostile_json(target: &Target, of: usize) {
    let nested = |depth: usize| "[".repeat(depth);
    let deep_inside = format!("{{\"date\":{}{}}}", nested(100_000), "]".repeat(100_000));
    let digits = format!("{{\"candidate_id\":1{}}}", "0".repeat(10_000));
    let unparsable: Vec<Vec<u8>> = [
        nested(100_000).as_str(),
        &"{\"a\":".repeat(100_000),
        &deep_inside,
        &digits,
        "{\"candidate_id\":1e999}",
        "{\"email\":\"\\ud800\"}",
        "{\"email\":\"\\udc00\\ud800\"}",
        "{\"email\":\"a\nb\"}",
        "{\"email\":NaN}",
        "\u{feff}{}",
        "{} {}",
        "{\"a\":1,}",
        "{",
        "'",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into_iter()
    .chain([b"{\"email\":\"\xff\xfe\"}".to_vec(), b"\0".to_vec(), vec![b' '; 100_000]])
    .collect();
    for (method, path, texts) in operations().into_iter().step_by(of) {
        for body in &unparsable {
            let reply = target.call(&method, &path, JSON, body).await;
            // Where anybody may call, what is larger is not read.
            let is_large = path.starts_with("/api/users/") && body.len() > 16 << 10;
            let (status, words) = if is_large { (413, "too large") } else { (400, "JSON parse error") };
            assert_refused(&reply, status, &format!("{method} {path} {}", shown(body)));
            assert!(reply.body.contains(words), "{method} {path} {}: {reply:?}", shown(body));
        }
        // PostgreSQL has no text with this character in it.
        for name in &texts {
            for body in [json!({ name: "a\0b" }), json!({ name: "\0" })] {
                let body = body.to_string();
                assert_refused(
                    &target.call(&method, &path, JSON, body.as_bytes()).await,
                    400,
                    &format!("{method} {path} {body}"),
                );
            }
        }
        let odd = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!(u64::MAX),
            json!([]),
            json!(["\0"]),
            json!({"\0": "\0"}),
        ];
        for name in texts.iter().map(String::as_str).chain(["candidate_id", "\0"]) {
            for value in &odd {
                let body = if path.contains("/cancel/") || method == "DELETE" {
                    // Not what would cancel it.
                    json!({ "reason": 1, name: value })
                } else {
                    json!({ name: value })
                };
                let body = body.to_string();
                let reply = target.call(&method, &path, JSON, body.as_bytes()).await;
                assert!(reply.status < 500, "{method} {path} {body}: {reply:?}");
            }
        }
        let twice = b"{\"email\":\"a@x.test\",\"email\":5,\"password\":\"x\",\"password\":null,\"reason\":\"x\",\"reason\":1,\"date\":\"2030-01-01\",\"date\":1}";
        assert!((400..500).contains(&target.call(&method, &path, JSON, twice).await.status), "{method} {path}");
    }
    target.assert_well().await;
}

/// A page that takes a form, and how it answers one that it has read: with this status, and words that no refusal of
/// what cannot be read has.
struct FormPage {
    path: &'static str,
    /// What the form needs to get in, and what keeps it from changing something.
    fields: String,
    status: u16,
    says: &'static str,
}

fn form_pages(target: &Target) -> Vec<FormPage> {
    let page = |path, fields: &str, status, says| FormPage { path, fields: fields.to_owned(), status, says };
    let nobodys_mail = "/dashboard/mails/00000000-0000-0000-0000-000000000000/resend/";
    let stale = format!("digest={}&date=x", target.digest);
    vec![
        page("/login/", "", 400, "Please enter the e-mail address of your account"),
        page(nobodys_mail, "", 404, "This page does not exist"),
        page("/dashboard/mails/%00/resend/", "", 404, "This page does not exist"),
        page("/interviews/501/join/", "", 409, "Interview"),
        page("/dashboard/schedule/", "job_id=21&date=x", 400, "name=\"candidate_id\""),
        page("/interviews/501/left/", "", 303, ""),
        page("/dashboard/google/connect/", "", 303, ""),
        page("/dashboard/google/disconnect/", "", 303, ""),
        page("/dashboard/interviews/501/change/", &stale, 400, "name=\"digest\""),
        page("/dashboard/interviews/501/cancel/", "", 409, "has been changed since"),
    ]
}

/// Forms that begin with these fields, or seem to; some can be read.
fn hostile_forms(fields: &[(&str, &str)]) -> Vec<(&'static str, Vec<u8>)> {
    const URL_ENCODED: &str = "application/x-www-form-urlencoded";
    let ours = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let part =
        |name: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let parts: String = fields.iter().map(|(name, value)| part(name, value)).collect();
    let many: String = (0..10_000).map(|number| part(&number.to_string(), "x")).collect();
    let nameless = "--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b\r\n\r\nx\r\n--b\r\ncontent-type: x\r\n\r\n";
    let long_head = format!(
        "--b\r\ncontent-disposition: form-data; name=\"a\"\r\nx: {}\r\n\r\nx\r\n--b--\r\n",
        "x".repeat(100_000)
    );
    let multipart = |body: String| ("multipart/form-data; boundary=b", body.into_bytes());
    let mut forms = vec![
        multipart(format!("{parts}{many}--b--\r\n")),
        multipart(format!("{parts}{nameless}--b--\r\n")),
        multipart(format!("{parts}{}--b-", part("date", "x"))),
        multipart(parts.clone()),
        multipart(format!("{parts}{}--b--\r\n", part("note", "\0"))),
        multipart(format!("{parts}{}--b--\r\n", part("date\"; filename=\"x", "x"))),
        multipart(long_head),
        ("multipart/form-data; boundary=other", format!("{parts}--b--\r\n").into_bytes()),
        ("multipart/form-data; boundary=\"\"", parts.clone().into_bytes()),
        ("multipart/form-data", parts.into_bytes()),
        (URL_ENCODED, format!("{ours}&{}", "a=&".repeat(50_000)).into_bytes()),
        (URL_ENCODED, format!("{ours}&{}", "=&%&%zz&&&===".repeat(100)).into_bytes()),
        (URL_ENCODED, [ours.as_bytes(), b"&note=\xff\xfe%ff%c0%80&reason=%ff"].concat()),
        (URL_ENCODED, format!("{ours}&note=a%00b").into_bytes()),
        ("application/json", nested_form()),
    ];
    for name in [
        "candidate_id",
        "job_id",
        "date",
        "time",
        "timezone",
        "duration_minutes",
        "interview_type",
        "location",
        "note",
        "reason",
        "key",
        "seen",
        "reader_zone",
        "next",
        "email",
        "password",
        "form_token",
        "digest",
    ] {
        forms.push((
            URL_ENCODED,
            format!("{ours}&{name}=%ff%0d%0a-1e999%e2%80%ae'%22%3Cscript%3E//{{{{%25").into_bytes(),
        ));
    }
    forms
}

async fn post_form(target: &Target, path: &str, kind: &str, body: &[u8]) -> Reply {
    let headers = format!("content-type: {kind}\r\naccept: text/html\r\ncookie: {}\r\n", target.cookie);
    let reply = target.ask("POST", path, &headers, body).await;
    assert!(reply.status < 500, "{path} {kind} {}: {reply:?}", shown(body));
    let is_page = reply.status < 400 || reply.head.contains("content-type: text/html");
    assert!(is_page, "{path} {}: {reply:?}", shown(body));
    reply
}

/// To one page of so many; to each come forms that it reads.
async fn send_hostile_forms(target: &Target, of: usize) {
    for page in form_pages(target).into_iter().step_by(of) {
        let token = if page.path == "/login/" { &target.visitors_form_token } else { &target.form_token };
        let own = form_urlencoded::parse(page.fields.as_bytes()).into_owned().collect::<Vec<_>>();
        let mut fields: Vec<(&str, &str)> = vec![("form_token", token)];
        fields.extend(own.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let (mut read, mut others) = (0, Vec::new());
        for (kind, body) in hostile_forms(&fields) {
            let reply = post_form(target, page.path, kind, &body).await;
            match reply.status == page.status && reply.body.contains(page.says) {
                true => read += 1,
                false => others.push(reply.status),
            }
        }
        println!("{}: {read} read; {others:?}", page.path);
        assert!(read >= 10, "{} has read {read} forms, and answered the others with {others:?}", page.path);
    }
}

/// These get nowhere, and the last one ends the session.
async fn sign_out_with_hostile_forms(target: &Target) {
    let path = "/logout/";
    for (kind, body) in hostile_forms(&[("form_token", "x")]) {
        let reply = post_form(target, path, kind, &body).await;
        assert!(matches!(reply.status, 400 | 403), "{} {reply:?}", shown(&body));
    }
    let many = hostile_forms(&[("form_token", &target.form_token)]).swap_remove(0);
    assert_eq!(post_form(target, path, many.0, &many.1).await.status, 303);
    let headers = format!("accept: text/html\r\ncookie: {}\r\n", target.cookie);
    assert_eq!(target.ask("GET", "/dashboard/", &headers, b"").await.status, 302, "the session is over");
}

/// A form as JSON, with objects where texts belong.
fn nested_form() -> Vec<u8> {
    json!({"note": {"a": []}, "date": ["\0"], "form_token": {"\0": 1}, "email": 1.5}).to_string().into_bytes()
}

#[tokio::test]
async fn bodies_urls_and_headers_that_are_too_large_are_refused_in_the_contracts_words() {
    send_too_much(&Target::start().await).await;
}

#[tokio::test]
async fn what_is_no_http_request_ends_its_connection_and_nothing_is_smuggled_behind_it() {
    let target = Target::start().await;
    send_what_is_no_http(&target).await;
    send_malformed_chunks(&target).await;
    pipeline(&target).await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn odd_targets_and_compressed_bodies_are_answered_as_the_contract_says() {
    let target = Target::start().await;
    ask_for_odd_targets(&target).await;
    send_compressed_bodies(&target).await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn no_json_body_makes_an_operation_fail() {
    let target = Target::start().await;
    send_hostile_json(&target, 1).await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn no_form_makes_a_page_fail() {
    let target = Target::start_signed_in().await;
    send_hostile_forms(&target, 1).await;
    sign_out_with_hostile_forms(&target).await;
    target.assert_blameless().await;
}

// --- Time
// -------------------------------------------------------------------------------------------------------------

/// Sends these bytes one by one, every tenth of a second, and nothing after them; what came back until the server
/// closed.
async fn trickle(target: &Target, first: &str, rest: &str) -> (Vec<Reply>, Duration) {
    let (mut socket, begun) = (target.connect().await, Instant::now());
    let mut said = Vec::new();
    _ = socket.write_all(first.as_bytes()).await;
    let (mut from, mut to) = socket.split();
    let trickle = async {
        for byte in rest.bytes() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = trickle => {}
        ended = timeout(Duration::from_secs(10), from.read_to_end(&mut said)) => drop(ended.expect("it stays open")),
    }
    (replies(&said), begun.elapsed())
}

#[tokio::test]
async fn slow_clients_are_hung_up_on_after_client_seconds_while_others_are_served() {
    // What is kept between two requests is closed later.
    let target = Target::start_with(&[("CLIENT_SECONDS", "1"), ("KEEP_ALIVE_SECONDS", "2")]).await;
    let post = request("POST", LOGIN, JSON, 1000);
    let chunked = format!("POST {LOGIN} HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    let drops = "1\r\n \r\n".repeat(100);
    let kept = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let long = "x".repeat(1000);
    let cases: [(&str, &str, &str, &[u16]); 9] = [
        ("says nothing", "", "", &[]),
        ("trickles a request line", "", &long, &[]),
        ("trickles headers", "GET /healthz HTTP/1.1\r\n", "host: x\r\na: b\r\nc: d\r\ne: f\r\ng: h\r\n", &[]),
        ("stops in the headers", "GET /healthz HTTP/1.1\r\nhost", "", &[]),
        ("sends no body", &post, "", &[408]),
        ("trickles a body", &post, &long, &[408]),
        ("trickles chunks", &chunked, &drops, &[408]),
        ("does nothing after an answer", kept, "", &[200]),
        ("trickles after an answer", kept, &long, &[200]),
    ];
    let served = Cell::new(0);
    let others = async {
        loop {
            target.assert_well().await;
            served.set(served.get() + 1);
        }
    };
    let slow = cases.map(|(what, first, rest, statuses)| {
        let target = &target;
        async move {
            let (replies, took) = trickle(target, first, rest).await;
            let seen: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(seen, statuses, "who {what}");
            assert!((0.9..5.0).contains(&took.as_secs_f64()), "who {what} is hung up on after {took:?}");
            for reply in replies.iter().filter(|reply| reply.status == 408) {
                assert_refused(reply, 408, what);
            }
        }
    });
    let [a, b, c, d, e, f, g, h, i] = slow;
    tokio::select! {
        () = others => {}
        _ = async { tokio::join!(a, b, c, d, e, f, g, h, i) } => {}
    }
    assert!(served.get() >= 3, "{} others were served meanwhile", served.get());
    target.until_all_are_closed().await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn two_thousand_idle_connections_cost_little_and_hold_up_nobody() {
    const MANY: usize = 2000;
    const KIB_EACH: u64 = 32;
    // The server's limit is this process's.
    let own = format!("prlimit --pid {} --nofile={}:", std::process::id(), 3 * MANY);
    let limit = fs::read_to_string("/proc/self/limits").unwrap();
    let soft =
        limit.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    if soft.is_some_and(|soft: usize| soft < 3 * MANY) {
        assert!(Command::new("sh").args(["-c", &own]).status().unwrap().success(), "{own}");
    }
    let target = Target::start_with(&[]).await;
    target.assert_well().await;
    let (memory, files) = (target.resident(), target.descriptors());
    let mut grown: Vec<u64> = Vec::new();
    // The allocator need not give it back to the system, but uses it for those that come next: a leak of half a KiB for
    // each connection would show in every round.
    let is_steady = |grown: &[u64]| matches!(grown, [.., _, before, last] if *last < before + MANY as u64 / 2);
    while grown.len() < 10 && !is_steady(&grown) {
        let mut idle = Vec::new();
        for number in 0..MANY {
            let mut socket = target.connect().await;
            // Half of them have been served, and are kept.
            if number % 2 == 0 {
                socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                socket.read_exact(&mut [0; 12]).await.unwrap();
            }
            idle.push(socket);
        }
        until(|| (target.connections() == MANY).then_some(())).await;
        target.assert_well().await;
        grown.push(target.resident().saturating_sub(memory));
        drop(idle);
        target.until_all_are_closed().await;
        until(|| (target.descriptors() <= files + 2).then_some(())).await;
    }
    println!("{grown:?} KiB for {MANY} connections each time");
    assert!(grown[0] < MANY as u64 * KIB_EACH, "{} KiB for {MANY} connections", grown[0]);
    assert!(is_steady(&grown) && grown[grown.len() - 1] < 2 * grown[0], "{grown:?} KiB");
    target.assert_well().await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn more_clients_than_there_are_files_wait_for_their_turn_and_the_database_stays_reachable() {
    let target = Target::with_few_files(300, "1").await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(target.connect().await);
    }
    // After those before it have been silent for too long.
    let reply = target.ask("GET", "/readyz", "", b"").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(target.descriptors() < 300);
    assert!(!target.server.said().contains("could not be accepted"), "{}", target.server.said());
    // It is said at most once a minute.
    let complaints = target.server.said().matches("as many clients are connected as there may be").count();
    assert_eq!(complaints, 1, "{}", target.server.said());
    let metrics = target.ask("GET", "/metrics", "", b"").await.body;
    let waited = metrics.lines().find_map(|line| line.strip_prefix("http_connections_total{event=\"waited\"} "));
    assert!(waited.unwrap().parse::<u64>().unwrap() > 0, "{waited:?}");
    drop(idle);
    target.assert_well().await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn clients_that_ask_now_and_then_to_keep_their_places_keep_nobody_out() {
    let target = Target::with_few_files(300, "30").await;
    let ask = async |socket: &mut TcpStream| {
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x.test\r\n\r\n").await.unwrap();
        _ = socket.read(&mut [0; 1024]).await.unwrap();
    };
    let mut idle = Vec::new();
    // As many as there are places.
    for _ in 0..200 {
        let mut socket = target.connect().await;
        ask(&mut socket).await;
        idle.push(socket);
    }
    for socket in &mut idle {
        ask(socket).await;
    }
    let reply = target.ask("GET", "/readyz", "", b"").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    drop(idle);
    target.assert_well().await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn large_bodies_that_never_end_take_little_memory_and_small_ones_are_read_meanwhile() {
    const MANY: usize = 200;
    let target = Target::start_with(&[("CLIENT_SECONDS", "3")]).await;
    target.assert_well().await;
    let before = target.resident();
    let known = format!("authorization: Bearer {}\r\n{JSON}", target.token);
    let head = request("POST", "/api/interviews/501/cancel/", &known, 1 << 20);
    let mut sending = Vec::new();
    for _ in 0..MANY {
        let (head, mut socket) = (head.clone(), target.connect().await);
        sending.push(tokio::spawn(async move {
            _ = socket.write_all(head.as_bytes()).await;
            _ = timeout(Duration::from_secs(2), socket.write_all(&vec![b' '; (1 << 20) - 1])).await;
            socket
        }));
    }
    let mut sockets = Vec::new();
    for sent in sending {
        sockets.push(sent.await.unwrap());
    }
    let grown = target.resident().saturating_sub(before);
    assert!(grown < 100 << 10, "{MANY} bodies take {grown} KiB");
    let reply = target.ask("POST", LOGIN, JSON, b"{}").await;
    assert_eq!(reply.status, 400, "{reply:?}");
    for mut socket in sockets {
        let mut said = Vec::new();
        _ = timeout(Duration::from_secs(10), socket.read_to_end(&mut said)).await.expect("is hung up on");
    }
    target.until_all_are_closed().await;
    target.assert_blameless().await;
}

/// Connections whose clients ask for Rita's list so often, and read nothing of it.
async fn ask_for_the_list(target: &Target, connections: usize, times: usize) -> Vec<TcpStream> {
    ask_for(target, "/api/company/interviews/", connections, times).await
}

/// The same for any path.
async fn ask_for(target: &Target, path: &str, connections: usize, times: usize) -> Vec<TcpStream> {
    let list = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", target.token);
    let mut sockets = Vec::new();
    for _ in 0..connections {
        let mut socket = target.connect().await;
        socket.write_all(list.repeat(times).as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    sockets
}

/// The same with a long list, again and again, which is more than the system keeps for a connection.
async fn ask_and_read_nothing(target: &Target) -> Vec<TcpStream> {
    long_rows(&target.world.database.pool, RITA, 250).await;
    ask_for_the_list(target, 4, 6).await
}

/// That answers have begun, and so their first rows were read.
async fn until_all_are_answered(readers: &[TcpStream]) {
    for socket in readers {
        let mut beginning = [0; 15];
        until_async(async || socket.peek(&mut beginning).await.unwrap() == beginning.len()).await;
        assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn who_reads_no_answer_holds_no_connection_of_the_database_and_little_memory() {
    // Were the two connections held, nobody else would get one: the readers stay for longer than anybody waits.
    let settings = [("CLIENT_SECONDS", "60"), ("DATABASE_MAX_CONNECTIONS", "2"), ("DATABASE_ACQUIRE_SECONDS", "8")];
    let target = Target::start_with(&settings).await;
    target.assert_well().await;
    let memory = target.resident();
    let readers = ask_and_read_nothing(&target).await;
    until_all_are_answered(&readers).await;
    let page = target.call("GET", "/api/company/interviews/?limit=1", "", b"").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(target.connections(), readers.len(), "all of them are still there");
    let grown = target.resident().saturating_sub(memory);
    assert!(grown < 128 << 10, "{grown} KiB for {} readers", readers.len());
    target.assert_blameless().await;
    println!("{grown} KiB for {} readers", readers.len());
}

#[tokio::test]
async fn eight_readers_of_twenty_thousand_long_rows_take_64_mib_and_no_connection_while_they_wait() {
    const MOST: u64 = 64 << 10;
    let settings = [("CLIENT_SECONDS", "60"), ("DATABASE_MAX_CONNECTIONS", "2"), ("DATABASE_ACQUIRE_SECONDS", "8")];
    let target = Target::start_with(&settings).await;
    long_rows(&target.world.database.pool, RITA, 20_000).await;
    target.call("GET", "/api/company/interviews/?limit=200", "", b"").await;
    let memory = target.resident();
    let readers = ask_for_the_list(&target, 8, 1).await;
    until_all_are_answered(&readers).await;
    let page = target.call("GET", "/api/company/interviews/?limit=1", "", b"").await;
    assert_eq!(page.status, 200, "{page:?}");
    println!("{} KiB more while they wait", target.peak().saturating_sub(memory));
    // All read for a while, the first one to the end.
    let reading = readers.into_iter().enumerate().map(|(number, mut socket)| {
        tokio::spawn(async move {
            let (mut buffer, mut length, mut end) = (vec![0; 1 << 16], 0, Vec::new());
            // As a chunked answer ends.
            while !end.ends_with(b"]\r\n0\r\n\r\n") && (number == 0 || length < 10_000_000) {
                let read = socket.read(&mut buffer).await.unwrap();
                assert!(read > 0, "broken off after {length} bytes");
                length += read;
                end.extend_from_slice(&buffer[..read]);
                end.drain(..end.len().saturating_sub(16));
            }
            length
        })
    });
    let lengths = timeout(Duration::from_secs(120), join_all(reading.collect::<Vec<_>>())).await.unwrap();
    assert!(*lengths[0].as_ref().unwrap() > 20_000 * 5_000, "{lengths:?}");
    let grown = target.peak().saturating_sub(memory);
    println!("{grown} KiB more at the peak");
    assert!(grown < MOST, "{grown} KiB for 8 readers");
    target.assert_blameless().await;
}

#[tokio::test]
async fn a_hundred_who_read_nothing_of_a_list_or_page_of_the_longest_rows_take_half_a_mib_each() {
    const READERS: usize = 100;
    let settings = [("CLIENT_SECONDS", "120"), ("DATABASE_MAX_CONNECTIONS", "2")];
    let target = Target::start_with(&settings).await;
    let db = &target.world.database.pool;
    long_rows(db, RITA, 300).await;
    sqlx::query("UPDATE company_interview SET note = repeat(chr(128512), 5000)").execute(db).await.unwrap();
    target.call("GET", "/api/company/interviews/?limit=200", "", b"").await;
    let memory = target.resident();
    let mut readers = Vec::new();
    for query in ["", "?limit=200"] {
        // No more at once than wait for a connection.
        for _ in 0..READERS / 10 {
            let more = ask_for(&target, &format!("/api/company/interviews/{query}"), 5, 1).await;
            until_all_are_answered(&more).await;
            readers.extend(more);
        }
    }
    let grown = target.resident().saturating_sub(memory);
    println!("{grown} KiB for {READERS} readers");
    assert!(grown < READERS as u64 * 512, "{grown} KiB for {READERS} readers");
    assert_eq!(target.connections(), readers.len(), "all of them are still there");
}

#[tokio::test]
async fn who_reads_no_answer_is_hung_up_on() {
    let target = Target::start().await;
    let readers = ask_and_read_nothing(&target).await;
    // They do not go, but the server does.
    target.until_all_are_closed().await;
    for mut socket in readers {
        let mut said = Vec::new();
        _ = socket.read_to_end(&mut said).await;
        assert!(said.starts_with(b"HTTP/1.1 200 OK") && said.len() < 6 * 1_250_000, "{} bytes", said.len());
    }
    target.assert_well().await;
    target.assert_blameless().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_somebody_who_reads_no_answer() {
    let mut target = Target::start_with(&[]).await;
    let readers = ask_and_read_nothing(&target).await;
    for socket in &readers {
        let mut beginning = [0; 15];
        until_async(async || socket.peek(&mut beginning).await.unwrap() == beginning.len()).await;
    }
    target.server.signal("TERM");
    let begun = Instant::now();
    assert_eq!(target.server.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "it ends after {:?}", begun.elapsed());
}

// --- All of it
// --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn hostile_clients_leave_no_memory_file_or_connection_behind() {
    const MIB: u64 = 1 << 10;
    let mut target = Target::start_signed_in().await;
    let files = target.descriptors();
    let mut after = Vec::new();
    for _ in 0..3 {
        send_too_much(&target).await;
        send_what_is_no_http(&target).await;
        send_malformed_chunks(&target).await;
        pipeline(&target).await;
        ask_for_odd_targets(&target).await;
        send_compressed_bodies(&target).await;
        send_hostile_json(&target, 6).await;
        send_hostile_forms(&target, 4).await;
        target.until_all_are_closed().await;
        target.assert_well().await;
        after.push(target.resident());
    }
    assert!(after[2] < after[0] + 16 * MIB, "KiB after each round: {after:?}");
    until(|| (target.descriptors() <= files + 4).then_some(())).await;
    target.assert_blameless().await;
    assert!(!target.server.has_ended());
    println!("KiB after each round: {after:?}");
}
