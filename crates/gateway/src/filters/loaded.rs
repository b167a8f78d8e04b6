//! A loaded version: called with a breaker before it, counted, and its lines for the log held back to a bound.
//!
//! Invariant: a version that mostly runs out of time or memory is not called for some seconds, then with a few probes; crashes and
//! bad answers do not count, because they cost no more than a good call and might be one caller's doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use plinth_filters::{Answer, Failure, Filter, Hook, Message, Wants};
use plinth_policy::resilience::Outcome;
use plinth_policy::resilience::breaker::{Breaker, Permit, Settings, State};
use plinth_registry::FilterFacts;
use plinth_runtime::Clock;
use plinth_runtime::World;
use plinth_store::resources::gateway::{FilterVersion, OnFilterError};
use plinth_telemetry::{Catalogue, FilterMetrics};
use plinth_types::{ByteSize, Error, Label, Reason, TenantName, VersionNumber};

/// Calls in the breaker's window before anything is judged.
const LEAST_CALLS: u32 = 5;
/// The most lines for the log in a second.
const LINES: u64 = 10;

/// A version that can be called.
pub(crate) struct Loaded {
    tenant: TenantName,
    name: Label,
    number: VersionNumber,
    filter: Filter,
    /// What it is told with each call.
    pub values: Vec<(String, String)>,
    on_error: OnFilterError,
    breaker: Breaker,
    metrics: FilterMetrics,
    clock: Arc<dyn Clock>,
    /// The second in which lines were written, and how many: `second << 8 | lines`.
    written: AtomicU64,
}

/// Why a filter did nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It failed.
    Failed(Failure),
    /// It is left alone for a while.
    Held(Duration),
    /// It cannot be given the body.
    Body(Error),
}

impl Loaded {
    pub fn new(facts: FilterFacts<'_>, version: &FilterVersion, filter: Filter, catalogue: &Catalogue, world: &World) -> Self {
        let settings = Settings { least_calls: LEAST_CALLS, slow: None, probes: 2, ..Settings::default() };
        Self {
            tenant: facts.tenant.clone(),
            name: facts.name.clone(),
            number: facts.version,
            filter,
            values: version.settings.values.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            on_error: version.settings.on_error,
            breaker: Breaker::new(settings, world.random.next_u64()),
            metrics: catalogue.filter(facts.tenant.as_str(), facts.name.as_str()),
            clock: world.clock.clone(),
            written: AtomicU64::new(0),
        }
    }

    /// What it wants to be called with.
    pub const fn wants(&self) -> Wants {
        self.filter.wants()
    }

    /// The largest body that it is given.
    pub const fn max_body(&self) -> ByteSize {
        self.filter.limits().body
    }

    /// Whether it is left alone now.
    pub fn is_held(&self, now: Duration) -> bool {
        !self.breaker.allows(now) || self.breaker.state(now) == State::Open
    }

    /// Calls it.
    pub async fn call(&self, hook: Hook, message: &Message) -> Result<Option<Answer>, Trouble> {
        let begun = self.clock.monotonic();
        let permit = match self.breaker.permit(begun) {
            Permit::Refused { retry_after } => {
                self.metrics.ended("held");
                return Err(Trouble::Held(retry_after));
            }
            permit => permit,
        };
        let called = self.filter.call(hook, message).await;
        let now = self.clock.monotonic();
        let took = now.saturating_sub(begun);
        let (word, outcome) = match &called.result {
            Ok(answer) => (if answer.is_some() { "changed" } else { "unchanged" }, Outcome::Success),
            Err(Failure::Busy) => ("busy", Outcome::Cancelled),
            Err(failure) => (failure.word(), if failure.is_dear() { Outcome::Timeout } else { Outcome::Success }),
        };
        self.breaker.record(now, permit, outcome, took);
        self.metrics.ended(word);
        self.metrics.duration.observe(took);
        self.write(&called.lines, now);
        called.result.map_err(Trouble::Failed)
    }

    /// Notes that an answer of it could not be used.
    pub fn useless(&self, why: &'static str) -> Trouble {
        self.metrics.ended("answer");
        Trouble::Failed(Failure::Answer(why))
    }

    /// Notes that it cannot be given a body.
    pub fn unread(&self, why: Error) -> Trouble {
        self.metrics.ended("body");
        Trouble::Body(why)
    }

    /// What its trouble means to the request: an error, or nothing.
    ///
    /// # Errors
    /// `filter_failed`, `filter_unavailable`, or the body's own, unless it is to be skipped.
    pub fn consequence(&self, trouble: Trouble) -> Result<(), Error> {
        let (name, number) = (&self.name, self.number);
        let error = match trouble {
            Trouble::Body(error) => error,
            Trouble::Held(retry) => {
                let text = format!("the filter '{name}' ran out of its time or memory too often and is left alone for a while");
                Error::new(Reason::FilterUnavailable, text).retry_after(retry)
            }
            Trouble::Failed(Failure::Busy) => {
                Error::new(Reason::FilterUnavailable, "too many calls of filters are under way").retry_after(Duration::from_secs(1))
            }
            Trouble::Failed(failure) => {
                let what = match &failure {
                    Failure::Trap(_) => "it crashed",
                    Failure::Answer(_) => "it answered with something that is not an answer",
                    Failure::Time => "it took more processor time than it may",
                    Failure::Memory | Failure::Busy => "it wanted more memory than it may have",
                };
                Error::new(Reason::FilterFailed, format!("the filter '{name}' failed on the request: {what}"))
                    .diagnostic(format!("{}/{name}@{number}: {failure}", self.tenant))
            }
        };
        match self.on_error {
            OnFilterError::Refuse => Err(error),
            OnFilterError::Skip => {
                tracing::debug!(tenant = %self.tenant, filter = %name, version = number.get(), error = %error, "a filter was skipped");
                Ok(())
            }
        }
    }

    /// Writes what it said, up to a number of lines in a second. They may hold what is in messages, so they are for who looks closely.
    fn write(&self, lines: &[(i32, String)], now: Duration) {
        for (level, line) in lines {
            let second = now.as_secs();
            let before = self.written.load(Relaxed);
            let count = if before >> 8 == second { before & 0xff } else { 0 };
            if count >= LINES {
                return;
            }
            // A line too many from another thread does no harm.
            self.written.store(second << 8 | (count + 1), Relaxed);
            tracing::debug!(tenant = %self.tenant, filter = %self.name, version = self.number.get(), level, line, "a filter says");
        }
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("name", &self.name).field("number", &self.number).finish_non_exhaustive()
    }
}
