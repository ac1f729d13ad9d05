//! The schema, and how ours grows beside Django's.
//!
//! [`migrate`] adopts an existing database, or creates Django's tables in an empty one. It only adds to a database, and
//! refuses one that lacks what we need before it changes anything. It also brings the job queue's schema `ivs_jobs` up
//! to date. Other instances wait meanwhile. It may run at every start and be killed at any moment; the next run
//! finishes the work.
//!
//! Indexes on Django's tables are not migrations but a list, [`INDEXES`]: each is built without stopping writers, and
//! one that a killed build left invalid is built again.

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, timeout};

use super::{JOBS_SCHEMA, Pool};
use crate::clock::random_uuid;

/// Django's tables, for an empty database.
const DJANGO_TABLES: &str = include_str!("../../migrations/django_tables.sql");

/// Our changes in order, each one transaction on at most one table that others write to.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "interview", include_str!("../../migrations/0001_interview.sql")),
    (2, "oauthstate", include_str!("../../migrations/0002_oauthstate.sql")),
    (3, "notification", include_str!("../../migrations/0003_notification.sql")),
    (4, "interview job", include_str!("../../migrations/0004_interview_job.sql")),
    (5, "interview job checked", include_str!("../../migrations/0005_interview_job_checked.sql")),
    (6, "server", include_str!("../../migrations/0006_server.sql")),
    (7, "change", include_str!("../../migrations/0007_change.sql")),
    (8, "login throttle", include_str!("../../migrations/0008_login_throttle.sql")),
    (9, "mail resent", include_str!("../../migrations/0009_mail_resent.sql")),
    (10, "presence met", include_str!("../../migrations/0010_presence_met.sql")),
    (11, "portal session", include_str!("../../migrations/0011_portal_session.sql")),
    // There is no 12.
    (13, "token revocation", include_str!("../../migrations/0013_token_revocation.sql")),
    (14, "mail limits", include_str!("../../migrations/0014_mail_limits.sql")),
];

/// Indexes that we no longer need.
const RETIRED_INDEXES: &[&str] = &[
    "ivs_interview_recruiter",
    "ivs_interview_recruiter_span",
    "ivs_interview_candidate_span",
    "ivs_interview_unplaced",
    "ivs_interview_date",
];

/// Every index we add to a table of Django's, none of them unique. To change one, give it a new name and retire the
/// old.
const INDEXES: &[(&str, &str)] = &[
    // Named as Django would name the index of a field `job`.
    ("company_interview_job_id_51519e0d", "company_interview (job_id)"),
    // A person's list, newest first, and whether they are busy on a day; a recruiter's has with it what is counted by day
    // (`interview::analytics`).
    (
        "ivs_interview_recruiter_days",
        r#"company_interview (recruiter_id, date DESC, "time" DESC, id DESC)
           INCLUDE (interview_type, starts_at, ends_at, cancelled_at, portal_join_count,
                    meeting_started_at, meeting_ended_at)"#,
    ),
    ("ivs_interview_candidate", r#"company_interview (candidate_id, date DESC, "time" DESC, id DESC)"#),
    // Whose instants are missing, or further from the wall time than any zone is from UTC (`interview::instants`):
    // seldom any.
    (
        "ivs_interview_misplaced",
        r#"company_interview (id)
           WHERE CASE WHEN starts_at AT TIME ZONE 'UTC' BETWEEN date + "time" - interval '16 hours'
                                                            AND date + "time" + interval '16 hours'
                      THEN 'placed' ELSE 'misplaced' END = 'misplaced'"#,
    ),
    // Whose instants may be wrong.
    ("ivs_interview_starts", "company_interview (starts_at)"),
    // Who is to be reminded.
    ("ivs_interview_remind_24h", "company_interview (starts_at) WHERE cancelled_at IS NULL AND NOT reminder_24h_sent"),
    ("ivs_interview_remind_1h", "company_interview (starts_at) WHERE cancelled_at IS NULL AND NOT reminder_1h_sent"),
    // May this candidate be invited for this job?
    ("ivs_application_user_job", "job_application (user_id, job_id)"),
    ("ivs_shortlist_candidate_job", "job_shortlist (candidate_id, job_id)"),
    // A person's notifications, newest first.
    ("ivs_notification_user", r#"notifications_notification (user_id, "timestamp" DESC, id DESC)"#),
    // A company's job by its title.
    ("ivs_job_company_title", "job_job (company_id, lower(btrim(title::text)))"),
];

/// What we read and write of Django's tables: columns with PostgreSQL's short type names.
const DJANGO: &[(&str, &str)] = &[
    (
        "users_user",
        "id int8, password varchar, last_login timestamptz, is_superuser bool, username varchar, is_staff bool, \
         is_active bool, date_joined timestamptz, first_name varchar, last_name varchar, email varchar, \
         is_recruiter bool, is_applicant bool, has_resume bool, has_company bool, created_at timestamptz, \
         updated_at timestamptz, deleted_at timestamptz, is_deleted bool",
    ),
    (
        "company_interview",
        "id int8, date date, time time, meeting_link varchar, room_id varchar, note text, created_at timestamptz, \
         updated_at timestamptz, candidate_id int8, timezone varchar, google_event_id varchar, \
         interview_type varchar, recruiter_id int8",
    ),
    (
        "company_googlecredentials",
        "id int8, credentials_json text, created_at timestamptz, updated_at timestamptz, user_id int8",
    ),
    ("company_oauthstate", "id int8, state varchar, created_at timestamptz, user_id int8"),
    (
        "notifications_notification",
        "id int8, notification_type varchar, message text, timestamp timestamptz, is_read bool, user_id int8",
    ),
    ("company_company", "id int4, user_id int8, name varchar"),
    ("job_job", "id int8, title varchar, company_id int4, user_id int8, category_id int8, is_available bool"),
    ("job_application", "id int8, job_id int8, user_id int8, status varchar"),
    (
        "job_shortlist",
        "id int8, candidate_id int8, job_id int8, recruiter_id int8, shortlisted_at timestamptz, \
         created_at timestamptz",
    ),
    ("resume_skillcategory", "id int8, name varchar"),
];

/// Columns that we add, and that a later Django may have added before us.
const ADDED: &[(&str, &str)] = &[
    (
        "company_interview",
        "job_id int8, job_title varchar, duration_minutes int4, calendar_invite_sent bool, portal_join_count int4, \
         meeting_started_at timestamptz, meeting_ended_at timestamptz, reminder_24h_sent bool, \
         reminder_1h_sent bool, cancelled_at timestamptz, cancellation_reason text, ical_uid varchar, \
         ical_sequence int4, ical_organizer varchar, location varchar, starts_at timestamptz, \
         starts_at_tzdb varchar, ends_at timestamptz",
    ),
    ("company_oauthstate", "code_verifier text"),
    ("notifications_notification", "action_url varchar"),
];

/// The numbers of [`MIGRATIONS`]. To have the newest is not to have all: one with a lower number may be released later.
fn versions() -> Vec<i64> {
    MIGRATIONS.iter().map(|&(version, ..)| version).collect()
}

/// Whether the database answers, can be written, and has all our migrations.
pub async fn is_migrated(pool: &Pool) -> bool {
    // The second part locks no row, and is refused where one can only read.
    sqlx::query_scalar::<_, bool>(
        "SELECT (SELECT count(*) FROM ivs_migrations WHERE version = ANY ($1) AND success) = cardinality($1)
                AND NOT EXISTS (SELECT FROM (SELECT FROM ivs_migrations LIMIT 0 FOR UPDATE) AS written)",
    )
    .bind(versions())
    .fetch_one(pool)
    .await
    .unwrap_or(false)
}

/// Rejects a server that would corrupt texts or mix up sessions.
pub(super) async fn check_server(mut conn: PgConnection, options: &PgConnectOptions) -> anyhow::Result<()> {
    // Nothing is prepared: a pooler may keep that for the next session.
    let encoding: String =
        answered(sqlx::raw_sql("SELECT current_setting('server_encoding')").fetch_one(&mut conn)).await?.try_get(0)?;
    ensure!(
        matches!(encoding.as_str(), "UTF8" | "SQL_ASCII"),
        "the database's encoding is {encoding}: the server needs one in UTF8"
    );
    // Skipped if there is no second connection: a database with so little room shows itself soon enough.
    let shared = timeout(Duration::from_secs(2), shares_sessions(&mut conn, options)).await;
    ensure!(
        !matches!(shared, Ok(Ok(true))),
        "a pooler that is not in session mode stands before the database: use session mode, or connect to PostgreSQL \
         itself"
    );
    Ok(answered(conn.close()).await?)
}

/// Whether a session's settings leak into another session, or get lost, while a transaction is open.
async fn shares_sessions(one: &mut PgConnection, options: &PgConnectOptions) -> sqlx::Result<bool> {
    async fn answer(conn: &mut PgConnection, sql: String) -> sqlx::Result<String> {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await?.try_get(0)
    }
    let mark = random_uuid();
    let read = "SELECT coalesce(current_setting('ivs.session', true), '')";
    let mut other = PgConnection::connect_with(options).await?;
    answer(one, format!("SELECT set_config('ivs.session', '{mark}', false)")).await?;
    // A pooler in statement mode refuses that.
    if let Err(sqlx::Error::Database(_)) = other.execute("BEGIN").await {
        return Ok(true);
    }
    // Where there is but one session, the first may wait for it from now on.
    if answer(&mut other, read.to_owned()).await? == mark.to_string() {
        return Ok(true);
    }
    let kept = answer(one, read.to_owned()).await?;
    other.close().await?;
    Ok(kept != mark.to_string())
}

/// Brings the database to the schema this program needs. Running it again changes nothing.
///
/// Waits while another instance migrates. Waits at most 5 s for a lock that blocks others from a table, and without a
/// limit for transactions older than an index build. Logs for whom it waits. Fails, with nothing changed, if a table or
/// column of Django's is missing or has another type, or if the role lacks a right.
pub async fn migrate(pool: &Pool) -> anyhow::Result<()> {
    let options = pool.connect_options();
    let connected = async {
        let mut conn = PgConnection::connect_with(options).await?;
        conn.execute(SESSION).await?;
        let process = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await?;
        Ok((conn, process))
    };
    let (mut conn, process) = answered(connected).await.context("cannot connect to the database")?;
    let working = Working::new(process);
    take_turn(&mut conn).await.context("waiting for the right to migrate the database")?;
    let outcome = tokio::select! {
        outcome = migrate_alone(&mut conn, options, &working) => outcome,
        () = watch(options, &working) => Err(anyhow!("the connection to the database was lost")),
    };
    // The lock ends with the session, however the session ends.
    answered(conn.close()).await.ok();
    outcome.map_err(explain)
}

/// Settings of a session that migrates. Building an index on a large table takes as long as it takes; nobody wants to
/// hear "relation already exists, skipping" at every start. If the machine vanishes, the server ends its session, and
/// with it the lock, after a minute.
const SESSION: &str = "SET lock_timeout = '5s'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
                       SET default_transaction_isolation = 'read committed'; SET client_min_messages = warning;
                       SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
                       SET tcp_user_timeout = '60s'";

/// How long what the server answers at once may take.
const ANSWERED: Duration = Duration::from_secs(10);

/// Ends a wait for what the server answers at once, if the network has fallen silent.
async fn answered<T>(answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(ANSWERED, answer).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Takes the lock that keeps other instances from migrating, for as long as the session lives. Polls, because a
/// session that is blocked in a statement would keep `CREATE INDEX CONCURRENTLY` waiting for it, and it for that.
/// Says at once, and then every 30 s, who holds it.
async fn take_turn(conn: &mut PgConnection) -> sqlx::Result<()> {
    const TOLD_EVERY: Duration = Duration::from_secs(30);
    let mut told: Option<Instant> = None;
    while !answered(sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *conn)).await? {
        if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            told = Some(Instant::now());
            answered(tell_of_holder(conn)).await?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The advisory lock of whoever migrates.
const LOCK: i64 = i64::from_be_bytes(*b"ivs_migr");

/// Address and time are empty where the role may not see them.
async fn tell_of_holder(conn: &mut PgConnection) -> sqlx::Result<()> {
    let holder = sqlx::query_as::<_, (i32, String, String)>(
        "SELECT pid, coalesce(host(client_addr), ''), coalesce(query_start::text, '')
         FROM pg_locks JOIN pg_stat_activity USING (pid)
         WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = $1
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .bind(LOCK)
    .fetch_optional(conn)
    .await?;
    if let Some((pid, address, since)) = holder {
        tracing::info!(pid, address, since, "another instance is migrating the database, waiting for it");
    }
    Ok(())
}

/// The process at the server that works now; 0 while none does.
#[derive(Clone)]
struct Working(Arc<AtomicI32>);

impl Working {
    fn new(process: i32) -> Working {
        Working(Arc::new(AtomicI32::new(process)))
    }

    fn process(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives back which one it was.
    fn change(&self, process: i32) -> i32 {
        self.0.swap(process, Ordering::Relaxed)
    }
}

async fn migrate_alone(conn: &mut PgConnection, options: &PgConnectOptions, working: &Working) -> anyhow::Result<()> {
    create_or_check(conn).await?;
    make_room_for_jobs(conn).await?;

    let own = working.change(0);
    let opened = working.clone();
    let jobs = PgPoolOptions::new()
        .max_connections(1)
        .after_connect(move |conn, _| {
            let opened = opened.clone();
            Box::pin(async move {
                conn.execute(SESSION).await?;
                opened.change(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await?);
                Ok(())
            })
        })
        .connect_with(options.clone())
        .await
        .context("opening a connection for the job queue's migrations")?;
    graphile_worker_migrations::migrate(&jobs, JOBS_SCHEMA).await.context("migrating the job queue")?;
    working.change(own);
    timeout(ANSWERED, jobs.close()).await.ok();

    let mut migrator = Migrator::with_migrations(
        MIGRATIONS
            .iter()
            .map(|&(version, name, sql)| {
                Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    );
    migrator.dangerous_set_table_name("ivs_migrations");
    // sqlx's own lock blocks instead of polling. What a newer version added does not stop this one: during a rolling
    // upgrade both run.
    migrator.set_locking(false).set_ignore_missing(true);
    migrator.run_direct(None, conn, false).await?;

    // Concurrent builds block nobody while they wait for older transactions.
    conn.execute("SET lock_timeout = 0").await?;
    for (name, on) in INDEXES {
        build_index(conn, name, on).await.with_context(|| format!("building the index {name}"))?;
    }
    for name in RETIRED_INDEXES {
        execute(conn, format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await?;
    }
    Ok(())
}

/// Creates the job queue's schema and the table that the library looks for first. The library's own `create schema if
/// not exists` would need the right to create schemas even if the schema exists.
async fn make_room_for_jobs(conn: &mut PgConnection) -> sqlx::Result<()> {
    let (has_schema, has_table): (bool, bool) =
        sqlx::query_as("SELECT to_regnamespace($1) IS NOT NULL, to_regclass($1 || '.migrations') IS NOT NULL")
            .bind(JOBS_SCHEMA)
            .fetch_one(&mut *conn)
            .await?;
    if !has_schema {
        execute(conn, format!("CREATE SCHEMA {JOBS_SCHEMA}")).await?;
    }
    if !has_table {
        let sql = format!(
            "CREATE TABLE {JOBS_SCHEMA}.migrations
                 (id int PRIMARY KEY, ts timestamptz NOT NULL DEFAULT now(), breaking boolean NOT NULL DEFAULT false)"
        );
        execute(conn, sql).await?;
    }
    Ok(())
}

/// Creates Django's tables if none is there; refuses the database if one of them, or a column, is not as we need it.
async fn create_or_check(conn: &mut PgConnection) -> anyhow::Result<()> {
    let tables: Vec<&str> = DJANGO.iter().map(|(table, _)| *table).collect();
    let mut tx = conn.begin().await?;
    let empty: bool = sqlx::query_scalar("SELECT bool_and(to_regclass(name) IS NULL) FROM unnest($1) AS name")
        .bind(&tables)
        .fetch_one(&mut *tx)
        .await?;
    if empty {
        tracing::info!("the database has none of Django's tables, creating them");
        tx.execute(sqlx::raw_sql(DJANGO_TABLES)).await.context("creating Django's tables")?;
    }
    let mut faults = faults(&mut tx, &tables).await?;
    if faults.is_empty() {
        faults = missing_rights(&mut tx).await?;
    }
    if !faults.is_empty() {
        bail!("this database is not one the server can run on: {}; nothing was changed", faults.join("; "));
    }
    Ok(tx.commit().await?)
}

/// What of Django's is missing or of another type, each as a clause that names it.
async fn faults(conn: &mut PgConnection, tables: &[&str]) -> sqlx::Result<Vec<String>> {
    let columns: HashMap<(String, String), String> = sqlx::query_as::<_, (String, String, String)>(
        "SELECT name, attname::text, typname::text FROM unnest($1) AS name
         JOIN pg_attribute ON attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped
         JOIN pg_type ON pg_type.oid = atttypid",
    )
    .bind(tables)
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|(table, column, kind)| ((table, column), kind))
    .collect();

    let missing = |table| !columns.keys().any(|(found, _)| found == table);
    let mut faults: Vec<_> =
        tables.iter().filter(|table| missing(*table)).map(|table| format!("the table {table} is missing")).collect();
    for (list, required) in [(DJANGO, true), (ADDED, false)] {
        for &(table, wanted) in list.iter().filter(|(table, _)| !missing(table)) {
            for (column, kind) in wanted.split(", ").filter_map(|column| column.split_once(' ')) {
                match columns.get(&(table.to_owned(), column.to_owned())) {
                    None if required => faults.push(format!("the column {table}.{column} is missing")),
                    Some(is) if !is_like(is, kind) => {
                        faults.push(format!("the column {table}.{column} is of type {is}, not {kind}"))
                    }
                    _ => (),
                }
            }
        }
    }
    Ok(faults)
}

/// Rights that the role lacks for the remaining migrations and for serving, each named in a clause. Once everything is
/// done nothing is checked: a role with fewer rights may serve.
async fn missing_rights(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    /// Tables that get columns or indexes: only their owner may do that.
    const OWNED: [&str; 6] = [
        "company_interview",
        "company_oauthstate",
        "notifications_notification",
        "job_application",
        "job_shortlist",
        "job_job",
    ];
    const GRANTED: [(&str, &str); 5] = [
        ("users_user", "SELECT,INSERT,UPDATE,REFERENCES"),
        ("company_interview", "REFERENCES"),
        ("company_company", "SELECT,INSERT"),
        ("company_googlecredentials", "SELECT,INSERT,UPDATE,DELETE"),
        ("job_job", "REFERENCES"),
    ];
    let indexes: Vec<&str> = INDEXES.iter().map(|(name, _)| *name).collect();
    let (has_migrations, is_indexed): (bool, bool) = sqlx::query_as(
        "SELECT to_regclass('ivs_migrations') IS NOT NULL,
                (SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid = ANY (
                     SELECT to_regclass(name) FROM unnest($1) AS name)) = cardinality($1)",
    )
    .bind(&indexes)
    .fetch_one(&mut *conn)
    .await?;
    let all_applied = "SELECT count(*) = cardinality($1) FROM ivs_migrations WHERE version = ANY ($1) AND success";
    if has_migrations
        && is_indexed
        && sqlx::query_scalar::<_, bool>(all_applied).bind(versions()).fetch_one(&mut *conn).await?
    {
        return Ok(Vec::new());
    }
    let (tables, rights): (Vec<&str>, Vec<&str>) =
        GRANTED.into_iter().flat_map(|(table, rights)| rights.split(',').map(move |right| (table, right))).unzip();
    sqlx::query_scalar(
        "SELECT format('the role %s does not own the table %s', current_user, name)
         FROM unnest($1) AS name JOIN pg_class ON pg_class.oid = to_regclass(name)
         WHERE NOT pg_has_role(relowner, 'USAGE')
         UNION ALL
         SELECT format('the role %s lacks the right %s on the table %s', current_user, kind, name)
         FROM unnest($2, $3) AS needed (name, kind)
         WHERE NOT has_table_privilege(to_regclass(name), kind)
         UNION ALL
         SELECT format('the role %s may not create tables in the schema %s', current_user, current_schema())
         WHERE NOT has_schema_privilege(current_schema(), 'CREATE')
         UNION ALL
         SELECT format('the role %s may not create the schema %s in this database', current_user, $4)
         WHERE to_regnamespace($4) IS NULL AND NOT has_database_privilege(current_database(), 'CREATE')
         UNION ALL
         SELECT format('the role %s may not create tables in the schema %s', current_user, $4)
         FROM pg_namespace WHERE oid = to_regnamespace($4) AND NOT has_schema_privilege(oid, 'CREATE')",
    )
    .bind(&OWNED[..])
    .bind(tables)
    .bind(rights)
    .bind(JOBS_SCHEMA)
    .fetch_all(conn)
    .await
}

/// Whether a column of type `is` can be used where we expect `wanted`. All texts are alike to us. Where we expect `int4`
/// any whole number will do: Django widens such columns, and every statement casts what it reads of them. (A number that
/// does not fit into a narrower one is refused, as it is for Django.)
fn is_like(is: &str, wanted: &str) -> bool {
    const TEXTS: [&str; 4] = ["text", "varchar", "bpchar", "citext"];
    is == wanted || TEXTS.contains(&is) && TEXTS.contains(&wanted) || wanted == "int4" && matches!(is, "int2" | "int8")
}

/// Makes the index `name` exist and be valid. A build that was killed leaves one that is kept up to date, but never
/// used: it is dropped first.
async fn build_index(conn: &mut PgConnection, name: &str, on: &str) -> sqlx::Result<()> {
    let valid: Option<bool> = sqlx::query_scalar("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)")
        .bind(name)
        .fetch_optional(&mut *conn)
        .await?;
    if valid == Some(false) {
        tracing::warn!(index = name, "dropping an index whose build was interrupted");
        execute(conn, format!("DROP INDEX CONCURRENTLY {name}")).await?;
    }
    if valid != Some(true) {
        execute(conn, format!("CREATE INDEX CONCURRENTLY {name} ON {on}")).await?;
    }
    Ok(())
}

async fn execute(conn: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(|_| ())
}

/// Ends when the session that works has ended, or is idle although its answer is waited for: across a silent network
/// nobody would hear of it. Says, after 5 s and then every 30 s, who keeps the session waiting.
async fn watch(options: &PgConnectOptions, working: &Working) {
    let mut was_idle = None;
    for look in 0_u32.. {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let process = working.process();
        if process == 0 {
            continue;
        }
        let asked = async {
            let mut other = PgConnection::connect_with(options).await?;
            let session: Option<(String, Option<String>)> = sqlx::query_as(
                "SELECT left(query, 100), CASE WHEN state LIKE 'idle%' THEN state_change::text END
                 FROM pg_stat_activity WHERE pid = $1",
            )
            .bind(process)
            .fetch_optional(&mut other)
            .await?;
            let waited_for = sqlx::query_as::<_, (i32, String, String, String)>(
                "SELECT pid, coalesce(usename, '')::text, coalesce(application_name, ''), coalesce(xact_start::text, '')
                 FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1))",
            )
            .bind(process)
            .fetch_all(&mut other)
            .await?;
            other.close().await?;
            Ok((session, waited_for))
        };
        match answered(asked).await {
            Ok((None, _)) => return,
            Ok((Some((statement, idle_since)), waited_for)) => {
                let idle = idle_since.map(|since| (process, since));
                if idle.is_some() && idle == was_idle {
                    return;
                }
                was_idle = idle;
                let told = if look % 6 == 0 { waited_for } else { Vec::new() };
                told.into_iter().for_each(|(pid, role, application, since)| {
                    tracing::warn!(
                        statement,
                        pid,
                        role,
                        application,
                        since,
                        "migrating the database waits for a transaction to end"
                    );
                });
            }
            Err(error) => tracing::warn!(%error, "migrating the database takes long"),
        }
    }
}

/// Adds what to do when the wait for a lock timed out.
fn explain(error: anyhow::Error) -> anyhow::Error {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let timed_out = error.chain().any(|cause| {
        let sqlx = cause.downcast_ref::<sqlx::Error>().and_then(|e| e.as_database_error()?.code());
        let jobs = cause.downcast_ref::<graphile_worker::DbError>().and_then(|e| e.code());
        sqlx.as_deref() == Some(LOCK_NOT_AVAILABLE) || jobs == Some(LOCK_NOT_AVAILABLE)
    });
    if timed_out {
        error.context(
            "the database could not be migrated: another transaction kept a table locked for more than 5 s; \
             start again when it has ended",
        )
    } else {
        error.context("the database could not be migrated")
    }
}
