//! The signed statement: which files, with which digests, and for which version.
//!
//! Source: in-toto Statement v1 with the predicate `https://model_signing/signature/v1.0` of OpenSSF
//! Model Signing. Ours adds the field `plinth` to the predicate, which other verifiers ignore.
//! Invariant: [`Statement::compare`] accepts a list of files only when each is in the statement with the same
//! digest and none is missing; what may stay outside is a closed list of names that nothing loads.

use std::collections::BTreeMap;

use plinth_store::resources::{FileEntry, content_digest};
use plinth_types::{ArtifactPath, Digest, DigestHasher, Error, ModelName, Reason, Result, TenantName, VersionNumber};
use serde::{Deserialize, Serialize};

use super::{Binding, MAX_RESOURCES, SIGNATURE_FILE, invalid};

pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// The layout of model-signing 0.2, whose signatures also need another encoding.
pub(super) const PREDICATE_TYPE_OLD: &str = "https://model_signing/Digests/v0.1";

/// What the PyPI tool leaves out by itself. Whatever else a statement asks to ignore is not ignored here.
const GIT_NAMES: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Debug, Serialize, Deserialize)]
struct SubjectDigest {
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plinth: Option<Extension>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Our part of the predicate. A field that this release does not know is refused: it might forbid something.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extension {
    /// What the files are, when they are no model: one may not pass for the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SealedKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// The model, or the filter.
    pub model: ModelName,
    pub version: VersionNumber,
    pub content: Digest,
}

/// What may be signed besides models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SealedKind {
    /// A filter.
    Filter,
}

/// The refusal of a signature by model-signing 0.2.
pub(super) fn old_layout() -> Error {
    invalid("signed by model-signing 0.2, whose layout Plinth does not read: sign again with 1.0 or newer")
}

impl Statement {
    /// The statement over files, sorted by path segments as the PyPI tool sorts them.
    pub fn new(name: &str, files: &[FileEntry], binding: Option<&Binding>, kind: Option<SealedKind>) -> Self {
        let mut sorted: Vec<_> = files.iter().collect();
        sorted.sort_by(|a, b| a.path.as_str().split('/').cmp(b.path.as_str().split('/')));
        let mut root = DigestHasher::new();
        for file in &sorted {
            root.update(file.digest.as_bytes());
        }
        let resource = |file: &&FileEntry| Resource { name: file.path.to_string(), algorithm: "sha256".into(), digest: file.digest.hex() };
        let ignored = GIT_NAMES.into_iter().chain([SIGNATURE_FILE]).filter(|name| !sorted.iter().any(|f| covers(name, f.path.as_str())));
        Self {
            kind: STATEMENT_TYPE.into(),
            subject: vec![Subject { name: name.into(), digest: SubjectDigest { sha256: root.finish().hex() } }],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: Predicate {
                serialization: Serialization {
                    method: "files".into(),
                    hash_type: "sha256".into(),
                    allow_symlinks: false,
                    ignore_paths: ignored.map(str::to_owned).collect(),
                },
                resources: sorted.iter().map(resource).collect(),
                plinth: binding.map(|b| Extension {
                    kind,
                    tenant: b.tenant.clone(),
                    model: b.model.clone(),
                    version: b.version,
                    content: content_digest(files),
                }),
            },
        }
    }

    /// Reads a payload and checks everything but the files.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        /// Only the two types, so that a statement of another layout is told apart from a broken one.
        #[derive(Deserialize)]
        struct Types {
            #[serde(rename = "_type")]
            kind: String,
            #[serde(rename = "predicateType")]
            predicate_type: String,
        }
        let malformed = |e: serde_json::Error| invalid("the signed statement is malformed").diagnostic(e.to_string());
        let types: Types = serde_json::from_slice(payload).map_err(malformed)?;
        if types.predicate_type == PREDICATE_TYPE_OLD {
            return Err(old_layout());
        }
        if types.kind != STATEMENT_TYPE || types.predicate_type != PREDICATE_TYPE {
            return Err(invalid(format!("the signed statement is not of type '{PREDICATE_TYPE}'")));
        }
        let statement: Self = serde_json::from_slice(payload).map_err(malformed)?;
        let serialization = &statement.predicate.serialization;
        if serialization.method != "files" || serialization.hash_type != "sha256" {
            let text = "signed over shards or with another hash: Plinth reads whole files with SHA-256 (the tool's default), sign again so";
            return Err(invalid(text));
        }
        statement.check_root()?;
        Ok(statement)
    }

    /// The subject's digest must be that of the resources' digests in their order.
    fn check_root(&self) -> Result<()> {
        let resources = &self.predicate.resources;
        if resources.is_empty() || resources.len() > MAX_RESOURCES {
            return Err(invalid(format!("the signed statement must list 1 to {MAX_RESOURCES} files")));
        }
        let mut root = DigestHasher::new();
        for resource in resources {
            root.update(resource.parsed_digest()?.as_bytes());
        }
        match self.subject.as_slice() {
            [subject] if subject.digest.sha256 == root.finish().hex() => Ok(()),
            _ => Err(invalid("the signed statement contradicts itself: its subject is not the digest of its files")),
        }
    }

    /// Our part of the predicate.
    pub const fn extension(&self) -> Option<&Extension> {
        self.predicate.plinth.as_ref()
    }

    /// Holds the list of files against the statement; gives the files that it allows beside the signed ones.
    pub fn compare(&self, files: &[FileEntry]) -> Result<Vec<ArtifactPath>> {
        let altered = |text: String| Error::new(Reason::ContentAltered, text).field("files");
        let mut signed = BTreeMap::new();
        for resource in &self.predicate.resources {
            let path: ArtifactPath =
                resource.name.parse().map_err(|e| invalid(format!("the signed statement names a file that a version cannot hold: {e}")))?;
            if signed.insert(path, resource.parsed_digest()?).is_some() {
                return Err(invalid("the signed statement lists a file twice"));
            }
        }
        let mut unlisted = Vec::new();
        for file in files {
            match signed.remove(&file.path) {
                Some(digest) if digest == file.digest => {}
                Some(_) => return Err(altered(format!("the file '{}' differs from the one that was signed", file.path))),
                None if self.tolerates(&file.path) => unlisted.push(file.path.clone()),
                None => return Err(altered(format!("the file '{}' is not covered by the signature", file.path))),
            }
        }
        match signed.first_key_value() {
            Some((path, _)) => Err(altered(format!("the file '{path}' was signed and is missing"))),
            None => Ok(unlisted),
        }
    }

    /// Whether a file may be there without being signed: the statement must say so, and it must be one of the few names
    /// that no model consists of.
    fn tolerates(&self, path: &ArtifactPath) -> bool {
        let path = path.as_str();
        let harmless = path == SIGNATURE_FILE || GIT_NAMES.iter().any(|name| covers(name, path));
        harmless && self.predicate.serialization.ignore_paths.iter().any(|ignored| covers(ignored, path))
    }
}

impl Resource {
    fn parsed_digest(&self) -> Result<Digest> {
        if self.algorithm != "sha256" || self.digest.len() != 64 {
            return Err(invalid("the signed statement names a file with another hash than SHA-256"));
        }
        self.digest.parse().map_err(|_| invalid("the signed statement holds a malformed digest"))
    }
}

/// Whether `path` is `name` or lies below it.
fn covers(name: &str, path: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
