//! Rows to output rows: batches through a scorer, and the rows that it refuses alone.
//!
//! Invariant: a batch that is refused is halved until the rows that are to blame stand alone, so they and no others have the error; which batches are
//! asked for depends on the rows alone.

use std::ops::Range;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use plinth_jobs::JobError;
use plinth_rows::{Columns, Format, RowError, RowsError, Values, Writer};
use plinth_types::{Error, Result, Tensor};
use serde_json::{Map, Value};

use super::table::{Encoded, Table};

/// Why a scorer gave no outputs.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Because of the rows: one of them, or all.
    Rows(String),
    /// Not because of the rows.
    Stop(JobError),
}

/// Gives outputs for rows.
#[async_trait]
pub(super) trait Scorer: Send + Sync {
    /// Outputs for a batch. Waits for room as long as that takes.
    async fn score(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Refusal>;
}

/// The output of some rows, written down.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// How many rows.
    pub rows: u64,
    /// How many of them have an error.
    pub failed: u64,
    /// Their lines.
    pub bytes: Vec<u8>,
}

/// Scores consecutive rows and writes them down.
pub(super) async fn score<S: Scorer>(table: &Table, format: Format, scorer: &S, mut rows: Columns) -> Result<Written, JobError> {
    let encoded = table.encode(&mut rows);
    let batches = (0..rows.rows).step_by(table.batch).map(|from| from..rows.rows.min(from + table.batch));
    let batches: Vec<_> = batches.map(|batch| halving(table, scorer, &encoded, batch, &rows).boxed()).collect();
    let scored = try_join_all(batches).await?;
    let table = table.clone();
    let written = tokio::task::spawn_blocking(move || write(&table, format, rows, scored.into_iter().flatten()));
    written.await.map_err(|error| JobError::from(Error::internal("a blocking step").source(error)))?
}

type Scored = (Range<usize>, Result<Vec<Values>, String>);

/// The outputs of a batch, cut where rows are refused; in order.
async fn halving<S: Scorer>(
    table: &Table,
    scorer: &S,
    encoded: &Encoded,
    batch: Range<usize>,
    rows: &Columns,
) -> Result<Vec<Scored>, JobError> {
    let unread = |range: &Range<usize>| {
        let first = rows.first_row + range.start as u64;
        let from = rows.errors.partition_point(|error| error.row < first);
        let to = rows.errors.partition_point(|error| error.row < first + range.len() as u64);
        to - from == range.len()
    };
    let mut left = vec![batch];
    let mut done = Vec::with_capacity(1);
    while let Some(range) = left.pop() {
        if unread(&range) {
            // Nothing of it was understood: their errors are there already.
            done.push((range, Err(String::new())));
            continue;
        }
        match scorer.score(table.tensors(encoded, range.start, range.end)?).await {
            Ok(given) => {
                let values = table.decode(given, range.len())?;
                done.push((range, Ok(values)));
            }
            Err(Refusal::Stop(error)) => return Err(error),
            Err(Refusal::Rows(text)) if range.len() == 1 => done.push((range, Err(text))),
            Err(Refusal::Rows(_)) => {
                let half = range.start + range.len() / 2;
                left.extend([half..range.end, range.start..half]);
            }
        }
    }
    Ok(done)
}

fn write(table: &Table, format: Format, read: Columns, scored: impl Iterator<Item = Scored>) -> Result<Written, JobError> {
    let wrong = |error: RowsError| JobError::Dead(Error::internal("writing output rows").source(error));
    // What stands before the first row of the file is written with that row.
    let position = u64::from(read.first_row > 0);
    let mut writer = Writer::resume(Vec::new(), format, table.outputs.clone(), position).map_err(wrong)?;
    let mut errors = read.errors.into_iter().peekable();
    let mut failed = 0;
    for (range, result) in scored {
        let first_row = read.first_row + range.start as u64;
        let end = first_row + range.len() as u64;
        let mut here = Vec::new();
        while let Some(error) = errors.next_if(|error| error.row < end) {
            here.push(error);
        }
        let values = match result {
            Ok(values) => values,
            Err(text) => {
                if here.is_empty() {
                    here.extend((first_row..end).map(|row| RowError { row, line: None, text: text.clone() }));
                }
                neutral(table, range.len())
            }
        };
        failed += here.len() as u64;
        let columns = Columns { first_row, rows: range.len(), values, errors: here };
        if table.flexible { write_each(table, &mut writer, &columns) } else { writer.write_columns(&columns) }.map_err(wrong)?;
    }
    Ok(Written { rows: read.rows as u64, failed, bytes: writer.finish().map_err(wrong)? })
}

/// Outputs of rows that have none.
fn neutral(table: &Table, rows: usize) -> Vec<Values> {
    use plinth_rows::Element;
    let of = |output: &plinth_rows::Output| {
        let n = rows * output.count;
        match output.element {
            Element::F32 => Values::F32(vec![0.0; n]),
            Element::F64 => Values::F64(vec![0.0; n]),
            Element::I64 => Values::I64(vec![0; n]),
            Element::U8 => Values::U8(vec![0; n]),
            Element::Bool => Values::Bool(vec![false; n]),
            Element::Text => Values::Text(vec![String::new(); n]),
        }
    };
    table.outputs.iter().map(of).collect()
}

/// Rows whose outputs have as many elements as the model pleases, as lists.
fn write_each(table: &Table, writer: &mut Writer<Vec<u8>>, rows: &Columns) -> Result<(), RowsError> {
    let mut errors = rows.errors.iter().peekable();
    for index in 0..rows.rows {
        let row = rows.first_row + index as u64;
        match errors.next_if(|error| error.row == row) {
            Some(error) => writer.write_row(row, Err(&error.text))?,
            None => {
                let list = |values: &Values| {
                    let count = values.len() / rows.rows.max(1);
                    Value::Array((index * count..(index + 1) * count).map(|at| element(values, at)).collect())
                };
                let named = table.outputs.iter().zip(&rows.values).map(|(output, values)| (output.name.clone(), list(values)));
                writer.write_row(row, Ok(&named.collect::<Map<_, _>>()))?;
            }
        }
    }
    Ok(())
}

/// An element as JSON; what is not finite as text, as [`Writer`] has it.
fn element(values: &Values, at: usize) -> Value {
    let number = |x: f64, text: String| serde_json::from_str(&text).unwrap_or_else(|_| not_finite(x));
    match values {
        // The shortest text of an f32 is not that of the f64 that it becomes.
        Values::F32(v) => v.get(at).map_or(Value::Null, |x| number(f64::from(*x), format!("{x:?}"))),
        Values::F64(v) => v.get(at).map_or(Value::Null, |x| number(*x, format!("{x:?}"))),
        Values::I64(v) => v.get(at).map_or(Value::Null, |x| (*x).into()),
        Values::U8(v) => v.get(at).map_or(Value::Null, |x| (*x).into()),
        Values::Bool(v) => v.get(at).map_or(Value::Null, |x| (*x).into()),
        Values::Text(v) => v.get(at).map_or(Value::Null, |x| x.as_str().into()),
    }
}

fn not_finite(x: f64) -> Value {
    let text = if x.is_nan() {
        "NaN"
    } else if x > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    text.into()
}
