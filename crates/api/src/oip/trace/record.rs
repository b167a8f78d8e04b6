//! The record of one traced request.

use std::time::Duration;

use plinth_runtime::World;
use plinth_types::{Error, ModelName, RequestId, VersionNumber};

/// What serving knows of a request's way; monotonic moments of the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamps {
    /// When it was put into the queue.
    pub queue_start: Option<Duration>,
    /// When its batch began to be executed.
    pub compute_start: Option<Duration>,
    /// When its batch was executed.
    pub compute_end: Option<Duration>,
}

/// What a request was, once it has ended.
#[derive(Debug, Clone, Copy)]
pub struct Traced<'a> {
    /// The client's own name of it; empty for none.
    pub id: &'a str,
    /// The version that answered, when one was found.
    pub version: Option<VersionNumber>,
    /// The moments between its start and its end.
    pub stamps: Stamps,
    /// Why it failed, if it did.
    pub error: Option<&'a Error>,
}

/// A request that is traced, from its start on. One that is dropped without [`Trace::end`] was cancelled by its client.
#[must_use = "a trace that is dropped is recorded as cancelled"]
pub struct Trace {
    world: World,
    model: ModelName,
    request: RequestId,
    start: Duration,
    ended: bool,
}

impl Trace {
    pub(super) fn begin(world: &World, model: &ModelName, request: &RequestId) -> Self {
        let start = world.clock.monotonic();
        Self { world: world.clone(), model: model.clone(), request: request.clone(), start, ended: false }
    }

    /// Writes the record: times in nanoseconds of the node's monotonic clock, of which only differences mean something.
    pub fn end(mut self, traced: &Traced<'_>) {
        self.ended = true;
        let outcome = traced.error.map_or("ok", |error| error.reason().slug());
        self.write(traced, outcome);
    }

    fn write(&self, traced: &Traced<'_>, outcome: &str) {
        let Stamps { queue_start, compute_start, compute_end } = traced.stamps;
        tracing::info!(
            target: plinth_telemetry::TRACE_TARGET,
            request = %self.request,
            id = traced.id,
            model = %self.model,
            version = traced.version.map(VersionNumber::get),
            outcome,
            request_start_ns = nanos(self.start),
            queue_start_ns = queue_start.map(nanos),
            compute_start_ns = compute_start.map(nanos),
            compute_end_ns = compute_end.map(nanos),
            request_end_ns = nanos(self.world.clock.monotonic()),
            "trace"
        );
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if !self.ended {
            self.write(&Traced { id: "", version: None, stamps: Stamps::default(), error: None }, "cancelled");
        }
    }
}

fn nanos(moment: Duration) -> u64 {
    u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX)
}
