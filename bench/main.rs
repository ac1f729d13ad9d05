//! What the server can take, and how that compares with what PostgreSQL gives: `cargo bench`.
//!
//! Starts its own PostgreSQL (durable, its defaults but for `shared_buffers` and `max_connections`), fills it, runs
//! `interviews serve` with the shipped settings, and puts load on it with wrk, on the same machine. The same SQL
//! without the server is pgbench's, in the same run: the ratio of the two says more than either, whatever the machine.
//! Prints Markdown; nothing is judged but that every answer is right. `docs/performance.md` says what to read from it.

mod bare;
mod data;
mod latency;
mod load;
mod others;
mod queries;
mod server;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use chrono::TimeDelta;
use clap::Parser as _;
use interviews::{
    auth::jwt::{self, TokenType},
    clock::Clock,
    config::PoolLimits,
    db,
    dev::{
        google::{self, Simulator},
        postgres::{Cluster, Durability},
    },
};
use reqwest::Client;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    data::Scale,
    load::Endpoint,
    others::{Relay, Sink},
    server::{Cpu, PROGRAM, Server},
};

#[derive(clap::Parser)]
struct Arguments {
    /// How many interviews there are; people grow in proportion
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(i64).range(5_000..=50_000_000))]
    scale: i64,
    /// A few seconds for everything: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Only what has this in its name: an endpoint, start, reminders, scheduling
    #[arg(long)]
    only: Option<String>,
    /// Seconds of load for each line of the table, in three rounds
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(ROUNDS..))]
    seconds: u64,
    /// Only serve the database at this URL, with what the libraries alone do; for the bench itself
    #[arg(long, hide = true)]
    bare: Option<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn scale(&self) -> Scale {
        Scale { interviews: self.scale / data::OF_RECRUITER * data::OF_RECRUITER }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

const DATABASE: &str = "bench";
const SECRET_KEY: &str = "the bench's key, shared with nobody";
const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const CLIENTS: u32 = 32;
const ROUNDS: u64 = 3;
const CONNECTIONS: [u32; 2] = [32, 256];
/// A recruiter who schedules.
const RECRUITER: i64 = 1;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(url) = &arguments.bare {
        return runtime.block_on(bare::serve(url, arguments.scale()));
    }
    load::check_programs()?;
    let folder = Folder::new()?;
    runtime.block_on(async {
        let cluster = cluster(&folder.0.join("cluster")).await?;
        // Whoever is stopped leaves nothing running.
        let mut terminated = signal(SignalKind::terminate())?;
        let outcome = tokio::select! {
            outcome = run(&arguments, &folder.0, &cluster) => outcome,
            _ = terminated.recv() => Err(anyhow::anyhow!("stopped")),
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
        };
        // Before its files are removed.
        cluster.stop().await?;
        outcome
    })
}

/// Everything of a run; removed with this, and at the next run's start when this one is killed.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Folder> {
        let user = Command::new("id").arg("-un").output()?;
        let name = format!("interviews-bench-{}-", String::from_utf8(user.stdout)?.trim());
        // Where root's PostgreSQL, which runs as another user, can reach it, and where there is room.
        let parent = Path::new("/var/tmp");
        for folder in fs::read_dir(parent)?.flatten() {
            let is_ours = folder.file_name().to_string_lossy().starts_with(&name);
            // Of a killed run: a cluster that is used is locked.
            if is_ours && fs::File::open(folder.path().join("cluster/in-use")).is_ok_and(|it| it.try_lock().is_ok()) {
                fs::remove_dir_all(folder.path())?;
            }
        }
        let folder = parent.join(format!("{name}{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

async fn run(arguments: &Arguments, folder: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let scale = arguments.scale();
    let url = cluster.url(DATABASE);
    let limits = PoolLimits { connections: 4, acquire: Duration::from_secs(30), statement: Duration::from_secs(7200) };
    db::migrate(&db::connect(&url, limits).await?).await?;
    let db = PgPool::connect(&url).await?;
    say("filling the database");
    data::fill(&db, scale, ENCRYPTION_KEY).await?;
    let postmaster: u32 = {
        let file = fs::read_to_string(folder.join("cluster/data/postmaster.pid"))?;
        file.lines().next().context("no postmaster")?.trim().parse()?
    };
    describe(&db, scale).await?;

    let client = client()?;
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    let options = google::Options {
        clock: Clock::System,
        client_id: "client".into(),
        client_secret: "secret".into(),
        state_file: None,
        accounts: vec!["user1@mail.example".into()],
    };
    let (google, sink) = (Simulator::start(here, options).await?, Sink::start().await?);
    let log = folder.join("log");
    let direct = settings(&url, &google, latency::address(google.url())?, sink.address);

    let bench = Bench { arguments, scale, folder, url: &url, db: &db, postmaster, client: &client };
    let (server, _) = Server::start(&direct, &log)?;
    bench.endpoints(&server).await?;
    if arguments.wants("reminders") {
        bench.reminders(&sink).await?;
    }
    drop(server);
    if arguments.wants("start") {
        let times = if arguments.quick { 3 } else { 11 };
        println!("{TIMES}");
        row("From the start of `serve` to its first answer", &latency::starts(&direct, &log, times)?);
    }
    if arguments.wants("scheduling") {
        let relays = [Relay::start(latency::address(google.url())?).await?, Relay::start(sink.address).await?];
        let (server, _) = Server::start(&settings(&url, &google, relays[0].address, relays[1].address), &log)?;
        bench.scheduling(&server, &google, &relays).await?;
    }
    Ok(())
}

const TIMES: &str = "\n| | p50 | p99 |\n|---|---|---|";
const HEAD: &str = "| endpoint | connections | requests/s | p50 ms | p99 ms | p99/p50 | pgbench tps | ratio | \
                    CPU µs: server | PostgreSQL | wrk | pgbench with PostgreSQL | CPU ratio |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|---|";

struct Bench<'a> {
    arguments: &'a Arguments,
    scale: Scale,
    folder: &'a Path,
    url: &'a str,
    db: &'a PgPool,
    postmaster: u32,
    client: &'a Client,
}

impl Bench<'_> {
    /// The table of what the server does under load, and its memory.
    async fn endpoints(&self, server: &Server) -> anyhow::Result<()> {
        let endpoints = load::endpoints()?;
        let wanted: Vec<_> = endpoints.iter().filter(|endpoint| self.arguments.wants(endpoint.name)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        println!("{HEAD}");
        for endpoint in wanted {
            self.endpoint(endpoint, server).await?;
        }
        println!("\nMemory of the server at its peak (RSS): {:.1} MiB", server.peak_memory()? as f64 / 1048576.0);
        Ok(())
    }

    async fn reminders(&self, sink: &Sink) -> anyhow::Result<()> {
        let reminded = if self.arguments.quick { 200 } else { 10_000.min(self.scale.interviews / 3) };
        let left = latency::remind(self.db, sink, reminded).await?;
        println!(
            "\n{reminded} reminders fell due at once: {} mails were accepted within {:.1} s, the first of them {:.1} s before the last",
            left.mails,
            left.all.as_secs_f64(),
            left.leaving.as_secs_f64()
        );
        Ok(())
    }

    async fn scheduling(&self, server: &Server, google: &Simulator, relays: &[Relay; 2]) -> anyhow::Result<()> {
        println!("{TIMES}");
        row("One durable commit of one row, for comparison", &latency::commits(self.db, 200).await?);
        let token = token(RECRUITER);
        latency::connect(self.client, server, google, &token).await?;
        let parties: (i64, i64) = sqlx::query_as(
            "SELECT candidate_id, job_id FROM company_interview WHERE recruiter_id = $1 ORDER BY id LIMIT 1",
        )
        .bind(RECRUITER)
        .fetch_one(self.db)
        .await?;
        let times = if self.arguments.quick { 20 } else { 300 };
        for kind in ["phone", "google_meet"] {
            let took = latency::schedule(self.client, server, relays, &token, parties, kind, times).await?;
            row(&format!("Scheduling ({kind}), all of it"), &took.total);
            row(&format!("Scheduling ({kind}), waiting for Google and SMTP"), &took.others);
            row(&format!("Scheduling ({kind}), what we add"), &took.ours);
        }
        Ok(())
    }

    /// Its lines of the table. PostgreSQL alone and the servers take turns, so that a machine that becomes slower or
    /// faster does so for all of them.
    async fn endpoint(&self, endpoint: &Endpoint, server: &Server) -> anyhow::Result<()> {
        say(endpoint.name);
        self.check(endpoint, server).await?;
        let (rounds, seconds) = if self.arguments.quick { (1, 2) } else { (ROUNDS, self.arguments.seconds / ROUNDS) };
        let script = load::wrk_script(endpoint, self.scale, self.folder, token)?;
        let cpu = || Cpu::now(server.pid(), self.postmaster);
        let pgbench = || load::pgbench(endpoint, self.scale, self.folder, self.url, (CLIENTS, seconds), cpu);
        let mut lines = CONNECTIONS.map(|connections| Line::new(endpoint.name, server, connections)).to_vec();
        let bare = match endpoint.name == load::CHECK_CONNECTION {
            true => Some(Server::start_bare(self.scale, self.url, &self.folder.join("bare-log"))?),
            false => None,
        };
        lines.extend(bare.as_ref().map(|bare| Line::new("its statements by axum and sqlx alone", bare, CLIENTS)));

        // Until what the people who are online ask for has been read from the disk: it lies apart where there are many
        // others.
        let warm_up = 1 + self.scale.interviews as u64 / 500_000;
        for line in &lines {
            load::wrk(&script, line.server.port, line.connections, warm_up)?;
        }
        let (mut tps, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let transactions = pgbench()?;
            tps.push(transactions.per_second);
            cpu.push(transactions.cpu * 1e6);
            for line in &mut lines {
                line.measure(&script, self.postmaster, seconds)?;
            }
        }
        lines.iter().for_each(|line| line.print(mean(&tps), mean(&cpu)));
        Ok(())
    }

    /// That answers are what they should be, before they are only counted.
    async fn check(&self, endpoint: &Endpoint, server: &Server) -> anyhow::Result<()> {
        let calls: Vec<_> = endpoint.calls(self.scale).collect();
        for (user, path) in calls.iter().step_by(calls.len() / 20) {
            let answer = self.client.get(format!("http://127.0.0.1:{}{path}", server.port));
            let answer = answer.bearer_auth(token(*user)).send().await?;
            let (status, body) = (answer.status(), answer.text().await?);
            let (mark, times) = endpoint.marks;
            let found = body.matches(mark).count();
            ensure!(
                status == 200 && found == times,
                "{path} of user {user}: {status}, {found} times {mark}, not {times}"
            );
        }
        Ok(())
    }
}

/// What one server did with so many connections, all rounds together.
#[derive(Clone)]
struct Line<'a> {
    name: &'static str,
    server: &'a Server,
    connections: u32,
    requests: f64,
    seconds: f64,
    /// Processor time in seconds: the server's, PostgreSQL's, wrk's.
    cpu: [f64; 3],
    /// Of each round, in milliseconds.
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl<'a> Line<'a> {
    fn new(name: &'static str, server: &'a Server, connections: u32) -> Self {
        let (p50, p99) = (Vec::new(), Vec::new());
        Line { name, server, connections, requests: 0.0, seconds: 0.0, cpu: [0.0; 3], p50, p99 }
    }

    /// Another round.
    fn measure(&mut self, script: &Path, postmaster: u32, seconds: u64) -> anyhow::Result<()> {
        let before = Cpu::now(self.server.pid(), postmaster)?;
        let load = load::wrk(script, self.server.port, self.connections, seconds)?;
        let spent = Cpu::now(self.server.pid(), postmaster)?.since(before);
        ensure!(load.errors == 0, "{}: {} answers were wrong or missing", self.name, load.errors);
        self.requests += load.requests;
        self.seconds += load.seconds;
        for (sum, spent) in self.cpu.iter_mut().zip([spent.server, spent.postgres, spent.children]) {
            *sum += spent;
        }
        self.p50.push(load.p50.as_secs_f64() * 1e3);
        self.p99.push(load.p99.as_secs_f64() * 1e3);
        Ok(())
    }

    /// `tps` and `cpu`: PostgreSQL's transactions per second, and the processor time of one in µs, which is what is
    /// left of the ratio when others use the machine too.
    fn print(&self, tps: f64, cpu: f64) {
        let (p50, p99) = (mean(&self.p50), self.p99.iter().copied().fold(0.0, f64::max));
        let [server, postgres, wrk] = self.cpu.map(|seconds| seconds / self.requests * 1e6);
        let per_second = self.requests / self.seconds;
        println!(
            "| {} | {} | {per_second:.0} | {p50:.2} | {p99:.2} | {:.1} | {tps:.0} | {:.2} | {server:.0} | {postgres:.0} | \
             {wrk:.0} | {cpu:.0} | {:.2} |",
            self.name,
            self.connections,
            p99 / p50,
            per_second / tps,
            cpu / (server + postgres + wrk),
        );
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// PostgreSQL as it is installed, but for the one setting that its documentation asks to be set.
async fn cluster(dir: &Path) -> anyhow::Result<Cluster> {
    let start = async || Cluster::start(dir, Durability::Durable, Path::new(PROGRAM), say).await;
    let cluster = start().await?;
    cluster.create_database(DATABASE).await?;
    let db = PgPool::connect(&cluster.url(DATABASE)).await?;
    let quarter = format!("ALTER SYSTEM SET shared_buffers = '{} MB'", memory()? / 4 / 1024);
    sqlx::raw_sql(AssertSqlSafe(quarter)).execute(&db).await?;
    db.close().await;
    cluster.stop().await?;
    start().await
}

/// Of this machine, in KiB.
fn memory() -> anyhow::Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

async fn describe(db: &PgPool, scale: Scale) -> anyhow::Result<()> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let show = async |name: &'static str| -> anyhow::Result<String> {
        Ok(sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(db).await?)
    };
    let size: String =
        sqlx::query_scalar("SELECT pg_size_pretty(pg_database_size(current_database()))").fetch_one(db).await?;
    println!(
        "\nMachine: {} cores ({}), {} GiB, Linux {}; PostgreSQL {} with shared_buffers {}, fsync {}, synchronous_commit {}",
        std::thread::available_parallelism()?,
        model.trim_start_matches([' ', '\t', ':']),
        memory()? / 1024 / 1024,
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        show("server_version").await?,
        show("shared_buffers").await?,
        show("fsync").await?,
        show("synchronous_commit").await?,
    );
    println!(
        "Rows: {} interviews, {} candidates with {} each, {} recruiters with {} each; {size}\n",
        scale.interviews,
        scale.candidates(),
        data::OF_CANDIDATE,
        scale.recruiters(),
        data::OF_RECRUITER
    );
    Ok(())
}

/// What `serve` needs to be told; the rest is as shipped.
fn settings(
    url: &str,
    google: &Simulator,
    google_api: std::net::SocketAddr,
    smtp: std::net::SocketAddr,
) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("DATABASE_URL", url.to_owned()),
        ("SECRET_KEY", SECRET_KEY.to_owned()),
        ("TOKEN_ENCRYPTION_KEY", ENCRYPTION_KEY.to_owned()),
        ("GOOGLE_CLIENT_ID", "client".to_owned()),
        ("GOOGLE_CLIENT_SECRET", "secret".to_owned()),
        ("EMAIL_HOST", smtp.ip().to_string()),
        ("EMAIL_PORT", smtp.port().to_string()),
        ("EMAIL_USE_TLS", "false".to_owned()),
    ];
    let limits = ["CANDIDATE_MAILS_PER_HOUR", "CANDIDATE_MAILS_PER_DAY", "INVITATIONS_PER_DAY"];
    settings.extend(limits.map(|limit| (limit, "1000000".to_owned())));
    settings.extend(google::settings(google.url()));
    // In the place of the simulator's own.
    settings.push(("GOOGLE_CALENDAR_API_BASE", format!("http://{google_api}")));
    settings
}

fn token(user: i64) -> String {
    let now = Clock::System.now();
    jwt::issue(TokenType::Access, user, now, now + TimeDelta::days(1), SECRET_KEY.as_bytes())
}

#[allow(clippy::disallowed_methods, reason = "the bench is a client of the server, not a part of it")]
fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().redirect(reqwest::redirect::Policy::none()).build()?)
}

fn row(what: &str, times: &latency::Times) {
    let milliseconds = |percent| times.percentile(percent).as_secs_f64() * 1e3;
    println!("| {what} | {:.2} ms | {:.2} ms |", milliseconds(50), milliseconds(99));
}

fn say(sentence: &str) {
    eprintln!("{sentence}");
}
