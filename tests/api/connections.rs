//! Connections, of a real process: how long they are kept, what a stop does with them, how they are counted, and that
//! strangers' slowness is nobody else's.

use std::time::{Duration, Instant};

use interviews::{
    clock::Clock,
    dev::google::{Call, Fault, FaultKind},
};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    process::{World, call, is_free},
    *,
};

const LOGIN: &str = "POST /api/users/login/ HTTP/1.1\r\nhost: x.test\r\ncontent-type: application/json\r\n";

/// A client that has said so much.
async fn client(world: &World, said: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    socket.write_all(said.as_bytes()).await.unwrap();
    socket
}

/// The same once it has read the answer to a whole request, and said something more.
async fn served_client(world: &World, more: &str) -> TcpStream {
    let mut socket = client(world, "GET /healthz HTTP/1.1\r\nhost: x.test\r\n\r\n").await;
    let mut answer = String::new();
    while !answer.ends_with('}') {
        answer.push(socket.read_u8().await.unwrap().into());
    }
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    socket.write_all(more.as_bytes()).await.unwrap();
    socket
}

/// What comes until the server closes the connection, and how long that takes.
async fn until_closed(mut socket: TcpStream) -> (String, Duration) {
    let (begun, mut said) = (Instant::now(), Vec::new());
    _ = timeout(Duration::from_secs(40), socket.read_to_end(&mut said)).await.expect("it stays open");
    (String::from_utf8(said).unwrap(), begun.elapsed())
}

/// The metric of this name and these labels.
async fn metric(world: &World, name: &str) -> u64 {
    let text = reqwest::get(format!("{}/metrics", world.url())).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_head_that_has_begun_may_take() {
    let world = World::new().await;
    let _server = world.serve_with(&[("CLIENT_SECONDS", "1"), ("KEEP_ALIVE_SECONDS", "4")]).await;
    let [silent, begun, idle, begun_again] = [
        client(&world, "").await,
        client(&world, "GET /healthz HTTP/1.1\r\nho").await,
        served_client(&world, "").await,
        served_client(&world, "GET /healthz HTTP/1.1\r\nho").await,
    ]
    .map(until_closed);
    let closed = tokio::join!(silent, begun, idle, begun_again);
    let took = [closed.0.1, closed.1.1, closed.2.1, closed.3.1].map(|took| took.as_secs_f64());
    for nth in [0, 1, 3] {
        assert!((0.5..3.0).contains(&took[nth]), "{took:?}");
    }
    assert!((3.5..9.0).contains(&took[2]), "an idle connection is closed after {took:?}");
}

#[tokio::test]
async fn a_kept_connection_is_used_again_after_a_pause_longer_than_a_head_may_take() {
    let world = World::new().await;
    let _server = world.serve_with(&[("CLIENT_SECONDS", "1")]).await;
    let mut socket = served_client(&world, "").await;
    let mut byte = [0; 1];
    // Longer than CLIENT_SECONDS: what a balancer does between two requests of its clients.
    let closed = timeout(Duration::from_millis(2500), socket.peek(&mut byte)).await;
    assert!(closed.is_err(), "closed meanwhile: {closed:?}");
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(socket).await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_stop_waits_for_a_booking_and_for_no_half_request() {
    let world = World::new().await;
    let mut server = world.serve().await;
    world.connect().await;
    world.google.order(Fault { on: Call::Insert, times: 1, kind: FaultKind::Delay { millis: 1500 } });
    let token = access_token(Clock::System.now(), RITA);
    let patch = format!(
        "PATCH /api/interviews/501/ HTTP/1.1\r\nhost: x.test\r\nauthorization: Bearer {token}\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{{\"note"
    );
    let halves = [
        client(&world, "").await,
        client(&world, "GET /healthz HTTP/1.1\r\nho").await,
        served_client(&world, "").await,
        served_client(&world, "GET /healthz HTTP/1.1\r\nho").await,
    ];
    let bodies =
        [client(&world, &format!("{LOGIN}content-length: 100\r\n\r\n{{\"email\"")).await, client(&world, &patch).await];
    let stopped = async {
        world.until_called(Call::Insert, 1).await;
        server.signal("TERM");
        let begun = Instant::now();
        until(|| is_free(world.port).then_some(())).await;
        for socket in halves {
            let (said, took) = until_closed(socket).await;
            assert!(said.is_empty() && took < Duration::from_secs(3), "{said} after {took:?}");
        }
        for socket in bodies {
            let (said, took) = until_closed(socket).await;
            assert!(said.starts_with("HTTP/1.1 408 ") && took < Duration::from_secs(3), "{said} after {took:?}");
            assert!(said.contains("connection: close"), "{said}");
        }
        (server.ended().await, begun.elapsed())
    };
    let (booked, (status, took)) = tokio::join!(world.schedule(), stopped);
    assert_eq!(booked.unwrap().0, 200);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "it ends after {took:?}");
}

#[tokio::test]
async fn a_request_without_one_host_is_refused_unless_it_is_of_http_1_0() {
    let world = World::new().await;
    let _server = world.serve().await;
    for (lines, status) in [
        ("GET /healthz HTTP/1.1\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a.test\r\nhost: a.test\r\n", 400),
        ("GET http://a.test/healthz HTTP/1.1\r\n", 400),
        ("OPTIONS /nope/ HTTP/1.1\r\norigin: http://localhost:3000\r\naccess-control-request-method: POST\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a.test\r\n", 200),
        ("GET /readyz HTTP/1.0\r\n", 200),
        ("GET /readyz HTTP/1.0\r\nhost: a.test\r\nhost: b.test\r\n", 400),
    ] {
        let (said, _) = until_closed(client(&world, &format!("{lines}connection: close\r\n\r\n")).await).await;
        assert!(
            said.starts_with(&format!("HTTP/1.{} {status} ", if lines.contains("/1.0") { 0 } else { 1 })),
            "{lines}: {said}"
        );
        assert_eq!(said.contains("{\"detail\":\"A request needs one Host header.\"}"), status == 400, "{said}");
    }
}

#[tokio::test]
async fn slow_strangers_hold_up_no_large_body_of_somebody_signed_in() {
    let world = World::new().await;
    let _server = world.serve().await;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        strangers.push(client(&world, &format!("{LOGIN}transfer-encoding: chunked\r\n\r\n1\r\n ")).await);
        strangers.push(client(&world, &format!("{LOGIN}content-length: 20000\r\n\r\n")).await);
        let join = "POST /interviews/501/join/?token=x HTTP/1.1\r\nhost: x.test\r\ncontent-length: 20000\r\n\r\n";
        strangers.push(client(&world, join).await);
    }
    // It is read, or its reason could not be refused.
    let body = json!({"reason": 1, "padding": "x".repeat(30_000)});
    let cancelled = world.call(Method::POST, "/api/company/interviews/501/cancel/", Some(body));
    let answer = timeout(Duration::from_secs(5), cancelled).await.expect("it waits for strangers").unwrap();
    assert_eq!(answer, (400.try_into().unwrap(), json!({"error": "Invalid reason."})));
}

#[tokio::test]
async fn strangers_may_send_16_kib_and_people_who_are_signed_in_a_mib() {
    let world = World::new().await;
    let _server = world.serve().await;
    let of = |length: usize| Some(json!({"reason": 1, "padding": "x".repeat(length)}));
    for path in ["/api/users/login/", "/api/users/google-auth/"] {
        let refused = call(world.port, Method::POST, path, None, of(16 << 10)).await.unwrap();
        assert_eq!(refused, (413.try_into().unwrap(), json!({"detail": "Request body too large."})), "{path}");
        assert_eq!(call(world.port, Method::POST, path, None, of(15 << 10)).await.unwrap().0, 400, "{path}");
    }
    for path in ["/login/", "/interviews/501/join/?token=x", "/interviews/501/left/"] {
        let (status, _) = call(world.port, Method::POST, path, None, of(16 << 10)).await.unwrap();
        assert_eq!(status, 413, "{path}");
    }
    // Who is nobody is told so, before anything is read.
    for path in ["/dashboard/schedule/", "/dashboard/interviews/501/change/"] {
        let (status, _) = call(world.port, Method::POST, path, None, of(900 << 10)).await.unwrap();
        assert_eq!(status, 401, "{path}");
    }
    let cancel = "/api/company/interviews/501/cancel/";
    assert_eq!(world.call(Method::POST, cancel, of(1 << 20)).await.unwrap().0, 413);
    assert_eq!(world.call(Method::POST, cancel, of(1000 << 10)).await.unwrap().0, 400);
}

#[tokio::test]
async fn connections_are_counted_and_what_ends_one_early_is_a_line_in_the_log() {
    let world = World::new().await;
    let server = world.serve_with(&[("CLIENT_SECONDS", "1")]).await;
    let before = metric(&world, "http_connections_total{event=\"accepted\"}").await;
    let _kept = [served_client(&world, "").await, served_client(&world, "").await];
    assert!(metric(&world, "http_connections").await >= 3, "with the one that asks");
    until_closed(client(&world, "GET /healthz HTTP/1.1\r\nho").await).await;
    let (bare, _) = until_closed(client(&world, "no request\r\n\r\n").await).await;
    assert!(bare.starts_with("HTTP/1.1 400 "), "{bare}");
    assert!(metric(&world, "http_connections_total{event=\"accepted\"}").await >= before + 4);
    for event in ["head_timeout", "malformed"] {
        assert_eq!(metric(&world, &format!("http_connections_total{{event=\"{event}\"}}")).await, 1, "{event}");
    }
    for words in ["no whole request came on a connection in time", "was no HTTP request"] {
        assert_eq!(server.said().matches(words).count(), 1, "{words} in\n{}", server.said());
    }
    assert_eq!(metric(&world, "http_connections_total{event=\"waited\"}").await, 0);
}
