//! Limits long CPU-bound work: as many pieces run at once as there are cores, and the others take turns.
//!
//! Promises: a [`Party`] has at most two desks. Its next piece runs after one of every other waiting party, so one
//! party's crowd delays another by only a piece or two. Every second desk goes first to preferred parties. A piece
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

/// How long a piece may wait for a desk; and how long a caller who got none should stay away.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How many desks a party has at once.
const DESKS_A_PARTY: usize = 2;
/// How many pieces of a party may wait: more than a machine can do within the patience, and no matter for its memory.
const LONGEST_LINE: usize = 200;

/// The owner of a piece of work: everything with the same `id` takes turns as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    pub id: Vec<u8>,
    pub is_preferred: bool,
}

/// Lets as many pieces of work in at once as there are desks.
pub struct Gate {
    lines: Arc<Lines>,
    patience: Duration,
}

/// The right to do one piece of work after the other; the next party's turn comes when it is dropped.
pub struct Desk {
    lines: Arc<Lines>,
    party: Party,
}

#[derive(Default)]
struct Lines(Mutex<State>);

#[derive(Default)]
struct State {
    free_desks: usize,
    /// Of every party that works or waits.
    parties: HashMap<Party, Line>,
    /// Every party that waits, the next one first: those that are not preferred, and those that are.
    turns: [VecDeque<Party>; 2],
    preferred_first: bool,
}

#[derive(Default)]
struct Line {
    desks: usize,
    /// Callers that went away stay until their turn.
    waiting: VecDeque<Sender<Desk>>,
}

impl Default for Gate {
    /// A desk for each core: what serves requests sleeps most of the time, so the system lets it pass in between.
    fn default() -> Self {
        Gate::new(std::thread::available_parallelism().map_or(1, usize::from), PATIENCE)
    }
}

impl Gate {
    fn new(desks: usize, patience: Duration) -> Self {
        let state = State { free_desks: desks, ..State::default() };
        Gate { lines: Arc::new(Lines(Mutex::new(state))), patience }
    }

    /// A desk when the party's turn comes; `None`: the line is too long, or did not move in time. A caller that goes
    /// away leaves the line.
    pub async fn desk(&self, party: Party) -> Option<Desk> {
        let (waiting, called) = oneshot::channel();
        if !self.lines.lock().line_up(party, waiting) {
            return None;
        }
        self.lines.call();
        timeout(self.patience, called).await.ok()?.ok()
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        let state = self.lines.lock();
        state.parties.values().flat_map(|line| &line.waiting).filter(|caller| !caller.is_closed()).count()
    }
}

impl Desk {
    /// Does `work` on a thread of its own. It keeps the desk until it is done, even if nobody waits for it any more.
    ///
    /// # Errors
    /// The work panicked.
    pub async fn work<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<(Desk, T)> {
        Ok(spawn_blocking(move || {
            let done = work();
            (self, done)
        })
        .await?)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.lines.lock().leave(&self.party);
        self.lines.call();
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free desks to those whose turn it is.
    fn call(self: &Arc<Self>) {
        loop {
            let Some((party, caller)) = self.lock().next() else { return };
            // One that has gone away in this moment drops its desk, which calls the next.
            _ = caller.send(Desk { lines: self.clone(), party });
        }
    }
}

impl State {
    fn line_up(&mut self, party: Party, caller: Sender<Desk>) -> bool {
        let line = self.parties.entry(party.clone()).or_default();
        if line.waiting.is_empty() {
            self.turns[usize::from(party.is_preferred)].push_back(party);
        } else if line.waiting.len() >= LONGEST_LINE {
            line.waiting.retain(|waiting| !waiting.is_closed());
            if line.waiting.len() >= LONGEST_LINE {
                return false;
            }
        }
        line.waiting.push_back(caller);
        true
    }

    /// Takes a desk for the caller whose turn it is.
    fn next(&mut self) -> Option<(Party, Sender<Desk>)> {
        if self.free_desks == 0 {
            return None;
        }
        let first = usize::from(self.preferred_first);
        let found = self.next_of(first).or_else(|| self.next_of(1 - first))?;
        self.free_desks -= 1;
        self.preferred_first = !self.preferred_first;
        Some(found)
    }

    fn next_of(&mut self, lane: usize) -> Option<(Party, Sender<Desk>)> {
        for _ in 0..self.turns[lane].len() {
            let party = self.turns[lane].pop_front()?;
            let line = self.parties.get_mut(&party)?;
            if line.desks >= DESKS_A_PARTY {
                self.turns[lane].push_back(party);
                continue;
            }
            let caller = loop {
                match line.waiting.pop_front() {
                    Some(gone) if gone.is_closed() => {}
                    other => break other,
                }
            };
            if !line.waiting.is_empty() {
                self.turns[lane].push_back(party.clone());
            }
            match caller {
                Some(caller) => {
                    line.desks += 1;
                    return Some((party, caller));
                }
                None if line.desks == 0 => _ = self.parties.remove(&party),
                None => {}
            }
        }
        None
    }

    fn leave(&mut self, party: &Party) {
        self.free_desks += 1;
        let Some(line) = self.parties.get_mut(party) else { return };
        line.desks -= 1;
        if line.desks == 0 && line.waiting.is_empty() {
            self.parties.remove(party);
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

    fn party(id: &str) -> Party {
        Party { id: id.into(), is_preferred: false }
    }

    fn preferred(id: &str) -> Party {
        Party { id: id.into(), is_preferred: true }
    }

    /// A desk that is asked for, and is in line from now on.
    fn asked(gate: &Arc<Gate>, party: Party) -> BoxFuture<'static, Option<Desk>> {
        let gate = gate.clone();
        let mut desk = async move { gate.desk(party).await }.boxed();
        assert!((&mut desk).now_or_never().is_none(), "a desk was free");
        desk
    }

    /// In which order those who wait get the one desk, whose holder leaves now.
    fn order(mut waiting: Vec<(&str, BoxFuture<'static, Option<Desk>>)>, holder: Desk) -> String {
        let mut order = Vec::new();
        let mut held = Some(holder);
        while held.take().is_some() {
            let next = waiting.iter_mut().enumerate().find_map(|(nr, (_, desk))| Some((nr, desk.now_or_never()?)));
            if let Some((nr, desk)) = next {
                order.push(waiting.remove(nr).0);
                held = desk;
            }
        }
        order.join(" ")
    }

    /// All that have ever asked are gone.
    fn assert_empty(gate: &Gate, desks: usize) {
        let state = gate.lines.lock();
        assert_eq!((state.free_desks, state.parties.len()), (desks, 0));
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
    async fn desks_are_given_in_turn_of_parties_however_many_of_one_wait() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.desk(party("crowd")).await.unwrap();
        let mut waiting: Vec<_> = (0..5).map(|_| ("crowd", asked(&gate, party("crowd")))).collect();
        waiting.push(("rita", asked(&gate, party("rita"))));
        waiting.push(("rita", asked(&gate, party("rita"))));
        waiting.push(("otto", asked(&gate, party("otto"))));
        assert_eq!(order(waiting, holder), "crowd rita otto crowd rita crowd crowd crowd");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn every_second_desk_goes_first_to_those_who_are_preferred() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.desk(party("1")).await.unwrap();
        let mut waiting: Vec<_> = ["1", "2", "3", "4"].map(|id| (id, asked(&gate, party(id)))).into();
        waiting.extend(["a", "b"].map(|id| (id, asked(&gate, preferred(id)))));
        assert_eq!(order(waiting, holder), "a 1 b 2 3 4");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn a_party_has_two_desks_at_most() {
        let gate = Arc::new(Gate::new(4, LONG));
        let (one, _two) = (gate.desk(party("a")).await.unwrap(), gate.desk(party("a")).await.unwrap());
        let mut third = asked(&gate, party("a"));
        let _others = (gate.desk(party("b")).await.unwrap(), gate.desk(preferred("a")).await.unwrap());
        assert!((&mut third).now_or_never().is_none());
        drop(one);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn beyond_the_longest_line_only_their_own_party_is_turned_away() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.desk(party("a")).await.unwrap();
        let mut waiting: Vec<_> = (0..LONGEST_LINE).map(|_| asked(&gate, party("a"))).collect();
        assert!(gate.desk(party("a")).now_or_never().is_some_and(|desk| desk.is_none()));
        let other = asked(&gate, party("b"));
        waiting.pop();
        waiting.push(asked(&gate, party("a")));
        drop(holder);
        drop(waiting);
        assert!(other.await.is_some());
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn a_caller_who_waits_too_long_or_goes_away_leaves_the_line() {
        let gate = Arc::new(Gate::new(1, Duration::from_millis(1)));
        let desk = gate.desk(party("a")).await.unwrap();
        assert!(gate.desk(party("b")).await.is_none());
        drop(asked(&gate, party("c")));
        let called = asked(&gate, party("d"));
        drop(desk);
        // It was called, and did not come.
        drop(called);
        assert!(gate.desk(party("a")).await.is_some());
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_desk_until_it_is_done() {
        let gate = Arc::new(Gate::new(1, LONG));
        let (end, ended) = mpsc::channel::<()>();
        let desk = gate.desk(party("a")).await.unwrap();
        let task: JoinHandle<_> = tokio::spawn(desk.work(move || _ = ended.recv()));
        let mut next = asked(&gate, party("b"));
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.is_err_and(|end| end.is_cancelled()));
        assert!((&mut next).now_or_never().is_none());
        drop(end);
        assert!(next.await.is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn never_more_is_done_at_once_than_there_are_desks() {
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
                    gate.desk(party(&format!("{}", nr % 3))).await.unwrap().work(work).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        until(|| gate.lines.lock().free_desks == 2).await;
        assert_empty(&gate, 2);
    }

    proptest! {
        /// In whatever order callers come, go away and leave, no desk is lost. None is free while a caller waits who
        /// may have it.
        #[test]
        fn no_desk_is_lost(desks in 1..5usize, steps in prop::collection::vec((0..3u8, 0..4u8, any::<bool>()), 0..60)) {
            let gate = Arc::new(Gate::new(desks, LONG));
            let mut held: Vec<Desk> = Vec::new();
            let mut waiting: Vec<BoxFuture<'static, Option<Desk>>> = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            for (step, id, is_preferred) in steps {
                match step {
                    0 => {
                        let (gate, party) = (gate.clone(), Party { id: vec![id], is_preferred });
                        waiting.push(async move { gate.desk(party).await }.boxed());
                    }
                    1 if !held.is_empty() => drop(held.remove(usize::from(id) % held.len())),
                    2 if !waiting.is_empty() => drop(waiting.remove(usize::from(id) % waiting.len())),
                    _ => {}
                }
                waiting.retain_mut(|desk| match desk.now_or_never() {
                    Some(desk) => { held.push(desk.unwrap()); false }
                    None => true,
                });
                let state = gate.lines.lock();
                prop_assert_eq!(state.free_desks + held.len(), desks);
                let of = |line: &&Line| line.desks < DESKS_A_PARTY && line.waiting.iter().any(|one| !one.is_closed());
                prop_assert!(state.free_desks == 0 || !state.parties.values().any(|line| of(&line)));
            }
            drop((held, waiting));
            // The last ones who went away leave when others come.
            prop_assert_eq!(gate.lines.lock().free_desks, desks);
        }
    }
}
