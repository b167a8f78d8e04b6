//! The parameters of a request, an input or an output: a small map of plain values.
//!
//! Invariant: at most [`MAX_PARAMETERS`] of them, each a string, a boolean or a number.

use plinth_types::Reason;
pub use plinth_types::{Parameter, Parameters};

use super::scan::{Fault, Scanner};

/// The most parameters in one place.
pub const MAX_PARAMETERS: usize = 128;

/// Reads an object of parameters; `null` is none.
pub(super) fn read(scanner: &mut Scanner<'_>) -> Result<Parameters, Fault> {
    let mut parameters = Parameters::new();
    if scanner.null() {
        return Ok(parameters);
    }
    scanner.object(|s, key| {
        if parameters.len() >= MAX_PARAMETERS {
            return Err(Fault::new(Reason::MalformedRequest, format!("more than {MAX_PARAMETERS} parameters")));
        }
        let shown: String = key.chars().take(64).collect();
        let value = read_value(s).map_err(|e| e.under(&shown))?;
        match parameters.insert(key.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Fault::new(Reason::MalformedRequest, format!("the parameter '{shown}' is given twice")).under(shown)),
        }
    })?;
    Ok(parameters)
}

/// Reads one value.
pub(super) fn read_value(scanner: &mut Scanner<'_>) -> Result<Parameter, Fault> {
    match scanner.peek() {
        Some(b'"') => Ok(Parameter::Text(scanner.string()?.into_owned())),
        Some(b't' | b'f') => Ok(Parameter::Bool(scanner.boolean()?)),
        Some(b'-' | b'0'..=b'9') => {
            let text = scanner.number()?;
            let whole = text.parse().map(Parameter::Uint).or_else(|_| text.parse().map(Parameter::Int));
            whole.or_else(|_| text.parse().map(Parameter::Double)).map_err(|_| scanner.malformed("a number"))
        }
        _ => Err(scanner.malformed("a string, a number, true or false")),
    }
}

/// Takes a parameter out of a map and checks its kind.
pub(super) struct Known<'a>(pub(super) &'a mut Parameters);

impl Known<'_> {
    pub(super) fn bool(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.take(name, "true or false", |p| if let Parameter::Bool(value) = p { Some(value) } else { None })
    }

    pub(super) fn uint(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        self.take(name, "a whole number from 0 on", |p| if let Parameter::Uint(value) = p { Some(value) } else { None })
    }

    pub(super) fn take<T>(&mut self, name: &str, wanted: &str, pick: impl Fn(Parameter) -> Option<T>) -> Result<Option<T>, Fault> {
        let Some(parameter) = self.0.remove(name) else { return Ok(None) };
        let wrong = || Fault::new(Reason::MalformedRequest, format!("the parameter '{name}' must be {wanted}")).under(name);
        pick(parameter).map(Some).ok_or_else(wrong)
    }
}
