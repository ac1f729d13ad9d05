//! Connections: accepting them, how long a client may take to say what it wants and to take in the answer, and letting
//! them end in peace.
//!
//! hyper itself refuses, in a bare answer, what is no HTTP request (400) and a head that is too long for its buffer
//! (414, 431); everything else reaches the router.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{
    Request,
    body::Incoming,
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
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

/// The most bytes of a connection that wait to be understood: a request's head, or a piece of its body.
const BUFFER: usize = 128 << 10;

/// Serves HTTP/1.1 until `stop` is cancelled; then takes no more and returns when the requests under way are answered.
/// Every request has its connection's address among its extensions, as [`ConnectInfo<SocketAddr>`](ConnectInfo).
///
/// A connection is closed when a client takes longer than `patience` for a request's line and headers (the next one's
/// on a connection that is kept included), or takes in nothing of an answer for so long.
pub async fn serve(listener: TcpListener, router: Router, patience: Duration, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(BUFFER);
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(places()));
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: some become free in a moment.
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Small answers leave at once; a socket that cannot be told so is served all the same.
        _ = socket.set_nodelay(true);
        let inner = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(address));
            inner.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(Impatient::new(socket, patience)), service);
        let connection = connections.watch(connection);
        // A connection's own end, such as a client that went away, is nobody's concern.
        tokio::spawn(async move {
            _ = connection.await;
            drop(place);
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

/// A socket on which writing fails once its peer has taken in nothing for as long as the patience lasts.
struct Impatient<S> {
    socket: S,
    patience: Duration,
    /// Since the socket's buffers are full.
    gives_up: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Impatient<S> {
    fn new(socket: S, patience: Duration) -> Self {
        Impatient { socket, patience, gives_up: None }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.socket), cx) {
            self.gives_up = None;
            return Poll::Ready(written);
        }
        let patience = self.patience;
        ready!(self.gives_up.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
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
