//! Over a real ledger: changes are followed, everything is read once, and a restart goes on from the file.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use plinth_runtime::CrashPoints;
use plinth_store::metadata::{AuditNote, Change, Commit, Expect, Kind, ListQuery, MetadataOptions, MetadataUrl, Record, RecordKey};
use plinth_telemetry::BuildInfo;
use plinth_types::TenantName;
use serde_json::{Value, json};

use super::*;

/// Counts how often everything was read.
struct Counting {
    inner: Arc<dyn Metadata>,
    whole: AtomicU32,
}

#[async_trait]
impl Metadata for Counting {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, MetadataError> {
        self.inner.get(key).await
    }
    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, MetadataError> {
        self.inner.list(query).await
    }
    async fn head(&self) -> Result<Revision, MetadataError> {
        self.inner.head().await
    }
    async fn read_all(&self) -> Result<(Revision, Vec<Record>), MetadataError> {
        self.inner.read_all().await
    }
    async fn read_pages(&self, page: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Revision, MetadataError> {
        self.whole.fetch_add(1, Ordering::SeqCst);
        self.inner.read_pages(page).await
    }
    async fn commit(&self, commit: Commit) -> Result<Revision, MetadataError> {
        self.inner.commit(commit).await
    }
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, MetadataError> {
        self.inner.audit(query).await
    }
    async fn audit_entry(&self, revision: Revision) -> Result<Option<AuditEntry>, MetadataError> {
        self.inner.audit_entry(revision).await
    }
    async fn describe(&self) -> Result<String, MetadataError> {
        self.inner.describe().await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

struct Setup {
    directory: tempfile::TempDir,
    ledger: Arc<Counting>,
    world: World,
}

impl Setup {
    async fn new() -> Self {
        let (directory, world) = (tempfile::tempdir().unwrap(), World::real());
        let url = MetadataUrl::Sqlite(directory.path().join("metadata.sqlite"));
        let inner = plinth_store::metadata::open(&MetadataOptions::new(url), &world).await.unwrap();
        Self { directory, ledger: Arc::new(Counting { inner, whole: AtomicU32::new(0) }), world }
    }

    async fn start(&self, tasks: &TaskGroup) -> Arc<Keeper> {
        let parts = KeeperParts {
            metadata: self.ledger.clone(),
            file: SnapshotFile::new(self.directory.path().into(), CrashPoints::none()).small(10),
            options: KeeperOptions { poll: Duration::from_millis(20), interval: Duration::from_millis(60) },
            metrics: Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "unknown" })),
        };
        Keeper::start(parts, &self.world, tasks).await.unwrap()
    }

    async fn put(&self, name: &str, value: Option<Value>) -> u64 {
        self.put_all([(name.to_owned(), value)]).await
    }

    async fn put_all(&self, values: impl IntoIterator<Item = (String, Option<Value>)>) -> u64 {
        let home = TenantName::default_tenant();
        let note = AuditNote {
            at: Timestamp::from_millis(1).unwrap(),
            tenant: home.clone(),
            actor: "a".into(),
            action: "x".into(),
            subject: "s".into(),
            comment: String::new(),
        };
        let change = |(name, value)| Change { key: RecordKey::new(Kind::Plan, home.clone(), name), expect: Expect::Any, value };
        let changes = values.into_iter().map(change).collect();
        self.ledger.commit(Commit { changes, guards: Vec::new(), if_head: None, note }).await.unwrap().0
    }

    fn whole(&self) -> u32 {
        self.ledger.whole.load(Ordering::SeqCst)
    }

    async fn is_all(&self, keeper: &Keeper) {
        let (revision, records) = self.ledger.read_all().await.unwrap();
        let shown = keeper.view();
        assert!(shown.fresh && shown.snapshot.mark.is_some());
        assert_eq!(*shown.snapshot, Snapshot { mark: shown.snapshot.mark, ..Snapshot::from_records(revision, records).unwrap() });
    }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn changes_are_followed_and_a_restart_goes_on() {
    let s = Setup::new().await;
    s.put_all((0..200).map(|n| (format!("p{n}"), Some(json!({ "description": "x".repeat(100) }))))).await;
    let tasks = TaskGroup::new("first");
    let keeper = s.start(&tasks).await;
    s.is_all(&keeper).await;
    assert_eq!(s.whole(), 1);
    for n in 0..70 {
        let revision = s.put(&format!("p{}", n * 3), (n % 2 == 0).then(|| json!({ "weight": n + 1 }))).await;
        if n % 10 == 0 {
            assert!(keeper.wait_for(revision, SOON).await);
            s.is_all(&keeper).await;
        }
    }
    let last = s.put("end", Some(json!({}))).await;
    assert!(keeper.wait_for(last, SOON).await);
    s.is_all(&keeper).await;
    assert_eq!(s.whole(), 1, "everything was read once");
    assert!(tasks.close(SOON).await.is_empty());

    let meanwhile = s.put("meanwhile", Some(json!({ "weight": 9 }))).await;
    let tasks = TaskGroup::new("second");
    let keeper = s.start(&tasks).await;
    assert_eq!(keeper.view().snapshot.revision.0, meanwhile);
    s.is_all(&keeper).await;
    assert_eq!(s.whole(), 1, "the file and one commit were enough");
    assert!(tasks.close(SOON).await.is_empty());
}

#[tokio::test]
async fn after_a_long_absence_everything_is_read() {
    let s = Setup::new().await;
    s.put("p", Some(json!({}))).await;
    let tasks = TaskGroup::new("first");
    drop(s.start(&tasks).await);
    assert!(tasks.close(SOON).await.is_empty());
    for n in 0..=MOST_FOLLOWED {
        s.put("p", Some(json!({ "weight": n + 1 }))).await;
    }
    let tasks = TaskGroup::new("second");
    let keeper = s.start(&tasks).await;
    assert_eq!(s.whole(), 2);
    s.is_all(&keeper).await;
    assert!(tasks.close(SOON).await.is_empty());
}
