//! One figure beside its goal. What could not be measured has neither met nor missed it, and says why.

use serde::Serialize;

/// One figure. Without a goal it is neither met nor missed.
#[derive(Serialize, Clone)]
pub struct Line {
    what: String,
    bar: Option<String>,
    measured: String,
    pub ok: Option<bool>,
}

pub const HEAD: &str = "| what | bar | measured | ok |\n|---|---|---|---|";

impl Line {
    pub fn judged(what: impl Into<String>, bar: impl Into<String>, measured: impl Into<String>, ok: bool) -> Self {
        Self { what: what.into(), bar: Some(bar.into()), measured: measured.into(), ok: Some(ok) }
    }

    pub fn plain(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), bar: None, measured: measured.into(), ok: None }
    }

    /// A figure that could not be had.
    pub fn missing(what: impl Into<String>, bar: impl Into<String>, why: &str) -> Self {
        Self { what: what.into(), bar: Some(bar.into()), measured: format!("not measured: {why}"), ok: None }
    }

    /// A ratio that must be at least so much.
    pub fn at_least(what: impl Into<String>, goal: f64, ratio: Option<f64>, why: &str) -> Self {
        let bar = format!("≥ {goal:.2} ×");
        match ratio {
            Some(ratio) => Self::judged(what, bar, format!("{ratio:.2} ×"), ratio >= goal),
            None => Self::missing(what, bar, why),
        }
    }

    /// A ratio that must be at most so much.
    pub fn at_most(what: impl Into<String>, goal: f64, ratio: Option<f64>, why: &str) -> Self {
        let bar = format!("≤ {goal:.2} ×");
        match ratio {
            Some(ratio) => Self::judged(what, bar, format!("{ratio:.2} ×"), ratio <= goal),
            None => Self::missing(what, bar, why),
        }
    }

    pub fn text(&self) -> String {
        let ok = match (self.ok, &self.bar) {
            (Some(true), _) => "yes",
            (Some(false), _) => "**no**",
            (None, Some(_)) => "–",
            (None, None) => "",
        };
        format!("| {} | {} | {} | {ok} |", self.what, self.bar.as_deref().unwrap_or(""), self.measured)
    }
}

/// The lines as a table.
pub fn table(lines: &[Line]) -> String {
    let rows: String = lines.iter().map(|line| line.text() + "\n").collect();
    format!("{HEAD}\n{rows}")
}

/// What a part found: how many of its goals were missed, and what it could not measure.
#[derive(Default)]
pub struct Verdict {
    pub missed: usize,
    pub unmeasured: usize,
}

impl Verdict {
    pub fn of(lines: &[Line]) -> Self {
        let count = |wanted: fn(&Line) -> bool| lines.iter().filter(|line| wanted(line)).count();
        Self { missed: count(|line| line.ok == Some(false)), unmeasured: count(|line| line.ok.is_none() && line.bar.is_some()) }
    }
}
