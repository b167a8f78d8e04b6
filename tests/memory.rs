//! Memory as callers and operators see it: budgets, eviction, loading on demand, unloading for idleness.

use std::time::{Duration, Instant};

use plinth_client::wire;
use serde_json::{Value, json};

use crate::support::models::{self, command, infer, served, state_is};
use crate::support::{Node, NodeOptions, eventually};

/// Says how a model shall be served.
async fn deployment(node: &Node, model: &str, spec: Value) {
    let body = json!({"resources": [{"kind": "deployment", "name": model, "spec": spec}]});
    let answer = node.post("/v1/apply").json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
}

/// A villain that holds so many MiB, served as the specification says.
async fn villain(node: &Node, model: &str, mib: u32, spec: Value) {
    let directory = models::villain(&format!("load_allocate = \"{mib}MiB\""), model);
    models::push(node, model, directory.path(), &[]).await;
    deployment(node, model, spec).await;
    models::promote(node, model, 1).await.unwrap();
}

async fn answers(node: &Node, model: &str) {
    let (status, body) = infer(node, model, &command("delay 1ms")).await;
    assert_eq!(status, 200, "{model}: {body}");
}

async fn state(node: &Node, model: &str) -> String {
    served(node, model, 1).await.map_or_else(|| "absent".to_owned(), |s| s.state)
}

async fn memory(node: &Node) -> wire::ModelMemory {
    node.client().status().await.unwrap().model_memory
}

async fn metrics(node: &Node) -> String {
    reqwest::get(format!("{}/metrics", node.metrics)).await.unwrap().text().await.unwrap()
}

fn node(budget: &str) -> NodeOptions {
    NodeOptions::dev().villain().set("engine.memory_budget", &format!("{budget:?}"))
}

#[tokio::test]
async fn a_model_on_demand_is_loaded_by_its_first_request_and_measured() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node, "lazy", 48, json!({"on_demand": true})).await;
    let lazy = state_is(&node, "lazy", 1, "unloaded").await;
    assert!(lazy.default && lazy.pid.is_none() && lazy.memory_bytes == 0, "{lazy:?}");
    let ready = node.get("/v2/health/ready").send().await.unwrap();
    assert!(ready.status().is_success(), "what is loaded on demand is no reason to be not ready");

    // Whoever comes while it is loaded waits too, and it is loaded once.
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let request = node.post("/v2/models/lazy/infer").json(&command("delay 1ms"));
        clients.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let lazy = served(&node, "lazy", 1).await.unwrap();
    assert_eq!(lazy.state, "ready");
    assert!((48 << 20..200 << 20).contains(&lazy.memory_bytes), "{} bytes", lazy.memory_bytes);
    let memory = memory(&node).await;
    assert_eq!((memory.loads_on_demand, memory.parked, memory.evictions), (1, 0, 0));
    assert_eq!((memory.devices[0].used, memory.devices[0].budget), (lazy.memory_bytes, None));
}

#[tokio::test]
async fn who_waits_for_a_load_waits_no_longer_than_its_deadline() {
    let node = Node::start(NodeOptions::dev().villain().set("http.request_timeout", "\"700ms\"")).await;
    let slow = models::villain("load_delay = \"2s\"", "slow");
    models::push(&node, "slow", slow.path(), &[]).await;
    deployment(&node, "slow", json!({"on_demand": true})).await;
    models::promote(&node, "slow", 1).await.unwrap();
    state_is(&node, "slow", 1, "unloaded").await;
    let start = Instant::now();
    let (status, body) = infer(&node, "slow", &command("delay 1ms")).await;
    assert_eq!(status, 504, "{body}");
    assert!((0.6..1.9).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    // The load goes on, and the next one profits.
    state_is(&node, "slow", 1, "ready").await;
    answers(&node, "slow").await;
}

#[tokio::test]
async fn the_least_used_goes_for_one_that_is_asked_for() {
    let node = Node::start(node("210MiB")).await;
    villain(&node, "seldom", 80, json!({})).await;
    state_is(&node, "seldom", 1, "ready").await;
    // It takes so long to load that the other is past its protected time before this one is.
    let often = models::villain("load_allocate = \"80MiB\"\nload_delay = \"3s\"", "often");
    models::deploy(&node, "often", often.path()).await;
    villain(&node, "new", 80, json!({"on_demand": true})).await;
    for _ in 0..20 {
        answers(&node, "often").await;
    }
    answers(&node, "seldom").await;
    answers(&node, "new").await;
    assert_eq!((state(&node, "often").await.as_str(), state(&node, "new").await.as_str()), ("ready", "ready"));
    eventually("the evicted one has ended", Duration::from_secs(5), async || (state(&node, "seldom").await == "unloaded").then_some(()))
        .await;
    let (memory, text) = (memory(&node).await, metrics(&node).await);
    assert_eq!(memory.evictions, 1);
    assert!(memory.devices[0].used <= 210 << 20, "{memory:?}");
    assert!(text.contains(r#"plinth_model_evictions_total{why="room"} 1"#), "{text}");
    assert!(text.contains(r#"plinth_memory_budget_bytes{device="cpu"} 220200960"#), "{text}");
    assert!(!text.contains(r#"model="seldom""#), "what is not loaded has no series");
    // It is evicted, not gone.
    answers(&node, "seldom").await;
}

#[tokio::test]
async fn pinned_models_stay_and_what_can_never_fit_is_refused() {
    let node = Node::start(node("200MiB")).await;
    villain(&node, "pinned", 80, json!({"pinned": true})).await;
    villain(&node, "popular", 80, json!({})).await;
    for model in ["pinned", "popular"] {
        state_is(&node, model, 1, "ready").await;
    }
    for _ in 0..10 {
        answers(&node, "popular").await;
    }
    villain(&node, "next", 80, json!({"on_demand": true})).await;
    answers(&node, "next").await;
    assert_eq!(state(&node, "pinned").await, "ready", "used never, and pinned");

    // Its size is known once it was loaded: then it makes room for nobody, and says why.
    villain(&node, "huge", 150, json!({"on_demand": true})).await;
    let start = Instant::now();
    let (status, body) = infer(&node, "huge", &command("delay 1ms")).await;
    assert_eq!(status, 503, "{body}");
    let text = body["error"].as_str().unwrap();
    assert!(text.contains("the budget is 200MiB") && text.contains("pinned") && text.contains("engine.memory_budget"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(infer(&node, "huge", &command("delay 1ms")).await.0, 503);
    assert!(start.elapsed() < Duration::from_secs(1), "at once now: {:?}", start.elapsed());
    assert_eq!(state(&node, "pinned").await, "ready");
    answers(&node, "next").await;
}

#[tokio::test]
async fn fifty_clients_on_three_models_with_room_for_one() {
    let node = Node::start(node("110MiB")).await;
    let names = ["a", "b", "c"];
    for model in names {
        villain(&node, model, 64, json!({"on_demand": true})).await;
        state_is(&node, model, 1, "unloaded").await;
    }
    let start = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..50usize {
        let http = node.http.clone();
        clients.spawn(async move {
            let agent = reqwest::Client::new();
            for turn in 0..4usize {
                let model = names[(client + turn * (1 + client % 2)) % names.len()];
                let answer = agent.post(format!("{http}/v2/models/{model}/infer")).json(&command("delay 1ms")).send().await.unwrap();
                let status = answer.status();
                assert!(status.is_success(), "{model}: {status} {}", answer.text().await.unwrap_or_default());
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("no request failed");
    }
    let (took, memory) = (start.elapsed(), memory(&node).await);
    // Each that is loaded stays for half a second at least, unless it turned out too large beside another.
    let most = took.as_millis() / 500 + 4;
    assert!(u128::from(memory.evictions) <= most, "{} evictions in {took:?}", memory.evictions);
    assert_eq!(memory.parked, 0);
}

#[tokio::test]
async fn an_eviction_drops_no_request() {
    let node = Node::start(node("110MiB")).await;
    for model in ["busy", "other"] {
        villain(&node, model, 64, json!({"on_demand": true})).await;
        state_is(&node, model, 1, "unloaded").await;
    }
    answers(&node, "busy").await;
    let held = node.post("/v2/models/busy/infer").json(&command("delay 2500ms"));
    let held = tokio::spawn(async move { held.send().await.unwrap().status().as_u16() });
    models::in_flight(&node, "busy", 1).await;
    answers(&node, "other").await;
    assert_eq!(held.await.unwrap(), 200);
    assert_ne!(state(&node, "busy").await, "ready");
    answers(&node, "busy").await;
}

#[tokio::test]
async fn what_nobody_asks_for_is_unloaded_and_comes_back() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node, "idle", 32, json!({"idle_seconds": 1})).await;
    let first = state_is(&node, "idle", 1, "ready").await.pid;
    let gone = state_is(&node, "idle", 1, "unloaded").await;
    assert!(gone.default && gone.memory_bytes == 0);
    answers(&node, "idle").await;
    let back = served(&node, "idle", 1).await.unwrap();
    assert!(back.state == "ready" && back.pid != first);
    let memory = memory(&node).await;
    assert_eq!((memory.idle_unloads, memory.loads_on_demand), (1, 1));
}

#[tokio::test]
async fn a_load_that_fails_tells_all_who_wait() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    let moody = models::villain("load_delay = \"500ms\"\nload_fail = \"no mood today\"", "moody");
    models::push(&node, "moody", moody.path(), &[]).await;
    deployment(&node, "moody", json!({"on_demand": true})).await;
    models::promote(&node, "moody", 1).await.unwrap();
    state_is(&node, "moody", 1, "unloaded").await;
    let mut clients = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..10 {
        let request = node.post("/v2/models/moody/infer").json(&command("delay 1ms"));
        clients.spawn(async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        });
    }
    while let Some(answer) = clients.join_next().await {
        let (status, text) = answer.unwrap();
        assert!(status == 503 && text.contains("no mood today"), "{status} {text}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_explicit_unload_is_not_undone_by_a_request() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node, "manual", 1, json!({"on_demand": true})).await;
    state_is(&node, "manual", 1, "unloaded").await;
    let change = async |verb: &str| node.post(&format!("/v2/repository/models/manual/{verb}")).send().await.unwrap().status().as_u16();
    assert_eq!(change("load").await, 200, "an explicit load needs no request");
    assert_eq!(state(&node, "manual").await, "ready");
    assert_eq!(change("unload").await, 200);
    let start = Instant::now();
    assert_eq!(infer(&node, "manual", &command("delay 1ms")).await.0, 503);
    assert!(start.elapsed() < Duration::from_secs(2) && state(&node, "manual").await == "absent");
    assert_eq!(change("load").await, 200);
    answers(&node, "manual").await;
}

#[tokio::test]
async fn a_swap_without_room_says_so_and_the_old_version_goes_on() {
    let node = Node::start(node("100MiB")).await;
    let version = |mark| models::villain("load_allocate = \"80MiB\"", mark);
    models::deploy(&node, "swap", version("one").path()).await;
    models::push(&node, "swap", version("two").path(), &["champion"]).await;
    let two = state_is(&node, "swap", 2, "failed").await;
    let why = two.reason.unwrap();
    assert!(why.starts_with("over_capacity") && why.contains("engine.memory_budget"), "{why}");
    let one = served(&node, "swap", 1).await.unwrap();
    assert!(one.default && one.state == "ready");
    answers(&node, "swap").await;
}

#[tokio::test]
async fn what_does_not_fit_at_the_start_waits_for_a_request() {
    let mut node = Node::start(node("1GiB")).await;
    for model in ["a", "b"] {
        villain(&node, model, 80, json!({})).await;
        state_is(&node, model, 1, "ready").await;
    }
    node.set("engine.memory_budget", "\"130MiB\"");
    node.restart().await;
    // What a version takes is learned again after a start; the budget holds as soon as it is known.
    eventually("one of them is loaded", Duration::from_secs(10), async || {
        let both = (state(&node, "a").await, state(&node, "b").await);
        let used = memory(&node).await.devices[0].used;
        ((both.0 == "ready") != (both.1 == "ready") && used <= 130 << 20).then_some(())
    })
    .await;
    answers(&node, "a").await;
    answers(&node, "b").await;
}
