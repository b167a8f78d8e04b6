//! How a runner gets its lanes and its view of the region: as descriptors that come with the first byte on the channel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most descriptors at once; the kernel's own limit is 253.
pub(crate) const MAX_DESCRIPTORS: usize = 65;
/// The byte that they come with.
const MARK: u8 = b'P';

/// Hands descriptors over. They stay open here.
pub(crate) fn give(channel: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(channel, &[IoSlice::new(&[MARK])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the descriptors that come first; none when the channel is closed.
pub(crate) fn take(channel: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut mark = [0];
    let got = recvmsg(channel, &mut [IoSliceMut::new(&mut mark)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut taken = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            taken.extend(descriptors);
        }
    }
    if got.bytes == 1 && mark != [MARK] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_go_over() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        give(&near, &[writer.as_fd(), reader.as_fd()]).unwrap();
        (&near).write_all(b"rest").unwrap();
        let taken = take(&far).unwrap();
        assert_eq!(taken.len(), 2);
        let mut rest = [0; 4];
        (&far).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"rest");
        writer.write_all(b"x").unwrap();
        drop((writer, taken));
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "x");
        drop(near);
        assert!(take(&far).unwrap().is_empty());
    }
}
