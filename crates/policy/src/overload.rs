//! What to do when there is more work than capacity: whom to let wait, whom to refuse, what to switch off.
//!
//! [`Criticality`] says how much a request matters. [`Admission`] is the queue in front of a target with a limited concurrency.
//! [`Shedder`] refuses early while the node's own processor cannot keep up. [`Ladder`] switches costs off step by step while the node is too
//! busy. [`Throttle`] keeps a client from asking a target that refuses.
//! Invariants: what is refused is refused at once and has cost nothing; the share that is served falls, its quality does not; after
//! the surge everything comes back by itself. Measuring load and finding a target's concurrency belong to others.

mod admission;
mod criticality;
mod ladder;
mod shedder;
mod throttle;

#[cfg(test)]
mod goodput;

use std::time::Duration;

pub use self::admission::{Admission, AdmissionSettings, Answers, Done, Dropped, Loss, Offer, RefuseReason, Request, Room, Ticket};
pub use self::criticality::{CRITICALITIES, Criticality, UnknownCriticality};
pub use self::ladder::{Change, Ladder, LadderSettings, Level, Load};
pub use self::shedder::{Interval, Shed, Shedder, ShedderSettings, allowance};
pub use self::throttle::{MOST_REFUSED, Throttle};

/// Nanoseconds, enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
