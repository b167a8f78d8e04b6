//! A reader of JSON text that hands out pieces of it as they come, without building a tree.
//!
//! Invariant: it never reads past the text, recursion is bounded by [`MAX_DEPTH`], and nothing is allocated but a string
//! that has escapes, which is at most as long as its text. What the pieces mean is left to the caller.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use plinth_types::{Error, Reason};

/// How deep arrays and objects may lie in each other.
const MAX_DEPTH: u32 = 64;

/// What is wrong with a request, and in which field. Grows outwards: the innermost reader makes it, each one further out
/// puts its own name before the field.
pub(super) struct Fault(Box<Parts>);

struct Parts {
    reason: Reason,
    field: String,
    text: String,
}

impl Fault {
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self(Box::new(Parts { reason, field: String::new(), text: text.into() }))
    }

    /// The field lies in `outer`.
    pub(super) fn under(mut self, outer: impl fmt::Display) -> Self {
        let inner = &self.0.field;
        let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
        self.0.field = format!("{outer}{dot}{inner}");
        self
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let Parts { reason, field, text } = *fault.0;
        let error = Self::new(reason, text);
        if field.is_empty() { error } else { error.field(field) }
    }
}

impl From<plinth_types::tensor::TensorError> for Fault {
    fn from(error: plinth_types::tensor::TensorError) -> Self {
        Self::new(Reason::InvalidTensor, error.to_string())
    }
}

/// Stands in a text.
#[derive(Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes lie before it.
    pub(super) const fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// The text is not JSON, or not the JSON that belongs here.
    pub(super) fn malformed(&self, wanted: impl fmt::Display) -> Fault {
        let found = match self.text[self.at..].chars().next() {
            None => "the end of the JSON text".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        Fault::new(Reason::MalformedRequest, format!("malformed request: expected {wanted} at byte {}, found {found}", self.at))
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not blank, left in place.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Takes `byte`, which must come next.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(self.malformed(format_args!("{:?}", char::from(byte)))) }
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        if self.peek().is_none() { Ok(()) } else { Err(self.malformed("the end of the JSON text")) }
    }

    /// Reads an object; `member` reads each value and gets its key. Members that it does not know it must [`Self::skip`].
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), Fault>) -> Result<(), Fault> {
        if !self.take(b'{') {
            return Err(self.malformed("an object"));
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.malformed("a member's name in quotes"));
            }
            let key = self.string()?;
            self.expect(b':')?;
            member(self, &key)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Reads an array; `element` reads each element and gets its index.
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self, usize) -> Result<(), Fault>) -> Result<(), Fault> {
        if !self.take(b'[') {
            return Err(self.malformed("an array"));
        }
        if self.take(b']') {
            return Ok(());
        }
        let mut index = 0;
        loop {
            element(self, index).map_err(|e| e.under(format_args!("[{index}]")))?;
            index += 1;
            if !self.take(b',') {
                return self.expect(b']');
            }
        }
    }

    /// Reads a string; borrowed from the text unless it has escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        if !self.take(b'"') {
            return Err(self.malformed("a string"));
        }
        let start = self.at;
        let plain = self.plain_run();
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..start + plain]));
        }
        let mut value = self.text[start..start + plain].to_owned();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(value));
                }
                Some(b'\\') => {
                    self.at += 1;
                    value.push(self.escape()?);
                }
                _ => return Err(self.malformed("the end of the string")),
            }
            let start = self.at;
            let plain = self.plain_run();
            value.push_str(&self.text[start..start + plain]);
        }
    }

    /// Moves over bytes that stand for themselves in a string, and answers how many.
    fn plain_run(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
        self.at += length;
        length
    }

    /// The character that the escape after a backslash stands for.
    fn escape(&mut self) -> Result<char, Fault> {
        let kind = self.byte();
        let plain = match kind {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.malformed("an escape that JSON has")),
        };
        self.at += 1;
        Ok(plain)
    }

    /// The character of `\uXXXX`, or of two of them that are a surrogate pair; stands after the `u`.
    fn unicode(&mut self) -> Result<char, Fault> {
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let second = self.hex()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.malformed("the second half of a surrogate pair"));
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.malformed("a surrogate pair that is whole"))
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let mut code = 0;
        for digit in digits {
            let value = char::from(*digit).to_digit(16).ok_or_else(|| self.malformed("four hexadecimal digits"))?;
            code = code * 16 + value;
        }
        if digits.len() < 4 {
            return Err(self.malformed("four hexadecimal digits"));
        }
        self.at += 4;
        Ok(code)
    }

    /// The text of a number.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a str, Fault> {
        self.peek();
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(self.byte() == Some(b'-'));
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let whole = at;
        at = digits(at);
        // JSON has no leading zeros.
        if at == whole || (bytes[whole] == b'0' && at > whole + 1) {
            return Err(self.malformed("a number"));
        }
        if bytes.get(at) == Some(&b'.') {
            let fraction = at + 1;
            at = digits(fraction);
            if at == fraction {
                return Err(self.malformed("a number"));
            }
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let exponent = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            at = digits(exponent);
            if at == exponent {
                return Err(self.malformed("a number"));
            }
        }
        self.at = at;
        Ok(&self.text[start..at])
    }

    /// Reads a whole number of a type; `name` is the type's for the error.
    #[inline]
    pub(super) fn integer<T: FromStr + Default>(&mut self, name: &str) -> Result<T, Fault> {
        let before = self.clone();
        let text = self.number()?;
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) if text == "-0" => Ok(T::default()),
            Err(_) if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) => Err(before.malformed("a whole number")),
            Err(_) => {
                let text: String = text.chars().take(32).collect();
                Err(Fault::new(Reason::InvalidTensor, format!("{text} is out of range for {name}")))
            }
        }
    }

    /// Reads `true` or `false`.
    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        self.peek();
        let rest = &self.text[self.at..];
        let (value, length) = match rest.as_bytes().first() {
            Some(b't') if rest.starts_with("true") => (true, 4),
            Some(b'f') if rest.starts_with("false") => (false, 5),
            _ => return Err(self.malformed("true or false")),
        };
        self.at += length;
        Ok(value)
    }

    /// Takes `null` if it comes next.
    pub(super) fn null(&mut self) -> bool {
        let next = self.peek() == Some(b'n') && self.text[self.at..].starts_with("null");
        self.at += if next { 4 } else { 0 };
        next
    }

    /// Whether a word comes next that other programs write for numbers that JSON does not have.
    pub(super) fn at_non_number(&mut self) -> bool {
        self.peek();
        let rest = &self.text[self.at..];
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        ["NaN", "nan", "Inf", "inf"].iter().any(|w| rest.starts_with(w))
    }

    /// Moves over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: u32) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new(Reason::MalformedRequest, format!("malformed request: nested more than {MAX_DEPTH} deep")));
        }
        match self.peek() {
            Some(b'{') => self.object(|s, _| s.skip_at(depth + 1)),
            Some(b'[') => self.array(|s, _| s.skip_at(depth + 1)),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') if self.null() => Ok(()),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => Err(self.malformed("a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_is_json(text in prop_oneof![
            r#"[\[\]{},:"a0-9.eE+\-\\untrfals ]{0,24}"#,
            ".{0,24}",
            r#"\{"a":(\[1,2\.5e3,"x\\u00e9"\]|null|true|-0)\}"#,
        ]) {
            let mut scanner = Scanner::new(&text);
            let ours = scanner.skip().and_then(|()| scanner.end()).is_ok();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            // serde_json does not look into the escapes of what it ignores; we do.
            if ours {
                prop_assert!(theirs, "{text:?}");
            } else if !text.contains('\\') {
                prop_assert!(!theirs, "{text:?}");
            }
        }

        #[test]
        fn strings_are_read_as_serde_json_reads_them(text in ".{0,24}", raw in r#"([a-z]|\\n|\\u00e9|\\ud83d\\ude00|\\ud83d|\\uZ){0,6}"#) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(Scanner::new(&written).string().ok().map(Cow::into_owned), Some(text));
            let raw = format!("\"{raw}\"");
            let theirs = serde_json::from_str::<String>(&raw).ok();
            prop_assert_eq!(Scanner::new(&raw).string().ok().map(Cow::into_owned), theirs);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Scanner::new(&deep(64)).skip().is_ok());
        for hostile in [deep(100_000), "[".repeat(1_000_000), "{\"a\":".repeat(100_000)] {
            assert!(Scanner::new(&hostile).skip().is_err());
        }
    }
}
