//! Time zones as stretches of one offset.
//!
//! Invariant: a [`Span`] is as long as it can be: where it begins and ends the offset really changes. Moments are whole seconds since
//! 1970 UTC; a *local* second is a moment plus its offset, which is what the wall clock shows.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::error::ScheduleError;

/// The longest name that is looked for. The longest of the database has 32 characters.
const MAX_NAME: usize = 64;

/// A time zone. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Zone(TimeZone);

/// A stretch of time in which the offset stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The seconds to add for the wall clock.
    pub offset: i64,
    /// When it began.
    pub start: Option<Change>,
    /// The first second after it.
    pub end: Option<i64>,
}

/// A moment at which the wall clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The first second of the new offset.
    pub at: i64,
    /// What the wall clock would have shown without it.
    pub unset: i64,
    /// What it shows.
    pub set: i64,
}

impl Zone {
    /// The zone of a name, in any case, from the database inside the program.
    pub fn parse(name: &str) -> Result<Self, ScheduleError> {
        let zones = TimeZoneDatabase::bundled();
        let shown: String = name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
        // A name that would be changed by showing it is none.
        let found = if shown == name { zones.get(name).ok().filter(|zone| !zone.is_unknown()) } else { None };
        found.map(Self).ok_or_else(|| {
            let place = |name: &str| name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
            let wanted = place(&shown);
            let instead = zones.available().map(|name| name.to_string()).find(|name| place(name) == wanted);
            ScheduleError::Zone { name: shown, instead }
        })
    }

    /// The name as the database writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The stretch that a moment belongs to.
    pub fn span(&self, second: i64) -> Span {
        let offset = self.offset(second);
        // Some changes are only of a name, or of whether it is called summer time.
        let start = self.0.preceding(moment(second.saturating_add(1))).map(|change| change.timestamp().as_second());
        let start = start.map(|at| (at, self.offset(at - 1))).find(|(at, before)| self.offset(*at) != *before);
        let start = start.map(|(at, before)| Change { at, unset: at + before, set: at + offset });
        let mut ends = self.0.following(moment(second)).map(|change| change.timestamp().as_second());
        let end = ends.find(|at| *at > second && self.offset(*at) != offset);
        Span { offset, start, end }
    }

    fn offset(&self, second: i64) -> i64 {
        self.0.to_offset(moment(second)).seconds().into()
    }
}

/// A moment of jiff, whose time ends a day before the year 9999 does.
fn moment(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(if second < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_or_suggested() {
        assert_eq!(Zone::parse("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::parse("UTC").unwrap().name(), "UTC");
        for (name, instead) in [
            ("Berlin", Some("Europe/Berlin")),
            ("US/new_york", Some("America/New_York")),
            ("Europe/Munich", None),
            ("", None),
            ("CET-1CEST", None),
            ("/etc/localtime", None),
            ("../UTC", Some("Etc/UTC")),
            ("Etc/Unknown", None),
            ("Europe/Berlin\n", Some("Europe/Berlin")),
        ] {
            let error = Zone::parse(name).unwrap_err();
            let ScheduleError::Zone { instead: found, .. } = &error else { panic!("{error:?}") };
            assert_eq!(found.as_deref(), instead, "{name}");
            assert!(error.to_string().contains(instead.unwrap_or("Europe/Berlin or UTC")), "{error}");
        }
    }

    #[test]
    fn spans_join_where_the_clock_is_set() {
        for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Africa/Monrovia"] {
            let zone = Zone::parse(name).unwrap();
            let (mut at, mut spans) = (0, 0);
            while let Some(end) = zone.span(at).end.filter(|end| *end < 4_102_444_800) {
                let (before, after) = (zone.span(end - 1), zone.span(end));
                assert_eq!(before.end, Some(end), "{name}");
                let change = after.start.unwrap();
                assert_eq!((change.at, change.unset, change.set), (end, end + before.offset, end + after.offset), "{name}");
                assert_ne!(before.offset, after.offset, "{name}");
                (at, spans) = (end, spans + 1);
            }
            assert!(spans >= 1, "{name}: {spans}");
        }
        assert_eq!(Zone::parse("Asia/Kolkata").unwrap().span(1_700_000_000).end, None);
        assert_eq!(Zone::parse("UTC").unwrap().span(253_402_300_799), Span { offset: 0, start: None, end: None });
    }
}
