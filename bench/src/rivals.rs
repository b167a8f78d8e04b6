//! Other people's servers as child processes, as `scripts/rivals.sh` installed them.
//!
//! A server that is not installed or does not start is skipped with a line that says so; it never counts as measured.

pub mod mlserver;
pub mod proxies;
pub mod triton;

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::exchange::{Connection, Target};
use crate::setup::Setup;

/// How long a start and an end may take.
const START: Duration = Duration::from_secs(90);
const END: Duration = Duration::from_secs(10);

/// Where a rival is installed.
pub fn place(setup: &Setup, name: &str) -> Result<PathBuf> {
    let rivals = setup.rivals.as_ref().context("no rivals were given (--rivals)")?;
    let place = rivals.join(name);
    let place = place.canonicalize().ok().filter(|place| place.join("stamp").is_file());
    place.with_context(|| format!("{name} is not installed; scripts/rivals.sh does it"))
}

/// Something that may be missing, with the reason.
pub fn optional<T>(name: &str, result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| {
        eprintln!("skipping {name}: {error:#}");
        format!("{error:#}")
    })
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The folder for packages of a virtual environment.
fn site(environment: &Path) -> Result<PathBuf> {
    let lib = std::fs::read_dir(environment.join("lib"))?;
    let mut sites = lib.filter_map(|entry| Some(entry.ok()?.path().join("site-packages"))).filter(|site| site.is_dir());
    sites.next().context("the environment has no packages")
}

/// A server and the processes that it started. Dropping it ends all of them.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        Ok(Self { child: command.spawn().context("starting it")?, log: log.to_owned() })
    }

    /// Waits until a GET is answered with 200.
    async fn ready(&mut self, url: &str) -> Result<()> {
        let target = Target::get(url)?;
        let end = Instant::now() + START;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.last_words());
            }
            if let Ok(mut connection) = Connection::open(&target.address).await {
                let answer = tokio::time::timeout(Duration::from_secs(2), connection.exchange(&target)).await;
                if matches!(answer, Ok(Ok(answer)) if answer.status == 200) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("it was not ready in time: {}", self.last_words())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" / ").replace('|', "/")
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let end = Instant::now() + END;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}
