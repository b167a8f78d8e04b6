//! A Redis server of our own on the loopback, which is killed and comes back, with what it knew or without.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::member::free_port;

/// The server. Dropping it kills it.
pub struct Redis {
    pub port: u16,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts an empty one and waits until it answers.
    pub async fn start() -> Result<Self> {
        let mut redis = Self { port: free_port()?, directory: tempfile::tempdir()?, child: None };
        redis.run().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// `kill -9`. What it has answered is in its file: it writes before it answers, and only a machine that dies loses that.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("Redis does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again on the same port.
    pub async fn back(&mut self, with_memory: bool) -> Result<()> {
        if !with_memory {
            self.directory = tempfile::tempdir()?;
        }
        self.run().await
    }

    async fn run(&mut self) -> Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "yes", "--appendfsync", "no"]);
        command.args(["--maxmemory-policy", "noeviction", "--dir"]).arg(self.directory.path());
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("redis-server cannot be started")?);
        let end = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            ensure!(Instant::now() < end, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill();
        }
    }
}
