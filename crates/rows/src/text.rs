//! Rows of JSON lines and CSV.
//!
//! Invariant: every record that is not blank is a row and has the next number, understood or not; so numbers do not depend on how
//! rows are read or how many at a time. A read that fails is told after the rows before it were given.

use std::io::Read;

use serde_json::{Map, Value};

use crate::column::{Columns, Plan, no_such_field};
use crate::csv::{self, Fields, Header};
use crate::error::{excerpt, excerpt_bytes};
use crate::frame::{Frame, Framer};
use crate::json::{self, Seen, Target};
use crate::row::{self, Budget};
use crate::source::Opened;
use crate::{Batch, Compression, Format, Limits, Position, Row, RowError, RowsError, Values};

pub(crate) struct TextReader {
    framer: Framer<Box<dyn Read + Send>>,
    /// The header, of CSV.
    header: Option<Header>,
    row: u64,
    /// What is told by the next call.
    failed: Option<RowsError>,
    fields: Fields,
    seen: Seen,
}

impl TextReader {
    /// Opens a source at its beginning, or at `(row, offset, line)`.
    pub(crate) fn open(
        source: Opened,
        format: Format,
        compression: Compression,
        at: Option<(u64, u64, u64)>,
        limits: &Limits,
    ) -> Result<Self, RowsError> {
        let csv = format == Format::Csv;
        let (bytes, shared) = source.unpack(compression, limits).map_err(RowsError::Read)?;
        let mut framer = Framer::new(bytes, csv, limits.max_row_bytes, 0, 1);
        if !framer.byte_order_mark().map_err(RowsError::Read)? {
            let text = "it begins with the byte order mark of UTF-16; convert it to UTF-8".to_owned();
            return Err(RowsError::Malformed { format, text });
        }
        let header = if csv { Some(read_header(&mut framer, limits)?) } else { None };
        let mut row = 0;
        if let Some((next, offset, line)) = at {
            row = next;
            if offset < framer.offset() || line == 0 {
                return Err(RowsError::Checkpoint(format!("it is at byte {offset}, the rows begin at {}", framer.offset())));
            }
            if let Some(shared) = shared.filter(|_| offset > framer.offset()) {
                let mut before = [0];
                let read = shared.read_at(offset - 1, &mut before).map_err(RowsError::Read)?;
                if offset > shared.size || (offset < shared.size && (read, before) != (1, [b'\n'])) {
                    return Err(RowsError::Checkpoint(format!("no row begins at byte {offset}")));
                }
                framer = Framer::new(Box::new(shared.read_from(offset)), csv, limits.max_row_bytes, offset, line);
            } else if !framer.skip_to(offset, line).map_err(RowsError::Read)? {
                return Err(RowsError::Checkpoint(format!("it is at byte {offset}, the source ends before")));
            }
        }
        Ok(Self { framer, header, row, failed: None, fields: Fields::default(), seen: Seen::default() })
    }

    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    pub(crate) fn position(&self) -> Position {
        Position::Text { offset: self.framer.offset(), line: self.framer.line() }
    }

    pub(crate) fn column_names(&self) -> Option<Vec<String>> {
        self.header.as_ref().map(|header| header.names.clone())
    }

    pub(crate) fn next_batch(&mut self, max_rows: usize, max_bytes: usize, limits: &Limits) -> Result<Option<Batch>, RowsError> {
        let mut batch = Batch { first_row: self.row, rows: Vec::new() };
        let mut bytes = 0_usize;
        while batch.rows.len() < max_rows.max(1) && (bytes < max_bytes || batch.rows.is_empty()) {
            let Some(frame) = self.next_row(!batch.rows.is_empty())? else { break };
            let row = self.row - 1;
            let (line, read) = match frame {
                Frame::Bad { line, text } => (line, Err(text)),
                Frame::Record { range, line, quotes } => {
                    let record = self.framer.bytes(&range);
                    let read = match &self.header {
                        None => row::parse(record, limits),
                        Some(header) => {
                            self.fields.split(record, quotes);
                            csv_row(header, &self.fields, record, limits)
                        }
                    };
                    (line, read)
                }
            };
            let cost = read.as_ref().map_or_else(|text| text.len() + 128, |(_, cost)| *cost);
            bytes = bytes.saturating_add(cost);
            batch.rows.push(read.map(|(row, _)| row).map_err(|text| RowError { row, line: Some(line), text }));
        }
        Ok((!batch.rows.is_empty()).then_some(batch))
    }

    pub(crate) fn read_columns(&mut self, plan: &Plan, max_rows: usize, limits: &Limits) -> Result<Option<Columns>, RowsError> {
        let indices = match &self.header {
            None => Vec::new(),
            Some(header) => csv_indices(header, plan)?,
        };
        let max_rows = plan.rows(max_rows, limits);
        let mut columns = Columns::new(plan, self.row, max_rows);
        let mut extra = 0_usize;
        while columns.rows < max_rows && extra < limits.max_batch_bytes {
            let Some(frame) = self.next_row(columns.rows > 0)? else { break };
            columns.begin_row(plan);
            let (line, read) = match frame {
                Frame::Bad { line, text } => (line, Err(text)),
                Frame::Record { range, line, quotes } => {
                    let record = self.framer.bytes(&range);
                    // What texts may take beside the buffers.
                    extra = extra.saturating_add(record.len());
                    let read = match &self.header {
                        None => json::read_row(record, plan, &mut columns, &mut self.seen, limits),
                        Some(header) => {
                            self.fields.split(record, quotes);
                            csv_columns(header, &indices, &self.fields, record, plan, &mut columns, limits)
                        }
                    };
                    (line, read)
                }
            };
            if let Err(text) = read {
                extra = extra.saturating_add(text.len() + 128);
                columns.fail_row(plan, line, text);
            }
        }
        Ok((columns.rows > 0).then_some(columns))
    }

    /// The next record that is not blank; it has the number before [`Self::row`]. When rows were read before, a failure waits.
    fn next_row(&mut self, some_read: bool) -> Result<Option<Frame>, RowsError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            let frame = match self.framer.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(error) if some_read => {
                    self.failed = Some(RowsError::Read(error));
                    return Ok(None);
                }
                Err(error) => return Err(RowsError::Read(error)),
            };
            if let Frame::Record { range, .. } = &frame {
                let record = self.framer.bytes(range);
                let blank = if self.header.is_some() { record.is_empty() } else { record.trim_ascii().is_empty() };
                if blank {
                    continue;
                }
            }
            self.row += 1;
            return Ok(Some(frame));
        }
    }
}

fn read_header(framer: &mut Framer<Box<dyn Read + Send>>, limits: &Limits) -> Result<Header, RowsError> {
    loop {
        return match framer.next().map_err(RowsError::Read)? {
            None => Err(csv::malformed("it is empty; want a header with the columns' names".to_owned())),
            Some(Frame::Bad { text, .. }) => Err(csv::malformed(format!("its header cannot be read: {text}"))),
            Some(Frame::Record { range, .. }) if range.is_empty() => continue,
            Some(Frame::Record { range, quotes, .. }) => Header::parse(framer.bytes(&range), quotes, limits),
        };
    }
}

fn csv_row(header: &Header, fields: &Fields, record: &[u8], limits: &Limits) -> Result<(Row, usize), String> {
    check_count(header, fields)?;
    let budget = Budget::new(limits);
    let mut row = Map::new();
    for (index, name) in header.names.iter().enumerate() {
        let field = fields.get(record, index);
        budget.value(field.len() + name.len() + 64)?;
        let text = csv::text(field).map_err(|why| format!("the field \"{}\" {why}", excerpt(name)))?;
        row.insert(name.clone(), Value::String(text.to_owned()));
    }
    Ok((Row::Fields(row), budget.taken()))
}

fn check_count(header: &Header, fields: &Fields) -> Result<(), String> {
    let (want, got) = (header.names.len(), fields.len());
    if want == got { Ok(()) } else { Err(format!("the row has {got} fields, the header has {want}")) }
}

/// The index in a record of each of the plan's fields.
fn csv_indices(header: &Header, plan: &Plan) -> Result<Vec<usize>, RowsError> {
    let find = |(name, _): &(String, _)| {
        let index = header.by_name.get(name).copied();
        index.ok_or_else(|| no_such_field(name, header.names.iter().map(String::as_str)))
    };
    plan.fields.iter().map(find).collect()
}

fn csv_columns(
    header: &Header,
    indices: &[usize],
    fields: &Fields,
    record: &[u8],
    plan: &Plan,
    columns: &mut Columns,
    limits: &Limits,
) -> Result<(), String> {
    check_count(header, fields)?;
    let row = columns.rows - 1;
    for ((name, slot), index) in plan.fields.iter().zip(indices) {
        let field = fields.get(record, *index);
        let at = row * plan.columns[slot.column].count + slot.at;
        let values: &mut Values = &mut columns.values[slot.column];
        let text = csv::text(field).map_err(|why| format!("the field \"{}\" {why}", excerpt(name)))?;
        if slot.count > 1 || (values.element() != crate::Element::Text && text.starts_with('[')) {
            let mut target = Target::new(values, at, slot.count, name, limits.max_depth);
            json::read_list(text, &mut target).map_err(|why| format!("the field \"{}\" as a list: {why}", excerpt(name)))?;
        } else if values.parse(at, text).is_err() {
            let got = if field.is_empty() { "nothing".to_owned() } else { format!("\"{}\"", excerpt_bytes(field)) };
            return Err(format!("the field \"{}\": expected {}, got {got}", excerpt(name), values.element().wanted()));
        }
    }
    Ok(())
}
