//! The address of a service outside Plinth that it may call.
//!
//! Invariant: `http` or `https`, a host, no user name or password inside, no fragment, and the
//! host stands literally in an allow-list that is empty until an operator fills it. Resolving the
//! name, checking the address and dialling exactly that one is left to the client in `net`.

use std::collections::BTreeSet;

use url::Url;

/// Which hosts may be called: exact `host` or `host:port` entries; empty allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    hosts: BTreeSet<String>,
}

impl OutboundPolicy {
    /// Allows exactly these hosts. An entry without a port allows the scheme's default port only.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Self { hosts: hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect() }
    }
}

/// A URL that an [`OutboundPolicy`] allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundUrl(Url);

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundUrlError {
    /// Not a URL at all.
    #[error("not a URL")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("only http and https URLs can be called")]
    Scheme,
    /// With a user name, a password or a fragment.
    #[error("a URL to call carries no user name, no password and no fragment")]
    Credentials,
    /// Not in the allow-list.
    #[error("the host is not in the list of hosts that may be called")]
    NotAllowed,
}

impl OutboundUrl {
    /// Parses and checks.
    ///
    /// # Errors
    /// One for each rule; see [`OutboundUrlError`].
    pub fn parse(text: &str, policy: &OutboundPolicy) -> Result<Self, OutboundUrlError> {
        let url = Url::parse(text).map_err(|_| OutboundUrlError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundUrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(OutboundUrlError::Credentials);
        }
        let host = url.host_str().ok_or(OutboundUrlError::Malformed)?;
        // `port()` is None for the scheme's default, so "host" never allows another port.
        let entry = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        if policy.hosts.contains(&entry) { Ok(Self(url)) } else { Err(OutboundUrlError::NotAllowed) }
    }

    /// The URL.
    #[must_use]
    pub const fn as_url(&self) -> &Url {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_until_somebody_says_so() {
        assert_eq!(OutboundUrl::parse("https://example.com/", &OutboundPolicy::default()), Err(OutboundUrlError::NotAllowed));
    }

    #[test]
    fn only_the_exact_host_passes() {
        let policy = OutboundPolicy::new(["example.com".into(), "Hooks.example.com:8443".into()]);
        for good in ["https://example.com/a?b=c", "http://EXAMPLE.com", "https://hooks.example.com:8443/x", "https://example.com:443/"] {
            assert!(OutboundUrl::parse(good, &policy).is_ok(), "{good}");
        }
        for bad in [
            "https://example.com.evil.org/",
            "https://evil.org/example.com",
            "https://example.com@evil.org/",
            "https://user:pass@example.com/",
            "https://example.com:8080/",
            "https://hooks.example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://0x7f000001/",
            "file:///etc/passwd",
            "ftp://example.com/",
            "//example.com/",
            "https://example.com/#x",
            "https://example.com.",
            "",
        ] {
            assert!(OutboundUrl::parse(bad, &policy).is_err(), "{bad}");
        }
    }
}
