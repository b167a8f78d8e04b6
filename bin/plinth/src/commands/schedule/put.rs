//! `plinth schedule put`: makes a schedule, or puts another one in its place.

use std::path::PathBuf;
use std::time::Duration;

use plinth_client::jobs::{NewJob, NewSchedule};
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Label;

use super::show;
use crate::commands::job::request::{JobArgs, seconds};
use crate::commands::job::{advised, duration, read_json};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Times that passed while no node ran are caught up as --catch-up says: `skip` gives them up, `once` hands one job in for all of them, \
`all` one for each.

FILE has a whole schedule as the API takes it: {\"cron\": ..., \"zone\": ..., \"job\": {...}, \"input\": ...}.

Examples:
  plinth schedule put nightly --cron '0 3 * * MON-FRI' --zone Europe/Berlin --model m -i batch.json
  plinth schedule put nightly --cron '0 3 * * *' --model m -i batch.json --catch-up once --jitter 60s
  plinth schedule put ping --cron 'every 15m' --url https://example.org/ping --attempts 3")]
pub struct Args {
    /// The schedule's name
    #[arg(value_name = "NAME")]
    name: Label,

    /// When: '0 3 * * MON-FRI', or 'every 15m'
    #[arg(long, value_name = "WHEN", required_unless_present = "file")]
    cron: Option<String>,

    /// Time zone, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,

    /// What becomes of times that passed: skip, once or all [default: once]
    #[arg(long, value_name = "WORD", value_parser = ["skip", "once", "all"], hide_possible_values = true)]
    catch_up: Option<String>,

    /// Put each job off by up to so long, always the same for the same time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    jitter: Option<Duration>,

    /// Let it rest until `plinth schedule resume`
    #[arg(long)]
    paused: bool,

    /// A whole schedule as JSON, or - for standard input
    #[arg(long, short, value_name = "FILE|-")]
    #[arg(conflicts_with_all = ["cron", "zone", "catch_up", "jitter", "paused", "kind", "model", "url", "input", "labels", "class", "priority"])]
    #[arg(conflicts_with_all = ["timeout", "attempts", "backoff", "max_backoff", "expires", "keep", "webhook"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    job: JobArgs,
}

/// Puts it.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let name = args.name.as_str();
    let put = context.wait(async {
        if let Some(file) = &args.file {
            let whole = read_json("--file", &file.to_string_lossy())?;
            return client.put_schedule(name, &whole).await.map_err(advised);
        }
        let job = args.job.job(&client).await?;
        client.put_schedule(name, &args.schedule(job)).await.map_err(advised)
    })?;
    context.output.answer(&put, || show::sentence(&put, SystemClock.now()))
}

impl Args {
    fn schedule(&self, mut job: NewJob) -> NewSchedule {
        let input = job.input.take();
        NewSchedule {
            cron: self.cron.clone().unwrap_or_default(),
            zone: self.zone.clone(),
            catch_up: self.catch_up.clone(),
            jitter_seconds: seconds(self.jitter),
            paused: self.paused,
            job,
            input,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        put: Args,
    }

    #[test]
    fn what_was_said_is_sent_and_the_input_lies_beside_the_job() {
        let words = ["x", "nightly", "--cron", "0 3 * * MON-FRI", "--zone", "Europe/Berlin", "--catch-up", "once", "--jitter", "60s"];
        let job = ["--model", "digits", "--input", "[1]", "--attempts", "3"];
        let put = Only::try_parse_from(words.into_iter().chain(job)).unwrap_or_else(|error| panic!("{error}")).put;
        let wanted = json!({
            "cron": "0 3 * * MON-FRI", "zone": "Europe/Berlin", "catch_up": "once", "jitter_seconds": 60.0, "paused": false,
            "job": { "kind": "infer", "model": "digits", "retry": { "attempts": 3 } }, "input": [1],
        });
        assert_eq!(serde_json::to_value(put.schedule(put.job.checked().unwrap())).unwrap(), wanted);
        assert!(Only::try_parse_from(["x", "nightly", "--model", "digits"]).is_err(), "a schedule says when");
        assert!(Only::try_parse_from(["x", "nightly", "--file", "s.json", "--cron", "@daily"]).is_err());
    }
}
