//! What can be said of the gateway's records without looking at anything else: the pure half of their validation.
//!
//! Invariant: a record that passes can be compiled by the gateway; whatever takes time or memory there (expressions,
//! lists) has a bound here. Whether what a record names exists is asked in `registry::references`.

mod addresses;
mod cors;
mod headers;
mod issuer;
mod matching;
mod networks;
pub mod patterns;
mod plan;
mod route;
mod targets;
mod upstream;

#[cfg(test)]
mod tests;

use std::fmt::Display;

use plinth_types::TenantName;

pub(crate) use addresses::addresses;
pub(crate) use issuer::issuer;
pub(crate) use plan::plan;
pub(crate) use route::route;
pub(crate) use targets::model_cycle;
pub(crate) use upstream::upstream;

use crate::problems::Problems;

/// The longest that a request, a wait or an interval may be told to take.
const MAX_MILLIS: u32 = 3_600_000;

/// For whom a record is checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// Whose record it is.
    pub tenant: &'a TenantName,
    /// Whether an administrator of the whole asks.
    pub platform: bool,
    /// Where this node listens.
    pub own: &'a [std::net::SocketAddr],
}

impl Asker<'_> {
    fn is_default(&self) -> bool {
        *self.tenant == TenantName::default_tenant()
    }
}

fn at_most<T>(problems: &mut Problems, field: &str, items: &[T], most: usize) {
    problems.must(items.len() <= most, field, || format!("there are {} here; at most {most}", items.len()));
}

fn between<T: PartialOrd + Display>(problems: &mut Problems, field: &str, value: Option<T>, least: T, most: T) {
    if let Some(value) = value {
        problems.must(value >= least && value <= most, field, || format!("{value} is not between {least} and {most}"));
    }
}

fn millis(problems: &mut Problems, field: &str, value: Option<u32>) {
    if let Some(value) = value {
        let text = || format!("{value} ms is not between 1 ms and 1 hour (3600000)");
        problems.must((1..=MAX_MILLIS).contains(&value), field, text);
    }
}

/// A text without control characters and with a bound.
fn text(problems: &mut Problems, field: &str, text: &str, most: usize) {
    if text.len() > most {
        problems.add(field, format!("it has {} bytes; at most {most}", text.len()));
    } else if text.chars().any(char::is_control) {
        problems.add(field, "it holds a control character");
    }
}

/// Names the items that stand in a list more than once.
fn no_twins<'a, T: Ord + Display + 'a>(problems: &mut Problems, name: &str, items: impl IntoIterator<Item = &'a T>) {
    let mut seen = std::collections::BTreeSet::new();
    for (at, item) in items.into_iter().enumerate() {
        if !seen.insert(item) {
            problems.add(&format!("{name}[{at}]"), format!("'{item}' is there twice"));
        }
    }
}

/// Something of others in a message: short, and harmless to print.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}
