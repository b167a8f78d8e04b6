//! Rows as JSON values, for whatever is not a number for a model.
//!
//! Invariant: a row takes no more memory than 16 times the longest row in bytes, however it is built, and is never nested deeper
//! than allowed. A name that is there twice in an object is an error, because readers differ in which one counts.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::excerpt;
use crate::{Limits, RowError};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// Named fields. Of CSV every value is a string.
    Fields(Map<String, Value>),
    /// A bare array, which JSON lines may have.
    Array(Vec<Value>),
}

/// Rows that follow one another.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The number of the first row, counted from zero over the whole source.
    pub first_row: u64,
    /// The rows, each in its place.
    pub rows: Vec<Result<Row, RowError>>,
}

/// What a value takes beside its text, generously.
const VALUE: usize = 64;
/// What an object takes that is not empty.
const OBJECT: usize = 640;

/// Counts what a row takes in memory, against a bound.
pub(crate) struct Budget {
    left: Cell<usize>,
    most: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = limits.max_row_bytes.saturating_mul(16);
        Self { left: Cell::new(most), most }
    }

    /// Takes a value of so many bytes of text.
    pub(crate) fn value(&self, text: usize) -> Result<(), String> {
        let taken = text.saturating_add(VALUE);
        let left = self.left.get().checked_sub(taken);
        self.left.set(left.ok_or_else(|| format!("the row takes more than {} bytes of memory", self.most))?);
        Ok(())
    }

    pub(crate) fn taken(&self) -> usize {
        self.most - self.left.get()
    }
}

/// A row of JSON, and what it takes in memory.
pub(crate) fn parse(line: &[u8], limits: &Limits) -> Result<(Row, usize), String> {
    let budget = Budget::new(limits);
    let mut json = serde_json::Deserializer::from_slice(line);
    let value = Bounded { budget: &budget, depth: limits.max_depth }.deserialize(&mut json);
    match value.and_then(|value| json.end().map(|()| value)).map_err(|error| json_error(&error))? {
        Value::Object(fields) => Ok((Row::Fields(fields), budget.taken())),
        Value::Array(values) => Ok((Row::Array(values), budget.taken())),
        _ => Err("expected an object or an array".to_owned()),
    }
}

/// What serde_json says, without its line, which is always the first.
pub(crate) fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    if error.is_data() { text.to_owned() } else { format!("not JSON: {text} (column {})", error.column()) }
}

#[derive(Clone, Copy)]
struct Bounded<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl Bounded<'_> {
    fn take<E: Error>(self, text: usize) -> Result<(), E> {
        self.budget.value(text).map_err(E::custom)
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("arrays and objects are nested too deeply"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.take(0).map(|()| Value::Null)
    }

    fn visit_bool<E: Error>(self, x: bool) -> Result<Value, E> {
        self.take(0).map(|()| Value::Bool(x))
    }

    fn visit_i64<E: Error>(self, x: i64) -> Result<Value, E> {
        self.take(0).map(|()| x.into())
    }

    fn visit_u64<E: Error>(self, x: u64) -> Result<Value, E> {
        self.take(0).map(|()| x.into())
    }

    fn visit_f64<E: Error>(self, x: f64) -> Result<Value, E> {
        self.take(0).map(|()| x.into())
    }

    fn visit_str<E: Error>(self, x: &str) -> Result<Value, E> {
        self.take(x.len()).map(|()| Value::String(x.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.take(name.len() + if fields.is_empty() { OBJECT } else { 0 })?;
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("the field \"{}\" is there twice", excerpt(&name))));
            }
            fields.insert(name, map.next_value_seed(inner)?);
        }
        self.take(0)?;
        Ok(Value::Object(fields))
    }
}
