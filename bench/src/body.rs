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
pub fn json(name: &str, shape: &[usize]) -> Body {
    json_of(name, shape, &values(shape.iter().product()).collect::<Vec<_>>())
}

/// The same with values of one's own.
pub fn json_of(name: &str, shape: &[usize], values: &[f32]) -> Body {
    let data: Vec<String> = values.iter().map(f32::to_string).collect();
    let text = format!(r#"{{"inputs":[{{"name":"{name}","shape":{shape:?},"datatype":"FP32","data":[{}]}}]}}"#, data.join(","));
    Body { bytes: text.into_bytes(), header_length: None }
}

/// The input's bytes alone, as they travel in binary bodies, in gRPC and in shared memory.
pub fn raw(shape: &[usize]) -> Vec<u8> {
    values(shape.iter().product()).flat_map(f32::to_le_bytes).collect()
}

/// Input and output in a registered region of shared memory: the input at its beginning, the output after it.
pub fn shared(name: &str, output: &str, shape: &[usize], region: &str) -> Body {
    let size = shape.iter().product::<usize>() * 4;
    let place = |offset: usize| {
        format!(r#"{{"shared_memory_region":"{region}","shared_memory_offset":{offset},"shared_memory_byte_size":{size}}}"#)
    };
    let text = format!(
        r#"{{"inputs":[{{"name":"{name}","shape":{shape:?},"datatype":"FP32","parameters":{}}}],"outputs":[{{"name":"{output}","parameters":{}}}]}}"#,
        place(0),
        place(size)
    );
    let header_length = Some(text.len());
    Body { bytes: text.into_bytes(), header_length }
}

/// The input in binary; the answer is asked for in binary too.
pub fn binary(name: &str, shape: &[usize]) -> Body {
    let data = raw(shape);
    let header = format!(
        r#"{{"inputs":[{{"name":"{name}","shape":{shape:?},"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        data.len()
    );
    let header_length = Some(header.len());
    let mut bytes = header.into_bytes();
    bytes.extend(data);
    Body { bytes, header_length }
}
