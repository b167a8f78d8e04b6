//! The `RateLimit` and `RateLimit-Policy` fields as text, and `Retry-After`.
//!
//! After draft-ietf-httpapi-ratelimit-headers-10 (and 11): lists of RFC 9651 strings with parameters, `"default";q=100;w=60` and
//! `"default";r=50;t=30`. Invariant: whatever the names and numbers, the text is a valid structured field. Which limits are told to
//! whom, and the header map, belong to the gateway.

use std::fmt;
use std::time::Duration;

/// The largest number that a structured field may hold.
const MOST: u64 = 999_999_999_999_999;

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuotaUnit {
    /// Requests; the field's default, so it is not written.
    #[default]
    Requests,
    /// Bytes of content.
    ContentBytes,
    /// Requests at the same time.
    ConcurrentRequests,
    /// Cost units of this platform, written `"cost-units"`.
    CostUnits,
}

/// One item of `RateLimit-Policy`: a limit as such, the same in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy<'a> {
    /// The limit's name.
    pub name: &'a str,
    /// Units in the window.
    pub quota: u64,
    /// The window; none for a concurrency.
    pub window: Option<Duration>,
    /// What is counted.
    pub unit: QuotaUnit,
}

/// One item of `RateLimit`: how a limit stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining<'a> {
    /// The limit's name, as in its policy.
    pub name: &'a str,
    /// Units left.
    pub remaining: u64,
    /// After how long the quota is whole again; rounded up to seconds.
    pub reset: Option<Duration>,
}

/// Items as one field's value.
#[derive(Debug, Clone, Copy)]
pub struct List<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                to.write_str(", ")?;
            }
            item.fmt(to)?;
        }
        Ok(())
    }
}

impl fmt::Display for Policy<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        string(to, self.name)?;
        write!(to, ";q={}", self.quota.min(MOST))?;
        match self.unit {
            QuotaUnit::Requests => {}
            QuotaUnit::ContentBytes => to.write_str(";qu=\"content-bytes\"")?,
            QuotaUnit::ConcurrentRequests => to.write_str(";qu=\"concurrent-requests\"")?,
            QuotaUnit::CostUnits => to.write_str(";qu=\"cost-units\"")?,
        }
        self.window.map_or(Ok(()), |window| write!(to, ";w={}", seconds(window).max(1)))
    }
}

impl fmt::Display for Remaining<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        string(to, self.name)?;
        write!(to, ";r={}", self.remaining.min(MOST))?;
        self.reset.map_or(Ok(()), |reset| write!(to, ";t={}", seconds(reset)))
    }
}

/// The seconds to say in `Retry-After`: rounded up, between 1 and a day, and up to a quarter longer by `share` (uniform in [0, 1)), so that
/// those who were refused together do not come back together.
#[must_use]
pub fn retry_after(wait: Duration, share: f64) -> u64 {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let wait = wait.min(Duration::from_secs(86_400)).max(Duration::from_secs(1));
    let spread = wait.mul_f64(0.25).max(Duration::from_secs(1)).mul_f64(share);
    (seconds(wait) + spread.as_secs_f64().round() as u64).min(86_400)
}

fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).min(MOST)
}

/// A string of RFC 9651: printable ASCII, with quotes and backslashes escaped. What may not stand in it is written as `_`.
fn string(to: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write;
    to.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                to.write_char('\\')?;
                to.write_char(c)?;
            }
            ' '..='~' => to.write_char(c)?,
            _ => to.write_char('_')?,
        }
    }
    to.write_char('"')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_as_in_the_draft() {
        let policies = [
            Policy { name: "default", quota: 100, window: Some(Duration::from_secs(60)), unit: QuotaUnit::Requests },
            Policy { name: "cost", quota: 5000, window: Some(Duration::from_secs(86_400)), unit: QuotaUnit::CostUnits },
            Policy { name: "places", quota: 8, window: None, unit: QuotaUnit::ConcurrentRequests },
        ];
        let text = "\"default\";q=100;w=60, \"cost\";q=5000;qu=\"cost-units\";w=86400, \"places\";q=8;qu=\"concurrent-requests\"";
        assert_eq!(List(&policies).to_string(), text);
        let standing = [Remaining { name: "default", remaining: 50, reset: Some(Duration::from_millis(29_001)) }];
        assert_eq!(List(&standing).to_string(), "\"default\";r=50;t=30");
        assert_eq!(Remaining { name: "a", remaining: u64::MAX, reset: None }.to_string(), "\"a\";r=999999999999999");
    }

    #[test]
    fn retry_after_is_spread() {
        assert_eq!(retry_after(Duration::ZERO, 0.0), 1);
        assert_eq!(retry_after(Duration::from_millis(1), 0.9), 2);
        assert_eq!(retry_after(Duration::from_secs(100), 0.999), 125);
        assert_eq!(retry_after(Duration::from_millis(2500), 0.0), 3);
        assert_eq!(retry_after(Duration::MAX, f64::NAN), 86_400);
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_quotes(name in any::<String>(), remaining in any::<u64>()) {
            let text = Remaining { name: &name, remaining, reset: Some(Duration::MAX) }.to_string();
            prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            let inner = text.strip_prefix('"').unwrap();
            let (mut escaped, mut end) = (false, None);
            for (at, byte) in inner.bytes().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => { end = Some(at); break; }
                    _ => {}
                }
            }
            prop_assert!(inner[end.unwrap() + 1..].starts_with(";r="), "{}", text);
        }
    }
}
