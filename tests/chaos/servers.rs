//! The servers and their deaths, and the database's.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use interviews::{
    db,
    dev::postgres::{self, Durability},
};
use tokio::task::JoinHandle;

use crate::{
    figures::Figures,
    support::{
        database::{PROGRAM, TestDatabase, folder, limits},
        process::{Server, World, free_ports},
        until_async,
    },
};

/// A PostgreSQL of its own, with everything that makes commits durable.
pub struct Cluster {
    folder: PathBuf,
    /// One for each start.
    running: tokio::sync::Mutex<Vec<postgres::Cluster>>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let folder = folder(&format!("chaos-{}", std::process::id()));
        let cluster = Cluster { folder, running: Default::default() };
        cluster.run().await;
        cluster
    }

    async fn run(&self) {
        let running = postgres::Cluster::start(&self.folder, Durability::Durable, Path::new(PROGRAM), |_| ());
        let running = running.await.unwrap();
        self.running.lock().await.push(running);
    }

    pub async fn database(&self) -> TestDatabase {
        let name = "chaos".to_owned();
        let running = self.running.lock().await;
        running[0].create_database(&name).await.unwrap();
        let url = running[0].url(&name);
        let pool = db::connect(&url, limits(8)).await.unwrap();
        db::migrate(&pool).await.unwrap();
        TestDatabase { url, pool, name }
    }

    /// Immediate shutdown; after a while PostgreSQL starts again and recovers from its log.
    async fn crash_and_restart(&self, away: Duration) {
        let pid_file = self.folder.join("data/postmaster.pid");
        let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().to_owned();
        signal("QUIT", &pid);
        let process = PathBuf::from(format!("/proc/{pid}"));
        until_async(async || !process.exists()).await;
        tokio::time::sleep(away).await;
        self.run().await;
    }
}

fn signal(name: &str, pid: &str) {
    let command = format!("kill -{name} {pid}");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.get_mut().clear();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// What a server says that could not start, or not to the end, because PostgreSQL was away.
const WITHOUT_DATABASE: [&str; 5] = [
    "the connection to the database was lost",
    "cannot connect to the database",
    "error communicating with database",
    "read-only transaction",
    "terminating connection due to administrator command",
];

/// How long a load balancer still sends requests to a server that stands still.
const UNNOTICED: Duration = Duration::from_secs(1);

/// The names of all `crash_point!`s.
fn crash_points() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let source = fs::read_to_string(path).unwrap();
                    let names = source.split("crash_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
                    found.extend(names.map(str::to_owned));
                }
            }
        }
    }
    found.sort();
    found
}

/// How a server's life goes.
enum Fate {
    /// It kills itself at a place in the code, unless it does not come to it.
    CrashPoint(String),
    Killed {
        after: Duration,
    },
    /// It stands still for a while, as a machine under pressure does; everybody else takes it for dead.
    Paused {
        after: Duration,
        lasting: Duration,
    },
    /// It is asked to end, and finishes what it has begun.
    Ended {
        after: Duration,
    },
}

impl Fate {
    fn draw(places: &[String], random: &mut fastrand::Rng) -> Fate {
        let mut within = |from, to| Duration::from_millis(random.u64(from..to));
        match within(0, 100).as_millis() {
            0..36 => Fate::Killed { after: within(300, 12_000) },
            36..42 => Fate::Killed { after: within(60_000, 150_000) },
            42..47 => Fate::Paused { after: within(1_000, 8_000), lasting: within(15_000, 60_000) },
            47..52 => Fate::Ended { after: within(1_000, 8_000) },
            _ => {
                let place = &places[random.usize(..places.len())];
                // After it was passed a few times.
                let passed = random.u32(..6);
                let first = if passed > 0 { format!("{passed}*off->") } else { String::new() };
                Fate::CrashPoint(format!("{place}={first}return"))
            }
        }
    }
}

pub struct Servers {
    world: Arc<World>,
    database_url: String,
    ports: Vec<u16>,
    figures: Arc<Figures>,
    is_over: AtomicBool,
    /// How many are going on.
    outages: AtomicU32,
    /// The ports of the servers that stand still, and have done so for some time.
    paused: Mutex<HashSet<u16>>,
    wrong: Mutex<Vec<String>>,
}

/// The tasks that kill.
pub struct Killing {
    tasks: Vec<JoinHandle<Server>>,
    servers: Arc<Servers>,
}

impl Servers {
    pub fn new(world: Arc<World>, figures: Arc<Figures>, count: u16, database_url: String) -> Servers {
        let first = free_ports(count);
        Servers {
            world,
            database_url,
            ports: (first..first + count).collect(),
            figures,
            is_over: AtomicBool::new(false),
            outages: AtomicU32::new(0),
            paused: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Where a load balancer sends a request: it has noticed who stands still, not who has died a moment ago. Otherwise
    /// everybody would soon be waiting for the one that stands still.
    pub fn some_port(&self, random: &mut fastrand::Rng) -> u16 {
        let paused = self.paused.lock().unwrap();
        let moving: Vec<_> = self.ports.iter().filter(|port| !paused.contains(*port)).collect();
        *random.choice(moving).unwrap_or(&self.ports[0])
    }

    pub fn kills(&self) -> u64 {
        self.figures.sum("servers: killed")
    }

    pub fn has_database(&self) -> bool {
        self.outages.load(Ordering::Relaxed) == 0
    }

    /// Kills PostgreSQL; it comes back after a while.
    pub async fn take_database(&self, cluster: &Cluster, away: Duration) {
        self.without_database(async || cluster.crash_and_restart(away).await).await;
    }

    /// Does what keeps the servers from the database.
    pub async fn without_database(&self, outage: impl AsyncFnOnce()) {
        self.outages.fetch_add(1, Ordering::Relaxed);
        outage().await;
        // Until everybody has noticed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.outages.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    pub fn start_and_kill(self: &Arc<Self>, random: &mut fastrand::Rng) -> Killing {
        let mut tasks = Vec::new();
        for port in self.ports.clone() {
            tasks.push(tokio::spawn(self.clone().run(port, random.fork())));
        }
        Killing { tasks, servers: self.clone() }
    }

    fn start(&self, port: u16, crash_points: &str) -> Server {
        let public_url = format!("http://127.0.0.1:{}", self.ports[0]);
        let port = port.to_string();
        let settings = [
            ("DATABASE_URL", self.database_url.as_str()),
            ("PORT", port.as_str()),
            ("PUBLIC_URL", &public_url),
            ("FAILPOINTS", crash_points),
            ("LOG_FILTER", "warn"),
            // Its people do in minutes what others do in months.
            ("CANDIDATE_MAILS_PER_HOUR", "1000000"),
            ("CANDIDATE_MAILS_PER_DAY", "1000000"),
            ("INVITATIONS_PER_DAY", "1000000"),
        ];
        Server::start(self.world.command(&settings))
    }

    /// Starts and kills a server until it is over; gives the last one, which lives.
    async fn run(self: Arc<Self>, port: u16, mut random: fastrand::Rng) -> Server {
        let places = crash_points();
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return self.start(port, "");
            }
            let fate = Fate::draw(&places, &mut random);
            let mut server = match &fate {
                Fate::CrashPoint(place) => self.start(port, place),
                _ => self.start(port, ""),
            };
            match fate {
                Fate::CrashPoint(_) => {
                    self.wait(&mut server, Duration::from_secs(12)).await;
                }
                Fate::Killed { after } => {
                    self.wait(&mut server, after).await;
                    if self.is_over.load(Ordering::Relaxed) && !server.has_ended() {
                        return server;
                    }
                }
                Fate::Paused { after, lasting } => {
                    self.wait(&mut server, after).await;
                    if !server.has_ended() {
                        server.signal("STOP");
                        self.wait(&mut server, UNNOTICED).await;
                        self.paused.lock().unwrap().insert(port);
                        self.wait(&mut server, lasting).await;
                        server.signal("CONT");
                        self.paused.lock().unwrap().remove(&port);
                        self.figures.count("servers: paused for 15 to 60 s");
                        self.wait(&mut server, Duration::from_secs(20)).await;
                    }
                }
                Fate::Ended { after } => {
                    self.wait(&mut server, after).await;
                    if !server.has_ended() {
                        self.expect_to_end(&mut server).await;
                        continue;
                    }
                }
            }
            self.note_death(server);
            tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
        }
    }

    /// For so long, until the server has ended, or until all is over.
    async fn wait(&self, server: &mut Server, long: Duration) {
        let ends = tokio::time::Instant::now() + long;
        while !server.has_ended() && tokio::time::Instant::now() < ends && !self.is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the server unless it is dead already.
    fn note_death(&self, mut server: Server) {
        let died_itself = server.has_ended();
        let said = server.said();
        drop(server);
        match said.lines().find_map(|line| line.strip_prefix("killed at ")) {
            Some(place) => self.figures.count(format!("servers: killed at \"{place}\"")),
            None if died_itself && WITHOUT_DATABASE.iter().any(|words| said.contains(words)) => {
                self.figures.count("servers: could not start without PostgreSQL");
            }
            None if died_itself => self.wrong.lock().unwrap().push(format!("a server ended by itself: {said}")),
            None => self.figures.count("servers: killed at a random moment"),
        }
        self.look_for_panics(&said);
    }

    fn look_for_panics(&self, said: &str) {
        let panics = said.lines().filter(|line| line.contains("panicked"));
        self.wrong.lock().unwrap().extend(panics.map(str::to_owned));
    }

    /// Asks the server to end, which it does when nothing runs in it any more.
    pub async fn expect_to_end(&self, server: &mut Server) {
        server.signal("TERM");
        let patience = tokio::time::Instant::now() + Duration::from_secs(40);
        while !server.has_ended() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let said = server.said();
        match server.exit_status() {
            None => self.wrong.lock().unwrap().push(format!("a server does not end when it is asked to: {said}")),
            Some(status) if status.success() => self.figures.count("servers: asked to end, and ended"),
            // It had not come so far as to listen to it.
            Some(_) => self.figures.count("servers: asked to end while they started"),
        }
        self.look_for_panics(&said);
    }
}

impl Killing {
    /// Ends it: the servers that run now are left alone.
    pub async fn end(self) -> Vec<Server> {
        self.servers.is_over.store(true, Ordering::Relaxed);
        let mut last = Vec::new();
        for (task, port) in self.tasks.into_iter().zip(&self.servers.ports) {
            let server = task.await.unwrap();
            server.until_ready(*port).await;
            last.push(server);
        }
        last
    }
}
