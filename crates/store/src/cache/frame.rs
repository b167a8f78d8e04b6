//! How an answer lies in Redis: with what shows that it is ours, undamaged, under its own key, and how long it is good.
//!
//! 4 bytes `PLC` and a version, 8 bytes the end of its time (milliseconds since 1970, little-endian), the first 20 bytes of the
//! SHA-256 over key, end and content, the content. Invariant: [`open`] gives bytes only when [`seal`] made them for this key;
//! everything else, of whatever length, is `None`. The head is 32 bytes so that the content stays aligned.
//!
//! The digest keeps damage and mistakes out, and no enemy: who can write to the server can compute it too.

use bytes::Bytes;
use plinth_types::{CacheKey, DigestHasher, Timestamp};

/// What precedes the content.
pub(super) const HEAD: usize = 32;
const MARK: [u8; 4] = *b"PLC\x01";
const CHECK: usize = 20;

fn check(key: &CacheKey, until: [u8; 8], content: &[u8]) -> [u8; CHECK] {
    let mut hasher = DigestHasher::new();
    hasher.update(key.digest().as_bytes());
    hasher.update(&until);
    hasher.update(content);
    let digest = hasher.finish();
    std::array::from_fn(|i| digest.as_bytes()[i])
}

/// A frame around `content`.
pub(super) fn seal(key: &CacheKey, content: &[u8], until: Timestamp) -> Vec<u8> {
    let until = until.millis().to_le_bytes();
    let mut frame = Vec::with_capacity(HEAD + content.len());
    frame.extend_from_slice(&MARK);
    frame.extend_from_slice(&until);
    frame.extend_from_slice(&check(key, until, content));
    frame.extend_from_slice(content);
    frame
}

/// The content of a frame, and the milliseconds since 1970 at which its time ends.
pub(super) fn open(key: &CacheKey, frame: Vec<u8>) -> Option<(Bytes, u64)> {
    let rest = frame.strip_prefix(&MARK)?;
    let (until, rest) = rest.split_first_chunk::<8>()?;
    let (sum, content) = rest.split_first_chunk::<CHECK>()?;
    if *sum != check(key, *until, content) {
        return None;
    }
    let until = u64::from_le_bytes(*until);
    let mut frame = Bytes::from(frame);
    Some((frame.split_off(HEAD), until))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conformance::cache_key as key;

    fn end() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).unwrap()
    }

    #[test]
    fn a_frame_opens_under_its_own_key_alone() {
        let frame = seal(&key("a"), b"content", end());
        assert_eq!(open(&key("a"), frame.clone()), Some((Bytes::from_static(b"content"), end().millis())));
        assert_eq!(open(&key("b"), frame), None);
        assert_eq!(open(&key("a"), seal(&key("a"), b"", end())), Some((Bytes::new(), end().millis())));
    }

    proptest! {
        #[test]
        fn damage_is_seen(content in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), bit in 0u32..8, cut in any::<prop::sample::Index>()) {
            let frame = seal(&key("a"), &content, end());
            let mut flipped = frame.clone();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert_eq!(open(&key("a"), flipped), None);
            prop_assert_eq!(open(&key("a"), frame[..cut.index(frame.len())].to_vec()), None);
            prop_assert_eq!(open(&key("a"), [&frame[..], b"x"].concat()), None);
        }

        #[test]
        fn anything_else_is_not_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(open(&key("a"), bytes), None);
        }
    }
}
