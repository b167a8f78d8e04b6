//! Submitting: `POST /api/v1/jobs`, and any inference with `Prefer: respond-async` (RFC 7240).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use plinth_client::wire::jobs as wire;
use plinth_jobs::{Input, JobRequest, META_TYPE, Meta, ScheduleRequest};
use plinth_net::Response;
use plinth_types::{Error, ModelName, Reason, Result, VersionNumber};
use serde_json::value::RawValue;

use super::infer_kind;
use crate::Services;
use crate::call::Call;
use crate::oip::HEADER_LENGTH;
use crate::reply;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The parts of a job's JSON that are not about when and how it runs.
const OWN: [&str; 4] = ["input", "model", "version", "http"];

pub(super) async fn submit(services: Services, mut call: Call) -> Result<Response> {
    super::jobs(&services)?;
    let key = key(call.request.headers())?;
    let body = call.body().await?;
    let asked = parse(&body)?;
    for (at, (_, input)) in asked.iter().enumerate() {
        if let Some(model) = infer_kind::model(&input.meta) {
            call.principal.must_use(&model).map_err(|error| error.field(format!("jobs[{at}].model")))?;
        }
    }
    answer(&services, &call, key.as_deref(), asked, false).await
}

/// Whether a request asks to be answered later.
pub(crate) fn wants_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|preference| {
        let word = preference.split([';', '=']).next().unwrap_or_default().trim();
        word.eq_ignore_ascii_case("respond-async")
    })
}

/// Makes a job of an inference that asks to be answered later.
///
/// # Errors
/// As those of a submission.
pub async fn respond_async(services: &Services, mut call: Call, model: ModelName, version: Option<VersionNumber>) -> Result<Response> {
    super::jobs(services)?;
    let key = key(call.request.headers())?;
    let length = crate::oip::request::header_length(call.request.headers())?;
    let kind = if length.is_some() { "application/octet-stream" } else { META_TYPE };
    let bytes = call.body().await?;
    let mut meta = Meta::of(kind);
    infer_kind::name(&mut meta, &model, version, length);
    let request = inference(&model);
    answer(services, &call, key.as_deref(), vec![(request, Input { meta, bytes })], true).await
}

/// A request for an inference, of its label and kind alone.
fn inference(model: &ModelName) -> JobRequest {
    let mut request = JobRequest { kind: infer_kind::KIND.into(), ..JobRequest::default() };
    request.labels.insert(super::MODEL_LABEL.into(), model.to_string());
    request
}

async fn answer(services: &Services, call: &Call, key: Option<&str>, asked: Vec<(JobRequest, Input)>, preferred: bool) -> Result<Response> {
    let jobs = super::jobs(services)?;
    let submitted = jobs.submit(&call.principal.tenant, &call.principal.actor(), key, asked).await?;
    let ids: Vec<String> = submitted.ids.iter().map(ToString::to_string).collect();
    let first = ids.first().cloned().unwrap_or_default();
    let place = format!("/api/v1/jobs/{first}");
    let mut response = reply::json_with(StatusCode::ACCEPTED, &wire::Submitted { id: first, ids, replayed: submitted.replayed })?;
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::from_str(&place) {
        headers.insert(LOCATION, place);
    }
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    if preferred {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    }
    Ok(response)
}

/// The idempotency key, when there is one. (draft-ietf-httpapi-idempotency-key-header-07: a string, with or without its quotes.)
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let invalid = |text: &str| Error::new(Reason::IdempotencyKeyInvalid, text).field("Idempotency-Key");
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("a request has one idempotency key"));
    }
    let text = value.to_str().map_err(|_| invalid("an idempotency key is printable ASCII"))?;
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    Ok(Some(bare.to_owned()))
}

/// One job, or several under `jobs`.
fn parse(body: &Bytes) -> Result<Vec<(JobRequest, Input)>> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).map_err(|error| malformed("body", &error))?;
    let Some(list) = fields.get("jobs") else { return Ok(vec![one(body, fields, 0)?]) };
    if fields.len() > 1 {
        return Err(Error::new(Reason::MalformedRequest, "'jobs' stands alone: what holds for a job stands in the job").field("jobs"));
    }
    let list: Vec<BTreeMap<String, &RawValue>> = serde_json::from_str(list.get()).map_err(|error| malformed("jobs", &error))?;
    list.into_iter().enumerate().map(|(at, fields)| one(body, fields, at)).collect()
}

fn malformed(field: &str, error: &serde_json::Error) -> Error {
    Error::new(Reason::MalformedRequest, format!("the body is not what this route takes: {error}")).field(field)
}

fn one(body: &Bytes, fields: BTreeMap<String, &RawValue>, at: usize) -> Result<(JobRequest, Input)> {
    let (own, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = fields.into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
    let rest = serde_json::to_string(&rest).map_err(|error| malformed("body", &error))?;
    let mut request: JobRequest = serde_json::from_str(&rest).map_err(|error| malformed(&format!("jobs[{at}]"), &error))?;
    let field = |name: &str| format!("jobs[{at}].{name}");
    let read = |name: &str| own.get(name).copied();
    // The bytes as they came, so that an inference sees what its caller wrote.
    let bytes = read("input").map_or_else(Bytes::new, |input| body.slice_ref(input.get().as_bytes()));
    let mut meta = Meta::of(META_TYPE);
    match request.kind.as_str() {
        infer_kind::KIND => {
            let missing = || Error::new(Reason::MalformedRequest, "an inference names its 'model'").field(field("model"));
            let model: ModelName = serde_json::from_str(read("model").ok_or_else(missing)?.get()).map_err(|error| {
                Error::new(Reason::InvalidName, format!("this is not the name of a model: {error}")).field(field("model"))
            })?;
            let version = match read("version").map(RawValue::get) {
                None | Some("null") => None,
                Some(text) => Some(text.trim_matches('"').parse::<VersionNumber>().map_err(|error| {
                    Error::new(Reason::InvalidName, format!("this is not the number of a version: {error}")).field(field("version"))
                })?),
            };
            infer_kind::name(&mut meta, &model, version, None);
            request.labels.insert(super::MODEL_LABEL.into(), model.to_string());
        }
        "http" => {
            let target = read("http").map_or(Ok(serde_json::Map::new()), |target| serde_json::from_str(target.get()));
            meta.more = target.map_err(|error| malformed(&field("http"), &error))?;
        }
        _ => {}
    }
    let stray = own.keys().find(|name| match name.as_str() {
        "model" | "version" => request.kind != infer_kind::KIND,
        "http" => request.kind != "http",
        _ => false,
    });
    if let Some(name) = stray {
        let text = format!("jobs of kind '{}' have no '{name}'", request.kind);
        return Err(Error::new(Reason::MalformedRequest, text).field(field(name)));
    }
    Ok((request, Input { meta, bytes }))
}

/// A schedule: its `job` and `input` are read like those of a submission.
pub(super) fn schedule(body: &Bytes) -> Result<ScheduleRequest> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).map_err(|error| malformed("body", &error))?;
    let missing = || Error::new(Reason::MalformedRequest, "a schedule names the 'job' that it submits").field("job");
    let job = fields.remove("job").ok_or_else(missing)?;
    let mut job: BTreeMap<String, &RawValue> = serde_json::from_str(job.get()).map_err(|error| malformed("job", &error))?;
    let input = fields.remove("input");
    job.extend(input.map(|input| ("input".to_owned(), input)));
    let (request, read) = one(body, job, 0).map_err(|error| {
        let field = error.field_name().map_or_else(|| "job".to_owned(), |field| field.replace("jobs[0]", "job"));
        error.field(field)
    })?;
    let rest = serde_json::to_string(&fields).map_err(|error| malformed("body", &error))?;
    let mut schedule: ScheduleRequest = serde_json::from_str(&rest).map_err(|error| malformed("body", &error))?;
    schedule.job = request;
    schedule.more = read.meta.more;
    schedule.input = input.map(ToOwned::to_owned);
    Ok(schedule)
}

/// The names of headers that an inference's result carries.
pub(super) fn with_meta(meta: &Meta, bytes: Bytes) -> Response {
    let mut response = Response::new(plinth_net::Body::full(bytes));
    if let Ok(kind) = HeaderValue::from_str(&meta.content_type) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if let Some(length) = infer_kind::header_length(meta) {
        response.headers_mut().insert(HeaderName::from_static(HEADER_LENGTH), length.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_found_among_others() {
        let wants = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, value.parse().unwrap());
            }
            wants_async(&headers)
        };
        assert!(wants(&["respond-async"]) && wants(&["wait=10, Respond-Async"]) && wants(&["return=minimal", "respond-async;x=1"]));
        assert!(!wants(&[]) && !wants(&["wait=10"]) && !wants(&["respond-asynchronously"]));
    }

    #[test]
    fn jobs_are_read_alone_and_together() {
        let read = |text: &str| parse(&Bytes::copy_from_slice(text.as_bytes()));
        let one = read(r#"{"kind":"infer","model":"digits","version":"2","input":{ "inputs": [] },"priority":3}"#).unwrap();
        let (request, input) = &one[0];
        assert_eq!((request.kind.as_str(), request.priority, &input.bytes[..]), ("infer", 3, &br#"{ "inputs": [] }"#[..]));
        assert_eq!(request.labels.get("model").map(String::as_str), Some("digits"));
        assert_eq!(infer_kind::model(&input.meta).unwrap().as_str(), "digits");
        assert_eq!(read(r#"{"jobs":[{"kind":"a"},{"kind":"http","http":{"url":"http://x"}}]}"#).unwrap().len(), 2);
        for (bad, field) in [
            ("[]", "body"),
            (r#"{"kind":"infer"}"#, "jobs[0].model"),
            (r#"{"kind":"infer","model":"../x"}"#, "jobs[0].model"),
            (r#"{"kind":"infer","model":"m","version":"x"}"#, "jobs[0].version"),
            (r#"{"kind":"a","model":"m"}"#, "jobs[0].model"),
            (r#"{"kind":"a","prio":1}"#, "jobs[0]"),
            (r#"{"jobs":[{"kind":"a"},{"kind":1}]}"#, "jobs[1]"),
            (r#"{"jobs":[],"kind":"a"}"#, "jobs"),
        ] {
            assert_eq!(read(bad).unwrap_err().field_name(), Some(field), "{bad}");
        }
    }
}
