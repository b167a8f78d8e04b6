//! `POST /v1/files`: the form with `purpose` and `file` (RFC 7578), as OpenAI's clients send it.

use std::io;

use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use multer::{Constraints, Field, Multipart, SizeLimit};
use plinth_net::{Response, UploadStream};
use plinth_types::{Error, Reason, Result};

use super::{MAX_FILE, Said, Uploader, must_fit, record};
use crate::call::Call;
use crate::{Services, jobs, reply};

/// The longest part that is not the file, in bytes.
const MAX_FIELD: u64 = 4096;
/// The most parts.
const MAX_FIELDS: usize = 16;

pub(super) async fn upload(services: Services, call: Call) -> Result<Response> {
    let service = jobs::jobs(&services)?.clone();
    let kind = call.request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(|_| {
        let text = "a file is uploaded as multipart/form-data with the parts 'purpose' and 'file'; PUT /api/v1/files takes the bytes alone";
        Error::new(Reason::UnsupportedEncoding, text).field("Content-Type")
    })?;
    must_fit(call.content_length())?;
    let who = Uploader::of(&call);
    let limits = SizeLimit::new().whole_stream(MAX_FILE.0 + (1 << 20)).per_field(MAX_FIELD).for_field("file", MAX_FILE.0 + 1);
    let mut form = Multipart::with_constraints(call.into_stream(), boundary, Constraints::new().size_limit(limits));
    let (mut stored, mut name, mut content_type) = (None, None, None);
    let (mut purpose, mut keep) = (None, None);
    for _ in 0..MAX_FIELDS {
        let Some(field) = form.next_field().await.map_err(malformed)? else { break };
        match field.name().unwrap_or_default() {
            "file" if stored.is_none() => {
                name = field.file_name().map(str::to_owned);
                content_type = field.content_type().map(ToString::to_string);
                let bytes = field.map(|piece| piece.map_err(carried)).boxed();
                stored = Some(service.blobs().put_stream(bytes, MAX_FILE).await?);
            }
            "purpose" => purpose = Some(text(field).await?),
            "expires_after[seconds]" => {
                let seconds = text(field).await?.parse();
                keep = Some(seconds.map_err(|_| {
                    Error::new(Reason::MalformedRequest, "this is no whole number of seconds").field("expires_after[seconds]")
                })?);
            }
            _ => drop(field),
        }
    }
    let missing = |field: &'static str| Error::new(Reason::MalformedRequest, format!("the form has no part '{field}'")).field(field);
    let stored = stored.ok_or_else(|| missing("file"))?;
    let said = Said {
        name: name.ok_or_else(|| Error::new(Reason::MalformedRequest, "the part 'file' has no file name").field("file"))?,
        purpose: purpose.ok_or_else(|| missing("purpose"))?,
        content_type: content_type.unwrap_or_else(|| "application/octet-stream".into()),
        keep,
    };
    reply::json(&record(&service, &who, said, stored).await?)
}

async fn text(field: Field<'_>) -> Result<String> {
    field.text().await.map_err(malformed)
}

/// An error of the form as one of its stream; one of the upload stays what it is.
fn carried(error: multer::Error) -> io::Error {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<io::Error>() {
            Ok(inner) => *inner,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

fn malformed(error: multer::Error) -> Error {
    match error {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            Error::new(Reason::BodyTooLarge, format!("a file has at most {MAX_FILE}, and what stands beside it at most {MAX_FIELD} bytes"))
        }
        multer::Error::StreamReadFailed(_) => {
            let mut error = carried(error);
            let own = UploadStream::cause(&mut error);
            own.unwrap_or_else(|| Error::new(Reason::UploadIncomplete, "the upload ended early").source(error))
        }
        other => Error::new(Reason::MalformedRequest, format!("the form cannot be read: {other}")).field("body"),
    }
}
