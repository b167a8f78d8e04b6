//! A simulated model server: seeded, without a clock, the same result every time.
//!
//! Requests arrive ([`Traffic`]), a [`Scheduler`] forms batches, lanes take the time that a [`Law`] says. What is measured is stated
//! at [`Outcome`]. It exists to compare schedulers; sockets, copies and wake-ups cost nothing in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

mod learned;
mod rival;
mod sweep;
mod world;

pub use learned::Learned;
pub use rival::FixedDelay;
pub use sweep::{Best, Point, Scenario, Setting, Sweep, scenarios};
pub use world::{Law, Outcome, Run, Traffic};

/// A small generator of numbers that only look random (splitmix64).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The same seed gives the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub fn share(&mut self) -> f64 {
        (self.any() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }
}

/// A request as a scheduler sees it. Times are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Which one.
    pub id: usize,
    /// When it came.
    pub arrived: u64,
    /// When its answer is worthless.
    pub deadline: u64,
    /// Whose it is.
    pub tenant: u64,
}

/// What a scheduler wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Run these.
    Run(Vec<usize>),
    /// Ask again then.
    Wait(u64),
    /// Nothing waits.
    Idle,
}

/// What is compared.
pub trait Scheduler {
    /// A request came; false: refused.
    fn push(&mut self, request: Request, now: u64) -> bool;
    /// What to do, with `idle` of `lanes` lanes idle and the others' batches (rows, begun at).
    fn next(&mut self, now: u64, idle: usize, lanes: usize, busy: &[(u32, u64)]) -> Wish;
    /// Requests that were given up since the last call.
    fn dropped(&mut self, now: u64) -> Vec<usize>;
    /// A batch of `rows` ended.
    fn finished(&mut self, rows: u32, took: u64, now: u64);
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends { lane: usize },
    Comes { client: usize },
    Look,
}

/// The future, soonest first; equal times in the order in which they were planned.
#[derive(Debug, Default)]
struct Agenda {
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    planned: u64,
}

impl Agenda {
    fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((at, self.planned, event)));
    }

    fn next(&mut self) -> Option<(u64, Event)> {
        self.events.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
