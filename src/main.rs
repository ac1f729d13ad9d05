//! The `interviews` program: its commands, and nothing else.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use interviews::{
    app, auth, calendar,
    clock::Clock,
    config::{PoolLimits, Settings},
    db, interview, mail, operations, telemetry,
};
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
    /// Sign a user out: revoke Bearer tokens issued until now (here, not in Django), and end portal sessions
    RevokeTokens {
        /// The user; an email address is compared case-sensitively
        #[arg(long, value_name = "ID-or-EMAIL")]
        user: String,
    },
    /// Show the queue: failed, running, due and waiting jobs
    Jobs {
        #[command(subcommand)]
        command: Option<JobsCommand>,
    },
    /// Show mails, the newest first
    #[command(args_conflicts_with_subcommands = true)]
    Mails {
        #[command(subcommand)]
        command: Option<MailsCommand>,
        #[command(flatten)]
        wanted: WantedMails,
    },
    /// Write a sample of every mail into a folder
    PreviewMail { dir: PathBuf },
    /// Stop the private PostgreSQL when nobody uses it any more
    #[cfg(feature = "dev")]
    #[command(name = interviews::dev::postgres::GUARD_COMMAND, hide = true)]
    PostgresGuard { dir: PathBuf },
}

#[derive(Subcommand)]
enum JobsCommand {
    /// Run a failed job again
    Retry { id: i64 },
}

#[derive(Subcommand)]
enum MailsCommand {
    /// Send a mail once more; ID may be the beginning of an id
    Resend { id: String },
}

#[derive(clap::Args)]
struct WantedMails {
    /// Those in this state alone
    #[arg(long, value_parser = mail::State::ALL.map(mail::State::as_str))]
    state: Option<String>,
    /// Those about this interview alone
    #[arg(long, value_name = "ID")]
    interview: Option<i64>,
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
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
    // Where to die, from the variable FAILPOINTS.
    #[cfg(feature = "chaos")]
    let _crash_points = fail::FailScenario::setup();
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
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let done = runtime.block_on(run_async(command));
            // A thread that still looks up a name must not keep the process.
            runtime.shutdown_timeout(Duration::from_secs(1));
            done
        }
    }
}

async fn run_async(command: Command) -> anyhow::Result<()> {
    match command {
        #[cfg(feature = "dev")]
        Command::Dev => interviews::dev::run().await,
        #[cfg(feature = "dev")]
        Command::PostgresGuard { .. } => Ok(()),
        Command::Serve => serve().await,
        Command::Migrate => db::migrate(&connect(&settings()?).await?).await,
        Command::CreateUser(new) => create_user(new).await,
        Command::Jobs { command } => {
            let (db, now) = (connect_migrated().await?, Clock::System.now());
            print(&match command {
                None => operations::jobs_table(&db, now).await?,
                Some(JobsCommand::Retry { id }) => operations::retry_job(&db, id, now).await?,
            })
        }
        Command::Mails { command, wanted: WantedMails { state, interview, limit } } => {
            let (db, now) = (connect_migrated().await?, Clock::System.now());
            let wanted = mail::Wanted { state, interview_id: interview, limit };
            print(&match command {
                None => operations::mails_table(&db, &wanted).await?,
                Some(MailsCommand::Resend { id }) => operations::resend_mail(&db, &id, now).await?,
            })
        }
        Command::RevokeTokens { user } => {
            let db = connect_migrated().await?;
            let now = db::now(&db).await?;
            let (done, good_from) = operations::revoke_tokens(&db, now, &user).await?;
            // Somebody who signs in once this command has ended gets a token that counts.
            Clock::System.sleep((good_from - now).to_std()?).await;
            print(&done)
        }
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
    telemetry::init(settings.log_filter.clone(), settings.log_format)?;
    Ok(settings)
}

/// A few connections, for a command.
async fn connect(settings: &Settings) -> anyhow::Result<db::Pool> {
    db::connect(settings.database_url.expose_secret(), PoolLimits { connections: 2, ..settings.pool }).await
}

/// For a command that only looks after what is there.
async fn connect_migrated() -> anyhow::Result<db::Pool> {
    let db = connect(&settings()?).await?;
    anyhow::ensure!(db::is_migrated(&db).await, "the database is not up to date: run `interviews migrate`");
    Ok(db)
}

/// Unlike `println!` does not mind a reader that has read enough, such as `head`.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

async fn serve() -> anyhow::Result<()> {
    let settings = settings()?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let address = (settings.host.clone(), settings.port);
    let pool = db::connect(settings.database_url.expose_secret(), settings.pool).await?;
    db::migrate(&pool).await?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("cannot listen on {}:{}: {error}; set HOST and PORT", settings.host, settings.port)
    })?;
    tracing::info!(address = %listener.local_addr()?, public_url = settings.public_url, "serving");
    let ctx = app::context(settings, Clock::System, pool, app::stop_signal()?)?;
    app::serve(ctx, listener).await
}

async fn create_user(new: NewUser) -> anyhow::Result<()> {
    let pool = connect(&settings()?).await?;
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
    let id = auth::create_user(&pool, Clock::System.now(), user).await?;
    println!("made user {id}");
    Ok(())
}
