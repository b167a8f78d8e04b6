//! `plinth job wait`: until jobs have ended.
//!
//! Invariant: the jobs do not notice who waits; a wait that is broken off or runs out can be begun again.

use std::time::Duration;

use plinth_client::Client;
use plinth_client::wire::jobs::Job;
use plinth_runtime::{Clock, SystemClock};

use super::bar::Bar;
use super::patience::Patience;
use super::{advised, duration, id, words};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, plain};

/// How long the node holds the answer back while the job goes on.
const HELD: Duration = Duration::from_secs(20);
/// The same while somebody looks at a bar.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 when all have succeeded, 1 when one is a dead letter or was cancelled, 8 when the time is up before.

Examples:
  plinth job wait 01890a5d-ac96-774b-bcce-b302099a8057 --timeout 5m")]
pub struct Args {
    /// The job, or several
    #[arg(value_name = "ID", value_parser = id, required = true)]
    ids: Vec<String>,

    /// Wait at most so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// Waits and says how they ended.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let jobs = context.wait(until_ended(&client, &args.ids, args.timeout, context.output))?;
    if let (true, [job]) = (context.output.is_json(), &jobs[..]) {
        context.output.answer(job, String::new)?;
    } else {
        let good = jobs.iter().filter(|job| job.state == "succeeded").map(sentence);
        context.output.answer(&jobs, || good.collect::<Vec<_>>().join("\n"))?;
    }
    let bad: Vec<&Job> = jobs.iter().filter(|job| job.state != "succeeded").collect();
    match bad[..] {
        [] => Ok(()),
        _ if context.output.is_json() => Err(Failure::silent(Exit::Failed)),
        [job] => outcome(job),
        _ => Err(Failure::new(Exit::Failed, format!("{} of {} jobs did not succeed", bad.len(), jobs.len()))
            .also(bad.into_iter().map(complaint).collect())
            .next("`plinth job attempts ID` shows what each attempt met")),
    }
}

/// The jobs when all have ended, in the order of `ids`.
pub async fn until_ended(client: &Client, ids: &[String], timeout: Option<Duration>, output: Output) -> Result<Vec<Job>, Failure> {
    let all = async {
        let bar = Bar::new(output, ids.len());
        let mut jobs = Vec::with_capacity(ids.len());
        for id in ids {
            let job = one(client, id, jobs.len(), &bar).await?;
            jobs.push(job);
        }
        Ok(jobs)
    };
    let Some(timeout) = timeout else { return all.await };
    tokio::time::timeout(timeout, all).await.unwrap_or_else(|_| {
        let message = format!("the jobs have not all ended after {}; they go on", words::span(timeout));
        let alone = format!("the job has not ended after {}; it goes on", words::span(timeout));
        Err(Failure::new(Exit::TryLater, if ids.len() == 1 { alone } else { message }).next("`plinth job show ID` says where it stands"))
    })
}

async fn one(client: &Client, id: &str, done: usize, bar: &Bar) -> Result<Job, Failure> {
    let mut patience = Patience::default();
    // The first look is short, so that a bar has something to show.
    let mut wait = Duration::ZERO;
    loop {
        match client.job(id, Some(wait).filter(|wait| !wait.is_zero())).await {
            Ok(job) => {
                patience.renew();
                bar.show(done, &job, SystemClock.now());
                if words::ended(&job.state) {
                    return Ok(job);
                }
                wait = if bar.watched() { LOOK } else { HELD };
            }
            Err(error) if patience.again(&error).await => {}
            Err(error) => return Err(advised(error)),
        }
    }
}

/// How a job ended: well, or the failure to end with.
pub fn outcome(job: &Job) -> Result<(), Failure> {
    match job.state.as_str() {
        "succeeded" => Ok(()),
        "dead" => {
            let mut failure = Failure::new(Exit::Failed, complaint(job));
            if job.attempt > 0 {
                failure = failure.next(format!("`plinth job attempts {}` shows what each attempt met", job.id));
            }
            Err(failure.next(format!("`plinth job replay {}` runs it again", job.id)))
        }
        _ => Err(Failure::new(Exit::Failed, complaint(job))),
    }
}

fn complaint(job: &Job) -> String {
    let when =
        if job.attempt == 0 { "before it began".to_owned() } else { format!("after {}", words::count(u64::from(job.attempt), "attempt")) };
    match (job.state.as_str(), &job.error) {
        ("cancelled", _) => format!("the job {} was cancelled", job.id),
        (state, Some(error)) => format!("the job {} is {state} {when}: {} ({})", job.id, error.detail, error.reason),
        (state, None) => format!("the job {} is {state} {when}", job.id),
    }
}

fn sentence(job: &Job) -> String {
    let took = words::took(job, SystemClock.now()).map(|took| format!(" after {}", words::span(took))).unwrap_or_default();
    format!("{} succeeded{took}", plain(&job.id))
}

#[cfg(test)]
mod tests {
    use plinth_client::wire::jobs::Failure as JobFailure;
    use plinth_types::{Reason, Timestamp};

    use super::*;

    #[test]
    fn the_end_of_a_job_is_the_end_of_the_command() {
        assert!(outcome(&words::example("succeeded")).is_ok());
        let error = Some(JobFailure { reason: Reason::JobTimeout, detail: "it took longer than 10 s".into() });
        let dead = outcome(&Job { attempt: 3, error, ..words::example("dead") }).unwrap_err();
        assert_eq!(dead.exit, Exit::Failed);
        assert!(dead.message.ends_with("is dead after 3 attempts: it took longer than 10 s (job_timeout)"), "{}", dead.message);
        assert!(dead.next.iter().any(|next| next.contains("plinth job replay 0")), "{:?}", dead.next);
        let unbegun = outcome(&Job { attempt: 0, ..words::example("dead") }).unwrap_err();
        assert!(unbegun.message.ends_with("is dead before it began") && unbegun.next.len() == 1, "{unbegun:?}");
        assert!(outcome(&words::example("cancelled")).unwrap_err().message.ends_with("was cancelled"));
        let at = |millis| Some(Timestamp::from_millis(millis).unwrap());
        let good = Job { started_at: at(1000), ended_at: at(3300), ..words::example("succeeded") };
        assert!(sentence(&good).ends_with("succeeded after 2.3 s"), "{}", sentence(&good));
    }
}
