//! `cargo xtask`: the checks of the house that neither rustc nor clippy makes.
//!
//! Invariant: only `fix` writes; every check names what is wrong, where, and how to put it right, and all checks run
//! before the first one fails the command. What to build and how to test is left to the Makefile.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool for people at a terminal; it has no clock or environment to inject"
)]

mod dependencies;
mod docs;
mod floors;
mod report;
mod steps;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::report::{Finding, Outcome};
use crate::workspace::Workspace;

const HELP: &str = "\
cargo xtask <command>

  verify        all checks: fmt, floors, dependencies, docs, clippy; writes nothing
  floors        a crate uses only crates on lower floors, has a floor and the lint table
  dependencies  licences, bans and sources of all dependencies, by the lists in deny.toml
  docs          generated pages, error pages, code map, file headers, links
  fix           writes the generated pages, formats, and lets clippy apply what it can
";

fn main() -> Result<ExitCode> {
    let command = std::env::args().nth(1).unwrap_or_default();
    let outcomes = match command.as_str() {
        "verify" => verify()?,
        "floors" => vec![check("floors", &floors::check(&Workspace::load()?.packages))],
        "dependencies" => vec![check("dependencies", &dependencies::check_workspace(&Workspace::load()?)?)],
        "docs" => vec![check("docs", &docs::check_workspace(&Workspace::load()?)?)],
        "fix" => {
            docs::write_generated(&Workspace::load()?.root)?;
            steps::fix()?
        }
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        other => {
            eprintln!("there is no command '{other}'\n\n{HELP}");
            return Ok(ExitCode::from(2));
        }
    };
    Ok(report::summary(&outcomes))
}

/// Everything, the quick checks first.
fn verify() -> Result<Vec<Outcome>> {
    let workspace = Workspace::load()?;
    Ok(vec![
        steps::cargo("fmt", &["fmt", "--all", "--check"])?,
        check("floors", &floors::check(&workspace.packages)),
        check("dependencies", &dependencies::check_workspace(&workspace)?),
        check("docs", &docs::check_workspace(&workspace)?),
        steps::cargo("clippy", &["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"])?,
    ])
}

fn check(name: &'static str, findings: &[Finding]) -> Outcome {
    report::print_findings(name, findings);
    Outcome { name, passed: findings.is_empty() }
}
