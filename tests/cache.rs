//! The response cache as callers and operators see it: given again, per tenant's deployment, computed once for a herd, warmed.

use std::process::Command;

use plinth_client::wire;
use serde_json::{Value, json};

use crate::support::models::{self, command, infer};
use crate::support::{Node, NodeOptions};

/// A villain served as the specification says from its first load on.
async fn villain(node: &Node, model: &str, spec: Value) {
    let directory = models::villain("", model);
    models::push(node, model, directory.path(), &[]).await;
    let body = json!({"resources": [{"kind": "deployment", "name": model, "spec": spec}]});
    let answer = node.post("/v1/apply").json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    models::promote(node, model, 1).await.unwrap();
    models::default_is(node, model, 1).await;
}

fn cached() -> Value {
    json!({"cache": {"enabled": true}})
}

/// Inferences, executions, hits and misses.
async fn counts(node: &Node, model: &str) -> [u64; 4] {
    let all: Value = node.get(&format!("/v2/models/{model}/versions/1/stats")).send().await.unwrap().json().await.unwrap();
    let stats = &all["model_stats"][0];
    let of = |name: &str| stats["inference_stats"][name]["count"].as_u64().unwrap();
    [stats["inference_count"].as_u64().unwrap(), stats["execution_count"].as_u64().unwrap(), of("cache_hit"), of("cache_miss")]
}

async fn fine(node: &Node, model: &str, body: &Value) -> Value {
    let (status, answer) = infer(node, model, body).await;
    assert_eq!(status, 200, "{answer}");
    answer["outputs"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_asks_for_it_has_its_answers_given_again() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node, "again", cached()).await;
    villain(&node, "anew", json!({})).await;
    let work = command("delay 30ms");
    let first = fine(&node, "again", &work).await;
    for _ in 0..10 {
        assert_eq!(fine(&node, "again", &work).await, first);
    }
    assert_eq!(counts(&node, "again").await, [11, 1, 10, 1]);
    // The id does not count, the input and the parameters do.
    let mut other = work.clone();
    other["id"] = json!("mine");
    fine(&node, "again", &other).await;
    assert_eq!(counts(&node, "again").await, [12, 1, 11, 1]);
    other["parameters"] = json!({"seed": 7});
    fine(&node, "again", &other).await;
    fine(&node, "again", &command("delay 31ms")).await;
    assert_eq!(counts(&node, "again").await, [14, 3, 11, 3]);

    for _ in 0..3 {
        fine(&node, "anew", &work).await;
    }
    assert_eq!(counts(&node, "anew").await, [3, 3, 0, 0]);
    let metrics = reqwest::get(format!("{}/metrics", node.metrics)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"plinth_inference_cache_hits_total{tenant="default",model="again",version="1"} 11"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_computes_once_and_errors_are_not_kept() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node, "herd", cached()).await;
    let herd = async |body: Value| {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let request = node.post("/v2/models/herd/infer").json(&body);
            clients.spawn(async move { request.send().await.unwrap().status().as_u16() });
        }
        clients.join_all().await
    };
    assert!(herd(command("delay 200ms")).await.iter().all(|status| *status == 200));
    let [inferences, executions, hits, misses] = counts(&node, "herd").await;
    assert_eq!((inferences, executions, hits + misses, misses), (20, 1, 20, 1));

    assert!(herd(command("fail on purpose")).await.iter().all(|status| *status == 500));
    assert!(counts(&node, "herd").await[1] <= 1 + 20);
    let (status, _) = infer(&node, "herd", &command("fail on purpose")).await;
    assert_eq!(status, 500);

    // One of the herd kills the runner, one more to be sure; a third would have the version held back.
    let statuses = herd(command("crash")).await;
    assert!(statuses.iter().all(|status| *status >= 400), "{statuses:?}");
    models::default_is(&node, "herd", 1).await;
    fine(&node, "herd", &command("delay 1ms")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_warmed_from_a_list() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node, "warm", cached()).await;
    let raw = |value: &Value| serde_json::value::to_raw_value(value).unwrap();
    let list = wire::WarmCache {
        version: None,
        requests: vec![
            raw(&command("delay 1ms")),
            raw(&json!({"inputs": []})),
            raw(&command("fail on purpose")),
            raw(&command("delay 2ms")),
        ],
    };
    let name = models::name("warm");
    let first = node.client().warm_cache(&name, &list).await.unwrap();
    assert_eq!((first.kept, first.computed, first.present, first.failed, first.skipped), (true, 2, 0, 2, 0));
    let reasons: Vec<_> = first.failures.iter().map(|f| (f.request, f.reason.as_str())).collect();
    assert_eq!(reasons, [(1, "unknown_tensor"), (2, "model_execution_failed")]);
    let second = node.client().warm_cache(&name, &list).await.unwrap();
    assert_eq!((second.computed, second.present, second.failed), (0, 2, 2));
    fine(&node, "warm", &command("delay 2ms")).await;
    assert_eq!(counts(&node, "warm").await[2], 3, "what was warmed is there for callers");

    // From the command line: the line of what failed, and its own exit code.
    let home = tempfile::tempdir().unwrap();
    let lines: Vec<_> = (10..60).map(|n| command(&format!("delay {n}us")).to_string()).collect();
    std::fs::write(home.path().join("good.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(home.path().join("bad.jsonl"), format!("{}\n\n{{\"inputs\": []}}\n", lines[0])).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
        command.args(arguments).env_clear().env("HOME", home.path()).current_dir(home.path()).env("PLINTH_SERVER", &node.http);
        command.output().unwrap()
    };
    let output = run(&["model", "warm", "warm", "--file", "good.jsonl", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let warmed: wire::WarmedCache = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((warmed.computed, warmed.present, warmed.failed), (50, 0, 0));
    let output = run(&["model", "warm", "warm", "--file", "bad.jsonl"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("there already  1\n") && text.contains("\nline 3"), "{text}");

    villain(&node, "cold", json!({})).await;
    let output = run(&["model", "warm", "cold", "--file", "good.jsonl"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("error: the answers of 'cold' are not kept") && said.contains("next: "), "{said}");
    assert!(counts(&node, "cold").await[0] <= 2, "nothing is computed in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_redis_is_away_answers_from_memory() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("\"redis://user:hidden@127.0.0.1:{port}/0\"");
    let node = Node::start(NodeOptions::dev().villain().set("cache.url", &url)).await;
    villain(&node, "alone", cached()).await;
    for _ in 0..3 {
        fine(&node, "alone", &command("delay 1ms")).await;
    }
    assert_eq!(counts(&node, "alone").await, [3, 1, 2, 1]);
    assert!(node.log().contains("redis cannot be used") && !node.log().contains("hidden"));
}
