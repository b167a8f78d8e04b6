//! Limits on what people write beside a thing: descriptions, tags, comments.
//!
//! They are kept in every audit entry and in every snapshot, so each has a bound; they are shown on terminals and go
//! into databases that hold no NUL, so none has control characters but line breaks and tabs.

use plinth_store::resources::Tags;
use plinth_types::{Error, Reason, Result};

const MAX_TEXT_BYTES: usize = 16 << 10;
const MAX_COMMENT_BYTES: usize = 4 << 10;
const MAX_TAGS: usize = 64;
const MAX_TAG_BYTES: usize = 1 << 10;

pub(crate) fn check_description(text: &str) -> Result<()> {
    check("description", text, MAX_TEXT_BYTES)
}

pub(crate) fn check_comment(text: &str) -> Result<()> {
    check("comment", text, MAX_COMMENT_BYTES)
}

pub(crate) fn check_tags(tags: &Tags) -> Result<()> {
    if tags.len() > MAX_TAGS {
        return Err(Error::new(Reason::MalformedRequest, format!("there are at most {MAX_TAGS} tags")).field("tags"));
    }
    tags.iter().try_for_each(|(label, value)| check(&format!("tags.{label}"), value, MAX_TAG_BYTES))
}

fn check(field: &str, text: &str, limit: usize) -> Result<()> {
    let refused = |text: String| Err(Error::new(Reason::MalformedRequest, text).field(field));
    if text.len() > limit {
        return refused(format!("'{field}' has at most {limit} bytes"));
    }
    match text.chars().find(|c| c.is_control() && !"\n\r\t".contains(*c)) {
        Some(c) => {
            refused(format!("'{field}' holds the control character {}: only line breaks and tabs may stand there", c.escape_unicode()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(value: &str) -> Tags {
        [("team".parse().unwrap(), value.to_owned())].into()
    }

    #[test]
    fn words_have_bounds() {
        assert!(check_comment(&"x".repeat(MAX_COMMENT_BYTES)).is_ok());
        assert!(check_description(&"x".repeat(MAX_TEXT_BYTES)).is_ok());
        assert!(check_tags(&tags(&"x".repeat(MAX_TAG_BYTES))).is_ok());
        let error = check_comment(&"x".repeat(MAX_COMMENT_BYTES + 1)).unwrap_err();
        assert_eq!((error.reason(), error.field_name()), (Reason::MalformedRequest, Some("comment")));
        let error = check_tags(&tags(&"x".repeat(MAX_TAG_BYTES + 1))).unwrap_err();
        assert_eq!(error.field_name(), Some("tags.team"));
        let many = (0..=MAX_TAGS).map(|n| (format!("t{n}").parse().unwrap(), String::new())).collect();
        assert_eq!(check_tags(&many).unwrap_err().field_name(), Some("tags"));
    }

    #[test]
    fn no_control_characters_but_line_breaks_and_tabs() {
        for fine in ["", "Größe 8×8, 手写", "one\r\n\ttwo\n"] {
            assert!(check_comment(fine).is_ok() && check_description(fine).is_ok() && check_tags(&tags(fine)).is_ok(), "{fine:?}");
        }
        for bad in ["a\0b", "\u{1b}[31mred", "\u{7f}", "\u{9b}2J"] {
            for error in [check_comment(bad), check_description(bad), check_tags(&tags(bad))].map(Result::unwrap_err) {
                assert_eq!(error.reason(), Reason::MalformedRequest, "{bad:?}");
                assert!(!error.public_text().contains(char::is_control), "{error}");
            }
        }
    }
}
