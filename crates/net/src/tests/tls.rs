//! TLS with rustls as the client.

use std::path::PathBuf;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use plinth_runtime::{OnEnd, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::{Error, watch};

/// An authority and the directory of its files.
struct Authority {
    directory: tempfile::TempDir,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key in PEM form.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let authority = Self { directory: tempfile::tempdir().unwrap(), pem, issuer: Issuer::new(params, key) };
        std::fs::write(authority.path("ca.pem"), &authority.pem).unwrap();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn write(&self, name: &str, issued: &Issued) -> CertificateFiles {
        let files = CertificateFiles { certificates: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        std::fs::write(&files.certificates, &issued.certificate).unwrap();
        std::fs::write(&files.key, &issued.key).unwrap();
        files
    }

    /// Options with one certificate for `localhost`.
    fn options(&self) -> TlsOptions {
        let files = self.write("node", &self.issue(&["localhost"], |_| {}));
        TlsOptions::new(files.certificates, files.key)
    }

    fn connector(&self, alpn: &[&str], own: Option<&Issued>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.pem)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![der(&own.certificate)], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn load(options: TlsOptions) -> Result<Arc<TlsContext>, Error> {
    TlsContext::load(options, Arc::new(SystemClock))
}

type Secured = Raw<TlsStream<TcpStream>>;

impl Fixture {
    async fn secure(&self, connector: &TlsConnector, name: &str) -> std::io::Result<Secured> {
        let (stream, name) = (TcpStream::connect(self.server.local_addr()).await?, ServerName::try_from(name.to_owned()).unwrap());
        within("the handshake", connector.connect(name, stream)).await.map(Raw)
    }
}

impl Secured {
    /// The certificate of the server.
    fn shown(&self) -> Vec<u8> {
        self.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

#[tokio::test]
async fn http1_is_served_and_large_answers_come_whole() {
    let authority = Authority::new();
    let fixture = start_with(limits(), Some(load(authority.options()).unwrap()));
    for alpn in [&[][..], &["http/1.1"]] {
        let mut raw = fixture.secure(&authority.connector(alpn, None), "localhost").await.unwrap();
        assert_eq!(raw.get("/").await.body, b"hello");
        assert_eq!(raw.get("/large").await.body.len(), LARGE);
        raw.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let refused = raw.rest().await;
        assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    }
    until("all are gone", || fixture.metrics.open.value() == 0).await;
}

#[tokio::test]
async fn http2_is_agreed_on() {
    let authority = Authority::new();
    let fixture = start_with(limits(), Some(load(authority.options()).unwrap()));
    let raw = fixture.secure(&authority.connector(&["h2", "http/1.1"], None), "localhost").await.unwrap();
    assert_eq!(raw.0.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(raw.0)).await.unwrap();
    TaskGroup::new("client").spawn("connection", OnEnd::Ignore, async {
        let _ = connection.await;
    });
    for _ in 0..3 {
        let request = http::Request::get("https://localhost/large").body(Empty::<Bytes>::new()).unwrap();
        let answer = within("the answer", sender.send_request(request)).await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), LARGE);
    }
    // Who agrees on HTTP/2 and speaks HTTP/1 is not heard.
    let mut raw = fixture.secure(&authority.connector(&["h2"], None), "localhost").await.unwrap();
    raw.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let authority = Authority::new();
    let (first, wild, exact) =
        (authority.issue(&["localhost"], |_| {}), authority.issue(&["*.example.org"], |_| {}), authority.issue(&["a.example.net"], |_| {}));
    let files = [("first", &first), ("wild", &wild), ("exact", &exact)].map(|(name, issued)| authority.write(name, issued));
    let options = TlsOptions { certificates: files.to_vec(), ..authority.options() };
    let fixture = start_with(limits(), Some(load(options).unwrap()));
    let connector = authority.connector(&[], None);
    for (name, issued) in [("localhost", &first), ("X.example.ORG", &wild), ("a.example.net", &exact)] {
        let mut raw = fixture.secure(&connector, name).await.unwrap();
        assert_eq!(raw.shown(), der(&issued.certificate).to_vec(), "{name}");
        assert_eq!(raw.get("/").await.status, 200);
    }
    for name in ["a.b.example.org", "example.org", "b.example.net"] {
        assert!(fixture.secure(&connector, name).await.is_err(), "{name} gets a certificate that is not its");
    }
}

#[tokio::test]
async fn clients_show_who_they_are() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let named = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "scraper");
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/scraper".try_into().unwrap()));
    };
    let (own, foreign) = (authority.issue(&["scraper.local"], named), stranger.issue(&["scraper.local"], named));
    let expired = authority.issue(&["scraper.local"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    for client_required in [true, false] {
        let options = TlsOptions { client_ca: Some(authority.path("ca.pem")), client_required, ..authority.options() };
        let fixture = start_with(limits(), Some(load(options).unwrap()));
        let who = async |own: Option<&Issued>| {
            let mut raw = fixture.secure(&authority.connector(&[], own), "localhost").await.ok()?;
            // In TLS 1.3 the client learns only with the answer that its certificate was refused.
            raw.0.write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
            raw.0.flush().await.ok()?;
            Some(raw.rest().await).filter(|text| text.starts_with("HTTP/1.1 200 "))
        };
        let fingerprint = plinth_types::Digest::of(&der(&own.certificate));
        let expected = format!("\r\n\r\nSome(\"scraper\") [\"scraper.local\"] [\"spiffe://example.org/scraper\"] {fingerprint}");
        assert!(who(Some(&own)).await.unwrap().ends_with(&expected));
        assert_eq!((who(Some(&foreign)).await, who(Some(&expired)).await), (None, None));
        let without = who(None).await;
        assert_eq!(without.is_none(), client_required, "{without:?}");
        assert!(without.is_none_or(|text| text.ends_with("\r\n\r\n")));
        until("the failures are counted", || fixture.metrics.handshake_failures.value() == 2 + u64::from(client_required)).await;
    }
}

#[tokio::test]
async fn new_certificates_come_into_force_without_a_failed_request() {
    let authority = Authority::new();
    let context = load(authority.options()).unwrap();
    // Room for those that close while the next ones come: at the cap whoever has sent nothing yet makes room.
    let fixture = start_with(ConnectionLimits { max_connections: 150, ..limits() }, Some(context.clone()));
    let connector = authority.connector(&["http/1.1"], None);
    let mut old = fixture.secure(&connector, "localhost").await.unwrap();
    let before = old.shown();
    assert!(!context.reload().unwrap(), "nothing has changed");
    let clients = (0..50).map(async |_| {
        for _ in 0..6 {
            let mut raw = fixture.secure(&connector, "localhost").await.unwrap();
            assert_eq!((raw.get("/").await.status, raw.get("/slow").await.status), (200, 200));
        }
    });
    let reloads = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            authority.options();
            let reading = context.clone();
            assert!(tokio::task::spawn_blocking(move || reading.reload()).await.unwrap().unwrap());
        }
    };
    tokio::join!(futures_util::future::join_all(clients), reloads);
    assert_eq!(old.get("/").await.status, 200, "connections in being go on");
    assert_ne!(fixture.secure(&connector, "localhost").await.unwrap().shown(), before);
    assert_eq!(fixture.metrics.handshake_failures.value(), 0);
}

#[tokio::test]
async fn files_are_watched_and_bad_ones_change_nothing() {
    let authority = Authority::new();
    let (options, tasks) = (authority.options(), TaskGroup::new("watch"));
    let context = load(options.clone()).unwrap();
    let expiry = context.earliest_expiry();
    watch(context.clone(), Duration::from_millis(10), &tasks);
    let short = authority.issue(&["localhost"], |params| params.not_after = date_time_ymd(2090, 1, 1));
    // Half of the pair is written first.
    std::fs::write(&options.certificates[0].certificates, &short.certificate).unwrap();
    assert!(matches!(context.reload(), Err(Error::KeyMismatch { .. })));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(context.earliest_expiry(), expiry);
    std::fs::write(&options.certificates[0].key, &short.key).unwrap();
    until("the new one is in force", || context.earliest_expiry().to_string() == "2090-01-01T00:00:00.000Z").await;
    assert!(context.until_expiry() > Duration::from_secs(86_400));
    assert!(tasks.close(Duration::from_secs(1)).await.is_empty());
}

#[test]
fn what_is_wrong_with_files_is_said() {
    let authority = Authority::new();
    let text = |options: TlsOptions| load(options).unwrap_err().to_string();
    let with = |issued: &Issued| {
        let files = authority.write("wrong", issued);
        text(TlsOptions::new(files.certificates, files.key))
    };
    let good = || authority.issue(&["localhost"], |_| {});
    let other = good();
    let old = authority.issue(&["localhost"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.issue(&["localhost"], |params| params.not_before = date_time_ymd(2990, 1, 1));
    assert!(with(&old).contains("wrong.pem expired at 2020-01-01T00:00:00.000Z"));
    assert!(with(&early).contains("wrong.pem is valid from 2990-01-01T00:00:00.000Z on only"));
    assert!(with(&Issued { key: other.key.clone(), ..good() }).contains("wrong.key does not belong to the certificate in"));
    assert!(with(&Issued { key: other.certificate.clone(), ..good() }).contains("wrong.key: the file holds no private key"));
    assert!(with(&Issued { certificate: other.key.clone(), ..good() }).contains("wrong.pem: the file holds no certificate"));
    assert!(with(&Issued { certificate: "-----BEGIN CERTIFICATE-----\nx".into(), ..good() }).contains("wrong.pem: the file is not PEM"));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(with(&Issued { key: encrypted.into(), ..good() }).contains("passphrase"));
    assert!(text(TlsOptions::new(authority.path("none.pem"), authority.path("none.key"))).contains("none.pem cannot be read"));
    let options = authority.options();
    assert!(text(TlsOptions { client_required: true, ..options.clone() }).contains("no authority"));
    assert!(text(TlsOptions { certificates: Vec::new(), ..options.clone() }).contains("no certificate"));
    let not_ca = TlsOptions { client_ca: Some(options.certificates[0].key.clone()), ..options };
    assert!(text(not_ca).contains("node.key: the file holds no certificate"));
}

#[tokio::test]
async fn handshakes_have_a_deadline_and_the_oldest_makes_room() {
    let authority = Authority::new();
    let timeout = |handshake_timeout, max_handshakes| {
        let options = TlsOptions { handshake_timeout, max_handshakes, ..authority.options() };
        start_with(limits(), Some(load(options).unwrap()))
    };
    let fixture = timeout(Duration::from_millis(100), 10);
    // Nothing, something else, and the beginning of a hello.
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"] {
        let text = fixture.send(bytes).await.rest().await;
        assert!(!text.contains("HTTP"), "{text:?}");
    }
    assert_eq!(fixture.metrics.handshake_failures.value(), 3);
    let fixture = timeout(Duration::from_secs(60), 4);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(fixture.connect().await);
    }
    let mut raw = fixture.secure(&authority.connector(&[], None), "localhost").await.unwrap();
    assert_eq!(raw.get("/").await.status, 200);
    assert!(fixture.metrics.handshake_failures.value() >= 16);
}

#[tokio::test]
async fn a_drain_ends_tls_connections_in_order() {
    let authority = Authority::new();
    let fixture = start_with(limits(), Some(load(authority.options()).unwrap()));
    let connector = authority.connector(&[], None);
    let mut busy = fixture.secure(&connector, "localhost").await.unwrap();
    let mut idle = fixture.secure(&connector, "localhost").await.unwrap();
    assert_eq!(idle.get("/").await.status, 200);
    busy.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the request runs", || fixture.live() == 1).await;
    let (report, answer, rest) = tokio::join!(fixture.server.drain(Duration::from_secs(5)), busy.answer(), idle.rest());
    assert_eq!((report, answer.status, rest.as_str()), (DrainReport { cut: 0 }, 200, ""));
}

#[tokio::test]
async fn over_tls_a_client_that_takes_nothing_is_cut_as_well() {
    let authority = Authority::new();
    let limits = ConnectionLimits { write_timeout: Duration::from_millis(150), ..limits() };
    let fixture = start_with(limits, Some(load(authority.options()).unwrap()));
    let mut raw = fixture.secure(&authority.connector(&[], None), "localhost").await.unwrap();
    raw.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until("the answer is given up", || fixture.metrics.timeouts.value() == 1 && fixture.live() == 0).await;
}
