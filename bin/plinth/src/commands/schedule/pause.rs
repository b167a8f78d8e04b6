//! `plinth schedule pause` and `resume`: the schedule as it stands, put back with one word changed.

use plinth_client::wire::jobs::Schedule;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Label;
use serde_json::{Map, Value};

use super::{found, show};
use crate::context::Context;
use crate::exit::Failure;

/// What a schedule is asked for with, beside `cron`, `zone`, `paused` and `job`.
const ASKED: [&str; 3] = ["catch_up", "jitter_seconds", "input"];

/// Pauses it or lets it go on.
pub fn set(name: &Label, paused: bool, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let schedule = context.wait(async {
        let schedule = found(name, &client).await?;
        if schedule.paused == paused {
            return Ok(schedule);
        }
        Ok(client.put_schedule(name.as_str(), &request(&schedule, paused)).await?)
    })?;
    context.output.answer(&schedule, || show::sentence(&schedule, SystemClock.now()))
}

/// The schedule as it would be asked for.
fn request(schedule: &Schedule, paused: bool) -> Value {
    let mut body = Map::new();
    body.insert("cron".into(), schedule.cron.as_str().into());
    body.insert("zone".into(), schedule.zone.as_str().into());
    body.insert("paused".into(), paused.into());
    for name in ASKED {
        if let Some(value) = schedule.more.get(name).filter(|value| !value.is_null()) {
            body.insert(name.into(), value.clone());
        }
    }
    body.extend(job(schedule).map(|job| ("job".to_owned(), job)));
    body.into()
}

/// The job as it would be asked for.
pub fn job(schedule: &Schedule) -> Option<Value> {
    let mut job = schedule.more.get("job")?.clone();
    if let (Value::Object(job), Some(Value::Object(more))) = (&mut job, schedule.more.get("more")) {
        whole(job, more);
    }
    Some(job)
}

/// Puts back into a job what the node keeps beside it: whom it asks, or whom it calls.
fn whole(job: &mut Map<String, Value>, more: &Map<String, Value>) {
    match job.get("kind").and_then(Value::as_str) {
        Some("infer") => {
            for name in ["model", "version"] {
                if let (None, Some(value)) = (job.get(name), more.get(name)) {
                    job.insert(name.into(), value.clone());
                }
            }
        }
        Some("http") if !more.is_empty() => {
            job.entry("http").or_insert_with(|| more.clone().into());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schedule_is_put_back_as_it_was() {
        let wanted = json!({
            "cron": "0 3 * * MON-FRI", "zone": "Europe/Berlin", "catch_up": "once", "jitter_seconds": 60.0, "paused": true,
            "job": {
                "kind": "infer", "model": "digits", "version": "2", "priority": 0, "retry": {}, "labels": { "model": "digits" },
            },
            "input": { "inputs": [1] },
        });
        assert_eq!(request(&super::super::example(false), true), wanted);
    }

    #[test]
    fn an_endpoint_is_put_back_where_it_stood() {
        let mut schedule = super::super::example(false);
        schedule.more.insert("job".into(), json!({ "kind": "http" }));
        schedule.more.insert("more".into(), json!({ "url": "https://h", "method": "PUT" }));
        schedule.more.insert("input".into(), Value::Null);
        let body = request(&schedule, true);
        assert_eq!(body["job"], json!({ "kind": "http", "http": { "url": "https://h", "method": "PUT" } }));
        assert_eq!(body.get("input"), None);
    }
}
