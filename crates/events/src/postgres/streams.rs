//! The streams in PostgreSQL: made, changed and deleted in one transaction each; found in memory where that is enough.
//!
//! Invariant: what is remembered is the number of a stream and what never changes of it. Another node may delete it meanwhile: then the
//! rows of its partitions are gone, a writer finds none, and what was remembered is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use plinth_types::TenantName;
use sqlx::{PgConnection, Row};

use super::{failed, schema};
use crate::error::EventsError;
use crate::event::MOST_IN_PAGE;
use crate::port::Created;
use crate::sqlite::streams::named;
use crate::stream::{Resolved, Settings, Stream};

/// So many streams are remembered.
const MOST_REMEMBERED: usize = 10_000;
const FIND: &str = "SELECT stream, settings FROM event_streams WHERE tenant = $1 AND name = $2 AND NOT deleted";

/// The streams that this node has used.
#[derive(Default)]
pub(super) struct Streams(RwLock<HashMap<Stream, Arc<Resolved>>>);

impl Streams {
    pub(super) fn known(&self, stream: &Stream) -> Option<Arc<Resolved>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
    }

    pub(super) fn forget(&self, stream: &Stream) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(stream);
    }

    /// Finds a stream in the database and remembers it.
    pub(super) async fn find(&self, db: &mut PgConnection, stream: &Stream) -> Result<Arc<Resolved>, EventsError> {
        let (number, settings) = find(db, stream).await?.ok_or(EventsError::NoSuchStream)?;
        let resolved = Arc::new(Resolved::new(number, &settings)?);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(stream.clone(), resolved.clone());
        Ok(resolved)
    }
}

/// A stream's number and settings.
pub(super) async fn find(db: &mut PgConnection, stream: &Stream) -> Result<Option<(i64, Settings)>, EventsError> {
    let query = sqlx::query(FIND).bind(stream.tenant.as_str()).bind(stream.name.as_str());
    let Some(row) = query.fetch_optional(db).await.map_err(failed("find"))? else { return Ok(None) };
    let text: String = row.try_get(1).map_err(failed("find"))?;
    Ok(Some((row.try_get(0).map_err(failed("find"))?, Settings::from_text(&text)?)))
}

/// Makes a stream and its partitions, in the transaction that is open.
pub(super) async fn create(db: &mut PgConnection, stream: &Stream, settings: &Settings) -> Result<Created, EventsError> {
    settings.build()?;
    let failed = failed("create");
    // Two nodes may make it at once; the second waits and finds it.
    sqlx::query(schema::LOCK).execute(&mut *db).await.map_err(&failed)?;
    if let Some((_, found)) = find(db, stream).await? {
        return if found.same_shape(settings) { Ok(Created::Already) } else { Err(EventsError::Exists) };
    }
    let insert = sqlx::query_scalar("INSERT INTO event_streams (tenant, name, settings) VALUES ($1, $2, $3) RETURNING stream");
    let insert = insert.bind(stream.tenant.as_str()).bind(stream.name.as_str()).bind(settings.to_text()?);
    let number: i64 = insert.fetch_one(&mut *db).await.map_err(&failed)?;
    let lanes = "INSERT INTO event_lanes (stream, partition) SELECT $1, generate_series(0, $2 - 1)";
    sqlx::query(lanes).bind(number).bind(i32::from(settings.partitions)).execute(db).await.map_err(&failed)?;
    Ok(Created::New)
}

/// Writes a stream's settings anew, in the transaction that is open.
pub(super) async fn set(db: &mut PgConnection, stream: &Stream, change: impl FnOnce(&mut Settings) + Send) -> Result<(), EventsError> {
    let failed = failed("set retention");
    sqlx::query(schema::LOCK).execute(&mut *db).await.map_err(&failed)?;
    let (number, mut settings) = find(db, stream).await?.ok_or(EventsError::NoSuchStream)?;
    change(&mut settings);
    let update = sqlx::query("UPDATE event_streams SET settings = $2 WHERE stream = $1").bind(number).bind(settings.to_text()?);
    update.execute(db).await.map_err(&failed)?;
    Ok(())
}

/// Marks a stream as deleted and takes its partitions away, in the transaction that is open. Waits for the group that has them locked.
pub(super) async fn delete(db: &mut PgConnection, stream: &Stream) -> Result<bool, EventsError> {
    let failed = failed("delete");
    let mark = "UPDATE event_streams SET deleted = true WHERE tenant = $1 AND name = $2 AND NOT deleted RETURNING stream";
    let mark = sqlx::query_scalar(mark).bind(stream.tenant.as_str()).bind(stream.name.as_str());
    let Some(number): Option<i64> = mark.fetch_optional(&mut *db).await.map_err(&failed)? else { return Ok(false) };
    // In their order, as everybody locks them.
    let lock = "SELECT 1 FROM event_lanes WHERE stream = $1 ORDER BY partition FOR UPDATE";
    sqlx::query(lock).bind(number).execute(&mut *db).await.map_err(&failed)?;
    sqlx::query("DELETE FROM event_lanes WHERE stream = $1").bind(number).execute(db).await.map_err(&failed)?;
    Ok(true)
}

/// The streams after one, in the order of tenant and name.
pub(super) async fn list(
    db: &mut PgConnection,
    tenant: Option<&TenantName>,
    after: Option<&Stream>,
    limit: u32,
) -> Result<Vec<(Stream, Settings)>, EventsError> {
    let failed = failed("streams");
    let select = "SELECT tenant, name, settings FROM event_streams
        WHERE NOT deleted AND ($1::text IS NULL OR tenant = $1) AND (tenant, name) > ($2, $3) ORDER BY tenant, name LIMIT $4";
    let query = sqlx::query(select)
        .bind(tenant.map(TenantName::as_str))
        .bind(after.map_or("", |stream| stream.tenant.as_str()))
        .bind(after.map_or("", |stream| stream.name.as_str()))
        .bind(i64::from(limit.min(MOST_IN_PAGE)));
    let mut streams = Vec::new();
    for row in query.fetch_all(db).await.map_err(&failed)? {
        let text = |column| row.try_get::<String, _>(column).map_err(&failed);
        streams.push((named(&text(0)?, &text(1)?)?, Settings::from_text(&text(2)?)?));
    }
    Ok(streams)
}
