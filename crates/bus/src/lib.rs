//! A doorbell between nodes: it wakes, and promises nothing.
//!
//! Who rings on one node wakes those who listen on all. Invariants: ringing never waits and never fails; a bus that is away, slow, wiped, or that repeats and
//! reorders what it carries costs time and nothing else, because a ring says only "look"; a thousand rings at once are one. What there is to
//! see, everybody looks up where it is kept.
#![warn(missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use plinth_runtime::{OnEnd, TaskGroup};
use tokio::sync::Notify;

/// Why the bus cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("the address of the bus cannot be used: {0}")]
pub struct BusError(String);

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Rings within this time are carried as one.
const GATHER: Duration = Duration::from_millis(2);

/// A doorbell. Cheap to clone; clones are the same bell.
#[derive(Clone, Default)]
pub struct Bus(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Somebody rang, here or elsewhere.
    heard: Notify,
    /// Somebody rang here, and others are to hear it.
    carry: Notify,
}

impl Bus {
    /// A bell within this process alone.
    #[must_use]
    pub fn local() -> Self {
        Self::default()
    }

    /// A bell that also rings on the other nodes of a NATS server's subject. Returns at once: the server may come later, go and come back.
    ///
    /// # Errors
    /// When the address makes no sense.
    pub fn nats(url: &str, subject: &str, tasks: &TaskGroup) -> Result<Self, BusError> {
        let addresses: Vec<async_nats::ServerAddr> =
            url.split(',').map(|one| one.trim().parse().map_err(|error| BusError(format!("{error}")))).collect::<Result<_, _>>()?;
        let bus = Self::default();
        let (carried, subject, stop) = (bus.clone(), subject.to_owned(), tasks.cancelled().clone());
        tasks.spawn("bus", OnEnd::Ignore, async move {
            stop.run_until_cancelled(carried.carry(addresses, subject)).await;
        });
        Ok(bus)
    }

    /// Rings.
    pub fn ring(&self) {
        self.0.heard.notify_one();
        self.0.carry.notify_one();
    }

    /// The next ring. One that came while nobody listened counts.
    pub async fn rung(&self) {
        self.0.heard.notified().await;
    }

    async fn carry(&self, addresses: Vec<async_nats::ServerAddr>, subject: String) {
        let mut pause = Duration::from_millis(50);
        let client = loop {
            match connect(&addresses).await {
                Ok(client) => break client,
                Err(error) => tracing::warn!(%error, "the bus cannot be reached; without it nodes hear of work a little later"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        loop {
            match client.subscribe(subject.clone()).await {
                Ok(mut rings) => {
                    // What was rung while nobody could hear it is not known: look once.
                    self.0.heard.notify_one();
                    loop {
                        tokio::select! {
                            ring = rings.next() => match ring {
                                Some(_) => self.0.heard.notify_one(),
                                None => break,
                            },
                            () = self.0.carry.notified() => {
                                // While there is no connection this is put aside by the client, bounded; one ring then stands for all.
                                let _ = tokio::time::timeout(CONNECT, client.publish(subject.clone(), Default::default())).await;
                                tokio::time::sleep(GATHER).await;
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the bus does not take a listener"),
            }
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }
}

async fn connect(addresses: &[async_nats::ServerAddr]) -> Result<Client, async_nats::ConnectError> {
    let options = ConnectOptions::new()
        .name("plinth")
        .connection_timeout(CONNECT)
        .reconnect_delay_callback(|attempts| {
            (Duration::from_millis(50) * u32::try_from(attempts).unwrap_or(u32::MAX).min(40)).min(LONGEST_PAUSE)
        })
        .max_reconnects(None)
        .client_capacity(64)
        .subscription_capacity(64)
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("the bus is connected"),
                Event::Disconnected => tracing::warn!("the bus is away; without it nodes hear of work a little later"),
                other => tracing::debug!(%other, "bus"),
            }
        });
    options.connect(addresses).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine's own server, where there is one; `PLINTH_TEST_NATS` names another.
    #[allow(clippy::disallowed_methods, reason = "tests may ask where their servers are")]
    async fn server() -> Option<String> {
        let url = std::env::var("PLINTH_TEST_NATS").unwrap_or_else(|_| "nats://127.0.0.1:4222".into());
        let there = tokio::net::TcpStream::connect(url.trim_start_matches("nats://")).await.is_ok();
        if !there {
            eprintln!("no NATS server at {url}: not tested");
        }
        there.then_some(url)
    }

    async fn soon(bus: &Bus) -> bool {
        tokio::time::timeout(Duration::from_secs(5), bus.rung()).await.is_ok()
    }

    async fn quiet(bus: &Bus) {
        while tokio::time::timeout(Duration::from_millis(100), bus.rung()).await.is_ok() {}
    }

    #[tokio::test]
    async fn rings_within_a_process_are_heard_and_many_are_one() {
        let bus = Bus::local();
        for _ in 0..1000 {
            bus.ring();
        }
        assert!(soon(&bus).await);
        assert!(tokio::time::timeout(Duration::from_millis(20), bus.rung()).await.is_err());
    }

    #[tokio::test]
    async fn rings_reach_other_nodes() {
        let Some(url) = server().await else { return };
        let tasks = TaskGroup::new("test");
        let subject = format!("plinth.test.{}", std::process::id());
        let (one, two) = (Bus::nats(&url, &subject, &tasks).unwrap(), Bus::nats(&url, &subject, &tasks).unwrap());
        assert!(soon(&one).await && soon(&two).await, "each looks once when it begins to listen");
        quiet(&two).await;
        one.ring();
        assert!(soon(&two).await);
        // What others write on the subject is a ring like another, whatever it says and however often.
        quiet(&two).await;
        let stranger = async_nats::connect(&url).await.unwrap();
        for _ in 0..500 {
            stranger.publish(subject.clone(), vec![0xff; 1000].into()).await.unwrap();
        }
        stranger.flush().await.unwrap();
        assert!(soon(&two).await);
        tasks.close(Duration::from_secs(2)).await;
    }

    #[tokio::test]
    async fn a_server_that_comes_later_and_goes_costs_nothing() {
        // A port where nobody listens yet.
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let tasks = TaskGroup::new("test");
        let bus = Bus::nats(&format!("nats://127.0.0.1:{port}"), "plinth.test", &tasks).unwrap();
        for _ in 0..10_000 {
            bus.ring();
        }
        assert!(soon(&bus).await, "here it is heard all the same");
        assert!(Bus::nats("nats://user:pass word@ /", "x", &tasks).is_err());
        assert!(tasks.close(Duration::from_secs(2)).await.is_empty());
    }
}
