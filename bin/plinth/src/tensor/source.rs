//! What stands behind `--input`: `NAME=VALUE`, where VALUE is JSON or the name of a file.
//!
//! The name may be left out when the model has one input. A value that begins like JSON is JSON; everything else is a
//! file, read by its ending: `.json`, `.npy`, `.png`, `.jpg`, `.jpeg`; `-` is JSON on standard input.

use std::path::Path;

use plinth_types::{Tensor, TensorSpec};

use super::image::Pixels;
use super::{Elements, batch, image, json, npy};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::reference::nearest;

const MAX_FILE: u64 = 1 << 30;

/// The tensors for a model's inputs, out of what the user gave. Several values of one input become a batch.
pub fn tensors(given: &[String], specs: &[TensorSpec], pixels: Pixels) -> Result<Vec<Tensor>, Failure> {
    let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); specs.len()];
    for text in given {
        let (index, value) = split(text, specs)?;
        let spec = &specs[index];
        let wrong = |what: String| Failure::new(Exit::Failed, format!("the input '{}' {what}", spec.name()));
        let elements = read(value, spec, pixels)?.map_err(wrong)?;
        parts[index].push(elements.fit(spec).map_err(wrong)?);
    }
    let mut tensors = Vec::with_capacity(specs.len());
    for (spec, parts) in specs.iter().zip(parts) {
        // An input that was not given may be optional; the node knows.
        if !parts.is_empty() {
            tensors.push(batch(spec, parts).map_err(|what| Failure::new(Exit::Failed, format!("the input '{}' {what}", spec.name())))?);
        }
    }
    Ok(tensors)
}

/// Which input, and the text of its value.
fn split<'t>(text: &'t str, specs: &[TensorSpec]) -> Result<(usize, &'t str), Failure> {
    if let Some((name, value)) = text.split_once('=')
        && let Some(index) = specs.iter().position(|s| s.name() == name)
    {
        return Ok((index, value));
    }
    if specs.len() == 1 && (is_json(text) || !text.contains('=') || Path::new(text).exists()) {
        return Ok((0, text));
    }
    let names: Vec<&str> = specs.iter().map(TensorSpec::name).collect();
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    let failure = Failure::new(Exit::NotFound, format!("the model has no input '{name}'"));
    Err(match nearest(name, names.iter().copied()) {
        Some(near) => failure.next(format!("did you mean '{near}'?")),
        None => failure.next(format!("it takes {}; write --input NAME=VALUE", names.join(", "))),
    })
}

fn is_json(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'[' | b'{' | b'"')) || matches!(text, "true" | "false") || text.parse::<f64>().is_ok()
}

fn read(value: &str, spec: &TensorSpec, pixels: Pixels) -> Result<Result<Elements, String>, Failure> {
    if is_json(value) {
        return Ok(json::parse(value));
    }
    let path = Path::new(value);
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "npy" => npy::parse(&files::read(path, MAX_FILE)?),
        "png" | "jpg" | "jpeg" => image::parse(&files::read(path, MAX_FILE)?, spec, pixels),
        "json" => json::parse(&files::read_text(path, MAX_FILE)?),
        _ if value == "-" => json::parse(&files::read_text(path, MAX_FILE)?),
        _ => {
            let failure = Failure::usage(format!("'{value}' is neither JSON nor a file that ends in .json, .npy, .png, .jpg or .jpeg"));
            return Err(failure.next("write numbers as a list, such as --input x=[1,2,3]"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{DataType, Dim};

    fn specs(names: &[&str]) -> Vec<TensorSpec> {
        names.iter().map(|n| TensorSpec::new(*n, DataType::Fp32, vec![Dim::Any, Dim::Fixed(2)]).unwrap()).collect()
    }

    fn given(texts: &[&str], specs: &[TensorSpec]) -> Result<Vec<Tensor>, Failure> {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        tensors(&texts, specs, Pixels::default())
    }

    #[test]
    fn names_may_be_left_out_when_there_is_one_input() {
        let one = specs(&["x"]);
        for text in ["[1,2]", "x=[1,2]", "[[1,2]]"] {
            let tensors = given(&[text], &one).unwrap();
            assert_eq!((tensors[0].name(), tensors[0].shape().dims()), ("x", &[1, 2][..]));
        }
        assert_eq!(given(&["x=[1,2]", "x=[3,4]"], &one).unwrap()[0].shape().dims(), [2, 2]);
        assert!(given(&["[1,2]"], &specs(&["x", "y"])).is_err());
        assert_eq!(given(&["y=[1,2]"], &specs(&["x", "y"])).unwrap().len(), 1);
    }

    #[test]
    fn mistakes_name_the_input_and_what_to_do() {
        let failure = given(&["imgae=[1,2]"], &specs(&["image", "mask"])).unwrap_err();
        assert_eq!(failure.next, ["did you mean 'image'?"]);
        let failure = given(&["x=[1,2,3]"], &specs(&["x"])).unwrap_err();
        assert_eq!(failure.message, "the input 'x' has the shape [3], but the model takes [-1,2]");
        let failure = given(&["x=[1,\"two\"]"], &specs(&["x"])).unwrap_err();
        assert_eq!(failure.message, "the input 'x' holds a text, which is no FP32");
        assert_eq!(given(&["x=file.txt"], &specs(&["x"])).unwrap_err().exit, Exit::Usage);
        assert_eq!(given(&["x=missing.npy"], &specs(&["x"])).unwrap_err().exit, Exit::Failed);
    }
}
