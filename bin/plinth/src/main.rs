//! The command line: reads the arguments, calls `node` or `client`, says how it went.
//!
//! Invariants: standard output carries the answer and nothing else, so that `--json` can be piped; what is said beside
//! it goes to standard error; the exit code says which kind of end it was (`exit`). Everything that a command does is
//! in its own file under `commands`.

mod cli;
mod commands;
mod context;
mod credentials;
mod exit;
mod files;
mod output;
mod paging;
mod progress;
mod reference;
mod resources;
mod signing;
mod table;
mod tensor;

use std::process::ExitCode;

use clap::Parser;

use crate::context::Context;

/// Gives freed memory back to the machine after some seconds. glibc's keeps what one burst of large bodies took for good,
/// unless every large buffer is mapped and unmapped anew.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A runner must come before everything else: it puts up its walls while the process has one thread and no file open.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "runner") {
        return commands::runner::run();
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let context = Context::new(cli.global);
    match commands::run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&context.output),
    }
}
