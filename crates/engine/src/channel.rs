//! The channel between the node and a runner: what they say ([`message`]), how it looks on the socket
//! ([`frame`]), and the two ends, one asynchronous ([`node`]) and one blocking ([`child`]).
//!
//! A Unix socket pair carries frames of a small header and the bytes of the tensors. Invariants: neither
//! end trusts a length, a name or a shape that the other wrote; the node's memory for one runner is
//! bounded by the queue's limits; the tensor's bytes are copied by the kernel and by nobody else.
//!
//! Only this module knows that it is a socket, so it can become shared memory without a change elsewhere.
//! What an answer must look like beyond the protocol is in [`crate::check`].

pub(crate) mod child;
pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod pending;

/// The descriptor on which a runner has its end of the channel.
pub(crate) const CHANNEL_FD: i32 = 3;
