//! Threads and their priority.
//!
//! In Linux a thread has a priority of its own and inherits its creator's, and without privileges it can only lower it. So
//! loading happens on a thread that lowers its own, and one thread that never does creates those that will execute.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::execute::STACK;
use crate::backend::Spawner;
use crate::priority::LoadPriority;

type Work = Box<dyn FnOnce() + Send>;

/// Does something at low priority while the caller waits. A panic goes on in the caller.
pub(super) fn in_the_background<T: Send>(priority: LoadPriority, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("prepare".to_owned()).stack_size(STACK).spawn_scoped(scope, || {
            priority.take();
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

    #[allow(unsafe_code, reason = "the scheduler's calls have no safe interface")]
    fn policy() -> i32 {
        // SAFETY: a plain call.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn who_loads_steps_back_and_who_executes_does_not() {
        let mine = policy();
        let spawner = spawner().unwrap();
        let (own, executing) = in_the_background(LoadPriority::Idle, move || {
            let (tell, told) = sync_channel(1);
            spawner(Box::new(move || tell.send(policy()).unwrap())).unwrap().join().unwrap();
            (policy(), told.recv().unwrap())
        })
        .unwrap();
        assert_eq!((own, executing, policy()), (libc::SCHED_IDLE, mine, mine));
    }
}
