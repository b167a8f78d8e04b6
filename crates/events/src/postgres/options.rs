//! How to reach PostgreSQL, as checked values.
//!
//! Invariant: the password of an address is never shown by `Debug` or by an error. Reading the configuration is left to others.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::batcher::Gathering;
use crate::error::EventsError;

/// How to open a store of events in PostgreSQL.
#[derive(Clone)]
pub struct PostgresOptions {
    url: Url,
    schema: Option<String>,
    /// How many writers commit side by side; each takes a connection while it does.
    pub writers: u16,
    /// The most connections, those of the writers included.
    pub max_connections: u32,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one operation may take, waiting for a connection and for other nodes included.
    pub operation_timeout: Duration,
    /// How writes are gathered.
    pub gathering: Gathering,
}

impl PostgresOptions {
    /// Understands `postgres://user:password@host:port/database?sslmode=require` (also `sslrootcert`, `sslcert`, `sslkey`). The usual
    /// besides: the server's default schema, 2 writers, 8 connections, 5 s to connect, 30 s for an operation.
    ///
    /// # Errors
    /// [`EventsError::Invalid`]; the text is not repeated, because it may hold a password.
    pub fn new(url: &str) -> Result<Self, EventsError> {
        let url = Url::parse(url).map_err(|_| EventsError::Invalid("want postgres://user@host:5432/database"))?;
        let host = url.host_str().is_some_and(|host| !host.is_empty());
        let complete = host && !url.username().is_empty() && !url.path().trim_start_matches('/').is_empty();
        if !matches!(url.scheme(), "postgres" | "postgresql") || !complete {
            return Err(EventsError::Invalid(
                "a PostgreSQL address names a user, a host and a database: postgres://user@host:5432/database",
            ));
        }
        for (key, value) in url.query_pairs() {
            match &*key {
                "sslmode" => {
                    PgSslMode::from_str(&value).map_err(|_| EventsError::Invalid("sslmode is not one that PostgreSQL knows"))?;
                }
                "sslrootcert" | "sslcert" | "sslkey" => {}
                _ => return Err(EventsError::Invalid("a PostgreSQL address takes sslmode, sslrootcert, sslcert and sslkey and no other")),
            }
        }
        Ok(Self {
            url,
            schema: None,
            writers: 2,
            max_connections: 8,
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(30),
            gathering: Gathering::default(),
        })
    }

    /// Puts the tables in a schema, which is made when it is not there: a lower-case letter or `_`, then up to 62 of `a-z 0-9 _`.
    ///
    /// # Errors
    /// [`EventsError::Invalid`] for another name.
    pub fn in_schema(mut self, name: &str) -> Result<Self, EventsError> {
        let alphabet = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        // `pg_` is PostgreSQL's own. Such a name needs no quoting.
        if name.is_empty() || name.len() > 63 || !alphabet || name.as_bytes()[0].is_ascii_digit() || name.starts_with("pg_") {
            return Err(EventsError::Invalid(
                "the name of a schema has 1 to 63 characters out of a-z, 0-9 and '_', and begins with no digit",
            ));
        }
        self.schema = Some(name.to_owned());
        Ok(self)
    }

    /// The schema, if one was named.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// What the driver shall do: durable commits, and no statement, lock or forgotten transaction for ever.
    pub(super) fn connect(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let port = self.url.port().unwrap_or(5432);
        let mut connect = PgConnectOptions::from_url(&self.url)?.port(port).application_name("plinth-events").disable_statement_logging();
        // What the address does not say, the driver would take from the environment, and only `config` reads that.
        if self.url.password().is_none() {
            connect = connect.password("");
        }
        if !self.url.query_pairs().any(|(key, _)| key == "sslmode") {
            connect = connect.ssl_mode(PgSslMode::Prefer);
        }
        let millis = |time: Duration| time.as_millis().clamp(1, 3_600_000).to_string();
        connect = connect.options([
            ("synchronous_commit", "on".to_owned()),
            ("statement_timeout", millis(self.operation_timeout)),
            ("lock_timeout", millis(self.operation_timeout / 2)),
            ("idle_in_transaction_session_timeout", millis(self.operation_timeout)),
        ]);
        if let Some(schema) = &self.schema {
            connect = connect.options([("search_path", schema)]);
        }
        Ok(connect)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, host, port) = (self.url.username(), self.url.host_str().unwrap_or_default(), self.url.port().unwrap_or(5432));
        write!(f, "postgres://{user}@{host}:{port}{} (schema {:?})", self.url.path(), self.schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_complete_or_would_weaken_durability_is_refused() {
        assert!(PostgresOptions::new("postgresql://u:p@h:5433/d?sslmode=verify-full").is_ok());
        for bad in
            ["", "mysql://u@h/d", "postgres://h/d", "postgres://u@h", "postgres://u@h/d?sslmode=maybe", "postgres://u@h/d?options=-cx%3Dy"]
        {
            assert!(matches!(PostgresOptions::new(bad), Err(EventsError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let options = PostgresOptions::new("postgres://u:geheim@h/d").unwrap().in_schema("s").unwrap();
        assert_eq!(format!("{options:?}"), "postgres://u@h:5432/d (schema Some(\"s\"))");
    }

    #[test]
    fn a_schema_needs_no_quoting() {
        let options = PostgresOptions::new("postgres://u@h/d").unwrap();
        for bad in ["", "1a", "A", "a-b", "a\"b", "pg_x", "é", &"x".repeat(64)] {
            assert!(options.clone().in_schema(bad).is_err(), "{bad:?}");
        }
    }
}
