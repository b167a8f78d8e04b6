//! Which versions stay in memory, which go, and which is loaded next.
//!
//! Rules, in order of weight:
//! 1. What is decided never takes more than a device's budget, by what is known of the sizes: measured once a version
//!    was loaded, estimated before ([`Estimator`]).
//! 2. A pinned version is never evicted.
//! 3. Who waits is served by deadline. The room comes from the least valuable: value is recent use × the time to load again,
//!    for each byte (after GreedyDual-Size-Frequency, with use that decays instead of a clock that ages). What has requests
//!    in hand goes only when nothing else does.
//! 4. Who was loaded stays for a while ([`residence`]), so that versions that fit only in turn change places seldom and
//!    loading takes at most a quarter of the time. Only a budget that is broken shortens it.
//! 5. What nobody asked for within its idle time goes.
//! 6. What cannot be had at all is refused at once, and says why; nobody waits for it.
//!
//! Pure: the caller hands in the whole state each time and carries the plan out; whatever is still on its way (loading,
//! leaving) it hands in as such. A plan is therefore right also when the one before was carried out only in part.

mod desk;
mod estimate;
#[cfg(test)]
mod tests;
mod usage;

pub use estimate::Estimator;
pub use usage::Usage;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A memory that has a budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The machine's main memory: the budget of the node.
    Host,
    /// The memory of a GPU, by its index.
    Gpu(u16),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("cpu"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
        }
    }
}

/// Bytes on each device. A device that is not listed has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint(BTreeMap<Device, u64>);

impl Footprint {
    /// Bytes in main memory alone.
    #[must_use]
    pub fn host(bytes: u64) -> Self {
        Self([(Device::Host, bytes)].into())
    }

    /// The bytes on a device.
    #[must_use]
    pub fn on(&self, device: Device) -> u64 {
        self.0.get(&device).copied().unwrap_or(0)
    }

    /// Sets the bytes on a device.
    #[must_use]
    pub fn with(mut self, device: Device, bytes: u64) -> Self {
        self.0.insert(device, bytes);
        self
    }

    /// The devices with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Device, u64)> {
        self.0.iter().map(|(device, bytes)| (*device, *bytes))
    }

    /// Bytes on all devices together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Adds another's bytes.
    pub fn add(&mut self, other: &Self) {
        for (device, bytes) in other.iter() {
            let sum = self.0.entry(device).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Takes another's bytes away.
    pub fn subtract(&mut self, other: &Self) {
        for (device, bytes) in other.iter() {
            let rest = self.0.entry(device).or_default();
            *rest = rest.saturating_sub(bytes);
        }
    }
}

/// The most bytes of all versions together, by device. A device that is not listed has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budgets(pub BTreeMap<Device, u64>);

/// How long a version stays after it was loaded, whoever else waits: three times as long as loading took, from half a
/// second to half a minute.
#[must_use]
pub fn residence(reload: Duration) -> Duration {
    reload.saturating_mul(3).clamp(Duration::from_millis(500), Duration::from_secs(30))
}

/// A version that is loaded. All times are since one start.
#[derive(Debug, Clone)]
pub struct Resident<K> {
    /// Its name.
    pub key: K,
    /// What it takes, as measured.
    pub bytes: Footprint,
    /// When it was loaded.
    pub since: Duration,
    /// How long it took to load.
    pub reload: Duration,
    /// How much it was used of late; see [`Usage::recent`].
    pub recent_use: f64,
    /// When it was last used, or loaded.
    pub last_used: Duration,
    /// Whether it has requests in hand.
    pub in_flight: bool,
    /// Whether it must not be evicted.
    pub pinned: bool,
    /// Whether it must not be evicted now, for a reason that passes: it is being replaced.
    pub busy: bool,
    /// How long it may go without a request.
    pub idle_after: Option<Duration>,
}

/// Why a version shall be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody waits for it: others make room.
    Demanded,
    /// It is wished for, and nobody waits: only where there is room.
    Wished,
}

/// A version that shall be loaded.
#[derive(Debug, Clone)]
pub struct Demand<K> {
    /// Its name. It may be loaded already: then this is a replacement, for which both need room.
    pub key: K,
    /// What it will take, as far as is known.
    pub bytes: Footprint,
    /// Why.
    pub urgency: Urgency,
    /// By when.
    pub deadline: Duration,
    /// A loaded version that must not go for it: the one that it replaces.
    pub spare: Option<K>,
}

/// A version that is on its way in.
#[derive(Debug, Clone)]
pub struct Loading {
    /// What it will take, as far as is known.
    pub bytes: Footprint,
    /// Whether it will be pinned.
    pub pinned: bool,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone)]
pub struct State<K> {
    /// What is loaded.
    pub residents: Vec<Resident<K>>,
    /// What is being loaded.
    pub loading: Vec<Loading>,
    /// What was let go and still takes memory.
    pub leaving: Footprint,
    /// What shall be loaded.
    pub demands: Vec<Demand<K>>,
}

/// Why a version is unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody asked for it for long enough.
    Idle,
    /// Another needs the room.
    Room,
    /// Together they take more than the budget.
    OverBudget,
}

/// Why a version cannot be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It alone takes more than the budget.
    TooLarge {
        /// Of which memory.
        device: Device,
        /// The bytes that it needs.
        need: u64,
        /// The budget.
        budget: u64,
    },
    /// What may not go for it leaves too little room.
    Held {
        /// Of which memory.
        device: Device,
        /// The bytes that it needs.
        need: u64,
        /// The bytes of what may not go: the pinned, and the version that it replaces.
        held: u64,
        /// The budget.
        budget: u64,
    },
}

/// What to do next.
#[derive(Debug, Clone)]
pub struct Plan<K> {
    /// Begin to load these; there is room for them now.
    pub load: Vec<K>,
    /// Unload these.
    pub evict: Vec<(K, Why)>,
    /// These cannot be had.
    pub refuse: Vec<(K, Refusal)>,
    /// There is no room for these, and nobody waits for them.
    pub defer: Vec<K>,
    /// When to ask again even if nothing happens.
    pub again_at: Option<Duration>,
}

/// Decides.
#[must_use]
pub fn plan<K: Clone + Ord>(budgets: &Budgets, state: &State<K>, now: Duration) -> Plan<K> {
    desk::Desk::new(budgets, state, now).plan()
}
