//! Who is at the other end: the connection's address, or what trusted proxies say about it.
//!
//! `X-Forwarded-For` is believed as far as those who have written it are in `TRUSTED_PROXIES`, from the nearest on; so
//! what a client writes into it itself is never reached.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Once,
};

use anyhow::anyhow;
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts},
};
use ipnet::IpNet;

use super::{Error, Result};
use crate::context::Context;

/// The nearest address that is not a trusted proxy's; an IPv4 address also where IPv6 has mapped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl FromRequestParts<Context> for Peer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, ctx: &Context) -> Result<Self> {
        let ConnectInfo(connection) = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .ok_or_else(|| anyhow!("the connection's address did not come with the request"))?;
        let (connection, trusted) = (connection.ip().to_canonical(), &ctx.settings.trusted_proxies);
        if parts.headers.contains_key(FORWARDED_FOR) && !is_in(trusted, connection) {
            warn_of_a_proxy(connection);
        }
        Ok(Peer(nearest_untrusted(connection, &parts.headers, trusted)))
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Once, since any client can send the header.
fn warn_of_a_proxy(connection: IpAddr) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            %connection,
            "X-Forwarded-For came from an address that TRUSTED_PROXIES does not name; if it is your proxy's, all its \
             clients count as one, and one of them can keep all others from signing in"
        );
    });
}

pub fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Walks from the connection back along the hops of `X-Forwarded-For`, as long as the address at hand is trusted and
/// the hop before it can be read.
fn nearest_untrusted(connection: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let headers = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = headers.flat_map(|header| header.as_bytes().rsplit(|byte| *byte == b','));
    let mut peer = connection.to_canonical();
    while is_in(trusted, peer) {
        match hops.next().and_then(address) {
            Some(before) => peer = before,
            None => break,
        }
    }
    peer
}

/// `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, the first and the last also with a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let plain = hop.parse().ok().or_else(bracketed);
    plain.or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip())).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// The peer of a connection from `connection` with these headers, where loopback and `10.0.0.0/8` are trusted.
    fn peer(connection: &str, forwarded: &[&[u8]]) -> String {
        let trusted = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "2001:db8:ffff::/48"].map(|text| text.parse().unwrap());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(value).unwrap());
        }
        nearest_untrusted(connection.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn an_untrusted_connection_is_the_peer_whatever_it_says() {
        assert_eq!(peer("198.51.100.7", &[b"203.0.113.9"]), "198.51.100.7");
        assert_eq!(peer("::ffff:198.51.100.7", &[b"203.0.113.9"]), "198.51.100.7");
        assert_eq!(peer("2001:db8::7", &[b"203.0.113.9"]), "2001:db8::7");
    }

    #[test]
    fn behind_trusted_proxies_it_is_the_last_hop_that_is_not_one() {
        let cases: [(&[&[u8]], &str); 8] = [
            (&[b"203.0.113.9"], "203.0.113.9"),
            (&[b"192.0.2.66, 203.0.113.9"], "203.0.113.9"),
            (&[b"192.0.2.66,203.0.113.9 , 10.1.2.3,127.0.0.1"], "203.0.113.9"),
            (&[b"192.0.2.66", b"203.0.113.9", b"10.1.2.3"], "203.0.113.9"),
            (&[b"192.0.2.66, 203.0.113.9", b"::ffff:10.1.2.3"], "203.0.113.9"),
            (&[b"2001:db8::9, 2001:db8:ffff:1::2"], "2001:db8::9"),
            (&[b"\xff\xfe, 203.0.113.9"], "203.0.113.9"),
            (&[b"10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        ];
        for (forwarded, expected) in cases {
            for connection in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.9.9.9"] {
                assert_eq!(peer(connection, forwarded), expected, "{forwarded:?} from {connection}");
            }
        }
    }

    #[test]
    fn hops_may_carry_ports_and_brackets() {
        for (hop, expected) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("2001:DB8:0:0::9", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
        ] {
            assert_eq!(peer("127.0.0.1", &[hop.as_bytes()]), expected);
            assert_eq!(peer("127.0.0.1", &[format!("{hop}, 10.0.0.1:80").as_bytes()]), expected);
        }
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_nearest_good_one() {
        for garbage in
            ["unknown", "", "203.0.113", "203.0.113.9.", "[203.0.113.9]", "203.0.113.9:port", "[::1", "_x", "fe80::1%1"]
        {
            let forwarded = format!("203.0.113.9, {garbage}, 10.1.2.3");
            assert_eq!(peer("127.0.0.1", &[forwarded.as_bytes()]), "10.1.2.3", "{garbage}");
            assert_eq!(peer("127.0.0.1", &[garbage.as_bytes()]), "127.0.0.1", "{garbage}");
        }
        assert_eq!(peer("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(peer("127.0.0.1", &[b"203.0.113.9, \xff, 10.1.2.3"]), "10.1.2.3");
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_writes_hides_the_address_that_the_proxy_adds(
            said in prop::collection::vec(any::<u8>().prop_filter("allowed in a header", |byte| *byte >= 32 && *byte != 127), 0..60),
        ) {
            prop_assert_eq!(peer("127.0.0.1", &[&said, b"203.0.113.9"]), "203.0.113.9");
            prop_assert_eq!(peer("127.0.0.1", &[&[&said[..], b", 203.0.113.9"].concat()]), "203.0.113.9");
        }
    }
}
