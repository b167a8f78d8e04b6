//! What a bulk job is asked to do.

use std::collections::BTreeMap;

use plinth_jobs::JobError;
use plinth_rows::{Compression, Format};
use plinth_types::{Digest, Error, ModelName, Reason, Result, VersionNumber};
use serde::{Deserialize, Serialize};

/// What the caller of `POST /api/v1/bulk` says beside when and how the job runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The model.
    pub model: ModelName,
    /// Its version; the default one of the moment when the job begins otherwise.
    #[serde(default)]
    pub version: Option<VersionNumber>,
    /// The id of a file.
    pub file: String,
    /// How the rows stand in it; what its name or content type says otherwise.
    #[serde(default)]
    pub format: Option<String>,
    /// How it is packed; what its name says otherwise.
    #[serde(default)]
    pub compression: Option<String>,
    /// Where each input's elements stand.
    #[serde(default)]
    pub inputs: BTreeMap<String, Mapping>,
    /// The wished outputs; all when empty.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// `jsonl` or `csv`.
    #[serde(default)]
    pub output_format: Option<String>,
    /// Rows of one inference.
    #[serde(default)]
    pub batch_size: Option<u32>,
    /// Inferences at a time.
    #[serde(default)]
    pub concurrency: Option<u32>,
}

/// The names of the fields of [`Asked`].
pub(super) const OWN: [&str; 10] =
    ["model", "version", "file", "format", "compression", "inputs", "outputs", "output_format", "batch_size", "concurrency"];

/// The largest batch that can be asked for.
const MAX_BATCH: u32 = 65_536;
/// The most inferences at a time that can be asked for.
const MAX_CONCURRENCY: u32 = 256;

/// Where an input's elements stand in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mapping {
    /// The field with all of them; the one of the input's name otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// One field for each element.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Fields of this prefix and a number, counted from zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The shape of one row, for inputs that leave dimensions open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
}

/// The job's input: everything that a worker needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The file's id, for people.
    pub file: String,
    /// The digest of its bytes.
    pub digest: String,
    /// Its length.
    pub size: u64,
    pub format: Format,
    pub compression: Compression,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub inputs: BTreeMap<String, Mapping>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub outputs: Vec<String>,
    pub output_format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

impl Spec {
    /// Judges what was asked about a file of this name and type.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`], naming the field.
    pub fn new(asked: Asked, file: &crate::files::Stored) -> Result<Self> {
        let bad = |field: &'static str, text: String| Error::new(Reason::MalformedRequest, text).field(field);
        let named = Format::from_file_name(&file.name).ok();
        let compression = match &asked.compression {
            Some(word) => word.parse().map_err(|error| bad("compression", format!("{error}")))?,
            None => named.map_or_else(|| packed(&file.name), |(_, compression)| compression),
        };
        let format = match &asked.format {
            Some(word) => word.parse().map_err(|error| bad("format", format!("{error}")))?,
            None => match (named, Format::from_content_type(&file.content_type)) {
                (Some((format, _)), _) | (None, Ok(format)) => format,
                (None, Err(_)) => {
                    let text = "neither the file's name nor its content type says how its rows are written; say json-lines, csv or parquet";
                    return Err(bad("format", text.to_owned()));
                }
            },
        };
        let output_format = match asked.output_format.as_deref().map(str::parse) {
            None => Format::JsonLines,
            Some(Ok(format @ (Format::JsonLines | Format::Csv))) => format,
            Some(_) => return Err(bad("output_format", "an output is written as jsonl or as csv".to_owned())),
        };
        if asked.batch_size.is_some_and(|n| !(1..=MAX_BATCH).contains(&n)) {
            return Err(bad("batch_size", format!("a batch has 1 to {MAX_BATCH} rows")));
        }
        if asked.concurrency.is_some_and(|n| !(1..=MAX_CONCURRENCY).contains(&n)) {
            return Err(bad("concurrency", format!("1 to {MAX_CONCURRENCY} inferences run at a time")));
        }
        for (name, mapping) in &asked.inputs {
            let places = [mapping.field.is_some(), !mapping.fields.is_empty(), mapping.prefix.is_some()];
            if places.iter().filter(|said| **said).count() > 1 {
                let text = "an input stands in one 'field', in 'fields', or in fields of one 'prefix'".to_owned();
                return Err(Error::new(Reason::MalformedRequest, text).field(format!("inputs.{name}")));
            }
        }
        let Asked { version, inputs, outputs, batch_size, concurrency, file: id, .. } = asked;
        let (digest, size) = (file.digest.to_string(), file.bytes);
        Ok(Self { file: id, digest, size, format, compression, version, inputs, outputs, output_format, batch_size, concurrency })
    }

    /// The file's digest.
    pub fn digest(&self) -> Result<Digest, JobError> {
        self.digest.parse().map_err(|_| JobError::Dead(Error::internal("the digest of a bulk job's file")))
    }
}

/// How a file is packed whose name says nothing of its format.
fn packed(name: &str) -> Compression {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("gz" | "gzip") => Compression::Gzip,
        Some("zst" | "zstd") => Compression::Zstd,
        _ => Compression::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str, name: &str, content_type: &str) -> Result<Spec> {
        let asked: Asked = serde_json::from_str(json).unwrap();
        let digest = Digest::of(b"x");
        let file = crate::files::Stored { name: name.into(), bytes: 1, digest, purpose: "batch".into(), content_type: content_type.into() };
        Spec::new(asked, &file)
    }

    #[test]
    fn the_format_is_said_or_read_off_the_file() {
        let plain = r#"{"model":"m","file":"file-1"}"#;
        let cases = [
            (plain, "a.csv.gz", "", (Format::Csv, Compression::Gzip)),
            (plain, "rows", "application/jsonl", (Format::JsonLines, Compression::None)),
            (r#"{"model":"m","file":"file-1","format":"csv"}"#, "rows.zst", "", (Format::Csv, Compression::Zstd)),
            (r#"{"model":"m","file":"file-1","format":"csv","compression":"none"}"#, "a.jsonl.gz", "", (Format::Csv, Compression::None)),
        ];
        for (json, name, content_type, want) in cases {
            let spec = spec(json, name, content_type).unwrap();
            assert_eq!((spec.format, spec.compression), want, "{name}");
            assert_eq!(serde_json::from_slice::<Spec>(&serde_json::to_vec(&spec).unwrap()).unwrap(), spec);
        }
        for (json, field) in [
            (plain, "format"),
            (r#"{"model":"m","file":"f","format":"xml"}"#, "format"),
            (r#"{"model":"m","file":"f","format":"csv","output_format":"parquet"}"#, "output_format"),
            (r#"{"model":"m","file":"f","format":"csv","batch_size":0}"#, "batch_size"),
            (r#"{"model":"m","file":"f","format":"csv","concurrency":1000}"#, "concurrency"),
            (r#"{"model":"m","file":"f","format":"csv","inputs":{"x":{"field":"a","prefix":"b"}}}"#, "inputs.x"),
        ] {
            assert_eq!(spec(json, "rows", "").unwrap_err().field_name(), Some(field), "{json}");
        }
    }
}
