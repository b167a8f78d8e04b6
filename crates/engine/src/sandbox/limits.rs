//! Resource limits of the kernel, and how much memory a process uses now.
//!
//! Memory is limited twice, counted from a [`Baseline`]: writable private memory (what a model really takes), and
//! address space as a backstop, which is looser because allocators and stacks reserve more than they use.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Report;

/// What the C library reserves for each thread: a stack and an arena.
const RESERVED_PER_THREAD: u64 = 80 << 20;
/// Stacks are writable memory, too; reader, executors and the engine's own threads.
const STACK_PER_THREAD: u64 = 10 << 20;
/// Threads of the runner itself.
const OWN_THREADS: u64 = 4;
/// Descriptors past the standard streams and the channel, which are open already.
const MAX_FILES: u64 = 16;
/// A GPU's driver opens its devices many times, and has threads of its own.
const MAX_FILES_GPU: u64 = 1024;
const THREADS_GPU: u64 = 64;

/// The limits for one runner.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes on top of the baseline.
    pub memory: Option<u64>,
    /// Processor time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Threads that execute, those of the engine's pool included.
    pub threads: u64,
    /// The processors that the runner may use.
    pub processors: Vec<usize>,
    /// What the process used before it touched the model.
    pub baseline: Baseline,
}

/// Memory in use, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Baseline {
    address_space: u64,
    data: u64,
}

impl Baseline {
    /// Reads what this process uses now.
    pub(crate) fn now() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        match (kib("VmSize:"), kib("VmData:")) {
            (Some(size), Some(data)) => Ok(Self { address_space: size << 10, data: data << 10 }),
            _ => Err(io::Error::other("the kernel does not say how much memory is used")),
        }
    }
}

impl Limits {
    pub(super) fn apply(&self, gpu: bool, own_user: bool, report: &mut Report) {
        let files = if gpu { MAX_FILES_GPU } else { MAX_FILES };
        let fixed = [(Resource::Core, 0), (Resource::Fsize, 0), (Resource::Nofile, files), (Resource::Memlock, 0), (Resource::Msgqueue, 0)];
        report.note("file limits", fixed.into_iter().try_for_each(|(resource, limit)| lower(resource, limit, limit)));
        // The kernel counts by user: where others share it, the limit would be a matter of luck.
        let threads = self.all_threads() * 2 + if gpu { THREADS_GPU } else { 8 };
        let counted = if own_user { lower(Resource::Nproc, threads, threads) } else { Err(io::Error::other("needs a user of its own")) };
        report.note("process limit", counted);
        if let Some(memory) = self.memory {
            report.note("memory limit", self.limit_memory(memory, gpu));
        }
        report.note("processor limit", self.limit_processors());
        if let Some(seconds) = self.cpu_seconds {
            report.note("processor time limit", lower(Resource::Cpu, seconds, seconds.saturating_add(1)));
        }
    }

    /// Leaves the runner the processors that were chosen for it, of all that there are.
    fn limit_processors(&self) -> io::Result<()> {
        let mut mine = CpuSet::new();
        self.processors.iter().filter(|n| **n < CpuSet::MAX_CPU).for_each(|n| mine.set(*n));
        Ok(sched_setaffinity(None, &mine)?)
    }

    fn all_threads(&self) -> u64 {
        self.threads + OWN_THREADS
    }

    fn limit_memory(&self, memory: u64, gpu: bool) -> io::Result<()> {
        let data = self.baseline.data.saturating_add(memory).saturating_add(self.all_threads() * STACK_PER_THREAD);
        let space = self.baseline.address_space.saturating_add(memory).saturating_add(self.all_threads() * RESERVED_PER_THREAD);
        lower(Resource::Data, data, data)?;
        // A GPU's driver maps the device's whole memory, and more.
        if gpu { Ok(()) } else { lower(Resource::As, space, space) }
    }
}

/// Lowers a limit; never raises one that is lower already.
fn lower(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let least = |wanted: u64, current: Option<u64>| Some(current.map_or(wanted, |current| wanted.min(current)));
    let new = Rlimit { current: least(soft, now.current), maximum: least(hard, now.maximum) };
    Ok(setrlimit(resource, new)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_uses() {
        let before = Baseline::now().unwrap();
        assert!(before.address_space > before.data && before.data > 0);
        let more = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(Baseline::now().unwrap().data >= before.data + (60 << 20));
        drop(more);
    }
}
