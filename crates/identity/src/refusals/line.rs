//! A line of the log of refusals.

use plinth_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// What a line says, but for its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// When the first of them was refused.
    pub at: Timestamp,
    /// `key:…`, `token:…`, `certificate:…`, or `unknown`.
    pub who: String,
    /// Its tenant, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    pub address: String,
    pub route: String,
    pub reason: String,
    /// How many like refusals within a second this line stands for.
    pub count: u64,
    /// How many refusals have no line since the line before.
    #[serde(default)]
    pub lost: u64,
}

impl Entry {
    pub(super) fn new(refusal: &Refusal, at: Timestamp, count: u64) -> Self {
        let who = refusal.who.as_ref();
        Self {
            at,
            who: who.map_or_else(|| "unknown".to_owned(), |who| who.caller.to_string()),
            tenant: who.map(|who| who.tenant.to_string()),
            address: refusal.address.to_canonical().to_string(),
            route: refusal.route.to_owned(),
            reason: refusal.reason.slug().to_owned(),
            count,
            lost: 0,
        }
    }
}

/// A line: an entry with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Counts lines, from 1.
    pub sequence: u64,
    /// The digest of the line before, without its line feed; of nothing before the first.
    pub previous: Digest,
    #[serde(flatten)]
    pub entry: Entry,
}
