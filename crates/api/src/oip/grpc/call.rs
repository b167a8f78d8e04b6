//! A call as all methods see it: what its metadata say, its one message or its stream of them, and its time.
//!
//! Source: gRPC over HTTP2, "Requests".

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use plinth_identity::Principal;
use plinth_net::messages::{self, PREFIX, prefix};
use plinth_net::{Access, Body, BodyLimits, Coding, Messages, Response, Route};
use plinth_types::{ByteSize, Error, Reason, Result};
use prost::Message;

use super::status;
use crate::call::{Call, route};
use crate::{Context, Services};

pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The largest message of a method that carries no tensors. Its parts cost more in memory than on the wire.
const MAX_CONTROL: ByteSize = ByteSize::mib(4);

/// The longest deadline that is kept; a longer one counts as this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What the head of a call says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// How its messages are compressed, where they are.
    pub coding: Option<Coding>,
    /// How its answers may be compressed: as the call, when the client takes that.
    pub reply: Option<Coding>,
    /// How long the client waits from now on.
    pub timeout: Option<Duration>,
}

impl Head {
    /// Reads the head, and refuses what is no gRPC.
    fn read(version: Version, headers: &HeaderMap) -> Result<Self> {
        if version < Version::HTTP_2 {
            return Err(Error::new(Reason::NotImplemented, "gRPC needs HTTP/2; the HTTP routes are on another port"));
        }
        let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if !matches!(kind.split_once([';', '+']).map_or(kind, |(kind, _)| kind).trim(), "application/grpc") || kind.contains("+json") {
            let text = "this port speaks gRPC with protobuf: the content type must be application/grpc";
            return Err(Error::new(Reason::UnsupportedEncoding, text).field("content-type"));
        }
        let coding = match headers.get(&ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity" | b"") => None,
            Some(name) => {
                let named = std::str::from_utf8(name).ok().and_then(Coding::named);
                let text = "this grpc-encoding is not understood; send gzip, deflate or identity";
                Some(named.ok_or_else(|| Error::new(Reason::UnsupportedEncoding, text).field("grpc-encoding"))?)
            }
        };
        let accepted = |coding: &Coding| {
            let values = headers.get_all(&ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|name| name.trim() == coding.as_str())
        };
        Ok(Self { coding, reply: coding.filter(accepted), timeout: headers.get(&TIMEOUT).map(timeout).transpose()? })
    }
}

/// A `grpc-timeout`: one to eight digits and a unit.
fn timeout(value: &HeaderValue) -> Result<Duration> {
    let wrong =
        || Error::new(Reason::MalformedRequest, "grpc-timeout must be up to 8 digits and one of H, M, S, m, u, n").field("grpc-timeout");
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let time = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    };
    Ok(time.min(LONGEST))
}

/// A route whose handler reads and answers in its own way. Its deadline ends it; a streamed answer keeps its own.
pub(super) fn calls<F, Fut>(services: &Services, pattern: &'static str, access: Access, name: &'static str, handler: F) -> Route<Context>
where
    F: Fn(Services, Call, Head) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    route(services, Method::POST, pattern, access, name, move |services, call| async move {
        let head = Head::read(call.request.version(), call.request.headers())?;
        let work = handler(services, call, head);
        match head.timeout {
            None => work.await,
            Some(time) => tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(too_late())),
        }
    })
}

/// A route from one small message to another.
pub(super) fn unary<Q, A, F, Fut>(
    services: &Services,
    pattern: &'static str,
    access: Access,
    name: &'static str,
    handler: F,
) -> Route<Context>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Fn(Services, Principal, Q) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<A>> + Send + 'static,
{
    calls(services, pattern, access, name, move |services, mut call, head| async move {
        let limits = control_limits(&services);
        let message = one_message(&mut call, &head, &limits).await?;
        let request = Q::decode(message).map_err(|e| malformed(&e))?;
        let answer = handler(services, call.principal, request).await?;
        reply(vec![framed(&answer)?], head.reply).await
    })
}

/// The limits of messages without tensors.
pub(super) fn control_limits(services: &Services) -> BodyLimits {
    let mut limits = services.settings.grpc.message.clone();
    limits.max = ByteSize(limits.max.0.min(MAX_CONTROL.0));
    limits
}

/// The message of a call that has one.
pub(super) async fn one_message(call: &mut Call, head: &Head, limits: &BodyLimits) -> Result<Bytes> {
    let body = std::mem::take(call.request.body_mut());
    let packed = Messages::new(body, head.coding, limits.clone()).only().await?;
    packed.open(limits).await
}

/// A message that is not what the method takes.
pub(super) fn malformed(error: &prost::DecodeError) -> Error {
    Error::new(Reason::MalformedRequest, format!("malformed request: {error}"))
}

/// The client's deadline passed.
pub(super) fn too_late() -> Error {
    Error::new(Reason::DeadlineExceeded, "the call's deadline passed")
}

/// A small message with its prefix.
pub(super) fn framed(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.extend_from_slice(&prefix(false, length)?);
    message.encode(&mut bytes).map_err(|e| Error::internal("writing a message").source(e))?;
    Ok(bytes.into())
}

/// The answer of a call that has one message, whose prefix stands before it already.
pub(super) async fn reply(pieces: Vec<Bytes>, coding: Option<Coding>) -> Result<Response> {
    let pieces = match coding {
        None => pieces,
        Some(coding) => messages::compressed(coding, pieces).await?,
    };
    let compressed = coding.filter(|_| pieces.first().and_then(|piece| piece.first()) == Some(&1));
    let mut answer = status::accept(Body::chain(pieces).with_trailers(status::good()));
    if let Some(coding) = compressed {
        answer.headers_mut().insert(ENCODING, HeaderValue::from_static(coding.as_str()));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(headers: &[(&'static str, &str)]) -> Result<Head, Reason> {
        let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        Head::read(Version::HTTP_2, &pairs.collect()).map_err(|e| e.reason())
    }

    #[test]
    fn a_head_is_grpc_or_refused() {
        let grpc = ("content-type", "application/grpc");
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(head(&[("content-type", kind)]).is_ok(), "{kind}");
        }
        for kind in ["", "application/json", "application/grpc-web", "application/grpc+json"] {
            assert_eq!(head(&[("content-type", kind)]).err(), Some(Reason::UnsupportedEncoding), "{kind}");
        }
        assert_eq!(Head::read(Version::HTTP_11, &HeaderMap::new()).unwrap_err().reason(), Reason::NotImplemented);
        let read = head(&[grpc, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, gzip")]).unwrap();
        assert_eq!((read.coding, read.reply), (Some(Coding::Gzip), Some(Coding::Gzip)));
        let read = head(&[grpc, ("grpc-encoding", "deflate"), ("grpc-accept-encoding", "identity")]).unwrap();
        assert_eq!((read.coding, read.reply), (Some(Coding::Deflate), None));
        assert_eq!(head(&[grpc, ("grpc-encoding", "br")]).err(), Some(Reason::UnsupportedEncoding));
    }

    #[test]
    fn deadlines_are_read() {
        let read = |text: &str| timeout(&HeaderValue::from_str(text).unwrap()).ok();
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("7S"), Some(Duration::from_secs(7)));
        assert_eq!(read("99999999H"), Some(LONGEST));
        assert_eq!(read("5n"), Some(Duration::from_nanos(5)));
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "5 S", "5SS"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_deadline_is_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = timeout(&value);
            }
        }
    }
}
