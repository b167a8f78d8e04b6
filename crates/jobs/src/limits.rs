//! What jobs may cost, and how long things are kept.

use std::time::Duration;

use plinth_types::ByteSize;

/// Limits of jobs; the defaults are those of the configuration.
#[derive(Debug, Clone)]
pub struct JobLimits {
    /// The largest input.
    pub max_input: ByteSize,
    /// The largest result.
    pub max_result: ByteSize,
    /// What is larger is kept in the object store.
    pub inline: ByteSize,
    /// How long a job is kept after its end.
    pub keep: Duration,
    /// How long an idempotency key is kept.
    pub keep_keys: Duration,
    /// How long one attempt may take that does not say.
    pub timeout: Duration,
    /// The most jobs of one tenant that wait.
    pub max_waiting: u64,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            max_input: ByteSize::mib(64),
            max_result: ByteSize::mib(256),
            inline: ByteSize::kib(64),
            keep: Duration::from_hours(72),
            keep_keys: Duration::from_hours(24),
            timeout: Duration::from_mins(10),
            max_waiting: 2_000_000,
        }
    }
}

/// Jobs of one submission.
pub const MAX_JOBS: usize = 1000;
/// Jobs that one may wait for.
pub const MAX_WAITS_FOR: usize = 1000;
/// Bytes of an idempotency key.
pub const MAX_KEY: usize = 255;
/// Bytes of all labels together.
pub const MAX_LABELS: usize = 1024;
/// The longest an attempt may take.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(24 * 7);
/// The longest a job may be kept.
pub const MAX_KEEP: Duration = Duration::from_hours(24 * 365);
/// The most attempts.
pub const MAX_ATTEMPTS: u32 = 100;
