//! Tensors: what they look like ([`TensorSpec`]) and what they hold ([`Tensor`]).
//!
//! Invariant: a `Tensor`'s bytes are exactly as long as its type and shape say, every product was
//! checked for overflow, and a `BYTES` tensor's elements add up. So no later code, and above all no
//! native code, meets a size that does not fit its buffer. Bytes are kept in the form in which they
//! travel (little-endian, row-major, packed; a `BYTES` element is a `u32` length and the bytes) and
//! are shared, never copied.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::DataType;

/// The most dimensions that a tensor has.
pub const MAX_RANK: usize = 16;
/// The longest tensor name in bytes.
pub const MAX_NAME: usize = 256;

/// Why a tensor or its description is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Empty, too long, or with control characters.
    #[error("a tensor name has 1 to {MAX_NAME} bytes and no control characters")]
    Name,
    /// More dimensions than [`MAX_RANK`].
    #[error("a tensor has at most {MAX_RANK} dimensions")]
    Rank,
    /// The number of elements, or of bytes, does not fit.
    #[error("the shape's elements multiply out to more than can be addressed")]
    Overflow,
    /// The bytes are not as many as type and shape say.
    #[error("shape and data type ask for {expected} bytes, the data has {actual}")]
    ByteSize {
        /// What type and shape ask for.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// A `BYTES` tensor whose elements do not add up.
    #[error("the elements of a BYTES tensor do not add up: {0}")]
    Elements(&'static str),
    /// A dimension that the specification fixes to another value.
    #[error("the shape does not fit: expected {expected}, got {actual}")]
    Shape {
        /// The specification's shape.
        expected: String,
        /// The tensor's shape.
        actual: String,
    },
    /// Another element type than the specification's.
    #[error("the data type does not fit: expected {expected}, got {actual}")]
    Type {
        /// The specification's type.
        expected: DataType,
        /// The tensor's type.
        actual: DataType,
    },
}

/// The shape of a tensor that exists: every dimension known. An empty shape is a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Shape(Vec<u64>);

impl Shape {
    /// A shape from its dimensions, outermost first.
    ///
    /// # Errors
    /// [`TensorError::Rank`] and [`TensorError::Overflow`].
    pub fn new(dims: Vec<u64>) -> Result<Self, TensorError> {
        if dims.len() > MAX_RANK {
            return Err(TensorError::Rank);
        }
        let shape = Self(dims);
        shape.checked_elements()?;
        Ok(shape)
    }

    fn checked_elements(&self) -> Result<u64, TensorError> {
        // A zero anywhere makes the product zero, but the others must still be sane.
        let nonzero = self.0.iter().filter(|d| **d != 0).try_fold(1u64, |n, d| n.checked_mul(*d));
        match nonzero {
            Some(n) if n <= i64::MAX as u64 => Ok(if self.0.contains(&0) { 0 } else { n }),
            _ => Err(TensorError::Overflow),
        }
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.0.iter().product()
    }

    /// The dimensions, outermost first.
    #[must_use]
    pub fn dims(&self) -> &[u64] {
        &self.0
    }

    /// How many bytes `datatype` elements of this shape take; `None` for `BYTES`.
    ///
    /// # Errors
    /// [`TensorError::Overflow`].
    pub fn byte_size(&self, datatype: DataType) -> Result<Option<u64>, TensorError> {
        datatype.element_size().map(|size| self.elements().checked_mul(size as u64).ok_or(TensorError::Overflow)).transpose()
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_dims(f, self.0.iter())
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// One dimension in a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Any size; `-1` in JSON.
    Any,
    /// Exactly this size.
    Fixed(u64),
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("-1"),
            Self::Fixed(n) => write!(f, "{n}"),
        }
    }
}

impl Serialize for Dim {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => s.serialize_i64(-1),
            // The type that the reader asks for: formats without type marks tell signed from unsigned by it alone.
            Self::Fixed(n) => s.serialize_i64(i64::try_from(*n).map_err(serde::ser::Error::custom)?),
        }
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match i64::deserialize(d)? {
            -1 => Ok(Self::Any),
            n => u64::try_from(n).map(Self::Fixed).map_err(|_| serde::de::Error::custom("a dimension is -1 or at least 0")),
        }
    }
}

/// What a model says of one of its inputs or outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TensorSpecParts")]
pub struct TensorSpec {
    name: String,
    datatype: DataType,
    shape: Vec<Dim>,
}

#[derive(Deserialize)]
struct TensorSpecParts {
    name: String,
    datatype: DataType,
    shape: Vec<Dim>,
}

impl TryFrom<TensorSpecParts> for TensorSpec {
    type Error = TensorError;
    fn try_from(parts: TensorSpecParts) -> Result<Self, TensorError> {
        Self::new(parts.name, parts.datatype, parts.shape)
    }
}

fn check_name(name: &str) -> Result<(), TensorError> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(TensorError::Name);
    }
    Ok(())
}

impl TensorSpec {
    /// A specification from its parts.
    ///
    /// # Errors
    /// [`TensorError::Name`], [`TensorError::Rank`], [`TensorError::Overflow`].
    pub fn new(name: impl Into<String>, datatype: DataType, shape: Vec<Dim>) -> Result<Self, TensorError> {
        let name = name.into();
        check_name(&name)?;
        let fixed = shape.iter().filter_map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect();
        if shape.len() > MAX_RANK {
            return Err(TensorError::Rank);
        }
        Shape::new(fixed)?.byte_size(datatype)?;
        Ok(Self { name, datatype, shape })
    }

    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    #[must_use]
    pub const fn datatype(&self) -> DataType {
        self.datatype
    }

    /// Its dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[Dim] {
        &self.shape
    }

    /// Whether `tensor` is one of these; its name is not looked at.
    ///
    /// # Errors
    /// [`TensorError::Type`] and [`TensorError::Shape`].
    pub fn check(&self, tensor: &Tensor) -> Result<(), TensorError> {
        if tensor.datatype() != self.datatype {
            return Err(TensorError::Type { expected: self.datatype, actual: tensor.datatype() });
        }
        let dims = tensor.shape().dims();
        let fits = dims.len() == self.shape.len()
            && self.shape.iter().zip(dims).all(|(want, have)| match want {
                Dim::Any => true,
                Dim::Fixed(n) => n == have,
            });
        if fits {
            return Ok(());
        }
        Err(TensorError::Shape { expected: ShapeText(&self.shape).to_string(), actual: tensor.shape().to_string() })
    }
}

struct ShapeText<'a>(&'a [Dim]);

impl std::fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_dims(f, self.0.iter())
    }
}

fn write_dims<T: std::fmt::Display>(f: &mut std::fmt::Formatter<'_>, dims: impl Iterator<Item = T>) -> std::fmt::Result {
    f.write_str("[")?;
    for (i, dim) in dims.enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        write!(f, "{dim}")?;
    }
    f.write_str("]")
}

/// A tensor: name, type, shape, and bytes that fit them.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    datatype: DataType,
    shape: Shape,
    data: Bytes,
}

impl Tensor {
    /// A tensor from its parts. `data` is in wire form and is not copied.
    ///
    /// # Errors
    /// [`TensorError::Name`], [`TensorError::ByteSize`], [`TensorError::Elements`], [`TensorError::Overflow`].
    pub fn new(name: impl Into<String>, datatype: DataType, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        let name = name.into();
        check_name(&name)?;
        match shape.byte_size(datatype)? {
            Some(expected) if expected != data.len() as u64 => {
                return Err(TensorError::ByteSize { expected, actual: data.len() as u64 });
            }
            Some(_) => {}
            None => check_elements(&data, shape.elements())?,
        }
        Ok(Self { name, datatype, shape, data })
    }

    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    #[must_use]
    pub const fn datatype(&self) -> DataType {
        self.datatype
    }

    /// Its shape.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its bytes in wire form.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same tensor under another name; its bytes are shared and not looked at again.
    ///
    /// # Errors
    /// [`TensorError::Name`].
    pub fn with_name(self, name: impl Into<String>) -> Result<Self, TensorError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self { name, ..self })
    }

    /// Gives name, type, shape and bytes away.
    #[must_use]
    pub fn into_parts(self) -> (String, DataType, Shape, Bytes) {
        (self.name, self.datatype, self.shape, self.data)
    }

    /// The elements of a `BYTES` tensor in order; empty for every other type.
    pub fn byte_elements(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = if self.datatype == DataType::Bytes { &self.data } else { &[] };
        std::iter::from_fn(move || {
            let (element, tail) = split_element(rest)?;
            rest = tail;
            Some(element)
        })
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Contents are users' data and stay out of logs.
        write!(f, "Tensor({:?} {}{} {} bytes)", self.name, self.datatype, self.shape, self.data.len())
    }
}

fn split_element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn check_elements(mut data: &[u8], count: u64) -> Result<(), TensorError> {
    // Each element takes at least four bytes: a hostile count ends here before any loop.
    if count.checked_mul(4).is_none_or(|least| least > data.len() as u64) {
        return Err(TensorError::Elements("fewer bytes than the shape has elements"));
    }
    for _ in 0..count {
        let (_, rest) = split_element(data).ok_or(TensorError::Elements("an element's length goes past the end"))?;
        data = rest;
    }
    if data.is_empty() { Ok(()) } else { Err(TensorError::Elements("more bytes than the shape has elements")) }
}

/// Appends one element of a `BYTES` tensor in wire form.
///
/// # Errors
/// [`TensorError::Overflow`] when the element is 4 GiB or longer.
pub fn push_byte_element(buffer: &mut Vec<u8>, element: &[u8]) -> Result<(), TensorError> {
    let length = u32::try_from(element.len()).map_err(|_| TensorError::Overflow)?;
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(element);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(dims: &[u64]) -> Shape {
        Shape::new(dims.to_vec()).unwrap()
    }

    #[test]
    fn sizes_are_checked_and_never_wrap() {
        assert!(Shape::new(vec![u64::MAX, 2]).is_err());
        assert!(Shape::new(vec![1 << 62, 4]).is_err());
        assert!(Shape::new(vec![1 << 62, 4, 0]).is_err(), "a zero must not hide an overflow");
        assert!(Shape::new(vec![1; MAX_RANK + 1]).is_err());
        assert_eq!(shape(&[]).elements(), 1);
        assert_eq!(shape(&[3, 0]).elements(), 0);
        let huge = shape(&[1_000_000_000]);
        let error = Tensor::new("x", DataType::Fp32, huge.clone(), Bytes::from_static(b"tiny")).unwrap_err();
        assert_eq!(error, TensorError::ByteSize { expected: 4_000_000_000, actual: 4 });
        assert!(Tensor::new("x", DataType::Bytes, huge, Bytes::new()).is_err());
        assert!(shape(&[1 << 62]).byte_size(DataType::Fp64).is_err());
    }

    #[test]
    fn bytes_elements_must_add_up() {
        let mut data = Vec::new();
        push_byte_element(&mut data, b"ab").unwrap();
        push_byte_element(&mut data, b"").unwrap();
        let good = Tensor::new("s", DataType::Bytes, shape(&[2]), data.clone().into()).unwrap();
        assert_eq!(good.byte_elements().collect::<Vec<_>>(), vec![&b"ab"[..], b""]);
        for (count, bytes) in [(1, data.clone()), (3, data.clone()), (1, vec![0xff, 0xff, 0xff, 0xff]), (1, vec![1, 0, 0])] {
            assert!(Tensor::new("s", DataType::Bytes, shape(&[count]), bytes.into()).is_err());
        }
    }

    #[test]
    fn a_specification_checks_type_and_shape() {
        let spec = TensorSpec::new("x", DataType::Fp32, vec![Dim::Any, Dim::Fixed(2)]).unwrap();
        let ok = Tensor::new("x", DataType::Fp32, shape(&[3, 2]), vec![0; 24].into()).unwrap();
        assert_eq!(spec.check(&ok), Ok(()));
        let wrong = Tensor::new("x", DataType::Fp32, shape(&[2, 3]), vec![0; 24].into()).unwrap();
        assert_eq!(spec.check(&wrong).unwrap_err().to_string(), "the shape does not fit: expected [-1,2], got [2,3]");
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(json, r#"{"name":"x","datatype":"FP32","shape":[-1,2]}"#);
        assert_eq!(serde_json::from_str::<TensorSpec>(&json).unwrap(), spec);
    }

    proptest! {
        #[test]
        fn hostile_bytes_tensors_never_panic(count in 0u64..20, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(tensor) = Tensor::new("s", DataType::Bytes, shape(&[count]), bytes.clone().into()) {
                let total: usize = tensor.byte_elements().map(|e| e.len() + 4).sum();
                prop_assert_eq!(total, bytes.len());
                prop_assert_eq!(tensor.byte_elements().count() as u64, count);
            }
        }
    }
}
