//! What a node takes and how it behaves when things change, each figure beside the bar it must stay under.
//!
//! One file for each question. Figures without a bar are there to be compared with the next measurement.

mod crash;
mod cycles;
mod isolation;
mod memory;
mod start;
mod swap;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::body;
use crate::exchange::{Answer, Connection, Target};
use crate::line::{HEAD, Line, Verdict};
use crate::plinth::Node;
use crate::setup::Setup;

/// How often, and how long.
#[derive(clap::Args)]
pub struct Amount {
    /// Starts that are timed.
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Seconds without a request before memory is read.
    #[arg(long, default_value_t = 5.0)]
    idle: f64,
    /// How often the model is unloaded and loaded again.
    #[arg(long, default_value_t = 1000)]
    cycles: usize,
    /// Cycles before those, in which caches fill up.
    #[arg(long, default_value_t = 300)]
    settle: usize,
    /// How often the alias moves.
    #[arg(long, default_value_t = 10)]
    swaps: usize,
    /// Runners that are killed.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Seconds for each side when the cost of isolation is measured.
    #[arg(long = "isolation-seconds", default_value_t = 4.0)]
    seconds: f64,
    /// Answers only these questions.
    #[arg(long, value_delimiter = ',', value_parser = QUESTIONS)]
    questions: Vec<String>,
}

impl Amount {
    fn wants(&self, question: &str) -> bool {
        self.questions.is_empty() || self.questions.iter().any(|only| only == question)
    }
}

/// The lines of one question, and the figures behind them.
struct Part {
    name: &'static str,
    lines: Vec<Line>,
    figures: Value,
}

#[derive(Serialize)]
struct Figures<'a> {
    commit: &'a str,
    date: &'a str,
    lines: &'a [Line],
    figures: Map<String, Value>,
}

const QUESTIONS: [&str; 6] = ["start", "memory", "cycles", "swap", "crash", "isolation"];

/// Measures everything and writes the table.
///
/// # Errors
/// When something cannot be measured.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<Verdict> {
    println!("{HEAD}");
    let (mut lines, mut figures) = (Vec::new(), Map::new());
    let mut take = |part: Part| {
        part.lines.iter().for_each(|line| println!("{}", line.text()));
        lines.extend(part.lines);
        figures.insert(part.name.to_owned(), part.figures);
    };
    for question in QUESTIONS.into_iter().filter(|question| amount.wants(question)) {
        take(match question {
            "start" => start::measure(setup, amount.starts).await?,
            "memory" => memory::measure(setup, Duration::from_secs_f64(amount.idle)).await?,
            "cycles" => cycles::measure(setup, amount.settle, amount.cycles).await?,
            "swap" => swap::measure(setup, amount.swaps).await?,
            "crash" => crash::measure(setup, amount.kills).await?,
            _ => isolation::measure(setup, Duration::from_secs_f64(amount.seconds)).await?,
        });
    }

    let mut text = format!("# What a node takes\n\n{}\n\n{HEAD}\n", setup.heading("release build, page cache warm"));
    for line in &lines {
        writeln!(text, "{}", line.text())?;
    }
    setup.write("footprint", &text, &Figures { commit: &setup.commit, date: &setup.date, lines: &lines, figures })?;
    Ok(Verdict::of(&lines))
}

/// An inference of one image, in binary.
fn image(node: &Node, model: &str) -> Result<Target> {
    let body = body::binary("image", &[1, 64]);
    Target::post(&node.infer_url(model), &body.bytes, body.header_length, Some(&node.key))
}

/// One request that must succeed.
async fn succeed(connection: &mut Connection, target: &Target) -> Result<()> {
    let Answer { status, body } = connection.exchange(target).await?;
    if status != 200 {
        bail!("answered with {status}: {}", String::from_utf8_lossy(body));
    }
    Ok(())
}

/// The smallest, the middle and the largest.
#[derive(Serialize, Clone, Copy)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Result<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values[..] {
            [] => bail!("nothing was measured"),
            [min, .., max] | [min @ max] => {
                let median =
                    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] };
                Ok(Self { min, median, max })
            }
        }
    }

    /// With a unit, such as `12 / 14 / 30 ms`.
    fn show(&self, unit: &str) -> String {
        format!("{:.0} / {:.0} / {:.0} {unit}", self.min, self.median, self.max)
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
