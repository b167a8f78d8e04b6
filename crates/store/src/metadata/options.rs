//! Where the ledger lives, as text from the configuration and as checked values.
//!
//! Invariant: a [`MetadataUrl`] exists only when its text was understood completely; the password in
//! it is never shown by `Debug` or by an error. Reading the configuration is left to `config`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use url::Url;

/// Where the ledger lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataUrl {
    /// A SQLite database in this file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(PostgresUrl),
}

/// The address of a PostgreSQL database: `postgres://user:password@host:port/database?sslmode=require`.
///
/// Understood parameters: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(Url);

/// Why a text does not say where the ledger lives. The text is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseMetadataUrlError {
    /// Neither of the two schemes.
    #[error("want sqlite:PATH or postgres://user@host:5432/database")]
    Scheme,
    /// A PostgreSQL address that is not complete.
    #[error("a PostgreSQL address names a user, a host and a database: postgres://user@host:5432/database")]
    Incomplete,
    /// A parameter that is not understood.
    #[error("a PostgreSQL address takes the parameters sslmode, sslrootcert, sslcert and sslkey and no other")]
    Parameter,
    /// A value of `sslmode` that is not understood.
    #[error("sslmode is one of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode,
}

impl MetadataUrl {
    /// Understands `sqlite:PATH`, `sqlite:` (a file in `data_dir`) and `postgres://…`.
    ///
    /// # Errors
    /// One for each rule; see [`ParseMetadataUrlError`].
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self, ParseMetadataUrlError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path); // some write sqlite:///absolute/path
            let path = if path.is_empty() { data_dir.join("metadata.sqlite") } else { PathBuf::from(path) };
            return Ok(Self::Sqlite(path));
        }
        PostgresUrl::parse(text).map(Self::Postgres)
    }
}

impl PostgresUrl {
    fn parse(text: &str) -> Result<Self, ParseMetadataUrlError> {
        let url = Url::parse(text).map_err(|_| ParseMetadataUrlError::Scheme)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(ParseMetadataUrlError::Scheme);
        }
        let host = url.host_str().is_some_and(|host| !host.is_empty());
        if !host || url.username().is_empty() || url.path().trim_start_matches('/').is_empty() {
            return Err(ParseMetadataUrlError::Incomplete);
        }
        for (key, value) in url.query_pairs() {
            match &*key {
                "sslmode" => {
                    sqlx::postgres::PgSslMode::from_str(&value).map_err(|_| ParseMetadataUrlError::SslMode)?;
                }
                "sslrootcert" | "sslcert" | "sslkey" => {}
                _ => return Err(ParseMetadataUrlError::Parameter),
            }
        }
        Ok(Self(url))
    }

    /// The address, with its password.
    pub(super) const fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.0.host_str().unwrap_or_default(), self.0.port().unwrap_or(5432));
        write!(f, "postgres://{}@{host}:{port}{}", self.0.username(), self.0.path())
    }
}

/// The name of a PostgreSQL schema: a lower-case letter or `_`, then up to 62 of `a-z 0-9 _`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaName(String);

/// Why a text is not the name of a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a schema has 1 to 63 characters out of a-z, 0-9 and '_', and starts with a letter or '_'")]
pub struct ParseSchemaNameError;

impl SchemaName {
    /// The name as text; it needs no quoting.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SchemaName {
    type Err = ParseSchemaNameError;
    fn from_str(text: &str) -> Result<Self, ParseSchemaNameError> {
        let alphabet = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        // `pg_` is PostgreSQL's own.
        if text.is_empty() || text.len() > 63 || !alphabet || text.as_bytes()[0].is_ascii_digit() || text.starts_with("pg_") {
            return Err(ParseSchemaNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// How to open the ledger.
#[derive(Debug, Clone)]
pub struct MetadataOptions {
    /// Where it lives.
    pub url: MetadataUrl,
    /// The PostgreSQL schema that holds the tables, made when it is not there; the server's default when `None`.
    /// SQLite has no schemas and ignores it.
    pub schema: Option<SchemaName>,
    /// The most connections: of PostgreSQL altogether, of SQLite for reading (there is always exactly one for writing).
    pub max_connections: u32,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one operation may take, waiting for a connection and for other writers included.
    pub operation_timeout: Duration,
}

impl MetadataOptions {
    /// The usual: 8 connections, 5 s to connect, 30 s for an operation.
    #[must_use]
    pub const fn new(url: MetadataUrl) -> Self {
        Self { url, schema: None, max_connections: 8, connect_timeout: Duration::from_secs(5), operation_timeout: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MetadataUrl, ParseMetadataUrlError> {
        MetadataUrl::parse(text, Path::new("/data"))
    }

    #[test]
    fn both_schemes_are_understood() {
        assert_eq!(parse("sqlite:"), Ok(MetadataUrl::Sqlite("/data/metadata.sqlite".into())));
        assert_eq!(parse("sqlite:a/b.db"), Ok(MetadataUrl::Sqlite("a/b.db".into())));
        assert_eq!(parse("sqlite:/a/b.db"), Ok(MetadataUrl::Sqlite("/a/b.db".into())));
        assert_eq!(parse("sqlite:///a/b.db"), Ok(MetadataUrl::Sqlite("/a/b.db".into())));
        for good in ["postgres://u@h/d", "postgresql://u:p@h:5433/d", "postgres://u@h/d?sslmode=verify-full&sslrootcert=/c.pem"] {
            assert!(matches!(parse(good), Ok(MetadataUrl::Postgres(_))), "{good}");
        }
    }

    #[test]
    fn what_is_not_complete_is_refused() {
        use ParseMetadataUrlError::{Incomplete, Parameter, Scheme, SslMode};
        for (bad, why) in [
            ("", Scheme),
            ("mysql://u@h/d", Scheme),
            ("postgres:", Incomplete),
            ("postgres://h/d", Incomplete),
            ("postgres://u@h", Incomplete),
            ("postgres://u@h/", Incomplete),
            ("postgres://u@h/d?ssl=on", Parameter),
            ("postgres://u@h/d?options=-csynchronous_commit%3Doff", Parameter),
            ("postgres://u@h/d?sslmode=maybe", SslMode),
        ] {
            assert_eq!(parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", MetadataOptions::new(parse("postgres://u:geheim@h/d").unwrap()));
        assert!(shown.contains("postgres://u@h:5432/d") && !shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn a_schema_name_needs_no_quoting() {
        assert!("plinth_test_1".parse::<SchemaName>().is_ok());
        for bad in ["", "1a", "A", "a-b", "a\"b", "a b", "pg_x", "é", &"x".repeat(64)] {
            assert_eq!(bad.parse::<SchemaName>(), Err(ParseSchemaNameError), "{bad:?}");
        }
    }
}
