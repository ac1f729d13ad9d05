//! Access to PostgreSQL, which a Django application shares: connections, transactions, what a failure means, and the
//! schema.
//!
//! [`Pool`] keeps connections and promises that every statement ends; [`schema`] adopts or creates the tables;
//! [`queue`] is how the job queue's library gets at both.

mod fault;
mod pool;
mod repeat;
pub mod queue;
pub mod schema;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

pub use self::{
    pool::{Connection, Pool, Pooled, RESERVED, Transaction},
    repeat::{MayBeDatabase, repeated},
    schema::{is_migrated, migrate},
};
use crate::config::PoolLimits;

/// The schema of the job queue.
pub const JOBS_SCHEMA: &str = "ivs_jobs";

/// Opens a pool to `database_url` (`postgres://…`) and checks that the server answers. Errors name neither the URL nor
/// its password.
pub async fn connect(database_url: &str, limits: PoolLimits) -> anyhow::Result<Pool> {
    let pool = lazily(database_url, limits)?;
    // Not by the pool, which asks again until its time is up, and then does not say why.
    match tokio::time::timeout(limits.acquire, PgConnection::connect_with(pool.connect_options())).await {
        Ok(Ok(connection)) => schema::check_server(connection, pool.connect_options()).await?,
        Ok(Err(error)) if error.to_string().contains("startup parameter") => bail!(
            "cannot connect to the database: {error}; PgBouncer needs `pool_mode = session` and \
             `ignore_startup_parameters = extra_float_digits`"
        ),
        Ok(Err(error)) => bail!("cannot connect to the database: {error}"),
        Err(_) => bail!("cannot connect to the database: no answer within {:?}", limits.acquire),
    }
    Ok(pool)
}

/// A pool that has asked nobody yet.
pub fn lazily(database_url: &str, limits: PoolLimits) -> anyhow::Result<Pool> {
    let options = database_url
        .parse::<PgConnectOptions>()
        .context("the database URL cannot be read: use postgres://user:password@host:port/database")?
        .application_name("umemployed-interviews");
    Ok(Pool::new(options, limits, &[]).with_reserve())
}

/// What time it is for the database.
pub async fn now(pool: &Pool) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool).await
}

/// Whether a failure is the database's and likely to pass in a moment.
pub fn is_passing(error: &impl MayBeDatabase) -> bool {
    error.database_error().is_some_and(fault::is_passing)
}

/// Whether it is not known if a commit happened.
pub fn is_unanswered(error: &impl MayBeDatabase) -> bool {
    error.database_error().is_some_and(fault::is_unanswered)
}
