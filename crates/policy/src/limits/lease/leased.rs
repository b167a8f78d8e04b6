//! A node's tokens of a shared limit.
//!
//! States: **leasing** (tokens are held until a moment) and **lost** (a local rate of rate / nodes, one lease deep). Invariants: a
//! token is used once, brought back once, or dropped; never more than one lease is held, also of what requests give back: what finds no
//! room is dropped, and who has a whole lease at hand does not miss it; without the store the node begins with what it held and not with a
//! gift. Taking is one compare-and-swap and never waits. Sending the question, and deciding that the
//! store is gone, is the caller's.
//!
//! Changes of state may meet a take in flight: then tokens are out of sight for a moment and the take is answered
//! [`Verdict::Ask`] or [`Verdict::Later`]; they are never doubled.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::super::{Rate, Taken, Verdict, nanos};
use super::{LeaseAnswer, LeaseRequest, LeaseSettings};

const ACQ_REL: Ordering = Ordering::AcqRel;
const ACQUIRE: Ordering = Ordering::Acquire;
const RELEASE: Ordering = Ordering::Release;
const RELAXED: Ordering = Ordering::Relaxed;

/// One shared limit on one node. All times are on the node's monotonic clock.
#[derive(Debug)]
pub struct Leased {
    rate: Rate,
    settings: LeaseSettings,
    nodes: AtomicU32,
    lost: AtomicBool,
    /// Tokens; below zero when requests cost more than they reserved.
    held: AtomicI64,
    until: AtomicU64,
    /// Tokens to bring back with the question that is being put: nothing stays here.
    unused: AtomicU64,
    /// The largest cost that was refused since the last answer.
    need: AtomicU64,
    /// Something was asked since the last answer, so the limit is in use.
    used: AtomicBool,
    /// When the question under way was asked, and one more; 0: none is.
    asked: AtomicU64,
    /// The centre has answered at least once.
    known: AtomicBool,
    not_before: AtomicU64,
    left: AtomicU64,
    window: AtomicU64,
    window_since: AtomicU64,
    /// The TAT of the local rate while lost.
    local: AtomicU64,
    lost_since: AtomicU64,
    lost_for: AtomicU64,
    spent: AtomicU64,
}

impl Leased {
    /// A node that holds nothing yet: the first request is answered [`Verdict::Ask`].
    #[must_use]
    pub fn new(rate: Rate, settings: LeaseSettings) -> Self {
        let settings = settings.resolved(&rate);
        let zero = || AtomicU64::new(0);
        Self {
            rate,
            settings,
            nodes: AtomicU32::new(settings.nodes),
            lost: AtomicBool::new(false),
            held: AtomicI64::new(0),
            until: zero(),
            unused: zero(),
            need: zero(),
            used: AtomicBool::new(false),
            asked: zero(),
            known: AtomicBool::new(false),
            not_before: zero(),
            left: zero(),
            window: zero(),
            window_since: zero(),
            local: zero(),
            lost_since: zero(),
            lost_for: zero(),
            spent: zero(),
        }
    }

    /// The shared limit.
    #[must_use]
    pub const fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Whether the node lives on its share of the rate.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(ACQUIRE)
    }

    /// How many nodes share the limit from now on.
    pub fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes.max(1), RELAXED);
    }

    /// Takes `cost` tokens of those held, or nothing. `remaining` in the answer includes what the centre had left when it was last asked.
    pub fn take(&self, cost: u64, now: Duration) -> Taken {
        let now = nanos(now);
        if cost > self.rate.burst() {
            return self.answer(Verdict::Never, 0, 0);
        }
        if self.lost.load(ACQUIRE) {
            return self.take_local(cost, now);
        }
        if !self.used.load(RELAXED) {
            self.used.store(true, RELAXED);
        }
        let wanted = cost.cast_signed(); // at most the burst
        if now < self.until.load(ACQUIRE)
            && let Ok(before) = self.held.fetch_update(ACQ_REL, ACQUIRE, |held| (held >= wanted).then(|| held - wanted))
        {
            let seen = (before - wanted).unsigned_abs().saturating_add(self.left.load(RELAXED));
            return self.answer(Verdict::Allowed, seen, 0);
        }
        self.need.fetch_max(cost.max(1), RELAXED);
        let not_before = self.not_before.load(ACQUIRE);
        if now < not_before {
            let left = self.held.load(RELAXED).max(0).unsigned_abs();
            return self.answer(Verdict::Later, left, not_before - now);
        }
        self.answer(Verdict::Ask, 0, 0)
    }

    /// Corrects a claim of `taken_at`: what was not used is held again as far as there is room in a lease (or in one such claim), what was
    /// used beyond is owed.
    pub fn settle(&self, reserved: u64, actual: u64, taken_at: Duration, now: Duration) {
        if reserved == actual || (actual < reserved && nanos(taken_at) < self.window_since.load(ACQUIRE)) {
            return;
        }
        let (back, more) = (reserved.saturating_sub(actual), actual.saturating_sub(reserved));
        if self.lost.load(ACQUIRE) {
            self.settle_local(back, more, nanos(now));
        } else if more > 0 {
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            // A debt of more than a burst is as good as any: it is paid before anything is admitted.
            let floor = -self.rate.burst().cast_signed();
            let _ = self.held.fetch_update(ACQ_REL, ACQUIRE, |held| Some(held.saturating_sub(more).max(floor.min(held))));
        } else {
            self.hold(back, self.settings.size.max(reserved));
        }
    }

    /// What to ask the central counter now, if anything. Whoever got a question answers it with [`granted`](Self::granted) or
    /// [`failed`](Self::failed); until then, or until the patience is over, nobody else gets one.
    pub fn wants(&self, now: Duration) -> Option<LeaseRequest> {
        if self.lost.load(ACQUIRE) {
            return None;
        }
        let (sent, now) = (now, nanos(now));
        let asked = self.asked.load(ACQUIRE);
        if asked != 0 && now < asked.saturating_add(nanos(self.settings.patience)) {
            return None;
        }
        let ended = now >= self.until.load(ACQUIRE);
        let (held, need) = (self.held.load(ACQUIRE), self.need.load(RELAXED));
        let short = ended || held < self.settings.low.max(need).cast_signed();
        let renews = short && (need > 0 || self.used.load(RELAXED)) && now >= self.not_before.load(ACQUIRE);
        let returns = (ended && held > 0) || self.unused.load(RELAXED) > 0 || self.spent.load(RELAXED) > 0;
        if !(renews || (ended && returns)) {
            return None;
        }
        self.asked.compare_exchange(asked, now.saturating_add(1), ACQ_REL, ACQUIRE).ok()?;
        if ended {
            self.drop_held(true);
        }
        let held = self.held.load(ACQUIRE);
        let goal = self.settings.size.max(need).cast_signed();
        let want = if renews { goal.saturating_sub(held).max(0).unsigned_abs() } else { 0 };
        Some(LeaseRequest {
            want,
            unused: self.unused.swap(0, ACQ_REL),
            window: self.window.load(RELAXED),
            lost_for: Duration::from_nanos(self.lost_for.swap(0, ACQ_REL)),
            spent: self.spent.swap(0, ACQ_REL),
            sent,
        })
    }

    /// The centre has answered `request`.
    pub fn granted(&self, request: &LeaseRequest, answer: &LeaseAnswer, now: Duration) {
        let (sent, now) = (nanos(request.sent), nanos(now));
        let _ = self.asked.compare_exchange(sent.saturating_add(1), 0, ACQ_REL, ACQUIRE);
        self.known.store(true, RELEASE);
        if self.lost.load(ACQUIRE) {
            // It is paid for, but the node lives on its share by now: with both it would hold two leases.
            return;
        }
        if self.window.swap(answer.window, ACQ_REL) != answer.window {
            self.window_since.store(sent, RELEASE);
            self.drop_held(false);
            self.unused.store(0, RELEASE);
        } else if now >= self.until.load(ACQUIRE) {
            // What requests gave back while the question was under way.
            self.drop_held(false);
        }
        self.left.store(answer.left, RELAXED);
        let need = self.need.swap(0, ACQ_REL);
        self.used.store(false, RELAXED);
        let short = answer.granted < request.want;
        let pause = now.saturating_add(nanos(answer.retry_after.max(self.settings.pause)));
        self.not_before.store(if short { pause } else { 0 }, RELEASE);
        // Counted from the question, so that it ends here before it ends at the centre.
        self.until.fetch_max(sent.saturating_add(nanos(answer.lasts)), ACQ_REL);
        self.hold(answer.granted, self.settings.size.max(need));
    }

    /// The question was not answered. It is not known whether it was heard, so what it brought back counts as gone.
    pub fn failed(&self, request: &LeaseRequest, now: Duration) {
        self.not_before.fetch_max(nanos(now).saturating_add(nanos(self.settings.pause)), ACQ_REL);
        add(&self.spent, request.spent);
        add(&self.lost_for, nanos(request.lost_for));
        let _ = self.asked.compare_exchange(nanos(request.sent).saturating_add(1), 0, ACQ_REL, ACQUIRE);
    }

    /// The store is gone: from now on the node admits its share of the rate, beginning with what it holds.
    pub fn lost(&self, now: Duration) {
        let now = nanos(now);
        if self.lost.load(ACQUIRE) {
            return;
        }
        let held = self.held.swap(0, ACQ_REL);
        let live = if now < self.until.load(ACQUIRE) { held } else { held.min(0) };
        let missing = self.settings.size.cast_signed().saturating_sub(live).max(0).unsigned_abs();
        self.local.store(now.saturating_add(missing.saturating_mul(self.interval())), RELEASE);
        self.lost_since.store(now, RELEASE);
        self.asked.store(0, RELEASE);
        self.lost.store(true, RELEASE);
    }

    /// The store is there again: what the local rate has left becomes the lease, and more is asked for as before.
    pub fn back(&self, now: Duration) {
        let (span, now) = (now, nanos(now));
        if self.lost.compare_exchange(true, false, ACQ_REL, ACQUIRE).is_err() {
            return;
        }
        let tat = self.local.swap(u64::MAX, ACQ_REL);
        let interval = self.interval();
        let room = self.settings.size.saturating_mul(interval);
        let level = room.saturating_sub(tat.saturating_sub(now)) / interval.max(1);
        // Who was born without the store does not know what others admitted before; it says "as long as can be".
        let away = if self.known.load(ACQUIRE) { now.saturating_sub(self.lost_since.load(ACQUIRE)) } else { u64::MAX };
        add(&self.lost_for, away);
        self.not_before.store(0, RELEASE);
        self.until.store(nanos(span.saturating_add(self.settings.life)), RELEASE);
        self.hold(level, self.settings.size);
    }

    /// What to bring back when the node stops; nothing is held afterwards.
    pub fn surrender(&self, now: Duration) -> LeaseRequest {
        self.drop_held(true);
        LeaseRequest {
            want: 0,
            unused: self.unused.swap(0, ACQ_REL),
            window: self.window.load(RELAXED),
            lost_for: Duration::from_nanos(self.lost_for.swap(0, ACQ_REL)),
            spent: self.spent.swap(0, ACQ_REL),
            sent: now,
        }
    }

    fn interval(&self) -> u64 {
        self.rate.interval().saturating_mul(u64::from(self.nodes.load(RELAXED)))
    }

    /// Adds tokens up to `most`; the rest is dropped.
    fn hold(&self, tokens: u64, most: u64) {
        let most = most.min(self.rate.burst()).cast_signed();
        let tokens = tokens.min(self.rate.burst()).cast_signed();
        let fits = |held: i64| most.saturating_sub(held).clamp(0, tokens);
        let _ = self.held.fetch_update(ACQ_REL, ACQUIRE, |held| Some(held + fits(held)));
    }

    /// Lets go of what is held, to be brought back or, of another window, for good. A debt stays.
    fn drop_held(&self, bring_back: bool) {
        let dropped = self.held.fetch_update(ACQ_REL, ACQUIRE, |held| (held > 0).then_some(0)).unwrap_or(0);
        if bring_back {
            self.unused.fetch_add(dropped.unsigned_abs(), ACQ_REL);
        }
    }

    /// A cost above the local burst passes when the burst is full and is then owed: else it could not pass while the store is away.
    fn take_local(&self, cost: u64, now: u64) -> Taken {
        let interval = self.interval();
        let tolerance = self.settings.size.saturating_mul(interval);
        let threshold = cost.min(self.settings.size).saturating_mul(interval);
        let mut tat = self.local.load(ACQUIRE);
        loop {
            let excess = tat.max(now).saturating_add(threshold).saturating_sub(now).saturating_sub(tolerance);
            if excess > 0 {
                let left = tolerance.saturating_sub(tat.saturating_sub(now)) / interval.max(1);
                return self.answer(Verdict::Later, left, excess);
            }
            let after = tat.max(now).saturating_add(cost.saturating_mul(interval));
            match self.local.compare_exchange_weak(tat, after, ACQ_REL, ACQUIRE) {
                Ok(_) => {
                    add(&self.spent, cost);
                    let left = tolerance.saturating_sub(after - now) / interval.max(1);
                    return self.answer(Verdict::Allowed, left, 0);
                }
                Err(other) => tat = other,
            }
        }
    }

    fn settle_local(&self, back: u64, more: u64, now: u64) {
        let interval = self.interval();
        let (less, add) = (back.saturating_mul(interval), more.min(self.rate.burst()).saturating_mul(interval));
        let moved = |tat: u64| if add > 0 { tat.max(now).saturating_add(add) } else { tat.saturating_sub(less) };
        let _ = self.local.fetch_update(ACQ_REL, ACQUIRE, |tat| Some(moved(tat)));
        let _ = self.spent.fetch_update(ACQ_REL, ACQUIRE, |spent| Some(spent.saturating_add(more).saturating_sub(back)));
    }

    fn answer(&self, verdict: Verdict, remaining: u64, wait: u64) -> Taken {
        let remaining = remaining.min(self.rate.burst());
        let reset = Duration::from_nanos((self.rate.burst() - remaining).saturating_mul(self.rate.interval()));
        Taken { verdict, remaining, retry_after: Duration::from_nanos(wait), reset }
    }
}

fn add(to: &AtomicU64, more: u64) {
    let _ = to.fetch_update(ACQ_REL, ACQUIRE, |value| Some(value.saturating_add(more)));
}
