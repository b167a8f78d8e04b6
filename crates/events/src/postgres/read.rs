//! Questions to PostgreSQL. Each is one statement, and sees what was committed before it began.

use futures_util::TryStreamExt;
use plinth_types::Timestamp;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::failed;
use crate::error::EventsError;
use crate::event::{Event, EventId, Key, MOST_IN_PAGE, Position, Stored};
use crate::sqlite::read::Page;

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT partition, position, id, key, at, stored_at, data FROM events ", $rest)
    };
}

fn damaged(what: &str) -> EventsError {
    EventsError::Damaged(format!("an event's {what}"))
}

fn stored(row: &PgRow) -> Result<Stored, EventsError> {
    let failed = failed("read");
    let text = |column| row.try_get::<String, _>(column).map_err(&failed);
    let id = EventId::try_from(text(2)?).map_err(|_| damaged("id"))?;
    let key = Key::try_from(text(3)?).map_err(|_| damaged("key"))?;
    let moment =
        |millis: i64| u64::try_from(millis).ok().and_then(|millis| Timestamp::from_millis(millis).ok()).ok_or_else(|| damaged("time"));
    let at = row.try_get::<Option<i64>, _>(4).map_err(&failed)?.map(moment).transpose()?;
    let partition = u16::try_from(row.try_get::<i32, _>(0).map_err(&failed)?).map_err(|_| damaged("partition"))?;
    let offset = u64::try_from(row.try_get::<i64, _>(1).map_err(&failed)?).map_err(|_| damaged("position"))?;
    let event = Event { id, key, at, data: row.try_get(6).map_err(&failed)? };
    Ok(Stored { event, position: Position { partition, offset }, stored_at: moment(row.try_get(5).map_err(&failed)?)? })
}

/// Reads rows until the page is full, so that rows past its bytes are not held.
async fn page(db: &mut PgConnection, limit: u32, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<Stored>, EventsError> {
    let mut page = Page::new(limit);
    let mut rows = query.fetch(db);
    while !page.full()
        && let Some(row) = rows.try_next().await.map_err(failed("read"))?
    {
        page.push(stored(&row)?);
    }
    Ok(page.done())
}

fn offset(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

pub(super) async fn read(db: &mut PgConnection, stream: i64, partition: u16, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError> {
    let query = sqlx::query(select!("WHERE stream = $1 AND partition = $2 AND position > $3 ORDER BY position LIMIT $4"));
    let query = query.bind(stream).bind(i32::from(partition)).bind(offset(after)).bind(i64::from(limit.min(MOST_IN_PAGE)));
    page(db, limit, query).await
}

pub(super) async fn get(db: &mut PgConnection, stream: i64, id: &EventId) -> Result<Vec<Stored>, EventsError> {
    let query = sqlx::query(select!("WHERE stream = $1 AND id = $2 ORDER BY key LIMIT 1000")).bind(stream).bind(id.as_str());
    page(db, MOST_IN_PAGE, query).await
}

pub(super) async fn by_key(db: &mut PgConnection, stream: i64, key: &Key, after: u64, limit: u32) -> Result<Vec<Stored>, EventsError> {
    let query = sqlx::query(select!("WHERE stream = $1 AND key = $2 AND position > $3 ORDER BY position LIMIT $4"));
    let query = query.bind(stream).bind(key.as_str()).bind(offset(after)).bind(i64::from(limit.min(MOST_IN_PAGE)));
    page(db, limit, query).await
}

pub(super) async fn latest(db: &mut PgConnection, stream: i64, key: &Key) -> Result<Option<Stored>, EventsError> {
    let query = sqlx::query(select!("WHERE stream = $1 AND key = $2 ORDER BY position DESC LIMIT 1")).bind(stream).bind(key.as_str());
    let found = page(db, 1, query).await?.pop();
    Ok(found.filter(|stored| stored.event.data.is_some()))
}

pub(super) async fn count(db: &mut PgConnection, stream: i64) -> Result<u64, EventsError> {
    let query = sqlx::query_scalar("SELECT COALESCE(sum(live), 0)::bigint FROM event_lanes WHERE stream = $1").bind(stream);
    let count: i64 = query.fetch_one(db).await.map_err(failed("count"))?;
    u64::try_from(count).map_err(|_| EventsError::Damaged("a count is negative".into()))
}
