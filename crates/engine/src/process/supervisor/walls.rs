//! The walls around a server, put up between fork and exec: fewer than a runner's, because a foreign program needs the
//! machine's libraries, devices and network.
//!
//! Invariants: what is denied cannot be had back by executing another program; a wall that could not be put up is reported.
#![allow(unsafe_code, reason = "the user of a process and the limits of its files have no safe interface in between")]

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, Signal, geteuid, getrlimit, set_parent_process_death_signal, setrlimit, setsid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::super::wire::Launch;
use crate::sandbox::Report;
use crate::spec::SandboxReport;

/// Users of servers count up from here by process id, apart from those of runners.
const FIRST_USER: u32 = 0x7800_0000;
const MAX_OPEN_FILES: u64 = 65_536;
const MAX_FILE_BYTES: u64 = 64 << 30;
/// The most entries that are looked at in order to leave out what is hidden.
const MAX_RULES: usize = 10_000;
/// Past every capability that a kernel knows.
const CAPABILITIES: libc::c_ulong = 64;

/// Secure bits: root gets nothing for being root, now and for ever.
const NO_ROOT: libc::c_ulong = 0b11;

pub(super) struct Walls<'a> {
    launch: &'a Launch,
    outer: u32,
    rules: Result<RulesetCreated, String>,
}

impl<'a> Walls<'a> {
    /// Looks at the file system with the rights that it still has.
    pub(super) fn new(launch: &'a Launch, outer: u32) -> io::Result<Self> {
        setsid()?;
        Ok(Self { launch, outer, rules: rules(launch) })
    }

    pub(super) fn put_up(self) -> SandboxReport {
        let Self { launch, outer, rules } = self;
        let mut report = Report::default();
        report.note("limits of files", limit_files());
        if let Some(memory) = launch.memory {
            report.note("limit of memory for each process", lower(Resource::Data, memory));
        }
        report.note("unprivileged user", become_user(launch, outer));
        report.note("no capabilities", drop_capabilities());
        report.note("no new privileges", set_no_new_privs(true));
        let enforced = rules.and_then(|rules| match rules.restrict_self().map(|status| status.ruleset) {
            Ok(RulesetStatus::FullyEnforced) => Ok(()),
            Ok(RulesetStatus::PartiallyEnforced) => Err("the kernel enforces a part of it".to_owned()),
            Ok(RulesetStatus::NotEnforced) => Err("the kernel does not have it".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        report.note("landlock", enforced);
        // Last: the kernel forgets it when a process changes its user.
        report.note("dies with its supervisor", set_parent_process_death_signal(Some(Signal::KILL)));
        report.0
    }
}

fn limit_files() -> io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, MAX_OPEN_FILES)?;
    lower(Resource::Fsize, MAX_FILE_BYTES)
}

/// Lowers both limits; never raises one.
fn lower(resource: Resource, limit: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let least = |current: Option<u64>| Some(current.map_or(limit, |current| current.min(limit)));
    Ok(setrlimit(resource, Rlimit { current: least(now.current), maximum: least(now.maximum) })?)
}

/// Root becomes somebody else, where that somebody can reach what the server needs.
fn become_user(launch: &Launch, outer: u32) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let reachable = [&launch.directory, &launch.program, &launch.temporary].into_iter().all(|path| open_to_all(path));
    if !reachable {
        return Err(io::Error::other("the node's directories are closed to other users; the server stays root, without its rights"));
    }
    let id = FIRST_USER.saturating_add(outer);
    std::os::unix::fs::chown(&launch.temporary, Some(id), Some(id))?;
    let checked = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: plain calls; the empty list of groups is not read through its pointer.
    unsafe {
        checked(libc::setgroups(0, std::ptr::null()))?;
        checked(libc::setresgid(id, id, id))?;
        checked(libc::setresuid(id, id, id))
    }
}

/// Whether everybody may go to `path`. The temporary directory's own bits do not matter: it is given away.
fn open_to_all(path: &Path) -> bool {
    let Ok(path) = std::fs::canonicalize(path) else { return false };
    let way = path.ancestors().skip(1).all(|parent| std::fs::metadata(parent).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0));
    let own = std::fs::metadata(&path).is_ok_and(|meta| meta.mode() & 0o004 != 0 || meta.is_dir());
    way && own
}

fn drop_capabilities() -> io::Result<()> {
    // A process that is not root has none, and may not do this.
    if geteuid().is_root() {
        // SAFETY: plain system calls with numbers for arguments.
        unsafe {
            if libc::prctl(libc::PR_SET_SECUREBITS, NO_ROOT, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Ends with the first number that the kernel does not know.
            let mut number = 0;
            while number < CAPABILITIES && libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) == 0 {
                number += 1;
            }
        }
    }
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, none)?)
}

/// Reading everywhere but in what is hidden; writing in the temporary directory and to devices.
fn rules(launch: &Launch) -> Result<RulesetCreated, String> {
    let text = |error: RulesetError| error.to_string();
    let all = AccessFs::from_all(ABI::V3);
    let read = AccessFs::from_read(ABI::V3);
    let write = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    let devices = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile;
    let shared = write & !(AccessFs::Refer | AccessFs::MakeSock);
    let grants: [(Vec<PathBuf>, BitFlags<AccessFs>); 5] = [
        (around(&launch.hidden).map_err(|error| error.to_string())?, read),
        (vec![launch.directory.clone()], AccessFs::ReadFile | AccessFs::ReadDir),
        (vec![launch.temporary.clone()], write),
        (vec!["/dev".into()], devices),
        (vec!["/dev/shm".into()], shared),
    ];
    let mut rules =
        Ruleset::default().handle_access(all).map_err(text)?.scope(Scope::from_all(ABI::V6)).map_err(text)?.create().map_err(text)?;
    for (paths, access) in grants {
        rules = rules.add_rules(path_beneath_rules(paths, access)).map_err(text)?;
    }
    Ok(rules)
}

/// Directories and files that together are everything except what is hidden. Links are left out: where they lead to is in
/// the list, or hidden.
fn around(hidden: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let hidden: Vec<PathBuf> = hidden.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
    let (mut open, mut list) = (vec![PathBuf::from("/")], Vec::new());
    while let Some(place) = open.pop() {
        if hidden.contains(&place) {
            continue;
        }
        if !hidden.iter().any(|path| path.starts_with(&place)) {
            list.push(place);
            continue;
        }
        for entry in std::fs::read_dir(&place)? {
            let entry = entry?;
            if !entry.file_type()?.is_symlink() {
                open.push(entry.path());
            }
        }
        if open.len() + list.len() > MAX_RULES {
            return Err(io::Error::other("too many files beside the node's directories"));
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_hidden() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(directory.path()).unwrap();
        for name in ["data/secret", "data/other", "beside"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("data/secret"), root.join("link")).unwrap();
        let list = around(&[root.join("data/secret")]).unwrap();
        assert!(list.contains(&root.join("beside")) && list.contains(&root.join("data/other")));
        let secret = root.join("data/secret");
        assert!(!list.iter().any(|path| secret.starts_with(path) || path.starts_with(&secret)));
        assert!(!list.contains(&root.join("link")));
        assert_eq!(around(&[]).unwrap(), [PathBuf::from("/")]);
    }
}
