//! Good and hostile bodies.

use proptest::prelude::*;

use super::*;
use crate::oip::parameters::Parameter;
use plinth_serving::SequenceId;
use plinth_types::DataType;

fn parse(json: &str) -> Result<InferCall, Error> {
    InferCall::parse(&Bytes::copy_from_slice(json.as_bytes()), None)
}

/// One input with these members after its name.
fn input(rest: &str) -> Result<Tensor, Error> {
    parse(&format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#)).map(|mut call| call.inputs.remove(0))
}

fn body(json: &str, binary: &[u8]) -> (Bytes, Option<usize>) {
    let mut bytes = json.as_bytes().to_vec();
    bytes.extend_from_slice(binary);
    (bytes.into(), Some(json.len()))
}

fn fp32(tensor: &Tensor) -> Vec<f32> {
    tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn json_goes_into_typed_bytes_whatever_the_order_of_members() {
    let call = parse(
        r#" { "id" : "7", "parameters": {"binary_data_output": true, "timeout": 1500, "priority": 2, "sequence_id": "s", "mine": -3},
          "inputs":[{"data":[[1,2.5],[-3e2,4]],"shape":[2,2],"name":"x","datatype":"FP32","extra":{"a":[null]}},
                    {"name":"s","shape":[2],"datatype":"BYTES","data":["é\n","\ud83d\ude00"]},
                    {"name":"n","shape":[],"datatype":"INT8","data":-5}],
          "outputs":[{"name":"y","parameters":{"classification":3}},{"name":"z","parameters":{"binary_data":false,"classification":0}}]}"#,
    )
    .unwrap();
    assert_eq!(call.id, "7");
    assert_eq!(fp32(&call.inputs[0]), [1.0, 2.5, -300.0, 4.0]);
    assert_eq!(call.inputs[1].byte_elements().collect::<Vec<_>>(), ["é\n".as_bytes(), "😀".as_bytes()]);
    assert_eq!((call.inputs[2].shape().dims(), &call.inputs[2].data()[..]), (&[][..], &[0xfb][..]));
    assert_eq!((call.timeout, call.priority, call.default_binary), (Some(Duration::from_micros(1500)), 2, true));
    assert_eq!(call.parameters, Parameters::from([("mine".to_owned(), Parameter::Int(-3))]));
    assert_eq!(
        call.outputs,
        [
            RequestedOutput { name: "y".into(), binary: true, classification: Some(3), place: None },
            RequestedOutput { name: "z".into(), binary: false, classification: None, place: None }
        ]
    );
    assert_eq!(call.output_names(), ["y", "z"]);
}

#[test]
fn flat_and_nested_arrays_are_both_good_for_any_shape() {
    for (shape, data) in [
        ("[2,3]", "[1,2,3,4,5,6]"),
        ("[2,3]", "[[1,2,3],[4,5,6]]"),
        ("[1,2,3]", "[[[1,2,3],[4,5,6]]]"),
        ("[6]", "[1,2,3,4,5,6]"),
        ("[]", "[7]"),
        ("[]", "7"),
        ("[1,1]", "[[7]]"),
        ("[0]", "[]"),
        ("[0,3]", "[]"),
        ("[2,0]", "[[],[]]"),
        ("[2,0]", "[]"),
    ] {
        let tensor = input(&format!(r#""shape":{shape},"datatype":"INT32","data":{data}"#)).unwrap();
        assert_eq!(tensor.data().len() as u64, tensor.shape().elements() * 4, "{shape} {data}");
    }
}

#[test]
fn binary_inputs_are_slices_of_the_body() {
    let json = r#"{"inputs":[{"name":"a","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}},{"name":"j","shape":[1],"datatype":"BOOL","data":[true]},{"name":"b","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}},{"name":"z","shape":[0],"datatype":"INT64","parameters":{"binary_data_size":0}}]}"#;
    let (body, length) = body(json, b"\x00\x3c\x00\x40\x02\x00\x00\x00hi");
    let call = InferCall::parse(&body, length).unwrap();
    assert_eq!(&call.inputs[0].data()[..], b"\x00\x3c\x00\x40");
    assert_eq!(call.inputs[2].byte_elements().collect::<Vec<_>>(), [b"hi"]);
    assert!(call.inputs[3].data().is_empty());
    let range = body.as_ptr_range();
    for i in [0, 2] {
        assert!(range.contains(&call.inputs[i].data().as_ptr()), "the bytes were copied");
    }
}

#[test]
fn inputs_and_outputs_may_lie_in_shared_memory() {
    let json = r#"{"inputs":[{"name":"a","shape":[2],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}},{"name":"b","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}},{"name":"c","shape":[1],"datatype":"BYTES","parameters":{"shared_memory_region":"s","shared_memory_byte_size":6,"shared_memory_offset":8}}],"outputs":[{"name":"y","parameters":{"binary_data":false,"shared_memory_region":"o","shared_memory_byte_size":64}}]}"#;
    let (body, length) = body(json, b"x");
    let call = InferCall::parse(&body, length).unwrap();
    assert_eq!(call.inputs.iter().map(Tensor::name).collect::<Vec<_>>(), ["b"]);
    let shared: Vec<_> =
        call.shared.iter().map(|(i, input)| (*i, input.name.as_str(), input.place.offset, input.place.byte_size)).collect();
    assert_eq!(shared, [(0, "a", 0, 8), (2, "c", 8, 6)]);
    assert_eq!(call.outputs[0].place, Some(Placement { region: "o".into(), byte_size: 64, offset: 0 }));
}

#[test]
fn a_request_belongs_to_a_sequence_when_it_names_one() {
    let sequence = |parameters: &str| {
        let one = r#"{"name":"x","shape":[1],"datatype":"INT8","data":[1]}"#;
        parse(&format!(r#"{{"inputs":[{one}],"parameters":{{{parameters}}}}}"#)).unwrap().sequence
    };
    let control = |id, start, end| Some(SequenceControl { id, start, end });
    assert_eq!(sequence(r#""sequence_id":7,"sequence_start":true,"sequence_end":false"#), control(SequenceId::Number(7), true, false));
    assert_eq!(sequence(r#""sequence_id":18446744073709551615"#), control(SequenceId::Number(u64::MAX), false, false));
    assert_eq!(sequence(r#""sequence_id":"a","sequence_end":true"#), control(SequenceId::Text("a".into()), false, true));
    for none in [r#""sequence_id":0,"sequence_start":true"#, r#""sequence_id":"""#, r#""sequence_start":true"#, ""] {
        assert_eq!(sequence(none), None, "{none}");
    }
}

/// The field and the text of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Reason, String, String) {
    let error = result.unwrap_err();
    (error.reason(), error.field_name().unwrap_or_default().to_owned(), error.public_text().to_owned())
}

#[test]
fn bad_elements_are_refused_by_place() {
    use Reason::{InvalidTensor, MalformedRequest, NotRepresentable};
    for (rest, reason, field, text) in [
        (r#""shape":[2],"datatype":"FP32","data":[1,"2"]"#, MalformedRequest, "inputs[0].data[1]", "expected a number"),
        (
            r#""shape":[2],"datatype":"FP32","data":[1,NaN]"#,
            NotRepresentable,
            "inputs[0].data[1]",
            "NaN and infinity cannot be sent as JSON",
        ),
        (r#""shape":[1],"datatype":"FP64","data":[-Infinity]"#, NotRepresentable, "inputs[0].data[0]", "NaN and infinity"),
        (r#""shape":[1],"datatype":"FP32","data":[1e39]"#, InvalidTensor, "inputs[0].data[0]", "1e39 is out of range for FP32"),
        (r#""shape":[1],"datatype":"FP32","data":[null]"#, MalformedRequest, "inputs[0].data[0]", "expected a number"),
        (
            r#""shape":[2,2],"datatype":"UINT8","data":[[1,2],[3,256]]"#,
            InvalidTensor,
            "inputs[0].data[1][1]",
            "256 is out of range for UINT8",
        ),
        (r#""shape":[1],"datatype":"UINT8","data":[-1]"#, InvalidTensor, "inputs[0].data[0]", "-1 is out of range for UINT8"),
        (r#""shape":[1],"datatype":"INT32","data":[1.0]"#, MalformedRequest, "inputs[0].data[0]", "expected a whole number"),
        (r#""shape":[1],"datatype":"INT32","data":[01]"#, MalformedRequest, "inputs[0].data[0]", "expected a number"),
        (r#""shape":[1],"datatype":"INT64","data":[9223372036854775808]"#, InvalidTensor, "inputs[0].data[0]", "out of range for INT64"),
        (r#""shape":[1],"datatype":"BOOL","data":[1]"#, MalformedRequest, "inputs[0].data[0]", "expected true or false"),
        (r#""shape":[1],"datatype":"BYTES","data":[1]"#, MalformedRequest, "inputs[0].data[0]", "expected a string"),
        (r#""shape":[1],"datatype":"FP16","data":[1]"#, NotRepresentable, "inputs[0].data", "binary tensor extension"),
        (r#""shape":[1],"datatype":"BF16","data":[1]"#, NotRepresentable, "inputs[0].data", "binary tensor extension"),
        (
            r#""shape":[3],"datatype":"INT8","data":[1,2]"#,
            InvalidTensor,
            "inputs[0].data",
            "the shape [3] has 3 elements, the data has 2 elements",
        ),
        (r#""shape":[1],"datatype":"INT8","data":[1,2]"#, InvalidTensor, "inputs[0].data[1]", "the data has at least 2 elements"),
        (r#""shape":[2,2],"datatype":"INT8","data":[[1,2],[3]]"#, InvalidTensor, "inputs[0].data[1]", "not nested as the shape [2,2] says"),
        (r#""shape":[2,2],"datatype":"INT8","data":[[1,2,3],[4]]"#, InvalidTensor, "inputs[0].data[0][2]", "not nested"),
        (r#""shape":[2,2],"datatype":"INT8","data":[[1,2],3]"#, InvalidTensor, "inputs[0].data[1]", "not nested"),
        (r#""shape":[2],"datatype":"INT8","data":[[1],[2]]"#, InvalidTensor, "inputs[0].data[0]", "not nested"),
        (r#""shape":[2],"datatype":"INT8","data":[1,[2]]"#, MalformedRequest, "inputs[0].data[1]", "expected a number"),
        (r#""shape":[1],"datatype":"INT8","data":5"#, MalformedRequest, "inputs[0].data", "expected an array"),
        (
            r#""shape":[1000000000],"datatype":"FP64","data":[1]"#,
            InvalidTensor,
            "inputs[0].data",
            "the shape [1000000000] has 1000000000 elements",
        ),
        (r#""data":[1],"shape":[1000000000],"datatype":"FP64""#, InvalidTensor, "inputs[0].data", "the shape [1000000000]"),
        (
            r#""shape":[9223372036854775807,9223372036854775807],"datatype":"FP64","data":[1]"#,
            InvalidTensor,
            "inputs[0].shape",
            "multiply out",
        ),
        (r#""shape":[4611686018427387904],"datatype":"FP64","data":[1]"#, InvalidTensor, "inputs[0].data", "elements"),
        (r#""shape":[-1],"datatype":"FP64","data":[1]"#, InvalidTensor, "inputs[0].shape[0]", "a dimension is at least 0, got -1"),
        (r#""shape":[1.5],"datatype":"FP64","data":[1]"#, MalformedRequest, "inputs[0].shape[0]", "expected a whole number"),
        (r#""shape":"1","datatype":"FP64","data":[1]"#, MalformedRequest, "inputs[0].shape", "expected an array"),
        (
            r#""shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"datatype":"FP64","data":[1]"#,
            InvalidTensor,
            "inputs[0].shape[16]",
            "at most 16 dimensions",
        ),
        (
            r#""shape":[1],"datatype":"FLOAT","data":[1]"#,
            InvalidTensor,
            "inputs[0].datatype",
            "'FLOAT' is not a data type: want one of BOOL",
        ),
        (r#""shape":[1],"data":[1]"#, MalformedRequest, "inputs[0].datatype", "the input has no datatype"),
        (r#""datatype":"INT8","data":[1]"#, MalformedRequest, "inputs[0].shape", "the input has no shape"),
        (r#""shape":[1],"datatype":"INT8""#, MalformedRequest, "inputs[0].data", "the input has no data"),
        (r#""shape":[1],"shape":[1],"datatype":"INT8","data":[1]"#, MalformedRequest, "inputs[0].shape", "given twice"),
        (
            r#""shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}"#,
            MalformedRequest,
            "inputs[0].data",
            "send one of them",
        ),
        (
            r#""shape":[1],"datatype":"INT8","parameters":{"binary_data_size":"1"}"#,
            MalformedRequest,
            "inputs[0].parameters.binary_data_size",
            "must be a whole number",
        ),
        (
            r#""shape":[1],"datatype":"INT8","parameters":{"binary_data_size":[]}"#,
            MalformedRequest,
            "inputs[0].parameters.binary_data_size",
            "expected a string, a number",
        ),
        (
            r#""shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}"#,
            MalformedRequest,
            "inputs[0].parameters.binary_data_size",
            "Inference-Header-Content-Length is missing",
        ),
        (
            r#""shape":[1],"datatype":"INT8","parameters":{"shared_memory_region":"r"}"#,
            MalformedRequest,
            "inputs[0].parameters.shared_memory_byte_size",
            "given with 'shared_memory_region'",
        ),
    ] {
        let (got_reason, got_field, got_text) = refusal(input(rest));
        assert_eq!((got_reason, got_field.as_str()), (reason, field), "{rest}: {got_text}");
        assert!(got_text.contains(text), "{rest}: {got_text}");
    }
}

#[test]
fn bad_requests_are_refused_by_place() {
    let one = r#"{"name":"x","shape":[1],"datatype":"INT8","data":[1]}"#;
    let many = |n: usize| (0..n).map(|i| format!(r#""p{i}":1"#)).collect::<Vec<_>>().join(",");
    for (json, field, text) in [
        ("", "", "expected an object at byte 0, found the end of the JSON text"),
        ("[]", "", "expected an object at byte 0, found '['"),
        ("{}", "inputs", "it has no inputs"),
        (r#"{"inputs":{}}"#, "inputs", "expected an array"),
        (r#"{"inputs":[1]}"#, "inputs[0]", "expected an object"),
        (&format!(r#"{{"inputs":[{one}]}} x"#), "", "expected the end of the JSON text"),
        (&format!(r#"{{"inputs":[{one}],"inputs":[{one}]}}"#), "inputs", "given twice"),
        (&format!(r#"{{"inputs":[{one},{one}]}}"#), "inputs[1].name", "the input 'x' is given twice"),
        (&format!(r#"{{"inputs":[{}]}}"#, one.replace("\"x\"", "\"\"")), "inputs[0]", "a tensor name has 1 to 256 bytes"),
        (&format!(r#"{{"id":7,"inputs":[{one}]}}"#), "id", "expected a string"),
        (&format!(r#"{{"inputs":[{one}],"outputs":[{{"name":"y"}},{{"name":"y"}}]}}"#), "outputs[1].name", "'y' is asked for twice"),
        (&format!(r#"{{"inputs":[{one}],"outputs":[{{}}]}}"#), "outputs[0].name", "the output has no name"),
        (
            &format!(r#"{{"inputs":[{one}],"outputs":[{{"name":"y","parameters":{{"binary_data":1}}}}]}}"#),
            "outputs[0].parameters.binary_data",
            "must be true or false",
        ),
        (
            &format!(
                r#"{{"inputs":[{one}],"outputs":[{{"name":"y","parameters":{{"classification":2,"shared_memory_region":"r","shared_memory_byte_size":9}}}}]}}"#
            ),
            "outputs[0].parameters.classification",
            "classes cannot be placed in shared memory",
        ),
        (
            &format!(r#"{{"inputs":[{one}],"parameters":{{"sequence_id":-1}}}}"#),
            "parameters.sequence_id",
            "a whole number from 0 on or a string",
        ),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{"sequence_start":1}}}}"#), "parameters.sequence_start", "must be true or false"),
        (
            &format!(r#"{{"inputs":[{one}],"parameters":{{"sequence_id":"{}"}}}}"#, "a".repeat(129)),
            "parameters.sequence_id",
            "at most 128 bytes",
        ),
        (
            &format!(r#"{{"inputs":[{one}],"outputs":[{{"name":"y","parameters":{{"shared_memory_region":"r"}}}}]}}"#),
            "outputs[0].parameters.shared_memory_byte_size",
            "given with 'shared_memory_region'",
        ),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{"triton_x":1}}}}"#), "parameters.triton_x", "reserved"),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{"headers":1}}}}"#), "parameters.headers", "reserved"),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{"a":1,"a":1}}}}"#), "parameters.a", "given twice"),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{"timeout":-1}}}}"#), "parameters.timeout", "must be a whole number"),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{"a":{{}}}}}}"#), "parameters.a", "expected a string, a number"),
        (&format!(r#"{{"inputs":[{one}],"parameters":{{{}}}}}"#, many(129)), "parameters", "more than 128 parameters"),
        (&format!(r#"{{"x":{}"#, "[".repeat(1000)), "", "nested more than 64 deep"),
    ] {
        let (_, got_field, got_text) = refusal(parse(json));
        // Where exactly a skipped value goes wrong does not matter.
        if !text.starts_with("nested") {
            assert_eq!(got_field, field, "{json}: {got_text}");
        }
        assert!(got_text.contains(text), "{json}: {got_text}");
    }
    let (_, _, text) = refusal(InferCall::parse(&Bytes::from_static(b"{\"id\":\"\xff\"}"), None));
    assert!(text.contains("not UTF-8 from byte 7 on"), "{text}");
}

#[test]
fn header_lengths_that_lie_are_refused() {
    let json = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","parameters":{"binary_data_size":2}}]}"#;
    let (good, length) = body(json, b"ab");
    assert!(InferCall::parse(&good, length).is_ok());
    let with = |length: usize| refusal(InferCall::parse(&good, Some(length)));
    assert_eq!(with(json.len() + 3).1, HEADER_LENGTH);
    assert!(with(json.len() + 1).2.contains("expected the end of the JSON text"));
    assert!(with(json.len() - 1).2.contains("expected '}'"));
    let (short, length) = body(json, b"a");
    assert!(refusal(InferCall::parse(&short, length)).2.contains("only 1 bytes are left"));
    let (long, length) = body(json, b"abc");
    assert!(refusal(InferCall::parse(&long, length)).2.contains("1 bytes more than the inputs announce"));
    let wrong = json.replace("size\":2", "size\":3");
    let (bytes, length) = body(&wrong, b"abc");
    let (_, field, text) = refusal(InferCall::parse(&bytes, length));
    assert_eq!(field, "inputs[0].parameters.binary_data_size");
    assert!(text.starts_with("input byte size mismatch for input 'x': expected 2 bytes, got 3"), "{text}");
    let strings = json.replace("INT8", "BYTES").replace("size\":2", "size\":8");
    let (bytes, length) = body(&strings, b"\x00\x00\x00\x00\xff\xff\xff\xff");
    assert!(refusal(InferCall::parse(&bytes, length)).2.contains("do not add up"));

    let headers = |values: &[&str]| {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(HEADER_LENGTH, value.parse().unwrap());
        }
        header_length(&map)
    };
    assert_eq!(headers(&[]).unwrap(), None);
    assert_eq!(headers(&["12"]).unwrap(), Some(12));
    for bad in [&["-1"][..], &["+1"], &["x"], &[""], &["1", "1"], &["99999999999999999999999"]] {
        assert_eq!(refusal(headers(bad)).1, HEADER_LENGTH, "{bad:?}");
    }
}

#[test]
fn a_raw_body_is_the_only_input() {
    let spec = |datatype, dims: &[i64]| {
        let dims = dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed)).collect();
        TensorSpec::new("x", datatype, dims).unwrap()
    };
    let raw = |bytes: &'static [u8], spec: TensorSpec| InferCall::parse_raw(Bytes::from_static(bytes), &[spec]);
    let call = raw(b"abcdefgh", spec(DataType::Int16, &[-1, 2])).unwrap();
    assert_eq!((call.inputs[0].shape().dims(), call.default_binary), (&[2, 2][..], true));
    assert_eq!(raw(b"", spec(DataType::Int16, &[-1])).unwrap().inputs[0].shape().dims(), [0]);
    let text = raw(b"hello", spec(DataType::Bytes, &[-1, 1])).unwrap();
    assert_eq!((text.inputs[0].shape().dims(), text.inputs[0].byte_elements().next()), (&[1, 1][..], Some(&b"hello"[..])));
    for (bytes, spec, want) in [
        (&b"abc"[..], spec(DataType::Int16, &[-1]), "expected a multiple of 2 bytes, got 3"),
        (b"abc", spec(DataType::Int16, &[2]), "expected 4 bytes, got 3"),
        (b"abcd", spec(DataType::Int16, &[-1, -1]), "at most one dimension of any size"),
        (b"abcd", spec(DataType::Bytes, &[2]), "for BYTES with one element"),
        (b"abcd", spec(DataType::Int16, &[-1, 0]), "expected a multiple of 0 bytes"),
    ] {
        let (_, field, text) = refusal(raw(bytes, spec));
        assert_eq!(field, "inputs[0]");
        assert!(text.contains(want), "{text}");
    }
    let two = [spec(DataType::Int8, &[1]), spec(DataType::Int8, &[1])];
    assert!(refusal(InferCall::parse_raw(Bytes::new(), &two)).2.contains("needs a model with one input"));
}

proptest! {
    #[test]
    fn hostile_bodies_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), length in proptest::option::of(0usize..130)) {
        let _ = InferCall::parse(&bytes.into(), length);
    }

    #[test]
    fn damaged_requests_never_panic_and_never_grow(
        at in 0usize..400, with in prop_oneof![Just("["), Just("}"), Just("\""), Just("9999999999"), Just(""), Just("\\u"), Just("-"), Just(",")], cut in 0usize..8,
    ) {
        let json = r#"{"id":"a","parameters":{"timeout":5},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e2,4]]},{"name":"b","shape":[3],"datatype":"INT8","parameters":{"binary_data_size":3}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
        let at = at.min(json.len());
        let damaged = format!("{}{with}{}", &json[..at], &json[(at + cut).min(json.len())..]);
        let length = damaged.len();
        let body = Bytes::from(format!("{damaged}abc"));
        if let Ok(call) = InferCall::parse(&body, Some(length)) {
            let bytes: usize = call.inputs.iter().map(|t| t.data().len()).sum();
            prop_assert!(bytes <= 4 * body.len());
        }
    }

    #[test]
    fn whole_numbers_are_read_as_rust_reads_them(value in any::<i64>(), wide in any::<u64>()) {
        let tensor = input(&format!(r#""shape":[1],"datatype":"INT64","data":[{value}]"#)).unwrap();
        prop_assert_eq!(&tensor.data()[..], &value.to_le_bytes());
        let tensor = input(&format!(r#""shape":[1],"datatype":"UINT64","data":[{wide}]"#)).unwrap();
        prop_assert_eq!(&tensor.data()[..], &wide.to_le_bytes());
        let narrow = input(&format!(r#""shape":[1],"datatype":"INT16","data":[{value}]"#)).ok().map(|t| t.data().to_vec());
        prop_assert_eq!(narrow, i16::try_from(value).ok().map(|v| v.to_le_bytes().to_vec()));
    }
}
