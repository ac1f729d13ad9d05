//! What certainly had no effect is done again before anybody is told: a read, a statement that the server refused or
//! rolled back, a transaction that did not come to its commit.

use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Error, Execute, Executor, Postgres, Result, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use super::{fault::Tries, pool::Pool};

/// A statement that can be repeated.
#[derive(Clone)]
struct Statement {
    sql: SqlStr,
    arguments: Option<PgArguments>,
    is_persistent: bool,
}

impl Statement {
    fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Statement> {
        let arguments = query.take_arguments().map_err(Error::Encode)?;
        let is_persistent = query.persistent();
        Ok(Statement { sql: query.sql(), arguments, is_persistent })
    }

    /// By its first word: what the program selects through a pool has no effects.
    fn is_read(&self) -> bool {
        self.sql.as_str().trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
    }
}

impl Execute<'_, Postgres> for Statement {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.is_persistent
    }
}

/// Runs a statement on a connection of its own, and again as far as [`Tries`] allow.
macro_rules! repeated {
    ($pool:ident, $query:ident, $way:ident) => {{
        let statement = Statement::of($query);
        async move {
            let statement = statement?;
            let mut tries = Tries::new(statement.is_read());
            loop {
                let mut connection = $pool.acquire().await?;
                match (&mut *connection).$way(statement.clone()).await {
                    Err(error) if tries.again(&error) => {}
                    done => return done,
                }
            }
        }
        .boxed()
    }};
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<PgQueryResult>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        repeated!(self, query, execute)
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let statement = Statement::of(query);
        let all = async move {
            let mut connection = self.acquire().await?;
            (&mut *connection).fetch_many(statement?).try_collect::<Vec<_>>().await
        };
        stream::once(all).map_ok(|all| stream::iter(all.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        repeated!(self, query, fetch_all)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        repeated!(self, query, fetch_optional)
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement>>
    where
        'p: 'e,
    {
        async move { self.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>>>
    where
        'p: 'e,
    {
        async move { self.acquire().await?.describe(sql).await }.boxed()
    }
}

/// Does `work`, which ends with a commit, and retries it when it certainly had no effect: after a deadlock, or when its
/// connection died before the commit. Anything else that `work` does must be safe to do twice.
pub async fn repeated<T, E: MayBeDatabase, W: Future<Output = std::result::Result<T, E>>>(
    work: impl Fn() -> W,
) -> std::result::Result<T, E> {
    let mut tries = Tries::of_read();
    loop {
        match work().await {
            Err(error) if error.database_error().is_some_and(|error| tries.again(error)) => {}
            done => return done,
        }
    }
}

/// An error that may come from the database.
pub trait MayBeDatabase {
    fn database_error(&self) -> Option<&sqlx::Error>;
}

impl MayBeDatabase for sqlx::Error {
    fn database_error(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

impl MayBeDatabase for anyhow::Error {
    fn database_error(&self) -> Option<&sqlx::Error> {
        self.chain().find_map(|cause| cause.downcast_ref())
    }
}
