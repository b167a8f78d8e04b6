//! The bodies that say what the server and a model are.

use plinth_types::TensorSpec;
use serde::Serialize;

/// The extensions that this server always has, by the protocol's names.
pub const EXTENSIONS: &[&str] = &[
    "classification",
    "sequence",
    "sequence(string_id)",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
    "generate",
];

/// The extension that is there when it is switched on.
pub const SYSTEM_SHARED_MEMORY: &str = "system_shared_memory";

/// `GET /v2`.
#[derive(Debug, Serialize)]
pub struct ServerMetadata<'a> {
    /// The server's name. Public examples check that it is `triton`, so it can be set.
    pub name: &'a str,
    /// The release.
    pub version: &'a str,
    /// See [`EXTENSIONS`] and [`SYSTEM_SHARED_MEMORY`].
    pub extensions: Vec<&'a str>,
}

/// `GET /v2/health/live`. Triton's clients look at the status only.
#[derive(Debug, Serialize)]
pub struct ServerLive {
    /// Whether the server is alive.
    pub live: bool,
}

/// `GET /v2/health/ready`. The protocol's text calls the member `live` here too; KServe's client reads `ready`.
#[derive(Debug, Serialize)]
pub struct ServerReady {
    /// Whether the server is ready.
    pub live: bool,
    /// The same.
    pub ready: bool,
}

/// `GET /v2/models/{m}[/versions/{v}]/ready`.
#[derive(Debug, Serialize)]
pub struct ModelReady<'a> {
    /// The model.
    pub name: &'a str,
    /// Whether it answers.
    pub ready: bool,
}

/// `GET /v2/models/{m}[/versions/{v}]`.
#[derive(Debug, Serialize)]
pub struct ModelMetadata<'a> {
    /// The model.
    pub name: &'a str,
    /// The versions that answer.
    pub versions: Vec<String>,
    /// Such as `onnxruntime_onnx`.
    pub platform: &'a str,
    /// What it takes; a leading -1 is the batch when the model has one.
    pub inputs: &'a [TensorSpec],
    /// What it gives.
    pub outputs: &'a [TensorSpec],
}

/// One element of the answer to `POST /v2/repository/index`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// The version; absent for a model of which nothing was ever loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// See [`IndexState`].
    pub state: IndexState,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Where a version stands, in the words of the model repository extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IndexState {
    /// It answers.
    Ready,
    /// It does not answer.
    Unavailable,
    /// It is being loaded.
    Loading,
    /// It is being unloaded.
    Unloading,
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{DataType, Dim};

    #[test]
    fn bodies_have_the_protocols_shape() {
        let spec = |name| TensorSpec::new(name, DataType::Fp32, vec![Dim::Any, Dim::Fixed(4)]).unwrap();
        let (inputs, outputs) = ([spec("x")], [spec("y")]);
        let body =
            ModelMetadata { name: "m", versions: vec!["3".into()], platform: "onnxruntime_onnx", inputs: &inputs, outputs: &outputs };
        let expected = r#"{"name":"m","versions":["3"],"platform":"onnxruntime_onnx","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,4]}]}"#;
        assert_eq!(serde_json::to_string(&body).unwrap(), expected);
        let entries = [
            IndexEntry { name: "m".into(), version: Some("3".into()), state: IndexState::Ready, reason: String::new() },
            IndexEntry { name: "n".into(), version: None, state: IndexState::Unavailable, reason: "unloaded".into() },
        ];
        let expected = r#"[{"name":"m","version":"3","state":"READY"},{"name":"n","state":"UNAVAILABLE","reason":"unloaded"}]"#;
        assert_eq!(serde_json::to_string(&entries).unwrap(), expected);
    }
}
