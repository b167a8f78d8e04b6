//! The shapes of the records in the ledger, one type for each kind.
//!
//! Invariant: every release reads what every earlier release wrote: a new field has a default, a
//! field is never renamed, an unknown field is kept out by `deny_unknown_fields` so that a newer
//! release's record is refused instead of half understood.

pub mod gateway;

use std::collections::BTreeMap;

use plinth_types::{AliasName, ArtifactPath, ByteSize, Digest, DigestHasher, KeyId, Label, ModelName, Timestamp, VersionNumber};
use serde::{Deserialize, Serialize};

/// Small properties that users set.
pub type Tags = BTreeMap<Label, String>;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRecord {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The plan by which its requests are limited; the node's default when `None`.
    #[serde(default)]
    pub plan: Option<Label>,
    /// Whether its requests are refused for the time being.
    #[serde(default)]
    pub suspended: bool,
}

/// What a key or a token allows within its tenant. Each allows what those before it allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looking: status, models, metadata.
    Viewer,
    /// Using models. Called `infer` before there were more roles.
    #[serde(alias = "infer")]
    Developer,
    /// Changing what is served and how: versions, aliases, deployments, routes.
    Operator,
    /// Everything within its tenant: keys, deletion, the audit. In the default tenant also what concerns all.
    Admin,
}

/// An API key: what is needed to recognise it, never the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// SHA-256 of the secret, which has 256 random bits.
    pub secret_hash: Digest,
    /// What it allows.
    pub role: Role,
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The models that it may use; all when empty.
    #[serde(default)]
    pub models: Vec<ModelName>,
    /// The key that came in its place, when it was rotated; `expires_at` then says how long both are good.
    #[serde(default)]
    pub replaced_by: Option<KeyId>,
}

/// A model with its aliases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// Properties that users set.
    #[serde(default)]
    pub tags: Tags,
    /// Movable names on versions.
    #[serde(default)]
    pub aliases: BTreeMap<AliasName, AliasTarget>,
    /// The newest number that was ever handed out; numbers are not used again.
    #[serde(default)]
    pub last_version: Option<VersionNumber>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where an alias points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasTarget {
    /// The version.
    pub version: VersionNumber,
    /// A signed permission to go back to this version: a DSSE bundle as JSON text. Needed only by nodes that require
    /// signatures, and only when the move lowers the version.
    #[serde(default)]
    pub permission: Option<String>,
}

/// Whether a version may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// It may.
    Active,
    /// It may not, but it is kept and can be brought back.
    Retired,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the version.
    pub path: ArtifactPath,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest, by which the object store knows it.
    pub digest: Digest,
}

/// A version: immutable but for its words and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    /// The digest of the list of its files; see [`content_digest`].
    pub content: Digest,
    /// Its files, sorted by path.
    pub files: Vec<FileEntry>,
    /// A Sigstore bundle as JSON text (OpenSSF Model Signing 1.0).
    #[serde(default)]
    pub signature: Option<String>,
    /// Whether it may be used.
    pub state: VersionState,
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// Properties that users set.
    #[serde(default)]
    pub tags: Tags,
    /// Who pushed it.
    pub created_by: String,
    /// When it was pushed.
    pub created_at: Timestamp,
}

/// The digest that stands for a version's content: SHA-256 over one line for each file, sorted by path: digest in
/// hexadecimal, a space, size in decimal, a space, path, a line feed. A path holds no line feed, so the list is unambiguous.
#[must_use]
pub fn content_digest(files: &[FileEntry]) -> Digest {
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = DigestHasher::new();
    for file in sorted {
        hasher.update(format!("{} {} {}\n", file.digest.hex(), file.size, file.path).as_bytes());
    }
    hasher.finish()
}

/// Whether a deployment shall be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It shall.
    #[default]
    Loaded,
    /// It shall not, but the wish is kept.
    Unloaded,
}

/// The wish that a model be served. The version of `alias` answers requests that name no version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentRecord {
    /// Whether it shall be loaded.
    #[serde(default)]
    pub desired: Desired,
    /// The alias that is served.
    #[serde(default = "AliasName::champion")]
    pub alias: AliasName,
    /// More versions to keep loaded beside it.
    #[serde(default)]
    pub versions: Vec<VersionNumber>,
    /// The most memory a runner may take; the node's limit when `None`.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// Threads of one runner; the node's choice when `None`.
    #[serde(default)]
    pub threads: Option<u16>,
    /// A Triton model configuration as JSON text that replaces the one in the version's files.
    #[serde(default)]
    pub config_override: Option<String>,
    /// Executions of one version at the same time, with shared weights; the model configuration's `instance_group` when
    /// `None`.
    #[serde(default)]
    pub instances: Option<u16>,
    /// Whether its versions stay loaded when memory is short.
    #[serde(default)]
    pub pinned: bool,
    /// Whether its versions are loaded at the first request instead of at once.
    #[serde(default)]
    pub on_demand: bool,
    /// Its versions are unloaded after so many seconds without a request, and loaded again at the next; never when `None`.
    #[serde(default)]
    pub idle_seconds: Option<u32>,
    /// Whether and how answers are cached; `response_cache` of the model configuration decides when `None`.
    #[serde(default)]
    pub cache: Option<CacheSettings>,
    /// Counts explicit requests to load again; a change makes a node start fresh and forget a quarantine.
    #[serde(default)]
    pub generation: u64,
}

impl Default for DeploymentRecord {
    fn default() -> Self {
        Self {
            desired: Desired::Loaded,
            alias: AliasName::champion(),
            versions: Vec::new(),
            memory: None,
            threads: None,
            config_override: None,
            instances: None,
            pinned: false,
            on_demand: false,
            idle_seconds: None,
            cache: None,
            generation: 0,
        }
    }
}

/// How the answers of a deployment are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Whether they are cached at all.
    pub enabled: bool,
    /// For how many seconds; the node's `cache.ttl` when `None`.
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
}

/// The digests that garbage collection has decided to delete. While a digest stands here no version may refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionRecord {
    /// The digests.
    pub deleting: Vec<Digest>,
}

/// What remains of a model that was deleted: its numbers are not used again when its name is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerModelRecord {
    /// The newest number that was ever handed out under this name.
    pub last_version: VersionNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_digest_ignores_order_and_nothing_else() {
        let file = |path: &str, size| FileEntry { path: path.parse().unwrap(), size, digest: Digest::of(path.as_bytes()) };
        let (a, b) = (file("a", 1), file("b", 2));
        let whole = content_digest(&[a.clone(), b.clone()]);
        assert_eq!(whole, content_digest(&[b.clone(), a.clone()]));
        assert_ne!(whole, content_digest(std::slice::from_ref(&a)));
        assert_ne!(whole, content_digest(&[a, FileEntry { size: 3, ..b }]));
    }

    #[test]
    fn records_of_the_first_release_open() {
        let deployment: DeploymentRecord = serde_json::from_str("{}").unwrap();
        assert_eq!(deployment, DeploymentRecord::default());
        assert!(serde_json::from_str::<DeploymentRecord>(r#"{"alais":"x"}"#).is_err());
    }
}
