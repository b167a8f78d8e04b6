//! An event, where it stands, and what became of an append.
//!
//! Invariant: an [`EventId`] and a [`Key`] exist only within their bounds and hold no control character, so both databases store them as
//! they are. How much one append may carry is checked by [`check`] before anything waits.

use std::fmt;
use std::str::FromStr;

use plinth_types::Timestamp;

use crate::error::EventsError;
use crate::stream::Mode;

/// The most bytes of [`Event::data`].
pub const MOST_DATA: usize = 16 * 1024;
/// The most events of one append.
pub const MOST_IN_LIST: usize = 1000;
/// The most rows of one page of reading.
pub const MOST_IN_PAGE: u32 = 1000;
/// A page of reading ends with the row that brings its data past so many bytes.
pub const MOST_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Why a text is not an id or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("want 1 to {most} bytes without control characters")]
pub struct ParseTextError {
    /// The most bytes.
    pub most: usize,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The most bytes.
            pub const MOST: usize = $most;

            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseTextError;
            fn from_str(text: &str) -> Result<Self, ParseTextError> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseTextError;
            fn try_from(text: String) -> Result<Self, ParseTextError> {
                if text.is_empty() || text.len() > Self::MOST || text.chars().any(char::is_control) {
                    return Err(ParseTextError { most: Self::MOST });
                }
                Ok(Self(text.into_boxed_str()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text! {
    /// What makes an event that is sent twice be stored once: 1 to 128 bytes of UTF-8 without control characters. It counts together with
    /// the event's [`Key`]: a retry carries both, and an id under another key is another event.
    EventId, 128
}
text! {
    /// What an event is about, such as `user-7/item-12`: 1 to 512 bytes of UTF-8 without control characters. It decides the partition; the
    /// events of a key are stored in the order in which they were appended.
    Key, 512
}

/// A small write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its identity, together with the key.
    pub id: EventId,
    /// What it is about.
    pub key: Key,
    /// When it happened, if the sender says so; the store only keeps it.
    pub at: Option<Timestamp>,
    /// At most [`MOST_DATA`] bytes. `None` is a tombstone: it ends the key's row in a stream of [`Mode::Latest`], and is refused in a log.
    pub data: Option<Vec<u8>>,
}

impl Event {
    /// What it costs in memory while it waits, in bytes; a little too much.
    pub(crate) fn weight(&self) -> usize {
        self.id.as_str().len() + self.key.as_str().len() + self.data.as_ref().map_or(0, Vec::len) + 160
    }

    /// Whether a retry of `other` would look like this.
    pub(crate) fn same(&self, at: Option<Timestamp>, data: Option<&[u8]>) -> bool {
        self.at == at && self.data.as_deref() == data
    }
}

/// Where an event stands in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition of its key.
    pub partition: u16,
    /// Its place in the partition. The first is 1; each event has the next. Those that were forgotten leave gaps.
    pub offset: u64,
}

/// What became of one event of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored now.
    New(Position),
    /// The same event was stored before; nothing was done.
    Already(Position),
    /// An event of this id and key but with another time or other data is there; this one was not stored.
    Differs(Position),
}

impl Appended {
    /// Where the event of this id and key stands.
    #[must_use]
    pub const fn position(self) -> Position {
        match self {
            Self::New(position) | Self::Already(position) | Self::Differs(position) => position,
        }
    }
}

/// An event as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The event.
    pub event: Event,
    /// Where it stands.
    pub position: Position,
    /// When it was stored, by the clock of the node that did.
    pub stored_at: Timestamp,
}

/// Whether a stream of this mode takes these events.
///
/// # Errors
/// [`EventsError::Invalid`] for the first that it does not take.
pub fn check(events: &[Event], mode: Mode) -> Result<(), EventsError> {
    if events.len() > MOST_IN_LIST {
        return Err(EventsError::Invalid("a list holds at most 1,000 events"));
    }
    if events.iter().any(|event| event.data.as_ref().is_some_and(|data| data.len() > MOST_DATA)) {
        return Err(EventsError::Invalid("an event holds at most 16 KiB of data"));
    }
    if mode == Mode::Log && events.iter().any(|event| event.data.is_none()) {
        return Err(EventsError::Invalid("a log has no rows that a tombstone could end; make the stream with the mode Latest"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        assert!("ü".parse::<Key>().is_ok() && "x".repeat(512).parse::<Key>().is_ok());
        for bad in ["", "a\0b", "a\nb", &"x".repeat(513)] {
            assert_eq!(bad.parse::<Key>(), Err(ParseTextError { most: 512 }), "{bad:?}");
        }
        assert!("x".repeat(129).parse::<EventId>().is_err());
    }

    #[test]
    fn what_is_too_large_or_of_the_wrong_mode_is_refused() {
        let event = |data| Event { id: "i".parse().unwrap(), key: "k".parse().unwrap(), at: None, data };
        assert!(check(&[event(Some(vec![0; MOST_DATA]))], Mode::Log).is_ok());
        assert!(check(&[event(Some(vec![0; MOST_DATA + 1]))], Mode::Log).is_err());
        assert!(check(&[event(None)], Mode::Log).is_err());
        assert!(check(&[event(None)], Mode::Latest).is_ok());
        assert!(check(&vec![event(Some(vec![])); MOST_IN_LIST], Mode::Log).is_ok());
        assert!(check(&vec![event(Some(vec![])); MOST_IN_LIST + 1], Mode::Log).is_err());
    }
}
