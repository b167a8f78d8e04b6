//! Where a request stands in a distributed trace: its trace, the span that it is part of, and whether it is recorded.
//!
//! Source: W3C Trace Context, Level 2, section 3.2 (`traceparent`). Level 1 is read and written the same; its flag is one of two.
//!
//! Invariants: an id is never all zeros; a context is 25 bytes on the stack, so that carrying one costs nothing; what is written is
//! of version 00 whatever version was read. Who is believed, and drawing ids, are left to the gateway.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The length of a `traceparent` of version 00.
pub const TRACEPARENT: usize = 55;

/// The request is recorded.
const SAMPLED: u8 = 0b01;
/// The lower seven bytes of the trace's id are random (Level 2).
const RANDOM: u8 = 0b10;

/// 2⁶⁴ divided by the golden ratio: steps of it never meet before 2⁶⁴ of them.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Names a trace: all that one request led to, everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TraceId([u8; 16]);

/// Names a span: one piece of work within a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpanId([u8; 8]);

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: u8,
}

impl TraceId {
    /// The id of these bytes; `None` when all of them are zero.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// The id of these bytes; `None` when all of them are zero.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// The id of the `number`th piece of work within this one. Children of one span differ from each other and from it, and look as random
    /// as it does: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), which is a bijection. Saves a draw for each attempt.
    #[must_use]
    pub const fn child(self, number: u32) -> Self {
        let mut step = number as u64 + 1;
        loop {
            let word = u64::from_be_bytes(self.0).wrapping_add(GOLDEN.wrapping_mul(step));
            let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = word ^ (word >> 31);
            if word != 0 && word != u64::from_be_bytes(self.0) {
                return Self(word.to_be_bytes());
            }
            // Numbers of children end far below this.
            step += 1 << 32;
        }
    }
}

impl TraceContext {
    /// A new trace of random ids, which begins with this span.
    #[must_use]
    pub const fn begin(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        Self { trace, span, flags: RANDOM | sampled as u8 }
    }

    /// Reads a `traceparent`; `None` when it is not one, and a new trace is to begin. Of later versions, what this one knows.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(TRACEPARENT)?;
        let [version] = hex(head.get(..2)?)?;
        let ends = match version {
            0 => rest.is_empty(),
            0xff => return None,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        if !ends || head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let (trace, span) = (TraceId::new(hex(&head[3..35])?)?, SpanId::new(hex(&head[36..52])?)?);
        let [flags] = hex(&head[53..])?;
        // What is not known is not handed on.
        Some(Self { trace, span, flags: flags & (SAMPLED | RANDOM) })
    }

    /// As a `traceparent` of version 00.
    #[must_use]
    pub fn traceparent(&self) -> [u8; TRACEPARENT] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace.0);
        write_hex(&mut text[36..52], &self.span.0);
        write_hex(&mut text[53..], &[self.flags]);
        text
    }

    /// The trace.
    #[must_use]
    pub const fn trace(&self) -> TraceId {
        self.trace
    }

    /// The span.
    #[must_use]
    pub const fn span(&self) -> SpanId {
        self.span
    }

    /// Whether the request is recorded.
    #[must_use]
    pub const fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same, recorded or not.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        Self { flags: self.flags & !SAMPLED | sampled as u8, ..self }
    }

    /// The same trace in another span.
    #[must_use]
    pub const fn within(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    /// The `number`th piece of work within its span.
    #[must_use]
    pub const fn child(self, number: u32) -> Self {
        Self { span: self.span.child(number), ..self }
    }
}

/// Lower-case digits only, as the source wants it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

macro_rules! shown {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    )*};
}

shown! { TraceId SpanId }

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn a_traceparent_is_read_strictly() {
        let good = parse(&format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!((good.trace().to_string().as_str(), good.span().to_string().as_str()), (TRACE, "00f067aa0ba902b7"));
        assert!(good.sampled() && !good.with_sampled(false).sampled());
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-00f067aa0ba902b7-0"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-x"),
            format!("00-{TRACE}-00f067aa0ba902b7-01 "),
            format!(" 00-{TRACE}-00f067aa0ba902b7-01"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("0x-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-00f067aa0ba902bg-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-0g"),
            format!("00_{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}_00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7_01"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01."),
        ] {
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
        // Later versions may say more; version 00 is what goes on, without flags that nobody here knows.
        for later in [format!("cc-{TRACE}-00f067aa0ba902b7-ff"), format!("cc-{TRACE}-00f067aa0ba902b7-ff-what-comes")] {
            let written = parse(&later).unwrap().traceparent();
            assert_eq!(std::str::from_utf8(&written).unwrap(), format!("00-{TRACE}-00f067aa0ba902b7-03"));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_panics(trace: [u8; 16], span: [u8; 8], sampled: bool, noise: Vec<u8>) {
            let _ = TraceContext::parse(&noise);
            if let Some((trace, span)) = TraceId::new(trace).zip(SpanId::new(span)) {
                let context = TraceContext::begin(trace, span, sampled);
                prop_assert_eq!(TraceContext::parse(&context.traceparent()), Some(context));
            }
        }

        #[test]
        fn children_of_a_span_differ(span: [u8; 8], a: u32, b: u32) {
            if let Some(span) = SpanId::new(span) {
                prop_assert!(span.child(a) != span);
                prop_assert_eq!(span.child(a) == span.child(b), a == b);
            }
        }
    }
}
