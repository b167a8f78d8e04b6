//! Reads the fields of a protobuf message one after another, without copying and without building anything.
//!
//! Source: protobuf encoding, "Message Structure". Only for the message of an inference: it carries the tensors, its parts
//! are counted while they are read, and a generated type would allocate hundreds of bytes for an empty part of two.
//!
//! Invariant: never reads past the message; groups, which proto3 does not have, are refused.

use plinth_types::Reason;

use crate::oip::scan::Fault;

/// The value of a field as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order of the wire.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub const fn of(message: &'a [u8]) -> Self {
        Self(message)
    }
}

/// What is said of every message that is not protobuf.
pub(super) fn malformed(what: &str) -> Fault {
    Fault::new(Reason::MalformedRequest, format!("malformed request: {what}"))
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_none() {
            // What follows a broken field means nothing.
            self.0 = &[];
        }
        Some(field.ok_or_else(|| malformed("the message is not protobuf, or is cut off")))
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = u32::try_from(varint(rest)?).ok()?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(*take(rest, 8)?.first_chunk()?),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => Value::Fixed32(*take(rest, 4)?.first_chunk()?),
        _ => return None,
    };
    let number = key >> 3;
    (number != 0).then_some((number, value))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// A number of up to ten bytes, seven bits in each, the lowest first.
#[inline]
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (i, byte) in rest.iter().take(10).enumerate() {
        // The tenth byte holds the highest bit alone.
        if i == 9 && *byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Some(number);
        }
    }
    None
}

impl<'a> Value<'a> {
    /// A text.
    pub fn text(self) -> Result<&'a str, Fault> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map_err(|e| malformed(&format!("a text is not UTF-8 from byte {} on", e.valid_up_to())))
    }

    /// Bytes, or a message in the message.
    pub fn bytes(self) -> Result<&'a [u8], Fault> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(malformed("a field has another type than its number says")) }
    }

    /// A number.
    pub fn varint(self) -> Result<u64, Fault> {
        if let Value::Varint(number) = self { Ok(number) } else { Err(malformed("a field has another type than its number says")) }
    }

    /// Hands each of a repeated field's numbers to `each`, packed or not.
    #[inline]
    pub fn varints(self, mut each: impl FnMut(u64) -> Result<(), Fault>) -> Result<(), Fault> {
        match self {
            Value::Varint(number) => each(number),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    each(varint(&mut packed).ok_or_else(|| malformed("a packed number is cut off"))?)?;
                }
                Ok(())
            }
            _ => Err(malformed("a field has another type than its number says")),
        }
    }
}

/// How many bytes a number takes.
pub(super) const fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes what stands before the bytes of a field below 16: its number, and how many they are.
pub(super) fn put_key(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | 2);
    put_varint(out, length as u64);
}

/// Writes a text, unless it is empty.
pub(super) fn put_text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        put_key(out, field, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_messages_end_with_one_fault() {
        for bytes in [&[0x0b][..], &[0x08], &[0x0a, 5, 1], &[0x00, 1], &[0x09, 1], &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]]
        {
            let read: Vec<_> = Fields::of(bytes).collect();
            assert!(read.len() == 1 && read[0].is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(number in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            prop_assert_eq!(out.len(), varint_len(number));
            let mut rest = &out[..];
            prop_assert_eq!(varint(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Fields::of(&bytes).count();
        }
    }
}
