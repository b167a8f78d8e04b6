//! Batches, instances, sequences and the response cache on a real node, and what happens to a batch when its runner dies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::models::{self, infer};
use crate::support::{Node, NodeOptions, eventually};

/// A villain with a batch dimension over rows of two floats; `rows` are traps, as in `villain.toml`.
async fn batching(node: &Node, model: &str, villain: &str, config: &str) {
    let tensors = "[[inputs]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 2]\n";
    let toml = format!("batch = true\n{villain}\n{tensors}");
    let config = format!("max_batch_size: 16\n{config}");
    let directory = models::directory(&[("villain.toml", toml.as_bytes()), ("config.pbtxt", config.as_bytes())]);
    models::deploy(node, model, directory.path()).await;
}

fn row(value: f32) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [value, -value]}], "outputs": [{"name": "x"}]})
}

/// Sends rows at the same time; status and answer of each, in order.
async fn together(node: &Node, model: &str, values: &[f32]) -> Vec<(u16, Value)> {
    let mut tasks = Vec::new();
    for value in values {
        let request = node.post(&format!("/v2/models/{model}/infer")).json(&row(*value));
        tasks.push(tokio::spawn(async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

async fn statistics(node: &Node, model: &str) -> Value {
    let answer = node.get(&format!("/v2/models/{model}/stats")).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["model_stats"][0].clone()
}

fn count(statistics: &Value, what: &str) -> u64 {
    statistics["inference_stats"][what]["count"].as_u64().unwrap()
}

#[tokio::test]
async fn requests_share_executions_and_each_gets_its_own_rows() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "slow", "cost = \"30ms\"", "dynamic_batching { }").await;
    let values: Vec<f32> = (0..40_u8).map(f32::from).collect();
    let answers = together(&node, "slow", &values).await;
    for (value, (status, answer)) in values.iter().zip(&answers) {
        assert_eq!(*status, 200, "{answer}");
        assert_eq!(answer["outputs"][0]["data"], json!([value, -value]));
    }
    let statistics = statistics(&node, "slow").await;
    assert_eq!((statistics["inference_count"].as_u64(), count(&statistics, "success")), (Some(40), 40));
    let executions = statistics["execution_count"].as_u64().unwrap();
    assert!((3..=20).contains(&executions), "{executions} executions of at most 16 rows: {statistics}");
    let by_size = statistics["batch_stats"].as_array().unwrap();
    let rows: u64 = by_size.iter().map(|b| b["batch_size"].as_u64().unwrap() * b["compute_infer"]["count"].as_u64().unwrap()).sum();
    assert_eq!(rows, 40, "{by_size:?}");
    assert!(count(&statistics, "queue") == 40 && count(&statistics, "compute_infer") == 40, "{statistics}");
}

#[tokio::test]
async fn without_dynamic_batching_every_request_is_executed_alone() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "alone", "cost = \"5ms\"", "").await;
    let answers = together(&node, "alone", &[1.0; 8]).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(statistics(&node, "alone").await["execution_count"], 8);
}

#[tokio::test]
async fn a_poisonous_request_costs_the_others_of_its_batch_nothing() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    let trap = "cost = \"50ms\"\n[[rows]]\nvalue = 666\ndeed = \"crash\"\n";
    batching(&node, "fragile", trap, "dynamic_batching { }").await;
    let values = [1.0, 2.0, 666.0, 3.0, 4.0, 5.0, 6.0, 7.0];
    let answers = together(&node, "fragile", &values).await;
    for (value, (status, answer)) in values.iter().zip(&answers) {
        let expected = if *value == 666.0 { 502 } else { 200 };
        assert_eq!(*status, expected, "{value}: {answer}");
    }
    // The model is back, the guilty input is refused before it costs, and no third crash brings quarantine.
    models::state_is(&node, "fragile", 1, "ready").await;
    let restarts = models::served(&node, "fragile", 1).await.unwrap().restarts;
    assert_eq!(restarts, 2);
    let (status, body) = infer(&node, "fragile", &row(666.0)).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().unwrap().contains("died twice"), "{body}");
    assert_eq!(infer(&node, "fragile", &row(667.0)).await.0, 200);
    assert_eq!(models::served(&node, "fragile", 1).await.unwrap().restarts, restarts);
}

#[tokio::test]
async fn a_runner_killed_from_outside_fails_nobody() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "killed", "cost = \"200ms\"", "dynamic_batching { }").await;
    let pid = models::served(&node, "killed", 1).await.unwrap().pid.unwrap();
    let request = node.post("/v2/models/killed/infer").json(&row(1.0));
    let asked = tokio::spawn(async move { request.send().await.unwrap().status().as_u16() });
    models::in_flight(&node, "killed", 1).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), rustix::process::Signal::KILL).unwrap();
    assert_eq!(asked.await.unwrap(), 200, "the request is executed again by the next runner");
    assert_eq!(infer(&node, "killed", &row(1.0)).await.0, 200, "and it is not taken for poison");
}

#[tokio::test]
async fn an_error_of_one_request_is_not_the_error_of_its_batch() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    let trap = "cost = \"50ms\"\n[[rows]]\nvalue = 13\ndeed = \"fail no luck\"\n";
    batching(&node, "picky", trap, "dynamic_batching { }").await;
    let values = [1.0, 2.0, 3.0, 13.0, 5.0, 6.0];
    let answers = together(&node, "picky", &values).await;
    for (value, (status, answer)) in values.iter().zip(&answers) {
        assert_eq!(*status, if *value == 13.0 { 500 } else { 200 }, "{value}: {answer}");
    }
    assert_eq!(models::served(&node, "picky", 1).await.unwrap().restarts, 0);
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let node = Node::start(NodeOptions::dev().villain().set("engine.max_queue_requests", "4")).await;
    batching(&node, "busy", "cost = \"600ms\"", "").await;
    let begun = Instant::now();
    let mut refused = 0;
    let requests = (0..12_u8).map(|i| node.post("/v2/models/busy/infer").json(&row(f32::from(i))));
    let mut tasks: Vec<_> = requests
        .map(|request| {
            tokio::spawn(async move {
                let answer = request.send().await.unwrap();
                let again = answer.headers().get("retry-after").is_some();
                (answer.status().as_u16(), again, begun.elapsed())
            })
        })
        .collect();
    for task in tasks.drain(..) {
        let (status, again, took) = task.await.unwrap();
        if status == 503 {
            refused += 1;
            assert!(again && took < Duration::from_millis(500), "refused after {took:?}");
        } else {
            assert_eq!(status, 200);
        }
    }
    assert!((6..=8).contains(&refused), "{refused} refused: one or two with the runner, four wait");
}

#[tokio::test]
async fn what_waits_too_long_is_dropped_before_it_costs() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "late", "cost = \"400ms\"", "").await;
    let request = node.post("/v2/models/late/infer").json(&row(1.0));
    let first = tokio::spawn(async move { request.send().await.unwrap().status().as_u16() });
    models::in_flight(&node, "late", 1).await;
    let mut hurried = row(2.0);
    hurried["parameters"] = json!({"timeout": 50_000});
    let (status, body) = infer(&node, "late", &hurried).await;
    assert_eq!(status, 504, "{body}");
    assert!(body["error"].as_str().unwrap().contains("queued"), "{body}");
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(statistics(&node, "late").await["execution_count"], 1);
}

#[tokio::test]
async fn instances_execute_at_the_same_time() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "pair", "cost = \"400ms\"", "instance_group [ { count: 2 } ]").await;
    let begun = Instant::now();
    let answers = together(&node, "pair", &[1.0, 2.0]).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert!(begun.elapsed() < Duration::from_millis(790), "{:?}", begun.elapsed());
    assert_eq!(statistics(&node, "pair").await["execution_count"], 2);
}

#[tokio::test]
async fn cached_answers_are_exact_and_belong_to_a_version() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "kept", "cost = \"20ms\"", "response_cache { enable: true }").await;
    for value in [1.0, 1.0, 2.0, 1.0] {
        let (status, answer) = infer(&node, "kept", &row(value)).await;
        assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([value, -value])));
    }
    let before = statistics(&node, "kept").await;
    assert_eq!((count(&before, "cache_hit"), count(&before, "cache_miss")), (2, 2));
    assert_eq!((before["inference_count"].as_u64(), before["execution_count"].as_u64()), (Some(4), Some(2)));

    // The same request to the next version is computed anew.
    batching(&node, "kept", "cost = \"21ms\"", "response_cache { enable: true }").await;
    models::default_is(&node, "kept", 2).await;
    assert_eq!(infer(&node, "kept", &row(1.0)).await.0, 200);
    assert_eq!(count(&statistics(&node, "kept").await, "cache_hit"), 0);
}

#[tokio::test]
async fn a_herd_with_the_same_question_is_answered_by_one_execution() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    batching(&node, "herd", "cost = \"200ms\"", "response_cache { enable: true }").await;
    let answers = together(&node, "herd", &[5.0; 20]).await;
    assert!(answers.iter().all(|(status, answer)| *status == 200 && answer["outputs"][0]["data"] == json!([5.0, -5.0])));
    assert_eq!(statistics(&node, "herd").await["execution_count"], 1);
}

#[tokio::test]
async fn a_crash_does_not_end_a_sequence() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    let config = "sequence_batching { max_sequence_idle_microseconds: 20000000 }";
    batching(&node, "steps", "cost = \"1ms\"", config).await;
    let ask = |value: f32, start: bool, end: bool| {
        let mut body = row(value);
        body["parameters"] = json!({"sequence_id": 42, "sequence_start": start, "sequence_end": end});
        body
    };
    let (status, body) = infer(&node, "steps", &row(1.0)).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("correlation ID")), (400, true), "{body}");
    let (status, body) = infer(&node, "steps", &ask(1.0, false, false)).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("START flag")), (400, true), "{body}");
    assert_eq!(infer(&node, "steps", &ask(1.0, true, false)).await.0, 200);

    let pid = models::served(&node, "steps", 1).await.unwrap().pid.unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), rustix::process::Signal::KILL).unwrap();
    eventually("another runner", Duration::from_secs(10), async || {
        models::served(&node, "steps", 1).await.filter(|s| s.state == "ready" && s.pid.is_some_and(|p| p != pid)).map(|_| ())
    })
    .await;
    let (status, body) = infer(&node, "steps", &ask(2.0, false, true)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(infer(&node, "steps", &ask(3.0, false, false)).await.0, 400, "the sequence has ended");
}
