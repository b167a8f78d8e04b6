//! `plinth rollback`: takes a change back, by a change that does the opposite.

use plinth_client::Paging;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What was changed again since is not overwritten, and nothing is left that names what is not there: that is a conflict.

Examples:
  plinth rollback                    the newest change
  plinth rollback 17                 one that `plinth history` shows")]
pub struct Args {
    /// The revision; the newest change of the tenant when it is left out
    #[arg(value_name = "REVISION")]
    revision: Option<u64>,
}

/// Takes it back.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let (revision, entry) = context.wait(async {
        let revision = match args.revision {
            Some(revision) => revision,
            None => {
                let newest = client.audit(None, &Paging { after: None, limit: Some(1) }).await?.items;
                newest.first().map(|entry| entry.revision).ok_or_else(|| Failure::new(Exit::NotFound, "nothing was ever changed"))?
            }
        };
        Ok((revision, client.undo(revision).await?))
    })?;
    context.output.answer(&entry, || {
        format!("took revision {revision} back with revision {}: {} on {}", entry.revision, plain(&entry.action), plain(&entry.subject))
    })
}
