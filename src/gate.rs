//! Limits long CPU-bound work: as many pieces run at once as there are cores, and the others take turns.
//!
//! Promises: a [`Flow`] has at most two permits. Its next piece runs after one of every other waiting flow, so one
//! flow's crowd delays another by only a piece or two. Every second permit goes first to preferred flows. A piece
//! waits at most [`PATIENCE`]. Hides the queues and the turns.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot::{self, Sender},
    task::spawn_blocking,
    time::timeout,
};

/// How long a piece may wait for a permit; and how long a caller who got none should stay away.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How many permits a flow has at once.
const PERMITS_A_FLOW: usize = 2;
/// How many pieces of a flow may wait: more than a machine can do within the patience, and no matter for its memory.
const LONGEST_LINE: usize = 200;

/// The owner of a piece of work: everything with the same `id` takes turns as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub id: Vec<u8>,
    pub is_preferred: bool,
}

/// Lets as many pieces of work in at once as there are permits.
pub struct Gate {
    lines: Arc<Lines>,
    patience: Duration,
}

/// The right to do one piece of work after the other; the next flow's turn comes when it is dropped.
pub struct Permit {
    lines: Arc<Lines>,
    flow: Flow,
}

#[derive(Default)]
struct Lines(Mutex<State>);

#[derive(Default)]
struct State {
    free_permits: usize,
    /// Of every flow that works or waits.
    flows: HashMap<Flow, Line>,
    /// Every flow that waits, the next one first: those that are not preferred, and those that are.
    turns: [VecDeque<Flow>; 2],
    preferred_first: bool,
}

#[derive(Default)]
struct Line {
    permits: usize,
    /// Callers that went away stay until their turn.
    waiting: VecDeque<Sender<Permit>>,
}

impl Default for Gate {
    /// A permit for each core: what serves requests sleeps most of the time, so the system lets it pass in between.
    fn default() -> Self {
        Gate::new(std::thread::available_parallelism().map_or(1, usize::from), PATIENCE)
    }
}

impl Gate {
    fn new(permits: usize, patience: Duration) -> Self {
        let state = State { free_permits: permits, ..State::default() };
        Gate { lines: Arc::new(Lines(Mutex::new(state))), patience }
    }

    /// A permit when the flow's turn comes; `None`: the line is too long, or did not move in time. A caller that goes
    /// away leaves the line.
    pub async fn permit(&self, flow: Flow) -> Option<Permit> {
        let (waiting, called) = oneshot::channel();
        if !self.lines.lock().line_up(flow, waiting) {
            return None;
        }
        self.lines.call();
        timeout(self.patience, called).await.ok()?.ok()
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        let state = self.lines.lock();
        state.flows.values().flat_map(|line| &line.waiting).filter(|caller| !caller.is_closed()).count()
    }
}

impl Permit {
    /// Does `work` on a thread of its own. It keeps the permit until it is done, even if nobody waits for it any more.
    ///
    /// # Errors
    /// The work panicked.
    pub async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<(Permit, T)> {
        Ok(spawn_blocking(move || {
            let done = work();
            (self, done)
        })
        .await?)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.lines.lock().leave(&self.flow);
        self.lines.call();
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free permits to those whose turn it is.
    fn call(self: &Arc<Self>) {
        loop {
            let Some((flow, caller)) = self.lock().next() else { return };
            // One that has gone away in this moment drops its permit, which calls the next.
            _ = caller.send(Permit { lines: self.clone(), flow });
        }
    }
}

impl State {
    fn line_up(&mut self, flow: Flow, caller: Sender<Permit>) -> bool {
        let line = self.flows.entry(flow.clone()).or_default();
        if line.waiting.is_empty() {
            self.turns[usize::from(flow.is_preferred)].push_back(flow);
        } else if line.waiting.len() >= LONGEST_LINE {
            line.waiting.retain(|waiting| !waiting.is_closed());
            if line.waiting.len() >= LONGEST_LINE {
                return false;
            }
        }
        line.waiting.push_back(caller);
        true
    }

    /// Takes a permit for the caller whose turn it is.
    fn next(&mut self) -> Option<(Flow, Sender<Permit>)> {
        if self.free_permits == 0 {
            return None;
        }
        let first = usize::from(self.preferred_first);
        let found = self.next_of(first).or_else(|| self.next_of(1 - first))?;
        self.free_permits -= 1;
        self.preferred_first = !self.preferred_first;
        Some(found)
    }

    fn next_of(&mut self, lane: usize) -> Option<(Flow, Sender<Permit>)> {
        for _ in 0..self.turns[lane].len() {
            let flow = self.turns[lane].pop_front()?;
            let line = self.flows.get_mut(&flow)?;
            if line.permits >= PERMITS_A_FLOW {
                self.turns[lane].push_back(flow);
                continue;
            }
            let caller = loop {
                match line.waiting.pop_front() {
                    Some(gone) if gone.is_closed() => {}
                    other => break other,
                }
            };
            if !line.waiting.is_empty() {
                self.turns[lane].push_back(flow.clone());
            }
            match caller {
                Some(caller) => {
                    line.permits += 1;
                    return Some((flow, caller));
                }
                None if line.permits == 0 => _ = self.flows.remove(&flow),
                None => {}
            }
        }
        None
    }

    fn leave(&mut self, flow: &Flow) {
        self.free_permits += 1;
        let Some(line) = self.flows.get_mut(flow) else { return };
        line.permits -= 1;
        if line.permits == 0 && line.waiting.is_empty() {
            self.flows.remove(flow);
        }
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

    use futures_util::{FutureExt, future::BoxFuture};
    use proptest::prelude::*;
    use tokio::task::JoinHandle;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn flow(id: &str) -> Flow {
        Flow { id: id.into(), is_preferred: false }
    }

    fn preferred(id: &str) -> Flow {
        Flow { id: id.into(), is_preferred: true }
    }

    /// A permit that is asked for, and is in line from now on.
    fn asked(gate: &Arc<Gate>, flow: Flow) -> BoxFuture<'static, Option<Permit>> {
        let gate = gate.clone();
        let mut permit = async move { gate.permit(flow).await }.boxed();
        assert!((&mut permit).now_or_never().is_none(), "a permit was free");
        permit
    }

    /// In which order those who wait get the one permit, whose holder leaves now.
    fn order(mut waiting: Vec<(&str, BoxFuture<'static, Option<Permit>>)>, holder: Permit) -> String {
        let mut order = Vec::new();
        let mut held = Some(holder);
        while held.take().is_some() {
            let next = waiting.iter_mut().enumerate().find_map(|(nr, (_, permit))| Some((nr, permit.now_or_never()?)));
            if let Some((nr, permit)) = next {
                order.push(waiting.remove(nr).0);
                held = permit;
            }
        }
        order.join(" ")
    }

    /// All that have ever asked are gone.
    fn assert_empty(gate: &Gate, permits: usize) {
        let state = gate.lines.lock();
        assert_eq!((state.free_permits, state.flows.len()), (permits, 0));
        assert!(state.turns.iter().all(VecDeque::is_empty));
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "waited too long");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn permits_are_given_in_turn_of_flows_however_many_of_one_wait() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.permit(flow("crowd")).await.unwrap();
        let mut waiting: Vec<_> = (0..5).map(|_| ("crowd", asked(&gate, flow("crowd")))).collect();
        waiting.push(("rita", asked(&gate, flow("rita"))));
        waiting.push(("rita", asked(&gate, flow("rita"))));
        waiting.push(("otto", asked(&gate, flow("otto"))));
        assert_eq!(order(waiting, holder), "crowd rita otto crowd rita crowd crowd crowd");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn every_second_permit_goes_first_to_those_who_are_preferred() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.permit(flow("1")).await.unwrap();
        let mut waiting: Vec<_> = ["1", "2", "3", "4"].map(|id| (id, asked(&gate, flow(id)))).into();
        waiting.extend(["a", "b"].map(|id| (id, asked(&gate, preferred(id)))));
        assert_eq!(order(waiting, holder), "a 1 b 2 3 4");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn a_flow_has_two_permits_at_most() {
        let gate = Arc::new(Gate::new(4, LONG));
        let (one, _two) = (gate.permit(flow("a")).await.unwrap(), gate.permit(flow("a")).await.unwrap());
        let mut third = asked(&gate, flow("a"));
        let _others = (gate.permit(flow("b")).await.unwrap(), gate.permit(preferred("a")).await.unwrap());
        assert!((&mut third).now_or_never().is_none());
        drop(one);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn beyond_the_longest_line_only_their_own_flow_is_turned_away() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.permit(flow("a")).await.unwrap();
        let mut waiting: Vec<_> = (0..LONGEST_LINE).map(|_| asked(&gate, flow("a"))).collect();
        assert!(gate.permit(flow("a")).now_or_never().is_some_and(|permit| permit.is_none()));
        let other = asked(&gate, flow("b"));
        waiting.pop();
        waiting.push(asked(&gate, flow("a")));
        drop(holder);
        drop(waiting);
        assert!(other.await.is_some());
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn a_caller_who_waits_too_long_or_goes_away_leaves_the_line() {
        let gate = Arc::new(Gate::new(1, Duration::from_millis(1)));
        let permit = gate.permit(flow("a")).await.unwrap();
        assert!(gate.permit(flow("b")).await.is_none());
        drop(asked(&gate, flow("c")));
        let called = asked(&gate, flow("d"));
        drop(permit);
        // It was called, and did not come.
        drop(called);
        assert!(gate.permit(flow("a")).await.is_some());
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_permit_until_it_is_done() {
        let gate = Arc::new(Gate::new(1, LONG));
        let (end, ended) = mpsc::channel::<()>();
        let permit = gate.permit(flow("a")).await.unwrap();
        let task: JoinHandle<_> = tokio::spawn(permit.work(move || _ = ended.recv()));
        let mut next = asked(&gate, flow("b"));
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.is_err_and(|end| end.is_cancelled()));
        assert!((&mut next).now_or_never().is_none());
        drop(end);
        assert!(next.await.is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn never_more_is_done_at_once_than_there_are_permits() {
        let gate = Arc::new(Gate::new(2, LONG));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..16)
            .map(|nr| {
                let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(20));
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    gate.permit(flow(&format!("{}", nr % 3))).await.unwrap().work(work).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        until(|| gate.lines.lock().free_permits == 2).await;
        assert_empty(&gate, 2);
    }

    proptest! {
        /// In whatever order callers come, go away and leave, no permit is lost. None is free while a caller waits who
        /// may have it.
        #[test]
        fn no_permit_is_lost(permits in 1..5usize, steps in prop::collection::vec((0..3u8, 0..4u8, any::<bool>()), 0..60)) {
            let gate = Arc::new(Gate::new(permits, LONG));
            let mut held: Vec<Permit> = Vec::new();
            let mut waiting: Vec<BoxFuture<'static, Option<Permit>>> = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            for (step, id, is_preferred) in steps {
                match step {
                    0 => {
                        let (gate, flow) = (gate.clone(), Flow { id: vec![id], is_preferred });
                        waiting.push(async move { gate.permit(flow).await }.boxed());
                    }
                    1 if !held.is_empty() => drop(held.remove(usize::from(id) % held.len())),
                    2 if !waiting.is_empty() => drop(waiting.remove(usize::from(id) % waiting.len())),
                    _ => {}
                }
                waiting.retain_mut(|permit| match permit.now_or_never() {
                    Some(permit) => { held.push(permit.unwrap()); false }
                    None => true,
                });
                let state = gate.lines.lock();
                prop_assert_eq!(state.free_permits + held.len(), permits);
                let of = |line: &&Line| line.permits < PERMITS_A_FLOW && line.waiting.iter().any(|one| !one.is_closed());
                prop_assert!(state.free_permits == 0 || !state.flows.values().any(|line| of(&line)));
            }
            drop((held, waiting));
            // The last ones who went away leave when others come.
            prop_assert_eq!(gate.lines.lock().free_permits, permits);
        }
    }
}
