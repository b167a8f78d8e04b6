//! JSON with lines: serde_json reads, and each value's place in the text tells its line.

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Flaw;
use super::node::{Field, Node, Tree};

const MAX_DEPTH: usize = 64;

/// Reads one document.
pub fn parse(text: &str) -> Result<Vec<Node>, Flaw> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| Flaw::new(e.line(), format!("this is not JSON: {e}")))?;
    Source { text }.node(raw, 0).map(|node| vec![node])
}

struct Source<'a> {
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, part: &str) -> usize {
        // The part is borrowed from the text, so its address tells where it begins.
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.text.bytes().take(offset).filter(|b| *b == b'\n').count()
    }

    fn node(&self, raw: &RawValue, depth: usize) -> Result<Node, Flaw> {
        let text = raw.get().trim_start();
        let line = self.line(text);
        let wrong = |e: serde_json::Error| Flaw::new(line, format!("this is not JSON: {e}"));
        if depth > MAX_DEPTH {
            return Err(Flaw::new(line, "this lies too deep"));
        }
        let tree = match text.chars().next() {
            Some('{') => {
                let mut fields: Vec<Field> = Vec::new();
                for (name, raw) in serde_json::from_str::<Pairs<'_>>(text).map_err(wrong)?.0 {
                    let node = self.node(raw, depth + 1)?;
                    // The name stands on the line of its value, or shortly before it.
                    let field = Field { line: node.line, name, node };
                    if fields.iter().any(|other| other.name == field.name) {
                        return Err(Flaw::new(field.line, format!("'{}' is there twice", field.name)));
                    }
                    fields.push(field);
                }
                Tree::Map(fields)
            }
            Some('[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
                Tree::List(items.into_iter().map(|item| self.node(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some('"') => Tree::Text(serde_json::from_str(text).map_err(wrong)?),
            Some('n') => Tree::Null,
            Some('t' | 'f') => Tree::Bool(text.starts_with('t')),
            _ => Tree::Number(serde_json::from_str(text).map_err(wrong)?),
        };
        Ok(Node { line, tree })
    }
}

/// An object as it stands, with names that are there twice.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Gather;
        impl<'de> Visitor<'de> for Gather {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        d.deserialize_map(Gather)
    }
}
