//! The tables of a file of events, of the file of streams, and how a row's number is made.
//!
//! Invariant: a row's number is its lane (a partition of a stream) in the upper bits and its offset in the lower 40, so a partition is a
//! range of one B-tree and nothing but that number is compared. `finds` holds two entries for each event, by a hash of its id and by one
//! of its key; a hash may be of several, so whoever follows it looks at the event itself. The entries of rows past a lane's `folded` are
//! not there yet: they are in memory ([`super::index`]).

use plinth_queue::sqlite::Migrations;
use plinth_types::DigestHasher;

/// Bits of a row's number that are its offset: 10^12 events in a partition, 8 million lanes in a file.
pub(super) const OFFSET_BITS: u32 = 40;
/// The highest offset.
pub(super) const LAST_OFFSET: i64 = (1 << OFFSET_BITS) - 1;

/// A file of events. `folded`, `swept` and `next` are offsets: `next` is that of the next event; up to `folded` the events are in
/// `finds`; up to
/// `swept` retention has looked at them.
pub(super) const FILE: Migrations = &["CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY AUTOINCREMENT CHECK (lane < 8388608),
    stream INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 1,
    live INTEGER NOT NULL DEFAULT 0 CHECK (live >= 0),
    folded INTEGER NOT NULL DEFAULT 0,
    swept INTEGER NOT NULL DEFAULT 0,
    UNIQUE (stream, partition)
) STRICT;
CREATE TABLE events (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER,
    stored_at INTEGER NOT NULL,
    data BLOB
) STRICT;
CREATE TABLE finds (
    hash INTEGER NOT NULL,
    row INTEGER NOT NULL,
    PRIMARY KEY (hash, row)
) STRICT, WITHOUT ROWID;"];

/// The file of streams. Numbers are never given again, so what is left of a deleted stream is nobody else's.
pub(super) const STREAMS: Migrations = &["CREATE TABLE store (files INTEGER NOT NULL) STRICT;
CREATE TABLE streams (
    stream INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX streams_by_name ON streams (tenant, name) WHERE deleted = 0;"];

/// The number of a row.
pub(super) const fn row(lane: i64, offset: i64) -> i64 {
    (lane << OFFSET_BITS) | if offset > LAST_OFFSET { LAST_OFFSET } else { offset }
}

/// The lane of a row.
pub(super) const fn lane(row: i64) -> i64 {
    row >> OFFSET_BITS
}

/// The offset of a row.
pub(super) const fn offset(row: i64) -> i64 {
    row & LAST_OFFSET
}

/// What a text is the hash of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id = 1,
    Key = 2,
}

/// The hash under which an id or a key of a stream is found.
pub(super) fn hash(kind: Kind, stream: i64, text: &str) -> i64 {
    let mut hasher = DigestHasher::new();
    let [a, b, c, d, e, f, g, h] = stream.to_be_bytes();
    hasher.update(&[kind as u8, a, b, c, d, e, f, g, h]);
    hasher.update(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finish().as_bytes()[..8]);
    i64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_row_holds_its_lane_and_offset() {
        for (l, o) in [(1, 1), ((1 << 23) - 1, LAST_OFFSET), (77, 1 << 39)] {
            let row = row(l, o);
            assert!(row > 0);
            assert_eq!((lane(row), offset(row)), (l, o));
        }
        assert!(row(3, LAST_OFFSET) < row(4, 0));
    }

    #[test]
    fn kinds_and_streams_have_hashes_of_their_own() {
        let hashes = [hash(Kind::Id, 1, "a"), hash(Kind::Key, 1, "a"), hash(Kind::Id, 2, "a"), hash(Kind::Id, 1, "b")];
        assert_eq!(hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
