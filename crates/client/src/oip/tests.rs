//! Both encodings, there and back, and answers that lie.

use super::*;
use proptest::prelude::*;

fn tensor(name: &str, datatype: DataType, dims: &[u64], data: &[u8]) -> Tensor {
    Tensor::new(name, datatype, Shape::new(dims.to_vec()).unwrap(), Bytes::copy_from_slice(data)).unwrap()
}

/// Turns a request into the answer of a model that gives back what it gets.
fn echo(body: &Body) -> InferResponse {
    let split = body.header_length.unwrap_or(body.bytes.len());
    let mut head: Map<String, Value> = serde_json::from_slice(&body.bytes[..split]).unwrap();
    let outputs = head.remove("inputs").unwrap();
    let head = serde_json::json!({ "model_name": "echo", "outputs": outputs }).to_string();
    let mut bytes = BytesMut::from(head.as_bytes());
    bytes.put_slice(&body.bytes[split..]);
    decode(&bytes.freeze(), body.header_length.map(|_| head.len())).unwrap()
}

#[test]
fn every_type_survives_the_binary_encoding() {
    for datatype in DataType::ALL {
        let data = match datatype.element_size() {
            Some(1) if datatype == DataType::Bool => vec![1, 0],
            Some(size) => (0..size as u8 * 2).collect(),
            None => vec![1, 0, 0, 0, 0xff, 0, 0, 0, 0],
        };
        let request = InferRequest { inputs: vec![tensor("x", datatype, &[2, 1], &data)], ..InferRequest::default() };
        assert_eq!(echo(&encode(&request).unwrap()).outputs, request.inputs, "{datatype}");
    }
}

#[test]
fn the_request_says_what_it_wants() {
    let inputs = vec![tensor("x", DataType::Int16, &[1], &[7, 0])];
    let body = encode(&InferRequest { id: Some("7".into()), inputs: inputs.clone(), outputs: vec!["y".into()], encoding: Encoding::Json });
    let head: Value = serde_json::from_slice(&body.unwrap().bytes).unwrap();
    let expected = serde_json::json!({
        "id": "7",
        "inputs": [{ "name": "x", "datatype": "INT16", "shape": [1], "data": [7] }],
        "outputs": [{ "name": "y", "parameters": { "binary_data": false } }],
    });
    assert_eq!(head, expected);
}

#[test]
fn json_refuses_what_it_cannot_carry() {
    let cases = [
        tensor("x", DataType::Fp16, &[1], &[0, 0]),
        tensor("x", DataType::Bf16, &[1], &[0, 0]),
        tensor("x", DataType::Fp32, &[1], &f32::NAN.to_le_bytes()),
        tensor("x", DataType::Fp64, &[1], &f64::INFINITY.to_le_bytes()),
        tensor("x", DataType::Bytes, &[1], &[1, 0, 0, 0, 0xff]),
    ];
    for case in cases {
        let request = InferRequest { inputs: vec![case], encoding: Encoding::Json, ..InferRequest::default() };
        assert!(matches!(encode(&request), Err(Error::Tensor { .. })));
    }
}

#[test]
fn answers_that_lie_are_errors() {
    let cases: [(&str, &[u8]); 9] = [
        (r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1.0]}]}"#, b""),
        (r#"{"outputs":[{"name":"y","datatype":"UINT8","shape":[1],"data":[256]}]}"#, b""),
        (r#"{"outputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[1.5]}]}"#, b""),
        (r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1e300]}]}"#, b""),
        (r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1]}]}"#, b"\0\0\0\0"),
        (r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":5}}]}"#, b"\0\0\0\0"),
        (r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":-4}}]}"#, b"\0\0\0\0"),
        (r#"{"outputs":[]}"#, b"left over"),
        (r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1000000000000],"data":[]}]}"#, b""),
    ];
    for (head, tail) in cases {
        let mut bytes = BytesMut::from(head.as_bytes());
        bytes.put_slice(tail);
        assert!(decode(&bytes.freeze(), Some(head.len())).is_err(), "{head}");
    }
    let deep = format!(r#"{{"outputs":[{{"name":"y","datatype":"FP32","shape":[1],"data":{}1{}}}]}}"#, "[".repeat(60), "]".repeat(60));
    assert!(decode(&deep.into(), None).is_err());
}

proptest! {
    #[test]
    fn doubles_survive_json(values in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::ZERO, 0..20)) {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let inputs = vec![tensor("x", DataType::Fp64, &[values.len() as u64], &data)];
        let request = InferRequest { inputs, encoding: Encoding::Json, ..InferRequest::default() };
        let back = echo(&encode(&request).unwrap());
        prop_assert_eq!(back.outputs, request.inputs);
    }

    #[test]
    fn hostile_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), split in 0usize..64) {
        let split = split.min(bytes.len());
        let _ = decode(&bytes.into(), Some(split));
    }
}
