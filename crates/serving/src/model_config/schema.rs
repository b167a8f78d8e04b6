//! The schema of a model configuration: its types and its descriptor, both from `proto/model_config.proto`.
//!
//! The descriptor is for reading and showing fields by name, the types are for using them. What a value must be beyond
//! its type is left to [`super::settle`].

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor};

/// The messages as types, made by the build script.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from the schema, which holds the comments")]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

static MODEL_CONFIG: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model_config.bin"));
    #[allow(clippy::expect_used, reason = "the bytes are part of the program")]
    let pool = DescriptorPool::decode(bytes).expect("the build script wrote a descriptor set that holds together");
    #[allow(clippy::expect_used, reason = "the bytes are part of the program")]
    pool.get_message_by_name("inference.ModelConfig").expect("the schema declares inference.ModelConfig")
});

/// The descriptor of `inference.ModelConfig`.
pub(super) fn model_config() -> MessageDescriptor {
    MODEL_CONFIG.clone()
}

/// What to say of a field that `message` does not have.
pub(super) fn unknown_field(message: &MessageDescriptor, name: &str) -> String {
    let fields: Vec<_> = message.fields().collect();
    let hint = hint(name, fields.iter().map(|f| f.name()));
    format!("{} has no field '{}'{hint}", message.name(), excerpt(name))
}

/// What to say of a value that `choice` does not have.
pub(super) fn unknown_value(choice: &EnumDescriptor, name: &str) -> String {
    let values: Vec<_> = choice.values().collect();
    let hint = hint(name, values.iter().map(|v| v.name()));
    format!("{} has no value '{}'{hint}", choice.name(), excerpt(name))
}

/// `; did you mean 'x'?` with the candidate nearest to `name`, or nothing when none is near.
pub(super) fn hint<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let name = excerpt(name);
    let nearest = candidates
        .map(|c| (strsim::jaro_winkler(&name.to_ascii_lowercase(), &c.to_ascii_lowercase()), c))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map_or_else(String::new, |(_, c)| format!("; did you mean '{c}'?"))
}

/// At most 64 characters of a text from outside, without control characters, for an error's text.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if short.len() < text.len() && text.chars().count() > 64 {
        short.push('…');
    }
    short
}
