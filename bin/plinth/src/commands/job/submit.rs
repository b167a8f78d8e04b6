//! `plinth job submit`: hands a job in, once, and waits for it when asked to.

use std::path::PathBuf;
use std::time::Duration;

use plinth_client::Client;
use plinth_client::jobs::NewJob;
use plinth_client::wire::jobs::{Job, Submitted};
use plinth_runtime::{Clock, Random, SystemClock, SystemRandom};
use plinth_types::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::request::{JobArgs, seconds};
use super::wait::{outcome, until_ended};
use super::{advised, duration, input, list, payload};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;

/// The largest result that `--wait` shows.
const MAX_SHOWN: usize = 64 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The answer is the job's id; with --wait its result, and exit code 1 when it failed. The submission is sent under an idempotency key, \
so it happens once even when the connection breaks and it is sent again; name a key of your own to make repeated calls of this \
command one submission.

FILE has a whole submission as the API takes it: one job, or {\"jobs\": [...]} with jobs that wait for each other by name.

Examples:
  plinth job submit --model digits --input request.json --wait
  plinth job submit --url https://example.org/hook --input '{\"n\": 1}' --attempts 5 --delay 10m
  plinth job submit --file night.json --idempotency-key night-2030-01-31")]
pub struct Args {
    /// A whole submission as JSON, or - for standard input
    #[arg(long, short, value_name = "FILE|-")]
    #[arg(conflicts_with_all = ["kind", "model", "url", "input", "labels", "class", "priority", "timeout", "attempts", "backoff", "max_backoff"])]
    #[arg(conflicts_with_all = ["expires", "keep", "webhook", "delay", "run_at", "after", "on_failure"])]
    file: Option<PathBuf>,

    /// Wait for its end and show its result
    #[arg(long, short)]
    wait: bool,

    /// Makes repeated calls one submission; a new one for each call when absent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    #[command(flatten)]
    job: JobArgs,

    /// Begin after this time
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "run_at", help_heading = "When it runs")]
    delay: Option<Duration>,

    /// Begin at this moment, such as 2030-01-31T03:00:00+01:00
    #[arg(long, value_name = "TIME", help_heading = "When it runs")]
    run_at: Option<Timestamp>,

    /// Begin when this job has ended; may be given several times
    #[arg(long, value_name = "ID", value_parser = super::id, help_heading = "When it runs")]
    after: Vec<String>,

    /// What becomes of it when one of those ends badly: fail, run or cancel [default: fail]
    #[arg(long, value_name = "WORD", value_parser = ["fail", "run", "cancel"], hide_possible_values = true, requires = "after")]
    #[arg(help_heading = "When it runs")]
    on_failure: Option<String>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    submitted: &'a Submitted,
    idempotency_key: &'a str,
    /// With `--wait`: the jobs as they ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<&'a [Job]>,
    /// With `--wait`, of one job that has given JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
}

/// Submits.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let key = args.idempotency_key.clone().unwrap_or_else(|| new_key(&SystemRandom));
    let submitted = context.wait(submit(&args, &client, &key))?;
    if context.output.verbose() {
        context.output.note(&format!("idempotency key {}", plain(&key)));
    }
    if submitted.replayed {
        context.output.note("this was submitted before under the same key; nothing new was made");
    }
    if !args.wait {
        let answer = Answer { submitted: &submitted, idempotency_key: &key, jobs: None, result: None };
        return context.output.answer(&answer, || plain_lines(&submitted.ids));
    }
    if let [id] = &submitted.ids[..] {
        context.output.note(&format!("job {}", plain(id)));
    }
    let jobs = context.wait(until_ended(&client, &submitted.ids, None, context.output))?;
    match &jobs[..] {
        [job] => one(&client, &submitted, &key, job, context),
        _ => several(&submitted, &key, &jobs, context),
    }
}

fn one(client: &Client, submitted: &Submitted, key: &str, job: &Job, context: &Context) -> Result<(), Failure> {
    let jobs = Some(std::slice::from_ref(job));
    if context.output.is_json() {
        let result = if job.state == "succeeded" { context.wait(json_result(client, &job.id))? } else { None };
        context.output.answer(&Answer { submitted, idempotency_key: key, jobs, result }, String::new)?;
        return if job.state == "succeeded" { Ok(()) } else { Err(Failure::silent(Exit::Failed)) };
    }
    outcome(job)?;
    context.wait(async {
        match client.job_result(&job.id).await.map_err(advised)? {
            Some(download) => payload::show(download, &format!("plinth job result {}", job.id), context.output).await,
            None => Err(payload::not_yet(&job.id)),
        }
    })
}

fn several(submitted: &Submitted, key: &str, jobs: &[Job], context: &Context) -> Result<(), Failure> {
    let answer = Answer { submitted, idempotency_key: key, jobs: Some(jobs), result: None };
    context.output.answer(&answer, || list::table(jobs, SystemClock.now()).render())?;
    let bad = jobs.iter().filter(|job| job.state != "succeeded").count();
    match bad {
        0 => Ok(()),
        _ if context.output.is_json() => Err(Failure::silent(Exit::Failed)),
        _ => Err(Failure::new(Exit::Failed, format!("{bad} of {} jobs did not succeed", jobs.len()))
            .next("`plinth job show ID` says why; `plinth job replay ID` runs a dead letter again")),
    }
}

/// The result when it is JSON that is not too long to be shown within an answer.
async fn json_result(client: &Client, id: &str) -> Result<Option<Box<RawValue>>, Failure> {
    let Some(download) = client.job_result(id).await.map_err(advised)? else { return Ok(None) };
    if !payload::is_json(&download.content_type()) {
        return Ok(None);
    }
    let bytes = download.bytes(MAX_SHOWN).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

async fn submit(args: &Args, client: &Client, key: &str) -> Result<Submitted, Failure> {
    if let Some(file) = &args.file {
        let whole = whole(&input::read("--file", &file.to_string_lossy())?)?;
        return client.submit_jobs(&whole, key).await.map_err(advised);
    }
    let job = NewJob {
        delay_seconds: seconds(args.delay),
        run_at: args.run_at,
        after: args.after.clone(),
        on_failure: args.on_failure.clone(),
        ..args.job.job(client).await?
    };
    client.submit_jobs(&job, key).await.map_err(advised)
}

/// A submission as the API takes it; a list stands for its jobs.
fn whole(json: &RawValue) -> Result<Box<RawValue>, Failure> {
    let text = json.get().trim_start();
    let text = match text.as_bytes().first() {
        Some(b'{') => text.to_owned(),
        Some(b'[') => format!("{{\"jobs\":{text}}}"),
        _ => return Err(Failure::new(Exit::Failed, "a submission is a job, or a list of jobs").next("see `plinth job submit --help`")),
    };
    RawValue::from_string(text).map_err(|error| Failure::new(Exit::Failed, format!("the submission is not JSON: {error}")))
}

/// 128 random bits.
fn new_key(random: &dyn Random) -> String {
    format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
}

fn plain_lines(ids: &[String]) -> String {
    ids.iter().map(|id| plain(id)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use plinth_runtime::SeededRandom;

    use super::*;

    #[test]
    fn a_submission_is_a_job_or_a_list_of_jobs() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(whole(&raw(r#"{"kind":"x"}"#)).unwrap().get(), r#"{"kind":"x"}"#);
        assert_eq!(whole(&raw(r#"[{"kind":"x"}]"#)).unwrap().get(), r#"{"jobs":[{"kind":"x"}]}"#);
        assert!(whole(&raw("17")).is_err());
    }

    #[test]
    fn each_call_has_a_key_of_its_own() {
        let random = SeededRandom::new(7);
        let (a, b) = (new_key(&random), new_key(&random));
        assert!(a != b && a.len() == 32 && a.bytes().all(|byte| byte.is_ascii_hexdigit()), "{a} {b}");
    }

    #[test]
    fn programs_get_the_submission_and_what_came_of_it() {
        let submitted = Submitted { id: "a".into(), ids: vec!["a".into()], replayed: false };
        let text = |answer: &Answer<'_>| serde_json::to_value(answer).unwrap();
        let short = text(&Answer { submitted: &submitted, idempotency_key: "k", jobs: None, result: None });
        assert_eq!(short, serde_json::json!({ "id": "a", "ids": ["a"], "replayed": false, "idempotency_key": "k" }));
        let jobs = [super::super::words::example("succeeded")];
        let result = Some(RawValue::from_string("[1]".into()).unwrap());
        let long = text(&Answer { submitted: &submitted, idempotency_key: "k", jobs: Some(&jobs), result });
        assert_eq!((&long["jobs"][0]["state"], &long["result"]), (&"succeeded".into(), &serde_json::json!([1])));
    }
}
