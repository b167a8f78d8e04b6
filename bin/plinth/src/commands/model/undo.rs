//! `plinth model undo`: undoes one change that the audit shows.

use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The revision, as `plinth model audit` shows it
    #[arg(value_name = "REVISION")]
    revision: u64,
}

/// Undoes it. What was changed again since is not overwritten: that is a conflict.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let entry = context.wait(async { Ok(client.undo(args.revision).await?) })?;
    context.output.answer(&entry, || {
        format!("undid revision {} with revision {}: {} on {}", args.revision, entry.revision, plain(&entry.action), plain(&entry.subject))
    })
}
