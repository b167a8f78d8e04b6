//! The requests that a configuration asks to execute before the model takes traffic.
//!
//! Pure: the same configuration makes the same bytes each time. `random_data` are numbers from 0 to 1, whole types 0 or 1: a
//! warm-up is for the code, and many graphs fail on values outside of what they index with. All requests together have at
//! most [`MAX_BYTES`] bytes and [`MAX_REQUESTS`] executions.

use plinth_types::{DataType, Error, Shape, Tensor, TensorSpec};

use super::invalid;
use super::schema::{self, pb};

/// The most bytes of all warm-up tensors of a model.
const MAX_BYTES: u64 = 64 << 20;
/// The most warm-up executions of a model.
const MAX_REQUESTS: usize = 1000;

/// Makes the requests and checks them against the completed inputs.
pub(super) fn build(message: &pb::ModelConfig, inputs: &[TensorSpec]) -> Result<Vec<Vec<Tensor>>, Error> {
    let mut requests = Vec::new();
    let mut bytes = 0u64;
    for (i, sample) in message.model_warmup.iter().enumerate() {
        let field = format!("model_warmup[{i}]");
        let batch = batch_of(sample, message.max_batch_size, &field)?;
        let request = build_request(sample, batch, inputs, &field, &mut bytes)?;
        let optional = |name: &str| message.input.iter().any(|m| m.name == name && m.optional);
        if let Some(missing) = inputs.iter().find(|s| !sample.inputs.contains_key(s.name()) && !optional(s.name())) {
            return Err(invalid(&format!("{field}.inputs"), format!("the input '{}' is missing", missing.name())));
        }
        let count = usize::try_from(sample.count.max(1)).unwrap_or(usize::MAX);
        if count > MAX_REQUESTS - requests.len() {
            return Err(invalid(&format!("{field}.count"), format!("want at most {MAX_REQUESTS} warm-up requests")));
        }
        requests.extend(std::iter::repeat_n(request, count));
    }
    Ok(requests)
}

/// The batch dimension, when there is one.
fn batch_of(sample: &pb::ModelWarmup, max: i32, field: &str) -> Result<Option<u64>, Error> {
    let batch = i64::from(sample.batch_size.max(1));
    match i64::from(max) {
        0 if batch > 1 => Err(invalid(&format!("{field}.batch_size"), "max_batch_size is 0: the model has no batch dimension")),
        0 => Ok(None),
        max if batch > max => Err(invalid(&format!("{field}.batch_size"), format!("want at most max_batch_size, {max}"))),
        _ => Ok(Some(u64::from(sample.batch_size.max(1)))),
    }
}

fn build_request(
    sample: &pb::ModelWarmup,
    batch: Option<u64>,
    inputs: &[TensorSpec],
    field: &str,
    bytes: &mut u64,
) -> Result<Vec<Tensor>, Error> {
    let mut request = Vec::new();
    for (name, input) in &sample.inputs {
        let field = format!("{field}.inputs[{}]", schema::excerpt(name));
        let spec = inputs.iter().find(|s| s.name() == name);
        let spec = spec.ok_or_else(|| {
            let hint = schema::hint(name, inputs.iter().map(TensorSpec::name));
            invalid(&field, format!("the model has no such input{hint}"))
        })?;
        let given = pb::DataType::try_from(input.data_type).ok().and_then(|t| DataType::from_config_name(t.as_str_name()).ok());
        let datatype = given.unwrap_or_else(|| spec.datatype());
        let dims = input.dims.iter().map(|d| u64::try_from(*d).unwrap_or(0));
        let shape = Shape::new(batch.into_iter().chain(dims).collect()).map_err(|e| invalid(&field, e))?;
        let size = shape.byte_size(datatype).map_err(|e| invalid(&field, e))?;
        *bytes = bytes.saturating_add(size.unwrap_or_else(|| shape.elements().saturating_mul(4)));
        if *bytes > MAX_BYTES {
            return Err(invalid(&field, format!("the warm-up requests have more than {MAX_BYTES} bytes")));
        }
        let random = matches!(input.input_data_type, Some(pb::model_warmup::input::InputDataType::RandomData(true)));
        let tensor = Tensor::new(name, datatype, shape.clone(), fill(datatype, shape.elements(), random).into());
        let tensor = tensor.map_err(|e| invalid(&field, e))?;
        spec.check(&tensor).map_err(|e| invalid(&field, e))?;
        request.push(tensor);
    }
    Ok(request)
}

/// The bytes of so many elements, all zero or each drawn.
fn fill(datatype: DataType, elements: u64, random: bool) -> Vec<u8> {
    let elements = usize::try_from(elements).unwrap_or(0);
    // Four bytes: the length of an empty element of BYTES, whose random form is empty too.
    let size = datatype.element_size().unwrap_or(4);
    if !random || datatype == DataType::Bytes {
        return vec![0; elements * size];
    }
    let mut draw = SplitMix(0x706c_696e_7468);
    let mut bytes = Vec::with_capacity(elements * size);
    for _ in 0..elements {
        let bits = draw.next();
        match datatype {
            // Exponent of 0.5 under a random mantissa: from 0.5 to 1.
            DataType::Fp16 => bytes.extend_from_slice(&(0x3800 | (bits & 0x3ff) as u16).to_le_bytes()),
            DataType::Bf16 => bytes.extend_from_slice(&(0x3f00 | (bits & 0x7f) as u16).to_le_bytes()),
            DataType::Fp32 => bytes.extend_from_slice(&(((bits >> 40) as f32) / (1u32 << 24) as f32).to_le_bytes()),
            DataType::Fp64 => bytes.extend_from_slice(&(((bits >> 11) as f64) / (1u64 << 53) as f64).to_le_bytes()),
            _ => bytes.extend_from_slice(&(bits & 1).to_le_bytes()[..size]),
        }
    }
    bytes
}

/// The generator "SplitMix64" (Steele, Lea, Flood 2014): small, and good enough for this.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
