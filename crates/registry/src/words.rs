//! Limits on what people write beside a thing: descriptions, tags, comments.
//!
//! They are kept in every audit entry and in every snapshot, so each has a bound.

use plinth_store::resources::Tags;
use plinth_types::{Error, Reason, Result};

const MAX_TEXT_BYTES: usize = 16 << 10;
const MAX_COMMENT_BYTES: usize = 4 << 10;
const MAX_TAGS: usize = 64;
const MAX_TAG_BYTES: usize = 1 << 10;

fn too_long(field: &str, limit: usize) -> Error {
    Error::new(Reason::MalformedRequest, format!("'{field}' has at most {limit} bytes")).field(field)
}

pub(crate) fn check_description(text: &str) -> Result<()> {
    if text.len() > MAX_TEXT_BYTES { Err(too_long("description", MAX_TEXT_BYTES)) } else { Ok(()) }
}

pub(crate) fn check_comment(text: &str) -> Result<()> {
    if text.len() > MAX_COMMENT_BYTES { Err(too_long("comment", MAX_COMMENT_BYTES)) } else { Ok(()) }
}

pub(crate) fn check_tags(tags: &Tags) -> Result<()> {
    if tags.len() > MAX_TAGS {
        return Err(Error::new(Reason::MalformedRequest, format!("there are at most {MAX_TAGS} tags")).field("tags"));
    }
    match tags.iter().find(|(_, value)| value.len() > MAX_TAG_BYTES) {
        Some((label, _)) => Err(too_long(&format!("tags.{label}"), MAX_TAG_BYTES)),
        None => Ok(()),
    }
}
