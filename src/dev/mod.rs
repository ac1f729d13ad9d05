//! `cargo run`: the whole product on one machine, with nothing configured.
//!
//! A private PostgreSQL, demo people, a Google simulator and a mailbox around the production assembly. Everything it
//! keeps lies in one folder and survives a restart; whatever the environment sets is taken instead. `serve` uses none
//! of this, and a build without the feature `dev` does not have it.

pub mod google;
pub mod mailbox;
pub mod postgres;
pub mod seed;

use std::{
    collections::HashMap,
    fs,
    io::{ErrorKind, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Days, Utc};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use self::{
    google::Simulator,
    mailbox::Mailbox,
    postgres::{Cluster, Durability},
};
use crate::{
    app,
    clock::{Clock, random_bytes},
    config::{Settings, environment},
    db, telemetry,
};

const DATABASE: &str = "interviews";
const CLIENT_ID: &str = "simulated-client";
const GOOGLE_ACCOUNTS: [&str; 2] = ["rita.recruiter@gmail.test", "otto.other@gmail.test"];

/// The addresses of one `cargo run`: the server's port and the three above it.
struct Ports {
    server: TcpListener,
    google: TcpListener,
    mailbox: TcpListener,
    smtp: TcpListener,
}

/// Runs everything until Ctrl-C, then stops all that it started.
pub async fn run() -> anyhow::Result<()> {
    let stop = app::stop_signal()?;
    let ports = Ports::bind()?;
    let folder = |name: &str| environment(name).map(PathBuf::from);
    let dir = match folder("DEV_DATA_DIR") {
        Some(dir) => std::path::absolute(dir)?,
        None => postgres::default_data_dir(folder("XDG_DATA_HOME").as_deref(), folder("HOME").as_deref())?,
    };
    fs::create_dir_all(&dir)
        .with_context(|| format!("cannot write {}: set DEV_DATA_DIR to a folder that can be written", dir.display()))?;
    if is_set("DATABASE_URL") {
        return run_on(None, &dir, ports, stop).await;
    }
    let cluster = Cluster::start(&dir.join("postgres"), Durability::Durable, &std::env::current_exe()?, say).await?;
    let outcome = run_on(Some(&cluster), &dir, ports, stop).await;
    say("Stopping PostgreSQL.");
    cluster.stop().await?;
    outcome
}

/// Whether the environment has this setting, itself or as a file.
fn is_set(name: &str) -> bool {
    [name, &format!("{name}_FILE")].into_iter().any(|name| environment(name).is_some())
}

async fn run_on(cluster: Option<&Cluster>, dir: &Path, ports: Ports, stop: CancellationToken) -> anyhow::Result<()> {
    let mut stand_ins = stand_ins(dir, &ports)?;
    if let Some(cluster) = cluster {
        cluster.create_database(DATABASE).await?;
        stand_ins.insert("DATABASE_URL", cluster.url(DATABASE));
    }
    let settings = Settings::over_stand_ins(&stand_ins, environment)?;
    telemetry::init(settings.log_filter.clone(), settings.log_format)?;
    let pool = db::connect(settings.database_url.expose_secret(), settings.pool).await?;
    db::migrate(&pool).await?;
    seed::demo(&pool, &Clock::System, say).await?;

    let options = google::Options {
        clock: Clock::System,
        client_id: CLIENT_ID.to_owned(),
        client_secret: stand_ins["GOOGLE_CLIENT_SECRET"].clone(),
        state_file: Some(dir.join("google.json")),
        accounts: GOOGLE_ACCOUNTS.map(str::to_owned).to_vec(),
    };
    let google = Simulator::on(listener(ports.google)?, options)?;
    let mailbox = Mailbox::on(listener(ports.smtp)?, listener(ports.mailbox)?, Some(dir.join("mails")))?;
    let ctx = app::context(settings, Clock::System, pool, stop)?;
    let server = listener(ports.server)?;
    let database = cluster.map(|cluster| cluster.url(DATABASE));
    let urls = [&ctx.settings.public_url, google.url(), mailbox.url()];
    println!("{}", banner(urls, database.as_deref(), Clock::System.now()));
    app::serve(ctx, server).await
}

/// What is used where the environment sets nothing.
fn stand_ins(dir: &Path, ports: &Ports) -> anyhow::Result<HashMap<&'static str, String>> {
    let [google, mailbox] = [&ports.google, &ports.mailbox].map(|listener| listener.local_addr());
    let (url_of_google, mailbox) = (format!("http://{}", google?), format!("http://{}", mailbox?));
    let mut settings = HashMap::from([
        ("SECRET_KEY", kept_secret(&dir.join("secret-key"))?),
        ("TOKEN_ENCRYPTION_KEY", kept_secret(&dir.join("token-encryption-key"))?),
        ("GOOGLE_CLIENT_ID", CLIENT_ID.to_owned()),
        ("GOOGLE_CLIENT_SECRET", kept_secret(&dir.join("google-client-secret"))?),
        ("EMAIL_HOST", Ipv4Addr::LOCALHOST.to_string()),
        ("EMAIL_PORT", ports.smtp.local_addr()?.port().to_string()),
        ("EMAIL_USE_TLS", "false".to_owned()),
        ("LOG_FILTER", "warn".to_owned()),
        // There is no SPA here; the mailbox shows where it would be.
        ("FRONTEND_URL", mailbox),
    ]);
    settings.extend(google::settings(&url_of_google));
    Ok(settings)
}

/// A random secret of 32 bytes (base64) in a file that only we can read, made at the first run.
fn kept_secret(file: &Path) -> anyhow::Result<String> {
    let new = BASE64_STANDARD.encode(random_bytes::<32>());
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut file) => {
            file.write_all(new.as_bytes())?;
            Ok(new)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let kept = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            match kept.trim() {
                "" => bail!("{} is empty: delete it", file.display()),
                kept => Ok(kept.to_owned()),
            }
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", file.display())),
    }
}

impl Ports {
    fn bind() -> anyhow::Result<Ports> {
        let port: u16 = match environment("PORT") {
            Some(text) => text.parse().context("PORT is not a port number")?,
            None => 8000,
        };
        let bind = |offset: u16| {
            let port = port.checked_add(offset).context("PORT is too high: three ports above it are needed too")?;
            TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => anyhow::anyhow!(
                    "port {port} is busy: stop what uses it, or choose another with PORT (it and the three above it are used)"
                ),
                _ => anyhow::anyhow!("cannot listen on port {port}: {error}"),
            })
        };
        Ok(Ports { server: bind(0)?, google: bind(1)?, mailbox: bind(2)?, smtp: bind(3)? })
    }
}

fn listener(listener: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn say(sentence: &str) {
    println!("{sentence}");
}

/// What a newcomer needs: where everything is, who can sign in, and the main job as four lines to paste.
/// The address of a private database holds no secret; that of another is not shown.
fn banner([server, google, mailbox]: [&str; 3], database: Option<&str>, now: DateTime<Utc>) -> String {
    let date = now.date_naive().checked_add_days(Days::new(7)).unwrap_or(now.date_naive());
    let [rita, ..] = seed::LOGINS;
    let database = database.map(|url| format!("  Database   {url}\n")).unwrap_or_default();
    let logins: String = seed::LOGINS.iter().map(|(email, role)| format!("    {email:<22} {role}\n")).collect();
    format!(
        r#"
UmEmployed Interviews is running. Ctrl-C stops it and all it started.

  Portal     {server}/
  API        {server}/api/
  Mailbox    {mailbox}/
  Google     {google}/_sim/   (a simulator)
{database}
  Sign in with the password {password} as
{logins}
  The main job, in four lines to paste:

TOKEN=$(curl -s {server}/api/users/login/ -H 'Content-Type: application/json' -d '{{"email":"{email}","password":"{password}"}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/'); echo "$TOKEN"
curl -sL -o /dev/null -w '%{{url_effective}}\n' "$(curl -s {server}/api/company/google/connect/ -H "Authorization: Bearer $TOKEN" | sed 's/.*"authorization_url":"\([^"]*\)".*/\1/')&_sim_allow=1"
curl -s {server}/api/company/google/create-interview/ -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"candidate_id":{candidate},"job_id":{job},"date":"{date}","time":"14:00","timezone":"America/New_York","notes":"Looking forward to it"}}'; echo
curl -s {server}/api/company/interviews/ -H "Authorization: Bearer $TOKEN"; echo
"#,
        email = rita.0,
        password = seed::PASSWORD,
        candidate = seed::CANDIDATE,
        job = seed::JOB,
    )
}
