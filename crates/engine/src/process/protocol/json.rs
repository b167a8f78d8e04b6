//! Elements of tensors as JSON, in both directions.
//!
//! Invariants: what is read goes straight into a tensor's bytes, whatever the nesting; a number that its type cannot hold is
//! refused and never wrapped.

use std::fmt;
use std::io::Write;

use half::{bf16, f16};
use plinth_types::tensor::{MAX_RANK, push_byte_element};
use plinth_types::{DataType, Tensor};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Appends a tensor's elements as a flat array.
///
/// # Errors
/// A text for the caller: JSON has no such value.
pub(super) fn write(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), String> {
    out.push(b'[');
    if tensor.datatype() == DataType::Bytes {
        for (i, element) in tensor.byte_elements().enumerate() {
            let text = std::str::from_utf8(element).map_err(|_| refused(tensor, "is not UTF-8"))?;
            separate(out, i);
            serde_json::to_writer(&mut *out, text).map_err(|error| error.to_string())?;
        }
    } else {
        let size = tensor.datatype().element_size().unwrap_or(1);
        for (i, bytes) in tensor.data().chunks_exact(size).enumerate() {
            separate(out, i);
            number(out, tensor.datatype(), bytes).ok_or_else(|| refused(tensor, "is not finite, or has no form in JSON"))?;
        }
    }
    out.push(b']');
    Ok(())
}

fn refused(tensor: &Tensor, what: &str) -> String {
    format!("input '{}': an element {what}, and the model's server takes JSON only", tensor.name())
}

fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

fn number(out: &mut Vec<u8>, datatype: DataType, bytes: &[u8]) -> Option<()> {
    macro_rules! whole {
        ($ty:ty) => {
            write!(out, "{}", <$ty>::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
    }
    let float = |value: f64| value.is_finite().then_some(value);
    match datatype {
        DataType::Bool => write!(out, "{}", *bytes.first()? != 0).ok(),
        DataType::Uint8 => whole!(u8),
        DataType::Uint16 => whole!(u16),
        DataType::Uint32 => whole!(u32),
        DataType::Uint64 => whole!(u64),
        DataType::Int8 => whole!(i8),
        DataType::Int16 => whole!(i16),
        DataType::Int32 => whole!(i32),
        DataType::Int64 => whole!(i64),
        DataType::Fp32 => {
            let value = f32::from_le_bytes(bytes.try_into().ok()?);
            value.is_finite().then(|| serde_json::to_writer(out, &value).ok())?
        }
        DataType::Fp64 => serde_json::to_writer(out, &float(f64::from_le_bytes(bytes.try_into().ok()?))?).ok(),
        DataType::Fp16 => serde_json::to_writer(out, &float(f16::from_le_bytes(bytes.try_into().ok()?).to_f64())?).ok(),
        DataType::Bf16 => serde_json::to_writer(out, &float(bf16::from_le_bytes(bytes.try_into().ok()?).to_f64())?).ok(),
        DataType::Bytes => None,
    }
}

/// The bytes of an array of elements, nested or flat.
///
/// # Errors
/// Where it is not one.
pub(super) fn read(data: &RawValue, datatype: DataType) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(data.get());
    Elements { datatype, out: &mut out, depth: 0 }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    Ok(out)
}

struct Elements<'a> {
    datatype: DataType,
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements of type {}", self.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.depth >= MAX_RANK {
            return Err(A::Error::custom("nested too deeply"));
        }
        while list.next_element_seed(Elements { datatype: self.datatype, out: &mut *self.out, depth: self.depth + 1 })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if self.datatype != DataType::Bool {
            return Err(E::custom(format!("true or false among {}", self.datatype)));
        }
        self.out.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.whole(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.whole(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.fraction(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.datatype != DataType::Bytes {
            return Err(E::custom(format!("a text among {}", self.datatype)));
        }
        push_byte_element(self.out, value.as_bytes()).map_err(E::custom)
    }
}

impl Elements<'_> {
    fn whole<E: Error>(self, value: i128) -> Result<(), E> {
        macro_rules! put {
            ($ty:ty) => {
                <$ty>::try_from(value).map(|value| self.out.extend_from_slice(&value.to_le_bytes())).ok()
            };
        }
        let put = match self.datatype {
            DataType::Uint8 => put!(u8),
            DataType::Uint16 => put!(u16),
            DataType::Uint32 => put!(u32),
            DataType::Uint64 => put!(u64),
            DataType::Int8 => put!(i8),
            DataType::Int16 => put!(i16),
            DataType::Int32 => put!(i32),
            DataType::Int64 => put!(i64),
            DataType::Bool => u8::try_from(value).ok().filter(|value| *value < 2).map(|value| self.out.push(value)),
            DataType::Bytes => None,
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => return self.fraction(value as f64),
        };
        put.ok_or_else(|| E::custom("a number that its type cannot hold"))
    }

    fn fraction<E: Error>(self, value: f64) -> Result<(), E> {
        match self.datatype {
            DataType::Fp16 => self.out.extend_from_slice(&f16::from_f64(value).to_le_bytes()),
            DataType::Bf16 => self.out.extend_from_slice(&bf16::from_f64(value).to_le_bytes()),
            DataType::Fp32 => self.out.extend_from_slice(&(value as f32).to_le_bytes()),
            DataType::Fp64 => self.out.extend_from_slice(&value.to_le_bytes()),
            other => return Err(E::custom(format!("a fraction among {other}"))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{sample, strings, tensor};
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn every_type_comes_back_as_it_went() {
        for datatype in DataType::ALL {
            let before = tensor("x", datatype, &[5], sample(datatype, 5));
            let mut text = Vec::new();
            write(&mut text, &before).unwrap();
            let after = read(&raw(std::str::from_utf8(&text).unwrap()), datatype).unwrap();
            assert_eq!(after, before.data().as_ref(), "{datatype}");
        }
        let texts = strings("x", &["a\"\n", "é"]);
        let mut text = Vec::new();
        write(&mut text, &texts).unwrap();
        assert_eq!(text, r#"["a\"\n","é"]"#.as_bytes());
    }

    #[test]
    fn nested_is_flat_and_nothing_wraps() {
        assert_eq!(read(&raw("[[1,2],[3,-4]]"), DataType::Int8).unwrap(), [1, 2, 3, 252]);
        for (text, datatype) in [
            ("[256]", DataType::Uint8),
            ("[-1]", DataType::Uint64),
            ("[1.5]", DataType::Int32),
            ("[true]", DataType::Int32),
            ("[\"a\"]", DataType::Fp32),
            ("[1]", DataType::Bytes),
            ("[null]", DataType::Fp32),
            ("[{}]", DataType::Fp32),
            ("[2]", DataType::Bool),
        ] {
            assert!(read(&raw(text), datatype).is_err(), "{text}");
        }
        assert!(read(&raw(&format!("{}{}", "[".repeat(40), "]".repeat(40))), DataType::Fp32).is_err());
        let mut out = Vec::new();
        let bad = tensor("x", DataType::Fp32, &[1], f32::NAN.to_le_bytes().to_vec());
        assert!(write(&mut out, &bad).is_err());
    }

    proptest! {
        #[test]
        fn floats_survive(values in proptest::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 0..20)) {
            let before = crate::testing::floats("x", &values);
            let mut text = Vec::new();
            write(&mut text, &before).unwrap();
            let after = read(&raw(std::str::from_utf8(&text).unwrap()), DataType::Fp32).unwrap();
            prop_assert_eq!(after, before.data().to_vec());
        }
    }
}
