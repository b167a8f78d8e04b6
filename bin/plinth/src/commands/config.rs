//! `plinth config`: checks the configuration, shows it with where each value comes from, explains the keys.

use std::path::PathBuf;

use clap::Subcommand;
use plinth_config::{Config, Problem, reference_markdown};
use serde::Serialize;

use crate::commands::up::Overrides;
use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  plinth config check plinth.toml
  plinth config show --set listen.http=127.0.0.1:9000
  plinth config docs > configuration.md")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether the configuration can be used; exit code 1 when it cannot
    Check {
        /// The file; else the one in PLINTH_CONFIG, else plinth.toml
        file: Option<PathBuf>,
    },
    /// Print every value and where it comes from; secrets are masked
    Show {
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Print the reference of all keys as Markdown
    Docs,
}

#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
    /// As TOML.
    value: &'a str,
    origin: String,
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Check { file } => {
            Config::load_from_process(file.as_deref()).map_err(|problems| refused(&problems))?;
            context.output.note("the configuration can be used");
            Ok(())
        }
        Command::Show { overrides } => {
            let config = overrides.load()?;
            let keys: Vec<_> = config.shown().iter().map(|s| Key { key: s.path, value: &s.value, origin: s.origin.to_string() }).collect();
            context.output.answer(&keys, || config.show())
        }
        Command::Docs => context.output.print(&reference_markdown()),
    }
}

/// All problems of a configuration as one failure.
pub fn refused(problems: &[Problem]) -> Failure {
    let message = match problems {
        [one] => one.to_string(),
        many => {
            let lines: String = many.iter().map(|p| format!(" · {p}")).collect();
            format!("the configuration has {} mistakes{lines}", many.len())
        }
    };
    Failure::new(Exit::Failed, message).next("`plinth config docs` explains every key")
}
