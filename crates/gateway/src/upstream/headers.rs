//! The headers of a request on its way to an upstream.
//!
//! Invariants: what belongs to the client's connection goes first, so that a client cannot have our own headers taken out by
//! naming them in `Connection`; what a client that is not a trusted proxy says of who it is, and everything in our own name space
//! (`x-plinth-*`), goes too; each passage is counted, and a request that passed too often ends here. Of a request that is traced, each attempt
//! says so (`traceparent`); what other tracers have written (`tracestate`) passes as it is.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use bytes::Bytes;
use http::header::{AUTHORIZATION, FORWARDED, TE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_net::outbound::strip_hop_by_hop;
use plinth_types::trace::TRACEPARENT;
use plinth_types::{Error, Reason};

use super::{Forward, ForwardedFor};
use crate::request_id;
use crate::trace::PARENT;

/// Counts gateways.
pub(super) const HOPS: HeaderName = HeaderName::from_static("x-plinth-hops");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The most gateways that a request may pass, as the header says it.
const MAX_HOPS: usize = 8;
const COUNTS: [&str; MAX_HOPS] = ["1", "2", "3", "4", "5", "6", "7", "8"];

/// Makes the headers of an incoming request those of the outgoing one.
///
/// # Errors
/// `route_loop` when it has passed too many gateways.
pub(super) fn prepare(headers: &mut HeaderMap, how: &Forward) -> Result<(), Error> {
    let hops = count(headers)?;
    // Says that trailers are understood; gRPC does not go without.
    let trailers = headers.get(TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(headers);
    let trusted = how.forwarded.trusted;
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| !passes(name.as_str(), trusted)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
    if !how.pass_authorization {
        headers.remove(AUTHORIZATION);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    tell(headers, &how.forwarded);
    headers.append(VIA, HeaderValue::from_static("1.1 plinth"));
    headers.insert(HOPS, HeaderValue::from_static(hops));
    Ok(())
}

/// The count after this passage.
fn count(headers: &HeaderMap) -> Result<&'static str, Error> {
    let Some(value) = headers.get(HOPS) else { return Ok(COUNTS[0]) };
    // Who writes something else there is counted as one who has passed often enough.
    let before = value.to_str().ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(MAX_HOPS);
    COUNTS.get(before).copied().ok_or_else(|| {
        let text = format!("the request has passed more than {MAX_HOPS} gateways; a route leads back to where it came from");
        Error::new(Reason::RouteLoop, text)
    })
}

fn passes(name: &str, trusted: bool) -> bool {
    // Most names begin with another letter.
    if !name.starts_with(['x', 'f']) {
        return true;
    }
    let of_proxies = name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-");
    !name.starts_with("x-plinth-") && (trusted || !of_proxies)
}

/// Says who asks: added to what a trusted proxy said.
fn tell(headers: &mut HeaderMap, from: &ForwardedFor) {
    let (mut element, address) = element(from);
    if from.trace.is_some()
        && let Ok(parent) = HeaderValue::from_maybe_shared(element.split_off(element.len() - TRACEPARENT))
    {
        headers.insert(PARENT, parent);
    }
    if let Some(id) = &from.request
        && let Ok(id) = HeaderValue::from_maybe_shared(element.split_off(element.len() - id.as_str().len()))
    {
        headers.insert(HeaderName::from_static(request_id::HEADER), id);
    }
    // The address is a part of the element, and so of its memory.
    if let Ok(value) = HeaderValue::from_maybe_shared(element.slice(address)) {
        headers.append(FORWARDED_FOR, value);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(from.proto));
    if let Some(host) = &from.host {
        headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(element) {
        headers.append(FORWARDED, value);
    }
}

/// As RFC 7239 has it, and where the address stands in it; behind it, in the same memory, the request's
/// name and the `traceparent` of the first attempt.
fn element(from: &ForwardedFor) -> (Bytes, Range<usize>) {
    let mut text = Vec::with_capacity(192);
    let address = match from.peer.to_canonical() {
        IpAddr::V4(address) => {
            text.extend_from_slice(b"for=");
            decimal(&mut text, address);
            4..text.len()
        }
        IpAddr::V6(address) => {
            // Writing into a vector does not fail.
            let _ = write!(text, "for=\"[{address}]\"");
            6..text.len() - 2
        }
    };
    let host = from.host.as_ref().map(HeaderValue::as_bytes).filter(|host| host.iter().all(|byte| !matches!(byte, b'"' | b'\\')));
    if let Some(host) = host {
        for part in [b";host=\"", host, b"\""] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b";proto=");
    text.extend_from_slice(from.proto.as_bytes());
    if let Some(id) = &from.request {
        text.extend_from_slice(id.as_str().as_bytes());
    }
    if let Some(trace) = &from.trace {
        text.extend_from_slice(&trace.child(0).traceparent());
    }
    (text.into(), address)
}

/// As `Display` has it, for each request.
fn decimal(text: &mut Vec<u8>, address: Ipv4Addr) {
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::TraceContext;

    fn how(trusted: bool) -> Forward {
        let host = Some(HeaderValue::from_static("api.example:8443"));
        let forwarded = ForwardedFor { trusted, ..ForwardedFor::direct([192, 0, 2, 7].into(), "https", host) };
        Forward {
            deadline: None,
            sticky: None,
            extra: true,
            urgency: crate::overload::gate::Urgency::default(),
            idempotent: None,
            forwarded,
            pass_authorization: false,
        }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_a_client_says_of_itself_is_replaced() {
        let mut sent = headers(&[
            ("connection", "keep-alive, x-forwarded-for, x-plinth-hops"),
            ("keep-alive", "5"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "admin"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-plinth-tenant", "root"),
            ("authorization", "Bearer x"),
            ("accept", "text/plain"),
            ("x-mine", "1"),
        ]);
        prepare(&mut sent, &how(false)).unwrap();
        assert_eq!(all(&sent, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all(&sent, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&sent, "x-forwarded-host"), ["api.example:8443"]);
        assert_eq!(all(&sent, "forwarded"), ["for=192.0.2.7;host=\"api.example:8443\";proto=https"]);
        assert_eq!((all(&sent, "via"), all(&sent, "x-plinth-hops")), (vec!["1.1 plinth".to_owned()], vec!["1".to_owned()]));
        for gone in ["connection", "keep-alive", "x-forwarded-prefix", "x-real-ip", "x-plinth-tenant", "authorization"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
        assert!(sent.contains_key("accept") && sent.contains_key("x-mine"));
    }

    #[test]
    fn what_a_trusted_proxy_says_stands() {
        let said =
            [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "http"), ("forwarded", "for=198.51.100.1"), ("te", "Trailers")];
        let mut sent = headers(&said);
        sent.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        prepare(&mut sent, &Forward { pass_authorization: true, ..how(true) }).unwrap();
        assert_eq!(all(&sent, "x-forwarded-for"), ["198.51.100.1", "192.0.2.7"]);
        assert_eq!(all(&sent, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&sent, "forwarded").len(), 2);
        assert_eq!((all(&sent, "te"), all(&sent, "authorization").len()), (vec!["trailers".to_owned()], 1));
    }

    #[test]
    fn each_attempt_says_where_it_stands_in_the_trace() {
        let trace = TraceContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let mut forward = how(false);
        (forward.forwarded.trace, forward.forwarded.request) = (Some(trace), Some("abc".parse().unwrap()));
        let mut sent = headers(&[("traceparent", "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-01"), ("tracestate", "a=1,b=2")]);
        prepare(&mut sent, &forward).unwrap();
        let parent = TraceContext::parse(sent[PARENT].as_bytes()).unwrap();
        assert_eq!(parent, trace.child(0));
        assert!(parent.trace() == trace.trace() && parent.span() != trace.span() && parent.sampled());
        assert_eq!((all(&sent, "tracestate"), all(&sent, "forwarded")), (vec!["a=1,b=2".to_owned()], all_of_untraced()));
        assert_eq!((sent.get_all(PARENT).iter().count(), all(&sent, "x-request-id")), (1, vec!["abc".to_owned()]));
    }

    fn all_of_untraced() -> Vec<String> {
        let mut sent = HeaderMap::new();
        prepare(&mut sent, &how(false)).unwrap();
        all(&sent, "forwarded")
    }

    #[test]
    fn addresses_are_written_as_anywhere() {
        for address in ["0.0.0.0", "255.255.255.255", "10.9.99.100", "192.0.2.7", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address: IpAddr = address.parse().unwrap();
            let (text, range) = element(&ForwardedFor::direct(address, "http", None));
            let plain = address.to_canonical().to_string();
            assert_eq!(&text[range], plain.as_bytes());
            let expected = if plain.contains(':') { format!("for=\"[{plain}]\";proto=http") } else { format!("for={plain};proto=http") };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_request_passes_eight_gateways_and_no_more() {
        let mut sent = HeaderMap::new();
        for hop in 1..=8 {
            prepare(&mut sent, &how(false)).unwrap();
            assert_eq!(all(&sent, "x-plinth-hops"), [hop.to_string()]);
        }
        assert_eq!(prepare(&mut sent, &how(false)).unwrap_err().reason(), Reason::RouteLoop);
        let mut odd = headers(&[("x-plinth-hops", "many")]);
        assert_eq!(prepare(&mut odd, &how(false)).unwrap_err().class().status(), 508);
    }
}
