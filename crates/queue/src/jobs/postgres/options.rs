//! Where the tables live and how they are reached.
//!
//! Invariants: the password is never shown by `Debug` or by an error; what the address does not say is not taken from the environment.
//! Sessions sync their commits, and the server gives up statements, locks and forgotten transactions by itself, so that a node that
//! was cut off holds nobody up.

use std::fmt;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::QueueError;

/// The address of a PostgreSQL database: `postgres://user:password@host:port/database?sslmode=require`. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress(String);

impl From<String> for PostgresAddress {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for PostgresAddress {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://…")
    }
}

/// How to open the ledger of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Where the database is.
    pub url: PostgresAddress,
    /// The schema that holds the tables, made when it is not there; the server's default when `None`. 1 to 63 of `a-z 0-9 _`, no digit
    /// first.
    pub schema: Option<String>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one operation may take, waiting for its group, a connection and for others included.
    pub operation_timeout: Duration,
    /// The most connections.
    pub max_connections: u32,
}

impl PostgresOptions {
    /// The usual: 8 connections, 5 s to connect, 30 s for an operation.
    #[must_use]
    pub fn new(url: impl Into<PostgresAddress>) -> Self {
        Self {
            url: url.into(),
            schema: None,
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(30),
            max_connections: 8,
        }
    }

    /// What the driver is told.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] when the address or the schema's name cannot be understood; neither is repeated.
    pub(super) fn connect(&self) -> Result<PgConnectOptions, QueueError> {
        let bad = |what: &'static str| QueueError::unavailable("open", what);
        let url = Url::parse(&self.url.0).map_err(|_| bad("want postgres://user@host:5432/database"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(bad("want postgres://user@host:5432/database"));
        }
        let connect = PgConnectOptions::from_url(&url).map_err(|_| bad("a parameter of the address is not understood"))?;
        let mut connect = connect.port(url.port().unwrap_or(5432)).disable_statement_logging();
        let says = |parameter: &str| url.query_pairs().any(|(key, _)| key == parameter);
        if !says("application_name") {
            connect = connect.application_name("plinth-queue");
        }
        if url.password().is_none() {
            connect = connect.password("");
        }
        if !says("sslmode") {
            connect = connect.ssl_mode(PgSslMode::Prefer);
        }
        let millis = |time: Duration| time.as_millis().clamp(1, 3_600_000).to_string();
        connect = connect.options([
            ("synchronous_commit", "on".to_owned()),
            ("statement_timeout", millis(self.operation_timeout)),
            ("lock_timeout", millis(self.operation_timeout / 2)),
            ("idle_in_transaction_session_timeout", millis(self.operation_timeout)),
        ]);
        // What the planner knows of a queue's tables is always of some minutes ago: empty then, a million rows now. Each statement has an
        // index that fits it, and walking that is right for one row and for a million; nothing else may be chosen.
        connect = connect.options([
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        if let Some(schema) = &self.schema {
            if !fits(schema) {
                return Err(bad("the name of a schema has 1 to 63 characters out of a-z, 0-9 and '_', and starts with a letter or '_'"));
            }
            connect = connect.options([("search_path", schema.as_str())]);
        }
        Ok(connect)
    }
}

/// Whether a schema's name needs no quoting.
fn fits(name: &str) -> bool {
    let alphabet = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    !name.is_empty() && name.len() <= 63 && alphabet && !name.as_bytes()[0].is_ascii_digit() && !name.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", PostgresOptions::new("postgres://u:geheim@h/d"));
        assert!(!shown.contains("geheim"), "{shown}");
        for bad in ["", "geheim", "mysql://u:geheim@h/d", "postgres://u:geheim@h/d?sslmode=geheim"] {
            let error = PostgresOptions::new(bad).connect().err().unwrap();
            assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        }
        assert!(PostgresOptions::new("postgres://u:p@h/d").connect().is_ok());
    }

    #[test]
    fn a_schema_name_needs_no_quoting() {
        let connect = |name: &str| PostgresOptions { schema: Some(name.into()), ..PostgresOptions::new("postgres://u@h/d") }.connect();
        assert!(connect("plinth_test_1").is_ok());
        for bad in ["", "1a", "A", "a-b", "a\"b", "a b", "pg_x", "é", &"x".repeat(64)] {
            assert!(connect(bad).is_err(), "{bad:?}");
        }
    }
}
