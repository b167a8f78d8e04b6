//! The ordered end of a process: one list, a deadline for each step.
//!
//! Invariant: steps run in the order in which they were added, one after another; a step that
//! overruns its deadline is dropped and reported, and the next begins. So the whole end takes at most
//! the sum of the deadlines. Which steps there are is for `node` to say.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::Clock;

type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The list of steps.
#[derive(Default)]
pub struct ShutdownList {
    steps: Vec<(&'static str, Duration, Step)>,
}

/// How one step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// The step's name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Whether it ended within its deadline.
    pub in_time: bool,
}

impl ShutdownList {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next step.
    pub fn step(&mut self, name: &'static str, deadline: Duration, run: impl Future<Output = ()> + Send + 'static) {
        self.steps.push((name, deadline, Box::pin(run)));
    }

    /// Runs all steps in order.
    pub async fn run(self, clock: Arc<dyn Clock>) -> Vec<StepReport> {
        let mut reports = Vec::with_capacity(self.steps.len());
        for (name, deadline, step) in self.steps {
            let start = clock.monotonic();
            let in_time = tokio::time::timeout(deadline, step).await.is_ok();
            let took = clock.monotonic().saturating_sub(start);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            if in_time {
                tracing::debug!(step = name, took_ms, "shutdown step done");
            } else {
                tracing::warn!(step = name, took_ms, "shutdown step overran its deadline");
            }
            reports.push(StepReport { name, took, in_time });
        }
        reports
    }
}

/// Waits for SIGINT or SIGTERM and says which came.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test(start_paused = true)]
    async fn steps_run_in_order_and_a_late_one_does_not_hold_the_rest() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut list = ShutdownList::new();
        let first = order.clone();
        list.step("first", Duration::from_secs(1), async move { first.lock().unwrap().push(1) });
        list.step("stuck", Duration::from_secs(1), std::future::pending());
        let last = order.clone();
        list.step("last", Duration::from_secs(1), async move { last.lock().unwrap().push(3) });
        let reports = list.run(Arc::new(crate::SystemClock)).await;
        assert_eq!(*order.lock().unwrap(), vec![1, 3]);
        assert_eq!(
            reports.iter().map(|r| (r.name, r.in_time)).collect::<Vec<_>>(),
            vec![("first", true), ("stuck", false), ("last", true)]
        );
    }
}
