//! Who comes first on the processor: what serves, before what loads and what dies.
//!
//! `SCHED_IDLE` is more than the nice value 19: a thread of it yields at once to any other that wakes up, and the kernel
//! takes a processor that runs nothing else for a free one when it looks for a place for a waking thread. Invariant:
//! nothing here raises a priority above the usual one. Without privileges a thread cannot come back from `SCHED_IDLE`, so
//! a load that gets hardly any processor time is begun anew at [`LoadPriority::Low`]: what is thrown away is the little
//! that it got.
#![allow(unsafe_code, reason = "the scheduler's calls have no safe interface")]

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The lowest nice value.
const NICEST: libc::c_int = 19;
/// `ioprio_set`: this thread, class "idle".
const IO_WHO_THREAD: libc::c_int = 1;
const IO_CLASS_IDLE: libc::c_int = 3 << 13;

/// A load has waited at least so long for a processor before it counts as starved ...
const STARVED_AFTER: Duration = Duration::from_secs(4);
/// ... and at least so many times as long as it had one.
const STARVED_RATIO: u32 = 10;

/// How far a load stands behind what serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LoadPriority {
    /// It gets the processor when nobody else wants it.
    Idle,
    /// It gets a small share also of a busy processor (nice 19: about 1.5 %).
    Low,
}

impl LoadPriority {
    /// Lowers the calling thread's priority for good, of processor and of disk. What the system refuses is left as it is:
    /// the work is then done at the usual priority.
    pub(crate) fn take(self) {
        // SAFETY: plain calls; `none` outlives the call that reads it; they concern the calling thread alone.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICEST);
            libc::syscall(libc::SYS_ioprio_set, IO_WHO_THREAD, 0, IO_CLASS_IDLE);
            if self == Self::Idle {
                let none = libc::sched_param { sched_priority: 0 };
                libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none);
            }
        }
    }
}

/// Lets a process that is about to end stand behind all others: taking a large memory apart is work that requests feel.
pub(crate) fn push_back(pid: u32) {
    set_policy(pid, libc::SCHED_IDLE);
}

/// Undoes [`push_back`] for a process that does not come to its end. Only with `CAP_SYS_NICE`, or a limit of nice values
/// that allows it; else its memory comes back when the processor has a moment.
pub(crate) fn bring_back(pid: u32) {
    set_policy(pid, libc::SCHED_OTHER);
}

fn set_policy(pid: u32, policy: libc::c_int) {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for thread in threads.flatten() {
        let Some(id) = thread.file_name().to_str().and_then(|name| name.parse::<libc::pid_t>().ok()) else { continue };
        // SAFETY: `none` outlives the call that reads it. A thread that is gone meanwhile is an error that is not looked at.
        unsafe {
            let none = libc::sched_param { sched_priority: 0 };
            libc::sched_setscheduler(id, policy, &raw const none);
        }
    }
}

/// Whether a process that loads gets next to nothing of the processor.
pub(crate) fn is_starved(pid: u32) -> io::Result<bool> {
    let (mut ran, mut waited) = (Duration::ZERO, Duration::ZERO);
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        if let Some([ran_here, waited_here]) = times(&text) {
            ran += ran_here;
            waited += waited_here;
        }
    }
    Ok(starves(ran, waited))
}

/// The first two figures of `schedstat`: nanoseconds on a processor, nanoseconds waiting for one (proc(5)).
fn times(schedstat: &str) -> Option<[Duration; 2]> {
    let mut figures = schedstat.split_ascii_whitespace().map(|figure| figure.parse().ok().map(Duration::from_nanos));
    Some([figures.next()??, figures.next()??])
}

fn starves(ran: Duration, waited: Duration) -> bool {
    waited >= STARVED_AFTER && waited >= ran * STARVED_RATIO
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: a plain call.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_thread_that_steps_back_does_so_alone() {
        std::thread::spawn(|| {
            LoadPriority::Idle.take();
            assert_eq!(policy(), libc::SCHED_IDLE);
        })
        .join()
        .unwrap();
        std::thread::spawn(|| {
            LoadPriority::Low.take();
            assert_eq!(policy(), libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
        assert_eq!(policy(), libc::SCHED_OTHER);
    }

    #[test]
    fn starved_is_who_waits_long_and_hardly_runs() {
        let s = Duration::from_secs;
        assert!(!starves(Duration::ZERO, s(3)));
        assert!(starves(Duration::ZERO, s(4)));
        assert!(starves(s(1), s(10)));
        assert!(!starves(s(2), s(10)));
        assert_eq!(times("5 7 1\n"), Some([Duration::from_nanos(5), Duration::from_nanos(7)]));
        assert_eq!(times(""), None);
        assert!(!is_starved(std::process::id()).unwrap());
        assert!(is_starved(u32::MAX).is_err());
    }
}
