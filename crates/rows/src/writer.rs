//! Output rows, in order: as JSON lines and CSV while a run goes on, as Parquet at its end.
//!
//! Invariants: every input row has one output row, with its number and either results or an error; what is written depends on the
//! rows alone, not on how they were cut into calls; [`Writer::flush`] ends at the end of a row. So a run that was killed cuts
//! its output to the position of its last checkpoint, goes on with [`Writer::resume`], and ends with the same bytes.
//!
//! Parquet cannot be cut: its footer comes last and speaks of everything before. So a run with Parquet output writes JSON lines,
//! and [`write_parquet`] turns them into the Parquet file when all are there. It is a pure function of those lines: a run that
//! is killed in the middle of it starts it again.
//!
//! JSON lines: `{"row":7,"score":0.5,"probabilities":[0.1,0.9]}` or `{"row":8,"error":"…"}`. CSV: the columns `row`, each output
//! (`name`, or `name_0`, `name_1`, … when it has several elements), `error`; lines end with LF. An output that is not
//! a finite number is `NaN`, `Infinity` or `-Infinity`, in JSON as a string (as ProtoJSON has it).

mod parquet;

use std::collections::HashSet;
use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::csv::write_field;
use crate::error::excerpt;
use crate::{Columns, Element, Format, RowsError, Values};

pub use parquet::write_parquet;

/// How much is gathered before the sink is written to, in bytes.
const GATHER: usize = 256 << 10;

/// One output of each row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What it is called. Not `row` or `error`.
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// How many elements each row has.
    pub count: usize,
}

impl Output {
    /// An output of so many elements.
    pub fn new(name: impl Into<String>, element: Element, count: usize) -> Self {
        Self { name: name.into(), element, count }
    }
}

/// Writes output rows. It blocks.
pub struct Writer<W> {
    sink: W,
    format: Format,
    outputs: Vec<Output>,
    buffer: Vec<u8>,
    position: u64,
    handed_over: u64,
    last_row: Option<u64>,
}

impl<W: Write> Writer<W> {
    /// A writer of a new output. The outputs may be none for JSON lines that are written by [`Writer::write_row`] alone.
    ///
    /// # Errors
    /// [`RowsError::Output`] for outputs whose names are taken or twice there, and for [`Format::Parquet`].
    pub fn new(sink: W, format: Format, outputs: Vec<Output>) -> Result<Self, RowsError> {
        check(format, &outputs)?;
        let mut buffer = Vec::with_capacity(GATHER + (GATHER >> 2));
        if format == Format::Csv {
            buffer.extend_from_slice(b"row");
            for name in outputs.iter().flat_map(csv_names) {
                buffer.push(b',');
                write_field(&mut buffer, &name);
            }
            buffer.extend_from_slice(b",error\n");
        }
        Ok(Self { sink, format, outputs, buffer, position: 0, handed_over: 0, last_row: None })
    }

    /// A writer that goes on with an output. The caller has cut it to `position`, which [`Writer::flush`] gave, and the sink
    /// writes behind it.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn resume(sink: W, format: Format, outputs: Vec<Output>, position: u64) -> Result<Self, RowsError> {
        let mut writer = Self::new(sink, format, outputs)?;
        if position > 0 {
            writer.buffer.clear();
            (writer.position, writer.handed_over) = (position, position);
        }
        Ok(writer)
    }

    /// How many bytes of the output end with the last flush, counted from its beginning: what may be kept for good once the
    /// caller has synced the sink.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Hands everything to the sink and flushes it; the new position.
    ///
    /// # Errors
    /// [`RowsError::Write`]. The output may then end anywhere behind the last position.
    pub fn flush(&mut self) -> Result<u64, RowsError> {
        self.hand_over()?;
        self.sink.flush().map_err(RowsError::Write)?;
        self.position = self.handed_over;
        Ok(self.position)
    }

    /// Flushes, and gives the sink back.
    ///
    /// # Errors
    /// As [`Writer::flush`].
    pub fn finish(mut self) -> Result<W, RowsError> {
        self.flush()?;
        Ok(self.sink)
    }

    /// Writes consecutive rows: buffers in the order of the outputs, and the rows that have an error instead.
    ///
    /// # Errors
    /// [`RowsError::Output`] for buffers that do not fit the outputs, errors out of order and rows that were written; nothing of
    /// these rows is written then. [`RowsError::Write`].
    pub fn write_columns(&mut self, rows: &Columns) -> Result<(), RowsError> {
        self.check_columns(rows)?;
        let mut errors = rows.errors.iter().peekable();
        for index in 0..rows.rows {
            let row = rows.first_row + index as u64;
            self.begin(row)?;
            match errors.next_if(|error| error.row == row) {
                Some(error) => self.error(&error.text)?,
                None => self.results(&rows.values, index)?,
            }
            if self.buffer.len() >= GATHER {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// Writes one row: its results by name, or its error. JSON lines take any names but `row` and `error`; CSV takes the
    /// outputs' names, a single value as it is and anything else as JSON, in the column `name` or, an array, one element in each.
    ///
    /// # Errors
    /// [`RowsError::Output`] for a result that does not fit and for a row that was written; it is not written then.
    /// [`RowsError::Write`].
    pub fn write_row(&mut self, row: u64, result: Result<&Map<String, Value>, &str>) -> Result<(), RowsError> {
        if let Ok(fields) = result {
            for name in fields.keys() {
                let taken = name == "row" || name == "error";
                let known = self.format != Format::Csv || self.outputs.iter().any(|output| output.name == *name);
                if taken || !known {
                    let why = if taken { "is taken" } else { "is not one of the outputs" };
                    return Err(RowsError::Output(format!("row {row}: the name \"{}\" {why}", excerpt(name))));
                }
            }
            for output in self.outputs.iter().filter(|output| self.format == Format::Csv && output.count > 1) {
                if let Some(value) = fields.get(&output.name)
                    && value.as_array().map(Vec::len) != Some(output.count)
                {
                    let (name, count) = (excerpt(&output.name), output.count);
                    return Err(RowsError::Output(format!("row {row}: \"{name}\" is no array of {count} elements")));
                }
            }
        }
        self.begin(row)?;
        match (result, self.format) {
            (Err(text), _) => self.error(text)?,
            (Ok(fields), Format::Csv) => {
                for output in &self.outputs {
                    for at in 0..output.count {
                        let value = fields.get(&output.name).filter(|value| !value.is_null());
                        let value = if output.count > 1 { value.and_then(|value| value.get(at)) } else { value };
                        self.buffer.push(b',');
                        match value {
                            None => {}
                            Some(Value::String(text)) => write_field(&mut self.buffer, text),
                            Some(value) => write_field(&mut self.buffer, &value.to_string()),
                        }
                    }
                }
                self.buffer.extend_from_slice(b",\n");
            }
            (Ok(fields), _) => {
                for (name, value) in fields {
                    self.buffer.push(b',');
                    json(&mut self.buffer, name)?;
                    self.buffer.push(b':');
                    json(&mut self.buffer, value)?;
                }
                self.buffer.extend_from_slice(b"}\n");
            }
        }
        if self.buffer.len() >= GATHER { self.hand_over() } else { Ok(()) }
    }

    fn check_columns(&self, rows: &Columns) -> Result<(), RowsError> {
        let wrong = |text: String| Err(RowsError::Output(text));
        if rows.values.len() != self.outputs.len() {
            return wrong(format!("there are {} buffers for {} outputs", rows.values.len(), self.outputs.len()));
        }
        for (values, output) in rows.values.iter().zip(&self.outputs) {
            if values.element() != output.element || Some(values.len()) != rows.rows.checked_mul(output.count) {
                return wrong(format!(
                    "the buffer of \"{}\" has {} elements of {:?}, {} rows want {} each of {:?}",
                    excerpt(&output.name),
                    values.len(),
                    values.element(),
                    rows.rows,
                    output.count,
                    output.element
                ));
            }
        }
        let end = rows.first_row.checked_add(rows.rows as u64);
        let inside = |row: u64| row >= rows.first_row && end.is_some_and(|end| row < end);
        let ordered = rows.errors.windows(2).all(|pair| pair[0].row < pair[1].row) && rows.errors.iter().all(|error| inside(error.row));
        if end.is_none() || !ordered {
            return wrong("the errors are not in the order of the rows, or are of other rows".to_owned());
        }
        self.check_order(rows.first_row)
    }

    fn check_order(&self, row: u64) -> Result<(), RowsError> {
        match self.last_row {
            Some(last) if row <= last => {
                Err(RowsError::Output(format!("row {row} comes after row {last}; rows are written in order, once")))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, row: u64) -> Result<(), RowsError> {
        self.check_order(row)?;
        self.last_row = Some(row);
        if self.format != Format::Csv {
            self.buffer.extend_from_slice(b"{\"row\":");
        }
        json(&mut self.buffer, &row)
    }

    fn error(&mut self, text: &str) -> Result<(), RowsError> {
        if self.format == Format::Csv {
            let commas = self.outputs.iter().map(|output| output.count).sum::<usize>() + 1;
            self.buffer.resize(self.buffer.len() + commas, b',');
            write_field(&mut self.buffer, text);
            self.buffer.push(b'\n');
        } else {
            self.buffer.extend_from_slice(b",\"error\":");
            json(&mut self.buffer, text)?;
            self.buffer.extend_from_slice(b"}\n");
        }
        Ok(())
    }

    fn results(&mut self, values: &[Values], index: usize) -> Result<(), RowsError> {
        let csv = self.format == Format::Csv;
        for (values, output) in values.iter().zip(&self.outputs) {
            let list = !csv && output.count > 1;
            self.buffer.push(b',');
            if !csv {
                json(&mut self.buffer, &output.name)?;
                self.buffer.push(b':');
            }
            if list {
                self.buffer.push(b'[');
            }
            for at in index * output.count..(index + 1) * output.count {
                if at > index * output.count {
                    self.buffer.push(b',');
                }
                element(&mut self.buffer, values, at, csv)?;
            }
            if list {
                self.buffer.push(b']');
            }
        }
        self.buffer.extend_from_slice(if csv { b",\n" } else { b"}\n" });
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), RowsError> {
        self.sink.write_all(&self.buffer).map_err(RowsError::Write)?;
        self.handed_over += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), RowsError> {
    serde_json::to_writer(out, value).map_err(|error| RowsError::Output(error.to_string()))
}

fn element(out: &mut Vec<u8>, values: &Values, at: usize, csv: bool) -> Result<(), RowsError> {
    let special = |out: &mut Vec<u8>, x: f64| {
        let text = if x.is_nan() {
            "NaN"
        } else if x > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        if csv {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        } else {
            json(out, text)
        }
    };
    let missing = || RowsError::Output("a buffer is too short".to_owned());
    match values {
        Values::F32(v) => match *v.get(at).ok_or_else(missing)? {
            x if x.is_finite() => json(out, &x),
            x => special(out, f64::from(x)),
        },
        Values::F64(v) => match *v.get(at).ok_or_else(missing)? {
            x if x.is_finite() => json(out, &x),
            x => special(out, x),
        },
        Values::I64(v) => json(out, v.get(at).ok_or_else(missing)?),
        Values::U8(v) => json(out, v.get(at).ok_or_else(missing)?),
        Values::Bool(v) => json(out, v.get(at).ok_or_else(missing)?),
        Values::Text(v) if csv => {
            write_field(out, v.get(at).ok_or_else(missing)?);
            Ok(())
        }
        Values::Text(v) => json(out, v.get(at).ok_or_else(missing)?),
    }
}

fn csv_names(output: &Output) -> impl Iterator<Item = String> + '_ {
    (0..output.count).map(|at| if output.count == 1 { output.name.clone() } else { format!("{}_{at}", output.name) })
}

fn check(format: Format, outputs: &[Output]) -> Result<(), RowsError> {
    let wrong = |text: String| Err(RowsError::Output(text));
    if format == Format::Parquet {
        return wrong("Parquet cannot be gone on with: write JSON lines, and turn them into Parquet at the end (write_parquet)".to_owned());
    }
    let elements = outputs.iter().fold(0_usize, |sum, output| sum.saturating_add(output.count));
    if outputs.iter().any(|output| output.count == 0) || elements > 1 << 22 {
        return wrong("each output has 1 element or more, all together at most 4194304".to_owned());
    }
    let mut names: HashSet<String> = HashSet::from(["row".to_owned(), "error".to_owned()]);
    for output in outputs {
        let mut fresh = true;
        if format == Format::Csv {
            csv_names(output).for_each(|name| fresh &= names.insert(name));
        } else {
            fresh = names.insert(output.name.clone());
        }
        if !fresh {
            return wrong(format!("the name of the output \"{}\" is taken (row and error are the writer's own)", excerpt(&output.name)));
        }
    }
    Ok(())
}
