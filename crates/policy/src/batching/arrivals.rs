//! How soon the next request may be expected, learned from arrivals alone.
//!
//! Arrivals are counted in two classes: those that come while fewer have arrived than were answered (a caller that waits for its
//! answer before it asks again is one of these), and the rest. Each class has a rate: arrivals by the time that passed in it, both
//! exponentially weighted. Open traffic has the same rate in both; callers in a closed loop have a high one in the first
//! and almost none in the second, which is what says "all are here, do not wait for more". Silence beyond a few executions
//! counts no further, so the first requests of a burst are not taken for stragglers. What follows is left to others.

/// The weight of older arrivals at each new one.
const FORGET: f64 = 1.0 - 1.0 / 24.0;
/// The same for the rate over bursts and pauses.
const FORGET_SLOWLY: f64 = 1.0 - 1.0 / 512.0;
/// Arrivals before a rate is believed.
const ENOUGH: f64 = 4.0;

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    arrivals: f64,
    exposure: f64,
}

/// The arrivals of one model. Times are nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    touched: u64,
    last: Option<u64>,
    silence: f64,
    /// Answers that nobody has followed up yet.
    credit: f64,
    classes: [Class; 2],
    overall: Class,
    rows: f64,
}

impl Arrivals {
    /// One item with `rows` came. Silence longer than `memorable` counts as that.
    pub(super) fn arrived(&mut self, rows: u32, memorable: f64, now: u64) {
        self.pass(memorable, now);
        let at = self.class();
        let class = &mut self.classes[at];
        class.arrivals = class.arrivals * FORGET + 1.0;
        class.exposure *= FORGET;
        self.overall.arrivals = self.overall.arrivals * FORGET_SLOWLY + 1.0;
        self.overall.exposure *= FORGET_SLOWLY;
        self.rows += if self.last.is_none() { f64::from(rows) } else { (f64::from(rows) - self.rows) / 32.0 };
        self.credit = (self.credit - 1.0).max(0.0);
        self.silence = 0.0;
        self.last = Some(now);
    }

    /// `items` were answered.
    pub(super) fn answered(&mut self, items: usize, memorable: f64, now: u64) {
        self.pass(memorable, now);
        self.credit = self.credit * 0.875 + items as f64;
    }

    fn pass(&mut self, memorable: f64, now: u64) {
        if self.last.is_some() {
            let passed = now.saturating_sub(self.touched) as f64;
            self.overall.exposure += passed.min(512.0 * memorable);
            let passed = passed.min((memorable - self.silence).max(0.0));
            self.silence += passed;
            let at = self.class();
            self.classes[at].exposure += passed;
        }
        self.touched = self.touched.max(now);
    }

    fn class(&self) -> usize {
        usize::from(self.credit < 0.5)
    }

    /// Nanoseconds until the next arrival, as far as one may expect any.
    pub(super) fn gap(&self, now: u64) -> Option<f64> {
        let class = &self.classes[self.class()];
        // The silence since the last event counts, or a burst's end would go unnoticed until the next event.
        let quiet = now.saturating_sub(self.touched) as f64;
        (class.arrivals >= ENOUGH || self.classes[0].arrivals + self.classes[1].arrivals >= 4.0 * ENOUGH)
            .then(|| (class.exposure + quiet) / class.arrivals.max(0.01))
    }

    /// When the last item came, or an answer went.
    pub(super) const fn touched(&self) -> u64 {
        self.touched
    }

    /// Items for each nanosecond, over bursts and pauses.
    pub(super) fn rate(&self) -> f64 {
        if self.overall.arrivals < ENOUGH { 0.0 } else { self.overall.arrivals / self.overall.exposure.max(1.0) }
    }

    /// Those for each nanosecond who come although nobody was just answered.
    pub(super) fn unasked(&self) -> f64 {
        let [_, class] = self.classes;
        if class.exposure > 0.0 { class.arrivals / class.exposure } else { 0.0 }
    }

    /// Rows of an average item, at least one.
    pub(super) fn rows(&self) -> f64 {
        self.rows.max(1.0)
    }
}
