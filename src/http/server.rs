//! Connections: accepting them, how long a client may take to say what it wants and to take in the answer, and letting
//! them end in peace.
//!
//! hyper itself refuses, in a bare answer, what is no HTTP request (400) and a head that is too long for its buffer
//! (414, 431); everything else reaches the router. Every connection is counted, and so is how one ends that a client
//! did not mean to end.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
};
use hyper::{
    Request, Response,
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use super::extract::Stopping;
use crate::{
    context,
    metrics::{ConnectionEvent as Event, Metrics},
};

/// The most bytes of a connection that wait to be understood: a request's head, or a piece of its body.
const BUFFER: usize = 128 << 10;
/// How long a client may take in nothing of an answer once the server stops.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How long a connection is kept between requests while all places are taken.
const CROWDED: Duration = Duration::from_secs(1);
/// How often, at most, the log says that all places are taken.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Serves HTTP/1.1 until `stop` is cancelled; then takes no more and returns when the requests under way are answered.
/// Every request has its connection's address among its extensions, as [`ConnectInfo<SocketAddr>`](ConnectInfo), and
/// what tells it that the server is [`Stopping`].
///
/// A connection is closed when a client takes longer than `CLIENT_SECONDS` for a request's line and headers or takes in
/// nothing of an answer for so long, and `KEEP_ALIVE_SECONDS` after an answer when no other request has begun (a second
/// while all places are taken). One on
/// which no request is under way is closed as soon as the server stops.
pub async fn serve(listener: TcpListener, router: Router, ctx: &context::Context, stop: CancellationToken) {
    let metrics = &ctx.metrics;
    let limits = Limits { client: ctx.settings.client_patience, keep_alive: ctx.settings.keep_alive };
    let mut http = http1::Builder::new();
    // Never reached, since the socket's own limits are shorter. But with one hyper reads on as soon as it has answered,
    // and not only when something comes: those limits begin there.
    http.timer(TokioTimer::new()).header_read_timeout(limits.client + limits.keep_alive).max_buf_size(BUFFER);
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(places()));
    let stopping = Stopping::at(stop.clone());
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: some become free in a moment.
                tracing::error!(%error, "a connection could not be accepted");
                metrics.connection(Event::NotAccepted);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        metrics.connection(Event::Accepted);
        if places.available_permits() == 0 {
            metrics.connection(Event::Waited);
            if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
                complained = Some(Instant::now());
                tracing::warn!("as many clients are connected as there may be: others wait until one leaves");
            }
        }
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        // Small answers leave at once; a socket that cannot be told so is served too.
        _ = socket.set_nodelay(true);
        let turn = Arc::<Turn>::default();
        let service = requests(router.clone(), address, turn.clone(), stopping.clone());
        let socket = Impatient::new(socket, limits, turn, stopping.clone(), places.clone(), metrics.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(socket), service));
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _open = (metrics.open_connection(), place);
            // Any other end of it, such as a client that went away, is nobody's concern.
            if connection.await.is_err_and(|error| error.is_parse()) {
                metrics.connection(Event::Malformed);
                tracing::info!(peer = %address.ip(), "what came on a connection was no HTTP request; it is closed");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// How many clients may be connected at a time: others wait until one leaves. As many as the system lets this process
/// open files, once it is asked for all that it gives, less those that the database, Google and SMTP need.
fn places() -> usize {
    const OTHERS: u64 = 200;
    const MOST: u64 = 10_000;
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    files.saturating_sub(OTHERS).clamp(OTHERS, MOST) as usize
}

/// Hands a connection's requests to the router.
fn requests(
    router: Router,
    address: SocketAddr,
    turn: Arc<Turn>,
    stopping: Stopping,
) -> impl Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible, Future: Send> {
    let inner = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(stopping.clone());
        let serving = Serving::begin(turn.clone());
        let answered = inner.call(request);
        async move { Ok(answered.await?.map(|body| Answer { body, _serving: serving })) }
    })
}

/// Whose turn it is on a connection: the client's while the number is even, ours while it is odd. It only grows.
#[derive(Default)]
struct Turn(AtomicU64);

impl Turn {
    fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Our turn, from a request's whole head to the last byte of its answer.
struct Serving(Arc<Turn>);

impl Serving {
    fn begin(turn: Arc<Turn>) -> Self {
        turn.0.fetch_add(1, Ordering::Relaxed);
        Serving(turn)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer's body, whose end ends our turn.
struct Answer {
    body: Body,
    _serving: Serving,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Clone, Copy)]
struct Limits {
    /// For a head that has begun, and until some of an answer is taken in.
    client: Duration,
    /// Between an answer and the next head.
    keep_alive: Duration,
}

/// A turn, and whether the client has begun a head in it.
type Step = (u64, bool);

/// A socket on which reading fails once the client has had its turn for too long, or the server stops in it; and writing
/// once the client has taken in nothing for too long.
struct Impatient<S> {
    socket: S,
    limits: Limits,
    turn: Arc<Turn>,
    stopping: Stopping,
    places: Arc<Semaphore>,
    metrics: Metrics,
    /// The turn in which the client has begun another head.
    begun: u64,
    /// When reading fails in this step.
    reading: Option<(Step, Pin<Box<Sleep>>)>,
    /// When writing fails, since the socket's buffers are full.
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Impatient<S> {
    fn new(
        socket: S,
        limits: Limits,
        turn: Arc<Turn>,
        stopping: Stopping,
        places: Arc<Semaphore>,
        metrics: Metrics,
    ) -> Self {
        // Who connects wants something: the first head has begun.
        Impatient { socket, limits, turn, stopping, places, metrics, begun: 0, reading: None, writing: None }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.socket), cx) {
            self.writing = None;
            return Poll::Ready(written);
        }
        let patience = if self.stopping.has_begun() { LAST_PATIENCE } else { self.limits.client };
        let gives_up = self.writing.get_or_insert_with(|| Box::pin(sleep(patience)));
        // Sooner than it was to be, when the server stops meanwhile.
        let latest = Instant::now() + patience;
        if latest < gives_up.deadline() {
            gives_up.as_mut().reset(latest);
        }
        ready!(gives_up.as_mut().poll(cx));
        self.metrics.connection(Event::AnswerTimeout);
        tracing::info!("a client took in nothing of its answer for too long; its connection is closed");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let turn = self.turn.number();
        let is_ours = turn % 2 == 1;
        if !is_ours && self.stopping.has_begun() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, into);
        if is_ours {
            return read;
        }
        if read.is_ready() {
            if into.filled().len() > before {
                self.begun = turn;
            }
            return read;
        }
        let has_begun = self.begun == turn;
        let patience = match has_begun {
            true => self.limits.client,
            // Its place is needed.
            false if self.places.available_permits() == 0 => self.limits.keep_alive.min(CROWDED),
            false => self.limits.keep_alive,
        };
        let (since, gives_up) = self.reading.get_or_insert_with(|| ((turn, has_begun), Box::pin(sleep(patience))));
        if *since != (turn, has_begun) {
            *since = (turn, has_begun);
            gives_up.as_mut().reset(Instant::now() + patience);
        }
        ready!(gives_up.as_mut().poll(cx));
        if has_begun {
            self.metrics.connection(Event::HeadTimeout);
            tracing::info!("no whole request came on a connection in time; it is closed");
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |socket, cx| socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |socket, cx| socket.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
