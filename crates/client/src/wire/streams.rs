//! The bodies of the routes under `/api/v1/streams`: bursts of small writes.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `GET /api/v1/streams?after=&limit=` | | [`super::Page`] of [`Stream`] |
//! | `PUT /api/v1/streams/{s}` | [`StreamSettings`] | 201 [`Stream`]; 200 when it is there with the same settings |
//! | `GET /api/v1/streams/{s}` · `DELETE` | | [`Stream`] · 204 |
//! | `POST /api/v1/streams/{s}/events` | [`Event`], or `{"events": [...]}` | [`Appended`] |
//! | `GET /api/v1/streams/{s}/events` `?id=` or `?key=&after=` or `?partition=&after=`, `&limit=` | | list of [`StoredEvent`] |
//! | `GET /api/v1/streams/{s}/latest?key=` | | [`StoredEvent`]; 404 when there is none or it was taken back |

use plinth_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How a stream keeps its events.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamSettings {
    /// `log`: every event. `latest`: the last event of a key counts, and one without data takes it back.
    pub mode: Option<String>,
    /// Into how many parts keys are spread, 1 to 256; 1 when absent.
    pub partitions: Option<u16>,
    /// `hash`, `consistent_hash`, or `range` with `splits`.
    pub partitioner: Option<String>,
    /// For `range`: the first key of each part but the first, ascending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<String>,
    /// How long events are kept, in seconds; for ever when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
    /// How many events are kept at most in each part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_count: Option<u64>,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// How it keeps its events.
    #[serde(flatten)]
    pub settings: StreamSettings,
    /// How many events it holds, or how many keys have a last event. Left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A small write.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Names it: the same id and key again is the same event.
    pub id: String,
    /// What it is about; events of one key stay in their order.
    pub key: String,
    /// When it happened, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What it says, JSON, at most 16 KiB. Absent or null: what was said of this key is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendedEvent {
    /// `new`; `already`: it was there; `differs`: its id was used for something else, and it was not stored.
    pub status: String,
    /// The part.
    pub partition: u16,
    /// Its place there.
    pub offset: u64,
}

/// What became of events, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// One for each.
    pub results: Vec<AppendedEvent>,
}

/// An event as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// The part.
    pub partition: u16,
    /// Its place there; the `after` of the next page.
    pub offset: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
}
