//! `villain.toml` as values, and what it makes of loading. The format is described in [`super`].

use std::time::Duration;

use plinth_runtime::{Clock, SystemClock};
use plinth_types::{ByteSize, DataType, Dim, Tensor, TensorSpec};
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
    #[serde(deserialize_with = "duration")]
    cost: Duration,
    #[serde(deserialize_with = "duration")]
    cost_per_row: Duration,
    busy: bool,
    pub batch: bool,
    pub rows: Vec<Trap>,
    inputs: Option<Vec<TensorSpec>>,
    outputs: Option<Vec<TensorSpec>>,
}

/// A deed for rows that begin with a value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trap {
    value: Option<f64>,
    text: Option<String>,
    deed: String,
}

/// How long executions take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    fixed: Duration,
    per_row: Duration,
    busy: bool,
}

impl Cost {
    pub(super) fn spend(&self, rows: u64) {
        let all = self.fixed.saturating_add(self.per_row.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX)));
        if self.busy {
            let end = SystemClock.monotonic() + all;
            while SystemClock.monotonic() < end {
                std::hint::spin_loop();
            }
        } else if !all.is_zero() {
            std::thread::sleep(all);
        }
    }
}

impl Trap {
    /// The deed, once for each row that is meant.
    pub(super) fn caught(&self, input: Option<&Tensor>) -> Vec<String> {
        let Some(input) = input else { return Vec::new() };
        let rows = usize::try_from(input.shape().dims().first().copied().unwrap_or(0)).unwrap_or(0);
        let caught = match &self.text {
            Some(text) => {
                let each = usize::try_from(input.shape().elements()).unwrap_or(0) / rows.max(1);
                input.byte_elements().step_by(each.max(1)).filter(|element| *element == text.as_bytes()).count()
            }
            None => {
                let row = input.data().len() / rows.max(1);
                let first = |row: &[u8]| number(input.datatype(), row);
                input.data().chunks_exact(row.max(1)).filter(|row| first(row).is_some() && first(row) == self.value).count()
            }
        };
        vec![self.deed.clone(); caught]
    }
}

/// The number with which these bytes begin.
fn number(datatype: DataType, bytes: &[u8]) -> Option<f64> {
    macro_rules! first {
        ($number:ty) => {
            bytes.first_chunk().map(|bytes| <$number>::from_le_bytes(*bytes))
        };
    }
    match datatype {
        DataType::Bool | DataType::Uint8 => first!(u8).map(f64::from),
        DataType::Int8 => first!(i8).map(f64::from),
        DataType::Int32 => first!(i32).map(f64::from),
        DataType::Uint32 => first!(u32).map(f64::from),
        DataType::Int64 => first!(i64).map(|n| n as f64),
        DataType::Fp32 => first!(f32).map(f64::from),
        DataType::Fp64 => first!(f64),
        _ => None,
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| serde::de::Error::custom("want a duration such as 100ms or 2s"))
}

/// A whole number of `us`, `ms` or `s`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(number) = text.strip_suffix("us") {
        return number.parse().ok().map(Duration::from_micros);
    }
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

    pub(super) const fn cost(&self) -> Cost {
        Cost { fixed: self.cost, per_row: self.cost_per_row, busy: self.busy }
    }

    pub(super) fn metadata(&self) -> Result<ModelMetadata, BackendError> {
        let load = |error: plinth_types::tensor::TensorError| BackendError::Load(error.to_string());
        let bytes = |name: &str, dim: Dim| {
            let shape = if self.batch { vec![Dim::Any, Dim::Fixed(1)] } else { vec![dim] };
            TensorSpec::new(name, DataType::Bytes, shape).map_err(load)
        };
        let mut inputs = match &self.inputs {
            Some(inputs) => inputs.clone(),
            None => vec![TensorSpec::new("x", DataType::Fp32, vec![Dim::Any; if self.batch { 2 } else { 1 }]).map_err(load)?],
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
