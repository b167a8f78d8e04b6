//! The steps that are other cargo commands. They run in the workspace's root and write to this process's terminal.

use std::process::Command;

use anyhow::{Context, Result};

use crate::report::Outcome;

/// Runs cargo and says whether it succeeded.
///
/// # Errors
/// When cargo cannot be started.
pub fn cargo(name: &'static str, arguments: &[&str]) -> Result<Outcome> {
    println!("== {name}");
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(arguments).status().with_context(|| format!("cannot start cargo {}", arguments.join(" ")))?;
    if status.success() {
        println!("  ok");
    }
    Ok(Outcome { name, passed: status.success() })
}

/// Formats, and lets clippy apply what it can. Works on a tree with changes: that is when one wants it.
///
/// # Errors
/// When cargo cannot be started.
pub fn fix() -> Result<Vec<Outcome>> {
    let clippy = ["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets", "--all-features"];
    Ok(vec![cargo("clippy", &clippy)?, cargo("fmt", &["fmt", "--all"])?])
}
