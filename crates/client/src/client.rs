//! The client itself: where the node is, which key it is asked with, and how long each wait may be.
//!
//! Invariant: the key goes to the node's own origin only, because no redirect is followed and no proxy is used.
//! The routes are in `admin`, `models`, `versions`, `blobs` and `oip`; sending is in `transport`.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use url::Url;

use crate::{Error, Result, Secret};

/// Deadlines and limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a small request may take, from sending to the last byte of its answer.
    pub request_timeout: Duration,
    /// How long a request may take for which the node reads or deletes files: verification, garbage collection.
    pub work_timeout: Duration,
    /// How long an upload or a download may stand still. Their whole duration has no limit.
    pub idle_timeout: Duration,
    /// How often an idempotent request is repeated when the node cannot be reached or answers 503.
    pub retries: u32,
    /// The wait before the first repetition; it is four times as long before each further one.
    pub backoff: Duration,
    /// The most bytes of an answer of the admin API.
    pub max_answer: usize,
    /// The most bytes of an answer to an inference.
    pub max_inference_answer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            work_timeout: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(60),
            retries: 2,
            backoff: Duration::from_millis(100),
            max_answer: 64 << 20,
            max_inference_answer: 512 << 20,
        }
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Default)]
pub struct Paging {
    /// Where to begin: `next` of the page before.
    pub after: Option<String>,
    /// The most items; the node's own choice when absent.
    pub limit: Option<u32>,
}

/// The client of one node. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) options: Options,
    /// The tenant for which an administrator of the default tenant acts.
    pub(crate) tenant: Option<String>,
}

impl Client {
    /// A client of the node at `base_url`, such as `http://127.0.0.1:8000`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Settings`] when the address is not an HTTP address or the key cannot stand in a header.
    pub fn new(base_url: &str, key: Option<Secret>, options: Options) -> Result<Self> {
        let base = parse_base(base_url)?;
        install_crypto();
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose().trim()))
                .map_err(|_| Error::Settings("the key holds characters that no key has; check how it was copied".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("plinth/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy();
        if base.scheme() == "http" {
            // Without a redirect nothing will ask for TLS, and a machine without root certificates must do.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|e| Error::Settings(format!("the client cannot be set up: {e}")))?;
        Ok(Self { http, base, options, tenant: None })
    }

    /// The same for things of another tenant: administrators of the default tenant may act for others.
    #[must_use]
    pub fn for_tenant(mut self, tenant: Option<String>) -> Self {
        self.tenant = tenant;
        self
    }

    /// The node's address as it was given, without a trailing slash.
    #[must_use]
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The URL of a route; each segment is escaped by itself.
    pub(crate) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

fn parse_base(text: &str) -> Result<Url> {
    let bad = |why: &str| Error::Settings(format!("'{}' is not the address of a node: {why}", printable(text)));
    let url = Url::parse(text).map_err(|_| bad("want something like http://127.0.0.1:8000"))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() || url.host_str().is_none() {
        return Err(bad("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must hold no user name, no password, no '?' and no '#'"));
    }
    Ok(url)
}

/// At most 120 characters without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn install_crypto() {
    static ONCE: Once = Once::new();
    // A second provider is refused; then somebody else in this process has set one, which is as good.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Client {
        Client::new(base, None, Options::default()).unwrap()
    }

    #[test]
    fn routes_are_joined_and_escaped() {
        let url = client("http://127.0.0.1:8000").url(["v1", "models", "a b", "files", "x?y#z", "100%"]);
        assert_eq!(url.as_str(), "http://127.0.0.1:8000/v1/models/a%20b/files/x%3Fy%23z/100%25");
        assert_eq!(client("https://host/under/").url(["v1"]).as_str(), "https://host/under/v1");
        assert_eq!(client("https://host/under/").server(), "https://host/under");
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for bad in ["", "127.0.0.1:8000", "ftp://host", "http://", "http://u:p@host", "http://host/?x=1", "http://host/#f"] {
            assert!(matches!(Client::new(bad, None, Options::default()), Err(Error::Settings(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_key_that_breaks_the_header_is_refused_without_being_repeated() {
        let error = Client::new("http://host", Some(Secret::new("pk_a\nb")), Options::default()).err().unwrap();
        assert!(!error.to_string().contains("pk_a"));
    }
}
