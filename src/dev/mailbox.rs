//! Where mails end in development and tests: a small SMTP server that delivers nothing, and a page to read them.
//!
//! It is strict where real servers are (order of commands, line and size limits, dot-stuffing; RFC 5321), because
//! nothing else here would tell us that we are wrong. Faults can be ordered for any step of the dialogue. The page
//! loads nothing from elsewhere and runs no script; a mail's HTML is shown in a sandbox. Every other path of its
//! address is a page too: in development the SPA's address leads here.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use askama::Template;
use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::{StatusCode, Uri, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use mail_parser::{HeaderValue, Message, MessageParser, MimeHeaders};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// The longest command; RFC 4954 §4 asks for this much because of AUTH.
const COMMAND_LIMIT: u64 = 12288;
/// The longest line of a mail, its end included (RFC 5321 §4.5.3.1.6).
const LINE_LIMIT: u64 = 1000;
const MAIL_LIMIT: usize = 1 << 20;
const RECIPIENTS_LIMIT: usize = 100;

/// The running mailbox; dropping it stops it.
pub struct Mailbox {
    shared: Arc<Shared>,
    smtp: SocketAddr,
    url: String,
    tasks: [JoinHandle<()>; 2],
}

/// A mail as the SMTP server got it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Counts up from 1.
    pub id: u64,
    pub envelope_from: String,
    pub envelope_to: Vec<String>,
    pub raw: Arc<[u8]>,
    /// Its acceptance was told.
    pub acknowledged: bool,
}

/// A `text/calendar` part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Calendar {
    /// The `method` parameter of the part's Content-Type.
    pub method: Option<String>,
    /// The file name of an attachment.
    pub file_name: Option<String>,
    pub text: String,
}

/// A moment of the dialogue: before its own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Connect,
    /// Of a connection that was kept: NOOP.
    Probe,
    Login,
    Sender,
    Recipient,
    Data,
    /// After the mail's last line.
    Content,
}

/// What goes wrong at a [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A reply of this code (4xx: later, 5xx: never).
    Answer(u16),
    /// A reply of this code that quotes what was said before it; of a mail, its link.
    Echo(u16),
    /// The connection is closed without a reply.
    Close,
    /// Nothing happens until [`Mailbox::release`]; then all goes on as if nothing had been.
    Hang,
    /// At [`Step::Content`] the mail is stored, but the connection is closed before the reply.
    StoreThenClose,
}

impl Mailbox {
    /// Listens for SMTP and for browsers; port 0 takes a free one. See [`Mailbox::on`].
    pub async fn start(smtp: SocketAddr, web: SocketAddr, keep_in: Option<PathBuf>) -> io::Result<Mailbox> {
        Mailbox::on(TcpListener::bind(smtp).await?, TcpListener::bind(web).await?, keep_in)
    }

    /// Serves on listeners that exist. With `keep_in` mails are files of that folder (made when missing) and survive a
    /// restart. Needs a Tokio runtime.
    pub fn on(smtp: TcpListener, web: TcpListener, keep_in: Option<PathBuf>) -> io::Result<Mailbox> {
        let mails = keep_in.as_deref().map(load).transpose()?.unwrap_or_default();
        let next_id = mails.last().map_or(1, |mail| mail.id + 1);
        let state = Mutex::new(Contents { mails, next_id, faults: Vec::new(), disturbance: None, hanging: 0 });
        let shared = Arc::new(Shared { state, released: watch::Sender::default(), keep_in });
        let (smtp_address, web_address) = (smtp.local_addr()?, web.local_addr()?);
        let pages = axum::serve(web, routes(shared.clone()));
        let tasks = [tokio::spawn(accept(smtp, shared.clone())), tokio::spawn(async { _ = pages.await })];
        Ok(Mailbox { shared, smtp: smtp_address, url: format!("http://{web_address}"), tasks })
    }

    /// Where the page is; no trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn smtp_address(&self) -> SocketAddr {
        self.smtp
    }

    /// All mails, oldest first.
    pub fn mails(&self) -> Vec<Received> {
        self.shared.state().mails.clone()
    }

    /// Removes all mails, kept files included.
    pub fn clear(&self) {
        self.shared.clear();
    }

    /// Lets `fault` happen the next `times` times that a dialogue comes to `step`.
    pub fn order(&self, step: Step, fault: Fault, times: usize) {
        self.shared.state().faults.push((step, fault, times));
    }

    /// Has `fault` decide about every step for which no fault was ordered.
    pub fn disturb(&self, fault: impl FnMut(Step) -> Option<Fault> + Send + 'static) {
        self.shared.state().disturbance = Some(Box::new(fault));
    }

    /// How many dialogues hang at the moment.
    pub fn hanging(&self) -> usize {
        self.shared.state().hanging
    }

    /// Forgets all orders, and lets what hangs go on.
    pub fn release(&self) {
        self.shared.state().faults.clear();
        self.shared.released.send_replace(());
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Received {
    fn parsed(&self) -> Message<'_> {
        MessageParser::default().parse(&*self.raw).unwrap_or_default()
    }

    /// Decoded.
    pub fn subject(&self) -> String {
        self.parsed().subject().unwrap_or_default().to_owned()
    }

    /// The addresses of the field `To`.
    pub fn to(&self) -> Vec<String> {
        let message = self.parsed();
        let addresses = message.to().into_iter().flat_map(|to| to.iter());
        addresses.filter_map(|address| address.address().map(str::to_owned)).collect()
    }

    /// A header field as it was sent, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let message = self.parsed();
        let (_, value) = message.headers_raw().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(unfolded(value))
    }

    /// The text part, decoded, with `\n` as line end.
    pub fn text(&self) -> String {
        self.parsed().body_text(0).unwrap_or_default().replace("\r\n", "\n")
    }

    /// The HTML part, decoded, with `\n` as line end.
    pub fn html(&self) -> String {
        self.parsed().body_html(0).unwrap_or_default().replace("\r\n", "\n")
    }

    /// The calendar part that is an alternative of the text.
    pub fn calendar(&self) -> Option<Calendar> {
        self.calendars().into_iter().find(|calendar| calendar.file_name.is_none())
    }

    /// The attached calendar file.
    pub fn attachment(&self) -> Option<Calendar> {
        self.calendars().into_iter().find(|calendar| calendar.file_name.is_some())
    }

    fn calendars(&self) -> Vec<Calendar> {
        let message = self.parsed();
        let parts = message.parts.iter().filter(|part| part.is_content_type("text", "calendar"));
        parts
            .map(|part| Calendar {
                method: part.content_type().and_then(|kind| kind.attribute("method")).map(str::to_owned),
                file_name: part.attachment_name().map(str::to_owned),
                text: part.text_contents().unwrap_or_default().to_owned(),
            })
            .collect()
    }
}

fn unfolded(value: &str) -> String {
    value.replace("\r\n", "").trim().to_owned()
}

struct Shared {
    state: Mutex<Contents>,
    released: watch::Sender<()>,
    keep_in: Option<PathBuf>,
}

type Disturbance = Box<dyn FnMut(Step) -> Option<Fault> + Send>;

struct Contents {
    /// By id.
    mails: Vec<Received>,
    next_id: u64,
    /// Each with how many times it is still to happen.
    faults: Vec<(Step, Fault, usize)>,
    disturbance: Option<Disturbance>,
    hanging: usize,
}

/// The first line of a kept file; the mail follows it.
#[derive(Serialize, Deserialize)]
struct Envelope {
    from: String,
    to: Vec<String>,
}

const ENVELOPE: &str = "X-Envelope: ";

impl Shared {
    fn state(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that is due at `step`, if any.
    fn fault(&self, step: Step) -> Option<Fault> {
        let mut state = self.state();
        if let Some((_, fault, times)) = state.faults.iter_mut().find(|(at, _, times)| *at == step && *times > 0) {
            *times -= 1;
            return Some(*fault);
        }
        state.disturbance.as_mut()?(step)
    }

    async fn store(&self, envelope: Envelope, content: Vec<u8>) -> io::Result<u64> {
        let id = {
            let mut state = self.state();
            state.next_id += 1;
            state.next_id - 1
        };
        if let Some(folder) = &self.keep_in {
            let first = format!("{ENVELOPE}{}\r\n", serde_json::to_string(&envelope)?);
            let unfinished = folder.join(format!("{id:06}.part"));
            tokio::fs::write(&unfinished, [first.as_bytes(), &content].concat()).await?;
            tokio::fs::rename(unfinished, folder.join(format!("{id:06}.eml"))).await?;
        }
        let (envelope_from, envelope_to) = (envelope.from, envelope.to);
        let mail = Received { id, envelope_from, envelope_to, raw: content.into(), acknowledged: false };
        let mut state = self.state();
        let place = state.mails.partition_point(|other| other.id < id);
        state.mails.insert(place, mail);
        Ok(id)
    }

    fn acknowledged(&self, id: u64) {
        if let Some(mail) = self.state().mails.iter_mut().rev().find(|mail| mail.id == id) {
            mail.acknowledged = true;
        }
    }

    fn clear(&self) {
        for mail in self.state().mails.drain(..) {
            if let Some(folder) = &self.keep_in {
                _ = fs::remove_file(folder.join(format!("{:06}.eml", mail.id)));
            }
        }
    }
}

/// The mails of a folder; what is no mail of ours is passed over.
fn load(folder: &Path) -> io::Result<Vec<Received>> {
    fs::create_dir_all(folder)?;
    let mut mails = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let (Some(id), true) = (id, path.extension().is_some_and(|extension| extension == "eml")) else { continue };
        let content = fs::read(&path)?;
        let end = content.windows(2).position(|pair| pair == b"\r\n").unwrap_or_default();
        let first = content[..end].strip_prefix(ENVELOPE.as_bytes()).unwrap_or_default();
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(first) {
            let raw = content[end + 2..].into();
            let (envelope_from, envelope_to) = (envelope.from, envelope.to);
            mails.push(Received { id, envelope_from, envelope_to, raw, acknowledged: true });
        }
    }
    mails.sort_by_key(|mail| mail.id);
    Ok(mails)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut dialogues = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            while dialogues.try_join_next().is_some() {}
            let shared = shared.clone();
            dialogues.spawn(async move {
                let mut dialogue = Dialogue {
                    stream: BufStream::new(stream),
                    shared,
                    sender: None,
                    recipients: vec![],
                    heard: String::new(),
                };
                // A client that goes away is its own affair.
                _ = dialogue.run().await;
            });
        }
    }
}

struct Dialogue {
    stream: BufStream<TcpStream>,
    shared: Arc<Shared>,
    sender: Option<String>,
    recipients: Vec<String>,
    /// What was said last, for [`Fault::Echo`].
    heard: String,
}

impl Dialogue {
    async fn run(&mut self) -> io::Result<()> {
        self.answer(Step::Connect, "220 mailbox.localhost ESMTP: a development mailbox, nothing is delivered").await?;
        while let Some(line) = self.line(COMMAND_LIMIT).await? {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            self.heard = line.to_owned();
            let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    self.reset();
                    let size = format!("250-SIZE {MAIL_LIMIT}");
                    let offers = ["250-mailbox.localhost", &size, "250-8BITMIME", "250-SMTPUTF8", "250-AUTH PLAIN"];
                    self.reply(&format!("{}\r\n250 ENHANCEDSTATUSCODES", offers.join("\r\n"))).await?;
                }
                "HELO" => {
                    self.reset();
                    self.reply("250 mailbox.localhost").await?;
                }
                "AUTH" => self.login(argument).await?,
                "MAIL" => self.mail(argument).await?,
                "RCPT" => self.recipient(argument).await?,
                "DATA" => self.data().await?,
                "RSET" => {
                    self.reset();
                    self.reply("250 2.0.0 Forgotten").await?;
                }
                "NOOP" => _ = self.answer(Step::Probe, "250 2.0.0 Still here").await?,
                "QUIT" => return self.reply("221 2.0.0 Bye").await,
                _ => self.reply("500 5.5.1 Unknown command").await?,
            }
        }
        Ok(())
    }

    /// Any login will do.
    async fn login(&mut self, argument: &str) -> io::Result<()> {
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        if !mechanism.eq_ignore_ascii_case("PLAIN") {
            return self.reply("504 5.5.4 Only PLAIN is offered").await;
        }
        if initial.is_empty() {
            self.reply("334 ").await?;
            self.line(COMMAND_LIMIT).await?;
        }
        self.answer(Step::Login, "235 2.7.0 Welcome").await?;
        Ok(())
    }

    async fn mail(&mut self, argument: &str) -> io::Result<()> {
        let Some(address) = path(argument, "FROM:") else { return self.reply("501 5.5.4 MAIL FROM:<address>").await };
        if self.sender.is_some() {
            return self.reply("503 5.5.1 There is a sender already").await;
        }
        if self.answer(Step::Sender, "250 2.1.0 Sender noted").await? {
            self.sender = Some(address);
        }
        Ok(())
    }

    async fn recipient(&mut self, argument: &str) -> io::Result<()> {
        let address = path(argument, "TO:").filter(|address| !address.is_empty());
        let Some(address) = address else { return self.reply("501 5.5.4 RCPT TO:<address>").await };
        if self.sender.is_none() {
            return self.reply("503 5.5.1 MAIL comes first").await;
        }
        if self.recipients.len() == RECIPIENTS_LIMIT {
            return self.reply("452 4.5.3 Too many recipients").await;
        }
        if self.answer(Step::Recipient, "250 2.1.5 Recipient noted").await? {
            self.recipients.push(address);
        }
        Ok(())
    }

    async fn data(&mut self) -> io::Result<()> {
        if self.recipients.is_empty() {
            return self.reply("503 5.5.1 RCPT comes first").await;
        }
        if !self.answer(Step::Data, "354 The mail, please; a line with a dot ends it").await? {
            return Ok(());
        }
        let (mut content, mut too_long) = (Vec::new(), false);
        loop {
            let Some(line) = self.line(LINE_LIMIT + 1).await? else { return Ok(()) };
            if line == b".\r\n" {
                break;
            }
            // A dot at the start was doubled on the way (§4.5.2).
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            too_long |= content.len() > MAIL_LIMIT;
            if too_long {
                content.clear();
            }
        }
        let envelope =
            Envelope { from: self.sender.take().unwrap_or_default(), to: std::mem::take(&mut self.recipients) };
        if too_long {
            return self.reply("552 5.3.4 The mail is too large").await;
        }
        let text = String::from_utf8_lossy(&content).replace("=\r\n", "");
        self.heard = text.lines().find(|line| line.contains("token=")).unwrap_or_default().to_owned();
        match self.shared.fault(Step::Content) {
            Some(Fault::StoreThenClose) => {
                self.shared.store(envelope, content).await?;
                return Err(ErrorKind::ConnectionAborted.into());
            }
            Some(fault) if !self.suffer(fault).await? => return Ok(()),
            Some(_) | None => {}
        }
        match self.shared.store(envelope, content).await {
            Ok(id) => {
                self.reply("250 2.0.0 Kept").await?;
                self.shared.acknowledged(id);
                Ok(())
            }
            Err(_) => self.reply("451 4.3.0 The mail could not be kept").await,
        }
    }

    fn reset(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }

    /// Answers, unless something else was ordered for this step; whether the answer was this one.
    async fn answer(&mut self, step: Step, reply: &str) -> io::Result<bool> {
        if let Some(fault) = self.shared.fault(step)
            && !self.suffer(fault).await?
        {
            return Ok(false);
        }
        self.reply(reply).await?;
        Ok(true)
    }

    /// Lets a fault happen; whether things go on as usual after it.
    async fn suffer(&mut self, fault: Fault) -> io::Result<bool> {
        match fault {
            Fault::Answer(code) => {
                self.reply(&format!("{code} {}.0.0 As ordered", code / 100)).await?;
                Ok(false)
            }
            Fault::Echo(code) => {
                self.reply(&format!("{code} {}.0.0 {}", code / 100, self.heard)).await?;
                Ok(false)
            }
            Fault::Close | Fault::StoreThenClose => Err(ErrorKind::ConnectionAborted.into()),
            Fault::Hang => {
                let mut released = self.shared.released.subscribe();
                self.shared.state().hanging += 1;
                _ = released.changed().await;
                self.shared.state().hanging -= 1;
                Ok(true)
            }
        }
    }

    async fn reply(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.write_all(b"\r\n").await?;
        self.stream.flush().await
    }

    /// The next line with its end; `None` at the end of the stream. A longer one ends the dialogue.
    async fn line(&mut self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).await?;
        match line.last() {
            Some(b'\n') => Ok(Some(line)),
            Some(_) if line.len() as u64 == limit => {
                self.reply("500 5.5.2 Line too long").await?;
                Err(ErrorKind::InvalidData.into())
            }
            _ => Ok(None),
        }
    }
}

/// The address of `FROM:<address> parameters`; of `<>` an empty one.
fn path(argument: &str, prefix: &str) -> Option<String> {
    let head = argument.get(..prefix.len())?;
    let rest = argument[prefix.len()..].trim_start().strip_prefix('<')?;
    let (address, _) = rest.split_once('>')?;
    head.eq_ignore_ascii_case(prefix).then(|| address.to_owned())
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/mails.json", get(list_as_json))
        .route("/mails/clear", post(clear))
        .route("/mails/{id}/", get(show))
        .route("/mails/{id}/html", get(html_part))
        .route("/mails/{id}/source", get(source))
        .route("/mails/{id}/interview.ics", get(calendar_file))
        .fallback(get(frontend))
        .with_state(shared)
}

#[derive(Template)]
#[template(path = "dev/mailbox_list.html")]
struct ListPage {
    mails: Vec<Row>,
}

struct Row {
    id: u64,
    subject: String,
    to: String,
    date: String,
    method: Option<String>,
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let mails = shared.state().mails.clone();
    let row = |mail: &Received| Row {
        id: mail.id,
        subject: mail.subject(),
        to: mail.envelope_to.join(", "),
        date: mail.header("Date").unwrap_or_default(),
        method: mail.calendar().and_then(|calendar| calendar.method),
    };
    page(&ListPage { mails: mails.iter().rev().map(row).collect() })
}

async fn list_as_json(State(shared): State<Arc<Shared>>) -> Response {
    #[derive(Serialize)]
    struct Item {
        id: u64,
        envelope_from: String,
        envelope_to: Vec<String>,
        to: Vec<String>,
        subject: String,
        headers: Vec<(String, String)>,
        text: String,
        html: String,
        calendar: Option<Calendar>,
        attachment: Option<Calendar>,
        raw: String,
    }
    let mails = shared.state().mails.clone();
    let items: Vec<Item> = mails
        .into_iter()
        .map(|mail| Item {
            id: mail.id,
            to: mail.to(),
            subject: mail.subject(),
            headers: headers(&mail),
            text: mail.text(),
            html: mail.html(),
            calendar: mail.calendar(),
            attachment: mail.attachment(),
            raw: String::from_utf8_lossy(&mail.raw).into_owned(),
            envelope_from: mail.envelope_from,
            envelope_to: mail.envelope_to,
        })
        .collect();
    ([(header::CACHE_CONTROL, "no-store")], Json(items)).into_response()
}

fn headers(mail: &Received) -> Vec<(String, String)> {
    mail.parsed().headers_raw().map(|(name, value)| (name.to_owned(), unfolded(value))).collect()
}

async fn clear(State(shared): State<Arc<Shared>>) -> Redirect {
    shared.clear();
    Redirect::to("/")
}

#[derive(Template)]
#[template(path = "dev/mailbox_mail.html")]
struct MailPage {
    id: u64,
    subject: String,
    from: String,
    to: String,
    reply_to: Option<String>,
    date: String,
    has_html: bool,
    text: String,
    calendar: Option<Calendar>,
    attachment: Option<Calendar>,
    headers: Vec<(String, String)>,
}

async fn show(State(shared): State<Arc<Shared>>, UrlPath(id): UrlPath<String>) -> Response {
    let Some(mail) = find(&shared, &id) else { return gone() };
    let message = mail.parsed();
    let people = |name: &str| match message.header(name) {
        Some(HeaderValue::Address(address)) => address.iter().map(person).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    page(&MailPage {
        id: mail.id,
        subject: mail.subject(),
        from: people("From"),
        to: people("To"),
        reply_to: Some(people("Reply-To")).filter(|people| !people.is_empty()),
        date: mail.header("Date").unwrap_or_default(),
        has_html: message.html_body_count() > 0,
        text: mail.text(),
        calendar: mail.calendar(),
        attachment: mail.attachment(),
        headers: headers(&mail),
    })
}

fn person(address: &mail_parser::Addr<'_>) -> String {
    let email = address.address().unwrap_or_default();
    address.name().map_or(email.to_owned(), |name| format!("{name} <{email}>"))
}

/// The HTML part, as a sandboxed document: no scripts, no forms, nothing loaded; links open in a tab of their own.
async fn html_part(State(shared): State<Arc<Shared>>, UrlPath(id): UrlPath<String>) -> Response {
    let Some(mail) = find(&shared, &id) else { return gone() };
    let policy = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; \
                  img-src data:; base-uri 'none'; frame-ancestors 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::REFERRER_POLICY, "no-referrer")], Html(mail.html()))
        .into_response()
}

async fn source(State(shared): State<Arc<Shared>>, UrlPath(id): UrlPath<String>) -> Response {
    let Some(mail) = find(&shared, &id) else { return gone() };
    plain("text/plain; charset=utf-8", None, String::from_utf8_lossy(&mail.raw).into_owned())
}

async fn calendar_file(State(shared): State<Arc<Shared>>, UrlPath(id): UrlPath<String>) -> Response {
    let calendar = find(&shared, &id).and_then(|mail| mail.attachment().or(mail.calendar()));
    let Some(calendar) = calendar else { return gone() };
    plain("text/calendar; charset=utf-8", Some("attachment; filename=\"interview.ics\""), calendar.text)
}

fn plain(kind: &'static str, disposition: Option<&'static str>, text: String) -> Response {
    let mut response =
        ([(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response();
    if let Some(disposition) = disposition {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, header::HeaderValue::from_static(disposition));
    }
    response
}

fn find(shared: &Shared, id: &str) -> Option<Received> {
    let id: u64 = id.parse().ok()?;
    shared.state().mails.iter().find(|mail| mail.id == id).cloned()
}

#[derive(Template)]
#[template(path = "dev/mailbox_frontend.html")]
struct FrontendPage {
    path: String,
    parameters: Vec<(String, String)>,
}

/// Any other address: the SPA's, in development.
async fn frontend(uri: Uri) -> Response {
    let parameters = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    page(&FrontendPage { path: uri.path().to_owned(), parameters })
}

#[derive(Template)]
#[template(path = "dev/mailbox_gone.html")]
struct GonePage;

fn gone() -> Response {
    (StatusCode::NOT_FOUND, page(&GonePage)).into_response()
}

fn page(template: &impl Template) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    match template.render() {
        Ok(html) => (headers, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the mailbox does not render");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, net::Ipv4Addr, time::Duration};

    use chrono::DateTime;
    use lettre::Message as Outgoing;
    use uuid::Uuid;

    use super::*;
    use crate::{
        config::{SmtpSecurity, SmtpServer},
        interview,
        mail::{self, Email},
        smtp::{SendError, Smtp},
    };

    async fn mailbox(keep_in: Option<PathBuf>) -> Mailbox {
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        Mailbox::start(here, here, keep_in).await.unwrap()
    }

    fn server(address: SocketAddr, security: SmtpSecurity) -> SmtpServer {
        SmtpServer { host: address.ip().to_string(), port: address.port(), login: None, security }
    }

    fn smtp(mailbox: &Mailbox) -> Smtp {
        Smtp::new(&server(mailbox.smtp_address(), SmtpSecurity::Plain)).unwrap()
    }

    fn sample() -> Email {
        interview::emails::samples().remove(0).1
    }

    fn message(email: &Email) -> Outgoing {
        mail::compose(email, "info@umemployed.com", Uuid::from_u128(7), DateTime::UNIX_EPOCH).unwrap()
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect(what);
    }

    #[tokio::test]
    async fn a_mail_arrives_as_it_was_sent() {
        let mailbox = mailbox(None).await;
        let text = "Hi,\n.\n..two dots\n.one dot\nGrüße – 面接\n".to_owned();
        let outgoing = message(&Email { text: text.clone(), ..sample() });
        smtp(&mailbox).send(&outgoing, Duration::ZERO).await.unwrap();
        let [mail] = &mailbox.mails()[..] else { panic!("{:?}", mailbox.mails()) };
        assert_eq!(mail.raw.strip_suffix(b"\r\n"), Some(&outgoing.formatted()[..]));
        assert_eq!(
            (mail.envelope_from.as_str(), &mail.envelope_to[..]),
            ("info@umemployed.com", &["carl@x.test".to_owned()][..])
        );
        assert_eq!((mail.text(), mail.html()), (text, sample().html));
        assert_eq!(mail.subject(), "Interview Scheduled: Software Engineer");
        assert_eq!(mail.to(), ["carl@x.test"]);
        assert_eq!(mail.header("auto-submitted").as_deref(), Some("auto-generated"));
        let (method, object) = sample().calendar.unwrap();
        let calendar = Calendar { method: Some(method.to_owned()), file_name: None, text: object };
        assert_eq!(mail.calendar(), Some(calendar.clone()));
        assert_eq!(mail.attachment(), Some(Calendar { file_name: Some("interview.ics".to_owned()), ..calendar }));
    }

    #[tokio::test]
    async fn every_sample_can_be_sent() {
        let mailbox = mailbox(None).await;
        let samples = interview::emails::samples();
        for (_, email) in &samples {
            smtp(&mailbox).send(&message(email), Duration::ZERO).await.unwrap();
        }
        assert_eq!(mailbox.mails().len(), samples.len());
    }

    #[tokio::test]
    async fn only_a_5xx_about_the_mail_is_a_refusal() {
        let mailbox = mailbox(None).await;
        for (step, code, refused) in [
            (Step::Connect, 554, false),
            (Step::Connect, 421, false),
            (Step::Sender, 550, true),
            (Step::Sender, 530, false),
            (Step::Recipient, 550, true),
            (Step::Recipient, 450, false),
            (Step::Data, 554, true),
            (Step::Content, 554, true),
            (Step::Content, 451, false),
        ] {
            mailbox.order(step, Fault::Answer(code), 1);
            let error = smtp(&mailbox).send(&message(&sample()), Duration::ZERO).await.unwrap_err();
            assert_eq!(matches!(error, SendError::Refused(_)), refused, "{step:?} {code}: {error}");
            let words = error.to_string();
            assert!(words.contains(&format!("{code} {}.0.0", code / 100)) && !words.contains("ordered"), "{words}");
        }
        assert!(mailbox.mails().is_empty());
    }

    #[tokio::test]
    async fn a_refused_login_is_no_refusal_of_the_mail_and_tells_no_password() {
        let mailbox = mailbox(None).await;
        let login = Some(("user".to_owned(), "sesame".to_owned().into()));
        let smtp = Smtp::new(&SmtpServer { login, ..server(mailbox.smtp_address(), SmtpSecurity::Plain) }).unwrap();
        mailbox.order(Step::Login, Fault::Answer(535), 1);
        let error = smtp.send(&message(&sample()), Duration::ZERO).await.unwrap_err();
        assert_eq!(error, SendError::Later("login: 535 5.0.0".to_owned()));
        smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_lost_at_any_step_only_delays_the_mail() {
        let mailbox = mailbox(None).await;
        for step in [Step::Connect, Step::Sender, Step::Recipient, Step::Data, Step::Content] {
            mailbox.order(step, Fault::Close, 1);
            let error = smtp(&mailbox).send(&message(&sample()), Duration::ZERO).await.unwrap_err();
            assert!(matches!(error, SendError::Later(_)), "{step:?}: {error}");
        }
        assert!(mailbox.mails().is_empty());
        mailbox.order(Step::Content, Fault::StoreThenClose, 1);
        let error = smtp(&mailbox).send(&message(&sample()), Duration::ZERO).await.unwrap_err();
        assert_eq!(error, SendError::Later("content: no answer".to_owned()));
        assert_eq!(mailbox.mails().len(), 1);
    }

    #[tokio::test]
    async fn a_kept_connection_is_used_again() {
        let mailbox = mailbox(None).await;
        let smtp = smtp(&mailbox);
        smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
        mailbox.order(Step::Connect, Fault::Close, 1);
        smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
        assert_eq!(mailbox.mails().len(), 2);
    }

    #[tokio::test]
    async fn what_goes_wrong_on_a_kept_connection_is_tried_on_a_fresh_one() {
        for fault in [Fault::Close, Fault::Answer(554), Fault::Answer(421)] {
            for step in [Step::Sender, Step::Recipient, Step::Data] {
                let mailbox = mailbox(None).await;
                let smtp = smtp(&mailbox);
                smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
                mailbox.order(step, fault, 1);
                smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
                assert_eq!(mailbox.mails().len(), 2, "{fault:?} {step:?}");
            }
        }
        let mailbox = mailbox(None).await;
        let smtp = smtp(&mailbox);
        smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
        mailbox.order(Step::Content, Fault::StoreThenClose, 1);
        assert!(
            smtp.send(&message(&sample()), Duration::ZERO).await.is_err(),
            "the server may have it: a second try would double it"
        );
        assert_eq!(mailbox.mails().len(), 2);
    }

    #[tokio::test]
    async fn a_dropped_attempt_spoils_no_later_one() {
        let mailbox = mailbox(None).await;
        let smtp = smtp(&mailbox);
        for (count, step) in [Step::Connect, Step::Sender, Step::Data, Step::Content].into_iter().enumerate() {
            mailbox.order(step, Fault::Hang, 1);
            let outgoing = message(&sample());
            tokio::select! {
                _ = smtp.send(&outgoing, Duration::ZERO) => panic!("it hangs"),
                () = until("it hangs", || mailbox.hanging() == count + 1) => {}
            }
            smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
            assert_eq!(mailbox.mails().len(), count + 1);
        }
    }

    #[tokio::test]
    async fn a_server_that_takes_its_time_gets_it() {
        let mailbox = mailbox(None).await;
        mailbox.order(Step::Content, Fault::Hang, 1);
        let smtp = smtp(&mailbox);
        let sending = tokio::spawn(async move { smtp.send(&message(&sample()), Duration::ZERO).await });
        until("it hangs", || mailbox.hanging() == 1).await;
        assert!(mailbox.mails().is_empty());
        mailbox.release();
        sending.await.unwrap().unwrap();
        assert_eq!(mailbox.mails().len(), 1);
    }

    #[tokio::test]
    async fn nothing_is_sent_without_the_encryption_that_was_asked_for() {
        let mailbox = mailbox(None).await;
        for security in [SmtpSecurity::StartTls, SmtpSecurity::Tls] {
            let smtp = Smtp::new(&server(mailbox.smtp_address(), security)).unwrap();
            let error = smtp.send(&message(&sample()), Duration::ZERO).await.unwrap_err();
            assert!(matches!(error, SendError::Later(_)), "{error}");
        }
        assert!(mailbox.mails().is_empty());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_only_delays_the_mail() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = Smtp::new(&server(address, SmtpSecurity::Plain))
            .unwrap()
            .send(&message(&sample()), Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(error, SendError::Later("connecting: no answer".to_owned()));
    }

    /// What the server says to each of these lines, and to nothing.
    async fn dialogue(mailbox: &Mailbox, lines: &[&str]) -> Vec<String> {
        let stream = TcpStream::connect(mailbox.smtp_address()).await.unwrap();
        let mut stream = BufStream::new(stream);
        let mut replies = Vec::new();
        for line in [None].into_iter().chain(lines.iter().map(Some)) {
            if let Some(line) = line {
                stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            let mut reply = String::new();
            stream.read_line(&mut reply).await.unwrap();
            replies.push(reply.chars().take(3).collect());
        }
        replies
    }

    #[tokio::test]
    async fn a_sloppy_client_is_told_so() {
        let mailbox = mailbox(None).await;
        let lines =
            ["DATA", "RCPT TO:<a@x.test>", "MAIL FROM:a@x.test", "MAIL FROM:<a@x.test> SIZE=9", "MAIL FROM:<b@x.test>"];
        assert_eq!(dialogue(&mailbox, &lines).await, ["220", "503", "503", "501", "250", "503"]);
        let lines =
            ["MAIL FROM:<>", "RCPT TO:<>", "rcpt to:<b@x.test>", "RSET", "RCPT TO:<b@x.test>", "NOOP", "HUH", "QUIT"];
        assert_eq!(dialogue(&mailbox, &lines).await, ["220", "250", "501", "250", "250", "503", "250", "500", "221"]);
        let long = "x".repeat(1001);
        let lines = ["MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", &long];
        assert_eq!(dialogue(&mailbox, &lines).await, ["220", "250", "250", "354", "500"]);
        let lines = ["MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", "\n.\nQUIT\r\n.", "QUIT"];
        assert_eq!(dialogue(&mailbox, &lines).await, ["220", "250", "250", "354", "250", "221"]);
        assert_eq!(&*mailbox.mails()[0].raw, b"\n\nQUIT\r\n");
    }

    #[tokio::test]
    async fn a_mail_that_is_too_large_is_refused_and_not_kept() {
        let mailbox = mailbox(None).await;
        let line = "x".repeat(900);
        let text = format!("{line}\n").repeat(MAIL_LIMIT / 900);
        let error = smtp(&mailbox).send(&message(&Email { text, ..sample() }), Duration::ZERO).await.unwrap_err();
        assert_eq!(error, SendError::Refused("content: 552 5.3.4".to_owned()));
        assert!(mailbox.mails().is_empty());
    }

    async fn in_a_folder<F: Future>(test: impl FnOnce(PathBuf) -> F) {
        let folder = std::env::temp_dir().join(format!("interviews-mailbox-{}", crate::clock::random_uuid()));
        test(folder.clone()).await;
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn kept_mails_survive_a_restart_and_deleted_ones_do_not() {
        in_a_folder(async |folder| {
            let first = mailbox(Some(folder.clone())).await;
            let smtp = smtp(&first);
            smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
            smtp.send(&message(&sample()), Duration::ZERO).await.unwrap();
            let before = first.mails();
            drop(first);
            fs::write(folder.join("notes.eml"), "no mail of ours").unwrap();
            fs::write(folder.join("000009.eml"), "nor this").unwrap();
            let second = mailbox(Some(folder.clone())).await;
            let key = |mail: &Received| (mail.id, mail.envelope_to.clone(), mail.raw.clone());
            assert_eq!(second.mails().iter().map(key).collect::<Vec<_>>(), before.iter().map(key).collect::<Vec<_>>());
            self::smtp(&second).send(&message(&sample()), Duration::ZERO).await.unwrap();
            assert_eq!(second.mails().last().unwrap().id, 3);
            second.clear();
            drop(second);
            assert!(mailbox(Some(folder)).await.mails().is_empty());
        })
        .await;
    }

    #[allow(clippy::disallowed_methods, reason = "the test's browser, not the server")]
    fn browser() -> reqwest::Client {
        reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap()
    }

    async fn get(mailbox: &Mailbox, path: &str) -> (u16, String, String) {
        let answer = browser().get(format!("{}{path}", mailbox.url())).send().await.unwrap();
        let policy = answer.headers().get("content-security-policy").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), policy.unwrap_or_default(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_pages_show_mails_newest_first_and_every_part_of_each() {
        let mailbox = mailbox(None).await;
        assert!(get(&mailbox, "/").await.2.contains("No mail yet."));
        let smtp = smtp(&mailbox);
        for (_, email) in interview::emails::samples() {
            smtp.send(&message(&email), Duration::ZERO).await.unwrap();
        }
        let (status, _, list) = get(&mailbox, "/").await;
        let places: Vec<_> = ["/mails/3/", "/mails/2/", "/mails/1/"].map(|link| list.find(link).unwrap()).into();
        assert!(status == 200 && places.is_sorted() && list.contains("carl@x.test"), "{list}");

        let (status, policy, show) = get(&mailbox, "/mails/1/").await;
        assert!(status == 200 && policy.contains("default-src 'none'"), "{policy}");
        for part in [
            "Interview Scheduled: Software Engineer",
            "Rita Recruit &#60;rita@x.test&#62;",
            "method=REQUEST",
            "Position: Software Engineer",
            "BEGIN:VCALENDAR",
        ] {
            assert!(show.contains(part), "{part} in {show}");
        }
        let (_, policy, html) = get(&mailbox, "/mails/1/html").await;
        assert!(policy.starts_with("sandbox ") && !policy.contains("allow-scripts"), "{policy}");
        assert_eq!(html, sample().html);
        let object = sample().calendar.unwrap().1;
        assert_eq!(get(&mailbox, "/mails/1/interview.ics").await.2, object);
        assert!(get(&mailbox, "/mails/1/source").await.2.contains("Auto-Submitted: auto-generated\r\n"));
        assert_eq!(get(&mailbox, "/mails/99/").await.0, 404);
        assert_eq!(get(&mailbox, "/mails/x/html").await.0, 404);

        let json: serde_json::Value = serde_json::from_str(&get(&mailbox, "/mails.json").await.2).unwrap();
        assert_eq!(json[0]["envelope_to"], serde_json::json!(["carl@x.test"]));
        assert_eq!(json[0]["calendar"]["text"], object);
        assert_eq!(json[0]["text"].as_str().map(str::trim_end), Some(sample().text.trim_end()));
    }

    #[tokio::test]
    async fn hostile_mails_are_shown_as_text() {
        let mailbox = mailbox(None).await;
        let script = "<script>alert(1)</script>";
        let hostile = Email {
            to: (Some(script.to_owned()), "carl@x.test".to_owned()),
            subject: script.to_owned(),
            text: script.to_owned(),
            calendar: Some(("REQUEST", script.to_owned())),
            ..sample()
        };
        smtp(&mailbox).send(&message(&hostile), Duration::ZERO).await.unwrap();
        for path in ["/", "/mails/1/", &format!("/nowhere/{script}?{script}={script}")] {
            let (status, _, html) = get(&mailbox, path).await;
            assert!(status == 200 && html.contains("script") && !html.contains("<script"), "{path}: {html}");
        }
    }

    #[tokio::test]
    async fn any_other_address_stands_in_for_the_frontend() {
        let mailbox = mailbox(None).await;
        let (status, _, html) = get(&mailbox, "/companies/11/dashboard?google_oauth=success&a=b%20c").await;
        assert_eq!(status, 200);
        for part in ["/companies/11/dashboard", "google_oauth", "success", "b c"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        let posted = browser().post(format!("{}/companies/", mailbox.url())).send().await.unwrap();
        assert_eq!(posted.status().as_u16(), 405);
    }
}
