//! Models to serve, and ways to push and ask them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plinth_client::{Client, Options, Plan, Push, Secret, wire};
use plinth_engine::testing::onnx_model;
use plinth_types::{AliasName, DataType, Dim, ModelName, VersionNumber};
use serde_json::{Value, json};

use super::{Node, eventually, repository};

pub fn client(http: &str, key: Option<&str>) -> Client {
    Client::new(http, key.map(Secret::new), Options::default()).expect("a client")
}

pub fn name(text: &str) -> ModelName {
    text.parse().expect("a name")
}

pub fn number(n: u64) -> VersionNumber {
    VersionNumber::try_from(n).expect("a version")
}

/// A version of the digits example.
pub fn digits(version: u32) -> PathBuf {
    repository().join(format!("examples/digits/models/{version}"))
}

/// A directory of files for a version.
pub fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (path, bytes) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, bytes).expect("a file");
    }
    directory
}

/// An ONNX model whose output `y` is its input `x`.
pub fn identity(datatype: DataType, dims: &[Dim]) -> tempfile::TempDir {
    directory(&[("model.onnx", &onnx_model::identity(datatype, dims))])
}

/// A model that misbehaves on demand. Different `mark`s make different versions.
pub fn villain(settings: &str, mark: &str) -> tempfile::TempDir {
    directory(&[("villain.toml", settings.as_bytes()), ("mark.txt", mark.as_bytes())])
}

/// Pushes a directory; moves these aliases to it.
pub async fn push(node: &Node, model: &str, from: &Path, aliases: &[&str]) -> wire::Version {
    try_push(node, model, from, aliases).await.expect("the push succeeds")
}

pub async fn try_push(node: &Node, model: &str, from: &Path, aliases: &[&str]) -> plinth_client::Result<wire::Version> {
    let plan = Plan::read(from, &plinth_client::plan::Limits::default(), &|_| {}).expect("a plan");
    let aliases = aliases.iter().map(|a| a.parse::<AliasName>().expect("an alias")).collect();
    let push = Push { aliases, ..Push::default() };
    Ok(node.client().push(&name(model), &plan, push, |_| {}).await?.version)
}

/// Pushes as champion and waits until that version answers.
pub async fn deploy(node: &Node, model: &str, from: &Path) -> wire::Version {
    let version = push(node, model, from, &["champion"]).await;
    default_is(node, model, version.number.get()).await;
    version
}

pub async fn promote(node: &Node, model: &str, version: u64) -> plinth_client::Result<wire::Model> {
    let to = wire::MoveAlias { version: number(version), expect: None, permission: None, comment: String::new() };
    node.client().move_alias(&name(model), &AliasName::champion(), &to).await
}

/// The node's report of a version, if it has one.
pub async fn served(node: &Node, model: &str, version: u64) -> Option<wire::ServedVersion> {
    let status = node.client().status().await.ok()?;
    status.models.into_iter().find(|m| m.model.as_str() == model && m.version.get() == version)
}

/// Waits until this version answers requests that name none.
pub async fn default_is(node: &Node, model: &str, version: u64) {
    eventually(&format!("{model}/{version} answers"), Duration::from_secs(30), async || {
        served(node, model, version).await.filter(|s| s.default && s.state == "ready").map(|_| ())
    })
    .await;
}

/// Waits until the version is in this state.
pub async fn state_is(node: &Node, model: &str, version: u64, state: &str) -> wire::ServedVersion {
    eventually(&format!("{model}/{version} is {state}"), Duration::from_secs(30), async || {
        served(node, model, version).await.filter(|s| s.state == state)
    })
    .await
}

/// Sends an inference as JSON; status and body.
pub async fn infer(node: &Node, model: &str, body: &Value) -> (u16, Value) {
    let answer = node.post(&format!("/v2/models/{model}/infer")).json(body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

/// Waits until a version has a request in hand, by the node's own metric.
pub async fn in_flight(node: &Node, model: &str, version: u64) {
    let line = format!(r#"plinth_inference_pending{{tenant="default",model="{model}",version="{version}"}} 1"#);
    eventually(&format!("{model}/{version} has a request in hand"), Duration::from_secs(5), async || {
        let text = reqwest::get(format!("{}/metrics", node.metrics)).await.ok()?.text().await.ok()?;
        text.lines().any(|l| l == line).then_some(())
    })
    .await;
}

/// The body that asks an identity model of FP32 for these values.
pub fn floats(values: &[f32]) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, values.len()], "data": values}]})
}

/// The body that gives a villain a command.
pub fn command(text: &str) -> Value {
    json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]},
        {"name": "command", "datatype": "BYTES", "shape": [1], "data": [text]},
    ], "outputs": [{"name": "x"}]})
}

/// The labelled images of the digits example.
pub fn images() -> Vec<(Vec<f32>, u8)> {
    let text = std::fs::read(repository().join("examples/digits/images.json")).expect("the images");
    let list: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    list.iter()
        .map(|image| {
            let pixels = image["pixels"].as_array().expect("pixels").iter().map(|p| p.as_f64().expect("a number") as f32).collect();
            (pixels, u8::try_from(image["label"].as_u64().expect("a label")).expect("a digit"))
        })
        .collect()
}

/// Waits until the node has taken notice of so many deaths of runners: a caller may have its answer a moment earlier.
pub async fn deaths_are_noticed(node: &Node, deaths: usize) {
    let noticed = || node.log().matches("runner died, starting it again").count() >= deaths;
    eventually("the deaths are noticed", Duration::from_secs(10), async || noticed().then_some(())).await;
}
