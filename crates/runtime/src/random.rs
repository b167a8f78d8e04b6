//! Randomness behind a trait: the system's for life, a seeded one for tests that must repeat.

use std::sync::{Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A source of random bytes.
pub trait Random: Send + Sync {
    /// Fills `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The operating system's generator; fit for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// When the operating system has no randomness to give: no secret may be made then.
    #[allow(clippy::expect_used, reason = "a node without randomness must not make keys")]
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives random bytes");
    }

    /// From a generator of this thread that the operating system seeds and reseeds: numbers are drawn for every request, and a call
    /// of the system for each is too dear.
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// A generator that gives the same bytes for the same seed. Never for keys.
#[derive(Debug)]
pub struct SeededRandom(Mutex<SmallRng>);

impl SeededRandom {
    /// A generator from a seed; print the seed when a test fails.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        assert_eq!(SeededRandom::new(7).next_u64(), SeededRandom::new(7).next_u64());
        assert_ne!(SystemRandom.next_u64(), SystemRandom.next_u64());
    }
}
