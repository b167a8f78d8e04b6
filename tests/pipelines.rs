//! Pipelines from the outside: the example's own models, a step that is replaced, errors that name their step, a full entry.

use std::io::Cursor;
use std::time::Duration;

use image::{GrayImage, ImageFormat, Luma};
use plinth_engine::testing::onnx_model;
use plinth_types::{DataType, Dim};
use serde_json::{Value, json};

use crate::support::models::{self, infer};
use crate::support::{Node, NodeOptions, eventually, repository};

const NAMES: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

async fn push_example(node: &Node, model: &str, directory: &str) {
    models::deploy(node, model, &repository().join("examples/pipeline/models").join(directory)).await;
}

/// A digit (0 paper, 16 ink) as a scanner gives it: dark on light, as a file.
fn scan(pixels: &[f32], format: ImageFormat) -> Vec<u8> {
    let picture = GrayImage::from_fn(96, 96, |x, y| {
        let ink = pixels[usize::try_from(y / 12 * 8 + x / 12).unwrap()];
        Luma([(255.0 - ink * 255.0 / 16.0) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Asks with the files as binary tensors.
async fn read(node: &Node, files: &[Vec<u8>]) -> (u16, Value) {
    let data: Vec<u8> = files.iter().flat_map(|f| [&u32::try_from(f.len()).unwrap().to_le_bytes()[..], f].concat()).collect();
    let head = json!({"inputs": [
        {"name": "PICTURE", "datatype": "BYTES", "shape": [files.len(), 1], "parameters": {"binary_data_size": data.len()}},
    ]});
    let head = serde_json::to_vec(&head).unwrap();
    let length = head.len().to_string();
    let request = node.post("/v2/models/read-digit/infer").header("Inference-Header-Content-Length", length).body([head, data].concat());
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap_or_else(|| panic!("{answer}"));
    &outputs.iter().find(|o| o["name"] == name).expect("the output")["data"]
}

fn right(answer: &Value, labels: &[u8]) -> usize {
    let names = output(answer, "NAME").as_array().unwrap();
    labels.iter().enumerate().filter(|(i, label)| names[3 * i] == NAMES[usize::from(**label)]).count()
}

#[tokio::test]
async fn a_pre_processor_is_replaced_without_touching_the_model() {
    let node = Node::start(NodeOptions::dev()).await;
    push_example(&node, "digit-pixels", "digit-pixels-1").await;
    push_example(&node, "digit-net", "digit-net").await;
    push_example(&node, "digit-names", "digit-names").await;
    push_example(&node, "read-digit", "read-digit").await;
    let model = models::served(&node, "digit-net", 1).await.unwrap();

    let (pictures, labels): (Vec<_>, Vec<_>) =
        models::images().into_iter().take(60).map(|(pixels, label)| (scan(&pixels, ImageFormat::Png), label)).unzip();
    let (status, answer) = read(&node, &pictures).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!("read-digit"), &json!("1")));
    assert!(right(&answer, &labels) <= 6, "written for light ink, shown dark ink");

    models::deploy(&node, "digit-pixels", &repository().join("examples/pipeline/models/digit-pixels-2")).await;
    let (status, answer) = read(&node, &pictures).await;
    assert_eq!(status, 200, "{answer}");
    assert!(right(&answer, &labels) >= 56, "{} of 60", right(&answer, &labels));
    let best = output(&answer, "PROBABILITY")[0].as_f64().unwrap();
    assert!(best > 0.5 && best <= 1.0, "{best}");
    let after = models::served(&node, "digit-net", 1).await.unwrap();
    assert_eq!((after.pid, after.restarts), (model.pid, model.restarts), "the model was not touched");
    assert!(model.pid.is_some() && models::served(&node, "read-digit", 1).await.unwrap().pid.is_none(), "a pipeline has no process");

    // Jpeg and a batch of one, through the same steps.
    let jpeg = scan(&models::images()[0].0, ImageFormat::Jpeg);
    let (status, answer) = read(&node, &[jpeg]).await;
    assert_eq!((status, right(&answer, &labels[..1])), (200, 1), "{answer}");
    // A file that is no picture is its sender's fault, named after the step that says so.
    let (status, answer) = read(&node, &[b"no picture".to_vec()]).await;
    assert_eq!(status, 400, "{answer}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("step 'digit-pixels' of pipeline 'read-digit'") && error.contains("send JPEG, PNG or WebP"), "{error}");
    assert_eq!(models::served(&node, "digit-pixels", 2).await.unwrap().restarts, 0, "and kills nothing");
}

#[tokio::test]
async fn a_pipeline_describes_itself_and_its_steps_are_counted() {
    let node = Node::start(NodeOptions::dev()).await;
    for (model, directory) in
        [("digit-pixels", "digit-pixels-2"), ("digit-net", "digit-net"), ("digit-names", "digit-names"), ("read-digit", "read-digit")]
    {
        push_example(&node, model, directory).await;
    }
    let get = async |path: &str| node.get(path).send().await.unwrap().json::<Value>().await.unwrap();
    let metadata = get("/v2/models/read-digit").await;
    assert_eq!(metadata["platform"], "ensemble");
    assert_eq!(metadata["inputs"], json!([{"name": "PICTURE", "datatype": "BYTES", "shape": [-1, 1]}]));
    assert_eq!(metadata["outputs"][1], json!({"name": "PROBABILITY", "datatype": "FP32", "shape": [-1, 3]}));
    let config = get("/v2/models/read-digit/config").await;
    assert_eq!(config["ensemble_scheduling"]["step"][1]["model_name"], "digit-net");
    assert_eq!(config["ensemble_scheduling"]["step"][1]["model_version"], -1);

    let pictures: Vec<_> = models::images().iter().take(3).map(|(pixels, _)| scan(pixels, ImageFormat::Png)).collect();
    for _ in 0..2 {
        assert_eq!(read(&node, &pictures).await.0, 200);
    }
    let statistics = get("/v2/models/stats").await;
    // Rows are counted where the configuration says that the first dimension is a batch.
    for (model, rows) in [("read-digit", 6), ("digit-net", 6), ("digit-pixels", 2), ("digit-names", 2)] {
        let of_it = statistics["model_stats"].as_array().unwrap().iter().find(|m| m["name"] == model).expect("its statistics");
        assert_eq!(of_it["inference_stats"]["success"]["count"], 2, "{of_it}");
        assert_eq!(of_it["inference_count"], rows, "{of_it}");
    }
}

/// A pipeline over two villains, `first` and `second`, which echo `x`; each can be given a command of its own.
async fn villains(node: &Node, more: &str) {
    for model in ["first", "second"] {
        models::deploy(node, model, models::villain("", model).path()).await;
    }
    let step = |model: &str, from: &str, to: &str| {
        format!(
            r#"step {{ model_name: "{model}" input_map {{ key: "x" value: "{from}" }} input_map {{ key: "command" value: "{model}_command" }}
               output_map {{ key: "x" value: "{to}" }} }}"#
        )
    };
    let input = |name: &str, datatype: &str, optional: bool| {
        format!(r#"input {{ name: "{name}" data_type: {datatype} dims: [ -1 ] optional: {optional} }}"#)
    };
    let config = [
        input("x", "TYPE_FP32", false),
        input("first_command", "TYPE_STRING", true),
        input("second_command", "TYPE_STRING", true),
        r#"output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ensemble_scheduling {"#.to_owned(),
        step("first", "x", "between"),
        step("second", "between", "y"),
        format!("{more} }}"),
    ];
    let directory = models::directory(&[("config.pbtxt", config.join("\n").as_bytes())]);
    models::deploy(node, "both", directory.path()).await;
}

fn body(commands: &[(&str, &str)]) -> Value {
    let mut inputs = vec![json!({"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]})];
    inputs.extend(commands.iter().map(|(name, text)| json!({"name": name, "datatype": "BYTES", "shape": [1], "data": [text]})));
    json!({ "inputs": inputs })
}

#[tokio::test]
async fn errors_name_their_step_and_leave_the_pipeline_standing() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villains(&node, "").await;
    let (status, answer) = infer(&node, "both", &body(&[])).await;
    assert_eq!((status, output(&answer, "y")), (200, &json!([1.5, 2.5])), "{answer}");

    let (status, answer) = infer(&node, "both", &body(&[("second_command", "fail out of mood")])).await;
    assert_eq!(status, 500);
    let error = answer["error"].as_str().unwrap();
    assert!(error.starts_with("step 'second' of pipeline 'both'") && error.contains("out of mood"), "{error}");
    let (status, answer) = infer(&node, "both", &body(&[("first_command", "refuse")])).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().starts_with("step 'first'"), "{answer}");
    let (_, answer) = infer(&node, "both", &body(&[("second_command", "abort")])).await;
    assert!(answer["error"].as_str().unwrap().starts_with("step 'second'"), "{answer}");
    eventually("the second step is back", Duration::from_secs(20), async || {
        (infer(&node, "both", &body(&[])).await.0 == 200).then_some(())
    })
    .await;

    node.client().unload_model(&models::name("second")).await.unwrap();
    let gone = eventually("the second step is gone", Duration::from_secs(10), async || {
        let (status, answer) = infer(&node, "both", &body(&[])).await;
        (status != 200).then_some((status, answer))
    });
    let (status, answer) = gone.await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with("step 'second' of pipeline 'both'"), "{answer}");
    assert_eq!(models::served(&node, "both", 1).await.unwrap().state, "ready", "the pipeline waits for it");
    node.client().load_model(&models::name("second")).await.unwrap();
    eventually("the second step is back", Duration::from_secs(20), async || {
        (infer(&node, "both", &body(&[])).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_pipeline_refuses_at_its_entry_and_not_half_way() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villains(&node, "max_inflight_requests: 1").await;
    let slow = node.post("/v2/models/both/infer").json(&body(&[("second_command", "delay 3s")])).send();
    let slow = async { slow.await.unwrap().status().as_u16() };
    let crowd = async {
        models::in_flight(&node, "second", 1).await;
        let began = std::time::Instant::now();
        for _ in 0..5 {
            let (status, answer) = infer(&node, "both", &body(&[])).await;
            assert_eq!(status, 503, "{answer}");
            assert!(answer["error"].as_str().unwrap().contains("the entry of pipeline 'both' is full"), "{answer}");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "at once, not behind the slow one");
    };
    let (slow, ()) = tokio::join!(slow, crowd);
    assert_eq!(slow, 200, "what was inside went on");
    assert_eq!(infer(&node, "both", &body(&[])).await.0, 200, "and there is room again");
}

#[tokio::test]
async fn graphs_that_do_not_hold_together_are_not_served() {
    let node = Node::start(NodeOptions::dev()).await;
    let identity = onnx_model::identity(DataType::Fp32, &[Dim::Any]);
    models::deploy(&node, "same", models::directory(&[("model.onnx", &identity)]).path()).await;
    let refused = async |name: &str, steps: &str| {
        let tensors = r#"input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }"#;
        let text = format!("{tensors} ensemble_scheduling {{ {steps} }}");
        let directory = models::directory(&[("config.pbtxt", text.as_bytes())]);
        models::push(&node, name, directory.path(), &["champion"]).await;
        models::state_is(&node, name, 1, "failed").await.reason.unwrap_or_default()
    };
    let step = |model: &str, from: &str, to: &str| {
        format!(r#"step {{ model_name: "{model}" input_map {{ key: "x" value: "{from}" }} output_map {{ key: "y" value: "{to}" }} }}"#)
    };
    let circle = refused("circle", &format!("{} {}", step("same", "a", "b"), step("same", "b", "a"))).await;
    assert!(circle.contains("ensemble_scheduling") || circle.contains("no step makes the output 'y'"), "{circle}");
    let own = refused("own", &step("own", "x", "y")).await;
    assert!(own.contains("would be a step of itself"), "{own}");
    let nothing = refused("nothing", &step("same", "x", "z")).await;
    assert!(nothing.contains("no step makes the output 'y'"), "{nothing}");
}
