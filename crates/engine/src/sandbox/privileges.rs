//! Giving up root: an otherwise unused user and group, no capabilities, and no way to get any back.
#![allow(unsafe_code, reason = "only the C library changes the user of all threads at once")]

use std::io;

use rustix::process::{DumpableBehavior, Signal, geteuid, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::Report;
use super::namespaces::Namespaces;

/// Runner users count up from here by process id: no two runners share one, so none can signal or trace another,
/// and a limit on a user's threads is a limit on one runner.
const FIRST_USER: u32 = 0x7000_0000;
/// The traditional user without rights, for machines that map fewer users into their containers.
const NOBODY: u32 = 65534;

/// Says whether the process is the only one of its user.
pub(super) fn drop_all(namespaces: &Namespaces, report: &mut Report) -> bool {
    let own_user = if geteuid().is_root() {
        let own = become_user(FIRST_USER.saturating_add(std::process::id()));
        let unshared = own.is_ok();
        report.note("unprivileged user", own.or_else(|_| become_user(NOBODY)));
        unshared
    } else {
        // The node itself has no rights over the machine, and in its user namespace the runner loses the rest here.
        report.note("unprivileged user", Ok::<(), io::Error>(()));
        namespaces.user
    };
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    report.note("no capabilities", set_capabilities(None, none));
    report.note("no new privileges", set_no_new_privs(true));
    report.note("no dumps", set_dumpable_behavior(DumpableBehavior::NotDumpable));
    // The kernel forgets the signal when a process changes its user.
    report.note("dies with the node", set_parent_process_death_signal(Some(Signal::KILL)));
    own_user
}

fn become_user(id: u32) -> io::Result<()> {
    let checked = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: plain calls; the empty list of groups is not read through its pointer.
    unsafe {
        checked(libc::setgroups(0, std::ptr::null()))?;
        checked(libc::setresgid(id, id, id))?;
        checked(libc::setresuid(id, id, id))
    }
}
