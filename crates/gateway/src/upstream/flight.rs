//! One attempt at an endpoint, from its begin to its last byte.
//!
//! ```text
//! waiting ──head or error──▶ judged ──all bytes are there──▶ over
//!    │                          ├──────a stream──────▶ streaming ──last byte, or dropped──▶ over
//!    │                          └──────a tunnel──────▶ carrying ──one side closes──▶ over
//!    └──dropped: the caller went away──▶ over
//! ```
//!
//! Invariant: an endpoint's breaker, load, limit and ejection hear of each attempt exactly once, and of a stream that
//! broke once more; whatever was taken for it is given back when it is over, however it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use plinth_net::{Body, Frame};
use plinth_policy::balance::ewma::InFlight;
use plinth_policy::resilience::Outcome;
use plinth_policy::resilience::breaker::{Permit, State};
use plinth_policy::resilience::gradient::Sample;

use super::place::Place;
use super::pool::Pool;
use super::verdict::{self, Verdict};

/// An attempt.
pub(super) struct Flight {
    pool: Arc<Pool>,
    /// In the pool.
    place: usize,
    permit: Permit,
    /// `None` when it was taken off already.
    in_flight: Option<InFlight>,
    began: Duration,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Waiting,
    /// When, and what to tell the limit.
    Judged(Duration, Sample),
    Streaming(Sample),
    /// Under no limit any more.
    Carrying,
}

impl Flight {
    pub(super) const fn new(pool: Arc<Pool>, place: usize, permit: Permit, in_flight: InFlight, began: Duration) -> Self {
        Self { pool, place, permit, in_flight: Some(in_flight), began, stage: Stage::Waiting }
    }

    /// Its endpoint, in the pool.
    pub(super) const fn at(&self) -> usize {
        self.place
    }

    pub(super) const fn began(&self) -> Duration {
        self.began
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.pool.places().get(self.place)
    }

    /// The head of the answer is there, or there will be none.
    pub(super) fn judge(&mut self, now: Duration, verdict: &Verdict) {
        self.stage = Stage::Judged(now, verdict.sample);
        self.tell(now, verdict.outcome);
        if let Some(in_flight) = &mut self.in_flight {
            match verdict.outcome {
                outcome if outcome.is_failure() => in_flight.failed(now, self.pool.penalty(now)),
                outcome if outcome.is_answer() => in_flight.answered(now),
                _ => {}
            }
        }
        // The last of its probes: what its failures were counted as says nothing any more.
        if let (Permit::Probe(_), true, Some(place)) = (self.permit, verdict.outcome.is_answer(), self.place())
            && place.core.breaker.state(now) == State::Closed
        {
            place.core.load.believe(now, now.saturating_sub(self.began));
        }
        if let Some(in_flight) = self.in_flight.take_if(|_| verdict.outcome == Outcome::Cancelled) {
            in_flight.cancelled(now);
        }
        self.pool.learn(now, self.place, verdict.outcome, self.began);
    }

    /// Tells the breaker and the metrics.
    fn tell(&self, now: Duration, outcome: Outcome) {
        if let Some(place) = self.place() {
            place.core.breaker.record(now, self.permit, outcome, now.saturating_sub(self.began));
        }
        self.pool.metrics.attempted(outcome);
    }

    /// Ends with the body of the answer, and at once when that is there already.
    pub(super) fn follow(mut self, body: Body) -> Body {
        if body.len().is_some() {
            return body;
        }
        if let Stage::Judged(_, sample) = self.stage {
            self.stage = Stage::Streaming(sample);
        }
        Body::frames(Watched { body, flight: Some(self) })
    }

    /// Ends with what holds it: a tunnel. Connections bound those, and not what is learned of answers: an idle one costs no more
    /// than itself.
    pub(super) fn carry(mut self) -> Self {
        if let Stage::Judged(now, sample) = std::mem::replace(&mut self.stage, Stage::Carrying) {
            self.leave(now, sample);
        }
        self
    }

    /// Gives back the place under the limit.
    fn leave(&self, now: Duration, sample: Sample) {
        if self.pool.settings().adaptive
            && let Some(place) = self.place()
        {
            place.core.limit.leave(now, sample);
        }
    }

    /// The answer began well and then broke.
    fn broke(&self, outcome: Outcome) {
        let now = self.pool.now();
        // A probe was answered, which is all that was asked of it.
        if let (Permit::Go(_), Some(place)) = (self.permit, self.place()) {
            place.core.breaker.record(now, self.permit, outcome, Duration::ZERO);
        }
        self.pool.learn(now, self.place, outcome, self.began);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let (now, sample) = match self.stage {
            Stage::Carrying => return,
            Stage::Judged(now, sample) => (now, sample),
            Stage::Streaming(sample) => (self.pool.now(), sample),
            Stage::Waiting => {
                let now = self.pool.now();
                self.tell(now, Outcome::Cancelled);
                if let Some(in_flight) = self.in_flight.take() {
                    in_flight.cancelled(now);
                }
                (now, Sample::Nothing)
            }
        };
        self.leave(now, sample);
    }
}

/// The body of an answer that is still coming.
struct Watched {
    body: Body,
    /// `None` at the end.
    flight: Option<Flight>,
}

impl Stream for Watched {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut this.body), cx));
        let broken = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().and_then(verdict::of_grpc).filter(|outcome| outcome.is_failure()),
            Some(Err(error)) => verdict::of_broken(error),
            None => None,
        };
        if let (Some(outcome), Some(flight)) = (broken, &this.flight) {
            flight.broke(outcome);
        }
        if !matches!(frame, Some(Ok(_))) {
            this.flight = None;
        }
        let whole = |frame: Frame<plinth_net::Chunk>| frame.map_data(|mut chunk| chunk.copy_to_bytes(chunk.remaining()));
        Poll::Ready(frame.map(|frame| frame.map(whole)))
    }
}
