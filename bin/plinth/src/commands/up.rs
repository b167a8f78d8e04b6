//! `plinth up`: starts a node and stays until it ends.
//!
//! Only what belongs to a command is here: the configuration with what the command line overrides, the logs, the tokio
//! runtime, and how the node's announcements look. The node itself is `plinth_node::run`.

use std::io::IsTerminal;
use std::path::PathBuf;

use plinth_config::process::override_variable;
use plinth_config::{Config, Origin, Problem};
use plinth_telemetry::{LogFormat, LogSettings};

use crate::commands::config::refused;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::reference::nearest;

mod announce;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first start creates an admin key and prints it once; it is not stored in clear. Keep it: `plinth login`.

Examples:
  plinth up --dev                              no keys, loopback only: to try things out
  plinth up --config /etc/plinth.toml          with a configuration (`plinth config docs`)
  plinth up --data-dir /tmp/p --set listen.http=127.0.0.1:9000")]
pub struct Args {
    /// Let everybody do everything; refuses any address but loopback
    #[arg(long)]
    dev: bool,

    #[command(flatten)]
    overrides: Overrides,
}

/// What the command line says about the configuration.
#[derive(Debug, Default, clap::Args)]
pub struct Overrides {
    /// Configuration file [env: PLINTH_CONFIG] [default: plinth.toml if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory in which the node keeps everything
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// Overrides one key of the configuration; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = override_of)]
    set: Vec<(String, String)>,
}

fn override_of(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("want SECTION.KEY=VALUE")?;
    let mut known = plinth_config::keys::all().map(|known| known.path);
    if known.any(|known| known == key) {
        return Ok((key.to_owned(), value.to_owned()));
    }
    let near = nearest(key, plinth_config::keys::all().map(|known| known.path));
    Err(near.map_or_else(
        || format!("there is no key '{key}'; `plinth config docs` lists them"),
        |near| format!("there is no key '{key}'; did you mean '{near}'?"),
    ))
}

impl Overrides {
    /// The configuration out of the file, the environment and the command line, which wins.
    pub fn load(&self) -> Result<Config, Failure> {
        self.load_with(&[])
    }

    fn load_with(&self, more: &[(&str, &str)]) -> Result<Config, Failure> {
        let data_dir = self.data_dir.iter().map(|dir| ("node.data_dir".to_owned(), dir.clone()));
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let overrides: Vec<_> = self.set.iter().cloned().chain(data_dir).chain(more).collect();
        Config::load_with_overrides(self.config.as_deref(), &overrides).map_err(|problems| refused(&named(problems, &overrides)))
    }
}

/// Problems with what the command line said, named as it was said.
fn named(mut problems: Vec<Problem>, overrides: &[(String, String)]) -> Vec<Problem> {
    for problem in &mut problems {
        if let Origin::Environment(variable) = &problem.origin
            && let Some((key, _)) = overrides.iter().find(|(key, _)| override_variable(key) == *variable)
        {
            problem.origin = Origin::CommandLine(key.clone());
        }
    }
    problems
}

/// Starts a node.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let config = args.overrides.load_with(if args.dev { &[("auth.mode", "open")] } else { &[] })?;
    let terminal = std::io::stderr().is_terminal();
    let format = match config.log.format {
        plinth_config::LogFormat::Auto if terminal => LogFormat::Pretty,
        plinth_config::LogFormat::Auto | plinth_config::LogFormat::Json => LogFormat::Json,
        plinth_config::LogFormat::Pretty => LogFormat::Pretty,
    };
    let ansi = terminal && anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let logs = plinth_telemetry::init_logs(&LogSettings { level: config.log.level.clone(), format, ansi })
        .map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
    // A thread that gives freed memory back also when nothing is allocated any more. The node's only: a runner puts up its
    // walls while it has one thread. Where it cannot be had, memory goes back with the next allocations.
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Exit::Failed, format!("the node cannot start its threads: {e}")))?;
    let options = plinth_node::NodeOptions { announce: announce::to(context.output), logs };
    runtime.block_on(plinth_node::run(config, options)).map_err(|error| {
        // The node's texts are for its operator, who is the one at this terminal.
        Failure::new(Exit::Failed, format!("the node cannot run: {error:#}")).next("`plinth doctor` says what this machine lacks")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_name_a_key() {
        assert_eq!(override_of("listen.http=a=b").unwrap(), ("listen.http".into(), "a=b".into()));
        for bad in ["listen.http", "listen=1", "a.b.c=1", ".x=1", "=1"] {
            assert!(override_of(bad).is_err(), "{bad}");
        }
        assert!(override_of("http.max_conections=7").unwrap_err().contains("'http.max_connections'"));
    }

    #[test]
    fn the_command_line_wins_and_mistakes_are_named() {
        let overrides = Overrides { data_dir: Some("/d".into()), set: vec![("http.max_connections".into(), "7".into())], config: None };
        let config = overrides.load().unwrap();
        assert_eq!((config.node.data_dir.to_str(), config.http.max_connections), (Some("/d"), 7));
        let wrong = Overrides { set: vec![("http.max_connections".into(), "many".into())], ..Overrides::default() };
        let failure = wrong.load().unwrap_err();
        assert!(failure.message.starts_with("command line http.max_connections: "), "{}", failure.message);
    }
}
