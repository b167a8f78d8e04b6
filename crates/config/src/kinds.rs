//! The types of keys that only Plinth has: roles, modes, addresses of stores, secrets.
//!
//! Invariant: the value of a [`Secret`], and the password in an address, leave only through
//! `expose` or the fields that say so; `Debug` and `show` mask them.

use std::fmt;
use std::path::PathBuf;

use crate::setting::{Refusal, Setting, quoted};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $form:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Setting for $name {
            const FORM: &'static str = $form;
            fn from_text(text: &str) -> Result<Self, Refusal> {
                match text { $($word => Ok(Self::$variant),)* _ => Err(None) }
            }
            fn show(&self) -> String {
                quoted(self.as_str())
            }
        }
    };
}

/// A part of a whole, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// As a number of 2³², all of them for the whole: what a random number of 32 bits is compared with.
    #[must_use]
    pub const fn of_u32(self) -> u32 {
        // Never more than a million, so this fits.
        (self.0 as u64 * u32::MAX as u64 / 1_000_000) as u32
    }
}

impl Setting for Share {
    const FORM: &'static str = "a share such as \"1%\" or \"0.05%\"";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        let number = text.trim().strip_suffix('%').ok_or(None)?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || decimals.len() > 4 || number.ends_with('.') || !digits(whole) || !digits(decimals) {
            return Err(None);
        }
        let millionths = format!("{whole}{decimals:0<4}").parse::<u32>().map_err(|_| None)?;
        if millionths > 1_000_000 { Err(Some("is more than the whole".to_owned())) } else { Ok(Self(millionths)) }
    }
    fn show(&self) -> String {
        let (whole, decimals) = (self.0 / 10_000, format!("{:04}", self.0 % 10_000));
        let decimals = decimals.trim_end_matches('0');
        quoted(&if decimals.is_empty() { format!("{whole}%") } else { format!("{whole}.{decimals}%") })
    }
}

words! {
    /// What a node does.
    Role: "one of \"gateway\", \"worker\", \"controller\"" {
        /// Answers requests from outside.
        Gateway = "gateway",
        /// Runs models.
        Worker = "worker",
        /// Changes the registry and writes the snapshot.
        Controller = "controller",
    }
}

words! {
    /// Who may call.
    AuthMode: "one of \"keys\", \"open\"" {
        /// Every request needs a key.
        Keys = "keys",
        /// Everybody may do everything; only on loopback.
        Open = "open",
    }
}

words! {
    /// How log lines look.
    LogFormat: "one of \"auto\", \"pretty\", \"json\"" {
        /// Pretty on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// One JSON object in each line.
        Json = "json",
    }
}

words! {
    /// A backend that this node may start.
    Backend: "one of \"onnx\", \"step\", \"process\", \"villain\"" {
        /// ONNX Runtime.
        Onnx = "onnx",
        /// Built-in steps of pipelines: images, texts, classes.
        Step = "step",
        /// Any program that serves a model on a port; see `engine.process_commands`.
        Process = "process",
        /// Misbehaves on demand, for tests.
        Villain = "villain",
    }
}

words! {
    /// What executes ONNX models.
    Provider: "one of \"cpu\", \"cuda\", \"tensorrt\"" {
        /// The processor.
        Cpu = "cpu",
        /// A GPU, by CUDA.
        Cuda = "cuda",
        /// A GPU, by TensorRT, with CUDA for what it cannot do.
        TensorRt = "tensorrt",
    }
}

/// A text that is never shown or logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself: for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Secret {
    const FORM: &'static str = "a text";
    const SECRET: bool = true;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        Ok(Self(text.to_owned()))
    }
    fn show(&self) -> String {
        quoted("***")
    }
}

/// Where the ledger is.
#[derive(Clone, PartialEq, Eq)]
pub enum MetadataUrl {
    /// A SQLite file; `None`: the store's own file in the data directory.
    Sqlite(Option<PathBuf>),
    /// A PostgreSQL server; the whole address, which may hold a password.
    Postgres(Secret),
}

impl fmt::Debug for MetadataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for MetadataUrl {
    const FORM: &'static str = "\"sqlite:\", \"sqlite:/path/to/file\" or \"postgres://user:password@host/database\"";
    const SECRET: bool = true;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return Ok(Self::Sqlite(file_path(path)?));
        }
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")).ok_or(None)?;
        if rest.is_empty() {
            return Err(Some("names no host".to_owned()));
        }
        Ok(Self::Postgres(Secret::new(text)))
    }
    fn show(&self) -> String {
        quoted(&match self {
            Self::Sqlite(path) => format!("sqlite:{}", shown_path(path.as_ref())),
            Self::Postgres(url) => mask_url(url.expose()),
        })
    }
}

/// Where artifacts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectsUrl {
    /// A directory; `None` is `objects` in the data directory.
    File(Option<PathBuf>),
    /// A bucket of an S3 service.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key in it begins with; empty or without a slash at either end.
        prefix: String,
    },
}

impl Setting for ObjectsUrl {
    const FORM: &'static str = "\"file:\", \"file:/path/to/directory\" or \"s3://bucket/prefix\"";
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(file_path(path)?));
        }
        let rest = text.strip_prefix("s3://").ok_or(None)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        if bucket.len() < 3 || bucket.len() > 63 || !bucket.bytes().all(allowed) {
            return Err(Some("has a bucket that is not 3 to 63 characters out of a-z, 0-9, '.' and '-'".to_owned()));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.starts_with('/') || prefix.contains("//") {
            return Err(Some("has a prefix with an empty part, '.' or '..'".to_owned()));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
    fn show(&self) -> String {
        quoted(&match self {
            Self::File(path) => format!("file:{}", shown_path(path.as_ref())),
            Self::S3 { bucket, prefix } if prefix.is_empty() => format!("s3://{bucket}"),
            Self::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        })
    }
}

/// Where cached answers are.
#[derive(Clone, PartialEq, Eq)]
pub enum CacheUrl {
    /// The node's own memory.
    Memory,
    /// The node's own memory, and a Redis server behind it; the whole address, which may hold a password.
    Redis(Secret),
}

impl fmt::Debug for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for CacheUrl {
    const FORM: &'static str = "\"memory:\" or \"redis://user:password@host:6379/0\"";
    const SECRET: bool = true;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        match text.strip_prefix("redis://") {
            None => Err(None),
            Some("") => Err(Some("names no host".to_owned())),
            Some(_) => Ok(Self::Redis(Secret::new(text))),
        }
    }
    fn show(&self) -> String {
        quoted(&match self {
            Self::Memory => "memory:".to_owned(),
            Self::Redis(url) => mask_url(url.expose()),
        })
    }
}

/// Where nodes count what they share.
#[derive(Clone, PartialEq, Eq)]
pub enum LimitsUrl {
    /// Nowhere: each node counts for itself.
    Local,
    /// A Redis server; the whole address, which may hold a password.
    Redis(Secret),
}

impl fmt::Debug for LimitsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for LimitsUrl {
    const FORM: &'static str = "\"local:\" or \"redis://user:password@host:6379/0\"";
    const SECRET: bool = true;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "local:" {
            return Ok(Self::Local);
        }
        match text.strip_prefix("redis://") {
            None => Err(None),
            Some("") => Err(Some("names no host".to_owned())),
            Some(_) => Ok(Self::Redis(Secret::new(text))),
        }
    }
    fn show(&self) -> String {
        quoted(&match self {
            Self::Local => "local:".to_owned(),
            Self::Redis(url) => mask_url(url.expose()),
        })
    }
}

/// What wakes other nodes when there is something to see.
#[derive(Clone, PartialEq, Eq)]
pub enum BusUrl {
    /// Nothing: others look each poll.
    Local,
    /// A NATS server, or several; the whole address, which may hold a password.
    Nats(Secret),
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for BusUrl {
    const FORM: &'static str = "\"local:\" or \"nats://user:password@host:4222\"";
    const SECRET: bool = true;
    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "local:" {
            return Ok(Self::Local);
        }
        match text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://")) {
            None => Err(None),
            Some("") => Err(Some("names no host".to_owned())),
            Some(_) => Ok(Self::Nats(Secret::new(text))),
        }
    }
    fn show(&self) -> String {
        quoted(&match self {
            Self::Local => "local:".to_owned(),
            Self::Nats(url) => mask_url(url.expose()),
        })
    }
}

/// The path after `sqlite:` or `file:`; both `file:/a` and `file:///a` mean `/a`.
fn file_path(path: &str) -> Result<Option<PathBuf>, Refusal> {
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => return Err(Some("names a host; write one or three slashes before the path".to_owned())),
        None => path,
    };
    if path.contains(['?', '\0']) {
        return Err(Some("holds options after '?'; write the path alone".to_owned()));
    }
    Ok(if path.is_empty() { None } else { Some(PathBuf::from(path)) })
}

fn shown_path(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.to_string_lossy().into_owned())
}

/// An address with what may be a password masked: between ':' and the last '@' of the authority, and every option.
pub(crate) fn mask_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, options) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    // A password may itself hold '/' or '@' unescaped, so the last '@' counts.
    let masked = match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or_else(|| user.to_owned(), |(name, _)| format!("{name}:***"));
            format!("{user}@{host}")
        }
        None => rest.to_owned(),
    };
    if scheme.is_empty() { format!("{masked}{options}") } else { format!("{scheme}://{masked}{options}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (url, masked) in [
            ("postgres://u:p4ss@h:5432/d", "postgres://u:***@h:5432/d"),
            ("postgres://u:p@ss/x@h/d?password=zz", "postgres://u:***@h/d?***"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
        ] {
            assert_eq!(mask_url(url), masked);
            assert!(!format!("{:?}", MetadataUrl::from_text(url).unwrap()).contains("p4ss"));
        }
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }

    #[test]
    fn addresses_of_stores_are_read() {
        assert_eq!(MetadataUrl::from_text("sqlite:"), Ok(MetadataUrl::Sqlite(None)));
        assert_eq!(MetadataUrl::from_text("sqlite:///a/b.db"), Ok(MetadataUrl::Sqlite(Some("/a/b.db".into()))));
        assert_eq!(ObjectsUrl::from_text("file:data/x"), Ok(ObjectsUrl::File(Some("data/x".into()))));
        assert_eq!(ObjectsUrl::from_text("s3://models/a/b/"), Ok(ObjectsUrl::S3 { bucket: "models".into(), prefix: "a/b".into() }));
        for bad in ["mysql://x", "s3://", "s3://B", "s3://bucket/../x", "s3://bucket//x", "file://host/x"] {
            assert!(ObjectsUrl::from_text(bad).is_err(), "{bad}");
        }
        assert_eq!(CacheUrl::from_text("redis://u:p@h").unwrap().show(), "\"redis://u:***@h\"");
        assert_eq!(CacheUrl::from_text("redis://"), Err(Some("names no host".to_owned())));
        assert_eq!(LimitsUrl::from_text("redis://u:p@h").unwrap().show(), "\"redis://u:***@h\"");
        assert_eq!((LimitsUrl::from_text("local:"), LimitsUrl::from_text("memory:")), (Ok(LimitsUrl::Local), Err(None)));
        assert_eq!(BusUrl::from_text("nats://h"), Ok(BusUrl::Nats(Secret::new("nats://h"))));
        assert_eq!(BusUrl::from_text("x"), Err(None));
    }
}
