//! Bodies that are read whole for filters.
//!
//! Invariants: never more is held than the largest that one of the filters takes; the body of an answer that turns out to be
//! larger goes on as it was, what was read of it first.

use std::io;
use std::pin::Pin;

use bytes::{Buf, Bytes};
use futures_util::stream::{self, StreamExt};
use http_body::Body as _;
use plinth_net::{Body, Chunk, Frame};

/// What became of an answer's body.
pub(super) enum Collected {
    /// All of it, with the guards of the old body on the new one.
    Whole(Bytes, Body),
    /// It is larger; as it was.
    Larger(Body),
}

/// Reads an answer's body up to `most` bytes.
///
/// # Errors
/// Those of the stream.
pub(super) async fn collect(mut body: Body, most: usize) -> io::Result<Collected> {
    if body.len().is_some_and(|length| length > most as u64) {
        return Ok(Collected::Larger(body));
    }
    if let Some(pieces) = body.pieces() {
        let whole = if let [one] = &pieces[..] { one.clone() } else { pieces.concat().into() };
        return Ok(Collected::Whole(whole, body));
    }
    let (mut pieces, mut length) = (Vec::<Bytes>::new(), 0_usize);
    while let Some(frame) = next(&mut body).await {
        // Trailers come last; JSON has none that matter to anybody.
        let Ok(piece) = frame?.into_data() else { continue };
        let piece = bytes(piece);
        length = length.saturating_add(piece.len());
        pieces.push(piece);
        if length > most {
            return Ok(Collected::Larger(resumed(pieces, body)));
        }
    }
    Ok(Collected::Whole(pieces.concat().into(), body))
}

/// What was read, and then the rest.
fn resumed(pieces: Vec<Bytes>, body: Body) -> Body {
    let rest = stream::unfold(body, |mut body| async move {
        let frame = next(&mut body).await?;
        Some((frame.map(|frame| frame.map_data(bytes)), body))
    });
    Body::frames(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece)))).chain(rest))
}

async fn next(body: &mut Body) -> Option<io::Result<Frame<Chunk>>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

fn bytes(mut chunk: Chunk) -> Bytes {
    chunk.copy_to_bytes(chunk.remaining())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        Body::stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_or_goes_on_as_it_was() {
        for body in [streamed(&["ab", "c"]), Body::full("abc")] {
            let Collected::Whole(bytes, _) = collect(body, 3).await.unwrap() else { panic!("it fits") };
            assert_eq!(bytes, "abc");
        }
        for body in [streamed(&["ab", "cd", "e"]), Body::full("abcde")] {
            let Collected::Larger(body) = collect(body, 3).await.unwrap() else { panic!("it does not fit") };
            assert_eq!(body.into_bytes().await.unwrap(), "abcde");
        }
        let held = std::sync::Arc::new(());
        let Collected::Whole(_, body) = collect(streamed(&["a"]).with_guard(held.clone()), 3).await.unwrap() else { panic!("it fits") };
        let body = body.replaced("b");
        assert_eq!(std::sync::Arc::strong_count(&held), 2, "what the answer holds, the changed answer holds");
        drop(body);
    }
}
