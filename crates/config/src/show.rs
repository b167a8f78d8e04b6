//! The configuration for people: every value with its origin, and the reference page.
//!
//! Invariant: no secret is in either.

use std::fmt::Write as _;

use crate::input::variable;
use crate::keys::{SECTIONS, Section};
use crate::{Config, Origin};

/// One key as `plinth config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key, such as `listen.http`.
    pub path: &'static str,
    /// The value as TOML; secrets masked.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Config {
    /// Every key with its value and origin, in the order of the reference.
    #[must_use]
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// The whole configuration as TOML, each value's origin beside it.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for shown in &self.shown {
            let (name, key) = shown.path.split_once('.').unwrap_or(("", shown.path));
            if name != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{name}]");
                section = name;
            }
            let _ = writeln!(text, "{:<40} # {}", format!("{key} = {}", shown.value), shown.origin);
        }
        text
    }
}

/// The reference of all keys as Markdown; `docs/configuration.md` is this text, and `cargo xtask fix` writes it.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         This page is generated from the table of keys; change `crates/config/src/keys.rs` instead.\n\n\
         Values come from one TOML file (`--config FILE`, else `PLINTH_CONFIG`, else `plinth.toml` in the working directory) and from the \
         environment, which wins. A key `section.key` is overridden by the variable `PLINTH__SECTION__KEY`; items of a list are separated by \
         commas there. Unknown keys are refused. `plinth config check` judges a file, `plinth config show` prints every value and where it \
         comes from.\n",
    );
    for section in SECTIONS {
        write_section(&mut text, section);
    }
    text
}

fn write_section(text: &mut String, section: &Section) {
    let _ = write!(text, "\n## [{}]\n\n{}\n", section.name, section.doc.trim());
    for key in section.keys {
        let _ = write!(
            text,
            "\n### `{}`\n\n{}\n\n- value: {}\n- default: `{}`\n- variable: `{}`\n- since: {}\n",
            key.path,
            key.doc.trim(),
            key.form,
            (key.shown_default)(),
            variable(key),
            key.since
        );
    }
}
