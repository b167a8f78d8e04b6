//! What a level of the ladder does, on nodes whose level is pinned.

use std::time::Duration;

use serde_json::{Value, json};

use super::{apply, ask};
use crate::support::models;
use crate::support::{Node, NodeOptions, eventually};

async fn at(level: u8) -> Node {
    Node::start(NodeOptions::default().set("testing.overload_level", &level.to_string())).await
}

#[tokio::test]
async fn a_route_answers_later_when_its_node_is_busy() {
    let node = at(3).await;
    models::deploy(&node, "digits", &models::digits(2)).await;
    let (status, said) = apply(
        &node,
        json!([{"kind": "route", "name": "later", "spec": {
            "matches": {"path": {"prefix": "/v2/models/digits"}},
            "targets": [{"to": {"model": {"name": "digits"}}}],
            "degrade": [{"level": 3, "asynchronous": true}]
        }}]),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    let body = json!({"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64]}]});
    let (status, headers, said) = ask(node.post("/v2/models/digits/infer").header("x-plinth-criticality", "critical").json(&body)).await;
    assert_eq!((status, headers["x-plinth-degraded"].to_str().unwrap()), (202, "asynchronous"), "{said}");
    let place = headers["location"].to_str().unwrap().to_owned();
    assert_eq!(place, format!("/api/v1/jobs/{}", said["id"].as_str().unwrap()));
    let result = eventually("the answer", Duration::from_secs(20), async || {
        let answer = node.get(&format!("{place}/result")).header("x-plinth-criticality", "critical").send().await.ok()?;
        (answer.status() == 200).then_some(answer)
    })
    .await;
    let result: Value = result.json().await.unwrap();
    assert_eq!(result["outputs"][0]["shape"], json!([1, 10]), "{result}");
}

#[tokio::test]
async fn operators_get_through_whatever_the_load() {
    let node = at(5).await;
    // Changing what is served is how an operator ends an overload.
    let (status, said) = apply(&node, json!([{"kind": "plan", "name": "small", "spec": {}}])).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(node.get("/v2/health/live").send().await.unwrap().status(), 200, "nor is the probe refused");
    let (status, headers, said) =
        ask(node.post("/v2/models/digits/infer").header("x-plinth-criticality", "critical").json(&json!({}))).await;
    assert_eq!((status, headers.contains_key("retry-after")), (503, true), "{said}");
}
