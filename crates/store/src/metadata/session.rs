//! One conversation with a database, whichever it is.
//!
//! [`Session`] is the little that the ledger needs of a driver, so that the ledger is written once.
//! Invariant: a connection goes back to its pool only when somebody said [`Session::keep`], which is after a clean end.
//! After an error, a time-out or a cancelled call it is closed, and the database undoes what was open. (SQLite may have
//! rolled back by itself when its disk was full; then nobody but SQLite knows in which state the connection is.)

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteError;
use sqlx::{Arguments, Column, Executor, Postgres, Row as _, Sqlite, TypeInfo, ValueRef};

use super::MetadataError;

/// A value for a `$n` in a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Param<'a> {
    Int(i64),
    Text(&'a str),
}

#[derive(Debug)]
enum Cell {
    Null,
    Int(i64),
    Text(String),
}

/// A row of an answer, read from left to right.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Cell>);

impl Row {
    /// The next cell, which is a whole number.
    pub(super) fn int(&mut self) -> Result<i64, MetadataError> {
        match self.0.next() {
            Some(Cell::Int(number)) => Ok(number),
            other => Err(MetadataError::Damaged(format!("a column holds {other:?} instead of a number"))),
        }
    }

    /// The next cell, which is a whole number that is not negative.
    pub(super) fn count(&mut self) -> Result<u64, MetadataError> {
        let number = self.int()?;
        u64::try_from(number).map_err(|_| MetadataError::Damaged(format!("a column holds {number}")))
    }

    /// The next cell, which is text.
    pub(super) fn text(&mut self) -> Result<String, MetadataError> {
        match self.0.next() {
            Some(Cell::Text(text)) => Ok(text),
            other => Err(MetadataError::Damaged(format!("a column holds {other:?} instead of text"))),
        }
    }
}

/// A conversation with a database. Statements run in the order of the calls.
#[async_trait]
pub(super) trait Session: Send {
    /// Runs one statement and collects its rows.
    async fn fetch(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, sqlx::Error>;

    /// Runs statements without parameters and without answer.
    async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error>;

    /// Says that no transaction is open and the connection can be used again.
    fn keep(&mut self);
}

/// A connection out of a pool.
pub(super) struct Checkout<D: sqlx::Database> {
    connection: PoolConnection<D>,
    keep: bool,
}

impl<D: sqlx::Database> Checkout<D> {
    pub(super) const fn new(connection: PoolConnection<D>) -> Self {
        Self { connection, keep: false }
    }
}

impl<D: sqlx::Database> Drop for Checkout<D> {
    fn drop(&mut self) {
        if !self.keep {
            self.connection.close_on_drop();
        }
    }
}

/// The drivers' types differ and their traits do not meet, so this is a macro; it is the only place that knows them.
macro_rules! session {
    ($database:ty, $integer:literal) => {
        #[async_trait]
        impl Session for Checkout<$database> {
            async fn fetch(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, sqlx::Error> {
                let mut arguments = <$database as sqlx::Database>::Arguments::default();
                for param in params {
                    match *param {
                        Param::Int(number) => arguments.add(number),
                        Param::Text(text) => arguments.add(text),
                    }
                    .map_err(sqlx::Error::Encode)?;
                }
                let rows = sqlx::query_with(sql, arguments).fetch_all(&mut *self.connection).await?;
                rows.iter()
                    .map(|row| {
                        let cells = row.columns().iter().map(|column| {
                            let (at, value) = (column.ordinal(), row.try_get_raw(column.ordinal())?);
                            match (value.is_null(), value.type_info().name()) {
                                (true, _) => Ok(Cell::Null),
                                (false, $integer) => row.try_get(at).map(Cell::Int),
                                (false, _) => row.try_get(at).map(Cell::Text),
                            }
                        });
                        Ok(Row(cells.collect::<Result<Vec<_>, sqlx::Error>>()?.into_iter()))
                    })
                    .collect()
            }

            async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
                self.connection.execute(sql).await.map(|_| ())
            }

            fn keep(&mut self) {
                self.keep = true;
            }
        }
    };
}

session!(Sqlite, "INTEGER");
session!(Postgres, "INT8");

/// Turns a driver's error into the port's.
pub(super) fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> MetadataError {
    move |error| {
        if is_full(&error) { MetadataError::Full } else { MetadataError::Unavailable { operation, source: Box::new(error) } }
    }
}

/// Whether the database's disk is full.
fn is_full(error: &sqlx::Error) -> bool {
    /// `SQLITE_FULL`, the low byte of the extended code.
    const SQLITE_FULL: i32 = 13;
    /// `SQLITE_IOERR_SHMSIZE`: the file of the WAL's index cannot grow, which on a healthy disk means that it is full.
    const SQLITE_IOERR_SHMSIZE: i32 = 4874;
    /// `disk_full`.
    const POSTGRES_DISK_FULL: &str = "53100";

    let Some(error) = error.as_database_error() else { return false };
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<SqliteError>().is_some() {
        return code.parse::<i32>().is_ok_and(|code| code & 0xff == SQLITE_FULL || code == SQLITE_IOERR_SHMSIZE);
    }
    code == POSTGRES_DISK_FULL
}
