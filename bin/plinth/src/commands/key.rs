//! `plinth key`: signing keys on this machine, API keys on the node.

use std::time::Duration;

use clap::Subcommand;
use plinth_config::setting::Setting;

use crate::context::Context;
use crate::exit::Failure;

mod create;
mod delete;
mod list;
mod new;
mod rotate;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
`new` makes a pair of keys that sign models; `create`, `list`, `rotate` and `delete` are about the keys that callers of a node \
present. When a key was last used is not kept: requests write nothing.

Examples:
  plinth key new --out release                     release.pem (private) and release.pub.pem
  plinth key create --description shop --expires-in 90d
  plinth key create --role viewer --model digits --model fraud
  plinth key create --tenant acme --role admin     an admin of the default tenant makes acme's first key
  plinth key rotate 0123456789abcdef --overlap 7d")]
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
    /// Put a new API key in place of an old one, with an overlap
    Rotate(rotate::Args),
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
        Command::Rotate(args) => rotate::run(&args, context),
        Command::Delete(args) => delete::run(&args, context),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    <Duration as Setting>::from_text(text).map_err(|_| "want a duration such as 90d or 12h".to_owned())
}
