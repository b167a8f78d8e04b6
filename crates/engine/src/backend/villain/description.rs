//! `villain.toml` as values, and what it makes of loading. The format is described in [`super`].

use std::time::Duration;

use plinth_types::{ByteSize, DataType, Dim, TensorSpec};
use serde::{Deserialize, Deserializer};

use super::{BackendError, COMMAND, REPORT, VERSION};
use crate::spec::ModelMetadata;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Description {
    #[serde(deserialize_with = "duration")]
    load_delay: Duration,
    load_fail: Option<String>,
    load_crash: bool,
    load_hang: bool,
    load_allocate: Option<ByteSize>,
    pub crash_after: Option<u64>,
    pub version: Option<String>,
    inputs: Option<Vec<TensorSpec>>,
    outputs: Option<Vec<TensorSpec>>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| serde::de::Error::custom("want a duration such as 100ms or 2s"))
}

/// A whole number of `ms` or `s`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

impl Description {
    /// What the file asks for while loading. Answers the memory that is to be held.
    pub(super) fn misbehave(&self) -> Result<Vec<Vec<u8>>, BackendError> {
        std::thread::sleep(self.load_delay);
        if let Some(text) = &self.load_fail {
            return Err(BackendError::Load(text.clone()));
        }
        if self.load_crash {
            std::process::abort();
        }
        if self.load_hang {
            loop {
                std::thread::park();
            }
        }
        let size = self.load_allocate.map_or(0, ByteSize::as_usize);
        let held = hold(size).ok_or_else(|| BackendError::Load("the memory it wants is more than it gets".to_owned()))?;
        Ok(vec![held])
    }

    pub(super) fn metadata(&self) -> Result<ModelMetadata, BackendError> {
        let load = |error: plinth_types::tensor::TensorError| BackendError::Load(error.to_string());
        let bytes = |name: &str, dim: Dim| TensorSpec::new(name, DataType::Bytes, vec![dim]).map_err(load);
        let mut inputs = match &self.inputs {
            Some(inputs) => inputs.clone(),
            None => vec![TensorSpec::new("x", DataType::Fp32, vec![Dim::Any]).map_err(load)?],
        };
        let mut outputs = self.outputs.clone().unwrap_or_else(|| inputs.iter().filter(|spec| spec.name() != COMMAND).cloned().collect());
        let has = |specs: &[TensorSpec], name: &str| specs.iter().any(|spec| spec.name() == name);
        if !has(&inputs, COMMAND) {
            inputs.push(bytes(COMMAND, Dim::Any)?);
        }
        if !has(&outputs, REPORT) {
            outputs.push(bytes(REPORT, Dim::Any)?);
        }
        if self.version.is_some() && !has(&outputs, VERSION) {
            outputs.push(bytes(VERSION, Dim::Fixed(1))?);
        }
        Ok(ModelMetadata {
            platform: "villain".to_owned(),
            inputs,
            optional_inputs: vec![COMMAND.to_owned()],
            outputs,
            engine: "villain 1".to_owned(),
        })
    }
}

/// So much memory, touched; `None` when it is not given.
pub(super) fn hold(size: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(size).ok()?;
    // Not zero: a page of zeros may be nobody's.
    memory.resize(size, 0xA5);
    Some(memory)
}
