//! What callers ask for: a job, a schedule. The node judges it; here nothing is checked.
//!
//! Invariant: what was not said is not sent, so that the node's own defaults hold.

use std::collections::BTreeMap;

use plinth_types::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// A job as a caller asks for it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewJob {
    /// What kind of work, such as `infer` or `http`.
    pub kind: String,
    /// A name within the submission, by which others wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of the kind `infer`: the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Of the kind `infer`: the version; the champion when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of the kind `http`: where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTarget>,
    /// What it works on, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<RawValue>>,
    /// `critical`, `default`, `sheddable` or `background`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Smaller goes first, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// Not before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Not before so many seconds have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// Worthless when it has not begun after so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<f64>,
    /// How long one attempt may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// How long it is kept after its end, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<f64>,
    /// How often it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Jobs that must end first: names within the submission, or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What becomes of it when one of those ends badly: `fail`, `run` or `cancel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// Where its end is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Words by which it is found.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a job of the kind `http` goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpTarget {
    /// The address.
    pub url: String,
    /// `POST`, `PUT`, `GET` or `DELETE`; `POST` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// How often a job is tried; what is absent is as usual for its kind.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Retry {
    /// Attempts in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The first pause, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_seconds: Option<f64>,
    /// By what each further pause is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
    /// The longest pause, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_seconds: Option<f64>,
}

/// Where the end of a job is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// The address.
    pub url: String,
    /// The name of the secret that signs; the tenant's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A schedule as a caller asks for it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewSchedule {
    /// When: `0 3 * * MON-FRI`, or `every 15m`.
    pub cron: String,
    /// The time zone, such as `Europe/Berlin`; UTC when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What becomes of ticks that passed while no node looked: `skip`, `once` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// Each job is put off by up to so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_seconds: Option<f64>,
    /// Whether it rests.
    pub paused: bool,
    /// What is submitted; its input lies beside it.
    pub job: NewJob,
    /// With this input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<RawValue>>,
}
