//! MLServer with a custom runtime that calls ONNX Runtime, with and without its adaptive batching.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Server, free_port, place};
use crate::setup::Setup;

const RUNTIME: &str = include_str!("../../rivals/mlserver_runtime.py");

/// The model with adaptive batching, and the one without.
pub const VARIANTS: [&str; 2] = ["batched", "plain"];

/// A running MLServer with one model in both variants. Dropping it ends it.
pub struct MlServer {
    _server: Server,
    _directory: tempfile::TempDir,
    http: String,
}

impl MlServer {
    /// Starts it and waits until it is ready.
    pub async fn start(setup: &Setup, onnx: &[u8]) -> Result<Self> {
        let environment = place(setup, "mlserver")?;
        let directory = tempfile::tempdir()?;
        let (http, grpc, metrics) = (free_port()?, free_port()?, free_port()?);
        let settings = json!({ "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "debug": false });
        std::fs::write(directory.path().join("settings.json"), settings.to_string())?;
        for variant in VARIANTS {
            // A batch is full with as many requests as there are connections in the smaller measurement.
            let batching = if variant == "batched" { json!({ "max_batch_size": 16, "max_batch_time": 0.001 }) } else { json!({}) };
            model(variant, &batching, onnx, &directory.path().join(variant))?;
        }
        let mut command = Command::new(environment.join("bin/mlserver"));
        command.arg("start").arg(directory.path()).current_dir(directory.path());
        let mut server = Server::start(command, &directory.path().join("log"))?;
        let http = format!("http://127.0.0.1:{http}");
        server.ready(&format!("{http}/v2/health/ready")).await?;
        Ok(Self { _server: server, _directory: directory, http })
    }

    pub fn infer_url(&self, model: &str) -> String {
        format!("{}/v2/models/{model}/infer", self.http)
    }
}

fn model(name: &str, more: &Value, onnx: &[u8], to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let module = format!("runtime_{name}");
    std::fs::write(to.join(format!("{module}.py")), RUNTIME)?;
    std::fs::write(to.join("model.onnx"), onnx)?;
    let mut settings = json!({ "name": name, "implementation": format!("{module}.OnnxModel"), "parameters": { "uri": "./model.onnx" } });
    if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
        settings.extend(more.clone());
    }
    Ok(std::fs::write(to.join("model-settings.json"), settings.to_string())?)
}
