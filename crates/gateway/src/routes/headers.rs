//! Changes of headers: remove, set, add, in this order.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_store::resources::gateway::HeaderChanges;

use super::Invalid;

/// Compiled changes.
#[derive(Debug, Default)]
pub struct Changes {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Changes {
    pub(super) fn compile(spec: &HeaderChanges) -> Result<Self, Invalid> {
        let name = |text: &String| text.parse::<HeaderName>().map_err(|_| Invalid(format!("'{text}' is not the name of a header")));
        let pairs = |pairs: &BTreeMap<String, String>| {
            let pair = |(key, value): (&String, &String)| {
                let value = value.parse::<HeaderValue>().map_err(|_| Invalid(format!("the value of header '{key}' cannot be sent")))?;
                Ok((name(key)?, value))
            };
            pairs.iter().map(pair).collect::<Result<Vec<_>, Invalid>>()
        };
        Ok(Self { remove: spec.remove.iter().map(name).collect::<Result<_, _>>()?, set: pairs(&spec.set)?, add: pairs(&spec.add)? })
    }

    /// Whether this header is taken away and nothing put in its place.
    pub fn removes(&self, name: &HeaderName) -> bool {
        self.remove.contains(name) && !self.set.iter().chain(&self.add).any(|(other, _)| other == name)
    }

    /// Makes them.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}
