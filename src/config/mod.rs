//! Settings: `config/default.toml` (compiled in) < the file named by `CONFIG_FILE` < the environment.
//!
//! The only reader of the environment. Every value is parsed and checked here, once; all faults are reported together,
//! each with its variable's name and never with its value. Secrets may come from files (`NAME_FILE`) and have no
//! default.

mod address;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
    str::FromStr,
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

pub use self::address::Origin;
use crate::{colour::Colour, secret::Sealer};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// What other origins' requests may always carry: what the web application sends, what browsers add when they reload,
/// and what tracing adds.
const ALLOWED_HEADERS: &str = "accept, accept-encoding, authorization, baggage, cache-control, content-type, dnt, \
    idempotency-key, origin, pragma, sentry-trace, traceparent, tracestate, user-agent, x-csrftoken, x-requested-with";

/// A picture for the pages.
#[derive(Debug)]
pub struct Logo {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
    /// Others for other bytes.
    pub digest: String,
}

/// Everything the server can be told from outside.
#[derive(Debug)]
pub struct Settings {
    pub database_url: SecretString,
    pub pool: PoolLimits,
    /// HS256 key of the JWTs, shared with Django.
    pub secret_key: SecretString,
    pub host: String,
    pub port: u16,
    /// This server as browsers see it: an origin.
    pub public_url: String,
    /// Base of the mailed join links: an origin.
    pub portal_url: String,
    /// Base of the SPA; no trailing slash.
    pub frontend_url: String,
    /// Where browsers may call from; never empty.
    pub allowed_origins: Vec<Origin>,
    /// Which headers those may send: names separated by commas.
    pub allowed_headers: HeaderValue,
    /// Whose `X-Forwarded-For` is believed; IPv4 addresses never in their IPv6 form.
    pub trusted_proxies: Vec<IpNet>,
    /// From where one peer signs in for many people; in the form of `trusted_proxies`.
    pub trusted_clients: Vec<IpNet>,
    /// `None` unless client id, client secret and encryption key are all set.
    pub google: Option<GoogleClient>,
    pub google_auth_uri: String,
    pub google_token_uri: String,
    pub google_revoke_uri: String,
    /// The part before `/calendar/v3/…`; no trailing slash.
    pub google_calendar_api_base: String,
    /// For all calls to Google of one request together.
    pub google_budget: Duration,
    /// `None`: no mail is sent, Google invites instead.
    pub email: Option<SmtpServer>,
    pub from_email: String,
    pub mail_limits: MailLimits,
    pub brand_name: String,
    pub brand_accent: Colour,
    pub brand_logo: Option<Logo>,
    /// `None`: signing in needs no reCAPTCHA.
    pub recaptcha_secret_key: Option<SecretString>,
    pub recaptcha_verify_uri: String,
    pub access_token_lifetime: Duration,
    pub refresh_token_lifetime: Duration,
    pub join_opens_before: Duration,
    pub join_closes_after_end: Duration,
    /// Length, in minutes, of an interview without its own.
    pub interview_duration_minutes: i32,
    pub log_filter: Targets,
    pub log_format: LogFormat,
    /// How long a request may take; more than its calls to Google and its mails may.
    pub request_patience: Duration,
    /// How long a client may take for a request's line and headers, then for its body, and to take in any of an answer.
    pub client_patience: Duration,
    /// How long a connection is kept on which a request has been answered and the next one has not begun.
    pub keep_alive: Duration,
    /// How many jobs this instance runs at once.
    pub job_workers: usize,
    /// What works, but hardly as somebody wants it: a sentence each, which names settings and no value.
    pub warnings: Vec<String>,
}

/// How the database's connections are used.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// For requests; credentials, probes and the job queue have a few besides.
    pub connections: u32,
    /// How long a connection is waited for.
    pub acquire: Duration,
    /// How long a statement may take.
    pub statement: Duration,
}

impl PoolLimits {
    /// How long a statement waits for a lock: who waits for its connection can still be served after that.
    pub fn lock(&self) -> Duration {
        (self.acquire / 5).min(self.statement)
    }
}

/// How many mails a recruiter may cause.
#[derive(Debug, Clone, Copy)]
pub struct MailLimits {
    /// To one candidate within an hour: invitations and updates.
    pub candidate_hour: i64,
    /// The same within a day.
    pub candidate_day: i64,
    /// First invitations to whomever within a day.
    pub invitations_day: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// A JSON object in each line.
    Json,
}

/// The OAuth client at Google, with what seals the grants it earns.
#[derive(Debug)]
pub struct GoogleClient {
    pub client_id: String,
    pub client_secret: SecretString,
    pub sealer: Sealer,
}

/// How to reach the SMTP server.
#[derive(Debug, Clone)]
pub struct SmtpServer {
    pub host: String,
    pub port: u16,
    /// User and password; `None`: no login.
    pub login: Option<(String, SecretString)>,
    pub security: SmtpSecurity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpSecurity {
    Plain,
    /// STARTTLS is required: without it nothing is sent.
    StartTls,
    /// TLS from the first byte.
    Tls,
}

/// All that is wrong with the settings, a line each.
#[derive(Debug, thiserror::Error)]
#[error("the settings are not usable:\n{}", .0.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
pub struct Faults(Vec<String>);

impl Settings {
    /// Reads all layers, the process's environment last.
    pub fn load() -> Result<Settings, Faults> {
        Self::from_layers(environment)
    }

    /// Reads all layers, with `environment` in place of the process's own.
    pub fn from_layers(environment: impl Fn(&str) -> Option<String>) -> Result<Settings, Faults> {
        Self::over_stand_ins(&HashMap::new(), environment)
    }

    /// Reads all layers, with `stand_ins` (by variable name) between the defaults and the file. Those of a service go
    /// when the service's own first setting is given.
    pub fn over_stand_ins(
        stand_ins: &HashMap<&str, String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, Faults> {
        let mut reader = Reader::new(stand_ins, environment);
        let mut settings = reader.settings();
        settings.warnings = reader.warnings;
        if reader.faults.is_empty() { Ok(settings) } else { Err(Faults(reader.faults)) }
    }
}

/// A variable of the process's environment; `None` when unset or empty. What is not UTF-8 becomes a text that no
/// number, address or key can be read from.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

/// Reads a level, such as `info`, and levels of crates and modules beside one, such as `warn,interviews=debug`.
///
/// Stricter than [`Targets`] itself, which takes any word that is no level for a crate's name, and then says nothing of
/// anything else.
pub fn log_filter(text: &str) -> Option<Targets> {
    let mut targets = Targets::new();
    for part in text.split(',').map(str::trim) {
        let (target, level) = part.split_once('=').unwrap_or(("", part));
        let is_path = target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
        if level.is_empty() || !is_path || part.contains('=') == target.is_empty() {
            return None;
        }
        let level: LevelFilter = level.parse().ok()?;
        targets = if target.is_empty() { targets.with_default(level) } else { targets.with_target(target, level) };
    }
    Some(targets)
}

/// What stands in for a service in development goes when its own first setting is given.
const STOOD_IN: [(&str, &str); 2] = [("google_client_id", "google_"), ("email_host", "email_")];

/// The layers merged to one text a key, and the faults met so far. Reading a bad value notes the fault and gives some
/// harmless value, so that one pass meets all faults.
struct Reader {
    values: BTreeMap<String, String>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    fn new(stand_ins: &HashMap<&str, String>, environment: impl Fn(&str) -> Option<String>) -> Self {
        let mut reader = Reader { values: BTreeMap::new(), faults: Vec::new(), warnings: Vec::new() };
        let mut values = reader.parsed_toml(DEFAULTS, "config/default.toml");
        let mut given = match environment("CONFIG_FILE").map(std::fs::read_to_string) {
            None => BTreeMap::new(),
            Some(Ok(text)) => reader.parsed_toml(&text, "CONFIG_FILE"),
            Some(Err(error)) => {
                reader.faults.push(format!("CONFIG_FILE: cannot read the file: {error}"));
                BTreeMap::new()
            }
        };
        for key in given.keys().filter(|key| !values.contains_key(*key)) {
            reader.faults.push(format!("CONFIG_FILE: there is no setting `{key}`"));
        }
        for key in values.keys() {
            let name = key.to_uppercase();
            let from_file = environment(&format!("{name}_FILE")).map(std::fs::read_to_string);
            match (environment(&name), from_file) {
                (Some(_), Some(_)) => reader.faults.push(format!("{name}: give it or {name}_FILE, not both")),
                (Some(value), None) if value.contains(char::REPLACEMENT_CHARACTER) => {
                    reader.faults.push(format!("{name}: is not UTF-8"));
                }
                (Some(value), None) => _ = given.insert(key.clone(), value),
                (None, Some(Ok(value))) => {
                    _ = given.insert(key.clone(), value.trim_end_matches(['\r', '\n']).to_owned());
                }
                (None, Some(Err(error))) => {
                    reader.faults.push(format!("{name}_FILE: cannot read the file: {error}"));
                }
                (None, None) => {}
            }
        }
        let is_given = |key: &str| given.get(key).is_some_and(|value| !value.is_empty());
        let is_replaced = |key: &str| STOOD_IN.iter().any(|(first, all)| key.starts_with(all) && is_given(first));
        let stand_ins = stand_ins.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
        values.extend(stand_ins.filter(|(key, _)| !is_replaced(key)));
        values.extend(given);
        reader.values = values;
        reader
    }

    fn parsed_toml(&mut self, text: &str, source: &str) -> BTreeMap<String, String> {
        let table = text.parse::<toml::Table>().unwrap_or_else(|error| {
            // The error's own text quotes the line, which may hold a secret.
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count());
            self.faults.push(format!("{source}: not valid TOML near line {line}"));
            toml::Table::new()
        });
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => {
                    self.faults.push(format!("{source}: `{key}` is not a text, a whole number or true/false"));
                    continue;
                }
            };
            values.insert(key, text);
        }
        values
    }

    fn settings(&mut self) -> Settings {
        let host = self.required("HOST");
        let port = self.number("PORT", 1, u16::MAX);
        let public_url = self.public_url(&host, port);
        let frontend_url = self.base_url("FRONTEND_URL");
        let google_budget = self.number("GOOGLE_BUDGET_SECONDS", 1, 20);
        Settings {
            database_url: self.database_url().into(),
            pool: PoolLimits {
                connections: self.number("DATABASE_MAX_CONNECTIONS", 2, 1000),
                acquire: Duration::from_secs(self.number("DATABASE_ACQUIRE_SECONDS", 1, 60)),
                statement: Duration::from_secs(self.number("DATABASE_STATEMENT_SECONDS", 1, 3600)),
            },
            secret_key: self.secret_key().into(),
            portal_url: match self.text("PORTAL_URL").is_empty() {
                true => public_url.clone(),
                false => self.origin("PORTAL_URL"),
            },
            allowed_origins: self.origins(&frontend_url),
            allowed_headers: self.allowed_headers(),
            trusted_proxies: self.networks("TRUSTED_PROXIES"),
            trusted_clients: self.networks("TRUSTED_CLIENTS"),
            google: self.google(),
            google_auth_uri: self.uri("GOOGLE_AUTH_URI"),
            google_token_uri: self.uri("GOOGLE_TOKEN_URI"),
            google_revoke_uri: self.uri("GOOGLE_REVOKE_URI"),
            google_calendar_api_base: self.base_url("GOOGLE_CALENDAR_API_BASE"),
            google_budget: Duration::from_secs(google_budget),
            email: self.email(),
            from_email: self.sender(),
            mail_limits: MailLimits {
                candidate_hour: self.number("CANDIDATE_MAILS_PER_HOUR", 1, 1_000_000),
                candidate_day: self.number("CANDIDATE_MAILS_PER_DAY", 1, 1_000_000),
                invitations_day: self.number("INVITATIONS_PER_DAY", 1, 1_000_000),
            },
            brand_name: self.required("BRAND_NAME"),
            brand_accent: self.colour("BRAND_ACCENT"),
            brand_logo: self.logo(),
            recaptcha_secret_key: Some(self.text("RECAPTCHA_SECRET_KEY")).filter(|key| !key.is_empty()).map(Into::into),
            recaptcha_verify_uri: self.uri("RECAPTCHA_VERIFY_URI"),
            access_token_lifetime: self.minutes("ACCESS_TOKEN_LIFETIME", 1),
            refresh_token_lifetime: self.minutes("REFRESH_TOKEN_LIFETIME", 1),
            join_opens_before: self.minutes("JOIN_OPENS_MINUTES_BEFORE", 0),
            join_closes_after_end: self.minutes("JOIN_CLOSES_MINUTES_AFTER_END", 0),
            interview_duration_minutes: self.number("INTERVIEW_DURATION_MINUTES", 5, 480),
            log_filter: self.log_filter(),
            log_format: self.log_format(),
            request_patience: self.request_patience(google_budget),
            client_patience: Duration::from_secs(self.number("CLIENT_SECONDS", 1, 3600)),
            keep_alive: Duration::from_secs(self.number("KEEP_ALIVE_SECONDS", 1, 3600)),
            job_workers: self.number("JOB_WORKERS", 1, 100),
            warnings: Vec::new(),
            host,
            port,
            public_url,
            frontend_url,
        }
    }

    fn database_url(&mut self) -> String {
        let url = self.required("DATABASE_URL");
        let faults = if url.is_empty() { Vec::new() } else { address::faults_of_database(&url) };
        faults.into_iter().for_each(|fault| self.fault("DATABASE_URL", fault));
        url
    }

    /// As it stands: Django signs with every byte of it.
    fn secret_key(&mut self) -> String {
        self.required("SECRET_KEY");
        let key = self.values.get("secret_key").cloned().unwrap_or_default();
        let different = key.chars().collect::<BTreeSet<_>>().len();
        // What `django-admin startproject` makes begins so, and lies in many a repository.
        if key.len() < 32 || different < 8 || key.starts_with("django-insecure-") {
            self.warn(
                "SECRET_KEY can be guessed: somebody who does makes tokens of every account. Use 50 random characters",
            );
        }
        key
    }

    fn public_url(&mut self, host: &str, port: u16) -> String {
        if !self.text("PUBLIC_URL").is_empty() {
            return self.origin("PUBLIC_URL");
        }
        if !host.is_empty() && !address::is_loopback(host) {
            self.fault("PUBLIC_URL", "is required when HOST is not a loopback address");
        }
        if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") }
    }

    /// A booking waits for Google, then at most 10 s for its mails, and has the database to ask.
    fn request_patience(&mut self, google_budget: u64) -> Duration {
        let seconds = self.number("REQUEST_SECONDS", 1, 3600);
        if seconds < google_budget + 15 {
            self.fault("REQUEST_SECONDS", "is not at least GOOGLE_BUDGET_SECONDS + 15");
        }
        Duration::from_secs(seconds)
    }

    fn colour(&mut self, name: &str) -> Colour {
        self.text(name).parse().unwrap_or_else(|()| {
            self.fault(name, "is not a colour such as #2747c7");
            Colour::BLACK
        })
    }

    fn logo(&mut self) -> Option<Logo> {
        const MOST: usize = 256 << 10;
        let path = Some(self.text("BRAND_LOGO")).filter(|path| !path.is_empty())?;
        let media_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("webp") => "image/webp",
            _ => {
                self.fault("BRAND_LOGO", "does not end in .svg, .png or .webp");
                return None;
            }
        };
        match std::fs::read(path) {
            Ok(bytes) if bytes.len() <= MOST => {
                let digest = hex::encode(&Sha256::digest(&bytes)[..6]);
                Some(Logo { media_type, bytes, digest })
            }
            Ok(_) => {
                self.fault("BRAND_LOGO", "is larger than 256 KiB");
                None
            }
            Err(error) => {
                self.fault("BRAND_LOGO", format!("cannot be read: {error}"));
                None
            }
        }
    }

    fn log_filter(&mut self) -> Targets {
        let filter = self.required("LOG_FILTER");
        log_filter(&filter).unwrap_or_else(|| {
            self.fault("LOG_FILTER", "is not a filter such as info,interviews=debug");
            Targets::new()
        })
    }

    fn log_format(&mut self) -> LogFormat {
        match self.text("LOG_FORMAT").as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => {
                self.fault("LOG_FORMAT", "is neither text nor json");
                LogFormat::Text
            }
        }
    }

    fn sender(&mut self) -> String {
        let address = self.required("DEFAULT_FROM_EMAIL");
        if !address.is_empty() && address.parse::<lettre::message::Mailbox>().is_err() {
            self.fault("DEFAULT_FROM_EMAIL", "is not an e-mail address");
        }
        address
    }

    fn google(&mut self) -> Option<GoogleClient> {
        let (id, secret, key) =
            (self.text("GOOGLE_CLIENT_ID"), self.text("GOOGLE_CLIENT_SECRET"), self.text("TOKEN_ENCRYPTION_KEY"));
        let sealer = match key.is_empty() {
            true => None,
            false => Sealer::parse(&key).map_err(|error| self.fault("TOKEN_ENCRYPTION_KEY", error)).ok(),
        };
        let parts = [("GOOGLE_CLIENT_ID", &id), ("GOOGLE_CLIENT_SECRET", &secret), ("TOKEN_ENCRYPTION_KEY", &key)];
        let missing: Vec<_> = parts.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
        if (1..parts.len()).contains(&missing.len()) {
            self.warn(format!("there are no Google Meet interviews: {} is not set", missing.join(" and ")));
        }
        if id.is_empty() || secret.is_empty() {
            return None;
        }
        Some(GoogleClient { client_id: id, client_secret: secret.into(), sealer: sealer? })
    }

    fn email(&mut self) -> Option<SmtpServer> {
        let host = self.text("EMAIL_HOST");
        let port = self.number("EMAIL_PORT", 1, u16::MAX);
        let security = match (self.truth("EMAIL_USE_SSL"), self.truth("EMAIL_USE_TLS")) {
            (true, _) => SmtpSecurity::Tls,
            (false, true) => SmtpSecurity::StartTls,
            (false, false) => SmtpSecurity::Plain,
        };
        let (user, password) = (self.text("EMAIL_HOST_USER"), self.text("EMAIL_HOST_PASSWORD"));
        let half = match (host.is_empty(), user.is_empty(), password.is_empty()) {
            (true, false, _) | (true, _, false) => Some("no emails are sent: EMAIL_HOST is not set"),
            (false, true, false) => Some("the SMTP server is used without a login: EMAIL_HOST_USER is not set"),
            (false, false, true) => Some("the SMTP login has no password: EMAIL_HOST_PASSWORD is not set"),
            _ => None,
        };
        half.into_iter().for_each(|sentence| self.warn(sentence));
        let login = (!user.is_empty()).then(|| (user, password.into()));
        (!host.is_empty()).then_some(SmtpServer { host, port, login, security })
    }

    fn origins(&mut self, frontend_url: &str) -> Vec<Origin> {
        let own = Some(frontend_url).filter(|url| !url.is_empty()).and_then(Origin::parse);
        let listed: Vec<Option<Origin>> =
            self.list("CORS_ALLOWED_ORIGINS").iter().map(|text| Origin::parse(text)).collect();
        if listed.contains(&None) {
            let what = "holds what is not an origin such as https://app.example or https://*.app.example";
            self.fault("CORS_ALLOWED_ORIGINS", what);
        }
        own.into_iter().chain(listed.into_iter().flatten()).collect()
    }

    fn allowed_headers(&mut self) -> HeaderValue {
        let mut names: BTreeSet<String> = ALLOWED_HEADERS.split(", ").map(str::to_owned).collect();
        for name in self.list("CORS_ALLOWED_HEADERS") {
            match name.parse::<HeaderName>() {
                // `*` is one, but stands for itself where credentials may come along.
                Ok(name) if name != "*" => _ = names.insert(name.to_string()),
                _ => self.fault("CORS_ALLOWED_HEADERS", "holds what is not the name of a header"),
            }
        }
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        HeaderValue::try_from(names).unwrap_or(HeaderValue::from_static(""))
    }

    /// Addresses or networks (`10.0.0.0/8`), separated by commas.
    fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let networks: Option<Vec<IpNet>> = self.list(name).iter().map(|text| address::network(text)).collect();
        networks.unwrap_or_else(|| {
            self.fault(name, "holds what is neither an address nor a network such as 10.0.0.0/8");
            Vec::new()
        })
    }

    fn text(&self, name: &str) -> String {
        self.values.get(&name.to_lowercase()).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// What commas separate.
    fn list(&self, name: &str) -> Vec<String> {
        self.text(name).split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    fn fault(&mut self, name: &str, what: impl Display) {
        self.faults.push(format!("{name}: {what}"));
    }

    fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }

    fn required(&mut self, name: &str) -> String {
        let text = self.text(name);
        if text.is_empty() {
            self.fault(name, "is required");
        }
        text
    }

    /// As Django reads them: true, yes, on, 1.
    fn truth(&mut self, name: &str) -> bool {
        match self.text(name).to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => true,
            "false" | "no" | "off" | "0" | "" => false,
            _ => {
                self.fault(name, "is neither true nor false");
                false
            }
        }
    }

    fn number<T: FromStr<Err: Display> + PartialOrd + Display>(&mut self, name: &str, least: T, most: T) -> T {
        match self.text(name).parse() {
            Ok(number) if number >= least && number <= most => return number,
            Ok(_) => self.fault(name, format!("is not from {least} to {most}")),
            Err(error) => self.fault(name, error),
        }
        least
    }

    fn minutes(&mut self, name: &str, least: u64) -> Duration {
        // Ten years: long enough for every use, short enough to add to any instant.
        Duration::from_secs(self.number(name, least, 5_256_000) * 60)
    }

    fn uri(&mut self, name: &str) -> String {
        let text = self.required(name);
        if !text.is_empty() && !Url::parse(&text).is_ok_and(|url| address::is_web(&url)) {
            self.fault(name, "is not an http:// or https:// address");
        }
        text
    }

    /// An address to append paths to, without its trailing slash.
    fn base_url(&mut self, name: &str) -> String {
        let text = self.uri(name);
        if let Ok(url) = Url::parse(&text) {
            let is_plain = url.query().is_none() && url.fragment().is_none() && url.password().is_none();
            let is_one = url.host_str().is_some_and(|host| !host.contains('*'));
            if !(is_plain && is_one && url.username().is_empty()) {
                self.fault(
                    name,
                    "has a user, a query, a fragment or a *, which an address to append paths to cannot have",
                );
            }
        }
        text.trim_end_matches('/').to_owned()
    }

    /// A [`base_url`](Self::base_url) of pages of ours, whose paths begin at its host; as browsers write it.
    fn origin(&mut self, name: &str) -> String {
        let text = self.base_url(name);
        let Ok(url) = Url::parse(&text) else { return text };
        if url.path() != "/" {
            self.fault(name, "has a path, below which this server cannot work: give it a host of its own");
        }
        if url.scheme() == "http" && address::is_public(&url) {
            self.warn(format!("{name} is not https: passwords and sessions can be read on their way"));
        }
        url.origin().ascii_serialization()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, Faults> {
        let pairs: BTreeMap<String, String> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Settings::from_layers(|name| pairs.get(name).cloned())
    }

    const REQUIRED: [(&str, &str); 2] = [("DATABASE_URL", "postgres://localhost/x"), ("SECRET_KEY", "k")];

    #[test]
    fn the_defaults_and_the_required_values_are_enough() {
        let settings = settings(&REQUIRED).unwrap();
        assert_eq!(settings.public_url, "http://127.0.0.1:8000");
        assert_eq!(settings.portal_url, settings.public_url);
        assert_eq!(settings.allowed_origins, [Origin::parse("http://localhost:3000").unwrap()]);
        assert!(settings.google.is_none() && settings.email.is_none());
        // Balancers keep idle connections for 60 s, and must be the first to close one.
        assert_eq!(settings.keep_alive, Duration::from_secs(75));
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        for filter in
            ["", "loud", "interviews=loud", "\"info\"", "info,", "interviews=", "=info", "*=debug", "[request]=debug"]
        {
            assert!(log_filter(filter).is_none(), "{filter}");
        }
        for filter in ["info", "off", "INFO, interviews=debug", "warn,interviews::mail=trace,sqlx=error"] {
            assert!(log_filter(filter).is_some(), "{filter}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once_by_name_and_without_values() {
        let faults = settings(&[
            ("PORT", "topsecret"),
            ("LOG_FILTER", "topsecret"),
            ("HOST", "0.0.0.0"),
            ("TOKEN_ENCRYPTION_KEY", "topsecret"),
            ("EMAIL_USE_TLS", "topsecret"),
            ("GOOGLE_TOKEN_URI", "topsecret"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "DATABASE_URL",
            "SECRET_KEY",
            "PORT",
            "LOG_FILTER",
            "PUBLIC_URL",
            "TOKEN_ENCRYPTION_KEY",
            "EMAIL_USE_TLS",
            "GOOGLE_TOKEN_URI",
        ] {
            assert!(faults.contains(&format!("  {name}: ")), "{name} is missing in {faults}");
        }
        assert!(!faults.contains("topsecret"), "{faults}");
    }

    fn with<'a>(own: &[(&'a str, &'a str)]) -> Result<Settings, Faults> {
        settings(&[&REQUIRED[..], own].concat())
    }

    /// The name of the one setting that is refused.
    #[track_caller]
    fn refused(own: &[(&str, &str)]) -> String {
        let faults = with(own).expect_err(&format!("{own:?} is accepted")).to_string();
        let mut lines = faults.lines().skip(1);
        let (first, rest) = (lines.next().unwrap(), lines.count());
        assert_eq!(rest, 0, "{faults}");
        first.trim().split(':').next().unwrap().to_owned()
    }

    #[test]
    fn parameters_of_the_database_that_the_driver_would_log_are_refused_by_their_names() {
        for (url, name) in [
            ("postgres://localhost/x?sslpassword=topsecret", "sslpassword"),
            ("postgres://u:p@localhost/x?sslmode=require&channel_binding=topsecret", "channel_binding"),
            ("postgresql://localhost/x?options[a=topsecret", "(not a name)"),
            ("postgres://u:1?topsecret@localhost/x", "(not a name)"),
            ("postgres://u:12?topsecret&x@localhost/x", "(not a name)"),
            ("postgres://u:12/3?topsecret#x@localhost/x", "(not a name)"),
            ("postgres://localhost/x?user=u&password=12&topsecret", "(not a name)"),
        ] {
            let faults = settings(&[("DATABASE_URL", url), REQUIRED[1]]).unwrap_err().to_string();
            assert!(
                faults.ends_with(&format!("  DATABASE_URL: has a parameter that is not known here: {name}")),
                "{faults}"
            );
            assert!(!faults.contains("topsecret"), "{faults}");
        }
        for url in [
            "postgres:///x?host=%2Frun%2Fpostgresql&port=5433&user=u&password=p&dbname=x",
            "postgres://localhost/x?sslmode=verify-full&sslrootcert=%2Fca&application_name=a&options[work_mem]=8MB&options=-cx=1",
        ] {
            assert!(settings(&[("DATABASE_URL", url), REQUIRED[1]]).is_ok(), "{url}");
        }
        for name in ["sslmode", "port", "statement-cache-capacity"] {
            let url = format!("postgres://localhost/x?user=u&{name}=topsecret&application_name=a");
            let faults = settings(&[("DATABASE_URL", &url), REQUIRED[1]]).unwrap_err().to_string();
            let expected = format!("  DATABASE_URL: has a parameter whose value cannot be used: {name}");
            assert!(faults.ends_with(&expected) && !faults.contains("topsecret"), "{faults}");
        }
        assert_eq!(refused(&[("DATABASE_URL", "mysql://localhost/x")]), "DATABASE_URL");
    }

    #[test]
    fn addresses_below_which_nothing_can_work_are_refused() {
        for name in ["PUBLIC_URL", "PORTAL_URL"] {
            for url in [
                "https://a.test/interviews",
                "https://a.test/?a",
                "https://a.test/#a",
                "https://u:p@a.test",
                "https://u@a.test",
                "https://*.a.test",
            ] {
                assert_eq!(refused(&[(name, url)]), name, "{url}");
            }
        }
        for url in ["https://a.test/app?a", "https://a.test#a", "https://u@a.test", "https://*.a.test", "ftp://a.test"]
        {
            assert_eq!(refused(&[("FRONTEND_URL", url)]), "FRONTEND_URL", "{url}");
        }
        let settings = with(&[("PUBLIC_URL", "HTTPS://A.test:443/"), ("FRONTEND_URL", "https://a.test/app/")]).unwrap();
        assert_eq!((settings.public_url.as_str(), settings.portal_url.as_str()), ("https://a.test", "https://a.test"));
        assert_eq!(settings.frontend_url, "https://a.test/app");
    }

    #[test]
    fn the_first_label_of_an_origin_may_stand_for_any_one_label() {
        let settings =
            with(&[("CORS_ALLOWED_ORIGINS", "https://*.Example.app, http://10.0.0.1:81, https://*.b.test:444")])
                .unwrap();
        let admits = |origin: &str| settings.allowed_origins.iter().any(|allowed| allowed.admits(origin.as_bytes()));
        for origin in
            ["http://localhost:3000", "https://pr-7.example.app", "http://10.0.0.1:81", "https://a.b.test:444"]
        {
            assert!(admits(origin), "{origin}");
        }
        for origin in [
            "https://example.app",
            "https://.example.app",
            "https://a.b.example.app",
            "http://a.example.app",
            "https://a.example.app:8443",
            "https://a.b.test",
            "https://evil.test/.example.app",
            "https://evil.test#.example.app",
            "https://a@b.example.app",
            "https://*.example.app",
            "https://aexample.app",
            "null",
            "",
        ] {
            assert!(!admits(origin), "{origin}");
        }
        for origins in [
            "*",
            "https://*",
            "https://*.app",
            "https://*.app.",
            "https://a.*.app",
            "https://*a.example.app",
            "https://*.*.app",
            "https://a.test:*",
        ] {
            assert_eq!(refused(&[("CORS_ALLOWED_ORIGINS", origins)]), "CORS_ALLOWED_ORIGINS", "{origins}");
        }
    }

    #[test]
    fn headers_of_tracing_may_be_sent_and_more_may_be_named() {
        let allowed = with(&[("CORS_ALLOWED_HEADERS", "X-Tenant, accept,")]).unwrap().allowed_headers;
        assert_eq!(
            allowed,
            "accept, accept-encoding, authorization, baggage, cache-control, content-type, dnt, idempotency-key, origin, \
             pragma, sentry-trace, traceparent, tracestate, user-agent, x-csrftoken, x-requested-with, x-tenant"
        );
        for headers in ["*", "x y", "x: y", "ä"] {
            assert_eq!(refused(&[("CORS_ALLOWED_HEADERS", headers)]), "CORS_ALLOWED_HEADERS", "{headers}");
        }
    }

    /// What is warned of, beside these settings.
    fn warnings(own: &[(&str, &str)]) -> Vec<String> {
        with(own).unwrap().warnings
    }

    const STRONG: (&str, &str) = ("SECRET_KEY", "8f2a1c9b7d3e5f60718293a4b5c6d7e8");
    const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    #[test]
    fn half_a_google_configuration_is_warned_of_by_what_is_missing() {
        let all =
            [("GOOGLE_CLIENT_ID", "topsecret"), ("GOOGLE_CLIENT_SECRET", "topsecret"), ("TOKEN_ENCRYPTION_KEY", KEY)];
        for given in 1..7 {
            let (given, missing): (Vec<_>, Vec<_>) = (0..3).partition(|nth| given >> nth & 1 == 1);
            let given: Vec<_> = given.into_iter().map(|nth: usize| all[nth]).chain([STRONG]).collect();
            let [warning] = &warnings(&given)[..] else { panic!("{given:?}") };
            for nth in missing {
                assert!(warning.contains(all[nth].0), "{warning}");
            }
            assert!(!warning.contains("topsecret") && !warning.contains(KEY), "{warning}");
        }
        assert_eq!(warnings(&[STRONG]), [""; 0]);
        let all = with(&[&all[..], &[STRONG]].concat()).unwrap();
        assert!(all.google.is_some() && all.warnings.is_empty());
    }

    #[test]
    fn half_a_login_at_the_smtp_server_is_warned_of() {
        let (host, user, password) =
            (("EMAIL_HOST", "mail.test"), ("EMAIL_HOST_USER", "topsecret"), ("EMAIL_HOST_PASSWORD", "topsecret"));
        for (given, missing) in [
            (&[user][..], "EMAIL_HOST"),
            (&[password], "EMAIL_HOST"),
            (&[user, password], "EMAIL_HOST"),
            (&[host, user], "EMAIL_HOST_PASSWORD"),
            (&[host, password], "EMAIL_HOST_USER"),
        ] {
            let [warning] = &warnings(&[given, &[STRONG]].concat())[..] else { panic!("{given:?}") };
            assert!(
                warning.ends_with(&format!(": {missing} is not set")) && !warning.contains("topsecret"),
                "{warning}"
            );
        }
        for given in [&[host][..], &[host, user, password]] {
            assert_eq!(warnings(&[given, &[STRONG]].concat()), [""; 0]);
        }
    }

    #[test]
    fn keys_that_can_be_guessed_are_warned_of_without_showing_them() {
        let django = "django-insecure-7#x!q0s4w1z9@e8r5t2y6u3i(o)p_a-d+f=g%h^j&k*l";
        for key in ["k", "0123456789abcdef0123456789abcde", &"ab".repeat(30), django] {
            let [warning] = &warnings(&[("SECRET_KEY", key)])[..] else { panic!("{key}") };
            assert!(warning.starts_with("SECRET_KEY ") && !warning.contains(key) || key == "k", "{warning}");
        }
    }

    #[test]
    fn plain_http_on_a_public_host_is_warned_of() {
        for url in ["http://interviews.example.com", "http://93.184.216.34", "http://[2606:4700::1111]:8000"] {
            for name in ["PUBLIC_URL", "PORTAL_URL"] {
                let [warning] = &warnings(&[STRONG, (name, url)])[..] else { panic!("{url}") };
                assert!(warning.starts_with(&format!("{name} is not https")) && !warning.contains("//"), "{warning}");
            }
        }
        for url in [
            "https://interviews.example.com",
            "http://localhost:8000",
            "http://127.0.0.1",
            "http://10.0.0.7",
            "http://[::1]",
            "http://server:8000",
            "http://interviews.internal",
            "http://a.localhost",
        ] {
            assert_eq!(warnings(&[STRONG, ("PUBLIC_URL", url)]), [""; 0], "{url}");
        }
    }

    #[test]
    fn trusted_proxies_and_clients_are_addresses_or_networks() {
        let trusted = |text: &str| {
            let named = [("TRUSTED_PROXIES", text), ("TRUSTED_CLIENTS", text)];
            let settings = settings(&[REQUIRED, named].concat())?;
            assert_eq!(settings.trusted_clients, settings.trusted_proxies);
            Ok::<_, Faults>(settings.trusted_proxies.iter().map(IpNet::to_string).collect::<Vec<_>>())
        };
        assert_eq!(trusted("").unwrap(), [""; 0]);
        assert_eq!(
            trusted("192.0.2.1, 10.0.0.0/8,::1 ,2001:db8::/32,::ffff:192.0.2.2,::ffff:10.0.0.0/104,").unwrap(),
            ["192.0.2.1/32", "10.0.0.0/8", "::1/128", "2001:db8::/32", "192.0.2.2/32", "10.0.0.0/8"]
        );
        for text in ["proxy.test", "10.0.0.0/33", "10.0.0", "10.0.0.1 10.0.0.2", "10.0.0.1:80", "::ffff:10.0.0.0/95"] {
            let faults = trusted(text).unwrap_err().to_string();
            assert!(faults.contains("  TRUSTED_PROXIES: ") && faults.contains("  TRUSTED_CLIENTS: "), "{text}");
        }
    }

    #[test]
    fn a_request_may_take_at_least_what_google_and_the_mails_may() {
        let with = |request: &'static str, google: &'static str| {
            let own = [("REQUEST_SECONDS", request), ("GOOGLE_BUDGET_SECONDS", google)];
            settings(&[REQUIRED, own].concat())
        };
        assert_eq!(with("20", "5").unwrap().request_patience, Duration::from_secs(20));
        let faults = with("34", "20").unwrap_err().to_string();
        assert!(faults.ends_with("  REQUEST_SECONDS: is not at least GOOGLE_BUDGET_SECONDS + 15"), "{faults}");
    }

    #[test]
    fn limits_outside_their_ranges_are_faults() {
        let unusable = [
            ("DATABASE_ACQUIRE_SECONDS", "0"),
            ("DATABASE_STATEMENT_SECONDS", "3601"),
            ("REQUEST_SECONDS", "never"),
            ("CLIENT_SECONDS", "0"),
            ("JOB_WORKERS", "0"),
            ("PORT", "0"),
            ("EMAIL_PORT", "0"),
            ("ACCESS_TOKEN_LIFETIME", "0"),
            ("REFRESH_TOKEN_LIFETIME", "0"),
            ("LOG_FORMAT", "xml"),
        ];
        let faults = settings(&unusable).unwrap_err().to_string();
        for (name, _) in unusable {
            assert!(faults.contains(&format!("  {name}: ")), "{name} is missing in {faults}");
        }
    }

    #[test]
    fn an_accent_is_a_colour_in_six_digits() {
        let accent = |text: &'static str| settings(&[REQUIRED[0], REQUIRED[1], ("BRAND_ACCENT", text)]);
        assert_eq!(accent("#FFee00").unwrap().brand_accent.to_string(), "#ffee00");
        for text in ["red", "#fe0", "#ffee000", "#ffee0g", "}body{"] {
            let faults = accent(text).unwrap_err().to_string();
            assert!(faults.ends_with("  BRAND_ACCENT: is not a colour such as #2747c7"), "{faults}");
        }
    }

    #[test]
    fn a_logo_is_a_small_picture_that_is_there() {
        let folder = std::env::temp_dir().join(format!("interviews-logo-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for (name, bytes) in [("logo.png", 256 << 10), ("large.png", (256 << 10) + 1), ("logo.gif", 1), ("png", 1)] {
            std::fs::write(folder.join(name), vec![0; bytes]).unwrap();
        }
        let with = |name: &str| {
            let path = folder.join(name);
            settings(&[REQUIRED[0], REQUIRED[1], ("BRAND_LOGO", path.to_str().unwrap())])
        };
        let logo = with("logo.png").unwrap().brand_logo.unwrap();
        assert_eq!((logo.media_type, logo.bytes.len()), ("image/png", 256 << 10));
        for (name, fault) in [
            ("large.png", "is larger than 256 KiB"),
            ("logo.gif", "does not end in .svg, .png or .webp"),
            ("png", "does not end in .svg, .png or .webp"),
            ("missing.svg", "cannot be read: "),
        ] {
            let faults = with(name).unwrap_err().to_string();
            assert!(faults.contains(&format!("  BRAND_LOGO: {fault}")), "{name}: {faults}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_config_file_stands_between_defaults_and_environment() {
        let file = std::env::temp_dir().join(format!("interviews-config-{}.toml", std::process::id()));
        std::fs::write(&file, "brand_name = \"Acme\"\nport = 9000\n").unwrap();
        let mut pairs = REQUIRED.to_vec();
        pairs.extend([("CONFIG_FILE", file.to_str().unwrap()), ("PORT", "9001")]);
        let settings = settings(&pairs).unwrap();
        assert_eq!((settings.brand_name.as_str(), settings.port), ("Acme", 9001));
        std::fs::write(&file, "brnd_name = \"Acme\"\n").unwrap();
        assert!(super::tests::settings(&pairs).unwrap_err().to_string().contains("brnd_name"));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_stand_in_goes_with_all_of_its_service_when_something_is_set() {
        let stand_ins = HashMap::from([
            ("DATABASE_URL", "postgres://localhost/x".to_owned()),
            ("SECRET_KEY", "k".to_owned()),
            ("EMAIL_HOST", "127.0.0.1".to_owned()),
            ("EMAIL_PORT", "8003".to_owned()),
            ("EMAIL_USE_TLS", "false".to_owned()),
            ("GOOGLE_TOKEN_URI", "http://127.0.0.1:8001/token".to_owned()),
        ]);
        let load = |name: &'static str, value: &'static str| {
            Settings::over_stand_ins(&stand_ins, |asked| (asked == name).then(|| value.to_owned())).unwrap()
        };
        let settings = load("EMAIL_HOST", "smtp.example.com");
        let email = settings.email.unwrap();
        assert_eq!((email.port, email.security), (587, SmtpSecurity::StartTls));
        assert_eq!(settings.google_token_uri, "http://127.0.0.1:8001/token");
        assert_eq!(load("GOOGLE_CLIENT_ID", "mine").google_token_uri, "https://oauth2.googleapis.com/token");
        assert_eq!(load("BRAND_NAME", "Acme").email.unwrap().port, 8003);
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let file = std::env::temp_dir().join(format!("interviews-secret-{}", std::process::id()));
        std::fs::write(&file, "from a file\n").unwrap();
        let settings = settings(&[REQUIRED[0], ("SECRET_KEY_FILE", file.to_str().unwrap())]).unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&settings.secret_key), "from a file");
        std::fs::remove_file(file).unwrap();
    }
}
