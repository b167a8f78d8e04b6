//! Objects as files: `sha256/ab/<62 digits>` below one directory, on their way in `tmp/`.
//!
//! Invariants: a file gets its final name only after its length and digest were checked and its bytes synced; `Ok` means
//! that the name is synced too. What an interrupted `put` left in `tmp` goes away with the `put`, or at the next start
//! when the process died; a start leaves `tmp` alone while another process works in the same directory.
//!
//! Everything that touches the disk runs on tokio's blocking threads, a batch at a time. A body that stalls is not timed
//! here: whoever reads it from the network does that.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use plinth_runtime::World;
use plinth_types::{Digest, Timestamp};
use tokio_util::io::ReaderStream;

use self::upload::{Batch, Upload};
use super::{ByteStream, ObjectInfo, ObjectReader, Objects, ObjectsError, PutOutcome};
use crate::durable;

mod upload;

/// How much is read at once on the way out, in bytes.
const READ_SIZE: usize = 256 << 10;

/// The adapter.
pub(super) struct FileObjects {
    layout: Arc<Layout>,
    world: World,
    /// Held for life, so that another process does not sweep `tmp` under our feet.
    _lock: File,
}

/// Where everything lies.
pub(super) struct Layout {
    root: PathBuf,
    objects: PathBuf,
    tmp: PathBuf,
}

impl Layout {
    fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (shelf, name) = hex.split_at(2);
        self.objects.join(shelf).join(name)
    }

    fn shelf(&self, number: u8) -> PathBuf {
        self.objects.join(format!("{number:02x}"))
    }
}

impl FileObjects {
    /// Makes the directories and sweeps what interrupted `put`s left behind.
    pub(super) async fn open(root: &Path, world: &World) -> Result<Self, ObjectsError> {
        let layout = Layout { root: root.to_owned(), objects: root.join("sha256"), tmp: root.join("tmp") };
        let (layout, lock) = blocking("open", move || prepare(&layout).map(|lock| (layout, lock))).await?;
        Ok(Self { layout: Arc::new(layout), world: world.clone(), _lock: lock })
    }

    /// Whether the object is there with this length; then it is synced, too, even when another `put` is just about to.
    async fn is_stored(&self, digest: &Digest, length: u64) -> Result<bool, ObjectsError> {
        let path = self.layout.object(digest);
        blocking("put", move || match fs::metadata(&path) {
            Ok(found) if found.len() == length => durable::sync_directory(parent(&path)).map(|()| true),
            Ok(_) => Ok(false), // the disk damaged it; what is put now replaces it
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// Takes the body into a temporary file and checks it.
    async fn receive(&self, digest: &Digest, length: u64, mut body: ByteStream<'_>) -> Result<Upload, ObjectsError> {
        let path = self.layout.tmp.join(format!("{:016x}{:016x}", self.world.random.next_u64(), self.world.random.next_u64()));
        let mut upload = blocking("put", move || Upload::begin(path)).await?;
        let (mut received, mut batch) = (0_u64, Batch::default());
        let failure = loop {
            match body.next().await {
                None if received < length => break ObjectsError::LengthMismatch { expected: length, received },
                None => {
                    upload = blocking("put", move || upload.write(batch)).await?;
                    let actual = upload.digest();
                    if actual == *digest {
                        return Ok(upload);
                    }
                    break ObjectsError::DigestMismatch { expected: *digest, actual };
                }
                Some(Err(error)) => break ObjectsError::Body(error),
                Some(Ok(piece)) => {
                    received = received.saturating_add(piece.len() as u64);
                    if received > length {
                        break ObjectsError::LengthMismatch { expected: length, received };
                    }
                    batch.push(piece);
                    if batch.is_full() {
                        let full = std::mem::take(&mut batch);
                        upload = blocking("put", move || upload.write(full)).await?;
                    }
                }
            }
        };
        // Dropping it removes the file, which for a large one takes the disk a while.
        blocking("put", move || {
            drop(upload);
            Ok(())
        })
        .await?;
        Err(failure)
    }
}

#[async_trait]
impl Objects for FileObjects {
    async fn put(&self, digest: &Digest, length: u64, body: ByteStream<'_>) -> Result<PutOutcome, ObjectsError> {
        if self.is_stored(digest, length).await? {
            return Ok(PutOutcome::AlreadyThere);
        }
        let upload = self.receive(digest, length, body).await?;
        let (path, crash) = (self.layout.object(digest), self.world.crash.clone());
        blocking("put", move || upload.store(&path, &crash)).await?;
        Ok(PutOutcome::Stored)
    }

    async fn info(&self, digest: &Digest) -> Result<Option<ObjectInfo>, ObjectsError> {
        let (path, digest) = (self.layout.object(digest), *digest);
        blocking("info", move || info(&path, digest)).await
    }

    async fn open(&self, digest: &Digest) -> Result<ObjectReader, ObjectsError> {
        let path = self.layout.object(digest);
        let opened = blocking("open", move || match File::open(&path) {
            Ok(file) => Ok(Some((file.metadata()?.len(), file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        let (size, file) = opened.await?.ok_or(ObjectsError::NotFound(*digest))?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(READ_SIZE);
        Ok(ObjectReader { size, stream: ReaderStream::with_capacity(file, READ_SIZE).boxed() })
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, ObjectsError> {
        let path = self.layout.object(digest);
        blocking("delete", move || match fs::remove_file(&path) {
            Ok(()) => durable::sync_directory(parent(&path)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    fn list(&self) -> BoxStream<'_, Result<ObjectInfo, ObjectsError>> {
        let shelves = stream::iter(0..=u8::MAX).then(|number| {
            let shelf = self.layout.shelf(number);
            blocking("list", move || list_shelf(&shelf, number))
        });
        let objects = shelves.flat_map(|shelf| match shelf {
            Ok(found) => stream::iter(found).map(Ok).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        });
        objects.boxed()
    }

    fn describe(&self) -> String {
        format!("files in {}", self.layout.root.display())
    }
}

/// Runs something that touches the disk off the async threads.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ObjectsError> {
    let result = tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|error| match durable::is_full(&error) {
        true => ObjectsError::Full,
        false => ObjectsError::Unavailable { operation, source: Box::new(error) },
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Makes the directories, all shelves included: then no `put` ever makes a directory, and none can forget to sync one.
fn prepare(layout: &Layout) -> io::Result<File> {
    durable::create_directories(&layout.objects)?;
    durable::create_directories(&layout.tmp)?;
    for number in 0..=u8::MAX {
        match DirBuilder::new().mode(0o700).create(layout.shelf(number)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    durable::sync_directory(&layout.objects)?;

    let lock = File::options().read(true).write(true).create(true).truncate(false).open(layout.root.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => sweep(&layout.tmp)?,
        Err(TryLockError::WouldBlock) => tracing::debug!("another process works in the object directory, not sweeping it"),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Shared from now on. The lock may be free for a moment in between: whoever sweeps then finds nothing of ours yet.
    lock.lock_shared()?;
    Ok(lock)
}

fn sweep(tmp: &Path) -> io::Result<()> {
    let mut swept = 0_u64;
    for entry in fs::read_dir(tmp)? {
        fs::remove_file(entry?.path())?;
        swept += 1;
    }
    if swept > 0 {
        tracing::info!(files = swept, "swept what interrupted uploads left behind");
    }
    Ok(())
}

fn info(path: &Path, digest: Digest) -> io::Result<Option<ObjectInfo>> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let stored_at = Timestamp::from(found.modified().unwrap_or(UNIX_EPOCH));
    Ok(Some(ObjectInfo { digest, size: found.len(), stored_at }))
}

/// The objects on one of the 256 shelves; what is no object is left out.
fn list_shelf(shelf: &Path, number: u8) -> io::Result<Vec<ObjectInfo>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(shelf)? {
        let entry = entry?;
        let digest = entry.file_name().to_str().and_then(|name| format!("{number:02x}{name}").parse::<Digest>().ok());
        let Some(digest) = digest else {
            tracing::warn!(shelf = number, "a file among the objects is none, ignoring it");
            continue;
        };
        found.extend(info(&entry.path(), digest)?); // `None`: deleted meanwhile
    }
    Ok(found)
}
