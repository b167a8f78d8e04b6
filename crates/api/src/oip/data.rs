//! The `data` of a tensor in JSON: from text straight into the typed bytes of the wire form.
//!
//! Invariant: the elements are as many as the shape says, flat or nested exactly as the shape; and before anything is
//! allocated, the text that is left must be long enough for that many elements. So an allocation is at most four times the
//! text (a two-byte `0,` becomes eight bytes).

use bytes::Bytes;
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Reason, Shape};

use super::scan::{Fault, Scanner};

/// Reads the value under the scanner as the elements of a tensor.
pub(super) fn read(scanner: &mut Scanner<'_>, datatype: DataType, shape: &Shape) -> Result<Bytes, Fault> {
    macro_rules! numbers {
        ($kind:ty, $method:ident) => {
            fill(scanner, datatype, shape, |s, out| {
                out.extend_from_slice(&s.$method::<$kind>(datatype.name())?.to_le_bytes());
                Ok(())
            })
        };
    }
    match datatype {
        DataType::Bool => fill(scanner, datatype, shape, |s, out| {
            out.push(u8::from(s.boolean()?));
            Ok(())
        }),
        DataType::Uint8 => numbers!(u8, integer),
        DataType::Uint16 => numbers!(u16, integer),
        DataType::Uint32 => numbers!(u32, integer),
        DataType::Uint64 => numbers!(u64, integer),
        DataType::Int8 => numbers!(i8, integer),
        DataType::Int16 => numbers!(i16, integer),
        DataType::Int32 => numbers!(i32, integer),
        DataType::Int64 => numbers!(i64, integer),
        DataType::Fp32 => numbers!(f32, float),
        DataType::Fp64 => numbers!(f64, float),
        DataType::Bytes => fill(scanner, datatype, shape, |s, out| Ok(push_byte_element(out, s.string()?.as_bytes())?)),
        DataType::Fp16 | DataType::Bf16 => {
            let text = format!("{datatype} data cannot be sent as JSON; send it with the binary tensor extension (binary_data_size)");
            Err(Fault::new(Reason::NotRepresentable, text))
        }
    }
}

/// A floating-point type as JSON numbers carry it.
pub(super) trait Float: std::str::FromStr + Copy {
    fn finite(self) -> bool;
}

impl Float for f32 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f64 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Scanner<'_> {
    /// Reads a number of a floating-point type; `name` is the type's for the error.
    #[inline]
    fn float<T: Float>(&mut self, name: &str) -> Result<T, Fault> {
        let text = match self.number() {
            Ok(text) => text,
            Err(_) if self.at_non_number() => {
                let text = "NaN and infinity cannot be sent as JSON; send the tensor with the binary tensor extension (binary_data_size)";
                return Err(Fault::new(Reason::NotRepresentable, text));
            }
            Err(fault) => return Err(fault),
        };
        match text.parse::<T>() {
            Ok(value) if value.finite() => Ok(value),
            _ => {
                let text: String = text.chars().take(32).collect();
                Err(Fault::new(Reason::InvalidTensor, format!("{text} is out of range for {name}")))
            }
        }
    }
}

/// Reads as many elements as the shape has with `element`, which appends one.
fn fill<F>(scanner: &mut Scanner<'_>, datatype: DataType, shape: &Shape, element: F) -> Result<Bytes, Fault>
where
    F: Fn(&mut Scanner<'_>, &mut Vec<u8>) -> Result<(), Fault>,
{
    let count = check_room(scanner, datatype, shape)?;
    let mut out = Vec::with_capacity(count * datatype.element_size().unwrap_or(4));
    let mut inside = scanner.clone();
    if !inside.take(b'[') {
        // A scalar may stand without brackets.
        if !shape.dims().is_empty() {
            return Err(scanner.malformed("an array"));
        }
        element(scanner, &mut out)?;
        return Ok(out.into());
    }
    if inside.peek() == Some(b'[') {
        nested(scanner, shape, shape.dims(), &mut out, &element)?;
    } else {
        let mut read = 0;
        scanner.array(|s, i| {
            read = i + 1;
            if read > count {
                return Err(mismatch(shape, format_args!("at least {read} elements")));
            }
            element(s, &mut out)
        })?;
        if read != count {
            return Err(mismatch(shape, format_args!("{read} elements")));
        }
    }
    Ok(out.into())
}

/// The number of elements, once it is known that the text that is left could hold them.
fn check_room(scanner: &Scanner<'_>, datatype: DataType, shape: &Shape) -> Result<usize, Fault> {
    // The shortest element, `0`, `""` or `true`, and a comma.
    let least = match datatype {
        DataType::Bool => 5,
        DataType::Bytes => 3,
        _ => 2,
    };
    let most = scanner.left() / least + 1;
    match usize::try_from(shape.elements()) {
        Ok(count) if count <= most => Ok(count),
        _ => Err(mismatch(shape, format_args!("fewer elements: the request has only {} more bytes", scanner.left()))),
    }
}

fn mismatch(shape: &Shape, found: impl std::fmt::Display) -> Fault {
    let text = format!("unable to parse 'data': the shape {shape} has {} elements, the data has {found}", shape.elements());
    Fault::new(Reason::InvalidTensor, text)
}

/// Reads arrays in arrays whose lengths must be `dims`.
fn nested<F>(scanner: &mut Scanner<'_>, shape: &Shape, dims: &[u64], out: &mut Vec<u8>, element: &F) -> Result<(), Fault>
where
    F: Fn(&mut Scanner<'_>, &mut Vec<u8>) -> Result<(), Fault>,
{
    let odd = || {
        let text = format!("unable to parse 'data': its arrays are not nested as the shape {shape} says; a flat array would do as well");
        Fault::new(Reason::InvalidTensor, text)
    };
    let Some((length, inner)) = dims.split_first() else {
        return if scanner.peek() == Some(b'[') { Err(odd()) } else { element(scanner, out) };
    };
    if scanner.peek() != Some(b'[') {
        return Err(odd());
    }
    let mut read = 0u64;
    scanner.array(|s, i| {
        read = i as u64 + 1;
        if read > *length { Err(odd()) } else { nested(s, shape, inner, out, element) }
    })?;
    if read == *length { Ok(()) } else { Err(odd()) }
}
