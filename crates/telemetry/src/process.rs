//! What the kernel says of a process, read from `/proc` at the scrape.
//!
//! Invariant: what cannot be read is left out of the exposition; nothing here fails. Linux only:
//! elsewhere there is nothing to read.

use crate::text::{Labels, TextWriter};

/// The unit of times in `/proc`: user space always sees hundredths of a second on Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What one reading of the own process gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessSample {
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time in seconds, user and system.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The most file descriptors that it may open.
    pub max_fds: Option<u64>,
    /// When it was started, in seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl ProcessSample {
    /// Reads the own process.
    #[must_use]
    pub fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().and_then(Stat::parse);
        Self {
            resident_bytes: resident_bytes("self"),
            cpu_seconds: stat.as_ref().map(|stat| stat.cpu_ticks / TICKS_PER_SECOND),
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            max_fds: std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(max_fds),
            start_seconds: boot_seconds().zip(stat).map(|(boot, stat)| boot + stat.start_ticks / TICKS_PER_SECOND),
        }
    }

    pub(crate) fn write(&self, out: &mut TextWriter) {
        if let Some(bytes) = self.resident_bytes {
            out.begin("plinth_process_resident_memory_bytes", "gauge", "Memory of the node process that is in RAM, without its runners.");
            out.whole("plinth_process_resident_memory_bytes", Labels::NONE, bytes);
        }
        if let Some(seconds) = self.cpu_seconds {
            out.begin("plinth_process_cpu_seconds_total", "counter", "Processor time of the node process, user and system.");
            out.real("plinth_process_cpu_seconds_total", Labels::NONE, seconds);
        }
        if let Some(fds) = self.open_fds {
            out.begin("plinth_process_open_fds", "gauge", "Open file descriptors of the node process.");
            out.whole("plinth_process_open_fds", Labels::NONE, fds);
        }
        if let Some(fds) = self.max_fds {
            out.begin("plinth_process_max_fds", "gauge", "The most file descriptors that the node process may open.");
            out.whole("plinth_process_max_fds", Labels::NONE, fds);
        }
        if let Some(seconds) = self.start_seconds {
            out.begin("plinth_process_start_time_seconds", "gauge", "When the node process was started, in seconds since 1970.");
            out.real("plinth_process_start_time_seconds", Labels::NONE, seconds);
        }
    }
}

/// The resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

impl Stat {
    /// Fields 14, 15 and 22 of proc_pid_stat(5).
    fn parse(text: &str) -> Option<Self> {
        // The second field is the command in parentheses and may hold anything, also parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_is_read() {
        let sample = ProcessSample::read();
        assert!(sample.resident_bytes.unwrap() > 100_000);
        assert!(sample.open_fds.unwrap() >= 3 && sample.max_fds.unwrap() >= sample.open_fds.unwrap());
        assert!(sample.start_seconds.unwrap() > 1.7e9);
        assert_eq!(resident_bytes("0"), None);
    }

    #[test]
    fn a_strange_command_name_does_not_shift_the_fields() {
        let stat = Stat::parse("7 (a) b) c) S 1 1 1 0 -1 4 1 2 3 4 150 50 0 0 20 0 1 0 900 1 1").unwrap();
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (200.0, 900.0));
        assert!(Stat::parse("").is_none() && Stat::parse("1 (x) S").is_none());
    }
}
