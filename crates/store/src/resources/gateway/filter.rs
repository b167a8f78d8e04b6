//! The record of a filter: its versions, each immutable, and how a route names one.
//!
//! Invariant: what runs is sealed as a whole: a version's signature covers the module and its settings, as the two files
//! of [`FilterVersion::files`]. A settings field that has its default is not written, so that a later release, which knows
//! more fields, still sees the bytes that were signed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use plinth_types::{ByteSize, Digest, Label, Timestamp, VersionNumber};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::resources::FileEntry;

/// The name of the module among the files that a signature covers.
pub const MODULE_FILE: &str = "filter.wasm";
/// The name of the settings among them.
pub const SETTINGS_FILE: &str = "filter.json";

/// A module that reads and changes requests and answers, in all its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRecord {
    /// Its versions. The newest is what a route gets that names none; there is always one.
    pub versions: BTreeMap<VersionNumber, FilterVersion>,
    /// The newest number that was ever handed out; numbers are not used again.
    pub last_version: VersionNumber,
    /// Who brought the first.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
}

/// A version of a filter. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterVersion {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// The digest of its WebAssembly, in the object store.
    pub module: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How it is run.
    #[serde(default)]
    pub settings: FilterSettings,
    /// A Sigstore bundle as JSON text.
    #[serde(default)]
    pub signature: Option<String>,
    /// Who brought it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
}

impl FilterVersion {
    /// The files that its signature covers: the settings and the module.
    #[must_use]
    pub fn files(&self) -> Vec<FileEntry> {
        files(&self.module, self.size, &self.settings)
    }
}

/// How a version is run: what it is told, and what it may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSettings {
    /// What it is told with each call; any texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// For one call, in milliseconds of processor time; 20 when `None`. The node has a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// The most memory of one call; 16 MiB when `None`. The node has a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// The largest body that it is given, and that it may give; 1 MiB when `None`. The node has a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// What happens to a request when it fails.
    #[serde(default, skip_serializing_if = "OnFilterError::is_refuse")]
    pub on_error: OnFilterError,
}

/// What happens to a request on which a filter fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFilterError {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on as if the filter were not there.
    Skip,
}

impl OnFilterError {
    const fn is_refuse(&self) -> bool {
        matches!(self, Self::Refuse)
    }
}

/// The two files that a version's signature covers.
#[must_use]
pub fn files(module: &Digest, size: u64, settings: &FilterSettings) -> Vec<FileEntry> {
    // A plain struct of texts and numbers; were it ever not writable, nothing would be signed but an empty file.
    let text = serde_json::to_vec(settings).unwrap_or_default();
    let about = (SETTINGS_FILE, text.len() as u64, Digest::of(&text));
    let entries = [about, (MODULE_FILE, size, *module)].into_iter();
    // Both names are paths.
    entries.filter_map(|(path, size, digest)| Some(FileEntry { path: path.parse().ok()?, size, digest })).collect()
}

/// How a route names a filter: `mask` for the newest version, `mask@3` for that one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterRef {
    /// The filter.
    pub name: Label,
    /// The version; the newest when `None`.
    pub version: Option<VersionNumber>,
}

impl fmt::Display for FilterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl FromStr for FilterRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        let name = name.parse().map_err(|error| format!("a filter is named NAME or NAME@VERSION: {error}"))?;
        let version = version.map(str::parse).transpose().map_err(|error| format!("a filter is named NAME or NAME@VERSION: {error}"))?;
        Ok(Self { name, version })
    }
}

impl Serialize for FilterRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FilterRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_a_filter_with_or_without_its_version() {
        for (text, name, version) in [("mask", "mask", None), ("mask@12", "mask", Some(12))] {
            let parsed: FilterRef = text.parse().unwrap();
            assert_eq!((parsed.name.as_str(), parsed.version.map(VersionNumber::get)), (name, version));
            assert_eq!(parsed.to_string(), text);
        }
        for bad in ["", "@1", "mask@", "mask@0", "mask@x", "a/b", "mask@1@2"] {
            assert!(bad.parse::<FilterRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sealed_settings_hold_what_was_said_and_nothing_else() {
        let plain = FilterSettings::default();
        assert_eq!(serde_json::to_string(&plain).unwrap(), "{}");
        let full = FilterSettings { timeout_ms: Some(5), on_error: OnFilterError::Skip, ..plain.clone() };
        assert_eq!(serde_json::to_string(&full).unwrap(), r#"{"timeout_ms":5,"on_error":"skip"}"#);
        let module = Digest::of(b"m");
        let names: Vec<_> = files(&module, 1, &plain).iter().map(|file| file.path.to_string()).collect();
        assert_eq!(names, [SETTINGS_FILE, MODULE_FILE]);
        assert_ne!(files(&module, 1, &plain), files(&module, 1, &full), "settings are sealed too");
    }
}
