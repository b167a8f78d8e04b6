//! The SQL of the ledger, in the words that both databases understand, and the few in which they differ.
//!
//! Invariant: no text from outside is ever part of a statement; all of it goes in as `$n`. Text compares byte by byte in
//! both: SQLite's columns by default, PostgreSQL's by `COLLATE "C"` in the schema.

/// What differs between the databases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// The product's name, for people.
    pub(super) product: &'static str,
    /// Asks for its version: one row, one text.
    pub(super) version: &'static str,
    /// Begins a transaction that sees one moment.
    pub(super) begin_read: &'static str,
    /// Begins a transaction that writes.
    pub(super) begin_write: &'static str,
    /// Reads the head and keeps every other writer out until the end of the transaction.
    pub(super) lock_head: &'static str,
    /// Begins a transaction that changes the schema, and keeps every other migration out until its end.
    pub(super) begin_migration: &'static [&'static str],
}

pub(super) const COMMIT: &str = "COMMIT";
pub(super) const ROLLBACK: &str = "ROLLBACK";

pub(super) const HEAD: &str = "SELECT revision FROM head WHERE id = 1";
pub(super) const MOVE_HEAD: &str = "UPDATE head SET revision = $1 WHERE id = 1";

pub(super) const GET: &str =
    "SELECT kind, tenant, name, revision, updated_at, value FROM records WHERE kind = $1 AND tenant = $2 AND name = $3";
pub(super) const READ_ALL: &str = "SELECT kind, tenant, name, revision, updated_at, value FROM records ORDER BY kind, tenant, name";
/// Parameters: kind, tenant and name of the last record of the page before, and the length of the page.
pub(super) const READ_PAGE: &str = "SELECT kind, tenant, name, revision, updated_at, value FROM records \
     WHERE (kind, tenant, name) > ($1, $2, $3) ORDER BY kind, tenant, name LIMIT $4";
pub(super) const PUT: &str = "INSERT INTO records (kind, tenant, name, revision, updated_at, value) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (kind, tenant, name) DO UPDATE SET revision = excluded.revision, updated_at = excluded.updated_at, value = excluded.value";
pub(super) const DELETE: &str = "DELETE FROM records WHERE kind = $1 AND tenant = $2 AND name = $3";

/// `substr` and not `LIKE`, in which `%` and `_` of a name would be wildcards; `>=` lets the index find the first.
macro_rules! list {
    ($filter:literal) => {
        concat!(
            "SELECT kind, tenant, name, revision, updated_at, value FROM records ",
            "WHERE kind = $1 AND name > $2 AND name >= $3 AND substr(name, 1, length($3)) = $3",
            $filter,
            " ORDER BY tenant, name LIMIT $4"
        )
    };
}
/// Parameters: kind, after, prefix, limit.
pub(super) const LIST_ALL: &str = list!("");
/// Parameters: kind, after, prefix, limit, tenant.
pub(super) const LIST_TENANT: &str = list!(" AND tenant = $5");

pub(super) const ADD_AUDIT: &str = "INSERT INTO audit (revision, at, tenant, actor, action, subject, comment, changes, link) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
/// Parameters: the revision.
pub(super) const AUDIT_LINK: &str = "SELECT link FROM audit WHERE revision = $1";
/// Parameters: the first revision, limit.
pub(super) const AUDIT_LINKED: &str = "SELECT revision, at, tenant, actor, action, subject, comment, changes, link FROM audit \
     WHERE revision >= $1 ORDER BY revision LIMIT $2";
pub(super) const AUDIT_ENTRY: &str = "SELECT revision, at, tenant, actor, action, subject, comment, changes FROM audit WHERE revision = $1";

macro_rules! audit {
    ($filter:literal) => {
        concat!(
            "SELECT revision, at, tenant, actor, action, subject, comment, changes FROM audit WHERE revision < $1",
            $filter,
            " ORDER BY revision DESC LIMIT $2"
        )
    };
}
/// Parameters: before, limit.
pub(super) const AUDIT_ALL: &str = audit!("");
/// Parameters: before, limit, tenant.
pub(super) const AUDIT_TENANT: &str = audit!(" AND tenant = $3");
/// Parameters: before, limit, subject, first and end of what is below it.
pub(super) const AUDIT_SUBJECT: &str = audit!(" AND (subject = $3 OR (subject >= $4 AND subject < $5))");
/// Parameters: before, limit, subject, first and end of what is below it, tenant.
pub(super) const AUDIT_TENANT_SUBJECT: &str = audit!(" AND tenant = $6 AND (subject = $3 OR (subject >= $4 AND subject < $5))");
