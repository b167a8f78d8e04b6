//! Regular expressions that strangers may write.
//!
//! Invariant: matching takes time linear in the text (the engine never goes back), and what is compiled has a bound, so
//! no expression can explode. Look-around and references to groups are refused because no engine can promise that for
//! them. Who compiles an expression of a record uses these functions: what was let in is then never refused later.

use regex::{Regex, RegexBuilder};

/// The longest expression, in bytes.
pub const MAX_PATTERN: usize = 1 << 10;
/// The most that a compiled expression may take, in bytes.
const MAX_COMPILED: usize = 64 << 10;
/// How deep groups may lie in each other.
const MAX_NESTING: u32 = 32;

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`MAX_PATTERN`].
    #[error("a regular expression has at most {MAX_PATTERN} bytes")]
    TooLong,
    /// It would take too much memory, as repetitions within repetitions do.
    #[error("the regular expression would take more than 64 KiB: repeat less, or use [0-9] and [a-z] in place of \\d and \\w")]
    TooLarge,
    /// Look-ahead, look-behind or a reference to a group.
    #[error("look-ahead, look-behind and references to groups are not supported: they could take time without end")]
    NotLinear,
    /// Anything else.
    #[error("this is not a regular expression: {0}")]
    Syntax(String),
}

/// Compiles an expression that must match the whole text.
///
/// # Errors
/// See [`PatternError`].
pub fn whole(pattern: &str) -> Result<Regex, PatternError> {
    // By itself first: `a)(b` makes sense only between the brackets below.
    part(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

/// Compiles an expression that may match a part of the text.
///
/// # Errors
/// See [`PatternError`].
pub fn part(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > MAX_PATTERN {
        return Err(PatternError::TooLong);
    }
    build(pattern)
}

fn build(pattern: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED * 4).nest_limit(MAX_NESTING).build().map_err(|error| {
        let text = error.to_string();
        match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
            _ if text.contains("look-around") || text.contains("backreferences") => PatternError::NotLinear,
            // The last line says what; those before draw where.
            _ => PatternError::Syntax(super::shown(text.lines().last().unwrap_or_default().trim_start_matches("error: "))),
        }
    })
}
