//! What every measurement is given, and how its results are written down.

use std::ops::Add as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::line::{self, Line, Verdict};

/// The program that is measured, and where the results go.
#[derive(clap::Args, Clone)]
pub struct Setup {
    /// The release binary of Plinth.
    #[arg(long)]
    pub plinth: PathBuf,
    /// ONNX Runtime's shared library.
    #[arg(long)]
    pub onnxruntime: PathBuf,
    /// The directory with the versions of the digits model, `1` and `2`.
    #[arg(long)]
    pub models: PathBuf,
    /// The directory for the results: a `.md` and a `.json` for each part.
    #[arg(long)]
    pub out: PathBuf,
    /// The directory that `scripts/rivals.sh` filled; without it, rivals are skipped.
    #[arg(long)]
    pub rivals: Option<PathBuf>,
    /// The engine's example `round_trip`, for the cost of isolation.
    #[arg(long)]
    pub round_trip: Option<PathBuf>,
    /// The commit that is measured, for the heading.
    #[arg(long, default_value = "unknown")]
    pub commit: String,
    /// The date, for the heading.
    #[arg(long, default_value = "unknown")]
    pub date: String,
}

impl Setup {
    /// One line that says what was measured where.
    pub fn heading(&self, how: &str) -> String {
        // Of the machine: some parts put themselves on one of them.
        let cores =
            std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default().lines().filter(|line| line.starts_with("processor")).count();
        format!(
            "Commit {} · {} · {cores} cores ({}), everything on one machine · {how} · `make bench`",
            self.commit,
            self.date,
            processor()
        )
    }

    /// Writes the text for people and the figures for programs.
    pub fn write(&self, name: &str, text: &str, figures: &impl Serialize) -> Result<()> {
        std::fs::create_dir_all(&self.out)?;
        let path = self.out.join(name);
        std::fs::write(path.with_extension("md"), text).context("writing the results")?;
        let mut json = serde_json::to_string_pretty(figures)?;
        json.push('\n');
        std::fs::write(path.with_extension("json"), json).context("writing the results")
    }

    /// Writes a part that consists of judged lines, some text and figures, and says what was missed.
    pub fn finish(&self, part: &Part<'_>) -> Result<Verdict> {
        let judged = if part.lines.is_empty() { String::new() } else { line::table(part.lines) + "\n" };
        let text = format!("# {}\n\n{}\n\n{}\n\n{judged}{}", part.title, self.heading(part.how), part.about, part.text);
        let figures = serde_json::json!({
            "commit": self.commit, "date": self.date, "command": format!("plinth-bench {}", part.name),
            "lines": part.lines, "figures": part.figures,
        });
        println!("{text}");
        self.write(part.name, text.trim_end().to_owned().add("\n").as_str(), &figures)?;
        Ok(Verdict::of(part.lines))
    }
}

/// The results of a part.
pub struct Part<'a> {
    /// Of its files, and the subcommand.
    pub name: &'a str,
    pub title: &'a str,
    /// How it was measured, for the heading.
    pub how: &'a str,
    /// What is compared.
    pub about: &'a str,
    pub lines: &'a [Line],
    /// Further tables.
    pub text: &'a str,
    pub figures: Value,
}

/// The processor's name, as the kernel knows it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}
