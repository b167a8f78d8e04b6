//! What ONNX Runtime computes on: the processors, or a GPU through CUDA or TensorRT.
//!
//! Invariant: a version that was told to run on a GPU runs there or does not load; it never falls back in silence.

use ort::ep::{CUDA, ExecutionProvider, TensorRT};
use ort::session::builder::SessionBuilder;

use super::BackendError;
use super::texts::clean;
use crate::spec::Provider;

/// Adds the provider to a session's options. The processors are always there and come last.
pub(super) fn append(mut builder: SessionBuilder, provider: Provider) -> Result<SessionBuilder, BackendError> {
    let number = |device: u32| i32::try_from(device).unwrap_or(i32::MAX);
    match provider {
        Provider::Cpu => {}
        Provider::Cuda { device } => register(&CUDA::default().with_device_id(number(device)), &mut builder, "CUDA")?,
        Provider::TensorRt { device } => {
            register(&TensorRT::default().with_device_id(number(device)), &mut builder, "TensorRT")?;
            // For the parts of a graph that TensorRT does not know.
            register(&CUDA::default().with_device_id(number(device)), &mut builder, "CUDA")?;
        }
    }
    Ok(builder)
}

fn register(provider: &impl ExecutionProvider, builder: &mut SessionBuilder, name: &str) -> Result<(), BackendError> {
    provider.register(builder).map_err(|error| BackendError::Load(missing(name, error.message())))
}

fn missing(name: &str, why: &str) -> String {
    format!(
        "the model is to run on a GPU with {name}, which this ONNX Runtime cannot do here: {}; set engine.provider to 'cpu', or give \
         engine.onnxruntime the library of a build for GPUs (such as the package onnxruntime-gpu) on a machine with the driver",
        clean(why)
    )
}
