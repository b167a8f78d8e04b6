//! What is traced: the settings by name, what a model inherits, and the choice of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use plinth_types::{Error, Reason, Result};

/// A setting's name, and its new values; `None` or no values clear it, so that what stands behind it counts again.
pub type Change = (String, Option<Vec<String>>);

/// What somebody set himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Own {
    timestamps: Option<bool>,
    rate: Option<u64>,
    count: Option<i64>,
    frequency: Option<u64>,
}

impl Own {
    /// Takes all changes, or none.
    pub fn apply(&mut self, changes: &[Change]) -> Result<()> {
        let mut new = *self;
        for (name, values) in changes {
            let values = values.as_deref().filter(|values| !values.is_empty());
            match name.as_str() {
                "trace_level" => new.timestamps = values.map(level).transpose()?,
                "trace_rate" => new.rate = values.map(|v| number(name, v, 0)).transpose()?,
                "trace_count" => new.count = values.map(|v| number(name, v, -1)).transpose()?,
                "log_frequency" => new.frequency = values.map(|v| number(name, v, 0)).transpose()?,
                "trace_file" => return Err(unsupported(name, "trace file location can not be updated through network protocol")),
                "trace_mode" => return Err(unsupported(name, "trace mode can not be updated through network protocol")),
                _ => {
                    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                    let text =
                        format!("there is no trace setting '{name}'; there are trace_level, trace_rate, trace_count and log_frequency");
                    return Err(Error::new(Reason::MalformedRequest, text).field(name));
                }
            }
        }
        *self = new;
        Ok(())
    }
}

fn unsupported(name: &str, text: &str) -> Error {
    Error::new(Reason::NotImplemented, text).field(name)
}

/// Whether these levels mean timestamps.
fn level(values: &[String]) -> Result<bool> {
    if values.len() > 1 && values.iter().any(|v| v == "OFF") {
        return Err(Error::new(Reason::MalformedRequest, "Expect only one trace level 'OFF' is specified").field("trace_level"));
    }
    for value in values {
        match value.as_str() {
            "OFF" | "TIMESTAMPS" => {}
            "TENSORS" => {
                let text = "tensors are not traced by this server; the trace levels are OFF and TIMESTAMPS";
                return Err(unsupported("trace_level", text));
            }
            other => {
                let other: String = other.chars().filter(|c| !c.is_control()).take(32).collect();
                let text = format!("'{other}' is no trace level; there are OFF and TIMESTAMPS");
                return Err(Error::new(Reason::MalformedRequest, text).field("trace_level"));
            }
        }
    }
    Ok(values.iter().any(|v| v == "TIMESTAMPS"))
}

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(name: &str, values: &[String], least: T) -> Result<T> {
    let parsed = if let [value] = values { value.parse().ok() } else { None };
    parsed.filter(|value| *value >= least).ok_or_else(|| {
        let text = format!("{name} must be one whole number from {least} on, as a string");
        Error::new(Reason::MalformedRequest, text).field(name)
    })
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `OFF`, or what is traced.
    pub trace_level: Vec<&'static str>,
    /// Every how many-th request is traced.
    pub trace_rate: u64,
    /// How many are still to be traced; -1 for all.
    pub trace_count: i64,
    /// Kept for clients that set it; records are written at once.
    pub log_frequency: u64,
}

impl Shown {
    /// The settings by the protocol's names, all values as strings.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, Vec<String>)> {
        vec![
            ("trace_file", vec![String::new()]),
            ("trace_level", self.trace_level.iter().map(|level| (*level).to_owned()).collect()),
            ("trace_rate", vec![self.trace_rate.to_string()]),
            ("trace_count", vec![self.trace_count.to_string()]),
            ("log_frequency", vec![self.log_frequency.to_string()]),
            ("trace_mode", vec!["triton".to_owned()]),
        ]
    }
}

/// Settings in force, and how far they have counted.
#[derive(Debug)]
pub(super) struct Rule {
    timestamps: bool,
    rate: u64,
    /// As it was set; -1 for all.
    count: i64,
    frequency: u64,
    seen: AtomicU64,
    left: AtomicI64,
}

impl Default for Rule {
    fn default() -> Self {
        Self::new(&Own::default(), &Own::default())
    }
}

impl Rule {
    fn new(outer: &Own, own: &Own) -> Self {
        let count = own.count.or(outer.count).unwrap_or(-1);
        Self {
            timestamps: own.timestamps.or(outer.timestamps).unwrap_or(false),
            rate: own.rate.or(outer.rate).unwrap_or(1000),
            count,
            frequency: own.frequency.or(outer.frequency).unwrap_or(0),
            seen: AtomicU64::new(0),
            left: AtomicI64::new(count),
        }
    }

    /// The rule of new settings: this one while they come to the same, else one that counts anew.
    pub fn renewed(self: &Arc<Self>, outer: &Own, own: &Own) -> Arc<Self> {
        let new = Self::new(outer, own);
        let same = (new.timestamps, new.rate, new.count, new.frequency) == (self.timestamps, self.rate, self.count, self.frequency);
        if same { self.clone() } else { Arc::new(new) }
    }

    pub const fn traces(&self) -> bool {
        self.timestamps && self.rate > 0 && self.count != 0
    }

    /// Counts a request; whether it is to be traced.
    pub fn sample(&self) -> bool {
        if !self.traces() {
            return false;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !number.is_multiple_of(self.rate) {
            return false;
        }
        self.count < 0 || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then(|| left - 1)).is_ok()
    }

    pub fn show(&self) -> Shown {
        Shown {
            trace_level: vec![if self.timestamps { "TIMESTAMPS" } else { "OFF" }],
            trace_rate: self.rate,
            trace_count: self.left.load(Ordering::Relaxed),
            log_frequency: self.frequency,
        }
    }
}
