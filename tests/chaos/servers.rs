//! The servers and their deaths, and the database's.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use interviews::{
    db,
    dev::postgres::{self, Durability},
};
use tokio::task::JoinHandle;

use crate::support::{
    database::{PROGRAM, TestDatabase, folder, limits},
    process::{Server, World, free_ports},
    until_async,
};

/// The places where the program can be killed (`crash_point!`).
const CRASH_POINTS: [&str; 19] = [
    "booking: intent recorded",
    "booking: event inserted",
    "booking: event made",
    "booking: about to commit",
    "booking: committed",
    "change: claimed",
    "change: event placed",
    "change: about to commit",
    "change: committed",
    "cancellation: about to commit",
    "cancellation: committed",
    "undoing: event deleted",
    "mail: leased",
    "mail: accepted",
    "reminders: about to commit",
    "connecting: grant given",
    "refreshing: token given",
    "disconnecting: grant removed",
    "aligning: taken",
];

/// A PostgreSQL of its own, with everything that makes commits durable.
pub struct Cluster {
    folder: PathBuf,
    /// One for each start.
    running: Mutex<Vec<postgres::Cluster>>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let folder = folder(&format!("chaos-{}", std::process::id()));
        let cluster = Cluster { folder, running: Mutex::default() };
        cluster.run().await;
        cluster
    }

    async fn run(&self) {
        let running = postgres::Cluster::start(&self.folder, Durability::Durable, Path::new(PROGRAM), |_| ());
        let running = running.await.unwrap();
        self.running.lock().unwrap().push(running);
    }

    pub async fn database(&self) -> TestDatabase {
        let name = format!("chaos_{}", std::process::id());
        let url = self.running.lock().unwrap()[0].url(&name);
        let maintenance = self.running.lock().unwrap()[0].url("postgres");
        let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(&maintenance).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await.unwrap();
        let pool = db::connect(&url, limits(8)).await.unwrap();
        db::migrate(&pool).await.unwrap();
        TestDatabase { url, pool, name }
    }

    /// As if the server's machine had lost its power, but for what its disk had not written yet.
    pub async fn crash_and_restart(&self) {
        let pid_file = self.folder.join("data/postmaster.pid");
        let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().to_owned();
        let quit = format!("kill -QUIT {pid}");
        assert!(std::process::Command::new("sh").args(["-c", &quit]).status().unwrap().success());
        let process = PathBuf::from(format!("/proc/{pid}"));
        until_async(async || !process.exists()).await;
        self.run().await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.lock().unwrap().clear();
        fs::remove_dir_all(&self.folder).ok();
    }
}

pub struct Servers {
    world: Arc<World>,
    ports: Vec<u16>,
    deaths: Mutex<BTreeMap<String, u64>>,
    is_over: AtomicBool,
    starts: AtomicU64,
    panics: Mutex<Vec<String>>,
}

/// The tasks that kill.
pub struct Killing {
    tasks: Vec<JoinHandle<Server>>,
    servers: Arc<Servers>,
}

impl Servers {
    pub fn new(world: Arc<World>, count: u16) -> Servers {
        let first = free_ports(count);
        Servers {
            world,
            ports: (first..first + count).collect(),
            deaths: Mutex::default(),
            is_over: AtomicBool::new(false),
            starts: AtomicU64::new(0),
            panics: Mutex::default(),
        }
    }

    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub fn start_and_kill(self: &Arc<Self>, random: &mut fastrand::Rng) -> Killing {
        let run = |port: &u16| tokio::spawn(self.clone().run(*port, random.fork()));
        let tasks = self.ports.iter().map(run).collect();
        Killing { tasks, servers: self.clone() }
    }

    fn start(&self, port: u16, crash_points: &str) -> Server {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let public_url = format!("http://127.0.0.1:{}", self.ports[0]);
        let port = port.to_string();
        let settings = [
            ("PORT", port.as_str()),
            ("PUBLIC_URL", &public_url),
            ("FAILPOINTS", crash_points),
            ("LOG_FILTER", "warn"),
        ];
        Server::start(self.world.command(&settings))
    }

    /// Starts and kills a server until it is over; gives the last one, which lives.
    async fn run(self: Arc<Self>, port: u16, mut random: fastrand::Rng) -> Server {
        while !self.is_over.load(Ordering::Relaxed) {
            // Half of them die at a place in the code, after it was passed a few times, if they come to it.
            let place = random.bool().then(|| CRASH_POINTS[random.usize(..CRASH_POINTS.len())]);
            let passed = random.u32(..6);
            let points = place.map(|place| match passed {
                0 => format!("{place}=return"),
                passed => format!("{place}={passed}*off->return"),
            });
            let life = Duration::from_millis(match place {
                Some(_) => 12_000,
                None => random.u64(300..12_000),
            });
            let mut server = self.start(port, points.as_deref().unwrap_or_default());
            let ends = tokio::time::Instant::now() + life;
            while !server.has_ended() && tokio::time::Instant::now() < ends && !self.is_over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let died_itself = server.has_ended();
            let said = server.said();
            drop(server);
            let how = match said.lines().find_map(|line| line.strip_prefix("killed at ")) {
                Some(place) => format!("killed at \"{place}\""),
                None if died_itself => {
                    let why = said.lines().last().unwrap_or_default();
                    format!("ended itself: {}", why.chars().take(120).collect::<String>())
                }
                None => "killed at a random moment".to_owned(),
            };
            *self.deaths.lock().unwrap().entry(how).or_default() += 1;
            self.panics
                .lock()
                .unwrap()
                .extend(said.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
            tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
        }
        self.start(port, "")
    }

    pub fn kills(&self) -> u64 {
        let deaths = self.deaths.lock().unwrap();
        deaths.iter().filter(|(how, _)| how.starts_with("killed")).map(|(_, count)| count).sum()
    }

    pub fn panics(&self) -> Vec<String> {
        self.panics.lock().unwrap().clone()
    }

    pub fn figures(&self) -> Vec<(String, u64)> {
        let deaths = self.deaths.lock().unwrap();
        let starts = self.starts.load(Ordering::Relaxed);
        let mut figures = vec![("servers started".to_owned(), starts)];
        drop(deaths);
        figures.push(("servers killed by kill -9 or abort".to_owned(), self.kills()));
        figures.extend(self.deaths.lock().unwrap().iter().map(|(how, count)| (format!("— {how}"), *count)));
        figures
    }
}

impl Killing {
    /// Ends it: the servers that run now are left alone.
    pub async fn end(self) -> Vec<Server> {
        self.servers.is_over.store(true, Ordering::Relaxed);
        let mut calm = Vec::new();
        for (task, port) in self.tasks.into_iter().zip(&self.servers.ports) {
            let server = task.await.unwrap();
            server.until_ready(*port).await;
            calm.push(server);
        }
        calm
    }
}
