//! A network between the server and PostgreSQL that can fall silent without closing anything.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    sync::watch,
};

/// Listens on a port and passes everything on to PostgreSQL's socket.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
    /// Whether connections made from now on are silent.
    flow: Mutex<watch::Sender<bool>>,
    /// The same for those made before.
    before: Mutex<Vec<watch::Sender<bool>>>,
    /// Of what is asked with this in it, the answer gets lost after so many that do not.
    losing: Mutex<Vec<u8>>,
    answered: AtomicI64,
}

impl Relay {
    /// In front of the cluster of a database's URL.
    pub async fn start(database_url: &str) -> Relay {
        let url = url::Url::parse(database_url).unwrap();
        let folder = url.query_pairs().find(|(name, _)| name == "host").unwrap().1.into_owned();
        let socket = PathBuf::from(folder).join(".s.PGSQL.5432");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flow, before) = (Mutex::new(watch::Sender::new(false)), Mutex::default());
        let (losing, answered) = (Mutex::default(), AtomicI64::new(i64::MAX));
        let shared = Arc::new(Shared { socket, flow, before, losing, answered });
        let accepting = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let silent = accepting.flow.lock().unwrap().subscribe();
                let Ok(server) = UnixStream::connect(&accepting.socket).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                // Whether its next answers get lost.
                let lost = Arc::new(AtomicBool::new(false));
                let (shared, is_lost) = (accepting.clone(), lost.clone());
                let look = move |asked: &[u8]| {
                    let losing = shared.losing.lock().unwrap();
                    let is_meant = !losing.is_empty() && asked.windows(losing.len()).any(|part| part == *losing);
                    if is_meant && shared.answered.fetch_sub(1, Ordering::SeqCst) == 0 {
                        is_lost.store(true, Ordering::SeqCst);
                    }
                    true
                };
                let unheard = unheard(silent.clone());
                let passing = pass(from_client, to_server, silent.clone(), look);
                // PostgreSQL's side ends; the client hears nothing of it.
                tokio::spawn(async { tokio::select!(() = passing => (), () = unheard => ()) });
                let is_answered = move |_: &[u8]| !lost.load(Ordering::SeqCst);
                tokio::spawn(pass(from_server, to_client, silent, is_answered));
            }
        });
        Relay { port, shared }
    }

    /// The database's URL by way of the relay.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Connections that are open now fall silent; later ones are served.
    pub fn silence_open(&self) {
        let old = std::mem::replace(&mut *self.shared.flow.lock().unwrap(), watch::Sender::new(false));
        old.send_replace(true);
        self.shared.before.lock().unwrap().push(old);
    }

    /// All connections fall silent, later ones too.
    pub fn silence_all(&self) {
        self.shared.flow.lock().unwrap().send_replace(true);
    }

    /// The answer to a commit gets lost, after so many that do not; the rest of that connection is silent.
    pub fn lose_commit(&self, after: i64) {
        self.lose(b"COMMIT", after);
    }

    /// The same for the next statement with this argument.
    pub fn lose_answer(&self, argument: &[u8]) {
        self.lose(argument, 0);
    }

    fn lose(&self, asked: &[u8], after: i64) {
        *self.shared.losing.lock().unwrap() = asked.to_vec();
        self.shared.answered.store(after, Ordering::SeqCst);
    }

    /// Everything flows on, what was held back too.
    pub fn resume(&self) {
        self.shared.flow.lock().unwrap().send_replace(false);
        for silent in self.shared.before.lock().unwrap().drain(..) {
            silent.send_replace(false);
        }
    }
}

/// How long PostgreSQL keeps a connection whose peer is silent: what its keepalives do in a real network.
const KEPT: Duration = Duration::from_secs(20);

/// Ends when the connection has been silent for so long that PostgreSQL gives it up.
async fn unheard(mut silent: watch::Receiver<bool>) {
    while silent.wait_for(|silent| *silent).await.is_ok() {
        if tokio::time::timeout(KEPT, silent.wait_for(|silent| !silent)).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// `is_passed` sees each piece and says whether it goes on.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silent: watch::Receiver<bool>,
    is_passed: impl Fn(&[u8]) -> bool,
) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = match from.read(&mut piece).await {
            Ok(length) if length > 0 => length,
            _ => break,
        };
        // A relay that is gone leaves nothing to wait for.
        _ = silent.wait_for(|silent| !silent).await;
        if is_passed(&piece[..length]) && to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    _ = silent.wait_for(|silent| !silent).await;
    _ = to.shutdown().await;
}
