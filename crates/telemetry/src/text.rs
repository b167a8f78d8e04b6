//! The text exposition format of Prometheus, version 0.0.4.
//!
//! Source: the format's description in the Prometheus documentation. Invariant: whatever the label
//! values are, each sample is one line that reads back as the same labels.

use std::fmt::Write as _;

/// The labels of a sample: names and values, and perhaps one more at the end.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    names: &'a [&'a str],
    values: &'a [&'a str],
    extra: Option<(&'a str, &'a str)>,
}

impl<'a> Labels<'a> {
    /// No labels.
    pub const NONE: Self = Self { names: &[], values: &[], extra: None };

    /// Names with their values, in the same order.
    #[must_use]
    pub const fn new(names: &'a [&'a str], values: &'a [&'a str]) -> Self {
        Self { names, values, extra: None }
    }

    /// One label more.
    #[must_use]
    pub const fn and(self, name: &'a str, value: &'a str) -> Self {
        Self { extra: Some((name, value)), ..self }
    }

    fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.names.iter().copied().zip(self.values.iter().copied()).chain(self.extra)
    }
}

/// Writes samples.
#[derive(Default)]
pub struct TextWriter {
    out: String,
}

impl TextWriter {
    /// Begins a metric.
    pub fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.trim().replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample that is a whole number.
    pub fn whole(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        self.name(name, labels);
        let _ = writeln!(self.out, "{value}");
    }

    /// A sample that is a real number.
    pub fn real(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.name(name, labels);
        let _ = match value {
            v if v == f64::INFINITY => writeln!(self.out, "+Inf"),
            v if v == f64::NEG_INFINITY => writeln!(self.out, "-Inf"),
            v => writeln!(self.out, "{v}"),
        };
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn name(&mut self, name: &str, labels: Labels<'_>) {
        self.out.push_str(name);
        let mut open = '{';
        for (name, value) in labels.iter() {
            self.out.push(open);
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
            open = ',';
        }
        self.out.push_str(if open == ',' { "} " } else { " " });
    }
}
