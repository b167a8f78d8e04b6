//! `plinth job`: work that outlives the request.

use std::time::Duration;

use clap::Subcommand;
use plinth_client::Error;
use plinth_config::setting::Setting;

use crate::context::Context;
use crate::exit::Failure;

mod attempts;
mod bar;
mod cancel;
mod counts;
mod events;
mod input;
mod list;
pub mod patience;
mod payload;
mod replay;
pub mod request;
mod show;
mod submit;
pub mod wait;
pub mod words;

pub use input::read as read_json;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A job is kept by the node until it has ended, and its result for some days after that. One that fails is tried again; when no \
attempt is left it is a dead letter, which `replay` runs again.

Examples:
  plinth job submit --model digits --input request.json --wait
  id=$(plinth job submit --model digits --input request.json)
  plinth job wait $id && plinth job result $id --out answer.json
  plinth job list --state dead
  plinth job replay --kind infer")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hand a job in
    Submit(Box<submit::Args>),
    /// List jobs, newest first
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show a job as it stands
    Show(show::Args),
    /// Wait until a job has ended
    Wait(wait::Args),
    /// Get what a job has given
    Result(payload::ResultArgs),
    /// Get what a job was given
    Input(payload::InputArgs),
    /// Show what a job tells while it runs
    Events(events::Args),
    /// Show the attempts of a job that failed
    Attempts(attempts::Args),
    /// End jobs before they are done
    Cancel(cancel::Args),
    /// Run dead letters again
    Replay(replay::Args),
    /// Count jobs by kind and state
    Counts(counts::Args),
}

/// Carries the command out.
pub fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Submit(args) => submit::run(*args, context),
        Command::List(args) => list::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Wait(args) => wait::run(&args, context),
        Command::Result(args) => payload::result(&args, context),
        Command::Input(args) => payload::input(&args, context),
        Command::Events(args) => events::run(&args, context),
        Command::Attempts(args) => attempts::run(&args, context),
        Command::Cancel(args) => cancel::run(&args, context),
        Command::Replay(args) => replay::run(args, context),
        Command::Counts(args) => counts::run(&args, context),
    }
}

/// The id of a job: a UUID.
pub fn id(text: &str) -> Result<String, String> {
    let fits = text.len() == 36
        && text.char_indices().all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() });
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("want the id of a job, as `plinth job list` shows it".to_owned()) }
}

/// A length of time.
pub fn duration(text: &str) -> Result<Duration, String> {
    <Duration as Setting>::from_text(text).map_err(|_| "want a duration such as 30s, 5m or 2h".to_owned())
}

/// A label as `NAME=VALUE`, by the rule of the node.
pub fn label(text: &str) -> Result<(String, String), String> {
    let plain = |text: &str| (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_alphanumeric() || "._-/:@+".contains(c));
    let (name, value) = text.split_once('=').ok_or("a label is NAME=VALUE")?;
    if plain(name) && plain(value) {
        Ok((name.to_owned(), value.to_owned()))
    } else {
        Err("a label's name and value have 1 to 128 letters, digits and . _ - / : @ +".to_owned())
    }
}

/// A refusal about jobs, with where to look next.
pub fn advised(error: Error) -> Failure {
    let next = match error.reason() {
        Some("job_not_found") => "`plinth job list` shows what there is",
        Some("job_kind_unknown") => "`plinth kind list` shows the kinds that the node knows",
        Some("idempotency_key_reused") => "leave `--idempotency-key` out, or take another one",
        _ => return error.into(),
    };
    Failure::from(error).next(next)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn lines_that_are_right_are_taken() {
        for good in [
            "plinth job submit --model digits --input {} --label team=vision --label run=7 --wait",
            "plinth job submit --kind http --url https://h/x --method PUT --class background --priority -5 --delay 90s",
            "plinth job submit --file request.json --idempotency-key order-17 --wait",
            "plinth job submit --kind embed --run-at 2030-01-31T00:00:00Z --attempts 5 --after 01890a5d-ac96-774b-bcce-b302099a8057 --on-failure run",
            "plinth job ls --state dead --kind infer --label team=vision --limit 7",
            "plinth job replay --all --yes",
            "plinth job replay --kind infer",
            "plinth job counts --json",
            "plinth kind limit infer --concurrency 4 --rate 2.5",
            "plinth kind limit infer --no-limit",
            "plinth schedule delete nightly",
            "plinth webhook secret rotate default",
        ] {
            if let Err(error) = parse(good) {
                panic!("{good}: {error}");
            }
        }
        for command in ["show", "wait", "result", "input", "events -f", "attempts", "cancel", "replay"] {
            assert!(parse(&format!("plinth job {command} {ID}")).is_ok(), "{command}");
        }
    }

    #[test]
    fn lines_that_are_wrong_are_refused_before_anything_is_sent() {
        for bad in [
            "plinth job show 17",
            "plinth job cancel",
            "plinth job replay",
            "plinth job replay --all --kind infer",
            "plinth job list --state lost",
            "plinth job list --label novalue",
            "plinth job submit --model a --url https://h",
            "plinth job submit --kind x --class urgent",
            "plinth job submit --kind x --priority 1001",
            "plinth job submit --kind x --attempts 0",
            "plinth job submit --kind x --delay 5s --run-at 2030-01-31T00:00:00Z",
            "plinth job submit --kind x --delay soon",
            "plinth job submit --kind x --method PATCH --url https://h",
            "plinth job submit --kind x --webhook-secret s",
            "plinth job submit --file r.json --model digits",
            "plinth kind limit infer",
            "plinth kind limit infer --no-limit --rate 1",
            "plinth kind limit infer --rate 0",
            "plinth schedule put nightly --catch-up twice --kind x --cron @daily",
            "plinth webhook secret rotate a/b",
        ] {
            assert_eq!(parse(bad).map(|_| ()).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn ids_and_labels_are_checked() {
        assert_eq!(id(&ID.to_uppercase()).unwrap(), ID);
        for bad in ["", "01890a5dac96774bbcceb302099a8057", "01890a5d-ac96-774b-bcce-b302099a805g", "é1890a5d-ac96-774b-bcce-b302099a805"]
        {
            assert!(id(bad).is_err(), "{bad:?}");
        }
        assert_eq!(label("team=größe/1").unwrap(), ("team".to_owned(), "größe/1".to_owned()));
        for bad in ["team", "=x", "team=", "a b=c", "a=b c", "a=b=c"] {
            assert!(label(bad).is_err(), "{bad:?}");
        }
    }
}
