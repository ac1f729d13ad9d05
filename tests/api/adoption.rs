//! Creating the schema, and adopting a database that Django made.

use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use interviews::db;
use reqwest::Method;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::{
    database::{TestDatabase, empty, folder, fresh, limits},
    process::{Server, World, free_ports, program},
    relay::Relay,
    until_async,
};

const DJANGO_TABLES: &str = include_str!("../../migrations/django_tables.sql");
const FIXTURE: &str = include_str!("support/fixture.sql");

/// What Django's own code writes when it makes an interview: its columns, and no other.
const DJANGO_INSERT: &str = "INSERT INTO company_interview (candidate_id, recruiter_id, interview_type, date, time,
     timezone, meeting_link, room_id, google_event_id, note, created_at, updated_at)
     VALUES (201, NULL, 'custom', '2031-01-01', '10:00', 'UTC', '', 'ZZZZ9999', NULL, NULL, now(), now())";

/// A database as Django leaves it, with rows, and with what `change` does to it.
async fn django(change: &str) -> TestDatabase {
    let database = empty().await;
    for sql in [DJANGO_TABLES, FIXTURE, "CREATE TABLE django_migrations (id bigint, name text)", change] {
        run(&database.pool, sql).await;
    }
    database
}

async fn run(pool: &db::Pool, sql: &str) {
    pool.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}

async fn strings(pool: &db::Pool, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

async fn count(pool: &db::Pool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Everything the catalogs know of our schemas, a line each; two dumps are equal if nothing was changed.
async fn catalog(pool: &db::Pool) -> Vec<String> {
    strings(
        pool,
        "SELECT concat_ws(' ', 'column', table_schema, table_name, column_name, data_type,
                    character_maximum_length, is_nullable, column_default)
         FROM information_schema.columns WHERE table_schema IN ('public', 'ivs_jobs')
         UNION ALL
         SELECT concat_ws(' ', 'constraint', oid, conrelid::regclass, conname, pg_get_constraintdef(oid))
         FROM pg_constraint WHERE connamespace IN ('public'::regnamespace, to_regnamespace('ivs_jobs'))
         UNION ALL
         SELECT concat_ws(' ', 'index', indexrelid, indisvalid, pg_get_indexdef(indexrelid))
         FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
         WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('ivs_jobs'))
         UNION ALL
         SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname) FROM pg_trigger WHERE NOT tgisinternal
         UNION ALL
         SELECT concat_ws(' ', 'function', oid, proname) FROM pg_proc
         WHERE pronamespace IN ('public'::regnamespace, to_regnamespace('ivs_jobs'))
         ORDER BY 1",
    )
    .await
}

/// Every row of the two migration tables, with its time.
async fn history(pool: &db::Pool) -> Vec<String> {
    strings(
        pool,
        "SELECT m::text FROM ivs_migrations AS m UNION ALL SELECT m::text FROM ivs_jobs.migrations AS m ORDER BY 1",
    )
    .await
}

fn text(outcome: anyhow::Result<()>) -> String {
    format!("{:#}", outcome.expect_err("migrating should fail"))
}

#[tokio::test]
async fn an_empty_database_gets_djangos_tables_and_ours() {
    let database = empty().await;
    assert!(!db::is_migrated(&database.pool).await);
    db::migrate(&database.pool).await.unwrap();
    assert!(db::is_migrated(&database.pool).await);
    run(&database.pool, FIXTURE).await;
    assert_eq!(count(&database.pool, "SELECT count(*) FROM company_interview").await, 3);
}

#[tokio::test]
async fn a_test_database_is_a_migrated_one_without_rows() {
    let database = fresh().await;
    assert!(db::is_migrated(&database.pool).await);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM users_user").await, 0);
}

#[tokio::test]
async fn an_adopted_database_has_the_same_schema_as_a_created_one() {
    let (adopted, created) = (django("DROP TABLE django_migrations").await, fresh().await);
    db::migrate(&adopted.pool).await.unwrap();
    let without_numbers = |lines: Vec<String>| -> Vec<String> {
        let word = |word: &&str| word.parse::<u32>().is_err();
        lines.iter().map(|line| line.split(' ').filter(word).collect::<Vec<_>>().join(" ")).collect()
    };
    let (mut adopted, mut created) =
        (without_numbers(catalog(&adopted.pool).await), without_numbers(catalog(&created.pool).await));
    adopted.sort();
    created.sort();
    assert_eq!(adopted, created);
}

#[tokio::test]
async fn after_adoption_the_rows_are_there_and_django_still_inserts() {
    let database = django("").await;
    db::migrate(&database.pool).await.unwrap();
    run(&database.pool, DJANGO_INSERT).await;
    let rows = strings(
        &database.pool,
        "SELECT concat_ws(' ', id, calendar_invite_sent, portal_join_count, reminder_24h_sent, reminder_1h_sent,
             ical_sequence, coalesce(job_title, starts_at::text, '-')) FROM company_interview ORDER BY id",
    )
    .await;
    assert_eq!(rows, ["501 f 0 f f 0 -", "502 f 0 f f 0 -", "503 f 0 f f 0 -", "1001 f 0 f f 0 -"]);
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let database = django("").await;
    db::migrate(&database.pool).await.unwrap();
    let before = (catalog(&database.pool).await, history(&database.pool).await);
    db::migrate(&database.pool).await.unwrap();
    assert_eq!((catalog(&database.pool).await, history(&database.pool).await), before);
}

#[tokio::test]
async fn adoption_only_adds() {
    let database = django("").await;
    let before = catalog(&database.pool).await;
    db::migrate(&database.pool).await.unwrap();
    let after = catalog(&database.pool).await;
    assert_eq!(before.iter().filter(|line| !after.contains(line)).collect::<Vec<_>>(), Vec::<&String>::new());

    let on_djangos = strings(
        &database.pool,
        "SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname) FROM pg_trigger
         WHERE NOT tgisinternal AND tgrelid::regclass::text !~ '^ivs_'
         UNION ALL
         SELECT concat_ws(' ', 'rule', tablename, rulename) FROM pg_rules WHERE schemaname = 'public'
         UNION ALL
         SELECT concat_ws(' ', 'foreign key', conname) FROM pg_constraint
         WHERE contype = 'f' AND conrelid::regclass::text !~ '^ivs_' AND confdeltype = 'a' AND conname ~ 'job_id_51'
         UNION ALL
         SELECT concat_ws(' ', 'foreign key of ours', conname) FROM pg_constraint
         WHERE contype = 'f' AND conrelid::regclass::text ~ '^ivs_[^j]' AND confdeltype <> 'c'",
    )
    .await;
    assert_eq!(on_djangos, Vec::<String>::new());

    let added: Vec<&str> = after.iter().filter(|line| !before.contains(line)).map(String::as_str).collect();
    let strict = added.iter().filter(|line| {
        let django = ["company_", "job_", "notifications_", "resume_", "users_"];
        let ours = line.contains(" ivs_jobs.") || line.contains(" ON public.ivs_");
        line.starts_with("index") && line.contains("UNIQUE") && !ours
            || line.starts_with("constraint")
                && (line.contains("CHECK") || line.contains("UNIQUE"))
                && django.iter().any(|table| line.split(' ').nth(2).is_some_and(|name| name.starts_with(table)))
    });
    assert_eq!(strict.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[tokio::test]
async fn the_job_column_has_the_index_and_the_foreign_key_that_django_would_name_so() {
    let database = django("").await;
    db::migrate(&database.pool).await.unwrap();
    let found = strings(
        &database.pool,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conname = 'company_interview_job_id_51519e0d_fk_job_job_id' AND convalidated
         UNION ALL
         SELECT indexdef FROM pg_indexes WHERE indexname = 'company_interview_job_id_51519e0d' ORDER BY 1",
    )
    .await;
    assert_eq!(
        found,
        [
            "CREATE INDEX company_interview_job_id_51519e0d ON public.company_interview USING btree (job_id)",
            "FOREIGN KEY (job_id) REFERENCES job_job(id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED",
        ]
    );
}

#[tokio::test]
async fn columns_that_a_later_django_added_stay_and_may_be_left_out() {
    let database = django(
        "ALTER TABLE company_interview ADD COLUMN portal_join_count integer NOT NULL DEFAULT 7,
             ADD COLUMN calendar_invite_sent boolean NOT NULL DEFAULT true,
             ADD COLUMN duration_minutes integer NOT NULL DEFAULT 45,
             ADD COLUMN reminder_1h_sent boolean NOT NULL DEFAULT true;
         ALTER TABLE company_interview ALTER COLUMN portal_join_count DROP DEFAULT,
             ALTER COLUMN calendar_invite_sent DROP DEFAULT, ALTER COLUMN duration_minutes DROP DEFAULT",
    )
    .await;
    db::migrate(&database.pool).await.unwrap();
    run(&database.pool, DJANGO_INSERT).await;
    let rows = strings(
        &database.pool,
        "SELECT concat_ws(' ', id, portal_join_count, calendar_invite_sent, reminder_1h_sent, duration_minutes)
         FROM company_interview WHERE id IN (501, 1001) ORDER BY id",
    )
    .await;
    assert_eq!(rows, ["501 7 t t 45", "1001 0 f t"]);
}

#[tokio::test]
async fn a_foreign_key_that_is_already_on_the_job_column_stays_the_only_one() {
    let database = django(
        "ALTER TABLE company_interview ADD COLUMN job_id bigint NULL;
         ALTER TABLE company_interview ADD CONSTRAINT some_other_name
             FOREIGN KEY (job_id) REFERENCES job_job (id) DEFERRABLE INITIALLY DEFERRED",
    )
    .await;
    db::migrate(&database.pool).await.unwrap();
    let keys = strings(
        &database.pool,
        "SELECT conname::text FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND conkey = ARRAY[attnum]
         WHERE contype = 'f' AND conrelid = 'company_interview'::regclass AND attname = 'job_id'",
    )
    .await;
    assert_eq!(keys, ["some_other_name"]);
}

#[tokio::test]
async fn what_is_missing_is_named_before_anything_is_changed() {
    let database = django(
        "DROP TABLE company_oauthstate;
         ALTER TABLE job_job DROP COLUMN is_available;
         ALTER TABLE company_interview ADD COLUMN duration_minutes interval;
         ALTER TABLE users_user ALTER COLUMN is_deleted TYPE text",
    )
    .await;
    let before = catalog(&database.pool).await;
    assert_eq!(
        text(db::migrate(&database.pool).await),
        "the database could not be migrated: this database is not one the server can run on: the table \
         company_oauthstate is missing; the column users_user.is_deleted is of type text, not bool; the column \
         job_job.is_available is missing; the column company_interview.duration_minutes is of type interval, not \
         int4; nothing was changed"
    );
    assert_eq!(catalog(&database.pool).await, before);
    assert!(!db::is_migrated(&database.pool).await);
}

/// Alters, as Django does, every column of its tables that has one type to another one.
async fn retype(pool: &db::Pool, from: &str, to: &str) {
    let sql = format!(
        "DO $$ DECLARE altered record; BEGIN
             FOR altered IN
                 SELECT attrelid::regclass AS name, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT LIKE 'ivs\\_%'
                   AND attnum > 0 AND NOT attisdropped AND atttypid = '{from}'::regtype
             LOOP EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE {to}', altered.name, altered.attname);
             END LOOP; END $$"
    );
    run(pool, &sql).await;
}

/// Starts a server on the database, schedules with it and reads the list.
async fn assert_serves(database: TestDatabase) {
    let world = World::on(database).await;
    let _server = world.serve().await;
    world.connect().await;
    let (status, scheduled) = world.schedule().await.unwrap();
    assert_eq!(status, 200, "{scheduled}");
    let (status, list) = world.call(Method::GET, "/api/company/interviews/", None).await.unwrap();
    assert_eq!(status, 200, "{list}");
    assert!(list.to_string().contains(&format!("\"id\":{}", scheduled["interview_id"])), "{list}");
}

#[tokio::test]
async fn a_restart_after_django_has_widened_its_numbers_serves() {
    let database = django("").await;
    db::migrate(&database.pool).await.unwrap();
    retype(&database.pool, "integer", "bigint").await;
    assert_serves(database).await;
}

#[tokio::test]
async fn a_database_whose_numbers_are_narrower_is_adopted_and_serves() {
    let database = django("ALTER TABLE company_interview ADD COLUMN duration_minutes integer NULL").await;
    retype(&database.pool, "integer", "smallint").await;
    assert_serves(database).await;
}

#[tokio::test]
async fn a_migration_that_is_missing_below_the_newest_is_missed_and_applied() {
    let database = fresh().await;
    run(&database.pool, "DROP TABLE ivs_token_revocation; DELETE FROM ivs_migrations WHERE version = 13").await;
    assert!(!db::is_migrated(&database.pool).await);

    let role = Role::create(&database).await;
    run(&database.pool, &format!("GRANT SELECT ON ivs_migrations TO {}", role.name)).await;
    let error = text(role.migrate().await);
    assert!(error.contains("lacks the right REFERENCES on the table users_user"), "{error}");
    role.drop().await;

    db::migrate(&database.pool).await.unwrap();
    assert!(db::is_migrated(&database.pool).await);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM ivs_token_revocation").await, 0);
}

/// Holds the lock of whoever migrates, as a machine does that has vanished; returns its process at the server too.
async fn migrating(database: &TestDatabase) -> (PgConnection, i32) {
    let mut holder = PgConnection::connect(&database.url).await.unwrap();
    let lock = i64::from_be_bytes(*b"ivs_migr");
    sqlx::query("SELECT pg_advisory_lock($1)").bind(lock).execute(&mut holder).await.unwrap();
    let process = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    (holder, process)
}

#[tokio::test]
async fn a_start_that_waits_for_anothers_migration_says_whose() {
    let database = fresh().await;
    let (holder, process) = migrating(&database).await;
    let mut command = program(&["migrate"]);
    command.envs([("DATABASE_URL", database.url.as_str()), ("SECRET_KEY", "key")]);
    let mut server = Server::start(command);
    until_async(async || server.said().contains("another instance is migrating the database")).await;
    assert!(!server.has_ended() && server.said().contains(&format!("pid={process} ")), "{}", server.said());
    holder.close().await.unwrap();
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_start_that_waits_for_anothers_migration_ends_when_the_network_falls_silent() {
    let database = fresh().await;
    let (_holder, _) = migrating(&database).await;
    let relay = Relay::start(&database.url).await;
    let pool = db::connect(&relay.url(&database.name), limits(2)).await.unwrap();
    let start = tokio::spawn(async move { db::migrate(&pool).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'";
    until_async(async || count(&database.pool, waiting).await == 1).await;
    relay.silence_open();
    let outcome = tokio::time::timeout(Duration::from_secs(20), start).await.expect("it still waits").unwrap();
    let error = text(outcome);
    assert!(error.contains("waiting for the right to migrate the database"), "{error}");
}

#[tokio::test]
async fn djangos_own_migration_table_is_never_touched() {
    let database = django("INSERT INTO django_migrations VALUES (1, 'company.0001_initial')").await;
    let row = "SELECT concat_ws(' ', xmin, ctid, m) FROM django_migrations AS m";
    let before = strings(&database.pool, row).await;
    db::migrate(&database.pool).await.unwrap();
    assert_eq!(strings(&database.pool, row).await, before);
}

#[tokio::test]
async fn four_servers_that_start_at_once_migrate_an_empty_database_once() {
    let database = empty().await;
    let starts = [(); 4].map(|()| {
        let url = database.url.clone();
        tokio::spawn(async move { db::migrate(&db::connect(&url, limits(2)).await?).await })
    });
    for start in starts {
        start.await.unwrap().unwrap();
    }
    assert_eq!(catalog(&database.pool).await.len(), catalog(&fresh().await.pool).await.len());
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    let numbered = files.filter(|file| file.as_ref().unwrap().file_name().as_encoded_bytes()[0].is_ascii_digit());
    let applied = count(&database.pool, "SELECT count(*) FROM ivs_migrations").await;
    assert_eq!(applied, numbered.count() as i64, "every file once");
}

#[tokio::test]
async fn a_table_that_somebody_keeps_locked_fails_the_migration_in_time_and_the_next_one_succeeds() {
    let database = django("").await;
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    other.execute("BEGIN; LOCK TABLE notifications_notification IN ACCESS SHARE MODE").await.unwrap();
    let began = Instant::now();
    let error = text(db::migrate(&database.pool).await);
    assert!(error.contains("another transaction kept a table locked for more than 5 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(9), "took {:?}", began.elapsed());
    other.execute("ROLLBACK").await.unwrap();
    db::migrate(&database.pool).await.unwrap();
    assert!(db::is_migrated(&database.pool).await);
}

#[tokio::test]
async fn an_index_whose_build_was_interrupted_is_built_again() {
    let database = django("").await;
    // A transaction that has seen the table keeps the build waiting, until the lock times out.
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    let half_built = async |sql: &'static str| {
        let mut builder = PgConnection::connect(&database.url).await.unwrap();
        builder.execute("SET lock_timeout = '50ms'").await.unwrap();
        builder.execute(sql).await.unwrap_err();
    };
    other.execute("BEGIN; LOCK TABLE job_shortlist IN ROW EXCLUSIVE MODE").await.unwrap();
    half_built("CREATE INDEX CONCURRENTLY ivs_shortlist_candidate_job ON job_shortlist (candidate_id, job_id)").await;
    other.execute("ROLLBACK").await.unwrap();

    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(count(&database.pool, invalid).await, 1);
    db::migrate(&database.pool).await.unwrap();
    assert_eq!(count(&database.pool, invalid).await, 0);
    assert_eq!(catalog(&database.pool).await.len(), catalog(&fresh().await.pool).await.len() + 2);
}

#[tokio::test]
async fn what_refers_to_a_row_that_django_deletes_goes_with_it() {
    let database = django("").await;
    db::migrate(&database.pool).await.unwrap();
    run(
        &database.pool,
        "UPDATE company_interview SET job_id = 22 WHERE id = 502;
         INSERT INTO ivs_portal_token VALUES ('\\x01', 501, 201, now()), ('\\x02', 502, 201, now());
         INSERT INTO ivs_presence (interview_id, user_id, user_role, joined_at) VALUES (501, 201, 'candidate', now());
         DELETE FROM job_application; DELETE FROM job_shortlist; DELETE FROM job_job;
         DELETE FROM company_interview WHERE id = 501",
    )
    .await;
    assert_eq!(count(&database.pool, "SELECT count(*) FROM ivs_portal_token").await, 1);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM ivs_presence").await, 0);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM company_interview WHERE job_id IS NULL").await, 2);
}

/// A role of this test's own, gone with it.
struct Role {
    name: String,
    admin: String,
}

impl Role {
    async fn create(database: &TestDatabase) -> Role {
        let name = format!("{}_role", database.name);
        run(&database.pool, &format!("CREATE ROLE {name} LOGIN")).await;
        Role { name, admin: database.url.clone() }
    }

    /// The database's URL for this role.
    fn url(&self) -> String {
        self.admin.replace("user=postgres", &format!("user={}", self.name))
    }

    async fn migrate(&self) -> anyhow::Result<()> {
        db::migrate(&db::connect(&self.url(), limits(2)).await?).await
    }

    async fn drop(self) {
        let mut admin = PgConnection::connect(&self.admin).await.unwrap();
        let sql = format!("REASSIGN OWNED BY {0} TO postgres; DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        admin.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
}

#[tokio::test]
async fn rights_that_the_role_lacks_are_named_before_anything_is_changed() {
    let database = django("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let role = Role::create(&database).await;
    run(&database.pool, &format!("ALTER TABLE job_job OWNER TO {}", role.name)).await;
    let before = catalog(&database.pool).await;
    let error = text(role.migrate().await);
    for right in [
        "does not own the table company_interview",
        "does not own the table job_shortlist",
        "lacks the right REFERENCES on the table users_user",
        "lacks the right UPDATE on the table company_googlecredentials",
        "may not create tables in the schema public",
        "may not create the schema ivs_jobs in this database",
    ] {
        assert!(error.contains(&format!("the role {} {right}", role.name)), "{right} is missing in {error}");
    }
    assert!(!error.contains("own the table job_job") && error.ends_with("nothing was changed"), "{error}");
    assert_eq!(catalog(&database.pool).await, before);
    role.drop().await;
}

#[tokio::test]
async fn a_role_that_may_make_no_schemas_migrates_where_the_queues_schema_is_there_and_a_lesser_one_serves() {
    let database = django("").await;
    let role = Role::create(&database).await;
    let own = format!(
        "DO $$ DECLARE name text; BEGIN
             FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
             LOOP EXECUTE format('ALTER TABLE %I OWNER TO {0}', name); END LOOP; END $$;
         GRANT CREATE ON SCHEMA public TO {0};
         CREATE SCHEMA ivs_jobs AUTHORIZATION {0}",
        role.name
    );
    run(&database.pool, &own).await;
    role.migrate().await.unwrap();
    assert!(db::is_migrated(&database.pool).await);
    // Nothing is left to be done, so nobody need own anything.
    run(
        &database.pool,
        &format!("ALTER TABLE company_interview OWNER TO postgres; GRANT ALL ON company_interview TO {}", role.name),
    )
    .await;
    role.migrate().await.unwrap();
    role.drop().await;
}

#[tokio::test]
async fn a_transaction_that_was_open_before_delays_the_indexes_and_is_named() {
    let database = django("").await;
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    other
        .execute("SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM job_job")
        .await
        .unwrap();
    let mut command = program(&["migrate"]);
    command.envs([("DATABASE_URL", database.url.as_str()), ("SECRET_KEY", "key")]);
    let mut server = Server::start(command);
    until_async(async || server.said().contains("migrating the database waits for a transaction to end")).await;
    assert!(!server.has_ended() && server.said().contains("application=\"report\""), "{}", server.said());
    other.execute("ROLLBACK").await.unwrap();
    assert!(server.ended().await.success());
    assert!(db::is_migrated(&database.pool).await);
}

#[tokio::test]
async fn a_migration_whose_session_ended_while_the_network_was_silent_ends_too() {
    let database = django("").await;
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    other.execute("BEGIN; LOCK TABLE job_shortlist IN ROW EXCLUSIVE MODE").await.unwrap();
    let relay = Relay::start(&database.url).await;
    let pool = db::connect(&relay.url(&database.name), limits(2)).await.unwrap();
    let start = tokio::spawn(async move { db::migrate(&pool).await });
    let builders =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                    AND query LIKE 'CREATE INDEX CONCURRENTLY ivs_shortlist%'";
    until_async(async || count(&database.pool, builders).await == 1).await;
    relay.silence_open();
    // As keepalives do.
    run(
        &database.pool,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY ivs_shortlist%'",
    )
    .await;
    let outcome = tokio::time::timeout(Duration::from_secs(20), start).await.expect("it still waits").unwrap();
    assert_eq!(text(outcome), "the database could not be migrated: the connection to the database was lost");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused_by_name() {
    let database = empty().await;
    let name = format!("{}_latin", database.name);
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    run(&database.pool, &create).await;
    let error = text(db::connect(&database.url.replace(&database.name, &name), limits(2)).await.map(|_| ()));
    assert_eq!(error, "the database's encoding is LATIN1: the server needs one in UTF8");
    run(&database.pool, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

/// PgBouncer before the cluster, with these lines in its settings; `None` where it is not installed.
fn pgbouncer(database: &TestDatabase, settings: &str) -> Option<(Server, String)> {
    const PROGRAM: &str = "/usr/sbin/pgbouncer";
    if !Path::new(PROGRAM).exists() {
        assert!(std::env::var_os("CI").is_none(), "CI must install pgbouncer");
        // Not `println!`, which is shown with failures alone.
        _ = writeln!(std::io::stderr(), "NOT RUN: pgbouncer is not here");
        return None;
    }
    let url = url::Url::parse(&database.url).unwrap();
    let socket = url.query_pairs().find(|(name, _)| name == "host").unwrap().1.into_owned();
    let port = free_ports(1);
    // Where the user that it runs as can read it.
    let file = folder("pgbouncer").with_extension(format!("{port}.ini"));
    let text = format!(
        "[databases]\n* = host='{socket}' user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\n{settings}\n"
    );
    std::fs::write(&file, text).unwrap();
    let is_root = std::process::Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    // As root it refuses to run.
    let (runner, arguments) = match is_root {
        true => ("setpriv", vec!["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", PROGRAM]),
        false => (PROGRAM, vec![]),
    };
    let mut command = std::process::Command::new(runner);
    command.args(arguments).arg(&file);
    let server = Server::start(command);
    Some((server, format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", database.name)))
}

/// What connecting comes to, once PgBouncer listens.
async fn connected(url: &str) -> anyhow::Result<db::Pool> {
    let mut outcome = db::connect(url, limits(4)).await;
    until_async(async || {
        outcome = db::connect(url, limits(4)).await;
        !outcome.as_ref().is_err_and(|error| error.to_string().contains("refused (os error"))
    })
    .await;
    outcome
}

#[tokio::test]
async fn pgbouncer_in_session_mode_serves_and_the_other_settings_are_refused_by_name() {
    let database = empty().await;
    let usual = "ignore_startup_parameters = extra_float_digits\npool_mode = ";
    let Some((_session, url)) = pgbouncer(&database, &format!("{usual}session")) else { return };
    let pool = connected(&url).await.unwrap();
    db::migrate(&pool).await.unwrap();
    assert!(db::is_migrated(&pool).await);
    let limit: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&pool).await.unwrap();
    assert_eq!(limit, "1s");

    // With but one connection to the server, and the second time as well, when that has seen us.
    for mode in ["transaction", "statement", "transaction\ndefault_pool_size = 1"] {
        let (_pooler, url) = pgbouncer(&database, &format!("{usual}{mode}")).unwrap();
        for _ in 0..2 {
            let error = text(connected(&url).await.map(|_| ()));
            assert_eq!(
                error,
                "a pooler that is not in session mode stands before the database: use session mode, or connect to \
                 PostgreSQL itself",
                "{mode}"
            );
        }
    }

    let (_bare, url) = pgbouncer(&database, "pool_mode = session").unwrap();
    let error = text(connected(&url).await.map(|_| ()));
    assert!(error.contains("PgBouncer needs `pool_mode = session` and `ignore_startup_parameters"), "{error}");
}
