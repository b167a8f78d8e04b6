//! From files to a configuration of TLS.
//!
//! Invariant: what is returned holds together: each key belongs to its certificate, each certificate of
//! the node is valid now, and every text of an error names the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plinth_types::{Digest, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::identity::Facts;
use super::resolver::{Named, Resolver};
use super::{ALPN, TlsOptions};

/// The largest file that is taken for one with certificates or a key, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Why TLS cannot be had from the files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options name no certificate.
    #[error("no certificate is configured")]
    NothingConfigured,
    /// Clients must show certificates, and nobody can issue them.
    #[error("certificates of clients are required, but no authority for them is configured")]
    NoClientCa,
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key is not the one of its certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificates.display())]
    KeyMismatch {
        /// The file with the certificate.
        certificates: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// A certificate is past its time.
    #[error("the certificate in {} expired at {at}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        at: Timestamp,
    },
    /// A certificate is before its time.
    #[error("the certificate in {} is valid from {from} on only", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it begins to be valid.
        from: Timestamp,
    },
    /// The library refuses the whole.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

fn unusable(path: &Path, why: impl Into<String>) -> Error {
    Error::Unusable { path: path.to_owned(), why: why.into() }
}

/// What is in force.
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    pub expiry: Timestamp,
    /// Of the files.
    pub digest: Digest,
}

/// The contents of all files.
pub struct Files {
    certificates: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
}

/// Reads the files and makes a configuration of them. Blocking.
pub fn load(options: &TlsOptions, now: Timestamp) -> Result<Loaded, Error> {
    read(options)?.parse(options, now)
}

/// Reads the files. Blocking.
pub fn read(options: &TlsOptions) -> Result<Files, Error> {
    let pairs = options.certificates.iter().map(|files| Ok((contents(&files.certificates)?, contents(&files.key)?)));
    Ok(Files { certificates: pairs.collect::<Result<_, Error>>()?, client_ca: options.client_ca.as_deref().map(contents).transpose()? })
}

fn contents(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
        return Err(unusable(path, "the file is too large for certificates or a key"));
    }
    std::fs::read(path).map_err(unreadable)
}

impl Files {
    /// One digest of all of them.
    pub fn digest(&self) -> Digest {
        let pairs = self.certificates.iter().flat_map(|(certificates, key)| [certificates, key]);
        let each: Vec<u8> = pairs.chain(&self.client_ca).flat_map(|bytes| *Digest::of(bytes).as_bytes()).collect();
        Digest::of(&each)
    }

    /// Makes a configuration of them.
    pub fn parse(&self, options: &TlsOptions, now: Timestamp) -> Result<Loaded, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut named = Vec::new();
        let mut expiry = None;
        for (files, (certificates, key)) in options.certificates.iter().zip(&self.certificates) {
            let chain = chain(&files.certificates, certificates)?;
            let facts = facts(&files.certificates, &chain, now)?;
            expiry = Some(expiry.map_or(facts.not_after, |earliest: Timestamp| earliest.min(facts.not_after)));
            let key = certified(chain, private_key(&files.key, key)?, &provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    Error::KeyMismatch { certificates: files.certificates.clone(), key: files.key.clone() }
                }
                other => unusable(&files.key, format!("the private key cannot be used: {other}")),
            })?;
            let names = if facts.dns_names.is_empty() { facts.common_name.into_iter().collect() } else { facts.dns_names };
            named.push(Named { names, key: Arc::new(key) });
        }
        let expiry = expiry.ok_or(Error::NothingConfigured)?;
        let config = config(options, self.client_ca.as_deref(), Resolver(named), provider)?;
        Ok(Loaded { config: Arc::new(config), expiry, digest: self.digest() })
    }
}

fn chain(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| unusable(path, format!("the file is not PEM: {error}")))?;
    if chain.is_empty() { Err(unusable(path, "the file holds no certificate in PEM form")) } else { Ok(chain) }
}

/// Reads the first of a chain, which must be valid now.
fn facts(path: &Path, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Facts, Error> {
    let own = chain.first().ok_or_else(|| unusable(path, "the file holds no certificate in PEM form"))?;
    let facts = Facts::read(own).map_err(|error| unusable(path, format!("the certificate cannot be read: {error}")))?;
    if facts.not_after < now {
        return Err(Error::Expired { path: path.to_owned(), at: facts.not_after });
    }
    if facts.not_before > now {
        return Err(Error::NotYetValid { path: path.to_owned(), from: facts.not_before });
    }
    Ok(facts)
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if bytes.windows(21).any(|part| part == b"ENCRYPTED PRIVATE KEY") => {
            unusable(path, "the private key has a passphrase; it must be stored without one")
        }
        pem::Error::NoItemsFound => unusable(path, "the file holds no private key in PEM form"),
        other => unusable(path, format!("the file is not PEM: {other}")),
    })
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key, provider)
}

fn config(
    options: &TlsOptions,
    client_ca: Option<&[u8]>,
    resolver: Resolver,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(Error::Setup)?;
    let mut config = match options.client_ca.as_deref().zip(client_ca) {
        None if options.client_required => return Err(Error::NoClientCa),
        None => builder.with_no_client_auth(),
        Some((path, bytes)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path, bytes)?), provider);
            let verifier = if options.client_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(path, error.to_string()))?)
        }
    }
    .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    if client_ca.is_some() {
        // A session that is taken up again is not verified again; a certificate of a client is, each time.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(Error::Setup)?;
    }
    Ok(config)
}

fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path, bytes)? {
        roots.add(certificate).map_err(|error| unusable(path, format!("a certificate is not fit for an authority: {error}")))?;
    }
    Ok(roots)
}
