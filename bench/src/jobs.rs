//! How fast are durable jobs, and does one get lost or end twice?
//!
//! Five parts: submissions (`jobs_submit`), jobs from end to end (`jobs_flow`), a million that wait (`jobs_waiting`), the time until the
//! jobs of a killed process run again (`jobs_recovery`), and all faults at once (`jobs_chaos`). Each runs on SQLite and on PostgreSQL.
//! The last two start worker processes (this program again, `job-worker`) and kill them.

mod chaos;
mod cluster;
mod fleet;
mod flow;
mod ledgers;
mod make;
mod recovery;
mod sink;
mod submit;
mod times;
mod waiting;
mod watched;
mod worker;

use anyhow::Result;
use clap::Subcommand;

use crate::line::Verdict;
use crate::setup::Setup;

/// Subcommands for jobs.
#[derive(Subcommand)]
pub enum Part {
    /// Measures durable submissions by 64 clients.
    #[command(name = "jobs_submit")]
    Submit {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        amount: submit::Amount,
    },
    /// Measures jobs that do nothing, from submission to the committed end.
    #[command(name = "jobs_flow")]
    Flow {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        amount: flow::Amount,
    },
    /// Measures claims beside a million jobs that wait.
    #[command(name = "jobs_waiting")]
    Waiting {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        amount: waiting::Amount,
    },
    /// Measures how soon the jobs of a killed process run again.
    #[command(name = "jobs_recovery")]
    Recovery {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        amount: recovery::Amount,
    },
    /// Kills, stops and starves workers and their database, and counts what was lost or doubled.
    #[command(name = "jobs_chaos")]
    Chaos {
        #[command(flatten)]
        setup: Setup,
        #[command(flatten)]
        amount: chaos::Amount,
    },
    /// Works on jobs until its standard input ends.
    #[command(name = "job-worker", hide = true)]
    Worker(worker::Arguments),
}

impl Part {
    /// The part of `all` with this name, with everything scaled.
    pub fn scaled(name: &str, setup: &Setup, scale: f64) -> Option<Self> {
        let setup = setup.clone();
        Some(match name {
            "jobs_submit" => Self::Submit { setup, amount: submit::Amount::scaled(scale) },
            "jobs_flow" => Self::Flow { setup, amount: flow::Amount::scaled(scale) },
            "jobs_waiting" => Self::Waiting { setup, amount: waiting::Amount::scaled(scale) },
            "jobs_recovery" => Self::Recovery { setup, amount: recovery::Amount::scaled(scale) },
            "jobs_chaos" => Self::Chaos { setup, amount: chaos::Amount::scaled(scale) },
            _ => return None,
        })
    }

    /// Measures, on two threads of its own: a node has more than one as well.
    ///
    /// # Errors
    /// When something could not be measured at all.
    pub fn measure(self) -> Result<Verdict> {
        let runtime = crate::runtime(2)?;
        match self {
            Self::Submit { setup, amount } => runtime.block_on(submit::measure(&setup, &amount)),
            Self::Flow { setup, amount } => runtime.block_on(flow::measure(&setup, &amount)),
            Self::Waiting { setup, amount } => runtime.block_on(waiting::measure(&setup, &amount)),
            Self::Recovery { setup, amount } => runtime.block_on(recovery::measure(&setup, &amount)),
            Self::Chaos { setup, amount } => runtime.block_on(chaos::measure(&setup, &amount)),
            Self::Worker(arguments) => runtime.block_on(worker::work(arguments)).map(|()| Verdict::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_all_knows_every_part() {
        let command = Part::augment_subcommands(clap::Command::new("bench"));
        command.clone().debug_assert();
        let parts = crate::all::PARTS.iter().filter(|part| part.starts_with("jobs_"));
        assert_eq!(parts.clone().count(), 5);
        for part in parts {
            assert!(command.find_subcommand(part).is_some(), "{part}");
        }
    }
}
