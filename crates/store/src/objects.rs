//! The bytes of artifacts, found by their digest.
//!
//! Invariants, the same for every adapter: an object is visible only whole and only when its
//! bytes have the digest that names it; it never changes; `Ok` from [`Objects::put`] means stored and
//! synced; a failed or interrupted `put` leaves nothing visible. Two writers of one digest do not
//! disturb each other. Which objects are still needed is for the registry to say.

mod files;
pub mod options;
mod s3;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use plinth_runtime::World;
use plinth_types::{Digest, Timestamp};

pub use options::{ObjectsOptions, ObjectsUrl, ParseObjectsUrlError, S3Credentials, S3Options};

/// Opens the object store. Files: makes the directories and sweeps what interrupted `put`s left behind. S3: nothing is
/// sent before the first use, so a node starts while S3 is away.
///
/// # Errors
/// [`ObjectsError::Full`] and [`ObjectsError::Unavailable`].
pub async fn open(options: &ObjectsOptions, world: &World) -> Result<Arc<dyn Objects>, ObjectsError> {
    match &options.url {
        ObjectsUrl::File(directory) => Ok(Arc::new(files::FileObjects::open(directory, world).await?)),
        ObjectsUrl::S3 { bucket, prefix } => Ok(Arc::new(s3::S3Objects::open(bucket, prefix, &options.s3)?)),
    }
}

/// Bytes as they come in or go out, piece by piece.
pub type ByteStream<'a> = BoxStream<'a, io::Result<Bytes>>;

/// What a successful [`Objects::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object was stored.
    Stored,
    /// It was there already; the body was not needed.
    AlreadyThere,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its digest, which is its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// An object being read.
pub struct ObjectReader {
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes. Not verified on the way out: who loads them hashes them.
    pub stream: ByteStream<'static>,
}

/// Why the object store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object.
    #[error("there is no object {0}")]
    NotFound(Digest),
    /// The body has another digest than announced; nothing was stored.
    #[error("the bytes have digest {actual}, announced was {expected}")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// The body was longer or shorter than announced; nothing was stored.
    #[error("{received} bytes arrived, announced were {expected}")]
    LengthMismatch {
        /// What was announced.
        expected: u64,
        /// What arrived; a body that is too long is read no further than one piece past the end.
        received: u64,
    },
    /// The body's sender failed or went away; nothing was stored.
    #[error("the body ended early")]
    Body(#[source] io::Error),
    /// No space is left; nothing was stored.
    #[error("the object store is full")]
    Full,
    /// The store cannot be reached or failed.
    #[error("{operation}: the object store failed")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The port. See the module for what every adapter keeps.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores an object whose digest and length are announced. Idempotent. Cancel safe: a dropped call leaves nothing
    /// visible, and what it left behind is swept at the next start.
    async fn put(&self, digest: &Digest, length: u64, body: ByteStream<'_>) -> Result<PutOutcome, ObjectsError>;

    /// What is known of an object, if it is there.
    async fn info(&self, digest: &Digest) -> Result<Option<ObjectInfo>, ObjectsError>;

    /// Opens an object.
    async fn open(&self, digest: &Digest) -> Result<ObjectReader, ObjectsError>;

    /// Deletes an object; whether it was there.
    async fn delete(&self, digest: &Digest) -> Result<bool, ObjectsError>;

    /// All objects, in no order.
    fn list(&self) -> BoxStream<'_, Result<ObjectInfo, ObjectsError>>;

    /// What this adapter is, for people.
    fn describe(&self) -> String;
}
