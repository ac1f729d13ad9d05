//! UmEmployed Interviews: a server that schedules interviews. A recruiter picks a candidate, a time and a zone; the
//! server makes the Google Meet event, writes the interview, and sends both people one correct invitation. It runs
//! beside a Django job portal on the same PostgreSQL database. This page says how it is built, and why. "Contract" in
//! the modules' docs is `docs/contract.md`: what it promises to its callers, with the examples that tests are named
//! after.
//!
//! # The map
//!
//! The modules below stand in the order in which they may use each other: a module uses `crate::X` only if X stands
//! above it. So there are no circles, and whatever you read rests only on what you have read
//! (`tests/api/architecture.rs` fails otherwise).
//!
//! | ground: no database, no HTTP | |
//! |---|---|
//! | `clock` | time and randomness: the only callers of the system's clock and generator |
//! | `zone` | wall time and IANA zone → instant, by the tz database in the binary; gaps and overlaps |
//! | `icalendar` | an invitation → RFC 5545 text, behind a sanitiser |
//! | `secret` | sealed values, hashed tokens |
//! | `colour` | an accent that stays readable |
//! | `config` | the settings: `config/default.toml` < `CONFIG_FILE` < environment |
//! | `telemetry` | the log, and what never gets into it |
//! | `metrics` | what is counted, for Prometheus; which sweeps are overdue |
//! | `gate` | long CPU-bound work: a few pieces at a time, its owners taking turns |
//!
//! | floor | |
//! |---|---|
//! | `db` | connections, statements that always end, what a failure means; migrations that adopt Django's database or create one |
//! | `smtp` | one SMTP server: what counts as refused, what is worth another try |
//! | `context` | what every request and job works with; axum's state |
//! | `http` | connections, the door around all routes, typed requests, lists of any length, the one error type |
//! | `jobs` | work to be done later, for certain: a thin face of graphile_worker |
//! | `mail` | from a queued row to an accepted mail, once |
//! | `sweep` | recurring background work: its schedule, its time limits |
//!
//! | features | |
//! |---|---|
//! | `auth` | login, how often it may fail and whose turn it is, profile, Django's tokens and password hashes, portal sessions |
//! | `calendar` | Google: OAuth, grants, events, and the undoing of what a dead request left there |
//! | `notification` | what a person has been told |
//! | `interview` | scheduling, changing, cancelling; listing, opening, joining, counting; reminders; new time rules; the words of the mails |
//! | `portal` | pages for people: signing in, the dashboards, scheduling, an interview's room |
//! | `operations` | what an operator sees: probes, metrics, the tables of the commands |
//! | `openapi` | the document of the API, and the pages that show it |
//! | `app` | the assembly: every route, every job, what runs beside the requests, the graceful stop |
//!
//! `dev` (a cargo feature, on by default, off in the container image) is what `cargo run` and the tests put around
//! that: a private PostgreSQL, demo people, a Google simulator, a mailbox. `main.rs` is the command line and nothing
//! else.
//!
//! A feature has these files, and none before it earns its place: `mod.rs` (routes and handlers), `model.rs` (pure
//! rules), `store.rs` (the SQL that several files need), a verb or a protocol for what crosses systems (`booking.rs`,
//! `google.rs`), `emails.rs` (words), and a file for each concern with SQL of its own that nothing else needs
//! (`reminder.rs`, `analytics.rs`). `portal` has a file for each page instead, and `request.rs` for what they are
//! given. It stands above the door, which shows errors as pages by a function that `app` hands it.
//!
//! `.clippy.toml` keeps some calls in one place: time, randomness, the environment, the system's zones, HTTP clients.
//!
//! # One request, five rooms: scheduling
//!
//! 1. **Door** (`http::door`). Request id and span, CORS, limits of size, the look-up of the URL, slashes, `Accept`, time
//!    limits; then the caller's credentials, and only then the method.
//! 2. **Cloakroom** (`http::extract`, `interview::model`). A typed, valid request, or a 4xx in Django's words. Nothing
//!    later sees raw input.
//! 3. **Desk** (`interview`). A short handler. It waits while an equal request runs, and spawns the booking as a task
//!    of its own, which runs to its end even when the client goes away, and which a graceful stop waits for.
//! 4. **Office** (`interview::booking`). Transaction 1 records an *intent* with the event id that we chose. Outside any
//!    transaction Google is asked to make the event of that id. Transaction 2 removes the intent and writes the
//!    interview, the notification, the queued mails and the idempotency key's binding.
//! 5. **Post room** (`mail`, `jobs`). After the commit the request's task sends both mails, each under a lease; a job
//!    that falls due 30 s later is there in case it could not. An update within a minute of the last one is left to its
//!    job.
//!
//! **Changing** goes the same way, with a *claim* instead of the key: `interview::change` takes the interview's row of
//! `ivs_change`, asks Google to change the event, and ends the claim in the transaction that writes the interview.
//! **Cancelling** waits for nobody: one transaction cancels the row, queues the mails, and records the event as an
//! intent that is given up already; deleting it is what follows. **Reminding** (`interview::reminder`) is a sweep: it
//! flags the rows that are due in the transaction that queues their mails, so nothing needs to be taken back when an
//! interview is moved, and rows that Django inserted are found like all others.
//!
//! Never: a network call inside a transaction; a pooled connection held while waiting for another system; a mail
//! outside the queue; an error as a text; SQL in a handler, but for a statement that is all that a module has
//! (`notification`).
//!
//! ## Why a crash loses and doubles nothing
//!
//! The intent's row is the referee. Exactly one of two things happens to it: transaction 2 removes it, or it is *given
//! up*, by its own failed request or by a sweep once it is 45 s old, and can then no longer be removed by transaction
//! 2.
//!
//! | killed | then |
//! |---|---|
//! | before transaction 1 commits | nothing has happened |
//! | before, during or after the call to Google | the sweep gives the intent up and deletes the event of its id; one that Google does not know yet is looked for again, until no call can still be under way |
//! | in transaction 2 | it committed or it did not: the next row of this table or the one before |
//! | before the mails are accepted | their rows and jobs are committed; any instance sends them |
//! | between the SMTP server's acceptance and our note of it | a second copy with the same `Message-ID`: the one thing that can double |
//! | not killed, but standing still until others took it for dead | it can no longer commit; what it may have done at Google it writes down when it wakes, to be undone or aligned once more |
//!
//! A change asks Google first and commits then, as a booking does. Its claim is the referee: after 45 s it can no
//! longer commit. A claim that a failed or dead change leaves means that event and row may differ; a sweep then makes
//! the event say what the row says (*alignment*), at once and again five minutes later, since a call that was under way
//! can arrive until then. When a change succeeds after an attempt without an answer, the sweep aligns the event too:
//! that attempt may still arrive.
//!
//! | a change is killed | then |
//! |---|---|
//! | before, during or after the call to Google | the row is as it was; the event is aligned with it, and one that the change made is undone like a booking's |
//! | after it deleted the event (the type was to change) | the row still wants one: another is made, SEQUENCE rises, and both people are sent its link |
//! | in the transaction | it committed or it did not |
//! | a cancellation, after its transaction | any instance deletes the event and sends the mails |
//!
//! A lost answer of Google cannot make a second event, because every try carries the same id: Google's 409 means that
//! an earlier try worked. A second request with the same `Idempotency-Key` finds the key claimed (409) or bound (the
//! first answer again); one that asks for the same without a key finds in the same way what it asks for claimed, and
//! waits. A request that takes over the key of a dead one gives up that one's intent in the same transaction, so of the
//! two only one can commit.
//!
//! What exactly is promised, and how it was tried: `docs/reliability.md`.
//!
//! The process itself keeps nothing: all of this holds among any number of instances on one database. Leases (a mail
//! being sent, a grant being refreshed) are rows with an end, so a dead holder blocks nobody for long.
//! They rely on the servers' clocks agreeing within seconds: one whose clock disagrees with the database's by more
//! than 5 s does no background work and is not ready.
//!
//! # Decisions, with their reasons
//!
//! * **Wall time and zone are the truth; instants are derived**, by the tz database compiled in. Debian's zones and
//!   other crates' were an hour off in Vancouver, Edmonton and Casablanca in winter 2026. `starts_at` and `ends_at` are
//!   a cache for SQL, which a sweep fills for rows that Django wrote. Never `AT TIME ZONE` but for UTC.
//! * **Our mails are the only invitations**: Google gets `sendUpdates=none`. Two senders would mean two calendar
//!   entries. UID and organizer are Google's where there is an event, so that calendars see one.
//! * **A mail is rendered when it is sent**, from the rows as they are then, with a fresh link token: the queue holds
//!   no secret, and what is no longer true is dropped. `mail` stands below the features, so they pass it the rendering.
//! * **One SMTP transport**, not an enum of SMTP, folder and memory: development and tests run a small SMTP server on
//!   loopback, and so exercise the code that production runs. The pool of connections is ours: lettre's takes back a
//!   connection in the middle of a mail, and does not tell a failed login from a refused recipient.
//! * **New time rules are news.** A version of this program with a newer tz database moves the cached instants of
//!   coming interviews that its rules place elsewhere, their events and reminders, and sends both people the "updated"
//!   mail. One with an older database leaves them alone, so two versions side by side agree.
//! * **The queue (graphile_worker) carries mails only.** Undoing intents, aligning events, reminding, filling instants
//!   and removing what has expired are sweeps by interval timers in every instance. They ask the tables what is to be
//!   done, so nothing need have been queued for it, and `FOR UPDATE SKIP LOCKED` or conditional updates let instances
//!   share the work.
//! * **One list of routes**: router, table of contents and OpenAPI document come from the same `routes!`, and the door
//!   takes from the document which URLs there are, their methods, and which need credentials. How to check those it is
//!   told by `app`, since `auth` stands above it.
//! * **The API's description cannot drift**: interview bodies are read through the structs that describe them, and
//!   every answer that a test gets is held against the document.
//! * **One crypto stack**, aws-lc-rs; neither `ring` nor OpenSSL is linked. CI checks it.
//! * **Sealed grants**: OAuth secrets lie in the database as XChaCha20-Poly1305 envelopes bound to table, row and
//!   column, so that one copied elsewhere does not open. Several keys may open, the first seals: keys can be changed.
//! * **A list of any length goes out in pieces** of 256 rows or 256 KiB (`http::array`). The connection that reads a
//!   piece goes back to the pool before the client gets the piece, so a slow reader holds no connection and little
//!   memory. The price is that a long list is no snapshot.
//! * **Open or closed**: an inactive or deleted account is closed: it lets nobody in, and gets no mail but a
//!   cancellation. `Account::is_open` and `is_active AND NOT is_deleted` check this, and a test looks for SQL that
//!   checks only half.
//! * **A revocation takes effect at a whole second**, because tokens record only the second in which they were issued.
//!   The command waits for that second, so tokens issued after it work. The moment is read with the account, without
//!   another round trip.
//! * **A grant is refreshed by one request at a time**, under a lease in the database; the others wait by polling,
//!   without a connection in hand, and read the row again.
//! * **A mail is counted before Google is asked** (`mail::limits`): with a booking's intent, or after a change's claim,
//!   under an advisory lock of its recruiter. So no number of requests at once gets past the limit, and a refusal has
//!   no effect. Counting `ivs_mail` at the commit would come too late.
//! * **A sign-in counts as failed before its password is hashed**, and is taken back when it turns out not to be. One
//!   statement counts it in two rows, for the email at its peer and for the peer, so neither many at once nor several
//!   servers let more guesses through. A row's key is an HMAC of what it counts: guesses from elsewhere lock nobody
//!   out, and the table holds no names.
//! * **Every statement ends, and the pool is small and ours** (`db::pool`, over deadpool). sqlx's pool tests a
//!   connection on each release and waits without a limit. Ours tests one that was idle for a second. When a statement
//!   takes longer than a second, it asks the server on another connection: if the server is idle, the answer is lost.
//!   One dead connection retires all of its generation. Work that certainly had no effect (a read, a deadlock's victim,
//!   a refusal by a read-only server) is retried before the caller sees an error; a commit without an answer never is.
//! * **SELECT lists cast texts and integers**, since PostgreSQL refuses a prepared statement whose result type changes,
//!   and Django's `AlterField` changes it.
//! * **Sign-ins take turns by peer.** In a plain queue, the address that sends most gets most places. With turns, one
//!   address delays the others by only a password or two. Browsers with the cookie of an earlier sign-in have a lane of
//!   their own, and so have trusted clients: lanes get turns alike, and an attacker cannot get more of them with more
//!   addresses.
//! * **A refusal waits instead of hashing on**, until the slowest stored hash would be done at the machine's current
//!   speed. So its time reveals nothing about the stored hash, and the wait takes no core.
//! * **Migrations take turns by polling** `pg_try_advisory_lock`: a waiter blocked inside a statement would deadlock
//!   with `CREATE INDEX CONCURRENTLY`.
//! * **On pages the server decides, scripts only add.** All but copying, popups and the check of devices works without
//!   JavaScript. The room's script counts down what the server has counted out, then asks for the page again and puts
//!   its live part in place; readers' own times are asked of the server, whose time rules are current. Scripts know no
//!   rule, so they cannot be wrong about one. `assets/` has no dependencies, and pages load nothing else.
//! * **A form shows its warnings before it is accepted**: past times, overlaps, clocks that change. The server accepts
//!   it when it carries the digest of what was shown, by the script during typing or by the answer to sending it. So
//!   nobody schedules a second interview because the first one's answer was lost.
//! * **A mailed link's token leaves the address bar by script**, and stays in the tab's `sessionStorage`. A redirect to
//!   an address without it would need a cookie, and those who refuse cookies could not join.
//! * **A portal session opens pages, never the JSON API**, which a form of another site could send requests to. What a
//!   page's forms carry against that is an HMAC by the cookie's secret, so there is nothing to store and nothing to
//!   expire. Another HMAC by that secret binds an authorization at Google to the session that began it.
//! * **No framework of our own**: no traits with one implementation, no repositories, no second set of structs for
//!   rows.
//!
//! # Development mode
//!
//! `interviews dev` (what `cargo run` does when nothing is configured) is the production assembly with stand-ins for
//! what it talks to, over real TCP: PostgreSQL as a private cluster on a unix socket, the Google simulator, an SMTP
//! server that shows its mails as pages. What the environment sets is used instead. `serve` starts none of this.
//!
//! The cluster needs an installed PostgreSQL server, of which nothing is downloaded: programs that arrive unasked, for
//! one platform out of many, are worse than one sentence that says what to install. A small guard process waits on a
//! file lock and stops the cluster when its last user is gone, `kill -9` included, so nothing stands in the way of the
//! next start. Tests share a second cluster without fsync, and each copies a migrated template database.
//!
//! The simulator is strict where Google is strict (single-use codes bound to client, redirect URI and PKCE challenge;
//! `conferenceDataVersion`; 409 on a repeated id; a deleted event that can still be read) and can be told to fail. It
//! shares no type with `calendar`, or it would agree with our mistakes.
//!
//! # Tests
//!
//! Pure rules have unit and property tests beside them. `tests/api` goes through the front door: the production
//! assembly on a database of its own, a clock that is moved by hand, the simulator and the mailbox; jobs that are due
//! by that clock run when the test says so, and a test that leaves due or failed jobs fails. `tests/ics_parsers.rs` has
//! two parsers of others read our calendar objects. Real processes are killed, started twice and watched by
//! `tests/api/crash.rs` and its neighbours; a relay in `tests/api/outages.rs` silences the network to PostgreSQL.
//! Whatever answer a test gets is held against the OpenAPI document (`tests/api/support/document.rs`), and
//! `tests/openapi_client.rs` has a linter and a generator of clients read that. `tests/browser` uses the portal in
//! Chromium, and has axe-core look at every page. `authorisation.rs` asks every route as everybody, `secrecy.rs` looks
//! for secrets where they do not belong, `hostile.rs` sends what no client should. `tests/zone_rules.rs` compares our
//! instants with another implementation's. No mocks; sleeps only where time itself is tested.
//!
//! `tests/chaos` (feature `chaos`) kills servers at random moments and at the places marked `crash_point!`, silences the
//! network to PostgreSQL, locks tables and alters columns while people work. Then it compares interviews, events and
//! mails: `docs/reliability.md`. `bench/` is the load test, `cargo bench`: `docs/performance.md`; what follows for large
//! installations is in `docs/scale.md`.

/// A named place where the chaos tests (`tests/chaos`) kill the process. Without the feature `chaos` it is nothing.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(feature = "chaos")]
        fail::fail_point!($name, |_| {
            eprintln!("killed at {}", $name);
            std::process::abort()
        });
    };
}

// A sixth less of the server's time for small answers than with libc's (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// ground: no database, no HTTP
pub mod clock;
pub mod zone;
pub mod icalendar;
pub mod secret;
pub mod colour;
pub mod config;
pub mod telemetry;
pub mod metrics;
pub mod gate;
// floor
pub mod db;
pub mod smtp;
pub mod context;
pub mod http;
pub mod jobs;
pub mod mail;
pub mod sweep;
// features
pub mod auth;
pub mod calendar;
pub mod notification;
pub mod interview;
pub mod portal;
pub mod operations;
pub mod openapi;
pub mod app;
// development only
#[cfg(feature = "dev")]
pub mod dev;
