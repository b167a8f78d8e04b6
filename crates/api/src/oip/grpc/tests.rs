//! Messages there and back against the generated types, which know nothing of the readers and writers by hand.

use bytes::Bytes;
use plinth_serving::SequenceId;
use plinth_types::{ByteSize, DataType, Parameter, Reason, Shape, Tensor};
use proptest::prelude::*;
use prost::Message;

use super::answer::{Answered, failed, streamed, unary};
use super::pb::inference as pb;
use super::request::{Asked, is_raw};
use crate::oip::request::{InferCall, RequestedOutput};
use pb::infer_parameter::ParameterChoice;
use pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

const MAX: ByteSize = ByteSize::mib(1);

fn parse(request: &pb::ModelInferRequest) -> Result<Asked, plinth_types::Error> {
    Asked::parse(&request.encode_to_vec().into(), MAX)
}

fn parameter(choice: ParameterChoice) -> pb::InferParameter {
    pb::InferParameter { parameter_choice: Some(choice) }
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
}

fn raw(inputs: Vec<InferInputTensor>, contents: &[&'static [u8]]) -> pb::ModelInferRequest {
    let raw_input_contents = contents.iter().map(|c| Bytes::from_static(c)).collect();
    pb::ModelInferRequest { model_name: "m".into(), inputs, raw_input_contents, ..Default::default() }
}

/// Typed contents as they stand on the wire.
fn typed(datatype: &str, shape: &[i64], contents: &pb::InferTensorContents) -> pb::ModelInferRequest {
    let mut input = input("x", datatype, shape);
    input.contents = Some(contents.clone());
    raw(vec![input], &[])
}

fn refused(request: &pb::ModelInferRequest) -> (Reason, String) {
    let error = parse(request).unwrap_err();
    (error.reason(), format!("{error} {}", error.field_name().unwrap_or_default()))
}

#[test]
fn raw_tensors_are_slices_of_the_message() {
    let mut request = raw(vec![input("x", "INT8", &[2, 1]), input("s", "BYTES", &[1])], &[&[1, 2], &[1, 0, 0, 0, 9]]);
    request.model_version = "7".into();
    request.id = "seven".into();
    let message = Bytes::from(request.encode_to_vec());
    let asked = Asked::parse(&message, MAX).unwrap();
    assert_eq!((asked.model.as_str(), asked.version.unwrap().get(), asked.call.id.as_str()), ("m", 7, "seven"));
    let [x, s] = &asked.call.inputs[..] else { panic!() };
    assert_eq!((x.name(), x.datatype(), x.shape().dims(), &x.data()[..]), ("x", DataType::Int8, &[2, 1][..], &[1, 2][..]));
    assert_eq!(s.byte_elements().collect::<Vec<_>>(), [&[9]]);
    assert!(message.as_ptr_range().contains(&x.data().as_ptr()));
    assert!(is_raw(&message) && !is_raw(&typed("INT8", &[1], &pb::InferTensorContents::default()).encode_to_vec()));
}

#[test]
fn every_type_has_typed_contents_or_says_so() {
    let contents = pb::InferTensorContents::default();
    let whole = pb::InferTensorContents { int_contents: vec![-1, 127], ..contents.clone() };
    let unsigned = pb::InferTensorContents { uint_contents: vec![0, 255], ..contents.clone() };
    let floats = pb::InferTensorContents { fp32_contents: vec![0.5, f32::NAN], ..contents.clone() };
    let cases: [(&str, pb::InferTensorContents, Vec<u8>); 12] = [
        ("BOOL", pb::InferTensorContents { bool_contents: vec![true, false], ..contents.clone() }, vec![1, 0]),
        ("INT8", whole.clone(), vec![255, 127]),
        ("INT16", whole.clone(), [(-1i16).to_le_bytes(), 127i16.to_le_bytes()].concat()),
        ("INT32", whole.clone(), [(-1i32).to_le_bytes(), 127i32.to_le_bytes()].concat()),
        (
            "INT64",
            pb::InferTensorContents { int64_contents: vec![i64::MIN, 1], ..contents.clone() },
            [i64::MIN.to_le_bytes(), 1i64.to_le_bytes()].concat(),
        ),
        ("UINT8", unsigned.clone(), vec![0, 255]),
        ("UINT16", unsigned.clone(), [0u16.to_le_bytes(), 255u16.to_le_bytes()].concat()),
        ("UINT32", unsigned, [0u32.to_le_bytes(), 255u32.to_le_bytes()].concat()),
        (
            "UINT64",
            pb::InferTensorContents { uint64_contents: vec![u64::MAX, 1], ..contents.clone() },
            [u64::MAX.to_le_bytes(), 1u64.to_le_bytes()].concat(),
        ),
        ("FP32", floats.clone(), [0.5f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat()),
        (
            "FP64",
            pb::InferTensorContents { fp64_contents: vec![0.1, -0.0], ..contents.clone() },
            [0.1f64.to_le_bytes(), (-0.0f64).to_le_bytes()].concat(),
        ),
        (
            "BYTES",
            pb::InferTensorContents { bytes_contents: vec![Bytes::from_static(b"a"), Bytes::new()], ..contents.clone() },
            vec![1, 0, 0, 0, b'a', 0, 0, 0, 0],
        ),
    ];
    for (datatype, contents, bytes) in cases {
        let asked = parse(&typed(datatype, &[2], &contents)).unwrap();
        assert_eq!(asked.call.inputs[0].data(), &bytes, "{datatype}");
        for wrong in [&[1][..], &[3], &[1 << 40]] {
            let (reason, text) = refused(&typed(datatype, wrong, &contents));
            assert!(reason == Reason::InvalidTensor && text.contains("mismatch"), "{datatype} {wrong:?}: {text}");
        }
    }
    for datatype in ["FP16", "BF16"] {
        assert_eq!(refused(&typed(datatype, &[2], &floats)).0, Reason::NotRepresentable);
    }
    assert!(refused(&typed("INT32", &[2], &floats)).1.contains("int_contents"));
    assert!(
        refused(&typed("INT8", &[1], &pb::InferTensorContents { int_contents: vec![128], ..contents.clone() })).1.contains("out of range")
    );
    assert!(parse(&typed("FP32", &[0, 3], &contents)).is_ok(), "no elements need no contents");
    let large = pb::InferTensorContents { int64_contents: vec![1; 200_000], ..contents };
    assert_eq!(refused(&typed("INT64", &[200_000], &large)).0, Reason::BodyTooLarge);
}

#[test]
fn unpacked_numbers_are_read_too() {
    // Field 2 twice, as single numbers.
    let contents = [0x10, 5, 0x10, 6];
    let shape = Shape::new(vec![2]).unwrap();
    let read = super::contents::read(&contents, &Bytes::copy_from_slice(&contents), DataType::Int32, &shape, MAX);
    assert_eq!(read.ok().unwrap(), [5i32.to_le_bytes(), 6i32.to_le_bytes()].concat());
}

#[test]
fn parameters_mean_what_they_mean_over_http() {
    let mut request = raw(vec![input("x", "INT8", &[1])], &[&[1]]);
    let mut set = |name: &str, choice| request.parameters.insert(name.into(), parameter(choice));
    set("priority", ParameterChoice::Uint64Param(2));
    set("timeout", ParameterChoice::Int64Param(5000));
    set("sequence_id", ParameterChoice::Int64Param(-1));
    set("sequence_start", ParameterChoice::BoolParam(true));
    set("mine", ParameterChoice::StringParam("x".into()));
    set("n", ParameterChoice::Int64Param(-3));
    set("d", ParameterChoice::DoubleParam(0.5));
    set("triton_enable_empty_final_response", ParameterChoice::BoolParam(true));
    request.outputs.push(InferRequestedOutputTensor {
        name: "y".into(),
        parameters: [("classification".into(), parameter(ParameterChoice::Int64Param(3)))].into(),
    });
    let call = parse(&request).unwrap().call;
    assert_eq!((call.priority, call.timeout), (2, Some(std::time::Duration::from_millis(5))));
    let sequence = call.sequence.unwrap();
    assert_eq!((sequence.id, sequence.start, sequence.end), (SequenceId::Number(u64::MAX), true, false));
    let wanted = [("d", Parameter::Double(0.5)), ("mine", Parameter::Text("x".into())), ("n", Parameter::Int(-3))];
    assert_eq!(call.parameters, wanted.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
    assert_eq!((call.outputs[0].name.as_str(), call.outputs[0].classification), ("y", Some(3)));
}

#[test]
fn wrong_messages_name_what_is_wrong() {
    let good = || raw(vec![input("x", "INT8", &[2])], &[&[1, 2]]);
    let case = |change: &dyn Fn(&mut pb::ModelInferRequest)| {
        let mut request = good();
        change(&mut request);
        refused(&request)
    };
    assert!(case(&|r| r.model_name = "a/b".into()).1.contains("model_name"));
    assert!(case(&|r| r.model_version = "one".into()).1.starts_with("failed to get model version from specified version string 'one'"));
    assert!(case(&|r| r.inputs[0].shape = vec![3]).1.contains("input byte size mismatch for input 'x': expected 3 bytes, got 2"));
    assert!(case(&|r| r.inputs[0].shape = vec![-2]).1.contains("got -2"));
    assert!(case(&|r| r.inputs[0].shape = vec![1; 17]).1.contains("16 dimensions"));
    assert!(case(&|r| r.inputs[0].shape = vec![1 << 40, 1 << 40]).1.contains("inputs[0].shape"));
    assert!(case(&|r| r.inputs[0].datatype = "FLOAT".into()).1.contains("'FLOAT'"));
    assert!(case(&|r| r.raw_input_contents.push(Bytes::new())).1.contains("2 raw_input_contents for 1 inputs"));
    assert!(case(&|r| r.inputs.push(input("z", "INT8", &[1]))).1.contains("unable to find data for input tensor 'z'"));
    assert!(case(&|r| r.raw_input_contents.clear()).1.contains("unable to find data for input tensor 'x'"));
    assert!(
        case(&|r| r.inputs[0].contents = Some(Default::default()))
            .1
            .contains("contents field must not be specified when using raw_input_contents for 'x'")
    );
    assert!(case(&|r| r.outputs = vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }; 2]).1.contains("twice"));
    assert!(case(&|r| r.outputs = vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }; 5]).1.contains("twice"));
    let set = |name: &'static str, choice: ParameterChoice| {
        move |r: &mut pb::ModelInferRequest| {
            r.parameters.insert(name.into(), parameter(choice.clone()));
        }
    };
    assert!(case(&set("timeout", ParameterChoice::Int64Param(-1))).1.contains("parameters.timeout"));
    assert!(case(&set("triton_x", ParameterChoice::BoolParam(true))).1.contains("reserved"));
    assert!(
        case(&|r| {
            r.parameters.insert("p".into(), pb::InferParameter::default());
        })
        .1
        .contains("no value")
    );
    assert!(
        case(&|r| r.parameters = (0..200).map(|i| (i.to_string(), parameter(ParameterChoice::BoolParam(true)))).collect())
            .1
            .contains("128")
    );
    assert!(case(&|r| r.inputs = vec![InferInputTensor::default(); 5000]).1.contains("4096 inputs"));
    assert_eq!(Asked::parse(&Bytes::from_static(&[0x2a, 200]), MAX).unwrap_err().reason(), Reason::MalformedRequest);
}

#[test]
fn inputs_in_shared_memory_have_no_raw_entry() {
    let mut shared = input("a", "INT8", &[4]);
    shared.parameters.insert("shared_memory_region".into(), parameter(ParameterChoice::StringParam("r".into())));
    shared.parameters.insert("shared_memory_byte_size".into(), parameter(ParameterChoice::Int64Param(4)));
    let call = parse(&raw(vec![shared.clone(), input("b", "INT8", &[1])], &[&[7]])).unwrap().call;
    assert_eq!((call.inputs[0].name(), call.shared[0].0, call.shared[0].1.place.region.as_str()), ("b", 0, "r"));
    shared.contents = Some(Default::default());
    assert!(refused(&raw(vec![shared], &[])).1.contains("shared memory"));
}

fn tensor(name: &str, bytes: Vec<u8>) -> Tensor {
    Tensor::new(name, DataType::Uint8, Shape::new(vec![bytes.len() as u64, 1]).unwrap(), bytes.into()).unwrap()
}

/// The message behind a prefix, joined.
fn joined(pieces: &[Bytes]) -> Vec<u8> {
    let all = pieces.concat();
    assert_eq!(all[0], 0);
    assert_eq!(u32::from_be_bytes(all[1..5].try_into().unwrap()) as usize, all.len() - 5);
    all[5..].to_vec()
}

#[test]
fn large_outputs_are_pieces_of_their_own() {
    let outputs = [tensor("small", vec![1; 10]), tensor("large", vec![2; 5000]), tensor("empty", vec![]), tensor("next", vec![3; 4000])];
    let call = InferCall { id: "i".into(), ..InferCall::default() };
    let answered = Answered { model: "m", version: "3", call: &call, outputs: &outputs };
    let pieces = unary(&answered).unwrap();
    assert_eq!(pieces.len(), 4);
    assert_eq!((pieces[1].as_ptr(), pieces[3].as_ptr()), (outputs[1].data().as_ptr(), outputs[3].data().as_ptr()));
    let read = pb::ModelInferResponse::decode(&joined(&pieces)[..]).unwrap();
    assert_eq!((read.model_name.as_str(), read.model_version.as_str(), read.id.as_str()), ("m", "3", "i"));
    assert_eq!(read.raw_output_contents, outputs.iter().map(|o| o.data().clone()).collect::<Vec<_>>());
    assert_eq!(
        (read.outputs[1].name.as_str(), read.outputs[1].datatype.as_str(), &read.outputs[1].shape[..]),
        ("large", "UINT8", &[5000, 1][..])
    );
    let read = pb::ModelStreamInferResponse::decode(&joined(&streamed(&answered).unwrap())[..]).unwrap();
    let inner = read.infer_response.unwrap();
    assert_eq!((read.error_message.as_str(), inner.raw_output_contents.len()), ("", 4));
    assert_eq!(inner.parameters["triton_final_response"].parameter_choice, Some(ParameterChoice::BoolParam(true)));
    let error = plinth_types::Error::new(Reason::InvalidTensor, "wrong");
    let read = pb::ModelStreamInferResponse::decode(&joined(&[failed(&error, "i").unwrap()])[..]).unwrap();
    assert_eq!((read.error_message.as_str(), read.infer_response.unwrap().id.as_str()), ("wrong", "i"));
}

proptest! {
    #[test]
    fn answers_are_what_the_generated_types_read(
        sizes in proptest::collection::vec(0usize..6000, 0..5),
        id in ".{0,200}",
        sequence in proptest::option::of(any::<u64>()),
    ) {
        let outputs: Vec<_> = sizes.iter().enumerate().map(|(i, size)| tensor(&format!("o{i}"), vec![i as u8; *size])).collect();
        let sequence = sequence.map(|n| plinth_serving::SequenceControl { id: SequenceId::Number(n), start: true, end: false });
        let call = InferCall { id: id.clone(), sequence, ..InferCall::default() };
        let answered = Answered { model: "m", version: "1", call: &call, outputs: &outputs };
        let read = pb::ModelInferResponse::decode(&joined(&unary(&answered).unwrap())[..]).unwrap();
        let wrapped = pb::ModelStreamInferResponse::decode(&joined(&streamed(&answered).unwrap())[..]).unwrap().infer_response.unwrap();
        for read in [read, wrapped] {
            prop_assert_eq!(&read.id, &id);
            prop_assert_eq!(read.raw_output_contents.len(), outputs.len());
            for ((o, raw), described) in outputs.iter().zip(&read.raw_output_contents).zip(&read.outputs) {
                prop_assert_eq!((o.data(), o.name(), o.shape().dims().len()), (raw, described.name.as_str(), described.shape.len()));
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let message = Bytes::from(bytes);
        let _ = is_raw(&message);
        let _ = Asked::parse(&message, MAX);
    }

    #[test]
    fn damaged_messages_are_judged_without_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let contents = pb::InferTensorContents { int_contents: vec![1, -2, 3], ..Default::default() };
        let mut request = typed("INT32", &[3], &contents);
        request.parameters.insert("sequence_id".into(), parameter(ParameterChoice::StringParam("s".into())));
        request.outputs.push(InferRequestedOutputTensor { name: "y".into(), parameters: [("classification".into(), parameter(ParameterChoice::Int64Param(1)))].into() });
        let mut bytes = request.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = Asked::parse(&bytes.into(), MAX);
    }

    #[test]
    fn raw_requests_come_through_whole(
        tensors in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..5),
        id in ".{0,20}",
    ) {
        let inputs = tensors.iter().enumerate().map(|(i, t)| input(&format!("i{i}"), "UINT8", &[t.len() as i64])).collect();
        let request = pb::ModelInferRequest {
            model_name: "m".into(), id: id.clone(), inputs, raw_input_contents: tensors.iter().cloned().map(Bytes::from).collect(), ..Default::default()
        };
        let call = parse(&request).unwrap().call;
        prop_assert_eq!(call.id, id);
        prop_assert_eq!(call.inputs.iter().map(|t| t.data().to_vec()).collect::<Vec<_>>(), tensors);
    }
}

/// A request with a wish for an output.
#[test]
fn placed_outputs_have_an_empty_entry() {
    let place = crate::oip::shared_memory::Placement { region: "r".into(), byte_size: 64, offset: 8 };
    let wish = RequestedOutput { name: "y".into(), place: Some(place), ..RequestedOutput::default() };
    let call = InferCall { outputs: vec![wish], ..InferCall::default() };
    let outputs = [tensor("y", vec![1; 10])];
    let read = pb::ModelInferResponse::decode(
        &joined(&unary(&Answered { model: "m", version: "1", call: &call, outputs: &outputs }).unwrap())[..],
    )
    .unwrap();
    assert_eq!(read.raw_output_contents, [Bytes::new()]);
    assert_eq!(read.outputs[0].parameters["shared_memory_byte_size"].parameter_choice, Some(ParameterChoice::Int64Param(10)));
    assert_eq!(read.outputs[0].parameters["shared_memory_offset"].parameter_choice, Some(ParameterChoice::Int64Param(8)));
}
