//! Who may send how much: rates, concurrency, daily caps, shares of cluster-wide limits, addresses and bans.
//!
//! Each limit is a small value of atomics that is asked with the time in hand: [`Cell`] holds a rate, [`Permits`] a concurrency,
//! [`DailyCap`] a day's units, [`Leased`] a node's part of a limit that all nodes share, [`Bans`] and [`AddressRules`] look at
//! where a request comes from. [`reserve`] takes several of them or none, and [`headers`] says to the client how it stands.
//!
//! Invariants: what is asked before a body is read never waits and never allocates; a number from outside cannot overflow; what was
//! reserved too much can always be given back, and giving back twice does no harm beyond the limit itself. Which tenant has which
//! limit, the central store and the answers over HTTP belong to the gateway.
//!
//! Times are [`Duration`]s on a monotonic clock since any fixed start. Only daily caps look at the wall clock, because a day is
//! something that a contract names.

mod addresses;
mod ban;
mod concurrency;
mod daily;
mod gcra;
pub mod headers;
pub mod lease;
mod rate;
mod reservation;

use std::time::Duration;

pub use self::addresses::{AddressError, AddressRules, AddressVerdict};
pub use self::ban::{BanSettings, BanVerdict, Bans};
pub use self::concurrency::{Permit, Permits};
pub use self::daily::{DailyCap, MOST_UNITS_A_DAY};
pub use self::gcra::{Cell, Taken, Verdict};
pub use self::lease::{LeaseAnswer, LeaseRequest, LeaseSettings, Leased};
pub use self::rate::{Rate, RateError};
pub use self::reservation::{Claim, Limit, Moment, Standing, reserve};

/// Nanoseconds, enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
