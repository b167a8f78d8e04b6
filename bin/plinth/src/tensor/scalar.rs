//! One value of any type, and its way into the wire form of the type that a model wants.
//!
//! Invariant: integers arrive exactly or not at all; floats are rounded to the nearest of a smaller type, but never to
//! infinity; a fraction never becomes an integer.

use half::{bf16, f16};
use plinth_types::DataType;
use plinth_types::tensor::push_byte_element;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Bytes(Vec<u8>),
}

impl Scalar {
    /// Appends the value in the wire form of `datatype`.
    ///
    /// # Errors
    /// A sentence about why it does not fit.
    pub fn push(&self, datatype: DataType, out: &mut Vec<u8>) -> Result<(), String> {
        self.try_push(datatype, out).ok_or_else(|| format!("holds {}, which is no {datatype}", self.describe()))
    }

    fn try_push(&self, datatype: DataType, out: &mut Vec<u8>) -> Option<()> {
        macro_rules! integer {
            ($type:ty) => {
                out.extend_from_slice(&<$type>::try_from(self.integer()?).ok()?.to_le_bytes())
            };
        }
        macro_rules! float {
            ($make:expr) => {{
                let number = self.float()?;
                let made = $make(number);
                if number.is_finite() && !made.is_finite() {
                    return None;
                }
                out.extend_from_slice(&made.to_le_bytes())
            }};
        }
        match datatype {
            DataType::Bool => out.push(u8::from(self.bool()?)),
            DataType::Uint8 => integer!(u8),
            DataType::Uint16 => integer!(u16),
            DataType::Uint32 => integer!(u32),
            DataType::Uint64 => integer!(u64),
            DataType::Int8 => integer!(i8),
            DataType::Int16 => integer!(i16),
            DataType::Int32 => integer!(i32),
            DataType::Int64 => integer!(i64),
            DataType::Fp16 => float!(f16::from_f64),
            DataType::Bf16 => float!(bf16::from_f64),
            DataType::Fp32 => float!(|n| n as f32),
            DataType::Fp64 => float!(|n: f64| n),
            DataType::Bytes => match self {
                Self::Bytes(bytes) => push_byte_element(out, bytes).ok()?,
                _ => return None,
            },
        }
        Some(())
    }

    const fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Integer(0) => Some(false),
            Self::Integer(1) => Some(true),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Integer(number) => Some(*number),
            // Beyond 2^53 a float names many integers.
            Self::Float(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => Some(*number as i128),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Bytes(word) => match word.as_slice() {
                b"NaN" => Some(f64::NAN),
                b"Infinity" => Some(f64::INFINITY),
                b"-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bytes(_) => "a text".to_owned(),
        }
    }
}

/// The values behind a wire form; `bytes` has whole elements.
pub fn of_wire(datatype: DataType, bytes: &[u8]) -> Box<dyn Iterator<Item = Scalar> + '_> {
    macro_rules! chunks {
        ($type:ty, $make:expr) => {
            Box::new(bytes.as_chunks::<{ size_of::<$type>() }>().0.iter().map(|c| $make(<$type>::from_le_bytes(*c))))
        };
    }
    macro_rules! integers {
        ($type:ty) => {
            chunks!($type, |n| Scalar::Integer(i128::from(n)))
        };
    }
    match datatype {
        DataType::Bool => Box::new(bytes.iter().map(|b| Scalar::Bool(*b != 0))),
        DataType::Uint8 => integers!(u8),
        DataType::Uint16 => integers!(u16),
        DataType::Uint32 => integers!(u32),
        DataType::Uint64 => integers!(u64),
        DataType::Int8 => integers!(i8),
        DataType::Int16 => integers!(i16),
        DataType::Int32 => integers!(i32),
        DataType::Int64 => integers!(i64),
        DataType::Fp16 => chunks!(f16, |n: f16| Scalar::Float(n.to_f64())),
        DataType::Bf16 => chunks!(bf16, |n: bf16| Scalar::Float(n.to_f64())),
        DataType::Fp32 => chunks!(f32, |n| Scalar::Float(f64::from(n))),
        DataType::Fp64 => chunks!(f64, Scalar::Float),
        DataType::Bytes => {
            let mut rest = bytes;
            Box::new(std::iter::from_fn(move || {
                let (length, tail) = rest.split_first_chunk::<4>()?;
                let (element, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                rest = tail;
                Some(Scalar::Bytes(element.to_vec()))
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(scalar: Scalar, datatype: DataType) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        scalar.push(datatype, &mut out).ok().map(|()| out)
    }

    #[test]
    fn numbers_fit_or_are_refused() {
        assert_eq!(push(Scalar::Integer(255), DataType::Uint8), Some(vec![255]));
        assert_eq!(push(Scalar::Integer(256), DataType::Uint8), None);
        assert_eq!(push(Scalar::Integer(-1), DataType::Uint64), None);
        assert_eq!(push(Scalar::Integer(u64::MAX.into()), DataType::Uint64), Some(vec![255; 8]));
        assert_eq!(push(Scalar::Float(2.0), DataType::Int8), Some(vec![2]));
        assert_eq!(push(Scalar::Float(2.5), DataType::Int8), None);
        assert_eq!(push(Scalar::Float(f64::NAN), DataType::Int8), None);
        assert_eq!(push(Scalar::Integer(1), DataType::Bool), Some(vec![1]));
        assert_eq!(push(Scalar::Integer(2), DataType::Bool), None);
        assert_eq!(push(Scalar::Float(1e300), DataType::Fp32), None);
        assert_eq!(push(Scalar::Float(1e6), DataType::Fp16), None);
        assert_eq!(push(Scalar::Float(f64::INFINITY), DataType::Fp16), Some(vec![0, 0x7c]));
        assert_eq!(push(Scalar::Bytes(b"-Infinity".to_vec()), DataType::Fp32), Some(f32::NEG_INFINITY.to_le_bytes().to_vec()));
        assert_eq!(push(Scalar::Bytes(b"five".to_vec()), DataType::Fp32), None);
        assert_eq!(push(Scalar::Integer(5), DataType::Bytes), None);
    }

    proptest! {
        #[test]
        fn every_wire_form_survives_the_way_through_scalars(bytes in proptest::collection::vec(any::<u8>(), 16)) {
            for datatype in DataType::ALL.into_iter().filter(|t| !matches!(t, DataType::Bool | DataType::Bytes)) {
                let mut out = Vec::new();
                let scalars: Vec<_> = of_wire(datatype, &bytes).collect();
                // A NaN may change its payload on the way, which no model can tell.
                if scalars.iter().any(|s| matches!(s, Scalar::Float(n) if n.is_nan())) {
                    continue;
                }
                for scalar in scalars {
                    scalar.push(datatype, &mut out).unwrap();
                }
                prop_assert_eq!(&out, &bytes, "{}", datatype);
            }
        }
    }
}
