//! Gives every request a name: the caller's when it is well-formed, else a new one. And draws everything else that is drawn for
//! every request, at once: asking the system costs more than the bytes.

use plinth_net::Request;
use plinth_runtime::Random;
use plinth_types::{RequestId, SpanId, TraceId};

/// The header in which callers name requests and in which answers repeat the name.
pub const HEADER: &str = "x-request-id";

/// What chance has given to a request.
#[derive(Debug, Clone, Copy)]
pub struct Drawn {
    id: u64,
    /// For a trace that begins with it.
    pub trace: TraceId,
    /// For what this node does in the trace.
    pub span: SpanId,
    /// Whether the trace is recorded, as a number of 2³².
    pub recorded: u32,
    /// Whether it is logged, as a number of 2³².
    pub logged: u32,
}

impl Drawn {
    /// One draw.
    pub fn draw(random: &dyn Random) -> Self {
        let mut bytes = [0; 40];
        loop {
            random.fill(&mut bytes);
            let (id, rest) = split(&bytes);
            let (trace, rest) = split(rest);
            let (span, rest) = split(rest);
            let (recorded, rest) = split(rest);
            let (logged, _) = split(rest);
            // All zeros are no id, and practically never come.
            if let (Some(trace), Some(span)) = (TraceId::new(trace), SpanId::new(span)) {
                let (recorded, logged) = (u32::from_le_bytes(recorded), u32::from_le_bytes(logged));
                return Self { id: u64::from_le_bytes(id), trace, span, recorded, logged };
            }
        }
    }

    /// The request's name.
    pub fn id(&self, request: &Request) -> RequestId {
        let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        given.unwrap_or_else(|| self.name())
    }

    #[allow(clippy::expect_used, reason = "sixteen hexadecimal digits are a well-formed id")]
    fn name(&self) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 16];
        for (place, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(self.id >> (60 - 4 * place) & 15) as usize];
        }
        std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).expect("sixteen hexadecimal digits are a well-formed id")
    }
}

/// The first bytes, and the others. Only for lengths that are there.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk().map_or(([0; N], bytes), |(first, rest)| (*first, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::SeededRandom;

    #[test]
    fn a_hostile_name_is_not_repeated() {
        let request = |value: &str| http::Request::builder().header(HEADER, value).body(plinth_net::RequestBody::empty()).unwrap();
        let random = SeededRandom::new(1);
        let id = |value: &str| Drawn::draw(&random).id(&request(value));
        assert_eq!(id("abc-1").as_str(), "abc-1");
        for bad in ["a b", "<script>", &"x".repeat(100)] {
            assert_eq!(id(bad).as_str().len(), 16);
        }
    }

    #[test]
    fn draws_differ() {
        let random = SeededRandom::new(2);
        let (one, other) = (Drawn::draw(&random), Drawn::draw(&random));
        assert!(one.trace != other.trace && one.span != other.span && one.recorded != other.recorded && one.logged != other.logged);
        assert_ne!(one.name(), other.name());
        assert_eq!(Drawn { id: 0x0123_4567_89ab_cdef, ..one }.name().as_str(), "0123456789abcdef");
    }
}
