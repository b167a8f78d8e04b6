//! Elements from JSON: a number, a text, or lists of them, nested as deep as the tensor has dimensions; or an object
//! `{"shape": […], "data": […]}`. A single list counts as flat and takes the input's shape.

use plinth_types::tensor::MAX_RANK;
use serde::Deserialize;
use serde_json::Value;

use super::{Elements, MAX_ELEMENTS, Scalar, Values};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shaped {
    shape: Vec<u64>,
    data: Value,
}

/// Reads JSON text.
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse(text: &str) -> Result<Elements, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    match value {
        Value::Object(_) => {
            let shaped: Shaped = serde_json::from_value(value).map_err(|e| format!("is not an object with shape and data: {e}"))?;
            let mut values = Vec::new();
            flatten(&shaped.data, 0, &mut values)?;
            let count = shaped.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
            if count != Some(values.len() as u64) {
                return Err(format!("has {} values, which is not what its shape {} holds", values.len(), super::list(&shaped.shape)));
            }
            Ok(Elements { shape: shaped.shape, flat: false, values: Values::Scalars(values) })
        }
        value => {
            let shape = shape_of(&value)?;
            let mut values = Vec::new();
            flatten(&value, 0, &mut values)?;
            let expected = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
            if expected != Some(values.len() as u64) || !even(&value, &shape) {
                return Err("has lists of different lengths".into());
            }
            let flat = shape.len() <= 1;
            // A single value is a list of one.
            let shape = if shape.is_empty() { vec![1] } else { shape };
            Ok(Elements { shape, flat, values: Values::Scalars(values) })
        }
    }
}

fn shape_of(value: &Value) -> Result<Vec<u64>, String> {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Value::Array(list) = inner {
        if shape.len() == MAX_RANK {
            return Err(format!("is nested deeper than {MAX_RANK} lists"));
        }
        shape.push(list.len() as u64);
        match list.first() {
            Some(first) => inner = first,
            None => break,
        }
    }
    Ok(shape)
}

fn even(value: &Value, shape: &[u64]) -> bool {
    match (value, shape) {
        (Value::Array(list), [first, rest @ ..]) => list.len() as u64 == *first && list.iter().all(|v| even(v, rest)),
        (Value::Array(_), []) | (_, [_, ..]) => false,
        _ => true,
    }
}

fn flatten(value: &Value, depth: usize, out: &mut Vec<Scalar>) -> Result<(), String> {
    if out.len() as u64 >= MAX_ELEMENTS {
        return Err(format!("holds more than {MAX_ELEMENTS} values"));
    }
    out.push(match value {
        Value::Array(list) if depth < MAX_RANK => return list.iter().try_for_each(|v| flatten(v, depth + 1, out)),
        Value::Array(_) => return Err(format!("is nested deeper than {MAX_RANK} lists")),
        Value::Bool(value) => Scalar::Bool(*value),
        Value::String(text) => Scalar::Bytes(text.clone().into_bytes()),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => Scalar::Integer(n.into()),
            (_, Some(n), _) => Scalar::Integer(n.into()),
            (_, _, Some(n)) => Scalar::Float(n),
            _ => return Err(format!("holds {number}, which is no number here")),
        },
        Value::Null | Value::Object(_) => return Err("holds null or an object where a value should be".into()),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_the_shape() {
        let elements = parse("[[1, 2.5], [true, \"NaN\"]]").unwrap();
        assert_eq!((elements.shape, elements.flat), (vec![2, 2], false));
        let values = vec![Scalar::Integer(1), Scalar::Float(2.5), Scalar::Bool(true), Scalar::Bytes(b"NaN".to_vec())];
        assert_eq!(elements.values, Values::Scalars(values));
        assert_eq!(parse("7").unwrap().shape, [1]);
        assert!(parse("[1,2,3]").unwrap().flat);
        let shaped = parse(r#"{"shape":[2,1],"data":[1,2]}"#).unwrap();
        assert_eq!((shaped.shape, shaped.flat), (vec![2, 1], false));
    }

    #[test]
    fn what_holds_together_only_by_chance_is_refused() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        for bad in
            ["", "nul", "null", "[null]", "[[1,2],[3]]", "[[1],2,3]", "[1,[2]]", "[[],[1]]", "{}", r#"{"shape":[3],"data":[1]}"#, &deep]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(r#"{"shape":[18446744073709551615,2],"data":[1]}"#).is_err());
    }
}
