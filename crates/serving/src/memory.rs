//! What is known of the memory of versions, and what a table tells of it.
//!
//! The decisions are in `policy::memory`; the reconciler carries them out (`reconciler::admission`). Here are the facts:
//! measured sizes ([`measure`]), who waits for what ([`demand`]), and the sums for people and metrics. Invariant: a
//! size that is known is a measured one; an estimate stands in its place only before the first load.

pub(crate) mod demand;
pub(crate) mod measure;

use std::sync::Arc;
use std::time::Duration;

use plinth_policy::memory::{Device, Footprint, Refusal, Urgency, Usage};
use plinth_types::{ByteSize, Error, ModelName, Reason, VersionNumber};

use demand::Gate;
use measure::Reading;

/// Memory of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMemory {
    /// `cpu`, or `gpu:0` and so on.
    pub device: String,
    /// The most for all versions together; no limit when `None`.
    pub budget: Option<u64>,
    /// What the loaded versions take, as measured, in bytes.
    pub used: u64,
    /// What those take that are being loaded, as far as is known, in bytes.
    pub loading: u64,
    /// What those take that were let go and have not ended yet, in bytes.
    pub leaving: u64,
}

/// The node's memory for models at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// By device, main memory first.
    pub devices: Vec<DeviceMemory>,
    /// Versions unloaded so far because others needed the room.
    pub evictions: u64,
    /// Versions unloaded so far because nobody asked for them.
    pub idle_unloads: u64,
    /// Versions loaded so far because a request came for them.
    pub loads_on_demand: u64,
    /// Requests that wait for a version to be loaded.
    pub parked: usize,
}

/// The memory of a version in the table.
#[derive(Debug, Clone, Default)]
pub struct VersionMemory {
    /// What it takes, as measured, in bytes; 0 while it is not loaded.
    pub bytes: u64,
    /// Whether it stays when memory is short.
    pub pinned: bool,
    /// Where requests wait for it, while it is one that is loaded on demand.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Those who asked up to here were refused.
    pub(crate) refused: u64,
}

/// A load that was decided and has not begun, because there must be room first.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub urgency: Urgency,
    /// Its place among those who wait.
    pub deadline: Duration,
    /// Whether it passes the line of loads.
    pub skip_line: bool,
}

/// What is known of one version's memory.
pub(crate) struct Holding {
    /// The bytes of its files.
    pub files: u64,
    /// What it took when it was last measured.
    pub measured: Option<Reading>,
    /// How long it took to load.
    pub reload: Duration,
    /// When it was loaded.
    pub since: Duration,
    pub usage: Usage,
    pub pinned: bool,
    pub idle_after: Option<Duration>,
    pub gate: Arc<Gate>,
    /// Those who asked at the gate up to here were refused.
    pub refused: u64,
}

impl Holding {
    pub fn new(files: u64, now: Duration) -> Self {
        Self {
            files,
            measured: None,
            reload: Duration::ZERO,
            since: now,
            usage: Usage::new(now),
            pinned: false,
            idle_after: None,
            gate: Arc::default(),
            refused: 0,
        }
    }

    /// What the loaded version takes.
    pub fn bytes(&self) -> u64 {
        self.measured.map_or(0, |reading| reading.total())
    }

    pub fn footprint(&self) -> Footprint {
        Footprint::host(self.bytes())
    }
}

/// The error for those who wait for a version that cannot be had.
pub(crate) fn refused(model: &ModelName, version: VersionNumber, refusal: Refusal) -> Error {
    let (device, why) = match refusal {
        Refusal::TooLarge { device, need, budget } => {
            (device, format!("it needs about {} and the budget is {}", round(need), round(budget)))
        }
        Refusal::Held { device, need, held, budget } => (
            device,
            format!(
                "it needs about {}, the budget is {}, and {} of it are held by pinned models or by the version that it shall replace; unload or unpin one",
                round(need),
                round(budget),
                round(held)
            ),
        ),
    };
    let advice = match device {
        Device::Host => "engine.memory_budget allows more".to_owned(),
        Device::Gpu(_) => format!("the device {device} has no more"),
    };
    let text = format!("there is no memory for '{model}' version {version}: {why}; {advice}");
    Error::new(Reason::OverCapacity, text).retry_after(Duration::from_secs(5))
}

/// For people: whole MiB are enough from there on.
fn round(bytes: u64) -> ByteSize {
    const MIB: u64 = 1 << 20;
    if bytes < MIB { ByteSize(bytes) } else { ByteSize(bytes.div_ceil(MIB) * MIB) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_budget_and_what_to_do() {
        let model = "m".parse().unwrap();
        let text = |refusal| refused(&model, VersionNumber::FIRST, refusal).public_text().to_owned();
        assert_eq!(
            text(Refusal::TooLarge { device: Device::Host, need: (700 << 20) + 1, budget: 512 << 20 }),
            "there is no memory for 'm' version 1: it needs about 701MiB and the budget is 512MiB; engine.memory_budget allows more"
        );
        let held = text(Refusal::Held { device: Device::Gpu(1), need: 1, held: 2, budget: 3 });
        assert!(held.contains("pinned") && held.ends_with("the device gpu:1 has no more"), "{held}");
    }
}
