//! The same service over the stores of a laptop: SQLite and files, closed and opened again.

use std::path::Path;

use futures_util::future::join_all;
use plinth_store::metadata::{MetadataOptions, MetadataUrl};
use plinth_store::objects::{ObjectsOptions, ObjectsUrl};

use super::*;

struct Stores {
    metadata: Arc<dyn Metadata>,
    objects: Arc<dyn Objects>,
    registry: Registry,
}

impl Stores {
    async fn open(directory: &Path) -> Self {
        let world = World::real();
        let url = MetadataUrl::Sqlite(directory.join("metadata.sqlite"));
        let metadata = plinth_store::metadata::open(&MetadataOptions::new(url), &world).await.unwrap();
        let url = ObjectsUrl::File(directory.join("objects"));
        let objects = plinth_store::objects::open(&ObjectsOptions::new(url), &world).await.unwrap();
        Self { registry: Registry::new(metadata.clone(), objects.clone(), world), metadata, objects }
    }

    async fn push(&self, actor: &Actor, bytes: &str, aliases: &[AliasName]) -> Result<Pushed> {
        let digest = Digest::of(bytes.as_bytes());
        let body = stream::iter([Ok(bytes.to_owned().into())]).boxed();
        self.registry.put_blob(&digest, bytes.len() as u64, body).await?;
        let file = FileEntry { path: "model.onnx".parse().unwrap(), size: bytes.len() as u64, digest };
        let new = NewVersion { files: vec![file], aliases: aliases.to_vec(), ..NewVersion::default() };
        self.registry.create_version(actor, &"digits".parse().unwrap(), new).await
    }

    async fn sound(&self) {
        assert_eq!(check(&*self.metadata, &*self.objects).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_and_files_keep_what_was_done() {
    let directory = tempfile::tempdir().unwrap();
    let (actor, model) = (Actor::new(TenantName::default_tenant(), "key-1"), "digits".parse().unwrap());
    let champion = [AliasName::champion()];

    let stores = Stores::open(directory.path()).await;
    let names: Vec<_> = (0..5).map(|i| format!("content {i}")).collect();
    let pushed = join_all(names.iter().map(|bytes| stores.push(&actor, bytes, &champion))).await;
    let mut numbers: Vec<_> = pushed.into_iter().map(|p| p.unwrap().version.number.get()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    stores.registry.roll_back(&actor, &model, &RollBack::default()).await.unwrap();
    stores.registry.delete_version(&actor, &model, n(1)).await.unwrap();
    let last = stores.metadata.head().await.unwrap();
    stores.registry.undo(&actor, last).await.unwrap();
    stores.sound().await;
    stores.metadata.close().await;
    drop(stores);

    let stores = Stores::open(directory.path()).await;
    stores.sound().await;
    let aliases = stores.registry.model(&actor.tenant, &model).await.unwrap().record.aliases;
    assert_eq!((aliases[&AliasName::champion()].version, aliases[&AliasName::previous()].version), (n(4), n(5)));
    stores.registry.delete_version(&actor, &model, n(1)).await.unwrap();
    let request = CollectGarbage { dry_run: false, older_than: Duration::ZERO };
    let garbage = stores.registry.collect_garbage(&Actor::system(), request).await.unwrap();
    assert_eq!((garbage.digests.len(), garbage.kept), (1, 4));
    assert_eq!(stores.push(&actor, "content 9", &[]).await.unwrap().version.number, n(6));
    stores.sound().await;
    stores.metadata.close().await;
}
