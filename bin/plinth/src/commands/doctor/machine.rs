//! Checks of the machine itself: directory, disk, SQLite, file descriptors, clock.

use std::path::{Path, PathBuf};

use plinth_runtime::{Clock, SystemClock};
use plinth_types::{ByteSize, Timestamp};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::Finding;

/// Below this the disk is nearly full.
const LITTLE_SPACE: u64 = 1 << 30;
/// Below this nothing can be pushed.
const NO_SPACE: u64 = 64 << 20;
/// SQLite before 3.51.3 may corrupt a database when the write-ahead log is reset.
const SQLITE_LEAST: i32 = 3_051_003;

/// The nearest directory that is there: where a missing one would be made.
fn existing(path: &Path) -> PathBuf {
    let mut path = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    while !path.exists() {
        if !path.pop() {
            return PathBuf::from("/");
        }
    }
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

/// Whether the node can write where it keeps everything.
pub fn data_dir(path: &Path) -> Finding {
    let there = existing(path);
    let shown = path.display();
    if !there.is_dir() {
        return Finding::bad("data_directory", format!("'{}' is not a directory", there.display()), "set node.data_dir to another place");
    }
    match access(&there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if there == path || path.exists() => Finding::good("data_directory", format!("'{shown}' can be written")),
        Ok(()) => Finding::good("data_directory", format!("'{shown}' will be made")),
        Err(error) => {
            let remedy =
                format!("give it to the user who runs the node, or set node.data_dir; now '{}' belongs to somebody else", there.display());
            Finding::bad("data_directory", format!("'{shown}' cannot be written: {error}"), remedy)
        }
    }
}

/// Whether there is room for models.
pub fn free_space(path: &Path) -> Option<Finding> {
    let disk = statvfs(existing(path)).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let text = format!("{} free", ByteSize(free));
    let remedy = "make room, or set node.data_dir to another disk; `plinth gc` deletes what no version needs";
    Some(match free {
        0..NO_SPACE => Finding::bad("disk", text, remedy),
        NO_SPACE..LITTLE_SPACE => Finding::warning("disk", text, remedy),
        _ => Finding::good("disk", text),
    })
}

/// Whether the bundled SQLite is one that keeps its data.
pub fn sqlite() -> Finding {
    let text = String::from_utf8_lossy(libsqlite3_sys::SQLITE_VERSION.to_bytes()).into_owned();
    if libsqlite3_sys::SQLITE_VERSION_NUMBER < SQLITE_LEAST {
        return Finding::bad("sqlite", text, "build with libsqlite3-sys 0.37 or newer: older SQLite may lose data");
    }
    Finding::good("sqlite", text)
}

/// Whether the process may hold as many connections as it is told to take.
pub fn file_descriptors(connections: u32) -> Finding {
    // Beside connections a node has files, sockets to runners and to stores.
    let wanted = u64::from(connections) + 512;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => {
            let remedy = format!("`ulimit -n {}`, or LimitNOFILE in the unit, or lower http.max_connections", wanted.next_power_of_two());
            Finding::warning("file_descriptors", format!("{limit} are fewer than the {wanted} that http.max_connections asks for"), remedy)
        }
        Some(limit) => Finding::good("file_descriptors", limit.to_string()),
        None => Finding::good("file_descriptors", "no limit"),
    }
}

/// Whether the clock shows a time that can be true.
pub fn clock() -> Finding {
    let now = SystemClock.now();
    match plausible(now) {
        true => Finding::good("clock", now.to_string()),
        false => {
            let remedy = "set the clock, for instance with `timedatectl set-ntp true`: keys and certificates expire by it";
            Finding::bad("clock", format!("shows {now}"), remedy)
        }
    }
}

fn plausible(now: Timestamp) -> bool {
    // No release is older than 2026, and no certificate lives until 2100.
    (1_767_225_600_000..4_102_444_800_000).contains(&now.millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn a_directory_that_is_not_there_will_be_made() {
        let root = tempfile::tempdir().unwrap();
        let finding = data_dir(&root.path().join("a/b/c"));
        assert_eq!(finding.verdict, Verdict::Good);
        assert!(finding.text.ends_with("will be made"));
        std::fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(data_dir(&root.path().join("file/x")).verdict, Verdict::Bad);
        assert_eq!(existing(Path::new("no/such/dir")), Path::new("."));
    }

    #[test]
    fn clocks_that_are_off_are_seen() {
        for (text, good) in [("1970-01-01T00:00:10Z", false), ("2026-11-20T00:00:00Z", true), ("2100-01-02T00:00:00Z", false)] {
            assert_eq!(plausible(text.parse().unwrap()), good, "{text}");
        }
    }

    #[test]
    fn the_bundled_sqlite_is_new_enough() {
        assert_eq!(sqlite().verdict, Verdict::Good, "{:?}", sqlite());
    }
}
