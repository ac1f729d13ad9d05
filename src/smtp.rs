//! One SMTP server, reached through lettre (RFC 5321, 3207, 4954).
//!
//! Hides connections: they are opened, secured, logged in, kept for the next mail and thrown away when anything is odd
//! about them. Promises that a mail is called refused only when the server refused that mail, on a fresh connection
//! and for good; everything else, a failed login included, is worth another try. No call waits for ever, and dropping
//! one cannot spoil the connection of the next: lettre's own pool takes back a connection in the middle of a mail, has
//! no time limits, and its errors do not tell a login from a recipient, hence the small pool here.
//!
//! A server that accepts connections and then says nothing, at whatever step, costs little: at most [`PLACES`]
//! connections are open at once, and after [`SILENT`] silences in a row only one caller at a time still tries
//! ([`Circuit`]).

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lettre::{
    Message,
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Noop, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};
use secrecy::ExposeSecret;
use tokio::{sync::Semaphore, time::Instant};

use crate::config::{SmtpSecurity, SmtpServer};

/// For connecting, greeting, TLS and login together. Giving up early here costs nothing but another try.
const OPENING: Duration = Duration::from_secs(60);
/// For the answer to one command (RFC 5321 §4.5.3.2.2 allows five minutes).
const COMMAND: Duration = Duration::from_secs(120);
/// For the content and its acceptance (§4.5.3.2.5 and .6: three and ten minutes). Giving up early here means a second
/// copy, because the server may have taken the mail.
const CONTENT: Duration = Duration::from_secs(13 * 60);
/// For asking whether a kept connection still lives.
const PROBE: Duration = Duration::from_secs(5);
/// How long, and how many, connections are kept; servers close idle ones after a minute or more.
const IDLE: Duration = Duration::from_secs(30);
const KEPT: usize = 8;
/// How many connections there are at once, kept ones included: those who have a place take a kept one first.
const PLACES: usize = 32;
/// A server that has not answered by then is silent, though it may still answer within the step's own limit.
const SILENCE: Duration = Duration::from_secs(10);
/// After so many silences in a row nobody waits for the server any more.
const SILENT: u32 = 3;
/// Then one caller tries again after the first of these, and each further one after twice as long, up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// The way to the SMTP server; cheap to clone.
#[derive(Clone)]
pub struct Smtp(Arc<Relay>);

struct Relay {
    host: String,
    port: u16,
    security: Security,
    login: Option<Credentials>,
    hello: ClientId,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
    places: Semaphore,
    circuit: Mutex<Circuit>,
}

enum Security {
    Plain,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

/// Why a mail was not sent. The texts hold a step, a reply code and an enhanced code (RFC 3463), never the server's
/// own words: those quote addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The server will never take this mail.
    #[error("refused: {0}")]
    Refused(String),
    /// Not now. After `content: no answer` the server may still have accepted it.
    #[error("not sent: {0}")]
    Later(String),
}

impl Smtp {
    /// Reads the system's certificates when TLS is wanted; connects to nothing yet.
    pub fn new(server: &SmtpServer) -> anyhow::Result<Smtp> {
        let tls = || TlsParameters::builder(server.host.clone()).build_rustls();
        let security = match server.security {
            SmtpSecurity::Plain => Security::Plain,
            SmtpSecurity::StartTls => Security::StartTls(tls()?),
            SmtpSecurity::Tls => Security::Tls(tls()?),
        };
        let login = server.login.as_ref();
        Ok(Smtp(Arc::new(Relay {
            host: server.host.clone(),
            port: server.port,
            security,
            login: login.map(|(user, password)| Credentials::new(user.clone(), password.expose_secret().to_owned())),
            hello: ClientId::default(),
            idle: Mutex::default(),
            places: Semaphore::new(PLACES),
            circuit: Mutex::default(),
        })))
    }

    /// Hands `message` to the server; `Ok` is its acceptance. May take a quarter of an hour with a slow server, but
    /// waits no longer than `patience` for one of the few connections.
    pub async fn send(&self, message: &Message, patience: Duration) -> Result<(), SendError> {
        let Ok(Ok(_place)) = tokio::time::timeout(patience, self.0.places.acquire()).await else {
            return Err(SendError::Later("all connections to the SMTP server are in use".to_owned()));
        };
        let content = message.formatted();
        if let Some(connection) = self.0.kept().await {
            match self.0.transfer(connection, message.envelope(), &content).await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.in_doubt() => return Err(fault.into()),
                // It may be the connection's fault (closed meanwhile, or too many mails on it): ask on a fresh one.
                Err(_) => {}
            }
        }
        let connection = self.0.open().await?;
        Ok(self.0.transfer(connection, message.envelope(), &content).await?)
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Smtp({}:{})", self.0.host, self.0.port)
    }
}

impl Relay {
    /// A kept connection that still answers.
    async fn kept(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let (mut connection, since) = self.idle().pop()?;
            if since.elapsed() >= IDLE {
                continue;
            }
            match self.limited(Step::Probe, PROBE, connection.command(Noop)).await {
                Ok(_) if !connection.has_broken() => return Some(connection),
                // The network has lost it, and the others with it: asking each would take as long again.
                Err(Fault { error: None, .. }) => self.idle().clear(),
                _ => {}
            }
        }
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        if idle.len() < KEPT {
            idle.push((connection, Instant::now()));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(AsyncSmtpConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, SendError> {
        if !self.circuit().lets_try(Instant::now()) {
            return Err(SendError::Later("the SMTP server has not answered lately".to_owned()));
        }
        let opening = async {
            let address = (self.host.as_str(), self.port);
            let wrapper = match &self.security {
                Security::Tls(tls) => Some(tls.clone()),
                Security::Plain | Security::StartTls(_) => None,
            };
            let connecting = AsyncSmtpConnection::connect_tokio1(address, Some(OPENING), &self.hello, wrapper, None);
            let mut connection = self.limited(Step::Connect, OPENING, connecting).await?;
            if let Security::StartTls(tls) = &self.security {
                self.limited(Step::StartTls, OPENING, connection.starttls(tls.clone(), &self.hello)).await?;
            }
            if let Some(login) = &self.login {
                let mechanisms = [Mechanism::Plain, Mechanism::Login];
                self.limited(Step::Login, OPENING, connection.auth(&mechanisms, login)).await?;
            }
            Ok(connection)
        };
        let late = Fault { step: Step::Connect, error: None };
        let opened = tokio::time::timeout(OPENING, opening).await.unwrap_or(Err(late));
        // That it opens says nothing yet: the first command may get no answer.
        if opened.as_ref().is_err_and(Fault::is_reply) {
            self.circuit().note_answer();
        }
        Ok(opened?)
    }

    /// One mail over a connection, which is kept for the next one unless anything went wrong.
    async fn transfer(
        &self,
        mut connection: AsyncSmtpConnection,
        envelope: &Envelope,
        content: &[u8],
    ) -> Result<(), Fault> {
        let ended = self.dialogue(&mut connection, envelope, content).await;
        // Not each reply counts: a server may answer all commands and never the content.
        if ended.as_ref().map_or_else(Fault::is_reply, |()| true) {
            self.circuit().note_answer();
        }
        if ended.is_ok() {
            self.keep(connection);
        }
        ended
    }

    async fn dialogue(
        &self,
        connection: &mut AsyncSmtpConnection,
        envelope: &Envelope,
        content: &[u8],
    ) -> Result<(), Fault> {
        let ascii = envelope
            .from()
            .into_iter()
            .chain(envelope.to())
            .all(|address| address.user().is_ascii() && address.domain().is_ascii());
        let mut parameters = Vec::new();
        // Our content is ASCII unless a header holds such an address. A server without these extensions says so itself.
        if !ascii {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !content.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let sender = Mail::new(envelope.from().cloned(), parameters);
        self.limited(Step::Sender, COMMAND, connection.command(sender)).await?;
        for address in envelope.to() {
            self.limited(Step::Recipient, COMMAND, connection.command(Rcpt::new(address.clone(), Vec::new()))).await?;
        }
        self.limited(Step::Data, COMMAND, connection.command(Data)).await?;
        self.limited(Step::Content, CONTENT, connection.command(with_end(content))).await?;
        Ok(())
    }

    /// What `work` comes to within `limit`; takes note of a silence as soon as it is one.
    async fn limited<T>(
        &self,
        step: Step,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Fault> {
        let mut work = pin!(work);
        let mut done = tokio::time::timeout(limit.min(SILENCE), &mut work).await;
        if done.is_err() && limit > SILENCE {
            self.circuit().note_silence(Instant::now());
            done = tokio::time::timeout(limit - SILENCE, work).await;
        }
        match done {
            Ok(done) => done.map_err(|error| Fault { step, error: Some(error) }),
            Err(_) => Err(Fault { step, error: None }),
        }
    }

    fn circuit(&self) -> std::sync::MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps callers from waiting for a server that does not answer. One that refuses connections lets nobody wait.
#[derive(Default)]
struct Circuit {
    /// Silences in a row, without a mail that was accepted or rejected between them.
    silent: u32,
    /// When the next caller may try, and how long the others wait after that; `None`: all may.
    next: Option<(Instant, Duration)>,
}

impl Circuit {
    /// Whether a caller may open a connection; where only one may, the others wait until it knows more.
    fn lets_try(&mut self, now: Instant) -> bool {
        match &mut self.next {
            None => true,
            Some((at, _)) if now < *at => false,
            Some((at, pause)) => {
                *pause = (2 * *pause).min(PAUSES.1);
                *at = now + *pause;
                true
            }
        }
    }

    fn note_silence(&mut self, now: Instant) {
        self.silent += 1;
        if self.silent >= SILENT && self.next.is_none() {
            tracing::warn!("the SMTP server does not answer: mails are left to the queue");
            self.next = Some((now + PAUSES.0, PAUSES.0));
        }
    }

    fn note_answer(&mut self) {
        if self.next.is_some() {
            tracing::info!("the SMTP server answers again");
        }
        *self = Circuit::default();
    }
}

/// A mail's content as it goes over the connection (RFC 5321 §4.5.2). In one piece: lettre's own `message` writes the
/// last line by itself, which the system then holds back until the server has acknowledged what went before, and
/// servers take 40 ms for that.
fn with_end(content: &[u8]) -> String {
    // It was put together from strings.
    let content = String::from_utf8_lossy(content);
    let stuffed = content.replace("\r\n.", "\r\n..");
    let first = if content.starts_with('.') { "." } else { "" };
    format!("{first}{stuffed}\r\n.\r\n")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Probe,
    Connect,
    StartTls,
    Login,
    Sender,
    Recipient,
    Data,
    Content,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Probe => "NOOP",
            Step::Connect => "connecting",
            Step::StartTls => "STARTTLS",
            Step::Login => "login",
            Step::Sender => "MAIL FROM",
            Step::Recipient => "RCPT TO",
            Step::Data => "DATA",
            Step::Content => "content",
        }
    }
}

struct Fault {
    step: Step,
    /// `None`: no answer in time.
    error: Option<Error>,
}

impl Fault {
    /// The reply code, when the server answered at all.
    fn code(&self) -> Option<u16> {
        self.error.as_ref().and_then(Error::status).map(u16::from)
    }

    fn is_reply(&self) -> bool {
        self.code().is_some()
    }

    /// Whether the server may have taken the mail.
    fn in_doubt(&self) -> bool {
        self.step == Step::Content && !self.is_reply()
    }

    fn words(&self) -> String {
        let step = self.step.name();
        let Some(error) = &self.error else { return format!("{step}: no answer in time") };
        match self.code() {
            Some(code) => {
                let words = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                format!("{step}: {code}{}", enhanced_code(&words).map(|code| format!(" {code}")).unwrap_or_default())
            }
            None if error.is_tls() => format!("{step}: TLS failed"),
            None if error.is_client() => format!("{step}: the server does not offer what is needed"),
            None => format!("{step}: no answer"),
        }
    }
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> SendError {
        match fault.code() {
            Some(code) if is_final(fault.step, code) => SendError::Refused(fault.words()),
            _ => SendError::Later(fault.words()),
        }
    }
}

/// Whether a reply is about this very mail, and for good. Before the mail it is about the server or our settings; so
/// are 530, 534, 535 and 538, which ask for a login or TLS (RFC 4954 §6, RFC 3207 §4).
fn is_final(step: Step, code: u16) -> bool {
    let about_the_mail = matches!(step, Step::Sender | Step::Recipient | Step::Data | Step::Content);
    about_the_mail && (500..600).contains(&code) && !matches!(code, 530 | 534 | 535 | 538)
}

/// The enhanced status code at the start of a reply's text (RFC 2034), such as `5.1.1`.
fn enhanced_code(text: &str) -> Option<&str> {
    let code = text.split_ascii_whitespace().next()?;
    let parts: Vec<&str> = code.split('.').collect();
    let digits = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (parts.len() == 3 && matches!(parts[0], "2" | "4" | "5") && parts[1..].iter().all(digits)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_permanent_reply_about_the_mail_is_final() {
        for (step, code, is) in [
            (Step::Recipient, 550, true),
            (Step::Sender, 553, true),
            (Step::Data, 554, true),
            (Step::Content, 552, true),
            (Step::Recipient, 450, false),
            (Step::Content, 451, false),
            (Step::Sender, 421, false),
            (Step::Connect, 554, false),
            (Step::StartTls, 502, false),
            (Step::Login, 535, false),
            (Step::Sender, 530, false),
            (Step::Recipient, 535, false),
        ] {
            assert_eq!(is_final(step, code), is, "{step:?} {code}");
        }
    }

    #[test]
    fn after_three_silences_one_caller_tries_at_a_time_until_there_is_an_answer() {
        let (begun, mut circuit) = (Instant::now(), Circuit::default());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for seconds in 0..3 {
            assert!(circuit.lets_try(at(seconds)));
            circuit.note_silence(at(seconds));
        }
        // Those that had begun before change nothing any more.
        circuit.note_silence(at(5));
        let tried: Vec<u64> = (3..300).filter(|seconds| circuit.lets_try(at(*seconds))).collect();
        assert_eq!(tried, [12, 32, 72, 132, 192, 252]);
        circuit.note_answer();
        assert!(circuit.lets_try(at(253)) && circuit.lets_try(at(253)));
    }

    #[test]
    fn a_kept_text_holds_codes_and_no_words_of_the_server() {
        assert_eq!(enhanced_code("5.1.1 <carl@x.test>: unknown"), Some("5.1.1"));
        assert_eq!(enhanced_code("4.7.25 try later"), Some("4.7.25"));
        for text in ["", "carl@x.test", "5.1", "5.1.1.1", "5..1", "9.1.1 no", "5.1.1234", "5.x.1", "12.3.4.5"] {
            assert_eq!(enhanced_code(text), None, "{text}");
        }
    }

    #[test]
    fn a_dot_at_the_start_of_a_line_is_doubled_and_the_end_comes_with_the_content() {
        for (content, sent) in [
            ("a", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("a.\r\n.b\r\n..\r\n.\r\n", "a.\r\n..b\r\n...\r\n..\r\n\r\n.\r\n"),
            ("a\n.b\r.c", "a\n.b\r.c\r\n.\r\n"),
        ] {
            assert_eq!(with_end(content.as_bytes()), sent, "{content:?}");
        }
    }

    #[test]
    fn debugging_shows_no_password() {
        let login = Some(("user".to_owned(), "sesame".to_owned().into()));
        let server = SmtpServer { host: "localhost".to_owned(), port: 25, login, security: SmtpSecurity::Plain };
        assert_eq!(format!("{:?}", Smtp::new(&server).unwrap()), "Smtp(localhost:25)");
    }
}
