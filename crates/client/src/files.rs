//! The routes of files and of bulk jobs.
//!
//! Invariants: memory is bounded by a few chunks whatever a file's size; an upload that is repeated leaves at most a file more, which expires; a bulk
//! job is submitted under an idempotency key and happens once.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use plinth_types::ByteSize;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, StatusCode};
use tokio::io::AsyncReadExt;
use url::Url;

use crate::admin::{number, query};
use crate::jobs::{Download, IDEMPOTENCY_KEY, may_pass};
use crate::transport::{Call, Moved};
use crate::wire::files::{BulkResult, File, FileDeleted, FileList, NewBulk};
use crate::wire::jobs::Submitted;
use crate::{Client, Error, Paging, Result};

/// How much is read and sent at once.
const CHUNK: usize = 256 << 10;

/// A file to upload.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Where it is.
    pub path: PathBuf,
    /// What the node shall call it; its ending says how its rows are written.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// Its length.
    pub size: ByteSize,
}

impl Client {
    fn files_url(&self, rest: &[&str]) -> Url {
        self.url(["api", "v1", "files"].into_iter().chain(rest.iter().copied()))
    }

    /// `PUT /api/v1/files`. `on_progress` gets the bytes that left so far in this attempt. Fails when no byte moves for the idle timeout.
    ///
    /// # Errors
    /// As [`Client::status`]; [`Error::Settings`] when the file cannot be read or is not as long as it was said to be.
    pub async fn put_file(&self, file: &NewFile, on_progress: impl Fn(u64) + Send + Sync + 'static) -> Result<File> {
        let mut url = self.files_url(&[]);
        query(&mut url, &[("name", Some(file.name.clone()))]);
        let progress: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(on_progress);
        let (mut left, mut pause) = (self.options.retries, self.options.backoff);
        loop {
            let reader = tokio::fs::File::open(&file.path).await;
            let reader = reader.map_err(|e| Error::Settings(format!("'{}' cannot be read: {e}", file.path.display())))?;
            let upload = Upload { reader, left: file.size.0, sent: 0, moved: Arc::default(), progress: progress.clone() };
            let moved = upload.moved.clone();
            let body = if file.size.0 == 0 { Body::from(Bytes::new()) } else { Body::wrap_stream(upload.into_stream()) };
            let request = self.http.put(url.clone()).header(CONTENT_TYPE, &file.content_type).header(CONTENT_LENGTH, file.size.0);
            match self.while_moving(&moved, self.success(request.body(body))).await {
                Err(error) if left > 0 && may_pass(&error) => {
                    tokio::time::sleep(pause).await;
                    left -= 1;
                    pause = pause.saturating_mul(4);
                }
                end => {
                    let answer = self.read(end?, self.options.max_answer).await?;
                    return self.parse(&answer);
                }
            }
        }
    }

    /// `GET /api/v1/files`: newest first.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn files(&self, page: &Paging) -> Result<FileList> {
        let mut url = self.files_url(&[]);
        query(&mut url, &[("after", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `GET /api/v1/files/{id}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn file(&self, id: &str) -> Result<File> {
        self.fetch(Call::get(self.files_url(&[id]))).await
    }

    /// `DELETE /api/v1/files/{id}`: jobs that were submitted for it go on.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn delete_file(&self, id: &str) -> Result<FileDeleted> {
        self.fetch(Call::delete(self.files_url(&[id]))).await
    }

    /// `POST /api/v1/bulk`. Repeated under the same `key` when the connection breaks; it happens once however often it is sent.
    ///
    /// # Errors
    /// As [`Client::submit_jobs`].
    pub async fn submit_bulk(&self, bulk: &NewBulk, key: &str) -> Result<Submitted> {
        let key = HeaderValue::from_str(key)
            .map_err(|_| Error::Settings("an idempotency key has no line breaks and no control characters".into()))?;
        let body = serde_json::to_vec(bulk).map_err(|e| Error::Settings(format!("the request cannot be written as JSON: {e}")))?;
        let body = Bytes::from(body);
        let (mut left, mut pause) = (self.options.retries, self.options.backoff);
        loop {
            let request = self.http.post(self.url(["api", "v1", "bulk"])).header(CONTENT_TYPE, "application/json");
            let request = request.header(IDEMPOTENCY_KEY, key.clone()).body(body.clone());
            let exchange = async { self.read(self.success(request).await?, self.options.max_answer).await };
            match self.within(self.options.request_timeout, exchange).await {
                Err(error) if left > 0 && may_pass(&error) => {
                    tokio::time::sleep(pause).await;
                    left -= 1;
                    pause = pause.saturating_mul(4);
                }
                end => return self.parse(&end?),
            }
        }
    }

    /// What a bulk job has given, of `GET /api/v1/jobs/{id}/result`; `None` while it has not ended.
    ///
    /// # Errors
    /// As [`Client::job_result`].
    pub async fn bulk_result(&self, id: &str) -> Result<Option<BulkResult>> {
        let Some(download) = self.job_result(id).await? else { return Ok(None) };
        let bytes = download.bytes(self.options.max_answer).await?;
        let bytes = bytes.ok_or_else(|| self.protocol("the result is longer than any of a bulk job"))?;
        self.parse(&bytes).map(Some)
    }

    /// `GET /api/v1/jobs/{id}/output`: the output rows of a bulk job; `None` while it has not ended.
    ///
    /// # Errors
    /// As [`Client::job_result`].
    pub async fn bulk_output(&self, id: &str) -> Result<Option<Download>> {
        let url = self.url(["api", "v1", "jobs", id, "output"]);
        let response = self.open(|| self.http.get(url.clone())).await?;
        Ok((response.status() != StatusCode::ACCEPTED).then(|| Download { client: self.clone(), response }))
    }
}

/// The body of one attempt.
struct Upload {
    reader: tokio::fs::File,
    left: u64,
    sent: u64,
    moved: Arc<Moved>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Upload {
    fn into_stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut upload| async move {
            if upload.left == 0 {
                return Ok(None);
            }
            let want = upload.left.min(CHUNK as u64);
            let mut chunk = Vec::with_capacity(CHUNK);
            (&mut upload.reader).take(want).read_to_end(&mut chunk).await?;
            if (chunk.len() as u64) < want {
                return Err(std::io::Error::other("the file became shorter"));
            }
            upload.left -= want;
            upload.sent += want;
            upload.moved.add(chunk.len());
            (upload.progress)(upload.sent);
            Ok(Some((chunk.into(), upload)))
        })
    }
}
