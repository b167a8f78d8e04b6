//! No files: an empty root directory where mounts are the process's own, and Landlock without a single exception; for a
//! runner on a GPU, the devices and the libraries of its driver and nothing else.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};
use rustix::process::{chdir, chroot, pivot_root};

use super::Report;
use super::namespaces::Namespaces;

/// A directory that exists on every machine, over which the empty root is mounted on its way.
const SOMEWHERE: [&str; 4] = ["/proc", "/tmp", "/dev", "/run"];

/// Where drivers and their libraries are.
const LIBRARIES: [&str; 7] = ["/usr", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/proc", "/sys"];

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

pub(super) fn landlock(gpu: bool, report: &mut Report) {
    let enforced = match restrict(gpu) {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => Err("the kernel enforces a part of it".to_owned()),
        Ok(RulesetStatus::NotEnforced) => Err("the kernel does not have it".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    report.note("landlock", enforced);
}

/// The devices of the driver.
fn devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"nvidia"))).collect()
}

fn restrict(gpu: bool) -> Result<RulesetStatus, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V3))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?;
    let mut rules = rules.create()?;
    if gpu {
        // What is not there is left out.
        rules = rules.add_rules(path_beneath_rules(LIBRARIES, AccessFs::from_read(ABI::V3)))?;
        rules = rules.add_rules(path_beneath_rules(devices(), AccessFs::from_file(ABI::V3)))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
