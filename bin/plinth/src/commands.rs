//! The commands, one file each. A command takes its own arguments and the shared context, prints its answer, and ends
//! well or with a `Failure`.

pub mod apply;
pub mod audit;
pub mod batch;
pub mod completions;
pub mod config;
pub mod delete;
pub mod diff;
pub mod doctor;
pub mod filter;
pub mod gc;
pub mod get;
pub mod history;
pub mod infer;
pub mod job;
pub mod key;
pub mod kind;
pub mod login;
pub mod logout;
pub mod model;
pub mod rollback;
pub mod runner;
pub mod schedule;
pub mod status;
pub mod up;
pub mod webhook;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::{self, Failure};

/// Carries a command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Model(args) => model::run(args.command, context),
        Command::Filter(args) => filter::run(args.command, context),
        Command::Infer(args) => infer::run(&args, context),
        Command::Batch(args) => batch::run(args.command, context),
        Command::Job(args) => job::run(args.command, context),
        Command::Kind(args) => kind::run(args.command, context),
        Command::Schedule(args) => schedule::run(args.command, context),
        Command::Webhook(args) => webhook::run(&args.command, context),
        Command::Key(args) => key::run(args.command, context),
        Command::Login(args) => login::run(&args, context),
        Command::Logout(args) => logout::run(&args, context),
        Command::Audit(args) => audit::run(&args.command, context),
        Command::Apply(args) => apply::run(&args, context),
        Command::Diff(args) => diff::run(&args, context),
        Command::Get(args) => get::run(&args, context),
        Command::Delete(args) => delete::run(&args, context),
        Command::History(args) => history::run(&args, context),
        Command::Rollback(args) => rollback::run(&args, context),
        Command::Gc(args) => gc::run(&args, context),
        Command::Config(args) => config::run(args.command, context),
        Command::Completions(args) => completions::run(&args),
        Command::ExitCodes => context.output.print(exit::HELP),
    }
}
