//! What the server talks to, where the stand-ins of `interviews::dev` would be slower than what is measured or could
//! not tell how long they took: an SMTP server that counts, and a relay that watches the clock.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
};

/// An SMTP server that accepts every mail and only counts them.
pub struct Sink {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Sink {
    pub async fn start() -> std::io::Result<Sink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, accepted) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                _ = socket.set_nodelay(true);
                tokio::spawn(dialogue(BufStream::new(socket), count.clone()));
            }
        });
        Ok(Sink { address, accepted })
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn dialogue(mut client: BufStream<TcpStream>, accepted: Arc<AtomicUsize>) -> std::io::Result<()> {
    client.write_all(b"220 sink ESMTP\r\n").await?;
    let (mut line, mut in_content) = (Vec::new(), false);
    loop {
        client.flush().await?;
        line.clear();
        while !line.ends_with(b"\r\n") || in_content && line != b".\r\n" {
            if in_content {
                line.clear();
            }
            if client.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
        }
        let answer: &[u8] = match &*line {
            _ if in_content => {
                accepted.fetch_add(1, Ordering::Relaxed);
                b"250 2.0.0 Taken\r\n"
            }
            line if line.starts_with(b"EHLO") => b"250-sink\r\n250 8BITMIME\r\n",
            b"DATA\r\n" => b"354 Go on\r\n",
            _ => b"250 2.0.0 Fine\r\n",
        };
        in_content = !in_content && line == b"DATA\r\n";
        client.write_all(answer).await?;
    }
}

/// Passes everything on to a server of questions and answers, and notes when it was that server's turn.
#[derive(Clone)]
pub struct Relay {
    pub address: SocketAddr,
    turns: Turns,
}

/// From a question to its answer.
type Turns = Arc<Mutex<Vec<(Instant, Instant)>>>;

impl Relay {
    pub async fn start(target: SocketAddr) -> std::io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let relay = Relay { address: listener.local_addr()?, turns: Turns::default() };
        let turns = relay.turns.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, turns.clone()));
            }
        });
        Ok(relay)
    }

    /// How long it was the turn of one of `relays` since this was last asked; turns at the same time count once.
    pub fn taken(relays: &[Relay]) -> Duration {
        let mut turns = Vec::new();
        for relay in relays {
            turns.append(&mut relay.turns.lock().unwrap_or_else(PoisonError::into_inner));
        }
        turns.sort();
        let (mut taken, mut until) = (Duration::ZERO, None);
        for (from, to) in turns {
            let from = until.map_or(from, |until: Instant| from.max(until));
            taken += to.saturating_duration_since(from);
            until = Some(until.map_or(to, |until: Instant| until.max(to)));
        }
        taken
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, turns: Turns) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut questions, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut asked = None;
    loop {
        tokio::select! {
            read = client.read(&mut questions) => match read? {
                0 => return Ok(()),
                length => {
                    asked = Some(Instant::now());
                    server.write_all(&questions[..length]).await?;
                }
            },
            read = server.read(&mut answers) => match read? {
                0 => return Ok(()),
                length => {
                    if let Some(asked) = asked.take() {
                        turns.lock().unwrap_or_else(PoisonError::into_inner).push((asked, Instant::now()));
                    }
                    client.write_all(&answers[..length]).await?;
                }
            },
        }
    }
}
