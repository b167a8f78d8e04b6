//! Asking before something is deleted that cannot be brought back by pushing again.

use std::io::{BufRead, IsTerminal};

use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Ends well when the user agrees: by `--yes`, or by typing the name at a terminal.
pub fn confirm(question: &str, name: &str, yes: bool, context: &Context) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question}, and nobody is there to ask")).next("say `--yes` when that is meant"));
    }
    context.output.raw_error(&format!("{question}. Type {name} to go on:"));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match read {
        Ok(_) if line.trim() == name => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was deleted")),
    }
}
