//! Base64 for URLs without padding (RFC 4648, 5), strictly: no other character, no bits left over.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes of a text; `None` when it is not exactly their encoding.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_value() {
        assert_eq!(decode("AQID").unwrap(), [1, 2, 3]);
        for bad in ["AQID=", "AQ==", "AR", "A", "+/", "AQ ID", "AQID\n"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
