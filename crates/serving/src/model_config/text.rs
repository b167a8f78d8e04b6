//! Reads the protobuf text format, in which people write `config.pbtxt`, into a message by its descriptor.
//!
//! Source: the protobuf text format specification. Our own reader, because the one of `prost-reflect` does not know the
//! form that nearly every `config.pbtxt` has (`input [ { … } ]`, a list of messages without a colon) and gives no
//! position of an error. Left out: extensions, `Any`, groups; the schema has none.
//!
//! Invariant: recursion is as deep as the schema, which is not recursive, and a repeated field has at most
//! [`MAX_REPEATED`] elements, so memory is bounded by the text's length.

mod lexer;

use std::collections::HashSet;

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value};

use self::lexer::{Lexer, Token};
use super::schema;

/// The most elements of a repeated field or entries of a map.
pub(super) const MAX_REPEATED: usize = 4096;

/// What is wrong, and where: lines and columns (in characters) count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {text}")]
pub(super) struct TextError {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) text: String,
}

/// Reads a whole text as one message.
pub(super) fn parse(descriptor: MessageDescriptor, text: &str) -> Result<DynamicMessage, TextError> {
    let mut parser = Parser { lexer: Lexer::new(text), token: Token::End, at: 0 };
    parser.bump()?;
    parser.message(descriptor, None)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token under the cursor.
    token: Token<'a>,
    /// The offset at which it begins.
    at: usize,
}

impl<'a> Parser<'a> {
    /// Takes the token under the cursor and moves on.
    fn bump(&mut self) -> Result<Token<'a>, TextError> {
        let (next, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn error(&self, text: impl Into<String>) -> TextError {
        self.lexer.error(self.at, text)
    }

    fn expected(&self, what: &str) -> TextError {
        self.error(format!("expected {what}, found {}", self.token))
    }

    /// Takes `symbol` if it is under the cursor.
    fn take(&mut self, symbol: char) -> Result<bool, TextError> {
        let here = self.token == Token::Symbol(symbol);
        if here {
            self.bump()?;
        }
        Ok(here)
    }

    /// The fields of a message up to `end`, which is taken; `None` is the end of the text.
    fn message(&mut self, descriptor: MessageDescriptor, end: Option<char>) -> Result<DynamicMessage, TextError> {
        let mut message = DynamicMessage::new(descriptor);
        let mut seen = HashSet::new();
        loop {
            match (&self.token, end) {
                (Token::End, None) => return Ok(message),
                (Token::Symbol(c), Some(end)) if *c == end => {
                    self.bump()?;
                    return Ok(message);
                }
                (Token::Word(_), _) => self.field(&mut message, &mut seen)?,
                (_, None) => return Err(self.expected("a field's name")),
                (_, Some(end)) => return Err(self.expected(&format!("a field's name or '{end}'"))),
            }
        }
    }

    fn field(&mut self, message: &mut DynamicMessage, seen: &mut HashSet<u32>) -> Result<(), TextError> {
        let Token::Word(name) = self.token else { return Err(self.expected("a field's name")) };
        let descriptor = message.descriptor();
        let Some(field) = descriptor.get_field_by_name(name) else {
            return Err(self.error(schema::unknown_field(&descriptor, name)));
        };
        let again = !seen.insert(field.number());
        if again && !field.is_list() && !field.is_map() {
            return Err(self.error(format!("'{name}' is given twice")));
        }
        if let Some(choice) = field.containing_oneof()
            && let Some(other) = choice.fields().find(|f| f.number() != field.number() && seen.contains(&f.number()))
        {
            return Err(self.error(format!("'{name}' and '{}' exclude each other", other.name())));
        }
        self.bump()?;
        // A colon may be left out before messages and lists of messages only.
        if !self.take(':')? && !matches!(field.kind(), Kind::Message(_)) {
            return Err(self.expected("':'"));
        }
        self.values(message, &field)?;
        if !self.take(',')? {
            self.take(';')?;
        }
        Ok(())
    }

    /// One value, or a list of them in brackets for a repeated field.
    fn values(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor) -> Result<(), TextError> {
        if !(field.is_list() || field.is_map()) || !self.take('[')? {
            return self.put(message, field);
        }
        if self.take(']')? {
            return Ok(());
        }
        loop {
            self.put(message, field)?;
            if self.take(']')? {
                return Ok(());
            }
            if !self.take(',')? {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    /// Reads one value of `field` and puts it into `message`.
    fn put(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor) -> Result<(), TextError> {
        let at = self.at;
        let value = self.value(&field.kind())?;
        let name = field.name();
        let too_many = || self.lexer.error(at, format!("'{name}' has more than {MAX_REPEATED} elements"));
        if field.is_map() {
            let Value::Message(entry) = value else { return Err(self.lexer.error(at, "expected a map entry")) };
            let key = entry.get_field_by_name("key").and_then(|k| k.into_owned().into_map_key());
            let (Some(key), Some(value)) = (key, entry.get_field_by_name("value")) else {
                return Err(self.lexer.error(at, format!("an entry of '{name}' has a key and a value")));
            };
            if let Some(map) = message.get_field_mut(field).as_map_mut() {
                if map.len() >= MAX_REPEATED {
                    return Err(too_many());
                }
                let shown = if let MapKey::String(text) = &key { schema::excerpt(text) } else { format!("{key:?}") };
                if map.insert(key, value.into_owned()).is_some() {
                    return Err(self.lexer.error(at, format!("'{name}' has the key '{shown}' twice")));
                }
            }
        } else if field.is_list() {
            if let Some(list) = message.get_field_mut(field).as_list_mut() {
                if list.len() >= MAX_REPEATED {
                    return Err(too_many());
                }
                list.push(value);
            }
        } else {
            message.set_field(field, value);
        }
        Ok(())
    }

    fn value(&mut self, kind: &Kind) -> Result<Value, TextError> {
        Ok(match kind {
            Kind::Message(descriptor) => {
                let end = match self.token {
                    Token::Symbol('{') => '}',
                    Token::Symbol('<') => '>',
                    _ => return Err(self.expected("'{'")),
                };
                self.bump()?;
                Value::Message(self.message(descriptor.clone(), Some(end))?)
            }
            Kind::Enum(choice) => Value::EnumNumber(self.choice(choice)?),
            Kind::Bool => Value::Bool(self.boolean()?),
            Kind::String => {
                let at = self.at;
                let text = String::from_utf8(self.string()?).map_err(|_| self.lexer.error(at, "the string is not UTF-8"))?;
                Value::String(text)
            }
            Kind::Bytes => Value::Bytes(self.string()?.into()),
            Kind::Float => Value::F32(self.float()? as f32),
            Kind::Double => Value::F64(self.float()?),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.integer("a 32-bit integer")?),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.integer("a 64-bit integer")?),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.integer("a 32-bit integer that is not negative")?),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.integer("a 64-bit integer that is not negative")?),
        })
    }

    fn string(&mut self) -> Result<Vec<u8>, TextError> {
        let Token::Text(_) = self.token else { return Err(self.expected("a string in quotes")) };
        let mut value = Vec::new();
        // Strings that follow each other are one.
        while let Token::Text(_) = self.token {
            if let Token::Text(piece) = self.bump()? {
                value.extend_from_slice(&piece);
            }
        }
        Ok(value)
    }

    fn boolean(&mut self) -> Result<bool, TextError> {
        let value = match self.token {
            Token::Word("true" | "True" | "t") | Token::Number("1") => true,
            Token::Word("false" | "False" | "f") | Token::Number("0") => false,
            _ => return Err(self.expected("true or false")),
        };
        self.bump()?;
        Ok(value)
    }

    fn choice(&mut self, choice: &EnumDescriptor) -> Result<i32, TextError> {
        if let Token::Word(name) = self.token {
            let Some(value) = choice.get_value_by_name(name) else {
                return Err(self.error(schema::unknown_value(choice, name)));
            };
            self.bump()?;
            return Ok(value.number());
        }
        let at = self.at;
        let number = self.integer(&format!("a value of {}", choice.name()))?;
        match choice.get_value(number) {
            Some(_) => Ok(number),
            None => Err(self.lexer.error(at, format!("{} has no value {number}", choice.name()))),
        }
    }

    fn integer<T: TryFrom<i128>>(&mut self, what: &str) -> Result<T, TextError> {
        let at = self.at;
        let negative = self.take('-')?;
        let Token::Number(text) = self.token else { return Err(self.expected(what)) };
        let magnitude = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8),
            None => text.parse::<u64>(),
        };
        let value = magnitude.ok().map(|m| if negative { -i128::from(m) } else { i128::from(m) });
        let value = value.and_then(|v| T::try_from(v).ok());
        let value = value.ok_or_else(|| self.lexer.error(at, format!("expected {what}, found {}", self.token)))?;
        self.bump()?;
        Ok(value)
    }

    fn float(&mut self) -> Result<f64, TextError> {
        let negative = self.take('-')?;
        let value = match self.token {
            Token::Number(text) => {
                let digits = text.strip_suffix(['f', 'F']).unwrap_or(text);
                digits.parse::<f64>().map_err(|_| self.expected("a number"))?
            }
            Token::Word(word) if matches!(word.to_ascii_lowercase().as_str(), "inf" | "infinity") => f64::INFINITY,
            Token::Word(word) if word.eq_ignore_ascii_case("nan") => f64::NAN,
            _ => return Err(self.expected("a number")),
        };
        self.bump()?;
        Ok(if negative { -value } else { value })
    }
}
