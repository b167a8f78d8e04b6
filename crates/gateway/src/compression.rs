//! Whether an answer is compressed on its way out.
//!
//! Source: RFC 9110, 8.4 (codings), 12.5.3 (Accept-Encoding), 8.8.1 (weak validators); RFC 9111, 5.2 (no-transform).
//!
//! Who may be compressed: the length of a compressed answer tells what it repeats, so an answer that holds a secret beside words of the
//! asker's choice gives the secret away, a byte at a time, to whoever can make its owner ask and see lengths (BREACH). That takes
//! credentials which a browser sends by itself. Plinth's own answers are asked with a key that no browser sends by itself, so they are
//! compressed for whoever takes it; a route to upstreams only where its record says so, and never for requests with cookies, nor answers that set
//! one. Compression is work for speed: a node under load does none.
//!
//! Invariants: never what is compressed already, a part of something, a stream of events (unless a route names its type), something small, or what
//! says `no-transform` or carries a digest of its bytes.

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HeaderName, RANGE, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};
use plinth_net::{Coding, Request, Response, encoding};
use plinth_policy::overload::Level;
use plinth_store::resources::gateway::CompressionSpec;

/// Says what the bytes of an answer are, before anybody changes them.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Which answers of a route are compressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rule {
    /// None.
    #[default]
    Never,
    /// Those whose content type is known to get smaller.
    Usual,
    /// Those of these content types: whole ones, or `text/*`.
    Types(Vec<String>),
}

impl Rule {
    /// The rule of a record; `models`: whether only models of this node answer.
    pub fn of(spec: Option<&CompressionSpec>, models: bool) -> Self {
        match spec {
            Some(CompressionSpec::Switch(true)) => Self::Usual,
            Some(CompressionSpec::Switch(false)) => Self::Never,
            Some(CompressionSpec::Types(types)) => Self::Types(types.iter().map(|kind| kind.to_ascii_lowercase()).collect()),
            None => {
                if models {
                    Self::Usual
                } else {
                    Self::Never
                }
            }
        }
    }

    fn takes(&self, kind: &str) -> bool {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match self {
            Self::Never => false,
            Self::Usual => is_usual(&kind),
            Self::Types(types) => types.iter().any(|known| match known.strip_suffix("/*") {
                Some(family) => kind.strip_prefix(family).is_some_and(|rest| rest.starts_with('/')) && kind != "text/event-stream",
                None => *known == kind,
            }),
        }
    }
}

/// Texts and their kin. Pictures, sounds and archives are compressed already; of bytes nobody knows.
fn is_usual(kind: &str) -> bool {
    match kind.split_once('/') {
        Some(("text", "event-stream")) => false,
        Some(("text", _)) => true,
        Some(("application", kind)) => {
            matches!(kind, "json" | "javascript" | "xml" | "yaml" | "x-ndjson" | "wasm" | "graphql" | "manifest+json")
                || kind.ends_with("+json")
                || kind.ends_with("+xml")
        }
        Some(("image", kind)) => kind == "svg+xml",
        _ => false,
    }
}

/// What a request takes, remembered until its answer is there.
#[derive(Debug, Clone, Copy)]
pub struct Wish(Option<Coding>);

impl Wish {
    /// Of a request. Nothing for one whose answer must stay as it is.
    pub fn of(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let accepts = headers.contains_key(ACCEPT_ENCODING);
        let fixed =
            *request.method() == Method::HEAD || headers.contains_key(RANGE) || headers.contains_key(COOKIE) || no_transform(headers);
        (!fixed).then(|| Self(if accepts { Coding::accepted(headers) } else { None }))
    }
}

/// Compresses an answer, where rule, wish, load and the answer itself allow it.
pub async fn finish(rule: &Rule, wish: Option<Wish>, level: Level, mut answer: Response) -> Response {
    let Some(Wish(coding)) = wish else { return answer };
    if *rule == Rule::Never || !may(rule, &answer) {
        return answer;
    }
    // It might have been, for another caller: a cache in between must know.
    encoding::vary(answer.headers_mut());
    match coding {
        Some(coding) if level == Level::Normal => encoding::compress_coming(answer, coding).await,
        _ => answer,
    }
}

fn may(rule: &Rule, answer: &Response) -> bool {
    let (status, headers) = (answer.status(), answer.headers());
    let whole = !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    whole
        && headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| rule.takes(kind))
        && ![CONTENT_ENCODING, CONTENT_RANGE, SET_COOKIE].iter().chain(&DIGESTS).any(|name| headers.contains_key(name))
        && !no_transform(headers)
}

fn no_transform(headers: &HeaderMap) -> bool {
    let said = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_net::{Body, RequestBody};

    type Pairs = &'static [(&'static str, &'static str)];

    async fn compressed(rule: &Rule, level: Level, asked: Pairs, said: Pairs) -> (bool, bool) {
        let mut request = Request::new(RequestBody::empty());
        request.headers_mut().insert(ACCEPT_ENCODING, "gzip".parse().unwrap());
        for (name, value) in asked {
            match *name {
                ":method" => *request.method_mut() = value.parse().unwrap(),
                name => drop(request.headers_mut().insert(name, value.parse().unwrap())),
            }
        }
        let wish = Wish::of(&request);
        let mut answer = Response::new(Body::full(vec![b'a'; 5000]));
        answer.headers_mut().insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        for (name, value) in said {
            match *name {
                ":status" => *answer.status_mut() = value.parse().unwrap(),
                ":size" => *answer.body_mut() = Body::full(vec![b'a'; value.parse().unwrap()]),
                name => drop(answer.headers_mut().insert(name, value.parse().unwrap())),
            }
        }
        let before = answer.headers().contains_key(CONTENT_ENCODING);
        let answer = finish(rule, wish, level, answer).await;
        (!before && answer.headers().contains_key(CONTENT_ENCODING), answer.headers().contains_key("vary"))
    }

    #[tokio::test]
    async fn what_may_be_compressed_is_and_nothing_else() {
        const YES: (bool, bool) = (true, true);
        const VARIES: (bool, bool) = (false, true);
        const NO: (bool, bool) = (false, false);
        let usual = Rule::Usual;
        let cases: &[(Pairs, Pairs, (bool, bool))] = &[
            (&[], &[], YES),
            (&[("accept-encoding", "br")], &[], VARIES),
            (&[], &[(":size", "1023")], VARIES),
            (&[(":method", "HEAD")], &[], NO),
            (&[("range", "bytes=0-9")], &[], NO),
            (&[("cookie", "session=1")], &[], NO),
            (&[("cache-control", "no-cache, No-Transform")], &[], NO),
            (&[], &[("cache-control", "no-transform")], NO),
            (&[], &[("set-cookie", "session=1")], NO),
            (&[], &[("content-encoding", "br")], NO),
            (&[], &[("content-digest", "sha-256=:x:")], NO),
            (&[], &[(":status", "206"), ("content-range", "bytes 0-9/10")], NO),
            (&[], &[(":status", "304")], NO),
            (&[], &[("content-type", "text/event-stream")], NO),
            (&[], &[("content-type", "image/png")], NO),
            (&[], &[("content-type", "application/octet-stream")], NO),
            (&[], &[("content-type", "application/problem+json")], YES),
            (&[], &[("content-type", "TEXT/Plain;charset=x")], YES),
        ];
        for (asked, said, expected) in cases {
            assert_eq!(compressed(&usual, Level::Normal, asked, said).await, *expected, "{asked:?} {said:?}");
        }
        assert_eq!(compressed(&usual, Level::L1, &[], &[]).await, VARIES, "a busy node has other things to do");
        assert_eq!(compressed(&Rule::Never, Level::Normal, &[], &[]).await, NO);
    }

    #[test]
    fn a_route_says_which() {
        let types = |list: &[&str]| Rule::of(Some(&CompressionSpec::Types(list.iter().map(|kind| (*kind).to_owned()).collect())), false);
        assert!(types(&["text/*"]).takes("text/csv") && !types(&["text/*"]).takes("text/event-stream"));
        assert!(types(&["text/event-stream"]).takes("text/event-stream; charset=utf-8") && !types(&["text/*"]).takes("textual/x"));
        assert!(types(&["Application/JSON"]).takes("application/json"));
        assert_eq!((Rule::of(None, true), Rule::of(None, false)), (Rule::Usual, Rule::Never));
        assert_eq!(Rule::of(Some(&CompressionSpec::Switch(false)), true), Rule::Never);
    }
}
