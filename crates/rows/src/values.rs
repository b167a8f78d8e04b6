//! Flat buffers of one type each ([`Values`]).
//!
//! Invariant: a number is put into a buffer only if it is finite and the buffer's type can hold it: a whole number is never
//! rounded or cut off to fit a whole type, and a number beyond an `f32`'s range is refused, not made infinite. An `f32` or `f64`
//! takes the nearest value.

use plinth_types::DataType;
use serde::{Deserialize, Serialize};

/// The type of a column's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// 64-bit whole numbers.
    I64,
    /// 0 to 255.
    U8,
    /// True or false.
    Bool,
    /// UTF-8.
    Text,
}

impl Element {
    /// What a reader is told that was expected.
    pub(crate) const fn wanted(self) -> &'static str {
        match self {
            Self::F32 => "a finite number in the range of a 32-bit float",
            Self::F64 => "a finite number",
            Self::I64 => "a whole number of 64 bits",
            Self::U8 => "a whole number from 0 to 255",
            Self::Bool => "true or false",
            Self::Text => "a string",
        }
    }

    /// What an element takes in a buffer, in bytes; of a text without its characters.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::U8 | Self::Bool => 1,
            Self::Text => std::mem::size_of::<String>(),
        }
    }

    /// The tensor type that [`Values::encode`] gives.
    #[must_use]
    pub const fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::Fp32,
            Self::F64 => DataType::Fp64,
            Self::I64 => DataType::Int64,
            Self::U8 => DataType::Uint8,
            Self::Bool => DataType::Bool,
            Self::Text => DataType::Bytes,
        }
    }
}

/// One column's elements, row after row.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are those of Element")]
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// Applies one expression to whichever vector is inside.
macro_rules! each {
    ($values:expr, $vector:ident => $body:expr) => {
        match $values {
            Values::F32($vector) => $body,
            Values::F64($vector) => $body,
            Values::I64($vector) => $body,
            Values::U8($vector) => $body,
            Values::Bool($vector) => $body,
            Values::Text($vector) => $body,
        }
    };
}

/// A value was not put: it is not what the buffer's type can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit;

impl Values {
    /// No elements, with room for some.
    #[must_use]
    pub fn with_capacity(element: Element, elements: usize) -> Self {
        match element {
            Element::F32 => Self::F32(Vec::with_capacity(elements)),
            Element::F64 => Self::F64(Vec::with_capacity(elements)),
            Element::I64 => Self::I64(Vec::with_capacity(elements)),
            Element::U8 => Self::U8(Vec::with_capacity(elements)),
            Element::Bool => Self::Bool(Vec::with_capacity(elements)),
            Element::Text => Self::Text(Vec::with_capacity(elements)),
        }
    }

    /// The type of the elements.
    #[must_use]
    pub const fn element(&self) -> Element {
        match self {
            Self::F32(_) => Element::F32,
            Self::F64(_) => Element::F64,
            Self::I64(_) => Element::I64,
            Self::U8(_) => Element::U8,
            Self::Bool(_) => Element::Bool,
            Self::Text(_) => Element::Text,
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as a tensor's bytes: little-endian and packed, a text as its length in four bytes and its characters
    /// ([`Element::data_type`]).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U8(v) => v.clone(),
            Self::Bool(v) => v.iter().map(|x| u8::from(*x)).collect(),
            Self::Text(v) => {
                let mut out = Vec::with_capacity(v.iter().map(|x| x.len() + 4).sum());
                for x in v {
                    // A text is never as long as its row, which is far shorter than 4 GiB.
                    out.extend_from_slice(&u32::try_from(x.len()).unwrap_or(u32::MAX).to_le_bytes());
                    out.extend_from_slice(x.as_bytes());
                }
                out
            }
        }
    }

    /// Makes it `elements` long: neutral elements (0, false, "") at the end, or fewer.
    pub(crate) fn resize(&mut self, elements: usize) {
        each!(self, v => v.resize(elements, Default::default()));
    }

    /// Makes some elements neutral.
    pub(crate) fn clear_range(&mut self, at: usize, count: usize) {
        each!(self, v => {
            if let Some(range) = v.get_mut(at..at + count) {
                range.fill(Default::default());
            }
        });
    }

    pub(crate) fn set_f64(&mut self, at: usize, x: f64) -> Result<(), Misfit> {
        match self {
            Self::F32(v) => {
                // Rounds to nearest; what is beyond the range becomes infinite.
                let narrow = x as f32;
                put(v, at, narrow.is_finite().then_some(narrow))
            }
            Self::F64(v) => put(v, at, x.is_finite().then_some(x)),
            Self::I64(v) => put(v, at, whole(x)),
            Self::U8(v) => put(v, at, whole(x).and_then(|x| u8::try_from(x).ok())),
            Self::Bool(_) | Self::Text(_) => Err(Misfit),
        }
    }

    pub(crate) fn set_i64(&mut self, at: usize, x: i64) -> Result<(), Misfit> {
        match self {
            Self::F32(v) => put(v, at, Some(x as f32)),
            Self::F64(v) => put(v, at, Some(x as f64)),
            Self::I64(v) => put(v, at, Some(x)),
            Self::U8(v) => put(v, at, u8::try_from(x).ok()),
            Self::Bool(v) => put(v, at, (x == 0 || x == 1).then_some(x == 1)),
            Self::Text(_) => Err(Misfit),
        }
    }

    pub(crate) fn set_u64(&mut self, at: usize, x: u64) -> Result<(), Misfit> {
        match (i64::try_from(x), &mut *self) {
            (Ok(x), _) => self.set_i64(at, x),
            (Err(_), Self::F32(v)) => put(v, at, Some(x as f32)),
            (Err(_), Self::F64(v)) => put(v, at, Some(x as f64)),
            _ => Err(Misfit),
        }
    }

    pub(crate) fn set_bool(&mut self, at: usize, x: bool) -> Result<(), Misfit> {
        match self {
            Self::Bool(v) => put(v, at, Some(x)),
            _ => Err(Misfit),
        }
    }

    pub(crate) fn set_text(&mut self, at: usize, x: &str) -> Result<(), Misfit> {
        match self {
            Self::Text(v) => put(v, at, Some(x.to_owned())),
            _ => Err(Misfit),
        }
    }

    /// Puts what a field of CSV says. Spaces around a number are passed over.
    pub(crate) fn parse(&mut self, at: usize, field: &str) -> Result<(), Misfit> {
        let word = field.trim_ascii();
        match self {
            Self::Text(v) => put(v, at, Some(field.to_owned())),
            Self::F32(v) => put(v, at, word.parse::<f32>().ok().filter(|x| x.is_finite())),
            Self::F64(v) => put(v, at, word.parse::<f64>().ok().filter(|x| x.is_finite())),
            Self::I64(_) | Self::U8(_) => match word.parse::<i64>() {
                Ok(x) => self.set_i64(at, x),
                Err(_) => self.set_f64(at, word.parse().map_err(|_| Misfit)?),
            },
            Self::Bool(v) => {
                let yes = word == "1" || word.eq_ignore_ascii_case("true");
                let no = word == "0" || word.eq_ignore_ascii_case("false");
                put(v, at, (yes || no).then_some(yes))
            }
        }
    }
}

fn put<T>(values: &mut [T], at: usize, x: Option<T>) -> Result<(), Misfit> {
    let slot = values.get_mut(at).ok_or(Misfit)?;
    *slot = x.ok_or(Misfit)?;
    Ok(())
}

/// A float that is a whole number, as tables with gaps write them (`3.0`); beyond 2^53 a float no longer says which.
fn whole(x: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (x.fract() == 0.0 && x.abs() <= EXACT).then_some(x as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_fits_or_is_refused() {
        let fits = |element, text: &str| {
            let mut values = Values::with_capacity(element, 1);
            values.resize(1);
            values.parse(0, text).is_ok()
        };
        for (element, good, bad) in [
            (Element::F32, vec!["1", " -2.5e3 ", "3.4e38", "1e-50"], vec!["", "nan", "inf", "3.5e38", "1,5", "x", "0x10"]),
            (Element::F64, vec!["1e308", "-0"], vec!["1e309", "-inf", "NaN", " "]),
            (Element::I64, vec!["9223372036854775807", "-1", "3.0", "1e3"], vec!["9223372036854775808", "3.5", "1e300", "true"]),
            (Element::U8, vec!["0", "255", "255.0"], vec!["256", "-1", "1.5"]),
            (Element::Bool, vec!["true", "FALSE", "0", "1"], vec!["2", "yes", ""]),
            (Element::Text, vec!["", "anything"], vec![]),
        ] {
            for text in good {
                assert!(fits(element, text), "{element:?} {text}");
            }
            for text in bad {
                assert!(!fits(element, text), "{element:?} {text}");
            }
        }
    }

    #[test]
    fn encoded_as_a_tensor() {
        assert_eq!(Values::F32(vec![1.0, -2.0]).encode(), [0, 0, 128, 63, 0, 0, 0, 192]);
        assert_eq!(Values::Text(vec!["é".into(), String::new()]).encode(), [2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0]);
        assert_eq!(Values::Bool(vec![true, false]).encode(), [1, 0]);
    }
}
