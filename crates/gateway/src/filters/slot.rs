//! The place of one filter: which versions are wanted, and what became of them.
//!
//! Invariants: what runs for those who name no version is replaced by the newest once that is loaded, and by nothing else; a version
//! that is no longer wanted stays for one more change. Requests read it without a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_api::FilterState;
use plinth_store::resources::gateway::{FilterRecord, FilterVersion};
use plinth_types::{Label, TenantName, VersionNumber};
use tokio::sync::watch;

use super::loaded::Loaded;

/// The place of one filter.
pub(crate) struct Slot {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name.
    pub name: Label,
    standing: ArcSwap<Standing>,
    changing: Mutex<()>,
    changed: watch::Sender<()>,
}

/// How things stand. Never changed, only replaced.
#[derive(Default, Clone)]
struct Standing {
    newest: Option<VersionNumber>,
    /// What runs for those who name no version.
    current: Option<Arc<Loaded>>,
    versions: BTreeMap<VersionNumber, Entry>,
}

#[derive(Clone)]
struct Entry {
    /// What it was loaded from: another one of the same number is another version.
    version: Arc<FilterVersion>,
    what: What,
    /// Not wanted any more when things changed last.
    leaving: bool,
}

#[derive(Clone)]
enum What {
    Loading,
    Ready(Arc<Loaded>),
    Failed { why: Arc<str>, later: bool },
}

/// What a request finds.
pub(crate) enum Found {
    /// This.
    Ready(Arc<Loaded>),
    /// It may come.
    Coming,
    /// It will not come.
    Failed(Arc<str>),
}

impl Slot {
    pub fn new(tenant: TenantName, name: Label) -> Self {
        Self { tenant, name, standing: ArcSwap::default(), changing: Mutex::default(), changed: watch::Sender::new(()) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Standing::clone(&self.standing.load());
        let result = change(&mut next);
        let newest = next.newest.and_then(|newest| next.versions.get(&newest));
        if let Some(Entry { what: What::Ready(loaded), .. }) = newest {
            next.current = Some(loaded.clone());
        }
        self.standing.store(Arc::new(next));
        self.changed.send_replace(());
        result
    }

    /// Takes a record; which versions have to be loaded now. Wanted are the newest and those that `pinned` names.
    pub fn want(&self, record: &FilterRecord, pinned: impl Fn(VersionNumber) -> bool) -> Vec<VersionNumber> {
        let newest = record.versions.last_key_value().map(|(number, _)| *number);
        let wanted = |number: VersionNumber| Some(number) == newest || pinned(number);
        self.change(|standing| {
            standing.newest = newest;
            standing.versions.retain(|number, entry| {
                let stays = wanted(*number) && record.versions.get(number).is_some_and(|version| *version == *entry.version);
                let kept = stays || !entry.leaving;
                entry.leaving = !stays;
                kept
            });
            let mut begin = Vec::new();
            for (number, version) in record.versions.iter().filter(|(number, _)| wanted(**number)) {
                let there = standing.versions.get(number).is_some_and(|entry| *entry.version == *version);
                if !there {
                    let entry = Entry { version: Arc::new(version.clone()), what: What::Loading, leaving: false };
                    standing.versions.insert(*number, entry);
                    begin.push(*number);
                }
            }
            begin
        })
    }

    /// Whether a version is still to be loaded.
    pub fn wants(&self, number: VersionNumber, version: &FilterVersion) -> bool {
        let standing = self.standing.load();
        standing.versions.get(&number).is_some_and(|entry| !entry.leaving && *entry.version == *version)
    }

    /// Puts a version into force; whether it was still wanted.
    pub fn loaded(&self, number: VersionNumber, version: &FilterVersion, loaded: Arc<Loaded>) -> bool {
        self.put(number, version, What::Ready(loaded))
    }

    /// Notes that a version cannot be loaded: for now, or for good.
    pub fn failed(&self, number: VersionNumber, version: &FilterVersion, why: String, later: bool) {
        self.put(number, version, What::Failed { why: why.into(), later });
    }

    fn put(&self, number: VersionNumber, version: &FilterVersion, what: What) -> bool {
        self.change(|standing| match standing.versions.get_mut(&number) {
            Some(entry) if *entry.version == *version => {
                entry.what = what;
                true
            }
            _ => false,
        })
    }

    /// What a request gets.
    pub fn find(&self, version: Option<VersionNumber>) -> Found {
        let standing = self.standing.load();
        if let (None, Some(current)) = (version, &standing.current) {
            return Found::Ready(current.clone());
        }
        let entry = version.or(standing.newest).and_then(|number| standing.versions.get(&number));
        match entry.map(|entry| &entry.what) {
            Some(What::Ready(loaded)) => Found::Ready(loaded.clone()),
            Some(What::Loading) => Found::Coming,
            Some(What::Failed { why, .. }) => Found::Failed(why.clone()),
            None => Found::Failed("there is no such version".into()),
        }
    }

    /// Tells of changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many versions are loaded.
    pub fn ready(&self) -> usize {
        self.standing.load().versions.values().filter(|entry| matches!(entry.what, What::Ready(_))).count()
    }

    /// What is said of a version.
    pub fn state(&self, number: VersionNumber, now: Duration) -> FilterState {
        let standing = self.standing.load();
        let (word, reason) = match standing.versions.get(&number).map(|entry| &entry.what) {
            None => ("idle", None),
            Some(What::Loading) => ("loading", None),
            Some(What::Failed { why, later }) => (if *later { "loading" } else { "failed" }, Some(why.to_string())),
            Some(What::Ready(loaded)) if loaded.is_held(now) => ("held", Some("it ran out of time or memory too often".to_owned())),
            Some(What::Ready(_)) => ("ready", None),
        };
        FilterState { word, reason }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("tenant", &self.tenant).field("name", &self.name).finish_non_exhaustive()
    }
}
