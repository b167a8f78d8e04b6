//! Files that jobs read and write: uploaded once, named by an id, kept for a while.
//!
//! The shape is that of OpenAI's files endpoints (`/v1/files`), and the same under `/api/v1/files` with a plain `PUT` beside the form. The bytes are
//! in the object store of jobs, under their digest. The record of a file is a job of kind `file` that is due when the file expires: so it is as
//! durable as jobs are, on every node of a cluster and without a table of its own. A file is there while that job waits; deleting the file cancels
//! the job, and expiry is its running.
//!
//! Invariants: memory does not grow with a file; a file's record is stored after its bytes; a record is written by these routes alone (what it says
//! stands beside the job's input, which no caller can write), so nobody reads bytes by guessing a digest; another tenant's file does not exist.

mod form;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use plinth_client::wire::files as wire;
use plinth_jobs::{Handler, Input, JobContext, JobError, JobRequest, JobService, META_TYPE, Meta, Output};
use plinth_net::{Access, Response, Route};
use plinth_policy::jobs::State;
use plinth_queue::jobs::{Job, JobId, ListJobs};
use plinth_store::objects::ByteStream;
use plinth_types::{ByteSize, Digest, Error, Reason, Result, TenantName};
use serde_json::{Map, Value};

use crate::call::{Call, Context, route};
use crate::{Services, jobs, reply};

/// The kind of the job that is a file's record.
pub const KIND: &str = "file";

/// What every file's id begins with.
const PREFIX: &str = "file-";
/// The largest file.
pub(crate) const MAX_FILE: ByteSize = ByteSize(16 << 30);
/// How long a file is kept when nobody says.
const KEEP_SECONDS: f64 = 30.0 * 86_400.0;
/// Bounds of what can be said, as OpenAI has them but for the upper one.
const KEPT_SECONDS: std::ops::RangeInclusive<u64> = 3600..=365 * 86_400;
/// The longest name, purpose or content type, in bytes.
const MAX_WORD: usize = 255;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// What its uploader calls it.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The digest of its bytes.
    pub digest: Digest,
    /// What it is for, in the uploader's word.
    pub purpose: String,
    /// What it is.
    pub content_type: String,
}

impl Stored {
    fn write(&self) -> Map<String, Value> {
        let mut more = Map::new();
        more.insert("name".into(), self.name.as_str().into());
        more.insert("bytes".into(), self.bytes.into());
        more.insert("digest".into(), self.digest.to_string().into());
        more.insert("purpose".into(), self.purpose.as_str().into());
        more.insert("file_type".into(), self.content_type.as_str().into());
        more
    }

    /// What [`Stored::write`] wrote; `None` for a job that only calls itself a file.
    fn read(more: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| more.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            name: text("name")?,
            bytes: more.get("bytes")?.as_u64()?,
            digest: text("digest")?.parse().ok()?,
            purpose: text("purpose")?,
            content_type: text("file_type")?,
        })
    }
}

/// The kind of files' records: running is expiring.
struct FileKind;

/// The handler of the kind.
#[must_use]
pub fn kind() -> Arc<dyn Handler> {
    Arc::new(FileKind)
}

#[async_trait]
impl Handler for FileKind {
    async fn run(&self, _: Input, _: &JobContext) -> Result<Output, JobError> {
        Output::json(&Value::Null)
    }
}

/// The routes of files.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::Infer;
    macro_rules! routes {
        ($($method:ident $pattern:literal $name:literal => $handler:path;)*) => {
            vec![$(route(services, Method::$method, $pattern, Infer, $name, $handler)),*]
        };
    }
    routes! {
        POST "/v1/files" "files.upload" => form::upload;
        GET "/v1/files" "files.list" => list;
        GET "/v1/files/{file}" "files.show" => one;
        GET "/v1/files/{file}/content" "files.content" => content;
        DELETE "/v1/files/{file}" "files.delete" => delete;
        PUT "/api/v1/files" "files.put" => put;
        GET "/api/v1/files" "files.list" => list;
        GET "/api/v1/files/{file}" "files.show" => one;
        GET "/api/v1/files/{file}/content" "files.content" => content;
        DELETE "/api/v1/files/{file}" "files.delete" => delete;
    }
}

/// What an upload says beside the bytes.
pub(crate) struct Said {
    /// What the file is called.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// What it is.
    pub content_type: String,
    /// For how long, in seconds.
    pub keep: Option<u64>,
}

/// The caller of an upload.
pub(crate) struct Uploader {
    /// Whose the file is.
    pub tenant: TenantName,
    /// Who uploads it.
    pub actor: String,
}

impl Uploader {
    fn of(call: &Call) -> Self {
        Self { tenant: call.principal.tenant.clone(), actor: call.principal.actor() }
    }
}

/// Records a file whose bytes are stored.
pub(crate) async fn record(service: &JobService, who: &Uploader, said: Said, (digest, bytes): (Digest, u64)) -> Result<wire::File> {
    let word = |field: &'static str, text: &str| {
        let fits = (1..=MAX_WORD).contains(&text.len()) && !text.chars().any(char::is_control);
        let refusal = || Error::new(Reason::MalformedRequest, format!("it has 1 to {MAX_WORD} bytes and no control characters"));
        if fits { Ok(()) } else { Err(refusal().field(field)) }
    };
    word("name", &said.name)?;
    word("purpose", &said.purpose)?;
    word("content_type", &said.content_type)?;
    if said.keep.is_some_and(|seconds| !KEPT_SECONDS.contains(&seconds)) {
        let text = format!("a file is kept for {} to {} seconds", KEPT_SECONDS.start(), KEPT_SECONDS.end());
        return Err(Error::new(Reason::MalformedRequest, text).field("expires_after"));
    }
    let stored = Stored { name: said.name, bytes, digest, purpose: said.purpose, content_type: said.content_type };
    let request = JobRequest {
        kind: KIND.into(),
        class: Some("background".into()),
        delay_seconds: Some(said.keep.map_or(KEEP_SECONDS, |seconds| seconds as f64)),
        keep_seconds: Some(0.0),
        ..JobRequest::default()
    };
    let input = Input { meta: Meta { more: stored.write(), ..Meta::of(META_TYPE) }, bytes: bytes::Bytes::new() };
    let submitted = service.submit(&who.tenant, &who.actor, None, vec![(request, input)]).await?;
    let id = submitted.ids.first().copied().ok_or_else(|| Error::internal("a file without a record"))?;
    let job = service.get(&who.tenant, id).await?;
    Ok(shown(&job, &stored))
}

fn shown(job: &Job, stored: &Stored) -> wire::File {
    wire::File {
        id: format!("{PREFIX}{}", job.id),
        object: "file".into(),
        bytes: stored.bytes,
        created_at: job.created_at.millis() / 1000,
        expires_at: Some(job.run_at.millis() / 1000),
        filename: stored.name.clone(),
        purpose: stored.purpose.clone(),
        status: "processed".into(),
        digest: Some(stored.digest.to_string()),
        content_type: Some(stored.content_type.clone()),
    }
}

/// A file by its id.
///
/// # Errors
/// [`Reason::RecordNotFound`], [`Reason::StoreUnavailable`].
pub(crate) async fn find(service: &JobService, tenant: &TenantName, id: &str) -> Result<Stored> {
    look(service, tenant, id).await.map(|(_, stored)| stored)
}

async fn look(service: &JobService, tenant: &TenantName, id: &str) -> Result<(Job, Stored)> {
    let missing = || Error::new(Reason::RecordNotFound, "there is no such file; files are forgotten when they expire").field("file");
    let record: JobId = id.strip_prefix(PREFIX).and_then(|id| id.parse().ok()).ok_or_else(missing)?;
    let job = match service.get(tenant, record).await {
        Err(error) if error.reason() == Reason::JobNotFound => return Err(missing()),
        other => other?,
    };
    if job.kind != KIND || job.state != State::Scheduled {
        return Err(missing());
    }
    let (meta, _) = service.input(tenant, record).await?;
    Stored::read(&meta.more).map(|stored| (job, stored)).ok_or_else(missing)
}

/// `PUT /api/v1/files?name=&purpose=&keep_seconds=`: the bytes and nothing else.
async fn put(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?.clone();
    let missing = || Error::new(Reason::MalformedRequest, "say what the file is called: ?name=rows.jsonl").field("name");
    let seconds = |text: String| {
        text.parse().map_err(|_| Error::new(Reason::MalformedRequest, "this is no whole number of seconds").field("keep_seconds"))
    };
    let kind = call.request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let said = Said {
        name: call.query("name").ok_or_else(missing)?,
        purpose: call.query("purpose").unwrap_or_else(|| "batch".into()),
        content_type: kind.unwrap_or("application/octet-stream").to_owned(),
        keep: call.query("keep_seconds").map(seconds).transpose()?,
    };
    must_fit(call.content_length())?;
    let who = Uploader::of(&call);
    let stored = service.blobs().put_stream(call.into_stream(), MAX_FILE).await?;
    reply::json_with(http::StatusCode::CREATED, &record(&service, &who, said, stored).await?)
}

/// Refuses what says of itself that it is too long.
fn must_fit(length: Option<u64>) -> Result<()> {
    if length.is_some_and(|length| length > MAX_FILE.0 + (1 << 20)) {
        return Err(Error::new(Reason::BodyTooLarge, format!("a file has at most {MAX_FILE}")));
    }
    Ok(())
}

async fn one(services: Services, call: Call) -> Result<Response> {
    let id: String = call.param("file")?;
    let (job, stored) = look(jobs::jobs(&services)?, &call.principal.tenant, &id).await?;
    reply::json(&shown(&job, &stored))
}

async fn content(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let id: String = call.param("file")?;
    let stored = find(service, &call.principal.tenant, &id).await?;
    let reader = service.blobs().open(&stored.digest).await?;
    let stream: ByteStream<'static> = reader.stream;
    let mut response = reply::stream(reader.size, stream);
    // Never shown by a browser as what its uploader says it is.
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

/// `?limit=&after=&purpose=`: newest first.
async fn list(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let page = call.page("after")?;
    let before = page.after.as_deref().map(|id| id.strip_prefix(PREFIX).unwrap_or(id).parse::<JobId>()).transpose();
    let before = before.map_err(|error| Error::new(Reason::MalformedRequest, error.to_string()).field("after"))?;
    let tenant = call.principal.tenant.clone();
    let purpose = call.query("purpose");
    let (kind, state) = (Some(KIND.to_owned()), Some(State::Scheduled));
    let query = ListJobs { tenant: tenant.clone(), kind, state, parent: None, label: None, before, limit: page.limit };
    let found = service.list(&query).await?;
    let has_more = found.len() == page.limit as usize;
    let mut data = Vec::with_capacity(found.len());
    for job in found {
        match service.input(&tenant, job.id).await {
            Ok((meta, _)) => data.extend(Stored::read(&meta.more).map(|stored| shown(&job, &stored))),
            // Forgotten since the list was read.
            Err(error) if error.reason() == Reason::JobNotFound => {}
            Err(error) => return Err(error),
        }
    }
    data.retain(|file| purpose.as_ref().is_none_or(|purpose| file.purpose == *purpose));
    let id = |file: Option<&wire::File>| file.map(|file| file.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    reply::json(&wire::FileList { object: "list".into(), data, has_more, first_id, last_id })
}

async fn delete(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?;
    let id: String = call.param("file")?;
    let (job, _) = look(service, &call.principal.tenant, &id).await?;
    service.cancel(&call.principal.tenant, job.id).await?;
    reply::json(&wire::FileDeleted { id, object: "file".into(), deleted: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let digest = Digest::of(b"x");
        let stored = Stored { name: "ä.jsonl".into(), bytes: 7, digest, purpose: "batch".into(), content_type: "text/csv".into() };
        assert_eq!(Stored::read(&stored.write()), Some(stored));
        assert_eq!(Stored::read(&Map::new()), None);
    }
}
