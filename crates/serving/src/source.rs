//! Where verified files come from: a trait that serving owns and the node implements.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use plinth_engine::FileSpec;
use plinth_store::resources::VersionRecord;
use plinth_types::{AliasName, ModelName, Result, TenantName, VersionNumber};

/// Names a version and carries what the registry says of it.
#[derive(Debug, Clone)]
pub struct VersionRef {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its model.
    pub model: ModelName,
    /// Its number.
    pub number: VersionNumber,
    /// What the registry says of it.
    pub record: Arc<VersionRecord>,
    /// The alias that is served.
    pub alias: AliasName,
    /// A signed permission at that alias to go back to it, if there is one.
    pub permission: Option<String>,
    /// Why it is loaded.
    pub purpose: Purpose,
}

/// Why a version is loaded; a judgement for a greater purpose holds for the lesser ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To answer requests that name it.
    Beside,
    /// To answer in place of a version that cannot be had: the node's own decision.
    FallBack,
    /// To answer requests that name no version.
    Answer,
}

impl std::fmt::Display for VersionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.model, self.number)
    }
}

/// A version on the local disk.
#[derive(Debug, Clone)]
pub struct LocalVersion {
    /// The directory with its files.
    pub directory: PathBuf,
    /// Its files with the digests that were accepted.
    pub files: Vec<FileSpec>,
}

/// Gives the files of versions.
#[async_trait]
pub trait VersionSource: Send + Sync {
    /// Judges whether this node may serve the version (signature, signer, downgrade) and brings its files to the local
    /// disk. Opens no file with a parser; needs no remote store when the files are here already. Cancel safe.
    ///
    /// # Errors
    /// A refusal is `Unprocessable` with the reason; a store that is away is `Unavailable` and worth another try.
    async fn fetch(&self, version: &VersionRef) -> Result<LocalVersion>;

    /// Takes note that the version answers by default, as it was wished: it raises the floor under later downgrades.
    async fn served(&self, version: &VersionRef);
}
