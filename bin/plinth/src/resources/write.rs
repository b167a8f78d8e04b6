//! Writes values as YAML that every reader understands alike.
//!
//! Invariant: what is written reads back as the same value, also by readers of YAML 1.1: a text that could be taken for
//! something else is in quotes.

use serde_json::Value;

/// A value as YAML, with a line end.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut text),
        other => text.push_str(&format!("{}\n", plain(other))),
    }
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                text.push_str(&format!("{indent}{}:", word(name)));
                below(value, depth + 1, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                if is_block(item) {
                    block(item, depth + 1, &mut inner);
                    // The first line of the item stands behind the dash.
                    let first = inner.get(indent.len() + 2..).unwrap_or_default();
                    text.push_str(&format!("{indent}- {first}"));
                } else {
                    text.push_str(&format!("{indent}- {}\n", plain(item)));
                }
            }
        }
        other => text.push_str(&format!("{indent}{}\n", plain(other))),
    }
}

fn below(value: &Value, depth: usize, text: &mut String) {
    if is_block(value) {
        text.push('\n');
        block(value, depth, text);
    } else {
        text.push_str(&format!(" {}\n", plain(value)));
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        // Empty lists and objects, numbers, true, false and null are the same in JSON.
        other => other.to_string(),
    }
}

/// A text without quotes where nobody could take it for something else; in JSON's quotes otherwise, which YAML has too.
fn word(text: &str) -> String {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    const TAKEN: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if starts && text.chars().all(inside) && !TAKEN.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    // JSON leaves these as they are; YAML takes some for line ends or does not allow them.
    let quoted = Value::String(text.to_owned()).to_string();
    quoted.chars().fold(String::with_capacity(quoted.len()), |mut out, c| {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
        out
    })
}
