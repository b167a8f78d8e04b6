//! TLS on a listener: certificates from files, replaced while connections go on.
//!
//! Invariant: there is always a whole configuration in force (certificates with their keys, and the
//! authorities of client certificates), replaced in one step; files that do not hold together change
//! nothing. A connection keeps the configuration with which it began. A handshake has a deadline, and of
//! many at a time the oldest is given up. TLS 1.2 and 1.3, with ring; revocation is not checked, so
//! certificates of clients should live shortly.

mod identity;
mod load;
mod resolver;
mod watch;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_runtime::Clock;
use plinth_types::Timestamp;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use identity::ClientCertificate;
pub use load::Error;
pub use watch::watch;

use crate::half_open::HalfOpen;
use crate::socket::Socket;
use load::Loaded;

/// The protocols that are offered, the wanted one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM form, the node's own certificate first.
    pub certificates: PathBuf,
    /// Its private key in PEM form, without a passphrase.
    pub key: PathBuf,
}

/// What a listener's TLS is made of.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The certificates. A client gets the first that fits the name it asks for, else the first of all.
    pub certificates: Vec<CertificateFiles>,
    /// The authorities (PEM) that issue certificates of clients; without, no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub client_required: bool,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// The most handshakes at a time.
    pub max_handshakes: usize,
}

impl TlsOptions {
    /// One certificate, no certificates of clients.
    #[must_use]
    pub fn new(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificates: vec![CertificateFiles { certificates: certificates.into(), key: key.into() }],
            client_ca: None,
            client_required: false,
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 1024,
        }
    }
}

/// The TLS of a listener.
pub struct TlsContext {
    options: TlsOptions,
    clock: Arc<dyn Clock>,
    current: ArcSwap<Loaded>,
    /// Held while files are read, so that an older state never replaces a newer one.
    reloading: Mutex<()>,
    half_open: Arc<HalfOpen>,
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext").field("options", &self.options).finish_non_exhaustive()
    }
}

impl TlsContext {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// When a file cannot be read, or the files do not hold together: see [`Error`].
    pub fn load(options: TlsOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        let loaded = load::load(&options, clock.now())?;
        let half_open = HalfOpen::new(options.max_handshakes);
        Ok(Arc::new(Self { options, clock, current: ArcSwap::from_pointee(loaded), reloading: Mutex::default(), half_open }))
    }

    /// Reads the files again; `true` when new connections get something else from now on. Connections in being keep what they
    /// have. Blocking.
    ///
    /// # Errors
    /// As [`Self::load`]; what was in force stays in force.
    pub fn reload(&self) -> Result<bool, Error> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let files = load::read(&self.options)?;
        if files.digest() == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(files.parse(&self.options, self.clock.now())?));
        Ok(true)
    }

    /// When the first of the node's own certificates expires.
    #[must_use]
    pub fn earliest_expiry(&self) -> Timestamp {
        self.current.load().expiry
    }

    /// How long until then; zero when it is past.
    #[must_use]
    pub fn until_expiry(&self) -> Duration {
        self.earliest_expiry().since(self.clock.now())
    }

    /// Speaks TLS with a client.
    pub(crate) async fn accept(&self, socket: Socket) -> io::Result<Accepted> {
        let place = self.half_open.enter();
        let acceptor = TlsAcceptor::from(self.current.load().config.clone());
        let stream = tokio::select! {
            stream = tokio::time::timeout(self.options.handshake_timeout, Box::pin(acceptor.accept(socket))) => {
                stream.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))??
            }
            () = place.given_up() => return Err(io::Error::other("too many handshakes at a time")),
        };
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol().map(|protocol| protocol == ALPN[0]);
        let certificate = match session.peer_certificates().and_then(<[_]>::first) {
            Some(der) => Some(ClientCertificate::parse(der).map_err(io::Error::other)?),
            None => None,
        };
        Ok(Accepted { stream: Box::new(stream), http2, certificate: certificate.map(Arc::new) })
    }
}

/// A connection after its handshake.
pub(crate) struct Accepted {
    pub stream: Box<TlsStream<Socket>>,
    /// Whether HTTP/2 was agreed on; `None` when nothing was.
    pub http2: Option<bool>,
    /// The verified one.
    pub certificate: Option<Arc<ClientCertificate>>,
}
