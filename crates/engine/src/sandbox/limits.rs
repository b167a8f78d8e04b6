//! Resource limits of the kernel, and how much memory a process uses now.
//!
//! Memory is limited twice, counted from a [`Baseline`]: writable private memory (what a model really takes), and
//! address space as a backstop, which is looser because allocators and stacks reserve more than they use.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Report;

/// What the C library reserves for each thread: a stack and an arena.
const RESERVED_PER_THREAD: u64 = 80 << 20;
/// Stacks are writable memory, too; reader, executor and the engine's own threads.
const STACK_PER_THREAD: u64 = 10 << 20;
/// Threads of the runner itself.
const OWN_THREADS: u64 = 4;
/// Descriptors past the standard streams and the channel, which are open already.
const MAX_FILES: u64 = 16;

/// The limits for one runner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes on top of the baseline.
    pub memory: Option<u64>,
    /// Processor time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Threads of the engine.
    pub threads: u16,
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
    pub(super) fn apply(&self, own_user: bool, report: &mut Report) {
        let fixed =
            [(Resource::Core, 0), (Resource::Fsize, 0), (Resource::Nofile, MAX_FILES), (Resource::Memlock, 0), (Resource::Msgqueue, 0)];
        report.note("file limits", fixed.into_iter().try_for_each(|(resource, limit)| lower(resource, limit, limit)));
        // The kernel counts by user: where others share it, the limit would be a matter of luck.
        let threads = self.all_threads() * 2 + 8;
        let counted = if own_user { lower(Resource::Nproc, threads, threads) } else { Err(io::Error::other("needs a user of its own")) };
        report.note("process limit", counted);
        if let Some(memory) = self.memory {
            report.note("memory limit", self.limit_memory(memory));
        }
        report.note("processor limit", self.limit_processors());
        if let Some(seconds) = self.cpu_seconds {
            report.note("processor time limit", lower(Resource::Cpu, seconds, seconds.saturating_add(1)));
        }
    }

    /// Leaves the runner as many processors as its engine has threads. Which ones differs from process to process, so that
    /// runners do not crowd on the first.
    fn limit_processors(&self) -> io::Result<()> {
        let allowed = sched_getaffinity(None)?;
        let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let wanted = usize::from(self.threads.max(1));
        if wanted >= processors.len() {
            return Ok(());
        }
        let first = usize::try_from(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or(0);
        let mut mine = CpuSet::new();
        (0..wanted).for_each(|n| mine.set(processors[(first + n) % processors.len()]));
        Ok(sched_setaffinity(None, &mine)?)
    }

    fn all_threads(&self) -> u64 {
        u64::from(self.threads) + OWN_THREADS
    }

    fn limit_memory(&self, memory: u64) -> io::Result<()> {
        let data = self.baseline.data.saturating_add(memory).saturating_add(self.all_threads() * STACK_PER_THREAD);
        let space = self.baseline.address_space.saturating_add(memory).saturating_add(self.all_threads() * RESERVED_PER_THREAD);
        lower(Resource::Data, data, data)?;
        lower(Resource::As, space, space)
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
