//! `plinth audit`: whether the records of who did what are as they were written.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read the whole audit and the node's log of refusals, and check that each entry follows from the one before
    #[command(after_help = "\
Every change of the registry is an entry of the audit, every request that was not let in a line of the node's log of \
refusals. Each carries a digest of itself and the one before it. Keep the digests that this command shows in another place: \
who can write into the database can make the whole chain anew, but not to the same end.

Takes an admin key of the default tenant.

Example:
  plinth audit verify --json > audit-$(date +%F).json")]
    Verify,
}

/// Carries the command out.
pub fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let Command::Verify = command;
    let client = context.client()?;
    let found = context.wait(async { Ok(client.verify_audit().await?) })?;
    let shown = |digest: &Option<plinth_types::Digest>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    context.output.answer(&found, || {
        let refusals = &found.refusals;
        let mut text = format!(
            "audit     {} entries hold together, up to {}\nrefusals  {} lines hold together ({} to {}), up to {}",
            found.entries,
            shown(&found.head),
            refusals.lines,
            refusals.first,
            refusals.last,
            shown(&refusals.head),
        );
        if found.unlinked > 0 {
            text.push_str(&format!("\nnote      {} of the entries were written by releases that made no chain", found.unlinked));
        }
        text
    })?;
    match (found.broken, found.refusals.broken) {
        (Some(revision), _) => {
            Err(Failure::new(Exit::Unverified, format!("the audit is broken: entry {revision} does not follow from those before it")))
        }
        (None, Some(place)) => Err(Failure::new(Exit::Unverified, format!("the log of refusals is broken: {place}"))),
        (None, None) => Ok(()),
    }
}
