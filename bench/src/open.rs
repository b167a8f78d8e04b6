//! Open load with classes: requests leave when they are due by Poisson's law, whatever came of those before, and each is remembered with
//! what became of it.
//!
//! Times count from when a request was due. The generator judges itself: how late it sent what it could have sent at once, because a
//! connection was free, and what found no room at all. Figures of a generator that did not keep its own schedule say nothing of the server.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};

use crate::exchange::{Connection, Target};

/// Requests that are due and that no connection takes.
const BACKLOG: usize = 1 << 16;
/// The schedule is kept in steps of this.
const STEP: Duration = Duration::from_micros(200);
/// How long what was sent may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// So late a generator may be with one request in a hundred.
const LATE: f64 = 2_000.0;

/// One of the kinds of requests.
pub struct Kind {
    pub target: Target,
    /// Its part of all, beside the others'.
    pub share: f64,
}

/// A time at one rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    pub seconds: f64,
    /// Requests per second.
    pub rate: f64,
}

/// What became of one request.
#[derive(Clone, Copy)]
pub struct Answered {
    /// Seconds since the beginning.
    pub due: f64,
    pub took_us: f64,
    /// 0: the connection failed.
    pub status: u16,
    pub kind: u8,
}

/// What became of all.
pub struct Record {
    pub answers: Vec<Answered>,
    /// How late those were sent for which a connection was free, in microseconds, with when they were due.
    late: Vec<(f64, f64)>,
    /// When those were due that found no room.
    unsent: Vec<f64>,
}

/// What became of those that were due in a stretch of time.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    pub seconds: f64,
    pub offered: usize,
    pub good: usize,
    pub refused: usize,
    pub failed: usize,
    /// Good answers per second.
    pub goodput: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub refusal_p99_us: f64,
    /// Good and offered by kind.
    pub kinds: Vec<(usize, usize)>,
    /// Of the generator itself.
    pub late_p99_us: f64,
    pub unsent: usize,
}

impl Window {
    /// Why the generator's own figures forbid to judge the server.
    pub fn trouble(&self) -> Option<String> {
        if self.unsent > 0 {
            return Some(format!("the generator had no connection left for {} of {} requests", self.unsent, self.offered));
        }
        (self.late_p99_us > LATE).then(|| format!("the generator was {:.1} ms late itself (p99)", self.late_p99_us / 1000.0))
    }
}

fn percentile(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = ((times.len() as f64 * part).ceil() as usize).saturating_sub(1);
    times.get(at).copied().unwrap_or(0.0)
}

impl Record {
    /// The same generator with some of its answers.
    pub fn only(&self, answers: Vec<Answered>) -> Self {
        Self { answers, late: self.late.clone(), unsent: self.unsent.clone() }
    }

    /// What was due between two moments.
    pub fn window(&self, from: f64, to: f64) -> Window {
        let within = |due: f64| (from..to).contains(&due);
        let (mut good, mut refused, mut failed) = (Vec::new(), Vec::new(), 0);
        let mut kinds = Vec::new();
        for answer in self.answers.iter().filter(|answer| within(answer.due)) {
            let kind = usize::from(answer.kind);
            if kinds.len() <= kind {
                kinds.resize(kind + 1, (0, 0));
            }
            kinds[kind].1 += 1;
            match answer.status {
                200 => {
                    kinds[kind].0 += 1;
                    good.push(answer.took_us);
                }
                429 | 503 | 504 => refused.push(answer.took_us),
                _ => failed += 1,
            }
        }
        let unsent = self.unsent.iter().filter(|due| within(**due)).count();
        let mut late: Vec<f64> = self.late.iter().filter(|(due, _)| within(*due)).map(|(_, late)| *late).collect();
        Window {
            seconds: to - from,
            offered: good.len() + refused.len() + failed + unsent,
            good: good.len(),
            refused: refused.len(),
            failed,
            goodput: good.len() as f64 / (to - from),
            p50_us: percentile(&mut good, 0.5),
            p99_us: percentile(&mut good, 0.99),
            refusal_p99_us: percentile(&mut refused, 0.99),
            kinds,
            late_p99_us: percentile(&mut late, 0.99),
            unsent,
        }
    }
}

struct Due {
    at: Instant,
    kind: u8,
    /// A connection was free.
    free: bool,
}

/// Offers these steps, one after the other.
pub async fn offer(kinds: Vec<Kind>, steps: &[Step], connections: usize, seed: u64) -> Result<Record> {
    ensure!(!kinds.is_empty() && kinds.len() < 256, "no kinds of requests");
    let kinds = Arc::new(kinds);
    let free = Arc::new(AtomicUsize::new(0));
    let (send, due) = mpsc::channel(BACKLOG);
    let due = Arc::new(Mutex::new(due));
    let mut workers = tokio::task::JoinSet::new();
    let start = Instant::now() + Duration::from_millis(100) + Duration::from_micros(200) * connections as u32;
    for _ in 0..connections {
        let (kinds, due, free) = (kinds.clone(), due.clone(), free.clone());
        workers.spawn(async move { connection(&kinds, &due, &free, start).await });
    }
    let (plan, shares) = (steps.to_vec(), kinds.iter().map(|kind| kind.share).collect::<Vec<_>>());
    let keeper = std::thread::Builder::new().name("schedule".to_owned());
    let keeper = keeper.spawn(move || keep(&plan, &shares, &free, start, &send, seed))?;
    let mut record = Record { answers: Vec::new(), late: Vec::new(), unsent: Vec::new() };
    let length = steps.iter().map(|step| step.seconds).sum::<f64>();
    let gather = async {
        while let Some(result) = workers.join_next().await {
            let (answers, late) = result??;
            record.answers.extend(answers);
            record.late.extend(late);
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(Duration::from_secs_f64(length) + PATIENCE, gather).await.context("answers did not come in time")??;
    record.unsent = keeper.join().map_err(|_| anyhow::anyhow!("the schedule was not kept"))?;
    Ok(record)
}

/// Keeps the schedule; returns when those were due that found no room.
fn keep(steps: &[Step], shares: &[f64], free: &AtomicUsize, start: Instant, send: &mpsc::Sender<Due>, seed: u64) -> Vec<f64> {
    let mut random = seed | 1;
    // xorshift64; uniform in (0, 1].
    let mut uniform = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        ((random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    };
    let (mut unsent, mut from) = (Vec::new(), 0.0);
    let all: f64 = shares.iter().sum();
    for step in steps {
        let mut at = from - uniform().ln() / step.rate;
        from += step.seconds;
        while at < from {
            let moment = start + Duration::from_secs_f64(at);
            let ahead = moment.saturating_duration_since(Instant::now());
            if ahead > STEP {
                std::thread::sleep(ahead.max(STEP));
            }
            let mut pick = uniform() * all;
            let kind = shares.iter().position(|share| {
                pick -= share;
                pick <= 0.0
            });
            let due = Due { at: moment, kind: kind.unwrap_or(0) as u8, free: free.load(Ordering::Relaxed) > 0 };
            if send.try_send(due).is_err() {
                unsent.push(at);
            }
            at -= uniform().ln() / step.rate;
        }
    }
    unsent
}

type Seen = (Vec<Answered>, Vec<(f64, f64)>);

async fn connection(kinds: &[Kind], due: &Mutex<mpsc::Receiver<Due>>, free: &AtomicUsize, start: Instant) -> Result<Seen> {
    let first = kinds.first().context("no kinds of requests")?;
    let mut wire = Connection::open(&first.target.address).await?;
    let (mut answers, mut late) = (Vec::new(), Vec::new());
    loop {
        free.fetch_add(1, Ordering::Relaxed);
        let next = due.lock().await.recv().await;
        free.fetch_sub(1, Ordering::Relaxed);
        let Some(Due { at, kind, free: was_free }) = next else { return Ok((answers, late)) };
        let (since, sent) = (at.saturating_duration_since(start).as_secs_f64(), at.elapsed());
        if was_free {
            late.push((since, sent.as_secs_f64() * 1e6));
        }
        let target = &kinds[usize::from(kind)].target;
        let status = match wire.exchange(target).await {
            Ok(answer) => answer.status,
            Err(_) => {
                wire = Connection::open(&target.address).await?;
                0
            }
        };
        answers.push(Answered { due: since, took_us: at.elapsed().as_secs_f64() * 1e6, status, kind });
    }
}

/// This process, with all its threads, on one processor; on all of them again when it is dropped.
pub struct Stay(());

impl Stay {
    pub fn on(processor: usize) -> Result<Self> {
        put(&processor.to_string())?;
        Ok(Self(()))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        if let Err(error) = put(all.trim()) {
            eprintln!("the generator stays on one processor: {error:#}");
        }
    }
}

fn put(processors: &str) -> Result<()> {
    let own = std::process::id().to_string();
    let status = Command::new("taskset").args(["-a", "-p", "-c", processors, &own]).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { bail!("taskset failed: this part needs two processors") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_what_was_due_in_them() {
        let answered = |due, took_us, status, kind| Answered { due, took_us, status, kind };
        let answers = vec![
            answered(0.5, 100.0, 200, 0),
            answered(1.0, 200.0, 200, 1),
            answered(1.5, 50.0, 503, 1),
            answered(1.9, 9.0, 0, 0),
            answered(2.0, 1.0, 200, 0),
        ];
        let record = Record { answers, late: vec![(1.2, 3000.0), (0.1, 5.0)], unsent: vec![0.2] };
        let window = record.window(1.0, 2.0);
        assert_eq!((window.offered, window.good, window.refused, window.failed, window.unsent), (3, 1, 1, 1, 0));
        assert_eq!((window.p99_us, window.refusal_p99_us, window.kinds.clone()), (200.0, 50.0, vec![(0, 1), (1, 2)]));
        assert!(window.trouble().is_some_and(|why| why.contains("3.0 ms late")));
        assert!(record.window(0.0, 1.0).trouble().is_some_and(|why| why.contains("1 of 2")));
    }

    #[test]
    fn arrivals_follow_the_rate() {
        let (send, mut due) = mpsc::channel(BACKLOG);
        let free = AtomicUsize::new(0);
        let steps = [Step { seconds: 0.05, rate: 20_000.0 }, Step { seconds: 0.05, rate: 100_000.0 }];
        let unsent = keep(&steps, &[1.0, 3.0], &free, Instant::now(), &send, 7);
        drop(send);
        let (mut kinds, mut all) = ([0, 0], 0);
        while let Ok(due) = due.try_recv() {
            kinds[usize::from(due.kind)] += 1;
            all += 1;
        }
        assert!(unsent.is_empty() && (5_500..6_500).contains(&all), "{all}");
        assert!((0.2..0.3).contains(&(f64::from(kinds[0]) / f64::from(all))), "{kinds:?}");
    }
}
