//! How much a request matters.
//!
//! Four classes, after the SRE book's (chapter 21). Invariant: a client can lower its own class and never raise it above what its
//! plan allows. Which plan allows what belongs to the gateway.

use std::fmt;
use std::str::FromStr;

/// The class of a request. What matters more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Criticality {
    /// Nobody would notice: prefetching, replays, warming.
    Background,
    /// May fail for hours: free plans, batch work.
    Sheddable,
    /// Everything that says nothing else.
    #[default]
    Default,
    /// Paid for, and a user is waiting.
    Critical,
}

/// All classes, the most important first.
pub const CRITICALITIES: [Criticality; 4] = [Criticality::Critical, Criticality::Default, Criticality::Sheddable, Criticality::Background];

/// A text that names no class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a criticality is one of critical, default, sheddable, background")]
pub struct UnknownCriticality;

impl Criticality {
    /// The lower of what is asked for and what is allowed.
    #[must_use]
    pub fn clamp_to(self, most: Self) -> Self {
        self.min(most)
    }

    /// As in headers, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
            Self::Background => "background",
        }
    }

    /// A place in an array of four; the least important is 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

/// Without regard to case and surrounding spaces.
impl FromStr for Criticality {
    type Err = UnknownCriticality;

    fn from_str(text: &str) -> Result<Self, UnknownCriticality> {
        let text = text.trim();
        CRITICALITIES.into_iter().find(|class| text.eq_ignore_ascii_case(class.as_str())).ok_or(UnknownCriticality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_lowers_and_never_raises() {
        assert_eq!(" Critical ".parse(), Ok(Criticality::Critical));
        for text in ["", "urgent", "critical,default", "1"] {
            assert_eq!(text.parse::<Criticality>(), Err(UnknownCriticality), "{text}");
        }
        for asked in CRITICALITIES {
            assert_eq!(asked.as_str().parse(), Ok(asked));
            for allowed in CRITICALITIES {
                let class = asked.clamp_to(allowed);
                assert!(class <= allowed && class <= asked && (class == asked || class == allowed));
            }
        }
        assert!(Criticality::Critical > Criticality::Default && Criticality::Sheddable > Criticality::Background);
    }
}
