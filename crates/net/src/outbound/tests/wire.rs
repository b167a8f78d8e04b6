//! TLS: what is trusted, and what is agreed on.

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Certificate {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Certificate { der: made.cert.der().clone(), key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap() }
}

/// Serves over TLS; `h2` decides by what was agreed on.
async fn upstream(world: &World, certificate: &Certificate, protocols: &[&[u8]]) -> Upstream {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![certificate.der.clone()];
    let mut config = builder.with_no_client_auth().with_single_cert(chain, certificate.key.clone_key()).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let (acceptor, tasks) = (TlsAcceptor::from(Arc::new(config)), world.tasks.clone());
    world
        .scripted(move |stream, _| {
            let (acceptor, tasks) = (acceptor.clone(), tasks.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let service = service_fn(|request: Request<Incoming>| async move {
                    let version = format!("{:?} ", request.version());
                    let body = echo(request).await.into_body().into_bytes().await.unwrap();
                    Ok::<_, Infallible>(Response::new(Body::chain([version.into(), body])))
                });
                let io = TokioIo::new(stream);
                if http2 {
                    let _ = hyper::server::conn::http2::Builder::new(Spawner(tasks)).serve_connection(io, service).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                }
            }
        })
        .await
}

fn trusting(certificate: &Certificate, http2: bool) -> World {
    let tls = Some(TlsRoots::Only(vec![certificate.der.clone()]));
    world_with(OutboundOptions { tls, http2, ..OutboundOptions::default() })
}

#[tokio::test]
async fn both_sides_agree_on_a_protocol() {
    let certificate = certificate("127.0.0.1");
    for (scheme, protocols, http2, version, connections) in [
        ("https", &[&b"h2"[..], b"http/1.1"][..], true, "HTTP/2.0 ", 1),
        ("https", &[b"h2", b"http/1.1"], false, "HTTP/1.1 ", 1),
        ("https", &[b"http/1.1"], true, "HTTP/1.1 ", 1),
        ("https", &[], true, "HTTP/1.1 ", 1),
        ("grpcs", &[b"h2"], true, "HTTP/2.0 ", 1),
    ] {
        let world = trusting(&certificate, http2);
        let upstream = upstream(&world, &certificate, protocols).await;
        let endpoint = world.endpoint(scheme, &upstream);
        for size in [0, 10, 300_000] {
            let body = vec![b'x'; size];
            let (_, answer) = exchange(&endpoint, post("/", Bytes::from(body.clone()))).await.unwrap();
            assert_eq!(answer, [version.as_bytes(), &body].concat(), "{scheme}");
        }
        assert_eq!(upstream.connections(), connections, "{scheme} {version}");
        // Many first requests at once do not make a connection each where one would do.
        let endpoint = world.endpoint(scheme, &upstream);
        futures_util::future::join_all((0..20).map(|_| exchange(&endpoint, get("/")))).await;
        if version == "HTTP/2.0 " {
            assert_eq!(upstream.connections(), 2);
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_to_whom_is_not_trusted() {
    let (good, other, elsewhere) = (certificate("127.0.0.1"), certificate("127.0.0.1"), certificate("elsewhere.example"));
    let world = trusting(&good, true);
    for (shown, scheme, protocols) in [(&other, "https", &[][..]), (&elsewhere, "https", &[]), (&good, "grpcs", &[&b"http/1.1"[..]])] {
        let upstream = upstream(&world, shown, protocols).await;
        let error = exchange(&world.endpoint(scheme, &upstream), get("/")).await.unwrap_err();
        assert_eq!((error.kind, error.reached), (Kind::Tls, Reached::NotSent));
    }
    let silent =
        world.scripted(|mut stream, _| async move { while stream.read(&mut [0; 100]).await.is_ok_and(|count| count > 0) {} }).await;
    let hasty = world_with(OutboundOptions {
        tls: Some(TlsRoots::Only(vec![good.der.clone()])),
        handshake_timeout: Duration::from_millis(30),
        ..OutboundOptions::default()
    });
    let error = exchange(&hasty.endpoint("https", &silent), get("/")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Timeout(Stage::Tls));
    let error = exchange(&super::world().endpoint("https", &silent), get("/")).await.unwrap_err();
    assert_eq!((error.kind, error.to_string().as_str()), (Kind::Tls, "the upstream failed: TLS was not agreed on"));
}
