//! What an execution costs, learned from executions alone.
//!
//! Two views are kept: a line `a + b * rows`, fitted by exponentially weighted least squares, and a table with one cell for each
//! number of rows that was really run. A fresh cell outweighs the line, so cliffs and steps cost nothing in accuracy; where
//! there is no cell, neighbours and then the line answer; a cell that has not been confirmed for long loses its weight to the
//! line, so the model follows drift. Single outliers are clipped, a lasting change of level is believed after a few executions.
//! Invariant: an estimate is finite and positive. Whom the time is charged to, and what follows from it, is left to others.

/// Rows up to which single sizes are remembered; larger ones share the line.
const CELLS: u32 = 1_024;
/// Executions before an estimate may justify dropping a request or waiting on purpose.
const ENOUGH: u32 = 8;
/// What an execution's weight in the line falls to with each further one.
const FORGET: f64 = 0.98;
/// The newest execution's share in its cell and in the deviation, at least.
const NEWEST: f64 = 1.0 / 16.0;
/// A cell's weight falls to a quarter after so many executions of other sizes.
const FADES: f64 = 256.0;
/// So many outliers to the same side are a new level.
const BELIEVED: usize = 5;

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    mean: f64,
    count: u32,
    seen: u64,
}

/// The learned cost of one group of items. Times are nanoseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Cost {
    cells: Vec<Cell>,
    known: Vec<u32>,
    executions: u64,
    /// Outliers in a row, and how far off they were.
    outliers: usize,
    ratios: [f64; BELIEVED],
    /// Weighted sums for the line, times in nanoseconds.
    weight: f64,
    mean_x: f64,
    mean_y: f64,
    var_x: f64,
    cov: f64,
    /// Mean absolute deviation, as a share of the estimate.
    deviation: f64,
    /// Rows for each nanosecond at the best size.
    best_rate: f64,
}

impl Cost {
    /// Takes one execution in. `max_rows` is the largest batch there can be.
    pub(super) fn observe(&mut self, rows: u32, took: u64, max_rows: u32) {
        let mut y = (took as f64).max(1.0);
        self.executions += 1;
        let believed = self.cells.get(rows as usize).is_some_and(|cell| cell.count >= 2);
        if let Some(expected) = self.mean(rows).filter(|_| believed) {
            let reach = 4.0 * self.deviation.max(0.05) * expected;
            if (y - expected).abs() <= reach {
                self.outliers = 0;
            } else {
                self.is_outlier(y / expected);
            }
            // After a shift the expectation is another one, and what just came fits it.
            let expected = self.mean(rows).unwrap_or(expected);
            let reach = 4.0 * self.deviation.max(0.05) * expected;
            y = y.clamp((expected - reach).max(1.0), expected + reach);
            let share = NEWEST.max(1.0 / (self.executions.min(1_000) as f64));
            self.deviation += share * ((y - expected).abs() / expected - self.deviation);
            self.deviation = self.deviation.clamp(0.0, 2.0);
        }
        self.line_takes(f64::from(rows), y);
        if rows <= CELLS {
            self.cell_takes(rows, y);
        }
        if self.executions < 32 || self.executions.is_multiple_of(16) {
            let sizes = (0..31).map(|power| 1u32 << power).take_while(|size| *size < max_rows).chain([rows, max_rows]);
            let rate = |size: u32| self.mean(size).map_or(0.0, |mean| f64::from(size) / mean);
            self.best_rate = sizes.map(rate).fold(0.0, f64::max);
        }
    }

    /// One outlier is an accident; several in a row to the same side are a new level, and then every size is taken to have changed alike
    /// until it is run again.
    fn is_outlier(&mut self, ratio: f64) {
        if self.outliers > 0 && (self.ratios[0] > 1.0) != (ratio > 1.0) {
            self.outliers = 0;
        }
        self.ratios[self.outliers] = ratio;
        self.outliers += 1;
        if self.outliers < BELIEVED {
            return;
        }
        self.outliers = 0;
        let mut sorted = self.ratios;
        sorted.sort_by(f64::total_cmp);
        let factor = sorted[BELIEVED / 2];
        self.mean_y *= factor;
        self.cov *= factor;
        for cell in &mut self.cells {
            cell.mean *= factor;
            cell.count = cell.count.min(3);
        }
    }

    /// The most rows for each nanosecond that a lane reaches, whatever the size.
    pub(super) const fn best_rate(&self) -> f64 {
        self.best_rate
    }

    fn line_takes(&mut self, x: f64, y: f64) {
        self.weight = self.weight * FORGET + 1.0;
        let share = 1.0 / self.weight;
        let (dx, dy) = (x - self.mean_x, y - self.mean_y);
        self.mean_x += share * dx;
        self.mean_y += share * dy;
        self.var_x = (1.0 - share) * (self.var_x + share * dx * dx);
        self.cov = (1.0 - share) * (self.cov + share * dx * dy);
    }

    fn cell_takes(&mut self, rows: u32, y: f64) {
        let at = rows as usize;
        if self.cells.len() <= at {
            self.cells.resize(at + 1, Cell::default());
        }
        let now = self.executions;
        let cell = &mut self.cells[at];
        if cell.count == 0
            && let Err(place) = self.known.binary_search(&rows)
        {
            self.known.insert(place, rows);
        }
        let share = NEWEST.max(1.0 / f64::from(cell.count + 1));
        cell.mean += share * (y - cell.mean);
        cell.count = (cell.count + 1).min(1_000);
        cell.seen = now;
    }

    /// The fixed part and the part for each row, both in nanoseconds and neither negative. A slope is only as sure as the
    /// sizes that were seen are varied: with one size alone, half of the time is taken for fixed.
    pub(super) fn line(&self) -> Option<(f64, f64)> {
        if self.executions == 0 {
            return None;
        }
        let guess = 0.5 * self.mean_y / self.mean_x.max(1.0);
        let doubt = 0.01 * self.mean_x * self.mean_x;
        let slope = ((self.cov + doubt * guess) / (self.var_x + doubt).max(1e-9)).max(0.0);
        let fixed = self.mean_y - slope * self.mean_x;
        if fixed >= 0.0 { Some((fixed, slope)) } else { Some((0.0, self.mean_y / self.mean_x.max(1.0))) }
    }

    /// The expected time of an execution of `rows`.
    pub(super) fn mean(&self, rows: u32) -> Option<f64> {
        let (fixed, slope) = self.line()?;
        let line = (fixed + slope * f64::from(rows)).max(1.0);
        if let Some(cell) = self.cells.get(rows as usize).filter(|cell| cell.count > 0) {
            let weight = self.trust(cell);
            return Some((weight * cell.mean + line) / (weight + 1.0));
        }
        let place = self.known.partition_point(|known| *known < rows);
        let below = place.checked_sub(1).and_then(|p| self.known.get(p)).map(|known| self.confirmed(*known, fixed, slope));
        let above = self.known.get(place).map(|known| self.confirmed(*known, fixed, slope));
        let x = f64::from(rows);
        let value = match (below, above) {
            (Some((low, at_low)), Some((high, at_high))) => at_low + (at_high - at_low) * (x - low) / (high - low),
            (Some((low, at_low)), None) => at_low + slope * (x - low),
            (None, Some((high, at_high))) => (at_high - slope * (high - x)).max(at_high * 0.05),
            (None, None) => line,
        };
        Some(value.max(1.0))
    }

    fn confirmed(&self, rows: u32, fixed: f64, slope: f64) -> (f64, f64) {
        let line = fixed + slope * f64::from(rows);
        let at = self.cells.get(rows as usize).map_or(line, |cell| {
            let weight = self.trust(cell);
            (weight * cell.mean + line) / (weight + 1.0)
        });
        (f64::from(rows), at)
    }

    fn trust(&self, cell: &Cell) -> f64 {
        let age = self.executions.saturating_sub(cell.seen) as f64;
        8.0 * f64::from(cell.count.min(16)) * (FADES / (FADES + age)).powi(2)
    }

    /// A time within which an execution very probably ends: what a request in a batch must still have.
    pub(super) fn likely(&self, rows: u32) -> Option<f64> {
        self.mean(rows).map(|mean| mean * (1.0 + 1.5 * self.deviation))
    }

    /// A time below which an execution hardly ever ends: whoever has less cannot be served. Zero as long as too little is known.
    pub(super) fn at_best(&self, rows: u32) -> f64 {
        if !self.is_known() {
            return 0.0;
        }
        self.mean(rows).map_or(0.0, |mean| mean * (1.0 - 3.0 * self.deviation).max(0.3))
    }

    /// Whether enough was seen to act on.
    pub(super) fn is_known(&self) -> bool {
        self.executions >= u64::from(ENOUGH)
    }
}

#[cfg(test)]
mod tests;
