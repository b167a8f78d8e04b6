//! The promises of the foundation, from the outside: register, sign, verify, serve, swap, survive.

use std::time::Duration;

use plinth_types::{DataType, Dim};
use serde_json::{Value, json};

use crate::support::models::{self, floats, infer};
use crate::support::{Node, NodeOptions, eventually};

#[tokio::test]
async fn the_admin_key_is_shown_once_and_is_needed() {
    let mut node = Node::start(NodeOptions::default()).await;
    let key = node.key().expect("the key was printed").to_owned();
    assert!(node.get("/v1/status").send().await.unwrap().status().is_success());

    let anonymous = reqwest::get(format!("{}/v1/status", node.http)).await.unwrap();
    assert_eq!(anonymous.status(), 401);
    assert_eq!(anonymous.headers()["www-authenticate"], "Bearer");
    let problem: Value = anonymous.json().await.unwrap();
    assert_eq!(problem["reason"], "credentials_missing");

    node.restart().await;
    assert_eq!(node.log().matches(&key).count(), 1, "the key is printed once, ever");
    assert!(node.get("/v1/status").send().await.unwrap().status().is_success(), "and goes on working");
    let files = walk(&node.data_dir());
    let secret = key.rsplit('_').next().unwrap();
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "the secret lies in {}", file.display());
    }
}

#[tokio::test]
async fn a_first_start_that_fails_loses_no_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::prepare(NodeOptions::default().set("listen.http", &format!("{:?}", taken.local_addr().unwrap().to_string())));
    node.spawn();
    let status = node.wait_end().await;
    assert!(!status.success());
    assert!(node.log().contains("another program has the port"), "{}", node.log());
    node.set("listen.http", "\"127.0.0.1:0\"");
    node.spawn();
    node.wait_ready().await;
    assert!(node.key().is_some(), "{}", node.log());
    assert!(node.get("/v1/status").send().await.unwrap().status().is_success());

    let mut second = Node::prepare(NodeOptions::default().set("node.data_dir", &format!("{:?}", node.data_dir())));
    second.spawn();
    assert!(!second.wait_end().await.success());
    assert!(second.log().contains("another node is running"), "{}", second.log());
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

#[tokio::test]
async fn real_digits_are_recognised() {
    let node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(2)).await;
    let (mut right, images) = (0, models::images());
    assert!(images.len() >= 200);
    for (pixels, label) in &images {
        let body = json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": pixels}]});
        let (status, answer) = infer(&node, "digits", &body).await;
        assert_eq!(status, 200, "{answer}");
        let outputs = answer["outputs"].as_array().unwrap();
        let found = outputs.iter().find(|o| o["name"] == "label").unwrap()["data"][0].as_u64().unwrap();
        right += usize::from(found == u64::from(*label));
    }
    assert!(right * 100 >= images.len() * 95, "{right} of {} are right", images.len());
}

#[tokio::test]
async fn a_promotion_under_load_fails_no_request() {
    let node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    models::push(&node, "digits", &models::digits(2), &[]).await;

    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let url = format!("{}/v2/models/digits/infer", node.http);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stop, url) = (stop.clone(), url.clone());
        clients.spawn(async move {
            let (client, mut versions) = (reqwest::Client::new(), std::collections::BTreeMap::<String, u32>::new());
            let body = json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": vec![3.0; 64]}]});
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = client.post(&url).json(&body).send().await.expect("an answer");
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
                let answer: Value = answer.json().await.unwrap();
                *versions.entry(answer["model_version"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            versions
        });
    }
    // There and back again: each move loads, warms, swaps and lets the old one go.
    for version in [2, 1, 2] {
        models::promote(&node, "digits", version).await.unwrap();
        models::default_is(&node, "digits", version).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    while let Some(versions) = clients.join_next().await {
        versions.expect("no request failed").into_iter().for_each(|(v, n)| *seen.entry(v).or_default() += n);
    }
    assert!(seen["1"] > 0 && seen["2"] > 0, "{seen:?}");
    eventually("the old runner is gone", Duration::from_secs(5), async || models::served(&node, "digits", 1).await.is_none().then_some(()))
        .await;
}

#[tokio::test]
async fn roll_back_and_undo_bring_the_old_version_back() {
    let node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    models::deploy(&node, "digits", &models::digits(2)).await;
    let how = plinth_client::wire::RollBack { permission: None, comment: "too clever".into() };
    node.client().roll_back(&models::name("digits"), &how).await.unwrap();
    models::default_is(&node, "digits", 1).await;

    let audit = node.client().audit(Some("digits"), &plinth_client::Paging::default()).await.unwrap();
    let entry = &audit.items[0];
    assert_eq!(entry.comment, "too clever");
    node.client().undo(entry.revision).await.unwrap();
    models::default_is(&node, "digits", 2).await;
}

#[tokio::test]
async fn a_version_in_use_is_not_deleted_and_a_retired_one_is_not_served() {
    let node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    models::deploy(&node, "digits", &models::digits(2)).await;
    let (client, digits) = (node.client(), models::name("digits"));
    for version in [1, 2] {
        let error = client.delete_version(&digits, models::number(version)).await.unwrap_err();
        assert_eq!(error.reason(), Some("version_in_use"), "{error}");
    }
    let other = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(4)]);
    let third = models::push(&node, "digits", other.path(), &[]).await.number;
    client.retire_version(&digits, third).await.unwrap();
    let error = models::promote(&node, "digits", third.get()).await.unwrap_err();
    assert_eq!(error.reason(), Some("version_retired"), "{error}");
    client.restore_version(&digits, third).await.unwrap();
    client.delete_version(&digits, third).await.unwrap();
}

#[tokio::test]
async fn without_its_database_a_node_starts_and_serves() {
    let mut node = Node::start(NodeOptions::default()).await;
    let x = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(3)]);
    models::deploy(&node, "x", x.path()).await;
    let body = floats(&[1.0, 2.0, 3.0]);
    assert_eq!(infer(&node, "x", &body).await.0, 200);

    // The snapshot is on disk; the database is now somewhere that nobody answers.
    node.stop().await;
    node.set("metadata.url", "\"postgres://nobody@127.0.0.1:1/none\"");
    let started = std::time::Instant::now();
    node.spawn();
    node.wait_ready().await;
    assert!(started.elapsed() < Duration::from_secs(4), "a database that is away does not hold the start: {:?}", started.elapsed());
    models::default_is(&node, "x", 1).await;
    let (status, answer) = infer(&node, "x", &body).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([1.0, 2.0, 3.0])));
    let status = node.client().status().await.unwrap();
    assert!(!status.snapshot.fresh);
    let edit = node.request(reqwest::Method::PATCH, "/v1/models/x").json(&json!({"description": "later"})).send().await.unwrap();
    assert_eq!(edit.status(), 503);
    assert!(edit.headers().contains_key("retry-after"));
    assert_eq!(edit.json::<Value>().await.unwrap()["reason"], "store_unavailable");

    // And when it is back, so is everything.
    node.stop().await;
    node.set("metadata.url", "\"sqlite:\"");
    node.spawn();
    node.wait_ready().await;
    models::push(&node, "x", &models::digits(1), &[]).await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight() {
    let mut node = Node::start(NodeOptions::dev().villain()).await;
    models::deploy(&node, "slow", models::villain("", "1").path()).await;
    let url = format!("{}/v2/models/slow/infer", node.http);
    let request = tokio::spawn(async move { reqwest::Client::new().post(url).json(&models::command("delay 700ms")).send().await });
    models::in_flight(&node, "slow", 1).await;
    assert_eq!(node.stop().await, Some(0), "{}", node.log());
    assert_eq!(request.await.unwrap().expect("answered").status(), 200);
    assert!(!node.data_dir().join("node.json").exists());
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let node = Node::start(NodeOptions::dev()).await;
    let x = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(1)]);
    models::deploy(&node, "x", x.path()).await;
    for _ in 0..5 {
        infer(&node, "x", &floats(&[1.0])).await;
    }
    infer(&node, "x", &json!({"inputs": []})).await;
    let text = reqwest::get(format!("{}/metrics", node.metrics)).await.unwrap().text().await.unwrap();
    let value = |start: &str| -> f64 {
        let line = text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let labels = r#"{tenant="default",model="x",version="1""#;
    assert_eq!(value(&format!("plinth_inference_requests_total{labels},outcome=\"ok\"")), 5.0);
    assert!(value(&format!("plinth_inference_duration_seconds_count{labels}")) >= 5.0);
    assert_eq!(value("plinth_models_loaded"), 1.0);
    assert!(value("plinth_process_resident_memory_bytes") > 1e6);
    assert_eq!(value("plinth_runner_restarts_total"), 0.0);
}

#[tokio::test]
async fn an_open_node_listens_on_loopback_alone_and_minds_its_host() {
    let mut node = Node::prepare(NodeOptions::dev().set("listen.http", "\"0.0.0.0:0\""));
    node.spawn();
    let status = node.wait_end().await;
    assert!(!status.success());
    assert!(node.log().contains("loopback"), "{}", node.log());

    let node = Node::start(NodeOptions::dev()).await;
    for header in ["host", "origin"] {
        let hostile = if header == "host" { "rebound.example" } else { "http://rebound.example" };
        let answer = node.get("/v1/models").header(header, hostile).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{header}");
    }
    assert_eq!(node.get("/v1/models").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn every_route_but_the_probes_asks_for_a_key() {
    let node = Node::start(NodeOptions::default()).await;
    let routes: Vec<plinth_client::wire::RouteInfo> = node.get("/v1/routes").send().await.unwrap().json().await.unwrap();
    assert!(routes.len() > 40, "{}", routes.len());
    let client = reqwest::Client::new();
    for route in routes {
        let path = route.pattern.replace("{model}", "m").replace("{version}", "1").replace("{*path}", "f").replace(['{', '}'], "");
        let method = reqwest::Method::from_bytes(route.method.as_bytes()).unwrap();
        let request = client.request(method, format!("{}{path}", node.http)).timeout(Duration::from_secs(5));
        let status = request.send().await.unwrap().status().as_u16();
        if route.access == "public" {
            assert!(path.starts_with("/v2/health/"), "{path} is public");
            assert_ne!(status, 401, "{path}");
        } else {
            assert_eq!(status, 401, "{} {path}", route.method);
        }
    }
    let unknown = client.get(format!("{}/v3/nothing", node.http)).send().await.unwrap();
    assert_eq!(unknown.status(), 401, "not even whether a route exists");
}

#[tokio::test]
async fn a_key_for_inference_changes_nothing() {
    let node = Node::start(NodeOptions::default()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    let new = plinth_client::wire::NewKey {
        role: plinth_client::wire::Role::Developer,
        description: "app".into(),
        expires_at: None,
        models: vec![],
    };
    let key = node.client().create_key(&new).await.unwrap();
    let client = models::client(&node.http, Some(&key.secret));
    let metadata =
        eventually("the key is known", Duration::from_secs(5), async || client.model_metadata(&models::name("digits"), None).await.ok())
            .await;
    assert_eq!(metadata.inputs[0].name(), "image");
    let status = client.status().await.unwrap();
    assert!(!status.objects.contains('/') && node.client().status().await.unwrap().objects.contains('/'), "paths are the operator's");
    let error = client.delete_model(&models::name("digits")).await.unwrap_err();
    assert_eq!(error.reason(), Some("not_permitted"), "{error}");
    let unload = format!("{}/v2/repository/models/digits/unload", node.http);
    let answer = reqwest::Client::new().post(unload).bearer_auth(&key.secret).send().await.unwrap();
    assert_eq!(answer.status(), 403);

    node.client().delete_key(&key.key.id.parse().unwrap()).await.unwrap();
    eventually("the key is refused", Duration::from_secs(5), async || {
        client
            .model_metadata(&models::name("digits"), None)
            .await
            .is_err_and(|e| e.reason() == Some("credentials_invalid") || e.status() == Some(401))
            .then_some(())
    })
    .await;
}
