//! Flows: a row for each kind, class and tenant that has (or lately had) ready jobs. Whose turn it is.
//!
//! Invariant: no ready job is ever committed without its flow. Who makes a job ready holds the flow's row (`FOR KEY SHARE`, or it is his
//! own uncommitted insert) until his commit. Who deletes an empty flow first locks it `FOR UPDATE`, which nobody else's key share allows,
//! and looks for ready jobs in a second statement: its snapshot is younger than the lock, so it shows the jobs of everyone who held the
//! flow before. Who comes later waits for the deletion, finds nothing and inserts again.
//!
//! The rule of turns is that of SQLite: each flow has a `pass` that grows by one for each job taken from it, the smallest goes first, and
//! each class has a virtual time (`turns`), where the flow stood that was looked at last; a flow that begins anew or was left behind goes on
//! from there, and one that was emptied keeps its place until it is found empty when its turn comes again. Here the virtual time is only moved on by who finds its row free, so that claims of one class do not queue for it: it may
//! be some jobs late, and is never early.

use std::collections::BTreeSet;

use sqlx::error::Error;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::rows;

/// A flow. Flows are always locked and inserted in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) kind: String,
    pub(super) class: u8,
    pub(super) tenant: String,
}

/// Flows as the three arrays of a statement.
#[derive(Default)]
struct Columns<'a>(Vec<&'a str>, Vec<i16>, Vec<&'a str>);

impl<'a> Columns<'a> {
    fn of(flows: impl IntoIterator<Item = &'a Flow>) -> Self {
        let mut columns = Self::default();
        for flow in flows {
            columns.0.push(&flow.kind);
            columns.1.push(flow.class.into());
            columns.2.push(&flow.tenant);
        }
        columns
    }
}

fn read(row: &PgRow) -> Result<Flow, Error> {
    Ok(Flow { kind: row.try_get(0)?, class: rows::class(row, 1)?, tenant: row.try_get(2)? })
}

const HOLD: &str = "SELECT f.kind, f.class, f.tenant FROM unnest($1::text[], $2::int2[], $3::text[]) AS w (kind, class, tenant) \
     JOIN flows f ON f.kind = w.kind AND f.class = w.class AND f.tenant = w.tenant FOR KEY SHARE OF f";
/// One that had none begins where its class is: idle time earns no credit.
const INSERT: &str = "INSERT INTO flows (kind, class, tenant, pass) \
     SELECT w.kind, w.class, w.tenant, coalesce((SELECT pass FROM turns t WHERE t.class = w.class), 0) \
     FROM unnest($1::text[], $2::int2[], $3::text[]) AS w (kind, class, tenant) ON CONFLICT DO NOTHING RETURNING kind, class, tenant";

/// Makes sure that these flows are there, and stay until the commit.
pub(super) async fn enter(db: &mut PgConnection, flows: &BTreeSet<Flow>) -> Result<(), Error> {
    let mut missing: BTreeSet<&Flow> = flows.iter().collect();
    // It ends: a flow comes round again only when somebody deleted it between two statements.
    while !missing.is_empty() {
        for sql in [HOLD, INSERT] {
            let Columns(kinds, classes, tenants) = Columns::of(missing.iter().copied());
            let found = sqlx::query(sql).bind(kinds).bind(classes).bind(tenants).fetch_all(&mut *db).await?;
            for row in &found {
                missing.remove(&read(row)?);
            }
            if missing.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// Flows that are not to be looked at again, for `concat!`; `$1` to `$3`.
macro_rules! unseen {
    ($flow:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM unnest($1::text[], $2::int2[], $3::text[]) AS s (kind, class, tenant) WHERE s.kind = ",
            $flow,
            ".kind AND s.class = ",
            $flow,
            ".class AND s.tenant = ",
            $flow,
            ".tenant)"
        )
    };
}

/// The next flows of a class, `$4` the kinds, `$5` the lowest class, `$6` how many.
macro_rules! in_turn {
    ($lock:literal) => {
        concat!(
            "SELECT f.kind, f.class, f.tenant, f.pass, coalesce((SELECT t.pass FROM turns t WHERE t.class = f.class), 0) FROM flows f \
             WHERE f.kind = ANY($4) AND ",
            unseen!("f"),
            " AND f.class = (SELECT g.class FROM flows g WHERE g.class <= $5 AND g.kind = ANY($4) AND ",
            unseen!("g"),
            " ORDER BY g.class, g.pass LIMIT 1) ORDER BY f.pass LIMIT $6 ",
            $lock
        )
    };
}

/// Locks flows of these kinds in turn: of the first class that has any, of no class above `lowest`, none that was `seen`.
///
/// What another node has locked is left to it. When that is all there is, a transaction that holds no flow yet (`patient`) waits for the
/// first one: who went away empty-handed from a line with a single flow would come back only with its next poll, and who took a lower
/// class would serve it first.
pub(super) async fn in_turn(
    db: &mut PgConnection,
    (kinds, lowest): (&[&str], u8),
    most: usize,
    seen: &[Flow],
    patient: bool,
) -> Result<Vec<Turn>, Error> {
    const FREE: &str = in_turn!("FOR NO KEY UPDATE OF f SKIP LOCKED");
    const FIRST: &str = in_turn!("FOR NO KEY UPDATE OF f");
    let most = rows::signed(most as u64);
    for (sql, most) in [(FREE, most), (FIRST, 1)].into_iter().take(if patient { 2 } else { 1 }) {
        let Columns(seen_kinds, seen_classes, seen_tenants) = Columns::of(seen);
        let query = sqlx::query(sql).bind(seen_kinds).bind(seen_classes).bind(seen_tenants);
        let found = query.bind(kinds).bind(i16::from(lowest)).bind(most).fetch_all(&mut *db).await?;
        if !found.is_empty() {
            return found.iter().map(|row| Ok(Turn { flow: read(row)?, pass: row.try_get(3)?, class_at: row.try_get(4)? })).collect();
        }
    }
    Ok(Vec::new())
}

/// A flow that a claim has locked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn {
    pub(super) flow: Flow,
    pass: f64,
    /// The virtual time of its class.
    class_at: f64,
}

/// Where flows of one class stand after so many jobs were taken from each, and the virtual time of the class then.
fn moved(turns: &[(&Turn, usize)]) -> (Vec<f64>, f64) {
    let mut at = turns.first().map_or(0.0, |(turn, _)| turn.class_at);
    let pass = |(turn, taken): &(&Turn, usize)| {
        at = at.max(turn.pass);
        at + *taken as f64
    };
    (turns.iter().map(pass).collect(), at)
}

/// Counts what was taken from flows of one class that this transaction has locked.
pub(super) async fn count_taken(db: &mut PgConnection, taken: &[(&Turn, usize)]) -> Result<(), Error> {
    let Some((first, _)) = taken.first() else { return Ok(()) };
    let (passes, at) = moved(taken);
    let Columns(kinds, classes, tenants) = Columns::of(taken.iter().map(|(turn, _)| &turn.flow));
    let sql = "WITH free AS MATERIALIZED (SELECT class FROM turns WHERE class = $5 AND pass < $6 FOR NO KEY UPDATE SKIP LOCKED), \
         moved AS (UPDATE turns t SET pass = $6 FROM free WHERE t.class = free.class) \
         UPDATE flows f SET pass = w.pass FROM unnest($1::text[], $2::int2[], $3::text[], $4::float8[]) AS w (kind, class, tenant, pass) \
         WHERE f.kind = w.kind AND f.class = w.class AND f.tenant = w.tenant";
    let query = sqlx::query(sql).bind(kinds).bind(classes).bind(tenants).bind(passes).bind(i16::from(first.flow.class)).bind(at);
    query.execute(db).await.map(|_| ())
}

/// Deletes those of these flows that are empty and in nobody's hands.
pub(super) async fn leave(db: &mut PgConnection, empty: &[Flow]) -> Result<(), Error> {
    if empty.is_empty() {
        return Ok(());
    }
    let Columns(kinds, classes, tenants) = Columns::of(empty);
    let lock = "SELECT f.kind, f.class, f.tenant FROM unnest($1::text[], $2::int2[], $3::text[]) AS w (kind, class, tenant) \
         JOIN flows f ON f.kind = w.kind AND f.class = w.class AND f.tenant = w.tenant FOR UPDATE OF f SKIP LOCKED";
    let locked = sqlx::query(lock).bind(kinds).bind(classes).bind(tenants).fetch_all(&mut *db).await?;
    let locked: Vec<Flow> = locked.iter().map(read).collect::<Result<_, _>>()?;
    if locked.is_empty() {
        return Ok(());
    }
    // A statement of its own: see the head.
    let Columns(kinds, classes, tenants) = Columns::of(&locked);
    let delete = "DELETE FROM flows f USING unnest($1::text[], $2::int2[], $3::text[]) AS w (kind, class, tenant) \
         WHERE f.kind = w.kind AND f.class = w.class AND f.tenant = w.tenant AND NOT EXISTS \
         (SELECT 1 FROM jobs j WHERE j.state = 2 AND j.kind = w.kind AND j.class = w.class AND j.tenant = w.tenant)";
    sqlx::query(delete).bind(kinds).bind(classes).bind(tenants).execute(db).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_left_behind_earns_no_credit() {
        let turn = |pass| Turn { flow: Flow { kind: "k".into(), class: 1, tenant: "t".into() }, pass, class_at: 10.0 };
        let (behind, there, ahead) = (turn(3.0), turn(10.0), turn(12.0));
        assert_eq!(moved(&[(&behind, 2), (&there, 2), (&ahead, 1)]), (vec![12.0, 12.0, 13.0], 12.0));
        assert_eq!(moved(&[]), (Vec::new(), 0.0));
    }
}
