//! The server as a child process, and what the system knows of processes.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::data::Scale;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_interviews");

/// `interviews serve`, or what is compared with it; killed with this.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts it with these settings and the shipped defaults for the rest. Also gives the time to its first answer.
    pub fn start(settings: &[(&str, String)], log: &Path) -> anyhow::Result<(Server, Duration)> {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").env_clear().envs(settings.iter().map(|(name, value)| (*name, value)));
        Server::spawn(command, log)
    }

    /// Starts [`bare`](super::bare) in its stead.
    pub fn start_bare(scale: Scale, url: &str, log: &Path) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--bare", url, "--scale", &scale.interviews.to_string()]);
        Ok(Server::spawn(command, log)?.0)
    }

    fn spawn(mut command: Command, log: &Path) -> anyhow::Result<(Server, Duration)> {
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let started = Instant::now();
        let child = command
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .spawn()
            .context("the server cannot be started")?;
        let mut server = Server { child, port };
        while !answers(port) {
            let ended = server.child.try_wait()?.is_some();
            ensure!(!ended, "the server does not start: {}", fs::read_to_string(log).unwrap_or_default());
            ensure!(started.elapsed() < Duration::from_secs(60), "the server does not answer for a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((server, started.elapsed()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever had, in bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn answers(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut socket) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    _ = socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    _ = socket.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.1 200")
}

/// Processor time so far.
#[derive(Clone, Copy)]
pub struct Cpu {
    pub server: f64,
    /// All processes of the cluster.
    pub postgres: f64,
    /// Our children that have ended.
    pub children: f64,
}

impl Cpu {
    pub fn now(server: u32, postmaster: u32) -> anyhow::Result<Cpu> {
        let (mut postgres, mut ended) = (0.0, f64::NAN);
        // Again when one of its processes ended meanwhile, which would be counted twice or not at all.
        while ended != Usage::of(postmaster)?.ended_children {
            ended = Usage::of(postmaster)?.ended_children;
            postgres = ended;
            for process in fs::read_dir("/proc")?.flatten() {
                if let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok())
                    && let Ok(times) = Usage::of(pid)
                    && (times.parent == postmaster || pid == postmaster)
                {
                    postgres += times.own;
                }
            }
        }
        let ourselves = Usage::of(std::process::id())?;
        Ok(Cpu { server: Usage::of(server)?.own, postgres, children: ourselves.ended_children })
    }

    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            server: self.server - before.server,
            postgres: self.postgres - before.postgres,
            children: self.children - before.children,
        }
    }
}

/// Of one process, in seconds.
struct Usage {
    parent: u32,
    own: f64,
    ended_children: f64,
}

impl Usage {
    fn of(pid: u32) -> anyhow::Result<Usage> {
        /// `USER_HZ`, which is 100 on every architecture that we run on.
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field may hold anything, spaces and parentheses too.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        Ok(Usage {
            parent: number(1) as u32,
            own: (number(11) + number(12)) / TICKS,
            ended_children: (number(13) + number(14)) / TICKS,
        })
    }
}
