//! How a job may go from one state to another, by whose doing.

use plinth_policy::jobs::State;

use super::super::seen::{Op, Seen};
use super::{Checker, Known, Verdict, broken};
use crate::jobs::{JobId, OnFailure, WEBHOOK_KIND};

impl Checker {
    /// A job is new or stands otherwise.
    pub(super) fn moved(&mut self, op: &Op, clocks: (i64, i64), seen: &Seen) -> Verdict {
        let id = seen.id;
        let Some(known) = self.jobs.get(&id) else {
            self.stored(op, seen)?;
            return self.keep(seen.clone(), None);
        };
        let was = &known.seen;
        if seen.epoch < was.epoch {
            return broken(format!("the epoch of job {id} went from {} to {}", was.epoch, seen.epoch));
        }
        if seen.attempt > seen.max_attempts {
            return broken(format!("job {id} is in attempt {} of {}", seen.attempt, seen.max_attempts));
        }
        if was.state != seen.state && !was.state.may_become(seen.state) {
            return broken(format!("job {id} went from {} to {} by {op:?}", was.state, seen.state));
        }
        match (was.state, seen.state) {
            (State::Running, State::Running) if (was.epoch, &was.worker) != (seen.epoch, &seen.worker) => {
                return broken(format!("job {id} went from {:?} to {:?} without having been given back", was.worker, seen.worker));
            }
            (from, to) if from == to && from.ended() && was.reason != seen.reason => {
                return broken(format!("job {id} had ended ({from}) and its reason went from {:?} to {:?}", was.reason, seen.reason));
            }
            (from, to) if from == to => {}
            (_, State::Running) => self.begun(op, clocks.1, known, seen)?,
            (State::Running, _) => given_up(op, clocks.0, was, seen)?,
            (State::Dead, State::Ready) if *op != Op::Replay || seen.epoch == was.epoch => {
                return broken(format!("dead job {id} came back by {op:?} under epoch {}", seen.epoch));
            }
            (State::Blocked, State::Ready | State::Scheduled) => self.may_begin(id)?,
            _ => {}
        }
        if seen.state != State::Running && was.epoch != seen.epoch && was.state != State::Dead {
            return broken(format!("job {id} is {} and has another epoch", seen.state));
        }
        let known = known.clone();
        let released = matches!(op, Op::Finish { id: of, released: true, .. } if *of == id) && was_running(&known, seen);
        self.keep(seen.clone(), Some((known, released)))
    }

    /// A job is stored.
    fn stored(&mut self, op: &Op, seen: &Seen) -> Verdict {
        let id = seen.id;
        if self.forgotten.contains(&id) {
            return broken(format!("job {id} was forgotten and came back"));
        }
        if seen.kind == WEBHOOK_KIND {
            let of = seen.parent.and_then(|parent| self.jobs.get_mut(&parent));
            let Some(of) = of else { return broken(format!("webhook {id} tells of no job")) };
            of.tells += 1;
            return Ok(());
        }
        let Some(offer) = self.offers.get(&id) else { return broken(format!("job {id} is there and nobody asked for it")) };
        if *op != Op::Submit {
            return broken(format!("job {id} was stored by {op:?}"));
        }
        if let Some(key) = &offer.key {
            let submission = *self.stored.entry(key.clone()).or_insert(offer.submission);
            if submission != offer.submission {
                return broken(format!(
                    "key {} of {} was stored twice, by submissions {submission} and {}",
                    key.1, key.0, offer.submission
                ));
            }
        }
        if let Some(tick) = &offer.tick
            && let Some(other) = self.ticks.insert(tick.clone(), id)
        {
            return broken(format!("tick {} of schedule {} fired twice: {other} and {id}", tick.1, tick.0));
        }
        if matches!(seen.state, State::Ready | State::Scheduled) { self.may_begin(id) } else { Ok(()) }
    }

    /// What it waits for is out of the way.
    fn may_begin(&self, id: JobId) -> Verdict {
        let Some(offer) = self.offers.get(&id) else { return Ok(()) };
        for on in &offer.waits_for {
            let well = match self.jobs.get(on) {
                // A dead letter that was replayed had let it go on when it died.
                Some(known) if offer.on_failure == OnFailure::Run => known.seen.state.ended() || known.replayed,
                Some(known) => known.seen.state == State::Succeeded,
                None => self.forgotten.contains(on),
            };
            if !well {
                return broken(format!("job {id} is let go on before {on}, for which it waits, has ended ({:?})", self.state(*on)));
            }
        }
        Ok(())
    }

    fn begun(&self, op: &Op, wall: i64, known: &Known, seen: &Seen) -> Verdict {
        let id = seen.id;
        if *op != Op::Claim {
            return broken(format!("job {id} began by {op:?}"));
        }
        if seen.epoch != known.seen.epoch + 1 {
            return broken(format!("job {id} began under epoch {} after {}", seen.epoch, known.seen.epoch));
        }
        if known.begun >= seen.max_attempts {
            return broken(format!("job {id} began {} times of {}", known.begun + 1, seen.max_attempts));
        }
        if seen.expires_at.is_some_and(|at| at <= wall) {
            return broken(format!("job {id} began at {wall} and was worthless since {:?}", seen.expires_at));
        }
        // Who replays a dead letter does not wait for what it waited for.
        if known.replayed { Ok(()) } else { self.may_begin(id) }
    }

    /// A result was written.
    pub(super) fn result(&mut self, op: &Op, id: JobId) -> Verdict {
        let Some(known) = self.jobs.get_mut(&id) else { return broken(format!("a result of {id}, which is not there")) };
        known.results += 1;
        match op {
            Op::Finish { id: of, epoch, .. } if (*of, *epoch) == (id, known.seen.epoch) && known.results == 1 => Ok(()),
            _ => broken(format!("result number {} of job {id}, whose epoch is {}, was written by {op:?}", known.results, known.seen.epoch)),
        }
    }

    /// A job is forgotten.
    pub(super) fn gone(&mut self, id: JobId, wall: i64) -> Verdict {
        let Some(known) = self.jobs.remove(&id) else { return Ok(()) };
        let seen = &known.seen;
        if let Some(count) = self.states.get_mut(seen.state.code().unsigned_abs() as usize) {
            *count -= 1;
        }
        self.forgotten.insert(id);
        if !seen.state.ended() || seen.keep_until.is_none_or(|until| until > wall) {
            return broken(format!("job {id} is forgotten while it is {} and kept until {:?}", seen.state, seen.keep_until));
        }
        Ok(())
    }

    /// A job as it stands, when not all that happened to it was seen.
    pub(super) fn glimpse(&mut self, seen: &Seen) -> Verdict {
        let id = seen.id;
        let Some(known) = self.jobs.get(&id) else {
            self.stored(&Op::Submit, &Seen { state: State::Blocked, ..seen.clone() })?;
            return self.keep(seen.clone(), None);
        };
        let was = &known.seen;
        let came_back = was.state == State::Dead && seen.epoch > was.epoch;
        if seen.epoch < was.epoch || seen.attempt > seen.max_attempts {
            return broken(format!("job {id} went from {was:?} to {seen:?}"));
        }
        if was.state.ended() && (was.state, was.epoch) != (seen.state, seen.epoch) && !came_back {
            return broken(format!("job {id} had ended ({}) and is {}", was.state, seen.state));
        }
        if (was.state, seen.state, was.epoch == seen.epoch) == (State::Running, State::Running, true) && was.worker != seen.worker {
            return broken(format!("job {id} is held by {:?} and {:?} under epoch {}", was.worker, seen.worker, seen.epoch));
        }
        let known = known.clone();
        self.keep(seen.clone(), Some((known, false)))
    }

    /// Keeps what was seen.
    fn keep(&mut self, seen: Seen, known: Option<(Known, bool)>) -> Verdict {
        let was = known.as_ref().map(|(known, _)| known.seen.state);
        let flow = || (seen.kind.clone(), seen.class, seen.tenant.clone());
        if was != Some(seen.state) {
            let mut count = |state: State, by: i64| {
                if let Some(count) = self.states.get_mut(state.code().unsigned_abs() as usize) {
                    *count = count.saturating_add_signed(i32::try_from(by).unwrap_or(0));
                }
                if state == State::Ready {
                    self.fairness.count(flow(), by);
                }
            };
            was.into_iter().for_each(|state| count(state, -1));
            count(seen.state, 1);
        }
        let (id, state) = (seen.id, seen.state);
        let mut next = match known {
            None => Known { seen, begun: 0, replayed: false, ends: 0, tells: 0, results: 0 },
            Some((known, released)) => Known { begun: known.begun.saturating_sub(u32::from(released)), seen, ..known },
        };
        match (was, state) {
            (Some(State::Dead), State::Ready) => (next.begun, next.replayed) = (0, true),
            (Some(State::Ready), State::Running) => next.begun += 1,
            _ => {}
        }
        if state.ended() && was.is_none_or(|was| !was.ended()) {
            next.ends += 1;
        }
        self.jobs.insert(id, next);
        Ok(())
    }
}

fn was_running(known: &Known, seen: &Seen) -> bool {
    known.seen.state == State::Running && seen.state != State::Running
}

/// Who may take a job from its worker.
fn given_up(op: &Op, lease: i64, was: &Seen, seen: &Seen) -> Verdict {
    let id = seen.id;
    match op {
        Op::Finish { id: of, epoch, .. } if (*of, *epoch) == (id, was.epoch) => Ok(()),
        Op::Sweep if was.lease_until.is_some_and(|until| until < lease) => Ok(()),
        Op::Release { node } if was.worker.as_ref().is_some_and(|worker| worker.starts_with(node)) => Ok(()),
        Op::Sweep => broken(format!("job {id} was taken back at {lease}, its lease lasts until {:?}", was.lease_until)),
        _ => broken(format!("running job {id} (epoch {}) became {} by {op:?}", was.epoch, seen.state)),
    }
}
