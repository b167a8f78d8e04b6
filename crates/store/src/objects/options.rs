//! Where objects live, as text from the configuration and as checked values.
//!
//! Invariant: secrets are never shown by `Debug`. Reading the configuration is left to `config`: no
//! adapter looks at the environment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where objects live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectsUrl {
    /// Below this directory.
    File(PathBuf),
    /// In a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// Why a text does not say where objects live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseObjectsUrlError {
    /// Neither of the two schemes.
    #[error("want file:PATH or s3://bucket/prefix")]
    Scheme,
    /// Not the name of a bucket.
    #[error("the name of a bucket has 3 to 63 characters out of a-z, 0-9, '.' and '-', and starts with a letter or digit")]
    Bucket,
    /// Not a prefix.
    #[error("a prefix holds letters, digits, '.', '_', '-' and '/', and no part of it is empty, '.' or '..'")]
    Prefix,
}

impl ObjectsUrl {
    /// Understands `file:PATH`, `file:` (a directory in `data_dir`) and `s3://bucket/prefix`.
    ///
    /// # Errors
    /// One for each rule; see [`ParseObjectsUrlError`].
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self, ParseObjectsUrlError> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path); // some write file:///absolute/path
            return Ok(Self::File(if path.is_empty() { data_dir.join("objects") } else { PathBuf::from(path) }));
        }
        let rest = text.strip_prefix("s3://").ok_or(ParseObjectsUrlError::Scheme)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(3..=63).contains(&bucket.len())
            || !plain(bucket.as_bytes()[0])
            || !bucket.bytes().all(|b| plain(b) || matches!(b, b'.' | b'-'))
        {
            return Err(ParseObjectsUrlError::Bucket);
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let part = |part: &str| {
            let alphabet = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            alphabet && !matches!(part, "" | "." | "..")
        };
        if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(part)) {
            return Err(ParseObjectsUrlError::Prefix);
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// Who Plinth is to S3.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The public half.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: String,
    /// Of temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// How to reach S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Options {
    /// Where, such as `https://minio.example.com:9000`; AWS when `None`.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Whether an `http://` endpoint is fine. The bytes are checked by their digest anyway, the credentials are signed
    /// and not sent; but anybody on the way can read the models.
    pub allow_http: bool,
    /// Who Plinth is; the role of the machine (instance metadata) when `None`.
    pub credentials: Option<S3Credentials>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the other side may be silent while we wait for it.
    pub read_timeout: Duration,
    /// How long one operation may take, retries included; for bodies: one part.
    pub operation_timeout: Duration,
    /// How often a request is tried again after a failure that may pass.
    pub max_retries: usize,
}

impl Default for S3Options {
    /// AWS, `us-east-1`, 5 s to connect, 30 s of silence, 120 s for an operation, 3 retries.
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            allow_http: false,
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(120),
            max_retries: 3,
        }
    }
}

/// How to open the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsOptions {
    /// Where objects live.
    pub url: ObjectsUrl,
    /// How to reach S3; ignored for files.
    pub s3: S3Options,
}

impl ObjectsOptions {
    /// The usual.
    #[must_use]
    pub fn new(url: ObjectsUrl) -> Self {
        Self { url, s3: S3Options::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_are_understood() {
        let parse = |text| ObjectsUrl::parse(text, Path::new("/data"));
        let s3 = |bucket: &str, prefix: &str| Ok(ObjectsUrl::S3 { bucket: bucket.into(), prefix: prefix.into() });
        assert_eq!(parse("file:"), Ok(ObjectsUrl::File("/data/objects".into())));
        assert_eq!(parse("file:/x"), Ok(ObjectsUrl::File("/x".into())));
        assert_eq!(parse("file:///x"), Ok(ObjectsUrl::File("/x".into())));
        assert_eq!(parse("s3://models"), s3("models", ""));
        assert_eq!(parse("s3://models/"), s3("models", ""));
        assert_eq!(parse("s3://models/a/b_c/"), s3("models", "a/b_c"));
        for (bad, why) in [
            ("", ParseObjectsUrlError::Scheme),
            ("gs://models", ParseObjectsUrlError::Scheme),
            ("s3://", ParseObjectsUrlError::Bucket),
            ("s3://Models", ParseObjectsUrlError::Bucket),
            ("s3://-ab", ParseObjectsUrlError::Bucket),
            ("s3://models/../x", ParseObjectsUrlError::Prefix),
            ("s3://models/a//b", ParseObjectsUrlError::Prefix),
            ("s3://models/a b", ParseObjectsUrlError::Prefix),
        ] {
            assert_eq!(parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = S3Credentials { access_key_id: "ID".into(), secret_access_key: "geheim".into(), session_token: Some("geheim".into()) };
        let mut options = ObjectsOptions::new(ObjectsUrl::S3 { bucket: "models".into(), prefix: String::new() });
        options.s3.credentials = Some(secret);
        let shown = format!("{options:?}");
        assert!(shown.contains("ID") && !shown.contains("geheim"), "{shown}");
    }
}
