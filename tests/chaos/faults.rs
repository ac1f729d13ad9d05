//! What goes wrong at Google and at the SMTP server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use interviews::dev::{
    google::{Call, FaultKind},
    mailbox::{Fault, Step},
};

use crate::support::process::World;

type Counts = Arc<Mutex<BTreeMap<&'static str, u64>>>;

pub struct Faults {
    counts: Counts,
    releasing: tokio::task::JoinHandle<()>,
}

/// From now on this share of Google's calls, and of the mails, goes wrong.
pub fn begin(world: &Arc<World>, share: f64, random: &mut fastrand::Rng) -> Faults {
    let counts = Counts::default();
    let (mut of_google, counted) = (random.fork(), counts.clone());
    world.google.disturb(move |call| {
        count(&counted, "calls to Google");
        let (what, fault) = (of_google.f64() < share).then(|| at_google(call, &mut of_google))?;
        count(&counted, what);
        Some(fault)
    });
    // A mail takes five steps that can go wrong.
    let (mut of_smtp, counted) = (random.fork(), counts.clone());
    let share = 1.0 - (1.0 - share).powf(0.2);
    world.mailbox.disturb(move |step| {
        let (what, fault) = (of_smtp.f64() < share).then(|| at_smtp(step, &mut of_smtp))?;
        count(&counted, what);
        Some(fault)
    });
    // What hangs at the SMTP server goes on after some seconds.
    let world = world.clone();
    let releasing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            world.mailbox.release();
        }
    });
    Faults { counts, releasing }
}

fn count(counts: &Counts, what: &'static str) {
    *counts.lock().unwrap().entry(what).or_default() += 1;
}

/// Never a lie: a 404 or 409 that is not true is no fault of a network or a server.
fn at_google(call: Call, random: &mut fastrand::Rng) -> (&'static str, FaultKind) {
    let is_refresh = call == Call::Refresh;
    match random.u32(..100) {
        0..12 => ("Google: 500", FaultKind::status(500)),
        12..20 => ("Google: 503", FaultKind::status(503)),
        20..26 => ("Google: 429", FaultKind::Status { status: 429, reason: None, retry_after: Some(1) }),
        26..32 => ("Google: 403 by rate", FaultKind::reason(403, "userRateLimitExceeded")),
        32..35 => ("Google: 403 by quota", FaultKind::reason(403, "quotaExceeded")),
        35..37 if is_refresh => ("Google: grant declared dead", FaultKind::reason(400, "invalid_grant")),
        35..41 => ("Google: 401", FaultKind::status(401)),
        41..61 => ("Google: done, answer lost", FaultKind::AnswerLost),
        61..69 => ("Google: done, answer garbled", FaultKind::Garbage),
        69..77 => ("Google: no answer", FaultKind::Hang),
        77..92 => ("Google: done late, within the attempt", FaultKind::Delay { millis: random.u64(100..3_000) }),
        _ => ("Google: done after nobody waits any more", FaultKind::Delay { millis: random.u64(8_500..20_000) }),
    }
}

fn at_smtp(step: Step, random: &mut fastrand::Rng) -> (&'static str, Fault) {
    match (step, random.u32(..100)) {
        (Step::Recipient, 0..4) => ("SMTP: recipient refused for good", Fault::Answer(550)),
        (Step::Content, 0..40) => ("SMTP: accepted, answer lost", Fault::StoreThenClose),
        (_, 0..45) => ("SMTP: 4xx", Fault::Answer([421, 450, 451, 452][random.usize(..4)])),
        (_, 45..90) => ("SMTP: connection closed", Fault::Close),
        _ => ("SMTP: silent for some seconds", Fault::Hang),
    }
}

impl Faults {
    pub fn end(&self, world: &World) {
        world.google.disturb(|_| None);
        world.mailbox.disturb(|_| None);
        world.mailbox.release();
        self.releasing.abort();
    }

    pub fn figures(&self) -> Vec<(String, u64)> {
        self.counts.lock().unwrap().iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
    }
}
