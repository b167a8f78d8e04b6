//! The node's end of the channel: asynchronous.
//!
//! Two loops, one for each direction, and [`NodeEnd`], through which requests go in. Invariants: a request's
//! bytes are sent from where they lie; a full queue is an error at once; an answer is compared with the model's
//! metadata before a caller sees it. The loops end with the process at the other end; who watches that process is
//! [`crate::runner`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plinth_types::Tensor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::frame::{FrameError, GROWTH, Lengths, Outgoing, PREFIX, decode, encode, payload_length, tensors};
use super::message::{FromRunner, Infer, Refusal, TensorHead, ToRunner};
use super::pending::{Outcome, Pending};
use crate::check;
use crate::spec::{ModelMetadata, RunnerError};

/// Pieces of one frame on their way to the writer.
pub(crate) type Frame = Vec<Bytes>;

/// Where requests go in.
pub(crate) struct NodeEnd {
    pending: Arc<Pending>,
    outgoing: mpsc::Sender<Frame>,
}

/// An admitted request. Dropping it before [`Ticket::outcome`] has returned tells the runner to drop it too.
pub(crate) struct Ticket<'a> {
    end: &'a NodeEnd,
    id: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl NodeEnd {
    pub(crate) fn new(pending: Arc<Pending>, outgoing: mpsc::Sender<Frame>) -> Self {
        Self { pending, outgoing }
    }

    pub(crate) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// Puts a request in the queue.
    pub(crate) fn submit(&self, inputs: &[Tensor], outputs: Vec<String>, deadline: Duration) -> Result<Ticket<'_>, RunnerError> {
        let too_much = || RunnerError::Input("the inputs are more than a request can carry".to_owned());
        let bytes = payload_length(inputs).ok_or_else(too_much)?;
        let (id, outcome) = self.pending.admit(bytes, outputs.clone())?;
        let message = ToRunner::Infer(Infer {
            id,
            deadline_micros: u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX),
            inputs: TensorHead::of_all(inputs),
            outputs,
        });
        let sent = match encode(&message, inputs) {
            Ok(frame) => self.outgoing.try_send(frame).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => RunnerError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => RunnerError::Crashed,
            }),
            Err(_) => Err(too_much()),
        };
        if let Err(error) = sent {
            self.pending.retract(id);
            return Err(error);
        }
        Ok(Ticket { end: self, id, outcome })
    }

    /// Asks the process to end.
    pub(crate) fn send_stop(&self) {
        if let Ok(frame) = encode(&ToRunner::Stop, &[]) {
            // When the queue is full or closed the process is killed a moment later anyway.
            let _ = self.outgoing.try_send(frame);
        }
    }
}

impl Ticket<'_> {
    /// Waits for the answer.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or(Err(RunnerError::Crashed))
    }

    /// Where the request is, for people.
    pub(crate) fn place(&self) -> &'static str {
        if self.end.pending.is_oldest(self.id) { "running" } else { "queued" }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.end.pending.abandon(self.id)
            && let Ok(frame) = encode(&ToRunner::Cancel { id: self.id }, &[])
        {
            // A cancel that does not fit into the queue costs the runner an execution and nothing else.
            let _ = self.end.outgoing.try_send(frame);
        }
    }
}

/// Writes frames until the channel or the queue ends.
pub(crate) async fn write_loop(mut socket: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Frame>) {
    let mut outgoing = Outgoing::default();
    while let Some(frame) = queue.recv().await {
        outgoing.push(frame);
        while outgoing.has_room()
            && let Ok(frame) = queue.try_recv()
        {
            outgoing.push(frame);
        }
        while !outgoing.is_empty() {
            match socket.write_vectored(&outgoing.slices()).await {
                Ok(written) if written > 0 => outgoing.advance(written),
                // The runner is gone; the reader sees the same and says so.
                _ => return,
            }
        }
    }
}

/// Sends one frame; for the time before the loops run.
pub(crate) async fn send(socket: &mut (impl AsyncWrite + Unpin), message: &ToRunner) -> io::Result<()> {
    let pieces = encode(message, &[]).map_err(|error| io::Error::other(error.to_string()))?;
    for piece in pieces {
        socket.write_all(&piece).await?;
    }
    Ok(())
}

/// Reads one frame; `None` at the end of the channel. Not cancel safe.
pub(crate) async fn receive(socket: &mut (impl AsyncRead + Unpin), max_payload: u64) -> Result<Option<(FromRunner, Bytes)>, FrameError> {
    let mut prefix = [0; PREFIX];
    match socket.read(&mut prefix).await? {
        0 => return Ok(None),
        n => read_rest(socket, &mut prefix, n).await?,
    }
    let lengths = Lengths::parse(prefix, max_payload)?;
    let header = read_growing(socket, lengths.header).await?;
    let payload = read_growing(socket, lengths.payload).await?;
    Ok(Some((decode(&header)?, payload)))
}

async fn read_rest(socket: &mut (impl AsyncRead + Unpin), buffer: &mut [u8], have: usize) -> Result<(), FrameError> {
    let rest = buffer.get_mut(have..).unwrap_or_default();
    match socket.read_exact(rest).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Err(error) => Err(error.into()),
    }
}

/// Reads `length` bytes and takes memory only as they come: the length is the other end's word.
async fn read_growing(socket: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Bytes, FrameError> {
    let mut buffer = BytesMut::with_capacity(length.min(GROWTH));
    while buffer.len() < length {
        if buffer.len() == buffer.capacity() {
            buffer.reserve(buffer.len().max(GROWTH).min(length - buffer.len()));
        }
        let missing = (length - buffer.len()) as u64;
        if (&mut *socket).take(missing).read_buf(&mut buffer).await? == 0 {
            return Err(FrameError::Truncated);
        }
    }
    Ok(buffer.freeze())
}

/// Reads answers until the channel ends (`Ok`) or the runner breaks the protocol.
pub(crate) async fn read_loop(
    mut socket: impl AsyncRead + Unpin,
    pending: &Pending,
    metadata: &ModelMetadata,
    max_answer: u64,
) -> Result<(), FrameError> {
    while let Some((message, payload)) = receive(&mut socket, max_answer).await? {
        let known = match message {
            FromRunner::Answer { id, outputs } => {
                let tensors = tensors(outputs, &payload)?;
                pending.complete(id, |wished| match check::answer(metadata, wished, &tensors) {
                    Ok(()) => Ok(tensors),
                    Err(text) => Err(RunnerError::BrokeProtocol(text)),
                })
            }
            FromRunner::Refused { id, refusal } => pending.complete(id, |_| {
                Err(match refusal {
                    Refusal::Input(text) => RunnerError::Input(check::text(&text)),
                    Refusal::Execution(text) => RunnerError::Execution(check::text(&text)),
                    Refusal::Cancelled | Refusal::Expired => RunnerError::Deadline("queued"),
                })
            }),
            FromRunner::Ready { .. } | FromRunner::Failed(_) => false,
        };
        if !known {
            return Err(FrameError::Unexpected);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lie_about_the_length_costs_no_memory() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut prefix = [0; PREFIX];
        prefix[..4].copy_from_slice(&1u32.to_le_bytes());
        prefix[4..].copy_from_slice(&(1u64 << 40).to_le_bytes());
        far.write_all(&prefix).await.unwrap();
        far.write_all(&[0; 30]).await.unwrap();
        drop(far);
        // Allowed by the limit, promised, never sent: an allocation of a terabyte would abort the test.
        assert!(matches!(receive(&mut near, 1 << 41).await, Err(FrameError::Truncated)));
    }

    #[tokio::test]
    async fn every_cut_of_a_frame_is_found() {
        let pieces = encode(&FromRunner::Refused { id: 1, refusal: Refusal::Input("x".into()) }, &[]).unwrap();
        let frame = pieces.concat();
        for cut in 0..=frame.len() {
            let (mut near, mut far) = tokio::io::duplex(256);
            far.write_all(&frame[..cut]).await.unwrap();
            drop(far);
            let got = receive(&mut near, 100).await;
            match cut {
                0 => assert!(matches!(got, Ok(None))),
                n if n == frame.len() => assert!(matches!(got, Ok(Some(_)))),
                _ => assert!(matches!(got, Err(FrameError::Truncated)), "{cut}"),
            }
        }
    }
}
