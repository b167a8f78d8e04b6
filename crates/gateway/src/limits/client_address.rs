//! Where a request comes from when proxies stand in front.
//!
//! Invariant: what a client writes into `X-Forwarded-For` is believed only as far as proxies that the operator named have added to it: the
//! list is read from the right, and the first address that is no trusted proxy is the client. `Forwarded` (RFC 7239) is not read: two
//! fields that may differ are one too many.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use plinth_policy::limits::{AddressError, AddressRules, AddressVerdict};

/// No chain of proxies is longer.
const MOST_HOPS: usize = 32;

/// A set of networks; empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Option<AddressRules>);

impl Networks {
    /// The set of these networks and single addresses.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, AddressError> {
        if texts.is_empty() { Ok(Self(None)) } else { AddressRules::parse(texts, &[]).map(|rules| Self(Some(rules))) }
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_some_and(|rules| rules.check(address) == AddressVerdict::Pass)
    }
}

/// The client's address: the peer's, or what trusted proxies say of it. Allocates nothing.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.has(client) {
        return client;
    }
    let lines = headers.get_all("x-forwarded-for").iter();
    // A `HeaderMap` gives the lines in the order in which they came; the last entry of the last line is the nearest hop.
    let mut lines: [Option<&str>; MOST_HOPS] = {
        let mut kept = [None; MOST_HOPS];
        for line in lines {
            kept.rotate_left(1);
            kept[MOST_HOPS - 1] = Some(line.to_str().unwrap_or("?"));
        }
        kept
    };
    lines.reverse();
    let hops = lines.iter().map_while(|line| *line).flat_map(|line| line.rsplit(','));
    for hop in hops.take(MOST_HOPS) {
        // What cannot be read was not written by a proxy; the hop before it is the last that is known.
        let Some(address) = address(hop.trim()) else { return client };
        client = address;
        if !trusted.has(client) {
            return client;
        }
    }
    client
}

/// An address, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        let trusted = Networks::parse(&["10.0.0.0/8", "fd00::/8"]).unwrap();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        for (peer, lines, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.2.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1,10.2.2.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            ("10.0.0.1", &["198.51.100.1:5000, 10.2.2.2:99"], "198.51.100.1"),
            ("fd00::1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("fd00::1", &["[2001:db8::7]"], "2001:db8::7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
            ("10.0.0.1", &["1.1.1.1,"], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
        assert!(!Networks::default().has("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        /// Whatever a client sends through one trusted proxy, it is known by the address that the proxy saw.
        #[test]
        fn a_client_cannot_choose(forged in "[ -~]{0,60}") {
            prop_assert_eq!(client("10.0.0.1", &[&format!("{forged}, 198.51.100.1")]), "198.51.100.1");
            prop_assert_eq!(client("10.0.0.1", &[&forged, "198.51.100.1"]), "198.51.100.1");
        }
    }
}
