//! The texts of a JSON document, rewritten where they stand.
//!
//! Everything else stays byte for byte. What is not JSON is refused, because a reader that takes more than JSON would see
//! texts where this one sees none.

/// The document is not JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct NotJson;

/// The document with each text as `change` gives it; `None` when no text is changed.
pub fn rewrite(document: &[u8], change: &dyn Fn(&str) -> Option<String>) -> Result<Option<Vec<u8>>, NotJson> {
    let document = std::str::from_utf8(document).map_err(|_| NotJson)?;
    let bytes = document.as_bytes();
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = end_of_text(bytes, at + 1).ok_or(NotJson)?;
                let raw = &document[at + 1..end];
                let decoded;
                let text = if raw.contains('\\') {
                    decoded = decode(raw).ok_or(NotJson)?;
                    &decoded
                } else {
                    raw
                };
                if let Some(changed) = change(text) {
                    let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
                    out.extend_from_slice(&bytes[copied..=at]);
                    encode(&changed, out);
                    copied = end;
                }
                at = end + 1;
            }
            b' ' | b'\t' | b'\r' | b'\n' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'E' => at += 1,
            // The letters of true, false, null and of exponents.
            b't' | b'r' | b'u' | b'e' | b'f' | b'a' | b'l' | b's' | b'n' => at += 1,
            _ => return Err(NotJson),
        }
    }
    Ok(out.map(|mut out| {
        out.extend_from_slice(&bytes[copied..]);
        out
    }))
}

/// Where the quote stands that ends a text.
fn end_of_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            0..=0x1f => return None,
            _ => at += 1,
        }
    }
}

/// A text without its escapes.
fn decode(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        text.push(match rest.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            same @ ('"' | '\\' | '/') => same,
            'u' => {
                let high = unit(&mut rest)?;
                match high {
                    0xd800..=0xdbff => {
                        let mut ahead = rest.clone();
                        let low = (ahead.next() == Some('\\') && ahead.next() == Some('u')).then(|| unit(&mut ahead)).flatten();
                        match low.filter(|low| (0xdc00..=0xdfff).contains(low)) {
                            Some(low) => {
                                rest = ahead;
                                char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                            }
                            None => char::REPLACEMENT_CHARACTER,
                        }
                    }
                    other => char::from_u32(other).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            _ => return None,
        });
    }
    Some(text)
}

/// Four hexadecimal digits.
fn unit(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |sum, _| Some(sum << 4 | rest.next()?.to_digit(16)?))
}

/// A text with its escapes.
fn encode(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                let hex = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0') as u8;
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(document: &str) -> Result<Option<String>, NotJson> {
        let change = |text: &str| (text != text.to_uppercase()).then(|| text.to_uppercase());
        rewrite(document.as_bytes(), &change).map(|out| out.map(|out| String::from_utf8(out).unwrap()))
    }

    #[test]
    fn only_texts_change() {
        assert_eq!(upper(r#"{ "a" : [1, "b", true, -1.5e3] }"#), Ok(Some(r#"{ "A" : [1, "B", true, -1.5e3] }"#.into())));
        assert_eq!(upper(r#"["A", "1", null]"#), Ok(None));
        assert_eq!(upper(r#"["a\u0062\n\"", "ü\ud83d\ude00x"]"#), Ok(Some(r#"["AB\u000a\"", "Ü😀X"]"#.into())));
        assert_eq!(upper(r#"["\ud83d x"]"#), Ok(Some("[\"\u{fffd} X\"]".into())), "half a pair");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in ["hello", "{'a': 1}", r#"{"a": "b}"#, r#"["\x"]"#, r#"["\u12"]"#, "[\"a\nb\"]", "// no\n{}", r#"["a\"#] {
            assert_eq!(upper(bad), Err(NotJson), "{bad}");
        }
        assert_eq!(rewrite(b"[\"\xff\"]", &|_| None), Err(NotJson));
    }
}
