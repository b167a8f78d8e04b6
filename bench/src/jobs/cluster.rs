//! A PostgreSQL server of our own, in a directory of its own, which is stopped at once and started again.
//!
//! Invariant: it listens on the loopback only, syncs its commits, touches no other server, and ends with this value.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::ledgers::sql;
use crate::member::free_port;
use crate::process;

/// How long a start may take, recovery included.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Connections are cut off, then it ends in order.
    Fast,
    /// At once, as in a crash: it recovers when it starts.
    Immediate,
}

/// The server. Dropping it ends it.
pub struct Cluster {
    programs: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    owner: Option<(u32, u32)>,
    child: Option<Child>,
}

/// The newest server's programs: where Debian and its relatives put them, or those in the path.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin"))))
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    found.sort();
    if let Some((_, path)) = found.pop() {
        return Ok(path);
    }
    let said = Command::new("pg_config").arg("--bindir").output().context("no PostgreSQL server is installed")?;
    Ok(PathBuf::from(String::from_utf8(said.stdout)?.trim()))
}

/// The numbers of the user `postgres`, when this process is root's: the server refuses to be.
fn owner() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let number = |option: &str| -> Result<u32> {
        let said = Command::new("id").args([option, "postgres"]).output()?;
        String::from_utf8(said.stdout)?.trim().parse().context("there is no user 'postgres' to run a server as")
    };
    Ok(Some((number("-u")?, number("-g")?)))
}

impl Cluster {
    /// Makes one and starts it.
    pub async fn start() -> Result<Self> {
        let (programs, owner, directory) = (programs()?, owner()?, tempfile::tempdir()?);
        if let Some((user, group)) = owner {
            chown(directory.path(), Some(user), Some(group))?;
        }
        let mut cluster = Self { programs, directory, port: free_port()?, owner, child: None };
        let mut init = cluster.command("initdb");
        init.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--pgdata"]).arg(cluster.data());
        let output = init.output().context("initdb")?;
        ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        cluster.run().await?;
        Ok(cluster)
    }

    /// Without TLS, as on one machine.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Stops it, and starts it again at once.
    pub async fn restart(&mut self, how: Stop) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        process::send(child.id(), if how == Stop::Fast { Signal::INT } else { Signal::QUIT })?;
        let end = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "the server does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.run().await
    }

    async fn run(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-c", "fsync=on"]);
        command.arg("-k").arg(self.directory.path());
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("starting postgres")?);
        let end = Instant::now() + PATIENCE;
        while sql(&self.url(), "SELECT 'here'").await.is_err() {
            ensure!(Instant::now() < end, "the server does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(Path::new("/"));
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its children end with it; it need not recover any more.
            let _ = process::send(child.id(), Signal::QUIT);
            let _ = child.wait();
        }
    }
}
