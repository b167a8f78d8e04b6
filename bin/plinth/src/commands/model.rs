//! `plinth model`: everything about models, their versions and their aliases.

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Failure;

pub mod audit;
pub mod confirm;
mod delete;
mod edit;
mod list;
mod load;
mod promote;
mod push;
mod restore;
mod retire;
mod rollback;
mod show;
mod sign;
mod unalias;
mod undo;
mod verify;
mod wait;
mod warm;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A version is named NAME@NUMBER or NAME@ALIAS; the alias `champion` is what answers requests that name no version.

Examples:
  plinth model push ./digits --name digits --sign-key release.pem --promote
  plinth model show digits
  plinth model promote digits@3
  plinth model rollback digits --comment 'accuracy fell'")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a version out of a directory
    Push(Box<push::Args>),
    /// List models
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show a model with its versions, or a version with its files
    Show(show::Args),
    /// Sign a directory, or a version on the node
    Sign(sign::Args),
    /// Verify a directory by public keys, or have the node verify a version
    Verify(verify::Args),
    /// Move an alias to a version, by default `champion`
    Promote(promote::Args),
    /// Move the champion back to where it was before
    Rollback(rollback::Args),
    /// Have the node load a model, afresh if it failed or is quarantined
    Load(load::LoadArgs),
    /// Have the node give a model's memory back; the registry keeps it
    Unload(load::UnloadArgs),
    /// Fill the response cache from a list of requests
    Warm(warm::Args),
    /// Keep a version, but let nobody use it
    Retire(retire::Args),
    /// Make a retired version usable again
    Restore(restore::Args),
    /// Delete a version, or a model with all its versions
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// Change descriptions and tags
    Edit(edit::Args),
    /// Take an alias away
    Unalias(unalias::Args),
    /// Show who changed what, newest first
    Audit(audit::Args),
    /// Undo one change that the audit shows
    Undo(undo::Args),
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Push(args) => push::run(*args, context),
        Command::List(args) => list::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Sign(args) => sign::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Promote(args) => promote::run(&args, context),
        Command::Rollback(args) => rollback::run(&args, context),
        Command::Load(args) => load::load(&args, context),
        Command::Unload(args) => load::unload(&args, context),
        Command::Warm(args) => warm::run(&args, context),
        Command::Retire(args) => retire::run(&args, context),
        Command::Restore(args) => restore::run(&args, context),
        Command::Delete(args) => delete::run(&args, context),
        Command::Edit(args) => edit::run(&args, context),
        Command::Unalias(args) => unalias::run(&args, context),
        Command::Audit(args) => audit::run(&args, context),
        Command::Undo(args) => undo::run(&args, context),
    }
}
