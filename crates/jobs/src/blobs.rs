//! Inputs and results: in the ledger's row when they are small, in the object store when they are not.
//!
//! Invariant: an object is stored before the ledger names it. What was stored for a ledger that was then not written is an orphan: it is found by its
//! age and by no row naming it, and removed ([`Blobs::collect`]). The objects are in a place of their own, which the registry does not sweep.

mod spool;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use plinth_queue::jobs::{Body, Payload};
use plinth_runtime::{Clock, CrashPoint, CrashPoints};
use plinth_store::Objects;
use plinth_store::objects::ObjectsError;
use plinth_types::{ByteSize, Digest, Error, Reason, Result};
use serde::{Deserialize, Serialize};

/// The content type that is meant when none is named.
pub const META_TYPE: &str = "application/json";

/// What is known of bytes beside the bytes: their content type, and what a kind keeps with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The content type.
    #[serde(rename = "type")]
    pub content_type: String,
    /// The kind's own.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Meta {
    /// Of a content type alone.
    #[must_use]
    pub fn of(content_type: &str) -> Self {
        Self { content_type: content_type.to_owned(), more: serde_json::Map::new() }
    }

    /// Reads what a ledger kept; what cannot be read is bytes of no known type.
    #[must_use]
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Self::of("application/octet-stream"))
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Where bytes are kept. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    objects: Arc<dyn Objects>,
    inline: usize,
    crash: CrashPoints,
    spool: Option<PathBuf>,
}

impl Blobs {
    /// Small ones up to `inline` bytes stay in the ledger.
    #[must_use]
    pub fn new(objects: Arc<dyn Objects>, inline: ByteSize, crash: CrashPoints) -> Self {
        Self { objects, inline: usize::try_from(inline.0).unwrap_or(usize::MAX), crash, spool: None }
    }

    /// Makes bytes ready for the ledger.
    ///
    /// # Errors
    /// [`Reason::StorageFull`] and [`Reason::StoreUnavailable`].
    pub async fn keep(&self, meta: &Meta, bytes: Bytes) -> Result<Payload> {
        let meta = meta.text();
        if bytes.len() <= self.inline {
            return Ok(Payload { meta, body: Body::Inline(bytes.to_vec()) });
        }
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        self.objects.put(&digest, size, stream::iter([Ok(bytes)]).boxed()).await.map_err(unavailable)?;
        self.crash.reach(CrashPoint::JobAfterBlob);
        Ok(Payload { meta, body: Body::Object { digest: digest.to_string(), size } })
    }

    /// Reads bytes back, and hashes those that come from the object store.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`], and [`Reason::DigestMismatch`] for bytes that changed in the store.
    pub async fn read(&self, payload: Payload) -> Result<(Meta, Bytes)> {
        let meta = Meta::read(&payload.meta);
        let (digest, size) = match payload.body {
            Body::Inline(bytes) => return Ok((meta, bytes.into())),
            Body::Object { digest, size } => (digest, size),
        };
        let digest: Digest = digest.parse().map_err(|_| Error::internal(format!("'{digest}' is no digest")))?;
        let mut reader = self.objects.open(&digest).await.map_err(unavailable)?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0).min(1 << 30));
        while let Some(piece) = reader.stream.next().await {
            let piece = piece.map_err(|error| Error::new(Reason::StoreUnavailable, "the object store failed").source(error))?;
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > size {
                break;
            }
        }
        let bytes = bytes.freeze();
        if Digest::of(&bytes) != digest {
            return Err(Error::new(Reason::DigestMismatch, "what a job kept in the object store has changed there"));
        }
        Ok((meta, bytes))
    }

    /// Removes objects older than `age` that nothing names; how many. `named` says which are named.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn collect(&self, named: &BTreeSet<String>, age: Duration, clock: &dyn Clock) -> Result<u64> {
        let now = clock.now();
        let mut listed = self.objects.list();
        let mut removed = 0;
        while let Some(object) = listed.next().await {
            let object = object.map_err(unavailable)?;
            if now.since(object.stored_at) > age && !named.contains(&object.digest.to_string()) {
                removed += u64::from(self.objects.delete(&object.digest).await.map_err(unavailable)?);
            }
        }
        Ok(removed)
    }
}

fn unavailable(error: ObjectsError) -> Error {
    match error {
        ObjectsError::Full => Error::new(Reason::StorageFull, "the object store is full").source(error),
        ObjectsError::NotFound(_) => Error::new(Reason::BlobNotFound, "what a job kept in the object store is not there").source(error),
        _ => Error::new(Reason::StoreUnavailable, "the object store cannot be reached").source(error),
    }
}
