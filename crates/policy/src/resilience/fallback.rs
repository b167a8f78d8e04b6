//! Moving a target's load to its fallback in steps, and back, so that a failover does not flood the one that is still well.
//!
//! A [`Ramp`] says what share goes to the fallback now: 10, 25, 50, 100 %. What may not go yet is refused at once, which is better than two
//! targets down. The way back is as gentle: a target that has just recovered gets 10, 25, 50, 100 % of its load back. A [`Chain`] is an order
//! of targets with a ramp after each. Invariants: while a target is out its fallback's share never jumps past a step; a decision is one load when all is well.
//! Whether a target is usable (breaker, throttle, limiter) is the caller's knowledge.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::balance::hash;

#[cfg(test)]
mod tests;

/// The steps of a ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Shares in percent, rising; past the last one all of the load goes.
    pub steps: Vec<u8>,
    /// How long each step lasts.
    pub step: Duration,
}

impl Default for Settings {
    /// 10, 25, 50, 100 %, five seconds each.
    fn default() -> Self {
        Self { steps: vec![10, 25, 50, 100], step: Duration::from_secs(5) }
    }
}

/// Between one target and the next. One atomic word.
#[derive(Debug)]
pub struct Ramp {
    /// Rising, at least one, 1 to 100, the last one 100.
    steps: Box<[u8]>,
    /// Milliseconds, at least one.
    step: u64,
    /// See [`Course`].
    course: AtomicU64,
}

/// Where the load is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// All at home.
    Home,
    /// Moving away since then, having begun at this step.
    Away { since: u64, step: u64 },
    /// Moving back since then, when so many percent were away.
    Back { since: u64, share: u64 },
}

impl Course {
    /// Two bits of kind, eight of step or share, 54 of milliseconds.
    const fn word(self) -> u64 {
        match self {
            Self::Home => 0,
            Self::Away { since, step } => 1 | ((step & 0xff) << 2) | (since << 10),
            Self::Back { since, share } => 2 | ((share & 0xff) << 2) | (since << 10),
        }
    }

    const fn read(word: u64) -> Self {
        let (small, since) = ((word >> 2) & 0xff, word >> 10);
        match word & 3 {
            1 => Self::Away { since, step: small },
            2 => Self::Back { since, share: small },
            _ => Self::Home,
        }
    }
}

/// Where one request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the target itself.
    Home,
    /// To the fallback.
    Fallback,
    /// Nowhere: the fallback takes more only later.
    Refused {
        /// When it takes more.
        retry_after: Duration,
    },
}

impl Ramp {
    /// With all at home. Steps are put in order; what is not between 1 and 100 is left out.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut steps: Vec<u8> = settings.steps.iter().copied().filter(|share| (1..100).contains(share)).take(200).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.push(100);
        Self { steps: steps.into(), step: millis(settings.step).max(1), course: AtomicU64::new(Course::Home.word()) }
    }

    /// The target is not usable. May be said any number of times; only the first counts.
    pub fn out(&self, now: Duration) {
        self.change(|course| match course {
            Course::Away { .. } => course,
            // What the fallback has it keeps, rounded up to a step.
            Course::Home | Course::Back { .. } => {
                let share = self.share_of(course, now);
                let step = self.steps.iter().position(|step| u64::from(*step) >= share).unwrap_or(0);
                Course::Away { since: millis(now), step: step as u64 }
            }
        });
    }

    /// The target is usable. May be said any number of times; only the first counts.
    pub fn well(&self, now: Duration) {
        self.change(|course| match course {
            Course::Home => course,
            Course::Away { .. } => Course::Back { since: millis(now), share: self.share_of(course, now) },
            Course::Back { .. } if self.share_of(course, now) == 0 => Course::Home,
            Course::Back { .. } => course,
        });
    }

    /// The fallback has more than it can take: a step down, and from there anew.
    pub fn too_much(&self, now: Duration) {
        self.change(|course| match course {
            Course::Away { .. } => Course::Away { since: millis(now), step: self.step_of(course, now).saturating_sub(1) },
            Course::Home | Course::Back { .. } => course,
        });
    }

    /// The share of requests that goes to the fallback now, in percent. Of the rest: to the target if it is usable, otherwise refused.
    #[must_use]
    pub fn share(&self, now: Duration) -> u64 {
        self.share_of(self.course(), now)
    }

    /// Where a request goes. `draw` may be a hash of a key, so that the same users stay together.
    #[must_use]
    pub fn route(&self, now: Duration, draw: u64) -> Route {
        let course = self.course();
        let moved = course != Course::Home && hash::unit(draw) * 100.0 < self.share_of(course, now) as f64;
        match course {
            _ if moved => Route::Fallback,
            Course::Home | Course::Back { .. } => Route::Home,
            Course::Away { since, .. } => {
                let into = millis(now).saturating_sub(since) % self.step;
                Route::Refused { retry_after: Duration::from_millis(self.step - into) }
            }
        }
    }

    fn course(&self) -> Course {
        Course::read(self.course.load(Relaxed))
    }

    fn change(&self, change: impl Fn(Course) -> Course) {
        let mut word = self.course.load(Relaxed);
        loop {
            let next = change(Course::read(word)).word();
            if next == word {
                return;
            }
            match self.course.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// How many steps the course has come, from the first.
    fn step_of(&self, course: Course, now: Duration) -> u64 {
        let last = self.steps.len().saturating_sub(1) as u64;
        match course {
            Course::Home => 0,
            Course::Away { since, step } => (step + millis(now).saturating_sub(since) / self.step).min(last),
            Course::Back { since, .. } => (millis(now).saturating_sub(since) / self.step).min(last),
        }
    }

    fn share_of(&self, course: Course, now: Duration) -> u64 {
        let at = |step: u64| self.steps.get(step as usize).copied().unwrap_or(100).into();
        match course {
            Course::Home => 0,
            Course::Away { .. } => at(self.step_of(course, now)),
            Course::Back { share, .. } => share.min(100 - at(self.step_of(course, now))),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> 10)
}

/// A target, its fallback, that one's fallback …
#[derive(Debug)]
pub struct Chain {
    ramps: Box<[Ramp]>,
}

/// Nobody takes the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When a fallback takes more; `None`: there is no usable one left.
    pub retry_after: Option<Duration>,
}

impl Chain {
    /// Of `targets` targets, the first one being the wanted one.
    #[must_use]
    pub fn new(targets: usize, settings: &Settings) -> Self {
        Self { ramps: (1..targets).map(|_| Ramp::new(settings)).collect() }
    }

    /// Which target a request goes to. Moves the ramps along by what `usable` says of the targets; it is asked once for each until one is found.
    ///
    /// # Errors
    /// [`Refused`] when all usable ones are full for now, or none is.
    pub fn route(&self, now: Duration, draw: u64, usable: impl Fn(usize) -> bool) -> Result<usize, Refused> {
        // A usable one that the ramp back from its fallback has passed over: better than nothing.
        let mut passed = None;
        for target in 0..=self.ramps.len() {
            let is_usable = usable(target);
            let Some(ramp) = self.ramps.get(target) else {
                return if is_usable { Ok(target) } else { passed.ok_or(Refused { retry_after: None }) };
            };
            if is_usable {
                ramp.well(now);
            } else {
                ramp.out(now);
            }
            // Each ramp draws for itself.
            match (ramp.route(now, hash::mix(draw, target as u64)), is_usable) {
                (Route::Fallback, true) => passed = passed.or(Some(target)),
                (Route::Fallback, false) => {}
                (_, true) => return Ok(target),
                (Route::Refused { retry_after }, false) => return passed.ok_or(Refused { retry_after: Some(retry_after) }),
                (Route::Home, false) => return passed.ok_or(Refused { retry_after: None }),
            }
        }
        passed.ok_or(Refused { retry_after: None })
    }

    /// The ramp from a target to the next.
    #[must_use]
    pub fn ramp(&self, target: usize) -> Option<&Ramp> {
        self.ramps.get(target)
    }
}
