//! `plinth schedule`: jobs that are handed in by the clock.

use clap::Subcommand;
use plinth_client::{Client, Error, wire};
use plinth_runtime::{Clock, SystemClock};
use plinth_types::Label;
use wire::jobs::Schedule;

use crate::context::Context;
use crate::exit::Failure;
use crate::reference::nearest;

mod pause;
mod put;
mod show;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
When: a cron expression of five fields, such as '0 3 * * MON-FRI', in the time zone of the schedule, or 'every 15m'.

Examples:
  plinth schedule put nightly --cron '0 3 * * *' --zone Europe/Berlin --model digits -i batch.json
  plinth schedule list
  plinth schedule pause nightly")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List schedules
    #[command(visible_alias = "ls")]
    List,
    /// Show a schedule with what it hands in
    Show(Named),
    /// Make a schedule, or put another one in its place
    Put(Box<put::Args>),
    /// Delete a schedule; jobs that it has handed in go on
    #[command(visible_alias = "rm")]
    Delete(Named),
    /// Let a schedule rest
    Pause(Named),
    /// Let a schedule go on, from its next time
    Resume(Named),
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// The schedule
    #[arg(value_name = "NAME")]
    name: Label,
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => {
            let client = context.client()?;
            let schedules = context.wait(async { Ok(client.schedules().await?) })?;
            context.output.answer(&schedules, || show::list(&schedules, SystemClock.now()))
        }
        Command::Show(Named { name }) => {
            let client = context.client()?;
            let schedule = context.wait(found(&name, &client))?;
            context.output.answer(&schedule, || show::one(&schedule, SystemClock.now()))
        }
        Command::Put(args) => put::run(*args, context),
        Command::Delete(Named { name }) => {
            let client = context.client()?;
            context.wait(async {
                match client.delete_schedule(name.as_str()).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(missing(error, &name, &client).await),
                }
            })?;
            context.output.note(&format!("deleted the schedule {name}; jobs that it has handed in go on"));
            Ok(())
        }
        Command::Pause(Named { name }) => pause::set(&name, true, context),
        Command::Resume(Named { name }) => pause::set(&name, false, context),
    }
}

/// A schedule; when there is none of that name, the failure says which names are near.
async fn found(name: &Label, client: &Client) -> Result<Schedule, Failure> {
    match client.schedule(name.as_str()).await {
        Ok(schedule) => Ok(schedule),
        Err(error) => Err(missing(error, name, client).await),
    }
}

async fn missing(error: Error, name: &Label, client: &Client) -> Failure {
    let absent = error.status() == Some(404);
    let failure = Failure::from(error);
    if !absent {
        return failure;
    }
    // Only a help: when the list cannot be had, the first error stands as it is.
    let all = client.schedules().await.unwrap_or_default();
    match nearest(name.as_str(), all.iter().map(|one| one.name.as_str())) {
        Some(near) => failure.next(format!("did you mean '{near}'?")),
        None => failure.next("`plinth schedule list` shows what there is"),
    }
}

/// A schedule for tests.
#[cfg(test)]
fn example(paused: bool) -> Schedule {
    let text = serde_json::json!({
        "name": "nightly", "cron": "0 3 * * MON-FRI", "zone": "Europe/Berlin", "catch_up": "once", "jitter_seconds": 60.0, "paused": paused,
        "job": { "kind": "infer", "priority": 0, "retry": {}, "labels": { "model": "digits" } }, "input": { "inputs": [1] },
        "more": { "model": "digits", "version": "2" },
        "next_at": if paused { None } else { Some("1970-01-01T02:00:00.000Z") }, "last_at": "1970-01-01T00:00:00.000Z",
    });
    serde_json::from_value(text).unwrap()
}
