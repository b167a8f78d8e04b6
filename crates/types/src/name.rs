//! Names of things: tenants, models, aliases, labels.
//!
//! Invariant: a name is 1 to [`MAX_LENGTH`] bytes of `A-Z a-z 0-9 . _ -`, starts with a letter or
//! a digit, does not end with a dot and holds no two dots in a row. It can therefore stand in a
//! path, a URL, a metric label or a log line as it is. Whether a thing of that name exists is for
//! others to say.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name in bytes.
pub const MAX_LENGTH: usize = 128;

/// Why a text is not a name. The text itself is not repeated: it may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// No characters at all.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`MAX_LENGTH`] bytes.
    #[error("a name has at most {MAX_LENGTH} characters")]
    TooLong,
    /// A character outside the alphabet, or in the wrong place.
    #[error("a name holds letters, digits, '.', '_' and '-', starts with a letter or digit, does not end with '.', and has no '..'")]
    Malformed,
}

fn check(text: &str) -> Result<(), ParseNameError> {
    if text.is_empty() {
        return Err(ParseNameError::Empty);
    }
    if text.len() > MAX_LENGTH {
        return Err(ParseNameError::TooLong);
    }
    let alphabet = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let start = text.as_bytes()[0].is_ascii_alphanumeric();
    if !alphabet || !start || text.ends_with('.') || text.contains("..") {
        return Err(ParseNameError::Malformed);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// Who owns things and whose limits count.
    TenantName
}
name! {
    /// A named line of immutable versions.
    ModelName
}
name! {
    /// A movable name on a version, such as `champion`, `canary` or `previous`.
    AliasName
}
name! {
    /// The key of a tag or of another small property.
    Label
}

impl TenantName {
    /// The tenant that owns everything on a node where nobody made another.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

impl AliasName {
    /// The alias whose version answers requests that name no version.
    #[must_use]
    pub fn champion() -> Self {
        Self("champion".into())
    }

    /// The alias that remembers the champion before the last move: what a roll-back returns to.
    #[must_use]
    pub fn previous() -> Self {
        Self("previous".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_the_usual_and_refuses_the_clever() {
        for good in ["a", "digits", "resnet-50", "v1.0_final", "0", "A.b-c_d"] {
            assert_eq!(good.parse::<ModelName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".hidden",
            "-flag",
            "_x",
            "a/b",
            "a\\b",
            "a b",
            "a\0",
            "a\n",
            "%2e%2e",
            "é",
            "a.",
            "a:b",
            "../../etc/passwd",
            "a?b",
            "a#b",
            "~root",
        ] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(MAX_LENGTH).parse::<ModelName>().is_ok());
        assert_eq!("x".repeat(MAX_LENGTH + 1).parse::<ModelName>(), Err(ParseNameError::TooLong));
    }

    proptest! {
        #[test]
        fn a_name_is_one_safe_path_segment(text in ".{0,40}") {
            if let Ok(name) = text.parse::<ModelName>() {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
            }
        }
    }
}
