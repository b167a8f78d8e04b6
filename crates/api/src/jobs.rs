//! The routes under `/api/v1`: jobs, their kinds, schedules. Translation only; the work is `plinth_jobs`'s.
//!
//! The bodies are `plinth_client::wire::jobs`; the table there is the list of routes. A key that is for some models sees the jobs of these models
//! alone, and jobs of kinds without a model.

mod control;
mod events;
pub mod infer_kind;
pub(crate) mod show;
mod submit;

use http::Method;
use plinth_jobs::JobService;
use plinth_net::{Access, Route};
use plinth_queue::jobs::{Job, JobId};
use plinth_types::{Error, Reason, Result};

use crate::Services;
use crate::call::{Call, Context, route};

pub use submit::respond_async;
pub(crate) use submit::{key, wants_async};

/// The label under which an inference's job names its model.
pub(crate) const MODEL_LABEL: &str = "model";

/// The routes of jobs.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::{Admin, Infer, Operate, Platform, Read};
    macro_rules! routes {
        ($($method:ident $pattern:literal $access:ident $name:literal => $handler:path;)*) => {
            vec![$(route(services, Method::$method, $pattern, $access, $name, $handler)),*]
        };
    }
    routes! {
        POST "/api/v1/jobs" Infer "jobs.submit" => submit::submit;
        GET "/api/v1/jobs" Infer "jobs.list" => show::list;
        POST "/api/v1/jobs/replay" Infer "jobs.replay" => control::replay;
        GET "/api/v1/jobs/{job}" Infer "jobs.show" => show::one;
        GET "/api/v1/jobs/{job}/result" Infer "jobs.result" => show::result;
        GET "/api/v1/jobs/{job}/input" Infer "jobs.input" => show::input;
        GET "/api/v1/jobs/{job}/events" Infer "jobs.events" => events::events;
        GET "/api/v1/jobs/{job}/attempts" Infer "jobs.attempts" => show::attempts;
        POST "/api/v1/jobs/{job}/cancel" Infer "jobs.cancel" => control::cancel;
        POST "/api/v1/jobs/{job}/replay" Infer "jobs.replay_one" => control::replay_one;
        GET "/api/v1/job-counts" Read "jobs.counts" => show::counts;
        GET "/api/v1/job-kinds" Read "jobs.kinds" => control::kinds;
        PUT "/api/v1/job-kinds/{kind}" Platform "jobs.kinds.set" => control::set_kind;
        GET "/api/v1/schedules" Read "schedules.list" => control::schedules;
        GET "/api/v1/schedules/{schedule}" Read "schedules.show" => control::schedule;
        PUT "/api/v1/schedules/{schedule}" Operate "schedules.put" => control::put_schedule;
        DELETE "/api/v1/schedules/{schedule}" Operate "schedules.delete" => control::delete_schedule;
        POST "/api/v1/webhook-secrets/{secret}/rotate" Admin "webhooks.rotate" => control::rotate_secret;
    }
}

/// The jobs of this node.
pub(crate) fn jobs(services: &Services) -> Result<&JobService> {
    let text = "this node keeps no jobs";
    services.jobs.as_ref().ok_or_else(|| Error::new(Reason::NotImplemented, text))
}

/// The job that the path names.
pub(crate) fn id(call: &Call) -> Result<JobId> {
    call.param("job")
}

/// Refuses the job of a model that the caller's key is not for, in the words of one that does not exist.
pub(crate) fn must_see(call: &Call, job: &Job) -> Result<()> {
    if may_see(call, job) {
        return Ok(());
    }
    Err(Error::new(Reason::JobNotFound, format!("there is no job {}; jobs are forgotten some time after their end", job.id)))
}

fn may_see(call: &Call, job: &Job) -> bool {
    let named = show::labels(&job.labels).find(|(name, _)| *name == MODEL_LABEL);
    named.is_none_or(|(_, model)| model.parse().is_ok_and(|model| call.principal.may_use(&model)))
}
