//! Which columns are wanted ([`Column`]) and what was read ([`Columns`]).
//!
//! Invariant: every buffer of a [`Columns`] has exactly `rows × count` elements. A row with an error has neutral elements (0,
//! false, "") in every column, so that an element is found by its row's number alone.

use std::collections::HashMap;

use crate::error::excerpt;
use crate::{Element, Limits, RowError, RowsError, Values};

/// The most elements of one row, in all columns together.
const MAX_ROW_ELEMENTS: usize = 1 << 22;

/// Where a column's elements stand in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// In one field: a value, or a list (of lists) that has exactly the count of values, row-major. In CSV a list is the text of a
    /// JSON array.
    One(String),
    /// In one field for each element, in this order.
    Each(Vec<String>),
    /// In the fields `<prefix>0`, `<prefix>1` and so on, one for each element.
    Prefix(String),
}

/// One column: so many elements of one type in each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// What it is called in errors; also the field's name for [`Column::new`].
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// How many elements each row has; a tensor's shape without the batch dimension, multiplied out.
    pub count: usize,
    /// Where they stand.
    pub fields: Fields,
}

impl Column {
    /// A column in the field of its own name.
    pub fn new(name: impl Into<String>, element: Element, count: usize) -> Self {
        let name = name.into();
        Self { fields: Fields::One(name.clone()), name, element, count }
    }

    /// The same column in the fields `<prefix>0`, `<prefix>1` and so on.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { fields: Fields::Prefix(prefix.into()), ..self }
    }

    /// The same column in these fields, one for each element.
    #[must_use]
    pub fn each(self, fields: Vec<String>) -> Self {
        Self { fields: Fields::Each(fields), ..self }
    }
}

/// Rows in columns. The rows are consecutive.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// The number of the first row, counted from zero over the whole source.
    pub first_row: u64,
    /// How many rows there are, with those that have an error.
    pub rows: usize,
    /// One buffer for each column, in the order in which they were asked for.
    pub values: Vec<Values>,
    /// The rows that were not understood, in order, at most one error for each.
    pub errors: Vec<RowError>,
}

impl Columns {
    pub(crate) fn new(plan: &Plan, first_row: u64, rows: usize) -> Self {
        let room = |column: &Column| Values::with_capacity(column.element, rows * column.count);
        Self { first_row, rows: 0, values: plan.columns.iter().map(room).collect(), errors: Vec::new() }
    }

    /// Begins one more row, of neutral elements.
    pub(crate) fn begin_row(&mut self, plan: &Plan) {
        self.rows += 1;
        self.resize(plan, self.rows);
    }

    /// Gives the row that was begun last an error, and neutral elements again.
    pub(crate) fn fail_row(&mut self, plan: &Plan, line: u64, text: String) {
        self.resize(plan, self.rows - 1);
        self.resize(plan, self.rows);
        self.errors.push(RowError { row: self.first_row + self.rows as u64 - 1, line: Some(line), text });
    }

    /// Makes every buffer as long as so many rows.
    pub(crate) fn resize(&mut self, plan: &Plan, rows: usize) {
        for (values, column) in self.values.iter_mut().zip(&plan.columns) {
            values.resize(rows * column.count);
        }
    }
}

/// Where a field's elements go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) column: usize,
    /// The first element's place in the row.
    pub(crate) at: usize,
    pub(crate) count: usize,
}

/// What a specification means, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) columns: Vec<Column>,
    /// The fields with their slots. No field is used twice.
    pub(crate) fields: Vec<(String, Slot)>,
    pub(crate) by_name: HashMap<String, usize>,
    row_bytes: usize,
}

impl Plan {
    pub(crate) fn new(columns: &[Column], limits: &Limits) -> Result<Self, RowsError> {
        let wrong = |text: String| Err(RowsError::Columns(text));
        if columns.is_empty() {
            return wrong("no columns are asked for; name at least one".to_owned());
        }
        let mut fields = Vec::new();
        let (mut elements, mut row_bytes) = (0_usize, 0_usize);
        for (index, column) in columns.iter().enumerate() {
            elements = elements.saturating_add(column.count);
            if column.count == 0 || elements > MAX_ROW_ELEMENTS {
                return wrong(format!(
                    "the column \"{}\" has {} elements a row; want 1 or more, and at most {MAX_ROW_ELEMENTS} in all columns together",
                    excerpt(&column.name),
                    column.count
                ));
            }
            row_bytes += column.count * column.element.bytes();
            let slot = |at, count| Slot { column: index, at, count };
            match &column.fields {
                Fields::One(name) => fields.push((name.clone(), slot(0, column.count))),
                Fields::Prefix(prefix) => fields.extend((0..column.count).map(|at| (format!("{prefix}{at}"), slot(at, 1)))),
                Fields::Each(names) if names.len() == column.count => {
                    fields.extend(names.iter().enumerate().map(|(at, name)| (name.clone(), slot(at, 1))));
                }
                Fields::Each(names) => {
                    return wrong(format!(
                        "the column \"{}\" has {} elements a row and names {} fields",
                        excerpt(&column.name),
                        column.count,
                        names.len()
                    ));
                }
            }
        }
        if fields.len() > limits.max_columns {
            return wrong(format!("{} fields are asked for, at most {} are read", fields.len(), limits.max_columns));
        }
        let mut by_name = HashMap::with_capacity(fields.len());
        for (index, (name, _)) in fields.iter().enumerate() {
            if by_name.insert(name.clone(), index).is_some() {
                return wrong(format!("the field \"{}\" is asked for twice", excerpt(name)));
            }
        }
        Ok(Self { columns: columns.to_vec(), fields, by_name, row_bytes })
    }

    /// How many rows to read: as many as asked for, and as fit.
    pub(crate) fn rows(&self, max_rows: usize, limits: &Limits) -> usize {
        max_rows.min(limits.max_batch_bytes / self.row_bytes.max(1)).max(1)
    }
}

/// A source has no such field.
pub(crate) fn no_such_field<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> RowsError {
    let mut list = String::new();
    for (n, name) in known.enumerate() {
        if n == 16 {
            list.push_str(", …");
            break;
        }
        list.push_str(if n == 0 { "" } else { ", " });
        list.push_str(&excerpt(name));
    }
    RowsError::Columns(format!("there is no column \"{}\"; the file has: {list}", excerpt(wanted)))
}
