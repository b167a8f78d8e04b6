//! `plinth doctor`: what this machine lacks, and how to get it. Exit code 1 when something needed is missing.
//!
//! Each check is independent, reads only, and ends within a few seconds. One check says one thing; a finding that is not
//! good carries a remedy.

use std::time::Duration;

use serde::Serialize;

use crate::commands::up::Overrides;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::table::Tone;

mod engine;
mod machine;
mod network;
mod trial_model;

/// How long one check may wait for somebody.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the configuration that `plinth up` would use here. ✓ is good, ! works with less, ✗ must be mended first.

Examples:
  plinth doctor
  plinth doctor --config /etc/plinth.toml --json")]
pub struct Args {
    #[command(flatten)]
    overrides: Overrides,
}

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    Warning,
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable word for programs.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, text: text.into(), remedy: None }
    }

    pub fn warning(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, text: text.into(), remedy: Some(remedy.into()) }
    }

    pub fn bad(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Bad, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// Checks everything and says what was found.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut findings = Vec::new();
    match args.overrides.load() {
        Ok(config) => {
            findings.push(Finding::good("configuration", "can be used"));
            findings.push(machine::data_dir(&config.node.data_dir));
            findings.extend(machine::free_space(&config.node.data_dir));
            findings.push(machine::sqlite());
            findings.extend(context.wait(async { Ok(network::listeners(&config).await) })?);
            findings.extend(context.wait(async { Ok(network::postgres(&config).await) })?);
            findings.extend(context.wait(async { Ok(engine::trial(&config).await) })?);
            findings.push(machine::file_descriptors(config.http.max_connections));
        }
        Err(failure) => findings.push(Finding::bad("configuration", failure.message, "`plinth config docs` explains every key")),
    }
    findings.push(machine::clock());
    context.output.answer(&findings, || render(&findings))?;
    if findings.iter().any(|f| f.verdict == Verdict::Bad) { Err(Failure::silent(Exit::Failed)) } else { Ok(()) }
}

fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (mark, tone) = match finding.verdict {
            Verdict::Good => ("✓", Tone::Good),
            Verdict::Warning => ("!", Tone::Warning),
            Verdict::Bad => ("✗", Tone::Bad),
        };
        let style = tone.style();
        text.push_str(&format!("{style}{mark}{style:#} {:width$}  {}\n", finding.check.replace('_', " "), plain(&finding.text)));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("  {:width$}  → {}\n", "", plain(remedy)));
        }
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    text.push_str(&match (count(Verdict::Bad), count(Verdict::Warning)) {
        (0, 0) => "\nall is well".to_owned(),
        (0, warnings) => format!("\nnothing is missing; {warnings} could be better"),
        (bad, _) => format!("\n{bad} to mend"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_shown_with_their_remedies() {
        let findings = [
            Finding::good("configuration", "can be used"),
            Finding::warning("file_descriptors", "1024", "raise it: `ulimit -n 65536`"),
            Finding::bad("onnx_runtime", "was not found", "`make setup` fetches it"),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&render(&findings)).to_string(), @r"
        ✓ configuration     can be used
        ! file descriptors  1024
                            → raise it: `ulimit -n 65536`
        ✗ onnx runtime      was not found
                            → `make setup` fetches it

        1 to mend
        ");
    }
}
