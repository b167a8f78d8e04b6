//! Where a tenant wants to be told.
//!
//! Invariants: an [`Address`] is `http` or `https`, has a host that can be called and nothing that is not sent (no user, no fragment);
//! its host is in the one spelling that names and addresses have before any rule looks at it (`0x7f.1` and `127.0.0.1.` are
//! `127.0.0.1`); an IP address in it was let pass by the guard. What a name resolves to is judged by the guard at each send. The path
//! and query often hold a token of the tenant, so only [`Address::as_str`] shows them.

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use plinth_net::outbound::{self, Guard};
use plinth_types::{Error, Reason};
use url::{Host, Url};

/// The most bytes of an address, as it was written and as it is kept.
pub const MAX_URL: usize = 2048;
/// The most characters of a host name (RFC 1035, without the last dot), and of one of its parts.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// Below this only the two ports of HTTP: the others belong to mail, shells and the like, which read a request as commands.
const FIRST_FREE_PORT: u16 = 1024;

/// The address of a webhook. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    url: String,
    origin: outbound::Address,
    target: PathAndQuery,
}

/// Why a text is no address of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than [`MAX_URL`].
    #[error("a webhook's address has at most {MAX_URL} characters")]
    TooLong,
    /// Not a URL, or with characters that URLs do not have.
    #[error("a webhook's address is a URL such as https://example.com/hook")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("a webhook's address begins with https:// or http://")]
    Scheme,
    /// `user@host`.
    #[error("a webhook's address has no user and no password; deliveries are signed instead")]
    UserInfo,
    /// `#…`
    #[error("a webhook's address has no fragment")]
    Fragment,
    /// No host, or one that cannot be.
    #[error("the host of a webhook's address is a name of at most 253 characters, or an IP address")]
    Host,
    /// A port that is not called.
    #[error("the port of a webhook's address is 80, 443, or 1024 to 65535")]
    Port,
    /// An IP address that may not be called. The text does not say why: that is the operator's affair.
    #[error("the webhook's address may not be called")]
    Refused(outbound::Refused),
}

impl Address {
    /// Reads what a tenant has written, when it is submitted and again when it is sent to: the guard may be another by then.
    ///
    /// # Errors
    /// One for each rule; see [`AddressError`].
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, AddressError> {
        if text.len() > MAX_URL {
            return Err(AddressError::TooLong);
        }
        // The URL standard takes line ends out and reads a backslash as a slash; nobody writes either in good faith.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(AddressError::Malformed);
        }
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Malformed)?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(AddressError::Scheme);
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::InvalidPort => AddressError::Port,
            url::ParseError::EmptyHost | url::ParseError::InvalidIpv4Address | url::ParseError::InvalidIpv6Address => AddressError::Host,
            url::ParseError::IdnaError | url::ParseError::InvalidDomainCharacter => AddressError::Host,
            _ => AddressError::Malformed,
        })?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // The URL standard would take the next part of the path for the host.
        if authority.is_empty() {
            return Err(AddressError::Host);
        }
        if authority.contains('@') {
            return Err(AddressError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(AddressError::Fragment);
        }
        let host = host(&url, guard)?;
        let port = url.port_or_known_default().filter(|port| matches!(port, 80 | 443 | FIRST_FREE_PORT..)).ok_or(AddressError::Port)?;
        let origin = format!("{}://{host}:{port}", url.scheme()).parse().map_err(|_| AddressError::Host)?;
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let target = target.parse().map_err(|_| AddressError::Malformed)?;
        // With what had to be escaped.
        if url.as_str().len() > MAX_URL {
            return Err(AddressError::TooLong);
        }
        Ok(Self(Arc::new(Parts { url: url.into(), origin, target })))
    }

    /// The whole address, to be kept or shown to its tenant.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.url
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &outbound::Address {
        &self.0.origin
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &PathAndQuery {
        &self.0.target
    }
}

/// The host as it is called.
fn host(url: &Url, guard: &Guard) -> Result<String, AddressError> {
    let name = match url.host().ok_or(AddressError::Host)? {
        Host::Ipv4(address) => return guard.check(address.into()).map(|()| address.to_string()).map_err(AddressError::Refused),
        Host::Ipv6(address) => return guard.check(address.into()).map(|()| format!("[{address}]")).map_err(AddressError::Refused),
        Host::Domain(name) => name.strip_suffix('.').unwrap_or(name),
    };
    let label =
        |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if name.len() > MAX_NAME || !name.split('.').all(label) {
        return Err(AddressError::Host);
    }
    Ok(name.to_owned())
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        let public = Self::new(Reason::WebhookRefused, error.to_string());
        match error {
            AddressError::Refused(refused) => public.diagnostic(refused.to_string()),
            _ => public,
        }
    }
}

impl fmt::Debug for Address {
    /// Without path and query, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}/…)", self.0.origin)
    }
}
