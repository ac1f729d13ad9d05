//! What is written about the running server, and what must never be: no secret, token, code or URL with a query, at any
//! level.
//!
//! Dependencies are heard at INFO and above alone, whatever the filter says: below that HTTP, OAuth and SQL crates write
//! out requests, headers and statements. Our own events go as far as the filter lets them, because they are written with
//! this rule in mind. Addresses of people are [`masked`].

use std::{io::IsTerminal, panic::PanicHookInfo};

use anyhow::Context;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    filter::filter_fn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Sends the process's events, and its panics, to standard error as one line each. Once in a process.
///
/// `log_filter` is a filter as `tracing_subscriber::EnvFilter` reads it, such as `info` or `warn,interviews=debug`;
/// anything else is an error, as is a second call.
pub fn init(log_filter: &str) -> anyhow::Result<()> {
    subscriber(log_filter, std::io::stderr, std::io::stderr().is_terminal())?.try_init()?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// What [`init`] installs, writing elsewhere: a test can read what an operator would.
pub fn subscriber<W>(log_filter: &str, writer: W, ansi: bool) -> anyhow::Result<impl Subscriber + Send + Sync + use<W>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let asked = EnvFilter::try_new(log_filter).context("LOG_FILTER is not a filter such as info,interviews=debug")?;
    let lines = fmt::layer().compact().with_ansi(ansi).with_writer(writer);
    // Filters of the whole, not of the layer: after a mere question, such as sqlx asks about each statement, a layer's
    // own filter swallows the next event of that thread.
    Ok(tracing_subscriber::registry().with(asked).with(filter_fn(is_safe)).with(lines))
}

fn is_safe(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next();
    crate_name == Some(env!("CARGO_CRATE_NAME")) || *metadata.level() <= Level::INFO
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

    /// What a subscriber has written.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
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
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(log_filter, move || writer.clone(), false).unwrap();
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
    fn an_event_is_heard_after_a_dependency_asked_whether_it_would_be() {
        let text = written("info", || {
            for number in 0..3 {
                assert!(!tracing::enabled!(target: "sqlx::query", Level::DEBUG));
                let _span = tracing::error_span!("request", number).entered();
                assert!(!tracing::enabled!(target: "sqlx::query", Level::DEBUG));
                tracing::info!("answered");
            }
        });
        assert!((0..3).all(|number| text.contains(&format!("answered number={number}"))), "{text}");
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        assert!(subscriber("interviews=loud", std::io::sink, false).is_err());
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
