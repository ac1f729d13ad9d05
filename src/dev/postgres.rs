//! A private PostgreSQL for development and tests: a cluster in a folder, reached by a unix socket alone.
//!
//! Hides where the server's programs are, that they refuse to run as root, what a killed process leaves behind, and
//! who stops the server. Promises: any number of processes and threads may use the cluster of one folder at once, the
//! first starts it, and when the last is gone, however it went, it is stopped.
//!
//! Three locked files in the folder do this. A process that uses the cluster holds a shared lock on `in-use`. Starting
//! it happens under an exclusive lock on `starting`. A process of our own, the guard, waits for an exclusive lock on
//! `in-use`, which it gets when the last user is gone, and stops the server while it holds it; so a new user waits for
//! the stop. The guard was born with an exclusive lock on `guard`: while that is taken, there is one.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// The hidden subcommand under which the program is the guard: `interviews postgres-guard DIR` calls [`guard`].
pub const GUARD_COMMAND: &str = "postgres-guard";

/// The server's name for its port, which is only a part of the socket's file name here.
const SOCKET_FILE: &str = ".s.PGSQL.5432";

/// What a crash of the machine may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Durable,
    /// Everything: for tests. A cluster that does not start any more is made again.
    Fast,
}

/// A running cluster, at least as long as this lives.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    sockets: PathBuf,
    /// Locked, shared.
    in_use: File,
}

impl Cluster {
    /// Makes the cluster in the folder `dir`, starts it, and returns when it answers; joins those who use it already.
    ///
    /// `guard_exe` is this program (see [`GUARD_COMMAND`]). `progress` hears what takes long, one sentence at a time.
    /// Errors are single sentences that say what to do.
    pub async fn start(
        dir: &Path,
        durability: Durability,
        guard_exe: &Path,
        progress: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        let (dir, guard_exe) = (std::path::absolute(dir)?, std::path::absolute(guard_exe)?);
        let (sender, mut sentences) = tokio::sync::mpsc::unbounded_channel();
        let work = tokio::task::spawn_blocking(move || {
            start(&dir, durability, &guard_exe, &|sentence| drop(sender.send(sentence)))
        });
        while let Some(sentence) = sentences.recv().await {
            progress(&sentence);
        }
        work.await?
    }

    /// How to reach the database of this name: a URL for sqlx and for psql, which need no password.
    pub fn url(&self, database: &str) -> String {
        let socket = form_urlencoded::byte_serialize(self.sockets.as_os_str().as_bytes()).collect::<String>();
        format!("postgres:///{database}?host={}&port=5432&user=postgres", socket.replace('+', "%20"))
    }

    /// The folder of the server's socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Makes the database of this name (of letters, digits and `_`) unless there is one.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<()> {
        let mut conn = PgConnection::connect(&self.url("postgres")).await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut conn)
            .await?;
        if !exists {
            conn.execute(sqlx::raw_sql(AssertSqlSafe(format!(r#"CREATE DATABASE "{name}""#)))).await?;
        }
        Ok(conn.close().await?)
    }

    /// Lets go of the cluster, and returns when it has stopped or when others use it. Dropping lets go too, but does
    /// not wait.
    pub async fn stop(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || {
            // Not by closing: a program being started by another thread may have a copy of the file for a moment.
            self.in_use.unlock()?;
            let in_use = open(&self.dir.join("in-use"))?;
            match in_use.try_lock() {
                Ok(()) => stop_server(&self.dir),
                // Others use it, and this returns at once; or the guard is stopping it, and this waits for the guard.
                Err(_) => Ok(in_use.lock_shared()?),
            }
        })
        .await?
    }
}

/// Waits until nobody uses the cluster in `dir`, then stops it. Standard input is the locked file `guard`.
pub fn guard(dir: &Path) -> anyhow::Result<()> {
    use std::os::fd::AsFd as _;
    let in_use = open(&dir.join("in-use"))?;
    in_use.lock()?;
    let outcome = stop_server(dir);
    // In this order: who gets `in-use` next must not take us for the guard of what it starts.
    File::from(io::stdin().as_fd().try_clone_to_owned()?).unlock()?;
    in_use.unlock()?;
    outcome
}

/// Where the durable cluster belongs: `data_home` is `XDG_DATA_HOME`, `home` is `HOME`. Root's is where the user that
/// the server runs as can reach it.
pub fn default_data_dir(data_home: Option<&Path>, home: Option<&Path>) -> anyhow::Result<PathBuf> {
    const NAME: &str = "umemployed-interviews";
    if Account::find()?.drops_root {
        let system = ["/var/lib", "/var/tmp"].map(|parent| Path::new(parent).join(NAME));
        let writable = system.iter().find(|dir| fs::create_dir_all(dir).is_ok());
        return writable
            .cloned()
            .context("neither /var/lib nor /var/tmp can be written: set DATABASE_URL to a PostgreSQL server");
    }
    let in_home = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    data_home
        .filter(|path| path.is_absolute())
        .map(Path::to_owned)
        .or_else(|| Some(home?.join(in_home)))
        .map(|parent| parent.join(NAME))
        .context("there is no home folder to keep the database in: set HOME, or DATABASE_URL to a PostgreSQL server")
}

type Progress<'a> = &'a dyn Fn(String);

fn start(dir: &Path, durability: Durability, guard_exe: &Path, progress: Progress) -> anyhow::Result<Cluster> {
    let unwritable = || {
        format!(
            "the folder {} cannot be written: make it writable, or set DATABASE_URL to a PostgreSQL server",
            dir.display()
        )
    };
    let account = Account::find()?;
    fs::create_dir_all(dir).with_context(unwritable)?;
    if account.drops_root {
        // Whatever root's umask: the server's user must get through.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
    }
    let starting = open(&dir.join("starting")).with_context(unwritable)?;
    if starting.try_lock().is_err() {
        progress("Waiting for another process that is starting PostgreSQL".to_owned());
        starting.lock()?;
    }
    let in_use = open(&dir.join("in-use")).with_context(unwritable)?;
    // Waits for a guard that is stopping the server.
    in_use.lock_shared()?;

    let sockets = socket_folder(dir, &account)?;
    let cluster = Cluster { dir: dir.to_owned(), sockets, in_use };
    ensure_guard(dir, guard_exe)?;
    let outcome = run(&cluster, &account, durability, progress);
    if outcome.is_err() && durability == Durability::Fast && !is_answering(&cluster.sockets) {
        fs::remove_dir_all(dir.join("data")).ok();
        run(&cluster, &account, durability, progress)?;
    } else {
        outcome?;
    }
    Ok(cluster)
}

/// Has a guard running, before there is anything to guard: nothing that happens to us then leaves a server behind.
fn ensure_guard(dir: &Path, guard_exe: &Path) -> anyhow::Result<()> {
    let lock = open(&dir.join("guard"))?;
    match lock.try_lock() {
        Ok(()) => {
            let guard = Command::new(guard_exe)
                .arg(GUARD_COMMAND)
                .arg(dir)
                // The lock goes with the open file, and lasts as long as the guard.
                .stdin(lock)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // Ctrl-C in the terminal is not for the guard.
                .process_group(0)
                .current_dir("/")
                .spawn()
                .with_context(|| format!("{} cannot be started", guard_exe.display()))?;
            reap(guard);
        }
        Err(TryLockError::WouldBlock) => (),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(())
}

/// Has the server running: makes the cluster if there is none, and starts the server if it does not answer.
fn run(cluster: &Cluster, account: &Account, durability: Durability, progress: Progress) -> anyhow::Result<()> {
    if is_ready(cluster) {
        return Ok(());
    }
    let data = cluster.dir.join("data");
    let log = cluster.dir.join("log");
    let server = Server::find(major_version(&data), &data)?;
    if !data.exists() {
        progress(format!("Creating a PostgreSQL {} cluster in {}", server.major, cluster.dir.display()));
        server.init(&data, account, durability)?;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut child: Option<Child> = None;
    while !is_ready(cluster) {
        match child.as_mut().map(Child::try_wait).transpose()? {
            Some(None) => (),
            Some(Some(_)) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                // The last processes of a killed server take a moment to notice.
                let passing = said.contains("is still in use") || said.contains("already exists");
                ensure!(passing && Instant::now() < deadline, "PostgreSQL does not start: {}", fault(&said));
                child = None;
                thread::sleep(Duration::from_millis(200));
            }
            None if !is_answering(&cluster.sockets) => {
                progress(format!("Starting PostgreSQL {}", server.major));
                for file in [pid_file(&data), cluster.sockets.join(format!("{SOCKET_FILE}.lock"))] {
                    remove_if_stale(&file);
                }
                fs::write(data.join("postgresql.conf"), configuration(&cluster.sockets, durability))?;
                let log = File::create(&log)?;
                let spawned = account
                    .command(&server.bin.join("postgres"))
                    .arg("-D")
                    .arg(&data)
                    .stdout(log.try_clone()?)
                    .stderr(log)
                    .process_group(0)
                    .spawn();
                child = Some(spawned.context("PostgreSQL cannot be started")?);
            }
            // One that somebody else left is starting or stopping.
            None => (),
        }
        ensure!(
            Instant::now() < deadline,
            "PostgreSQL does not answer for a minute: see {}, and remove {} to begin with an empty database",
            log.display(),
            cluster.dir.display()
        );
        thread::sleep(Duration::from_millis(10));
    }
    if let Some(server) = child {
        reap(server);
    }
    Ok(())
}

/// Stops the server of the cluster in `dir`, if it runs. Clients are cut off, what they committed stays.
fn stop_server(dir: &Path) -> anyhow::Result<()> {
    let data = dir.join("data");
    if !pid_file(&data).exists() {
        return Ok(());
    }
    let server = Server::find(major_version(&data), &data)?;
    let account = Account::find()?;
    for mode in ["fast", "immediate"] {
        let stopped = account
            .command(&server.bin.join("pg_ctl"))
            .args(["stop", "--silent", "--wait", "--timeout=30", "--mode", mode, "-D"])
            .arg(&data)
            .output()?;
        if stopped.status.success() || !pid_file(&data).exists() {
            return Ok(());
        }
    }
    bail!("PostgreSQL in {} does not stop", dir.display())
}

/// An installed server.
struct Server {
    bin: PathBuf,
    major: u32,
}

impl Server {
    /// The one on the PATH, else the newest in the folders where packages put it; if `data` was made by some version,
    /// one of that version.
    fn find(wanted: Option<u32>, data: &Path) -> anyhow::Result<Self> {
        // The shell looks at PATH.
        let on_path = Command::new("/bin/sh").args(["-c", "command -v pg_ctl"]).output().ok().and_then(|found| {
            let path = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim_end());
            fs::canonicalize(path).ok()?.parent().map(Path::to_owned)
        });
        let mut installed = Vec::new();
        for (folder, prefix, bin) in [
            ("/usr/lib/postgresql", "", "bin"),         // Debian
            ("/usr", "pgsql-", "bin"),                  // PostgreSQL's RPMs
            ("/opt/homebrew/opt", "postgresql", "bin"), // Homebrew
            ("/usr/local/opt", "postgresql", "bin"),    // Homebrew on Intel
            ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    installed.extend(Server::at(entry.path().join(bin)));
                }
            }
        }
        installed.sort_by_key(|server| std::cmp::Reverse(server.major));
        Server::choose(on_path.and_then(Server::at).into_iter().chain(installed), wanted, data)
    }

    fn choose(found: impl Iterator<Item = Server>, wanted: Option<u32>, data: &Path) -> anyhow::Result<Self> {
        let mut candidates = found.peekable();
        let Some(first) = candidates.peek() else {
            bail!(
                "no PostgreSQL server is installed: install one (Debian, Ubuntu: apt-get install postgresql; \
                 macOS: brew install postgresql), or set DATABASE_URL to a PostgreSQL server"
            )
        };
        let first = first.major;
        candidates.find(|server| wanted.is_none_or(|major| server.major == major)).with_context(|| {
            format!(
                "{} was made by PostgreSQL {}, and the one installed is {first}: install that version, or remove the \
                 folder to begin with an empty database",
                data.display(),
                wanted.unwrap_or_default()
            )
        })
    }

    /// The server in this folder, if it is one that we can use.
    fn at(bin: PathBuf) -> Option<Self> {
        const OLDEST: u32 = 12;
        if !["initdb", "pg_ctl", "postgres"].iter().all(|tool| bin.join(tool).is_file()) {
            return None;
        }
        // postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)
        let version =
            String::from_utf8(Command::new(bin.join("postgres")).arg("--version").output().ok()?.stdout).ok()?;
        let major = version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()?;
        (major >= OLDEST).then_some(Self { bin, major })
    }

    /// Makes the cluster `data`, whole or not at all.
    fn init(&self, data: &Path, account: &Account, durability: Durability) -> anyhow::Result<()> {
        let unfinished = data.with_file_name("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        account.create_private_dir(&unfinished)?;
        let locale = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };
        let initdb =
            |arguments: &[&str]| account.command(&self.bin.join("initdb")).args(arguments).arg(&unfinished).output();
        let made =
            initdb(&["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale", locale, "--no-sync", "-D"])?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "PostgreSQL cannot make a cluster in {}: {}", data.display(), fault(&said));
        // All files at once: initdb, which writes a thousand of them one by one, takes seconds where this takes one.
        if durability == Durability::Durable
            && !Command::new("sync").arg("-f").arg(&unfinished).output().is_ok_and(|it| it.status.success())
        {
            initdb(&["--sync-only", "-D"])?;
        }
        fs::rename(&unfinished, data)?;
        Ok(())
    }
}

/// Whom the server's programs run as.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// We are root, whom PostgreSQL refuses, and this is another user.
    drops_root: bool,
}

impl Account {
    /// Ourselves; for root `postgres`, or `nobody` where there is no such user.
    fn find() -> anyhow::Result<Self> {
        let id = |args: &[&str]| {
            let Output { status, stdout, .. } = Command::new("id").args(args).output().ok()?;
            Some(String::from_utf8(stdout).ok()?.trim().to_owned()).filter(|_| status.success())
        };
        let number = |args: &[&str]| id(args)?.parse::<u32>().ok();
        let ourselves = || {
            let name = id(&["-un"]).unwrap_or_default();
            Some(Self { name, uid: number(&["-u"])?, gid: number(&["-g"])?, drops_root: false })
        };
        let other = |name: &&str| {
            let (uid, gid) = (number(&["-u", name])?, number(&["-g", name])?);
            Some(Self { name: name.to_string(), uid, gid, drops_root: true })
        };
        let found = match ourselves() {
            Some(root) if root.uid == 0 => ["postgres", "nobody"].iter().find_map(other),
            ourselves => ourselves,
        };
        found.context("PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody")
    }

    /// A command that runs as this user, in English, away from our folder and our terminal's input.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        if self.drops_root {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes a folder that is this user's alone, and that this user can reach.
    fn create_private_dir(&self, dir: &Path) -> anyhow::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(dir)?;
                ensure!(
                    found.is_dir() && found.uid() == self.uid && found.mode() & 0o077 == 0,
                    "{} is not a folder of the user {} alone: remove it",
                    dir.display(),
                    self.name
                );
            }
            created => {
                created.with_context(|| format!("{} cannot be made", dir.display()))?;
                if self.drops_root {
                    std::os::unix::fs::chown(dir, Some(self.uid), Some(self.gid))?;
                }
            }
        }
        ensure!(
            self.command(Path::new("/bin/sh")).args(["-c", r#"cd "$1""#, "sh"]).arg(dir).output()?.status.success(),
            "PostgreSQL refuses to run as root, and the user {} whom it runs as instead cannot enter {}: choose a \
             folder under /var/lib or /var/tmp",
            self.name,
            dir.display()
        );
        Ok(())
    }
}

/// The folder of the socket: in `dir`, unless the path would be longer than a socket's can be.
fn socket_folder(dir: &Path, account: &Account) -> anyhow::Result<PathBuf> {
    /// macOS has the smallest `sun_path`, 104 bytes with its final zero.
    const LONGEST: usize = 103;
    let mut sockets = dir.join("socket");
    if sockets.join(SOCKET_FILE).as_os_str().len() > LONGEST {
        let digest = Sha256::digest(dir.as_os_str().as_bytes());
        sockets = Path::new("/tmp").join(format!("interviews-{}", hex::encode(&digest[..8])));
    }
    account.create_private_dir(&sockets)?;
    Ok(sockets)
}

/// The whole of `postgresql.conf`; everything else is PostgreSQL's default.
fn configuration(sockets: &Path, durability: Durability) -> String {
    let sockets = sockets.display().to_string().replace('\'', "''");
    let mut text = format!(
        "# Written at every start.\nlisten_addresses = ''\nport = 5432\nunix_socket_directories = '\"{sockets}\"'\n\
         unix_socket_permissions = 0700\nmax_connections = 200\n"
    );
    if durability == Durability::Fast {
        text += "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n\
                 wal_level = minimal\nmax_wal_senders = 0\nmax_wal_size = 4GB\ncheckpoint_timeout = 1h\n";
    }
    text
}

/// Opens a file to lock it.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// The version that made the cluster `data`.
fn major_version(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// The file that is there while a server runs on `data`, and its eighth line, the state
/// (<https://www.postgresql.org/docs/current/storage-file-layout.html>).
fn pid_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

fn is_answering(sockets: &Path) -> bool {
    UnixStream::connect(sockets.join(SOCKET_FILE)).is_ok()
}

fn is_ready(cluster: &Cluster) -> bool {
    is_answering(&cluster.sockets)
        && fs::read_to_string(pid_file(&cluster.dir.join("data")))
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|state| state.starts_with("ready")))
}

/// Removes a lock file of PostgreSQL whose process id now belongs to no PostgreSQL, or to nobody. PostgreSQL itself
/// would take any process of the same user for its owner: after a restart of a container, quite likely one.
fn remove_if_stale(lock_file: &Path) {
    let Some(pid) = fs::read_to_string(lock_file).ok().and_then(|it| it.lines().next()?.trim().parse::<u32>().ok())
    else {
        return;
    };
    let name = if Path::new("/proc/self").exists() {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
    } else {
        let ps = Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output();
        ps.map_or("postgres".to_owned(), |it| String::from_utf8_lossy(&it.stdout).into_owned())
    };
    if !name.contains("postgres") {
        fs::remove_file(lock_file).ok();
    }
}

/// The line that says what went wrong.
fn fault(said: &str) -> &str {
    let is_fault = |line: &&str| ["FATAL:", "error:", "PANIC:"].iter().any(|level| line.contains(level));
    said.lines().find(is_fault).or_else(|| said.lines().last()).unwrap_or("it says nothing").trim()
}

/// Collects a child when it ends, so that no zombie holds its process id.
fn reap(mut child: Child) {
    thread::spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_without_an_installed_server_says_what_to_install() {
        let error = Server::choose(std::iter::empty(), None, Path::new("data")).err().expect("none to choose");
        assert_eq!(
            error.to_string(),
            "no PostgreSQL server is installed: install one (Debian, Ubuntu: apt-get install postgresql; macOS: brew \
             install postgresql), or set DATABASE_URL to a PostgreSQL server"
        );
    }

    #[test]
    fn the_first_server_is_taken_unless_the_data_want_another_version() {
        let installed = || [17, 15].map(|major| Server { bin: PathBuf::new(), major }).into_iter();
        let chosen = |wanted| Server::choose(installed(), wanted, Path::new("data")).map(|server| server.major);
        assert_eq!((chosen(None).expect("17"), chosen(Some(15)).expect("15")), (17, 15));
        assert!(
            chosen(Some(16)).expect_err("there is no 16").to_string().starts_with("data was made by PostgreSQL 16")
        );
    }
}
