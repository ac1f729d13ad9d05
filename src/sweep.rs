//! Recurring background work in every instance: one list of [`Sweep`]s, run and watched.
//!
//! Promises: a pass that fails, panics or times out is logged and counted, and the next one follows. [`crate::metrics`]
//! and `/readyz` name every sweep that is overdue. A pass may be aborted at any point, as by a kill, and two instances
//! may run the same one at once.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::BoxFuture;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    context::Context,
    metrics::{SweepOutcome, SweepPatience},
};

/// How long a pass may take, unless it is a walk.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a pass goes on once the server stops, unless it is a walk.
const LAST: Duration = Duration::from_secs(10);
/// So much later than it should have ended a sweep is overdue.
const OVERDUE: Duration = Duration::from_secs(2 * 60);
/// A walk through all rows that has not ended for so long is overdue.
const LONGEST_WALK: Duration = Duration::from_secs(24 * 3600);

/// Work that asks the tables what there is to do.
pub struct Sweep {
    /// For logs and metrics.
    pub name: &'static str,
    /// From one pass's beginning to the next's, unless that takes longer.
    every: Duration,
    /// A walk goes through very many rows without haste, in steps that each have an end: it may take hours, and a stop
    /// does not wait for it.
    is_walk: bool,
    pass: Pass,
}

type Pass = fn(Context) -> BoxFuture<'static, anyhow::Result<()>>;

impl Sweep {
    pub const fn new(name: &'static str, seconds: u64, pass: Pass) -> Sweep {
        Sweep { name, every: Duration::from_secs(seconds), is_walk: false, pass }
    }

    pub const fn as_walk(self) -> Sweep {
        Sweep { is_walk: true, ..self }
    }

    /// One pass, now.
    pub async fn pass(&self, ctx: &Context) -> anyhow::Result<()> {
        (self.pass)(ctx.clone()).await
    }

    /// When it is overdue.
    fn patience(&self) -> SweepPatience {
        let within = |longest| TimeDelta::from_std(self.every + longest).unwrap_or(TimeDelta::MAX);
        let after_failure = within(OVERDUE);
        let finished = if self.is_walk { within(LONGEST_WALK) } else { after_failure };
        SweepPatience { finished, after_failure }
    }

    /// Ends when a pass must.
    async fn limit(&self, stop: &CancellationToken) {
        if self.is_walk {
            return stop.cancelled().await;
        }
        tokio::select! {
            () = sleep(LIMIT) => {}
            () = async { stop.cancelled().await; sleep(LAST).await } => {}
        }
    }

    /// Runs one pass after another until `stop` is cancelled.
    async fn run(&'static self, ctx: Context, stop: CancellationToken) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // Leases hold between servers whose clocks agree.
            if ctx.clock_is_off() {
                continue;
            }
            // In a task of its own, so that a panic ends this pass and not the sweep.
            let mut pass = tokio::spawn((self.pass)(ctx.clone()));
            let ended = tokio::select! {
                ended = &mut pass => Some(ended),
                () = self.limit(&stop) => None,
            };
            let outcome = match ended {
                Some(Ok(Ok(()))) => SweepOutcome::Finished,
                Some(Ok(Err(fault))) => {
                    tracing::error!(sweep = self.name, error = format!("{fault:#}"), "a sweep failed; it runs again");
                    SweepOutcome::Failed
                }
                Some(Err(_)) => {
                    tracing::error!(sweep = self.name, "a sweep panicked; it runs again");
                    SweepOutcome::Failed
                }
                None => {
                    pass.abort();
                    if stop.is_cancelled() {
                        return;
                    }
                    tracing::error!(sweep = self.name, "a sweep timed out; it runs again");
                    SweepOutcome::Abandoned
                }
            };
            ctx.metrics.sweep(self.name, outcome, ctx.clock.now());
        }
    }
}

/// Runs `sweeps` as tasks of `beside` until `stop` is cancelled.
pub fn run(sweeps: &'static [Sweep], ctx: &Context, beside: &TaskTracker, stop: &CancellationToken) {
    for sweep in sweeps {
        ctx.metrics.expect_sweep(sweep.name, sweep.patience(), ctx.clock.now());
        beside.spawn(sweep.run(ctx.clone(), stop.clone()));
    }
}
