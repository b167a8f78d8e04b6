//! Objects in S3 or what speaks like it: `prefix/sha256/ab/<62 digits>`.
//!
//! Invariants: an object becomes visible by one request (a plain put, or the completion of a multipart upload) that is
//! sent only after length and digest were checked; S3 acknowledges what it has stored durably. At most two parts of one
//! body are in memory. Every request has a time limit and a bounded number of retries.
//!
//! A failed or cancelled multipart upload is aborted in the background. After a kill -9 its invisible parts stay: give
//! the bucket a lifecycle rule that aborts incomplete multipart uploads. (Sweeping them here could hit another node's.)
//!
//! Nothing is taken from the environment: no credentials, no proxy.

use std::future::Future;
use std::sync::Once;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, Fuse, StreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use plinth_runtime::TaskGroup;
use plinth_types::{Digest, DigestHasher, Timestamp};

use self::multipart::Multipart;
use super::options::S3Options;
use super::{ByteStream, ObjectInfo, ObjectReader, Objects, ObjectsError, PutOutcome};

mod multipart;

/// The adapter.
pub(super) struct S3Objects {
    store: AmazonS3,
    root: Key,
    shown: String,
    limit: Duration,
    /// Aborts of uploads that were given up.
    aborts: TaskGroup,
}

impl S3Objects {
    /// Prepares the client; sends nothing.
    pub(super) fn open(bucket: &str, prefix: &str, options: &S3Options) -> Result<Self, ObjectsError> {
        use_ring();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&options.region)
            .with_allow_http(options.allow_http)
            .with_http_connector(Connector { options: options.clone() })
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: options.max_retries,
                retry_timeout: options.operation_timeout,
            });
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(credentials) = &options.credentials {
            builder = builder.with_access_key_id(&credentials.access_key_id).with_secret_access_key(&credentials.secret_access_key);
            if let Some(token) = &credentials.session_token {
                builder = builder.with_token(token);
            }
        }
        let store = builder.build().map_err(failed("open"))?;
        let root = if prefix.is_empty() { "sha256".to_owned() } else { format!("{prefix}/sha256") };
        Ok(Self {
            store,
            root: Key::from(root),
            shown: format!("s3://{bucket}/{prefix}"),
            limit: options.operation_timeout,
            aborts: TaskGroup::new("s3 aborts"),
        })
    }

    fn key(&self, digest: &Digest) -> Key {
        let hex = digest.hex();
        let (shelf, name) = hex.split_at(2);
        self.root.clone().join(shelf).join(name)
    }

    fn info_of(&self, meta: &ObjectMeta) -> Option<ObjectInfo> {
        let name = meta.location.as_ref().strip_prefix(self.root.as_ref())?.strip_prefix('/')?;
        let (shelf, rest) = name.split_once('/')?;
        let digest: Digest = format!("{shelf}{rest}").parse().ok().filter(|_| shelf.len() == 2)?;
        let stored_at = u64::try_from(meta.last_modified.timestamp_millis()).ok()?;
        Some(ObjectInfo { digest, size: meta.size, stored_at: Timestamp::from_millis(stored_at).ok()? })
    }

    /// Runs a request for a limited time.
    async fn within<T>(&self, operation: &'static str, request: impl Future<Output = object_store::Result<T>>) -> Result<T, ObjectsError> {
        within(self.limit, operation, request).await
    }

    async fn head(&self, operation: &'static str, digest: &Digest) -> Result<Option<ObjectMeta>, ObjectsError> {
        let key = self.key(digest);
        let request = async {
            match self.store.head(&key).await {
                Ok(meta) => Ok(Some(meta)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.within(operation, request).await
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn put(&self, digest: &Digest, length: u64, body: ByteStream<'_>) -> Result<PutOutcome, ObjectsError> {
        if self.head("put", digest).await?.is_some_and(|found| found.size == length) {
            return Ok(PutOutcome::AlreadyThere);
        }
        let mut body = Body { pieces: body.fuse(), rest: Bytes::new(), hasher: DigestHasher::new(), length };
        let key = self.key(digest);
        let Some(part_size) = multipart::part_size(length)? else {
            let whole = body.read(usize::try_from(length).unwrap_or(usize::MAX)).await?;
            body.finish(digest)?;
            self.within("put", self.store.put(&key, whole.into())).await?;
            return Ok(PutOutcome::Stored);
        };
        let upload = self.within("put", self.store.put_multipart(&key)).await?;
        let mut upload = Multipart::new(upload, self.limit, self.aborts.clone());
        let sent = async {
            let mut part = body.read(part_size).await?;
            while !part.is_empty() {
                let (sent, next) = tokio::join!(upload.send(part), body.read(part_size));
                sent?;
                part = next?;
            }
            body.finish(digest)
        };
        sent.await?;
        upload.complete().await.map(|()| PutOutcome::Stored)
    }

    async fn info(&self, digest: &Digest) -> Result<Option<ObjectInfo>, ObjectsError> {
        Ok(self.head("info", digest).await?.and_then(|meta| self.info_of(&meta)))
    }

    async fn open(&self, digest: &Digest) -> Result<ObjectReader, ObjectsError> {
        let key = self.key(digest);
        let found = match tokio::time::timeout(self.limit, self.store.get(&key)).await {
            Ok(Ok(found)) => found,
            Ok(Err(object_store::Error::NotFound { .. })) => return Err(ObjectsError::NotFound(*digest)),
            Ok(Err(error)) => return Err(failed("open")(error)),
            Err(elapsed) => return Err(ObjectsError::Unavailable { operation: "open", source: Box::new(elapsed) }),
        };
        let size = found.meta.size;
        // Each piece is timed by the client's `read_timeout`.
        let stream = found.into_stream().map(|piece| piece.map_err(std::io::Error::other)).boxed();
        Ok(ObjectReader { size, stream })
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, ObjectsError> {
        // S3 does not say whether something was there, so ask before.
        if self.head("delete", digest).await?.is_none() {
            return Ok(false);
        }
        let key = self.key(digest);
        self.within("delete", self.store.delete(&key)).await.map(|()| true)
    }

    fn list(&self) -> BoxStream<'_, Result<ObjectInfo, ObjectsError>> {
        let pages = stream::unfold(Some(self.store.list(Some(&self.root))), |listing| async {
            let mut listing = listing?;
            match self.within("list", async { listing.next().await.transpose() }).await {
                Ok(Some(meta)) => Some((Ok(meta), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        let objects = pages.filter_map(|meta| std::future::ready(meta.map(|meta| self.info_of(&meta)).transpose()));
        objects.boxed()
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }
}

/// A body, hashed and counted as it is read.
struct Body<'a> {
    pieces: Fuse<ByteStream<'a>>,
    /// Of the piece that was too large for the last part.
    rest: Bytes,
    hasher: DigestHasher,
    length: u64,
}

impl Body<'_> {
    /// The next `want` bytes; less at the end of the body, nothing after it. Fails as soon as the body is too long.
    /// Copies: a part is one block, however many pieces it came in.
    async fn read(&mut self, want: usize) -> Result<Bytes, ObjectsError> {
        let mut part = BytesMut::new();
        loop {
            let take = self.rest.len().min(want - part.len());
            part.extend_from_slice(&self.rest.split_to(take));
            // A body that ends exactly here is still asked once more: it may be too long.
            let at_end = self.hasher.length() == self.length && self.rest.is_empty();
            if part.len() == want && !at_end {
                return Ok(part.freeze());
            }
            match self.pieces.next().await {
                None => return Ok(part.freeze()),
                Some(Err(error)) => return Err(ObjectsError::Body(error)),
                Some(Ok(piece)) => {
                    self.hasher.update(&piece);
                    let received = self.hasher.length();
                    if received > self.length {
                        return Err(ObjectsError::LengthMismatch { expected: self.length, received });
                    }
                    self.rest = piece;
                }
            }
        }
    }

    /// Checks length and digest of all that was read.
    fn finish(&self, digest: &Digest) -> Result<(), ObjectsError> {
        let received = self.hasher.length();
        if received != self.length {
            return Err(ObjectsError::LengthMismatch { expected: self.length, received });
        }
        let actual = self.hasher.clone().finish();
        if actual == *digest { Ok(()) } else { Err(ObjectsError::DigestMismatch { expected: *digest, actual }) }
    }
}

async fn within<T>(
    limit: Duration,
    operation: &'static str,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, ObjectsError> {
    match tokio::time::timeout(limit, request).await {
        Ok(result) => result.map_err(failed(operation)),
        Err(elapsed) => Err(ObjectsError::Unavailable { operation, source: Box::new(elapsed) }),
    }
}

fn failed(operation: &'static str) -> impl Fn(object_store::Error) -> ObjectsError {
    move |error| {
        // The client keeps the answer of the server only as text.
        let text = error.to_string();
        let full = ["XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "507 Insufficient Storage"];
        if full.iter().any(|code| text.contains(code)) {
            return ObjectsError::Full;
        }
        ObjectsError::Unavailable { operation, source: Box::new(error) }
    }
}

/// Makes *ring* the process's TLS provider, unless somebody has chosen one already.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Builds the HTTP client. The library's own would take a proxy from the environment.
#[derive(Debug)]
struct Connector {
    options: S3Options,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .https_only(!self.options.allow_http)
            .connect_timeout(self.options.connect_timeout)
            .read_timeout(self.options.read_timeout)
            .build()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}
