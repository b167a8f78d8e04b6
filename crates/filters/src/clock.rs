//! The clock that calls are stopped by.
//!
//! While calls are under way a thread moves the engine's epoch on once in a [`TICK`]; compiled code looks at it at every turn of a
//! loop and every entry of a function. Invariants: between two ticks no code of a module runs longer than a tick without the
//! node looking at it; with no call for a while the thread sleeps and costs nothing, and the first call wakes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

/// The time between two looks.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// So many ticks without a call, and the thread goes to sleep.
const LINGER: u32 = 200;

/// The clock. Its thread ends with it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    calls: AtomicUsize,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// A call under way.
pub(crate) struct Ticking<'t>(&'t Ticker);

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the machine has none to give.
    pub fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("filter-clock".to_owned()).spawn(move || own.run(&engine))?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Keeps the clock going until what it gives is dropped.
    pub fn hold(&self) -> Ticking<'_> {
        self.shared.calls.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst) {
            self.thread.unpark();
        }
        Ticking(self)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.shared.calls.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let mut idle = 0;
        while !self.ended.load(SeqCst) {
            idle = if self.calls.load(SeqCst) == 0 { idle + 1 } else { 0 };
            if idle > LINGER {
                // Whoever begins a call sees that the thread sleeps, or the thread sees the call.
                self.asleep.store(true, SeqCst);
                if self.calls.load(SeqCst) == 0 && !self.ended.load(SeqCst) {
                    std::thread::park();
                }
                self.asleep.store(false, SeqCst);
                idle = 0;
                continue;
            }
            std::thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}

/// The processor time that this thread has used, in nanoseconds.
pub(crate) fn used() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
