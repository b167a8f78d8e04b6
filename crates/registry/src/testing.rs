//! For tests of this and of other crates: the checker of the registry's invariants, and an in-memory store.
//!
//! [`check`] looks at the stores only, so it can run after a crash, against any adapter, without the service.

mod gateway;
mod memory;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use plinth_store::metadata::{AuditEntry, AuditQuery, Kind, Record, RecordKey, Revision};
use plinth_store::resources::{
    CollectionRecord, DeploymentRecord, FormerModelRecord, KeyRecord, ModelRecord, TenantRecord, VersionRecord, VersionState,
    content_digest,
};
use plinth_store::{Metadata, Objects};
use plinth_types::{AliasName, Digest, DigestHasher, ModelName, TenantName, VersionNumber};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use memory::{MemoryMetadata, MemoryObjects};

/// Checks every invariant of the registry.
///
/// The stores must stand still meanwhile. Reads every stored byte that a version names.
///
/// # Errors
/// One line for each invariant that does not hold.
pub async fn check(metadata: &dyn Metadata, objects: &dyn Objects) -> Result<(), Vec<String>> {
    let mut report = Report::default();
    let (head, records) = match metadata.read_all().await {
        Ok(all) => all,
        Err(e) => return Err(vec![format!("the ledger cannot be read: {e}")]),
    };
    let state = State::read(&records, &mut report);
    state.check_models(&mut report);
    state.check_versions(&mut report);
    gateway::check(&records, &mut report);
    state.check_blobs(objects, &mut report).await;
    check_audit(metadata, head, &records, &mut report).await;
    if report.0.is_empty() { Ok(()) } else { Err(report.0) }
}

#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    fn say(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    fn must(&mut self, holds: bool, line: impl FnOnce() -> String) {
        if !holds {
            self.say(line());
        }
    }
}

type Owner = (TenantName, ModelName);

/// The ledger, typed.
#[derive(Default)]
struct State {
    models: BTreeMap<Owner, ModelRecord>,
    versions: BTreeMap<(Owner, VersionNumber), VersionRecord>,
    deployments: BTreeMap<Owner, DeploymentRecord>,
    former: BTreeMap<Owner, FormerModelRecord>,
    collecting: BTreeSet<Digest>,
}

impl State {
    fn read(records: &[Record], report: &mut Report) -> Self {
        let mut state = Self::default();
        for record in records {
            if state.take(record).is_none() {
                report.say(format!("the record {} '{}' cannot be read", record.key.kind.as_str(), record.key.name));
            }
        }
        state
    }

    fn take(&mut self, record: &Record) -> Option<()> {
        let owner = |name: &str| Some((record.key.tenant.clone(), name.parse().ok()?));
        let name = record.key.name.as_str();
        match record.key.kind {
            Kind::Tenant => drop(decode::<TenantRecord>(record)?),
            Kind::Key => drop(decode::<KeyRecord>(record)?),
            Kind::Model => drop(self.models.insert(owner(name)?, decode(record)?)),
            Kind::Version => {
                let (model, number) = name.rsplit_once('/')?;
                self.versions.insert((owner(model)?, number.parse().ok()?), decode(record)?);
            }
            Kind::Deployment => drop(self.deployments.insert(owner(name)?, decode(record)?)),
            Kind::Collection => self.collecting.extend(decode::<CollectionRecord>(record)?.deleting),
            Kind::FormerModel if name.starts_with("filter/") => {
                decode::<FormerModelRecord>(record)?;
            }
            Kind::FormerModel => drop(self.former.insert(owner(name)?, decode(record)?)),
            Kind::Plan | Kind::Upstream | Kind::Route | Kind::Issuer | Kind::Filter | Kind::Addresses => gateway::read(record)?,
        }
        Some(())
    }

    fn is_active(&self, owner: &Owner, number: VersionNumber) -> bool {
        self.versions.get(&(owner.clone(), number)).is_some_and(|v| v.state == VersionState::Active)
    }

    fn check_models(&self, report: &mut Report) {
        for (owner, model) in &self.models {
            for (alias, target) in &model.aliases {
                report.must(self.is_active(owner, target.version), || {
                    format!("alias '{alias}' of '{}' points to version {}, which is not there or retired", owner.1, target.version)
                });
            }
            let (champion, previous) =
                (model.aliases.contains_key(&AliasName::champion()), model.aliases.contains_key(&AliasName::previous()));
            report.must(champion || !previous, || format!("'{}' has a previous champion and no champion", owner.1));
            let former = self.former.get(owner).map(|former| former.last_version);
            report.must(former <= model.last_version, || format!("'{}' uses numbers again that it had before it was deleted", owner.1));
        }
        for (owner, deployment) in &self.deployments {
            report.must(self.models.contains_key(owner), || format!("'{}' is deployed and does not exist", owner.1));
            for number in &deployment.versions {
                report.must(self.is_active(owner, *number), || {
                    format!("the deployment of '{}' keeps version {number}, which is not there or retired", owner.1)
                });
            }
        }
    }

    fn check_versions(&self, report: &mut Report) {
        for ((owner, number), version) in &self.versions {
            let name = format!("version {number} of '{}'", owner.1);
            match self.models.get(owner) {
                None => report.say(format!("{name} has no model")),
                Some(model) => report.must(Some(*number) <= model.last_version, || format!("{name} is past the model's newest number")),
            }
            report.must(!version.files.is_empty(), || format!("{name} has no files"));
            report.must(version.files.is_sorted_by(|a, b| a.path < b.path), || {
                format!("the files of {name} are not sorted, or one is there twice")
            });
            report.must(version.content == content_digest(&version.files), || format!("{name} has another content than its files"));
            if let Some(bundle) = &version.signature {
                report.must(crate::signing::inspect(bundle, &version.files).is_ok(), || {
                    format!("{name} carries a signature over something else")
                });
            }
        }
    }

    /// Every blob that a version names is there, has its size, and hashes to its name.
    async fn check_blobs(&self, objects: &dyn Objects, report: &mut Report) {
        let mut named = BTreeMap::new();
        for file in self.versions.values().flat_map(|v| &v.files) {
            let size = *named.entry(file.digest).or_insert(file.size);
            report.must(size == file.size, || format!("two versions name {} with different sizes", file.digest));
            report.must(!self.collecting.contains(&file.digest), || format!("{} is named and is being collected", file.digest));
        }
        for (digest, size) in named {
            match read(objects, &digest).await {
                Ok(found) => report.must(found == (digest, size), || format!("blob {digest} was altered")),
                Err(e) => report.say(format!("blob {digest} cannot be read: {e}")),
            }
        }
        let mut listed = BTreeSet::new();
        let mut list = objects.list();
        while let Some(info) = list.next().await {
            match info {
                Ok(info) => report.must(listed.insert(info.digest), || format!("blob {} is listed twice", info.digest)),
                Err(e) => report.say(format!("the blobs cannot be listed: {e}")),
            }
        }
    }
}

fn decode<T: DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_value(record.value.clone()).ok()
}

async fn read(objects: &dyn Objects, digest: &Digest) -> Result<(Digest, u64), String> {
    let mut reader = objects.open(digest).await.map_err(|e| e.to_string())?;
    let mut hasher = DigestHasher::new();
    while let Some(piece) = reader.stream.next().await {
        hasher.update(&piece.map_err(|e| e.to_string())?);
    }
    let length = hasher.length();
    Ok((hasher.finish(), length))
}

/// The audit has one entry for each revision, and playing it from the beginning gives the records as they stand.
async fn check_audit(metadata: &dyn Metadata, head: Revision, records: &[Record], report: &mut Report) {
    let mut entries = Vec::new();
    let mut query = AuditQuery { tenant: None, subject: None, before: None, limit: 100 };
    loop {
        let page = match metadata.audit(&query).await {
            Ok(page) => page,
            Err(e) => return report.say(format!("the audit cannot be read: {e}")),
        };
        let Some(last) = page.last() else { break };
        query.before = Some(last.revision);
        entries.extend(page);
    }
    entries.reverse();
    let revisions: Vec<_> = entries.iter().map(|e| e.revision.0).collect();
    report.must(revisions == (1..=head.0).collect::<Vec<_>>(), || format!("the audit of {head} revisions has entries {revisions:?}"));
    let played = play(&entries, report);
    let stand: BTreeMap<_, _> = records.iter().map(|r| (&r.key, (r.revision, &r.value))).collect();
    for (key, (revision, value)) in &played {
        let same = stand.get(key).is_some_and(|(at, now)| at == revision && *now == value);
        report.must(same, || format!("{} '{}' is not as the audit left it at {revision}", key.kind.as_str(), key.name));
    }
    for key in stand.keys().filter(|key| !played.contains_key(**key)) {
        report.say(format!("{} '{}' stands without the audit knowing", key.kind.as_str(), key.name));
    }
}

fn play(entries: &[AuditEntry], report: &mut Report) -> BTreeMap<RecordKey, (Revision, Value)> {
    let mut played: BTreeMap<RecordKey, (Revision, Value)> = BTreeMap::new();
    for entry in entries {
        for change in &entry.changes {
            let before = played.get(&change.key).map(|(_, value)| value);
            report.must(before == change.before.as_ref(), || {
                format!("commit {} says something else stood at {} '{}' before", entry.revision, change.key.kind.as_str(), change.key.name)
            });
            match &change.after {
                Some(value) => drop(played.insert(change.key.clone(), (entry.revision, value.clone()))),
                None => drop(played.remove(&change.key)),
            }
        }
    }
    played
}
