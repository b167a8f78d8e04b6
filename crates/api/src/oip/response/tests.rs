//! What is written, and that it comes back as the same tensor.

use plinth_types::Shape;
use plinth_types::tensor::push_byte_element;
use proptest::prelude::*;

use super::*;
use crate::oip::request::RequestedOutput;
use crate::oip::shared_memory::Placement;

fn tensor(datatype: DataType, dims: &[u64], data: Vec<u8>) -> Tensor {
    Tensor::new("y", datatype, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
}

fn call(id: &str, default_binary: bool) -> InferCall {
    InferCall { id: id.into(), default_binary, ..InferCall::default() }
}

fn render(outputs: &[Tensor], call: &InferCall) -> Result<InferReply, Error> {
    InferReply::render(InferResult { model_name: "m", model_version: "3", outputs, batched: false }, call, &|_| None)
}

fn text(reply: &InferReply) -> String {
    String::from_utf8(reply.pieces[0].to_vec()).unwrap()
}

#[test]
fn json_is_flat_and_exact() {
    let floats: Vec<u8> = [0.1f32, -3.0, 1e-45, f32::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut strings = Vec::new();
    push_byte_element(&mut strings, "a\"é".as_bytes()).unwrap();
    let outputs =
        [tensor(DataType::Fp32, &[2, 2], floats), tensor(DataType::Bytes, &[1], strings), tensor(DataType::Bool, &[2], vec![1, 0])];
    let reply = render(&outputs, &call("i\n", false)).unwrap();
    assert_eq!((reply.header_length, reply.content_type(), reply.pieces.len()), (None, "application/json", 1));
    let expected = concat!(
        r#"{"id":"i\n","model_name":"m","model_version":"3","outputs":["#,
        r#"{"name":"y","datatype":"FP32","shape":[2,2],"data":[0.1,-3.0,1e-45,3.4028235e+38]},"#,
        r#"{"name":"y","datatype":"BYTES","shape":[1],"data":["a\"é"]},"#,
        r#"{"name":"y","datatype":"BOOL","shape":[2],"data":[true,false]}]}"#
    );
    assert_eq!(text(&reply), expected);
}

#[test]
fn binary_outputs_follow_the_json_uncopied() {
    let outputs = [tensor(DataType::Fp16, &[2], vec![1, 2, 3, 4]), tensor(DataType::Int64, &[0], vec![])];
    let reply = render(&outputs, &call("", true)).unwrap();
    let expected = concat!(
        r#"{"model_name":"m","model_version":"3","outputs":["#,
        r#"{"name":"y","datatype":"FP16","shape":[2],"parameters":{"binary_data_size":4}},"#,
        r#"{"name":"y","datatype":"INT64","shape":[0],"parameters":{"binary_data_size":0}}]}"#
    );
    assert_eq!(text(&reply), expected);
    assert_eq!((reply.header_length, reply.content_type()), (Some(expected.len()), "application/octet-stream"));
    assert_eq!((reply.pieces.len(), reply.length()), (2, expected.len() + 4));
    assert_eq!(reply.pieces[1].as_ptr(), outputs[0].data().as_ptr());
}

#[test]
fn each_output_comes_as_it_was_asked_for() {
    let outputs: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            Tensor::new(name, DataType::Fp32, Shape::new(vec![2]).unwrap(), [1f32, 5.0].map(f32::to_le_bytes).concat().into()).unwrap()
        })
        .into();
    let mut call = call("", false);
    call.outputs = [("a", true, None), ("b", false, None), ("c", false, Some(1))]
        .map(|(name, binary, classification)| RequestedOutput { name: name.into(), binary, classification, place: None })
        .into();
    let labels = ["no".to_owned(), "yes".to_owned()];
    let result = InferResult { model_name: "m", model_version: "1", outputs: &outputs, batched: false };
    let reply = InferReply::render(result, &call, &|name| (name == "c").then_some(&labels[..])).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&reply.pieces[0]).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert_eq!(json["outputs"][1]["data"], serde_json::json!([1.0, 5.0]));
    assert_eq!(json["outputs"][2], serde_json::json!({"name": "c", "datatype": "BYTES", "shape": [1], "data": ["5.000000:1:yes"]}));
}

#[test]
fn what_json_cannot_carry_is_refused_by_name_and_binary_carries_it() {
    let mut bytes = Vec::new();
    push_byte_element(&mut bytes, b"ok").unwrap();
    push_byte_element(&mut bytes, b"\xff").unwrap();
    for (output, why) in [
        (tensor(DataType::Fp32, &[2], [1f32, f32::NAN].map(f32::to_le_bytes).concat()), "is NaN or infinite at element 1"),
        (tensor(DataType::Fp64, &[1], f64::NEG_INFINITY.to_le_bytes().into()), "is NaN or infinite at element 0"),
        (tensor(DataType::Fp16, &[1], vec![0, 0]), "is FP16"),
        (tensor(DataType::Bf16, &[1], vec![0, 0]), "is BF16"),
        (tensor(DataType::Bytes, &[2], bytes), "is not UTF-8 at element 1"),
    ] {
        let error = render(std::slice::from_ref(&output), &call("", false)).unwrap_err();
        assert_eq!((error.reason(), error.field_name()), (Reason::NotRepresentable, Some("outputs[0]")));
        assert!(error.public_text().starts_with(&format!("output 'y' {why}")) && error.public_text().contains("binary_data"), "{error}");
        assert!(render(&[output], &call("", true)).is_ok());
    }
}

/// Any tensor of any type, with 0 to 5 elements.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let element = prop_oneof![".{0,6}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..6)];
    (0usize..14, proptest::collection::vec((any::<[u8; 8]>(), element), 0..6)).prop_map(|(kind, elements)| {
        let datatype = DataType::ALL[kind];
        let mut data = Vec::new();
        for (bits, text) in &elements {
            match datatype {
                DataType::Bytes => push_byte_element(&mut data, text).unwrap(),
                DataType::Bool => data.push(bits[0] & 1),
                other => data.extend_from_slice(&bits[..other.element_size().unwrap()]),
            }
        }
        tensor(datatype, &[elements.len() as u64], data)
    })
}

/// Turns an answer into the request that would bring it, and reads that.
fn send_back(reply: &InferReply) -> Result<InferCall, Error> {
    let json = text(reply).replace("\"outputs\":", "\"inputs\":");
    let mut body = json.clone().into_bytes();
    reply.pieces[1..].iter().for_each(|piece| body.extend_from_slice(piece));
    InferCall::parse(&body.into(), reply.header_length.map(|_| json.len()))
}

proptest! {
    #[test]
    fn every_tensor_survives_binary(tensor in any_tensor()) {
        let reply = render(std::slice::from_ref(&tensor), &call("", true)).unwrap();
        prop_assert_eq!(send_back(&reply).unwrap().inputs, vec![tensor]);
    }

    #[test]
    fn every_tensor_survives_json_or_is_refused(tensor in any_tensor()) {
        match render(std::slice::from_ref(&tensor), &call("", false)) {
            Ok(reply) => prop_assert_eq!(send_back(&reply).unwrap().inputs, vec![tensor]),
            Err(error) => {
                prop_assert_eq!(error.reason(), Reason::NotRepresentable);
                let may_fail = [DataType::Fp16, DataType::Bf16, DataType::Fp32, DataType::Fp64, DataType::Bytes];
                prop_assert!(may_fail.contains(&tensor.datatype()));
            }
        }
    }
}

#[test]
fn a_placed_output_has_neither_data_nor_parameters() {
    let place = Placement { region: "r\"".into(), byte_size: 100, offset: 8 };
    let mut call = call("", true);
    call.outputs = vec![RequestedOutput { name: "y".into(), binary: true, classification: None, place: Some(place) }];
    let reply = render(&[tensor(DataType::Int8, &[1, 2], vec![1, 2])], &call).unwrap();
    let expected = r#"{"model_name":"m","model_version":"3","outputs":[{"name":"y","datatype":"INT8","shape":[1,2]}]}"#;
    assert_eq!((text(&reply).as_str(), reply.header_length), (expected, None));
}

#[test]
fn an_answer_says_to_which_sequence_it_belongs() {
    for (id, shown) in [(SequenceId::Number(7), "7"), (SequenceId::Text("a\"".into()), "\"a\\\"\"")] {
        let mut call = call("", false);
        call.sequence = Some(SequenceControl { id, start: true, end: false });
        let expected = format!(
            r#"{{"model_name":"m","model_version":"3","parameters":{{"sequence_id":{shown},"sequence_start":true,"sequence_end":false}},"outputs":[]}}"#
        );
        assert_eq!(text(&render(&[], &call).unwrap()), expected);
    }
}
