//! The sockets of lanes: packets that arrive whole and in order, small ones, between two processes that share memory.
//!
//! A packet is a `u32` (the header's length, little-endian), the header, and the payload, which begins at a multiple of
//! [`ALIGNMENT`]. A packet whose header's length is 0 is a *piece*: the next bytes of a payload that was announced and
//! fits nowhere else. Invariant: no length is believed before it was compared with what has arrived.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{FrameError, decode};

/// The longest packet. Far below what a socket takes at once.
pub(crate) const MAX_PACKET: usize = 96 << 10;
/// The most bytes of a payload in one piece.
pub(crate) const PIECE: usize = 64 << 10;
/// The longest header.
const MAX_HEADER: usize = 24 << 10;
/// So many tensors fit into a header, whatever their shapes: each is its number, a rank, at most
/// sixteen dimensions and a span, none of which takes more than ten bytes.
pub(crate) const SURELY: usize = 64;
/// Payloads begin at multiples of this, and so do the tensors within them: enough for every element type.
pub(crate) const ALIGNMENT: usize = 16;
/// What a socket may hold, where the machine allows it: two batches and a piece.
const SOCKET_BUFFER: usize = 512 << 10;
/// What stands before the header.
const PREFIX: usize = 4;

static PADDING: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// A lane's two ends.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&near, &far] {
        // The kernel's default is enough for correctness.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, SOCKET_BUFFER);
    }
    Ok((near, far))
}

/// The beginning of a packet: length, header, padding up to the payload.
pub(crate) fn head<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut head = Vec::with_capacity(128);
    head.extend_from_slice(&[0; PREFIX]);
    let mut head = postcard::to_extend(message, head)?;
    let length = head.len() - PREFIX;
    let announced = u32::try_from(length).ok().filter(|_| length <= MAX_HEADER).ok_or(FrameError::HeaderLength(length as u64))?;
    head.iter_mut().zip(announced.to_le_bytes()).for_each(|(to, from)| *to = from);
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    Ok(head)
}

/// Zeros up to the next multiple of [`ALIGNMENT`] after `offset`.
pub(crate) fn padding(offset: usize) -> &'static [u8] {
    PADDING.get(..offset.next_multiple_of(ALIGNMENT) - offset).unwrap_or_default()
}

/// The beginning of a piece.
pub(crate) const fn piece() -> [u8; ALIGNMENT] {
    PADDING
}

/// What a packet is.
pub(crate) enum Packet<'a, M> {
    /// A message and its payload.
    Message(M, &'a [u8]),
    /// More bytes of a payload.
    Piece(&'a [u8]),
}

/// Takes a packet apart.
pub(crate) fn parse<M: DeserializeOwned>(packet: &[u8]) -> Result<Packet<'_, M>, FrameError> {
    let (length, rest) = packet.split_first_chunk::<PREFIX>().ok_or(FrameError::Truncated)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 {
        return packet.get(ALIGNMENT..).map(Packet::Piece).ok_or(FrameError::Truncated);
    }
    let header = rest.get(..length).filter(|_| length <= MAX_HEADER).ok_or(FrameError::HeaderLength(length as u64))?;
    let payload = packet.get((PREFIX + length).next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    Ok(Packet::Message(decode(header)?, payload))
}

/// Sends one packet, or nothing of it.
pub(crate) fn send(socket: &impl AsFd, pieces: &[IoSlice<'_>], wait: bool) -> io::Result<()> {
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    loop {
        match sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet and says how long it is; 0 when the other end is closed.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut RecvAncillaryBuffer::default(), flags) {
            Ok(got) if got.flags.contains(ReturnFlags::TRUNC) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(got) => return Ok(got.bytes),
            // A peer that died with unread packets; what it had sent can still be read.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let (near, far) = pair().unwrap();
        let head = head(&("hello", 7u32)).unwrap();
        assert_eq!(head.len() % ALIGNMENT, 0);
        send(&near, &[IoSlice::new(&head), IoSlice::new(b"pay"), IoSlice::new(b"load")], false).unwrap();
        send(&near, &[IoSlice::new(&piece()), IoSlice::new(b"more")], false).unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        let n = receive(&far, &mut buffer, true).unwrap();
        let Packet::Message((text, number), payload) = parse::<(String, u32)>(&buffer[..n]).unwrap() else { panic!("a piece") };
        assert_eq!((text.as_str(), number, payload), ("hello", 7, &b"payload"[..]));
        let n = receive(&far, &mut buffer, true).unwrap();
        assert!(matches!(parse::<u8>(&buffer[..n]), Ok(Packet::Piece(b"more"))));
        assert_eq!(receive(&far, &mut buffer, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&near, &[IoSlice::new(&[1; 200])], false).unwrap();
        assert_eq!(receive(&far, &mut buffer[..100], true).unwrap_err().kind(), io::ErrorKind::InvalidData, "never a part");
        drop(near);
        assert_eq!(receive(&far, &mut buffer, true).unwrap(), 0);
        assert!(send(&far, &[IoSlice::new(b"x")], false).is_err());
    }

    #[test]
    fn lies_about_lengths_are_found() {
        for lie in [&[][..], &[1, 0], &[9, 0, 0, 0, 1], &[255; 40], &[0, 0, 0, 0]] {
            assert!(parse::<u8>(lie).is_err(), "{lie:?}");
        }
        assert!(head(&vec![7u8; MAX_HEADER + 1]).is_err());
    }
}
