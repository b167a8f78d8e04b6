//! The queue in front of one upstream: who may be sent on, who waits, who is refused at once.
//!
//! The decisions are `plinth_policy::overload::Admission`'s; here is what turns them into waiting and waking. Invariants: a request that was
//! let in holds a [`Pass`] until it is done, and gives it back however it ends; one that waits is told exactly once, and takes itself out
//! when its caller goes away; while nobody waits, entering and leaving are one atomic write each, with no lock and no allocation (about 20 ns together,
//! `cargo run --release -p plinth-gateway --example admission`). Never more are let in than the limit says, but for one that was lowered, and for as many as
//! there are processors in the moment in which a queue begins.
//!
//! The limit is the caller's to bring, with each request: it is what the endpoints have been measured to bear. So are the bounds of waiting, which
//! follow the upstream's own latency ([`Gate::room`]).

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_policy::overload::Request as Asked;
use plinth_policy::overload::{
    Admission, AdmissionSettings, Answers, CRITICALITIES, Criticality, Done, Loss, Offer, RefuseReason, Room, Ticket,
};
use plinth_runtime::Clock;
use slab::Slab;
use tokio::sync::oneshot;

/// What a request of weight 1 costs; a tenant of weight `n` pays an `n`th of it.
const COST: u64 = 1 << 16;
/// How long a request without a deadline waits at most.
const LONGEST: Duration = Duration::from_secs(30);

/// How urgent a request is, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urgency {
    /// Its class.
    pub class: Criticality,
    /// The tenant's place in the key ring's table.
    pub tenant: u32,
    /// The tenant's share against others.
    pub weight: u32,
}

impl Default for Urgency {
    fn default() -> Self {
        Self { class: Criticality::Default, tenant: 0, weight: 1 }
    }
}

/// A request that asks to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Whose turn it is.
    pub urgency: Urgency,
    /// What it keeps in memory while it waits.
    pub bytes: u64,
    /// For how long its answer is worth anything.
    pub left: Option<Duration>,
    /// How many the upstream bears at a time.
    pub limit: u32,
    /// What the upstream takes for an answer.
    pub latency: Duration,
}

/// Why a request was not let in, and when it may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// Why.
    pub why: Why,
    /// When it may come again, at the soonest.
    pub come_back: Duration,
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// As many wait as make sense, or it has waited as long as makes sense.
    Full,
    /// The same, of its tenant's part.
    TenantFull,
    /// Its time is over.
    Expired,
}

impl From<RefuseReason> for Why {
    fn from(reason: RefuseReason) -> Self {
        match reason {
            RefuseReason::Full => Self::Full,
            RefuseReason::TenantFull => Self::TenantFull,
            RefuseReason::Expired => Self::Expired,
        }
    }
}

impl From<Loss> for Why {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Expired => Self::Expired,
            Loss::Stale | Loss::Displaced => Self::Full,
        }
    }
}

/// The queue of one upstream.
pub struct Gate {
    clock: Arc<dyn Clock>,
    /// Let in and not done.
    in_use: AtomicU32,
    limit: AtomicU32,
    /// How many each class may bring `in_use` to.
    parts: [AtomicU32; 4],
    /// Somebody waits, or is about to: everybody takes the lock.
    crowded: AtomicBool,
    /// Refused since that was said last, and when it was, in seconds.
    refused: AtomicU64,
    said: AtomicU64,
    book: Mutex<Book>,
}

struct Book {
    admission: Admission,
    waiting: Slab<Waiter>,
    answers: Answers,
}

struct Waiter {
    tell: oneshot::Sender<Result<(), Turned>>,
    class: Criticality,
}

/// A request that was let in. Dropped when it is done.
pub struct Pass {
    gate: Arc<Gate>,
    urgency: Urgency,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.leave(self.urgency);
    }
}

impl Gate {
    /// An empty queue.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let admission = Admission::new(AdmissionSettings::default(), 1);
        let book = Book { admission, waiting: Slab::new(), answers: Answers::default() };
        Arc::new(Self {
            clock,
            in_use: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            parts: Default::default(),
            crowded: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            said: AtomicU64::new(0),
            book: Mutex::new(book),
        })
    }

    /// Lets a request in, as soon as it is its turn. Cancel safe: a dropped call is out of the queue.
    ///
    /// # Errors
    /// At once when waiting makes no sense; later when it has turned out so.
    pub async fn enter(self: &Arc<Self>, ask: Ask) -> Result<Pass, Turned> {
        self.follow(ask.limit.max(1));
        if !self.crowded.load(SeqCst) && self.take(ask.urgency.class) {
            return Ok(self.pass(ask.urgency));
        }
        // Who is refused at once costs as little as can be.
        match self.offer(&ask)? {
            None => Ok(self.pass(ask.urgency)),
            // On the heap, because it is rare and the future would be large.
            Some(place) => Box::pin(self.wait(place)).await,
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        if self.crowded.load(Relaxed) { self.lock().admission.waiting() } else { 0 }
    }

    /// Counts a refusal; how many there were when it is time to say so, which is once a second at most.
    pub fn refused(&self) -> Option<u64> {
        self.refused.fetch_add(1, Relaxed);
        let (now, before) = (self.clock.monotonic().as_secs() + 1, self.said.load(Relaxed));
        let is_time = now > before && self.said.compare_exchange(before, now, Relaxed, Relaxed).is_ok();
        is_time.then(|| self.refused.swap(0, Relaxed))
    }

    fn pass(self: &Arc<Self>, urgency: Urgency) -> Pass {
        Pass { gate: self.clone(), urgency }
    }

    fn follow(&self, limit: u32) {
        if self.limit.load(Relaxed) == limit {
            return;
        }
        self.limit.store(limit, Relaxed);
        for class in CRITICALITIES {
            let part = f64::from(limit) * AdmissionSettings::default().hold_back[class.index()];
            self.parts[class.index()].store((part as u32).clamp(1, limit), Relaxed);
        }
    }

    fn take(&self, class: Criticality) -> bool {
        let part = self.parts[class.index()].load(Relaxed);
        self.in_use.try_update(SeqCst, Relaxed, |in_use| (in_use < part).then_some(in_use + 1)).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may wait and for how long, for an upstream of this latency and limit.
    ///
    /// A burst of four times what it takes at once may wait. When somebody has waited without a break for twice its latency (100 ms to 1 s), that
    /// is no burst any more: the newest go first, nobody waits for more than a tenth of the latency (2 to 250 ms), and no more than are served
    /// in that time (16 at least, so that several tenants can be among them). So those who are served are served about as fast as always, and the others know at once.
    fn room(limit: u32, latency: Duration) -> Room {
        let (ms, limit) = (Duration::from_millis, limit as usize);
        Room {
            most: limit.saturating_mul(4).clamp(64, 1024),
            standing: latency.saturating_mul(2).clamp(ms(100), ms(1000)),
            patience: (latency / 10).clamp(ms(2), ms(250)),
            most_overloaded: (limit / 8).max(16),
        }
    }

    async fn wait(self: &Arc<Self>, mut place: Place<'_>) -> Result<Pass, Turned> {
        loop {
            // `None`: the answer is there.
            let due = self.lock().admission.due(place.ticket);
            let pause = due.map_or(Duration::MAX, |due| due.saturating_sub(self.clock.monotonic()));
            tokio::select! {
                biased;
                said = &mut place.told => {
                    place.over = true;
                    let lost = Turned { why: Why::Full, come_back: Duration::from_secs(1) };
                    return said.unwrap_or(Err(lost)).map(|()| self.pass(place.urgency));
                }
                () = tokio::time::sleep(pause) => self.look(),
            }
        }
    }

    /// The place of one that waits, or `None` when it was let in.
    fn offer<'g>(self: &'g Arc<Self>, ask: &Ask) -> Result<Option<Place<'g>>, Turned> {
        let mut book = self.lock();
        // Before counting: whoever leaves from now on either is counted as gone, or takes the lock after this.
        self.crowded.store(true, SeqCst);
        let now = self.clock.monotonic();
        book.admission.set_room(Self::room(ask.limit, ask.latency));
        self.count(&mut book, now, 0);
        let Urgency { class, tenant, weight } = ask.urgency;
        let cost = COST / u64::from(weight.max(1));
        let deadline = now.saturating_add(ask.left.map_or(LONGEST, |left| left.min(LONGEST)));
        let Book { admission, waiting, answers } = &mut *book;
        let key = waiting.vacant_key();
        let asked = Asked { tenant, criticality: class, cost, bytes: ask.bytes, deadline, id: key as u64 };
        let result = match admission.offer(now, asked, answers) {
            Offer::Enter => {
                self.in_use.fetch_add(1, SeqCst);
                Ok(None)
            }
            Offer::Wait(ticket) => {
                let (tell, told) = oneshot::channel();
                waiting.insert(Waiter { tell, class });
                Ok(Some(Place { gate: self, ticket, key, urgency: ask.urgency, told, over: false }))
            }
            Offer::Refuse(why, come_back) => Err(Turned { why: why.into(), come_back }),
        };
        self.tell(&mut book, now);
        result
    }

    /// Tells the queue how many are let in now (and `more`) and what the limit is; whoever may begin by that does.
    fn count(&self, book: &mut Book, now: Duration, more: usize) {
        book.admission.set_in_use(self.in_use.load(SeqCst) as usize + more);
        book.admission.set_limit(now, self.limit.load(Relaxed) as usize, &mut book.answers);
    }

    /// Tells those who wait what became of them.
    fn tell(&self, book: &mut Book, now: Duration) {
        let mut answers = std::mem::take(&mut book.answers);
        for id in answers.entered.drain(..) {
            self.in_use.fetch_add(1, SeqCst);
            if let Some(waiter) = book.waiting.try_remove(id as usize) {
                // Its place sees to it when the caller has gone this very moment.
                let _ = waiter.tell.send(Ok(()));
            }
        }
        for dropped in answers.dropped.drain(..) {
            if let Some(waiter) = book.waiting.try_remove(dropped.id as usize) {
                let come_back = book.admission.come_back(waiter.class, now);
                let _ = waiter.tell.send(Err(Turned { why: dropped.loss.into(), come_back }));
            }
        }
        book.answers = answers;
        self.crowded.store(book.admission.waiting() > 0, SeqCst);
    }

    /// Drops whoever has waited too long.
    fn look(&self) {
        let mut book = self.lock();
        let now = self.clock.monotonic();
        self.count(&mut book, now, 0);
        let Book { admission, answers, .. } = &mut *book;
        admission.expired(now, answers);
        self.tell(&mut book, now);
    }

    fn leave(&self, urgency: Urgency) {
        self.in_use.fetch_sub(1, SeqCst);
        if !self.crowded.load(SeqCst) {
            return;
        }
        let mut book = self.lock();
        let now = self.clock.monotonic();
        self.count(&mut book, now, 1);
        let cost = COST / u64::from(urgency.weight.max(1));
        let done = Done { tenant: urgency.tenant, criticality: urgency.class, reserved: cost, actual: cost };
        let Book { admission, answers, .. } = &mut *book;
        admission.done(now, done, answers);
        self.tell(&mut book, now);
    }
}

/// One that waits; takes itself out when it is dropped.
struct Place<'a> {
    gate: &'a Arc<Gate>,
    ticket: Ticket,
    key: usize,
    urgency: Urgency,
    told: oneshot::Receiver<Result<(), Turned>>,
    /// It has got its answer.
    over: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let was_waiting = {
            let mut book = self.gate.lock();
            let was_waiting = book.admission.cancel(self.ticket);
            if was_waiting {
                book.waiting.try_remove(self.key);
                self.gate.crowded.store(book.admission.waiting() > 0, SeqCst);
            }
            was_waiting
        };
        // Let in at the moment in which its caller went away.
        if !was_waiting && matches!(self.told.try_recv(), Ok(Ok(()))) {
            self.gate.leave(self.urgency);
        }
    }
}

#[cfg(test)]
mod tests;
