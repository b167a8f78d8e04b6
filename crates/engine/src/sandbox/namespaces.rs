//! Namespaces: no network device, no shared memory with others, mounts of one's own.
//!
//! Root may leave each at once. Anybody else may where the machine allows user namespaces, through one in which the
//! process has rights over nothing but itself.
#![allow(unsafe_code, reason = "rustix marks unshare as unsafe for the sake of file descriptors, which stay shared here")]

use std::io;

use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Report;

const NAMES: [(UnshareFlags, &str); 4] = [
    (UnshareFlags::NEWNET, "network namespace"),
    (UnshareFlags::NEWIPC, "ipc namespace"),
    (UnshareFlags::NEWUTS, "uts namespace"),
    (UnshareFlags::NEWNS, "mount namespace"),
];

/// What the process has of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Namespaces {
    /// Mounts can be changed without anybody noticing.
    pub mounts: bool,
    /// Users are counted from zero.
    pub user: bool,
}

impl Namespaces {
    pub(super) fn leave(report: &mut Report) -> Self {
        let (uid, gid) = (geteuid(), getegid());
        let mut own = Self::default();
        if !uid.is_root() {
            let owned = unshare(UnshareFlags::NEWUSER).and_then(|()| map_self(uid.as_raw(), gid.as_raw()));
            own.user = report.note("user namespace", owned);
        }
        for (flag, name) in NAMES {
            let left = report.note(name, unshare(flag));
            own.mounts |= left && flag == UnshareFlags::NEWNS;
        }
        own
    }
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags name namespaces only; the table of file descriptors, about which the function's safety is,
    // stays shared.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Keeps the same user and group visible inside the new user namespace.
fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
