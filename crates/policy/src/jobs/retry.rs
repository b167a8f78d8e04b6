//! When a job that failed runs again.

use std::time::Duration;

/// How often a job is tried, and how long it rests between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// The pause after the first failure.
    pub base: Duration,
    /// By what each further pause is longer; at least 1.
    pub factor: u32,
    /// The longest pause.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    /// 5 attempts; pauses of 1, 4, 16, 64 s, at most 10 minutes.
    fn default() -> Self {
        Self { max_attempts: 5, base: Duration::from_secs(1), factor: 4, cap: Duration::from_mins(10) }
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may go better next time.
    Retriable {
        /// Not before so long; from the one who refused.
        after: Option<Duration>,
    },
    /// The worker's process or the model's runner died, and was seen to: no pause, but an attempt is used.
    Died,
    /// It will fail in the same way again.
    Final,
}

/// What becomes of a job whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It runs again after this pause.
    Retry(Duration),
    /// It is a dead letter.
    Dead,
}

impl RetryPolicy {
    /// What follows a failure of attempt number `attempt` (1 is the first). `jitter` in `[0, 1)` takes up to a fifth off the pause, so that
    /// what failed together does not come back together.
    #[must_use]
    pub fn after(&self, attempt: u32, failure: Failure, jitter: f64) -> Next {
        if attempt >= self.max_attempts.max(1) {
            return Next::Dead;
        }
        match failure {
            Failure::Final => Next::Dead,
            Failure::Died => Next::Retry(Duration::ZERO),
            Failure::Retriable { after } => {
                let pause = self.pause(attempt).mul_f64(0.2f64.mul_add(-jitter.clamp(0.0, 1.0), 1.0));
                Next::Retry(pause.max(after.unwrap_or_default().min(self.cap.max(self.base))))
            }
        }
    }

    /// The pause after attempt number `attempt`, without jitter.
    #[must_use]
    pub fn pause(&self, attempt: u32) -> Duration {
        let factor = self.factor.max(1).saturating_pow(attempt.saturating_sub(1));
        self.base.saturating_mul(factor).min(self.cap)
    }
}
