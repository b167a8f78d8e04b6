//! Values and shapes, there and back.

use plinth_serving::SequenceId;
use plinth_types::DataType;
use plinth_types::tensor::push_byte_element;
use proptest::prelude::*;

use super::*;
use crate::oip::parameters::Parameter;

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    let dims = dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed)).collect();
    TensorSpec::new(name, datatype, dims).unwrap()
}

fn dims(value: &str, dims: &[i64], batched: bool) -> Result<Vec<u64>, Error> {
    let body = format!("{{\"x\":{value}}}");
    parse(body.as_bytes(), &[spec("x", DataType::Int32, dims)], batched).map(|call| {
        assert_eq!(call.inputs[0].data().len() as u64, call.inputs[0].shape().elements() * 4);
        call.inputs[0].shape().dims().to_vec()
    })
}

#[test]
fn a_value_takes_the_shape_that_the_model_wants() {
    for (value, spec, batched, expected) in [
        ("7", &[][..], false, &[][..]),
        ("7", &[-1], false, &[1]),
        ("7", &[1], false, &[1]),
        ("7", &[-1, 1], true, &[1, 1]),
        ("7", &[-1, -1], true, &[1, 1]),
        ("[1,2,3]", &[-1], false, &[3]),
        ("[1,2,3]", &[-1], true, &[3]),
        ("[1,2,3]", &[-1, 3], true, &[1, 3]),
        ("[1,2,3]", &[-1, -1], true, &[1, 3]),
        ("[1,2,3]", &[-1, -1], false, &[1, 3]),
        ("[1,2,3,4,5,6]", &[-1, 2, 3], true, &[1, 2, 3]),
        ("[1,2,3,4,5,6]", &[-1, -1, 3], true, &[1, 2, 3]),
        ("[1,2,3,4,5,6]", &[-1, 3], false, &[2, 3]),
        ("[[1,2,3],[4,5,6]]", &[-1, 3], true, &[2, 3]),
        ("[[1,2,3],[4,5,6]]", &[-1, 2, 3], true, &[1, 2, 3]),
        ("[]", &[-1], false, &[0]),
        ("[]", &[-1, -1], true, &[1, 0]),
        ("[[]]", &[-1, -1], true, &[1, 0]),
    ] {
        assert_eq!(dims(value, spec, batched).unwrap(), expected, "{value} {spec:?} {batched}");
    }
    for (value, spec, batched) in [
        ("[1,2]", &[3][..], false),
        ("7", &[3], false),
        ("[1,2,3,4]", &[-1, 3], true),
        ("[1,2,3,4]", &[-1, 3], false),
        ("[[1]]", &[-1], false),
        ("[[1,2],[3]]", &[-1, -1], true),
        ("[1,[2]]", &[-1, -1], true),
        ("\"7\"", &[-1], false),
        ("{}", &[-1], false),
        ("null", &[-1], false),
        ("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", &[-1], false),
    ] {
        let error = dims(value, spec, batched).unwrap_err();
        assert!(error.field_name().is_some_and(|field| field.starts_with('x')), "{value} {spec:?}: {error}");
    }
}

#[test]
fn members_are_inputs_an_id_and_parameters() {
    let specs = [
        spec("text_input", DataType::Bytes, &[-1, 1]),
        spec("max_tokens", DataType::Int32, &[-1, 1]),
        spec("stream", DataType::Bool, &[1]),
    ];
    let body = r#"{"text_input":"hé","id":"seven","parameters":{"max_tokens":5,"mine":"x","timeout":9,"sequence_id":"s","sequence_end":true},"stream":true}"#;
    let call = parse(body.as_bytes(), &specs, true).unwrap();
    let names: Vec<_> = call.inputs.iter().map(Tensor::name).collect();
    assert_eq!((call.id.as_str(), names), ("seven", vec!["text_input", "max_tokens", "stream"]));
    assert_eq!(call.inputs[0].byte_elements().collect::<Vec<_>>(), ["hé".as_bytes()]);
    assert_eq!(call.inputs[1].shape().dims(), [1, 1]);
    assert_eq!(call.parameters, Parameters::from([("mine".to_owned(), Parameter::Text("x".into()))]));
    assert_eq!(call.timeout, Some(std::time::Duration::from_micros(9)));
    let sequence = call.sequence.unwrap();
    assert_eq!((sequence.id, sequence.start, sequence.end), (SequenceId::Text("s".into()), false, true));
    assert_eq!(parse(br#"{"id":7,"text_input":"x"}"#, &specs, true).unwrap().id, "7");
}

#[test]
fn what_is_no_input_is_refused_with_the_names_that_there_are() {
    let specs = [spec("a", DataType::Int32, &[-1]), spec("b", DataType::Fp16, &[-1])];
    for (body, reason, field, text) in [
        (r#"{"c":1}"#, Reason::UnknownTensor, Some("c"), "'c' is no input of this model; it has a, b"),
        (r#"{"a":1,"a":1}"#, Reason::MalformedRequest, Some("a"), "given twice"),
        (r#"{"a":1,"parameters":{"a":1}}"#, Reason::MalformedRequest, Some("parameters.a"), "given twice"),
        (r#"{"parameters":{"x":[1]}}"#, Reason::MalformedRequest, Some("parameters.x"), "a string, a number"),
        (r#"{"parameters":{"triton_x":1}}"#, Reason::MalformedRequest, Some("parameters.triton_x"), "reserved"),
        (r#"{"parameters":{"x":1,"x":1}}"#, Reason::MalformedRequest, Some("parameters.x"), "given twice"),
        (r#"{"id":{}}"#, Reason::MalformedRequest, Some("id"), "a string or a number"),
        (r#"{"b":1}"#, Reason::NotRepresentable, Some("b"), "FP16"),
        (r#"{"a":2147483648}"#, Reason::InvalidTensor, Some("a"), "out of range for INT32"),
        (r#"{"a":1} x"#, Reason::MalformedRequest, None, "the end of the JSON text"),
        ("[]", Reason::MalformedRequest, None, "an object"),
        ("", Reason::MalformedRequest, None, "an object"),
    ] {
        let error = parse(body.as_bytes(), &specs, false).unwrap_err();
        assert_eq!((error.reason(), error.field_name()), (reason, field), "{body}: {error}");
        assert!(error.public_text().contains(text), "{body}: {error}");
    }
}

#[test]
fn outputs_are_members_and_single_elements_are_scalars() {
    let tensor = |name: &str, datatype, dims: &[u64], bytes: Vec<u8>| {
        Tensor::new(name, datatype, Shape::new(dims.to_vec()).unwrap(), bytes.into()).unwrap()
    };
    let mut text = Vec::new();
    push_byte_element(&mut text, "a\"\n".as_bytes()).unwrap();
    let outputs = [
        tensor("text_output", DataType::Bytes, &[1, 1], text),
        tensor("n", DataType::Int8, &[1, 2], vec![1, 255]),
        tensor("e", DataType::Int8, &[0], vec![]),
    ];
    let json = render("m", "3", "i", &outputs).unwrap();
    assert_eq!(
        String::from_utf8(json).unwrap(),
        r#"{"model_name":"m","model_version":"3","id":"i","text_output":"a\"\n","n":[1,-1],"e":[]}"#
    );
    let nan = tensor("y", DataType::Fp32, &[1], f32::NAN.to_le_bytes().to_vec());
    assert_eq!(render("m", "3", "", &[nan]).unwrap_err().reason(), Reason::NotRepresentable);
}

proptest! {
    #[test]
    fn hostile_bodies_never_panic(body in "[\\[\\]{}\",:a0-9.x-]{0,60}|\\{\"a\":[\\[\\],0-9]{0,60}\\}", dims in proptest::collection::vec(-1i64..4, 0..4), batched: bool) {
        let specs = [spec("a", DataType::Int8, &dims)];
        if let Ok(call) = parse(body.as_bytes(), &specs, batched) {
            for input in call.inputs {
                prop_assert!(input.data().len() <= 4 * body.len());
            }
        }
    }
}
