//! Tensors for people and for programs: a few values in a line, or everything as JSON.

use plinth_client::oip::InferResponse;
use plinth_types::{DataType, Tensor};
use serde_json::{Value, json};

use super::scalar::{Scalar, of_wire};
use crate::table::{Cell, Table, Tone};

/// How many values a line shows.
const SHOWN: usize = 12;
/// How many rows of a batch are shown.
const ROWS: usize = 20;
/// How many letters of a text are shown.
const LETTERS: usize = 24;

/// A table of the outputs; each item of a batch has its own line.
pub fn table(outputs: &[Tensor]) -> Table {
    let mut table = Table::new(&["OUTPUT", "TYPE", "SHAPE", "VALUES"]);
    for tensor in outputs {
        let dims = tensor.shape().dims();
        let rows = if dims.len() > 1 { usize::try_from(dims[0]).unwrap_or(usize::MAX) } else { 1 };
        let values: Vec<Scalar> = of_wire(tensor.datatype(), tensor.data()).collect();
        if rows <= 1 || values.is_empty() {
            table.row(line(tensor.name(), tensor, &values));
            continue;
        }
        let width = (values.len() / rows).max(1);
        for (n, row) in values.chunks(width).take(ROWS).enumerate() {
            table.row(line(&format!("{}[{n}]", tensor.name()), tensor, row));
        }
        if rows > ROWS {
            table.row([Cell::new(format!("… {} more", rows - ROWS), Tone::Faint)]);
        }
    }
    table
}

fn line(name: &str, tensor: &Tensor, values: &[Scalar]) -> [Cell; 4] {
    [name.into(), tensor.datatype().name().into(), tensor.shape().to_string().into(), few(values).into()]
}

fn few(values: &[Scalar]) -> String {
    let mut words: Vec<String> = values.iter().take(SHOWN).map(word).collect();
    if values.len() > SHOWN {
        words.push("…".into());
    }
    words.join(" ")
}

fn word(value: &Scalar) -> String {
    match value {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(number) => number.to_string(),
        Scalar::Float(number) => float(*number),
        Scalar::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().count() <= LETTERS => format!("{text:?}"),
            Ok(text) => format!("{:?}…", text.chars().take(LETTERS).collect::<String>()),
            Err(_) => format!("<{} bytes>", bytes.len()),
        },
    }
}

/// Four significant digits: enough to see, short enough to compare.
fn float(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    if (1e-4..1e6).contains(&number.abs()) {
        let digits = (3 - number.abs().log10().floor() as i32).clamp(0, 7) as usize;
        let text = format!("{number:.digits$}");
        return if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    }
    format!("{number:.3e}")
}

/// The answer in the shape of the Open Inference Protocol, with the values of every type as JSON. What JSON has no
/// number for becomes a text: `"NaN"`, `"Infinity"`, `"-Infinity"`; bytes that are not text become their hexadecimal digits
/// after `hex:`.
pub fn json(response: &InferResponse) -> Value {
    let outputs: Vec<Value> = response
        .outputs
        .iter()
        .map(|tensor| {
            let data: Vec<Value> = of_wire(tensor.datatype(), tensor.data()).map(|v| value(tensor.datatype(), v)).collect();
            json!({ "name": tensor.name(), "datatype": tensor.datatype(), "shape": tensor.shape(), "data": data })
        })
        .collect();
    let mut answer = json!({ "model_name": response.model_name, "outputs": outputs });
    if let Some(version) = &response.model_version {
        answer["model_version"] = version.as_str().into();
    }
    if let Some(id) = &response.id {
        answer["id"] = id.as_str().into();
    }
    answer
}

fn value(datatype: DataType, scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool(value) => value.into(),
        Scalar::Integer(number) => {
            i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from)).unwrap_or_default()
        }
        Scalar::Float(number) => {
            // A float of four bytes has its own shortest form; widened it would show digits that it does not have.
            let shortest = match datatype {
                DataType::Fp64 => number,
                _ => (number as f32).to_string().parse().unwrap_or(number),
            };
            let word = if number.is_nan() {
                "NaN"
            } else if number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            if number.is_finite() { shortest.into() } else { word.into() }
        }
        Scalar::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(error) => error.as_bytes().iter().fold("hex:".to_owned(), |text, b| text + &format!("{b:02x}")).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Shape;

    fn tensor(name: &str, datatype: DataType, dims: &[u64], data: Vec<u8>) -> Tensor {
        Tensor::new(name, datatype, Shape::new(dims.to_vec()).unwrap(), data.into()).unwrap()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn outputs_are_shown_by_line() {
        let outputs = [
            tensor("label", DataType::Int64, &[2], [7i64, 3].iter().flat_map(|v| v.to_le_bytes()).collect()),
            tensor("probabilities", DataType::Fp32, &[2, 3], floats(&[0.1, 0.2, 0.7, 1.0, 0.0, 0.000012345])),
            tensor("text", DataType::Bytes, &[1], b"\x03\0\0\0a\"b".to_vec()),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&table(&outputs).render()).to_string(), @r#"
        OUTPUT            TYPE   SHAPE  VALUES
        label             INT64  [2]    7 3
        probabilities[0]  FP32   [2,3]  0.1 0.2 0.7
        probabilities[1]  FP32   [2,3]  1 0 1.234e-5
        text              BYTES  [1]    "a\"b"
        "#);
    }

    #[test]
    fn json_has_every_value() {
        let response = InferResponse {
            model_name: "m".into(),
            model_version: Some("2".into()),
            id: None,
            outputs: vec![
                tensor("a", DataType::Fp32, &[4], floats(&[0.1, f32::NAN, f32::INFINITY, -3.0])),
                tensor("b", DataType::Bytes, &[1], b"\x01\0\0\0\xff".to_vec()),
                tensor("c", DataType::Uint64, &[1], vec![255; 8]),
            ],
        };
        let expected = serde_json::json!({
            "model_name": "m",
            "model_version": "2",
            "outputs": [
                { "name": "a", "datatype": "FP32", "shape": [4], "data": [0.1, "NaN", "Infinity", -3.0] },
                { "name": "b", "datatype": "BYTES", "shape": [1], "data": ["hex:ff"] },
                { "name": "c", "datatype": "UINT64", "shape": [1], "data": [u64::MAX] },
            ],
        });
        assert_eq!(json(&response), expected);
    }
}
