//! ONNX models of every type and shape through a real runner, and the conformance of the backends in this process.

use plinth_engine::backend::onnx::Onnx;
use plinth_engine::backend::villain::Villain;
use plinth_engine::conformance::{self, Case};
use plinth_engine::testing::{ModelDirectory, commands, floats, onnx_library, onnx_model, sample, tensor};
use plinth_engine::{Backend, BackendError, LoadRequest, RunnerError};
use plinth_types::{DataType, Dim, Tensor};

use crate::support::{SOON, spec, start, try_start};

fn request(name: &str, bytes: &[u8]) -> LoadRequest {
    LoadRequest {
        files: [(name.parse().unwrap(), bytes.to_vec().into())].into(),
        threads: 2,
        provider: plinth_engine::Provider::Cpu,
        spawner: None,
    }
}

#[test]
fn the_onnx_backend_conforms() {
    let load = || Ok(Box::new(Onnx::load(onnx_library(), &request("model.onnx", &onnx_model::arithmetic()))?) as Box<dyn Backend>);
    conformance::backend(&Case {
        load: Box::new(load),
        good: vec![floats("a", &[1.0, 2.0]), floats("b", &[3.0, 4.0])],
        // Two elements and three do not broadcast; the metadata cannot say so.
        failing: Some(vec![floats("a", &[1.0, 2.0]), floats("b", &[3.0, 4.0, 5.0])]),
    });
}

#[test]
fn the_villain_conforms() {
    let toml =
        "version = '7'\n[[inputs]]\nname = 'x'\ndatatype = 'FP32'\nshape = [-1]\n[[inputs]]\nname = 'y'\ndatatype = 'BYTES'\nshape = [2]\n";
    let load = move || Ok(Box::new(Villain::load(&request("villain.toml", toml.as_bytes()))?) as Box<dyn Backend>);
    let y = || plinth_engine::testing::strings("y", &["p", "q"]);
    conformance::backend(&Case {
        load: Box::new(load),
        good: vec![floats("x", &[1.0, 2.0]), y()],
        failing: Some(vec![floats("x", &[1.0]), y(), commands(&["fail"])]),
    });
}

#[tokio::test]
async fn every_type_every_shape_goes_through_unchanged() {
    let group = plinth_runtime::TaskGroup::new("test");
    for datatype in DataType::ALL {
        let model = ModelDirectory::onnx(&onnx_model::identity(datatype, &[Dim::Any, Dim::Fixed(3)]));
        let runner = plinth_engine::Runner::start(spec(&model), &plinth_runtime::World::real(), &group).await;
        let runner = runner.unwrap_or_else(|e| panic!("{datatype}: {e}"));
        let metadata = runner.metadata();
        assert_eq!((metadata.inputs[0].datatype(), metadata.inputs[0].shape()), (datatype, &[Dim::Any, Dim::Fixed(3)][..]));
        for rows in [1u64, 0, 5, 10_000] {
            let bytes = sample(datatype, usize::try_from(rows * 3).unwrap());
            let sent = tensor("x", datatype, &[rows, 3], bytes.clone());
            let got = runner.infer(vec![sent], vec![], SOON).await.unwrap_or_else(|e| panic!("{datatype} {rows}: {e}"));
            assert_eq!(got, vec![tensor("y", datatype, &[rows, 3], bytes)], "{datatype} {rows}");
        }
        runner.stop(SOON).await;

        let scalar = ModelDirectory::onnx(&onnx_model::identity(datatype, &[]));
        let runner = start(spec(&scalar)).await;
        let got = runner.infer(vec![tensor("x", datatype, &[], sample(datatype, 1))], vec![], SOON).await.unwrap();
        assert_eq!(got, vec![tensor("y", datatype, &[], sample(datatype, 1))]);
    }
}

#[test]
fn bytes_that_are_not_aligned_are_copied_and_right() {
    let model = Onnx::load(onnx_library(), &request("model.onnx", &onnx_model::identity(DataType::Fp64, &[Dim::Any]))).unwrap();
    let padded = bytes::Bytes::from([vec![9; 16], sample(DataType::Fp64, 1000)].concat());
    for shift in 0..16 {
        let data = padded.slice(16 - shift..16 - shift + 8000);
        let sent = tensor("x", DataType::Fp64, &[1000], data.clone());
        let got = model.execute(vec![sent], &["y".to_owned()]).unwrap();
        assert_eq!(got[0].data(), &data, "{shift}");
    }
}

#[test]
fn an_output_that_is_an_input_or_a_weight_stays_valid() {
    // The graph's output is its input: the library answers with the request's own memory.
    let graph = onnx_model::ModelBuilder::new()
        .input("x", DataType::Fp32, &[Dim::Any])
        .output("w", DataType::Fp32, &[Dim::Fixed(8192)])
        .output("z", DataType::Fp32, &[Dim::Any])
        .weights("w", DataType::Fp32, &[8192], sample(DataType::Fp32, 8192))
        .node("Identity", &["x"], &["y"])
        .node("Identity", &["y"], &["z"])
        .build();
    let model = Onnx::load(onnx_library(), &request("model.onnx", &graph)).unwrap();
    let sent = sample(DataType::Fp32, 100_000);
    let input = tensor("x", DataType::Fp32, &[100_000], sent.clone());
    let outputs = model.execute(vec![input], &["w".to_owned(), "z".to_owned()]).unwrap();
    drop(model);
    assert_eq!(outputs[0].data(), &sample(DataType::Fp32, 8192));
    assert_eq!(outputs[1].data(), &sent);
}

fn run(model: &[u8], input: Tensor) -> Result<Vec<Tensor>, BackendError> {
    Onnx::load(onnx_library(), &request("model.onnx", model))?.execute(vec![input], &["y".to_owned()])
}

#[test]
fn a_string_may_be_empty_and_may_hold_nul() {
    let strings = onnx_model::identity(DataType::Bytes, &[Dim::Any]);
    let data = [&b"\x0a\0\0\0nul\0inside\0\0\0\0"[..], b"\x01\0\0\0\0"].concat();
    let got = run(&strings, tensor("x", DataType::Bytes, &[3], data.clone())).unwrap();
    assert_eq!(got[0].data(), data.as_slice());
}

#[test]
fn contents_that_onnx_does_not_know_are_the_callers_fault() {
    let strings = onnx_model::identity(DataType::Bytes, &[Dim::Any]);
    let element = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat();
    let got = run(&strings, tensor("x", DataType::Bytes, &[1], element(b"\xff\xfe")));
    assert!(matches!(&got, Err(BackendError::Input(text)) if text.contains("'x'")), "{got:?}");
    let bools = onnx_model::identity(DataType::Bool, &[Dim::Any]);
    assert!(matches!(run(&bools, tensor("x", DataType::Bool, &[1], vec![2])), Err(BackendError::Input(_))));
}

#[tokio::test]
async fn what_cannot_be_served_is_said_clearly() {
    let any = [Dim::Any];
    let base = || onnx_model::ModelBuilder::new().output("y", DataType::Fp32, &any).node("Identity", &["x"], &["y"]);
    for (model, says) in [
        (base().sequence_input("x").build(), "input 'x' is a sequence"),
        (base().input_of("x", 14, &any).build(), "input 'x' is a tensor of COMPLEX64"),
        (base().input_of("x", 17, &any).build(), "FLOAT8E4M3FN"),
        (base().input("x", DataType::Fp32, &any).external_weights("w", &[4], "../../etc/passwd").build(), "other files"),
        (base().build(), "ONNX Runtime refuses the model"),
        (base().input("x", DataType::Fp32, &any).node("NoSuchOperator", &["x"], &["z"]).build(), "NoSuchOperator"),
        (base().input("x", DataType::Int64, &any).build(), "ONNX Runtime refuses the model"),
        (base().input(&"x".repeat(300), DataType::Fp32, &any).build(), "ONNX Runtime refuses the model"),
        (b"not a model at all".to_vec(), "not an ONNX model"),
        (vec![], "it has no graph"),
    ] {
        let error = try_start(spec(&ModelDirectory::onnx(&model))).await.unwrap_err();
        let RunnerError::Load(text) = &error else { panic!("{says}: {error:?}") };
        assert!(text.contains(says), "{says}: {text}");
        assert!(!text.contains("/home") && !text.contains(".cc:") && text.len() < 700, "{text}");
    }
}
