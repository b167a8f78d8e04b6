//! Good and bad configurations, completion against graphs, and what is shown.

use plinth_types::{DataType, Dim};
use proptest::prelude::*;

use super::*;

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    let dims = shape.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed)).collect();
    TensorSpec::new(name, datatype, dims).unwrap()
}

/// A graph with a batch dimension and an optional input.
fn graph() -> ModelMetadata {
    ModelMetadata {
        platform: "onnxruntime_onnx".into(),
        inputs: vec![
            spec("x", DataType::Fp32, &[-1, 4]),
            spec("names", DataType::Bytes, &[-1, -1]),
            spec("mask", DataType::Bool, &[-1, 4]),
        ],
        optional_inputs: vec!["mask".into()],
        outputs: vec![spec("y", DataType::Fp32, &[-1, 10]), spec("label", DataType::Int64, &[-1])],
        engine: "onnxruntime 1.24.4".into(),
    }
}

fn model() -> ModelName {
    "digits".parse().unwrap()
}

fn complete(text: &str) -> Result<ModelConfig, Error> {
    ModelConfig::parse_pbtxt(text.as_bytes())?.complete(&model(), &graph())
}

const FULL: &str = r#"
# The usual form: lists of messages without a colon.
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size : 8
input [
  { name: "x" data_type: TYPE_FP32 format: FORMAT_NONE dims: [ 4 ] },
  {
    name: "names"
    data_type: TYPE_STRING
    dims: [ -1 ]
  }
]
output { name: 'y', data_type: TYPE_FP32, dims: 0xA, label_filename: "la" "bels.txt"; }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 } ]
version_policy: { specific < versions: [1, 3] > }
dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 priority_queue_policy { key: 2 value { max_queue_size: 3 } } }
parameters { key: "mode" value { string_value: "a\tb\x41\101\u00e9" } }
parameters: { key: "other" value: { string_value: "" } }
response_cache { enable: true }
optimization { input_pinned_memory { enable: false } }
model_warmup [ { name: "w" batch_size: 2 count: 3
  inputs { key: "x" value: { data_type: TYPE_FP32 dims: 4 random_data: true } }
  inputs { key: "names" value: { data_type: TYPE_STRING dims: 3 zero_data: true } } } ]
"#;

#[test]
fn reads_what_people_write() {
    let config = complete(FULL).unwrap();
    assert_eq!((config.name(), config.platform(), config.backend()), ("digits", "onnxruntime_onnx", "onnxruntime"));
    assert_eq!(config.max_batch_size(), 8);
    assert_eq!(config.instance_count(), 3);
    assert_eq!(config.version_policy(), Some(VersionPolicy::Specific(vec!["1".parse().unwrap(), "3".parse().unwrap()])));
    assert!(config.response_cache() && config.dynamic_batching());
    assert!(config.is_optional("mask") && !config.is_optional("x"));
    assert_eq!(config.label_files().collect::<Vec<_>>(), [("y".to_owned(), "labels.txt".parse().unwrap())]);
    let inputs = [spec("x", DataType::Fp32, &[-1, 4]), spec("names", DataType::Bytes, &[-1, -1]), spec("mask", DataType::Bool, &[-1, 4])];
    assert_eq!(config.metadata_inputs(), inputs);
    assert_eq!(config.metadata_outputs(), [spec("y", DataType::Fp32, &[-1, 10])], "a configuration may show fewer outputs");
    let warmup = config.warmup_inputs().unwrap();
    assert_eq!(warmup.len(), 3);
    assert_eq!(
        warmup[0].iter().map(|t| (t.name(), t.shape().to_string())).collect::<Vec<_>>(),
        [("names", "[2,3]".to_owned()), ("x", "[2,4]".to_owned())]
    );
    assert_eq!(warmup, config.warmup_inputs().unwrap(), "the same bytes each time");
    assert!(warmup[0][1].data().chunks(4).all(|b| (0.0..1.0).contains(&f32::from_le_bytes(b.try_into().unwrap()))));
}

#[test]
fn shows_what_triton_shows() {
    let shown = complete(FULL).unwrap().to_json().unwrap();
    assert_eq!(shown["max_batch_size"], serde_json::json!(8));
    let input = serde_json::json!({"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [4], "is_shape_tensor": false,
        "allow_ragged_batch": false, "optional": false, "is_non_linear_format_io": false});
    assert_eq!(shown["input"][0], input);
    let groups = serde_json::json!([["digits_0", "KIND_CPU", 2], ["digits_1", "KIND_CPU", 1]]);
    let got: Vec<_> =
        shown["instance_group"].as_array().unwrap().iter().map(|g| serde_json::json!([g["name"], g["kind"], g["count"]])).collect();
    assert_eq!(serde_json::Value::from(got), groups);
    assert_eq!(shown["version_policy"], serde_json::json!({"specific": {"versions": [1, 3]}}), "64-bit numbers are numbers");
    assert_eq!(shown["dynamic_batching"]["max_queue_delay_microseconds"], serde_json::json!(100));
    assert_eq!(shown["dynamic_batching"]["priority_queue_policy"]["2"]["max_queue_size"], serde_json::json!(3));
    assert_eq!(shown["parameters"]["mode"]["string_value"], serde_json::json!("a\tbAA\u{e9}"));
    assert_eq!(shown["response_cache"], serde_json::json!({"enable": true}));
    assert!(shown.get("sequence_batching").is_none(), "what was not chosen is not shown");
}

#[test]
fn without_a_text_everything_comes_from_the_graph() {
    let config = ModelConfig::default().complete(&model(), &graph()).unwrap();
    assert_eq!((config.max_batch_size(), config.instance_count(), config.version_policy()), (0, 1, None));
    assert_eq!(config.metadata_inputs(), graph().inputs);
    assert_eq!(config.metadata_outputs(), graph().outputs);
    assert!(config.warmup_inputs().unwrap().is_empty());
    let shown = config.to_json().unwrap();
    let expected = serde_json::json!({
        "name": "digits", "platform": "onnxruntime_onnx", "backend": "onnxruntime", "runtime": "", "max_batch_size": 0,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [-1, 4], "is_shape_tensor": false,
             "allow_ragged_batch": false, "optional": false, "is_non_linear_format_io": false},
            {"name": "names", "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [-1, -1], "is_shape_tensor": false,
             "allow_ragged_batch": false, "optional": false, "is_non_linear_format_io": false},
            {"name": "mask", "data_type": "TYPE_BOOL", "format": "FORMAT_NONE", "dims": [-1, 4], "is_shape_tensor": false,
             "allow_ragged_batch": false, "optional": true, "is_non_linear_format_io": false}],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 10], "label_filename": "", "is_shape_tensor": false,
             "is_non_linear_format_io": false},
            {"name": "label", "data_type": "TYPE_INT64", "dims": [-1], "label_filename": "", "is_shape_tensor": false,
             "is_non_linear_format_io": false}],
        "batch_input": [], "batch_output": [],
        "instance_group": [{"name": "digits", "kind": "KIND_CPU", "count": 1, "gpus": [], "secondary_devices": [], "profile": [],
            "passive": false, "host_policy": ""}],
        "default_model_filename": "model.onnx", "cc_model_filenames": {}, "metric_tags": {}, "parameters": {}, "model_warmup": []
    });
    assert_eq!(shown, expected);
}

#[test]
fn what_is_shown_can_be_read_again() {
    for config in [complete(FULL).unwrap(), ModelConfig::default().complete(&model(), &graph()).unwrap()] {
        let text = config.to_json().unwrap().to_string();
        let again = ModelConfig::parse_json(text.as_bytes()).unwrap().complete(&model(), &graph()).unwrap();
        assert_eq!(again, config);
    }
}

#[test]
fn json_takes_both_spellings_and_numbers_as_text() {
    let text =
        br#"{"max_batch_size": "16", "instanceGroup": [{"kind": "KIND_CPU", "count": 2}], "parameters": {"a": {"stringValue": "b"}}}"#;
    let config = ModelConfig::parse_json(text).unwrap();
    assert_eq!((config.max_batch_size(), config.instance_count()), (16, 2));
    assert_eq!(config.to_json().unwrap()["parameters"]["a"]["string_value"], "b");
}

/// The text and the field of an error.
fn refusal(result: Result<ModelConfig, Error>) -> (Reason, String, String) {
    let error = result.map(|_| ()).unwrap_err();
    let text = error.public_text().trim_start_matches("model configuration: ").to_owned();
    (error.reason(), text, error.field_name().unwrap_or_default().to_owned())
}

#[test]
fn bad_texts_are_refused_with_their_place() {
    for (text, want) in [
        ("max_batchsize: 8", "config.pbtxt: line 1, column 1: ModelConfig has no field 'max_batchsize'; did you mean 'max_batch_size'?"),
        ("name: \"é\"\n  input [ { nme: \"x\" } ]", "config.pbtxt: line 2, column 13: ModelInput has no field 'nme'; did you mean 'name'?"),
        ("input { data_type: TYPE_FP23 }", "config.pbtxt: line 1, column 20: DataType has no value 'TYPE_FP23'; did you mean 'TYPE_FP32'?"),
        ("zzz: 1", "config.pbtxt: line 1, column 1: ModelConfig has no field 'zzz'"),
        ("name \"x\"", "config.pbtxt: line 1, column 6: expected ':', found a string"),
        ("name: x", "config.pbtxt: line 1, column 7: expected a string in quotes, found 'x'"),
        ("name: \"x", "config.pbtxt: line 1, column 7: the string that begins here does not end on its line"),
        ("name: \"\\q\"", "config.pbtxt: line 1, column 8: this escape in a string is not known"),
        ("name: \"\\400\"", "config.pbtxt: line 1, column 8: this escape in a string is not known"),
        ("name: \"\\xff\"", "config.pbtxt: line 1, column 7: the string is not UTF-8"),
        ("name: \"a\" name: \"b\"", "config.pbtxt: line 1, column 11: 'name' is given twice"),
        ("input {", "config.pbtxt: line 1, column 8: expected a field's name or '}', found the end of the text"),
        ("input { > }", "config.pbtxt: line 1, column 9: expected a field's name or '}', found '>'"),
        ("input [ { } { } ]", "config.pbtxt: line 1, column 13: expected ',' or ']', found '{'"),
        ("max_batch_size: 1.5", "config.pbtxt: line 1, column 17: expected a 32-bit integer, found '1.5'"),
        ("max_batch_size: 3000000000", "config.pbtxt: line 1, column 17: expected a 32-bit integer, found '3000000000'"),
        ("response_cache { enable: maybe }", "config.pbtxt: line 1, column 26: expected true or false, found 'maybe'"),
        (
            "dynamic_batching { }\nsequence_batching { }",
            "config.pbtxt: line 2, column 1: 'sequence_batching' and 'dynamic_batching' exclude each other",
        ),
        ("parameters { key: \"a\" } parameters { key: \"a\" }", "config.pbtxt: line 1, column 36: 'parameters' has the key 'a' twice"),
        ("}", "config.pbtxt: line 1, column 1: expected a field's name, found '}'"),
        ("name: $", "config.pbtxt: line 1, column 7: the character '$' has no place here"),
        ("[a.b]: 1", "config.pbtxt: line 1, column 1: expected a field's name, found '['"),
    ] {
        let (reason, got, _) = refusal(ModelConfig::parse_pbtxt(text.as_bytes()));
        assert_eq!((reason, got.as_str()), (Reason::InvalidResource, want), "{text}");
    }
    let (_, text, _) = refusal(ModelConfig::parse_pbtxt(b"name: \"\xff\""));
    assert_eq!(text, "config.pbtxt: the text is not UTF-8 from byte 7 on");
    let long = vec![b' '; (1 << 20) + 1];
    assert_eq!(refusal(ModelConfig::parse_pbtxt(&long)).0, Reason::BodyTooLarge);
    assert_eq!(refusal(ModelConfig::parse_json(&long)).0, Reason::BodyTooLarge);
    let many = format!("input {{ dims: [{}1] }}", "1,".repeat(5000));
    assert!(refusal(ModelConfig::parse_pbtxt(many.as_bytes())).1.contains("'dims' has more than 4096 elements"));
}

#[test]
fn bad_json_is_refused_with_its_field() {
    for (text, field, want) in [
        ("{", "config", "EOF while parsing an object at line 1 column 1"),
        ("[]", "config", "expected an object"),
        (r#"{"max_batchsize": 1}"#, "config", "ModelConfig has no field 'max_batchsize'; did you mean 'max_batch_size'?"),
        (r#"{"input": [{}, {"nam": "x"}]}"#, "input[1]", "ModelInput has no field 'nam'; did you mean 'name'?"),
        (
            r#"{"model_warmup": [{"inputs": {"x": {"dim": 1}}}]}"#,
            "model_warmup[0].inputs[x]",
            "Input has no field 'dim'; did you mean 'dims'?",
        ),
        (r#"{"max_batch_size": "many"}"#, "config", "invalid digit found in string"),
    ] {
        let (reason, got, got_field) = refusal(ModelConfig::parse_json(text.as_bytes()));
        assert_eq!((reason, got, got_field.as_str()), (Reason::InvalidResource, format!("{field}: {want}"), field), "{text}");
    }
    assert!(ModelConfig::parse_json("[".repeat(100_000).as_bytes()).is_err(), "deep nesting ends early");
}

#[test]
fn what_contradicts_the_graph_is_refused_with_its_field() {
    for (text, field) in [
        ("name: \"other\"", "name"),
        ("platform: \"tensorrt_plan\"", "platform"),
        ("backend: \"python\"", "backend"),
        ("max_batch_size: -1", "max_batch_size"),
        ("input { dims: 4 }", "input[0].name"),
        ("input { name: \"z\" }", "input[0].name"),
        ("input { name: \"x\" } input { name: \"x\" }", "input[1].name"),
        ("input { name: \"x\" data_type: TYPE_FP64 }", "input[0].data_type"),
        ("input { name: \"x\" dims: [-1, 5] }", "input[0].dims"),
        ("input { name: \"x\" dims: [-1, -1] }", "input[0].dims"),
        ("input { name: \"x\" dims: [4] }", "input[0].dims"),
        ("input { name: \"x\" dims: [-2, 4] }", "input[0].dims"),
        ("max_batch_size: 4 input { name: \"x\" dims: [-1, 4] }", "input[0].dims"),
        ("input { name: \"x\" optional: true }", "input[0].optional"),
        ("output { name: \"x\" }", "output[0].name"),
        ("output { name: \"y\" label_filename: \"../up\" }", "output[0].label_filename"),
        ("instance_group { count: -1 }", "instance_group[0].count"),
        ("instance_group { count: 200 } instance_group { count: 100 }", "instance_group[1].count"),
        ("version_policy { latest { num_versions: 0 } }", "version_policy.latest.num_versions"),
        ("version_policy { specific { versions: 0 } }", "version_policy.specific.versions[0]"),
        ("model_warmup { inputs { key: \"x\" value { dims: [2, 4] } } }", "model_warmup[0].inputs[x]"),
    ] {
        let (reason, text, got) = refusal(complete(text));
        assert_eq!((reason, got.as_str()), (Reason::InvalidResource, field), "{text}");
    }
    let fixed = ModelMetadata { inputs: vec![spec("x", DataType::Fp32, &[1, 4])], ..graph() };
    let (_, text, field) = refusal(ModelConfig::parse_pbtxt(b"max_batch_size: 4").unwrap().complete(&model(), &fixed));
    assert_eq!(field, "max_batch_size");
    assert!(text.contains("'x' begins with the fixed dimension 1; set it to 0"), "{text}");
}

#[test]
fn what_plinth_does_not_do_is_refused_and_not_ignored() {
    for (text, field) in [
        ("input { name: \"x\" reshape { shape: [4] } }", "input[0].reshape"),
        ("instance_group { kind: KIND_MODEL }", "instance_group[0].kind"),
        ("instance_group { kind: KIND_GPU } instance_group { kind: KIND_CPU }", "instance_group[0].kind"),
        ("instance_group { kind: KIND_GPU gpus: [0, 1] }", "instance_group[0].gpus"),
        ("sequence_batching { iterative_sequence: true }", "sequence_batching.iterative_sequence"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled"),
        ("model_repository_agents { agents { name: \"checksum\" } }", "model_repository_agents"),
        ("default_model_filename: \"other.onnx\"", "default_model_filename"),
        ("model_warmup { inputs { key: \"x\" value { input_data_file: \"f\" } } }", "model_warmup[0].inputs[x].input_data_file"),
    ] {
        let (reason, _, got) = refusal(complete(text));
        assert_eq!((reason, got.as_str()), (Reason::NotImplemented, field), "{text}");
    }
    complete("model_transaction_policy { decoupled: false }").unwrap();
}

#[test]
fn warm_up_must_fit_and_is_bounded() {
    let sample = |body: &str| complete(&format!("max_batch_size: 4 model_warmup {{ {body} }}")).unwrap().warmup_inputs();
    let x = r#"inputs { key: "x" value { dims: 4 zero_data: true } }"#;
    let names = r#"inputs { key: "names" value { dims: 1 random_data: true } }"#;
    assert_eq!(sample(&format!("{x} {names}")).unwrap().len(), 1);
    let wide = r#"inputs { key: "names" value { dims: 100000000 zero_data: true } }"#;
    for (body, field) in [
        (x.to_owned(), "model_warmup[0].inputs"),
        (format!("{x} {names} batch_size: 5"), "model_warmup[0].batch_size"),
        (format!("{x} {names} count: 100000"), "model_warmup[0].count"),
        (format!("{x} {wide}"), "model_warmup[0].inputs[names]"),
        (x.replace("\"x\"", "\"z\""), "model_warmup[0].inputs[z]"),
        (x.replace("dims: 4", "dims: 5"), "model_warmup[0].inputs[x]"),
        (x.replace("dims: 4", "dims: 4 data_type: TYPE_INT8"), "model_warmup[0].inputs[x]"),
    ] {
        assert_eq!(sample(&body).unwrap_err().field_name(), Some(field), "{body}");
    }
}

#[test]
fn random_data_of_every_type_is_small() {
    for datatype in DataType::ALL {
        let graph = ModelMetadata { inputs: vec![spec("x", datatype, &[3])], optional_inputs: vec![], ..graph() };
        let config = ModelConfig::parse_pbtxt(br#"model_warmup { inputs { key: "x" value { dims: 3 random_data: true } } }"#).unwrap();
        let warmup = config.complete(&model(), &graph).unwrap().warmup_inputs().unwrap();
        assert_eq!((warmup[0][0].datatype(), warmup[0][0].shape().elements()), (datatype, 3));
    }
}

proptest! {
    #[test]
    fn hostile_texts_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ModelConfig::parse_pbtxt(&bytes);
        let _ = ModelConfig::parse_json(&bytes);
    }

    #[test]
    fn texts_made_of_real_pieces_never_panic(pieces in proptest::collection::vec(prop_oneof![
        Just("input"), Just("["), Just("]"), Just("{"), Just("}"), Just("<"), Just(">"), Just(":"), Just(","), Just("name"), Just("dims"),
        Just("\"x\""), Just("'"), Just("\\u12"), Just("-"), Just("0x"), Just("1e"), Just("4"), Just("# c\n"), Just("parameters"),
        Just("key"), Just("value"), Just("max_batch_size"), Just("data_type"), Just("TYPE_FP32"), Just("\u{e9}"), Just(".5f"), Just("nan"),
    ], 0..40)) {
        let text = pieces.join(" ");
        if let Ok(config) = ModelConfig::parse_pbtxt(text.as_bytes()) {
            let _ = config.complete(&model(), &graph()).map(|c| c.to_json().unwrap());
        }
    }
}
