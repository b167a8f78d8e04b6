//! An answer, checked and taken apart for the requests that were put together. Pure.
//!
//! Invariants: nothing that a runner says is believed before it was held against the model's metadata and against the
//! batch; lengths inside of texts (`BYTES`) are read from a private copy, which the runner cannot change between the check
//! and the use.

use bytes::Bytes;
use plinth_types::{DataType, Shape, Tensor, TensorSpec};

use super::plan::with_rows;
use crate::channel::frame::FrameError;
use crate::channel::wire::TensorHead;
use crate::spec::ModelMetadata;

/// Numbers from this size on are handed on where they lie.
const NOT_COPIED: usize = 64 << 10;

/// The bytes of an answer.
pub(super) struct Body {
    pub bytes: Bytes,
    /// Large outputs may be handed on in the region.
    pub is_shared: bool,
    /// Nobody else can change the bytes.
    pub is_private: bool,
}

/// What the batch has asked for.
pub(super) struct Wanted<'a> {
    pub outputs: &'a [u16],
    pub rows: &'a [u64],
    pub total: Option<u64>,
    pub wished: &'a [Option<Vec<usize>>],
}

/// An output of the whole batch.
struct Output<'a> {
    spec: &'a TensorSpec,
    shape: &'a Shape,
    bytes: Bytes,
    /// Where each part's bytes begin and end; empty without a batch dimension.
    ends: Vec<usize>,
}

/// The tensors of each part.
pub(super) fn split(
    metadata: &ModelMetadata,
    wanted: &Wanted<'_>,
    heads: &[TensorHead],
    body: &Body,
) -> Result<Vec<Vec<Tensor>>, FrameError> {
    if !heads.iter().map(|head| head.index).eq(wanted.outputs.iter().copied()) {
        return Err(FrameError::Tensor("other outputs than were asked for".to_owned()));
    }
    let outputs = heads.iter().map(|head| Output::of(metadata, wanted, head, body)).collect::<Result<Vec<_>, _>>()?;
    let part = |(i, wished): (usize, &Option<Vec<usize>>)| match wished {
        None => outputs.iter().map(|output| output.part(wanted.rows, i)).collect::<Result<Vec<_>, _>>(),
        Some(places) => places.iter().filter_map(|place| outputs.get(*place)).map(|output| output.part(wanted.rows, i)).collect(),
    };
    wanted.wished.iter().enumerate().map(part).collect()
}

impl<'a> Output<'a> {
    fn of(metadata: &'a ModelMetadata, wanted: &Wanted<'_>, head: &'a TensorHead, body: &Body) -> Result<Self, FrameError> {
        let spec = metadata.outputs.get(usize::from(head.index)).ok_or(FrameError::Payload)?;
        let bad = |what: &str| FrameError::Tensor(format!("output '{}': {what}", spec.name()));
        let from = usize::try_from(head.span.offset).map_err(|_| FrameError::Payload)?;
        let length = usize::try_from(head.span.length).map_err(|_| FrameError::Payload)?;
        let end = from.checked_add(length).filter(|end| *end <= body.bytes.len()).ok_or(FrameError::Payload)?;
        let shared = body.is_shared && length >= NOT_COPIED && spec.datatype() != DataType::Bytes;
        let bytes = if shared || body.is_private {
            body.bytes.slice(from..end)
        } else {
            Bytes::copy_from_slice(body.bytes.get(from..end).unwrap_or_default())
        };
        // Checks type, shape, length, and the elements of texts.
        let whole =
            Tensor::new(spec.name(), spec.datatype(), head.shape.clone(), bytes.clone()).map_err(|error| bad(&error.to_string()))?;
        spec.check(&whole).map_err(|error| bad(&error.to_string()))?;
        let ends = match wanted.total {
            None => Vec::new(),
            Some(total) if head.shape.dims().first() != Some(&total) => return Err(bad("another first dimension than the batch's")),
            Some(_) => ends(&whole, wanted.rows).ok_or_else(|| bad("rows that do not add up"))?,
        };
        Ok(Self { spec, shape: &head.shape, bytes, ends })
    }

    fn part(&self, rows: &[u64], i: usize) -> Result<Tensor, FrameError> {
        let (shape, bytes) = match rows.get(i) {
            None => (self.shape.clone(), self.bytes.clone()),
            Some(rows) => {
                let start = i.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
                let end = self.ends.get(i).copied().filter(|end| *end <= self.bytes.len() && start <= *end).ok_or(FrameError::Payload)?;
                (with_rows(self.shape, *rows).ok_or(FrameError::Payload)?, self.bytes.slice(start..end))
            }
        };
        Tensor::new(self.spec.name(), self.spec.datatype(), shape, bytes).map_err(|error| FrameError::Tensor(error.to_string()))
    }
}

/// Where each part's bytes end.
fn ends(whole: &Tensor, rows: &[u64]) -> Option<Vec<usize>> {
    let row = with_rows(whole.shape(), 1)?;
    let mut end = 0usize;
    if let Some(length) = row.byte_size(whole.datatype()).ok()? {
        let length = usize::try_from(length).ok()?;
        let next = |rows: &u64| {
            end = end.checked_add(length.checked_mul(usize::try_from(*rows).ok()?)?)?;
            Some(end)
        };
        return rows.iter().map(next).collect();
    }
    let mut elements = whole.byte_elements();
    let next = |rows: &u64| {
        for _ in 0..rows.checked_mul(row.elements())? {
            end = end.checked_add(4)?.checked_add(elements.next()?.len())?;
        }
        Some(end)
    };
    rows.iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::wire::Span;
    use plinth_types::Dim;
    use plinth_types::tensor::push_byte_element;
    use proptest::prelude::*;

    fn metadata() -> ModelMetadata {
        let spec = |name: &str, datatype, dims| TensorSpec::new(name, datatype, dims).unwrap();
        ModelMetadata {
            platform: String::new(),
            inputs: vec![],
            optional_inputs: vec![],
            outputs: vec![spec("n", DataType::Uint16, vec![Dim::Any, Dim::Fixed(2)]), spec("t", DataType::Bytes, vec![Dim::Any, Dim::Any])],
            engine: String::new(),
        }
    }

    fn head(index: u16, dims: &[u64], offset: u64, length: u64) -> TensorHead {
        TensorHead { index, shape: Shape::new(dims.to_vec()).unwrap(), span: Span { offset, length } }
    }

    fn body(bytes: &[u8]) -> Body {
        Body { bytes: Bytes::copy_from_slice(bytes), is_shared: true, is_private: false }
    }

    #[test]
    fn every_part_gets_its_rows() {
        let mut bytes = (0..16u8).collect::<Vec<_>>();
        for text in ["", "a", "bc", "def"] {
            push_byte_element(&mut bytes, text.as_bytes()).unwrap();
        }
        let texts = bytes.len() as u64 - 16;
        let heads = [head(0, &[4, 2], 0, 16), head(1, &[4, 1], 16, texts)];
        let wished = [None, Some(vec![1, 0]), Some(vec![1])];
        let wanted = Wanted { outputs: &[0, 1], rows: &[1, 2, 1], total: Some(4), wished: &wished };
        let parts = split(&metadata(), &wanted, &heads, &body(&bytes)).unwrap();
        let texts = |tensor: &Tensor| tensor.byte_elements().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect::<Vec<_>>();
        assert_eq!(parts[0][0].data(), &bytes[..4]);
        assert_eq!((parts[1][1].data().as_ref(), parts[1][1].shape().dims()), (&bytes[4..12], &[2, 2][..]));
        assert_eq!(
            (texts(&parts[0][1]), texts(&parts[1][0]), texts(&parts[2][0])),
            (vec![String::new()], vec!["a".into(), "bc".into()], vec!["def".into()])
        );
        assert_eq!((parts[0].len(), parts[2].len()), (2, 1));
    }

    #[test]
    fn lies_are_found() {
        let wished = [None];
        let wanted = Wanted { outputs: &[0], rows: &[2], total: Some(2), wished: &wished };
        for (heads, says) in [
            (vec![], "other outputs"),
            (vec![head(1, &[2, 1], 0, 8)], "other outputs"),
            (vec![head(0, &[2, 2], 0, 8), head(1, &[2, 1], 0, 8)], "other outputs"),
            (vec![head(0, &[1, 2], 0, 4)], "another first dimension"),
            (vec![head(0, &[2, 3], 0, 12)], "the shape does not fit"),
            (vec![head(0, &[2, 2], 0, 7)], "ask for 8"),
            (vec![head(0, &[2, 2], 9, 8)], "do not add up"),
            (vec![head(0, &[2, 2], u64::MAX, 8)], "do not add up"),
        ] {
            let error = split(&metadata(), &wanted, &heads, &body(&[0; 16])).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(
            dims in proptest::collection::vec(0u64..5, 0..4), offset in 0u64..40, length in 0u64..40, index in 0u16..3,
            bytes in proptest::collection::vec(any::<u8>(), 0..40), rows in proptest::collection::vec(0u64..4, 1..4), batched: bool,
        ) {
            let wished = vec![None; rows.len()];
            let total = batched.then(|| rows.iter().sum());
            let wanted = Wanted { outputs: &[index], rows: if batched { &rows } else { &[] }, total, wished: &wished };
            if let Ok(parts) = split(&metadata(), &wanted, &[head(index, &dims, offset, length)], &body(&bytes)) {
                prop_assert_eq!(parts.len(), rows.len());
                if batched {
                    let all: usize = parts.iter().map(|part| part[0].data().len()).sum();
                    prop_assert_eq!(all as u64, length);
                }
            }
        }
    }
}
