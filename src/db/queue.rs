//! How the job queue's library gets at PostgreSQL: by connections of its own, on which every statement ends.

use std::any::Any;

use futures_util::{FutureExt as _, future::BoxFuture};
use graphile_worker::{
    Database, DatabaseDriver, DbError, DbExecutor, DbExecutorArg, DbParams, DbRow, DbTransaction, NotificationStream,
    TransactionDriver,
};
use tokio::sync::Mutex;

use super::{Connection, Pool, Transaction, fault};
use crate::config::PoolLimits;

/// How many connections the job queue has of its own.
pub const CONNECTIONS: u32 = 4;

/// A pool for the job queue, with `pool`'s time limits, on which PostgreSQL plans each statement every time. A plan
/// kept from when the queue was empty would read the whole queue for each job that it takes out.
pub fn pool(pool: &Pool) -> Pool {
    let limits = PoolLimits { connections: CONNECTIONS, ..pool.limits() };
    Pool::new(pool.connect_options().clone(), limits, &[("plan_cache_mode", "force_custom_plan")])
}

/// The same as the library wants it.
pub fn database(pool: Pool) -> Database {
    Database::new(Queue(pool))
}

#[derive(Debug)]
struct Queue(Pool);

/// Runs one of the library's statements in the library's own way.
macro_rules! run {
    ($connection:expr, $way:ident, $sql:expr, $params:expr) => {{
        let connection: &mut Connection = $connection;
        let (mut raw, health) = connection.parts();
        let ran = health.answer(async { Ok(DbExecutorArg::$way(&mut raw, $sql, $params).await) }).await?;
        // feature_not_supported: most likely a plan from before a migration of the queue.
        let is_useless = |code: Option<&str>| fault::is_useless_code(code) || code == Some("0A000");
        if let Err(error) = &ran
            && is_useless(error.code())
        {
            health.give_up(error.code());
        }
        ran
    }};
}

impl DbExecutor for Queue {
    fn execute<'a>(&'a self, sql: &'a str, params: DbParams) -> BoxFuture<'a, Result<u64, DbError>> {
        async move { run!(&mut *self.0.acquire().await?, execute, sql, params) }.boxed()
    }

    fn fetch_all<'a>(&'a self, sql: &'a str, params: DbParams) -> BoxFuture<'a, Result<Vec<DbRow>, DbError>> {
        async move { run!(&mut *self.0.acquire().await?, fetch_all, sql, params) }.boxed()
    }
}

impl DatabaseDriver for Queue {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn begin<'a>(&'a self) -> BoxFuture<'a, Result<DbTransaction, DbError>> {
        async move {
            let tx = self.0.begin().await?;
            Ok(DbTransaction::new(Box::new(QueueTransaction(Mutex::new(tx)))))
        }
        .boxed()
    }

    /// The queue is asked once a second.
    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<NotificationStream>, DbError>> {
        async { Ok(None) }.boxed()
    }
}

struct QueueTransaction(Mutex<Transaction>);

impl DbExecutor for QueueTransaction {
    fn execute<'a>(&'a self, sql: &'a str, params: DbParams) -> BoxFuture<'a, Result<u64, DbError>> {
        async move { run!(&mut *self.0.lock().await, execute, sql, params) }.boxed()
    }

    fn fetch_all<'a>(&'a self, sql: &'a str, params: DbParams) -> BoxFuture<'a, Result<Vec<DbRow>, DbError>> {
        async move { run!(&mut *self.0.lock().await, fetch_all, sql, params) }.boxed()
    }
}

impl TransactionDriver for QueueTransaction {
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), DbError>> {
        async move { Ok(self.0.into_inner().commit().await?) }.boxed()
    }
}
