//! The channel between the node and a runner: a stream for beginning and end, and a socket of packets for each lane.
//!
//! On the stream: the descriptors that a runner gets ([`handover`]), what it shall load and what it says of it ([`message`],
//! [`frame`]), read by a task in the node ([`node`]) and by a plain thread in the runner ([`child`]). On a lane: batches and
//! answers ([`wire`], [`packet`]). Invariant: neither end trusts a length, a name or a shape that the other wrote.
//!
//! What a batch or an answer must look like beyond the protocol is in [`crate::lane`] and [`crate::check`].

pub(crate) mod child;
pub(crate) mod frame;
pub(crate) mod handover;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod packet;
pub(crate) mod wire;

/// The machine's own clock, which both ends read alike.
pub(crate) fn machine_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    std::time::Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The descriptor on which a runner has its end of the stream. Those of its lanes come after it.
pub(crate) const CHANNEL_FD: i32 = 3;
