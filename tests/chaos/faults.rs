//! What goes wrong at Google and at the SMTP server.

use std::{sync::Arc, time::Duration};

use interviews::dev::{
    google::{Call, FaultKind},
    mailbox::{Fault, Step},
};
use tokio::task::JoinHandle;

use crate::{figures::Figures, support::process::World};

pub const REFUSED: &str = "SMTP: recipient refused for good";

/// From now on this share of Google's calls, and of the mails, goes wrong. The task lets go on what hangs at the SMTP
/// server, after some seconds. A call to Google arrives `latest` after it was made at the latest.
pub fn begin(
    world: &Arc<World>,
    figures: &Arc<Figures>,
    share: f64,
    latest: Duration,
    random: &mut fastrand::Rng,
) -> JoinHandle<()> {
    let (mut of_google, counted) = (random.fork(), figures.clone());
    world.google.disturb(move |call| {
        counted.count("Google: calls");
        let (what, fault) = (of_google.f64() < share).then(|| at_google(call, latest, &mut of_google))?;
        counted.count(what);
        Some(fault)
    });
    // A mail takes five steps that can go wrong.
    let (mut of_smtp, counted) = (random.fork(), figures.clone());
    let share = 1.0 - (1.0 - share).powf(0.2);
    world.mailbox.disturb(move |step| {
        let (what, fault) = (of_smtp.f64() < share).then(|| at_smtp(step, &mut of_smtp))?;
        counted.count(what);
        Some(fault)
    });
    let (world, mut random) = (world.clone(), random.fork());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(random.u64(1..45))).await;
            world.mailbox.release();
        }
    })
}

pub fn end(world: &World) {
    world.google.disturb(|_| None);
    world.mailbox.disturb(|_| None);
    world.mailbox.release();
}

/// Never a lie: a 404 or 409 that is not true is no fault of a network or a server.
fn at_google(call: Call, latest: Duration, random: &mut fastrand::Rng) -> (&'static str, FaultKind) {
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
        _ => {
            let millis = random.u64(8_500..latest.as_millis() as u64);
            ("Google: done after nobody waits any more", FaultKind::Delay { millis })
        }
    }
}

fn at_smtp(step: Step, random: &mut fastrand::Rng) -> (&'static str, Fault) {
    match (step, random.u32(..100)) {
        (Step::Recipient, 0..4) => (REFUSED, Fault::Answer(550)),
        (Step::Content, 0..40) => ("SMTP: accepted, answer lost", Fault::StoreThenClose),
        (_, 0..45) => ("SMTP: 4xx", Fault::Answer([421, 450, 451, 452][random.usize(..4)])),
        (_, 45..90) => ("SMTP: connection closed", Fault::Close),
        _ => ("SMTP: silent for up to 45 s", Fault::Hang),
    }
}
