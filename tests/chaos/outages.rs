//! What happens to PostgreSQL besides its death: the network falls silent, a failover leaves a server that can only be
//! read, tables are locked, and Django changes columns.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{
    figures::Figures,
    servers::Servers,
    support::{process::World, relay::Relay},
};

/// The role of the servers, so that nothing of this happens to the test's own statements.
const ROLE: &str = "servers";

/// The network between the servers and PostgreSQL.
pub async fn network(world: &World) -> (Relay, String) {
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE ROLE {ROLE} SUPERUSER LOGIN")))
        .execute(&world.database.pool)
        .await
        .unwrap();
    let relay = Relay::start(&world.database.url).await;
    let url = relay.url(&world.database.name).replace("postgres@", &format!("{ROLE}@"));
    (relay, url)
}

/// Tables that Django locks, and columns that it alters, back and forth.
const LOCKED: [&str; 5] =
    ["users_user", "company_interview", "notifications_notification", "job_job", "company_company"];
const ALTERED: [[&str; 2]; 5] = [
    ["users_user ALTER first_name TYPE varchar(60)", "users_user ALTER first_name TYPE varchar(50)"],
    ["company_interview ALTER timezone TYPE varchar(60)", "company_interview ALTER timezone TYPE varchar(50)"],
    [
        "notifications_notification ALTER message TYPE varchar(9000)",
        "notifications_notification ALTER message TYPE text",
    ],
    ["job_job ALTER title TYPE varchar(120)", "job_job ALTER title TYPE varchar(100)"],
    ["company_company ALTER name TYPE varchar(120)", "company_company ALTER name TYPE varchar(100)"],
];

/// One thing after the other, with pauses, until it is over.
pub struct Outages {
    pub world: Arc<World>,
    pub servers: Arc<Servers>,
    pub figures: Arc<Figures>,
    pub relay: Relay,
    /// Of a silence of the whole network, at most.
    pub longest: Duration,
}

impl Outages {
    pub async fn go_on(&self, is_over: impl Fn() -> bool, mut random: fastrand::Rng) {
        let mut altered = [0; 5];
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(random.u64(4_000..15_000))).await;
            let mut within = |from, to| Duration::from_millis(random.u64(from..to));
            let long = within(1_000, 5_000);
            let longest = within(2_000, self.longest.as_millis() as u64);
            let nth = random.usize(..5);
            match random.u8(..5) {
                0 => {
                    self.figures.count("PostgreSQL: open connections fell silent");
                    self.relay.silence_open();
                }
                1 => {
                    self.servers
                        .without_database(async || {
                            self.figures.count("PostgreSQL: the network fell silent");
                            self.relay.silence_all();
                            tokio::time::sleep(longest).await;
                            // What was on its way arrives late, or never.
                            if random.bool() {
                                self.relay.silence_open();
                            } else {
                                self.relay.resume();
                            }
                        })
                        .await;
                }
                2 => {
                    self.servers
                        .without_database(async || {
                            self.figures.count("PostgreSQL: a failover left one that can only be read");
                            self.run(format!("ALTER ROLE {ROLE} SET default_transaction_read_only = on")).await;
                            self.run(format!(
                                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"
                            ))
                            .await;
                            tokio::time::sleep(long).await;
                            self.run(format!("ALTER ROLE {ROLE} RESET default_transaction_read_only")).await;
                        })
                        .await;
                }
                3 => {
                    self.servers
                        .without_database(async || {
                            self.figures.count("PostgreSQL: a table was locked");
                            let seconds = long.as_secs_f64();
                            let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", LOCKED[nth]);
                            self.run(format!("{lock}; SELECT pg_sleep({seconds}); COMMIT")).await;
                        })
                        .await;
                }
                _ => {
                    self.figures.count("PostgreSQL: a column was altered");
                    self.run(format!("ALTER TABLE {}", ALTERED[nth][altered[nth] % 2])).await;
                    altered[nth] += 1;
                }
            }
        }
    }

    /// On a connection of its own, however long it takes; a PostgreSQL that is away is asked again.
    async fn run(&self, sql: String) {
        loop {
            let ran = async {
                let mut db = PgConnection::connect(&self.world.database.url).await?;
                db.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await?;
                Ok::<_, sqlx::Error>(())
            };
            if ran.await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
