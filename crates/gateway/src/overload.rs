//! Where the node stands on the ladder of degradation: measured several times a second, read by every request.
//!
//! Invariant: reading is one relaxed load. What a level switches off is `plinth_policy::overload`'s to say; what is measured comes from
//! a function that the node hands in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use plinth_policy::overload::{Ladder, LadderSettings, Level, Load};
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_telemetry::Gauge;

/// How often the load is measured.
const INTERVAL: Duration = Duration::from_millis(100);

/// The level of the ladder.
#[derive(Debug, Default)]
pub struct Overload(AtomicU8);

impl Overload {
    /// Measures in `tasks` with `measure` until they end.
    pub fn start(
        settings: LadderSettings,
        mut measure: impl FnMut() -> Load + Send + 'static,
        gauge: Gauge,
        world: &World,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let overload = Arc::new(Self::default());
        let (shown, clock, stop) = (overload.clone(), world.clock.clone(), tasks.cancelled().clone());
        tasks.spawn("overload", OnEnd::CancelGroup, async move {
            let mut ladder = Ladder::new(settings);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                let load = measure();
                let Some(change) = ladder.observe(clock.monotonic(), load) else { continue };
                shown.set(change.to);
                gauge.set(f64::from(change.to.number()));
                let (from, to) = (change.from.number(), change.to.number());
                if to > from {
                    tracing::warn!(from, to, cpu = load.cpu, memory = load.memory, queue = load.queue, "overload: the ladder goes up");
                } else {
                    tracing::info!(from, to, "overload: the ladder comes down");
                }
            }
        });
        overload
    }

    fn set(&self, level: Level) {
        self.0.store(level.number(), Ordering::Relaxed);
    }

    /// Where it stands.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.0.load(Ordering::Relaxed) {
            0 => Level::Normal,
            1 => Level::L1,
            2 => Level::L2,
            3 => Level::L3,
            4 => Level::L4,
            _ => Level::L5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_telemetry::{BuildInfo, Catalogue};

    fn catalogue() -> Catalogue {
        Catalogue::new(BuildInfo { version: "0", commit: "unknown" })
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_node_climbs_and_comes_down() {
        let tasks = TaskGroup::new("test");
        let busy = Arc::new(AtomicU8::new(0));
        let measured = busy.clone();
        let measure = move || Load { cpu: f64::from(measured.load(Ordering::Relaxed)) / 100.0, ..Load::default() };
        let gauge = catalogue().overload_level.clone();
        let world = World::real();
        // The clock of the world does not stand still with tokio's, so the settings are as fast as the clock goes.
        let settings = LadderSettings {
            up_after: Duration::ZERO,
            down_after: Duration::ZERO,
            fall_after: Duration::ZERO,
            ..LadderSettings::default()
        };
        let overload = Overload::start(settings, measure, gauge, &world, &tasks);
        tokio::time::sleep(INTERVAL * 3).await;
        assert_eq!(overload.level(), Level::Normal);
        busy.store(95, Ordering::Relaxed);
        tokio::time::sleep(INTERVAL * 10).await;
        assert_eq!(overload.level(), Level::L2);
        busy.store(10, Ordering::Relaxed);
        tokio::time::sleep(INTERVAL * 30).await;
        assert_eq!(overload.level(), Level::Normal);
        tasks.close(Duration::from_secs(1)).await;
    }
}
