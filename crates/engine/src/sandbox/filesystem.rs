//! No files: an empty root directory where mounts are the process's own, and Landlock without a single exception.

use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};
use rustix::process::{chdir, chroot, pivot_root};

use super::Report;
use super::namespaces::Namespaces;

/// A directory that exists on every machine, over which the empty root is mounted on its way.
const SOMEWHERE: [&str; 4] = ["/proc", "/tmp", "/dev", "/run"];

pub(super) fn empty(namespaces: &Namespaces, report: &mut Report) {
    let emptied = if namespaces.mounts { enter_empty_root() } else { Err(io::Error::other("needs a mount namespace")) };
    report.note("empty file system", emptied);
}

fn enter_empty_root() -> io::Result<()> {
    // Nothing done here may travel back to the machine's mounts.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = SOMEWHERE.into_iter().find(|place| std::path::Path::new(place).is_dir());
    let place = place.ok_or_else(|| io::Error::other("no directory to mount over"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", place, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=555")?;
    chdir(place)?;
    match pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // The root of a machine that runs from its initial memory image cannot be swapped.
        Err(_) => chroot(".")?,
    }
    chdir("/")?;
    mount_remount("/", flags | MountFlags::BIND | MountFlags::RDONLY, c"")?;
    Ok(())
}

pub(super) fn landlock(report: &mut Report) {
    let enforced = match restrict() {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => Err("the kernel enforces a part of it".to_owned()),
        Ok(RulesetStatus::NotEnforced) => Err("the kernel does not have it".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    report.note("landlock", enforced);
}

fn restrict() -> Result<RulesetStatus, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V3))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?;
    Ok(rules.create()?.restrict_self()?.ruleset)
}
