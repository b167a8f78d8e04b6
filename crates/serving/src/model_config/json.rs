//! The JSON form of a model configuration.
//!
//! In: proto3 JSON, as the `config` parameter of a load brings it: names in either spelling, 64-bit numbers as numbers or
//! strings. Out: what Triton's `/config` answers: names as in the schema, enumerations by name, every number a JSON
//! number, defaults shown. Objects come out in key order, the same for the same configuration.

use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::schema;

/// What is wrong in a JSON text, and where.
#[derive(Debug)]
pub(super) struct JsonError {
    /// The field, such as `input[0].dims`; empty for the whole.
    pub(super) field: String,
    pub(super) text: String,
}

/// Reads a whole text as one message.
pub(super) fn parse(descriptor: MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, JsonError> {
    // Depth is bounded by serde_json, memory by the text's length, which the caller bounds.
    let value: Value = serde_json::from_slice(text).map_err(|e| JsonError { field: String::new(), text: e.to_string() })?;
    if !value.is_object() {
        return Err(JsonError { field: String::new(), text: "expected an object".to_owned() });
    }
    check_names(&descriptor, &value, "")?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor, value, &options)
        .map_err(|e| JsonError { field: String::new(), text: e.to_string() })
}

/// Looks for names that the schema does not have, so that the error can say where they stand and what is near.
fn check_names(descriptor: &MessageDescriptor, value: &Value, path: &str) -> Result<(), JsonError> {
    let Value::Object(object) = value else { return Ok(()) };
    for (name, value) in object {
        let found = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name));
        let Some(field) = found else {
            return Err(JsonError { field: path.to_owned(), text: schema::unknown_field(descriptor, name) });
        };
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        let Kind::Message(inner) = field.kind() else { continue };
        match value {
            Value::Array(items) if field.is_list() => {
                for (i, item) in items.iter().enumerate() {
                    check_names(&inner, item, &format!("{path}[{i}]"))?;
                }
            }
            Value::Object(entries) if field.is_map() => {
                let Kind::Message(inner) = inner.map_entry_value_field().kind() else { continue };
                for (key, entry) in entries {
                    check_names(&inner, entry, &format!("{path}[{}]", schema::excerpt(key)))?;
                }
            }
            _ => check_names(&inner, value, &path)?,
        }
    }
    Ok(())
}

/// Shows a message as Triton does.
pub(super) fn show(message: &DynamicMessage) -> Result<Value, serde_json::Error> {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .use_enum_numbers(false)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options)
}
