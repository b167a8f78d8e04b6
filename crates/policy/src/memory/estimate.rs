//! How much memory a version will take that was never loaded here.
//!
//! A process takes something before it has a model, and then some multiple of the model's files. Both are learned from what
//! was measured: the first from small versions, the second from large ones. A poor estimate costs an eviction too many or one
//! too late; after the first load the measured size stands in its place.

/// Files smaller than this say nothing of the factor.
const SMALL: u64 = 4 << 20;
/// How much a new observation weighs.
const WEIGHT: f64 = 0.25;

/// What was learned so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimator {
    base: f64,
    factor: f64,
}

impl Default for Estimator {
    /// A small process, and weights held twice at the most while they are prepared.
    fn default() -> Self {
        Self { base: 16.0 * 1024.0 * 1024.0, factor: 1.5 }
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; the results are clamped and never negative"
)]
impl Estimator {
    /// The bytes that a version with so many bytes of files will take.
    #[must_use]
    pub fn estimate(&self, files: u64) -> u64 {
        (self.base + self.factor * files as f64) as u64
    }

    /// Takes in what a loaded version was measured to take.
    pub fn learn(&mut self, files: u64, measured: u64) {
        if files < SMALL {
            let seen = (measured as f64 - self.factor * files as f64).clamp(1024.0 * 1024.0, 256.0 * 1024.0 * 1024.0);
            self.base += WEIGHT * (seen - self.base);
        } else {
            let seen = ((measured as f64 - self.base) / files as f64).clamp(0.25, 8.0);
            self.factor += WEIGHT * (seen - self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_the_base_from_small_and_the_factor_from_large_versions() {
        let (mut estimator, mib) = (Estimator::default(), 1u64 << 20);
        for _ in 0..40 {
            estimator.learn(10 << 10, 30 * mib);
            estimator.learn(500 * mib, 1030 * mib);
        }
        let near = |files: u64, expected: u64| estimator.estimate(files).abs_diff(expected) < expected / 50;
        assert!(near(0, 30 * mib) && near(100 * mib, 230 * mib), "{estimator:?}");
        // One odd model does not spoil it for good, nor make it absurd.
        estimator.learn(5 * mib, 1 << 60);
        assert!(estimator.estimate(100 * mib) < 500 * mib, "{estimator:?}");
    }
}
