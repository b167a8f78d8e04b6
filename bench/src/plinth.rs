//! A Plinth node as a child process, with the models of the table pushed and promoted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A node that was started for the measurement. Dropping it kills it.
pub struct Node {
    child: Child,
    directory: tempfile::TempDir,
    pub http: String,
    pub key: String,
    binary: PathBuf,
}

impl Node {
    /// Starts a node with keys on, as a user would have it.
    pub fn start(binary: &Path, library: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        let config = format!(
            "[node]\ndata_dir = {data:?}\n[listen]\nhttp = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n[engine]\nonnxruntime = {library:?}\n[log]\nlevel = \"warn\"\n"
        );
        std::fs::write(directory.path().join("plinth.toml"), config)?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        let child = Command::new(binary)
            .arg("up")
            .arg("--config")
            .arg(directory.path().join("plinth.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting plinth")?;
        let mut node = Self { child, directory, http: String::new(), key: String::new(), binary: binary.to_owned() };
        node.wait(&data)?;
        Ok(node)
    }

    fn wait(&mut self, data: &Path) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let addresses = std::fs::read(data.join("node.json")).ok().and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let key = log.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).find(|w| w.starts_with("plinth_") && w.len() == 88);
            if let (Some(addresses), Some(key)) = (addresses, key) {
                self.http = format!("http://{}", addresses["http"].as_str().context("no address")?);
                key.clone_into(&mut self.key);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the node did not start: {}", std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default())
    }

    /// Pushes a directory as a model and waits until it answers.
    pub fn push(&self, name: &str, directory: &Path) -> Result<()> {
        let mut push = Command::new(&self.binary);
        push.args(["model", "push"]).arg(directory).args(["--name", name, "--promote"]);
        push.env("PLINTH_SERVER", &self.http).env("PLINTH_KEY", &self.key);
        let output = push.output()?;
        if !output.status.success() {
            bail!("push of {name} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Resident memory of the node process in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
