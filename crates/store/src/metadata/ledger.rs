//! The port, written once for both databases.
//!
//! Invariant: every operation ends within its time limit, waiting for a connection and for other writers included; what
//! was open then is undone by closing the connection. What differs between the databases is behind [`Driver`].

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use super::chain;
use super::commit::{self, check};
use super::rows::{self, revision_param};
use super::session::{Param, Row, Session, failed};
use super::statements::{
    AUDIT_ALL, AUDIT_ENTRY, AUDIT_LINKED, AUDIT_SUBJECT, AUDIT_TENANT, AUDIT_TENANT_SUBJECT, COMMIT, Dialect, HEAD, LIST_ALL, LIST_TENANT,
    READ_ALL, READ_PAGE, ROLLBACK,
};
use super::{AuditEntry, AuditLink, AuditQuery, Commit, ListQuery, Metadata, MetadataError, Record, RecordKey, Revision};

/// What an adapter gives: connections, and how its database wants to be spoken to.
#[async_trait]
pub(super) trait Driver: Send + Sync {
    /// How the database wants to be spoken to.
    fn dialect(&self) -> &'static Dialect;

    /// A connection for reading.
    async fn reader(&self) -> Result<Box<dyn Session>, sqlx::Error>;

    /// A connection for writing.
    async fn writer(&self) -> Result<Box<dyn Session>, sqlx::Error>;

    /// Closes all connections.
    async fn close(&self);
}

/// The records of one page of [`Metadata::read_pages`].
const PAGE: u32 = 10_000;

/// The ledger in a SQL database.
pub(super) struct SqlMetadata {
    driver: Box<dyn Driver>,
    time_limit: Duration,
}

impl SqlMetadata {
    pub(super) const fn new(driver: Box<dyn Driver>, time_limit: Duration) -> Self {
        Self { driver, time_limit }
    }

    /// One statement outside any transaction.
    async fn read(&self, operation: &'static str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>, MetadataError> {
        within(self.time_limit, operation, async {
            let mut session = self.driver.reader().await.map_err(failed(operation))?;
            let rows = session.fetch(sql, params).await.map_err(failed(operation))?;
            session.keep();
            Ok(rows)
        })
        .await
    }
}

/// Runs something for a limited time.
pub(super) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    run: impl Future<Output = Result<T, MetadataError>>,
) -> Result<T, MetadataError> {
    match tokio::time::timeout(limit, run).await {
        Ok(result) => result,
        Err(elapsed) => Err(MetadataError::Unavailable { operation, source: Box::new(elapsed) }),
    }
}

#[async_trait]
impl Metadata for SqlMetadata {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, MetadataError> {
        if key.name.contains('\0') {
            return Ok(None); // no adapter stores such a name, and PostgreSQL does not even take it as a question
        }
        within(self.time_limit, "get", async {
            let mut session = self.driver.reader().await.map_err(failed("get"))?;
            let record = commit::get(&mut *session, key, "get").await?;
            session.keep();
            Ok(record)
        })
        .await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, MetadataError> {
        let after = query.after.as_deref().unwrap_or_default();
        if after.contains('\0') || query.prefix.contains('\0') {
            return Ok(Vec::new());
        }
        // No name is empty, so every name comes after the empty text.
        let mut params =
            vec![Param::Text(query.kind.as_str()), Param::Text(after), Param::Text(&query.prefix), Param::Int(query.limit.into())];
        let sql = match &query.tenant {
            None => LIST_ALL,
            Some(tenant) => {
                params.push(Param::Text(tenant.as_str()));
                LIST_TENANT
            }
        };
        self.read("list", sql, &params).await?.into_iter().map(rows::record).collect()
    }

    async fn head(&self) -> Result<Revision, MetadataError> {
        rows::head(self.read("head", HEAD, &[]).await?)
    }

    async fn read_all(&self) -> Result<(Revision, Vec<Record>), MetadataError> {
        let operation = "read all";
        let (head, rows) = within(self.time_limit, operation, async {
            let mut session = self.driver.reader().await.map_err(failed(operation))?;
            session.script(self.driver.dialect().begin_read).await.map_err(failed(operation))?;
            let head = session.fetch(HEAD, &[]).await.map_err(failed(operation))?;
            let rows = session.fetch(READ_ALL, &[]).await.map_err(failed(operation))?;
            session.script(COMMIT).await.map_err(failed(operation))?;
            session.keep();
            Ok((rows::head(head)?, rows))
        })
        .await?;
        let mut records = rows.into_iter().map(rows::record).collect::<Result<Vec<_>, _>>()?;
        // The database sorts kinds by their text, the port by their order in `Kind`.
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((head, records))
    }

    async fn read_pages(&self, page: &mut (dyn FnMut(Vec<Record>) + Send)) -> Result<Revision, MetadataError> {
        let operation = "read pages";
        let mut session = within(self.time_limit, operation, async {
            let mut session = self.driver.reader().await.map_err(failed(operation))?;
            session.script(self.driver.dialect().begin_read).await.map_err(failed(operation))?;
            Ok(session)
        })
        .await?;
        let head = within(self.time_limit, operation, async { session.fetch(HEAD, &[]).await.map_err(failed(operation)) }).await?;
        // No kind is empty, so every record comes after this.
        let mut last = (String::new(), String::new(), String::new());
        loop {
            let params = [Param::Text(&last.0), Param::Text(&last.1), Param::Text(&last.2), Param::Int(PAGE.into())];
            let rows = within(self.time_limit, operation, async { session.fetch(READ_PAGE, &params).await.map_err(failed(operation)) });
            let records = rows.await?.into_iter().map(rows::record).collect::<Result<Vec<_>, _>>()?;
            let Some(end) = records.last() else { break };
            last = (end.key.kind.as_str().to_owned(), end.key.tenant.to_string(), end.key.name.clone());
            page(records);
        }
        within(self.time_limit, operation, async { session.script(COMMIT).await.map_err(failed(operation)) }).await?;
        session.keep();
        rows::head(head)
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, MetadataError> {
        check(&commit)?;
        let (operation, dialect) = ("commit", self.driver.dialect());
        within(self.time_limit, operation, async {
            let mut session = self.driver.writer().await.map_err(failed(operation))?;
            session.script(dialect.begin_write).await.map_err(failed(operation))?;
            let result = commit::apply(&mut *session, dialect, &commit).await;
            match &result {
                Ok(_) => {
                    session.script(COMMIT).await.map_err(failed(operation))?;
                    session.keep();
                }
                Err(MetadataError::Conflict(_) | MetadataError::HeadMoved(_)) => {
                    if session.script(ROLLBACK).await.is_ok() {
                        session.keep();
                    }
                }
                // The connection is closed, and the transaction with it.
                Err(_) => {}
            }
            result
        })
        .await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, MetadataError> {
        let before = query.before.map_or(Ok(i64::MAX), revision_param)?;
        let mut params = vec![Param::Int(before), Param::Int(query.limit.into())];
        // Below `digits` lies what begins with `digits/`, and `0` is the character after `/`.
        let subject = query.subject.as_ref().map(|subject| (subject, format!("{subject}/"), format!("{subject}0")));
        if let Some((subject, first, end)) = &subject {
            if subject.contains('\0') {
                return Ok(Vec::new());
            }
            params.extend([Param::Text(subject), Param::Text(first), Param::Text(end)]);
        }
        let sql = match (&query.tenant, &subject) {
            (None, None) => AUDIT_ALL,
            (Some(_), None) => AUDIT_TENANT,
            (None, Some(_)) => AUDIT_SUBJECT,
            (Some(_), Some(_)) => AUDIT_TENANT_SUBJECT,
        };
        params.extend(query.tenant.as_ref().map(|tenant| Param::Text(tenant.as_str())));
        self.read("audit", sql, &params).await?.into_iter().map(rows::audit_entry).collect()
    }

    async fn audit_entry(&self, revision: Revision) -> Result<Option<AuditEntry>, MetadataError> {
        // A revision that the database cannot even count has no entry.
        let Ok(number) = revision_param(revision) else { return Ok(None) };
        let rows = self.read("audit entry", AUDIT_ENTRY, &[Param::Int(number)]).await?;
        rows.into_iter().next().map(rows::audit_entry).transpose()
    }

    async fn audit_chain(&self, first: Revision, limit: u32) -> Result<Vec<AuditLink>, MetadataError> {
        let params = [Param::Int(revision_param(first)?), Param::Int(limit.into())];
        self.read("audit chain", AUDIT_LINKED, &params).await?.into_iter().map(chain::read).collect()
    }

    async fn describe(&self) -> Result<String, MetadataError> {
        let dialect = self.driver.dialect();
        let rows = self.read("describe", dialect.version, &[]).await?;
        let version = rows.into_iter().next().map(|mut row| row.text()).transpose()?.unwrap_or_default();
        // PostgreSQL adds the distribution's name.
        let version = version.split_whitespace().next().unwrap_or_default();
        Ok(format!("{} {version}", dialect.product))
    }

    async fn close(&self) {
        let _ = tokio::time::timeout(self.time_limit, self.driver.close()).await;
    }
}
