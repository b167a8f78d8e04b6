//! `plinth job show`: a job as it stands.

use plinth_client::wire::jobs::Job;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::{ByteSize, Timestamp};

use super::{advised, id, words};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
}

/// Shows.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let job = context.wait(async { client.job(&args.id, None).await.map_err(advised) })?;
    context.output.answer(&job, || render(&job, SystemClock.now()))
}

fn render(job: &Job, now: Timestamp) -> String {
    let mut facts = Table::facts();
    facts.fact("job", Cell::new(&job.id, Tone::Strong));
    facts.fact("kind", &job.kind);
    facts.fact("state", words::standing_cell(job, now));
    if job.progress > 0.0 || job.state == "running" {
        facts.fact("progress", words::progress(job));
    }
    facts.fact("attempt", format!("{} of {}", job.attempt, job.max_attempts));
    facts.fact("class", if job.priority == 0 { job.class.clone() } else { format!("{}, priority {}", job.class, job.priority) });
    facts.fact("submitted", format!("{} by {}", words::moment(job.created_at, now), job.actor));
    if job.run_at > job.created_at {
        facts.fact("not before", words::moment(job.run_at, now));
    }
    if let Some(begun) = job.started_at {
        facts.fact("began", words::moment(begun, now));
    }
    if let Some(ended) = job.ended_at {
        facts.fact("ended", words::moment(ended, now));
    }
    if let Some(took) = words::took(job, now) {
        facts.fact(if job.ended_at.is_some() { "took" } else { "for" }, words::span(took));
    }
    let optional = [("worker", &job.worker), ("part of", &job.parent), ("webhook", &job.webhook)];
    for (word, value) in optional {
        if let Some(value) = value {
            facts.fact(word, value);
        }
    }
    if !job.labels.is_empty() {
        facts.fact("labels", words::labels(job));
    }
    if let Some(size) = job.result_size {
        facts.fact("result", format!("{}, `plinth job result ID` gets it", ByteSize(size)));
    }
    let mut text = facts.render();
    if let Some(error) = &job.error {
        let tone = if job.state == "dead" { Tone::Bad } else { Tone::Warning }.style();
        // Not in the table: what went wrong is shown to its end.
        text.push_str(&format!("\n\n{tone}{}{tone:#}: {}", error.reason, plain(&error.detail)));
    }
    text
}

#[cfg(test)]
mod tests {
    use plinth_client::wire::jobs::Failure as JobFailure;
    use plinth_types::Reason;

    use super::*;

    #[test]
    fn a_job_is_shown_with_what_is_known_of_it() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000).unwrap();
        let shown = |job: &Job| anstream::adapter::strip_str(&render(job, at(400))).to_string();
        let error = Some(JobFailure { reason: Reason::JobTimeout, detail: format!("it took too long{}", "!".repeat(90)) });
        let dead = Job {
            attempt: 3,
            priority: -5,
            started_at: Some(at(70)),
            ended_at: Some(at(82)),
            webhook: Some("https://example.org/hook".into()),
            error,
            ..words::example("dead")
        };
        insta::assert_snapshot!(shown(&dead), @r"
        job        01890a5d-ac96-774b-bcce-b302099a8057
        kind       infer
        state      dead
        attempt    3 of 3
        class      default, priority -5
        submitted  1970-01-01T00:01:00.000Z (5 min ago) by key/a
        began      1970-01-01T00:01:10.000Z (5 min ago)
        ended      1970-01-01T00:01:22.000Z (5 min ago)
        took       12 s
        webhook    https://example.org/hook
        labels     team=vision

        job_timeout: it took too long!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
        ");
        let waiting = Job { position: Some(2), run_at: at(60), labels: [].into(), ..words::example("ready") };
        assert!(shown(&waiting).contains("state      ready, 2 before it\n"), "{}", shown(&waiting));
    }
}
