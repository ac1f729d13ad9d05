//! Chaos: several servers on one database are killed again and again while people use them, Google and SMTP misbehave
//! and PostgreSQL crashes; then interviews, events and mails are compared, each read from its own side.
//!
//!     cargo test --features chaos --test chaos                                   # about two minutes
//!     cargo test --features chaos --test chaos -- --operations 20000 --kills 500 --seed 7
//!
//! A seed fixes who does what, which call goes wrong how, and when and where servers die; what the processes make of it
//! in which order is the machine's. Exits with an error, and says what is wrong, when anything was lost or doubled.
//! `docs/reliability.md` has the figures of a long run and what follows from them.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the program: they have clients and folders of their own"
)]

mod faults;
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

use crate::{people::People, servers::Servers, support::process::World};

#[derive(Parser)]
struct Arguments {
    /// How many interviews are scheduled, changed and cancelled, taken together, before it ends
    #[arg(long, default_value_t = 1_200)]
    operations: u64,
    /// How many servers are killed at least
    #[arg(long, default_value_t = 40)]
    kills: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 3)]
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
    let is_well = runtime.block_on(run(arguments));
    runtime.shutdown_background();
    if !is_well {
        std::process::exit(1);
    }
}

async fn run(arguments: Arguments) -> bool {
    let begun = Instant::now();
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let cluster = servers::Cluster::start().await;
    let world = Arc::new(World::with_accounts(cluster.database().await, people::accounts()).await);
    people::insert(&world.database.pool).await;

    let servers = Arc::new(Servers::new(world.clone(), arguments.servers));
    let killing = servers.start_and_kill(&mut random);
    let faults = faults::begin(&world, arguments.faults, &mut random);
    let people = Arc::new(People::new(world.clone(), servers.clone(), arguments.operations));
    let busy = tokio::spawn(people.clone().work(random.fork()));

    // PostgreSQL crashes after a third and after two thirds of the operations.
    for third in 1..=2 {
        while people.operations() < arguments.operations * third / 3 && !busy.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.crash_and_restart().await;
        println!("{:>5} s: PostgreSQL was killed and started again", begun.elapsed().as_secs());
    }
    while !busy.is_finished() || servers.kills() < arguments.kills {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    busy.await.unwrap();
    println!("{:>5} s: the people are done; faults and kills end", begun.elapsed().as_secs());
    faults.end(&world);
    let calm = killing.end().await;
    people.reconnect_all().await;

    let verdict = verdict::reach(&world, &people, &servers, &calm, arguments.patience).await;
    println!("{:>5} s: settled\n", begun.elapsed().as_secs());
    println!("| seed {} | |\n|---|---|", arguments.seed);
    for (what, count) in
        [people.figures(), servers.figures(), faults.figures(), verdict.figures()].into_iter().flatten()
    {
        println!("| {what} | {count} |");
    }
    for wrong in verdict.wrong().iter().take(50) {
        println!("WRONG: {wrong}");
    }
    verdict.wrong().is_empty()
}
