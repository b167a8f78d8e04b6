//! What a process lives by: time, randomness, tasks that somebody owns, an ordered end, and places to crash at.
//!
//! Invariant: no other crate reads a clock, draws randomness or spawns a task on its own, so a test
//! can hand in a clock that it moves, randomness that it seeds and a crash point that it arms.
#![warn(missing_docs)]

pub mod clock;
pub mod cpu;
pub mod crash;
pub mod random;
pub mod shutdown;
pub mod task;

use std::sync::Arc;

pub use clock::{Clock, ManualClock, SystemClock};
pub use cpu::{CpuBudget, cpu_budget};
pub use crash::{CrashPoint, CrashPoints};
pub use random::{Random, SeededRandom, SystemRandom};
pub use shutdown::{ShutdownList, StepReport};
pub use task::{OnEnd, TaskGroup};
pub use tokio_util::sync::CancellationToken;

/// The outside world of a process as values, handed to whoever needs it. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Draws random bytes.
    pub random: Arc<dyn Random>,
    /// Dies where a test asks for it; does nothing otherwise.
    pub crash: CrashPoints,
}

impl World {
    /// The real clock, the system's randomness, no crash point armed.
    #[must_use]
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), crash: CrashPoints::none() }
    }
}
