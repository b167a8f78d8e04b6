//! Faults for this crate's tests: a child process that dies by SIGKILL, a disk that is full.
//!
//! A test that needs a child runs its own binary again with itself as the only test; [`orders`] tells the child what to do.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plinth_runtime::{CrashPoint, CrashPoints, World};

/// Carries the orders: point, pass and place, with line feeds between them.
const VARIABLE: &str = "PLINTH_TEST_CHILD";

#[allow(clippy::disallowed_methods, reason = "tests are told by their caller what to require, and children what to do")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a child shall do.
pub(crate) struct Orders {
    /// With the crash point armed.
    pub(crate) world: World,
    /// Where, as the parent said.
    pub(crate) place: String,
}

/// The orders, when this process is a child.
pub(crate) fn orders() -> Option<Orders> {
    let text = variable(VARIABLE)?;
    let mut parts = text.splitn(3, '\n');
    let (point, pass, place) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let crash = if point.is_empty() { CrashPoints::none() } else { CrashPoints::arm(point, pass.parse().unwrap()).unwrap() };
    Some(Orders { world: World { crash, ..World::real() }, place: place.to_owned() })
}

/// A command that runs `test` (its whole path) alone, as a child with these orders.
pub(crate) fn child(test: &str, point: Option<CrashPoint>, pass: u32, place: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let orders = format!("{}\n{pass}\n{place}", point.map_or("", CrashPoint::name));
    let (_crate, test) = test.split_once("::").unwrap();
    command.args(["--exact", test, "--nocapture"]).env(VARIABLE, orders).stdin(Stdio::null());
    command
}

/// Runs a child until it dies at the point.
pub(crate) fn die_at(test: &str, point: CrashPoint, pass: u32, place: &str) {
    const SIGKILL: i32 = 9;
    let Output { status, stdout, stderr } = child(test, Some(point), pass, place).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.signal(), Some(SIGKILL), "the child did not die at {} (pass {pass}): {status}\n{out}\n{err}", point.name());
}

/// A file system in memory that is soon full.
pub(crate) struct TinyDisk {
    directory: tempfile::TempDir,
}

impl TinyDisk {
    /// Mounts one, which takes root; says so when it cannot.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let result: io::Result<Output> =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "plinth-test"]).arg(directory.path()).output();
        match result {
            Ok(output) if output.status.success() => Some(Self { directory }),
            failed => {
                println!("SKIPPED: no file system can be mounted here, so no disk can be full: {failed:?}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Turns writing off or on again, as a kernel does when a disk fails.
    pub(crate) fn read_only(&self, on: bool) {
        let mode = if on { "remount,ro" } else { "remount,rw" };
        let output = Command::new("mount").args(["-o", mode]).arg(self.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Fills all that is left, and gives the file that does it.
    pub(crate) fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        for block in [64 << 10, 4096, 512, 1] {
            while io::Write::write_all(&mut file, &vec![0; block]).is_ok() {}
        }
        ballast
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
