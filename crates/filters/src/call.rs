//! One call: what it has used, what it may use, and what it has said.
//!
//! Invariants: time is the processor time of the call itself, so that a busy machine stops nobody's filter and a loop is stopped
//! after its share; at each tick the call lets other tasks of its thread go on; memory is granted up to the limit and not
//! beyond; lines for the log have a bound in number and length.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use wasmtime::{Caller, Extern, ResourceLimiter, StoreContextMut, UpdateDeadline};

use crate::abi;
use crate::clock;
use crate::failure::shown;
use crate::host::Limits;

/// The most lines of one call.
const LINES: usize = 8;
/// The most bytes of a line.
const LINE: usize = 512;

/// What belongs to a call.
pub(crate) struct Call {
    /// In nanoseconds.
    time: u64,
    memory: usize,
    used: u64,
    /// The thread's processor time when the call was last taken up.
    resumed: Arc<AtomicU64>,
    /// Whether it wanted more memory than it may have.
    pub wanted_memory: bool,
    /// What it wrote: a level and a line.
    pub lines: Vec<(i32, String)>,
}

impl Call {
    pub fn new(limits: &Limits) -> Self {
        Self {
            time: u64::try_from(limits.time.as_nanos()).unwrap_or(u64::MAX),
            memory: limits.memory.as_usize(),
            used: 0,
            resumed: Arc::new(AtomicU64::new(clock::used())),
            wanted_memory: false,
            lines: Vec::new(),
        }
    }

    /// At each tick: whether it may go on.
    pub fn tick(&mut self) -> UpdateDeadline {
        self.used = self.used.saturating_add(clock::used().saturating_sub(self.resumed.load(Relaxed)));
        if self.used >= self.time {
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::YieldCustom(1, Box::pin(Pause { resumed: self.resumed.clone(), waited: false }))
    }
}

/// Lets other tasks go on, and notes when the call was taken up again: maybe on another thread.
struct Pause {
    resumed: Arc<AtomicU64>,
    waited: bool,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.waited {
            self.resumed.store(clock::used(), Relaxed);
            return Poll::Ready(());
        }
        self.waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ResourceLimiter for Call {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let granted = desired <= self.memory;
        self.wanted_memory |= !granted;
        Ok(granted)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= crate::host::TABLE)
    }
}

/// Decides at each tick.
pub(crate) fn on_tick(mut store: StoreContextMut<'_, Call>) -> wasmtime::Result<UpdateDeadline> {
    Ok(store.data_mut().tick())
}

/// The one import. What is too much is left out; a bad place is a mistake of the module and costs it the line.
pub(crate) fn log(mut caller: Caller<'_, Call>, level: i32, at: i32, size: i32) {
    if caller.data().lines.len() >= LINES {
        return;
    }
    let Some(Extern::Memory(memory)) = caller.get_export(abi::MEMORY) else { return };
    let length = (size.cast_unsigned() as usize).min(LINE);
    let from = at.cast_unsigned() as usize;
    let text = memory.data(&caller).get(from..from.saturating_add(length)).map(|bytes| shown(&String::from_utf8_lossy(bytes)));
    if let Some(text) = text {
        caller.data_mut().lines.push((level, text));
    }
}
