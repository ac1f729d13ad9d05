//! Connections: accepting them, how long a client may take to say what it wants, and letting them end in peace.

use std::time::Duration;

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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A client has this long for a request's line and headers, and for its next request on a connection that is kept.
const HEADERS: Duration = Duration::from_secs(30);

/// Serves HTTP/1.1 until `stop` is cancelled; then takes no more and returns when the requests under way are answered.
/// Every request has its connection's address among its extensions, as [`ConnectInfo<SocketAddr>`](ConnectInfo).
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let connections = GracefulShutdown::new();
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
        let connection = http.serve_connection(TokioIo::new(socket), service);
        let connection = connections.watch(connection);
        // A connection's own end, such as a client that went away, is nobody's concern.
        tokio::spawn(async move { _ = connection.await });
    }
    drop(listener);
    connections.shutdown().await;
}
