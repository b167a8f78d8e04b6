//! The place of every request in a trace (W3C Trace Context): continued from the caller or begun here.
//!
//! Who is believed: which trace a request belongs to, anybody may say, because it costs nothing. Whether it is recorded costs, so that counts
//! only from those who have shown who they are, and so many times in a second ([`TraceOptions::wishes`]); everybody else's requests are
//! recorded by this node's own draw. Who says that a request is not recorded is believed likewise.
//!
//! Invariants: a malformed `traceparent` begins a new trace, and takes `tracestate` along; a malformed `tracestate` goes alone; nothing is
//! allocated for a request whose headers are as they should be; the draw is no function of what a caller sends. Recording spans is left to others: they find the
//! context in [`plinth_api::Context`], in log lines, at upstreams and in runners.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_policy::limits::{Cell, Rate};
use plinth_types::TraceContext;

use crate::request_id::Drawn;

/// Where a request stands in its trace.
pub const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// The most members of a `tracestate` (3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// The most characters of it that go on (3.3.1.5).
const MAX_STATE: usize = 512;
/// Members longer than this go first.
const LONG_MEMBER: usize = 128;

/// How requests are traced.
#[derive(Debug, Clone, Copy)]
pub struct TraceOptions {
    /// Whether callers' traces are continued; else each request begins one.
    pub accept: bool,
    /// How many requests are recorded, of 2³², where no caller who counts says.
    pub share: u32,
    /// How many requests of a second are recorded at most because their callers say so.
    pub wishes: u32,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { accept: true, share: u32::MAX / 100, wishes: 100 }
    }
}

/// Places requests.
#[derive(Debug)]
pub struct Tracing {
    options: TraceOptions,
    /// `None`: no wish counts.
    rate: Option<Rate>,
    wishes: Cell,
}

/// A request's place.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    context: TraceContext,
    /// What its caller says of recording.
    wish: Option<bool>,
}

impl Place {
    /// Where it stands.
    pub const fn context(&self) -> TraceContext {
        self.context
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self::new(TraceOptions::default())
    }
}

impl Tracing {
    /// By these options.
    pub fn new(options: TraceOptions) -> Self {
        let rate = Rate::parse(&format!("{}/s", options.wishes), Some(options.wishes.into())).ok();
        Self { options, rate, wishes: Cell::new() }
    }

    /// Places a request, and takes from its headers what does not count.
    pub fn place(&self, headers: &mut HeaderMap, drawn: &Drawn) -> Place {
        let recorded = drawn.recorded < self.options.share || self.options.share == u32::MAX;
        let caller = if self.options.accept { only(headers).and_then(TraceContext::parse) } else { None };
        let Some(caller) = caller else {
            if headers.contains_key(&STATE) {
                headers.remove(STATE);
            }
            return Place { context: TraceContext::begin(drawn.trace, drawn.span, recorded), wish: None };
        };
        tidy(headers);
        Place { context: caller.within(drawn.span).with_sampled(recorded), wish: Some(caller.sampled()) }
    }

    /// The caller has shown who it is: what it says of recording counts, within bounds.
    pub fn identified(&self, place: &mut Place, now: Duration) {
        let Some(wish) = place.wish.take() else { return };
        let recorded = wish && self.rate.as_ref().is_some_and(|rate| self.wishes.take(rate, 1, now).allowed());
        place.context = place.context.with_sampled(recorded);
    }
}

/// The one `traceparent`; several are none.
fn only(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(&PARENT).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

/// Takes a malformed `tracestate` away, and shortens one that is too long. One that is well-formed stays as it is.
fn tidy(headers: &mut HeaderMap) {
    if !headers.contains_key(&STATE) {
        return;
    }
    let values = headers.get_all(&STATE);
    match judge(values.iter().map(HeaderValue::as_bytes)) {
        State::Good => {}
        State::Malformed => drop(headers.remove(&STATE)),
        State::Long => {
            let short = shortened(values.iter().map(HeaderValue::as_bytes));
            match HeaderValue::from_bytes(&short) {
                Ok(value) if !short.is_empty() => drop(headers.insert(STATE, value)),
                _ => drop(headers.remove(&STATE)),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Good,
    Malformed,
    Long,
}

/// The members of several headers that are one list, without the space around them. Empty ones count for nothing.
fn members<'h>(values: impl Iterator<Item = &'h [u8]>) -> impl Iterator<Item = &'h [u8]> {
    let list = values.flat_map(|value| value.split(|byte| *byte == b','));
    list.map(|member| {
        let space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = member.iter().position(|byte| !space(byte)).unwrap_or(member.len());
        let end = member.iter().rposition(|byte| !space(byte)).map_or(start, |last| last + 1);
        member.get(start..end).unwrap_or_default()
    })
    .filter(|member| !member.is_empty())
}

fn judge<'h>(values: impl Iterator<Item = &'h [u8]>) -> State {
    let mut keys: [&[u8]; MAX_MEMBERS] = [&[]; MAX_MEMBERS];
    let (mut count, mut length) = (0, 0);
    for member in members(values) {
        let Some(key) = key_of(member).filter(|key| count < MAX_MEMBERS && !keys[..count].contains(key)) else { return State::Malformed };
        keys[count] = key;
        count += 1;
        length += member.len() + 1;
    }
    if length > MAX_STATE + 1 { State::Long } else { State::Good }
}

/// The key of a well-formed member (3.3.1.3).
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let (key, value) = member.split_at(member.iter().position(|byte| *byte == b'=')?);
    let value = &value[1..];
    let mut letters = key.iter();
    let first = letters.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let others = letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@'));
    let visible = value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='));
    let fits = key.len() <= 256 && (1..=256).contains(&value.len());
    (first && others && visible && fits).then_some(key)
}

/// As many members as fit: the longest go first, then the last.
fn shortened<'h>(values: impl Iterator<Item = &'h [u8]>) -> Vec<u8> {
    let mut all: Vec<&[u8]> = members(values).collect();
    let length = |all: &[&[u8]]| all.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1);
    while length(&all) > MAX_STATE {
        match all.iter().rposition(|member| member.len() > LONG_MEMBER) {
            Some(long) => drop(all.remove(long)),
            None => drop(all.pop()),
        }
    }
    all.join(&b',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::SeededRandom;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn tracing(accept: bool, share: u32, wishes: u32) -> Tracing {
        Tracing::new(TraceOptions { accept, share, wishes })
    }

    fn drawn(seed: u64) -> Drawn {
        Drawn::draw(&SeededRandom::new(seed))
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let on = tracing(true, 0, 10);
        let mut sent = headers(&[("traceparent", CALLER), ("tracestate", "a=1")]);
        let place = on.place(&mut sent, &drawn(1));
        assert_eq!((place.context().trace().to_string().as_str(), place.context().span()), (TRACE, drawn(1).span));
        assert!(sent.contains_key("tracestate") && !place.context().sampled(), "strangers do not decide");
        for bad in [
            &[("traceparent", "00-x"), ("tracestate", "a=1")][..],
            &[("traceparent", CALLER), ("traceparent", CALLER), ("tracestate", "a=1")],
        ] {
            let mut sent = headers(bad);
            let place = on.place(&mut sent, &drawn(1));
            assert!(place.context().trace() == drawn(1).trace && !sent.contains_key("tracestate"));
        }
        let mut sent = headers(&[("traceparent", CALLER), ("tracestate", "a=1")]);
        let place = tracing(false, u32::MAX, 10).place(&mut sent, &drawn(1));
        assert!(place.context().trace() == drawn(1).trace && place.context().sampled() && !sent.contains_key("tracestate"));
    }

    #[test]
    fn who_is_known_decides_within_bounds() {
        let on = tracing(true, 0, 2);
        let ask = |parent: &str| {
            let mut place = on.place(&mut headers(&[("traceparent", parent)]), &drawn(1));
            on.identified(&mut place, Duration::from_secs(1));
            place.context().sampled()
        };
        assert_eq!([ask(CALLER), ask(CALLER), ask(CALLER)], [true, true, false], "two in a second");
        let all = tracing(true, u32::MAX, 2);
        let mut place = all.place(&mut headers(&[("traceparent", &CALLER.replace("-01", "-00"))]), &drawn(1));
        assert!(place.context().sampled());
        all.identified(&mut place, Duration::ZERO);
        assert!(!place.context().sampled(), "also when it says no");
        let mut place = all.place(&mut HeaderMap::new(), &drawn(1));
        all.identified(&mut place, Duration::ZERO);
        assert!(place.context().sampled(), "who says nothing leaves it to the node");
    }

    #[test]
    fn the_share_is_kept() {
        let tenth = tracing(true, u32::MAX / 10, 0);
        let random = SeededRandom::new(7);
        let recorded = (0..10_000).filter(|_| tenth.place(&mut HeaderMap::new(), &Drawn::draw(&random)).context().sampled()).count();
        // Five standard deviations are 150.
        assert!((850..1150).contains(&recorded), "{recorded}");
    }

    #[test]
    fn a_tracestate_is_well_formed_or_gone() {
        let of = |values: &[&str]| judge(values.iter().map(|value| value.as_bytes()));
        for good in [&["a=1"][..], &["a=1,b=2", " c=3 , ,d=4\t"], &["tenant@system=x y", "0a_-*/=!\"#~"], &[""]] {
            assert_eq!(of(good), State::Good, "{good:?}");
        }
        for bad in [&["a"][..], &["a="], &["A=1"], &["=1"], &["a=1,a=2"], &["a=b=c"], &["-a=1"], &["a b=1"], &["a=\u{e4}"]] {
            assert_eq!(of(bad), State::Malformed, "{bad:?}");
        }
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert_eq!((of(&[&many(32)]), of(&[&many(33)])), (State::Good, State::Malformed));
        let mut sent = headers(&[("traceparent", CALLER), ("tracestate", "a")]);
        let place = tracing(true, 0, 0).place(&mut sent, &drawn(1));
        assert!(place.context().trace().to_string() == TRACE && !sent.contains_key("tracestate"));
    }

    #[test]
    fn a_long_tracestate_loses_the_longest_members_first() {
        let long = format!("a=1,b={},c=3,d={}", "x".repeat(200), "y".repeat(240));
        assert_eq!(judge([long.as_bytes()].into_iter()), State::Good);
        let longer = format!("{long},e={}", "z".repeat(100));
        assert_eq!(judge([longer.as_bytes()].into_iter()), State::Long);
        let mut sent = headers(&[("traceparent", CALLER), ("tracestate", &longer)]);
        tracing(true, 0, 0).place(&mut sent, &drawn(1));
        assert_eq!(sent["tracestate"], format!("a=1,b={},c=3,e={}", "x".repeat(200), "z".repeat(100)));
    }
}
