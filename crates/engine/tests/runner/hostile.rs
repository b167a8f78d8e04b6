//! ONNX files that want to do harm: each ends in an error or in a dead runner, in bounded time, and the node goes on.

use std::time::Duration;

use plinth_engine::testing::{ModelDirectory, floats, onnx_model};
use plinth_engine::{RunnerError, RunnerSpec};
use plinth_types::{ByteSize, DataType, Dim};

use crate::support::{SOON, spec, start, try_start};

fn limited(model: &ModelDirectory) -> RunnerSpec {
    RunnerSpec { memory: Some(ByteSize::mib(256)), load_timeout: Duration::from_secs(10), ..spec(model) }
}

async fn must_not_load(model: &[u8], what: &str) {
    let directory = ModelDirectory::onnx(model);
    match try_start(limited(&directory)).await {
        Err(RunnerError::Load(text)) => assert!(!text.is_empty() && text.len() < 1200, "{what}: {text}"),
        Err(RunnerError::Crashed) => {}
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what}: it loads"),
    }
}

async fn the_node_is_well() {
    let runner = start(spec(&ModelDirectory::onnx(&onnx_model::offset(2.0)))).await;
    let answer = runner.infer(vec![floats("x", &[1.0])], vec![], SOON).await.unwrap();
    assert_eq!(answer, vec![floats("y", &[3.0])]);
}

#[tokio::test]
async fn truncated_anywhere() {
    let whole = onnx_model::offset(1.0);
    let step = (whole.len() / 25).max(1);
    for cut in (0..whole.len()).step_by(step) {
        let directory = ModelDirectory::onnx(&whole[..cut]);
        // A cut between two fields leaves a valid, smaller message; then the graph decides.
        let outcome = try_start(limited(&directory)).await;
        assert!(!matches!(outcome, Err(RunnerError::Deadline(_) | RunnerError::Start(_))), "{cut}: {outcome:?}");
        if cut < whole.len() * 3 / 4 {
            assert!(outcome.is_err(), "{cut} of {} bytes load", whole.len());
        }
    }
    the_node_is_well().await;
}

#[tokio::test]
async fn random_bytes() {
    use plinth_runtime::{Random, SeededRandom};
    let random = SeededRandom::new(42);
    for length in [1usize, 2, 10, 100, 1000, 100_000] {
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        must_not_load(&bytes, &format!("{length} random bytes")).await;
    }
    // A real model with some bytes changed may load or not; it must not hang, and the node must not mind.
    let whole = onnx_model::arithmetic();
    for _ in 0..15 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            let (at, to) = (random.next_u64(), random.next_u64());
            let at = usize::try_from(at % bytes.len() as u64).unwrap();
            bytes[at] = to.to_le_bytes()[0];
        }
        let outcome = try_start(limited(&ModelDirectory::onnx(&bytes))).await;
        assert!(!matches!(outcome, Err(RunnerError::Deadline(_) | RunnerError::Start(_))), "{outcome:?}");
    }
    the_node_is_well().await;
}

#[tokio::test]
async fn huge_promises() {
    let any = [Dim::Any];
    let base = || onnx_model::ModelBuilder::new().input("x", DataType::Fp32, &any).output("y", DataType::Fp32, &any);
    let add = |b: onnx_model::ModelBuilder| b.node("Add", &["x", "w"], &["y"]).build();
    must_not_load(&add(base().weights("w", DataType::Fp32, &[1_000_000_000], vec![0; 4])), "a billion weights, four bytes").await;
    must_not_load(&add(base().weights("w", DataType::Fp32, &[i64::MAX, i64::MAX], vec![])), "dimensions that overflow").await;
    must_not_load(&add(base().weights("w", DataType::Fp32, &[-5], vec![0; 4])), "a negative dimension").await;
    // The constant folder would make ten billion elements of it.
    let shape: Vec<u8> = [100_000i64, 100_000].iter().flat_map(|d| d.to_le_bytes()).collect();
    let bomb = base().weights("s", DataType::Int64, &[2], shape).node("ConstantOfShape", &["s"], &["w"]);
    let bomb = bomb.node("ReduceSum", &["w"], &["r"]).node("Add", &["x", "r"], &["y"]).build();
    let directory = ModelDirectory::onnx(&bomb);
    match try_start(limited(&directory)).await {
        Ok(runner) => {
            let outcome = runner.infer(vec![floats("x", &[1.0])], vec![], SOON).await;
            assert!(matches!(outcome, Err(RunnerError::Execution(_) | RunnerError::Crashed)), "{outcome:?}");
        }
        Err(error) => assert!(matches!(error, RunnerError::Load(_) | RunnerError::Crashed), "{error:?}"),
    }
    the_node_is_well().await;
}

#[tokio::test]
async fn deep_nesting() {
    // An attribute with a graph with a node with an attribute with a graph …: fields 7, then 1, 5, 6 again and again.
    let wrap = |field: u8, inner: &[u8]| {
        let mut bytes = vec![field << 3 | 2];
        let mut length = inner.len();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        [bytes, inner.to_vec()].concat()
    };
    for depth in [40, 400, 5000] {
        let mut graph = Vec::new();
        for _ in 0..depth {
            graph = wrap(1, &wrap(5, &wrap(6, &graph)));
        }
        must_not_load(&wrap(7, &graph), &format!("{depth} graphs in each other")).await;
    }
    // A sequence of a sequence of … as an input's type: fields 4 and 1 of the type.
    let mut kind = Vec::new();
    for _ in 0..3000 {
        kind = wrap(4, &wrap(1, &kind));
    }
    let input = wrap(11, &[wrap(1, b"x"), wrap(2, &kind)].concat());
    must_not_load(&wrap(7, &input), "three thousand sequences in each other").await;
    the_node_is_well().await;
}

#[tokio::test]
async fn many_nodes() {
    // Two bytes each in the file.
    let graph: Vec<u8> = std::iter::repeat_n([0x0a, 0x00], 500_000).flatten().collect();
    let mut model = vec![0x3a];
    let mut length = graph.len();
    while length >= 0x80 {
        model.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    model.push(u8::try_from(length).unwrap());
    model.extend(graph);
    must_not_load(&model, "half a million empty nodes").await;
    the_node_is_well().await;
}
