//! Tensors that a request keeps in registered regions of shared memory (system shared memory extension), for every protocol.
//!
//! Inputs are read once, into memory that counts as a body's; outputs are written when they are there. Invariant: a region is
//! looked up before the model is asked, and stays usable for this request whatever happens to its registration.

use std::sync::Arc;

use bytes::Bytes;
use plinth_net::BodyMemory;
use plinth_serving::Regions;
use plinth_serving::shared_memory::Region;
use plinth_types::{DataType, Error, Parameter, Parameters, Reason, Result, Shape, TenantName, Tensor};

/// Copies of more than this many bytes are done on a blocking thread.
const INLINE: u64 = 256 << 10;

const REGION: &str = "shared_memory_region";
const BYTE_SIZE: &str = "shared_memory_byte_size";
const OFFSET: &str = "shared_memory_offset";

/// Where in shared memory a tensor lies, as its parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The region's name.
    pub region: String,
    /// How many bytes an input has, or an output may have.
    pub byte_size: u64,
    /// Where in the region it begins, in bytes.
    pub offset: u64,
}

impl Placement {
    /// Takes the placement out of a tensor's parameters; `None` when they have none.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`] when they are incomplete or of another kind; the field is the parameter's name.
    pub fn take(parameters: &mut Parameters) -> Result<Option<Self>> {
        let wrong =
            |name: &str, wanted: &str| Error::new(Reason::MalformedRequest, format!("the parameter '{name}' must be {wanted}")).field(name);
        let mut number = |name: &str| match parameters.remove(name) {
            None => Ok(None),
            Some(Parameter::Uint(value)) => Ok(Some(value)),
            // gRPC clients send signed numbers.
            Some(Parameter::Int(value)) if value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(_) => Err(wrong(name, "a whole number from 0 on")),
        };
        let (byte_size, offset) = (number(BYTE_SIZE)?, number(OFFSET)?);
        let region = match parameters.remove(REGION) {
            None => None,
            Some(Parameter::Text(name)) => Some(name),
            Some(_) => return Err(wrong(REGION, "a string")),
        };
        match (region, byte_size, offset) {
            (Some(region), Some(byte_size), offset) => Ok(Some(Self { region, byte_size, offset: offset.unwrap_or(0) })),
            (None, None, None) => Ok(None),
            (Some(_), None, _) => Err(wrong(BYTE_SIZE, "given with 'shared_memory_region'")),
            (None, ..) => Err(wrong(REGION, "given with the other parameters of shared memory")),
        }
    }

    /// Whether parameters say anything of shared memory.
    #[must_use]
    pub fn is_in(parameters: &Parameters) -> bool {
        [REGION, BYTE_SIZE, OFFSET].iter().any(|name| parameters.contains_key(*name))
    }

    /// The parameters of an output of which `written` bytes were placed: what a client looks for in the answer.
    #[must_use]
    pub fn parameters(&self, written: u64) -> Parameters {
        let mut parameters =
            Parameters::from([(REGION.to_owned(), Parameter::Text(self.region.clone())), (BYTE_SIZE.to_owned(), Parameter::Uint(written))]);
        if self.offset != 0 {
            parameters.insert(OFFSET.to_owned(), Parameter::Uint(self.offset));
        }
        parameters
    }
}

/// An input that is still in shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedInput {
    /// Its name.
    pub name: String,
    /// Its type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Shape,
    /// Where it lies.
    pub place: Placement,
}

/// Reads inputs, and puts each into `inputs` at its index; they come in ascending order of it.
///
/// # Errors
/// [`Reason::SharedMemoryNotFound`], [`Reason::InvalidSharedMemory`], [`Reason::InvalidTensor`], [`Reason::OverCapacity`],
/// and [`Reason::NotImplemented`] when shared memory is off; each names the input.
pub async fn read_inputs(
    regions: &Regions,
    memory: &BodyMemory,
    tenant: &TenantName,
    shared: Vec<(usize, SharedInput)>,
    inputs: &mut Vec<Tensor>,
) -> Result<()> {
    for (index, input) in shared {
        let field = format!("inputs[{index}]");
        let tensor = read_input(regions, memory, tenant, input).await.map_err(|e| e.field(field))?;
        inputs.insert(index.min(inputs.len()), tensor);
    }
    Ok(())
}

async fn read_input(regions: &Regions, memory: &BodyMemory, tenant: &TenantName, input: SharedInput) -> Result<Tensor> {
    let SharedInput { name, datatype, shape, place } = input;
    let region = regions.find(tenant, &place.region)?;
    // Before anything is allocated: what it costs is then bounded by what was registered.
    region.check(place.offset, place.byte_size)?;
    let wrong = |expected: &dyn std::fmt::Display| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let text = format!("input byte size mismatch for input '{shown}': expected {expected}, got {} bytes", place.byte_size);
        Error::new(Reason::InvalidTensor, text)
    };
    let expected = shape.byte_size(datatype).map_err(|e| wrong(&e))?;
    if expected.is_some_and(|expected| expected != place.byte_size) {
        return Err(wrong(&format_args!("{} bytes", expected.unwrap_or_default())));
    }
    let size = usize::try_from(place.byte_size).map_err(|e| wrong(&e))?;
    let memory = memory.clone();
    let read = move || memory.filled(size, |buffer| region.read(place.offset, buffer));
    let bytes: Bytes = on_a_fitting_thread(place.byte_size, read).await?;
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Tensor::new(name, datatype, shape, bytes)
        .map_err(|e| Error::new(Reason::InvalidTensor, format!("input '{shown}' in shared memory is no tensor: {e}")))
}

async fn on_a_fitting_thread<T: Send + 'static>(bytes: u64, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if bytes <= INLINE {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a copy of shared memory").source(e))?
}

/// Regions that were found for the outputs of one request.
#[derive(Debug, Default)]
pub struct Targets(Vec<Target>);

#[derive(Debug)]
struct Target {
    output: String,
    place: Placement,
    region: Arc<Region>,
}

impl Targets {
    /// Finds the regions of the outputs that have a place: name and place of each wished output.
    ///
    /// # Errors
    /// As [`read_inputs`]; each names the output.
    pub fn find<'a>(
        regions: &Regions,
        tenant: &TenantName,
        outputs: impl IntoIterator<Item = (&'a str, Option<&'a Placement>)>,
    ) -> Result<Self> {
        let find = |(i, (output, place)): (usize, (&str, Option<&Placement>))| {
            let place = place?;
            let find = || -> Result<Target> {
                let region = regions.find(tenant, &place.region)?;
                region.check(place.offset, place.byte_size)?;
                Ok(Target { output: output.to_owned(), place: place.clone(), region })
            };
            Some(find().map_err(|e| e.field(format!("outputs[{i}]"))))
        };
        outputs.into_iter().enumerate().filter_map(find).collect::<Result<_>>().map(Self)
    }

    /// Writes the outputs that have a place there. What they say of it in the answer comes from [`Placement::parameters`],
    /// with the tensor's length.
    ///
    /// # Errors
    /// [`Reason::InvalidSharedMemory`] when an output is larger than its place, or the region cannot be written any more.
    pub async fn write(self, outputs: &[Tensor]) -> Result<()> {
        for Target { output, place, region } in self.0 {
            let Some(tensor) = outputs.iter().find(|t| t.name() == output) else { continue };
            let needed = tensor.data().len() as u64;
            if needed > place.byte_size {
                let text = format!(
                    "shared memory size specified with the request for output '{output}' ({} bytes) should be at least {needed} bytes to hold the results",
                    place.byte_size
                );
                return Err(Error::new(Reason::InvalidSharedMemory, text).field(format!("outputs.{output}")));
            }
            // Cloning shares the bytes.
            let data = tensor.data().clone();
            on_a_fitting_thread(needed, move || region.write(place.offset, &data)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
