//! Chaos: several servers on one database are killed, paused and ended again and again while people use them, Google
//! and SMTP misbehave and PostgreSQL crashes, falls silent, can only be read and is locked; then interviews, events and mails are compared, each read from its own
//! side.
//!
//!     cargo test --features chaos --test chaos                  # three minutes
//!     cargo test --features chaos --test chaos -- --operations 20000 --kills 500 --seed 1 --servers 5 --patience 15
//!
//! A seed fixes who does what, which call goes wrong how, and when and where servers die; what the processes make of it
//! in which order is the machine's. Exits with an error, and says what is wrong, when anything was lost or doubled.
//! `docs/reliability.md` has the figures of a long run and what follows from them.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the program: they have clients and folders of their own"
)]

mod faults;
mod figures;
mod outages;
mod people;
mod servers;
#[allow(dead_code, reason = "the tests of the API use the rest")]
#[path = "../api/support/mod.rs"]
mod support;
mod verdict;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{figures::Figures, outages::Outages, people::People, servers::Servers, support::process::World};

#[derive(Parser)]
struct Arguments {
    /// How many interviews are scheduled, changed and cancelled, taken together, at least
    #[arg(long, default_value_t = 600)]
    operations: u64,
    /// How many servers are killed meanwhile at least
    #[arg(long, default_value_t = 20)]
    kills: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 4)]
    servers: u16,
    /// Share of the calls to Google, and of the mails, that go wrong
    #[arg(long, default_value_t = 0.2)]
    faults: f64,
    /// Minutes that everything may take to settle in real time; 0: what waits for a moment is told that it has come
    #[arg(long, default_value_t = 0)]
    patience: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let wrong = runtime.block_on(run(arguments));
    runtime.shutdown_background();
    for wrong in wrong.iter().take(50) {
        println!("WRONG: {wrong}");
    }
    std::process::exit(i32::from(!wrong.is_empty()));
}

/// What is wrong in the end.
async fn run(arguments: Arguments) -> Vec<String> {
    let begun = Instant::now();
    let say = |what: &str| println!("{:>5} s: {what}", begun.elapsed().as_secs());
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let figures = Arc::new(Figures::default());
    let cluster = servers::Cluster::start().await;
    let world = Arc::new(World::with_accounts(cluster.database().await, people::accounts()).await);
    people::insert(&world.database.pool).await;

    let (relay, database_url) = outages::network(&world).await;
    let servers = Arc::new(Servers::new(world.clone(), figures.clone(), arguments.servers, database_url));
    let killing = servers.start_and_kill(&mut random);
    let latest = Duration::from_secs(if arguments.patience > 0 { 240 } else { 20 });
    let releasing = faults::begin(&world, &figures, arguments.faults, latest, &mut random);
    let enough = (arguments.operations, arguments.kills);
    let people = Arc::new(People::new(world.clone(), servers.clone(), figures.clone(), enough));
    let busy = tokio::spawn(people.clone().work(random.fork()));
    let longest = Duration::from_secs(if arguments.patience > 0 { 40 } else { 8 });
    let outages = Outages { world: world.clone(), servers: servers.clone(), figures: figures.clone(), relay, longest };
    let (outages, done) = (Arc::new(outages), people.clone());
    let troubling = {
        let (outages, random) = (outages.clone(), random.fork());
        tokio::spawn(async move { outages.go_on(move || done.is_over(), random).await })
    };

    // PostgreSQL crashes after a third and after two thirds of the operations; the second time it stays away for long.
    for (third, away) in [(1, 0), (2, if arguments.patience > 0 { 40 } else { 3 })] {
        while people.operations() < arguments.operations * third / 3 && !busy.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        servers.take_database(&cluster, Duration::from_secs(away)).await;
        say(&format!("PostgreSQL was killed, and started again after {away} s"));
    }
    while !busy.is_finished() {
        tokio::time::sleep(Duration::from_secs(5)).await;
        say(&format!("{} operations, {} kills", people.operations(), servers.kills()));
    }
    busy.await.unwrap();
    troubling.await.unwrap();
    outages.relay.resume();
    say("the people are done; faults and kills end");
    releasing.abort();
    faults::end(&world);
    let last = killing.end().await;
    people.reconnect_all().await;

    if arguments.patience == 0 {
        // No call is under way any more.
        tokio::time::sleep(latest).await;
    }
    let wrong = verdict::reach(&world, &people, &servers, last, &figures, arguments.patience).await;
    say("settled");
    println!("\n| seed {} | |\n|---|---|\n{figures}", arguments.seed);
    wrong
}
