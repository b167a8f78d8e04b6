//! Deliveries over TLS: the certificate has to be for the name, by an authority that is trusted.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

#[tokio::test]
async fn a_delivery_over_tls_needs_a_certificate_for_its_name() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["hook.example".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));

    let names = Names(Arc::new(Mutex::new(vec![vec!["127.0.0.1"]])));
    let world = world_of(loopback(), names, Some(TlsRoots::Only(vec![root])));
    let receiver = world
        .receiver(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let request = read_request(&mut stream).await;
                let good = verify([&secret(1)], &request.headers, &request.body, SystemClock.now()).is_ok();
                let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", if good { 200 } else { 400 });
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
    let port = receiver.address.port();
    let sent = world.send(&delivery(&format!("https://hook.example:{port}/"))).await;
    assert_eq!(sent.outcome, Outcome::Delivered, "{}", sent.diagnostic);
    let sent = world.send(&delivery(&format!("https://other.example:{port}/"))).await;
    assert_eq!(sent.attempt.ended, Ended::Failure(Failure::Unreachable));
    assert!(sent.diagnostic.contains("TLS"), "{}", sent.diagnostic);
}
