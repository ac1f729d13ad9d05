//! Keeps connections to PostgreSQL open for the next statement, and makes every statement end.
//!
//! Hides how connections are opened, kept, tested and discarded. Promises:
//! * A connection found dead is never used again.
//! * A peer that vanished silently is detected within two seconds of the network's return.
//! * No statement waits longer than the server may take for it.
//! * A statement that certainly had no effect (a read, or one that the server refused or rolled back) is retried on a
//!   fresh connection before the caller sees an error.
//!
//! sqlx's own pool asks a connection at each release whether it lives, and waits for the answer without a limit.

use std::{
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool::managed::{
    self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType, Timeouts,
};
use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Either, Error, Execute, Executor, PgConnection, Postgres,
    Result, Row as _, SqlStr,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    runtime::Handle,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::fault::{self, Tries, Unanswered};
use crate::config::PoolLimits;

/// A connection that has rested longer is asked whether it still lives before it is used.
const UNTESTED: Duration = Duration::from_secs(1);
/// How long it has for that answer.
const ASKED: Duration = Duration::from_millis(500);
/// How long the server may take to say, on a fresh connection, whether it is at work for another one.
const LOOKED_UP: Duration = Duration::from_secs(2);
/// After this long without an answer, the pool asks the server on another connection whether it is still at work.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// How long an answer that the server has given may still take to arrive: one lost packet is sent again after 200 ms or
/// a little more.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// The server ends a statement at its own limit. This much later no answer will come.
const SPARE: Duration = Duration::from_secs(5);
/// How long a connection is kept. Closing it frees what its session has gathered at the server.
const OLDEST: Duration = Duration::from_secs(30 * 60);
/// How often all connections may be replaced because the server is read-only: while it stays so, a fresh one is no
/// better.
const REPLACED: Duration = Duration::from_secs(1);
/// What is free now, or nothing.
const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };
/// Connections that are set aside for credentials.
const FOR_CREDENTIALS: u32 = 2;
/// For probes.
const FOR_PROBES: u32 = 1;
/// Connections that are set aside.
pub const RESERVED: u32 = FOR_CREDENTIALS + FOR_PROBES;

/// Kept connections; cheap to clone. Statements on `&Pool` take one each.
#[derive(Clone)]
pub struct Pool {
    kept: managed::Pool<Opener>,
    aside: Option<Aside>,
    purpose: Purpose,
}

#[derive(Clone)]
struct Aside {
    for_credentials: managed::Pool<Opener>,
    for_probes: managed::Pool<Opener>,
}

#[derive(Clone, Copy)]
enum Purpose {
    Any,
    Credentials,
    Probes,
}

impl Pool {
    /// Opens nothing yet. `settings` are the session's, besides those that all have.
    pub fn new(options: PgConnectOptions, limits: PoolLimits, settings: &[(&str, &str)]) -> Pool {
        let kept = Opener::new(options, limits, settings).pool(limits.connections);
        Pool { kept, aside: None, purpose: Purpose::Any }
    }

    /// The same with a few more connections, for [`reserved`](Self::reserved) and [`probing`](Self::probing).
    pub fn with_reserve(self) -> Pool {
        let [for_credentials, for_probes] = [FOR_CREDENTIALS, FOR_PROBES].map(|most| self.opener().pool(most));
        Pool { aside: Some(Aside { for_credentials, for_probes }), ..self }
    }

    /// For credentials, which must be checked even while all connections wait, for a locked table for example. Takes a
    /// connection that rests, or one of the reserved ones. Only for statements that read no other tables.
    pub fn reserved(&self) -> Pool {
        Pool { purpose: Purpose::Credentials, ..self.clone() }
    }

    /// For probes, which must be answered even while all that check credentials wait too.
    pub fn probing(&self) -> Pool {
        Pool { purpose: Purpose::Probes, ..self.clone() }
    }

    fn opener(&self) -> &Opener {
        self.kept.manager()
    }

    /// A connection that is believed to live.
    ///
    /// # Errors
    /// [`Error::PoolTimedOut`] when none became free, or could be opened, in time.
    pub async fn acquire(&self) -> Result<Pooled> {
        match timeout(self.limits().acquire, self.get()).await {
            Ok(Ok(connection)) => Ok(Pooled(Some(connection))),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(Error::PoolTimedOut),
        }
    }

    async fn get(&self) -> Result<Object<Opener>, PoolError<Error>> {
        let Some(Aside { for_credentials, for_probes }) = &self.aside else { return self.kept.get().await };
        match self.purpose {
            Purpose::Any => self.kept.get().await,
            Purpose::Probes => for_probes.get().await,
            Purpose::Credentials => {
                for pool in [&self.kept, for_credentials].into_iter().filter(|pool| pool.status().available > 0) {
                    match pool.timeout_get(&AT_ONCE).await {
                        Err(PoolError::Timeout(TimeoutType::Wait)) => {}
                        got => return got,
                    }
                }
                // The server may have none to give while others become free here.
                tokio::select! {
                    biased;
                    got = self.kept.get() => got,
                    got = self.opened(for_credentials) => got,
                }
            }
        }
    }

    /// A connection of `set_aside`, opened if it still has room. Opened to its end, though nobody may wait for it any
    /// longer: many would begin one otherwise, and none would be there for the next.
    async fn opened(&self, set_aside: &managed::Pool<Opener>) -> Result<Object<Opener>, PoolError<Error>> {
        let status = set_aside.status();
        if status.size < status.max_size {
            let (pool, limit) = (set_aside.clone(), self.limits().acquire);
            let opening = tokio::spawn(async move { timeout(limit, pool.timeout_get(&AT_ONCE)).await });
            if let Ok(Ok(Ok(opened))) = opening.await {
                return Ok(opened);
            }
        }
        set_aside.get().await
    }

    /// Begins a transaction, which is rolled back unless it is committed.
    pub async fn begin(&self) -> Result<Transaction> {
        let mut tries = Tries::of_read();
        loop {
            match Transaction::begin(self.acquire().await?).await {
                // Nothing has happened yet.
                Err(error) if tries.again(&error) => {}
                begun => return begun,
            }
        }
    }

    fn pools(&self) -> impl Iterator<Item = &managed::Pool<Opener>> {
        let aside = self.aside.iter().flat_map(|aside| [&aside.for_credentials, &aside.for_probes]);
        std::iter::once(&self.kept).chain(aside)
    }

    /// How many connections are open, and how many of those rest.
    pub fn open_and_idle(&self) -> (i64, i64) {
        self.pools()
            .map(managed::Pool::status)
            .fold((0, 0), |(open, idle), status| (open + status.size as i64, idle + status.available as i64))
    }

    /// How many connections there may be.
    pub fn most(&self) -> i64 {
        self.pools().map(|pool| pool.status().max_size as i64).sum()
    }

    pub fn limits(&self) -> PoolLimits {
        self.opener().limits
    }

    /// How connections are opened.
    pub fn connect_options(&self) -> &PgConnectOptions {
        &self.opener().options
    }

    /// Gives out no more connections and closes those that rest, at once: nothing is waited for.
    pub fn close(&self) {
        self.pools().for_each(managed::Pool::close);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// A connection in use. Dropped, it goes back to its pool, or is closed if it is of no use: what it has locked must not
/// stay locked until somebody looks at it.
pub struct Pooled(Option<Object<Opener>>);

const IN_USE: &str = "a connection is in use until it is dropped";

impl Deref for Pooled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect(IN_USE)
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.as_mut().expect(IN_USE)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(useless) = self.0.take().filter(|connection| connection.health.state == State::Useless) {
            drop(Object::take(useless));
        }
    }
}

/// Opens connections, and decides which of them are still good.
#[derive(Clone)]
pub struct Opener(Arc<Opening>);

pub struct Opening {
    options: PgConnectOptions,
    limits: PoolLimits,
    /// SQL that sets up a fresh session and asks for its process at the server.
    greeting: String,
    /// Of connections opened now.
    generation: SyncMutex<Generation>,
    /// Held while the server is asked about a connection: one at a time, since each asks on one more.
    asking: Mutex<()>,
}

/// Rises when a connection turns out to be dead: then so may be all that are as old.
struct Generation {
    nr: u64,
    began: Option<Instant>,
}

impl Deref for Opener {
    type Target = Opening;

    fn deref(&self) -> &Opening {
        &self.0
    }
}

/// The server ends a statement whose client has gone, rather than run it to its end; a setting of PostgreSQL 14 and
/// later, and not of all systems.
const ABANDONED: &str = "DO $$ BEGIN SET client_connection_check_interval = '1s';
    EXCEPTION WHEN undefined_object OR invalid_parameter_value THEN END $$;";

impl Opener {
    fn new(options: PgConnectOptions, limits: PoolLimits, settings: &[(&str, &str)]) -> Opener {
        let statement = format!("{}ms", limits.statement.as_millis());
        let lock = format!("{}ms", limits.lock().as_millis());
        let all = [
            ("statement_timeout", statement.as_str()),
            ("lock_timeout", &lock),
            ("idle_in_transaction_session_timeout", "60s"),
            // Overrides the role's and the database's default: concurrent writers wait for each other, and neither has
            // to start again.
            ("default_transaction_isolation", "read committed"),
            // Compiling a query takes longer than any of ours runs.
            ("jit", "off"),
            // The server lets go of what a vanished instance has locked.
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
            // The same while the server waits for an acknowledgement, when nothing is sent to keep alive.
            ("tcp_user_timeout", "60s"),
        ];
        let set: String = all.iter().chain(settings).map(|(name, value)| format!("SET {name} = '{value}'; ")).collect();
        let greeting = format!("{set}{ABANDONED} SELECT pg_backend_pid()");
        let generation = SyncMutex::new(Generation { nr: 0, began: None });
        Opener(Arc::new(Opening { options, limits, greeting, generation, asking: Mutex::default() }))
    }

    fn pool(&self, connections: u32) -> managed::Pool<Opener> {
        managed::Pool::builder(self.clone())
            .max_size(connections as usize)
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("no time limit of the pool's own needs a runtime")
    }

    async fn open(&self) -> Result<Connection> {
        let generation = self.generation().nr;
        let mut raw = self.options.connect().await?;
        let pid = sqlx::raw_sql(AssertSqlSafe(self.greeting.clone())).fetch_one(&mut raw).await?.try_get(0)?;
        let health = Health {
            opener: self.clone(),
            pid,
            generation,
            opened: Instant::now(),
            answered: Instant::now(),
            state: State::Clean,
        };
        Ok(Connection { raw, health })
    }

    /// Whether the server is idle on a connection that waits for its answer, or knows it no longer: then the answer or
    /// the question got lost. False if the server cannot be asked, does not say (another role's state is hidden), or is
    /// a standby, which knows nothing of the primary's connections.
    async fn has_lost(&self, pid: i32) -> bool {
        let asked = async {
            let _turn = self.asking.lock().await;
            let mut other = self.options.connect().await?;
            sqlx::query_scalar(
                "SELECT NOT pg_is_in_recovery() AND NOT EXISTS (
                     SELECT FROM pg_stat_activity WHERE pid = $1 AND (state LIKE 'idle%') IS NOT TRUE)",
            )
            .bind(pid)
            .persistent(false)
            .fetch_one(&mut other)
            .await
        };
        matches!(timeout(LOOKED_UP, asked).await, Ok(Result::Ok(true)))
    }

    fn generation(&self) -> MutexGuard<'_, Generation> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All connections of this generation are to be replaced, if it is at least so old.
    fn renew(&self, nr: u64, after: Duration) {
        let mut generation = self.generation();
        if generation.nr == nr && generation.began.is_none_or(|began| began.elapsed() >= after) {
            *generation = Generation { nr: nr + 1, began: Some(Instant::now()) };
        }
    }
}

impl managed::Manager for Opener {
    type Type = Connection;
    type Error = Error;

    /// Waits for a server that is starting; the pool's limit ends that.
    async fn create(&self) -> Result<Connection> {
        let mut pause = Duration::from_millis(10);
        loop {
            match self.open().await {
                Err(error) if fault::is_starting(&error) => {
                    sleep(pause).await;
                    pause = (2 * pause).min(Duration::from_millis(500));
                }
                opened => return opened,
            }
        }
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        let health = &connection.health;
        let is_renewed = health.generation != self.generation().nr;
        let is_recent = health.answered.elapsed() <= UNTESTED;
        match health.state {
            _ if is_renewed || health.opened.elapsed() > OLDEST => return Err(RecycleError::message("replaced")),
            State::Useless => return Err(RecycleError::message("of no use")),
            // Asking would take long if its peer has vanished, and each such connection has to be asked by itself.
            State::Left if !is_recent => return Err(RecycleError::message("left without an answer")),
            State::Clean if is_recent => return Ok(()),
            _ => {}
        }
        if connection.settle().await { Ok(()) } else { Err(RecycleError::message("it does not answer")) }
    }
}

/// A connection on which every statement ends.
pub struct Connection {
    raw: PgConnection,
    health: Health,
}

/// What is known of a connection.
pub(super) struct Health {
    opener: Opener,
    /// The process at the server.
    pid: i32,
    generation: u64,
    opened: Instant,
    answered: Instant,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Clean,
    /// Nobody has waited for the last answer.
    Left,
    /// A transaction was neither committed nor rolled back.
    Open,
    Useless,
}

impl Health {
    /// Waits for an answer of the server as long as one can come.
    pub(super) async fn answer<T>(&mut self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        if self.state == State::Clean {
            self.state = State::Left;
        }
        let mut asked = pin!(asked);
        let last = Instant::now() + self.opener.limits.statement + SPARE;
        let answer = loop {
            if let Ok(answer) = timeout(LOOKED_AFTER, &mut asked).await {
                break answer;
            }
            let is_over = tokio::select! {
                biased;
                answer = &mut asked => break answer,
                is_lost = self.opener.has_lost(self.pid) => is_lost || Instant::now() > last,
            };
            if is_over {
                let silence = Error::Io(std::io::ErrorKind::TimedOut.into());
                break timeout(ON_ITS_WAY, &mut asked).await.unwrap_or(Err(silence));
            }
        };
        match &answer {
            Err(error) if fault::is_useless(error) => self.give_up(fault::code(error).as_deref()),
            _ => {
                self.answered = Instant::now();
                if self.state == State::Left {
                    self.state = State::Clean;
                }
            }
        }
        answer
    }

    /// Retires this connection and all others of its generation, after an error with this SQLSTATE.
    pub(super) fn give_up(&mut self, code: Option<&str>) {
        self.state = State::Useless;
        let after = if code == Some(fault::READ_ONLY) { REPLACED } else { Duration::ZERO };
        self.opener.renew(self.generation, after);
    }
}

impl Connection {
    /// Ends what was left unfinished. Returns whether the connection then answers; if not, it is never used again.
    async fn settle(&mut self) -> bool {
        let Connection { raw, health } = self;
        let settled = async {
            match health.state {
                State::Open => raw.execute("ROLLBACK").await.is_ok(),
                _ => raw.ping().await.is_ok(),
            }
        };
        if timeout(ASKED, settled).await.unwrap_or(false) {
            (health.state, health.answered) = (State::Clean, Instant::now());
            return true;
        }
        // One that was left in the middle of something may just be busy: that tells nothing of others.
        if health.state == State::Clean {
            self.health.opener.renew(self.health.generation, Duration::ZERO);
        }
        self.health.state = State::Useless;
        false
    }

    /// For code that talks to the server in another way, within [`Health::answer`].
    pub(super) fn parts(&mut self) -> (&mut PgConnection, &mut Health) {
        (&mut self.raw, &mut self.health)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<PgQueryResult>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { raw, health } = self;
        health.answer(raw.execute(query)).boxed()
    }

    /// All rows are there before the first is given out: nobody can keep a connection by reading slowly.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { raw, health } = self;
        let all = health.answer(raw.fetch_many(query).try_collect::<Vec<_>>());
        stream::once(all).map_ok(|all| stream::iter(all.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { raw, health } = self;
        health.answer(raw.fetch_all(query)).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { raw, health } = self;
        health.answer(raw.fetch_optional(query)).boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement>>
    where
        'c: 'e,
    {
        let Connection { raw, health } = self;
        health.answer(raw.prepare_with(sql, parameters)).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>>>
    where
        'c: 'e,
    {
        let Connection { raw, health } = self;
        health.answer(raw.describe(sql)).boxed()
    }
}

/// A transaction on a connection of a pool; dropped, it is rolled back.
pub struct Transaction {
    /// `None` once it has ended.
    connection: Option<Pooled>,
}

impl Transaction {
    async fn begin(connection: Pooled) -> Result<Transaction> {
        let mut tx = Transaction { connection: Some(connection) };
        tx.execute("BEGIN").await?;
        Ok(tx)
    }

    /// # Errors
    /// Without an answer the transaction may have been committed; that error is never retried.
    pub async fn commit(self) -> Result<()> {
        self.end("COMMIT").await.map_err(|error| match fault::is_useless(&error) {
            true => Error::AnyDriverError(Box::new(Unanswered(error))),
            false => error,
        })
    }

    pub async fn rollback(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, sql: &'static str) -> Result<()> {
        self.execute(sql).await?;
        self.connection = None;
        Ok(())
    }
}

const HELD: &str = "a transaction holds its connection until it ends";

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect(HELD)
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect(HELD)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut connection) =
            self.connection.take().filter(|connection| connection.health.state != State::Useless)
        else {
            return;
        };
        connection.health.state = State::Open;
        // At once, since others may wait for what it has locked. Without a runtime nobody waits.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { connection.settle().await });
        }
    }
}
