//! Both stores in memory, for tests that make many commits.
//!
//! They keep the ports' invariants but durability. Faults can be asked for: lost races and full disks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use plinth_runtime::Clock;
use plinth_store::metadata::{
    AuditChange, AuditEntry, AuditQuery, Commit, Expect, ListQuery, Metadata, MetadataError, Record, RecordKey, Revision,
};
use plinth_store::objects::{ByteStream, ObjectInfo, ObjectReader, Objects, ObjectsError, PutOutcome};
use plinth_types::{Digest, DigestHasher};

/// What the next commits do instead of committing.
type Faults = VecDeque<Option<MetadataError>>;

/// A ledger in memory.
#[derive(Default)]
pub struct MemoryMetadata {
    state: Mutex<LedgerState>,
}

#[derive(Default)]
struct LedgerState {
    records: BTreeMap<RecordKey, Record>,
    audit: Vec<AuditEntry>,
    faults: Faults,
}

impl MemoryMetadata {
    /// Lets the next commit fail so; `None` lets it through.
    pub fn plan(&self, fault: Option<MetadataError>) {
        self.lock().faults.push_back(fault);
    }

    fn lock(&self) -> MutexGuard<'_, LedgerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LedgerState {
    fn head(&self) -> Revision {
        Revision(self.audit.len() as u64)
    }

    fn must(&self, key: &RecordKey, expect: Expect) -> Result<(), MetadataError> {
        let holds = match (expect, self.records.get(key)) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::At(revision), Some(record)) => record.revision == revision,
            _ => false,
        };
        if holds { Ok(()) } else { Err(MetadataError::Conflict(key.clone())) }
    }

    fn commit(&mut self, commit: Commit) -> Result<Revision, MetadataError> {
        if let Some(Some(fault)) = self.faults.pop_front() {
            return Err(fault);
        }
        if commit.if_head.is_some_and(|head| head != self.head()) {
            return Err(MetadataError::HeadMoved(self.head()));
        }
        commit.guards.iter().try_for_each(|(key, expect)| self.must(key, *expect))?;
        commit.changes.iter().try_for_each(|change| self.must(&change.key, change.expect))?;
        let revision = Revision(self.head().0 + 1);
        let mut changes = Vec::new();
        for change in commit.changes {
            let before = self.records.remove(&change.key).map(|record| record.value);
            if let Some(value) = &change.value {
                let record = Record { key: change.key.clone(), revision, updated_at: commit.note.at, value: value.clone() };
                self.records.insert(change.key.clone(), record);
            }
            if before.is_some() || change.value.is_some() {
                changes.push(AuditChange { key: change.key, before, after: change.value });
            }
        }
        self.audit.push(AuditEntry { revision, note: commit.note, changes });
        Ok(revision)
    }
}

#[async_trait]
impl Metadata for MemoryMetadata {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, MetadataError> {
        let found = self.lock().records.get(key).cloned();
        tokio::task::yield_now().await;
        Ok(found)
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, MetadataError> {
        let state = self.lock();
        let wanted = state.records.values().filter(|r| {
            r.key.kind == query.kind
                && query.tenant.as_ref().is_none_or(|t| *t == r.key.tenant)
                && r.key.name.starts_with(&query.prefix)
                && query.after.as_ref().is_none_or(|after| r.key.name > *after)
        });
        Ok(wanted.take(query.limit as usize).cloned().collect())
    }

    async fn head(&self) -> Result<Revision, MetadataError> {
        Ok(self.lock().head())
    }

    async fn read_all(&self) -> Result<(Revision, Vec<Record>), MetadataError> {
        let all = {
            let state = self.lock();
            (state.head(), state.records.values().cloned().collect())
        };
        tokio::task::yield_now().await;
        Ok(all)
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, MetadataError> {
        tokio::task::yield_now().await;
        self.lock().commit(commit)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, MetadataError> {
        let state = self.lock();
        let wanted = state.audit.iter().rev().filter(|e| {
            let below = |subject: &String| e.note.subject == *subject || e.note.subject.starts_with(&format!("{subject}/"));
            query.tenant.as_ref().is_none_or(|t| *t == e.note.tenant)
                && query.before.is_none_or(|before| e.revision < before)
                && query.subject.as_ref().is_none_or(below)
        });
        Ok(wanted.take(query.limit as usize).cloned().collect())
    }

    async fn audit_entry(&self, revision: Revision) -> Result<Option<AuditEntry>, MetadataError> {
        Ok(self.lock().audit.iter().find(|e| e.revision == revision).cloned())
    }

    async fn describe(&self) -> Result<String, MetadataError> {
        Ok("memory".into())
    }

    async fn close(&self) {}
}

/// An object store in memory.
pub struct MemoryObjects {
    clock: Arc<dyn Clock>,
    stored: Mutex<BTreeMap<Digest, (ObjectInfo, Bytes)>>,
}

impl MemoryObjects {
    /// An empty store; the clock says when objects are stored.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, stored: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, (ObjectInfo, Bytes)>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores bytes under their digest.
    pub fn insert(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let info = ObjectInfo { digest, size: bytes.len() as u64, stored_at: self.clock.now() };
        self.lock().entry(digest).or_insert((info, bytes));
        digest
    }

    /// Breaks an object: its bytes are now these.
    pub fn corrupt(&self, digest: &Digest, bytes: impl Into<Bytes>) {
        if let Some((_, stored)) = self.lock().get_mut(digest) {
            *stored = bytes.into();
        }
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn put(&self, digest: &Digest, length: u64, mut body: ByteStream<'_>) -> Result<PutOutcome, ObjectsError> {
        if self.lock().contains_key(digest) {
            return Ok(PutOutcome::AlreadyThere);
        }
        let (mut bytes, mut hasher) = (Vec::new(), DigestHasher::new());
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(ObjectsError::Body)?;
            hasher.update(&piece);
            bytes.extend_from_slice(&piece);
        }
        if hasher.length() != length {
            return Err(ObjectsError::LengthMismatch { expected: length, received: hasher.length() });
        }
        let actual = hasher.finish();
        if actual != *digest {
            return Err(ObjectsError::DigestMismatch { expected: *digest, actual });
        }
        self.insert(bytes);
        Ok(PutOutcome::Stored)
    }

    async fn info(&self, digest: &Digest) -> Result<Option<ObjectInfo>, ObjectsError> {
        let found = self.lock().get(digest).map(|(info, _)| *info);
        tokio::task::yield_now().await;
        Ok(found)
    }

    async fn open(&self, digest: &Digest) -> Result<ObjectReader, ObjectsError> {
        let (info, bytes) = self.lock().get(digest).cloned().ok_or(ObjectsError::NotFound(*digest))?;
        Ok(ObjectReader { size: info.size, stream: stream::iter([Ok(bytes)]).boxed() })
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, ObjectsError> {
        tokio::task::yield_now().await;
        Ok(self.lock().remove(digest).is_some())
    }

    fn list(&self) -> BoxStream<'_, Result<ObjectInfo, ObjectsError>> {
        let all: Vec<_> = self.lock().values().map(|(info, _)| Ok(*info)).collect();
        stream::iter(all).boxed()
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
