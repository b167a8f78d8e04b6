//! What callers ask for, judged before anything is stored.
//!
//! Invariant: a [`Submit`] exists only when everything about it has been checked: names, sizes, times, circles, addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use plinth_net::outbound::Guard;
use plinth_policy::jobs::{RetryPolicy, order};
use plinth_queue::jobs::{JobId, JobIds, NewJob, OnFailure, Payload, Webhook};
use plinth_types::{Error, Label, Reason, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits::{JobLimits, MAX_ATTEMPTS, MAX_JOBS, MAX_KEEP, MAX_LABELS, MAX_TIMEOUT, MAX_WAITS_FOR};
use crate::webhooks::Address;
use crate::{Input, Kinds};

/// How often a job is tried.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    /// Attempts in all, 1 to 100.
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

impl RetryRequest {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the end is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// The address.
    pub url: String,
    /// The name of the secret that signs; the tenant's default when absent.
    #[serde(default)]
    pub secret: Option<String>,
}

/// A job as a caller asks for it, without its input.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobRequest {
    /// A name within the submission, by which others wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What kind of work.
    pub kind: String,
    /// `critical`, `default`, `sheddable` or `background`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Smaller goes first, -1000 to 1000.
    pub priority: i16,
    /// Not before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
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
    #[serde(skip_serializing_if = "RetryRequest::is_usual")]
    pub retry: RetryRequest,
    /// Jobs that must end first: names within the submission, or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What becomes of it when one of those ends badly.
    pub on_failure: OnFailure,
    /// Where its end is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookRequest>,
    /// Words by which it is found.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A job that was checked, with its input, which is not yet put away.
#[derive(Debug, Clone)]
pub struct Submit {
    /// The job; its payload is empty.
    pub(crate) job: NewJob,
    /// Its input.
    pub(crate) input: Input,
}

/// The classes by name, in order.
const CLASSES: [&str; 4] = ["critical", "default", "sheddable", "background"];

/// The number of a class.
pub(crate) fn class(name: &str) -> Result<u8> {
    let found = CLASSES.iter().position(|class| *class == name).and_then(|at| u8::try_from(at).ok());
    found.ok_or_else(|| invalid("class", format!("a class is one of {}", CLASSES.join(", "))))
}

fn invalid(field: &str, text: impl Into<String>) -> Error {
    Error::new(Reason::MalformedRequest, text).field(field)
}

fn seconds(field: &str, value: Option<f64>, longest: Duration) -> Result<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let duration = Duration::try_from_secs_f64(value).ok().filter(|duration| *duration <= longest);
    duration.map(Some).ok_or_else(|| invalid(field, format!("{field} is a number of seconds from 0 to {}", longest.as_secs())))
}

/// What checking needs to know.
pub(crate) struct Judge<'a> {
    pub(crate) kinds: &'a Kinds,
    pub(crate) limits: &'a JobLimits,
    pub(crate) ids: &'a JobIds,
    pub(crate) now: Timestamp,
    pub(crate) actor: &'a str,
    pub(crate) guard: &'a Guard,
}

impl Judge<'_> {
    /// Checks all jobs of a submission; they come back in an order in which each stands after those that it waits for, with the place that each had.
    pub(crate) fn all(&self, asked: Vec<(JobRequest, Input)>) -> Result<Vec<(usize, Submit)>> {
        if asked.is_empty() || asked.len() > MAX_JOBS {
            return Err(invalid("jobs", format!("a submission has 1 to {MAX_JOBS} jobs")));
        }
        let ids: Vec<JobId> = asked.iter().map(|_| self.ids.next()).collect();
        let mut names = BTreeMap::new();
        for (at, (job, _)) in asked.iter().enumerate() {
            if let Some(name) = &job.name
                && names.insert(name.clone(), at).is_some()
            {
                return Err(invalid(&format!("jobs[{at}].name"), "two jobs of a submission have the same name"));
            }
        }
        let mut waits_for = vec![Vec::new(); asked.len()];
        let mut checked = Vec::with_capacity(asked.len());
        for (at, ((job, input), id)) in asked.into_iter().zip(&ids).enumerate() {
            let mut after = Vec::with_capacity(job.after.len().min(MAX_WAITS_FOR));
            if job.after.len() > MAX_WAITS_FOR {
                return Err(invalid(&format!("jobs[{at}].after"), format!("a job waits for at most {MAX_WAITS_FOR} others")));
            }
            for word in &job.after {
                if let Some(other) = names.get(word) {
                    if let Some(list) = waits_for.get_mut(at) {
                        list.push(*other);
                    }
                    after.extend(ids.get(*other));
                } else {
                    let text = "'after' names a job of the same submission, or the id of one that exists";
                    after.push(word.parse().map_err(|_| invalid(&format!("jobs[{at}].after"), text))?);
                }
            }
            let job = self.one(job, *id, after).map_err(|error| at_job(error, at))?;
            if input.bytes.len() as u64 > self.limits.max_input.0 {
                let text = format!("the input of a job has at most {}", self.limits.max_input);
                return Err(Error::new(Reason::BodyTooLarge, text).field(format!("jobs[{at}].input")));
            }
            checked.push(Some((at, Submit { job, input })));
        }
        let order = order(&waits_for).map_err(|circle| {
            Error::new(Reason::DependencyCycle, format!("{circle}; a job may wait only for jobs that do not wait for it"))
                .field(format!("jobs[{}].after", circle.0))
        })?;
        Ok(order.into_iter().filter_map(|at| checked.get_mut(at).and_then(Option::take)).collect())
    }

    fn one(&self, asked: JobRequest, id: JobId, waits_for: Vec<JobId>) -> Result<NewJob> {
        let Some(handler) = self.kinds.get(&asked.kind) else {
            let known: Vec<_> = self.kinds.names().filter(|name| *name != plinth_queue::jobs::WEBHOOK_KIND).collect();
            let text = format!("there is no such kind of job; this node knows {}", known.join(", "));
            return Err(Error::new(Reason::JobKindUnknown, text).field("kind"));
        };
        if asked.kind == plinth_queue::jobs::WEBHOOK_KIND {
            return Err(Error::new(Reason::JobKindUnknown, "webhooks are made by Plinth itself; name one in another job").field("kind"));
        }
        if !(-1000..=1000).contains(&asked.priority) {
            return Err(invalid("priority", "a priority is a number from -1000 to 1000; smaller goes first"));
        }
        let delay = seconds("delay_seconds", asked.delay_seconds, MAX_KEEP)?;
        let run_at = match (&asked.run_at, delay) {
            (Some(_), Some(_)) => return Err(invalid("run_at", "give run_at or delay_seconds, not both")),
            (Some(text), None) => Some(text.parse().map_err(|error| invalid("run_at", format!("{error}")))?),
            (None, delay) => delay.map(|delay| self.now.plus(delay)),
        };
        let expires = seconds("expires_seconds", asked.expires_seconds, MAX_KEEP)?;
        let labels = labels(&asked.labels)?;
        let timeout = seconds("timeout_seconds", asked.timeout_seconds, MAX_TIMEOUT)?.unwrap_or(self.limits.timeout);
        if timeout.is_zero() {
            return Err(invalid("timeout_seconds", "an attempt needs more than no time"));
        }
        Ok(NewJob {
            id,
            kind: asked.kind,
            class: asked.class.as_deref().map_or(Ok(1), class)?,
            priority: asked.priority,
            run_at,
            expires_at: expires.map(|after| self.now.plus(after)),
            timeout_millis: millis(timeout),
            retry: retry(asked.retry, handler.retry())?,
            keep_millis: millis(seconds("keep_seconds", asked.keep_seconds, MAX_KEEP)?.unwrap_or(self.limits.keep)),
            actor: self.actor.to_owned(),
            parent: None,
            waits_for,
            on_failure: asked.on_failure,
            webhook: asked.webhook.map(|asked| webhook(asked, self.guard)).transpose()?,
            labels,
            payload: Payload { meta: String::new(), body: plinth_queue::jobs::Body::Inline(Vec::new()) },
        })
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn at_job(error: Error, at: usize) -> Error {
    let field = error.field_name().map_or_else(|| format!("jobs[{at}]"), |field| format!("jobs[{at}].{field}"));
    error.field(field)
}

fn retry(asked: RetryRequest, usual: RetryPolicy) -> Result<RetryPolicy> {
    let day = Duration::from_hours(24);
    let max_attempts = asked.attempts.unwrap_or(usual.max_attempts);
    if !(1..=MAX_ATTEMPTS).contains(&max_attempts) {
        return Err(invalid("retry.attempts", format!("a job has 1 to {MAX_ATTEMPTS} attempts")));
    }
    Ok(RetryPolicy {
        max_attempts,
        base: seconds("retry.base_seconds", asked.base_seconds, day)?.unwrap_or(usual.base),
        factor: asked.factor.unwrap_or(usual.factor).clamp(1, 100),
        cap: seconds("retry.cap_seconds", asked.cap_seconds, day)?.unwrap_or(usual.cap),
    })
}

fn webhook(asked: WebhookRequest, guard: &Guard) -> Result<Webhook> {
    if let Err(error) = Address::parse(&asked.url, guard) {
        return Err(Error::new(Reason::WebhookRefused, error.to_string()).field("webhook.url"));
    }
    if let Some(secret) = &asked.secret
        && secret.parse::<Label>().is_err()
    {
        return Err(invalid("webhook.secret", "this is the name of a secret, not the secret"));
    }
    Ok(Webhook { url: asked.url, secret: asked.secret })
}

/// Labels as `name=value`, joined by spaces.
fn labels(asked: &BTreeMap<String, String>) -> Result<String> {
    let plain = |text: &str| !text.is_empty() && text.len() <= 128 && text.chars().all(|c| c.is_alphanumeric() || "._-/:@+".contains(c));
    if asked.iter().any(|(name, value)| !plain(name) || !plain(value)) {
        return Err(invalid("labels", "labels and their values have 1 to 128 letters, digits and . _ - / : @ +"));
    }
    let text = asked.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
    if text.len() > MAX_LABELS { Err(invalid("labels", format!("labels have at most {MAX_LABELS} characters together"))) } else { Ok(text) }
}
