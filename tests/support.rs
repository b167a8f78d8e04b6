//! What whole-system tests share: a node as a child process, and models to serve on it.

pub mod echo;
pub mod models;
pub mod node;

pub use node::{Node, NodeOptions};

use std::path::PathBuf;
use std::time::Duration;

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// ONNX Runtime's shared library.
pub fn onnxruntime() -> PathBuf {
    let library = repository().join(".plinth/lib/libonnxruntime.so");
    assert!(library.exists(), "ONNX Runtime is missing; run `make setup`");
    library
}

/// Asks until the answer is there; fails naming what was waited for.
pub async fn eventually<T>(what: &str, deadline: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
