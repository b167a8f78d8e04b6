//! The node's end of the stream: asynchronous.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{FrameError, PREFIX, decode, encode, length};
use super::message::{FromRunner, ToRunner};

/// Sends one message.
pub(crate) async fn send(socket: &mut (impl AsyncWrite + Unpin), message: &ToRunner) -> Result<(), FrameError> {
    Ok(socket.write_all(&encode(message)?).await?)
}

/// Reads one message; `None` at the end of the channel. Takes memory only as bytes arrive. Not cancel safe.
pub(crate) async fn receive(socket: &mut (impl AsyncRead + Unpin)) -> Result<Option<FromRunner>, FrameError> {
    let mut prefix = [0; PREFIX];
    match socket.read(&mut prefix).await? {
        0 => return Ok(None),
        n => drop(socket.read_exact(prefix.get_mut(n..).unwrap_or_default()).await.map_err(|_| FrameError::Truncated)?),
    }
    let length = length(prefix)?;
    let mut bytes = Vec::new();
    if (&mut *socket).take(length as u64).read_to_end(&mut bytes).await? < length {
        return Err(FrameError::Truncated);
    }
    Ok(Some(decode(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::message::StartFailure;

    #[tokio::test]
    async fn a_lie_about_the_length_costs_no_memory_and_no_time() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        assert!(matches!(receive(&mut near).await, Err(FrameError::HeaderLength(_))));
    }

    #[tokio::test]
    async fn every_cut_of_a_frame_is_found() {
        let frame = encode(&FromRunner::Failed(StartFailure::Load("x".into()))).unwrap();
        for cut in 0..=frame.len() {
            let (mut near, mut far) = tokio::io::duplex(256);
            far.write_all(&frame[..cut]).await.unwrap();
            drop(far);
            let got = receive(&mut near).await;
            match cut {
                0 => assert!(matches!(got, Ok(None))),
                n if n == frame.len() => assert!(matches!(got, Ok(Some(_)))),
                _ => assert!(matches!(got, Err(FrameError::Truncated)), "{cut}"),
            }
        }
    }
}
