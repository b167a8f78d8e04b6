//! The bodies of the admin API, as JSON carries them. All routes lie under `/v1`.
//!
//! | route | request | answer |
//! |---|---|---|
//! | `GET /v1/status` · `GET /v1/routes` | | [`Status`] · list of [`RouteInfo`] |
//! | `GET /v1/models?after=&limit=` | | [`Page`] of [`Model`] |
//! | `GET /v1/models/{m}` · `PATCH` · `DELETE` | · [`Edit`] · | [`Model`] · [`Model`] · 204 |
//! | `GET /v1/models/{m}/versions?after=&limit=` | | [`Page`] of [`Version`], newest first |
//! | `POST /v1/models/{m}/versions` | [`NewVersion`] | 201 [`Version`]; 200 when that content is a version already |
//! | `GET /v1/models/{m}/versions/{v}` · `PATCH` · `DELETE` | · [`Edit`] · | [`Version`] · [`Version`] · 204 |
//! | `POST /v1/models/{m}/versions/{v}/retire` · `/restore` | | [`Version`] |
//! | `PUT /v1/models/{m}/versions/{v}/signature` | [`Signature`] | [`Version`] |
//! | `GET /v1/models/{m}/versions/{v}/files/{path}` | | the file's bytes |
//! | `GET /v1/models/{m}/versions/{v}/verification` | | [`Verification`]: hashes the stored bytes again |
//! | `PUT /v1/models/{m}/aliases/{a}` · `DELETE` | [`MoveAlias`] · | [`Model`] · 204 |
//! | `POST /v1/models/{m}/rollback` | [`RollBack`] | [`Model`] |
//! | `POST /v1/models/{m}/cache/warm` | [`WarmCache`] | [`WarmedCache`] |
//! | `HEAD /v1/blobs/{digest}` · `PUT` | · the bytes, with `Content-Length` | 200 or 404 · 201 or 200 |
//! | `GET /v1/audit?subject=&before=&limit=` | | [`Page`] of [`AuditEntry`], newest first |
//! | `POST /v1/audit/{revision}/undo` | | [`AuditEntry`]: the commit that undid it |
//! | `GET /v1/audit/verification` | | [`AuditVerification`]: reads the whole audit |
//! | `POST /v1/gc` | [`CollectGarbage`] | [`Garbage`] |
//! | `POST /v1/apply` | [`Apply`] | [`Applied`] |
//! | `GET /v1/resources/{kind}?after=&limit=` | | [`Page`] of [`StoredResource`] |
//! | `GET /v1/resources/{kind}/{name}` · `DELETE ?if_revision=` | | [`StoredResource`] · 204 |
//! | `GET /v1/filters?after=&limit=` | | [`Page`] of [`Filter`] |
//! | `GET /v1/filters/{f}` · `DELETE` | | [`Filter`] · 204 |
//! | `POST /v1/filters/{f}/versions` | [`NewFilter`] | 201 [`PushedFilter`]; 200 when the newest version is just that already |
//! | `DELETE /v1/filters/{f}/versions/{v}` | | 204 |
//! | `GET /v1/keys` · `POST` | · [`NewKey`] | [`Page`] of [`Key`] · 201 [`CreatedKey`] |
//! | `POST /v1/keys/{id}/rotate` | [`RotateKey`] | 201 [`CreatedKey`] |
//! | `DELETE /v1/keys/{id}` | | 204 |
//!
//! Everything is about the caller's tenant. An admin of the default tenant may act for another one: `X-Plinth-Tenant`.
//!
//! Errors are `application/problem+json` (RFC 9457): [`Problem`]. The routes under `/api/v1` are in [`jobs`].

pub mod files;
pub mod jobs;
pub mod streams;

use std::collections::BTreeMap;

use plinth_types::{AliasName, ArtifactPath, ByteSize, Digest, Label, ModelName, Timestamp, VersionNumber};
use serde::{Deserialize, Serialize};

/// Small properties that users set.
pub type Tags = BTreeMap<Label, String>;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins: the `after` (or `before`) of the next request. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An error, RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `/errors/<reason>`: the page in `docs/errors/`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A few words, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and what to do next.
    pub detail: String,
    /// The stable word for programs, such as `model_not_found`.
    pub reason: String,
    /// The part of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names the request in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retriable: bool,
    /// All that is wrong with the request, where that is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FieldProblem>,
}

/// One of several things that are wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// The part of the request, such as `resources[2].spec.targets`.
    pub field: String,
    /// The stable word for programs.
    pub reason: String,
    /// What is wrong.
    pub detail: String,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// A word for people.
    pub description: String,
    /// Properties that users set.
    pub tags: Tags,
    /// Where its aliases point.
    pub aliases: BTreeMap<AliasName, VersionNumber>,
    /// The newest number that was handed out.
    pub last_version: Option<VersionNumber>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it or an alias last changed.
    pub updated_at: Timestamp,
    /// What this node serves of it.
    #[serde(default)]
    pub served: Vec<ServedVersion>,
}

/// Whether a version may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// It may.
    Active,
    /// It is kept, but may not.
    Retired,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path in the version.
    pub path: ArtifactPath,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its model.
    pub model: ModelName,
    /// Its number.
    pub number: VersionNumber,
    /// The digest of the list of its files.
    pub content: Digest,
    /// Its files, sorted by path.
    pub files: Vec<File>,
    /// The sum of its files' lengths.
    pub size: u64,
    /// Whether it may be used.
    pub state: VersionState,
    /// The aliases that point to it.
    pub aliases: Vec<AliasName>,
    /// The Sigstore bundle as JSON text, when it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// A word for people.
    pub description: String,
    /// Properties that users set.
    pub tags: Tags,
    /// Who pushed it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
}

/// Makes a version out of uploaded blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// Its files; their bytes were uploaded before.
    pub files: Vec<File>,
    /// A Sigstore bundle as JSON text over exactly these files.
    #[serde(default)]
    pub signature: Option<String>,
    /// The number that it must get, because its signature names it; any when absent.
    #[serde(default)]
    pub expect_number: Option<VersionNumber>,
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// Properties that users set.
    #[serde(default)]
    pub tags: Tags,
    /// Aliases to move to it in the same transaction.
    #[serde(default)]
    pub aliases: Vec<AliasName>,
}

/// Changes words and tags; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The new description.
    #[serde(default)]
    pub description: Option<String>,
    /// Tags to set; `null` removes one.
    #[serde(default)]
    pub tags: BTreeMap<Label, Option<String>>,
}

/// Attaches a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// A Sigstore bundle as JSON text.
    pub bundle: String,
}

/// Moves an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveAlias {
    /// Where to.
    pub version: VersionNumber,
    /// Where it must point now; any place when absent.
    #[serde(default)]
    pub expect: Option<VersionNumber>,
    /// A signed permission to go back; see `plinth model rollback --sign-key`.
    #[serde(default)]
    pub permission: Option<String>,
    /// A word of explanation for the audit.
    #[serde(default)]
    pub comment: String,
}

/// Moves an alias back to where `previous` points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// A signed permission to go back.
    #[serde(default)]
    pub permission: Option<String>,
    /// A word of explanation for the audit.
    #[serde(default)]
    pub comment: String,
}

/// Inferences whose answers shall be in the response cache before they are asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmCache {
    /// The version; the default one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// Requests in the JSON form of the Open Inference Protocol, at most 1,000.
    pub requests: Vec<Box<serde_json::value::RawValue>>,
}

/// What warming did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmedCache {
    /// Whether this deployment's answers are kept at all; nothing is tried any more once one was not.
    pub kept: bool,
    /// Answers that were computed and are kept now, as far as there is room.
    pub computed: u64,
    /// Answers that were there already.
    pub present: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests at the end of the list that were not tried, because the time was over or answers are not kept.
    pub skipped: u64,
    /// The first that failed, at most 10.
    #[serde(default)]
    pub failures: Vec<WarmFailure>,
}

/// A request of the list that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmFailure {
    /// Its place in the list, from 0.
    pub request: u64,
    /// The stable word for programs.
    pub reason: String,
    /// What is wrong, and what to do next.
    pub detail: String,
    /// The part of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether this node would load it.
    pub accepted: bool,
    /// Whether it carries a signature.
    pub signed: bool,
    /// The key that signed it: SHA-256 of its public key in PEM form, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Why it is not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    pub detail: String,
}

/// One commit of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What, such as `model.promote`.
    pub action: String,
    /// On what, such as `digits/2`.
    pub subject: String,
    /// A word of explanation.
    pub comment: String,
    /// Each changed record with what it said before and after.
    pub changes: Vec<AuditChange>,
}

/// Whether the audit is what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditVerification {
    /// Entries that hold together, from the first one.
    pub entries: u64,
    /// Those of them that older releases wrote, which made no chain.
    pub unlinked: u64,
    /// The digest that stands for all of them. Kept elsewhere, it shows later whether the whole chain was made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Digest>,
    /// The first entry that does not follow from those before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<u64>,
    /// The node's own log of refusals.
    pub refusals: RefusalsVerification,
}

/// Whether a node's log of refusals is what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalsVerification {
    /// Lines that hold together.
    pub lines: u64,
    /// The number of the first line that is kept.
    pub first: u64,
    /// The number of the last of them.
    pub last: u64,
    /// The digest of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Digest>,
    /// Where the chain is broken, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditChange {
    /// The record, such as `model/digits`.
    pub record: String,
    /// What it said before.
    pub before: Option<serde_json::Value>,
    /// What it said after.
    pub after: Option<serde_json::Value>,
}

/// Asks for garbage collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectGarbage {
    /// Only say what would be deleted.
    #[serde(default)]
    pub dry_run: bool,
    /// Spare blobs younger than this many seconds; the node's setting when absent.
    #[serde(default)]
    pub older_than_seconds: Option<u64>,
}

/// What garbage collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// Deleted, or to be deleted.
    pub digests: Vec<Digest>,
    /// Their lengths together.
    pub bytes: u64,
    /// How many blobs are kept.
    pub kept: u64,
}

/// Resources to apply, all or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The resources.
    pub resources: Vec<Resource>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// One resource of a file for `plinth apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// `tenant`, `plan`, `issuer`, `addresses`, `model`, `deployment`, `upstream` or `route`. A `filter` is pushed instead.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The revision that must have changed it last, 0 for none; whatever stands is replaced when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u64>,
    /// What it shall say.
    #[serde(default)]
    pub spec: serde_json::Value,
}

/// A resource as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredResource {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The commit that last changed it; 0 for a built-in plan that nobody has written.
    pub revision: u64,
    /// The moment of that commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// What it says: what may be applied again.
    pub spec: serde_json::Value,
}

/// A filter with its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// Its name.
    pub name: Label,
    /// Its versions, newest first. The newest is what a route gets that names none.
    pub versions: Vec<FilterVersion>,
    /// The newest number that was ever handed out.
    pub last_version: VersionNumber,
    /// The commit that last changed it.
    pub revision: u64,
    /// The moment of that commit.
    pub updated_at: Timestamp,
}

/// A version of a filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterVersion {
    /// Its number.
    pub number: VersionNumber,
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// The digest of its WebAssembly.
    pub module: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How it is run.
    pub settings: FilterSettings,
    /// Whether it carries a signature.
    pub signed: bool,
    /// What the node that answers makes of it: `ready`, `loading`, `failed`, `held` or `idle` (no route needs it).
    pub state: String,
    /// Why it is `failed` or `held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who pushed it.
    pub created_by: String,
    /// When it was pushed.
    pub created_at: Timestamp,
}

/// How a version of a filter is run. What is absent takes its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSettings {
    /// What it is told with each call.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// For one call, in milliseconds of processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// The most memory of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// The largest body that it is given, and that it may give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// `refuse` (the default) or `skip`: what happens to a request on which it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<String>,
}

/// Makes a version of a filter out of an uploaded module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFilter {
    /// The digest of the module.
    pub module: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How it is run.
    #[serde(default)]
    pub settings: FilterSettings,
    /// A Sigstore bundle as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The number that it must get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_number: Option<VersionNumber>,
    /// A word for people.
    #[serde(default)]
    pub description: String,
}

/// A filter after a push.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PushedFilter {
    /// The number of what was pushed.
    pub number: VersionNumber,
    /// The filter.
    pub filter: Filter,
}

/// What applying did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The commit; absent when nothing changed or on a dry run.
    pub revision: Option<u64>,
    /// One line for each resource.
    pub resources: Vec<AppliedResource>,
}

/// What applying did to one resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedResource {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `created`, `changed` or `unchanged`.
    pub outcome: String,
    /// What it says now; only on a dry run, and absent when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// What it would say; only on a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looking: status, models, metadata.
    Viewer,
    /// Using models. Called `infer` before there were more roles.
    #[serde(alias = "infer")]
    Developer,
    /// Changing what is served and how.
    Operator,
    /// Everything within its tenant; in the default tenant also what concerns all.
    Admin,
}

/// Asks for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it shall allow.
    pub role: Role,
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// From when on it is refused.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The models that it may use; all when empty.
    #[serde(default)]
    pub models: Vec<ModelName>,
}

/// Replaces a key by a new one that allows the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// For how long the old key is good beside the new one, in seconds.
    pub overlap_seconds: u32,
}

/// A key without its secret. When it was last used is not kept: requests write nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its public id.
    pub id: String,
    /// What it allows.
    pub role: Role,
    /// A word for people.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The models that it may use; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelName>,
    /// The id of the key that came in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// A new key, shown this one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// What is kept of it.
    #[serde(flatten)]
    pub key: Key,
    /// The key itself; it cannot be shown again.
    pub secret: String,
}

/// A version on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedVersion {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionNumber,
    /// `loading`, `ready`, `restarting`, `failed`, `quarantined`; `unloaded` and `unloading` for one that is loaded when a
    /// request comes for it.
    pub state: String,
    /// Whether it answers requests that name no version.
    pub default: bool,
    /// Why, when it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The process id of its runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What executes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The memory that it takes, as measured, in bytes; 0 while it is not loaded.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Whether it stays when memory is short.
    #[serde(default)]
    pub pinned: bool,
    /// How often its runner was started again after a crash.
    pub restarts: u64,
    /// Which walls stand around its runner.
    #[serde(default)]
    pub sandbox: Vec<String>,
    /// Which walls could not be put up, and why.
    #[serde(default)]
    pub sandbox_missing: Vec<String>,
}

/// A route of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The HTTP method.
    pub method: String,
    /// The path with its parameters in braces.
    pub pattern: String,
    /// Who may call it: `public`, `read` (viewers), `infer` (developers), `operate` (operators), `admin`, or `platform` (admins
    /// of the default tenant).
    pub access: String,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The release.
    pub version: String,
    /// Whether it can serve what it should.
    pub ready: bool,
    /// Whether authentication is off (`--dev`).
    pub dev: bool,
    /// How long it has been up, in seconds.
    pub uptime_seconds: u64,
    /// The metadata store: `sqlite 3.51.3`, or why it cannot be reached.
    pub metadata: String,
    /// The object store.
    pub objects: String,
    /// The snapshot that it serves from.
    pub snapshot: SnapshotStatus,
    /// Whether only signed versions are served.
    pub require_signature: bool,
    /// Its memory in bytes, without the runners.
    pub memory_bytes: u64,
    /// The memory of what it serves.
    #[serde(default)]
    pub model_memory: ModelMemory,
    /// What it serves.
    pub models: Vec<ServedVersion>,
}

/// The memory of all models that a node serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMemory {
    /// By device, main memory first.
    pub devices: Vec<DeviceMemory>,
    /// Versions unloaded so far because others needed the room.
    pub evictions: u64,
    /// Versions unloaded so far because nobody asked for them.
    pub idle_unloads: u64,
    /// Versions loaded so far because a request came for them.
    pub loads_on_demand: u64,
    /// Requests that wait for a version to be loaded.
    pub parked: u64,
}

/// The memory of models on one device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// `cpu`, or `gpu:0` and so on.
    pub device: String,
    /// The most for all versions together; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
    /// What the loaded versions take, as measured.
    pub used: u64,
    /// What those take that are being loaded, as far as is known.
    pub loading: u64,
    /// What those take that were let go and have not ended yet.
    pub leaving: u64,
}

/// The snapshot that a node serves from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// The revision of the registry that it shows.
    pub revision: u64,
    /// When the registry was last seen to be no newer.
    pub checked_at: Timestamp,
    /// Whether the registry could be reached the last time.
    pub fresh: bool,
}
