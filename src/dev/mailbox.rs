//! Stop-gap sink until the mailbox lands.
use std::{io, net::SocketAddr, path::PathBuf, sync::{Arc, Mutex}};
use mail_parser::{MessageParser, MimeHeaders};
use tokio::{io::{AsyncBufReadExt, AsyncWriteExt, BufReader}, net::TcpListener};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault { HangAfterConnect, HangAfterData, RejectData, Defer }
#[derive(Default)]
struct Shared { mails: Mutex<Vec<Received>>, faults: Mutex<Vec<Fault>> }
pub struct Mailbox { shared: Arc<Shared>, smtp: SocketAddr, url: String, task: tokio::task::JoinHandle<()> }
#[derive(Clone, Debug)]
pub struct Received { pub envelope_from: String, pub envelope_to: Vec<String>, pub raw: Vec<u8> }

impl Received {
    fn with<T>(&self, f: impl FnOnce(&mail_parser::Message<'_>) -> T) -> T { f(&MessageParser::default().parse(&self.raw).unwrap()) }
    pub fn subject(&self) -> String { self.with(|m| m.subject().unwrap_or_default().to_owned()) }
    pub fn message_id(&self) -> String { self.with(|m| m.message_id().unwrap_or_default().to_owned()) }
    pub fn text(&self) -> String { self.with(|m| m.body_text(0).unwrap_or_default().into_owned()) }
    pub fn calendar(&self) -> Option<String> { self.with(|m| m.parts.iter().find(|p| p.content_type().is_some_and(|c| c.ctype() == "text" && c.subtype() == Some("calendar"))).and_then(|p| p.text_contents().map(str::to_owned))) }
}
impl Mailbox {
    pub async fn start(smtp: SocketAddr, web: SocketAddr, keep: Option<PathBuf>) -> io::Result<Mailbox> { Self::on(TcpListener::bind(smtp).await?, TcpListener::bind(web).await?, keep) }
    pub fn on(smtp: TcpListener, web: TcpListener, _keep: Option<PathBuf>) -> io::Result<Mailbox> {
        let shared = Arc::new(Shared::default());
        let (addr, url) = (smtp.local_addr()?, format!("http://{}", web.local_addr()?));
        let s = shared.clone();
        let task = tokio::spawn(async move { while let Ok((socket, _)) = smtp.accept().await { let s = s.clone(); tokio::spawn(async move { _ = serve(socket, s).await; }); } });
        Ok(Mailbox { shared, smtp: addr, url, task })
    }
    pub fn url(&self) -> &str { &self.url }
    pub fn smtp_address(&self) -> SocketAddr { self.smtp }
    pub fn mails(&self) -> Vec<Received> { self.shared.mails.lock().unwrap().clone() }
    pub fn clear(&self) { self.shared.mails.lock().unwrap().clear() }
    pub fn order(&self, fault: Fault, times: usize) { self.shared.faults.lock().unwrap().extend(std::iter::repeat_n(fault, times)) }
    pub fn clear_faults(&self) { self.shared.faults.lock().unwrap().clear() }
}
impl Drop for Mailbox { fn drop(&mut self) { self.task.abort() } }
async fn serve(socket: tokio::net::TcpStream, s: Arc<Shared>) -> io::Result<()> {
    let take = |f: Fault| { let mut q = s.faults.lock().unwrap(); q.iter().position(|x| *x == f).map(|i| q.remove(i)).is_some() };
    if take(Fault::HangAfterConnect) { std::future::pending::<()>().await }
    let (r, mut w) = socket.into_split();
    let mut lines = BufReader::new(r);
    w.write_all(b"220 mailbox ESMTP\r\n").await?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await? == 0 { return Ok(()) }
        let upper = line.to_uppercase();
        let reply: &[u8] = if upper.starts_with("EHLO") { b"250-mailbox\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n" }
        else if upper.starts_with("MAIL") { from = line.trim().to_owned(); to.clear(); b"250 ok\r\n" }
        else if upper.starts_with("RCPT") { to.push(line.split(['<', '>']).nth(1).unwrap_or_default().to_owned()); b"250 ok\r\n" }
        else if upper.starts_with("DATA") {
            if take(Fault::RejectData) { b"554 no\r\n" } else if take(Fault::Defer) { b"451 later\r\n" } else {
            w.write_all(b"354 go\r\n").await?;
            let mut raw = Vec::new();
            loop { let mut l = Vec::new(); lines.read_until(b'\n', &mut l).await?; if l == b".\r\n" { break } raw.extend_from_slice(l.strip_prefix(b".").unwrap_or(&l)); }
            s.mails.lock().unwrap().push(Received { envelope_from: from.clone(), envelope_to: to.clone(), raw });
            if take(Fault::HangAfterData) { std::future::pending::<()>().await }
            b"250 taken\r\n" } }
        else if upper.starts_with("QUIT") { w.write_all(b"221 bye\r\n").await?; return Ok(()) } else { b"250 ok\r\n" };
        w.write_all(reply).await?;
    }
}
