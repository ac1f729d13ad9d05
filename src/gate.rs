//! Work that keeps a core busy for long: a few pieces at once, on threads of their own; a few more wait for their turn,
//! and whoever comes then, or waits too long, is turned away.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// How many may wait for their turn.
const QUEUE: usize = 16;
/// How long they may; and how long who is turned away should stay away.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Lets as many pieces of work in at once as there are desks.
pub struct Gate {
    /// Held while working.
    desks: Arc<Semaphore>,
    /// Held while working or waiting.
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Gate {
    /// A core stays free for everything else, if there is more than one.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Gate::new(cores.saturating_sub(1).max(1), PATIENCE)
    }
}

impl Gate {
    fn new(desks: usize, patience: Duration) -> Self {
        let places = Arc::new(Semaphore::new(desks + QUEUE));
        Gate { desks: Arc::new(Semaphore::new(desks)), places, patience }
    }

    /// Runs `work` when its turn comes; `None`: it is turned away, and has not begun. It keeps its desk until it is
    /// done, even if nobody waits for the answer any more.
    ///
    /// # Errors
    /// The work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<Option<T>> {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Ok(None) };
        let Ok(desk) = timeout(self.patience, self.desks.clone().acquire_owned()).await else { return Ok(None) };
        let desk = desk?;
        let done = spawn_blocking(move || {
            let _held = (desk, place);
            work()
        });
        Ok(Some(done.await?))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Instant,
    };

    use tokio::task::JoinHandle;

    use super::*;

    /// Work that ends when its sender is dropped.
    fn held(gate: &Arc<Gate>) -> (JoinHandle<anyhow::Result<Option<()>>>, mpsc::Sender<()>) {
        let (end, ended) = mpsc::channel();
        let gate = gate.clone();
        (tokio::spawn(async move { gate.run(move || _ = ended.recv()).await }), end)
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "waited too long");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn beyond_the_queue_all_are_turned_away_and_the_queue_is_served() {
        let gate = Arc::new(Gate::new(1, Duration::from_secs(60)));
        let (tasks, ends): (Vec<_>, Vec<_>) = (0..1 + QUEUE).map(|_| held(&gate)).unzip();
        until(|| gate.places.available_permits() == 0).await;
        assert_eq!(gate.run(|| ()).await.unwrap(), None);
        drop(ends);
        for task in tasks {
            assert!(task.await.unwrap().unwrap().is_some());
        }
        assert_eq!(gate.run(|| ()).await.unwrap(), Some(()));
    }

    #[tokio::test]
    async fn whoever_waits_too_long_is_turned_away() {
        let gate = Gate::new(1, Duration::from_millis(1));
        let desk = gate.desks.clone().acquire_owned().await.unwrap();
        assert_eq!(gate.run(|| ()).await.unwrap(), None);
        assert_eq!(gate.places.available_permits(), 1 + QUEUE, "a place is given back");
        drop(desk);
        assert_eq!(gate.run(|| ()).await.unwrap(), Some(()));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_desk_until_it_is_done() {
        let gate = Arc::new(Gate::new(1, Duration::from_secs(60)));
        let (task, end) = held(&gate);
        until(|| gate.desks.available_permits() == 0).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(gate.desks.available_permits(), 0);
        drop(end);
        until(|| gate.desks.available_permits() == 1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn never_more_is_done_at_once_than_there_are_desks() {
        let gate = Arc::new(Gate::new(2, Duration::from_secs(60)));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..QUEUE)
            .map(|_| {
                let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(20));
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    gate.run(work).await
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap().is_some());
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }
}
