//! Certificates for two nodes, issued again and again by one authority that clients trust.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of the measurement");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), root: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// Writes a new certificate and its key as a node reads them; the certificate. One file after the other, as tools do: a node that
    /// looks in between finds two that do not fit, and looks again.
    pub fn write(&self, directory: &Path) -> Result<CertificateDer<'static>> {
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(directory.join("tls.crt"), certificate.pem())?;
        std::fs::write(directory.join("tls.key"), key.serialize_pem())?;
        Ok(certificate.der().clone())
    }

    /// A client that trusts it and speaks the protocol.
    pub fn client(&self, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        // Each handshake shows the certificate of the moment.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}
