//! What is written about the running server, and what must never be: no secret, token, code or URL with a query, at any
//! level.
//!
//! Dependencies are heard at INFO and above alone (the job queue's library at WARN), whatever the filter says: below that HTTP, OAuth and SQL crates
//! write out requests, headers and statements. Our own events go as far as the filter lets them, because they are
//! written with this rule in mind. Addresses of people are [`masked`].

use std::{io::IsTerminal, panic::PanicHookInfo};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{Targets, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// Sends the process's events, and its panics, to standard error as one line each, text or a JSON object. Once in a
/// process.
///
/// A second call is an error.
pub fn init(log_filter: Targets, format: LogFormat) -> anyhow::Result<()> {
    subscriber(log_filter, format, std::io::stderr, std::io::stderr().is_terminal()).try_init()?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// What [`init`] installs, writing elsewhere: a test can read what an operator would. `ansi` colours texts.
pub fn subscriber<W>(
    log_filter: Targets,
    format: LogFormat,
    writer: W,
    ansi: bool,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.compact().with_ansi(ansi).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // Filters of everything, not of one layer: those forget an event of ours after each record of the `log` crate that
    // they refuse.
    tracing_subscriber::registry().with(lines).with(filter_fn(is_heard)).with(log_filter)
}

fn is_heard(metadata: &Metadata<'_>) -> bool {
    // Says thousands of times in a second that the database is away; `jobs` says it once.
    if metadata.target() == "graphile_worker::local_queue::fetch" {
        return false;
    }
    // That tells of each job that was done, which our own lines do, and of the first start as of an error.
    let is_queue = metadata.target().starts_with("graphile_worker");
    let least = if is_queue { Level::WARN } else { Level::INFO };
    let crate_name = metadata.target().split("::").next();
    crate_name == Some(env!("CARGO_CRATE_NAME")) || *metadata.level() <= least
}

/// Where a panic happened, and its text unless that was formatted at run time: it could quote anything.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload().downcast_ref::<&str>().copied().unwrap_or("(text withheld)");
    tracing::error!(place, text, "panicked");
}

/// An e-mail address for logs: `rita@x.test` is `r***@x.test`.
pub fn masked(address: &str) -> String {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let first = local.chars().next().filter(|first| !first.is_control()).map(String::from).unwrap_or_default();
    let domain: String = domain.chars().filter(|character| !character.is_control()).collect();
    if domain.is_empty() { format!("{first}***") } else { format!("{first}***@{domain}") }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::config;

    /// What a subscriber has written.
    #[derive(Clone)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(crate) fn new() -> Lines {
            // While a thread's subscriber is the only one, `tracing` takes a callsite that another thread meets first
            // for one that nobody wants to hear.
            _ = tracing_subscriber::registry().try_init();
            Lines(Arc::default())
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(log_filter: &str, act: impl FnOnce()) -> String {
        written_as(LogFormat::Text, log_filter, act)
    }

    fn written_as(format: LogFormat, log_filter: &str, act: impl FnOnce()) -> String {
        let lines = Lines::new();
        let writer = lines.clone();
        let subscriber = subscriber(config::log_filter(log_filter).unwrap(), format, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, act);
        lines.text()
    }

    #[test]
    fn dependencies_are_never_heard_below_info() {
        for filter in ["trace", "sqlx=trace", "debug,yup_oauth2=trace"] {
            let text = written(filter, || {
                tracing::debug!(target: "yup_oauth2::storage", "refresh token");
                tracing::trace!(target: "sqlx::query", "select");
                tracing::debug!(target: "interviewsly", "not us");
                let _span = tracing::debug_span!(target: "h2", "headers", authorization = "secret").entered();
                tracing::error!(target: "sqlx::pool", "closed");
            });
            assert!(text.contains("closed") && text.lines().count() == 1, "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn the_queues_library_is_heard_when_something_is_wrong() {
        let text = written("trace", || {
            tracing::info!(target: "graphile_worker::runner::task_execution", "Completed task with success");
            tracing::info!(target: "graphile_worker_migrations::state", error = "42P01", "installing");
            tracing::warn!(target: "graphile_worker::recovery_tasks", "sweep failed");
        });
        assert!(text.contains("sweep failed") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn our_own_events_go_as_far_as_the_filter() {
        let act = || {
            tracing::debug!("fine detail");
            tracing::info!("news");
        };
        assert_eq!(written("info,interviews=debug", act).lines().count(), 2);
        assert_eq!(written("info", act).lines().count(), 1);
        assert_eq!(written("warn", act), "");
    }

    #[test]
    fn a_refused_record_of_the_log_crate_costs_no_event_of_ours() {
        let text = written("info", || {
            // The bridge from that crate asks about a record, and sends none that is refused.
            let record = tracing::debug_span!(target: "hyper", "record");
            tracing::dispatcher::get_default(|dispatch| assert!(!dispatch.enabled(record.metadata().unwrap())));
            tracing::info!("ours");
        });
        assert!(text.contains("ours"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_spans_and_the_same_silence() {
        let text = written_as(LogFormat::Json, "trace", || {
            let _span = tracing::error_span!("request", id = "r-1").entered();
            tracing::debug!(target: "sqlx::query", "select");
            tracing::info!(mail = 7, "two\nlines and a \"quote\"");
            tracing::warn!("next");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let first = &lines[0];
        assert_eq!((&first["level"], &first["mail"]), (&"INFO".into(), &7.into()));
        assert_eq!(first["message"], "two\nlines and a \"quote\"");
        let span = &first["spans"][0];
        assert_eq!((&span["name"], &span["id"]), (&"request".into(), &"r-1".into()));
        assert!(first["timestamp"].is_string() && first["target"].is_string(), "{text}");
    }

    #[test]
    fn a_panic_is_an_object_too_and_does_not_quote_what_was_formatted() {
        for (secret, shown) in [(None, "plain words"), (Some("sesame"), "(text withheld)")] {
            let text = written_as(LogFormat::Json, "info", || {
                let before = std::panic::take_hook();
                std::panic::set_hook(Box::new(report_panic));
                _ = std::panic::catch_unwind(|| match secret {
                    None => panic!("plain words"),
                    Some(secret) => panic!("formatted {secret}"),
                });
                std::panic::set_hook(before);
            });
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&line["message"], &line["text"]), (&"panicked".into(), &shown.into()));
            assert!(line["place"].as_str().unwrap().contains("telemetry.rs") && !text.contains("sesame"), "{text}");
        }
    }

    #[test]
    fn an_address_shows_its_first_letter_and_its_domain() {
        assert_eq!(masked("rita@x.test"), "r***@x.test");
        assert_eq!(masked("\"a@b\"@x.test"), "\"***@x.test");
        assert_eq!(masked("élan@x.test"), "é***@x.test");
        assert_eq!(masked("@x.test"), "***@x.test");
        assert_eq!(masked("nobody"), "n***");
        assert_eq!(masked(""), "***");
        assert_eq!(masked("\nrita@x.te\r\nst"), "***@x.test");
    }
}
