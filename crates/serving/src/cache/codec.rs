//! An answer as one piece of bytes, and back without copying.
//!
//! Little-endian: a version byte, the number of tensors (`u16`); for each tensor the length of its name (`u16`) and the name, the
//! place of its type in [`DataType::ALL`] (`u8`), its rank (`u8`) and dimensions (`u64` each), the length of its data (`u64`);
//! then the data of each, beginning at a multiple of 8. Invariants: [`decode`] gives back what [`encode`] took, as slices of the
//! one buffer; of other bytes it makes `None` or tensors that hold together, never a panic, and allocates no more than the bytes
//! call for.

use bytes::Bytes;
use plinth_types::{DataType, Shape, Tensor};

const VERSION: u8 = 1;
const ALIGN: usize = 8;

/// The least that a tensor takes in the head: its lengths, type and rank, and a name of one byte.
const LEAST: usize = 2 + 1 + 1 + 1 + 8;

/// How many bytes [`encode`] makes; `None` when they do not fit an address.
pub(super) fn encoded_len(outputs: &[Tensor]) -> Option<usize> {
    let head = outputs
        .iter()
        .try_fold(3usize, |sum, output| sum.checked_add(2 + output.name().len() + 1 + 1 + 8 * output.shape().dims().len() + 8))?;
    outputs.iter().try_fold(head, |sum, output| sum.checked_next_multiple_of(ALIGN)?.checked_add(output.data().len()))
}

/// Copies the outputs into one buffer that holds nothing else; `None` when they cannot be written.
pub(super) fn encode(outputs: &[Tensor]) -> Option<Bytes> {
    let length = encoded_len(outputs)?;
    let mut bytes = Vec::with_capacity(length);
    bytes.push(VERSION);
    bytes.extend_from_slice(&u16::try_from(outputs.len()).ok()?.to_le_bytes());
    for output in outputs {
        bytes.extend_from_slice(&u16::try_from(output.name().len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(output.name().as_bytes());
        let place = DataType::ALL.iter().position(|datatype| *datatype == output.datatype())?;
        bytes.push(u8::try_from(place).ok()?);
        bytes.push(u8::try_from(output.shape().dims().len()).ok()?);
        for dim in output.shape().dims() {
            bytes.extend_from_slice(&dim.to_le_bytes());
        }
        bytes.extend_from_slice(&(output.data().len() as u64).to_le_bytes());
    }
    for output in outputs {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes.extend_from_slice(output.data());
    }
    debug_assert_eq!(bytes.len(), length);
    Some(bytes.into())
}

/// The outputs in a buffer, as slices of it.
pub(super) fn decode(bytes: &Bytes) -> Option<Vec<Tensor>> {
    let mut head: &[u8] = bytes;
    if byte(&mut head)? != VERSION {
        return None;
    }
    let count = usize::from(u16::from_le_bytes(array(&mut head)?));
    if count.checked_mul(LEAST)? > head.len() {
        return None;
    }
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let length = u16::from_le_bytes(array(&mut head)?);
        let name = std::str::from_utf8(take(&mut head, length.into())?).ok()?;
        let datatype = *DataType::ALL.get(usize::from(byte(&mut head)?))?;
        let rank = byte(&mut head)?;
        if usize::from(rank) > plinth_types::tensor::MAX_RANK {
            return None;
        }
        let mut dims = Vec::with_capacity(rank.into());
        for _ in 0..rank {
            dims.push(u64::from_le_bytes(array(&mut head)?));
        }
        let length = usize::try_from(u64::from_le_bytes(array(&mut head)?)).ok()?;
        parts.push((name, datatype, Shape::new(dims).ok()?, length));
    }
    let mut at = bytes.len() - head.len();
    let mut outputs = Vec::with_capacity(count);
    for (name, datatype, shape, length) in parts {
        let from = at.checked_next_multiple_of(ALIGN)?;
        at = from.checked_add(length)?;
        if at > bytes.len() {
            return None;
        }
        outputs.push(Tensor::new(name, datatype, shape, bytes.slice(from..at)).ok()?);
    }
    (at == bytes.len()).then_some(outputs)
}

fn take<'a>(head: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = head.split_at_checked(length)?;
    *head = rest;
    Some(taken)
}

fn byte(head: &mut &[u8]) -> Option<u8> {
    take(head, 1).map(|taken| taken[0])
}

fn array<const N: usize>(head: &mut &[u8]) -> Option<[u8; N]> {
    take(head, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensor(name: &str, datatype: DataType, dims: &[u64], data: Vec<u8>) -> Tensor {
        Tensor::new(name, datatype, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
    }

    fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
        let one = ("[a-zé]{1,9}", prop::sample::select(&DataType::ALL[..]), prop::collection::vec(0u64..4, 0..4), any::<u8>());
        let made = one.prop_map(|(name, datatype, dims, seed)| {
            let elements = usize::try_from(dims.iter().product::<u64>()).unwrap();
            let data = match datatype.element_size() {
                Some(size) => vec![seed; elements * size],
                None => [3, 0, 0, 0, seed, seed, seed].repeat(elements),
            };
            tensor(&name, datatype, &dims, data)
        });
        prop::collection::vec(made, 0..5)
    }

    #[test]
    fn a_decoded_answer_is_slices_of_the_one_buffer() {
        let outputs = [tensor("a", DataType::Fp32, &[2], vec![1; 8]), tensor("b", DataType::Int64, &[1, 1], vec![2; 8])];
        let bytes = encode(&outputs).unwrap();
        let range = bytes.as_ptr_range();
        for output in decode(&bytes).unwrap() {
            assert!(range.contains(&output.data().as_ptr()));
            assert_eq!((output.data().as_ptr() as usize - range.start as usize) % ALIGN, 0);
        }
    }

    proptest! {
        #[test]
        fn round_trip(outputs in tensors()) {
            let bytes = encode(&outputs).unwrap();
            prop_assert_eq!(Some(bytes.len()), encoded_len(&outputs));
            prop_assert_eq!(decode(&bytes), Some(outputs));
        }

        #[test]
        fn hostile_bytes_never_panic(outputs in tensors(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = encode(&outputs).unwrap();
            let mut damaged = bytes.to_vec();
            let at = at.index(damaged.len());
            damaged[at] = with;
            drop(decode(&damaged.into()));
            prop_assert_eq!(decode(&bytes.slice(..cut.index(bytes.len()))), None);
            prop_assert_eq!(decode(&[&bytes[..], b"x"].concat().into()), None);
            drop(decode(&noise.clone().into()));
            drop(decode(&[&[VERSION][..], &noise].concat().into()));
        }
    }
}
