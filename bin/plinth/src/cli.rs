//! The tree of commands and the options that all of them share.
//!
//! What belongs to one command is in that command's file.

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};

use crate::commands;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  plinth up --dev                                    start a node on this machine, open on loopback
  plinth model push ./digits --name digits --promote push a directory and serve it
  plinth infer digits --input image.png              ask the model
  plinth doctor                                      what this machine lacks

`plinth help COMMAND` explains a command, `plinth help exit-codes` what the exit codes mean.";

/// Registers, signs, loads and serves models
#[derive(Debug, Parser)]
#[command(name = "plinth", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true, disable_help_subcommand = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,

    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Address of the node [env: PLINTH_SERVER] [default: http://127.0.0.1:8000]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,

    /// API key; other users of this machine can see it here, so prefer PLINTH_KEY or `plinth login`
    #[arg(long, global = true, value_name = "KEY", hide_short_help = true)]
    pub key: Option<String>,

    /// Tenant to act for; for admin keys of the default tenant
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub tenant: Option<plinth_types::TenantName>,

    /// Write the answer as JSON, in the shape of the admin API
    #[arg(long, global = true)]
    pub json: bool,

    /// Write no colours [env: NO_COLOR]
    #[arg(long, global = true, hide_short_help = true)]
    pub no_color: bool,

    /// Say nothing beside the answer
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more when something fails
    #[arg(long, short, global = true, action = clap::ArgAction::Count, hide_short_help = true)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node
    Up(commands::up::Args),
    /// Show how a node is and what it serves
    Status(commands::status::Args),
    /// Check what this machine lacks, and how to get it
    Doctor(commands::doctor::Args),
    /// Push, show, sign, verify, promote and delete models
    Model(commands::model::Args),
    /// Push, show and delete filters that requests pass
    Filter(commands::filter::Args),
    /// Ask a model
    Infer(commands::infer::Args),
    /// Run a file of rows against a model
    Batch(commands::batch::Args),
    /// Hand in work that outlives the request; show, wait for, end and replay it
    Job(commands::job::Args),
    /// Pause and limit kinds of jobs
    Kind(commands::kind::Args),
    /// Hand jobs in by the clock
    Schedule(commands::schedule::Args),
    /// Rotate the secrets that sign webhooks
    Webhook(commands::webhook::Args),
    /// Make signing keys; create, list and delete API keys
    Key(commands::key::Args),
    /// Keep an API key for a node, so that it need not be given each time
    Login(commands::login::Args),
    /// Forget the API key that was kept for a node
    Logout(commands::logout::Args),
    /// Apply resources from files, all or none
    Apply(commands::apply::Args),
    /// Show what applying files would change
    Diff(commands::diff::Args),
    /// Show resources as they can be applied again
    Get(commands::get::Args),
    /// Delete a resource that nothing needs
    Delete(commands::delete::Args),
    /// Show who changed what, newest first
    History(commands::history::Args),
    /// Take a change back
    Rollback(commands::rollback::Args),
    /// Check that the audit is what was written
    Audit(commands::audit::Args),
    /// Delete file contents that no version needs
    Gc(commands::gc::Args),
    /// Check, show and explain the configuration
    Config(commands::config::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
    /// What the exit codes mean
    #[command(long_about = crate::exit::HELP)]
    ExitCodes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_holds_together() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["plinth --json status --server http://h", "plinth status --server http://h --json"] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.server.as_deref(), Some("http://h"));
        }
        assert!(parse("plinth status --quiet --verbose").is_err());
        assert!(parse("plinth statsu").unwrap_err().to_string().contains("'status'"));
    }

    #[test]
    fn values_are_checked_where_they_are_given() {
        for bad in [
            "plinth model push . --name a/b",
            "plinth model push . --name ok --tag novalue",
            "plinth model show ../x",
            "plinth model retire digits",
            "plinth model retire digits@champion@x",
            "plinth infer",
            "plinth key create --role root",
            "plinth key delete a/b",
            "plinth model undo minus",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn promote_takes_its_alias_or_leaves_it() {
        for (line, aliases) in [
            ("plinth model push d --name n", None),
            ("plinth model push d --name n --promote", Some("champion")),
            ("plinth model push d --name n --promote canary", Some("canary")),
        ] {
            let Command::Model(commands::model::Args { command: commands::model::Command::Push(push) }) = parse(line).unwrap().command
            else {
                panic!("{line}")
            };
            assert_eq!(push.promote.as_ref().map(|a| a.as_str()), aliases);
        }
    }
}
