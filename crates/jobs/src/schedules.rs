//! Schedules: jobs that are submitted by the clock.
//!
//! Invariant: a tick fires once, however many nodes look: the ledger moves a schedule from the tick that was seen and stores its jobs in one
//! transaction. When nobody looked for a while the rule of the schedule says what becomes of the ticks that passed.

use std::time::Duration;

use bytes::Bytes;
use plinth_queue::jobs::{JobId, ScheduleRow};
use plinth_schedule::{CatchUp, Schedule, jitter, seed};
use plinth_types::{Error, Label, Reason, Result, TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::request::JobRequest;
use crate::{Input, JobService, META_TYPE, Meta};

/// Schedules of one tenant.
const MAX_SCHEDULES: usize = 1000;
/// The largest input of a schedule's jobs, in bytes.
const MAX_INPUT: usize = 64 << 10;

/// What becomes of ticks that passed while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUpRule {
    /// They are given up.
    Skip,
    /// One job for all of them.
    #[default]
    Once,
    /// A job for each, at most a hundred.
    All,
}

/// A schedule as a caller asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// When: a cron expression such as `0 3 * * MON-FRI`, or `every 15m`.
    pub cron: String,
    /// The time zone, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub zone: String,
    /// What becomes of ticks that passed while nobody looked.
    #[serde(default)]
    pub catch_up: CatchUpRule,
    /// Each job is put off by up to so many seconds, always the same for a tick.
    #[serde(default)]
    pub jitter_seconds: f64,
    /// Whether it rests.
    #[serde(default)]
    pub paused: bool,
    /// What is submitted.
    #[serde(default)]
    pub job: JobRequest,
    /// What the kind wants beside the input, such as the model.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub more: serde_json::Map<String, serde_json::Value>,
    /// With this input.
    #[serde(default)]
    pub input: Option<Box<RawValue>>,
}

fn utc() -> String {
    "UTC".into()
}

/// A schedule as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// What was asked for.
    #[serde(flatten)]
    pub request: ScheduleRequest,
    /// Its next tick.
    pub next_at: Option<Timestamp>,
    /// The last tick that fired.
    pub last_at: Option<Timestamp>,
}

fn invalid(field: &str, text: impl Into<String>) -> Error {
    Error::new(Reason::InvalidSchedule, text).field(field)
}

impl JobService {
    /// Stores or replaces a schedule. Its first tick lies in the future.
    ///
    /// # Errors
    /// [`Reason::InvalidSchedule`] with the field, what is wrong with the job, [`Reason::StoreUnavailable`].
    pub async fn put_schedule(&self, tenant: &TenantName, actor: &str, name: &str, request: ScheduleRequest) -> Result<ScheduleView> {
        name.parse::<Label>().map_err(|error| invalid("name", error.to_string()))?;
        let schedule = Schedule::parse(&request.cron, &request.zone).map_err(|error| invalid("cron", error.to_string()))?;
        if !(0.0..=86_400.0).contains(&request.jitter_seconds) {
            return Err(invalid("jitter_seconds", "jitter is a number of seconds from 0 to 86400"));
        }
        if request.input.as_ref().is_some_and(|input| input.get().len() > MAX_INPUT) {
            return Err(invalid("input", format!("the input of a schedule's jobs has at most {MAX_INPUT} bytes")));
        }
        if !request.job.after.is_empty() || request.job.name.is_some() || request.job.run_at.is_some() {
            return Err(invalid("job", "a schedule's job has no name, no run_at and waits for no others"));
        }
        // Judged now, so that what it submits is not refused at night.
        self.judge(actor).all(vec![(request.job.clone(), input(&request))])?;
        let existing = self.ledger().schedules(Some(tenant)).await.map_err(|error| self.failed(error))?;
        if existing.len() >= MAX_SCHEDULES && !existing.iter().any(|row| row.name == name) {
            return Err(invalid("name", format!("a tenant has at most {MAX_SCHEDULES} schedules")));
        }
        let now = self.world().clock.now();
        let next_at = if request.paused { None } else { schedule.next_after(now) };
        let last_at = existing.iter().find(|row| row.name == name).and_then(|row| row.last_at);
        let spec = serde_json::to_string(&request).map_err(|error| Error::internal("a schedule").source(error))?;
        let row = ScheduleRow { tenant: tenant.clone(), name: name.to_owned(), spec, next_at, last_at };
        self.ledger().put_schedule(row).await.map_err(|error| self.failed(error))?;
        Ok(ScheduleView { name: name.to_owned(), request, next_at, last_at })
    }

    /// All schedules of a tenant, by name.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn schedules(&self, tenant: &TenantName) -> Result<Vec<ScheduleView>> {
        let rows = self.ledger().schedules(Some(tenant)).await.map_err(|error| self.failed(error))?;
        rows.into_iter().map(view).collect()
    }

    /// Forgets a schedule. Jobs that it has submitted go on.
    ///
    /// # Errors
    /// [`Reason::RecordNotFound`], [`Reason::StoreUnavailable`].
    pub async fn delete_schedule(&self, tenant: &TenantName, name: &str) -> Result<()> {
        let deleted = self.ledger().delete_schedule(tenant, name).await.map_err(|error| self.failed(error))?;
        if deleted { Ok(()) } else { Err(Error::new(Reason::RecordNotFound, "there is no schedule of this name")) }
    }
}

fn view(row: ScheduleRow) -> Result<ScheduleView> {
    let request = serde_json::from_str(&row.spec).map_err(|error| Error::internal("a schedule in the ledger").source(error))?;
    Ok(ScheduleView { name: row.name, request, next_at: row.next_at, last_at: row.last_at })
}

fn input(request: &ScheduleRequest) -> Input {
    let bytes = request.input.as_ref().map_or_else(Bytes::new, |input| Bytes::copy_from_slice(input.get().as_bytes()));
    Input { meta: Meta { more: request.more.clone(), ..Meta::of(META_TYPE) }, bytes }
}

/// Fires what is due on all tenants' schedules.
pub(crate) async fn tick(service: &JobService) -> Result<()> {
    let now = service.world().clock.now();
    let rows = service.ledger().schedules(None).await.map_err(|error| service.failed(error))?;
    for row in rows {
        let Some(seen) = row.next_at.filter(|next| *next <= now) else { continue };
        let name = row.name.clone();
        if let Err(error) = fire(service, row, seen, now).await {
            tracing::warn!(schedule = name, cause = error.log_text(), "a schedule cannot fire");
        }
    }
    Ok(())
}

async fn fire(service: &JobService, row: ScheduleRow, seen: Timestamp, now: Timestamp) -> Result<()> {
    let (tenant, name) = (row.tenant.clone(), row.name.clone());
    let request = view(row)?.request;
    let schedule = Schedule::parse(&request.cron, &request.zone).map_err(|error| invalid("cron", error.to_string()))?;
    let rule = match request.catch_up {
        CatchUpRule::Skip => CatchUp::Skip,
        CatchUpRule::Once => CatchUp::Once,
        CatchUpRule::All => CatchUp::All { at_most: 100 },
    };
    // Everything before the tick that was seen has been judged.
    let before = Timestamp::from_millis(seen.millis().saturating_sub(1)).unwrap_or(seen);
    let due = schedule.due(before, now, rule);
    let mut jobs = Vec::with_capacity(due.ticks.len());
    let window = Duration::try_from_secs_f64(request.jitter_seconds).unwrap_or_default();
    for tick in &due.ticks {
        let mut job = request.job.clone();
        job.labels.insert("schedule".into(), name.clone());
        let checked = service.judge("schedule").all(vec![(job, input(&request))])?;
        for (_, submit) in checked {
            let mut job = submit.job;
            job.payload = service.blobs().keep(&submit.input.meta, submit.input.bytes).await?;
            if !window.is_zero() {
                let put_off = jitter(seed(&[tenant.as_str(), &name, &tick.to_string()]), window);
                job.run_at = Some(tick.plus(put_off)).filter(|at| *at > now);
            }
            jobs.push(job);
        }
    }
    let kinds: Vec<(JobId, String)> = jobs.iter().map(|job| (job.id, job.kind.clone())).collect();
    let fired = service.ledger().fire(&tenant, &name, seen, due.next, jobs).await.map_err(|error| service.failed(error))?;
    if fired {
        service.metrics().jobs_ticks.add(due.ticks.len() as u64);
        for (_, kind) in &kinds {
            service.metrics().jobs_submitted.get([kind]).inc();
        }
        if due.missed > 0 {
            tracing::info!(schedule = name, missed = due.missed, "ticks of a schedule passed while nobody looked and are given up");
        }
        service.bus().ring();
    }
    Ok(())
}
