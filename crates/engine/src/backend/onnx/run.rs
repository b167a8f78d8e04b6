//! One call of ONNX Runtime: names looked up once, inputs where they lie, outputs where they shall lie.
//!
//! The `ort` crate lets one thread at a time execute a session, for the sake of providers that this program does not use.
//! The library itself promises that `Run` may be called by any number of threads, and this goes to it directly. The
//! conformance suite holds it to that.
//!
//! Where the size of an output is known before the call (fixed dimensions, the batch's size, dimensions that the model
//! names like an input's), the library writes it straight to where it shall lie. If it finds another shape than the model
//! has promised, the call is made again without that, and so are all later ones.
#![allow(unsafe_code, reason = "the library's C interface is called directly")]

use std::ffi::{CString, c_char};
use std::sync::atomic::{AtomicBool, Ordering};

use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::sys::OrtValue;
use ort::value::{Outlet, ValueType};
use ort::{AsPointer, Error};
use plinth_types::{DataType, Shape, Tensor, TensorSpec};

use super::BackendError;
use super::texts::{load_error, run_error};
use super::value::{self, InputData, Value};
use crate::backend::OutputPlace;
use crate::spec::ModelMetadata;

/// A session with everything that does not change from call to call.
pub(super) struct Executable {
    session: Session,
    memory: MemoryInfo<'static>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    /// Whether the model keeps its promises about shapes.
    predictable: AtomicBool,
}

struct Input {
    name: String,
    c_name: CString,
    /// What the model calls each dimension; empty where it has no name for it.
    symbols: Vec<String>,
}

struct Output {
    name: String,
    c_name: CString,
    datatype: DataType,
    dims: Vec<Known>,
}

/// How a dimension of an output is known before the call.
enum Known {
    Fixed(u64),
    /// As the dimension of an input: which input, which dimension.
    Input(usize, usize),
    No,
}

/// An output that is written in place.
struct Ahead {
    value: Value,
    slot: crate::backend::Slot,
    shape: Shape,
}

impl Executable {
    pub(super) fn new(session: Session, metadata: &ModelMetadata) -> Result<Self, BackendError> {
        let c_name =
            |name: &str| CString::new(name).map_err(|_| BackendError::Load("the name of a tensor holds a NUL character".to_owned()));
        let memory = ort::memory::MemoryInfo::new(
            ort::memory::AllocationDevice::CPU,
            0,
            ort::memory::AllocatorType::Device,
            ort::memory::MemoryType::Default,
        );
        let inputs = session
            .inputs()
            .iter()
            .zip(&metadata.inputs)
            .map(|(outlet, spec)| Ok(Input { name: spec.name().to_owned(), c_name: c_name(spec.name())?, symbols: symbols(outlet) }));
        let inputs = inputs.collect::<Result<Vec<_>, BackendError>>()?;
        let outputs = session.outputs().iter().zip(&metadata.outputs).map(|(outlet, spec)| {
            let dims = known(spec, &symbols(outlet), &inputs);
            Ok(Output { name: spec.name().to_owned(), c_name: c_name(spec.name())?, datatype: spec.datatype(), dims })
        });
        let outputs = outputs.collect::<Result<Vec<_>, BackendError>>()?;
        let memory = memory.map_err(|error| load_error(&error))?;
        Ok(Self { session, memory, inputs, outputs, predictable: AtomicBool::new(true) })
    }

    pub(super) fn run(&self, inputs: &[Tensor], outputs: &[String], place: &mut OutputPlace) -> Result<Vec<Tensor>, BackendError> {
        let data = inputs.iter().map(InputData::of).collect::<Result<Vec<_>, _>>()?;
        // Found by name here and by place from here on.
        let inputs = inputs.iter().map(|tensor| Ok((self.input(tensor.name())?, tensor))).collect::<Result<Vec<_>, BackendError>>()?;
        let outputs = outputs.iter().map(|name| self.output(name)).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the values are dropped at the end of this function, before `data` and the tensors.
        let values = inputs.iter().zip(&data).map(|((_, tensor), data)| unsafe { data.value(tensor, &self.memory) });
        let values = values.collect::<ort::Result<Vec<_>>>().map_err(|error| run_error(&error))?;
        let predictable = self.predictable.load(Ordering::Relaxed);
        let (mut ahead, any) = self.ahead(&inputs, &outputs, place, predictable)?;
        let mut results = self.call(&inputs, &values, &outputs, &ahead);
        if any && results.is_err() {
            ahead = outputs.iter().map(|_| None).collect();
            place.clear();
            results = self.call(&inputs, &values, &outputs, &ahead);
            if results.is_ok() {
                self.predictable.store(false, Ordering::Relaxed);
            }
        }
        let results = results.map_err(|error| run_error(&error))?;
        let session = self.session.inner();
        let tensors = results.into_iter().zip(ahead).zip(&outputs).map(|((result, ahead), output)| match (ahead, result) {
            (Some(Ahead { slot, shape, value }), _) => {
                drop(value);
                Tensor::new(output.name.clone(), output.datatype, shape, slot.done()).map_err(|e| BackendError::Execution(e.to_string()))
            }
            (None, Some(value)) => value::output((&output.name, output.datatype), value, &data, &session, place),
            (None, None) => Err(BackendError::Execution(format!("the model has not computed its output '{}'", output.name))),
        });
        tensors.collect()
    }

    fn input(&self, name: &str) -> Result<usize, BackendError> {
        let found = self.inputs.iter().position(|input| input.name == name);
        found.ok_or_else(|| BackendError::Input(format!("the model has no input '{name}'")))
    }

    fn output(&self, name: &str) -> Result<&Output, BackendError> {
        let found = self.outputs.iter().find(|output| output.name == name);
        found.ok_or_else(|| BackendError::Input(format!("the model has no output '{name}'")))
    }

    /// The outputs that can be written in place, and whether there is one.
    fn ahead(
        &self,
        inputs: &[(usize, &Tensor)],
        outputs: &[&Output],
        place: &mut OutputPlace,
        predictable: bool,
    ) -> Result<(Vec<Option<Ahead>>, bool), BackendError> {
        let mut any = false;
        let ahead = outputs.iter().map(|output| {
            let Some(shape) = predictable.then(|| output.shape(inputs, place.rows())).flatten() else { return Ok(None) };
            let length = shape.byte_size(output.datatype).ok().flatten().and_then(|length| usize::try_from(length).ok());
            let Some((slot, length)) = length.filter(|n| *n > 0).and_then(|n| Some((place.slot(n)?, n))) else { return Ok(None) };
            any = true;
            // SAFETY: the slot is aligned for every type, so long, and never unmapped.
            let value = unsafe { Value::view(&self.memory, slot.as_ptr(), length, &value::dims(&shape), output.datatype) };
            Ok(Some(Ahead { value: value.map_err(|error| run_error(&error))?, slot, shape }))
        });
        let ahead = ahead.collect::<Result<Vec<_>, BackendError>>()?;
        Ok((ahead, any))
    }

    /// Calls the library. Answers the values that it has made: none for those that were written in place.
    fn call(
        &self,
        inputs: &[(usize, &Tensor)],
        values: &[Value],
        outputs: &[&Output],
        ahead: &[Option<Ahead>],
    ) -> ort::Result<Vec<Option<Value>>> {
        let c_input = |index: &usize| self.inputs.get(*index).map_or(std::ptr::null(), |input| input.c_name.as_ptr());
        let input_names: Vec<*const c_char> = inputs.iter().map(|(index, _)| c_input(index)).collect();
        let input_values: Vec<*const OrtValue> = values.iter().map(|value| value.as_ptr().cast_const()).collect();
        let output_names: Vec<*const c_char> = outputs.iter().map(|output| output.c_name.as_ptr()).collect();
        let mut results: Vec<*mut OrtValue> =
            ahead.iter().map(|ahead| ahead.as_ref().map_or(std::ptr::null_mut(), |a| a.value.as_ptr())).collect();
        // SAFETY: each list is as long as is said, names are terminated, values are alive; `results` holds a value or
        // null for each output, and the library fills in the nulls. `Run` may be called by several threads at once.
        let ran = unsafe {
            Error::result_from_status((ort::api().Run)(
                self.session.ptr().cast_mut(),
                std::ptr::null(),
                input_names.as_ptr(),
                input_values.as_ptr(),
                values.len(),
                output_names.as_ptr(),
                outputs.len(),
                results.as_mut_ptr(),
            ))
        };
        let own = |(result, ahead): (*mut OrtValue, &Option<Ahead>)| match ahead {
            Some(_) => None,
            // SAFETY: null was handed in, so what is there now was made by the library and is ours.
            None => unsafe { Value::own(result) },
        };
        let made = results.into_iter().zip(ahead).map(own).collect();
        ran.map(|()| made)
    }
}

fn symbols(outlet: &Outlet) -> Vec<String> {
    match outlet.dtype() {
        ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

fn known(spec: &TensorSpec, symbols: &[String], inputs: &[Input]) -> Vec<Known> {
    let find = |symbol: &str| {
        let place = |(index, input): (usize, &Input)| input.symbols.iter().position(|s| s == symbol).map(|dim| Known::Input(index, dim));
        inputs.iter().enumerate().find_map(place)
    };
    let dim = |(i, dim): (usize, &plinth_types::Dim)| match dim {
        plinth_types::Dim::Fixed(n) => Known::Fixed(*n),
        plinth_types::Dim::Any => symbols.get(i).filter(|s| !s.is_empty()).and_then(|s| find(s)).unwrap_or(Known::No),
    };
    spec.shape().iter().enumerate().map(dim).collect()
}

impl Output {
    /// Its shape, where that is known before the call.
    fn shape(&self, inputs: &[(usize, &Tensor)], rows: Option<u64>) -> Option<Shape> {
        self.datatype.element_size()?;
        let dims = self.dims.iter().enumerate().map(|(i, dim)| match (dim, rows) {
            (Known::Fixed(n), _) => Some(*n),
            (_, Some(rows)) if i == 0 => Some(rows),
            (Known::Input(index, dim), _) => {
                let tensor = inputs.iter().find(|(at, _)| at == index)?.1;
                tensor.shape().dims().get(*dim).copied()
            }
            (Known::No, _) => None,
        });
        Shape::new(dims.collect::<Option<Vec<_>>>()?).ok()
    }
}
