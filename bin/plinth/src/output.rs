//! Where words go: answers to standard output, everything else to standard error, colours only to a terminal.
//!
//! Invariants: text from outside loses its control characters on the way to a terminal (`plain`); a reader that closes
//! the pipe ends the command quietly.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::table::Table;

/// How to speak.
#[derive(Debug, Clone, Copy, Default)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Output {
    pub const fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Self { json, quiet, verbose }
    }

    pub const fn is_json(self) -> bool {
        self.json
    }

    pub const fn verbose(self) -> bool {
        self.verbose
    }

    /// Whether a progress bar may be drawn.
    pub fn draws_progress(self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// The answer as JSON, when that was asked for; otherwise what `people` prints.
    pub fn answer<T: Serialize>(self, value: &T, people: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.json {
            return self.print(&people());
        }
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::new(Exit::Failed, format!("the answer cannot be written as JSON: {e}")))?;
        self.print(&text)
    }

    /// A line or more on standard output; nothing when empty.
    pub fn print(self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let mut stdout = anstream::stdout().lock();
        match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|e| Failure::new(Exit::Failed, format!("standard output cannot be written: {e}"))),
        }
    }

    /// A remark beside the answer.
    pub fn note(self, text: &str) {
        if !self.quiet {
            self.raw_error(text);
        }
    }

    /// A line on standard error, whatever was asked for.
    pub fn raw_error(self, text: &str) {
        // Nobody can be told that standard error is gone.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}

/// A table followed by what stands when there is no row.
pub fn table_or(table: &Table, empty: &str) -> String {
    if table.is_empty() { empty.to_owned() } else { table.render() }
}

/// `text` without control characters and without the marks that turn the direction of writing around: neither may
/// rewrite the terminal of whoever looks at a model's description.
pub fn plain(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.contains(hostile) { Cow::Owned(text.replace(hostile, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_steer_a_terminal() {
        assert_eq!(plain("\u{1b}[2Jboo\u{202e}\r\n"), "\u{fffd}[2Jboo\u{fffd}\u{fffd}\u{fffd}");
        assert!(matches!(plain("grüße 数字"), Cow::Borrowed(_)));
    }
}
