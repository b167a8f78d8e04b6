//! The elements of a tensor as JSON, flat and in row-major order, and back.
//!
//! Invariant: a number that its data type cannot hold exactly (integers) or that JSON cannot say (NaN, infinities, FP16,
//! BF16) is an error in both directions, never a neighbour.

use plinth_types::{DataType, Tensor, tensor::push_byte_element};
use serde_json::{Number, Value};

/// How deep the lists of an answer may be nested.
const MAX_DEPTH: usize = plinth_types::tensor::MAX_RANK + 1;

macro_rules! numbers {
    ($tensor:expr, $type:ty) => {
        $tensor.data().as_chunks::<{ size_of::<$type>() }>().0.iter().map(|c| Ok(Value::from(<$type>::from_le_bytes(*c)))).collect()
    };
}

macro_rules! floats {
    ($tensor:expr, $type:ty) => {
        $tensor
            .data()
            .as_chunks::<{ size_of::<$type>() }>()
            .0
            .iter()
            .map(|c| {
                let number = f64::from(<$type>::from_le_bytes(*c));
                Number::from_f64(number).map(Value::Number).ok_or_else(|| format!("holds {number}, which JSON cannot carry"))
            })
            .collect()
    };
}

/// The elements as one flat list.
pub(super) fn data(tensor: &Tensor) -> Result<Value, String> {
    let list: Result<Vec<Value>, String> = match tensor.datatype() {
        DataType::Bool => tensor.data().iter().map(|b| Ok(Value::from(*b != 0))).collect(),
        DataType::Uint8 => numbers!(tensor, u8),
        DataType::Uint16 => numbers!(tensor, u16),
        DataType::Uint32 => numbers!(tensor, u32),
        DataType::Uint64 => numbers!(tensor, u64),
        DataType::Int8 => numbers!(tensor, i8),
        DataType::Int16 => numbers!(tensor, i16),
        DataType::Int32 => numbers!(tensor, i32),
        DataType::Int64 => numbers!(tensor, i64),
        DataType::Fp32 => floats!(tensor, f32),
        DataType::Fp64 => floats!(tensor, f64),
        DataType::Fp16 | DataType::Bf16 => Err(format!("is {}, which JSON cannot carry", tensor.datatype())),
        DataType::Bytes => tensor
            .byte_elements()
            .map(|e| {
                std::str::from_utf8(e).map(Value::from).map_err(|_| "holds bytes that are not text, which JSON cannot carry".to_owned())
            })
            .collect(),
    };
    list.map(Value::Array)
}

/// The elements of a flat or nested list in wire form.
pub(super) fn bytes(datatype: DataType, data: &Value) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    flatten(datatype, data, 0, &mut out)?;
    Ok(out)
}

fn flatten(datatype: DataType, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Array(list) if depth < MAX_DEPTH => list.iter().try_for_each(|v| flatten(datatype, v, depth + 1, out)),
        Value::Array(_) => Err("is nested too deeply".into()),
        scalar => push(datatype, scalar, out).ok_or_else(|| format!("holds an element that is no {datatype}")),
    }
}

fn push(datatype: DataType, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    macro_rules! unsigned {
        ($type:ty) => {
            out.extend_from_slice(&<$type>::try_from(value.as_u64()?).ok()?.to_le_bytes())
        };
    }
    macro_rules! signed {
        ($type:ty) => {
            out.extend_from_slice(&<$type>::try_from(value.as_i64()?).ok()?.to_le_bytes())
        };
    }
    match datatype {
        DataType::Bool => out.push(u8::from(value.as_bool()?)),
        DataType::Uint8 => unsigned!(u8),
        DataType::Uint16 => unsigned!(u16),
        DataType::Uint32 => unsigned!(u32),
        DataType::Uint64 => unsigned!(u64),
        DataType::Int8 => signed!(i8),
        DataType::Int16 => signed!(i16),
        DataType::Int32 => signed!(i32),
        DataType::Int64 => signed!(i64),
        DataType::Fp32 => {
            let number = value.as_f64()? as f32;
            out.extend_from_slice(&number.is_finite().then_some(number)?.to_le_bytes());
        }
        DataType::Fp64 => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
        DataType::Fp16 | DataType::Bf16 => return None,
        DataType::Bytes => push_byte_element(out, value.as_str()?.as_bytes()).ok()?,
    }
    Some(())
}
