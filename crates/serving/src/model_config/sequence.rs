//! Sequences in a model configuration: which tensors the server feeds by itself, and how many sequences may be open.
//!
//! Control inputs and states belong to the graph and not to the request: clients neither send nor see them.

use std::time::Duration;

use plinth_engine::ModelMetadata;
use plinth_types::{DataType, Dim, Error};

use super::schema::pb;
use super::{invalid, unsupported};

/// How long a sequence may be idle when the configuration does not say (Triton's default).
const DEFAULT_IDLE: Duration = Duration::from_secs(1);

/// The kinds of control inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlKind {
    Start,
    Ready,
    End,
    CorrelationId,
}

/// An input that tells the model where a request stands in its sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Control {
    pub name: String,
    pub kind: ControlKind,
    pub datatype: DataType,
    /// The bytes for false and for true; empty for the correlation id.
    pub values: [Vec<u8>; 2],
    /// Dimensions after the batch dimension, all of them 1.
    pub rank: usize,
}

/// A tensor that the server keeps from one request of a sequence to the next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub input: String,
    pub output: String,
    pub datatype: DataType,
    /// Of the initial value, without the batch dimension.
    pub dims: Vec<u64>,
}

/// What a configuration says of sequences.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SequenceSettings {
    pub idle: Duration,
    pub controls: Vec<Control>,
    pub states: Vec<State>,
    /// How many sequences may be open for each instance.
    pub per_instance: u32,
    /// How long a batch over several sequences may grow; a hint.
    pub max_delay: Option<Duration>,
    pub preferred_rows: Vec<u32>,
}

impl SequenceSettings {
    /// Whether clients neither send nor see this tensor of the graph.
    pub fn hides(&self, name: &str) -> bool {
        self.controls.iter().any(|c| c.name == name) || self.states.iter().any(|s| s.input == name || s.output == name)
    }
}

/// Checks what can be checked without a graph.
pub(super) fn check(sequence: &pb::ModelSequenceBatching) -> Result<(), Error> {
    if sequence.iterative_sequence {
        return Err(unsupported("sequence_batching.iterative_sequence", "this is not implemented; remove it"));
    }
    for (i, state) in sequence.state.iter().enumerate() {
        let from_file = |s: &pb::model_sequence_batching::InitialState| {
            matches!(s.state_data, Some(pb::model_sequence_batching::initial_state::StateData::DataFile(_)))
        };
        if state.initial_state.len() > 1 || state.initial_state.iter().any(from_file) {
            return Err(unsupported(&format!("sequence_batching.state[{i}].initial_state"), "only one with zero_data is implemented"));
        }
    }
    for (i, input) in sequence.control_input.iter().enumerate() {
        if input.control.len() != 1 {
            return Err(invalid(&format!("sequence_batching.control_input[{i}].control"), "want exactly one control"));
        }
    }
    Ok(())
}

/// The settings, with types and ranks from the graph.
pub(super) fn settings(sequence: &pb::ModelSequenceBatching, max_batch: u32, metadata: &ModelMetadata) -> Result<SequenceSettings, Error> {
    use pb::model_sequence_batching::StrategyChoice;
    let micros = |n: u64| (n > 0).then(|| Duration::from_micros(n));
    let (per_instance, max_delay, preferred) = match &sequence.strategy_choice {
        None => (max_batch.max(1), None, &[][..]),
        Some(StrategyChoice::Direct(direct)) => (max_batch.max(1), micros(direct.max_queue_delay_microseconds), &[][..]),
        Some(StrategyChoice::Oldest(oldest)) => {
            let most = u32::try_from(oldest.max_candidate_sequences).ok().filter(|n| *n > 0);
            let most = most.ok_or_else(|| invalid("sequence_batching.oldest.max_candidate_sequences", "want 1 or more"))?;
            (most, micros(oldest.max_queue_delay_microseconds), &oldest.preferred_batch_size[..])
        }
    };
    let controls = sequence.control_input.iter().enumerate().map(|(i, c)| control(i, c, max_batch > 0, metadata));
    let states = sequence.state.iter().enumerate().map(|(i, s)| state(i, s, max_batch > 0, metadata));
    Ok(SequenceSettings {
        idle: micros(sequence.max_sequence_idle_microseconds).unwrap_or(DEFAULT_IDLE),
        controls: controls.collect::<Result<_, _>>()?,
        states: states.collect::<Result<_, _>>()?,
        per_instance,
        max_delay,
        preferred_rows: preferred.iter().filter_map(|n| u32::try_from(*n).ok()).collect(),
    })
}

fn control(i: usize, input: &pb::model_sequence_batching::ControlInput, batched: bool, metadata: &ModelMetadata) -> Result<Control, Error> {
    use pb::model_sequence_batching::control::Kind;
    let field = format!("sequence_batching.control_input[{i}]");
    let spec = metadata.inputs.iter().find(|s| s.name() == input.name);
    let spec = spec.ok_or_else(|| invalid(&field, format!("the graph has no input '{}'", super::schema::excerpt(&input.name))))?;
    let Some(control) = input.control.first() else { return Err(invalid(&field, "want exactly one control")) };
    let kind = match control.kind() {
        Kind::ControlSequenceStart => ControlKind::Start,
        Kind::ControlSequenceReady => ControlKind::Ready,
        Kind::ControlSequenceEnd => ControlKind::End,
        Kind::ControlSequenceCorrid => ControlKind::CorrelationId,
    };
    let (declared, values) = if kind == ControlKind::CorrelationId {
        (spec.datatype(), [Vec::new(), Vec::new()])
    } else {
        flag_values(control).ok_or_else(|| invalid(&field, "want two values, for false and for true"))?
    };
    let numbers = [DataType::Uint64, DataType::Int64, DataType::Uint32, DataType::Int32, DataType::Bytes];
    if declared != spec.datatype() || (kind == ControlKind::CorrelationId && !numbers.contains(&declared)) {
        return Err(invalid(&field, format!("'{}' is {} in the graph, which does not fit", input.name, spec.datatype())));
    }
    let shape = if batched { spec.shape().get(1..).unwrap_or_default() } else { spec.shape() };
    if shape.iter().any(|dim| !matches!(dim, Dim::Any | Dim::Fixed(1))) {
        return Err(invalid(&field, format!("'{}' takes more than one value for a request", input.name)));
    }
    Ok(Control { name: input.name.clone(), kind, datatype: declared, values, rank: shape.len() })
}

fn flag_values(control: &pb::model_sequence_batching::Control) -> Option<(DataType, [Vec<u8>; 2])> {
    if let [no, yes] = control.int32_false_true[..] {
        return Some((DataType::Int32, [no.to_le_bytes().to_vec(), yes.to_le_bytes().to_vec()]));
    }
    if let [no, yes] = control.fp32_false_true[..] {
        return Some((DataType::Fp32, [no.to_le_bytes().to_vec(), yes.to_le_bytes().to_vec()]));
    }
    if let [no, yes] = control.bool_false_true[..] {
        return Some((DataType::Bool, [vec![u8::from(no)], vec![u8::from(yes)]]));
    }
    None
}

fn state(i: usize, state: &pb::model_sequence_batching::State, batched: bool, metadata: &ModelMetadata) -> Result<State, Error> {
    let field = format!("sequence_batching.state[{i}]");
    let input = metadata.inputs.iter().find(|s| s.name() == state.input_name);
    let input = input.ok_or_else(|| invalid(&format!("{field}.input_name"), "the graph has no such input"))?;
    let output = metadata.outputs.iter().find(|s| s.name() == state.output_name);
    let output = output.ok_or_else(|| invalid(&format!("{field}.output_name"), "the graph has no such output"))?;
    if input.datatype() != output.datatype() || input.datatype() == DataType::Bytes {
        return Err(invalid(&field, "input and output of a state need the same type, and not BYTES"));
    }
    let shape = if batched { input.shape().get(1..).unwrap_or_default() } else { input.shape() };
    let declared = state.initial_state.first().map_or(&state.dims, |s| &s.dims);
    let dims = shape.iter().enumerate().map(|(at, dim)| match (dim, declared.get(at)) {
        (Dim::Fixed(n), _) => Some(*n),
        (Dim::Any, Some(given)) => u64::try_from(*given).ok(),
        (Dim::Any, None) => None,
    });
    let dims = dims.collect::<Option<Vec<_>>>();
    let dims = dims.ok_or_else(|| invalid(&format!("{field}.dims"), "the initial size of each dimension must be known"))?;
    Ok(State { input: state.input_name.clone(), output: state.output_name.clone(), datatype: input.datatype(), dims })
}
