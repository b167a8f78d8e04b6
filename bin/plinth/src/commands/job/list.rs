//! `plinth job list`: jobs, newest first.

use plinth_client::Paging;
use plinth_client::jobs::JobFilter;
use plinth_client::wire::jobs::Job;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Timestamp;

use super::{id, label, words};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::paging::gather;
use crate::table::{Cell, Table, Tone};

/// The states by name.
const STATES: [&str; 7] = ["blocked", "scheduled", "ready", "running", "succeeded", "dead", "cancelled"];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
States: blocked (waits for other jobs), scheduled (waits for its time or its next attempt), ready (waits for a worker), running, \
succeeded, dead (no attempt is left), cancelled.

Examples:
  plinth job list --state dead --kind infer
  plinth job list --label team=vision --limit 500 --json")]
pub struct Args {
    /// Only of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,

    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = STATES, hide_possible_values = true)]
    state: Option<String>,

    /// Only with this label
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Option<(String, String)>,

    /// Only parts of this job
    #[arg(long, value_name = "ID", value_parser = id)]
    parent: Option<String>,

    /// Show at most so many
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
}

/// Lists.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let label = args.label.as_ref().map(|(name, value)| format!("{name}={value}"));
    let filter = JobFilter { kind: args.kind.clone(), state: args.state.clone(), parent: args.parent.clone(), label };
    let jobs = context.wait(gather(Some(args.limit), async |page: Paging| client.jobs(&filter, &page).await))?;
    let all = [&filter.kind, &filter.state, &filter.parent, &filter.label].into_iter().all(Option::is_none);
    let none = if all { "no jobs; hand one in with `plinth job submit`" } else { "no jobs fit" };
    context.output.answer(&jobs, || table_or(&table(&jobs, SystemClock.now()), none))?;
    if !context.output.is_json() && args.limit > 0 && jobs.len() == args.limit {
        context.output.note(&format!("these are the newest {}; `--limit` shows more", args.limit));
    }
    Ok(())
}

/// Jobs as a table.
pub fn table(jobs: &[Job], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "KIND", "STATE", "PROGRESS#", "AGE#", "ATTEMPT#", "LABELS"]);
    for job in jobs {
        table.row([
            (&job.id).into(),
            (&job.kind).into(),
            words::state(&job.state),
            words::progress(job).into(),
            words::short(now.since(job.created_at)).into(),
            attempt(job),
            words::labels(job).into(),
        ]);
    }
    table
}

/// `1/3`, which is worth a look when it is not the first.
fn attempt(job: &Job) -> Cell {
    let tone = if job.attempt > 1 { Tone::Warning } else { Tone::Normal };
    Cell::new(format!("{}/{}", job.attempt, job.max_attempts), tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_stand_in_columns() {
        let jobs = [
            Job { progress: 0.42, ..words::example("running") },
            Job { attempt: 3, kind: "http".into(), labels: [].into(), ..words::example("dead") },
        ];
        let text = table(&jobs, Timestamp::from_millis(60_000 + 7_300_000).unwrap()).render();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        ID                                    KIND   STATE    PROGRESS  AGE  ATTEMPT  LABELS
        01890a5d-ac96-774b-bcce-b302099a8057  infer  running       42%  2 h      1/3  team=vision
        01890a5d-ac96-774b-bcce-b302099a8057  http   dead            -  2 h      3/3
        ");
    }

    #[test]
    fn the_states_are_those_that_end_or_not() {
        assert_eq!(STATES.iter().filter(|state| words::ended(state)).count(), 3);
    }
}
