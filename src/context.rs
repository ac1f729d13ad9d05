//! What every request and every job works with: one cheap-to-clone handle on the process's shared parts.

use std::{ops::Deref, sync::Arc};

use anyhow::anyhow;
use sqlx::PgPool;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::{clock::Clock, config::Settings, gate::Gate, metrics::Metrics, smtp::Smtp};

/// The shared parts; the axum state of every route.
#[derive(Clone)]
pub struct Context(Arc<Parts>);

pub struct Parts {
    pub settings: Settings,
    pub clock: Clock,
    pub db: PgPool,
    /// For OAuth and reCAPTCHA; has timeouts, follows no redirects.
    pub http: reqwest::Client,
    /// `None` when no SMTP server is configured.
    pub smtp: Option<Smtp>,
    pub metrics: Metrics,
    /// For passwords, whose hashes are slow on purpose.
    pub hashing: Gate,
    /// Work that outlives the request that began it; a graceful stop waits for it.
    pub tasks: TaskTracker,
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        Context(Arc::new(parts))
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
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
