//! Where worker processes tell what they do: a Unix socket in the measuring process.
//!
//! One line for each thing, words with spaces between. An effect is asked for with its key and answered `new` or `again`. Invariant: a
//! key counts once, and what is counted is kept by job and step, so that a worker that changes its keys from attempt to attempt is found
//! out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plinth_queue::jobs::JobId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A job has begun.
#[derive(Debug, Clone)]
pub struct Begun {
    pub at: Instant,
    /// The process's number.
    pub pid: u32,
}

/// How an end was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Done,
    Fenced,
    Unknown,
}

/// Stands for the result of an end that has none.
pub const NOTHING: &str = "-";

/// An end that a worker has offered to the ledger, and its answer.
#[derive(Debug, Clone)]
pub struct Ended {
    pub epoch: u64,
    pub word: Word,
    /// It was offered before and nobody knows what became of that.
    pub again: bool,
    /// Says what the end was: the digest of the result, or [`NOTHING`].
    pub result: String,
}

/// What was told.
#[derive(Default)]
pub struct Told {
    pub begun: HashMap<JobId, Vec<Begun>>,
    pub ends: HashMap<JobId, Vec<Ended>>,
    keys: HashSet<String>,
    /// How often each step of a job counted.
    pub effects: BTreeMap<(JobId, u8), u32>,
    /// Effects that were asked for, the repeated ones too.
    pub offered: u64,
    /// Processes that are ready.
    ready: HashSet<u32>,
}

/// The socket. Dropping it ends it.
pub struct Sink {
    path: PathBuf,
    told: Arc<Mutex<Told>>,
    news: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Sink {
    /// Listens in a directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let path = directory.join("sink");
        let listener = UnixListener::bind(&path).context("the socket of the sink")?;
        let (told, news) = (Arc::<Mutex<Told>>::default(), Arc::<Notify>::default());
        let mut tasks = JoinSet::new();
        let (all, ring) = (told.clone(), news.clone());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (all, ring) = (all.clone(), ring.clone());
                open.spawn(async move {
                    // Whoever was killed has said what it has said.
                    let _ = listen(stream, &all, &ring).await;
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { path, told, news, _tasks: tasks })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was told so far.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was told is enough.
    pub async fn until<T>(&self, what: &str, patience: Duration, enough: impl Fn(&Told) -> Option<T>) -> Result<T> {
        let wait = async {
            loop {
                let next = self.news.notified();
                let found = enough(&self.told());
                if let Some(found) = found {
                    return found;
                }
                next.await;
            }
        };
        tokio::time::timeout(patience, wait).await.with_context(|| format!("waited in vain for {what}"))
    }

    /// Waits until a process is ready.
    pub async fn ready(&self, pid: u32, patience: Duration) -> Result<()> {
        self.until("a worker to be ready", patience, |told| told.ready.contains(&pid).then_some(())).await
    }
}

async fn listen(stream: UnixStream, told: &Mutex<Told>, news: &Notify) -> Result<()> {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = take(&words, &mut told.lock().unwrap_or_else(PoisonError::into_inner))?;
        news.notify_waiters();
        if let Some(answer) = answer {
            to.write_all(answer).await?;
        }
    }
    Ok(())
}

/// Takes one line; what is to be answered.
fn take(words: &[&str], told: &mut Told) -> Result<Option<&'static [u8]>> {
    match words {
        ["ready", pid] => {
            told.ready.insert(pid.parse()?);
        }
        ["begun", job, pid] => {
            let begun = Begun { at: Instant::now(), pid: pid.parse()? };
            told.begun.entry(job.parse()?).or_default().push(begun);
        }
        ["effect", key, job, step] => {
            told.offered += 1;
            if !told.keys.insert((*key).to_owned()) {
                return Ok(Some(b"again\n"));
            }
            *told.effects.entry((job.parse()?, step.parse()?)).or_default() += 1;
            return Ok(Some(b"new\n"));
        }
        ["ended", job, epoch, word, again, result] => {
            let word = match *word {
                "done" => Word::Done,
                "fenced" => Word::Fenced,
                _ => Word::Unknown,
            };
            let ended = Ended { epoch: epoch.parse()?, word, again: *again == "true", result: (*result).to_owned() };
            told.ends.entry(job.parse()?).or_default().push(ended);
        }
        _ => ensure!(false, "a line that nobody understands"),
    }
    Ok(None)
}

/// What a worker process says to the sink.
pub struct Voice {
    lines: tokio::io::Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
    to: tokio::net::unix::OwnedWriteHalf,
}

impl Voice {
    pub async fn connect(path: &Path) -> Result<Self> {
        let (from, to) = UnixStream::connect(path).await.context("the sink is not there")?.into_split();
        Ok(Self { lines: BufReader::new(from).lines(), to })
    }

    /// This process is ready.
    pub async fn ready(&mut self) -> Result<()> {
        Ok(self.to.write_all(format!("ready {}\n", std::process::id()).as_bytes()).await?)
    }

    /// A job has begun.
    pub async fn begun(&mut self, job: JobId) -> Result<()> {
        Ok(self.to.write_all(format!("begun {job} {}\n", std::process::id()).as_bytes()).await?)
    }

    /// An effect, which counts once for its key.
    pub async fn effect(&mut self, key: &str, job: JobId, step: u8) -> Result<()> {
        self.to.write_all(format!("effect {key} {job} {step}\n").as_bytes()).await?;
        self.lines.next_line().await?.context("the sink has gone").map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_once_and_a_step_twice_when_its_key_changes() {
        let mut told = Told::default();
        let job = "0199f1c2-7b3a-7000-8000-0123456789ab";
        let mut effect = |key: &str| take(&["effect", key, job, "1"], &mut told).unwrap().unwrap();
        assert_eq!((effect("a"), effect("a"), effect("b")), (&b"new\n"[..], &b"again\n"[..], &b"new\n"[..]));
        assert_eq!((told.offered, told.effects.values().copied().collect::<Vec<_>>()), (3, vec![2]));
        assert!(take(&["effect", "c"], &mut told).is_err());
    }
}
