//! `plinth logout`: forgets the API key that was kept for a node. The key itself stays valid; `plinth key delete` ends it.

use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {}

/// Takes the node's key out of the file.
pub fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let there = context.credentials()?.remove(context.server())?;
    let server = context.server();
    context.output.note(&if there { format!("forgot the key for {server}") } else { format!("no key was kept for {server}") });
    Ok(())
}
