//! The `interviews` program: its commands, and nothing else.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use interviews::{app, auth, calendar, clock::Clock, config::Settings, db, interview, mail, telemetry};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;

/// Schedules interviews: Google Meet, phone and in person, with correct invitations.
///
/// Without a command: `serve` where DATABASE_URL is set, else `dev`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything needed to try the server on this machine: PostgreSQL, demo people, a Google simulator, a mailbox
    #[cfg(feature = "dev")]
    Dev,
    /// Run the server
    Serve,
    /// Bring the database up to date and exit
    Migrate,
    /// Make a user of an installation without Django; the password is read from the standard input
    CreateUser(NewUser),
    /// Write a sample of every mail into a folder
    PreviewMail { dir: PathBuf },
    /// Stop the private PostgreSQL when nobody uses it any more
    #[cfg(feature = "dev")]
    #[command(name = interviews::dev::postgres::GUARD_COMMAND, hide = true)]
    PostgresGuard { dir: PathBuf },
}

#[derive(clap::Args)]
struct NewUser {
    #[arg(long)]
    email: String,
    #[arg(long, default_value = "")]
    first_name: String,
    #[arg(long, default_value = "")]
    last_name: String,
    /// Make a recruiter with this company; without it, a candidate
    #[arg(long)]
    company: Option<String>,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or_else(default_command);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("interviews: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

fn default_command() -> Command {
    #[cfg(feature = "dev")]
    if ["DATABASE_URL", "DATABASE_URL_FILE", "CONFIG_FILE"]
        .into_iter()
        .all(|name| interviews::config::environment(name).is_none())
    {
        return Command::Dev;
    }
    Command::Serve
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        // Waits for years on a file lock: no runtime, no threads.
        #[cfg(feature = "dev")]
        Command::PostgresGuard { dir } => interviews::dev::postgres::guard(&dir),
        command => tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run_async(command)),
    }
}

async fn run_async(command: Command) -> anyhow::Result<()> {
    match command {
        #[cfg(feature = "dev")]
        Command::Dev => interviews::dev::run().await,
        #[cfg(feature = "dev")]
        Command::PostgresGuard { .. } => Ok(()),
        Command::Serve => serve().await,
        Command::Migrate => {
            let settings = settings()?;
            let pool = db::connect(settings.database_url.expose_secret(), 2).await?;
            db::migrate(&pool).await
        }
        Command::CreateUser(new) => create_user(new).await,
        Command::PreviewMail { dir } => {
            let mut samples = interview::emails::samples();
            samples.extend(calendar::emails::samples());
            mail::write_preview(&dir, &samples)?;
            println!("{} mails in {}", samples.len(), dir.display());
            Ok(())
        }
    }
}

fn settings() -> anyhow::Result<Settings> {
    let settings = Settings::load()?;
    telemetry::init(&settings.log_filter)?;
    Ok(settings)
}

async fn serve() -> anyhow::Result<()> {
    let settings = settings()?;
    let address = (settings.host.clone(), settings.port);
    let pool = db::connect(settings.database_url.expose_secret(), settings.database_max_connections).await?;
    db::migrate(&pool).await?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("cannot listen on {}:{}: {error}; set HOST and PORT", settings.host, settings.port)
    })?;
    tracing::info!(address = %listener.local_addr()?, public_url = settings.public_url, "serving");
    let ctx = app::context(settings, Clock::System, pool)?;
    app::serve(ctx, listener, app::stop_signal()?).await
}

async fn create_user(new: NewUser) -> anyhow::Result<()> {
    let settings = settings()?;
    let pool = db::connect(settings.database_url.expose_secret(), 2).await?;
    db::migrate(&pool).await?;
    let password = std::io::read_to_string(std::io::stdin())?.trim_end_matches(['\r', '\n']).to_owned();
    let user = auth::NewUser {
        email: new.email,
        password: password.into(),
        first_name: new.first_name,
        last_name: new.last_name,
        role: match new.company {
            Some(company) => auth::Role::Recruiter { company: Some(company) },
            None => auth::Role::Applicant,
        },
    };
    let mut tx = pool.begin().await?;
    let id = auth::create_user(&mut tx, Clock::System.now(), user).await?;
    tx.commit().await?;
    println!("made user {id}");
    Ok(())
}
