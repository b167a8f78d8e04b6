//! Threads and their priority.
//!
//! In Linux a thread has a priority of its own and inherits its creator's, and without privileges it can only lower it. So
//! loading happens on a thread that lowers its own, and one thread that never does creates those that will execute.
#![allow(unsafe_code, reason = "a thread's own priority is set by calls that have no safe interface")]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::execute::STACK;
use crate::backend::Spawner;

/// The lowest priority of processor time.
const NICEST: libc::c_int = 19;
/// `ioprio_set`: this thread, class "idle".
const IO_WHO_THREAD: libc::c_int = 1;
const IO_CLASS_IDLE: libc::c_int = 3 << 13;

type Work = Box<dyn FnOnce() + Send>;

/// Lowers the calling thread's priority for good, of processor and of disk: what serves comes first.
pub(super) fn step_back() {
    // SAFETY: plain calls without pointers, which concern the calling thread alone.
    unsafe {
        // Refused, the work is done at the usual priority.
        libc::setpriority(libc::PRIO_PROCESS, 0, NICEST);
        libc::syscall(libc::SYS_ioprio_set, IO_WHO_THREAD, 0, IO_CLASS_IDLE);
    }
}

/// Does something at low priority while the caller waits. A panic goes on in the caller.
pub(super) fn in_the_background<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("prepare".to_owned()).stack_size(STACK).spawn_scoped(scope, || {
            step_back();
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// A thread that starts threads at the priority of the caller.
pub(super) fn spawner() -> io::Result<Spawner> {
    type Job = (Work, SyncSender<io::Result<JoinHandle<()>>>);
    let (jobs, queue) = sync_channel::<Job>(1);
    std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        while let Ok((work, reply)) = queue.recv() {
            let _ = reply.send(std::thread::Builder::new().name("compute".to_owned()).stack_size(STACK).spawn(work));
        }
    })?;
    Ok(Arc::new(move |work| {
        let (reply, started) = sync_channel(1);
        let gone = || io::Error::other("the thread that starts threads has ended");
        jobs.send((work, reply)).map_err(|_| gone())?;
        started.recv().map_err(|_| gone())?
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        // SAFETY: a plain call.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn who_loads_steps_back_and_who_executes_does_not() {
        let mine = nice();
        let spawner = spawner().unwrap();
        let (own, executing) = in_the_background(move || {
            let (tell, told) = sync_channel(1);
            spawner(Box::new(move || tell.send(nice()).unwrap())).unwrap().join().unwrap();
            (nice(), told.recv().unwrap())
        })
        .unwrap();
        assert_eq!((own, executing, nice()), (NICEST, mine, mine));
    }
}
