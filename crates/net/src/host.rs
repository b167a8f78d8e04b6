//! Which Host and Origin headers are accepted.
//!
//! A web page can make a browser send requests to a node on the visitor's own machine, under a name of
//! the page's owner that points there (DNS rebinding). Such a request carries that name in Host.
//! Invariant: only IP addresses, `localhost` and names that were configured pass. An address in Host
//! cannot be rebound, so all of them pass.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use http::header::{HOST, ORIGIN};
use plinth_types::{Error, Reason};

use crate::Request;

/// The names that pass.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    names: BTreeSet<String>,
}

impl HostRules {
    /// Besides addresses and `localhost`, these exact names, without ports.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self { names: names.into_iter().map(|name| name.as_ref().to_ascii_lowercase()).collect() }
    }

    /// Judges a request by its Host (or the authority of its target) and, when it has one, its Origin.
    ///
    /// # Errors
    /// `host_not_allowed`; `malformed_request` when there is no Host at all, or several.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let header = hosts.next();
        if hosts.next().is_some() {
            return Err(Error::new(Reason::MalformedRequest, "the request has several Host headers").field("Host"));
        }
        let header = header.map(|value| value.to_str().unwrap_or(""));
        // An absolute target wins over the header (RFC 9112, 3.2.2); both must be right.
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let Some(first) = authority.or(header) else {
            return Err(Error::new(Reason::MalformedRequest, "the request has no Host header").field("Host"));
        };
        for host in [Some(first), header].into_iter().flatten() {
            if !self.allows(host) {
                let text = "the Host header names another place; if this server has that name, add it to http.allowed_hosts";
                return Err(Error::new(Reason::HostNotAllowed, text).field("Host"));
            }
        }
        for origin in request.headers().get_all(ORIGIN) {
            let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
            if !host.is_some_and(|host| self.allows(host)) {
                let text = "the Origin header names another place; pages from there may not call this server";
                return Err(Error::new(Reason::HostNotAllowed, text).field("Origin"));
            }
        }
        Ok(())
    }

    fn allows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => return is_port(port) && address.parse::<Ipv6Addr>().is_ok(),
            None => match host.split_once(':') {
                Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
                Some(_) => return false,
                None => host,
            },
        };
        let name = name.to_ascii_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.names.contains(&name)
    }
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestBody;

    #[test]
    fn only_addresses_and_known_names_pass() {
        let rules = HostRules::new(["ml.example.com"]);
        for host in
            ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]", "[::1]:8000", "10.1.2.3:1", "ML.example.com:8000"]
        {
            assert!(rules.allows(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "ml.example.com.",
            "",
            ":80",
            "[::1",
            "[::1]x",
            "[x]:1",
            "a@localhost",
            "localhost:",
            "localhost:8o",
        ] {
            assert!(!rules.allows(host), "{host}");
        }
    }

    #[test]
    fn host_target_and_origin_are_judged() {
        let check = |uri: &str, headers: &[(&str, &str)]| {
            let mut builder = http::Request::builder().uri(uri);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            HostRules::default().check(&builder.body(RequestBody::empty()).unwrap()).err().map(|e| e.reason())
        };
        assert_eq!(check("/", &[("host", "localhost")]), None);
        assert_eq!(check("/", &[("host", "localhost"), ("origin", "http://localhost:3000")]), None);
        assert_eq!(check("http://127.0.0.1/", &[]), None);
        assert_eq!(check("/", &[]), Some(Reason::MalformedRequest));
        assert_eq!(check("/", &[("host", "localhost"), ("host", "localhost")]), Some(Reason::MalformedRequest));
        for headers in [
            &[("host", "evil.example")][..],
            &[("host", "localhost"), ("origin", "http://evil.example")],
            &[("host", "localhost"), ("origin", "null")],
        ] {
            assert_eq!(check("/", headers), Some(Reason::HostNotAllowed));
        }
        assert_eq!(check("http://evil.example/", &[("host", "localhost")]), Some(Reason::HostNotAllowed));
        assert_eq!(check("http://localhost/", &[("host", "evil.example")]), Some(Reason::HostNotAllowed));
    }
}
