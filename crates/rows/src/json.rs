//! Reads JSON straight into flat buffers, without a value in between.
//!
//! Invariant: an error names the field and the element, and what was expected there. Fields that nobody asked for are passed over
//! without being kept, and without recursion.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::column::{Columns, Plan};
use crate::error::excerpt;
use crate::row::json_error;
use crate::values::Misfit;
use crate::{Element, Limits, Values};

/// Which fields of the row at hand were met; kept between rows for its memory.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    rows: Vec<u64>,
    row: u64,
}

/// Reads a line into the row that was begun last: an object with the plan's fields, or a bare array when the plan has one column.
pub(crate) fn read_row(line: &[u8], plan: &Plan, columns: &mut Columns, seen: &mut Seen, limits: &Limits) -> Result<(), String> {
    seen.row += 1;
    seen.rows.resize(plan.fields.len(), 0);
    let mut json = serde_json::Deserializer::from_slice(line);
    let row = columns.rows - 1;
    let read = (&mut json).deserialize_any(RowVisitor { plan, values: &mut columns.values, row, seen, depth: limits.max_depth });
    read.and_then(|()| json.end()).map_err(|error| json_error(&error))
}

/// Reads the text of a JSON array into some elements of a buffer.
pub(crate) fn read_list(text: &str, target: &mut Target<'_>) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_str(text);
    Flat(target).deserialize(&mut json).and_then(|()| json.end()).map_err(|error| json_error(&error))?;
    target.complete()
}

struct RowVisitor<'a> {
    plan: &'a Plan,
    values: &'a mut [Values],
    row: usize,
    seen: &'a mut Seen,
    depth: usize,
}

impl<'de> Visitor<'de> for RowVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.plan.columns.len() == 1 { "an object, or an array of the values" } else { "an object" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let [column] = &self.plan.columns[..] else {
            return Err(A::Error::custom("expected an object: a bare array is a row only where one column is read"));
        };
        let mut target = Target::new(&mut self.values[0], self.row * column.count, column.count, &column.name, self.depth);
        Flat(&mut target).visit_seq(seq)?;
        target.complete().map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut met = 0;
        while let Some(field) = map.next_key_seed(Name(self.plan))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (name, slot) = &self.plan.fields[field];
            if std::mem::replace(&mut self.seen.rows[field], self.seen.row) == self.seen.row {
                return Err(A::Error::custom(format!("the field \"{}\" is there twice", excerpt(name))));
            }
            met += 1;
            let at = self.row * self.plan.columns[slot.column].count + slot.at;
            let mut target = Target::new(&mut self.values[slot.column], at, slot.count, name, self.depth);
            map.next_value_seed(Flat(&mut target))?;
            target.complete().map_err(A::Error::custom)?;
        }
        if met == self.plan.fields.len() {
            return Ok(());
        }
        let missing = self.plan.fields.iter().enumerate().find(|(field, _)| self.seen.rows[*field] != self.seen.row);
        let name = missing.map_or("", |(_, (name, _))| name);
        Err(A::Error::custom(format!("the field \"{}\" is missing", excerpt(name))))
    }
}

/// Looks a name up without keeping it.
struct Name<'a>(&'a Plan);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.by_name.get(name).copied())
    }
}

/// Some elements of a buffer, which are filled in order.
pub(crate) struct Target<'a> {
    values: &'a mut Values,
    start: usize,
    count: usize,
    filled: usize,
    name: &'a str,
    depth: usize,
}

impl<'a> Target<'a> {
    pub(crate) fn new(values: &'a mut Values, start: usize, count: usize, name: &'a str, depth: usize) -> Self {
        Self { values, start, count, filled: 0, name, depth }
    }

    /// Puts the next element. What is too much is counted and not kept.
    #[inline]
    fn put(&mut self, set: impl FnOnce(&mut Values, usize) -> Result<(), Misfit>) -> Result<(), Misfit> {
        if self.filled < self.count {
            set(self.values, self.start + self.filled)?;
        }
        self.filled += 1;
        Ok(())
    }

    /// Whether there were exactly as many as expected.
    fn complete(&self) -> Result<(), String> {
        if self.filled == self.count {
            return Ok(());
        }
        let of = self.values.element().wanted();
        Err(format!("the field \"{}\" has {} elements, expected {} (each {of})", excerpt(self.name), self.filled, self.count))
    }

    #[cold]
    fn misfit(&self, got: &str) -> String {
        let element = if self.count > 1 { format!(", element {}", self.filled) } else { String::new() };
        format!("the field \"{}\"{element}: expected {}, got {got}", excerpt(self.name), self.values.element().wanted())
    }
}

/// Takes a value, or a list of lists of values.
struct Flat<'t, 'a>(&'t mut Target<'a>);

impl<'de> DeserializeSeed<'de> for Flat<'_, '_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list")
    }

    #[inline]
    fn visit_f64<E: Error>(self, x: f64) -> Result<(), E> {
        self.0.put(|values, at| values.set_f64(at, x)).map_err(|_| E::custom(self.0.misfit(&x.to_string())))
    }

    #[inline]
    fn visit_i64<E: Error>(self, x: i64) -> Result<(), E> {
        self.0.put(|values, at| values.set_i64(at, x)).map_err(|_| E::custom(self.0.misfit(&x.to_string())))
    }

    #[inline]
    fn visit_u64<E: Error>(self, x: u64) -> Result<(), E> {
        self.0.put(|values, at| values.set_u64(at, x)).map_err(|_| E::custom(self.0.misfit(&x.to_string())))
    }

    fn visit_bool<E: Error>(self, x: bool) -> Result<(), E> {
        self.0.put(|values, at| values.set_bool(at, x)).map_err(|_| E::custom(self.0.misfit(if x { "true" } else { "false" })))
    }

    fn visit_str<E: Error>(self, x: &str) -> Result<(), E> {
        self.0.put(|values, at| values.set_text(at, x)).map_err(|_| E::custom(self.0.misfit(&format!("\"{}\"", excerpt(x)))))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(E::custom(self.0.misfit("null")))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        let list = if self.0.values.element() == Element::Text { "text" } else { "values" };
        Err(A::Error::custom(self.0.misfit(&format!("an object; want {list} or a list of it"))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let target = self.0;
        target.depth = target.depth.checked_sub(1).ok_or_else(|| A::Error::custom("lists are nested too deeply"))?;
        while seq.next_element_seed(Flat(target))?.is_some() {}
        target.depth += 1;
        Ok(())
    }
}
