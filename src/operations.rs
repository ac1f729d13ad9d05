//! What an operator sees of the server: the probes, the metrics, and the tables of the commands `jobs` and `mails`.
//!
//! Promises: an address is [`masked`], and a scrape is answered within seconds whatever the database does.

use std::{fmt::Write as _, time::Duration};

use anyhow::bail;
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{self, Revoked},
    context::Context,
    db, http, jobs,
    mail::{self, Resent, Wanted},
    metrics::{self, Gauge},
    telemetry::masked,
    zone,
};

/// How long the probe waits for the database.
const PROBE: Duration = Duration::from_millis(1500);
/// How long a scrape waits for the database.
const SCRAPE: Duration = Duration::from_secs(2);
/// What a terminal shows in a line.
const COLUMNS: usize = 100;

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(scrape))
}

/// Whether the process serves, and which time rules it has; asks nothing else.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses((status = 200)))]
async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok", "tzdb": zone::tzdb_version() }))
}

/// Whether requests can be answered: the database is there, migrated and can be written, and the clocks agree. Names
/// the sweeps that are overdue.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()), responses((status = 200), (status = 503)))]
async fn readyz(State(ctx): State<Context>) -> (StatusCode, Json<Value>) {
    let is_migrated = async { db::is_migrated(&ctx.db.probing()).await };
    if ctx.clock_is_off() || !tokio::time::timeout(PROBE, is_migrated).await.unwrap_or(false) {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unavailable" })));
    }
    let overdue = ctx.metrics.sweeps(ctx.clock.now()).into_iter().filter(|(_, is_overdue)| *is_overdue);
    let overdue: Vec<&str> = overdue.map(|(name, _)| name).collect();
    // Still ready: otherwise a locked table would take every instance out of service.
    let body = match overdue.is_empty() {
        true => json!({ "status": "ready" }),
        false => json!({ "status": "ready", "overdue_sweeps": overdue }),
    };
    (StatusCode::OK, Json(body))
}

/// What this instance has counted, and what waits in the database, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(()),
    responses((status = 200, content_type = "text/plain; version=0.0.4", body = String)))]
async fn scrape(State(ctx): State<Context>) -> http::Result<impl IntoResponse> {
    // Before the scrape takes one itself.
    let (size, idle) = ctx.db.open_and_idle();
    let backlog = tokio::time::timeout(SCRAPE, backlog(&ctx)).await.ok().and_then(Result::ok);
    let number = |name, help, value| Gauge { name, help, label: None, values: vec![("", value)] };
    let overdue = ctx.metrics.sweeps(ctx.clock.now());
    let mut gauges = vec![
        number("database_up", "Whether the database answered this scrape.", i64::from(backlog.is_some())),
        Gauge {
            name: "database_connections",
            help: "Connections of this instance for requests.",
            label: Some("state"),
            values: vec![("in_use", (size - idle).max(0)), ("idle", idle)],
        },
        number("logins_waiting", "Sign-ins that wait for their turn.", ctx.hashing.waiting() as i64),
        number(
            "database_connections_max",
            "How many connections requests may have; credentials, probes and the job queue have seven besides.",
            ctx.db.most(),
        ),
        Gauge {
            name: "sweep_overdue",
            help: "Whether a sweep is overdue.",
            label: Some("sweep"),
            values: overdue.into_iter().map(|(name, is_overdue)| (name, i64::from(is_overdue))).collect(),
        },
    ];
    gauges.extend(backlog.into_iter().flatten());
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], ctx.metrics.text(&gauges)?))
}

/// What waits to be done, by any instance.
async fn backlog(ctx: &Context) -> sqlx::Result<[Gauge; 2]> {
    let mut conn = ctx.db.acquire().await?;
    let (jobs, mails) = (jobs::count(&mut conn, ctx.clock.now()).await?, mail::count_queued(&mut conn).await?);
    Ok([
        Gauge { name: "jobs", help: "Jobs in the queue.", label: Some("state"), values: jobs.to_vec() },
        Gauge { name: "emails_queued", help: "Mails to be sent.", label: Some("kind"), values: mails },
    ])
}

/// The queue as a table.
pub async fn jobs_table(db: &db::Pool, now: DateTime<Utc>) -> anyhow::Result<String> {
    let rows = jobs::list(db, now).await?.into_iter().map(|job| {
        let field = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields = job.payload.as_object().into_iter().flatten();
        let (kind, subject): (Vec<_>, Vec<_>) = fields.partition(|(name, _)| *name == "job");
        let words = |fields: Vec<(&String, &Value)>| fields.iter().map(|(_, value)| field(value)).collect::<Vec<_>>();
        let tries = format!("{}/{}", job.attempts, job.max_attempts);
        let words = [words(kind), words(subject)].map(|words| words.join(" "));
        let [kind, subject] = words;
        [job.id.to_string(), job.state, kind, subject, shown(job.run_at), tries, job.last_error.unwrap_or_default()]
    });
    Ok(table(["ID", "STATE", "KIND", "SUBJECT", "RUN AT (UTC)", "TRIES", "LAST ERROR"], rows.collect()))
}

/// Queues a failed job again; says so in a sentence.
pub async fn retry_job(db: &db::Pool, id: i64, now: DateTime<Utc>) -> anyhow::Result<String> {
    match jobs::retry(db, id, now).await?.as_deref() {
        Some("failed") => Ok(format!("Job {id} is due now.\n")),
        Some(state) => bail!("job {id} has not failed: it is {state}"),
        None => bail!("there is no job {id}"),
    }
}

/// Mails as a table, the newest first.
pub async fn mails_table(db: &db::Pool, wanted: &Wanted) -> anyhow::Result<String> {
    let rows = mail::list(db, wanted).await?.into_iter().map(|mail| {
        let id = mail.id.to_string()[..8].to_owned();
        let interview = mail.interview_id.map(|id| id.to_string()).unwrap_or_default();
        let (when, to, tries) = (shown(mail.queued_at), masked(&mail.recipient), mail.attempts.to_string());
        [id, when, mail.kind, interview, to, mail.state.as_str().to_owned(), tries, mail.error.unwrap_or_default()]
    });
    Ok(table(["ID", "QUEUED (UTC)", "KIND", "INTERVIEW", "TO", "STATE", "TRIES", "ERROR"], rows.collect()))
}

/// Sends the mail whose id begins so once more; says in a sentence what that comes to.
pub async fn resend_mail(db: &db::Pool, beginning: &str, now: DateTime<Utc>) -> anyhow::Result<String> {
    let id = match mail::find(db, beginning).await?.as_slice() {
        [] => bail!("there is no mail whose id begins with {beginning}"),
        [id] => *id,
        _ => bail!("several mails have ids that begin with {beginning}: give more of it"),
    };
    let sentence = match mail::resend(db, id, now).await? {
        Resent::Again { state: mail::State::Sent } => {
            "was sent already; a second copy, with the same Message-ID, is due now".to_owned()
        }
        Resent::Again { state } => format!("was {}; it is queued again and due now", state.as_str()),
        Resent::Hurried { next: Some(next) } => {
            format!("is still queued; its next try, at {} UTC, is due now", next.format("%F %T"))
        }
        Resent::Hurried { next: None } => "is still queued; its next try is due now".to_owned(),
        Resent::BeingSent => bail!("mail {id} is being sent at this moment"),
        Resent::Outdated => bail!("mail {id} would be dropped: the interview has changed or begun since"),
        Resent::Unknown => bail!("mail {id} is gone"),
    };
    Ok(format!("Mail {id} {sentence}.\n"))
}

/// Ends a user's Bearer tokens and portal sessions; says so, and from when on new tokens are good.
pub async fn revoke_tokens(db: &db::Pool, now: DateTime<Utc>, user: &str) -> anyhow::Result<(String, DateTime<Utc>)> {
    let Revoked { user_id, from, sessions } = auth::revoke_tokens(db, now, user).await?;
    let (until, plural) = (from.format("%F %T"), if sessions == 1 { "" } else { "s" });
    let sentence = format!(
        "Bearer tokens of user {user_id} issued before {until} UTC are invalid here; {sessions} portal session{plural} \
         ended.\nDjango still accepts such tokens until they expire.\n"
    );
    Ok((sentence, from))
}

fn shown(at: DateTime<Utc>) -> String {
    at.format("%m-%d %H:%M:%S").to_string()
}

/// Aligned columns. The last one may be long: what does not fit into a line gets one of its own.
fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let head = head.map(str::to_owned);
    let width = |text: &str| text.chars().count();
    let lines = || std::iter::once(&head).chain(&rows);
    let widths: Vec<usize> =
        (0..N - 1).map(|column| lines().map(|line| width(&line[column])).max().unwrap_or_default()).collect();
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        let (cells, last) = (cells.collect::<String>(), &line[N - 1]);
        let last = match width(&cells) + width(last) <= COLUMNS {
            true => last.to_owned(),
            false => format!("\n    {last}"),
        };
        let line = format!("{cells}{last}");
        for line in line.lines() {
            _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_what_does_not_fit_gets_a_line_of_its_own() {
        let row = |id: &str, error: &str| [id.to_owned(), "élan".to_owned(), error.to_owned()];
        let long = "x".repeat(90);
        let text = table(["ID", "TO", "ERROR"], vec![row("1", ""), row("12345", "refused"), row("7", &long)]);
        let expected = format!("ID     TO    ERROR\n1      élan\n12345  élan  refused\n7      élan\n    {long}\n");
        assert_eq!(text, expected);
    }
}
