//! How much memory a process takes that would come back if it ended.
//!
//! That is its private memory, the memory that it shares with the node (which exists for its sake and is counted here,
//! once), and its share of files that others have mapped too, such as the library of the engine. Descendants count with
//! their parent. Read from `/proc`; what cannot be read counts as nothing. Blocking: some tens of microseconds for
//! [`Reading::again`], some milliseconds for [`Reading::take`] of a large process.

/// The most processes that are followed from one.
const MAX_PROCESSES: usize = 64;

/// One measurement, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    /// Private and shared memory.
    pub own: u64,
    /// Its share of mapped files; changes little once it is loaded.
    pub files: u64,
}

impl Reading {
    /// Measures everything.
    pub fn take(pid: u32) -> Self {
        let mut reading = Self::default();
        for pid in family(pid) {
            reading.own = reading.own.saturating_add(own(pid).unwrap_or(0));
            reading.files = reading.files.saturating_add(file_share(pid).unwrap_or(0));
        }
        reading
    }

    /// Measures what changes; `None` when the process is gone.
    pub fn again(self, pid: u32) -> Option<Self> {
        own(pid)?;
        let own = family(pid).into_iter().filter_map(own).fold(0u64, u64::saturating_add);
        Some(Self { own, ..self })
    }

    pub const fn total(self) -> u64 {
        self.own.saturating_add(self.files)
    }
}

/// The process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for task in tasks.flatten().take(MAX_PROCESSES) {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let room = MAX_PROCESSES - found.len();
            found.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()).take(room));
        }
    }
    found
}

/// Memory that is no file's.
fn own(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(field(&status, "RssAnon:")?.saturating_add(field(&status, "RssShmem:").unwrap_or(0)))
}

/// The share of mapped files, where the kernel lets the node read it.
fn file_share(pid: u32) -> Option<u64> {
    field(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss_File:")
}

/// A line such as `RssAnon:   1234 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_touched_is_measured_and_files_are_shared() {
        let pid = std::process::id();
        let before = Reading::take(pid);
        assert!(before.own > 100 << 10 && before.files > 0, "{before:?}");
        let ballast = vec![1u8; 32 << 20];
        let after = before.again(pid).unwrap();
        assert!(after.own >= before.own + (31 << 20) && after.files == before.files, "{before:?} {after:?}");
        drop(ballast);
    }

    #[test]
    fn descendants_count_and_the_dead_do_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Reading::default().again(child.id()), None);
        assert_eq!(Reading::take(child.id()), Reading::default());
        assert_eq!(field("RssAnon:\t  12 kB\n", "RssAnon:"), Some(12 << 10));
        assert_eq!(field("RssAnon:\t 99999999999999999999 kB", "RssAnon:"), None);
    }
}
