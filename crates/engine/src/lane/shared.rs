//! What the two halves of a lane and the runner's watch know in common: the socket, and the batches on their way.
//!
//! Invariants: a batch is in the book from before its packet leaves until its answer is taken apart; the answers come in
//! the order of the book, so the first is the one in execution; after [`Shared::close`] nothing new enters.

#![allow(unsafe_code, reason = "registering a descriptor with the runtime asks for a promise about its owner")]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::Clock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

use super::DEPTH;
use crate::channel::packet;
use crate::region::{Extent, Region};
use crate::spec::ModelMetadata;

/// How a lane, or the channel beside it, has ended.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    /// The other end is gone.
    Closed,
    /// It said something that it may not say.
    Broken(String),
}

/// What a lane is made of.
pub(crate) struct Wiring {
    pub socket: OwnedFd,
    pub region: Arc<Region>,
    pub metadata: Arc<ModelMetadata>,
    pub clock: Arc<dyn Clock>,
    /// The most bytes of one answer.
    pub max_answer: u64,
    /// Whom the end is told.
    pub end: mpsc::Sender<LaneEnd>,
}

pub(crate) struct Shared {
    /// Non-blocking. Whoever waits for it registers it for as long as he sleeps: a registered socket wakes a thread of the
    /// runtime with every packet, also one that nobody sleeps for.
    pub(super) socket: Arc<OwnedFd>,
    pub(super) wiring: Facts,
    book: Mutex<Book>,
    empty: Notify,
    flush: Notify,
    /// Whether the receiver sleeps and wants to know of the first batch, to look for its answer.
    pub(super) looks: AtomicBool,
    pub(super) begun: Notify,
}

/// The parts of [`Wiring`] that stay as they are.
pub(super) struct Facts {
    pub region: Arc<Region>,
    pub metadata: Arc<ModelMetadata>,
    pub max_answer: u64,
    pub end: mpsc::Sender<LaneEnd>,
    pub clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Book {
    sent: VecDeque<Sent>,
    /// Places of batches that are being laid out.
    reserved: usize,
    last: u64,
    oldest_since: Duration,
    /// Packets for which the socket had no room.
    outgoing: VecDeque<Outgoing>,
    closed: bool,
    learned: Learned,
}

/// A batch that the runner holds.
#[derive(Debug)]
pub(super) struct Sent {
    pub sequence: u64,
    pub id: u64,
    pub rows: Vec<u64>,
    pub total: Option<u64>,
    pub outputs: Vec<u16>,
    pub wished: Vec<Option<Vec<usize>>>,
    pub input_bytes: u64,
    /// The area of the inputs, which the runner reads until it has answered.
    pub inputs: Option<Extent>,
    /// The area in which outputs may be.
    pub place: Option<Extent>,
}

/// A packet as pieces that are not copied.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub head: Vec<u8>,
    pub body: Vec<Bytes>,
}

/// What the last answer was like, where shapes do not say how long the next will be.
#[derive(Debug, Default, Clone, Copy)]
struct Learned {
    inputs: u64,
    outputs: u64,
}

/// The most pieces with one call; the kernel's own limit is 1024.
const MAX_SLICES: usize = 512;

impl Outgoing {
    fn send(&self, socket: &OwnedFd) -> io::Result<()> {
        if self.body.len() >= MAX_SLICES {
            let body = self.body.concat();
            return packet::send(socket, &[IoSlice::new(&self.head), IoSlice::new(&body)], false);
        }
        let mut slices = Vec::with_capacity(1 + self.body.len());
        slices.push(IoSlice::new(&self.head));
        slices.extend(self.body.iter().map(|piece| IoSlice::new(piece)));
        packet::send(socket, &slices, false)
    }
}

/// A place among the outstanding batches, given back unless it is used.
pub(super) struct Reservation<'a>(&'a Shared);

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.0.book().reserved -= 1;
        self.0.tell_if_empty();
    }
}

/// A socket that the runtime watches.
pub(super) struct Watched(pub Arc<OwnedFd>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Watches a socket for as long as what is returned lives.
pub(super) fn registered(socket: &Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Watched>> {
    // SAFETY: the descriptor stays open as long as the registration, and nobody replaces it meanwhile.
    unsafe { AsyncFd::register_with_interest(Watched(socket.clone()), interest) }.map_err(|error| error.into_parts().1)
}

/// Why there is no place.
pub(super) enum NoPlace {
    Busy,
    Ended,
}

impl Shared {
    /// Must be called within a runtime.
    pub(crate) fn new(wiring: Wiring) -> io::Result<Arc<Self>> {
        rustix::io::ioctl_fionbio(&wiring.socket, true)?;
        let Wiring { socket, region, metadata, clock, max_answer, end } = wiring;
        Ok(Arc::new(Self {
            socket: Arc::new(socket),
            wiring: Facts { region, metadata, max_answer, end, clock },
            book: Mutex::default(),
            empty: Notify::new(),
            flush: Notify::new(),
            looks: AtomicBool::new(false),
            begun: Notify::new(),
        }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches the runner holds, or is about to.
    pub(crate) fn outstanding(&self) -> usize {
        let book = self.book();
        book.sent.len() + book.reserved
    }

    pub(super) fn reserve(&self) -> Result<Reservation<'_>, NoPlace> {
        let mut book = self.book();
        if book.closed {
            return Err(NoPlace::Ended);
        }
        if book.sent.len() + book.reserved >= DEPTH {
            return Err(NoPlace::Busy);
        }
        book.reserved += 1;
        Ok(Reservation(self))
    }

    /// How many bytes of outputs to expect for so many bytes of inputs.
    pub(super) fn expected_output(&self, inputs: u64) -> u64 {
        let learned = self.book().learned;
        if learned.inputs == inputs || learned.inputs == 0 {
            return learned.outputs;
        }
        let scaled = u128::from(learned.outputs) * u128::from(inputs) / u128::from(learned.inputs);
        let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
        // Some room for what does not grow in proportion.
        scaled.saturating_add(scaled / 8)
    }

    /// Enters a batch and sends its packets, made for the number that the batch gets. False, and nothing is left behind,
    /// when the runner is gone.
    pub(super) fn send(&self, place: Reservation<'_>, mut sent: Sent, packets: impl FnOnce(u64) -> Option<VecDeque<Outgoing>>) -> bool {
        let mut book = self.book();
        let sequence = book.last + 1;
        let entered = !book.closed && {
            sent.sequence = sequence;
            match packets(sequence) {
                Some(packets) => self.write(&mut book, packets),
                None => false,
            }
        };
        if entered {
            book.last = sequence;
            if book.sent.is_empty() {
                book.oldest_since = self.wiring.clock.monotonic();
                if self.looks.load(Ordering::Relaxed) {
                    self.begun.notify_one();
                }
            }
            book.sent.push_back(sent);
            // At once, so that nobody counts the batch twice.
            book.reserved -= 1;
            std::mem::forget(place);
        } else {
            drop(book);
            drop(place);
        }
        entered
    }

    /// Writes what the socket takes at once; the rest is for [`Shared::flushing`].
    fn write(&self, book: &mut Book, mut packets: VecDeque<Outgoing>) -> bool {
        if book.outgoing.is_empty() {
            while let Some(first) = packets.front() {
                match first.send(&self.socket) {
                    Ok(()) => drop(packets.pop_front()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
            }
        }
        if !packets.is_empty() {
            book.outgoing.append(&mut packets);
            self.flush.notify_one();
        }
        true
    }

    /// Writes what waits whenever there is room; never returns. Cancel safe.
    pub(super) async fn flushing(&self) {
        loop {
            let waiting = !self.book().outgoing.is_empty();
            if !waiting {
                self.flush.notified().await;
                continue;
            }
            let written = async {
                // A descriptor of its own: the same one cannot be registered beside the reader's.
                let writable = registered(&Arc::new(self.socket.try_clone()?), Interest::WRITABLE)?;
                let write = |socket: &Watched| {
                    let mut book = self.book();
                    while let Some(first) = book.outgoing.front() {
                        first.send(&socket.0)?;
                        book.outgoing.pop_front();
                    }
                    Ok(())
                };
                writable.async_io(Interest::WRITABLE, write).await
            };
            if written.await.is_err() {
                // The reader sees the same end.
                self.book().outgoing.clear();
            }
        }
    }

    /// Whether `sequence` is the batch whose answer has to come now, and what it has asked for.
    pub(super) fn is_next(&self, sequence: u64) -> bool {
        self.book().sent.front().is_some_and(|sent| sent.sequence == sequence)
    }

    /// Takes the batch out that has been answered.
    pub(super) fn complete(&self, sequence: u64) -> Option<Sent> {
        let mut book = self.book();
        let sent = if book.sent.front()?.sequence == sequence { book.sent.pop_front() } else { None };
        book.oldest_since = self.wiring.clock.monotonic();
        drop(book);
        self.tell_if_empty();
        sent
    }

    pub(super) fn learn(&self, inputs: u64, outputs: u64) {
        self.book().learned = Learned { inputs, outputs };
    }

    fn tell_if_empty(&self) {
        if self.outstanding() == 0 {
            self.empty.notify_waiters();
        }
    }

    /// For how long the runner has had the oldest batch as its next one; `None` when it has none.
    pub(crate) fn oldest_for(&self) -> Option<Duration> {
        let book = self.book();
        (!book.sent.is_empty()).then(|| self.wiring.clock.monotonic().saturating_sub(book.oldest_since))
    }

    /// Returns when the runner holds nothing. Cancel safe.
    pub(crate) async fn drained(&self) {
        loop {
            let empty = self.empty.notified();
            tokio::pin!(empty);
            // Registered before the look at the book, so that no notification falls between them.
            empty.as_mut().enable();
            if self.outstanding() == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Nothing new enters from now on.
    pub(crate) fn close(&self) {
        self.book().closed = true;
    }

    /// The runner is gone, and with it whatever it held.
    pub(super) fn forget(&self) {
        {
            let mut book = self.book();
            book.closed = true;
            book.outgoing.clear();
            book.sent.clear();
        }
        self.tell_if_empty();
    }
}
