//! Worker processes: started, asked, stopped, killed.
//!
//! Invariant: a signal goes only to a process that was started here and not yet waited for; a [`Process`] that is dropped is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use plinth_queue::jobs::JobId;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::ledgers::Place;
use super::worker::{Ask, Pace, Task};
use crate::process;

/// What the workers of a ledger have in common.
#[derive(Clone)]
pub struct Fleet {
    pub place: Place,
    pub pace: Pace,
    /// For sockets, objects and what the processes say.
    pub directory: PathBuf,
    /// The sink's socket.
    pub sink: PathBuf,
}

/// A crash point and the pass at which to die there.
pub type Armed = (&'static str, u32);

/// A worker process.
pub struct Process {
    child: Child,
    pub armed: Option<Armed>,
    listen: PathBuf,
}

impl Fleet {
    /// Starts a worker and returns at once.
    pub fn start(&self, node: &str, armed: Option<Armed>) -> Result<Process> {
        let listen = self.listen(node);
        let own = std::env::current_exe()?;
        // A write beyond the limit of a file's length is then an error and not the end of the process: what a full disk is to who writes.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(own).arg("job-worker");
        command.args(self.place.arguments()).args(self.pace.arguments());
        command.arg("--objects").arg(self.directory.join("objects")).arg("--sink").arg(&self.sink);
        command.arg("--listen").arg(&listen).args(["--node", node]);
        if let Some((name, nth)) = armed {
            command.args(["--crash", name, "--nth", &nth.to_string()]);
        }
        let log = std::fs::File::options().create(true).append(true).open(self.directory.join(format!("{node}.log")))?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("starting a worker process")?;
        Ok(Process { child, armed, listen })
    }

    /// The socket on which a node takes submissions.
    pub fn listen(&self, node: &str) -> PathBuf {
        self.directory.join(format!("{node}.socket"))
    }

    /// What the workers have said.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let logs = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|ending| ending == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::send(self.pid(), signal)
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// How long its files may be; `None`: as long as it likes.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("not a process id")?;
        // The hard limit stays, or nobody could raise it again.
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current: bytes.or(maximum), maximum };
        prlimit(Some(pid), Resource::Fsize, limit).context("limiting a worker's files")?;
        Ok(())
    }

    /// Asks for jobs to be stored.
    pub async fn submit(&self, key: &str, tasks: Vec<Task>) -> Result<Vec<JobId>> {
        submit(&self.listen, key, tasks, Duration::from_secs(30)).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a worker for jobs to be stored; an error says nothing of whether they are.
pub async fn submit(listen: &Path, key: &str, tasks: Vec<Task>, patience: Duration) -> Result<Vec<JobId>> {
    let answer = ask(listen, &Ask::Submit { key: key.to_owned(), tasks }, patience).await?;
    answer.split(' ').map(|id| Ok(id.parse()?)).collect()
}

/// Asks a worker how many jobs have not ended.
pub async fn open(listen: &Path, patience: Duration) -> Result<u64> {
    Ok(ask(listen, &Ask::Open, patience).await?.parse()?)
}

async fn ask(listen: &Path, ask: &Ask, patience: Duration) -> Result<String> {
    let line = serde_json::to_string(ask)? + "\n";
    let work = async {
        let (from, mut to) = UnixStream::connect(listen).await?.into_split();
        to.write_all(line.as_bytes()).await?;
        anyhow::Ok(BufReader::new(from).lines().next_line().await?)
    };
    let answer = tokio::time::timeout(patience, work).await.context("a worker does not answer")??;
    match answer.as_deref().and_then(|line| line.split_once(' ')) {
        Some(("ok", rest)) => Ok(rest.to_owned()),
        other => bail!("a worker answered {other:?}"),
    }
}
