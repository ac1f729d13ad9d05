//! A database of its own for every test, in a private cluster that all test processes share.
//!
//! The first process starts the cluster and migrates one template database; a test's database is a copy of it. The
//! template's name is a hash of everything that the schema is made of.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use interviews::{
    config::PoolLimits,
    db,
    dev::postgres::{Cluster, Durability},
};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_interviews");

/// A database that is dropped with this.
pub struct TestDatabase {
    pub url: String,
    pub pool: db::Pool,
    pub name: String,
}

/// A migrated database without rows.
pub async fn fresh() -> TestDatabase {
    let shared = shared().await;
    create(shared, &shared.template).await
}

/// A database without anything.
pub async fn empty() -> TestDatabase {
    create(shared().await, "template0").await
}

struct Shared {
    cluster: Cluster,
    template: String,
}

async fn shared() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(async || {
            let cluster = Cluster::start(&folder("test"), Durability::Fast, Path::new(PROGRAM), |_| ()).await.unwrap();
            let template = format!("template_{}", schema_hash());
            prepare(&cluster, &template).await;
            Shared { cluster, template }
        })
        .await
}

/// A folder for a cluster, the same for every process of this user, and one that root's PostgreSQL can reach too.
#[allow(clippy::disallowed_methods, reason = "where a test's files go is no setting of the program")]
pub fn folder(name: &str) -> PathBuf {
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    let parent = if user.trim() == "root" { PathBuf::from("/var/tmp") } else { std::env::temp_dir() };
    parent.join(format!("interviews-{name}-{}", user.trim()))
}

fn schema_hash() -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        fs::read_dir(package.join("migrations")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.extend(["src/db/schema.rs", "Cargo.lock"].map(|file| package.join(file)));
    let hash = files.iter().fold(Sha256::new(), |hash, file| hash.chain_update(fs::read(file).unwrap()));
    hex::encode(&hash.finalize()[..8])
}

/// Makes the template, once for all processes, and drops what dead processes have left.
async fn prepare(cluster: &Cluster, template: &str) {
    let mut conn = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(1)").execute(&mut conn).await.unwrap();

    // Whoever made a test's database before this server started is dead; times of files are in whole seconds.
    // Templates may be another checkout's.
    let stale: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database,
             LATERAL (SELECT (pg_stat_file('base/' || oid || '/PG_VERSION', true)).modification AS made) AS file
         WHERE made < date_trunc('second', pg_postmaster_start_time())
           AND (datname LIKE 'test\\_%' OR datname LIKE 'template\\_%' AND made < now() - interval '1 day')
           AND datname <> $1",
    )
    .bind(template)
    .fetch_all(&mut conn)
    .await
    .unwrap();
    for name in stale {
        run(&mut conn, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }

    let ready: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(template)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    if !ready {
        let unfinished = format!("{template}_unfinished");
        run(&mut conn, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await;
        run(&mut conn, format!("CREATE DATABASE {unfinished} TEMPLATE template0")).await;
        let pool = db::connect(&cluster.url(&unfinished), limits(1)).await.unwrap();
        db::migrate(&pool).await.unwrap();
        pool.close();
        run(&mut conn, format!("ALTER DATABASE {unfinished} RENAME TO {template}")).await;
    }
    conn.close().await.unwrap();
}

async fn create(shared: &Shared, template: &str) -> TestDatabase {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut conn = PgConnection::connect(&shared.cluster.url("postgres")).await.unwrap();
    // From 15 on there is another way too, and that is slower for small databases.
    let way = if conn.server_version_num() >= Some(150_000) { "STRATEGY file_copy" } else { "" };
    run(&mut conn, format!("CREATE DATABASE {name} TEMPLATE {template} {way}")).await;
    conn.close().await.unwrap();
    let url = shared.cluster.url(&name);
    // A test's own statements may have to wait for the server's locks.
    let patient = PoolLimits { acquire: Duration::from_secs(60), ..limits(8) };
    TestDatabase { pool: db::lazily(&url, patient).unwrap(), url, name }
}

/// The usual limits, with so many connections.
pub fn limits(connections: u32) -> PoolLimits {
    PoolLimits { connections, acquire: Duration::from_secs(5), statement: Duration::from_secs(30) }
}

async fn run(conn: &mut PgConnection, sql: String) {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, name) = (self.url.replacen(&self.name, "postgres", 1), self.name.clone());
        // Not in the test's runtime, which is ending. What fails here is dropped by a later process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut conn = PgConnection::connect(&url).await?;
                conn.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))).await?;
                anyhow::Ok(())
            })
        });
    }
}
