//! Tokens of the protobuf text format.
//!
//! Invariant: every token lies inside the text, each call takes at least one byte or answers [`Token::End`], and
//! nothing is kept but the token itself.

use super::TextError;

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A field's name, an enumeration's value, `true`, `inf`.
    Word(&'a str),
    /// Something that begins like a number; not checked yet.
    Number(&'a str),
    /// A quoted string, with its escapes undone.
    Text(Vec<u8>),
    /// One of `:{}[]<>,;-`.
    Symbol(char),
    /// The end of the text.
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(text) | Self::Number(text) => write!(f, "'{}'", super::schema::excerpt(text)),
            Self::Text(_) => f.write_str("a string"),
            Self::Symbol(c) => write!(f, "'{c}'"),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

/// Cuts a text into tokens.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The error `text` at byte `offset`.
    pub(super) fn error(&self, offset: usize, text: impl Into<String>) -> TextError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        TextError {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: text.into(),
        }
    }

    /// The next token and the offset at which it begins.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), TextError> {
        self.skip_blank();
        let start = self.at;
        let Some(c) = self.text[start..].chars().next() else { return Ok((Token::End, start)) };
        let token = match c {
            'A'..='Z' | 'a'..='z' | '_' => Token::Word(self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_')),
            '0'..='9' | '.' => Token::Number(self.take_number()),
            '"' | '\'' => Token::Text(self.take_string(c as u8)?),
            ':' | '{' | '}' | '[' | ']' | '<' | '>' | ',' | ';' | '-' => {
                self.at += 1;
                Token::Symbol(c)
            }
            other => return Err(self.error(start, format!("the character {other:?} has no place here"))),
        };
        Ok((token, start))
    }

    fn skip_blank(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b) = bytes.get(self.at) {
            match b {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'#' => self.at += bytes[self.at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - self.at),
                _ => return,
            }
        }
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|b| !wanted(b)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn take_number(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let mut before = 0u8;
        let length = rest
            .bytes()
            .position(|b| {
                let exponent_sign = matches!(b, b'+' | b'-') && matches!(before, b'e' | b'E');
                before = b;
                !(b.is_ascii_alphanumeric() || b == b'.' || b == b'_' || exponent_sign)
            })
            .unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn take_string(&mut self, quote: u8) -> Result<Vec<u8>, TextError> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        let mut value = Vec::new();
        loop {
            match bytes.get(self.at) {
                None | Some(b'\n') => return Err(self.error(start, "the string that begins here does not end on its line")),
                Some(b) if *b == quote => {
                    self.at += 1;
                    return Ok(value);
                }
                Some(b'\\') => self.take_escape(&mut value)?,
                Some(b) => {
                    value.push(*b);
                    self.at += 1;
                }
            }
        }
    }

    /// Undoes the escape at the backslash under the cursor.
    fn take_escape(&mut self, value: &mut Vec<u8>) -> Result<(), TextError> {
        let start = self.at;
        self.at += 1;
        let bad = |lexer: &Self| lexer.error(start, "this escape in a string is not known");
        let kind = *self.text.as_bytes().get(self.at).ok_or_else(|| bad(self))?;
        if kind.is_ascii_digit() {
            let digits = self.take_digits(3, 8);
            let byte = u8::from_str_radix(digits, 8).map_err(|_| bad(self))?;
            value.push(byte);
            return Ok(());
        }
        self.at += 1;
        let plain = match kind {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'?' | b'\\' | b'\'' | b'"' => kind,
            b'x' | b'X' => u8::from_str_radix(self.take_digits(2, 16), 16).map_err(|_| bad(self))?,
            b'u' | b'U' => {
                let width = if kind == b'u' { 4 } else { 8 };
                let digits = self.take_digits(width, 16);
                let code = if digits.len() == width { u32::from_str_radix(digits, 16).ok() } else { None };
                let c = code.and_then(char::from_u32).ok_or_else(|| bad(self))?;
                value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(bad(self)),
        };
        value.push(plain);
        Ok(())
    }

    /// At most `most` digits of base `radix`.
    fn take_digits(&mut self, most: usize, radix: u32) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().take(most).position(|b| !char::from(b).is_digit(radix)).unwrap_or(rest.len().min(most));
        self.at += length;
        &rest[..length]
    }
}
