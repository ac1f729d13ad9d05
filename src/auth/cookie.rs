//! The cookies that this server sets and reads.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::{config::Settings, http::Result};

/// A cookie's names.
#[derive(Clone, Copy)]
pub struct Name {
    /// Without TLS.
    pub plain: &'static str,
    /// With TLS: no other host of the domain can set it (RFC 6265bis, §4.1.3.2).
    pub secure: &'static str,
}

fn is_secure(settings: &Settings) -> bool {
    settings.public_url.starts_with("https:")
}

/// `Set-Cookie`.
pub fn set(name: Name, value: &str, path_and_more: &str, settings: &Settings) -> Result<HeaderValue> {
    let (name, secure) = if is_secure(settings) { (name.secure, "; Secure") } else { (name.plain, "") };
    let mut header = HeaderValue::try_from(format!("{name}={value}; Path={path_and_more}{secure}"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The value of a cookie. Of several none counts: somebody else has set one of them, and nothing tells which.
pub fn value<'a>(headers: &'a HeaderMap, name: Name, settings: &Settings) -> Option<&'a str> {
    let name = if is_secure(settings) { name.secure } else { name.plain };
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let value = values.next().filter(|value| !value.is_empty());
    if values.next().is_some() { None } else { value }
}
