//! What the server adds to a request of a sequence, and what it keeps of the answer.

use bytes::Bytes;
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Error, Result, Shape, Tensor};

use super::SequenceId;
use super::table::Turn;
use crate::model_config::{Control, ControlKind, SequenceSettings, State};

impl Turn {
    /// The inputs with the control inputs and the states of the sequence. `rows` is `None` for a model without a batch
    /// dimension.
    ///
    /// # Errors
    /// `InvalidSequence` for a sequence id that the model's type of ids cannot hold.
    pub(crate) fn inputs(&self, inputs: &[Tensor], rows: Option<u64>) -> Result<Vec<Tensor>> {
        let settings = self.settings();
        let mut all = inputs.to_vec();
        for control in &settings.controls {
            all.push(self.control_tensor(control, rows)?);
        }
        for (i, state) in settings.states.iter().enumerate() {
            match self.kept.states.get(i) {
                Some(kept) => all.push(renamed(kept, &state.input)?),
                None => all.push(initial(state, rows)?),
            }
        }
        Ok(all)
    }

    /// The outputs to ask for: the wished ones and the states.
    pub(crate) fn outputs(&self, wished: &[String]) -> Vec<String> {
        let mut all = wished.to_vec();
        if !all.is_empty() {
            let states = self.settings().states.iter().map(|s| &s.output);
            all.extend(states.filter(|name| !wished.contains(name)).cloned());
        }
        all
    }

    /// Keeps the states of an answer and gives the rest back. The turn is over.
    ///
    /// # Errors
    /// [`Reason::Internal`](plinth_types::Reason::Internal) when a state is missing, which the engine excludes.
    pub(crate) fn keep(mut self, mut answer: Vec<Tensor>, wished: &[String]) -> Result<Vec<Tensor>> {
        let states: Vec<State> = self.settings().states.clone();
        let mut kept = Vec::with_capacity(states.len());
        for state in &states {
            let found = answer.iter().find(|t| t.name() == state.output);
            let found = found.ok_or_else(|| Error::internal(format!("the state '{}' is missing in an answer", state.output)))?;
            // A copy of its own: a slice would keep the whole batch's memory.
            let data = Bytes::copy_from_slice(found.data());
            kept.push(
                Tensor::new(found.name(), found.datatype(), found.shape().clone(), data).map_err(|e| Error::internal(e.to_string()))?,
            );
        }
        self.kept.states = kept;
        answer.retain(|t| wished.iter().any(|w| w == t.name()) || !states.iter().any(|s| s.output == t.name()));
        self.done();
        Ok(answer)
    }

    fn control_tensor(&self, control: &Control, rows: Option<u64>) -> Result<Tensor> {
        let flag = |yes: bool| control.values[usize::from(yes)].clone();
        let value = match control.kind {
            ControlKind::Start => flag(self.control.start),
            ControlKind::End => flag(self.control.end),
            ControlKind::Ready => flag(true),
            ControlKind::CorrelationId => id_bytes(&self.control.id, control.datatype)?,
        };
        let mut dims: Vec<u64> = rows.into_iter().collect();
        dims.resize(dims.len() + control.rank, 1);
        let data = value.repeat(usize::try_from(rows.unwrap_or(1)).unwrap_or(usize::MAX));
        tensor(&control.name, control.datatype, dims, data)
    }
}

fn id_bytes(id: &SequenceId, datatype: DataType) -> Result<Vec<u8>> {
    let unfit =
        || Error::new(plinth_types::Reason::InvalidSequence, format!("the model takes sequence ids of type {datatype} only, not {id}"));
    Ok(match (id, datatype) {
        (SequenceId::Number(n), DataType::Uint64) => n.to_le_bytes().to_vec(),
        (SequenceId::Number(n), DataType::Int64) => i64::try_from(*n).map_err(|_| unfit())?.to_le_bytes().to_vec(),
        (SequenceId::Number(n), DataType::Uint32) => u32::try_from(*n).map_err(|_| unfit())?.to_le_bytes().to_vec(),
        (SequenceId::Number(n), DataType::Int32) => i32::try_from(*n).map_err(|_| unfit())?.to_le_bytes().to_vec(),
        (SequenceId::Text(text), DataType::Bytes) => {
            let mut bytes = Vec::new();
            push_byte_element(&mut bytes, text.as_bytes()).map_err(|_| unfit())?;
            bytes
        }
        _ => return Err(unfit()),
    })
}

fn tensor(name: &str, datatype: DataType, dims: Vec<u64>, data: Vec<u8>) -> Result<Tensor> {
    let shape = Shape::new(dims).map_err(|e| Error::internal(e.to_string()))?;
    Tensor::new(name, datatype, shape, data.into()).map_err(|e| Error::internal(e.to_string()))
}

fn renamed(kept: &Tensor, name: &str) -> Result<Tensor> {
    Tensor::new(name, kept.datatype(), kept.shape().clone(), kept.data().clone()).map_err(|e| Error::internal(e.to_string()))
}

/// Zeros.
fn initial(state: &State, rows: Option<u64>) -> Result<Tensor> {
    let dims: Vec<u64> = rows.into_iter().chain(state.dims.iter().copied()).collect();
    let shape = Shape::new(dims.clone()).map_err(|e| Error::internal(e.to_string()))?;
    let bytes = shape.byte_size(state.datatype).ok().flatten().and_then(|n| usize::try_from(n).ok());
    let bytes = bytes.ok_or_else(|| Error::internal("a state of unknown size"))?;
    tensor(&state.input, state.datatype, dims, vec![0; bytes])
}

impl SequenceSettings {
    /// The error that a model with sequences got a request without one.
    pub(crate) fn missing(model: &str) -> Error {
        let text = format!("inference request to model '{model}' must specify a non-zero or non-empty correlation ID");
        Error::new(plinth_types::Reason::InvalidSequence, text).field("parameters.sequence_id")
    }
}
