//! What TLS to upstreams trusts and offers.
//!
//! Invariant: a certificate is always checked, against the roots and for the host; there is no switch to turn that off.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Whose certificates are trusted.
#[derive(Clone, Debug)]
pub enum TlsRoots {
    /// Those of the system.
    System,
    /// These alone.
    Only(Vec<CertificateDer<'static>>),
    /// A configuration that is complete but for ALPN: with a certificate of our own, for one.
    Config(Arc<ClientConfig>),
}

impl TlsRoots {
    /// Reads what it names, once for several clients.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn load(&self) -> Result<Self, TlsSetupError> {
        self.config().map(Self::Config)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsSetupError> {
        match self {
            Self::Config(config) => Ok(config.clone()),
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                let made = config(found.certs).map_err(|error| TlsSetupError { what: format!("{} {:?}", error.what, found.errors) });
                made.map(Arc::new)
            }
            Self::Only(certificates) => config(certificates.clone()).map(Arc::new),
        }
    }
}

/// Why TLS to upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS to upstreams cannot be set up: {what}")]
pub struct TlsSetupError {
    what: String,
}

/// One configuration for each list of protocols that is offered.
pub(super) struct Configs {
    any: TlsConnector,
    http1: TlsConnector,
    http2: TlsConnector,
}

/// What may be agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Any,
    Http1,
    Http2,
}

impl Configs {
    pub(super) fn new(roots: &TlsRoots, http2: bool) -> Result<Self, TlsSetupError> {
        let base = roots.config()?;
        let offering = |protocols: &[&[u8]]| {
            let mut config = (*base).clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let http1 = offering(&[b"http/1.1"]);
        let any = if http2 { offering(&[b"h2", b"http/1.1"]) } else { http1.clone() };
        Ok(Self { any, http1, http2: offering(&[b"h2"]) })
    }

    pub(super) const fn offering(&self, offer: Offer) -> &TlsConnector {
        match offer {
            Offer::Any => &self.any,
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
        }
    }
}

fn config(certificates: Vec<CertificateDer<'static>>) -> Result<ClientConfig, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    // A system's collection may hold some that nobody can read; the others count.
    let (usable, _ignored) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(TlsSetupError { what: "no root certificate can be used".into() });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| TlsSetupError { what: error.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
