//! What is counted while the server runs, in Prometheus's text format 0.0.4.
//!
//! Every context has counters of its own, so two servers in one process do not add up. All values of labels come from
//! fixed sets (templates of routes, known methods, kinds of mails): none holds an id, an address or anything else that
//! a client sends. What must be asked for (connections, queues) is read at the scrape: see [`Gauge`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result, TextEncoder,
};

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds; from a probe's answer to the longest time that a request may take.
const BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The counters of one server; clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    google: IntCounterVec,
    emails: IntCounterVec,
    logins: IntCounterVec,
    open_connections: IntGauge,
    connections: IntCounterVec,
    sweeps: IntCounterVec,
    due: Arc<Mutex<Due>>,
}

/// Until when each sweep should have finished again, and how long it has for that.
type Due = BTreeMap<&'static str, (DateTime<Utc>, SweepPatience)>;

/// How a pass of a sweep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepOutcome {
    Finished,
    Failed,
    /// It took too long.
    Abandoned,
}

impl SweepOutcome {
    fn as_str(self) -> &'static str {
        match self {
            SweepOutcome::Finished => "finished",
            SweepOutcome::Failed => "failed",
            SweepOutcome::Abandoned => "abandoned",
        }
    }
}

/// How long a sweep has until it has finished again.
#[derive(Clone, Copy)]
pub struct SweepPatience {
    /// Since it last finished.
    pub finished: TimeDelta,
    /// Since a pass that did not finish, if that is sooner.
    pub after_failure: TimeDelta,
}

/// How one attempt at a call to Google ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoogleOutcome {
    Ok,
    /// An answer that would be the same again.
    Refused,
    /// No answer, an unreadable one, or one that asks to come back.
    Failed,
    /// No answer in time.
    Timeout,
}

impl GoogleOutcome {
    fn as_str(self) -> &'static str {
        match self {
            GoogleOutcome::Ok => "ok",
            GoogleOutcome::Refused => "refused",
            GoogleOutcome::Failed => "failed",
            GoogleOutcome::Timeout => "timeout",
        }
    }
}

/// What became of one try to send a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailOutcome {
    Sent,
    /// It is to be tried again.
    Later,
    /// The SMTP server will never take it.
    Refused,
    /// What it would say is no longer true.
    Dropped,
    /// It was tried for a day.
    Expired,
}

impl EmailOutcome {
    fn as_str(self) -> &'static str {
        match self {
            EmailOutcome::Sent => "sent",
            EmailOutcome::Later => "later",
            EmailOutcome::Refused => "refused",
            EmailOutcome::Dropped => "dropped",
            EmailOutcome::Expired => "expired",
        }
    }
}

/// How a sign-in ended whose fields were well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    Success,
    /// A wrong password or an unknown e-mail.
    Wrong,
    /// The stored hash is of a kind that no password can be checked against; refused as `Wrong`.
    UnsupportedHash,
    /// The right password of an account that may not come in.
    Inactive,
    Deleted,
    /// After too many failures.
    Throttled,
    /// No place for hashing.
    Busy,
}

impl LoginOutcome {
    /// As metrics and log call it.
    pub fn as_str(self) -> &'static str {
        match self {
            LoginOutcome::Success => "success",
            LoginOutcome::Wrong => "wrong",
            LoginOutcome::UnsupportedHash => "unsupported_hash",
            LoginOutcome::Inactive => "inactive",
            LoginOutcome::Deleted => "deleted",
            LoginOutcome::Throttled => "throttled",
            LoginOutcome::Busy => "busy",
        }
    }
}

/// What happened to a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    Accepted,
    /// It had to wait, since as many were open as there may be.
    Waited,
    /// The system gave none: no file descriptor was free, most likely.
    NotAccepted,
    /// What came was no HTTP request, or its head was too long to be read.
    Malformed,
    /// No whole head came in time.
    HeadTimeout,
    /// Nothing of an answer was taken in for too long.
    AnswerTimeout,
}

impl ConnectionEvent {
    const ALL: [ConnectionEvent; 6] = {
        use ConnectionEvent::*;
        [Accepted, Waited, NotAccepted, Malformed, HeadTimeout, AnswerTimeout]
    };

    fn as_str(self) -> &'static str {
        match self {
            ConnectionEvent::Accepted => "accepted",
            ConnectionEvent::Waited => "waited",
            ConnectionEvent::NotAccepted => "not_accepted",
            ConnectionEvent::Malformed => "malformed",
            ConnectionEvent::HeadTimeout => "head_timeout",
            ConnectionEvent::AnswerTimeout => "answer_timeout",
        }
    }
}

/// A connection that counts as open as long as this lives.
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is so at the moment of a scrape: a number for each combination of the labels' values.
pub struct Gauge {
    pub name: &'static str,
    pub help: &'static str,
    /// The label's name; `None` where `values` is one number.
    pub label: Option<&'static str>,
    pub values: Vec<(&'static str, i64)>,
}

impl Metrics {
    /// All counters at nothing.
    pub fn new() -> Result<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let requests = counter("http_requests_total", "Requests answered.", &["method", "route", "status"])?;
        let google = counter("google_requests_total", "Attempts at calls to Google.", &["operation", "outcome"])?;
        let emails = counter("emails_total", "Tries to send a mail.", &["kind", "outcome"])?;
        let sweeps = counter("sweeps_total", "Passes of background sweeps.", &["sweep", "outcome"])?;
        let logins = counter("logins_total", "Sign-ins.", &["outcome"])?;
        let help = "How long requests took to be answered.";
        let seconds = HistogramOpts::new("http_request_duration_seconds", help).buckets(BUCKETS.to_vec());
        let seconds = HistogramVec::new(seconds, &["method", "route"])?;
        registry.register(Box::new(seconds.clone()))?;
        let connections = counter("http_connections_total", "What happened to connections of clients.", &["event"])?;
        // There from the start, so that their first one is seen to be one more.
        for event in ConnectionEvent::ALL {
            connections.with_label_values(&[event.as_str()]);
        }
        let open_connections = IntGauge::new("http_connections", "Connections of clients that are open.")?;
        registry.register(Box::new(open_connections.clone()))?;
        let due = Arc::default();
        Ok(Metrics { registry, requests, seconds, google, emails, logins, open_connections, connections, sweeps, due })
    }

    /// Counts something that happened to a connection.
    pub fn connection(&self, event: ConnectionEvent) {
        self.connections.with_label_values(&[event.as_str()]).inc();
    }

    /// Counts one more as open, until the result is dropped.
    pub fn open_connection(&self) -> OpenConnection {
        self.open_connections.inc();
        OpenConnection(self.open_connections.clone())
    }

    /// Counts an answer. `route` is a template or `unmatched`, `method` one of those that there are or `other`.
    pub fn request(&self, method: &str, route: &str, status: StatusCode, took: Duration) {
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.seconds.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// Counts an attempt at a call to Google, such as `events.insert`.
    pub fn google(&self, operation: &'static str, outcome: GoogleOutcome) {
        self.google.with_label_values(&[operation, outcome.as_str()]).inc();
    }

    /// Counts a try to send a mail of this kind.
    pub fn email(&self, kind: &'static str, outcome: EmailOutcome) {
        self.emails.with_label_values(&[kind, outcome.as_str()]).inc();
    }

    /// Counts a sign-in.
    pub fn login(&self, outcome: LoginOutcome) {
        self.logins.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Expects a sweep to finish within `patience` from now, and again after each pass.
    pub fn expect_sweep(&self, name: &'static str, patience: SweepPatience, now: DateTime<Utc>) {
        self.due().insert(name, (now + patience.finished, patience));
    }

    /// Counts a pass of a sweep.
    pub fn sweep(&self, name: &'static str, outcome: SweepOutcome, now: DateTime<Utc>) {
        self.sweeps.with_label_values(&[name, outcome.as_str()]).inc();
        if let Some((due, patience)) = self.due().get_mut(name) {
            *due = match outcome {
                SweepOutcome::Finished => now + patience.finished,
                _ => (*due).min(now + patience.after_failure),
            };
        }
    }

    /// The sweeps that are expected, each with whether it is overdue.
    pub fn sweeps(&self, now: DateTime<Utc>) -> Vec<(&'static str, bool)> {
        self.due().iter().map(|(name, (due, _))| (*name, now > *due)).collect()
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything counted so far, and `gauges`.
    pub fn text(&self, gauges: &[Gauge]) -> Result<String> {
        // A registry of this scrape's own: another at the same time must not find half of it.
        let moment = Registry::new();
        for Gauge { name, help, label, values } in gauges {
            let gauge = IntGaugeVec::new(Opts::new(*name, *help), label.as_slice())?;
            for (value, number) in values {
                let labels: &[&str] = if label.is_some() { &[value] } else { &[] };
                gauge.with_label_values(labels).set(*number);
            }
            moment.register(Box::new(gauge))?;
        }
        let families = [self.registry.gather(), moment.gather()].concat();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_written_in_prometheus_text() {
        let metrics = Metrics::new().unwrap();
        metrics.request("GET", "/api/interviews/{id}/", StatusCode::OK, Duration::from_millis(30));
        metrics.google("events.insert", GoogleOutcome::Timeout);
        metrics.email("scheduled", EmailOutcome::Sent);
        metrics.email("scheduled", EmailOutcome::Sent);
        metrics.login(LoginOutcome::UnsupportedHash);
        let gauges = [
            Gauge { name: "database_up", help: "Up.", label: None, values: vec![("", 1)] },
            Gauge { name: "jobs", help: "Jobs.", label: Some("state"), values: vec![("due", 2), ("failed", 0)] },
        ];
        let text = metrics.text(&gauges).unwrap();
        for line in [
            "# TYPE http_requests_total counter",
            "http_requests_total{method=\"GET\",route=\"/api/interviews/{id}/\",status=\"200\"} 1",
            "# TYPE http_request_duration_seconds histogram",
            "http_request_duration_seconds_bucket{method=\"GET\",route=\"/api/interviews/{id}/\",le=\"0.025\"} 0",
            "http_request_duration_seconds_bucket{method=\"GET\",route=\"/api/interviews/{id}/\",le=\"0.05\"} 1",
            "http_request_duration_seconds_sum{method=\"GET\",route=\"/api/interviews/{id}/\"} 0.03",
            "google_requests_total{operation=\"events.insert\",outcome=\"timeout\"} 1",
            "emails_total{kind=\"scheduled\",outcome=\"sent\"} 2",
            "logins_total{outcome=\"unsupported_hash\"} 1",
            "# TYPE database_up gauge",
            "database_up 1",
            "jobs{state=\"due\"} 2",
            "jobs{state=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn two_servers_of_one_process_do_not_add_up() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.email("scheduled", EmailOutcome::Sent);
        assert!(!other.text(&[]).unwrap().contains("emails_total{"));
    }
}
