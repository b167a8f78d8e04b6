//! `plinth key`: signing keys on this machine, API keys on the node.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Failure;

mod create;
mod delete;
mod list;
mod new;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
`new` makes a pair of keys that sign models; `create`, `list` and `delete` are about the keys that callers of a node present.

Examples:
  plinth key new --out release                     release.pem (private) and release.pub.pem
  plinth key create --role infer --description shop --expires-in 90d")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a pair of signing keys (P-256) on this machine
    New(new::Args),
    /// Create an API key on the node; it is shown this one time
    Create(create::Args),
    /// List the API keys of the node
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Delete an API key; it is refused from then on
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::New(args) => new::run(&args, context),
        Command::Create(args) => create::run(&args, context),
        Command::List(args) => list::run(&args, context),
        Command::Delete(args) => delete::run(&args, context),
    }
}
