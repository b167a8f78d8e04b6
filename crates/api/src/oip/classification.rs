//! The classification extension: instead of a tensor, its largest values as texts `value:index[:label]`.
//!
//! Source: Triton's classification extension. Fractions are written with six decimals, as Triton writes them.

use std::cmp::Ordering;

use bytes::Bytes;
use half::{bf16, f16};
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Error, Reason, Shape, Tensor};

/// The most classes of one output, over all rows of a batch.
const MAX_CLASSES: usize = 1 << 20;

/// The `most` largest values of `tensor`, of each row when its first dimension is the batch. The answer is a `BYTES`
/// tensor of the same name with shape `[k]`, or `[batch, k]`.
///
/// # Errors
/// [`Reason::InvalidTensor`] for a tensor that is not of numbers, and for more than [`MAX_CLASSES`] classes.
pub(super) fn classify(tensor: &Tensor, most: u32, batched: bool, labels: Option<&[String]>) -> Result<Tensor, Error> {
    let read = reader(tensor)?;
    let dims = tensor.shape().dims();
    let rows = if batched { dims.first().copied().unwrap_or(1) } else { 1 };
    let rows = usize::try_from(rows).unwrap_or(0);
    let elements = usize::try_from(tensor.shape().elements()).unwrap_or(0);
    let width = elements.checked_div(rows).unwrap_or(0);
    let k = usize::try_from(most).unwrap_or(usize::MAX).min(width);
    if rows.saturating_mul(k) > MAX_CLASSES {
        let text = format!("output '{}' would have more than {MAX_CLASSES} classes; ask for fewer", tensor.name());
        return Err(Error::new(Reason::InvalidTensor, text));
    }
    let mut bytes = Vec::new();
    for row in 0..rows {
        let value = |index: usize| read(tensor.data(), row * width + index);
        for index in largest(k, width, value) {
            let text = match labels.and_then(|l| l.get(index)) {
                Some(label) => format!("{}:{index}:{label}", value(index)),
                None => format!("{}:{index}", value(index)),
            };
            push_byte_element(&mut bytes, text.as_bytes()).map_err(|e| Error::internal(e.to_string()))?;
        }
    }
    let shape = if batched { vec![rows as u64, k as u64] } else { vec![k as u64] };
    let shape = Shape::new(shape).map_err(|e| Error::internal(e.to_string()))?;
    Tensor::new(tensor.name(), DataType::Bytes, shape, Bytes::from(bytes)).map_err(|e| Error::internal(e.to_string()))
}

/// The indices of the `k` largest of `width` values, largest first; holds at most twice as many.
fn largest(k: usize, width: usize, value: impl Fn(usize) -> Number) -> Vec<usize> {
    // Of equal values the first counts as larger; what is not a number comes last.
    let compare = |a: &usize, b: &usize| value(*b).compare(&value(*a)).then(a.cmp(b));
    let mut kept = Vec::with_capacity(width.min(k.saturating_mul(2)));
    for index in 0..width {
        kept.push(index);
        if kept.len() >= k.saturating_mul(2).max(1) && kept.len() > k {
            kept.select_nth_unstable_by(k, compare);
            kept.truncate(k);
        }
    }
    kept.sort_unstable_by(compare);
    kept.truncate(k);
    kept
}

/// A value to compare and to show.
enum Number {
    Whole(i128),
    Fraction(f64),
}

impl Number {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Fraction(a), Self::Fraction(b)) => match (a.is_nan(), b.is_nan()) {
                (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
                (a, b) => b.cmp(&a),
            },
            // One tensor holds one kind.
            _ => Ordering::Equal,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(n) => write!(f, "{n}"),
            Self::Fraction(x) => write!(f, "{x:.6}"),
        }
    }
}

/// Reads the value at an index out of a tensor's bytes.
type Reader = fn(&[u8], usize) -> Number;

fn reader(tensor: &Tensor) -> Result<Reader, Error> {
    macro_rules! read {
        ($kind:ty, $wrap:expr) => {
            |data, index| {
                let chunk = data.as_chunks().0.get(index).copied().unwrap_or_default();
                $wrap(<$kind>::from_le_bytes(chunk))
            }
        };
    }
    Ok(match tensor.datatype() {
        DataType::Uint8 => read!(u8, |n| Number::Whole(i128::from(n))),
        DataType::Uint16 => read!(u16, |n| Number::Whole(i128::from(n))),
        DataType::Uint32 => read!(u32, |n| Number::Whole(i128::from(n))),
        DataType::Uint64 => read!(u64, |n| Number::Whole(i128::from(n))),
        DataType::Int8 => read!(i8, |n| Number::Whole(i128::from(n))),
        DataType::Int16 => read!(i16, |n| Number::Whole(i128::from(n))),
        DataType::Int32 => read!(i32, |n| Number::Whole(i128::from(n))),
        DataType::Int64 => read!(i64, |n| Number::Whole(i128::from(n))),
        DataType::Fp16 => read!(f16, |n: f16| Number::Fraction(n.to_f64())),
        DataType::Bf16 => read!(bf16, |n: bf16| Number::Fraction(n.to_f64())),
        DataType::Fp32 => read!(f32, |n| Number::Fraction(f64::from(n))),
        DataType::Fp64 => read!(f64, Number::Fraction),
        DataType::Bool | DataType::Bytes => {
            let text = format!(
                "output '{}' is {}, which cannot be classified; ask for it without 'classification'",
                tensor.name(),
                tensor.datatype()
            );
            return Err(Error::new(Reason::InvalidTensor, text));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fp32(dims: &[u64], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new("y", DataType::Fp32, Shape::new(dims.to_vec()).unwrap(), bytes.into()).unwrap()
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor.byte_elements().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_largest_come_first_and_carry_labels() {
        let labels = ["zero".to_owned(), "one".to_owned()];
        let tensor = fp32(&[2, 3], &[0.25, 1.5, f32::NAN, 7.0, 7.0, -1.0]);
        let answer = classify(&tensor, 2, true, Some(&labels)).unwrap();
        assert_eq!((answer.datatype(), answer.shape().dims()), (DataType::Bytes, &[2, 2][..]));
        assert_eq!(texts(&answer), ["1.500000:1:one", "0.250000:0:zero", "7.000000:0:zero", "7.000000:1:one"]);
        let all = classify(&fp32(&[1, 3], &[1.0, 2.0, f32::NAN]), u32::MAX, false, None).unwrap();
        assert_eq!((all.shape().dims(), texts(&all)), (&[3][..], vec!["2.000000:1".into(), "1.000000:0".into(), "NaN:2".into()]));
    }

    proptest! {
        #[test]
        fn the_largest_are_those_of_a_full_sort(values in proptest::collection::vec(-5i8..5, 0..40), k in 1u32..45) {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by_key(|i| (-i32::from(values[*i]), *i));
            let expected: Vec<_> = order.iter().take(k as usize).map(|i| format!("{}:{i}", values[*i])).collect();
            let bytes: Vec<u8> = values.iter().map(|v| v.to_le_bytes()[0]).collect();
            let tensor = Tensor::new("y", DataType::Int8, Shape::new(vec![values.len() as u64]).unwrap(), bytes.into()).unwrap();
            prop_assert_eq!(texts(&classify(&tensor, k, false, None).unwrap()), expected);
        }
    }

    #[test]
    fn whole_numbers_stay_whole_and_other_things_are_refused() {
        let big = Tensor::new(
            "y",
            DataType::Uint64,
            Shape::new(vec![2]).unwrap(),
            [1u64, u64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into(),
        );
        assert_eq!(texts(&classify(&big.unwrap(), 1, false, None).unwrap()), ["18446744073709551615:1"]);
        let empty = classify(&fp32(&[0, 3], &[]), 2, true, None).unwrap();
        assert_eq!(empty.shape().elements(), 0);
        let wide = Tensor::new("y", DataType::Uint8, Shape::new(vec![1 << 20, 2]).unwrap(), vec![0; 2 << 20].into()).unwrap();
        assert_eq!(classify(&wide, 2, true, None).unwrap_err().reason(), Reason::InvalidTensor);
        let flag = Tensor::new("y", DataType::Bool, Shape::new(vec![1]).unwrap(), vec![1].into()).unwrap();
        assert_eq!(classify(&flag, 1, false, None).unwrap_err().reason(), Reason::InvalidTensor);
    }
}
