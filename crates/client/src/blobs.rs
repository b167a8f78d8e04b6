//! Uploading file contents, each under its digest.
//!
//! Invariants: memory is bounded by a few chunks whatever the size; the bytes are hashed again as they leave, and the
//! last chunk is held back until the digest is known to be right, so a file that changed never completes an upload.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::Stream;
use plinth_types::{Digest, DigestHasher};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};
use url::Url;

use crate::transport::{Call, Moved, Repeat};
use crate::{Client, Error, Result};

/// How much is read and sent at once.
const CHUNK: usize = 256 << 10;

/// Where the bytes of a blob come from. An upload that is repeated opens it again.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file.
    File(PathBuf),
}

impl BlobSource {
    async fn open(&self) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
            Self::File(path) => Box::new(tokio::fs::File::open(path).await?),
        })
    }
}

/// What the upload of a blob came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobUpload {
    /// The node has stored it.
    Created,
    /// The node had it already.
    Present,
}

/// Why the source could not be sent as announced.
#[derive(Debug, Clone, thiserror::Error)]
enum Fault {
    #[error("the content is not what its digest says: it changed")]
    Changed,
    #[error("the content cannot be read: {0}")]
    Read(String),
}

impl Client {
    /// `HEAD /v1/blobs/{digest}`: whether the node has these bytes.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        match self.send(Call::head(self.url(["v1", "blobs", &digest.to_string()]))).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `PUT /v1/blobs/{digest}`: uploads `size` bytes. `on_progress` gets the bytes that left so far in this attempt;
    /// it starts again at 0 when the upload is repeated. Fails when no byte moves for the idle timeout.
    ///
    /// # Errors
    /// As [`Client::status`]; [`Error::Source`] when the source cannot be read or is not what digest and size say.
    pub async fn put_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: &BlobSource,
        on_progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<BlobUpload> {
        let url = self.url(["v1", "blobs", &digest.to_string()]);
        let progress: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(on_progress);
        let mut repeat = Repeat::new(self, true);
        loop {
            let reader = source.open().await.map_err(|e| unreadable(digest, &Fault::Read(e.to_string())))?;
            let upload = Upload {
                reader,
                hasher: DigestHasher::new(),
                digest: *digest,
                size,
                moved: Arc::default(),
                fault: Arc::default(),
                progress: progress.clone(),
            };
            match self.upload(url.clone(), upload).await {
                Err(error) if repeat.again(&error).await => {}
                end => return end,
            }
        }
    }

    async fn upload(&self, url: Url, upload: Upload) -> Result<BlobUpload> {
        let (digest, size, moved, fault) = (upload.digest, upload.size, upload.moved.clone(), upload.fault.clone());
        let body = if size == 0 { Body::from(Bytes::new()) } else { Body::wrap_stream(upload.into_stream()) };
        let request = self.http.put(url).header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, size).body(body);
        let end = self.while_moving(&moved, self.success(request)).await;
        if let Some(fault) = fault.get() {
            return Err(unreadable(&digest, fault));
        }
        Ok(if end?.status() == StatusCode::CREATED { BlobUpload::Created } else { BlobUpload::Present })
    }
}

fn unreadable(digest: &Digest, fault: &Fault) -> Error {
    Error::Source { digest: *digest, changed: matches!(fault, Fault::Changed), what: fault.to_string() }
}

/// The body of one attempt.
struct Upload {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    hasher: DigestHasher,
    digest: Digest,
    size: u64,
    moved: Arc<Moved>,
    fault: Arc<OnceLock<Fault>>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Upload {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut upload| async move {
            match upload.next().await {
                Ok(chunk) => Ok(chunk.map(|bytes| (bytes, upload))),
                Err(fault) => {
                    // The transport only says that the body failed; the reason travels beside it.
                    let _ = upload.fault.set(fault.clone());
                    Err(fault)
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let left = self.size - self.hasher.length();
        if left == 0 {
            return Ok(None);
        }
        let want = left.min(CHUNK as u64);
        let mut chunk = Vec::with_capacity(CHUNK.min(usize::try_from(want).unwrap_or(CHUNK)));
        (&mut self.reader).take(want).read_to_end(&mut chunk).await.map_err(|e| Fault::Read(e.to_string()))?;
        self.hasher.update(&chunk);
        let short = (chunk.len() as u64) < want;
        let last = self.hasher.length() == self.size;
        if short || (last && self.hasher.clone().finish() != self.digest) {
            return Err(Fault::Changed);
        }
        self.moved.add(chunk.len());
        (self.progress)(self.hasher.length());
        Ok(Some(chunk.into()))
    }
}
