//! What a certificate says of its holder.
//!
//! Whether it can be believed is for the handshake to check; nothing here verifies.

use plinth_types::{Digest, Timestamp};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The certificate with which a client has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// Its subject's alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// Those that are URIs, such as a SPIFFE id.
    pub uris: Vec<String>,
    /// The SHA-256 digest of the certificate in DER form.
    pub fingerprint: Digest,
}

impl ClientCertificate {
    /// Reads a certificate in DER form.
    pub(super) fn parse(der: &[u8]) -> Result<Self, x509_cert::der::Error> {
        let Facts { common_name, dns_names, uris, .. } = Facts::read(der)?;
        Ok(Self { common_name, dns_names, uris, fingerprint: Digest::of(der) })
    }
}

/// What is used of any certificate.
pub struct Facts {
    pub common_name: Option<String>,
    pub dns_names: Vec<String>,
    pub uris: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Facts {
    pub fn read(der: &[u8]) -> Result<Self, x509_cert::der::Error> {
        let certificate = Certificate::from_der(der)?;
        let body = certificate.tbs_certificate();
        let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
        if let Some((_critical, names)) = body.get_extension::<SubjectAltName>()? {
            for name in names.0 {
                match name {
                    GeneralName::DnsName(name) => dns_names.push(name.to_string()),
                    GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                    _ => {}
                }
            }
        }
        let validity = body.validity();
        Ok(Self {
            // A name in a form that is no string counts as none.
            common_name: body.subject().common_name().ok().flatten().map(String::from),
            dns_names,
            uris,
            not_before: validity.not_before.to_system_time().into(),
            not_after: validity.not_after.to_system_time().into(),
        })
    }
}
