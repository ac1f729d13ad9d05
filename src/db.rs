//! The way to PostgreSQL: the requests' pool, the job queue's, and the schema.
//!
//! The database is shared with a Django application. [`migrate`] hides how ours grows beside Django's: it adopts an
//! existing database (only adding to it, and refusing one that lacks what we need before it changes anything) or
//! creates Django's tables in an empty one, brings the job queue's schema `ivs_jobs` up to date, and holds off other
//! instances meanwhile. It may run at every start and be killed at any moment; the next run finishes the work.
//!
//! Indexes on Django's tables are not migrations but a list, [`INDEXES`]: each is built without stopping writers, and
//! one that a killed build left invalid is built again.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::config::PoolLimits;

/// The schema of the job queue.
pub const JOBS_SCHEMA: &str = "ivs_jobs";

/// A pooled connection that has rested longer is asked whether it still lives before it is used. One that has died
/// within this time costs a request: its first statement fails, and nothing has happened.
const UNTESTED: Duration = Duration::from_secs(1);

/// Opens a pool to `database_url` (`postgres://…`) and checks that the server answers.
///
/// Besides `limits`: waiting for a lock ends after 10 s, and a transaction that sits idle for 60 s is ended by the
/// server. Errors name neither the URL nor its password.
pub async fn connect(database_url: &str, limits: PoolLimits) -> anyhow::Result<PgPool> {
    let PoolLimits { connections, acquire, statement } = limits;
    let options = database_url
        .parse::<PgConnectOptions>()
        .context("the database URL cannot be read: use postgres://user:password@host:port/database")?
        .application_name("umemployed-interviews")
        .options([
            ("statement_timeout", format!("{}s", statement.as_secs())),
            ("lock_timeout", "10s".to_owned()),
            ("idle_in_transaction_session_timeout", "60s".to_owned()),
            // Compiling a query takes longer than any of ours runs.
            ("jit", "off".to_owned()),
        ]);
    // Not by the pool, which asks again until its time is up, and then does not say why.
    match tokio::time::timeout(acquire, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => connection.close().await?,
        Ok(Err(error)) => bail!("cannot connect to the database: {error}"),
        Err(_) => bail!("cannot connect to the database: no answer within {acquire:?}"),
    }
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(acquire)
        // By the hook below instead: the pool asks at every release as well, and a second question right after that one
        // is a round trip for nothing.
        .test_before_acquire(false)
        .before_acquire(|connection, pooled| {
            Box::pin(async move {
                if pooled.idle_for > UNTESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    Ok(pool.connect_lazy_with(options))
}

/// How many connections the job queue has of its own, the one that listens for new jobs included.
pub const QUEUE_CONNECTIONS: u32 = 4;

/// A pool for the job queue, with `pool`'s settings and time limits, which plans its statements anew each time. A plan
/// that PostgreSQL kept while the queue was empty reads the whole queue for each of the jobs that are taken out of it.
pub fn queue_pool(pool: &PgPool) -> PgPool {
    let options = PgConnectOptions::clone(&pool.connect_options()).options([("plan_cache_mode", "force_custom_plan")]);
    PgPoolOptions::new()
        .max_connections(QUEUE_CONNECTIONS)
        .acquire_timeout(pool.options().get_acquire_timeout())
        .connect_lazy_with(options)
}

/// What time it is for the database.
pub async fn now(pool: &PgPool) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool).await
}

/// Whether the database answers and has our newest migration.
pub async fn is_migrated(pool: &PgPool) -> bool {
    let newest = MIGRATIONS.last().map(|&(version, ..)| version);
    sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM ivs_migrations WHERE version = $1 AND success)")
        .bind(newest)
        .fetch_one(pool)
        .await
        .unwrap_or(false)
}

/// Django's tables, for an empty database.
const DJANGO_TABLES: &str = include_str!("../migrations/django_tables.sql");

/// Our changes in order, each one transaction on at most one table that others write to.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "interview", include_str!("../migrations/0001_interview.sql")),
    (2, "oauthstate", include_str!("../migrations/0002_oauthstate.sql")),
    (3, "notification", include_str!("../migrations/0003_notification.sql")),
    (4, "interview job", include_str!("../migrations/0004_interview_job.sql")),
    (5, "interview job checked", include_str!("../migrations/0005_interview_job_checked.sql")),
    (6, "server", include_str!("../migrations/0006_server.sql")),
    (7, "change", include_str!("../migrations/0007_change.sql")),
    (8, "login throttle", include_str!("../migrations/0008_login_throttle.sql")),
    (9, "mail resent", include_str!("../migrations/0009_mail_resent.sql")),
    (10, "presence met", include_str!("../migrations/0010_presence_met.sql")),
    (11, "portal session", include_str!("../migrations/0011_portal_session.sql")),
    (14, "mail limits", include_str!("../migrations/0014_mail_limits.sql")),
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
    // A person's list, newest first, and whether he is busy on a day; a recruiter's has with it what is counted by day
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

/// Brings the database to the schema this program needs. Running it again changes nothing.
///
/// Waits while another instance migrates; waits at most 5 s for any lock on a table. Fails, with nothing changed, if
/// a table or column of Django's is missing or of another type.
pub async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    let options = pool.connect_options().as_ref().clone().options([
        ("lock_timeout", "5s"),
        // Building an index on a large table takes as long as it takes.
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        // Not "relation already exists, skipping" at every start.
        ("client_min_messages", "warning"),
    ]);
    let mut conn = PgConnection::connect_with(&options).await.context("cannot connect to the database")?;
    take_turn(&mut conn).await.context("waiting for the right to migrate the database")?;
    let outcome = migrate_alone(&mut conn, options).await;
    // The lock ends with the session, however the session ends.
    conn.close().await.ok();
    outcome.map_err(explain)
}

/// Takes the lock that keeps other instances from migrating, for as long as the session lives. Polls, because a
/// session that is blocked in a statement would keep `CREATE INDEX CONCURRENTLY` waiting for it, and it for that.
async fn take_turn(conn: &mut PgConnection) -> sqlx::Result<()> {
    const LOCK: i64 = i64::from_be_bytes(*b"ivs_migr");
    let mut told = false;
    while !sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *conn).await? {
        if !std::mem::replace(&mut told, true) {
            tracing::info!("another instance is migrating the database, waiting for it");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn migrate_alone(conn: &mut PgConnection, options: PgConnectOptions) -> anyhow::Result<()> {
    create_or_check(conn).await?;

    let jobs = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    graphile_worker_migrations::migrate(&jobs, JOBS_SCHEMA).await.context("migrating the job queue")?;
    jobs.close().await;

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

    for (name, on) in INDEXES {
        build_index(conn, name, on).await.with_context(|| format!("building the index {name}"))?;
    }
    for name in RETIRED_INDEXES {
        conn.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")))).await?;
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
    let faults = faults(&mut tx, &tables).await?;
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

/// Whether a column of type `is` can be used where we expect `wanted`: all texts are alike to us.
fn is_like(is: &str, wanted: &str) -> bool {
    let is_text = |kind| matches!(kind, "text" | "varchar" | "bpchar" | "citext");
    is == wanted || is_text(is) && is_text(wanted)
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
        conn.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX CONCURRENTLY {name}")))).await?;
    }
    if valid != Some(true) {
        conn.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE INDEX CONCURRENTLY {name} ON {on}")))).await?;
    }
    Ok(())
}

/// Says what to do about the failure that is nobody's fault: a lock that was not given in time.
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
