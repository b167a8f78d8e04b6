//! How a value is read from TOML or from the environment, and written back.
//!
//! Invariant: `from_text(show_plain(x)) == x` for every value, so that what `config show` prints can
//! be put into a file. Rules between keys are left to `check`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plinth_types::ByteSize;

/// A value as it was written, before anybody knows its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A string of TOML.
    Text(String),
    /// A whole number of TOML.
    Integer(i64),
    /// `true` or `false` in TOML.
    Bool(bool),
    /// An array of TOML.
    List(Vec<Raw>),
    /// Something that no key takes: a float, a date, a table; its name for people.
    Other(&'static str),
    /// The text of a variable; the key's type decides how it is read.
    Environment(String),
}

impl Raw {
    /// What it is, for an error; never the value itself.
    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Environment(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }
}

/// Why a value does not fit its key. `None` when the form of the type says it all.
pub type Refusal = Option<String>;

/// A type that a key may have.
pub trait Setting: Sized {
    /// The expected form, such as `a duration such as "10s"`.
    const FORM: &'static str;

    /// Whether the value must not be shown.
    const SECRET: bool = false;

    /// Reads the text of a string, of a variable, or of a default.
    ///
    /// # Errors
    /// With a reason when there is more to say than [`Setting::FORM`].
    fn from_text(text: &str) -> Result<Self, Refusal>;

    /// Reads a value of TOML or of the environment.
    ///
    /// # Errors
    /// As [`Setting::from_text`], and when the type is wrong.
    fn from_raw(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Text(text) | Raw::Environment(text) => Self::from_text(text),
            _ => Err(None),
        }
    }

    /// The value as TOML; secrets masked.
    fn show(&self) -> String;
}

/// A text as a TOML literal.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Setting for String {
    const FORM: &'static str = "a text";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for bool {
    const FORM: &'static str = "true or false";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        text.trim().parse().map_err(|_| None)
    }
    fn from_raw(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Environment(text) => Self::from_text(text),
            _ => Err(None),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_number {
    ($($ty:ty, $form:literal;)*) => {$(
        impl Setting for $ty {
            const FORM: &'static str = $form;
            fn from_text(text: &str) -> Result<Self, Refusal> {
                text.trim().parse().map_err(|_| None)
            }
            fn from_raw(raw: &Raw) -> Result<Self, Refusal> {
                match raw {
                    Raw::Integer(value) => Self::try_from(*value).map_err(|_| None),
                    Raw::Environment(text) => Self::from_text(text),
                    _ => Err(None),
                }
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number! {
    u16, "a whole number from 0 to 65535";
    u32, "a whole number from 0 to 4294967295";
}

/// The units of a duration, largest first, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Setting for Duration {
    const FORM: &'static str = "a duration such as \"10s\", \"5m\" or \"500ms\"";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| None)?;
        if unit.is_empty() && number == 0 {
            return Ok(Self::ZERO);
        }
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos).ok_or(None)?;
        number.checked_mul(factor).map(Self::from_nanos).ok_or_else(|| Some("is longer than 500 years".to_owned()))
    }
    fn show(&self) -> String {
        let nanos = self.as_nanos();
        let unit = UNITS.iter().find(|(_, factor)| nanos > 0 && nanos.is_multiple_of(u128::from(*factor)));
        quoted(&unit.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", nanos / u128::from(*factor))))
    }
}

impl Setting for ByteSize {
    const FORM: &'static str = "a size such as \"64MiB\" or a number of bytes";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|_| None)
    }
    fn from_raw(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Integer(bytes) => u64::try_from(*bytes).map(Self).map_err(|_| None),
            Raw::Text(text) | Raw::Environment(text) => Self::from_text(text),
            _ => Err(None),
        }
    }
    fn show(&self) -> String {
        // The short form rounds; what is shown must read back as the same number.
        let short = self.to_string();
        if short.parse() == Ok(*self) { quoted(&short) } else { self.0.to_string() }
    }
}

impl Setting for PathBuf {
    const FORM: &'static str = "a path";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() || text.contains('\0') {
            return Err(Some("must not be empty".to_owned()));
        }
        Ok(Self::from(text))
    }
    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for SocketAddr {
    const FORM: &'static str = "an IP address with a port, such as \"127.0.0.1:8000\" or \"[::1]:8000\"";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        // The one name that needs no resolver.
        text.strip_prefix("localhost:").map_or_else(|| text.parse(), |port| format!("127.0.0.1:{port}").parse()).map_err(|_| None)
    }
    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl<T: Setting> Setting for Option<T> {
    const FORM: &'static str = T::FORM;
    const SECRET: bool = T::SECRET;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }
    fn from_raw(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Text(text) | Raw::Environment(text) if text.is_empty() => Ok(None),
            other => T::from_raw(other).map(Some),
        }
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), T::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const FORM: &'static str = "a list of texts; in the environment separated by commas";
    const SECRET: bool = T::SECRET;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(item_of).collect()
    }
    fn from_raw(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::List(items) => items
                .iter()
                .map(|item| match item {
                    Raw::Text(text) => item_of(text),
                    other => Err(Some(format!("holds {}; each item must be {}", other.describe(), T::FORM))),
                })
                .collect(),
            Raw::Environment(text) => Self::from_text(text),
            _ => Err(None),
        }
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

fn item_of<T: Setting>(text: &str) -> Result<T, Refusal> {
    T::from_text(text).map_err(|refusal| {
        let named = if T::SECRET { "an item".to_owned() } else { format!("the item {text:?}") };
        Some(refusal.map_or_else(|| format!("{named} is not {}", T::FORM), |why| format!("{named} {why}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, nanos, shown) in [
            ("10s", 10_000_000_000, "\"10s\""),
            ("500ms", 500_000_000, "\"500ms\""),
            ("90s", 90_000_000_000, "\"90s\""),
            ("120s", 120_000_000_000, "\"2m\""),
            ("24h", 86_400_000_000_000, "\"1d\""),
            ("0", 0, "\"0s\""),
        ] {
            let duration = <Duration as Setting>::from_text(text).unwrap();
            assert_eq!((duration, duration.show()), (Duration::from_nanos(nanos), shown.to_owned()));
        }
        for bad in ["", "s", "10", "10 s", "-1s", "1.5s", "10x", "10S", "99999999999d"] {
            assert!(<Duration as Setting>::from_text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_in_the_file_are_numbers_and_in_the_environment_texts() {
        assert_eq!(u32::from_raw(&Raw::Integer(5)), Ok(5));
        assert_eq!(u32::from_raw(&Raw::Environment("5".into())), Ok(5));
        assert!(u32::from_raw(&Raw::Text("5".into())).is_err());
        assert!(u32::from_raw(&Raw::Integer(-1)).is_err());
        assert!(bool::from_raw(&Raw::Text("true".into())).is_err());
        assert_eq!(<SocketAddr as Setting>::from_text("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(Vec::<String>::from_text(" a, b ,,").unwrap(), vec!["a", "b"]);
    }

    proptest! {
        #[test]
        fn sizes_and_durations_survive_being_shown(n in any::<u64>()) {
            let back = |shown: String| format!("x = {shown}").parse::<toml::Table>().unwrap().remove("x").unwrap();
            let raw = |value: toml::Value| match value {
                toml::Value::String(text) => Raw::Text(text),
                toml::Value::Integer(number) => Raw::Integer(number),
                other => panic!("{other}"),
            };
            let size = ByteSize(n >> 1);
            prop_assert_eq!(ByteSize::from_raw(&raw(back(size.show()))), Ok(size));
            let duration = Duration::from_nanos(n);
            prop_assert_eq!(Duration::from_raw(&raw(back(duration.show()))), Ok(duration));
        }
    }
}
