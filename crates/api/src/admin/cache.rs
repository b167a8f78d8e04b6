//! Warming the response cache: inferences from a list, executed as if their callers had come, a few at a time.
//!
//! Invariants: what is warmed belongs to the tenant of the key; an inference goes the way of every other, with its checks, limits
//! and counts; one call ends in about the time that one request may take, and says how many of the list's last it has not tried.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use plinth_client::wire;
use plinth_net::Response;
use plinth_serving::CacheUse;
use plinth_types::{Error, Reason, Result};
use serde_json::value::RawValue;

use crate::Services;
use crate::call::Call;
use crate::oip::InferCall;
use crate::oip::execute::{Target, execute};
use crate::reply;

/// The most requests of one call.
const MAX_REQUESTS: usize = 1000;
/// Inferences at the same time: those of callers go first.
const AT_ONCE: usize = 2;
/// The most failures that are told in full.
const MAX_FAILURES: usize = 10;
/// JSON above this size, in bytes, is read on a blocking thread.
const INLINE_JSON: usize = 256 << 10;

/// How one request of the list ended.
enum End {
    Computed,
    Present,
    /// It was answered, but answers are not kept.
    NotKept,
    Failed(Error),
    Skipped,
}

pub async fn warm(services: Services, mut call: Call) -> Result<Response> {
    let (tenant, model) = (call.principal.tenant.clone(), call.model()?);
    let list = list(call.body().await?).await?;
    let target = Target { tenant, model, version: list.version, deadline: services.settings.request_timeout, trace: None };
    target.ready(&services).await?;
    let start = services.world.clock.monotonic();
    let stop = AtomicBool::new(false);
    let late = || services.world.clock.monotonic().saturating_sub(start) > services.settings.request_timeout;
    let (services, target, stop, late) = (&services, &target, &stop, &late);
    let ends = stream::iter(list.requests.into_iter().enumerate()).map(|(number, request)| async move {
        // Started in order, so what is skipped is the end of the list.
        if stop.load(Ordering::Relaxed) || late() {
            return (number, End::Skipped);
        }
        let end = one(services, target, &request).await.unwrap_or_else(End::Failed);
        if matches!(end, End::NotKept) {
            stop.store(true, Ordering::Relaxed);
        }
        (number, end)
    });
    let mut warmed = wire::WarmedCache { kept: true, ..wire::WarmedCache::default() };
    let mut ends = std::pin::pin!(ends.buffer_unordered(AT_ONCE));
    while let Some((number, end)) = ends.next().await {
        match end {
            End::Computed => warmed.computed += 1,
            End::Present => warmed.present += 1,
            End::NotKept => {
                warmed.kept = false;
                warmed.skipped += 1;
            }
            End::Skipped => warmed.skipped += 1,
            End::Failed(error) => {
                warmed.failed += 1;
                warmed.failures.push(wire::WarmFailure {
                    request: number as u64,
                    reason: error.reason().slug().to_owned(),
                    detail: error.public_text().to_owned(),
                    field: error.field_name().map(str::to_owned),
                });
                warmed.failures.sort_by_key(|failure| failure.request);
                warmed.failures.truncate(MAX_FAILURES);
            }
        }
    }
    reply::json(&warmed)
}

async fn list(body: Bytes) -> Result<wire::WarmCache> {
    let read = |body: &[u8]| {
        let list = serde_json::from_slice(body);
        list.map_err(|e| Error::new(Reason::MalformedRequest, format!("the body is not what this route takes: {e}")).field("body"))
    };
    let list: wire::WarmCache = if body.len() <= INLINE_JSON { read(&body)? } else { blocking(move || read(&body)).await? };
    if list.requests.len() > MAX_REQUESTS {
        let text = format!("one call warms at most {MAX_REQUESTS} requests, this one has {}; send several calls", list.requests.len());
        return Err(Error::new(Reason::MalformedRequest, text).field("requests"));
    }
    Ok(list)
}

async fn one(services: &Services, target: &Target, request: &RawValue) -> Result<End> {
    let text = Bytes::copy_from_slice(request.get().as_bytes());
    let parse = move || InferCall::parse(&text, None);
    let mut asked = if request.get().len() <= INLINE_JSON { parse()? } else { blocking(parse).await? };
    if asked.sequence.is_some() {
        let text = "a request of a sequence depends on those before it, so its answer is not kept; leave it out of the list";
        return Err(Error::new(Reason::InvalidSequence, text).field("parameters.sequence_id"));
    }
    if !asked.shared.is_empty() || asked.outputs.iter().any(|output| output.place.is_some()) {
        let text = "a list for the cache cannot name shared memory; put the values into the request";
        return Err(Error::new(Reason::InvalidSharedMemory, text).field("inputs"));
    }
    let answer = execute(services, target, &mut asked).await?;
    Ok(match answer.cache {
        CacheUse::Hit => End::Present,
        CacheUse::Miss => End::Computed,
        CacheUse::Off => End::NotKept,
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("JSON of a list for the cache").source(e))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lists_are_bounded_and_strict() {
        let good = br#"{"requests": [{"inputs": []}, {"inputs": [1]}], "version": 3}"#;
        let read = list(Bytes::from_static(good)).await.unwrap();
        assert_eq!((read.requests.len(), read.version.map(|v| v.get())), (2, Some(3)));
        for bad in [&b""[..], b"[]", b"{}", b"{\"requests\": {}}", b"{\"requests\": [], \"verison\": 1}", b"{\"requests\": [,]}"] {
            assert_eq!(list(Bytes::from_static(bad)).await.unwrap_err().reason(), Reason::MalformedRequest);
        }
        for count in [MAX_REQUESTS, MAX_REQUESTS + 1] {
            let body = format!("{{\"requests\": [{}]}}", vec!["{}"; count].join(","));
            assert_eq!(list(body.into()).await.is_ok(), count == MAX_REQUESTS);
        }
        // Read on another thread, with the same result.
        let long = format!("{{\"requests\": [\"{}\"]}}", "x".repeat(INLINE_JSON));
        assert_eq!(list(long.into()).await.unwrap().requests.len(), 1);
    }
}
