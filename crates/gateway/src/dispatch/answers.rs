//! Good answers that were given before, for when nobody can give a new one.
//!
//! Invariants: bounded by bytes; an answer belongs to one route of one tenant, one method, one path with its query and one
//! body, so nobody gets another's; only whole 200s of moderate size are kept, without cookies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use plinth_net::{Body, Response};
use plinth_runtime::World;
use plinth_types::{ByteSize, Digest, DigestHasher};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::replay::Replay;
use crate::routes::Route;

/// What they may take.
#[derive(Debug, Clone, Copy)]
pub struct AnswersOptions {
    /// All of them together.
    pub memory: ByteSize,
    /// One of them.
    pub max: ByteSize,
}

impl Default for AnswersOptions {
    fn default() -> Self {
        Self { memory: ByteSize::mib(64), max: ByteSize::mib(1) }
    }
}

#[derive(Clone)]
struct Kept {
    at: Duration,
    kind: Option<HeaderValue>,
    body: Bytes,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Digest, Arc<Kept>> for ByBytes {
    fn weight(&self, _: &Digest, kept: &Arc<Kept>) -> u64 {
        kept.body.len() as u64 + 256
    }
}

/// The answers.
pub struct Answers {
    cache: Cache<Digest, Arc<Kept>, ByBytes>,
    max: usize,
}

impl Answers {
    pub fn new(options: AnswersOptions) -> Self {
        let items = usize::try_from(options.memory.0 / 4096).unwrap_or(1 << 20).max(16);
        Self { cache: Cache::with_weighter(items, options.memory.0, ByBytes), max: options.max.as_usize() }
    }

    fn key(route: &Route, asked: &Replay) -> Digest {
        let mut hasher = DigestHasher::new();
        for part in
            [route.tenant.as_str(), route.name.as_str(), asked.method.as_str(), asked.uri.path_and_query().map_or("", |p| p.as_str())]
        {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&asked.body);
        hasher.finish()
    }

    /// Keeps an answer, if it is one to keep.
    pub fn keep(&self, route: &Route, asked: &Replay, answer: &Response, world: &World) {
        // One that is compressed is for whoever asked for that.
        if answer.status() != StatusCode::OK || [SET_COOKIE, CONTENT_ENCODING].iter().any(|name| answer.headers().contains_key(name)) {
            return;
        }
        let Some(pieces) = answer.body().pieces() else { return };
        if pieces.iter().map(Bytes::len).sum::<usize>() > self.max {
            return;
        }
        let body: Bytes = if let [one] = &pieces[..] { one.clone() } else { pieces.concat().into() };
        let kept = Kept { at: world.clock.monotonic(), kind: answer.headers().get(CONTENT_TYPE).cloned(), body };
        self.cache.insert(Self::key(route, asked), Arc::new(kept));
    }

    /// An answer to the same that is not older than `age`.
    pub fn find(&self, route: &Route, asked: &Replay, age: Duration, world: &World) -> Option<Response> {
        let kept = self.cache.get(&Self::key(route, asked))?;
        let old = world.clock.monotonic().saturating_sub(kept.at);
        if old > age {
            return None;
        }
        let mut answer = Response::new(Body::full(kept.body.clone()));
        if let Some(kind) = &kept.kind {
            answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        answer.headers_mut().insert(http::header::AGE, old.as_secs().into());
        Some(answer)
    }
}
