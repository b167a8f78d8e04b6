//! Typed contents of a tensor: `InferTensorContents` straight into the typed bytes of the wire form.
//!
//! Invariants: the elements are as many as the shape says, in the one list that the data type has; before anything is
//! allocated, the contents must be long enough for that many, and the outcome must be within the limit on a message. One
//! packed list of floating-point numbers is the wire form already and is not copied.

use bytes::Bytes;
use plinth_types::tensor::push_byte_element;
use plinth_types::{ByteSize, DataType, Reason, Shape};

use super::wire::{Fields, Value, malformed};
use crate::oip::scan::Fault;

/// The list of a data type: its number and name; `None` for types that travel raw only.
const fn list(datatype: DataType) -> Option<(u32, &'static str)> {
    Some(match datatype {
        DataType::Bool => (1, "bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => (2, "int_contents"),
        DataType::Int64 => (3, "int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => (4, "uint_contents"),
        DataType::Uint64 => (5, "uint64_contents"),
        DataType::Fp32 => (6, "fp32_contents"),
        DataType::Fp64 => (7, "fp64_contents"),
        DataType::Bytes => (8, "bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

/// Reads contents, which lie in `message`.
pub(super) fn read(contents: &[u8], message: &Bytes, datatype: DataType, shape: &Shape, max: ByteSize) -> Result<Bytes, Fault> {
    let Some((number, name)) = list(datatype) else {
        let text = format!("{datatype} has no typed contents; send it in raw_input_contents");
        return Err(Fault::new(Reason::NotRepresentable, text));
    };
    // The shortest element has one byte on the wire; a text has two.
    let count = usize::try_from(shape.elements()).ok().filter(|count| *count <= contents.len());
    let count = count.ok_or_else(|| mismatch(shape, "fewer"))?;
    let size = datatype.element_size().unwrap_or(4);
    let total = count.saturating_mul(size);
    if total as u64 > max.0 {
        let text = format!("the tensor has more than {max}, the most that this server takes in a message (grpc.max_message)");
        return Err(Fault::new(Reason::BodyTooLarge, text));
    }
    let mut out = Out { bytes: Vec::new(), left: count, capacity: total, shape };
    for field in Fields::of(contents) {
        let (found, value) = field?;
        if found != number {
            let text = format!("{datatype} travels in {name} and in no other list");
            return Err(Fault::new(Reason::InvalidTensor, text));
        }
        if let (Value::Bytes(packed), DataType::Fp32 | DataType::Fp64) = (value, datatype)
            && packed.len() == total
            && out.left == count
        {
            // Unless more follows, which would be too much in any case.
            out.left = 0;
            out.bytes = Vec::new();
            if Fields::of(contents).count() == 1 {
                return Ok(message.slice_ref(packed));
            }
            return Err(mismatch(shape, "more"));
        }
        add(&mut out, datatype, value).map_err(|e| e.under(name))?;
    }
    if out.left == 0 { Ok(out.bytes.into()) } else { Err(mismatch(shape, "fewer")) }
}

fn mismatch(shape: &Shape, found: &str) -> Fault {
    let text = format!("input byte size mismatch: the shape {shape} has {} elements, the contents have {found}", shape.elements());
    Fault::new(Reason::InvalidTensor, text)
}

/// The bytes of the elements so far, and how many are still to come.
struct Out<'a> {
    bytes: Vec<u8>,
    left: usize,
    capacity: usize,
    shape: &'a Shape,
}

impl Out<'_> {
    #[inline]
    fn begin(&mut self) -> Result<&mut Vec<u8>, Fault> {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.capacity);
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| mismatch(self.shape, "more"))?;
        Ok(&mut self.bytes)
    }
}

fn add(out: &mut Out<'_>, datatype: DataType, value: Value<'_>) -> Result<(), Fault> {
    macro_rules! whole {
        ($wire:ty => $kind:ty) => {
            value.varints(|n| {
                // Protobuf sends a shorter type sign-extended; what is above it is cut, as protobuf does.
                let n = n as $wire;
                let n =
                    <$kind>::try_from(n).map_err(|_| Fault::new(Reason::InvalidTensor, format!("{n} is out of range for {datatype}")))?;
                out.begin()?.extend_from_slice(&n.to_le_bytes());
                Ok(())
            })
        };
    }
    match datatype {
        DataType::Bool => value.varints(|n| {
            out.begin()?.push(u8::from(n != 0));
            Ok(())
        }),
        DataType::Int8 => whole!(i32 => i8),
        DataType::Int16 => whole!(i32 => i16),
        DataType::Int32 => whole!(i32 => i32),
        DataType::Int64 => whole!(i64 => i64),
        DataType::Uint8 => whole!(u32 => u8),
        DataType::Uint16 => whole!(u32 => u16),
        DataType::Uint32 => whole!(u32 => u32),
        DataType::Uint64 => whole!(u64 => u64),
        DataType::Fp32 => fixed::<4>(out, value),
        DataType::Fp64 => fixed::<8>(out, value),
        DataType::Bytes => {
            let element = value.bytes()?;
            Ok(push_byte_element(out.begin()?, element)?)
        }
        DataType::Fp16 | DataType::Bf16 => Err(malformed("no such list")),
    }
}

/// Numbers that have the same form on every wire.
fn fixed<const N: usize>(out: &mut Out<'_>, value: Value<'_>) -> Result<(), Fault> {
    let mut each = |bytes: &[u8]| {
        out.begin()?.extend_from_slice(bytes);
        Ok(())
    };
    match value {
        Value::Fixed32(bytes) if N == 4 => each(&bytes),
        Value::Fixed64(bytes) if N == 8 => each(&bytes),
        Value::Bytes(packed) => {
            let (chunks, rest) = packed.as_chunks::<N>();
            if !rest.is_empty() {
                return Err(malformed("a packed number is cut off"));
            }
            chunks.iter().try_for_each(|chunk| each(chunk))
        }
        _ => Err(malformed("a field has another type than its number says")),
    }
}
