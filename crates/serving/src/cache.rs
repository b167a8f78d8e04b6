//! Answers that are given again: the exact response cache.
//!
//! [`ResponseCache::through`] looks an answer up, and computes and keeps it when it is not there. Invariants: an answer is given
//! only for the key that it was computed for; no error is ever kept; for one key at most one computation runs on this node at a
//! time, whatever happens to the callers that wait for it; nothing that is kept points into memory that somebody else owns.
//!
//! What goes into a key is in `plinth_types`; where answers lie is behind the port of `plinth_store`; whether a deployment's
//! answers are kept at all is [`lifetime`].

mod codec;
mod flight;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::{Clock, World};
use plinth_store::cache::Cache;
use plinth_store::resources::CacheSettings;
use plinth_telemetry::CacheMetrics;
use plinth_types::cache_key::CacheScope;
use plinth_types::{CacheKey, Error, Parameters, Reason, Result, Tensor};

use self::flight::{Ended, Flights, Seat};

/// Inputs above this are hashed on a blocking thread: a fraction of a millisecond of work.
const INLINE_HASH: usize = 256 << 10;

/// How the cache took part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheUse {
    /// Not at all.
    #[default]
    Off,
    /// The answer came out of it.
    Hit,
    /// The answer was computed.
    Miss,
}

/// How long the answers of a deployment are kept; `None`: not at all. `settings` is what the deployment says, `configured` what
/// `response_cache` of its model configuration says, `node` the node's own time.
#[must_use]
pub fn lifetime(settings: Option<CacheSettings>, configured: bool, node: Duration) -> Option<Duration> {
    let lifetime = match settings {
        Some(CacheSettings { enabled: false, .. }) => return None,
        Some(CacheSettings { ttl_seconds: Some(seconds), .. }) => Duration::from_secs(seconds.into()),
        Some(CacheSettings { ttl_seconds: None, .. }) => node,
        None if configured => node,
        None => return None,
    };
    (!lifetime.is_zero()).then_some(lifetime)
}

/// What a failed computation says to others that wait for the same answer.
#[derive(Debug)]
pub enum ForOthers<E> {
    /// Nothing: it was about the caller (its deadline) or the moment (a version that was just replaced). One of them takes over.
    Nothing,
    /// That the question is wrong, or was unlucky: one of them tries once more for all before they get this error.
    Perhaps(E),
    /// That they must not try the same: they get this error at once.
    Surely(E),
}

/// An error of a computation.
pub trait ComputeError: From<Error> + Send + Sync + Sized + 'static {
    /// What it says to others. Those that wait each take a copy of the error inside by asking that again.
    fn for_others(&self) -> ForOthers<Self>;
}

impl ComputeError for Error {
    fn for_others(&self) -> ForOthers<Self> {
        if self.reason() == Reason::DeadlineExceeded {
            return ForOthers::Nothing;
        }
        let error = Self::new(self.reason(), self.public_text()).diagnostic("the same request failed for another caller");
        ForOthers::Perhaps(match self.retry_delay() {
            Some(delay) => error.retry_after(delay),
            None => error,
        })
    }
}

/// How the answers of a loaded version are cached.
#[derive(Clone)]
pub(crate) struct CachePlan {
    pub scope: CacheScope,
    pub ttl: Duration,
}

/// What is asked of the cache.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Names the answer.
    pub key: CacheKey,
    /// How long the answer is kept; see [`lifetime`].
    pub ttl: Duration,
    /// How long the caller waits, from now.
    pub deadline: Duration,
    /// The wished outputs, in the order in which they are wished; all, in any order, when empty.
    pub wished: &'a [String],
}

/// An answer, and how it was come by.
#[derive(Debug)]
pub struct Cached {
    /// The outputs.
    pub outputs: Vec<Tensor>,
    /// Whether this call computed nothing: the answer was kept, or it was computed for another caller at the same time.
    pub hit: bool,
    /// How long looking took, and storing: what Triton counts as the time of a hit or miss. Waiting for another caller's
    /// computation and computing are not in it.
    pub lookup: Duration,
}

/// The response cache of a node. Cheap to clone.
#[derive(Clone)]
pub struct ResponseCache(Arc<Inner>);

struct Inner {
    store: Arc<dyn Cache>,
    flights: Flights,
    clock: Arc<dyn Clock>,
    metrics: CacheMetrics,
}

impl ResponseCache {
    /// A cache that keeps its answers in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Cache>, metrics: CacheMetrics, world: &World) -> Self {
        Self(Arc::new(Inner { store, flights: Flights::default(), clock: world.clock.clone(), metrics }))
    }

    /// What the answers are kept in, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.0.store.describe()
    }

    /// [`CacheScope::key`], on a blocking thread when there is much to hash. Cancel safe.
    pub async fn key(&self, scope: &CacheScope, inputs: &[Tensor], outputs: &[String], parameters: &Parameters) -> CacheKey {
        if inputs.iter().map(|input| input.data().len()).sum::<usize>() <= INLINE_HASH {
            return scope.key(inputs, outputs, parameters);
        }
        let (of, with) = (scope.clone(), (inputs.to_vec(), outputs.to_vec(), parameters.clone()));
        let hashed = tokio::task::spawn_blocking(move || of.key(&with.0, &with.1, &with.2)).await;
        // It fails when the runtime is ending; a key that takes its time is still the right one.
        hashed.unwrap_or_else(|_| scope.key(inputs, outputs, parameters))
    }

    /// Gives the answer that is kept; else computes it and keeps it. `compute` is called at most once, with the time that is
    /// left, and has to keep that itself.
    ///
    /// While one caller computes, others with the same key wait within their own deadlines and get its answer. When its
    /// computation fails, it depends on the error ([`ForOthers`]): one of them computes, and the rest wait once more and get the
    /// second error; or they get the first. When it is dropped, one of them takes over. Cancel safe: a dropped call fails nobody else.
    ///
    /// # Errors
    /// That of `compute`, a copy of another caller's when the same has failed twice, and [`Reason::DeadlineExceeded`].
    pub async fn through<F, Fut, E>(&self, ask: Ask<'_>, compute: F) -> Result<Cached, E>
    where
        F: FnOnce(Duration) -> Fut + Send,
        Fut: Future<Output = Result<Vec<Tensor>, E>> + Send,
        E: ComputeError,
    {
        let inner = &*self.0;
        let start = inner.clock.monotonic();
        if let Some(outputs) = inner.store.peek(&ask.key).and_then(|value| codec::decode(&value)) {
            return Ok(Cached { outputs: arranged(outputs, ask.wished), hit: true, lookup: inner.since(start) });
        }
        let mut waited = Duration::ZERO;
        let mut failed = false;
        loop {
            let flight = match inner.flights.board(ask.key) {
                Seat::Front(flight) => flight,
                Seat::Behind(flight) => {
                    inner.metrics.followers.inc();
                    let since = inner.clock.monotonic();
                    let left = ask.deadline.saturating_sub(since.saturating_sub(start));
                    let Ok(ended) = tokio::time::timeout(left, flight.ended()).await else { return Err(late().into()) };
                    waited += inner.since(since);
                    match ended {
                        Ended::Well(outputs) => {
                            let lookup = inner.since(start).saturating_sub(waited);
                            return Ok(Cached { outputs: arranged(outputs.to_vec(), ask.wished), hit: true, lookup });
                        }
                        Ended::Badly { error, surely } if failed || surely => return Err(copy(&*error)),
                        Ended::Badly { .. } => failed = true,
                        Ended::Abandoned => {}
                    }
                    continue;
                }
            };
            if let Some(outputs) = inner.store.get(&ask.key).await.and_then(|value| codec::decode(&value)) {
                flight.land(|| Ended::Well(outputs.clone().into()));
                let lookup = inner.since(start).saturating_sub(waited);
                return Ok(Cached { outputs: arranged(outputs, ask.wished), hit: true, lookup });
            }
            let looked = inner.since(start).saturating_sub(waited);
            let left = ask.deadline.saturating_sub(inner.since(start));
            let outputs = match compute(left).await {
                Ok(outputs) => outputs,
                Err(error) => {
                    flight.land(|| match error.for_others() {
                        ForOthers::Nothing => Ended::Abandoned,
                        ForOthers::Perhaps(error) => Ended::Badly { error: Arc::new(error), surely: false },
                        ForOthers::Surely(error) => Ended::Badly { error: Arc::new(error), surely: true },
                    });
                    return Err(error);
                }
            };
            let computed = inner.clock.monotonic();
            if codec::encoded_len(&outputs).is_some_and(|length| length <= inner.store.max_value())
                && let Some(value) = codec::encode(&outputs)
            {
                inner.store.put(&ask.key, value, ask.ttl).await;
            }
            flight.land(|| Ended::Well(outputs.clone().into()));
            return Ok(Cached { outputs, hit: false, lookup: looked + inner.since(computed) });
        }
    }
}

impl Inner {
    fn since(&self, start: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(start)
    }
}

/// The order in which outputs are wished does not count in the key, so an answer may have been computed in another one.
fn arranged(outputs: Vec<Tensor>, wished: &[String]) -> Vec<Tensor> {
    if wished.len() == outputs.len() && wished.iter().zip(&outputs).any(|(name, output)| name != output.name()) {
        let sorted: Option<Vec<_>> = wished.iter().map(|name| outputs.iter().find(|output| output.name() == name).cloned()).collect();
        return sorted.unwrap_or(outputs);
    }
    outputs
}

/// One's own copy of another caller's error.
fn copy<E: ComputeError>(error: &(dyn Any + Send + Sync)) -> E {
    match error.downcast_ref::<E>().map(ComputeError::for_others) {
        Some(ForOthers::Perhaps(error) | ForOthers::Surely(error)) => error,
        // Two kinds of errors for one key: no caller does that.
        _ => Error::new(Reason::ModelExecutionFailed, "the same request failed for another caller").into(),
    }
}

fn late() -> Error {
    let text = "the deadline passed while the same request, sent by another caller, was being computed";
    Error::new(Reason::DeadlineExceeded, text)
}
