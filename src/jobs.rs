//! Work to be done later, for certain: a thin face of graphile_worker.
//!
//! A job is queued in the caller's transaction, so it exists exactly when what it follows from does. Any instance may
//! run it, and may run it twice. A job that is not finished asks for another go ([`Outcome::Again`]); one that fails
//! unexpectedly is tried again a minute later. Jobs of a killed process are taken over within a minute.
//! A run that could not even note its outcome, or panicked, counts as a failed one; after 25 of those the job waits for
//! an operator ([`retry`]). A worker that panics, hangs or takes no jobs is replaced, and [`crate::metrics`] and
//! `/readyz` name the queue among the overdue sweeps when it does not work.

use std::{collections::HashSet, fmt, future::Future, pin::Pin, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use graphile_worker::{
    IntoTaskHandlerResult, LocalQueueConfig, RefetchDelayConfig, TaskHandler, WorkerContext, WorkerOptions,
    WorkerRecoveryConfig,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AssertSqlSafe, types::Json};
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    context::Context,
    db::{self, JOBS_SCHEMA},
    metrics::{SweepOutcome, SweepPatience},
};

/// When a job that failed by a fault of ours is tried again.
const AFTER_FAULT: Duration = Duration::from_secs(60);
/// The queue among the sweeps.
const SWEEP: &str = "jobs";
/// A queue that has not been seen to work for so long is overdue.
const OVERDUE: TimeDelta = TimeDelta::minutes(2);
/// How long a worker may take no due jobs, and how long it may take to end.
const LIMIT: Duration = Duration::from_secs(60);

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
pub async fn enqueue(db: &mut db::Connection, jobs: &[Job], run_at: DateTime<Utc>) -> sqlx::Result<()> {
    let (payloads, keys): (Vec<_>, Vec<_>) = jobs.iter().map(|job| (Json(job), job.key())).unzip();
    // All in one call: `add_job`, called for each, takes thirty times as long for many.
    sqlx::query(
        "SELECT count(*) FROM ivs_jobs.add_jobs(ARRAY(
             SELECT ('job', payload, NULL, $2, NULL, key, NULL, NULL)::ivs_jobs.job_spec
             FROM unnest($1::json[], $3::text[]) AS job (payload, key)), false)",
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
/// The worker is ended while the database does not answer, or can only be read, since it would ask for jobs without a
/// pause, and is started again until told to stop.
pub async fn work(ctx: Context, run: Run, stop: CancellationToken) {
    let queue = db::queue::pool(&ctx.db);
    let patience = SweepPatience { finished: OVERDUE, after_failure: OVERDUE };
    ctx.metrics.expect_sweep(SWEEP, patience, ctx.clock.now());
    while !stop.is_cancelled() {
        if ctx.clock_is_off() {
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(2))).await;
            continue;
        }
        let until = stop.child_token();
        let runner = Runner { ctx: ctx.clone(), run, running: TaskTracker::new() };
        // In a task of its own, so that a panic in the library ends this worker and not the queue.
        let mut worker = tokio::spawn(work_once(runner.clone(), queue.clone(), until.clone()));
        let ended = tokio::select! {
            ended = &mut worker => Ok(ended),
            () = until_it_cannot_work(&runner, &queue, &until) => timeout(LIMIT, &mut worker).await,
        };
        until.cancel();
        let failed = match ended {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(fault))) => Some((SweepOutcome::Failed, format!("{fault:#}"))),
            Ok(Err(_)) => Some((SweepOutcome::Failed, "it panicked".to_owned())),
            Err(_) => Some((SweepOutcome::Abandoned, "it did not end in time".to_owned())),
        };
        worker.abort();
        if let Some((outcome, error)) = failed {
            tracing::error!(error, "the job worker ended; starting it again");
            ctx.metrics.sweep(SWEEP, outcome, ctx.clock.now());
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
    queue.close();
}

/// Cancels `until` when the queue's database does not answer, or lets nothing be written, when the worker takes no
/// jobs, or this machine's clock is off; returns when it is cancelled. Until then the queue is not overdue.
async fn until_it_cannot_work(runner: &Runner, queue: &db::Pool, until: &CancellationToken) {
    let (ctx, mut worked_at) = (&runner.ctx, Instant::now());
    loop {
        tokio::select! {
            () = until.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if ctx.clock_is_off() {
            return until.cancel();
        }
        match until.run_until_cancelled(has_overdue_jobs(queue)).await {
            Some(Ok(true)) if runner.running.is_empty() => {
                if worked_at.elapsed() > LIMIT {
                    tracing::error!("the job worker takes no jobs");
                    until.cancel();
                }
            }
            Some(Ok(_)) => {
                worked_at = Instant::now();
                ctx.metrics.sweep(SWEEP, SweepOutcome::Finished, ctx.clock.now());
            }
            // All connections are in use: then the worker waits for one too, and asks no faster than it gets it.
            None | Some(Err(sqlx::Error::PoolTimedOut)) => {}
            Some(Err(fault)) => {
                tracing::warn!(error = %fault, "no jobs are run while the database does not answer, or lets nothing be written");
                until.cancel();
            }
        }
    }
}

/// Whether there are jobs that should have been taken long ago. Fails where they cannot be.
async fn has_overdue_jobs(queue: &db::Pool) -> sqlx::Result<bool> {
    // Refused by a server that can only be read.
    sqlx::query("SELECT id FROM ivs_jobs._private_jobs LIMIT 0 FOR UPDATE").execute(queue).await?;
    // By the index that the library has for its own question.
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM ivs_jobs._private_jobs
                        WHERE is_available AND priority = 0 AND run_at < now() - interval '1 min')",
    )
    .fetch_one(queue)
    .await
}

async fn work_once(runner: Runner, queue: db::Pool, stop: CancellationToken) -> anyhow::Result<()> {
    let recovery = WorkerRecoveryConfig::default()
        .heartbeat_interval(Duration::from_secs(5))
        .sweep_interval(Duration::from_secs(10))
        .sweep_threshold(Duration::from_secs(20))
        .recovery_delay(Duration::ZERO);
    // Without this it asks for jobs again and again as fast as it can. No new job ends the pause: most are due half a
    // minute later, the others can wait for a second.
    let pause =
        RefetchDelayConfig::default().with_duration(Duration::from_secs(1)).with_max_abort_threshold(usize::MAX);
    WorkerOptions::default()
        .database(db::queue::database(queue))
        .schema(JOBS_SCHEMA)
        .concurrency(runner.ctx.settings.job_workers)
        .poll_interval(Duration::from_secs(1))
        .local_queue(LocalQueueConfig::default().with_refetch_delay(pause))
        .worker_recovery(recovery)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stop.cancelled_owned())
        .shutdown_interrupted_job_retry_delay(Duration::ZERO)
        .add_extension(runner)
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

/// For who looks at the queue: the fault itself may quote anything, and is in the log.
async fn note_fault(db: &db::Pool, job: &Job) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ivs_jobs._private_jobs SET last_error = 'the last run failed, see the log'
         WHERE key = $1 AND locked_at IS NULL",
    )
    .bind(job.key())
    .execute(db)
    .await?;
    Ok(())
}

#[derive(Clone)]
struct Runner {
    ctx: Context,
    run: Run,
    /// What its worker runs now.
    running: TaskTracker,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runner")
    }
}

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "job";

    async fn run(self, worker: WorkerContext) -> impl IntoTaskHandlerResult {
        let Runner { ctx, run, running } =
            worker.get_ext::<Runner>().cloned().ok_or("the worker was started without a runner")?;
        // A task of its own: a worker that is told to stop drops what it runs after a while, and so does one that has
        // lost the database. A mail must not be dropped between its acceptance and our note of it.
        let tasks = ctx.tasks.clone();
        let done = tasks.spawn(running.track_future(async move {
            match run(ctx.clone(), self.clone()).await {
                Ok(outcome) => repeat(&ctx, &self, outcome).await,
                Err(fault) => {
                    let error = format!("{fault:#}");
                    tracing::error!(job = self.key(), error, "job failed; it will be tried again");
                    repeat(&ctx, &self, Outcome::Again(AFTER_FAULT)).await?;
                    note_fault(&ctx.db, &self).await
                }
            }
        }));
        match done.await {
            Ok(Ok(())) => Ok(()),
            // What a panic or the database says stays out of the queue's tables.
            Ok(Err(_)) => Err("the job's outcome could not be written"),
            Err(_) => Err("the job panicked"),
        }
    }
}

/// Those of `jobs` that are not in the queue in any state.
pub async fn missing(db: &db::Pool, mut jobs: Vec<Job>) -> sqlx::Result<Vec<Job>> {
    let keys: Vec<String> = jobs.iter().map(Job::key).collect();
    let known: HashSet<String> = sqlx::query_scalar("SELECT key FROM ivs_jobs._private_jobs WHERE key = ANY($1)")
        .bind(keys)
        .fetch_all(db)
        .await?
        .into_iter()
        .collect();
    jobs.retain(|job| !known.contains(&job.key()));
    Ok(jobs)
}

/// Forgets runs whose job was queued again while they ran, and whose process died before it could end them.
pub async fn remove_replaced(db: &db::Pool) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM ivs_jobs._private_jobs AS job USING ivs_jobs._private_job_retirements AS retired
         WHERE retired.id = job.id AND job.locked_at IS NULL",
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The states of a job, the most urgent first: given up after too many failed runs, taken by a worker, to be run now,
/// to be run later.
pub const STATES: [&str; 4] = ["failed", "running", "due", "waiting"];

/// What the queue holds, with states as of `$1`; without what a later job of the same key has replaced.
const ENTRIES: &str = "
    SELECT id, payload, run_at, attempts, max_attempts, last_error,
           CASE WHEN locked_at IS NOT NULL THEN 'running' WHEN attempts >= max_attempts THEN 'failed'
                WHEN run_at <= $1 THEN 'due' ELSE 'waiting' END AS state
    FROM ivs_jobs._private_jobs AS job
    WHERE NOT EXISTS (SELECT FROM ivs_jobs._private_job_retirements AS retired WHERE retired.id = job.id)";

/// A job as an operator sees it.
#[derive(Debug, sqlx::FromRow)]
pub struct Entry {
    pub id: i64,
    /// A [`Job`], unless another version queued it.
    pub payload: Value,
    pub run_at: DateTime<Utc>,
    /// Runs that failed or are under way, and how many there may be.
    pub attempts: i16,
    pub max_attempts: i16,
    pub last_error: Option<String>,
    /// One of [`STATES`].
    pub state: String,
}

/// Everything in the queue, the most urgent first.
pub async fn list(db: &db::Pool, now: DateTime<Utc>) -> sqlx::Result<Vec<Entry>> {
    let sql = format!("SELECT * FROM ({ENTRIES}) AS job ORDER BY array_position($2, state), run_at, id");
    sqlx::query_as(AssertSqlSafe(sql)).bind(now).bind(STATES.map(str::to_owned)).fetch_all(db).await
}

/// How many jobs are in each of [`STATES`].
pub async fn count(db: &mut db::Connection, now: DateTime<Utc>) -> sqlx::Result<[(&'static str, i64); 4]> {
    let sql = format!("SELECT state, count(*) FROM ({ENTRIES}) AS job GROUP BY state");
    let counted: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(sql)).bind(now).fetch_all(db).await?;
    Ok(STATES.map(|state| (state, counted.iter().find(|(found, _)| found == state).map_or(0, |(_, count)| *count))))
}

/// Queues a failed job again, to run at once, with all its runs before it. Says the job's state where it is another,
/// and nothing where there is no such job.
pub async fn retry(db: &db::Pool, id: i64, now: DateTime<Utc>) -> sqlx::Result<Option<String>> {
    let mut tx = db.begin().await?;
    sqlx::query("SELECT FROM ivs_jobs._private_jobs WHERE id = $1 FOR UPDATE").bind(id).execute(&mut *tx).await?;
    let sql = format!("SELECT state FROM ({ENTRIES}) AS job WHERE id = $2");
    let state: Option<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(now).bind(id).fetch_optional(&mut *tx).await?;
    if state.as_deref() == Some("failed") {
        sqlx::query("SELECT ivs_jobs.reschedule_jobs(ARRAY[$1], run_at := $2, attempts := 0)")
            .bind(id)
            .bind(now)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(state)
}

/// When a job that waits is to run; `None` when it does not wait.
pub async fn next_run(db: &mut db::Connection, job: &Job) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar(
        "SELECT run_at FROM ivs_jobs._private_jobs WHERE key = $1 AND locked_at IS NULL AND attempts < max_attempts",
    )
    .bind(job.key())
    .fetch_optional(db)
    .await
}
