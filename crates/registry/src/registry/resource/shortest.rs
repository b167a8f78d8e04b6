//! A spec without what goes without saying.
//!
//! Invariant: a shortened spec means the same: each step is taken only when what is left is read as the same record.

use plinth_types::Timestamp;
use serde_json::{Map, Value};

use super::{Resource, ResourceKind};
use crate::problems::Problems;
use crate::registry::apply::decode;

/// Leaves out the fields that have their default.
pub(crate) fn shortest(kind: ResourceKind, spec: Map<String, Value>) -> Map<String, Value> {
    let read = |spec: &Map<String, Value>| -> Option<Resource> {
        let mut problems = Problems::default();
        decode(kind, spec, Timestamp::from_millis(0).ok()?, &mut problems).filter(|_| problems.count() == 0)
    };
    let Some(whole) = read(&spec) else { return spec };
    let fields: Vec<String> = spec.keys().cloned().collect();
    let mut short = spec;
    for field in fields {
        let Some(value) = short.remove(&field) else { continue };
        if read(&short).as_ref() == Some(&whole) {
            continue;
        }
        let mut sparse = value.clone();
        without_nothing(&mut sparse);
        short.insert(field.clone(), sparse);
        if read(&short).as_ref() != Some(&whole) {
            short.insert(field, value);
        }
    }
    short
}

/// Takes out `null`, empty lists and empty objects, each where it stands as a field.
fn without_nothing(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !is_nothing(value));
            fields.values_mut().for_each(without_nothing);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nothing),
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
