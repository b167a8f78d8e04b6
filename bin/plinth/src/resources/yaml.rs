//! YAML with lines: the events of a YAML 1.2 parser, made into trees by the rules of the core schema.
//!
//! Invariant: `yes`, `no` and `on` are texts, as YAML 1.2 says; a text in quotes is a text whatever it looks like. What
//! may stand for something else is refused: anchors, aliases, tags and merge keys make a file that its readers and this
//! program could understand differently, and a few of them can be a million values.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Number;

use super::Flaw;
use super::node::{Field, Node, Tree};

const MAX_DEPTH: usize = 64;

/// Reads all documents.
pub fn parse(text: &str) -> Result<Vec<Node>, Flaw> {
    let mut events = Events(Parser::new_from_str(text));
    let mut documents = Vec::new();
    loop {
        match events.next()? {
            (Event::DocumentStart(_), _) => {
                let (event, span) = events.next()?;
                documents.push(events.node(event, span, 0)?);
            }
            (Event::StreamEnd, _) => return Ok(documents),
            _ => {}
        }
    }
}

struct Events<'a>(Parser<'a, saphyr_parser::StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Flaw> {
        match self.0.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Flaw::new(error.marker().line(), format!("this is not YAML: {}", error.info()))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Flaw> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(Flaw::new(line, "this lies too deep"));
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(_) => (1, false),
            _ => (0, false),
        };
        if anchor != 0 || tag {
            return Err(Flaw::new(line, "anchors, aliases and tags are not understood: write it out"));
        }
        let tree = match event {
            Event::Scalar(text, style, ..) => scalar(text, style),
            Event::SequenceStart(..) => Tree::List(self.items(depth)?),
            Event::MappingStart(..) => Tree::Map(self.fields(depth)?),
            // A document without anything in it.
            _ => Tree::Null,
        };
        Ok(Node { line, tree })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Flaw> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<Field>, Flaw> {
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let name = match event {
                Event::MappingEnd => return Ok(fields),
                Event::Scalar(name, ScalarStyle::Plain, 0, None) if name == "<<" => {
                    return Err(Flaw::new(line, "merge keys are not understood: write it out"));
                }
                Event::Scalar(name, _, 0, None) => name.into_owned(),
                _ => return Err(Flaw::new(line, "the name of a field is a plain text")),
            };
            if fields.iter().any(|field| field.name == name) {
                return Err(Flaw::new(line, format!("'{name}' is there twice")));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            fields.push(Field { name, line, node });
        }
    }
}

/// YAML 1.2, 10.3.2.
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Tree {
    if style != ScalarStyle::Plain {
        return Tree::Text(text.into_owned());
    }
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Tree::Null,
        "true" | "True" | "TRUE" => Tree::Bool(true),
        "false" | "False" | "FALSE" => Tree::Bool(false),
        plain => number(plain).map_or_else(|| Tree::Text(plain.to_owned()), Tree::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = |rest: &str, radix| u64::from_str_radix(rest, radix).ok().map(Number::from);
    if let Some(rest) = text.strip_prefix("0x") {
        return digits(rest, 16).filter(|_| !rest.starts_with('+'));
    }
    if let Some(rest) = text.strip_prefix("0o") {
        return digits(rest, 8).filter(|_| !rest.starts_with('+'));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    if !starts || !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let whole = plain.parse::<u64>().map(Number::from).or_else(|_| plain.parse::<i64>().map(Number::from));
        if let Ok(number) = whole {
            return Some(number);
        }
    }
    plain.parse::<f64>().ok().and_then(Number::from_f64)
}
