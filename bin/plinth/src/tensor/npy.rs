//! Elements from a `.npy` file. Source of the format: NumPy, "NEP 1" and `numpy.lib.format`, versions 1 to 3.
//!
//! Own code because the library for it multiplies shapes without checks. Invariant: the header is bounded, nothing of
//! it is evaluated, and the bytes are exactly as many as it says. Taken are booleans, integers, floats of 2, 4 and 8
//! bytes, and texts (`S`, `U`); pickled objects never.

use plinth_types::DataType;
use plinth_types::tensor::{MAX_RANK, push_byte_element};

use super::{Elements, MAX_ELEMENTS, Values};

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER: usize = 64 << 10;

struct Header<'a> {
    descr: &'a str,
    fortran: bool,
    shape: Vec<u64>,
}

/// Reads a whole file.
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse(file: &[u8]) -> Result<Elements, String> {
    let (header, data) = split(file).ok_or("is not a .npy file")?;
    let header = Header::parse(header)?;
    let count = header.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
    let count = count.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| format!("has more than {MAX_ELEMENTS} values"))?;
    let kind = Kind::parse(header.descr)?;
    if count.checked_mul(kind.size) != Some(data.len()) {
        return Err(format!("has {} bytes of values, which is not what its header says", data.len()));
    }
    let in_order = if header.fortran && header.shape.len() > 1 { row_major(data, kind.size, &header.shape) } else { data.to_vec() };
    let (datatype, bytes) = kind.wire(in_order)?;
    Ok(Elements { shape: header.shape, flat: false, values: Values::Wire(datatype, bytes) })
}

fn split(file: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(l, rest)| (usize::from(u16::from_le_bytes(*l)), rest))?,
        2 | 3 => rest.split_first_chunk::<4>().map(|(l, rest)| (u32::from_le_bytes(*l) as usize, rest))?,
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length).filter(|_| length <= MAX_HEADER)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

impl<'a> Header<'a> {
    /// Reads the one form that NumPy writes: a literal dictionary of three known keys.
    fn parse(text: &'a str) -> Result<Self, String> {
        Self::fields(text).ok_or_else(|| "has a header that NumPy does not write; structured types are not taken".to_owned())
    }

    fn fields(text: &'a str) -> Option<Self> {
        let value = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
        let descr = value("'descr'")?.strip_prefix('\'')?.split_once('\'')?.0;
        let fortran = match value("'fortran_order'")? {
            rest if rest.starts_with("True") => true,
            rest if rest.starts_with("False") => false,
            _ => return None,
        };
        let dims = value("'shape'")?.strip_prefix('(')?.split_once(')')?.0;
        let dims = dims.split(',').map(str::trim).filter(|d| !d.is_empty());
        let shape: Vec<u64> = dims.map(|d| d.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?;
        (shape.len() <= MAX_RANK).then_some(Self { descr, fortran, shape })
    }
}

/// What one element is.
struct Kind {
    letter: char,
    size: usize,
    big_endian: bool,
}

impl Kind {
    fn parse(descr: &str) -> Result<Self, String> {
        let refuse = || format!("has the type '{}', which is not taken", crate::output::plain(descr));
        let mut letters = descr.chars();
        let order = letters.next().ok_or_else(refuse)?;
        let letter = letters.next().ok_or_else(refuse)?;
        let size: usize = letters.as_str().parse().map_err(|_| refuse())?;
        let known = match letter {
            'b' => size == 1,
            'i' | 'u' => matches!(size, 1 | 2 | 4 | 8),
            'f' => matches!(size, 2 | 4 | 8),
            'S' | 'U' => (1..=1 << 20).contains(&size),
            _ => false,
        };
        if !known || !matches!(order, '<' | '>' | '|' | '=') {
            return Err(refuse());
        }
        // A text of `U` has four bytes for each letter.
        let size = if letter == 'U' { size * 4 } else { size };
        Ok(Self { letter, size, big_endian: order == '>' })
    }

    /// The elements in wire form; `data` is in row-major order.
    fn wire(&self, mut data: Vec<u8>) -> Result<(DataType, Vec<u8>), String> {
        if self.big_endian {
            let word = if self.letter == 'U' { 4 } else { self.size };
            data.chunks_exact_mut(word).for_each(<[u8]>::reverse);
        }
        let datatype = match (self.letter, self.size) {
            ('b', _) => DataType::Bool,
            ('i', 1) => DataType::Int8,
            ('i', 2) => DataType::Int16,
            ('i', 4) => DataType::Int32,
            ('i', _) => DataType::Int64,
            ('u', 1) => DataType::Uint8,
            ('u', 2) => DataType::Uint16,
            ('u', 4) => DataType::Uint32,
            ('u', _) => DataType::Uint64,
            ('f', 2) => DataType::Fp16,
            ('f', 4) => DataType::Fp32,
            ('f', _) => DataType::Fp64,
            _ => return self.texts(&data).map(|bytes| (DataType::Bytes, bytes)),
        };
        Ok((datatype, data))
    }

    fn texts(&self, data: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for element in data.chunks_exact(self.size) {
            let text =
                if self.letter == 'S' { element.to_vec() } else { letters(element).ok_or("has a text that is not Unicode")?.into_bytes() };
            // Short texts are filled up with zeros.
            let length = text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            push_byte_element(&mut out, &text[..length]).map_err(|e| e.to_string())?;
        }
        Ok(out)
    }
}

fn letters(element: &[u8]) -> Option<String> {
    element.as_chunks::<4>().0.iter().map(|c| char::from_u32(u32::from_le_bytes(*c))).collect()
}

/// Column-major elements in row-major order. `data` has exactly as many bytes as the shape says.
fn row_major(data: &[u8], size: usize, shape: &[u64]) -> Vec<u8> {
    let dims: Vec<usize> = shape.iter().map(|d| usize::try_from(*d).unwrap_or(usize::MAX)).collect();
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; dims.len()];
    for _ in 0..data.len() / size {
        // The first index moves fastest in the file.
        let from = index.iter().zip(&dims).rev().fold(0, |at, (i, d)| at * d + i);
        out.extend_from_slice(&data[from * size..(from + 1) * size]);
        for (i, d) in index.iter_mut().zip(&dims).rev() {
            *i += 1;
            if *i < *d {
                break;
            }
            *i = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::scalar::{Scalar, of_wire};
    use proptest::prelude::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat()
    }

    fn values(elements: &Elements) -> Vec<Scalar> {
        match &elements.values {
            Values::Wire(datatype, bytes) => of_wire(*datatype, bytes).collect(),
            Values::Scalars(scalars) => scalars.clone(),
        }
    }

    #[test]
    fn arrays_are_read() {
        let data: Vec<u8> = [1i16, 2, 3, 4, 5, 6].iter().flat_map(|n| n.to_le_bytes()).collect();
        let rows = parse(&npy("{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }\n", &data)).unwrap();
        assert_eq!((rows.shape.as_slice(), values(&rows)), (&[2, 3][..], (1..=6).map(Scalar::Integer).collect()));
        let columns = parse(&npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }\n", &data)).unwrap();
        assert_eq!(values(&columns), [1, 3, 5, 2, 4, 6].map(Scalar::Integer));
        let big = parse(&npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", &2.5f32.to_be_bytes())).unwrap();
        assert_eq!(values(&big), [Scalar::Float(2.5)]);
        let scalar = parse(&npy("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", &[1])).unwrap();
        assert_eq!((scalar.shape.len(), values(&scalar)), (0, vec![Scalar::Bool(true)]));
        let texts = parse(&npy("{'descr': '<U2', 'fortran_order': False, 'shape': (2,), }", b"h\0\0\0i\0\0\0\xfc\0\0\0\0\0\0\0")).unwrap();
        assert_eq!(values(&texts), [Scalar::Bytes(b"hi".to_vec()), Scalar::Bytes("ü".into())]);
    }

    #[test]
    fn hostile_files_are_refused() {
        let plain =
            |descr: &str, shape: &str| npy(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"), b"12345678");
        assert!(parse(&plain("'<f8'", "(1,)")).is_ok());
        for bad in [
            Vec::new(),
            b"\x93NUMPY".to_vec(),
            b"\x93NUMPY\x01\x00\xff\xff{".to_vec(),
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(),
            b"\x93NUMPY\x09\x00\x00\x00".to_vec(),
            plain("'|O'", "(1,)"),
            plain("'<c8'", "(1,)"),
            plain("'<f16'", "(1,)"),
            plain("[('a', '<f8')]", "(1,)"),
            plain("'<f8'", "(2,)"),
            plain("'<f8'", "(-1,)"),
            plain("'<f8'", "(18446744073709551615, 18446744073709551615)"),
            plain("'<f8'", "(4294967296, 4294967296)"),
            plain("'<U99999999999999999999'", "(1,)"),
            plain("'<f8'", &format!("({})", "1,".repeat(40))),
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_file_panics(header in "[{}'a-z<>:(), 0-9]{0,80}", data in proptest::collection::vec(any::<u8>(), 0..32), cut in 0usize..120) {
            let mut file = npy(&header, &data);
            file.truncate(cut);
            let _ = parse(&file);
        }

        #[test]
        fn transposing_twice_gives_the_same(rows in 1usize..5, columns in 1usize..5) {
            let data: Vec<u8> = (0..(rows * columns) as u8).collect();
            let once = row_major(&data, 1, &[rows as u64, columns as u64]);
            prop_assert_eq!(row_major(&once, 1, &[columns as u64, rows as u64]), data);
        }
    }
}
