//! Clients that hold connections as slowly as they can, and come again when they are thrown out.
//!
//! Four kinds, each with what it is cut by at the default settings: heads byte by byte (10 s for a head), bodies byte by byte (1 KiB/s over 10 s),
//! readers that take a byte a second of a pipeline of answers (30 s), and HTTP/2 that never opens a stream's window and answers pings (30 s).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Between two bytes.
const DRIP: Duration = Duration::from_secs(2);
/// Who was refused or cut comes again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// Answers that a slow reader asks for at once: more than the kernels of both sides hold.
const PIPELINE: usize = 4_000;

/// What is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Head,
    Body,
    Reader,
    Window,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Head, Self::Body, Self::Reader, Self::Window];

    /// Of many, four in ten send heads, two each the others.
    pub const fn of(number: usize) -> Self {
        match number % 10 {
            0..4 => Self::Head,
            4..6 => Self::Body,
            6..8 => Self::Reader,
            _ => Self::Window,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "heads byte by byte",
            Self::Body => "bodies byte by byte",
            Self::Reader => "slow readers",
            Self::Window => "HTTP/2 with shut windows",
        }
    }
}

/// What became of the connections of one kind.
#[derive(Debug, Default)]
pub struct Counts {
    pub open: AtomicI64,
    pub opened: AtomicU64,
    /// With 503, or closed before a byte of an answer within a moment.
    pub refused: AtomicU64,
    pub cut: AtomicU64,
    held_ms: AtomicU64,
}

/// The same as figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    pub kind: &'static str,
    pub open: i64,
    pub opened: u64,
    pub refused: u64,
    pub cut: u64,
    /// For which a connection that was cut had been held.
    pub held_seconds: f64,
}

impl Counts {
    pub fn figures(&self, kind: Kind) -> Figures {
        let cut = self.cut.load(Relaxed);
        let held_seconds = self.held_ms.load(Relaxed) as f64 / 1000.0 / cut.max(1) as f64;
        let (open, opened, refused) = (self.open.load(Relaxed), self.opened.load(Relaxed), self.refused.load(Relaxed));
        Figures { kind: kind.name(), open, opened, refused, cut, held_seconds }
    }
}

/// One slow client.
#[derive(Clone)]
pub struct Attacker {
    pub kind: Kind,
    pub source: IpAddr,
    pub target: SocketAddr,
    pub words: Arc<Words>,
    pub counts: Arc<[Counts; 4]>,
}

/// What all of them say.
pub struct Words {
    key: String,
    pipeline: String,
}

impl Words {
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned(), pipeline: head(key, "GET", "").repeat(PIPELINE) }
    }
}

fn head(key: &str, method: &str, more: &str) -> String {
    let path = if method == "POST" { "/v2/models/digits/infer" } else { "/v2" };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n{more}\r\n")
}

/// Attackers on a thread of their own, so that they do not hold up who measures. Dropping it ends them.
pub struct Attack {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Attack {
    /// Each begins after its time.
    pub fn start(attackers: Vec<(Duration, Attacker)>) -> Result<Self> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("attack".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for (late, attacker) in attackers {
                    tasks.spawn(async move {
                        sleep(late).await;
                        attacker.run().await;
                    });
                }
                let _ = stopped.await;
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How a connection ended.
#[derive(PartialEq)]
enum End {
    Refused,
    Cut,
}

impl Attacker {
    fn counts(&self) -> &Counts {
        &self.counts[self.kind as usize]
    }

    /// For ever.
    pub async fn run(self) {
        loop {
            let Ok(stream) = self.connect().await else {
                self.counts().refused.fetch_add(1, Relaxed);
                sleep(AGAIN).await;
                continue;
            };
            let (counts, began) = (self.counts(), Instant::now());
            counts.opened.fetch_add(1, Relaxed);
            counts.open.fetch_add(1, Relaxed);
            let end = match self.kind {
                Kind::Head => drip(stream, b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await,
                Kind::Body => drip(stream, head(&self.words.key, "POST", "content-length: 1048576\r\n").as_bytes()).await,
                Kind::Reader => self.reader(stream).await,
                Kind::Window => self.window(stream).await,
            };
            counts.open.fetch_sub(1, Relaxed);
            if end.unwrap_or(End::Cut) == End::Refused {
                counts.refused.fetch_add(1, Relaxed);
                sleep(AGAIN).await;
                continue;
            }
            counts.cut.fetch_add(1, Relaxed);
            counts.held_ms.fetch_add(began.elapsed().as_millis() as u64, Relaxed);
            sleep(AGAIN).await;
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source, 0))?;
        if self.kind == Kind::Reader {
            // As little as the kernel gives.
            socket.set_recv_buffer_size(2048)?;
        }
        let stream = timeout(Duration::from_secs(10), socket.connect(self.target)).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn reader(&self, mut stream: TcpStream) -> Result<End> {
        // The node stops reading where it cannot answer any more.
        let _ = timeout(DRIP, stream.write_all(self.words.pipeline.as_bytes())).await;
        let mut begin = [0; 12];
        if stream.read_exact(&mut begin).await.is_err() || begin.ends_with(b"503") {
            return Ok(End::Refused);
        }
        loop {
            sleep(DRIP).await;
            // That the node has closed shows behind what was not read; that it goes on, by what can still be written.
            if stream.read(&mut [0; 1]).await? == 0
                || stream.try_write(b"G").is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            {
                return Ok(End::Cut);
            }
        }
    }

    async fn window(&self, mut stream: TcpStream) -> Result<End> {
        // SETTINGS with INITIAL_WINDOW_SIZE 0, then HEADERS on stream 1: GET, http, the rest as literals (RFC 9113, RFC 7541).
        let bearer = format!("Bearer {}", self.words.key);
        let literal = |name: u8, value: &[u8]| [&[0x10 | name, value.len() as u8][..], value].concat();
        // 23 is `authorization`, beyond what four bits hold.
        let authorization = [&[0x1f, 23 - 15, bearer.len() as u8][..], bearer.as_bytes()].concat();
        let block = [&[0x82, 0x86][..], &literal(4, b"/v2"), &literal(1, b"localhost"), &authorization].concat();
        let frame =
            |kind, flags, stream, payload: &[u8]| [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat();
        let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), &frame(1, 5, 1, &block)].concat();
        stream.write_all(&begin).await?;
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Ok(End::Cut);
            }
            if head.starts_with(b"HTTP/1.1") {
                return Ok(End::Refused);
            }
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await?;
            match (head[3], head[4] & 1) {
                // PING, and SETTINGS.
                (6, 0) => stream.write_all(&frame(6, 1, 0, &payload)).await?,
                (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).await?,
                _ => {}
            }
        }
    }
}

/// Sends a beginning, and then a byte now and then; the beginning of a head byte by byte too.
async fn drip(stream: TcpStream, begin: &[u8]) -> Result<End> {
    let (mut reads, mut writes) = stream.into_split();
    let writing = async {
        let (at_once, slowly) = if begin.ends_with(b"\r\n\r\n") { (begin, &[][..]) } else { begin.split_at(1) };
        let _ = writes.write_all(at_once).await;
        for byte in slowly.iter().chain(std::iter::repeat(&b'a')) {
            sleep(DRIP).await;
            if writes.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let mut answer = [0; 12];
        let end = reads.read_exact(&mut answer).await;
        if end.is_ok() && answer.ends_with(b"503") { End::Refused } else { End::Cut }
    };
    Ok(tokio::select! { () = writing => End::Cut, end = reading => end })
}
