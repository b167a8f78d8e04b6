//! A node that ends and comes back at the same addresses, as one of several.
//!
//! Its configuration, data and log are in a directory of its own. The ports are chosen once, below those that the kernel gives to
//! clients, so that no connection takes them while the node is away.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plinth_types::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use crate::process;
use crate::setup::Setup;

/// How long a start and an end may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where ports are looked for.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port that nobody listens on. Each is given once.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 9_000) as u16;
    for _ in 0..PORTS.len() {
        let port = PORTS.start + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// A node of several. Dropping it kills the process.
pub struct Member {
    directory: tempfile::TempDir,
    binary: PathBuf,
    /// Of the HTTP listener.
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Member {
    /// A node that is not started yet, with further keys of the configuration and their values as TOML.
    pub fn new(setup: &Setup, name: &str, keys: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = || Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        let address = port()?;
        let quoted = |text: &dyn std::fmt::Display| format!("{:?}", text.to_string());
        let library = setup.onnxruntime.canonicalize().context("ONNX Runtime's library is not there; `make setup` fetches it")?;
        let own = [
            ("node.name", quoted(&name)),
            ("node.data_dir", quoted(&directory.path().join("data").display())),
            ("listen.http", quoted(&address)),
            ("listen.grpc", "\"\"".to_owned()),
            ("listen.metrics", quoted(&port()?)),
            ("engine.onnxruntime", quoted(&library.display())),
            ("log.format", "\"json\"".to_owned()),
            ("limits.ban_requests", "0".to_owned()),
        ];
        let own = own.iter().map(|(key, value)| format!("{key} = {value}\n"));
        let given = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
        std::fs::write(directory.path().join("plinth.toml"), own.chain(given).collect::<String>())?;
        let binary = setup.plinth.canonicalize().context("the binary is not there; `make build` makes it")?;
        Ok(Self { directory, binary, address, child: None })
    }

    /// Adds keys to the configuration, for the next start.
    pub fn set(&self, keys: &[(&str, &str)]) -> Result<()> {
        let path = self.directory.path().join("plinth.toml");
        let added = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
        Ok(std::fs::write(&path, std::fs::read_to_string(&path)? + &added.collect::<String>())?)
    }

    /// Starts the process and returns at once.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the node runs already");
        // It is made anew when the node listens.
        let _ = std::fs::remove_file(self.directory.path().join("data/node.json"));
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.binary);
        command.arg("up").arg("--config").arg(self.directory.path().join("plinth.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("starting plinth")?);
        Ok(())
    }

    /// Waits until the node says where it listens.
    pub async fn listening(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let file = self.directory.path().join("data/node.json");
        while !file.exists() {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            ensure!(ended.is_none() && Instant::now() < end, "the node does not listen; it said:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the node does not run")?.id())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::send(self.pid()?, signal)
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let mut child = self.child.take().context("the node does not run")?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                child.kill()?;
                bail!("the node did not end; it said:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The directory beside the configuration and the data.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// All that the node has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Lines of the log that hold a text, with their times in milliseconds since 1970.
    pub fn said(&self, text: &str) -> Vec<(u64, String)> {
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            let message = value["message"].as_str().filter(|message| message.contains(text))?.to_owned();
            let at: Timestamp = serde_json::from_value(value["timestamp"].clone()).ok()?;
            Some((at.millis(), message))
        };
        self.log().lines().filter_map(line).collect()
    }

    /// The admin key that the node printed, if it made one.
    pub fn printed_key(&self) -> Option<String> {
        let log = self.log();
        let mut words = log.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.find(|word| word.starts_with("plinth_") && word.len() > 40).map(str::to_owned)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
