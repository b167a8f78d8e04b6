//! The loop that takes connections.
//!
//! Invariant: the loop ends only when its group is cancelled. Errors of accept never end it and never
//! make it spin: it waits a little longer after each, because most of them (no descriptors, no memory)
//! go away only when others close something. Over a cap a connection is refused at once, never queued; over that of all
//! clients together only if no connection is half open: else the oldest of those makes room.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::OnEnd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::activity::Activity;
use crate::connection::{self, Shared};
use crate::service::{Peer, Service};

/// The first and the longest wait after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How long a connection that makes room may take to close.
const MAKING_ROOM: Duration = Duration::from_millis(250);

/// Places that are kept free while half-open connections can make room: a 64th of all, and no more than this. So a newcomer seldom waits for one
/// to close.
const SPARE: usize = 64;

/// Where connections come from.
pub trait Acceptor: Send + 'static {
    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Acceptor for TcpListener {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

/// Takes connections until the group is cancelled.
pub async fn run<A: Acceptor, S: Service>(mut acceptor: A, shared: Arc<Shared<S>>) {
    let slots = Arc::new(Semaphore::new(shared.limits.max_connections));
    let stop = shared.group.cancelled().clone();
    let mut failures = 0u32;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = acceptor.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let Some(wait) = backoff(&error, failures) else { continue };
                failures = failures.saturating_add(1);
                shared.metrics.accept_errors.inc();
                tracing::warn!(listener = shared.listener, error = %error, wait_ms = wait.as_millis(), "accept failed");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => continue,
                }
            }
        };
        failures = 0;
        let Some(client) = shared.clients.enter(remote.ip()) else {
            shared.metrics.over_client_cap.inc();
            refuse(stream, shared.tls.is_some());
            continue;
        };
        let Some(slot) = slot(&slots, &shared).await else {
            shared.metrics.refused.inc();
            refuse(stream, shared.tls.is_some());
            continue;
        };
        shared.metrics.accepted.inc();
        let open = shared.metrics.open.hold();
        // Answers are small and wanted at once; a peer that is gone already shows at the first read.
        let _ = stream.set_nodelay(true);
        let peer = Peer::new(remote, shared.listener);
        let activity = Activity::new(shared.half_open.enter());
        let place = Box::new((slot, client, open));
        shared.group.spawn("connection", OnEnd::Ignore, connection::serve(shared.clone(), stream, peer, activity, place));
    }
}

/// A slot for a connection; `None` when all are taken by connections that have been heard.
async fn slot<S>(slots: &Arc<Semaphore>, shared: &Shared<S>) -> Option<OwnedSemaphorePermit> {
    let spare = (shared.limits.max_connections / SPARE).min(SPARE);
    let makes_room = slots.available_permits() <= spare && shared.half_open.give_up_oldest();
    if makes_room {
        shared.metrics.given_up.inc();
    }
    match slots.clone().try_acquire_owned() {
        Ok(slot) => Some(slot),
        Err(_) if makes_room => tokio::time::timeout(MAKING_ROOM, slots.clone().acquire_owned()).await.ok()?.ok(),
        Err(_) => None,
    }
}

/// How long to wait after an error; `None` when it was about one connection alone.
fn backoff(error: &io::Error, failures: u32) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return None;
    }
    Some(BACKOFF.0.saturating_mul(1 << failures.min(16)).min(BACKOFF.1))
}

/// Answers 503 as far as the socket takes it without waiting, and closes. Where TLS is spoken it only closes: to say anything would take a
/// handshake, which costs the node more than what it refuses, and clients take a connection that closes before it for one that failed.
fn refuse(stream: TcpStream, tls: bool) {
    if tls {
        return;
    }
    const BODY: &str = r#"{"type":"about:blank","title":"The node is at its capacity","status":503,"reason":"over_capacity"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    // Bytes that were sent along would turn the close into a reset, which destroys the answer.
    let _ = stream.try_read(&mut [0; 4096]);
    let _ = stream.try_write(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_single_connections_cost_none() {
        let emfile = io::Error::from_raw_os_error(24);
        let waits: Vec<_> = (0..12).map(|n| backoff(&emfile, n).unwrap().as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000]);
        assert_eq!(backoff(&emfile, u32::MAX).unwrap(), Duration::from_secs(1));
        assert_eq!(backoff(&io::ErrorKind::ConnectionAborted.into(), 3), None);
    }
}
