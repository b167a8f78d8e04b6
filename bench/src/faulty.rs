//! A service that fails when it is told to: an HTTP server in this process, with so many slots and a queue that forgets nobody.
//!
//! Invariant: what it was asked is counted when the head has come, whatever it then does. One that is gone has closed its port and every connection,
//! as a process that died has; one that hung and is healed closes what hung, as one that was restarted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
const BAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nbad";

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// Answers 500 at once.
    Fails,
    /// Takes requests and never answers.
    Hangs,
    /// Refuses connections.
    Gone,
}

/// How much it can do.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub slots: usize,
    /// For one request in one slot.
    pub service: Duration,
}

/// Such a service. Dropping it ends it.
pub struct Faulty {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    /// Keeps the port while nobody listens there.
    kept: Option<TcpSocket>,
}

struct Shared {
    slots: Semaphore,
    service: Duration,
    /// When each request came.
    asked: Mutex<Vec<Instant>>,
}

impl Faulty {
    /// One that is well.
    pub async fn start(capacity: Capacity) -> Result<Self> {
        let shared = Shared { slots: Semaphore::new(capacity.slots), service: capacity.service, asked: Mutex::default() };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mode = watch::Sender::new(Mode::Well);
        let mut this = Self { address, mode, shared: Arc::new(shared), tasks: JoinSet::new(), kept: None };
        this.listen().await?;
        Ok(this)
    }

    async fn listen(&mut self) -> Result<()> {
        self.kept = None;
        let listener = TcpListener::bind(self.address).await.context("a faulty service cannot listen")?;
        self.address = listener.local_addr()?;
        let (shared, mode) = (self.shared.clone(), self.mode.subscribe());
        self.tasks.spawn(async move {
            // Ends with this task, so that everything is closed at once.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, shared.clone(), mode.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(())
    }

    /// Fails like this from now on, or is well again.
    pub async fn set(&mut self, mode: Mode) -> Result<()> {
        let before = self.mode.send_replace(mode);
        match (before, mode) {
            (_, Mode::Gone) => {
                self.tasks.abort_all();
                while self.tasks.join_next().await.is_some() {}
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind(self.address).context("keeping the port of a faulty service")?;
                self.kept = Some(socket);
                Ok(())
            }
            (Mode::Gone, _) => self.listen().await,
            _ => Ok(()),
        }
    }

    /// How many requests have come so far.
    pub fn asked(&self) -> usize {
        self.times().len()
    }

    /// When requests came.
    pub fn times(&self) -> Vec<Instant> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>, mut mode: watch::Receiver<Mode>) {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        while memchr::memmem::find(&buffer, b"\r\n\r\n").is_none() {
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        }
        // Only requests without a body come here, one after another. Checks are not work.
        if !buffer.starts_with(b"GET /health ") {
            shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
        buffer.clear();
        let now = *mode.borrow_and_update();
        let answer = match now {
            Mode::Fails => BAD,
            Mode::Hangs | Mode::Gone => {
                let _ = mode.changed().await;
                return;
            }
            Mode::Well => {
                let Ok(_slot) = shared.slots.acquire().await else { return };
                tokio::time::sleep(shared.service).await;
                GOOD
            }
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
