//! Endpoints under load: wrk on the server, and pgbench on the SQL of the same endpoint.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use interviews::http::array::ROWS;

use super::{
    data::Scale,
    queries::{self, for_pgbench},
    server::Cpu,
};

/// What is called, and the statements that a call sends.
pub struct Endpoint {
    pub name: &'static str,
    recruiters: bool,
    /// Of the URL, with `{id}` for one of the caller's interviews.
    path: &'static str,
    /// What every answer holds so often.
    pub marks: (&'static str, usize),
    sql: Vec<String>,
}

/// How many of his interviews a caller asks for.
const ASKED_FOR: i64 = 5;

pub const CHECK_CONNECTION: &str = "check-connection";

pub fn endpoints() -> anyhow::Result<Vec<Endpoint>> {
    let caller = for_pgbench(&queries::caller()?, &["user"])?;
    let grant = for_pgbench(&queries::grant()?, &["user"])?;
    let list = queries::cached(&["i.candidate_id = $1 AND $2 AND (i.date, i.time, i.id) < ($4, $5, $6)"], 7)?;
    let list = for_pgbench(&list, &["user", "yes", "yes", "last_day", "last_time", "last_id", "most"])?;
    let interview = queries::cached(&["p.interview_id = i.id) AS \"attendance", "WHERE i.id = $1"], 1)?;
    let interview = for_pgbench(&interview, &["id"])?;
    let endpoint = |name, recruiters, path, marks, sql: &String| Endpoint {
        name,
        recruiters,
        path,
        marks,
        sql: vec![caller.clone(), sql.clone()],
    };
    let (row, list_path) = ("\"candidate_name\":", "/api/company/interviews/");
    Ok(vec![
        endpoint(CHECK_CONNECTION, true, "/api/company/google/check-connection/", ("\"connected\":true", 1), &grant),
        endpoint("candidate's list (25)", false, list_path, (row, super::data::OF_CANDIDATE as usize), &list),
        endpoint("detail", false, "/api/company/interviews/{id}/", (row, 1), &interview),
        endpoint("join", false, "/api/company/interviews/{id}/join/", (row, 1), &interview),
        endpoint("recruiter's list (250)", true, list_path, (row, super::data::OF_RECRUITER as usize), &list),
    ])
}

impl Endpoint {
    /// Each caller with the paths that he asks for.
    pub fn calls(&self, scale: Scale) -> impl Iterator<Item = (i64, String)> + '_ {
        let asked_for = if self.path.contains("{id}") { ASKED_FOR } else { 1 };
        scale.online(self.recruiters).ids().flat_map(move |user| {
            (0..asked_for).map(move |nth| {
                let id = if asked_for > 1 { scale.interview_of(user, nth) } else { 0 };
                (user, self.path.replace("{id}", &id.to_string()))
            })
        })
    }

    fn pgbench_script(&self, scale: Scale) -> String {
        let online = scale.online(self.recruiters);
        let id = scale.interview_expression(&format!("random(0, {})", ASKED_FOR - 1));
        format!(
            "\\set user {} + random(0, {}) * {}\n\\set id {}\n{}\n",
            online.first,
            online.count - 1,
            online.step,
            if self.recruiters { "0" } else { &id },
            self.sql.join("\n")
        )
    }
}

/// What wrk counted.
pub struct Load {
    pub requests: f64,
    pub seconds: f64,
    /// Answers that were not 2xx, and those that did not come.
    pub errors: u64,
    pub p50: Duration,
    pub p99: Duration,
}

/// The requests of an endpoint, written for wrk.
pub fn wrk_script(
    endpoint: &Endpoint,
    scale: Scale,
    dir: &Path,
    token: impl Fn(i64) -> String,
) -> anyhow::Result<PathBuf> {
    let mut last = (0, String::new());
    let mut lines = String::new();
    for (user, path) in endpoint.calls(scale) {
        if last.0 != user {
            last = (user, token(user));
        }
        lines += &format!("{} {path}\n", last.1);
    }
    let (calls, script) = (dir.join("calls"), dir.join("calls.lua"));
    fs::write(&calls, lines)?;
    fs::write(&script, WRK.replace("CALLS", &calls.display().to_string()))?;
    Ok(script)
}

/// Every thread draws from all calls; at the end the numbers are one line.
const WRK: &str = r#"
local threads = 0
function setup(thread)
    threads = threads + 1
    thread:set("seed", threads)
end
function init()
    math.randomseed(seed)
    calls = {}
    for line in io.lines("CALLS") do
        local token, path = line:match("(%S+) (%S+)")
        calls[#calls + 1] = wrk.format("GET", path, {Authorization = "Bearer " .. token, Accept = "application/json"})
    end
end
function request()
    return calls[math.random(#calls)]
end
function done(summary, latency)
    local e = summary.errors
    print(string.format("COUNTED %d %d %d %d %d", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#;

pub fn wrk(script: &Path, port: u16, connections: u32, seconds: u64) -> anyhow::Result<Load> {
    let said = run(
        Command::new("wrk")
            .args(["--threads", "2", "--timeout", "10s", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(script)
            .arg(format!("http://127.0.0.1:{port}")),
        "wrk",
    )?;
    let line = said.lines().find_map(|line| line.strip_prefix("COUNTED ")).context("wrk counted nothing")?;
    let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let [requests, duration, errors, p50, p99] = numbers[..] else { anyhow::bail!("wrk said {line}") };
    Ok(Load {
        requests: requests as f64,
        seconds: duration as f64 / 1e6,
        errors,
        p50: Duration::from_micros(p50),
        p99: Duration::from_micros(p99),
    })
}

/// What pgbench counted.
pub struct Transactions {
    pub per_second: f64,
    /// Processor time of one in seconds, pgbench's own included.
    pub cpu: f64,
}

/// Transactions, one for each call of the endpoint, with so many clients. Their first seconds do not count: a new
/// connection reads the catalogue and plans a statement five times before it keeps a plan; the server's have done so.
/// Nor does the last.
pub fn pgbench(
    endpoint: &Endpoint,
    scale: Scale,
    dir: &Path,
    url: &str,
    (clients, seconds): (u32, u64),
    cpu: impl Fn() -> anyhow::Result<Cpu>,
) -> anyhow::Result<Transactions> {
    const FIRST: u64 = 2;
    const LAST: u64 = 1;
    let script = dir.join("pgbench.sql");
    fs::write(&script, endpoint.pgbench_script(scale))?;
    // A piece of the list, and one row more.
    let most = format!("most={}", ROWS + 1);
    let variables =
        ["yes=true", "last_day=9999-12-31", "last_time=23:59:59.999999", "last_id=9223372036854775807", &most];
    let mut command = Command::new("pgbench");
    command
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--progress=1", &format!("--client={clients}")])
        .args(variables.map(|variable| format!("--define={variable}")))
        .arg(format!("--time={}", FIRST + seconds + LAST))
        .arg("--file")
        .arg(&script)
        .arg(url)
        // As the server's own connections have it.
        .env("PGOPTIONS", "-c jit=off");
    let start = cpu()?;
    let running = std::thread::spawn(move || run(&mut command, "pgbench"));
    std::thread::sleep(Duration::from_secs(FIRST));
    let before = cpu();
    std::thread::sleep(Duration::from_secs(seconds));
    let after = cpu();
    let said = running.join().map_err(|_| anyhow::anyhow!("pgbench panicked"))??;
    let postgres = after?.since(before?).postgres;
    // Its own is known at its end alone.
    let own = cpu()?.since(start).children * seconds as f64 / (FIRST + seconds + LAST) as f64;
    let counted: Vec<f64> = by_second(&said).skip(FIRST as usize).take(seconds as usize).collect();
    ensure!(!counted.is_empty(), "pgbench counted nothing: {said}");
    let per_second = counted.iter().sum::<f64>() / counted.len() as f64;
    Ok(Transactions { per_second, cpu: (postgres + own) / (per_second * seconds as f64) })
}

/// The transactions of each second.
fn by_second(said: &str) -> impl Iterator<Item = f64> {
    // progress: 3.0 s, 31234.2 tps, lat 1.024 ms stddev 0.3, 0 failed
    said.lines().filter_map(|line| line.strip_prefix("progress: ")?.split(' ').nth(2)?.parse().ok())
}

/// Says what to install where a program is missing.
pub fn check_programs() -> anyhow::Result<()> {
    for (program, package) in [("wrk", "wrk"), ("pgbench", "postgresql")] {
        let found = Command::new(program).arg("--version").output();
        ensure!(found.is_ok(), "{program} is missing: apt install {package}");
    }
    Ok(())
}

/// What it said, on both outputs.
fn run(command: &mut Command, name: &str) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{name} cannot be started"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name} failed: {said}");
    Ok(said)
}
