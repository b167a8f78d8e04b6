//! A process namespace of the server's own: it sees its own processes only, and all of them end with their first.
//!
//! Whether a machine allows it cannot be asked; it is tried in a process that is thrown away, because half of it cannot be
//! undone.
#![allow(unsafe_code, reason = "rustix marks unshare as unsafe for the sake of file descriptors, which stay shared here")]

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::process::wire::Launch;

/// Where programs write that ask nobody where to.
const SHARED: &str = "/tmp";

/// Tries all of it. The process must have one thread.
pub(super) fn probe() -> Result<(), String> {
    let (mut answer, tell) = io::pipe().map_err(|error| error.to_string())?;
    // SAFETY: the process has one thread, so the child may do whatever it could have done.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().to_string()),
        0 => {
            let tried = leave().and_then(|()| {
                // SAFETY: as above.
                match unsafe { libc::fork() } {
                    -1 => Err(io::Error::last_os_error()),
                    0 => settle(),
                    init => super::wait_for(init).map(|_| ()),
                }
            });
            if let Err(error) = tried {
                let _ = io::Write::write_all(&mut &tell, error.to_string().as_bytes());
            }
            // SAFETY: always sound; it only ends the process.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(tell);
            let mut said = String::new();
            let read = io::Read::read_to_string(&mut answer, &mut said);
            let waited = super::wait_for(child);
            read.map_err(|error| error.to_string())?;
            waited.map_err(|error| error.to_string())?;
            if said.is_empty() { Ok(()) } else { Err(said) }
        }
    }
}

/// Leaves the node's namespaces: mounts at once, processes with the next fork.
pub(super) fn leave() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = UnshareFlags::NEWPID | UnshareFlags::NEWNS;
    if !uid.is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: the flags name namespaces only; the table of file descriptors, about which the function's safety is,
    // stays shared.
    unsafe { unshare_unsafe(flags) }?;
    if !uid.is_root() {
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    // Nothing mounted here may travel back to the machine.
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Puts the server's own directory where programs write that ask nobody where to. What lies below that place is then not
/// there, so it is left alone when the server needs something of it; says which it was.
pub(super) fn own_temporary(launch: &Launch) -> io::Result<bool> {
    let needed = [&launch.program, &launch.directory, &launch.temporary]
        .into_iter()
        .flat_map(|path| [Some(path.clone()), std::fs::canonicalize(path).ok()]);
    if needed.flatten().any(|path| path.starts_with(SHARED)) || !std::path::Path::new(SHARED).is_dir() {
        return Ok(false);
    }
    mount_bind(&launch.temporary, SHARED)?;
    Ok(true)
}

/// Makes `/proc` show the namespace's processes; programs that look themselves up there would find somebody else.
pub(super) fn settle() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}
