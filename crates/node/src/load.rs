//! How busy the machine is, for the ladder of degradation: processor and memory, from the kernel's counts, and the queues of models.
//!
//! How late the node's own work begins is the gateway's to measure. A queue in front of one model counts only while the processor is busy: with
//! processor to spare it is that model's own matter, and it is bounded there. It never counts as more than full, so it can cost quality
//! and low classes, and never the requests that the model's own queue would serve. Upstreams' queues do not count at all, for the same reason.
//!
//! Work of low priority (loads of models) does not count as busy: it yields. Memory is the cgroup's where that has a limit,
//! else the machine's. Where the kernel does not say, nothing is counted: no figure is no reason to refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plinth_policy::overload::Load;
use plinth_serving::Serving;

/// So busy the processor is when the queues of models count.
const BUSY: f64 = 0.8;
/// A queue of a model in which requests wait so long on average is full.
const FULL: Duration = Duration::from_millis(50);

/// Measures, time and again.
pub struct Meter {
    last: Option<Ticks>,
    /// Of this process's cgroup, where there is one with a limit.
    memory: Option<PathBuf>,
    serving: Option<Arc<Serving>>,
    waited: Option<Waited>,
}

/// What requests have waited in the queues of models, since those were loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Waited {
    count: u64,
    ns: u64,
}

impl Waited {
    fn of(serving: &Serving) -> Self {
        let table = serving.table();
        let versions = table.models.values().flat_map(|models| models.values()).flat_map(|row| row.versions.values());
        versions.filter_map(|version| version.instance.as_ref()).fold(Self::default(), |sum, instance| {
            let queue = instance.statistics().queue;
            Self { count: sum.count.saturating_add(queue.count), ns: sum.ns.saturating_add(queue.ns) }
        })
    }

    /// The mean wait between two moments. Zero when a version was unloaded in between.
    fn mean(before: Self, now: Self) -> Duration {
        let (count, ns) = (now.count.checked_sub(before.count), now.ns.checked_sub(before.ns));
        Duration::from_nanos(count.zip(ns).and_then(|(count, ns)| ns.checked_div(count)).unwrap_or(0))
    }
}

/// Processor time since the machine was started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Meter {
    /// A meter whose first processor figure comes with the second measurement.
    pub fn new(serving: Option<Arc<Serving>>) -> Self {
        Self { last: None, memory: cgroup().filter(|path| limit(path).is_some()), serving, waited: None }
    }

    /// What has happened since the last time.
    pub fn measure(&mut self) -> Load {
        let now = fs::read_to_string("/proc/stat").ok().as_deref().and_then(ticks);
        let cpu = self.last.zip(now).map_or(0.0, |(before, now)| share(before, now));
        self.last = now;
        Load { cpu, memory: self.memory().unwrap_or(0.0), queue: self.queue(cpu), ..Load::default() }
    }

    /// How full the queues of models are.
    fn queue(&mut self, cpu: f64) -> f64 {
        let Some(serving) = self.serving.as_ref().filter(|_| cpu >= BUSY) else {
            self.waited = None;
            return 0.0;
        };
        let now = Waited::of(serving);
        let mean = self.waited.replace(now).map_or(Duration::ZERO, |before| Waited::mean(before, now));
        (mean.as_secs_f64() / FULL.as_secs_f64()).min(1.0)
    }

    fn memory(&self) -> Option<f64> {
        if let Some(path) = &self.memory {
            let used = number(&path.join("memory.current"))?;
            // Pages of files go when they are needed.
            let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
            let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok()).unwrap_or(0);
            return Some(used.saturating_sub(files) as f64 / limit(path)?.max(1) as f64);
        }
        available(&fs::read_to_string("/proc/meminfo").ok()?)
    }
}

/// The share of the machine that is in use, from `/proc/meminfo` (proc(5)).
fn available(meminfo: &str) -> Option<f64> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().split(' ').next()?.parse::<f64>().ok()
    };
    let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
    (total > 0.0).then(|| 1.0 - available / total)
}

/// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let figures: Vec<u64> = line.split_ascii_whitespace().map_while(|figure| figure.parse().ok()).collect();
    let [user, _nice, system, _idle, _wait, irq, softirq, steal, ..] = figures[..] else { return None };
    let all = figures.iter().take(8).fold(0u64, |sum, figure| sum.saturating_add(*figure));
    Some(Ticks { busy: user + system + irq + softirq + steal, all })
}

fn share(before: Ticks, now: Ticks) -> f64 {
    let all = now.all.saturating_sub(before.all);
    if all == 0 { 0.0 } else { now.busy.saturating_sub(before.busy) as f64 / all as f64 }
}

/// The directory of this process's cgroup, version 2.
fn cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')))
}

fn limit(cgroup: &Path) -> Option<u64> {
    number(&cgroup.join("memory.max"))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_models_do_not_count_as_busy() {
        let before = ticks("cpu  100 50 20 1000 5 1 2 3 0 0\ncpu0 1").unwrap();
        let now = ticks("cpu  130 90 30 1020 5 1 2 3 0 0\n").unwrap();
        assert_eq!(before, Ticks { busy: 126, all: 1181 });
        assert!((share(before, now) - 0.4).abs() < 1e-9);
        assert_eq!(share(now, now), 0.0);
        assert_eq!(ticks("intr 5"), None);
        assert_eq!(ticks("cpu  1 2"), None);
    }

    #[test]
    fn the_wait_of_an_interval_is_what_was_added_in_it() {
        let at = |count, ns| Waited { count, ns };
        assert_eq!(Waited::mean(at(10, 1000), at(14, 9000)), Duration::from_nanos(2000));
        assert_eq!(Waited::mean(at(10, 1000), at(10, 1000)), Duration::ZERO, "nobody began");
        assert_eq!(Waited::mean(at(10, 1000), at(3, 9000)), Duration::ZERO, "a version is gone");
    }

    #[test]
    fn memory_that_is_available_is_not_used() {
        assert_eq!(available("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n"), Some(0.75));
        assert_eq!(available("MemTotal: 1000 kB\n"), None);
        let load = Meter::new(None).measure();
        assert!((0.0..=1.0).contains(&load.memory) && load.cpu == 0.0);
    }
}
