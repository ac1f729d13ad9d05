//! What every request and every job works with: one cheap-to-clone handle on the process's shared parts.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::anyhow;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    clock::Clock,
    config::Settings,
    db::{self, Pool},
    gate::Gate,
    metrics::Metrics,
    smtp::Smtp,
};

/// The shared parts; the axum state of every route.
#[derive(Clone)]
pub struct Context(Arc<Parts>);

/// For how long what must not be lost is written again, once a second.
const INSISTING: Duration = Duration::from_secs(10 * 60);

pub struct Parts {
    pub settings: Settings,
    pub clock: Clock,
    /// Whether `clock` disagrees with the database's.
    pub clock_is_off: AtomicBool,
    pub db: Pool,
    /// For OAuth and reCAPTCHA; has timeouts, follows no redirects.
    pub http: reqwest::Client,
    /// `None` when no SMTP server is configured.
    pub smtp: Option<Smtp>,
    pub metrics: Metrics,
    /// The users of the requests that wait for another one, once for each request.
    pub waiting: Mutex<Vec<i64>>,
    /// For passwords, whose hashes are slow on purpose.
    pub hashing: Gate,
    /// Cancelled when a graceful stop begins.
    pub stopping: CancellationToken,
    /// Work that outlives the request that began it; a graceful stop waits for it.
    pub tasks: TaskTracker,
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        Context(Arc::new(parts))
    }

    /// Whether this machine's clock is so far from the database's that leases no longer hold.
    pub fn clock_is_off(&self) -> bool {
        self.clock_is_off.load(Ordering::Relaxed)
    }

    pub fn set_clock_off(&self, is_off: bool) {
        self.clock_is_off.store(is_off, Ordering::Relaxed);
    }

    /// Does work as a task of its own, which runs to its end even when nobody waits for it any more (the client went
    /// away), and which a graceful stop waits for.
    ///
    /// # Errors
    /// The work panicked. The error names `what` that was ("a booking"); a panic's own text could quote anything.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.tasks.spawn(work.in_current_span()).await.map_err(|_| anyhow!("{what} panicked"))
    }

    /// Writes what must not be lost; while the database is away, once a second for ten minutes. `what` is for the log.
    pub async fn insist<W: Future<Output = sqlx::Result<()>>>(
        &self,
        what: &str,
        write: impl Fn(Context) -> W,
    ) -> sqlx::Result<()> {
        let begun = Instant::now();
        loop {
            match write(self.clone()).await {
                Err(error) if may_pass(&error) && begun.elapsed() < INSISTING => {
                    tracing::error!(%error, "{what} could not be written; trying again");
                }
                written => return written,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// [`insist`](Self::insist)s beside the caller when the first try fails; whether it is written now.
    pub async fn persist<W: Future<Output = sqlx::Result<()>> + Send>(
        &self,
        what: &'static str,
        write: impl Fn(Context) -> W + Send + Sync + 'static,
    ) -> bool {
        let Err(error) = write(self.clone()).await else { return true };
        if !may_pass(&error) {
            tracing::error!(%error, "{what} was not written");
            return false;
        }
        tracing::error!(%error, "{what} could not be written; trying again");
        let ctx = self.clone();
        let again = async move {
            if let Err(error) = ctx.insist(what, write).await {
                tracing::error!(%error, "{what} was not written");
            }
        };
        self.tasks.spawn(again.in_current_span());
        false
    }
}

/// Whether it is worth another try within minutes: the database is away or busy, or its disk or memory is full
/// (PostgreSQL's class 53).
fn may_pass(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    db::is_passing(error) || db::is_unanswered(error) || code.is_some_and(|code| code.starts_with("53"))
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
