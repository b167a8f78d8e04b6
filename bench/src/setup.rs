//! What every measurement is given, and how its results are written down.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

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
    /// Where to write the results: this path with `.md` and `.json`.
    #[arg(long)]
    pub out: PathBuf,
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
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!(
            "Commit {} · {} · {cores} cores ({}), everything on one machine · {how} · `make bench`",
            self.commit,
            self.date,
            processor()
        )
    }

    /// Writes the text for people and the figures for programs.
    pub fn write(&self, text: &str, figures: &impl Serialize) -> Result<()> {
        if let Some(parent) = self.out.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(self.out.with_extension("md"), text).context("writing the results")?;
        let mut json = serde_json::to_string_pretty(figures)?;
        json.push('\n');
        std::fs::write(self.out.with_extension("json"), json).context("writing the results")
    }
}

/// The processor's name, as the kernel knows it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}
