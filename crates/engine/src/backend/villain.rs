//! The backend that misbehaves on demand, so that faults can be tested without a model.
//!
//! # `villain.toml`
//!
//! Every key may be left out; an empty file is a well-behaved echo.
//!
//! ```toml
//! load_delay = "200ms"      # take so long to load; units ms, s
//! load_fail = "no mood"     # refuse to load with this text
//! load_crash = true         # die while loading
//! load_hang = true          # never finish loading
//! load_allocate = "64MiB"   # hold this much memory, touched, from loading on
//! crash_after = 3           # die instead of executing the fourth request
//! version = "2"             # answered in the output `version` (BYTES), for tests that ask who served them
//! cost = "500us"            # every execution takes this long; units us, ms, s
//! cost_per_row = "50us"     # and so much more for each row of the first input
//! busy = true               # spend that time computing instead of sleeping
//! batch = true              # the first dimension of every input and output is the batch dimension
//!
//! [[rows]]                  # a deed for each row of the first input that begins with this value
//! value = 666               # a number; for BYTES: text = "boo"
//! deed = "crash"
//!
//! [[inputs]]                # default: one input `x`, FP32, shape [-1]
//! name = "x"
//! datatype = "FP32"
//! shape = [-1, 64]
//!
//! [[outputs]]               # default: one for each input, of the same name, type and shape
//! name = "x"
//! datatype = "FP32"
//! shape = [-1, 64]
//! ```
//!
//! An output with the name of an input echoes it. Any other is zeros (empty strings for BYTES), with -1 read as 1.
//! Three tensors are there without being declared: the optional input `command` (BYTES, `[-1]`), and the outputs `report`
//! (BYTES, `[-1]`: one element for each command, what came of it) and, when `version` is given, `version` (BYTES, `[1]`).
//! With `batch` they have the shape `[-1,1]`: one command for each row, the empty one for none.
//!
//! # Commands
//!
//! Each element of `command` is one deed (`deed`): `delay 100ms`, `spin 100ms`, `fail why`, `refuse why`, `nan`,
//! `wrong_shape`, `wrong_type`, `wrong_name`, `missing_output`, `extra_output`, `panic`, `crash`, `abort`, `exit 3`,
//! `hang`, `leak 10MiB`, `flood_stderr 10MiB`, `garbage`, `close_channel`, `scribble` (writes into the memory that it shares
//! with the node from now on and without end), `wrong_rows`, and the probes `open_socket`,
//! `open_file /path`, `write_file /path`, `list /path`, `fork`, `exec`, `signal_node`, `new_code`, `user`.

mod deed;
mod description;
mod probe;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plinth_types::{DataType, Dim, Shape, Tensor, TensorSpec};

use super::{Backend, BackendError, LoadRequest, OutputPlace};
use crate::spec::{BackendKind, ModelMetadata};
use deed::{Deed, Twist};
use description::{Cost, Description, Trap};

/// The input that carries the deeds.
pub const COMMAND: &str = "command";
/// The output that says what came of them.
pub const REPORT: &str = "report";
/// The output that says which version answers.
pub const VERSION: &str = "version";

/// A loaded villain.
pub struct Villain {
    metadata: ModelMetadata,
    version: Option<String>,
    /// How many requests it will execute before it dies.
    patience: Option<AtomicU64>,
    /// Memory that it holds.
    hoard: Mutex<Vec<Vec<u8>>>,
    batch: bool,
    cost: Cost,
    traps: Vec<Trap>,
}

impl Villain {
    /// Reads `villain.toml`, and misbehaves if that asks for it.
    ///
    /// # Errors
    /// [`BackendError::Load`].
    pub fn load(request: &LoadRequest) -> Result<Self, BackendError> {
        let name = BackendKind::Villain.model_file();
        let text = std::str::from_utf8(request.file(name)?).map_err(|_| BackendError::Load(format!("{name} is not UTF-8")))?;
        let description: Description = toml::from_str(text).map_err(|error| BackendError::Load(format!("{name}: {}", error.message())))?;
        let hoard = description.misbehave()?;
        let (metadata, cost) = (description.metadata()?, description.cost());
        Ok(Self {
            metadata,
            version: description.version,
            patience: description.crash_after.map(AtomicU64::new),
            hoard: Mutex::new(hoard),
            batch: description.batch,
            cost,
            traps: description.rows,
        })
    }

    fn wait_for_the_end(&self) {
        let Some(patience) = &self.patience else { return };
        if patience.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            std::process::abort();
        }
    }

    fn output(&self, name: &str, inputs: &[Tensor], reports: &[String]) -> Result<Tensor, BackendError> {
        let rows = if self.batch { Some(rows(inputs)) } else { None };
        if let Some(echo) = inputs.iter().find(|t| t.name() == name && name != COMMAND) {
            return Ok(echo.clone());
        }
        match (name, &self.version) {
            (REPORT, _) => return texts(REPORT, reports, rows),
            (VERSION, Some(version)) => return texts(VERSION, std::slice::from_ref(version), rows),
            _ => {}
        }
        let spec = self.metadata.outputs.iter().find(|spec| spec.name() == name);
        zeros(spec.ok_or_else(|| BackendError::Execution(format!("there is no output '{name}'")))?, rows)
    }
}

impl Backend for Villain {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn execute(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        self.execute_into(inputs, outputs, &mut OutputPlace::none(None))
    }

    fn execute_into(&self, inputs: Vec<Tensor>, outputs: &[String], place: &mut OutputPlace) -> Result<Vec<Tensor>, BackendError> {
        self.wait_for_the_end();
        self.cost.spend(rows(&inputs));
        let (mut twists, mut reports) = (Vec::new(), Vec::new());
        let commands = inputs.iter().filter(|t| t.name() == COMMAND).flat_map(Tensor::byte_elements);
        let commands = commands.map(|command| String::from_utf8_lossy(command).into_owned());
        let trapped = self.traps.iter().flat_map(|trap| trap.caught(inputs.first().filter(|t| t.name() != COMMAND)));
        let areas: Vec<(usize, usize)> =
            inputs.iter().map(|t| (t.data().as_ptr().expose_provenance(), t.data().len())).chain([place.area()]).collect();
        for command in commands.chain(trapped) {
            if self.batch && command.is_empty() {
                reports.push(String::new());
                continue;
            }
            match Deed::parse(&command)?.commit(&self.hoard, &areas)? {
                deed::Effect::Report(text) => reports.push(text),
                deed::Effect::Twist(twist) => {
                    twists.push(twist);
                    reports.push("done".to_owned());
                }
            }
        }
        let mut tensors = outputs.iter().map(|name| self.output(name, &inputs, &reports)).collect::<Result<Vec<_>, _>>()?;
        for twist in twists {
            twist.apply(&mut tensors)?;
        }
        Ok(tensors)
    }
}

fn broken(error: impl std::fmt::Display) -> BackendError {
    BackendError::Execution(error.to_string())
}

/// The size of a batch: the first dimension of the first input.
fn rows(inputs: &[Tensor]) -> u64 {
    inputs.first().and_then(|tensor| tensor.shape().dims().first().copied()).unwrap_or(1)
}

/// With `rows` as many elements as there are rows: the last again and again, or an empty one.
fn texts(name: &str, texts: &[String], rows: Option<u64>) -> Result<Tensor, BackendError> {
    let mut data = Vec::new();
    let count = rows.unwrap_or(texts.len() as u64);
    let fill = texts.last().filter(|_| texts.len() == 1).cloned().unwrap_or_default();
    for text in texts.iter().chain(std::iter::repeat(&fill)).take(usize::try_from(count).map_err(broken)?) {
        plinth_types::tensor::push_byte_element(&mut data, text.as_bytes()).map_err(broken)?;
    }
    let shape = Shape::new(if rows.is_some() { vec![count, 1] } else { vec![count] }).map_err(broken)?;
    Tensor::new(name, DataType::Bytes, shape, data.into()).map_err(broken)
}

fn zeros(spec: &TensorSpec, rows: Option<u64>) -> Result<Tensor, BackendError> {
    let dim = |(i, dim): (usize, &Dim)| match (dim, rows) {
        (_, Some(rows)) if i == 0 => rows,
        (Dim::Fixed(n), _) => *n,
        (Dim::Any, _) => 1,
    };
    let dims = spec.shape().iter().enumerate().map(dim).collect();
    let shape = Shape::new(dims).map_err(broken)?;
    // An empty string is four zero bytes as well.
    let size = shape.elements().checked_mul(spec.datatype().element_size().unwrap_or(4) as u64);
    let size = size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| broken("an output too large to make"))?;
    Tensor::new(spec.name(), spec.datatype(), shape, vec![0; size].into()).map_err(broken)
}

impl Twist {
    fn apply(self, outputs: &mut Vec<Tensor>) -> Result<(), BackendError> {
        let Some(first) = outputs.first().cloned() else { return Ok(()) };
        let (name, datatype, shape, data) = first.into_parts();
        let twisted = match self {
            Self::MissingOutput => {
                outputs.remove(0);
                return Ok(());
            }
            Self::ExtraOutput => {
                outputs.push(texts("uninvited", &[], None).map_err(broken)?);
                return Ok(());
            }
            Self::WrongRows => {
                let rows = shape.dims().first().copied().unwrap_or(0);
                let row = data.len() / usize::try_from(rows.max(1)).map_err(broken)?;
                let dims = [&[rows.saturating_sub(1)], shape.dims().get(1..).unwrap_or_default()].concat();
                Tensor::new(name, datatype, Shape::new(dims).map_err(broken)?, data.slice(..data.len() - row))
            }
            Self::WrongName => Tensor::new(format!("{name}?"), datatype, shape, data),
            Self::WrongShape => Tensor::new(name, datatype, Shape::new([shape.dims(), &[1]].concat()).map_err(broken)?, data),
            Self::WrongType => {
                let other = if datatype == DataType::Uint8 { DataType::Int8 } else { DataType::Uint8 };
                Tensor::new(name, other, Shape::new(vec![data.len() as u64]).map_err(broken)?, data)
            }
            Self::Nan => {
                let nan: &[u8] = match datatype {
                    DataType::Fp16 => &half::f16::NAN.to_le_bytes(),
                    DataType::Bf16 => &half::bf16::NAN.to_le_bytes(),
                    DataType::Fp32 => &f32::NAN.to_le_bytes(),
                    DataType::Fp64 => &f64::NAN.to_le_bytes(),
                    _ => return Err(broken("only a floating-point output can be NaN")),
                };
                let data: Vec<u8> = nan.iter().copied().cycle().take(data.len()).collect();
                Tensor::new(name, datatype, shape, data.into())
            }
        };
        if let Some(first) = outputs.first_mut() {
            *first = twisted.map_err(broken)?;
        }
        Ok(())
    }
}
