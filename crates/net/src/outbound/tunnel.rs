//! A connection that left HTTP: bytes in both directions until one side closes.
//!
//! Invariant: what one side sent before it closed reaches the other, and a tunnel over which nothing moves ends.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{sleep, timeout};

use super::link::Link;
use super::pool::{Lease, Slot};
use crate::wire::Wire;

/// The bytes that are copied at once.
const PIECE: usize = 16 << 10;

/// How long the upstream may go on after the client has closed, and how long closing may take.
const GRACE: Duration = Duration::from_secs(5);

/// A connection to an upstream that speaks something else now. Dropping it closes it.
pub struct Tunnel {
    link: Link,
    slot: Slot,
}

/// How many bytes went which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// From the client to the upstream.
    pub up: u64,
    /// From the upstream to the client.
    pub down: u64,
}

impl Tunnel {
    pub(super) fn new(lease: Lease) -> Self {
        let (link, slot) = lease.into_parts();
        Self { link, slot }
    }

    /// Copies until one side closes or nothing moves for `idle`. `client` is taken out of the extensions of its request before
    /// that is sent, and ready once the client has the answer 101.
    ///
    /// # Errors
    /// `TimedOut` when nothing moved, otherwise those of the two connections.
    pub async fn run(self, client: OnUpgrade, idle: Duration) -> io::Result<Copied> {
        let client = timeout(idle, client).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?;
        match client.downcast::<TokioIo<Wire>>() {
            Ok(parts) => {
                let mut wire = parts.io.into_inner();
                if !wire.leave_http() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                self.between(parts.read_buf, wire, idle).await
            }
            // Another server's.
            Err(client) => self.between(Bytes::new(), TokioIo::new(client), idle).await,
        }
    }

    /// `early`: what the client sent and was read already.
    async fn between(self, early: Bytes, client: impl AsyncRead + AsyncWrite + Unpin, idle: Duration) -> io::Result<Copied> {
        let Self { link: Link { io, read, open, .. }, slot } = self;
        let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
        let (mut client_reads, mut client_writes) = split(client);
        let (mut reads, mut writes) = split(io);
        let upwards = async {
            copy(&mut client_reads, &mut writes, early.into(), &up).await?;
            writes.shutdown().await
        };
        let downwards = copy(&mut reads, &mut client_writes, read, &down);
        let end = until_closed(upwards, downwards, still(&up, &down, idle)).await;
        // The client may be gone already.
        let _ = timeout(GRACE, client_writes.shutdown()).await;
        drop((open, slot));
        end.map(|()| Copied { up: up.into_inner(), down: down.into_inner() })
    }
}

/// When the upstream closes, all is said. When the client does, the upstream may finish.
async fn until_closed(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
    still: impl Future<Output = ()>,
) -> io::Result<()> {
    let (mut up, mut down, mut still) = (pin!(up), pin!(down), pin!(still));
    tokio::select! {
        end = down.as_mut() => return end,
        end = up.as_mut() => end?,
        () = still.as_mut() => return Err(io::ErrorKind::TimedOut.into()),
    }
    timeout(GRACE, down).await.unwrap_or(Ok(()))
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut buffer: BytesMut,
    count: &AtomicU64,
) -> io::Result<()> {
    loop {
        if !buffer.is_empty() {
            let length = buffer.len() as u64;
            to.write_all_buf(&mut buffer).await?;
            to.flush().await?;
            count.fetch_add(length, Ordering::Relaxed);
        }
        buffer.reserve(PIECE);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Ready when nothing moved for `idle`, or up to twice as long.
async fn still(up: &AtomicU64, down: &AtomicU64, idle: Duration) {
    let moved = || up.load(Ordering::Relaxed).wrapping_add(down.load(Ordering::Relaxed));
    let mut before = moved();
    loop {
        sleep(idle).await;
        let now = moved();
        if now == before {
            return;
        }
        before = now;
    }
}
