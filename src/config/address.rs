//! Addresses as settings have them: origins, hosts that are anybody's or private, networks, and the database's.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use sqlx::postgres::PgConnectOptions;
use url::{Host, Url, form_urlencoded};

/// An origin, `scheme://host[:port]`, whose first label may be `*`: then it stands for any one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    pub(super) fn parse(text: &str) -> Option<Origin> {
        let url = Url::parse(text).ok().filter(is_web)?;
        let origin = url.origin().ascii_serialization();
        // Below a top-level domain anybody can have a label.
        let is_somebodys = |rest: &str| !rest.contains('*') && rest.trim_end_matches('.').contains('.');
        let host = url.host_str()?;
        host.strip_prefix("*.").map_or(!host.contains('*'), is_somebodys).then_some(Origin(origin))
    }

    /// Whether this is what a browser's `Origin` says.
    pub fn admits(&self, said: &[u8]) -> bool {
        let Some((before, after)) = self.0.split_once('*') else { return self.0.as_bytes() == said };
        let label = said.strip_prefix(before.as_bytes()).and_then(|said| said.strip_suffix(after.as_bytes()));
        let is_of_labels = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
        label.is_some_and(|label| !label.is_empty() && label.iter().all(is_of_labels))
    }
}

pub(super) fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// Whether it is more than a name or an address of some private network.
pub(super) fn is_public(url: &Url) -> bool {
    const PRIVATE: [&str; 6] = ["localhost", "local", "internal", "lan", "test", "home.arpa"];
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.contains('.') && !PRIVATE.iter().any(|private| name.ends_with(&format!(".{private}")))
        }
        Some(Host::Ipv4(address)) => !(address.is_loopback() || address.is_private() || address.is_link_local()),
        Some(Host::Ipv6(address)) => {
            !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
        }
        None => false,
    }
}

/// What keeps this from being a database's address. A parameter that the driver does not know is one: it would be
/// ignored, and written into the log with what it holds.
pub(super) fn faults_of_database(url: &str) -> Vec<String> {
    const NO_ADDRESS: &str = "is not a postgres:// address";
    let Some(parsed) = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql")) else {
        return vec![NO_ADDRESS.to_owned()];
    };
    // What looks like a name may be a piece of a password: of one with a `?` in it, whose `@` then comes later, or of
    // a parameter's with a `&` in it.
    let mut may_be_secret = url.split_once('?').is_some_and(|(_, after)| after.contains('@'));
    let mut faults = Vec::new();
    for (name, value) in parsed.query_pairs() {
        if !is_known_parameter(&name) {
            let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte));
            let shown = if is_name && !may_be_secret { &name } else { "(not a name)" };
            faults.push(format!("has a parameter that is not known here: {shown}"));
        } else if !is_usable(&name, &value) {
            faults.push(format!("has a parameter whose value cannot be used: {name}"));
        }
        may_be_secret |= name.contains("password");
    }
    if faults.is_empty() && url.parse::<PgConnectOptions>().is_err() {
        faults.push(NO_ADDRESS.to_owned());
    }
    faults
}

/// Whether the driver takes this value of a parameter that it knows.
fn is_usable(name: &str, value: &str) -> bool {
    let pair = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    format!("postgres://localhost/?{pair}").parse::<PgConnectOptions>().is_ok()
}

/// Those of the driver's documentation.
fn is_known_parameter(name: &str) -> bool {
    const KNOWN: &str = "sslmode ssl-mode sslrootcert ssl-root-cert ssl-ca sslcert ssl-cert sslkey ssl-key host hostaddr \
        port dbname user password application_name options statement-cache-capacity";
    KNOWN.split(' ').any(|known| known == name) || (name.starts_with("options[") && name.ends_with(']'))
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address or a network.
pub(super) fn network(text: &str) -> Option<IpNet> {
    match text.parse() {
        // Connections from there are seen as what they are: IPv4.
        Ok(IpNet::V6(network)) => match network.addr().to_ipv4_mapped() {
            Some(mapped) => Ipv4Net::new(mapped, network.prefix_len().checked_sub(96)?).ok().map(IpNet::V4),
            None => Some(IpNet::V6(network)),
        },
        Ok(network) => Some(network),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| address.to_canonical().into()),
    }
}
