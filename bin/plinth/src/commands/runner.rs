//! `plinth runner`: hidden; the node starts its own binary with it to hold a model. Nothing of the command line may run
//! before it.

use std::process::ExitCode;

/// Becomes a runner until the node ends it.
pub fn run() -> ExitCode {
    plinth_engine::runner_main()
}
