//! What a node is asked to serve of one model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Purpose, VersionRef};
use plinth_policy::Wish;
use plinth_store::resources::{AliasTarget, DeploymentRecord, Desired, VersionRecord, VersionState};
use plinth_types::{AliasName, Digest, DigestHasher, ModelName, TenantName, VersionNumber};

/// A model of the snapshot, as far as serving needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelWish {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name.
    pub model: ModelName,
    /// How it shall be served.
    pub deployment: DeploymentRecord,
    /// Where its aliases point.
    pub aliases: BTreeMap<AliasName, AliasTarget>,
    /// Its versions.
    pub versions: BTreeMap<VersionNumber, Arc<VersionRecord>>,
    /// The version that last answered by default on this node, also before a restart.
    pub last_good: Option<VersionNumber>,
}

impl ModelWish {
    /// The wish in the form in which `policy` decides about it.
    #[must_use]
    pub fn policy_wish(&self) -> Wish {
        if self.deployment.desired == Desired::Unloaded {
            return Wish::default();
        }
        let usable = |v: &VersionNumber| self.versions.get(v).is_some_and(|r| r.state == VersionState::Active);
        let target = |alias: &AliasName| self.aliases.get(alias).map(|t| t.version).filter(&usable);
        let primary = target(&self.deployment.alias);
        // After several bad promotions `previous` is bad too; what this node served last is not.
        let fallbacks = [self.last_good.filter(&usable), target(&AliasName::previous())];
        Wish {
            primary,
            fallback: fallbacks.into_iter().flatten().find(|version| primary != Some(*version)),
            others: self.deployment.versions.iter().copied().filter(usable).collect(),
        }
    }

    /// The permission to serve `version` although it is older, if the served alias carries one for it.
    #[must_use]
    pub fn permission(&self, version: VersionNumber) -> Option<&str> {
        let target = self.aliases.get(&self.deployment.alias)?;
        if target.version == version { target.permission.as_deref() } else { None }
    }

    /// Everything that a source needs to know of `version`.
    #[must_use]
    pub(crate) fn reference(&self, version: VersionNumber) -> Option<VersionRef> {
        Some(VersionRef {
            tenant: self.tenant.clone(),
            model: self.model.clone(),
            number: version,
            record: self.versions.get(&version)?.clone(),
            alias: self.deployment.alias.clone(),
            permission: self.permission(version).map(str::to_owned),
            purpose: self.purpose(version),
        })
    }

    /// Why `version` is loaded, if it is.
    #[must_use]
    pub(crate) fn purpose(&self, version: VersionNumber) -> Purpose {
        let wish = self.policy_wish();
        if wish.primary == Some(version) {
            Purpose::Answer
        } else if wish.fallback == Some(version) {
            Purpose::FallBack
        } else {
            Purpose::Beside
        }
    }

    /// The bytes of the version's files.
    #[must_use]
    pub(crate) fn file_bytes(&self, version: VersionNumber) -> u64 {
        self.versions.get(&version).map_or(0, |record| record.files.iter().fold(0, |sum, file| sum.saturating_add(file.size)))
    }

    /// How long a version may go without a request.
    #[must_use]
    pub(crate) fn idle_after(&self) -> Option<Duration> {
        self.deployment.idle_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// Stands for everything that a loaded instance of `version` depends on: when it changes, the instance is loaded
    /// anew, and an old failure says nothing any more.
    #[must_use]
    pub(crate) fn fingerprint(&self, version: VersionNumber) -> Option<Digest> {
        let record = self.versions.get(&version)?;
        let deployment = &self.deployment;
        let parts = (&record.content, &record.signature);
        let settings = (&deployment.config_override, deployment.memory, deployment.threads, deployment.instances, deployment.cache);
        let mut hasher = DigestHasher::new();
        hasher.update(&serde_json::to_vec(&(parts, settings)).unwrap_or_default());
        Some(hasher.finish())
    }
}
