//! Versions on the local disk: judged, fetched by digest, kept while they are needed.
//!
//! Implements serving's `VersionSource` and the API's `Verifier` over the registry. Layout: one
//! directory for each content digest under `cache/`. Invariants: a directory appears under its name only
//! when all its files were written, hashed and synced; the signature is judged before any byte is
//! fetched; a cached file that no longer has its digest is thrown away and fetched anew, never used. Large files are
//! hashed and written in the background, where no request feels it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use plinth_api::Verifier;
use plinth_engine::FileSpec;
use plinth_registry::{Floor, FloorBook, Known, Registry, TrustPolicy, Verdict, Version, VersionFacts};
use plinth_runtime::World;
use plinth_serving::{LocalVersion, Purpose, VersionRef, VersionSource};
use plinth_store::resources::FileEntry;
use plinth_types::{AliasName, Digest, DigestHasher, Error, Reason, Result, TenantName};

use crate::background::{Background, Pace};

/// How long a remote store may be silent while a file is read.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Files of at least so many bytes are worked on in the background; smaller ones are done before it would matter.
const LARGE: u64 = 8 << 20;
/// So many bytes are written before they are brought to the disk: a whole large file at once would hold up every other write.
const WRITE_OUT: u64 = 32 << 20;

/// The node's view of versions as files.
pub struct Artifacts {
    registry: Arc<Registry>,
    policy: TrustPolicy,
    floors: Arc<FloorBook>,
    directory: PathBuf,
    background: Background,
    world: World,
}

impl Artifacts {
    /// Versions cached under `directory`; sweeps what an interrupted fetch left behind. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be made, or a thread cannot be started.
    pub fn open(
        registry: Arc<Registry>,
        policy: TrustPolicy,
        floors: Arc<FloorBook>,
        directory: PathBuf,
        world: World,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        for entry in std::fs::read_dir(&directory)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let background = Background::start(world.clone())?;
        Ok(Self { registry, policy, floors, directory, background, world })
    }

    /// Throws away what no alias and no deployment names. Blocking. Never touches what is in `keep`.
    pub fn prune(&self, keep: &BTreeSet<Digest>) {
        let names: BTreeSet<String> = keep.iter().map(Digest::hex).collect();
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<Digest>().is_ok() && !names.contains(&name) {
                match std::fs::remove_dir_all(entry.path()) {
                    Ok(()) => tracing::debug!(content = name, "cached version removed"),
                    Err(error) => tracing::warn!(content = name, %error, "cached version cannot be removed"),
                }
            }
        }
    }

    /// The judgement of a version for its purpose; the floor in it is the one to record once it answers.
    fn judge(&self, version: &VersionRef) -> Result<Verdict> {
        let (tenant, model) = (&version.tenant, &version.model);
        let known = Known { version: version.number, content: version.record.content };
        let floor = self.floors.floor(tenant, model);
        let may_be_older = match version.purpose {
            Purpose::Answer => false,
            Purpose::FallBack => floor.may_fall_back_to(known),
            Purpose::Beside => true,
        };
        let facts = VersionFacts {
            tenant,
            model,
            number: version.number,
            record: &version.record,
            alias: &version.alias,
            alias_permission: version.permission.as_deref(),
        };
        let verdict = self.policy.judge(&facts, if may_be_older { Floor::default() } else { floor })?;
        if let Some(doubt) = &verdict.doubt {
            tracing::warn!(%tenant, %model, version = version.number.get(), reason = %doubt.reason, doubt = doubt.text, "a signature does not hold, but this node does not ask for one");
        }
        Ok(Verdict { floor: verdict.floor.answered_by(known), ..verdict })
    }

    async fn download(&self, files: &[FileEntry], to: &Path) -> Result<()> {
        let temporary = self.directory.join(format!("new-{:016x}", self.world.random.next_u64()));
        let result = self.download_into(files, &temporary).await;
        let to = to.to_owned();
        blocking(move || {
            let done = result.and_then(|()| {
                let moved = std::fs::rename(&temporary, &to).and_then(|()| sync_directory(to.parent().unwrap_or(&to)));
                moved.map_err(|e| io_error("placing a version in the cache", e))
            });
            if done.is_err() {
                let _ = std::fs::remove_dir_all(&temporary);
            }
            done
        })
        .await
    }

    async fn download_into(&self, files: &[FileEntry], directory: &Path) -> Result<()> {
        let directory = directory.to_owned();
        let root = directory.clone();
        blocking(move || std::fs::create_dir(&root).map_err(|e| io_error("making a cache directory", e))).await?;
        for file in files {
            self.download_file(file, file.path.under(&directory)).await?;
        }
        blocking(move || sync_directory(&directory).map_err(|e| io_error("syncing the cache", e))).await
    }

    async fn download_file(&self, file: &FileEntry, path: PathBuf) -> Result<()> {
        let mut reader = self.registry.open_blob(&file.digest).await?;
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(8);
        let (digest, size, name) = (file.digest, file.size, file.path.clone());
        let mut write = move |pace: &mut Option<&mut Pace>| {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| io_error("making a cache directory", e))?;
            }
            let mut out = std::fs::File::create_new(&path).map_err(|e| io_error("making a cached file", e))?;
            let (mut hasher, mut written_out) = (DigestHasher::new(), 0);
            while let Some(piece) = receiver.blocking_recv() {
                hasher.update(&piece);
                if hasher.length() > size {
                    break;
                }
                out.write_all(&piece).map_err(|e| io_error("writing a cached file", e))?;
                if let Some(pace) = pace {
                    pace.step(piece.len())?;
                }
                if hasher.length() - written_out >= WRITE_OUT {
                    written_out = hasher.length();
                    out.sync_data().map_err(|e| io_error("syncing a cached file", e))?;
                }
            }
            let mut permissions = out.metadata().map_err(|e| io_error("reading a cached file", e))?.permissions();
            permissions.set_readonly(true);
            out.set_permissions(permissions).and_then(|()| out.sync_all()).map_err(|e| io_error("syncing a cached file", e))?;
            let length = hasher.length();
            Ok::<_, Error>((hasher.finish(), length))
        };
        let writer = async {
            if size >= LARGE {
                self.background.run(move |pace| write(&mut Some(pace))).await
            } else {
                blocking(move || write(&mut None)).await
            }
        };
        let reading = async move {
            while let Some(piece) =
                tokio::time::timeout(READ_DEADLINE, reader.stream.next()).await.map_err(|_| store_away("the object store is silent"))?
            {
                let piece = piece.map_err(|e| store_away("the object store failed").source(e))?;
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Ok::<_, Error>(())
        };
        let (found, read) = tokio::join!(writer, reading);
        read?;
        let found = found?;
        if found != (digest, size) {
            // The bytes may have been altered on the way; only what lies there altered is removed.
            if let Err(error) = self.registry.drop_if_damaged(&digest).await {
                tracing::warn!(%digest, %error, "a damaged file cannot be looked at again");
            }
            let text = format!("the stored file '{name}' was altered; restore it from a backup, or push the version again");
            return Err(Error::new(Reason::ContentAltered, text));
        }
        Ok(())
    }
}

#[async_trait]
impl VersionSource for Artifacts {
    async fn fetch(&self, version: &VersionRef) -> Result<LocalVersion> {
        self.judge(version)?;
        let record = &version.record;
        let directory = self.directory.join(record.content.hex());
        let (files, at) = (record.files.clone(), directory.clone());
        let large = files.iter().any(|file| file.size >= LARGE);
        let intact = if large {
            self.background.run(move |pace| is_intact(&at, &files, &mut Some(pace))).await?
        } else {
            blocking(move || is_intact(&at, &files, &mut None)).await?
        };
        if !intact {
            let stale = directory.clone();
            blocking(move || match std::fs::remove_dir_all(&stale) {
                Ok(()) => {
                    tracing::warn!("a cached version was damaged and is fetched anew");
                    Ok(())
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(io_error("removing a damaged cached version", e)),
            })
            .await?;
            self.download(&record.files, &directory).await?;
        }
        let files = record.files.iter().map(|f| FileSpec { path: f.path.clone(), size: f.size, digest: f.digest }).collect();
        Ok(LocalVersion { directory, files })
    }

    async fn served(&self, version: &VersionRef) {
        // What the node falls back to, or what only those get who ask for it, says nothing of how far the model has come.
        if version.purpose != Purpose::Answer {
            return;
        }
        let Ok(verdict) = self.judge(version) else { return };
        let (floors, tenant, model) = (self.floors.clone(), version.tenant.clone(), version.model.clone());
        let recorded = blocking(move || floors.record(&tenant, &model, verdict.floor)).await;
        if let Err(error) = recorded {
            tracing::error!(model = %version.model, %error, cause = error.log_text(), "the version that is served could not be recorded");
        }
    }
}

#[async_trait]
impl Verifier for Artifacts {
    async fn verify(&self, tenant: &TenantName, version: &Version) -> Result<Option<String>> {
        let alias = AliasName::champion();
        let facts = VersionFacts {
            tenant,
            model: &version.model,
            number: version.number,
            record: &version.record,
            alias: &alias,
            alias_permission: None,
        };
        // Whether it may be loaded now depends on the alias; whether it is what was signed does not.
        let verdict = self.policy.judge(&facts, Floor::default())?;
        self.registry.rehash_version(tenant, &version.model, version.number).await?;
        Ok(verdict.signer)
    }
}

/// Whether every file is there with its digest. The only error is that nobody waits for the answer.
fn is_intact(directory: &Path, files: &[FileEntry], pace: &mut Option<&mut Pace>) -> Result<bool> {
    for file in files {
        let Ok(mut opened) = std::fs::File::open(file.path.under(directory)) else { return Ok(false) };
        // Larger read-ahead; only advice.
        let _ = rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::Sequential);
        let (mut hasher, mut buffer) = (DigestHasher::new(), vec![0; 256 << 10]);
        loop {
            match opened.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            }
            if let Some(pace) = pace {
                pace.step(buffer.len())?;
            }
        }
        let length = hasher.length();
        if (hasher.finish(), length) != (file.digest, file.size) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

fn store_away(why: &'static str) -> Error {
    Error::new(Reason::StoreUnavailable, "the files of the version cannot be fetched now; it is tried again").diagnostic(why)
}

fn io_error(operation: &'static str, error: std::io::Error) -> Error {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let (reason, text) = if full {
        (Reason::StorageFull, "the node's disk is full; free some space, or move node.data_dir")
    } else {
        (Reason::StoreUnavailable, "the node's cache of versions cannot be written; the log says why")
    };
    Error::new(reason, text).diagnostic(operation).source(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a blocking step").source(e))?
}
