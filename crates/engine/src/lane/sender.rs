//! The half of a lane into which batches go.
//!
//! The calling task checks the batch, puts its bytes where they belong and writes the packet itself: no other task and no
//! thread has to wake up in the node. Invariant: the bytes of a tensor are copied once, by the kernel into the packet or
//! here into the region.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::plan::Plan;
use super::shared::{NoPlace, Outgoing, Sent, Shared};
use super::{Batch, INLINE, REGION_ALIGNMENT, SendError, TRACES};
use crate::channel::wire::{Execute, Payload, Span};
use crate::channel::{machine_time, packet};
use crate::region::Extent;

/// Where batches go in. To be shared freely.
pub struct LaneSender {
    shared: Arc<Shared>,
}

/// Where the bytes of a batch's inputs have gone, or will go.
enum Inputs {
    Here,
    Region(Extent, u64),
    Pieces(u64),
}

impl LaneSender {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends a batch to the runner from the calling task. Never waits; large inputs are copied before it returns.
    ///
    /// # Errors
    /// [`SendError`], which gives the batch back.
    pub fn send(&self, batch: Batch) -> Result<(), SendError> {
        let place = match self.shared.reserve() {
            Ok(place) => place,
            Err(NoPlace::Busy) => return Err(SendError::Busy(batch)),
            Err(NoPlace::Ended) => return Err(SendError::Ended(batch)),
        };
        let facts = &self.shared.wiring;
        let mut plan = match Plan::of(&facts.metadata, &batch) {
            Ok(plan) => plan,
            Err((part, text)) => return Err(SendError::Invalid { batch, part, text }),
        };
        let Some((inputs, length)) = self.lay_out(&mut plan, &batch) else {
            return Err(SendError::Invalid { batch, part: None, text: "the inputs are more than a batch can carry".to_owned() });
        };
        let expected = plan.exact_output(&facts.metadata).unwrap_or_else(|| self.shared.expected_output(length));
        let outputs = if expected > INLINE { facts.region.allocate(expected) } else { None };
        let mut body = Vec::new();
        if !matches!(inputs, Inputs::Region(..)) {
            collect(&plan, &batch, &mut body);
        }
        let (payload, pieces) = match &inputs {
            Inputs::Here => (Payload::Here, VecDeque::new()),
            Inputs::Region(extent, length) => (Payload::Region(Span { offset: extent.offset(), length: *length }), VecDeque::new()),
            Inputs::Pieces(length) => (Payload::Pieces(*length), cut(std::mem::take(&mut body))),
        };
        let mut execute = Execute {
            sequence: 0,
            expires: u64::try_from(machine_time().saturating_add(batch.deadline).as_nanos()).unwrap_or(u64::MAX),
            rows: plan.total,
            inputs: plan.heads,
            outputs: plan.outputs,
            payload,
            place: outputs.as_ref().map(|extent| Span { offset: extent.offset(), length: extent.length() }),
            // Nothing is allocated where none is recorded.
            traces: batch.parts.iter().filter_map(|part| part.trace).take(TRACES).collect(),
        };
        // Only where it could be too long is it made twice.
        if execute.inputs.len() + execute.outputs.len() > packet::SURELY && packet::head(&execute).is_err() {
            return Err(SendError::Invalid { batch, part: None, text: "the model has more inputs than a batch can carry".to_owned() });
        }
        let sent = Sent {
            sequence: 0,
            id: batch.id,
            rows: plan.rows,
            total: plan.total,
            outputs: execute.outputs.clone(),
            wished: plan.wished,
            input_bytes: length,
            inputs: match inputs {
                Inputs::Region(extent, _) => Some(extent),
                _ => None,
            },
            place: outputs,
        };
        let packets = move |sequence| {
            execute.sequence = sequence;
            let mut packets = VecDeque::with_capacity(1 + pieces.len());
            packets.push_back(Outgoing { head: packet::head(&execute).ok()?, body });
            packets.extend(pieces);
            Some(packets)
        };
        if self.shared.send(place, sent, packets) { Ok(()) } else { Err(SendError::Ended(batch)) }
    }

    /// Decides where the inputs' bytes travel, and copies them where they go by the region.
    fn lay_out(&self, plan: &mut Plan, batch: &Batch) -> Option<(Inputs, u64)> {
        let length = plan.place(packet::ALIGNMENT as u64)?;
        if length <= INLINE {
            return Some((Inputs::Here, length));
        }
        let aligned = plan.place(REGION_ALIGNMENT)?;
        if let Some(mut extent) = self.shared.wiring.region.allocate(aligned) {
            for (offset, bytes) in plan.bytes(batch) {
                if !extent.write(offset, bytes) {
                    return None;
                }
            }
            return Some((Inputs::Region(extent, aligned), length));
        }
        let length = plan.place(packet::ALIGNMENT as u64)?;
        Some((Inputs::Pieces(length), length))
    }

    /// How many batches were sent and have not come back.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.shared.outstanding()
    }
}

/// The payload as pieces that are not copied, with the padding between them.
fn collect(plan: &Plan, batch: &Batch, body: &mut Vec<Bytes>) {
    let mut end = 0u64;
    for (offset, bytes) in plan.bytes(batch) {
        if offset > end {
            body.push(Bytes::from_static(packet::padding(usize::try_from(end).unwrap_or(0))));
        }
        body.push(bytes.clone());
        end = offset + bytes.len() as u64;
    }
    // Inputs without bytes may lie past the last one with bytes.
    let whole = plan.heads.iter().map(|head| head.span.offset + head.span.length).max().unwrap_or(0);
    if whole > end {
        body.push(Bytes::from_static(packet::padding(usize::try_from(end).unwrap_or(0))));
    }
}

/// Packets of pieces.
fn cut(body: Vec<Bytes>) -> VecDeque<Outgoing> {
    let mut packets: VecDeque<Outgoing> = VecDeque::new();
    let mut room = 0;
    for mut bytes in body {
        while !bytes.is_empty() {
            if room == 0 {
                packets.push_back(Outgoing { head: packet::piece().to_vec(), body: Vec::new() });
                room = packet::PIECE;
            }
            let part = bytes.split_to(room.min(bytes.len()));
            room -= part.len();
            if let Some(last) = packets.back_mut() {
                last.body.push(part);
            }
        }
    }
    packets
}

impl fmt::Debug for LaneSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSender").field("outstanding", &self.outstanding()).finish_non_exhaustive()
    }
}
