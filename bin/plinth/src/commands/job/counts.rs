//! `plinth job counts`: how many jobs there are, by kind and state.

use std::collections::BTreeMap;

use plinth_client::wire::jobs::Count;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Timestamp;

use super::{advised, words};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::table::{Cell, Table, Tone};

/// The columns, in the order of a job's life.
const STATES: [&str; 7] = ["blocked", "scheduled", "ready", "running", "succeeded", "dead", "cancelled"];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
OLDEST READY is how long the job has existed that has existed longest of those that wait for a worker.")]
pub struct Args {}

/// Counts.
pub fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let counts = context.wait(async { client.job_counts().await.map_err(advised) })?;
    context.output.answer(&counts, || table_or(&table(&counts, SystemClock.now()), "no jobs; hand one in with `plinth job submit`"))
}

fn table(counts: &[Count], now: Timestamp) -> Table {
    let mut kinds: BTreeMap<&str, BTreeMap<&str, &Count>> = BTreeMap::new();
    for count in counts {
        kinds.entry(&count.kind).or_default().insert(&count.state, count);
    }
    let header = ["KIND", "BLOCKED#", "SCHEDULED#", "READY#", "RUNNING#", "SUCCEEDED#", "DEAD#", "CANCELLED#", "OLDEST READY#"];
    let mut table = Table::new(&header);
    for (kind, states) in kinds {
        let cells = STATES.iter().map(|state| number(state, states.get(state).map_or(0, |count| count.jobs)));
        let oldest = states.get("ready").map_or_else(|| "-".to_owned(), |count| words::short(now.since(count.oldest)));
        table.row(std::iter::once(kind.into()).chain(cells).chain([oldest.into()]));
    }
    table
}

fn number(state: &str, jobs: u64) -> Cell {
    match (state, jobs) {
        (_, 0) => Cell::new("0", Tone::Faint),
        ("dead", _) => Cell::new(jobs.to_string(), Tone::Bad),
        _ => jobs.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_rows_and_states_columns() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000).unwrap();
        let count = |kind: &str, state: &str, jobs| Count { kind: kind.into(), state: state.into(), jobs, oldest: at(60) };
        let counts = [count("infer", "ready", 12), count("http", "dead", 3), count("infer", "succeeded", 4000)];
        insta::assert_snapshot!(anstream::adapter::strip_str(&table(&counts, at(400)).render()).to_string(), @r"
        KIND   BLOCKED  SCHEDULED  READY  RUNNING  SUCCEEDED  DEAD  CANCELLED  OLDEST READY
        http         0          0      0        0          0     3          0             -
        infer        0          0     12        0       4000     0          0         5 min
        ");
    }
}
