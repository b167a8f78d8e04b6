//! What is done to the workers and their database.
//!
//! Invariant: one fault follows another, drawn by a seed; a worker that ended is started again, most often with a crash point at which it
//! will die; after [`Faults::heal`] nothing is stopped, limited or about to die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use plinth_runtime::{CrashPoint, Random};
use rustix::process::Signal;
use serde::Serialize;

use super::LEASE;
use crate::jobs::cluster::{Cluster, Stop};
use crate::jobs::fleet::{Armed, Fleet, Process};

/// What a worker may write to a file while its disk is full: next to nothing.
const FULL: u64 = 8 * 1024;
/// The pass of a crash point at which to die, at most.
const PASSES: u64 = 30;

/// How often what was done.
#[derive(Default, Serialize)]
pub struct Counts {
    /// `kill -9`.
    killed: u32,
    /// Stopped for longer than a lease, and woken.
    stopped: u32,
    /// Denied their disk for a while.
    full: u32,
    /// The database cut off and restarted, or crashed and recovered.
    restarted: [u32; 2],
    /// Died at a crash point.
    crashed: BTreeMap<&'static str, u32>,
    /// Ended otherwise.
    ended: u32,
}

impl Counts {
    /// At how many of the crash points of a job's life somebody died.
    pub fn points(&self) -> (usize, usize) {
        (self.crashed.len(), points().len())
    }

    pub fn text(&self) -> String {
        let crashed: Vec<String> = self.crashed.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let [fast, immediate] = self.restarted;
        format!(
            "{} × killed, {} × stopped and woken, {} × no disk, {} × database restarted and {} × crashed, died at {}; ended otherwise: {}",
            self.killed,
            self.stopped,
            self.full,
            fast,
            immediate,
            crashed.join(", "),
            self.ended
        )
    }
}

/// The workers and what befalls them.
pub struct Faults {
    fleet: Fleet,
    workers: Vec<(String, Process)>,
    cluster: Option<Cluster>,
    random: Arc<dyn Random>,
    counts: Counts,
    /// Crash points of a job's life.
    points: Vec<&'static str>,
    /// How many workers were started to die at one; `None` when no more shall be.
    armed: Option<usize>,
}

/// The crash points of a job's life.
fn points() -> Vec<&'static str> {
    CrashPoint::ALL.iter().map(|point| point.name()).filter(|name| name.starts_with("job.")).collect()
}

impl Faults {
    /// Starts the workers.
    pub fn new(fleet: Fleet, nodes: &[String], cluster: Option<Cluster>, seed: u64) -> Result<Self> {
        let workers = nodes.iter().map(|node| Ok((node.clone(), fleet.start(node, None)?))).collect::<Result<_>>()?;
        Ok(Self { fleet, workers, cluster, random: super::random(seed), counts: Counts::default(), points: points(), armed: Some(0) })
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.workers.iter().map(|(_, process)| process)
    }

    fn draw(&self, below: u64) -> u64 {
        self.random.next_u64() % below
    }

    /// The next crash point, in three of four cases.
    fn arm(&mut self) -> Option<Armed> {
        let pass = 1 + self.draw(PASSES) as u32;
        if self.draw(4) == 0 {
            return None;
        }
        let number = self.armed.as_mut()?;
        *number += 1;
        Some((self.points[*number % self.points.len()], pass))
    }

    /// Starts again who has ended.
    pub fn watch(&mut self) -> Result<()> {
        for number in 0..self.workers.len() {
            let (_, process) = &mut self.workers[number];
            let Some(status) = process.ended()? else { continue };
            let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::KILL.as_raw());
            match process.armed {
                Some((name, _)) if by_signal => *self.counts.crashed.entry(name).or_default() += 1,
                _ => self.counts.ended += 1,
            }
            self.again(number)?;
        }
        Ok(())
    }

    fn again(&mut self, number: usize) -> Result<()> {
        let armed = self.arm();
        let (node, process) = &mut self.workers[number];
        *process = self.fleet.start(node, armed)?;
        Ok(())
    }

    /// Lets so long pass, with an eye on the workers but for one that is stopped.
    async fn pass(&mut self, time: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            self.watch()?;
            tokio::time::sleep(Duration::from_millis(10).min(time)).await;
        }
        Ok(())
    }

    /// One fault after the other, until it is over.
    pub async fn rage(&mut self, over: impl Fn() -> bool) -> Result<()> {
        while !over() {
            let number = self.draw(self.workers.len() as u64) as usize;
            match self.draw(10) {
                0..4 => {
                    self.workers[number].1.kill()?;
                    self.counts.killed += 1;
                    self.again(number)?;
                }
                4..7 => self.stop(number).await?,
                // A worker of PostgreSQL writes to no disk; its server is restarted instead.
                7..9 => match self.cluster.is_some() {
                    true => self.restart().await?,
                    false => self.fill(number).await?,
                },
                // Left alone for a while, so that crash points are reached.
                _ => self.pass(Duration::from_secs(2)).await?,
            }
            let pause = Duration::from_millis(50 + self.draw(700));
            self.pass(pause).await?;
        }
        Ok(())
    }

    async fn stop(&mut self, number: usize) -> Result<()> {
        let time = Duration::from_millis(LEASE).mul_f64(1.2 + self.draw(180) as f64 / 100.0);
        let process = &mut self.workers[number].1;
        // One that has just died is seen to by the next look.
        if process.ended()?.is_none() {
            process.signal(Signal::STOP)?;
            let pid = process.pid();
            self.pass(time).await?;
            if self.workers[number].1.pid() == pid {
                self.workers[number].1.signal(Signal::CONT)?;
            }
            self.counts.stopped += 1;
        }
        Ok(())
    }

    async fn fill(&mut self, number: usize) -> Result<()> {
        let time = Duration::from_millis(100 + self.draw(700));
        let process = &mut self.workers[number].1;
        if process.ended()?.is_none() {
            process.limit_files(Some(FULL))?;
            let pid = process.pid();
            self.pass(time).await?;
            let process = &mut self.workers[number].1;
            if process.pid() == pid && process.ended()?.is_none() {
                process.limit_files(None)?;
            }
            self.counts.full += 1;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        let how = if self.draw(2) == 0 { Stop::Fast } else { Stop::Immediate };
        self.cluster.as_mut().context("there is no server")?.restart(how).await?;
        self.counts.restarted[usize::from(how == Stop::Immediate)] += 1;
        self.pass(Duration::from_secs(1)).await
    }

    /// The end of all faults: who waits to crash is replaced.
    pub async fn heal(&mut self) -> Result<()> {
        self.armed = None;
        for number in 0..self.workers.len() {
            if self.workers[number].1.armed.is_some() {
                self.workers[number].1.kill()?;
                self.again(number)?;
            }
        }
        self.pass(Duration::from_millis(100)).await
    }

    /// Ends the workers; what was done, and the database, which still runs.
    pub fn end(mut self) -> Result<(Counts, Option<Cluster>)> {
        for (_, process) in &mut self.workers {
            process.kill()?;
        }
        Ok((self.counts, self.cluster.take()))
    }
}
