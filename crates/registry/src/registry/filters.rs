//! Filters: pushing versions, listing, deleting.
//!
//! Invariants: a version is one commit that happens only while its module is in the object store and stays there; it never changes;
//! numbers rise and are not used again, also when the filter is deleted; a version that a route names does not go, and a
//! filter that has a version has a newest one. Whether a module is a filter at all is for whoever runs it to say, before it is pushed.

use std::collections::BTreeMap;

use plinth_store::metadata::{Kind, ListQuery, RecordKey, Revision};
use plinth_store::resources::gateway::{FilterRecord, FilterSettings, FilterVersion, RouteRecord};
use plinth_store::resources::{FileEntry, FormerModelRecord};
use plinth_types::{ByteSize, Digest, Error, Label as Name, Reason, Result, TenantName, Timestamp, VersionNumber};

use super::after::{After, Overlay};
use super::references::{Named, named};
use super::resource::ResourceKind;
use super::{Actor, Draft, Page, PageQuery, Registry};
use crate::ledger::{Label, Stored, as_read, former_filter_key};
use crate::signing::filter::{FilterFacts, inspect};
use crate::words::{check_comment, check_description};

/// The most versions of a filter at a time.
const MAX_VERSIONS: usize = 32;
/// The most filters of a tenant.
const MAX_FILTERS: usize = 100;
/// The largest module, in bytes.
const MAX_MODULE: u64 = 4 << 20;
/// The longest time that a version may ask for; a node may allow less.
const MAX_MILLIS: u32 = 60_000;
/// The most values of a version, and the most bytes of all of them.
const MAX_VALUES: (usize, usize) = (64, 16 << 10);

/// Makes a version of a filter out of an uploaded module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFilter {
    /// The digest of the module; its bytes were uploaded before.
    pub module: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How it is run.
    pub settings: FilterSettings,
    /// A Sigstore bundle as JSON text over module and settings.
    pub signature: Option<String>,
    /// The number that it must get, because its signature names it; any when `None`.
    pub expect_number: Option<VersionNumber>,
    /// A word for people.
    pub description: String,
}

/// A filter as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub record: FilterRecord,
    /// The commit that last changed it.
    pub revision: Revision,
    /// The moment of that commit.
    pub updated_at: Timestamp,
}

/// A filter after a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedFilter {
    /// The filter.
    pub filter: Filter,
    /// The number of what was pushed.
    pub number: VersionNumber,
    /// Whether it is new; otherwise the newest version is just this already.
    pub created: bool,
}

impl Registry {
    /// Makes a version; makes the filter when it is the first. Idempotent: what the newest version already is, is not made again.
    ///
    /// # Errors
    /// `InvalidResource`, `MalformedRequest`, `BlobNotFound`, `SignatureInvalid`, `ContentAltered`, `EditConflict` when the number is
    /// taken or the module is just being deleted, `StoreUnavailable`.
    pub async fn push_filter(&self, actor: &Actor, name: &Name, new: &NewFilter) -> Result<PushedFilter> {
        check_comment(&actor.comment)?;
        check(new)?;
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.ledger.get::<FilterRecord>(&key(&actor.tenant, name)).await?;
            if let Some(found) = &found
                && let Some((number, newest)) = found.value.versions.last_key_value()
                && new.is(*number, newest)
            {
                return Ok(PushedFilter { number: *number, filter: view(name, found.clone()), created: false });
            }
            if let Some(pushed) = self.try_push(actor, name, found, new).await? {
                return Ok(pushed);
            }
        }
    }

    async fn try_push(
        &self,
        actor: &Actor,
        name: &Name,
        found: Option<Stored<FilterRecord>>,
        new: &NewFilter,
    ) -> Result<Option<PushedFilter>> {
        let (now, expect, mut draft) = (self.now(), as_read(found.as_ref()), Draft::default());
        let last = match &found {
            Some(found) => Some(found.value.last_version),
            None => self.former_filter(&actor.tenant, name, &mut draft).await?,
        };
        let number = number_after(name, last, new.expect_number)?;
        let mut version = FilterVersion {
            description: new.description.clone(),
            module: new.module,
            size: new.size,
            settings: new.settings.clone(),
            signature: None,
            created_by: actor.id.clone(),
            created_at: now,
        };
        if let Some(bundle) = &new.signature {
            inspect(FilterFacts { tenant: &actor.tenant, name, version: number }, bundle, &version.files())?;
            version.signature = Some(bundle.clone());
        }
        self.guard_blobs(&[module_file(&version)?], &mut draft).await?;
        let mut record = match found {
            Some(found) => found.value,
            None => {
                self.room_for_one_more(&actor.tenant, &mut draft).await?;
                FilterRecord { versions: BTreeMap::new(), last_version: number, created_by: actor.id.clone(), created_at: now }
            }
        };
        if record.versions.len() >= MAX_VERSIONS {
            let text = format!("the filter '{name}' has {MAX_VERSIONS} versions, the most there may be: delete old ones first");
            return Err(Error::new(Reason::InvalidResource, text));
        }
        record.versions.insert(number, version);
        record.last_version = number;
        draft.put(key(&actor.tenant, name), expect, &record)?;
        let label = Label::new(actor, "filter.push", format!("filter/{name}@{number}"));
        let revision = self.ledger.commit(actor, now, label, draft).await?;
        Ok(revision.map(|revision| {
            let filter = Filter { name: name.clone(), record, revision, updated_at: now };
            PushedFilter { filter, number, created: true }
        }))
    }

    /// The number that the next version gets, as it stands now.
    ///
    /// # Errors
    /// `StoreUnavailable`; `InvalidResource` when all numbers are used up.
    pub async fn next_filter_number(&self, tenant: &TenantName, name: &Name) -> Result<VersionNumber> {
        let last = match self.ledger.get::<FilterRecord>(&key(tenant, name)).await? {
            Some(found) => Some(found.value.last_version),
            None => self.former_filter(tenant, name, &mut Draft::default()).await?,
        };
        number_after(name, last, None)
    }

    /// The filters of a tenant by name.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn filters(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<Filter>> {
        let limit = page.bounded(200);
        let after = page.after.clone();
        let query = ListQuery { kind: Kind::Filter, tenant: Some(tenant.clone()), prefix: String::new(), after, limit: limit + 1 };
        let found = self.ledger.list::<FilterRecord>(&query).await?;
        let mut items =
            found.into_iter().map(|(key, stored)| Ok(view(&super::models::parse_name(&key.name)?, stored))).collect::<Result<Vec<_>>>()?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = if more { items.last().map(|item| item.name.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// One filter.
    ///
    /// # Errors
    /// `RecordNotFound`, `StoreUnavailable`.
    pub async fn filter(&self, tenant: &TenantName, name: &Name) -> Result<Filter> {
        let found = self.ledger.get::<FilterRecord>(&key(tenant, name)).await?;
        found.map(|found| view(name, found)).ok_or_else(|| not_found(name))
    }

    /// Deletes a version; the newest that is left answers routes that name none. The last one goes with the filter.
    ///
    /// # Errors
    /// `RecordNotFound`, `VersionNotFound`, `ResourceInUse` while a route names it, `EditConflict`.
    pub async fn delete_filter_version(&self, actor: &Actor, name: &Name, number: VersionNumber) -> Result<()> {
        check_comment(&actor.comment)?;
        let key = key(&actor.tenant, name);
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.ledger.get::<FilterRecord>(&key).await?.ok_or_else(|| not_found(name))?;
            let mut record = found.value.clone();
            if record.versions.remove(&number).is_none() {
                let text = format!("the filter '{name}' has no version {number}: `plinth filter show {name}` lists them");
                return Err(Error::new(Reason::VersionNotFound, text));
            }
            if record.versions.is_empty() {
                return self.delete_resource(actor, ResourceKind::Filter, name.as_str(), None).await;
            }
            let mut draft = Draft::default();
            let overlay = Overlay::new();
            After { registry: self, overlay: &overlay, draft: &mut draft }.versions_stay(&key, |version| version != number).await?;
            draft.put(key.clone(), as_read(Some(&found)), &record)?;
            let label = Label::new(actor, "filter.delete_version", format!("filter/{name}@{number}"));
            if self.ledger.commit(actor, self.now(), label, draft).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// The newest number of the filters that had this name before. The commit happens only if that still holds.
    pub(super) async fn former_filter(&self, tenant: &TenantName, name: &Name, draft: &mut Draft) -> Result<Option<VersionNumber>> {
        let key = former_filter_key(tenant, name.as_str());
        let former = self.ledger.get::<FormerModelRecord>(&key).await?;
        draft.guard(key, as_read(former.as_ref()));
        Ok(former.map(|former| former.value.last_version))
    }

    /// Notes, in the commit that takes a filter away, the newest number that it handed out.
    pub(super) async fn retain_filter_number(&self, key: &RecordKey, last: VersionNumber, draft: &mut Draft) -> Result<()> {
        let key = former_filter_key(&key.tenant, &key.name);
        let former = self.ledger.get::<FormerModelRecord>(&key).await?;
        if former.as_ref().is_some_and(|former| former.value.last_version >= last) {
            return Ok(());
        }
        draft.put(key, as_read(former.as_ref()), &FormerModelRecord { last_version: last })
    }

    async fn room_for_one_more(&self, tenant: &TenantName, draft: &mut Draft) -> Result<()> {
        draft.only_if_head(self.ledger.head().await?);
        let overlay = Overlay::new();
        let after = After { registry: self, overlay: &overlay, draft };
        if after.list::<serde::de::IgnoredAny>(Kind::Filter, Some(tenant)).await?.len() < MAX_FILTERS {
            return Ok(());
        }
        let text = format!("a tenant has at most {MAX_FILTERS} filters: delete one first");
        Err(Error::new(Reason::InvalidResource, text))
    }
}

impl After<'_> {
    /// Refuses to let go of versions of a filter that routes name. `stays` says which versions there will be.
    pub(super) async fn versions_stay(&mut self, key: &RecordKey, stays: impl Fn(VersionNumber) -> bool) -> Result<()> {
        self.draft.only_if_head(self.registry.ledger.head().await?);
        let shared = key.tenant == TenantName::default_tenant();
        for (user, route) in self.list::<RouteRecord>(Kind::Route, (!shared).then_some(&key.tenant)).await? {
            let gone = named(&route).into_iter().find_map(|(field, thing)| match thing {
                Named::Filter(filter) if filter.name.as_str() == key.name => filter.version.filter(|v| !stays(*v)).map(|v| (field, v)),
                _ => None,
            });
            let Some((field, version)) = gone else { continue };
            let own =
                user.tenant == key.tenant || !self.is_there(RecordKey::new(Kind::Filter, user.tenant.clone(), key.name.as_str())).await?;
            if own {
                let text = format!(
                    "version {version} of the filter '{}' is used by the route '{}' of the tenant '{}' ({field}): change that first",
                    key.name, user.name, user.tenant
                );
                return Err(Error::new(Reason::ResourceInUse, text));
            }
        }
        Ok(())
    }
}

impl NewFilter {
    /// Whether a version is just this.
    fn is(&self, number: VersionNumber, version: &FilterVersion) -> bool {
        let same = (self.module, &self.settings, &self.signature) == (version.module, &version.settings, &version.signature);
        same && self.expect_number.is_none_or(|expected| expected == number)
    }
}

fn key(tenant: &TenantName, name: &Name) -> RecordKey {
    ResourceKind::Filter.key(tenant, name.as_str())
}

fn view(name: &Name, stored: Stored<FilterRecord>) -> Filter {
    Filter { name: name.clone(), record: stored.value, revision: stored.revision, updated_at: stored.updated_at }
}

fn not_found(name: &Name) -> Error {
    Error::new(Reason::RecordNotFound, format!("there is no filter '{name}': list them with `plinth filter list`"))
}

fn number_after(name: &Name, last: Option<VersionNumber>, expected: Option<VersionNumber>) -> Result<VersionNumber> {
    let next = last.map_or(Ok(VersionNumber::FIRST), VersionNumber::next);
    let next = next.map_err(|e| Error::new(Reason::InvalidResource, format!("'{name}' has used up its numbers: {e}")))?;
    match expected.filter(|expected| *expected != next) {
        None => Ok(next),
        Some(expected) => {
            let text = format!("the next version of the filter '{name}' is {next}, not {expected}: sign for {next} and push again");
            Err(Error::new(Reason::EditConflict, text).field("expect_number"))
        }
    }
}

/// The module among the files of a version.
pub(super) fn module_file(version: &FilterVersion) -> Result<FileEntry> {
    let found = version.files().into_iter().find(|file| file.digest == version.module);
    found.ok_or_else(|| Error::internal("a version of a filter without its module"))
}

/// What can be said of a push without looking at the ledger.
fn check(new: &NewFilter) -> Result<()> {
    check_description(&new.description)?;
    let refuse = |field: &str, text: String| Err(Error::new(Reason::InvalidResource, text).field(field));
    if new.size == 0 || new.size > MAX_MODULE {
        return refuse("size", format!("a module has 1 to {MAX_MODULE} bytes, this one has {}", new.size));
    }
    let settings = &new.settings;
    if let Some(ms) = settings.timeout_ms.filter(|ms| !(1..=MAX_MILLIS).contains(ms)) {
        return refuse("settings.timeout_ms", format!("{ms} ms is not between 1 and {MAX_MILLIS}"));
    }
    let most = ByteSize(1 << 32);
    for (field, size) in [("settings.memory", settings.memory), ("settings.max_body", settings.max_body)] {
        if let Some(size) = size.filter(|size| size.0 == 0 || *size > most) {
            return refuse(field, format!("{size} is not between 1 byte and {most}"));
        }
    }
    let bytes: usize = settings.values.iter().map(|(name, value)| name.len() + value.len()).sum();
    if settings.values.len() > MAX_VALUES.0 || bytes > MAX_VALUES.1 {
        return refuse("settings.values", format!("a filter has at most {} values with {} bytes together", MAX_VALUES.0, MAX_VALUES.1));
    }
    let control = |text: &String| text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c));
    if settings.values.iter().any(|(name, value)| name.is_empty() || control(name) || control(value)) {
        return refuse("settings.values", "a value has a name, and neither holds a control character but line breaks and tabs".to_owned());
    }
    Ok(())
}

/// A filter that is restored by an undo: its newest number does not fall, and routes keep their versions.
impl After<'_> {
    pub(super) async fn check_filter(&mut self, key: &RecordKey, record: &FilterRecord) -> Result<()> {
        self.versions_stay(key, |version| record.versions.contains_key(&version)).await?;
        let files = record.versions.values().map(module_file).collect::<Result<Vec<_>>>()?;
        self.registry.guard_blobs(&files, self.draft).await
    }
}
