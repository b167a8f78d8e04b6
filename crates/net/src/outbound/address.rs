//! Where an upstream is: scheme, host, port and a prefix of the path.
//!
//! Invariant: an [`Address`] holds nothing that is not used (user info, a query, a fragment are errors, not ignored), and its
//! host is in the one spelling that names and addresses have: `0x7f.1` is `127.0.0.1` here, before any rule looks at it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use url::{Host, Url};

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 or HTTP/2 over TLS, as the upstream likes.
    Https,
    /// HTTP/2 without TLS, without asking (prior knowledge).
    H2c,
    /// gRPC without TLS.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
}

impl Scheme {
    const ALL: [(&'static str, Self); 5] =
        [("http", Self::Http), ("https", Self::Https), ("h2c", Self::H2c), ("grpc", Self::Grpc), ("grpcs", Self::Grpcs)];

    /// Whether it is over TLS.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }

    /// Whether it is gRPC.
    #[must_use]
    pub const fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }

    /// What a request on HTTP/2 says.
    pub(super) const fn on_the_wire(self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, scheme)| scheme == self).map_or("", |(name, _)| name))
    }
}

/// Why a text is no address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("this is not a URL such as http://host:8000: {0}")]
    NotAUrl(String),
    /// Another scheme.
    #[error("the scheme must be http, https, h2c, grpc or grpcs")]
    Scheme,
    /// `user@host`.
    #[error("user and password do not belong into the address; send them as a header")]
    UserInfo,
    /// `?…`
    #[error("the address must not have a query")]
    Query,
    /// `#…`
    #[error("the address must not have a fragment")]
    Fragment,
    /// No host, or one that cannot be.
    #[error("the address has no host that can be called")]
    Host,
    /// 0.
    #[error("the port must not be 0")]
    Port,
}

/// The address of an upstream. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parts {
    scheme: Scheme,
    /// Without brackets and without a dot at the end.
    host: String,
    literal: Option<IpAddr>,
    port: u16,
    authority: HeaderValue,
    /// Without a slash at the end; empty without a prefix.
    prefix: String,
}

impl Address {
    /// What is spoken.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    /// The name, or the IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The host, if it is an IP address.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        self.0.literal
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// What stands before the path of each request; empty or `/…` without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// `host:port`, without the port where it is the scheme's own: the header `Host`.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.0.authority
    }

    /// The path and query of a request here.
    pub(super) fn target<'a>(&self, uri: &'a Uri) -> (&str, &'a str) {
        (&self.0.prefix, uri.path_and_query().map_or("/", PathAndQuery::as_str))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| AddressError::NotAUrl("it has no scheme".into()))?;
        let known = Scheme::ALL.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
        let scheme = known.map(|(_, scheme)| *scheme).ok_or(AddressError::Scheme)?;
        // Hosts of schemes that the standard does not know would stay as they were written.
        let url = Url::parse(&format!("{}://{rest}", scheme.on_the_wire())).map_err(|error| AddressError::NotAUrl(error.to_string()))?;
        if !url.username().is_empty()
            || url.password().is_some()
            || rest.split(['/', '?', '#', '\\']).next().is_some_and(|a| a.contains('@'))
        {
            return Err(AddressError::UserInfo);
        }
        if url.query().is_some() {
            return Err(AddressError::Query);
        }
        if url.fragment().is_some() {
            return Err(AddressError::Fragment);
        }
        let (host, literal) = match url.host().ok_or(AddressError::Host)? {
            Host::Domain(name) => (name.strip_suffix('.').unwrap_or(name).to_owned(), None),
            Host::Ipv4(address) => (address.to_string(), Some(IpAddr::V4(address))),
            Host::Ipv6(address) => (address.to_string(), Some(IpAddr::V6(address))),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(AddressError::Port)?;
        if host.is_empty() || host.ends_with('.') {
            return Err(AddressError::Host);
        }
        let shown = if matches!(literal, Some(IpAddr::V6(_))) { format!("[{host}]") } else { host.clone() };
        let authority = if url.port().is_some() { format!("{shown}:{port}") } else { shown };
        let authority = HeaderValue::from_str(&authority).map_err(|_| AddressError::Host)?;
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Parts { scheme, host, literal, port, authority, prefix })))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.0.scheme, self.0.authority.to_str().unwrap_or_default(), self.0.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown, host, port, prefix) in [
            ("http://a.example", "http://a.example", "a.example", 80, ""),
            ("HTTPS://A.Example:443/", "https://a.example", "a.example", 443, ""),
            ("https://a.example./v1/", "https://a.example/v1", "a.example", 443, "/v1"),
            ("h2c://a:50051", "h2c://a:50051", "a", 50051, ""),
            ("grpc://a:50051/x", "grpc://a:50051/x", "a", 50051, "/x"),
            ("grpcs://a", "grpcs://a", "a", 443, ""),
            ("http://[::1]:8000", "http://[::1]:8000", "::1", 8000, ""),
            ("grpc://0x7f.1:5", "grpc://127.0.0.1:5", "127.0.0.1", 5, ""),
            ("http://2130706433", "http://127.0.0.1", "127.0.0.1", 80, ""),
            ("http://0177.0.0.1/", "http://127.0.0.1", "127.0.0.1", 80, ""),
            ("http://a/b/../c", "http://a/c", "a", 80, "/c"),
        ] {
            let address: Address = text.parse().unwrap();
            let read = (address.to_string(), address.host(), address.port(), address.prefix());
            assert_eq!(read, (shown.to_owned(), host, port, prefix), "{text}");
            assert_eq!(address.literal(), host.parse().ok(), "{text}");
        }
    }

    #[test]
    fn what_has_no_use_is_refused() {
        for (text, error) in [
            ("http://user@a", AddressError::UserInfo),
            ("http://user:x@a", AddressError::UserInfo),
            ("http://@a", AddressError::UserInfo),
            ("http://a/#x", AddressError::Fragment),
            ("http://a/?x=1", AddressError::Query),
            ("ftp://a", AddressError::Scheme),
            ("unix:///run/x", AddressError::Scheme),
            ("http://a:0", AddressError::Port),
            ("http://a..", AddressError::Host),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err(), error, "{text}");
        }
        for text in ["", "a.example", "a:80", "http://", "http://a b", "http://a:99999", "http://[::1", "http://999.1.1.1"] {
            assert!(matches!(text.parse::<Address>(), Err(AddressError::NotAUrl(_))), "{text}");
        }
    }

    #[test]
    fn a_prefix_stands_before_each_path() {
        let address: Address = "http://a/v1".parse().unwrap();
        assert_eq!(address.target(&"http://x/y?z=1".parse().unwrap()), ("/v1", "/y?z=1"));
        assert_eq!(address.target(&Uri::from_static("/")), ("/v1", "/"));
    }
}
