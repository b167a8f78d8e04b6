//! What the protocol's extensions change in a node: its log, its records, what it lets clients register.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::models::{self, floats};
use crate::support::{Node, NodeOptions, eventually};
use plinth_types::{DataType, Dim};

async fn ask(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn deploy(node: &Node, name: &str) {
    let model = models::identity(DataType::Fp32, &[Dim::Any, Dim::Any]);
    models::deploy(node, name, model.path()).await;
}

/// The records of traces in the node's log.
fn records(node: &Node) -> Vec<Value> {
    let lines = node.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    lines.into_iter().filter(|line| line["target"] == "plinth::trace").collect()
}

#[tokio::test]
async fn traced_requests_leave_a_record() {
    let node = Node::start(NodeOptions::dev().villain().set("log.level", "\"warn\"")).await;
    deploy(&node, "x").await;
    let infer = || async { models::infer(&node, "x", &floats(&[1.0])).await.0 };
    assert_eq!(infer().await, 200);
    let settings = json!({"trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "2"});
    let (status, shown) = ask(node.post("/v2/trace/setting").json(&settings)).await;
    assert_eq!((status, &shown["trace_level"], &shown["trace_rate"]), (200, &json!(["TIMESTAMPS"]), &json!("2")));
    for _ in 0..10 {
        assert_eq!(infer().await, 200);
    }
    let records = eventually("two records", Duration::from_secs(5), async || Some(records(&node)).filter(|r| r.len() >= 2)).await;
    assert_eq!(records.len(), 2, "every second one, until the count is used up");
    for record in records {
        assert_eq!((&record["model"], &record["version"], &record["outcome"]), (&json!("x"), &json!(1), &json!("ok")), "{record}");
        assert!(record["request"].as_str().is_some_and(|id| !id.is_empty()), "{record}");
        let time = |name: &str| record[name].as_u64().expect("a time");
        assert!(time("request_start_ns") < time("request_end_ns"), "{record}");
    }
    let (status, shown) = ask(node.get("/v2/models/x/trace/setting")).await;
    assert_eq!((status, &shown["trace_count"]), (200, &json!("0")));
}

#[tokio::test]
async fn log_settings_take_effect_at_once() {
    // The access log has lines of its own for what is refused.
    let options = NodeOptions::dev().set("log.level", "\"info\"").set("access_log.enabled", "false");
    let node = Node::start(options).await;
    deploy(&node, "x").await;
    // A refused request is told at the level debug.
    let refuse = async |mark: &str| {
        let status = node.post("/v2/models/none/infer").header("x-request-id", mark).body("{}").send().await.unwrap().status();
        assert_eq!(status, 404);
    };
    refuse("before").await;
    let (status, shown) = ask(node.post("/v2/logging").json(&json!({"log_verbose_level": 1}))).await;
    assert_eq!((status, &shown["log_verbose_level"]), (200, &json!(1)));
    refuse("between").await;
    eventually("the log tells it", Duration::from_secs(5), async || node.log().contains("\"between\"").then_some(())).await;
    let off = json!({"log_info": false, "log_warning": false, "log_error": false, "log_verbose_level": 0});
    assert_eq!(ask(node.post("/v2/logging").json(&off)).await.0, 200);
    let length = node.log().len();
    refuse("after").await;
    assert_eq!(node.post("/v2/repository/models/x/unload").send().await.unwrap().status(), 200);
    let log = node.log();
    assert!(!log.contains("\"before\"") && !log.contains("\"after\""), "{log}");
    let told: Vec<_> = log[length..].lines().filter(|line| line.starts_with("{\"timestamp\"")).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn shared_memory_is_off_unless_it_was_switched_on() {
    let node = Node::start(NodeOptions::dev()).await;
    deploy(&node, "x").await;
    let (_, server) = ask(node.get("/v2")).await;
    let extensions = server["extensions"].as_array().unwrap();
    assert!(extensions.contains(&json!("trace")) && !extensions.contains(&json!("system_shared_memory")), "{server}");
    for path in ["/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/r/status", "/v2/cudasharedmemory/status"] {
        assert_eq!(ask(node.get(path)).await, (200, json!([])), "{path}");
    }
    for path in ["/v2/systemsharedmemory/unregister", "/v2/systemsharedmemory/region/r/unregister", "/v2/cudasharedmemory/unregister"] {
        assert_eq!(ask(node.post(path)).await.0, 200, "{path}");
    }
    let region = json!({"key": "/plinth_none", "offset": 0, "byte_size": 4});
    let (status, error) = ask(node.post("/v2/systemsharedmemory/region/r/register").json(&region)).await;
    assert!(status == 501 && error["error"].as_str().unwrap().contains("shared_memory.enabled = true"), "{error}");
    let place = json!({"shared_memory_region": "r", "shared_memory_byte_size": 4});
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "parameters": place}]});
    assert_eq!(models::infer(&node, "x", &body).await.0, 501);
}

#[tokio::test]
async fn names_of_routes_are_names_of_models_too() {
    let node = Node::start(NodeOptions::dev()).await;
    deploy(&node, "stats").await;
    let (status, all) = ask(node.get("/v2/models/stats?a=b")).await;
    assert_eq!((status, &all["model_stats"][0]["name"]), (200, &json!("stats")));
    let (status, one) = ask(node.get("/v2/models/stats/stats")).await;
    assert_eq!((status, &one["model_stats"][0]["version"]), (200, &json!("1")));
    let (status, metadata) = ask(node.get("/v2/models/stats/versions/1")).await;
    assert_eq!((status, &metadata["name"]), (200, &json!("stats")));
    assert_eq!(ask(node.get("/v2/models/stats/ready")).await.0, 200);
    assert_eq!(models::infer(&node, "stats", &floats(&[1.0])).await.0, 200);
    for path in ["/v2/repository/mine/index", "/v2/repository/mine/models/stats/load", "/v2/repository/mine/models/stats/unload"] {
        assert_eq!(ask(node.post(path)).await.0, 501, "{path}");
    }
}

#[tokio::test]
async fn what_is_logged_and_traced_is_an_admins() {
    let node = Node::start(NodeOptions::default()).await;
    deploy(&node, "x").await;
    let new = plinth_client::wire::NewKey {
        role: plinth_client::wire::Role::Developer,
        description: "app".into(),
        expires_at: None,
        models: vec![],
    };
    let key = node.client().create_key(&new).await.unwrap().secret;
    let client = reqwest::Client::new();
    let ask = async |method: reqwest::Method, path: &str| {
        let request = client.request(method, format!("{}{path}", node.http)).bearer_auth(&key).body("{}");
        request.send().await.unwrap().status().as_u16()
    };
    eventually("the key is known", Duration::from_secs(5), async || (ask(reqwest::Method::GET, "/v2").await == 200).then_some(())).await;
    for path in ["/v2/trace/setting", "/v2/models/x/trace/setting", "/v2/logging"] {
        assert_eq!((ask(reqwest::Method::GET, path).await, ask(reqwest::Method::POST, path).await), (200, 403), "{path}");
    }
}
