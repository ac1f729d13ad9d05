//! The assembly: which routes there are, which jobs, what runs beside the requests, and how all of it stops.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, http::Method};
use chrono::TimeDelta;
use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    auth, calendar,
    clock::Clock,
    config::Settings,
    context::{Context, Parts},
    db,
    gate::Gate,
    http::{
        door::{Authenticate, door},
        routes::Routes,
        server,
    },
    interview::{self, Reach},
    jobs::{self, Job, Outcome},
    mail::{self, Email, Kind, Mail},
    metrics::Metrics,
    notification, openapi, operations, portal,
    smtp::Smtp,
    sweep::{self, Sweep},
};

/// How long a graceful stop waits for requests, bookings and jobs to finish.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Puts the shared parts together; `stopping` begins the graceful stop.
#[allow(clippy::disallowed_methods, reason = "the one client, with time limits")]
pub fn context(settings: Settings, clock: Clock, db: db::Pool, stopping: CancellationToken) -> anyhow::Result<Context> {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .pool_idle_timeout(Duration::from_secs(20))
        .timeout(Duration::from_secs(10))
        .build()
        .context("the HTTP client")?;
    let smtp = settings.email.as_ref().map(Smtp::new).transpose()?;
    let (metrics, hashing, tasks) = (Metrics::new()?, Gate::default(), TaskTracker::new());
    let (clock_is_off, waiting) = (AtomicBool::new(false), Mutex::default());
    Ok(Context::new(Parts {
        settings,
        clock,
        clock_is_off,
        db,
        http,
        smtp,
        metrics,
        waiting,
        hashing,
        stopping,
        tasks,
    }))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "UmEmployed Interviews"),
    security(("bearer" = [])),
    tags(
        (name = "users", description = "Signing in"),
        (name = "google", description = "Connecting a Google Calendar"),
        (name = "interviews", description = "Scheduling interviews, and taking part in them"),
        (name = "notifications", description = "What a person has been told"),
    ),
)]
struct Document;

/// Every route of the server; the table of contents, and with it the OpenAPI document.
fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(auth::routes())
        .merge(calendar::routes())
        .merge(interview::scheduling_routes())
        .nest("/api/company/interviews/", interview::routes())
        .nest("/api/interviews/", interview::routes())
        .merge(notification::routes())
        .merge(portal::routes())
        .merge(operations::routes())
}

/// What the door lets in.
fn known(annotated: &utoipa::openapi::OpenApi) -> Routes {
    openapi::PATHS.into_iter().fold(Routes::from_openapi(annotated), |known, path| known.with(path, &[Method::GET]))
}

/// Every URL that the server answers, pages and probes included, as its door knows them.
pub fn table_of_contents() -> Routes {
    known(routes().get_openapi())
}

/// The OpenAPI document, as `/openapi.json` has it.
pub fn document() -> anyhow::Result<Value> {
    Ok(openapi::document(routes().get_openapi())?)
}

/// The whole service, doors included.
pub fn router(ctx: Context) -> anyhow::Result<Router> {
    let (router, document) = routes().split_for_parts();
    let handlers = router.with_state(ctx.clone()).merge(openapi::router(openapi::document(&document)?));
    let known = known(&document);
    let (for_pages, for_callers) = (ctx.clone(), ctx.clone());
    let error_page = Arc::new(move |method: &Method, status| portal::error_page(&for_pages, method, status));
    let authenticate: Authenticate = Arc::new(move |route, request| {
        let ctx = for_callers.clone();
        Box::pin(async move { auth::authenticate(&ctx, &route, request).await })
    });
    Ok(door(handlers, known, &ctx, error_page, authenticate))
}

/// Runs one job of the queue.
pub fn run_job(ctx: Context, job: Job) -> Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + Send>> {
    Box::pin(async move {
        match job {
            Job::SendMail { mail } => mail::send(&ctx, mail, |mail| render(&ctx, mail)).await,
        }
    })
}

/// The words of a queued mail; `None` when there is no longer anything true to say.
async fn render(ctx: &Context, mail: Mail) -> anyhow::Result<Option<Email>> {
    match mail.kind {
        Kind::Scheduled | Kind::Updated | Kind::Cancelled | Kind::Reminder => {
            interview::emails::render(ctx, mail).await
        }
        Kind::GoogleConnected | Kind::GoogleDisconnected => calendar::emails::render(ctx, mail).await,
    }
}

/// The recurring work of every instance. Tests run each sweep once, from the same list.
static SWEEPS: &[Sweep] = &[
    Sweep::new("calendar::undo_intents", 5, |ctx| async move { calendar::undo_intents(&ctx).await }.boxed()),
    Sweep::new("calendar::forget_grants_of_deleted", 600, |ctx| {
        async move { calendar::forget_grants_of_deleted(&ctx).await }.boxed()
    }),
    Sweep::new("interview::align_events", 5, |ctx| async move { interview::align_events(&ctx).await }.boxed()),
    Sweep::new("interview::fill_instants_soon", 30, |ctx| {
        async move { interview::fill_instants(&ctx, Reach::Soon).await }.boxed()
    }),
    Sweep::new("interview::fill_instants_ahead", 30, |ctx| {
        async move { interview::fill_instants(&ctx, Reach::Ahead).await }.boxed()
    })
    .as_walk(),
    Sweep::new("interview::fill_instants_all", 3600, |ctx| {
        async move { interview::fill_instants(&ctx, Reach::All).await }.boxed()
    })
    .as_walk(),
    Sweep::new("interview::remind", 5, |ctx| async move { interview::remind(&ctx).await }.boxed()),
    // One for each module, so that a locked table keeps no other module's rows from being removed.
    Sweep::new("auth::remove_expired", 600, |ctx| async move { auth::remove_expired(&ctx).await }.boxed()),
    Sweep::new("interview::remove_expired", 600, |ctx| async move { interview::remove_expired(&ctx).await }.boxed()),
    Sweep::new("calendar::remove_expired", 600, |ctx| async move { calendar::remove_expired(&ctx).await }.boxed()),
    Sweep::new("mail::remove_expired", 600, |ctx| async move { mail::remove_expired(&ctx).await }.boxed()),
    Sweep::new("jobs::remove_replaced", 600, |ctx| async move { Ok(jobs::remove_replaced(&ctx.db).await?) }.boxed()),
    Sweep::new("mail::requeue_orphans", 60, |ctx| async move { mail::requeue_orphans(&ctx).await }.boxed()),
];

/// A pass of every sweep, one after the other; what `serve` does on its own schedule.
pub async fn sweep(ctx: &Context) -> anyhow::Result<()> {
    for sweep in SWEEPS {
        sweep.pass(ctx).await?;
    }
    Ok(())
}

/// Keeps comparing this machine's clock with the database's, since leases and intents hold only between servers whose
/// clocks agree. While the two disagree, this instance runs no sweeps and no jobs, and is not ready.
async fn watch_clock(ctx: Context, stop: CancellationToken) {
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            compare_clocks(&ctx).await;
        }
    };
    _ = stop.run_until_cancelled(watching).await;
}

/// While the database is unreachable, the last result stands.
async fn compare_clocks(ctx: &Context) {
    const TOLERATED: TimeDelta = TimeDelta::seconds(5);
    let before = ctx.clock.now();
    let Ok(theirs) = db::now(&ctx.db.probing()).await else { return };
    // Theirs was read at some moment between these two: a slow answer is no wrong clock.
    let (ahead, behind) = (before - theirs, theirs - ctx.clock.now());
    let is_off = ahead.max(behind) > TOLERATED;
    if is_off {
        let seconds = if ahead > behind { ahead.num_seconds() } else { -behind.num_seconds() };
        tracing::error!(seconds, "this machine's clock is ahead of the database's (behind it where negative): set it");
    }
    ctx.set_clock_off(is_off);
}

/// Serves requests, runs jobs and sweeps, until the stop begins; then finishes what has begun.
pub async fn serve(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let stop = ctx.stopping.clone();
    let beside = TaskTracker::new();
    compare_clocks(&ctx).await;
    beside.spawn(watch_clock(ctx.clone(), stop.clone()));
    beside.spawn(jobs::work(ctx.clone(), run_job, stop.clone()));
    sweep::run(SWEEPS, &ctx, &beside, &stop);
    beside.close();

    let serving = server::serve(listener, router(ctx.clone())?, &ctx, stop.clone());
    let finish = async {
        serving.await;
        beside.wait().await;
        ctx.tasks.close();
        ctx.tasks.wait().await;
    };
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_PATIENCE).await;
    };
    tokio::select! {
        () = finish => {}
        () = patience => tracing::warn!("stopping although something still runs; the next start takes it up"),
    }
    ctx.db.close();
    Ok(())
}

/// Cancelled by Ctrl-C or by SIGTERM; a second one ends the process at once.
#[allow(clippy::disallowed_methods, reason = "whoever asks twice does not want to wait")]
pub fn stop_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if token.is_cancelled() {
                std::process::exit(130);
            }
            tracing::info!("stopping");
            token.cancel();
        }
    });
    Ok(stop)
}
