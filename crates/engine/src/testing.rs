//! What tests of this and of other crates need in order to run models: directories, specifications, tiny ONNX files.
//!
//! Only with the feature `testing`. Functions here panic where a test would unwrap.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, exported for tests")]

pub mod onnx_model;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use plinth_types::tensor::push_byte_element;
use plinth_types::{ByteSize, DataType, Digest, Shape, Tensor};

use crate::backend::onnx::Library;
use crate::spec::{BackendKind, FileSpec, RunnerSpec};

/// The shared library of ONNX Runtime that `make setup` has fetched.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn onnxruntime() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.plinth/lib/libonnxruntime.so");
    assert!(path.is_file(), "ONNX Runtime's library is not there: run `make setup`");
    path
}

/// The library in this very process, for tests of the backend itself. Opened once.
///
/// # Panics
/// When it cannot be opened.
pub fn onnx_library() -> &'static Library {
    static LIBRARY: std::sync::OnceLock<Library> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(|| Library::open(&onnxruntime()).unwrap())
}

/// A version's files in a directory that goes when this goes.
pub struct ModelDirectory {
    directory: tempfile::TempDir,
    backend: BackendKind,
    files: Vec<FileSpec>,
}

impl ModelDirectory {
    /// A villain; see [`crate::backend::villain`] for the text.
    #[must_use]
    pub fn villain(toml: &str) -> Self {
        Self::new(BackendKind::Villain, &[(BackendKind::Villain.model_file(), toml.as_bytes())])
    }

    /// An ONNX model from the bytes of its file.
    #[must_use]
    pub fn onnx(model: &[u8]) -> Self {
        Self::new(BackendKind::Onnx, &[(BackendKind::Onnx.model_file(), model)])
    }

    /// A version of several files.
    ///
    /// # Panics
    /// When the disk does not play along.
    #[must_use]
    pub fn new(backend: BackendKind, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = files.iter().map(|(path, bytes)| {
            let spec = FileSpec { path: path.parse().unwrap(), size: bytes.len() as u64, digest: Digest::of(bytes) };
            let place = spec.path.under(directory.path());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, bytes).unwrap();
            spec
        });
        let files = files.collect();
        Self { directory, backend, files }
    }

    /// Where the files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What to start a runner from. `program` is one whose `main` calls [`crate::runner_main`].
    #[must_use]
    pub fn spec(&self, program: impl Into<PathBuf>) -> RunnerSpec {
        RunnerSpec {
            program: program.into(),
            label: "test/model/1".to_owned(),
            backend: self.backend,
            directory: self.directory.path().to_owned(),
            files: self.files.clone(),
            onnxruntime: (self.backend == BackendKind::Onnx).then(onnxruntime),
            threads: 1,
            instances: 1,
            provider: crate::Provider::Cpu,
            shared_memory: ByteSize::mib(64),
            memory: None,
            cpu_seconds: None,
            load_timeout: Duration::from_secs(20),
            execution_timeout: Duration::from_secs(10),
        }
    }
}

/// A tensor from its parts, or a panic.
///
/// # Panics
/// When they do not fit.
#[must_use]
pub fn tensor(name: &str, datatype: DataType, dims: &[u64], data: impl Into<Bytes>) -> Tensor {
    Tensor::new(name, datatype, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
}

/// A one-dimensional FP32 tensor.
#[must_use]
pub fn floats(name: &str, values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, DataType::Fp32, &[values.len() as u64], bytes)
}

/// A one-dimensional BYTES tensor.
///
/// # Panics
/// When an element is 4 GiB long.
#[must_use]
pub fn strings(name: &str, values: &[&str]) -> Tensor {
    let mut bytes = Vec::new();
    for value in values {
        push_byte_element(&mut bytes, value.as_bytes()).unwrap();
    }
    tensor(name, DataType::Bytes, &[values.len() as u64], bytes)
}

/// The villain's input `command`.
#[must_use]
pub fn commands(commands: &[&str]) -> Tensor {
    strings(crate::backend::villain::COMMAND, commands)
}

/// Some `elements` of a type, not all the same, in wire form.
#[must_use]
pub fn sample(datatype: DataType, elements: usize) -> Vec<u8> {
    match datatype {
        DataType::Bool => (0..elements).map(|i| u8::from(i % 2 == 0)).collect(),
        DataType::Bytes => {
            let mut bytes = Vec::new();
            (0..elements).for_each(|i| push_byte_element(&mut bytes, format!("é{i}").as_bytes()).unwrap_or_default());
            bytes
        }
        DataType::Fp16 => (0..elements).flat_map(|i| half::f16::from_f32(i as f32).to_le_bytes()).collect(),
        DataType::Bf16 => (0..elements).flat_map(|i| half::bf16::from_f32(i as f32).to_le_bytes()).collect(),
        DataType::Fp32 => (0..elements).flat_map(|i| (i as f32).to_le_bytes()).collect(),
        DataType::Fp64 => (0..elements).flat_map(|i| (i as f64).to_le_bytes()).collect(),
        integer => {
            let size = integer.element_size().unwrap_or(1);
            (0..elements).flat_map(|i| i.to_le_bytes()[..size].to_vec()).collect()
        }
    }
}
