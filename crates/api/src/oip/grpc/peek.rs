//! Which model an inference is for, from the beginning of its message: routes and limits are looked for before the message is read.
//!
//! Source: protobuf encoding; `ModelInferRequest.model_name` is field 1, and every known client writes it first.
//!
//! Invariant: nothing is decoded but what stands before the name. What this says is held against the whole message later
//! ([`crate::Routed`]), so that a message with two names does not pass as one and act as the other.

use super::wire::Fields;

/// What the beginning of a message says of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'m> {
    /// Its name.
    Model(&'m str),
    /// Nothing yet.
    More,
    /// Nothing: there is none, or the message is none. Whoever reads it refuses it.
    Nothing,
}

/// Reads the name. `whole`: whether nothing of the message follows.
#[must_use]
pub fn model(begin: &[u8], whole: bool) -> Said<'_> {
    for field in Fields::of(begin) {
        match field {
            Ok((1, value)) => return value.text().map_or(Said::Nothing, Said::Model),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if whole { Said::Nothing } else { Said::More }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::grpc::wire::{put_key, put_text};
    use proptest::prelude::*;

    #[test]
    fn the_name_is_found_without_the_rest() {
        let mut message = Vec::new();
        put_text(&mut message, 1, "digits");
        put_text(&mut message, 3, "id");
        put_key(&mut message, 7, 1 << 20);
        assert_eq!(model(&message, false), Said::Model("digits"), "the tensor is not there yet");
        assert_eq!((model(&message[..4], false), model(&message[..4], true)), (Said::More, Said::Nothing));
        let mut late = Vec::new();
        put_text(&mut late, 3, "id");
        put_text(&mut late, 1, "digits");
        assert_eq!(model(&late, true), Said::Model("digits"));
        let mut behind = Vec::new();
        put_key(&mut behind, 7, 1 << 20);
        behind.extend_from_slice(&[0; 100]);
        assert_eq!(model(&behind, false), Said::More);
        assert_eq!((model(&[], true), model(&[8, 1], true), model(&[10, 1, 0xff], true)), (Said::Nothing, Said::Nothing, Said::Nothing));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>, whole: bool) {
            let said = model(&bytes, whole);
            prop_assert!(!(whole && said == Said::More));
        }
    }
}
