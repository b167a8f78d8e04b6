//! The step itself: a request through its filters, and its answer back through them.
//!
//! In this order: the body is read, where a filter wants it; each filter is called with what those before it have left, and
//! its changes are made, all or none; one may answer itself. An answer goes the other way round, with its body where that is JSON.
//!
//! Invariant: what a filter cannot be given in full it is not given in part: such a request is refused, or that filter is skipped
//! where it says so.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use plinth_filters::Hook;
use plinth_net::{BodyLimits, Request, RequestBody, Response, content_length, read_body};
use plinth_types::{ByteSize, Error, Reason, Result};

use super::body::{Collected, collect};
use super::chain::Chain;
use super::exchange::{self, Asked};
use super::loaded::Loaded;

/// What became of a request.
pub(crate) enum Passed {
    /// It goes on; what is kept of it for its answer.
    On(Request, Asked),
    /// A filter has answered it.
    Answered(Response),
}

/// A request's body.
enum Given {
    /// There is none, or nobody wants it.
    None,
    Whole(Bytes),
    /// Nobody can be given it.
    Not(Reason, &'static str),
}

impl Chain {
    /// Takes a request through.
    ///
    /// # Errors
    /// `filter_failed`, `filter_unavailable`; those of reading the body.
    pub async fn request(&self, route: &str, limits: &BodyLimits, mut request: Request) -> Result<Passed> {
        let asked = Asked { route: route.into(), method: request.method().clone(), uri: request.uri().clone() };
        let mut given = self.read(&mut request, limits).await?;
        let mut changed = matches!(given, Given::Whole(_));
        for filter in self.0.iter().filter(|filter| filter.wants().requests) {
            let body = match body_for(filter, &given) {
                Ok(body) => body,
                Err(error) => {
                    filter.consequence(filter.unread(error))?;
                    continue;
                }
            };
            let had_body = filter.wants().request_bodies;
            let message = exchange::message(&asked, None, request.headers(), filter, body);
            let answer = match filter.call(Hook::Request, &message).await {
                Ok(None) => continue,
                Ok(Some(answer)) => answer,
                Err(trouble) => {
                    filter.consequence(trouble)?;
                    continue;
                }
            };
            let edits = match exchange::edits(&answer) {
                Ok(edits) => edits,
                Err(why) => {
                    filter.consequence(filter.useless(why))?;
                    continue;
                }
            };
            if let Some(status) = answer.status {
                return Ok(Passed::Answered(exchange::own_answer(status, edits, answer.body)));
            }
            if answer.body.is_some() && !had_body {
                filter.consequence(filter.useless("it changes a body that it does not want"))?;
                continue;
            }
            exchange::apply(edits, request.headers_mut());
            if let Some(body) = answer.body {
                (given, changed) = (Given::Whole(body), true);
            }
        }
        if let (Given::Whole(body), true) = (given, changed) {
            exchange::frame(request.headers_mut(), body.len());
            *request.body_mut() = RequestBody::from(body);
        }
        if self.0.iter().any(|filter| filter.wants().response_bodies) {
            // A packed answer could not be read.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        Ok(Passed::On(request, asked))
    }

    /// Reads the body, when a filter wants it and can be given it.
    async fn read(&self, request: &mut Request, limits: &BodyLimits) -> Result<Given> {
        let wanting = self.0.iter().filter(|filter| filter.wants().request_bodies);
        let Some(most) = wanting.map(|filter| filter.max_body()).max() else { return Ok(Given::None) };
        if http_body::Body::is_end_stream(request.body()) || request.headers().contains_key(UPGRADE) {
            return Ok(Given::None);
        }
        if exchange::is_grpc(request.headers()) {
            return Ok(Given::Not(
                Reason::UnsupportedEncoding,
                "a filter of the route reads bodies, and cannot read streams of gRPC messages",
            ));
        }
        if content_length(request.headers()).is_some_and(|length| length > most.0) {
            return Ok(Given::Not(Reason::BodyTooLarge, "the body is larger than a filter of the route takes"));
        }
        let limits = BodyLimits { max: most, ..limits.clone() };
        Ok(Given::Whole(Box::pin(read_body(request, &limits)).await?))
    }

    /// Takes an answer through.
    ///
    /// # Errors
    /// `filter_failed`, `filter_unavailable`; `upstream_failed` when the answer breaks off.
    pub async fn response(&self, asked: &Asked, mut answer: Response) -> Result<Response> {
        let readable = exchange::is_json(answer.headers()) && has_body(&asked.method, answer.status());
        let mut body: Option<Bytes> = None;
        for filter in self.0.iter().rev().filter(|filter| filter.wants().responses) {
            if readable && body.is_none() && filter.wants().response_bodies {
                match self.collected(answer, filter).await? {
                    (whole, Some(bytes)) => (answer, body) = (whole, Some(bytes)),
                    (as_it_was, None) => {
                        answer = as_it_was;
                        continue;
                    }
                }
            }
            let given = body.clone().filter(|_| filter.wants().response_bodies);
            if given.as_ref().is_some_and(|body| body.len() as u64 > filter.max_body().0) {
                filter.consequence(filter.unread(too_large(filter)))?;
                continue;
            }
            let message = exchange::message(asked, Some(answer.status()), answer.headers(), filter, given);
            let change = match filter.call(Hook::Response, &message).await {
                Ok(None) => continue,
                Ok(Some(change)) => change,
                Err(trouble) => {
                    filter.consequence(trouble)?;
                    continue;
                }
            };
            match exchange::edits(&change) {
                Ok(edits) => exchange::apply(edits, answer.headers_mut()),
                Err(why) => {
                    filter.consequence(filter.useless(why))?;
                    continue;
                }
            }
            if let Some(status) = change.status {
                *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            }
            if let Some(new) = change.body {
                answer = with_body(answer, new.clone());
                body = Some(new);
            }
        }
        Ok(answer)
    }

    /// The answer with its body read, or as it was when the filter cannot be given it and is to be skipped.
    async fn collected(&self, answer: Response, filter: &Arc<Loaded>) -> Result<(Response, Option<Bytes>)> {
        if answer.headers().contains_key(CONTENT_ENCODING) {
            let text = "the answer is compressed although it was not to be, so a filter of the route cannot read it";
            filter.consequence(filter.unread(Error::new(Reason::FilterFailed, text)))?;
            return Ok((answer, None));
        }
        let most = self.0.iter().filter(|filter| filter.wants().response_bodies).map(|filter| filter.max_body()).max();
        let (parts, body) = answer.into_parts();
        let broken = |error: std::io::Error| Error::new(Reason::UpstreamFailed, "the answer broke off before it was whole").source(error);
        match collect(body, most.unwrap_or(ByteSize(0)).as_usize()).await.map_err(broken)? {
            Collected::Whole(bytes, body) => {
                let body = body.replaced(bytes.clone());
                Ok((Response::from_parts(parts, body), Some(bytes)))
            }
            Collected::Larger(body) => {
                filter.consequence(filter.unread(too_large(filter)))?;
                Ok((Response::from_parts(parts, body), None))
            }
        }
    }
}

/// The body that a filter gets with a request.
fn body_for(filter: &Loaded, given: &Given) -> Result<Option<Bytes>> {
    if !filter.wants().request_bodies {
        return Ok(None);
    }
    match given {
        Given::None => Ok(None),
        Given::Not(reason, why) => Err(Error::new(*reason, *why)),
        Given::Whole(body) if body.len() as u64 > filter.max_body().0 => {
            let text = format!("the body is larger than {}, the most that a filter of the route takes", filter.max_body());
            Err(Error::new(Reason::BodyTooLarge, text))
        }
        Given::Whole(body) => Ok(Some(body.clone())),
    }
}

fn too_large(filter: &Loaded) -> Error {
    let text = format!("the answer is larger than {}, the most that a filter of the route takes", filter.max_body());
    Error::new(Reason::FilterFailed, text)
}

fn has_body(method: &Method, status: StatusCode) -> bool {
    method != Method::HEAD && !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// Another body under the same guards. What stood for the old one goes.
fn with_body(answer: Response, body: Bytes) -> Response {
    let mut answer = answer.map(|old| old.replaced(body.clone()));
    let headers: &mut HeaderMap = answer.headers_mut();
    exchange::frame(headers, body.len());
    headers.remove(ETAG);
    answer
}
