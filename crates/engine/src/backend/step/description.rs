//! Reading `step.toml`: strictly, with the line of what is wrong.

use plinth_types::{DataType, Dim, TensorSpec};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::BackendError;

/// The longest `step.toml` in bytes.
const MAX_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
}

/// Stands in each kind's own description for the key that has been read already.
pub(super) type Known = IgnoredAny;

/// Which kind of step the text describes.
pub(super) fn kind(text: &[u8]) -> Result<String, BackendError> {
    let head: Head = read(text)?;
    head.kind.ok_or_else(|| wrong("the key 'kind' is missing; it is image, tokenize, pool or classify"))
}

/// Reads the whole text as one kind's description.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, BackendError> {
    if text.len() > MAX_BYTES {
        return Err(wrong(format!("it has more than {MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(text).map_err(|_| wrong("it is not UTF-8"))?;
    toml::from_str(text).map_err(|error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        wrong(format!("{place}{}", error.message()))
    })
}

pub(super) fn wrong(text: impl std::fmt::Display) -> BackendError {
    BackendError::Load(format!("step.toml: {text}"))
}

pub(super) fn unknown_kind(kind: &str) -> BackendError {
    let kind: String = kind.chars().filter(|c| !c.is_control()).take(40).collect();
    wrong(format!("there is no step of the kind '{kind}'; there are image, tokenize, pool and classify"))
}

/// Refuses a value out of range.
pub(super) fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: &T, least: &T, most: &T) -> Result<(), BackendError> {
    if value < least || value > most {
        return Err(wrong(format!("{key} is {value}, want {least} to {most}")));
    }
    Ok(())
}

/// The specification of one of the step's tensors; the name may come from the file.
pub(super) fn spec(name: &str, datatype: DataType, shape: &[Dim]) -> Result<TensorSpec, BackendError> {
    TensorSpec::new(name, datatype, shape.to_vec()).map_err(wrong)
}

/// The shape of one BYTES element for each item of a batch: `[-1]`, or `[-1, 1]` as Triton's configurations have it.
pub(super) fn element_shape(column: bool) -> Vec<Dim> {
    if column { vec![Dim::Any, Dim::Fixed(1)] } else { vec![Dim::Any] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some_ {
        #[serde(rename = "kind")]
        _kind: Known,
        #[serde(default)]
        size: u32,
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let text = |text: &str| read::<Some_>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(read::<Some_>(b"kind = 'x'\nsize = 3").unwrap().size, 3);
        assert!(
            text("kind = 'x'\n\nsiez = 3").starts_with("step.toml: line 3: unknown field `siez`"),
            "{}",
            text("kind = 'x'\n\nsiez = 3")
        );
        assert!(text("kind = 'x'\nsize = 'a'").starts_with("step.toml: line 2: invalid type"));
        assert!(text("kind = 'x'\nsize = -1").starts_with("step.toml: line 2: "));
        assert!(text("kind").starts_with("step.toml: line 1: "));
        assert_eq!(read::<Some_>(b"\xff").unwrap_err().to_string(), "step.toml: it is not UTF-8");
        assert!(read::<Some_>(&vec![b' '; MAX_BYTES + 1]).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn kinds() {
        assert_eq!(kind(b"kind = 'image'\nsize = 3").unwrap(), "image");
        assert!(kind(b"size = 3").unwrap_err().to_string().contains("'kind' is missing"));
        assert!(kind(b"kind = 3").unwrap_err().to_string().contains("line 1"));
    }
}
