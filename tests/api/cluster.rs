//! The private PostgreSQL: who starts it, who stops it, and what a killed process leaves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use interviews::dev::postgres::{Cluster, Durability};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::database::{PROGRAM, folder};

/// A folder of this test alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Scratch(folder(&format!("{name}-{}", std::process::id())))
    }

    async fn start(&self, durability: Durability) -> anyhow::Result<Cluster> {
        Cluster::start(&self.0, durability, Path::new(PROGRAM), |_| ()).await
    }

    fn pid_file(&self) -> PathBuf {
        self.0.join("data/postmaster.pid")
    }

    /// The process id of the running server.
    fn server(&self) -> Option<String> {
        Some(fs::read_to_string(self.pid_file()).ok()?.lines().next()?.to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn execute(cluster: &Cluster, sql: &'static str) {
    let mut conn = PgConnection::connect(&cluster.url("demo")).await.unwrap();
    conn.execute(sql).await.unwrap();
    conn.close().await.unwrap();
}

async fn kept(cluster: &Cluster) -> i32 {
    let mut conn = PgConnection::connect(&cluster.url("demo")).await.unwrap();
    sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut conn).await.unwrap()
}

#[tokio::test]
async fn data_survives_a_restart_and_nothing_runs_in_between() {
    let scratch = Scratch::new("restart");
    let cluster = scratch.start(Durability::Fast).await.unwrap();
    cluster.create_database("demo").await.unwrap();
    cluster.create_database("demo").await.unwrap();
    execute(&cluster, "CREATE TABLE kept AS SELECT 7 AS n").await;
    cluster.stop().await.unwrap();
    assert_eq!(scratch.server(), None);

    let cluster = scratch.start(Durability::Fast).await.unwrap();
    assert_eq!(kept(&cluster).await, 7);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn many_who_start_at_once_share_one_server_until_the_last_one_stops() {
    let scratch = Scratch::new("shared");
    let starts = [(); 4].map(|()| {
        let dir = scratch.0.clone();
        tokio::spawn(async move { Cluster::start(&dir, Durability::Fast, Path::new(PROGRAM), |_| ()).await })
    });
    let mut clusters = Vec::new();
    for start in starts {
        clusters.push(start.await.unwrap().unwrap());
    }
    let server = scratch.server();
    let last = clusters.pop().unwrap();
    for cluster in clusters {
        cluster.stop().await.unwrap();
    }
    last.create_database("demo").await.unwrap();
    assert_eq!(scratch.server(), server);
    last.stop().await.unwrap();
    assert_eq!(scratch.server(), None);
}

#[tokio::test]
async fn a_server_that_lost_its_guard_too_is_taken_over() {
    let scratch = Scratch::new("orphan");
    let no_guard = Path::new("/bin/echo");
    let cluster = Cluster::start(&scratch.0, Durability::Fast, no_guard, |_| ()).await.unwrap();
    let server = scratch.server();
    drop(cluster);

    let cluster = scratch.start(Durability::Fast).await.unwrap();
    assert_eq!(scratch.server(), server);
    drop(cluster);
    until("the new guard has stopped the server", || scratch.server().is_none()).await;
}

#[tokio::test]
async fn a_lock_file_that_names_a_process_of_ours_does_not_stop_the_start() {
    let scratch = Scratch::new("stale");
    scratch.start(Durability::Fast).await.unwrap().stop().await.unwrap();
    let stale = format!("{}\n", std::process::id());
    fs::write(scratch.pid_file(), &stale).unwrap();
    fs::write(scratch.0.join("socket/.s.PGSQL.5432.lock"), &stale).unwrap();
    let cluster = scratch.start(Durability::Durable).await.unwrap();
    assert_ne!(scratch.server(), Some(std::process::id().to_string()));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_fast_cluster_that_is_damaged_is_made_anew() {
    let scratch = Scratch::new("damaged");
    scratch.start(Durability::Fast).await.unwrap().stop().await.unwrap();
    fs::write(scratch.0.join("data/global/pg_control"), "damaged").unwrap();
    let cluster = scratch.start(Durability::Fast).await.unwrap();
    cluster.create_database("demo").await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_durable_cluster_that_is_damaged_is_left_alone_and_the_error_says_why() {
    let scratch = Scratch::new("broken");
    scratch.start(Durability::Fast).await.unwrap().stop().await.unwrap();
    fs::write(scratch.0.join("data/global/pg_control"), "damaged").unwrap();
    let error = scratch.start(Durability::Durable).await.unwrap_err().to_string();
    assert!(error.starts_with("PostgreSQL does not start: ") && error.contains("pg_control"), "{error}");
    assert_eq!(fs::read_to_string(scratch.0.join("data/global/pg_control")).unwrap(), "damaged");
}

#[tokio::test]
async fn a_cluster_of_another_version_is_left_alone_and_the_error_says_what_to_do() {
    let scratch = Scratch::new("version");
    fs::create_dir_all(scratch.0.join("data")).unwrap();
    fs::write(scratch.0.join("data/PG_VERSION"), "9\n").unwrap();
    let error = scratch.start(Durability::Durable).await.unwrap_err().to_string();
    assert!(error.contains("was made by PostgreSQL 9, and the one installed is "), "{error}");
    assert!(error.contains("install that version, or remove the folder"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named_with_what_to_do() {
    let scratch = Scratch::new("unwritable");
    fs::create_dir_all(&scratch.0).unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    let dir = scratch.0.join("file/cluster");
    let started = Cluster::start(&dir, Durability::Durable, Path::new(PROGRAM), |_| ()).await;
    let error = started.unwrap_err().to_string();
    let said = format!("the folder {} cannot be written: make it writable, or set DATABASE_URL", dir.display());
    assert!(error.starts_with(&said), "{error}");
}

#[tokio::test]
async fn a_folder_with_a_long_and_odd_name_works() {
    let scratch = Scratch::new(&format!("long it's + 100% {}", "x".repeat(90)));
    let cluster = scratch.start(Durability::Fast).await.unwrap();
    let sockets = cluster.sockets().to_owned();
    assert!(sockets.as_os_str().len() < 90);
    cluster.create_database("demo").await.unwrap();
    cluster.stop().await.unwrap();
    fs::remove_dir(sockets).unwrap();
}

#[tokio::test]
async fn the_progress_tells_of_making_and_starting_the_cluster_once() {
    let scratch = Scratch::new("progress");
    let told = std::sync::Mutex::new(Vec::new());
    let start = || {
        Cluster::start(&scratch.0, Durability::Fast, Path::new(PROGRAM), |sentence| {
            told.lock().unwrap().push(sentence.split(" 1").next().unwrap().to_owned());
        })
    };
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    assert_eq!(*told.lock().unwrap(), ["Creating a PostgreSQL", "Starting PostgreSQL"]);
    drop(first);
    second.stop().await.unwrap();
}
