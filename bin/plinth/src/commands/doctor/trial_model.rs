//! The smallest model there is: one ONNX `Identity` node over one float, built here byte by byte.
//!
//! Source of the numbers: the field numbers of `onnx.proto3` (ModelProto, GraphProto, NodeProto, ValueInfoProto).

const LENGTH_DELIMITED: u8 = 2;

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// A nested message or a text; all of ours are shorter than 128 bytes, whose length is one byte.
fn nested(field: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[field << 3 | LENGTH_DELIMITED, length], content].concat()
}

/// A tensor of one float.
fn value(field: u8, name: &str) -> Vec<u8> {
    let dimension = nested(1, &number(1, 1));
    let tensor = [number(1, 1), nested(2, &dimension)].concat();
    let kind = nested(1, &tensor);
    nested(field, &[nested(1, name.as_bytes()), nested(2, &kind)].concat())
}

/// The bytes of `model.onnx`: input `x` and output `y`, FP32, shape `[1]`.
pub fn identity() -> Vec<u8> {
    let node = [nested(1, b"x"), nested(2, b"y"), nested(4, b"Identity")].concat();
    let graph = [nested(1, &node), nested(2, b"trial"), value(11, "x"), value(12, "y")].concat();
    let opset = number(2, 13);
    [number(1, 8), nested(7, &graph), nested(8, &opset)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_shorter_than_one_byte_of_length_can_say() {
        assert!(identity().len() < 128, "{}", identity().len());
    }
}
