//! `plinth login`: keeps an API key for a node in a file that only its owner can read.

use std::io::{BufRead, IsTerminal, Read};

use plinth_client::Secret;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::context::Context;
use crate::exit::{Exit, Failure};

const MAX_KEY: u64 = 4096;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key is taken from `--key` or PLINTH_KEY, else from standard input, else asked for. It is tried before it is kept.

Examples:
  plinth login                                   ask for the key of the node on this machine
  plinth login --server https://plinth.example < key.txt")]
pub struct Args {
    /// Keep the key without trying it
    #[arg(long)]
    offline: bool,
}

/// Tries the key and keeps it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let key = match context.given_key() {
        Some(key) => key.clone(),
        None => read(context)?,
    };
    if key.expose().is_empty() {
        return Err(Failure::usage("no key was given"));
    }
    if !args.offline {
        let client = context.client_with(Some(key.clone()))?;
        context.wait(async {
            match client.status().await {
                // A key for inference may not see the status; it is a good key all the same.
                Err(error) if error.status() == Some(403) => Ok(()),
                other => other.map(drop).map_err(Failure::from),
            }
        })?;
    }
    let credentials = context.credentials()?;
    credentials.set(context.server(), &key)?;
    context.output.note(&format!("kept the key for {} in {}", context.server(), credentials.path().display()));
    Ok(())
}

fn read(context: &Context) -> Result<Secret, Failure> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("the key cannot be read: {e}"));
    let stdin = std::io::stdin();
    let mut text = String::new();
    if stdin.is_terminal() {
        context.output.raw_error(&format!("API key for {} (it is not shown):", context.server()));
        let _silence = Silence::begin();
        stdin.lock().take(MAX_KEY).read_line(&mut text).map_err(failed)?;
    } else {
        stdin.lock().take(MAX_KEY).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(Secret::new(text.trim()))
}

/// A terminal that does not repeat what is typed, until this is dropped.
struct Silence(Option<rustix::termios::Termios>);

impl Silence {
    fn begin() -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(mut quiet) = before.clone() {
            quiet.local_modes.remove(LocalModes::ECHO);
            // A terminal that refuses shows the key; the user sees that.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet);
        }
        Self(before)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
