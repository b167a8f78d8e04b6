//! Blobs: upload, look for, open, hash again.
//!
//! Invariant: a blob that garbage collection has decided to delete counts as absent from then on, so nobody builds on
//! it. An upload of such a blob is refused until it is gone.

use std::time::Duration;

use futures_util::StreamExt as _;
use plinth_store::objects::{ByteStream, ObjectInfo, ObjectReader, PutOutcome};
use plinth_store::resources::{CollectionRecord, FileEntry};
use plinth_types::{ArtifactPath, Digest, DigestHasher, Error, ModelName, Reason, Result, TenantName, VersionNumber};

use super::{Registry, Version};
use crate::ledger::{DEADLINE, collection_key, from_objects, late};

impl Registry {
    /// Stores a blob whose digest and length are announced. Idempotent; a failed or dropped call leaves nothing visible.
    /// The deadline of the body is the caller's business.
    ///
    /// # Errors
    /// `DigestMismatch`, `UploadIncomplete`, `EditConflict` while that blob is being deleted, `StorageFull`,
    /// `StoreUnavailable`.
    pub async fn put_blob(&self, digest: &Digest, length: u64, body: ByteStream<'_>) -> Result<PutOutcome> {
        if self.is_being_collected(digest).await? {
            return Err(being_collected(digest));
        }
        self.objects.put(digest, length, body).await.map_err(from_objects)
    }

    /// What is known of a blob, if it is there and will stay for now.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<ObjectInfo>> {
        if self.is_being_collected(digest).await? {
            return Ok(None);
        }
        tokio::time::timeout(DEADLINE, self.objects.info(digest)).await.map_err(|_| late("looking for a blob"))?.map_err(from_objects)
    }

    /// Opens a file of a version. The bytes are not verified on the way out: who loads them hashes them.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound`, `RecordNotFound` when the version has no such file, `StoreUnavailable`.
    pub async fn open_file(
        &self,
        tenant: &TenantName,
        model: &ModelName,
        number: VersionNumber,
        path: &ArtifactPath,
    ) -> Result<(FileEntry, ObjectReader)> {
        self.find_model(tenant, model).await?;
        let version = self.find_version(tenant, model, number).await?.value;
        let file = version.files.into_iter().find(|file| file.path == *path);
        let file = file.ok_or_else(|| Error::new(Reason::RecordNotFound, format!("version {number} of '{model}' has no file '{path}'")))?;
        let reader = self.open_blob(&file.digest).await?;
        Ok((file, reader))
    }

    /// Opens a blob by its digest, for a node that fetches a version's files.
    ///
    /// # Errors
    /// `BlobNotFound`, `StoreUnavailable`.
    pub async fn open_blob(&self, digest: &Digest) -> Result<ObjectReader> {
        tokio::time::timeout(DEADLINE, self.objects.open(digest)).await.map_err(|_| late("opening a blob"))?.map_err(from_objects)
    }

    /// Reads every stored byte of a version again and holds it against the record. Takes as long as reading takes.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound`, `ContentAltered` naming the file, `StoreUnavailable`.
    pub async fn rehash_version(&self, tenant: &TenantName, model: &ModelName, number: VersionNumber) -> Result<Version> {
        let version = self.version(tenant, model, number).await?;
        for file in &version.record.files {
            let altered = |how: &str| {
                let text = format!(
                    "the stored file '{}' of version {number} of '{model}' {how}: restore it from a backup, or push it again",
                    file.path
                );
                Error::new(Reason::ContentAltered, text).field("files")
            };
            let reader = match self.open_blob(&file.digest).await {
                Err(error) if error.reason() == Reason::BlobNotFound => return Err(altered("is gone")),
                other => other?,
            };
            if hash(reader).await? != (file.digest, file.size) {
                self.drop_if_damaged(&file.digest).await?;
                return Err(altered("was altered"));
            }
        }
        Ok(version)
    }

    /// Deletes a stored object whose bytes do not have its digest, so that a push or a backup can put the right ones there;
    /// whether it was damaged. Reads it whole.
    ///
    /// # Errors
    /// `StoreUnavailable`; `BlobNotFound`.
    pub async fn drop_if_damaged(&self, digest: &Digest) -> Result<bool> {
        let (found, _) = hash(self.open_blob(digest).await?).await?;
        if found == *digest {
            return Ok(false);
        }
        tokio::time::timeout(DEADLINE, self.objects.delete(digest)).await.map_err(|_| late("deleting a blob"))?.map_err(from_objects)?;
        tracing::error!(%digest, "a stored file was damaged and has been removed; restore it from a backup, or push its version again");
        Ok(true)
    }

    async fn is_being_collected(&self, digest: &Digest) -> Result<bool> {
        let plan = self.ledger.get::<CollectionRecord>(&collection_key()).await?;
        Ok(plan.is_some_and(|plan| plan.value.deleting.contains(digest)))
    }
}

async fn hash(mut reader: ObjectReader) -> Result<(Digest, u64)> {
    let mut hasher = DigestHasher::new();
    while let Some(piece) = tokio::time::timeout(DEADLINE, reader.stream.next()).await.map_err(|_| late("reading a blob"))? {
        let piece = piece.map_err(|e| late("reading a blob").source(e))?;
        hasher.update(&piece);
        tokio::task::yield_now().await;
    }
    let length = hasher.length();
    Ok((hasher.finish(), length))
}

/// The refusal of what names a blob that is about to go.
pub(super) fn being_collected(digest: &Digest) -> Error {
    let text = format!("the blob {digest} is just being collected as garbage: push again in a moment");
    Error::new(Reason::EditConflict, text).retry_after(Duration::from_secs(1))
}
