//! Which format rows are in, and how the bytes are compressed.
//!
//! Invariant: what is known is one list each ([`Format::ALL`], [`Compression::ALL`]), and every error about something unknown
//! prints it. A file's name says both; a content type says the format alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::RowsError;
use crate::error::excerpt;

/// How rows stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON value in each line (<https://jsonlines.org>). Blank lines are no rows.
    JsonLines,
    /// RFC 4180 with a header. Fields are separated by commas, records end with LF or CRLF. Empty lines are no rows.
    Csv,
    /// Apache Parquet. Read by position, so it needs a source that seeks.
    Parquet,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::JsonLines, Self::Csv, Self::Parquet];

    /// The word that stands for the format in settings: `json-lines`, `csv`, `parquet`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JsonLines => "json-lines",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// The media type under which a file of this format travels.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/jsonl",
            Self::Csv => "text/csv",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// What a file name says, by its ending: `.jsonl`, `.ndjson`, `.csv`, `.parquet`, `.pq`, each in any case; the first three
    /// also with `.gz`, `.gzip`, `.zst` or `.zstd` behind.
    ///
    /// # Errors
    /// [`RowsError::UnknownFormat`] for another ending, and for a Parquet file that is compressed as a whole.
    pub fn from_file_name(name: &str) -> Result<(Self, Compression), RowsError> {
        let lower = name.to_ascii_lowercase();
        let (compression, stem) = [(".gz", Compression::Gzip), (".gzip", Compression::Gzip), (".zst", Compression::Zstd)]
            .into_iter()
            .chain([(".zstd", Compression::Zstd)])
            .find_map(|(ending, compression)| Some((compression, lower.strip_suffix(ending)?)))
            .unwrap_or((Compression::None, lower.as_str()));
        let format = match stem.rsplit_once('.').map(|(_, ending)| ending) {
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("csv") => Self::Csv,
            Some("parquet" | "pq") if compression == Compression::None => Self::Parquet,
            _ => return Err(RowsError::UnknownFormat(excerpt(name))),
        };
        Ok((format, compression))
    }

    /// What a `Content-Type` says; parameters such as `charset` are passed over.
    ///
    /// # Errors
    /// [`RowsError::UnknownFormat`].
    pub fn from_content_type(value: &str) -> Result<Self, RowsError> {
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/jsonl" | "application/x-ndjson" | "application/ndjson" | "application/jsonlines" | "application/x-jsonlines" => {
                Ok(Self::JsonLines)
            }
            "text/csv" | "application/csv" => Ok(Self::Csv),
            "application/vnd.apache.parquet" | "application/x-parquet" => Ok(Self::Parquet),
            _ => Err(RowsError::UnknownFormat(excerpt(value))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = RowsError;

    /// The format's word; `jsonl`, `ndjson` and `json_lines` are understood too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "json-lines" | "json_lines" | "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            _ => Err(RowsError::UnknownFormat(excerpt(text))),
        }
    }
}

/// How the bytes of a file of JSON lines or CSV are compressed as a whole. Parquet compresses inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, with a window of at most 128 MiB.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    /// The word that stands for it: `none`, `gzip`, `zstd`. The last two are the names of HTTP's content codings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = RowsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let known = |known: &&Self| known.as_str() == lower || (**known == Self::None && lower == "identity");
        Self::ALL.iter().find(known).copied().ok_or_else(|| RowsError::UnknownCompression(excerpt(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_says_format_and_compression() {
        let cases = [
            ("a.jsonl", Format::JsonLines, Compression::None),
            ("A.B.NDJSON.GZ", Format::JsonLines, Compression::Gzip),
            ("x.csv", Format::Csv, Compression::None),
            ("x.csv.zst", Format::Csv, Compression::Zstd),
            ("part-0.snappy.parquet", Format::Parquet, Compression::None),
        ];
        for (name, format, compression) in cases {
            assert_eq!(Format::from_file_name(name).unwrap(), (format, compression), "{name}");
        }
        for name in ["", "csv", "x.json", "x.parquet.gz", "x.gz", ".gz", "x.csv.bz2"] {
            let text = Format::from_file_name(name).unwrap_err().to_string();
            assert!(text.contains("json-lines, csv, parquet"), "{name}: {text}");
        }
    }

    #[test]
    fn words_and_content_types() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
            assert_eq!(Format::from_content_type(format.content_type()).unwrap(), format);
            assert_eq!(serde_json::to_string(&format).unwrap(), format!("\"{format}\""));
        }
        assert_eq!(Format::from_content_type("Text/CSV; charset=utf-8; header=present").unwrap(), Format::Csv);
        assert!(Format::from_content_type("application/json").is_err());
        for compression in Compression::ALL {
            assert_eq!(compression.as_str().parse::<Compression>().unwrap(), compression);
        }
        assert!("brotli".parse::<Compression>().unwrap_err().to_string().contains("none, gzip, zstd"));
    }
}
