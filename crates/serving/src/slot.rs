//! One version of one model on this node, from the first wish to the end of its runner.

use std::sync::Arc;
use std::time::Duration;

use plinth_policy::memory::Footprint;
use plinth_policy::{CrashHistory, Phase};
use plinth_runtime::CancellationToken;
use plinth_types::{Digest, Error, Reason};

use crate::memory::{Holding, Intent, VersionMemory};
use crate::table::{State, VersionRow};
use crate::{Instance, Purpose};

/// Names one attempt to load, so that a late result of an earlier one is recognised and thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub u64);

/// An attempt to load that is under way. Dropping it cancels the attempt.
pub(crate) struct Attempt {
    pub ticket: Ticket,
    /// What the version is being judged for.
    pub purpose: Purpose,
    /// The memory that it will take, as far as is known.
    pub bytes: Footprint,
    pub cancel: CancellationToken,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The version's state; the table shows a part of it.
pub(crate) struct Slot {
    /// What the loaded or loading instance depends on.
    pub fingerprint: Digest,
    /// The deployment's count of explicit requests to load, as this slot knows it.
    pub generation: u64,
    pub state: State,
    /// What answers, with the attempt that made it.
    pub instance: Option<(Ticket, Arc<Instance>)>,
    /// What the version is wished for.
    pub wanted: Purpose,
    /// The permission to go back to the version, as this slot knows it.
    pub permission: Option<String>,
    /// What the instance was judged for: one that may be asked by its number may still not be the one that answers.
    pub cleared: Option<Purpose>,
    /// Set while an attempt runs: the first, one after a crash, or one that replaces a ready instance.
    pub attempt: Option<Attempt>,
    pub refusal: Option<(Reason, String)>,
    /// When a failed load is tried again (monotonic); never when `None`.
    pub retry_at: Option<Duration>,
    /// How many loads failed in a row.
    pub failures: u32,
    pub history: CrashHistory,
    pub restarts: u64,
    /// Whether it is loaded when somebody asks for it: it was not loaded so far, or its memory was taken.
    pub dormant: bool,
    /// A load that was decided and has not begun.
    pub intent: Option<Intent>,
    pub holding: Holding,
}

impl Slot {
    pub fn new(fingerprint: Digest, generation: u64, wanted: Purpose, holding: Holding) -> Self {
        Self {
            fingerprint,
            generation,
            state: State::Loading,
            instance: None,
            wanted,
            permission: None,
            cleared: None,
            attempt: None,
            refusal: None,
            retry_at: None,
            failures: 0,
            history: CrashHistory::default(),
            restarts: 0,
            dormant: false,
            intent: None,
            holding,
        }
    }

    /// Whether a load is under way or decided.
    pub const fn is_coming(&self) -> bool {
        self.attempt.is_some() || self.intent.is_some()
    }

    /// Whether the instance was judged for what it is wished for now.
    pub fn is_cleared(&self) -> bool {
        self.cleared.is_some_and(|cleared| cleared >= self.wanted)
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Unloaded | State::Unloading => Phase::OnDemand,
            State::Loading if self.dormant => Phase::OnDemand,
            State::Loading => Phase::Loading,
            State::Ready if !self.is_cleared() => {
                if self.is_coming() {
                    Phase::Loading
                } else {
                    Phase::Failed
                }
            }
            State::Ready => Phase::Ready,
            State::Restarting => Phase::Restarting,
            State::Failed | State::Quarantined => Phase::Failed,
        }
    }

    pub fn row(&self) -> VersionRow {
        VersionRow {
            state: self.state,
            instance: self.instance.as_ref().map(|(_, i)| i.clone()),
            refusal: self.refusal.clone(),
            restarts: self.restarts,
            generation: self.generation,
            loading: self.is_coming(),
            memory: VersionMemory {
                bytes: if self.instance.is_some() { self.holding.bytes() } else { 0 },
                pinned: self.holding.pinned,
                gate: self.dormant.then(|| self.holding.gate.clone()),
                refused: self.holding.refused,
            },
        }
    }

    /// Its memory is free, or is about to be; who asks for it waits until it is back.
    pub fn sleep(&mut self) -> Option<(Ticket, Arc<Instance>)> {
        (self.attempt, self.intent, self.cleared) = (None, None, None);
        (self.refusal, self.retry_at) = (None, None);
        (self.state, self.dormant) = (State::Unloaded, true);
        self.instance.take()
    }

    pub fn loaded(&mut self, ticket: Ticket, instance: Arc<Instance>) {
        self.cleared = self.attempt.take().map(|attempt| attempt.purpose);
        self.instance = Some((ticket, instance));
        (self.state, self.dormant) = (State::Ready, false);
        (self.refusal, self.retry_at, self.failures) = (None, None, 0);
    }

    /// A load failed. A failure that time may mend is tried again after a growing pause.
    pub fn load_failed(&mut self, error: &Error, now: Duration) {
        (self.attempt, self.intent) = (None, None);
        self.refusal = Some((error.reason(), error.public_text().to_owned()));
        self.failures += 1;
        self.retry_at = error.class().retriable().then(|| now + retry_pause(self.failures));
        if self.instance.is_none() {
            self.state = State::Failed;
        }
    }
}

/// 1 s, 2 s, 4 s … 30 s.
fn retry_pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_time_may_mend_is_tried_again() {
        let mut slot = Slot::new(Digest::of(b""), 0, Purpose::Answer, Holding::new(0, Duration::ZERO));
        slot.load_failed(&Error::new(Reason::StoreUnavailable, "x"), Duration::from_secs(10));
        assert_eq!((slot.state, slot.retry_at), (State::Failed, Some(Duration::from_secs(11))));
        slot.load_failed(&Error::new(Reason::SignatureMissing, "x"), Duration::from_secs(10));
        assert_eq!(slot.retry_at, None);
        assert_eq!(
            (retry_pause(1), retry_pause(3), retry_pause(40)),
            (Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(30))
        );
    }
}
