//! `plinth filter`: WebAssembly modules that requests and answers of routes pass.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Failure;

mod delete;
mod list;
mod push;
mod show;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A route passes its requests through the filters that it names: `\"filters\": [\"mask\"]` for the newest version, \
`\"mask@3\"` for that one.

Examples:
  plinth filter push mask.wasm --name mask --sign-key release.pem
  plinth filter show mask
  plinth filter delete mask@2")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a version out of a WebAssembly module
    Push(Box<push::Args>),
    /// List filters
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show a filter with its versions
    Show(show::Args),
    /// Delete a version, or a filter with all its versions
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Push(args) => push::run(*args, context),
        Command::List(args) => list::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Delete(args) => delete::run(&args, context),
    }
}
