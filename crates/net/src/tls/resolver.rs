//! Which certificate a client gets.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate and the names for which it was issued.
#[derive(Debug)]
pub struct Named {
    pub names: Vec<String>,
    pub key: Arc<CertifiedKey>,
}

impl Named {
    /// Whether it was issued for `name`. A wildcard stands for the first label alone (RFC 9525, 6.3).
    fn fits(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            Some(own) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(own)),
            None => own.eq_ignore_ascii_case(name),
        })
    }
}

/// The certificates of a listener, in the order of the configuration; never empty.
#[derive(Debug)]
pub struct Resolver(pub Vec<Named>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let understood = |named: &&Named| named.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let fitting = hello.server_name().and_then(|name| self.0.iter().filter(|named| named.fits(name)).find(understood));
        // A client that asks for another name judges for itself whether it takes what there is.
        fitting.or_else(|| self.0.iter().find(understood)).or_else(|| self.0.first()).map(|named| named.key.clone())
    }
}
