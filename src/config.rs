//! Settings: `config/default.toml` (compiled in) < the file named by `CONFIG_FILE` < the environment.
//!
//! The only reader of the environment. Every value is parsed and checked here, once; all faults are reported together,
//! each with its variable's name and never with its value. Secrets may come from files (`NAME_FILE`) and have no default.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::secret::Sealer;

const DEFAULTS: &str = include_str!("../config/default.toml");

/// Everything the server can be told from outside.
#[derive(Debug)]
pub struct Settings {
    pub database_url: SecretString,
    pub database_max_connections: u32,
    /// HS256 key of the JWTs, shared with Django.
    pub secret_key: SecretString,
    pub host: String,
    pub port: u16,
    /// This server as browsers see it; no trailing slash.
    pub public_url: String,
    /// Base of the mailed join links; no trailing slash.
    pub portal_url: String,
    /// Base of the SPA; no trailing slash.
    pub frontend_url: String,
    /// Origins (`scheme://host[:port]`) that browsers may call from; never empty.
    pub allowed_origins: Vec<String>,
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
    pub brand_name: String,
    pub access_token_lifetime: Duration,
    pub refresh_token_lifetime: Duration,
    pub join_opens_before: Duration,
    pub join_closes_after_end: Duration,
    /// Length, in minutes, of an interview without its own.
    pub interview_duration_minutes: i32,
    pub log_filter: String,
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

    /// Reads all layers with `environment` in place of the process's own.
    pub fn from_layers(environment: impl Fn(&str) -> Option<String>) -> Result<Settings, Faults> {
        let mut reader = Reader::new(environment);
        let settings = reader.settings();
        match settings {
            Some(settings) if reader.faults.is_empty() => Ok(settings),
            _ => Err(Faults(reader.faults)),
        }
    }
}

/// A variable of the process's environment; `None` when unset, empty or not UTF-8.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The layers merged to one text a key, and the faults met so far.
struct Reader {
    values: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Reader {
    fn new(environment: impl Fn(&str) -> Option<String>) -> Self {
        let mut reader = Reader { values: BTreeMap::new(), faults: Vec::new() };
        reader.add_toml(DEFAULTS, "config/default.toml");
        let known: Vec<String> = reader.values.keys().cloned().collect();
        if let Some(path) = environment("CONFIG_FILE") {
            match std::fs::read_to_string(&path) {
                Ok(text) => reader.add_toml(&text, "CONFIG_FILE"),
                Err(error) => reader.faults.push(format!("CONFIG_FILE: cannot read the file: {error}")),
            }
        }
        for key in reader.values.keys().filter(|key| !known.contains(key)) {
            reader.faults.push(format!("CONFIG_FILE: there is no setting `{key}`"));
        }
        for key in known {
            let name = key.to_uppercase();
            let from_file = environment(&format!("{name}_FILE")).map(std::fs::read_to_string);
            match (environment(&name), from_file) {
                (Some(_), Some(_)) => reader.faults.push(format!("{name}: give it or {name}_FILE, not both")),
                (Some(value), None) => _ = reader.values.insert(key, value),
                (None, Some(Ok(value))) => {
                    _ = reader.values.insert(key, value.trim_end_matches(['\r', '\n']).to_owned())
                }
                (None, Some(Err(error))) => {
                    reader.faults.push(format!("{name}_FILE: cannot read the file: {error}"));
                }
                (None, None) => {}
            }
        }
        reader
    }

    fn add_toml(&mut self, text: &str, source: &str) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            // The error's own text quotes the line, which may hold a secret.
            Err(error) => {
                let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count());
                return self.faults.push(format!("{source}: not valid TOML near line {line}"));
            }
        };
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => {
                    self.faults.push(format!("{source}: `{key}` is not a text, a whole number or true/false"));
                    continue;
                }
            };
            self.values.insert(key, value);
        }
    }

    fn settings(&mut self) -> Option<Settings> {
        let host = self.required("HOST");
        let port: Option<u16> = self.parsed("PORT");
        let loopback = host.as_deref().is_some_and(is_loopback);
        let own_url = match (&host, port) {
            (Some(host), Some(port)) if host.contains(':') => format!("http://[{host}]:{port}"),
            (Some(host), Some(port)) => format!("http://{host}:{port}"),
            _ => String::new(),
        };
        let public_url = self.base_url("PUBLIC_URL").or_else(|| {
            if host.is_some() && !loopback && self.text("PUBLIC_URL").is_empty() {
                self.fault("PUBLIC_URL", "is required when HOST is not a loopback address");
            }
            loopback.then_some(own_url)
        });
        let portal_url = self.base_url("PORTAL_URL").or_else(|| public_url.clone());
        let frontend_url = self.base_url("FRONTEND_URL");
        let allowed_origins = self.origins(frontend_url.as_deref());
        let google = self.google();
        let email = self.email();
        let from_email = self.required("DEFAULT_FROM_EMAIL");
        if from_email.as_deref().is_some_and(|from| from.parse::<lettre::message::Mailbox>().is_err()) {
            self.fault("DEFAULT_FROM_EMAIL", "is not an e-mail address");
        }
        // Each `?` below gives up only after every value has been looked at: the values are read first.
        let database_url = self.required("DATABASE_URL");
        if database_url.as_deref().is_some_and(|url| url.parse::<sqlx::postgres::PgConnectOptions>().is_err()) {
            self.fault("DATABASE_URL", "is not a postgres:// address");
        }
        let database_max_connections = self.number("DATABASE_MAX_CONNECTIONS", 2, 1000);
        // As it stands: Django signs with every byte of it.
        let secret_key = self.required("SECRET_KEY").and(self.values.get("secret_key").cloned());
        let google_auth_uri = self.uri("GOOGLE_AUTH_URI");
        let google_token_uri = self.uri("GOOGLE_TOKEN_URI");
        let google_revoke_uri = self.uri("GOOGLE_REVOKE_URI");
        let google_calendar_api_base = self.base_url("GOOGLE_CALENDAR_API_BASE");
        let google_budget = self.number("GOOGLE_BUDGET_SECONDS", 1, 20);
        let brand_name = self.required("BRAND_NAME");
        let access_token_lifetime = self.minutes("ACCESS_TOKEN_LIFETIME");
        let refresh_token_lifetime = self.minutes("REFRESH_TOKEN_LIFETIME");
        let join_opens_before = self.minutes("JOIN_OPENS_MINUTES_BEFORE");
        let join_closes_after_end = self.minutes("JOIN_CLOSES_MINUTES_AFTER_END");
        let interview_duration_minutes = self.number("INTERVIEW_DURATION_MINUTES", 5, 480);
        let log_filter = self.required("LOG_FILTER");
        Some(Settings {
            database_url: database_url?.into(),
            database_max_connections: database_max_connections?,
            secret_key: secret_key?.into(),
            host: host?,
            port: port?,
            public_url: public_url?,
            portal_url: portal_url?,
            frontend_url: frontend_url?,
            allowed_origins,
            google,
            google_auth_uri: google_auth_uri?,
            google_token_uri: google_token_uri?,
            google_revoke_uri: google_revoke_uri?,
            google_calendar_api_base: google_calendar_api_base?,
            google_budget: Duration::from_secs(google_budget?),
            email,
            from_email: from_email?,
            brand_name: brand_name?,
            access_token_lifetime: access_token_lifetime?,
            refresh_token_lifetime: refresh_token_lifetime?,
            join_opens_before: join_opens_before?,
            join_closes_after_end: join_closes_after_end?,
            interview_duration_minutes: interview_duration_minutes?,
            log_filter: log_filter?,
        })
    }

    fn google(&mut self) -> Option<GoogleClient> {
        let (id, secret, key) =
            (self.text("GOOGLE_CLIENT_ID"), self.text("GOOGLE_CLIENT_SECRET"), self.text("TOKEN_ENCRYPTION_KEY"));
        let sealer = match key.is_empty() {
            true => None,
            false => Sealer::parse(&key).map_err(|error| self.fault("TOKEN_ENCRYPTION_KEY", error)).ok(),
        };
        if id.is_empty() || secret.is_empty() {
            return None;
        }
        Some(GoogleClient { client_id: id, client_secret: secret.into(), sealer: sealer? })
    }

    fn email(&mut self) -> Option<SmtpServer> {
        let host = self.text("EMAIL_HOST");
        let port = self.parsed("EMAIL_PORT");
        let (tls, ssl): (Option<bool>, Option<bool>) = (self.truth("EMAIL_USE_TLS"), self.truth("EMAIL_USE_SSL"));
        let (user, password) = (self.text("EMAIL_HOST_USER"), self.text("EMAIL_HOST_PASSWORD"));
        let security = match (ssl?, tls?) {
            (true, _) => SmtpSecurity::Tls,
            (false, true) => SmtpSecurity::StartTls,
            (false, false) => SmtpSecurity::Plain,
        };
        let login = (!user.is_empty()).then(|| (user, password.into()));
        (!host.is_empty()).then_some(SmtpServer { host, port: port?, login, security })
    }

    fn origins(&mut self, frontend_url: Option<&str>) -> Vec<String> {
        let listed = self.text("CORS_ALLOWED_ORIGINS");
        let listed = listed.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let mut origins: Vec<String> = Vec::new();
        for origin in frontend_url.into_iter().chain(listed) {
            match Url::parse(origin).map(|url| url.origin()) {
                Ok(origin) if origin.is_tuple() => origins.push(origin.ascii_serialization()),
                _ => self
                    .fault("CORS_ALLOWED_ORIGINS", "holds something that is not an origin such as https://app.example"),
            }
        }
        origins
    }

    fn text(&self, name: &str) -> String {
        self.values.get(&name.to_lowercase()).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    fn fault(&mut self, name: &str, what: impl Display) {
        self.faults.push(format!("{name}: {what}"));
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let text = self.text(name);
        if text.is_empty() {
            self.fault(name, "is required");
            return None;
        }
        Some(text)
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        self.text(name).parse().map_err(|error| self.fault(name, error)).ok()
    }

    /// As Django reads them: true, yes, on, 1.
    fn truth(&mut self, name: &str) -> Option<bool> {
        match self.text(name).to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" | "" => Some(false),
            _ => {
                self.fault(name, "is neither true nor false");
                None
            }
        }
    }

    fn number<T: FromStr<Err: Display> + PartialOrd + Display>(&mut self, name: &str, least: T, most: T) -> Option<T> {
        let number: T = self.parsed(name)?;
        if number < least || number > most {
            self.fault(name, format!("is not from {least} to {most}"));
            return None;
        }
        Some(number)
    }

    fn minutes(&mut self, name: &str) -> Option<Duration> {
        // Ten years: long enough for every use, short enough to add to any instant.
        self.number(name, 0, 5_256_000).map(|minutes: u64| Duration::from_secs(minutes * 60))
    }

    fn uri(&mut self, name: &str) -> Option<String> {
        let text = self.required(name)?;
        match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(text),
            _ => {
                self.fault(name, "is not an http:// or https:// address");
                None
            }
        }
    }

    /// An address to append paths to, without its trailing slash; `None` when empty.
    fn base_url(&mut self, name: &str) -> Option<String> {
        if self.text(name).is_empty() {
            return None;
        }
        self.uri(name).map(|url| url.trim_end_matches('/').to_owned())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
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
        assert_eq!(settings.allowed_origins, ["http://localhost:3000"]);
        assert!(settings.google.is_none() && settings.email.is_none());
    }

    #[test]
    fn all_faults_are_reported_at_once_by_name_and_without_values() {
        let faults = settings(&[
            ("PORT", "topsecret"),
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
            "PUBLIC_URL",
            "TOKEN_ENCRYPTION_KEY",
            "EMAIL_USE_TLS",
            "GOOGLE_TOKEN_URI",
        ] {
            assert!(faults.contains(&format!("  {name}: ")), "{name} is missing in {faults}");
        }
        assert!(!faults.contains("topsecret"), "{faults}");
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
    fn a_secret_may_come_from_a_file() {
        let file = std::env::temp_dir().join(format!("interviews-secret-{}", std::process::id()));
        std::fs::write(&file, "from a file\n").unwrap();
        let settings = settings(&[REQUIRED[0], ("SECRET_KEY_FILE", file.to_str().unwrap())]).unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&settings.secret_key), "from a file");
        std::fs::remove_file(file).unwrap();
    }
}
