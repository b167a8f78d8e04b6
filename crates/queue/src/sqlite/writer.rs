//! The one writer of a file: a thread that runs what has gathered in one transaction and then tells all of them.
//!
//! Group commit without waiting for it: while one transaction is being synced the next gathers, so a lone write pays one sync and a
//! thousand at once share it. Invariants: a caller is told `Ok` after the commit that holds its work, and not before; a piece of work that fails
//! costs nobody else: the group is undone and each piece runs again by itself; a commit that failed is never tried again, the connection is
//! closed and opened anew (what it did is then read from the file, as after a crash).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use plinth_runtime::{CrashPoint, World};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::failed;
use super::file::{Lock, Migrations, migrate, open_connection, prepare};
use crate::QueueError;

/// Pieces of work that wait for the writer; who comes then waits to be let in.
const QUEUE: usize = 4096;
/// How long a caller waits for its commit, its turn included. A disk that does not answer must not hold requests for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pieces of work in one transaction.
const GROUP: usize = 1024;

/// Where a test may end the process around a piece of work's commit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Points {
    /// Before the commit.
    pub before: Option<CrashPoint>,
    /// After it, before anybody knows.
    pub after: Option<CrashPoint>,
}

/// A piece of work. It may run twice: the first time in a group that was undone.
trait Work: Send {
    fn points(&self) -> Points;
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;
    fn done(self: Box<Self>, outcome: Result<(), QueueError>);
}

struct Task<F, T> {
    work: F,
    points: Points,
    outcome: Option<T>,
    tell: oneshot::Sender<Result<T, QueueError>>,
}

impl<F, T> Work for Task<F, T>
where
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn points(&self) -> Points {
        self.points
    }

    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.outcome = Some((self.work)(db)?);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), QueueError>) {
        let Self { outcome: given, tell, .. } = *self;
        let outcome = outcome.and_then(|()| given.ok_or_else(|| QueueError::unavailable("write", "the work was not run")));
        // Whoever went away meanwhile does not want to know.
        let _ = tell.send(outcome);
    }
}

/// The writer. Dropping it ends the thread after what is under way.
pub struct GroupWriter {
    send: mpsc::Sender<Box<dyn Work>>,
    thread: Option<JoinHandle<()>>,
}

impl GroupWriter {
    /// Takes the file's lock, opens it, brings its schema up to date and starts the thread. Blocks.
    ///
    /// # Errors
    /// [`QueueError`]; nothing is left behind but an empty file.
    pub fn open(path: &Path, steps: Migrations, world: &World) -> Result<Self, QueueError> {
        let lock = prepare(path)?;
        let db = open_connection(path, false)?;
        migrate(&db, steps)?;
        let (send, receive) = mpsc::channel(QUEUE);
        let thread = Thread { path: path.to_owned(), db: Some(db), world: world.clone(), _lock: lock };
        let thread = std::thread::Builder::new()
            .name("queue-writer".into())
            .spawn(move || thread.run(receive))
            .map_err(|error| QueueError::unavailable("open", error))?;
        Ok(Self { send, thread: Some(thread) })
    }

    /// Runs work in a transaction and returns what it gave, once that is committed and synced. Cancel safe in the sense that the work happens
    /// whole or not at all; whether it did is then not known.
    ///
    /// # Errors
    /// [`QueueError::Full`] and [`QueueError::Unavailable`], the latter also after 30 s without an answer.
    pub async fn write<T, F>(&self, operation: &'static str, points: Points, work: F) -> Result<T, QueueError>
    where
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let gone = || QueueError::unavailable(operation, "the writer has ended");
        let (tell, told) = oneshot::channel();
        let asked = async {
            self.send.send(Box::new(Task { work, points, outcome: None, tell })).await.map_err(|_| gone())?;
            told.await.map_err(|_| gone())?
        };
        let late = || QueueError::unavailable(operation, "the disk has not answered in time");
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// Ends the thread after what has gathered, and moves the WAL into the file. Blocks.
    pub fn close(mut self) {
        let (closed, _) = mpsc::channel(1);
        self.send = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    path: PathBuf,
    db: Option<Connection>,
    world: World,
    _lock: Lock,
}

impl Thread {
    fn run(mut self, mut receive: mpsc::Receiver<Box<dyn Work>>) {
        let mut group: Vec<Box<dyn Work>> = Vec::new();
        while receive.blocking_recv_many(&mut group, GROUP) > 0 {
            self.together(std::mem::take(&mut group));
        }
        if let Some(db) = self.db.take() {
            // The last connection that closes moves the WAL into the file; when that fails, the next start does it.
            let _ = db.close();
        }
    }

    /// Runs a group in one transaction; when something in it fails, each by itself.
    fn together(&mut self, mut group: Vec<Box<dyn Work>>) {
        let points = points_of(&group);
        let outcome = self.transaction(|db| group.iter_mut().try_for_each(|work| work.run(db)), points);
        match outcome {
            Ok(()) => group.into_iter().for_each(|work| work.done(Ok(()))),
            Err(Failed::Commit(error)) => {
                let text = error.to_string();
                let full = matches!(error, QueueError::Full);
                group.into_iter().for_each(|work| {
                    work.done(Err(if full { QueueError::Full } else { QueueError::unavailable("commit", text.clone()) }));
                });
            }
            Err(Failed::Work(error)) if group.len() == 1 => group.into_iter().for_each(|work| work.done(Err(fresh(&error)))),
            Err(Failed::Work(_)) => group.into_iter().for_each(|mut work| {
                let points = work.points();
                let outcome = self.transaction(|db| work.run(db), points);
                work.done(outcome.map_err(|(Failed::Commit(error) | Failed::Work(error))| error));
            }),
        }
    }

    fn transaction(&mut self, run: impl FnOnce(&Connection) -> rusqlite::Result<()>, points: Points) -> Result<(), Failed> {
        let db = match self.db.take() {
            Some(db) => db,
            None => open_connection(&self.path, false).map_err(Failed::Work)?,
        };
        let begun = db.execute_batch("BEGIN IMMEDIATE").map_err(failed("begin"));
        // A panic in a statement's glue must not leave the callers waiting for ever: it is an error like another.
        let ran = begun.and_then(|()| {
            catch_unwind(AssertUnwindSafe(|| run(&db))).unwrap_or_else(|_| Err(rusqlite::Error::InvalidQuery)).map_err(failed("write"))
        });
        if let Err(error) = ran {
            // SQLite may have rolled back by itself (a full disk); else this does. If neither worked the connection is not used again.
            if db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok() {
                self.db = Some(db);
            }
            return Err(Failed::Work(error));
        }
        if let Some(point) = points.before {
            self.world.crash.reach(point);
        }
        match db.execute_batch("COMMIT") {
            Ok(()) => {
                if let Some(point) = points.after {
                    self.world.crash.reach(point);
                }
                self.db = Some(db);
                Ok(())
            }
            Err(error) => Err(Failed::Commit(failed("commit")(error))),
        }
    }
}

enum Failed {
    /// Before the commit: nothing has happened.
    Work(QueueError),
    /// At the commit: nobody knows.
    Commit(QueueError),
}

/// The points of a group: of the first piece of work that has any.
fn points_of(group: &[Box<dyn Work>]) -> Points {
    let first = |pick: fn(&Points) -> Option<CrashPoint>| group.iter().find_map(|work| pick(&work.points()));
    Points { before: first(|points| points.before), after: first(|points| points.after) }
}

fn fresh(error: &QueueError) -> QueueError {
    match error {
        QueueError::Full => QueueError::Full,
        other => QueueError::unavailable("write", other.to_string()),
    }
}
