//! Work to be done later, for certain: a thin face of graphile_worker.
//!
//! A job is queued in the caller's transaction, so it exists exactly when what it follows from does. Any instance may
//! run it, and may run it twice. A job that is not finished asks for another go ([`Outcome::Again`]); one that fails
//! unexpectedly is tried again a minute later. Jobs of a killed process are taken over within a minute.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use chrono::{DateTime, Utc};
use graphile_worker::{
    IntoTaskHandlerResult, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions, WorkerRecoveryConfig,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{context::Context, db::JOBS_SCHEMA};

const CONCURRENCY: usize = 8;
/// When a job that failed by a fault of ours is tried again.
const AFTER_FAULT: Duration = Duration::from_secs(60);

/// What can be queued; the queue keeps it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Job {
    SendMail { mail: Uuid },
}

impl Job {
    /// Two jobs of one key are one job: the later replaces the earlier.
    fn key(&self) -> String {
        match self {
            Job::SendMail { mail } => format!("mail-{mail}"),
        }
    }
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Not yet: run it again after this long.
    Again(Duration),
}

/// Runs one job; given by the assembly, which knows the features.
pub type Run = fn(Context, Job) -> Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + Send>>;

/// Queues `jobs`, to run at `run_at` or soon after, when the caller's transaction commits.
pub async fn enqueue(db: &mut PgConnection, jobs: &[Job], run_at: DateTime<Utc>) -> sqlx::Result<()> {
    let (payloads, keys): (Vec<_>, Vec<_>) = jobs.iter().map(|job| (Json(job), job.key())).unzip();
    sqlx::query(
        "SELECT ivs_jobs.add_job('job', payload := job.payload, run_at := $2, job_key := job.key)
         FROM unnest($1::json[], $3::text[]) AS job (payload, key)",
    )
    .bind(payloads)
    .bind(run_at)
    .bind(keys)
    .execute(db)
    .await?;
    Ok(())
}

/// Runs due jobs until `stop` is cancelled, then finishes or gives back those that run.
///
/// The worker ends on a database fault; it is started again until told to stop.
pub async fn work(ctx: Context, run: Run, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(fault) = work_once(&ctx, run, &stop).await {
            tracing::error!(error = format!("{fault:#}"), "the job worker ended; starting it again");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
        }
    }
}

async fn work_once(ctx: &Context, run: Run, stop: &CancellationToken) -> anyhow::Result<()> {
    let recovery = WorkerRecoveryConfig::default()
        .heartbeat_interval(Duration::from_secs(5))
        .sweep_interval(Duration::from_secs(10))
        .sweep_threshold(Duration::from_secs(20))
        .recovery_delay(Duration::ZERO);
    WorkerOptions::default()
        .pg_pool(ctx.db.clone())
        .schema(JOBS_SCHEMA)
        .concurrency(CONCURRENCY)
        .poll_interval(Duration::from_secs(1))
        .local_queue(LocalQueueConfig::default())
        .worker_recovery(recovery)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stop.clone().cancelled_owned())
        .shutdown_interrupted_job_retry_delay(Duration::ZERO)
        .add_extension(Runner { ctx: ctx.clone(), run })
        .define_job::<Job>()
        .init()
        .await?
        .run()
        .await?;
    Ok(())
}

/// Runs, once each, all jobs due by the context's clock, and says how many there were. For tests with a manual clock:
/// the worker itself asks SQL's `now()`.
pub async fn run_due(ctx: &Context, run: Run) -> anyhow::Result<usize> {
    let due: Vec<(i64, Json<Job>)> =
        sqlx::query_as("SELECT id, payload FROM ivs_jobs._private_jobs WHERE run_at <= $1 ORDER BY run_at, id")
            .bind(ctx.clock.now())
            .fetch_all(&ctx.db)
            .await?;
    for (id, Json(job)) in &due {
        let outcome = run(ctx.clone(), job.clone()).await?;
        sqlx::query("DELETE FROM ivs_jobs._private_jobs WHERE id = $1").bind(id).execute(&ctx.db).await?;
        repeat(ctx, job, outcome).await?;
    }
    Ok(due.len())
}

async fn repeat(ctx: &Context, job: &Job, outcome: Outcome) -> sqlx::Result<()> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Again(wait) => {
            let again = std::slice::from_ref(job);
            enqueue(&mut *ctx.db.acquire().await?, again, ctx.clock.now() + wait).await
        }
    }
}

#[derive(Clone)]
struct Runner {
    ctx: Context,
    run: Run,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runner")
    }
}

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "job";

    async fn run(self, worker: WorkerContext) -> impl IntoTaskHandlerResult {
        let Runner { ctx, run } =
            worker.get_ext::<Runner>().cloned().ok_or("the worker was started without a runner")?;
        // A task of its own: a worker that is told to stop drops what it runs after a while, and so does one that has
        // lost the database. A mail must not be dropped between its acceptance and our note of it.
        let tasks = ctx.tasks.clone();
        let done = tasks.spawn(async move {
            let outcome = run(ctx.clone(), self.clone()).await.unwrap_or_else(|fault| {
                tracing::error!(job = self.key(), error = format!("{fault:#}"), "job failed; it will be tried again");
                Outcome::Again(AFTER_FAULT)
            });
            repeat(&ctx, &self, outcome).await
        });
        match done.await {
            Ok(Ok(())) => Ok(()),
            // What a panic or the database says stays out of the queue's tables.
            Ok(Err(_)) => Err("the job's outcome could not be written"),
            Err(_) => Err("the job panicked"),
        }
    }
}
