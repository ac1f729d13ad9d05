//! Limits long CPU-bound work: as many pieces run at once as there are cores, and the others take turns.
//!
//! Promises: a [`Flow`] has at most two permits. Lanes get free cores in turn, so do the networks of a lane, and the flows
//! of a network: the next piece of one runs after a piece of every other that waits there. So a crowd in one flow delays
//! another flow by only a piece or two, a crowd of flows those of another network, and a crowd of networks those of
//! another lane. A piece waits at most [`PATIENCE`]. Hides the queues and the turns.

use std::{
    collections::{HashMap, VecDeque},
    iter,
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
const PLACES_OF_A_FLOW: usize = 2;
/// How many pieces of a flow may wait: more than a machine can do within the patience, and no matter for its memory.
const LONGEST_LINE: usize = 200;

/// The owner of a piece of work. All with the same `id` are one flow, also where they wait in several lanes.
#[derive(Clone, Debug)]
pub struct Flow {
    pub id: Vec<u8>,
    /// The flows of a network share its turns in a lane.
    pub network: Vec<u8>,
    pub lane: Lane,
    /// The account by which its browser is known. It waits among the known browsers, unless another flow waits there for
    /// the same account: one account, however many flows have its cookie, gets the turns of one.
    pub account: Option<Vec<u8>>,
}

impl Flow {
    /// One of an unknown browser, in a network of its own.
    pub fn new(id: Vec<u8>, lane: Lane) -> Self {
        Flow { network: id.clone(), id, lane, account: None }
    }
}

/// Where a flow waits: each of them is served as often as the others.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    Strangers,
    KnownBrowsers,
    TrustedClients,
}

/// Lets as many pieces of work in at once as there are cores.
pub struct Gate {
    lines: Arc<Lines>,
    patience: Duration,
}

/// The right to do one piece of work after the other.
pub struct Permit {
    // Dropped in this order, so that the next turn may be its own flow's.
    place: Place,
    _core: Core,
}

/// One of the two that a flow has; taken until it is dropped.
pub struct Place {
    lines: Arc<Lines>,
    id: Vec<u8>,
}

/// Free for the next flow when it is dropped.
struct Core(Arc<Lines>);

#[derive(Default)]
struct Lines(Mutex<State>);

#[derive(Default)]
struct State {
    free_cores: usize,
    /// How many are taken, of every flow that has any.
    places: HashMap<Vec<u8>, usize>,
    lanes: [Waiting; 3],
    /// The lane whose turn is next.
    next_lane: usize,
}

/// The flows that wait in a lane.
#[derive(Default)]
struct Waiting {
    /// None is empty. Callers that went away stay until their turn.
    lines: HashMap<Vec<u8>, VecDeque<Caller>>,
    /// The same flows by their networks, the next one first.
    networks: HashMap<Vec<u8>, VecDeque<Vec<u8>>>,
    /// The same networks, the next one first.
    turns: VecDeque<Vec<u8>>,
}

struct Caller {
    account: Option<Vec<u8>>,
    permit: Sender<Permit>,
}

impl Default for Gate {
    /// What serves requests sleeps most of the time, so the system lets it pass in between.
    fn default() -> Self {
        Gate::new(std::thread::available_parallelism().map_or(1, usize::from), PATIENCE)
    }
}

impl Gate {
    fn new(cores: usize, patience: Duration) -> Self {
        let state = State { free_cores: cores, ..State::default() };
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
        let lines = state.lanes.iter().flat_map(|lane| lane.lines.values());
        lines.flatten().filter(|caller| caller.is_there()).count()
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

    /// Lets others work, while its own flow does not see yet that this piece is done.
    pub fn free_core(self) -> Place {
        self.place
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.0.lock().free_cores += 1;
        self.0.call();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lines.lock().leave(&self.id);
        self.lines.call();
    }
}

impl Caller {
    fn is_there(&self) -> bool {
        !self.permit.is_closed()
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free cores to those whose turn it is.
    fn call(self: &Arc<Self>) {
        loop {
            let Some((id, caller)) = self.lock().next() else { return };
            // One that has gone away in this moment drops its permit, which calls the next.
            _ = caller.send(Permit { place: Place { lines: self.clone(), id }, _core: Core(self.clone()) });
        }
    }
}

impl State {
    fn line_up(&mut self, Flow { id, network, lane, account }: Flow, permit: Sender<Permit>) -> bool {
        let lane = match &account {
            Some(account) if !self.is_known_elsewhere(account, &id) => Lane::KnownBrowsers,
            _ => lane,
        };
        let Waiting { lines, networks, turns } = &mut self.lanes[lane as usize];
        let line = lines.entry(id.clone()).or_default();
        if line.is_empty() {
            let flows = networks.entry(network.clone()).or_default();
            if flows.is_empty() {
                turns.push_back(network);
            }
            flows.push_back(id);
        } else if line.len() >= LONGEST_LINE {
            line.retain(Caller::is_there);
            if line.len() >= LONGEST_LINE {
                return false;
            }
        }
        line.push_back(Caller { account, permit });
        true
    }

    /// Whether another flow waits among the known browsers for this account.
    fn is_known_elsewhere(&self, account: &[u8], id: &[u8]) -> bool {
        let others = self.lanes[Lane::KnownBrowsers as usize].lines.iter().filter(|(other, _)| *other != id);
        others.flat_map(|(_, line)| line).any(|caller| caller.account.as_deref() == Some(account) && caller.is_there())
    }

    /// Takes a core and a place for the caller whose turn it is.
    fn next(&mut self) -> Option<(Vec<u8>, Sender<Permit>)> {
        if self.free_cores == 0 {
            return None;
        }
        let lanes = self.lanes.len();
        let (lane, found) = (0..lanes).find_map(|nr| {
            let lane = (self.next_lane + nr) % lanes;
            Some((lane, self.next_of(lane)?))
        })?;
        self.next_lane = (lane + 1) % lanes;
        self.free_cores -= 1;
        *self.places.entry(found.0.clone()).or_default() += 1;
        Some(found)
    }

    /// A flow that has all its places keeps its turn, and so does a network of which nobody is there.
    fn next_of(&mut self, lane: usize) -> Option<(Vec<u8>, Sender<Permit>)> {
        let Waiting { lines, networks, turns } = &mut self.lanes[lane];
        loop {
            let may_work = |id: &Vec<u8>| self.places.get(id).is_none_or(|taken| *taken < PLACES_OF_A_FLOW);
            let (turn, flow) = turns.iter().enumerate().find_map(|(turn, network)| {
                let flow = networks.get(network)?.iter().position(may_work)?;
                Some((turn, flow))
            })?;
            let network = turns.remove(turn)?;
            let flows = networks.get_mut(&network)?;
            let id = flows.remove(flow)?;
            let line = lines.get_mut(&id)?;
            let caller = iter::from_fn(|| line.pop_front()).find(Caller::is_there);
            match line.is_empty() {
                true => _ = lines.remove(&id),
                false => flows.push_back(id.clone()),
            }
            match (flows.is_empty(), &caller) {
                (true, _) => _ = networks.remove(&network),
                (false, Some(_)) => turns.push_back(network),
                (false, None) => turns.insert(turn, network),
            }
            if let Some(caller) = caller {
                return Some((id, caller.permit));
            }
        }
    }

    fn leave(&mut self, id: &[u8]) {
        let Some(taken) = self.places.get_mut(id) else { return };
        *taken -= 1;
        if *taken == 0 {
            self.places.remove(id);
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
        Flow::new(id.into(), Lane::Strangers)
    }

    fn known(id: &str) -> Flow {
        Flow { account: Some(id.into()), ..flow(id) }
    }

    fn trusted(id: &str) -> Flow {
        Flow::new(id.into(), Lane::TrustedClients)
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
    fn assert_empty(gate: &Gate, cores: usize) {
        let state = gate.lines.lock();
        assert_eq!((state.free_cores, state.places.len()), (cores, 0));
        let is_empty = |lane: &Waiting| lane.lines.is_empty() && lane.networks.is_empty() && lane.turns.is_empty();
        assert!(state.lanes.iter().all(is_empty));
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
    async fn lanes_take_turns_however_many_flows_wait_in_one() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.permit(flow("1")).await.unwrap();
        let mut waiting: Vec<_> = ["1", "2", "3", "4"].map(|id| (id, asked(&gate, flow(id)))).into();
        waiting.extend(["v", "w", "x", "y", "z"].map(|id| (id, asked(&gate, trusted(id)))));
        waiting.extend(["a", "b"].map(|id| (id, asked(&gate, known(id)))));
        assert_eq!(order(waiting, holder), "a v 1 b w 2 x 3 y 4 z");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn networks_take_turns_however_many_flows_wait_in_one_and_so_do_its_flows() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.permit(flow("1")).await.unwrap();
        let of = |id| Flow { network: "crowd".into(), ..flow(id) };
        let mut waiting: Vec<_> = ["1", "1", "2", "3", "4"].map(|id| (id, asked(&gate, of(id)))).into();
        waiting.extend(["a", "a", "b"].map(|id| (id, asked(&gate, flow(id)))));
        // One that has gone away costs its network no turn.
        drop(waiting.remove(2));
        assert_eq!(order(waiting, holder), "1 a b 3 a 4 1");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn of_an_account_one_flow_waits_among_the_known_browsers_and_the_others_among_strangers() {
        let gate = Arc::new(Gate::new(1, LONG));
        let holder = gate.permit(flow("1")).await.unwrap();
        let of_rita = |id| Flow { account: Some("rita".into()), ..flow(id) };
        let mut waiting: Vec<_> = ["1", "2", "3", "1"].map(|id| (id, asked(&gate, of_rita(id)))).into();
        waiting.extend(["a", "b"].map(|id| (id, asked(&gate, known(id)))));
        assert_eq!(order(waiting, holder), "1 2 a 3 b 1");
        // Nobody waits for the account any more.
        let holder = gate.permit(flow("1")).await.unwrap();
        drop(asked(&gate, of_rita("1")));
        let waiting = vec![("s", asked(&gate, flow("s"))), ("3", asked(&gate, of_rita("3")))];
        assert_eq!(order(waiting, holder), "3 s");
        assert_empty(&gate, 1);
    }

    #[tokio::test]
    async fn a_flow_has_two_permits_at_most_in_all_lanes_together() {
        let gate = Arc::new(Gate::new(4, LONG));
        let (one, two) = (gate.permit(flow("a")).await.unwrap(), gate.permit(known("a")).await.unwrap());
        let (mut third, mut fourth) = (asked(&gate, flow("a")), asked(&gate, known("a")));
        let _others = (gate.permit(flow("b")).await.unwrap(), gate.permit(known("c")).await.unwrap());
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        drop((one, two));
        assert!(third.await.is_some() && fourth.await.is_some());
    }

    #[tokio::test]
    async fn a_place_stays_taken_when_its_core_is_free() {
        let gate = Arc::new(Gate::new(2, LONG));
        let (one, two) = (gate.permit(flow("a")).await.unwrap(), gate.permit(flow("a")).await.unwrap());
        let (mut third, other) = (asked(&gate, flow("a")), asked(&gate, flow("b")));
        let place = one.free_core();
        assert!((&mut third).now_or_never().is_none());
        drop((other.await.unwrap(), two.free_core(), place));
        assert!(third.await.is_some());
        assert_empty(&gate, 2);
    }

    #[tokio::test]
    async fn a_flow_that_has_all_its_places_keeps_its_turn() {
        let gate = Arc::new(Gate::new(2, LONG));
        let (one, two) = (gate.permit(flow("a")).await.unwrap(), gate.permit(flow("a")).await.unwrap());
        let (mut third, other, mut last) = (asked(&gate, flow("a")), asked(&gate, flow("b")), asked(&gate, flow("c")));
        let place = one.free_core();
        let other = other.await.unwrap();
        drop(place);
        drop(other);
        assert!((&mut third).now_or_never().is_some_and(|permit| permit.is_some_and(|permit| {
            drop(permit);
            true
        })));
        assert!((&mut last).now_or_never().is_some());
        drop(two);
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
        until(|| gate.lines.lock().free_cores == 2).await;
        assert_empty(&gate, 2);
    }

    proptest! {
        /// In whatever order callers come, free their core, go away and leave, none is lost. No core is free while a
        /// caller waits who may have it.
        #[test]
        fn no_core_and_no_place_is_lost(cores in 1..5usize, steps in prop::collection::vec((0..4u8, 0..4u8, 0..4u8), 0..60)) {
            let gate = Arc::new(Gate::new(cores, LONG));
            let (mut held, mut places): (Vec<Permit>, Vec<Place>) = Default::default();
            let mut waiting: Vec<BoxFuture<'static, Option<Permit>>> = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            for (step, id, lane) in steps {
                let nr = usize::from(id);
                match step {
                    0 => {
                        let (account, lane) = match lane {
                            0 => (None, Lane::Strangers),
                            1 => (None, Lane::TrustedClients),
                            account => (Some(vec![account]), Lane::Strangers),
                        };
                        let (gate, flow) = (gate.clone(), Flow { id: vec![id], network: vec![id / 2], lane, account });
                        waiting.push(async move { gate.permit(flow).await }.boxed());
                    }
                    1 if !held.is_empty() && lane == 0 => places.push(held.remove(nr % held.len()).free_core()),
                    1 if !held.is_empty() => drop(held.remove(nr % held.len())),
                    2 if !waiting.is_empty() => drop(waiting.remove(nr % waiting.len())),
                    3 if !places.is_empty() => drop(places.remove(nr % places.len())),
                    _ => {}
                }
                waiting.retain_mut(|permit| match permit.now_or_never() {
                    Some(permit) => { held.push(permit.unwrap()); false }
                    None => true,
                });
                let state = gate.lines.lock();
                prop_assert_eq!(state.free_cores + held.len(), cores);
                prop_assert_eq!(state.places.values().sum::<usize>(), held.len() + places.len());
                let may_work = |(id, line): (&Vec<u8>, &VecDeque<Caller>)| {
                    state.places.get(id).is_none_or(|taken| *taken < PLACES_OF_A_FLOW) && line.iter().any(Caller::is_there)
                };
                prop_assert!(state.free_cores == 0 || !state.lanes.iter().flat_map(|lane| &lane.lines).any(may_work));
            }
            drop((held, places, waiting));
            // The last ones who went away leave when others come.
            prop_assert_eq!(gate.lines.lock().free_cores, cores);
        }
    }
}
