//! A document as a tree in which every value knows its line.

use serde_json::{Map, Number, Value};

/// A value with the line on which it begins, from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub line: usize,
    pub tree: Tree,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Field>),
}

/// A field with the line of its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub line: usize,
    pub node: Node,
}

impl Node {
    pub fn field(&self, name: &str) -> Option<&Self> {
        match &self.tree {
            Tree::Map(fields) => fields.iter().find(|field| field.name == name).map(|field| &field.node),
            _ => None,
        }
    }

    /// The same without lines.
    pub fn value(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(yes) => Value::Bool(*yes),
            Tree::Number(number) => Value::Number(number.clone()),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Tree::Map(fields) => Value::Object(fields.iter().map(|f| (f.name.clone(), f.node.value())).collect::<Map<_, _>>()),
        }
    }

    /// The line of `spec.targets[0].weight`, or of the last part of it that is there.
    pub fn line_of(&self, path: &str) -> usize {
        let path = path.strip_prefix('.').unwrap_or(path);
        if let Some((index, rest)) = path.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let item = index.parse::<usize>().ok().and_then(|index| match &self.tree {
                Tree::List(items) => items.get(index),
                _ => None,
            });
            return item.map_or(self.line, |item| item.line_of(rest));
        }
        let Tree::Map(fields) = &self.tree else { return self.line };
        // Names may hold dots; the longest that fits is meant.
        let fits =
            |field: &&Field| path.strip_prefix(field.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let Some(field) = fields.iter().filter(fits).max_by_key(|field| field.name.len()) else { return self.line };
        let rest = path.get(field.name.len()..).unwrap_or_default();
        if rest.is_empty() { field.line } else { field.node.line_of(rest) }
    }
}
