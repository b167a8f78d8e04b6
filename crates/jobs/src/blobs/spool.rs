//! Large bytes that go in and out of the object store as streams.
//!
//! The object store wants to know digest and length before the first byte, so a stream is written to a file first (the spool) and hashed on the way.
//! Invariants: memory does not grow with the bytes; a spooled file has no name, so nothing of it is left when the process dies; a copy that
//! [`Blobs::local`] gives has the digest that was asked for.

use std::io::SeekFrom;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use plinth_net::UploadStream;
use plinth_store::objects::{ByteStream, ObjectReader};
use plinth_types::{ByteSize, Digest, DigestHasher, Error, Reason, Result};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{Blobs, unavailable};

/// How much is read at once.
const PIECE: usize = 256 << 10;

impl Blobs {
    /// Spools in this directory, which is made when it is first needed; the system's directory for temporary files without.
    #[must_use]
    pub fn spool_in(mut self, directory: PathBuf) -> Self {
        self.spool = Some(directory);
        self
    }

    /// Stores bytes under their digest.
    ///
    /// # Errors
    /// [`Reason::StorageFull`] and [`Reason::StoreUnavailable`].
    pub async fn put(&self, bytes: Bytes) -> Result<Digest> {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.objects.put(&digest, size, stream::iter([Ok(bytes)]).boxed()).await.map_err(unavailable)?;
        Ok(digest)
    }

    /// Stores a stream of at most `most` bytes; its digest and length.
    ///
    /// # Errors
    /// The stream's own error when it is an [`UploadStream`]'s; [`Reason::UploadIncomplete`] for another one, [`Reason::BodyTooLarge`],
    /// [`Reason::StorageFull`] and [`Reason::StoreUnavailable`].
    pub async fn put_stream(&self, mut body: ByteStream<'_>, most: ByteSize) -> Result<(Digest, u64)> {
        let mut file = self.spooled().await?;
        let mut hasher = DigestHasher::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|mut error| {
                UploadStream::cause(&mut error)
                    .unwrap_or_else(|| Error::new(Reason::UploadIncomplete, "the upload ended early").source(error))
            })?;
            hasher.update(&piece);
            if hasher.length() > most.0 {
                return Err(Error::new(Reason::BodyTooLarge, format!("a file has at most {most}")));
            }
            file.write_all(&piece).await.map_err(|error| spool_failed(&error))?;
        }
        file.flush().await.map_err(|error| spool_failed(&error))?;
        file.seek(SeekFrom::Start(0)).await.map_err(|error| spool_failed(&error))?;
        let size = hasher.length();
        let digest = hasher.finish();
        self.objects.put(&digest, size, pieces(file)).await.map_err(unavailable)?;
        Ok((digest, size))
    }

    /// Opens what was stored. The bytes are not verified on the way out.
    ///
    /// # Errors
    /// [`Reason::BlobNotFound`], [`Reason::StoreUnavailable`].
    pub async fn open(&self, digest: &Digest) -> Result<ObjectReader> {
        self.objects.open(digest).await.map_err(unavailable)
    }

    /// A copy on this machine of what was stored, at its beginning; it is gone when it is closed.
    ///
    /// # Errors
    /// As [`Blobs::open`]; [`Reason::DigestMismatch`] for bytes that changed in the store.
    pub async fn local(&self, digest: &Digest) -> Result<std::fs::File> {
        let mut reader = self.open(digest).await?;
        let mut file = self.spooled().await?;
        let mut hasher = DigestHasher::new();
        while let Some(piece) = reader.stream.next().await {
            let piece = piece.map_err(|error| Error::new(Reason::StoreUnavailable, "the object store failed").source(error))?;
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(|error| spool_failed(&error))?;
        }
        if hasher.finish() != *digest {
            return Err(Error::new(Reason::DigestMismatch, "what a job kept in the object store has changed there"));
        }
        file.flush().await.map_err(|error| spool_failed(&error))?;
        file.seek(SeekFrom::Start(0)).await.map_err(|error| spool_failed(&error))?;
        Ok(file.into_std().await)
    }

    /// A new file without a name.
    async fn spooled(&self) -> Result<File> {
        let spool = self.spool.clone();
        let made = tokio::task::spawn_blocking(move || match spool {
            None => tempfile::tempfile(),
            Some(directory) => std::fs::create_dir_all(&directory).and_then(|()| tempfile::tempfile_in(directory)),
        });
        let made = made.await.map_err(|error| Error::internal("a blocking step").source(error))?;
        made.map(File::from_std).map_err(|error| spool_failed(&error))
    }
}

/// The bytes of a file from where it stands.
fn pieces(file: File) -> ByteStream<'static> {
    stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
    })
    .boxed()
}

fn spool_failed(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::new(Reason::StorageFull, "there is no room for the file")
        }
        _ => Error::new(Reason::StoreUnavailable, "the file cannot be written or read").diagnostic(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use plinth_runtime::World;
    use plinth_store::objects::{self, ObjectsOptions, ObjectsUrl};

    use super::*;

    #[tokio::test]
    async fn streams_go_in_and_come_out_whole() {
        let directory = tempfile::tempdir().unwrap();
        let world = World::real();
        let options = ObjectsOptions::new(ObjectsUrl::File(directory.path().join("objects")));
        let stored = objects::open(&options, &world).await.unwrap();
        let blobs = Blobs::new(stored, ByteSize::kib(1), world.crash.clone()).spool_in(directory.path().join("spool"));
        let text: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
        let stream = |text: &[u8]| stream::iter(text.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect::<Vec<_>>()).boxed();
        let (digest, size) = blobs.put_stream(stream(&text), ByteSize(text.len() as u64)).await.unwrap();
        assert_eq!((digest, size), (Digest::of(&text), text.len() as u64));
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut blobs.local(&digest).await.unwrap(), &mut back).unwrap();
        assert!(back == text);
        assert_eq!(std::fs::read_dir(directory.path().join("spool")).unwrap().count(), 0, "nothing has a name");
        let small = ByteSize(text.len() as u64 - 1);
        assert_eq!(blobs.put_stream(stream(&text), small).await.unwrap_err().reason(), Reason::BodyTooLarge);
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]).boxed();
        assert_eq!(blobs.put_stream(broken, small).await.unwrap_err().reason(), Reason::UploadIncomplete);
        assert_eq!(blobs.open(&Digest::of(b"other")).await.err().unwrap().reason(), Reason::BlobNotFound);
    }
}
