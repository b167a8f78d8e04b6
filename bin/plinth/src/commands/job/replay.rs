//! `plinth job replay`: dead letters run again.

use plinth_client::wire::jobs::{Replay, Replayed};

use super::{advised, id};
use crate::commands::model::confirm::confirm;
use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each begins anew, with all its attempts. Repair first what they failed of: `plinth job list --state dead` shows them.

Examples:
  plinth job replay 01890a5d-ac96-774b-bcce-b302099a8057
  plinth job replay --kind http
  plinth job replay --all --yes")]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "kind", "all"])))]
pub struct Args {
    /// The job, or several
    #[arg(value_name = "ID", value_parser = id)]
    ids: Vec<String>,

    /// All dead letters of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,

    /// All dead letters
    #[arg(long)]
    all: bool,

    /// Do not ask before all run again
    #[arg(long, short)]
    yes: bool,
}

/// Runs them again.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    if args.all {
        let asked = confirm("this runs all dead letters again, of all kinds", "all", args.yes, context);
        asked.map_err(|failure| if failure.exit == Exit::Failed { Failure::new(Exit::Failed, "nothing was replayed") } else { failure })?;
    }
    let client = context.client()?;
    let wanted = args.ids.len() as u64;
    let which = Replay { ids: args.ids, kind: args.kind, all: args.all };
    let done = context.wait(async { client.replay_jobs(&which).await.map_err(advised) })?;
    context.output.answer(&done, || render(&done, wanted))?;
    if done.replayed < wanted { Err(fewer(&done, wanted, context.output.is_json())) } else { Ok(()) }
}

fn render(done: &Replayed, wanted: u64) -> String {
    match done.replayed {
        // What follows says it.
        0 if wanted > 0 => String::new(),
        0 => "no dead letters were found".to_owned(),
        1 => "1 job runs again".to_owned(),
        number => format!("{number} jobs run again"),
    }
}

fn fewer(done: &Replayed, wanted: u64, json: bool) -> Failure {
    if json {
        return Failure::silent(Exit::Conflict);
    }
    let left = wanted - done.replayed;
    let text = if wanted == 1 { "it is not a dead letter".to_owned() } else { format!("{left} of the {wanted} jobs are not dead letters") };
    Failure::new(Exit::Conflict, text).next("`plinth job show ID` says where it stands; only dead letters run again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replayed_is_said() {
        assert_eq!(render(&Replayed { replayed: 1 }, 1), "1 job runs again");
        assert_eq!(render(&Replayed { replayed: 7 }, 0), "7 jobs run again");
        assert_eq!(render(&Replayed { replayed: 0 }, 0), "no dead letters were found");
        assert_eq!(render(&Replayed { replayed: 0 }, 2), "");
        assert_eq!(fewer(&Replayed { replayed: 1 }, 3, false).message, "2 of the 3 jobs are not dead letters");
        assert_eq!(fewer(&Replayed { replayed: 0 }, 1, false).message, "it is not a dead letter");
    }
}
