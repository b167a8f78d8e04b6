//! The bodies of the routes under `/api/v1`: jobs, their kinds, schedules.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `POST /api/v1/jobs` | a job, or `{"jobs": [...]}` | 202 [`Submitted`] |
//! | `GET /api/v1/jobs` `?kind= &state= &parent= &label= &cursor= &limit=` | | [`super::Page`] of [`Job`] |
//! | `GET /api/v1/jobs/{id}` `?wait=SECONDS` | | [`Job`]; `Retry-After` while it has not ended |
//! | `GET /api/v1/jobs/{id}/result` | | the result's bytes; 202 while there is none |
//! | `GET /api/v1/jobs/{id}/input` | | the input's bytes |
//! | `GET /api/v1/jobs/{id}/events` | | server-sent events, resumed by `Last-Event-ID` |
//! | `GET /api/v1/jobs/{id}/attempts` | | list of [`Attempt`] |
//! | `POST /api/v1/jobs/{id}/cancel` | | [`Job`] |
//! | `POST /api/v1/jobs/{id}/replay`, `POST /api/v1/jobs/replay` | [`Replay`] | [`Replayed`] |
//! | `GET /api/v1/job-counts` | | list of [`Count`] |
//! | `GET /api/v1/job-kinds`, `PUT /api/v1/job-kinds/{kind}` | [`KindSettings`] | list of, or one |
//! | `GET /api/v1/schedules`, `PUT`, `DELETE /api/v1/schedules/{name}` | [`Schedule`] | list of, or one |
//! | `POST /api/v1/webhook-secrets/{name}/rotate` | | [`NewSecret`] |

use std::collections::BTreeMap;

use plinth_types::{Reason, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a submission did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job; the first one of several.
    pub id: String,
    /// All jobs, in the order in which they were asked for.
    pub ids: Vec<String>,
    /// Whether they were there before, under the same idempotency key.
    pub replayed: bool,
}

/// Why an attempt or a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The registered reason.
    pub reason: Reason,
    /// In words.
    pub detail: String,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What kind of work.
    pub kind: String,
    /// `blocked`, `scheduled`, `ready`, `running`, `succeeded`, `dead` or `cancelled`.
    pub state: String,
    /// `critical`, `default`, `sheddable` or `background`.
    pub class: String,
    /// Smaller goes first.
    pub priority: i16,
    /// Which attempt runs or ran last.
    pub attempt: u32,
    /// How many there are at most.
    pub max_attempts: u32,
    /// How much is done, 0 to 1.
    pub progress: f64,
    /// How many of its kind are to begin before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Seconds until it begins, as far as one can know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// For how many jobs it waits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits_for: u32,
    /// Whether somebody asked for its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_asked: bool,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Not before.
    pub run_at: Timestamp,
    /// When it last began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The job of which it is a part, or of which it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Who submitted it.
    pub actor: String,
    /// Words by which it is found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where its end is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Why it, or its last attempt, failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Bytes of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_size: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number.
    pub attempt: u32,
    /// Who ran it.
    pub worker: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it failed.
    pub error: Failure,
}

/// Which dead letters are to run again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// These.
    pub ids: Vec<String>,
    /// All of this kind.
    pub kind: Option<String>,
    /// All there are.
    pub all: bool,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// How many jobs run again.
    pub replayed: u64,
}

/// How many jobs of a kind are in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: String,
    /// How many.
    pub jobs: u64,
    /// When the oldest of them was submitted.
    pub oldest: Timestamp,
}

/// What holds for a kind, on all nodes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KindSettings {
    /// The kind; from the path when it is set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Whether none of it begins.
    pub paused: bool,
    /// At most so many at a time.
    pub concurrency: Option<u32>,
    /// At most so many begun in a second.
    pub rate_per_second: Option<f64>,
}

/// A schedule as it stands. What was asked for lies beside the times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it fires.
    pub cron: String,
    /// In this time zone.
    pub zone: String,
    /// Whether it rests.
    #[serde(default)]
    pub paused: bool,
    /// Its next tick.
    pub next_at: Option<Timestamp>,
    /// The last tick that fired.
    pub last_at: Option<Timestamp>,
    /// The rest of what was asked for.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A new secret that signs webhooks. Shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    /// Its name.
    pub name: String,
    /// `whsec_…`.
    pub secret: String,
}
