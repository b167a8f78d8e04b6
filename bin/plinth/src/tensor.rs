//! What users give and see as tensors: JSON, `.npy` and images in, text out.
//!
//! [`Elements`] stands between the forms and the wire: every form becomes elements with a shape, and [`Elements::fit`]
//! makes the tensor that one input of the model wants, or says why it cannot. Invariants: a number is never changed
//! silently except by rounding to a smaller float; what is read is bounded; hostile files end in an error.

pub mod image;
pub mod json;
pub mod npy;
mod scalar;
pub mod show;
pub mod source;

use bytes::Bytes;
use plinth_types::{DataType, Dim, Shape, Tensor, TensorSpec};

pub use scalar::Scalar;

/// The most elements that the command line takes for one input.
pub const MAX_ELEMENTS: u64 = 1 << 28;

/// Values with a shape, before anybody knows which type the model wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Elements {
    /// The dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Whether the shape was said or only stands for "so many": a flat list takes the input's shape.
    pub flat: bool,
    /// The values.
    pub values: Values,
}

/// The values of [`Elements`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// One by one.
    Scalars(Vec<Scalar>),
    /// In wire form already.
    Wire(DataType, Vec<u8>),
}

impl Elements {
    fn count(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The tensor for `spec`.
    ///
    /// # Errors
    /// A sentence about what does not fit.
    pub fn fit(self, spec: &TensorSpec) -> Result<Tensor, String> {
        let dims = fit_shape(&self.shape, self.flat, self.count(), spec.shape())?;
        let data = match self.values {
            Values::Wire(datatype, bytes) if datatype == spec.datatype() => bytes,
            Values::Wire(datatype, bytes) => {
                let mut out = Vec::new();
                for scalar in scalar::of_wire(datatype, &bytes) {
                    scalar.push(spec.datatype(), &mut out)?;
                }
                out
            }
            Values::Scalars(scalars) => {
                let mut out = Vec::new();
                for scalar in scalars {
                    scalar.push(spec.datatype(), &mut out)?;
                }
                out
            }
        };
        let shape = Shape::new(dims).map_err(|e| e.to_string())?;
        Tensor::new(spec.name(), spec.datatype(), shape, Bytes::from(data)).map_err(|e| e.to_string())
    }
}

/// The dimensions to send. What was said must fit; one leading batch dimension may be left out. A flat list fills the
/// input's shape when that leaves at most one dimension open.
fn fit_shape(said: &[u64], flat: bool, count: u64, want: &[Dim]) -> Result<Vec<u64>, String> {
    let fits = |dims: &[u64]| {
        dims.len() == want.len()
            && want.iter().zip(dims).all(|(w, d)| match w {
                Dim::Any => true,
                Dim::Fixed(n) => n == d,
            })
    };
    if fits(said) {
        return Ok(said.to_vec());
    }
    let with_batch: Vec<u64> = std::iter::once(1).chain(said.iter().copied()).collect();
    if fits(&with_batch) {
        return Ok(with_batch);
    }
    if flat && let Some(dims) = fill(count, want).filter(|dims| fits(dims)) {
        return Ok(dims);
    }
    Err(format!("has the shape {}, but the model takes {}", list(said), list(want)))
}

/// The fixed dimensions as they are, and the open one from the count. Of several open ones the first is a batch of 1.
fn fill(count: u64, want: &[Dim]) -> Option<Vec<u64>> {
    let fixed = want.iter().filter_map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None });
    let fixed = fixed.into_iter().try_fold(1u64, u64::checked_mul)?;
    let open: Vec<usize> = want.iter().enumerate().filter(|(_, d)| **d == Dim::Any).map(|(i, _)| i).collect();
    let rest = match (open.len(), fixed) {
        (0, _) => return (count == fixed).then(|| want.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect()),
        (_, 0) => return None,
        (1 | 2, _) if count.is_multiple_of(fixed) => count / fixed,
        _ => return None,
    };
    if open.len() == 2 && open[0] != 0 {
        return None;
    }
    let dim = |(i, d): (usize, &Dim)| match d {
        Dim::Fixed(n) => *n,
        Dim::Any if open.len() == 2 && i == 0 => 1,
        Dim::Any => rest,
    };
    Some(want.iter().enumerate().map(dim).collect())
}

/// Several tensors of one input as one batch.
///
/// # Errors
/// When the input takes no batch, or the tensors differ beyond their first dimension.
pub fn batch(spec: &TensorSpec, parts: Vec<Tensor>) -> Result<Tensor, String> {
    let mut parts = parts.into_iter();
    let first = parts.next().ok_or("has no value")?;
    if parts.len() == 0 {
        return Ok(first);
    }
    if spec.shape().first() != Some(&Dim::Any) {
        return Err("is given more than once, but the model takes one at a time".into());
    }
    let (name, datatype, shape, data) = first.into_parts();
    let mut dims = shape.dims().to_vec();
    let mut bytes = data.to_vec();
    for part in parts {
        if part.shape().dims()[1..] != dims[1..] {
            return Err(format!("is given more than once with shapes that differ: {} and {}", list(&dims), part.shape()));
        }
        dims[0] += part.shape().dims()[0];
        bytes.extend_from_slice(part.data());
    }
    let shape = Shape::new(dims).map_err(|e| e.to_string())?;
    Tensor::new(name, datatype, shape, bytes.into()).map_err(|e| e.to_string())
}

/// Dimensions as people write them.
pub fn list<T: std::fmt::Display>(dims: &[T]) -> String {
    format!("[{}]", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: Dim = Dim::Any;

    fn fixed(n: u64) -> Dim {
        Dim::Fixed(n)
    }

    fn spec(datatype: DataType, shape: &[Dim]) -> TensorSpec {
        TensorSpec::new("x", datatype, shape.to_vec()).unwrap()
    }

    #[test]
    fn shapes_that_were_said_and_shapes_that_are_filled() {
        /// The shape that was said, whether it only counts values, the shape wanted, the shape sent.
        type Case<'a> = (&'a [u64], bool, &'a [Dim], Option<&'a [u64]>);
        let cases: [Case<'_>; 11] = [
            (&[2, 64], false, &[ANY, fixed(64)], Some(&[2, 64])),
            (&[64], false, &[ANY, fixed(64)], Some(&[1, 64])),
            (&[64], false, &[fixed(1), fixed(64)], Some(&[1, 64])),
            (&[64], true, &[ANY, fixed(8), fixed(8)], Some(&[1, 8, 8])),
            (&[128], true, &[ANY, fixed(64)], Some(&[2, 64])),
            (&[5], true, &[ANY, ANY], Some(&[1, 5])),
            (&[63], true, &[ANY, fixed(64)], None),
            (&[63], false, &[fixed(64)], None),
            (&[1], true, &[], Some(&[])),
            (&[6], true, &[fixed(2), ANY, ANY], None),
            (&[6], true, &[ANY, fixed(0)], None),
        ];
        for (said, flat, want, sent) in cases {
            let count = said.iter().product();
            assert_eq!(fit_shape(said, flat, count, want).ok().as_deref(), sent, "{said:?} {want:?}");
        }
    }

    #[test]
    fn several_values_become_a_batch() {
        let spec = spec(DataType::Uint8, &[ANY, fixed(2)]);
        let part = |a, b| Tensor::new("x", DataType::Uint8, Shape::new(vec![1, 2]).unwrap(), vec![a, b].into()).unwrap();
        let both = batch(&spec, vec![part(1, 2), part(3, 4)]).unwrap();
        assert_eq!((both.shape().dims(), &both.data()[..]), (&[2, 2][..], &[1, 2, 3, 4][..]));
        let single = TensorSpec::new("x", DataType::Uint8, vec![fixed(1), fixed(2)]).unwrap();
        assert!(batch(&single, vec![part(1, 2), part(3, 4)]).is_err());
    }

    proptest! {
        #[test]
        fn what_fits_has_as_many_elements_as_there_are_values(count in 0u64..500, want in proptest::collection::vec(prop_oneof![Just(ANY), (0u64..9).prop_map(Dim::Fixed)], 0..4)) {
            if let Ok(dims) = fit_shape(&[count], true, count, &want) {
                prop_assert_eq!(dims.iter().product::<u64>(), count);
            }
        }
    }
}
