//! Filters on a whole node: pushed, masking, replaced under load, signed, misbehaving, removed.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::echo::Echo;
use crate::support::{Node, NodeOptions, eventually, repository};

/// The example filter, as `make setup` builds it.
fn mask() -> PathBuf {
    let module = repository().join(".plinth/filters/mask.wasm");
    assert!(module.exists(), "the example filters are missing; run `make setup`");
    module
}

/// Runs the command line against a node; whether it ended well, and what it wrote.
fn plinth(node: &Node, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command.args(["--server", &node.http]).args(arguments).env_clear();
    if let Some(key) = node.key() {
        command.env("PLINTH_KEY", key);
    }
    let done = command.output().expect("the binary starts");
    (done.status.success(), format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)))
}

fn must(node: &Node, arguments: &[&str]) -> String {
    let (good, said) = plinth(node, arguments);
    assert!(good, "{arguments:?}: {said}");
    said
}

async fn ask(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Puts a route into force that passes these filters to the upstream.
async fn route(node: &Node, echo: &Echo, filters: &[&str]) -> (u16, Value) {
    let resources = json!([
        {"kind": "upstream", "name": "echo", "spec": {"endpoints": [{"url": echo.url}], "allow_networks": ["127.0.0.0/8"]}},
        {"kind": "route", "name": "chat", "spec": {
            "matches": {"path": {"prefix": "/chat"}}, "targets": [{"to": {"upstream": "echo"}}], "filters": filters
        }}
    ]);
    ask(node.post("/v1/apply").json(&json!({"resources": resources}))).await
}

fn module(node: &Node, name: &str, text: &str) -> String {
    let path = node.data_dir().join(format!("{name}.wasm"));
    std::fs::write(&path, wat::parse_str(text).expect("a module")).expect("a file");
    path.to_string_lossy().into_owned()
}

fn misbehaving(does: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1)
            (func (export "plinth_abi") (result i32) i32.const 1)
            (func (export "plinth_alloc") (param i32) (result i32) i32.const 1024)
            (func (export "plinth_on_request") (param i32 i32) (result i64) {does} i64.const 0))"#
    )
}

#[tokio::test]
async fn the_example_masks_and_is_replaced_and_removed_under_load() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Echo::start().await;
    let mask = mask();
    let mask = mask.to_str().expect("a path");
    let said = must(&node, &["filter", "push", mask, "--name", "mask", "--timeout-ms", "50"]);
    assert!(said.contains("mask@1 is new"), "{said}");
    assert!(must(&node, &["filter", "push", mask, "--name", "mask", "--timeout-ms", "50"]).contains("is just this already"));
    let (status, said) = route(&node, &echo, &["mask"]).await;
    assert_eq!(status, 200, "{said}");

    let body = json!({"prompt": "I am Ann, ann@example.org, +49 151 1234-5678", "n": 4_915_112_345_678_u64});
    let (status, said) = ask(node.post("/chat").json(&body)).await;
    assert_eq!(status, 200, "{said}");
    let reached: Value = serde_json::from_str(said["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(reached, json!({"prompt": "I am Ann, [email], [phone]", "n": 4_915_112_345_678_u64}));
    let (status, _) = ask(node.post("/chat").header("content-type", "text/plain").body("ann@example.org")).await;
    assert_eq!(status, 415, "what cannot be read is not passed on");

    // Replaced, pinned, taken off and put back under load: nobody notices but by the words.
    let stop = Arc::new(AtomicBool::new(false));
    let (asked, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, asked, failed) = (stop.clone(), asked.clone(), failed.clone());
            let request = node.post("/chat").json(&body);
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let (status, said) = ask(request.try_clone().expect("a body in memory")).await;
                    asked.fetch_add(1, Ordering::SeqCst);
                    if status != 200 {
                        failed.fetch_add(1, Ordering::SeqCst);
                        eprintln!("{status}: {said}");
                    }
                    // The compiler works behind requests, and shall have its turn also on a small machine.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    for (version, words) in [(2, "***"), (3, "###"), (4, "---")] {
        must(&node, &["filter", "push", mask, "--name", "mask", "--timeout-ms", "50", "--set", &format!("email={words}")]);
        let seen = eventually("the new version is in force", Duration::from_secs(20), async || {
            let (_, said) = ask(node.post("/chat").json(&body)).await;
            said["body"].as_str().is_some_and(|body| body.contains(words)).then_some(())
        });
        seen.await;
        assert_eq!(route(&node, &echo, &[&format!("mask@{version}")]).await.0, 200);
        assert_eq!(route(&node, &echo, &[]).await.0, 200);
        assert_eq!(route(&node, &echo, &["mask"]).await.0, 200);
    }
    let (good, said) = plinth(&node, &["filter", "delete", "mask", "--yes"]);
    assert!(!good && said.contains("route 'chat'"), "{said}");
    must(&node, &["filter", "delete", "mask@4"]);
    assert_eq!(route(&node, &echo, &[]).await.0, 200);
    must(&node, &["filter", "delete", "mask", "--yes"]);
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("a caller");
    }
    assert_eq!(failed.load(Ordering::SeqCst), 0, "of {}", asked.load(Ordering::SeqCst));
    assert!(asked.load(Ordering::SeqCst) > 50);
    assert!(must(&node, &["filter", "list"]).contains("no filters"));
    // Each change is in the audit, and numbers are not used again.
    let (_, audit) = ask(node.get("/v1/audit?limit=200")).await;
    let actions: Vec<_> = audit["items"].as_array().expect("entries").iter().filter_map(|entry| entry["action"].as_str()).collect();
    for action in ["filter.push", "filter.delete_version", "filter.delete"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
    let again = must(&node, &["filter", "push", mask, "--name", "mask"]);
    assert!(again.contains("mask@5 is new"), "{again}");
}

#[tokio::test]
async fn misbehaviour_costs_the_request_and_nobody_else() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Echo::start().await;
    for (name, does, policy) in [("loop", "(loop br 0)", "refuse"), ("crash", "unreachable", "refuse"), ("meek", "(loop br 0)", "skip")] {
        let file = module(&node, name, &misbehaving(does));
        must(&node, &["filter", "push", &file, "--name", name, "--timeout-ms", "5", "--on-error", policy]);
    }
    assert_eq!(route(&node, &echo, &["crash"]).await.0, 200);
    let (status, said) = ask(node.post("/chat").body("{}")).await;
    assert_eq!((status, said["reason"].as_str()), (502, Some("filter_failed")), "{said}");
    assert_eq!(route(&node, &echo, &["loop"]).await.0, 200);
    let mut reasons = Vec::new();
    for _ in 0..20 {
        let (_, said) = ask(node.post("/chat").body("{}")).await;
        reasons.push(said["reason"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!((reasons[0].as_str(), reasons[19].as_str()), ("filter_failed", "filter_unavailable"), "it is left alone: {reasons:?}");
    assert!(must(&node, &["filter", "show", "loop"]).contains("held"));
    assert_eq!(route(&node, &echo, &["meek"]).await.0, 200);
    let (status, said) = ask(node.post("/chat").body("{}")).await;
    assert_eq!((status, said["body"].as_str()), (200, Some("{}")), "{said}");
    assert_eq!(echo.asked(), 1);
    let metrics = reqwest::get(format!("{}/metrics", node.metrics)).await.expect("metrics").text().await.expect("a text");
    assert!(metrics.contains(r#"plinth_filter_calls_total{tenant="default",filter="crash",outcome="trap"} 1"#), "{metrics}");

    // What is no filter does not get in, and nothing is half applied.
    let file =
        module(&node, "wasi", r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#);
    let (good, said) = plinth(&node, &["filter", "push", &file, "--name", "wasi"]);
    assert!(!good && said.contains("imports 'wasi_snapshot_preview1.fd_write'"), "{said}");
    let start = misbehaving("nop").replacen("(module", "(module (func $s (loop br 0)) (start $s)", 1);
    let file = module(&node, "start", &start);
    let (good, said) = plinth(&node, &["filter", "push", &file, "--name", "start"]);
    assert!(!good && said.contains("started on trial"), "{said}");
    assert_eq!(ask(node.get("/v1/filters/wasi")).await.0, 404);
    let (status, said) = route(&node, &echo, &["wasi"]).await;
    assert_eq!(status, 404, "{said}");
    let (status, said) = route(&node, &echo, &["crash@9"]).await;
    assert_eq!(status, 404, "{said}");
    let filter = json!({"resources": [{"kind": "filter", "name": "f", "spec": {}}]});
    let (status, said) = ask(node.post("/v1/apply").json(&filter)).await;
    assert!(status == 422 && said.to_string().contains("plinth filter push"), "{said}");
    assert!(node.client().status().await.is_ok());
}

#[tokio::test]
async fn only_what_is_signed_runs_where_that_is_asked_for() {
    let keys = tempfile::tempdir().expect("a directory");
    let (key, stranger) = (keys.path().join("release.pem"), keys.path().join("stranger.pem"));
    for prefix in [key.with_extension(""), stranger.with_extension("")] {
        let made = Command::new(env!("CARGO_BIN_EXE_plinth")).args(["key", "new", "--out"]).arg(prefix).output().expect("a key");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let public = keys.path().join("release.pub.pem");
    let options = NodeOptions::default().set("signing.require_signature", "true").set("signing.trusted_keys", &format!("[{public:?}]"));
    let mut node = Node::start(options).await;
    let echo = Echo::start().await;
    let mask = mask();
    let mask = mask.to_str().expect("a path");
    let (good, said) = plinth(&node, &["filter", "push", mask, "--name", "mask"]);
    assert!(!good && said.contains("is not signed"), "{said}");
    let (good, said) = plinth(&node, &["filter", "push", mask, "--name", "mask", "--sign-key", stranger.to_str().unwrap()]);
    assert!(!good && said.contains("it is not trusted here"), "{said}");
    let said = must(&node, &["filter", "push", mask, "--name", "mask", "--sign-key", key.to_str().unwrap(), "--timeout-ms", "50"]);
    assert!(said.contains("signed   yes"), "{said}");
    assert_eq!(route(&node, &echo, &["mask"]).await.0, 200);
    let body = json!({"text": "ann@example.org"});
    let (status, said) = ask(node.post("/chat").json(&body)).await;
    assert!(status == 200 && said["body"].as_str().is_some_and(|body| body.contains("[email]")), "{said}");

    // The same signature over other settings is none; and it names this filter alone.
    let shown = node.get("/v1/resources/filter/mask").send().await.expect("an answer").json::<Value>().await.expect("JSON");
    let version = &shown["spec"]["versions"]["1"];
    let push = |name: &str, settings: Value| {
        let new = json!({"module": version["module"], "size": version["size"], "settings": settings, "signature": version["signature"]});
        ask(node.post(&format!("/v1/filters/{name}/versions")).json(&new))
    };
    let (status, said) = push("mask", json!({"timeout_ms": 51})).await;
    assert_eq!((status, said["reason"].as_str()), (422, Some("content_altered")), "{said}");
    let (status, said) = push("other", json!({"timeout_ms": 50})).await;
    assert_eq!((status, said["reason"].as_str()), (422, Some("signature_invalid")), "{said}");

    // It runs after a restart without the object store, from the node's own copy, and altered copies do not count.
    node.stop().await;
    let objects = node.data_dir().join("objects");
    std::fs::rename(&objects, node.data_dir().join("away")).expect("it moves");
    node.spawn();
    node.wait_ready().await;
    let (status, said) = ask(node.post("/chat").json(&body)).await;
    assert!(status == 200 && said["body"].as_str().is_some_and(|body| body.contains("[email]")), "{said}");
}
