//! Ending jobs, running them again, kinds, schedules, secrets.

use http::StatusCode;
use plinth_client::wire::jobs as wire;
use plinth_jobs::ScheduleView;
use plinth_net::Response;
use plinth_queue::jobs::{JobId, KindLimits, KindSettings, ReplayWish};
use plinth_types::{Error, Reason, Result};

use super::{id, jobs, must_see, show};
use serde_json::Value;

use crate::Services;
use crate::call::Call;
use crate::reply;

/// Dead letters that one request makes ready.
const MAX_REPLAYED: u32 = 10_000;

pub(super) async fn cancel(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?, id(&call)?, &call.principal.tenant);
    must_see(&call, &jobs.get(tenant, id).await?)?;
    reply::json(&show::job(jobs.cancel(tenant, id).await?))
}

pub(super) async fn replay_one(services: Services, call: Call) -> Result<Response> {
    let (jobs, id, tenant) = (jobs(&services)?, id(&call)?, &call.principal.tenant);
    must_see(&call, &jobs.get(tenant, id).await?)?;
    let wish = ReplayWish { tenant: tenant.clone(), ids: vec![id], kind: None, limit: 1 };
    reply::json(&wire::Replayed { replayed: jobs.replay(wish).await? })
}

pub(super) async fn replay(services: Services, mut call: Call) -> Result<Response> {
    let wish: wire::Replay = call.json().await?;
    let jobs = jobs(&services)?;
    if wish.ids.is_empty() && wish.kind.is_none() && !wish.all {
        let text = "name 'ids' or a 'kind', or set 'all': what is not named is not replayed";
        return Err(Error::new(Reason::MalformedRequest, text).field("ids"));
    }
    if wish.ids.len() > MAX_REPLAYED as usize {
        return Err(Error::new(Reason::MalformedRequest, format!("at most {MAX_REPLAYED} ids at a time")).field("ids"));
    }
    let ids = wish.ids.iter().map(|text| text.parse::<JobId>()).collect::<Result<Vec<_>, _>>();
    let ids = ids.map_err(|error| Error::new(Reason::InvalidName, error.to_string()).field("ids"))?;
    if !call.principal.may_use_all() {
        if ids.is_empty() {
            let text = "this key is for some models: name the 'ids' of jobs that it may see";
            return Err(Error::new(Reason::NotPermitted, text).field("ids"));
        }
        for id in &ids {
            must_see(&call, &jobs.get(&call.principal.tenant, *id).await?)?;
        }
    }
    let wish = ReplayWish { tenant: call.principal.tenant.clone(), ids, kind: wish.kind, limit: MAX_REPLAYED };
    reply::json(&wire::Replayed { replayed: jobs.replay(wish).await? })
}

fn settings(kind: KindSettings) -> wire::KindSettings {
    let KindLimits { concurrency, rate_per_second } = kind.limits;
    wire::KindSettings { kind: kind.kind, paused: kind.paused, concurrency, rate_per_second }
}

pub(super) async fn kinds(services: Services, _: Call) -> Result<Response> {
    let kinds = jobs(&services)?.kind_settings().await?;
    reply::json(&kinds.into_iter().map(settings).collect::<Vec<_>>())
}

pub(super) async fn set_kind(services: Services, mut call: Call) -> Result<Response> {
    let kind: String = call.param("kind")?;
    let wish: wire::KindSettings = call.json().await?;
    let limits = KindLimits { concurrency: wish.concurrency, rate_per_second: wish.rate_per_second };
    let set = KindSettings { kind, paused: wish.paused, limits };
    jobs(&services)?.set_kind(set.clone()).await?;
    reply::json(&settings(set))
}

pub(super) async fn schedules(services: Services, call: Call) -> Result<Response> {
    let all = jobs(&services)?.schedules(&call.principal.tenant).await?;
    reply::json(&all.into_iter().map(shown).collect::<Result<Vec<_>>>()?)
}

/// A schedule as it would be put: what its kind wants beside the input stands in the job.
fn shown(view: ScheduleView) -> Result<Value> {
    let mut shown = serde_json::to_value(view).map_err(|error| Error::internal("a schedule").source(error))?;
    let more = shown.as_object_mut().and_then(|schedule| schedule.remove("more"));
    if let (Some(Value::Object(more)), Some(job)) = (more, shown.get_mut("job").and_then(Value::as_object_mut)) {
        if job.get("kind").and_then(Value::as_str) == Some("http") {
            job.insert("http".into(), Value::Object(more));
        } else {
            job.extend(more);
        }
    }
    Ok(shown)
}

pub(super) async fn schedule(services: Services, call: Call) -> Result<Response> {
    let name: String = call.param("schedule")?;
    let found = jobs(&services)?.schedules(&call.principal.tenant).await?.into_iter().find(|schedule: &ScheduleView| schedule.name == name);
    reply::json(&shown(found.ok_or_else(|| Error::new(Reason::RecordNotFound, "there is no schedule of this name"))?)?)
}

pub(super) async fn put_schedule(services: Services, mut call: Call) -> Result<Response> {
    let name: String = call.param("schedule")?;
    let body = call.body().await?;
    let wish = super::submit::schedule(&body)?;
    if let Some(model) = super::infer_kind::model_of(&wish.more) {
        call.principal.must_use(&model)?;
    }
    let (tenant, actor) = (&call.principal.tenant, call.principal.actor());
    reply::json(&shown(jobs(&services)?.put_schedule(tenant, &actor, &name, wish).await?)?)
}

pub(super) async fn delete_schedule(services: Services, call: Call) -> Result<Response> {
    let name: String = call.param("schedule")?;
    jobs(&services)?.delete_schedule(&call.principal.tenant, &name).await?;
    Ok(reply::nothing())
}

pub(super) async fn rotate_secret(services: Services, call: Call) -> Result<Response> {
    let name: String = call.param("secret")?;
    let secret = jobs(&services)?.rotate_secret(&call.principal.tenant, &name).await?;
    reply::json_with(StatusCode::CREATED, &wire::NewSecret { name, secret })
}
