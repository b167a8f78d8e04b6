//! A line of the access log.
//!
//! Invariant: this is all that is ever written of a request. Texts from outside are bounded here; JSON escapes them.

use plinth_types::Timestamp;
use serde::Serialize;

/// The longest path that is written; what is longer ends with `…`.
pub const MAX_PATH: usize = 256;
/// The longest other text from outside.
const MAX_TEXT: usize = 128;

/// What is said of a request.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// When its answer had left, or was given up.
    pub time: Timestamp,
    /// The name that its answer carries.
    #[serde(rename = "plinth.request_id")]
    pub request: String,
    /// Its trace.
    #[serde(rename = "trace_id")]
    pub trace: String,
    /// This node's part of the trace.
    #[serde(rename = "span_id")]
    pub span: String,
    /// Whether the trace is recorded.
    #[serde(rename = "trace_sampled")]
    pub recorded: bool,
    /// Whose request it was, once that was known.
    #[serde(rename = "plinth.tenant", skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who asked: `key:…`, `token:…`, `certificate:…`. Never a secret.
    #[serde(rename = "user.id", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// From where: the client, or who a trusted proxy says it is.
    #[serde(rename = "client.address")]
    pub client: String,
    /// Which door it came by: `http`, `grpc`, `admin`.
    #[serde(rename = "plinth.listener")]
    pub listener: &'static str,
    /// `1.1`, `2`.
    #[serde(rename = "network.protocol.version")]
    pub version: &'static str,
    #[serde(rename = "http.request.method")]
    pub method: String,
    /// The pattern of Plinth's own route.
    #[serde(rename = "http.route", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<&'static str>,
    /// The name of the route: Plinth's, or a user's.
    #[serde(rename = "plinth.route")]
    pub route: String,
    /// Without the query.
    #[serde(rename = "url.path", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
    /// Why it failed: the reason's word.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The length of its body, as it was announced.
    #[serde(rename = "http.request.body.size", skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// The bytes of its answer's body.
    #[serde(rename = "http.response.body.size")]
    pub bytes_out: u64,
    /// Until the last byte had left, in milliseconds.
    #[serde(rename = "plinth.duration_ms")]
    pub duration_ms: f64,
    /// The model that was asked for.
    #[serde(rename = "plinth.model", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The target of the user's route.
    #[serde(rename = "plinth.target", skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How often an upstream was asked.
    #[serde(rename = "plinth.attempts", skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What answered in the target's place, or in what way less: the words of `X-Plinth-Fallback` and `X-Plinth-Degraded`.
    #[serde(rename = "plinth.instead", skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// Of how many like it this one has a line; absent where all have.
    #[serde(rename = "plinth.share", skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// How many requests that should have a line have none, since the line before.
    #[serde(rename = "plinth.dropped", skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// A text from outside, no longer than it may be.
pub fn bounded(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// A path, no longer than it may be. Never has a query.
pub fn path(text: &str) -> String {
    cut(text.split(['?', '#']).next().unwrap_or_default(), MAX_PATH)
}

fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_paths_have_no_query() {
        assert_eq!((path("/a/b?key=secret"), path("/a#x")), ("/a/b".to_owned(), "/a".to_owned()));
        let long = path(&format!("/{}", "ä".repeat(500)));
        assert!(long.len() <= MAX_PATH + '…'.len_utf8() && long.ends_with('…'), "{long}");
        assert_eq!(bounded(&"x".repeat(128)).len(), 128);
    }
}
