//! TOML with lines.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Flaw;
use super::node::{Field, Node, Tree};

/// Reads one document.
pub fn parse(text: &str) -> Result<Vec<Node>, Flaw> {
    let table = DeTable::parse(text).map_err(|e| {
        let line = e.span().map_or(1, |span| line(text, span.start));
        Flaw::new(line, format!("this is not TOML: {}", e.message()))
    })?;
    map(text, table.get_ref(), 1).map(|node| vec![node])
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

fn map(text: &str, table: &DeTable<'_>, at: usize) -> Result<Node, Flaw> {
    let mut fields = Vec::new();
    for (name, value) in table {
        let at = line(text, name.span().start);
        fields.push(Field { name: name.get_ref().to_string(), line: at, node: node(text, value)? });
    }
    // The table's own order is by name; the file's is by line.
    fields.sort_by_key(|field| field.line);
    Ok(Node { line: at, tree: Tree::Map(fields) })
}

fn node(text: &str, value: &Spanned<DeValue<'_>>) -> Result<Node, Flaw> {
    let at = line(text, value.span().start);
    let tree = match value.get_ref() {
        DeValue::String(text) => Tree::Text(text.to_string()),
        DeValue::Boolean(yes) => Tree::Bool(*yes),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Tree::Number(parsed.map_err(|_| Flaw::new(at, "this number is too large"))?.into())
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            Tree::Number(parsed.ok_or_else(|| Flaw::new(at, "this is no number that a resource can hold"))?)
        }
        DeValue::Datetime(time) => Tree::Text(time.to_string()),
        DeValue::Array(items) => Tree::List(items.iter().map(|item| node(text, item)).collect::<Result<_, _>>()?),
        DeValue::Table(table) => return map(text, table, at),
    };
    Ok(Node { line: at, tree })
}
