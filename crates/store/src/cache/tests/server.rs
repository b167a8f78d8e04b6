//! Redis servers for tests: the one on the loopback, and ones of our own that are killed and stopped.
//!
//! Says so when there is none. `PLINTH_TEST_REQUIRE=redis` makes the absence of either a failure. Each test has a prefix of its
//! own.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ::redis::aio::MultiplexedConnection;
use plinth_runtime::{Random, SystemRandom};

use super::*;
use crate::faults::variable;

pub(crate) const PORT: u16 = 6379;

fn required() -> bool {
    variable("PLINTH_TEST_REQUIRE").is_some_and(|list| list.split([',', ' ']).any(|name| name.trim() == "redis"))
}

/// The prefixes of one test.
pub(crate) struct Prefixes {
    stem: String,
    made: AtomicU32,
}

/// Prefixes for a test on the shared server, or `None` when there is no Redis and nobody requires it.
pub(crate) fn shared() -> Option<Prefixes> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], PORT));
    if let Err(error) = TcpStream::connect_timeout(&loopback, Duration::from_secs(1)) {
        assert!(!required(), "PLINTH_TEST_REQUIRE asks for Redis, and nobody answers on {loopback}: {error}");
        println!("SKIPPED: no Redis answers on {loopback} ({error})");
        return None;
    }
    Some(Prefixes { stem: format!("plinth:test:{:016x}:", SystemRandom.next_u64()), made: AtomicU32::new(0) })
}

impl Prefixes {
    pub(crate) fn next(&self) -> String {
        format!("{}{}:", self.stem, self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes what stands under them. A test that fails leaves it behind to be looked at.
    pub(crate) async fn remove(self) {
        let mut server = connect(PORT).await;
        let mut cursor = 0u64;
        loop {
            let found: (u64, Vec<String>) =
                ::redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(format!("{}*", self.stem)).query_async(&mut server).await.unwrap();
            for key in found.1 {
                ::redis::cmd("DEL").arg(key).exec_async(&mut server).await.unwrap();
            }
            cursor = found.0;
            if cursor == 0 {
                return;
            }
        }
    }
}

/// A connection behind the adapter's back.
pub(crate) async fn connect(port: u16) -> MultiplexedConnection {
    ::redis::Client::open(("127.0.0.1", port)).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// A server of our own; killed when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts one, or says why not.
    pub(crate) async fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_on(port).await
    }

    pub(crate) async fn start_on(port: u16) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => {
                let server = Self { port, child, _directory: directory };
                eventually("our own Redis answers", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
                Some(server)
            }
            Err(error) => {
                assert!(!required(), "PLINTH_TEST_REQUIRE asks for Redis, and redis-server cannot be started: {error}");
                println!("SKIPPED: redis-server cannot be started ({error})");
                None
            }
        }
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub(crate) fn pause(&self, paused: bool) {
        let signal = if paused { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
