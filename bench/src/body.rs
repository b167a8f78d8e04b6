//! Request bodies of the Open Inference Protocol for one FP32 input.

/// A body, with the length of its JSON header when it is binary.
pub struct Body {
    pub bytes: Vec<u8>,
    pub header_length: Option<usize>,
}

/// Deterministic values that look like pixels.
fn values(count: usize) -> impl Iterator<Item = f32> {
    (0..count).map(|i| ((i * 7) % 17) as f32)
}

/// The input as JSON.
pub fn json(name: &str, shape: [usize; 2]) -> Body {
    let data: Vec<String> = values(shape[0] * shape[1]).map(|v| v.to_string()).collect();
    let text =
        format!(r#"{{"inputs":[{{"name":"{name}","shape":[{},{}],"datatype":"FP32","data":[{}]}}]}}"#, shape[0], shape[1], data.join(","));
    Body { bytes: text.into_bytes(), header_length: None }
}

/// The input in binary; the answer is asked for in binary too.
pub fn binary(name: &str, shape: [usize; 2]) -> Body {
    let size = shape[0] * shape[1] * 4;
    let header = format!(
        r#"{{"inputs":[{{"name":"{name}","shape":[{},{}],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        shape[0], shape[1]
    );
    let header_length = Some(header.len());
    let mut bytes = header.into_bytes();
    bytes.extend(values(shape[0] * shape[1]).flat_map(f32::to_le_bytes));
    Body { bytes, header_length }
}
