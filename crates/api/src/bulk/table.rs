//! Between rows and tensors: which columns a model's inputs are, and what its outputs are in a row.
//!
//! Invariant: a number is carried over exactly, or its row has an error: a whole number that the input's type cannot hold is never cut off.

use bytes::Bytes;
use half::{bf16, f16};
use plinth_rows::{Column, Columns, Element, Fields, Format, Output, RowError, Values};
use plinth_types::tensor::{Dim, Shape, Tensor, TensorSpec};
use plinth_types::{DataType, Error, Reason, Result};

use super::spec::{Mapping, Spec};

/// One input of a model as a column.
#[derive(Debug, Clone)]
struct InputColumn {
    name: String,
    datatype: DataType,
    /// The shape of one row, without the batch dimension.
    row: Vec<u64>,
}

/// What a model's inputs and outputs are in rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    inputs: Vec<InputColumn>,
    /// One for each input.
    pub columns: Vec<Column>,
    /// What each output row has.
    pub outputs: Vec<Output>,
    /// Whether an output has as many elements as the model pleases.
    pub flexible: bool,
    /// Whether tensors have a batch dimension.
    pub batched: bool,
    /// Rows of one inference.
    pub batch: usize,
    /// Whether one input may be read from all columns of a CSV in order.
    in_order: bool,
}

/// What a model says of itself, as far as rows are concerned.
pub(super) struct Facts<'a> {
    pub inputs: &'a [TensorSpec],
    pub optional: &'a dyn Fn(&str) -> bool,
    pub outputs: &'a [TensorSpec],
    pub max_batch: u32,
}

/// The most rows of a batch of a model that states no limit.
const OPEN_BATCH: usize = 1024;
/// And about how many bytes its inputs have.
const OPEN_BATCH_BYTES: usize = 1 << 20;

impl Table {
    /// Fits a job to a model.
    ///
    /// # Errors
    /// [`Reason::UnknownTensor`], [`Reason::InvalidTensor`], [`Reason::NotImplemented`], naming the field.
    pub fn new(facts: &Facts<'_>, spec: &Spec) -> Result<Self> {
        let open = |tensor: &TensorSpec| tensor.shape().first() == Some(&Dim::Any);
        let batched = facts.max_batch > 0 || (!facts.inputs.is_empty() && facts.inputs.iter().chain(facts.outputs).all(open));
        if let Some(name) = spec.inputs.keys().find(|name| facts.inputs.iter().all(|input| input.name() != *name)) {
            return Err(Error::new(Reason::UnknownTensor, format!("the model has no input '{name}'")).field(format!("inputs.{name}")));
        }
        let wanted = |input: &&TensorSpec| !(facts.optional)(input.name()) || spec.inputs.contains_key(input.name());
        let mut table =
            Self { inputs: Vec::new(), columns: Vec::new(), outputs: Vec::new(), flexible: false, batched, batch: 1, in_order: false };
        for input in facts.inputs.iter().filter(wanted) {
            table.input(input, spec.inputs.get(input.name()))?;
        }
        let plain = spec.inputs.values().all(|mapping| mapping.field.is_none() && mapping.fields.is_empty() && mapping.prefix.is_none());
        table.in_order = table.columns.len() == 1 && plain && spec.format != Format::JsonLines;
        if let Some(name) = spec.outputs.iter().find(|name| facts.outputs.iter().all(|output| output.name() != **name)) {
            return Err(Error::new(Reason::UnknownTensor, format!("the model has no output '{name}'")).field("outputs"));
        }
        if spec.outputs.is_empty() {
            facts.outputs.iter().for_each(|output| table.output(output));
        } else {
            let named = spec.outputs.iter().filter_map(|name| facts.outputs.iter().find(|output| output.name() == name));
            named.for_each(|output| table.output(output));
        }
        if table.flexible && spec.output_format == Format::Csv {
            let text = "the model gives outputs of no fixed size, which CSV has no columns for; ask for jsonl";
            return Err(Error::new(Reason::NotImplemented, text).field("output_format"));
        }
        table.batch = table.rows_of_a_batch(facts.max_batch, spec.batch_size);
        Ok(table)
    }

    fn rows_of_a_batch(&self, max_batch: u32, asked: Option<u32>) -> usize {
        let most = match (self.batched, max_batch as usize) {
            (false, _) => 1,
            (true, 0) => (OPEN_BATCH_BYTES / self.row_bytes().max(1)).clamp(1, OPEN_BATCH),
            (true, most) => most,
        };
        match asked {
            // A model that states no limit takes what was asked for.
            Some(asked) if self.batched && max_batch == 0 => asked as usize,
            Some(asked) => most.min(asked as usize),
            None => most,
        }
    }

    /// About how many bytes the inputs of a row have.
    pub fn row_bytes(&self) -> usize {
        self.inputs.iter().zip(&self.columns).map(|(input, column)| column.count * input.datatype.element_size().unwrap_or(64)).sum()
    }

    fn input(&mut self, input: &TensorSpec, mapping: Option<&Mapping>) -> Result<()> {
        let field = || format!("inputs.{}", input.name());
        let wrong = |text: String| Err(Error::new(Reason::InvalidTensor, text).field(field()));
        let said = &input.shape()[usize::from(self.batched).min(input.shape().len())..];
        let row: Vec<u64> = match mapping.and_then(|mapping| mapping.shape.as_ref()) {
            Some(shape) => {
                let fits = |(dim, said): (&u64, &Dim)| matches!(said, Dim::Any) || *said == Dim::Fixed(*dim);
                if shape.len() != said.len() || !shape.iter().zip(said).all(fits) {
                    return wrong(format!("the shape of a row of input '{}' is another one", input.name()));
                }
                shape.clone()
            }
            None => {
                let fixed = said.iter().map(|dim| if let Dim::Fixed(n) = dim { Some(*n) } else { None }).collect::<Option<_>>();
                match fixed {
                    Some(row) => row,
                    None => {
                        let name = input.name();
                        return wrong(format!("input '{name}' leaves dimensions open: say the shape of a row, as inputs.{name}.shape"));
                    }
                }
            }
        };
        let count = row.iter().try_fold(1_usize, |all, n| all.checked_mul(usize::try_from(*n).ok()?)).filter(|n| *n > 0);
        let Some(count) = count else { return wrong(format!("input '{}' has no elements, or too many", input.name())) };
        let Some(element) = element_in(input.datatype()) else {
            return wrong(format!("input '{}' is of type {}, which rows cannot give", input.name(), input.datatype()));
        };
        let mut column = Column::new(input.name(), element, count);
        match mapping {
            Some(Mapping { field: Some(name), .. }) => column.fields = Fields::One(name.clone()),
            Some(Mapping { fields, .. }) if !fields.is_empty() => column = column.each(fields.clone()),
            Some(Mapping { prefix: Some(prefix), .. }) => column = column.prefix(prefix.clone()),
            _ => {}
        }
        self.columns.push(column);
        self.inputs.push(InputColumn { name: input.name().to_owned(), datatype: input.datatype(), row });
        Ok(())
    }

    fn output(&mut self, output: &TensorSpec) {
        let said = &output.shape()[usize::from(self.batched).min(output.shape().len())..];
        let count = said.iter().try_fold(1_usize, |all, dim| match dim {
            Dim::Fixed(n) => all.checked_mul(usize::try_from(*n).ok()?),
            Dim::Any => None,
        });
        self.flexible |= count.is_none_or(|count| count == 0);
        self.outputs.push(Output::new(output.name(), element_out(output.datatype()), count.unwrap_or(1).max(1)));
    }

    /// The columns for a file with these column names: one input of a file that has no column of its name is all of them in order.
    pub fn columns_of(&self, names: Option<&[String]>) -> Vec<Column> {
        match (names, &self.columns[..]) {
            (Some(names), [column]) if self.in_order && names.len() == column.count && !names.contains(&column.name) => {
                vec![column.clone().each(names.to_vec())]
            }
            _ => self.columns.clone(),
        }
    }

    /// Makes what the model takes of rows; rows whose numbers do not fit get their error.
    pub fn encode(&self, rows: &mut Columns) -> Encoded {
        let mut misfits: Vec<(usize, String)> = Vec::new();
        let mut columns = Vec::with_capacity(self.inputs.len());
        for ((input, values), column) in self.inputs.iter().zip(&rows.values).zip(&self.columns) {
            let mut misfit = |at: usize| {
                let text = format!("the field \"{}\": expected a number that {} can hold", input.name, input.datatype);
                misfits.push((at / column.count, text));
            };
            let bytes = encode(values, input.datatype, &mut misfit);
            let ends = if let Values::Text(texts) = values { Some(ends(texts, column.count)) } else { None };
            columns.push((Bytes::from(bytes), ends));
        }
        misfits.sort_by_key(|(row, _)| *row);
        misfits.dedup_by_key(|(row, _)| *row);
        for (row, text) in misfits {
            let row = rows.first_row + row as u64;
            if let Err(at) = rows.errors.binary_search_by_key(&row, |error| error.row) {
                rows.errors.insert(at, RowError { row, line: None, text });
            }
        }
        Encoded { columns, rows: rows.rows }
    }

    /// The tensors of some rows.
    ///
    /// # Errors
    /// [`Reason::Internal`]: sizes were checked before.
    pub fn tensors(&self, encoded: &Encoded, from: usize, to: usize) -> Result<Vec<Tensor>> {
        let wrong = |error: &dyn std::fmt::Display| Error::internal(format!("rows as a tensor: {error}"));
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (input, (bytes, ends)) in self.inputs.iter().zip(&encoded.columns) {
            let place = |row: usize| match ends {
                Some(ends) => row.checked_sub(1).and_then(|row| ends.get(row).copied()).unwrap_or(0),
                None => bytes.len() / encoded.rows.max(1) * row,
            };
            let mut shape = Vec::with_capacity(input.row.len() + 1);
            if self.batched {
                shape.push((to - from) as u64);
            }
            shape.extend_from_slice(&input.row);
            let shape = Shape::new(shape).map_err(|error| wrong(&error))?;
            let tensor = Tensor::new(&*input.name, input.datatype, shape, bytes.slice(place(from)..place(to)));
            tensors.push(tensor.map_err(|error| wrong(&error))?);
        }
        Ok(tensors)
    }

    /// What a model gave for so many rows, in the order of [`Table::outputs`].
    ///
    /// # Errors
    /// [`Reason::RunnerBrokeProtocol`] for outputs that are not what the model promised.
    pub fn decode(&self, mut given: Vec<Tensor>, rows: usize) -> Result<Vec<Values>> {
        let broken = |text: String| Error::new(Reason::RunnerBrokeProtocol, text);
        let mut all = Vec::with_capacity(self.outputs.len());
        for output in &self.outputs {
            let at = given.iter().position(|tensor| tensor.name() == output.name);
            let tensor = at.map(|at| given.swap_remove(at)).ok_or_else(|| broken(format!("the model gave no output '{}'", output.name)))?;
            let values = decode(&tensor);
            let fits = if self.flexible { values.len().is_multiple_of(rows.max(1)) } else { values.len() == rows * output.count };
            let first = tensor.shape().dims().first().copied();
            if !fits || (self.batched && first != Some(rows as u64)) {
                return Err(broken(format!("output '{}' has {} elements for {rows} rows", output.name, values.len())));
            }
            all.push(values);
        }
        Ok(all)
    }
}

/// Rows as bytes of tensors.
pub(super) struct Encoded {
    /// For each input its bytes and, of texts, where each row ends.
    columns: Vec<(Bytes, Option<Vec<usize>>)>,
    rows: usize,
}

/// Where each row's texts end, in bytes of a tensor.
fn ends(texts: &[String], count: usize) -> Vec<usize> {
    let mut at = 0;
    let row = |texts: &[String]| {
        at += texts.iter().map(|text| text.len() + 4).sum::<usize>();
        at
    };
    texts.chunks(count).map(row).collect()
}

/// As what an input of a type is read.
fn element_in(datatype: DataType) -> Option<Element> {
    Some(match datatype {
        DataType::Fp32 | DataType::Fp16 | DataType::Bf16 => Element::F32,
        DataType::Fp64 => Element::F64,
        DataType::Uint8 => Element::U8,
        DataType::Bool => Element::Bool,
        DataType::Bytes => Element::Text,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
            Element::I64
        }
    })
}

/// As what an output of a type is written.
fn element_out(datatype: DataType) -> Element {
    match datatype {
        DataType::Fp32 | DataType::Fp16 | DataType::Bf16 => Element::F32,
        DataType::Fp64 => Element::F64,
        DataType::Uint8 => Element::U8,
        DataType::Bool => Element::Bool,
        // JSON readers lose whole numbers beyond 2^53; a text keeps them.
        DataType::Bytes | DataType::Uint64 => Element::Text,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Uint16 | DataType::Uint32 => Element::I64,
    }
}

fn encode(values: &Values, datatype: DataType, misfit: &mut dyn FnMut(usize)) -> Vec<u8> {
    fn narrow<T: TryFrom<i64> + Default, const N: usize>(v: &[i64], bytes: fn(T) -> [u8; N], misfit: &mut dyn FnMut(usize)) -> Vec<u8> {
        let mut out = Vec::with_capacity(v.len() * N);
        for (at, x) in v.iter().enumerate() {
            let x = T::try_from(*x).unwrap_or_else(|_| {
                misfit(at);
                T::default()
            });
            out.extend_from_slice(&bytes(x));
        }
        out
    }
    fn halves(v: &[f32], finite: fn(f32) -> (bool, [u8; 2]), misfit: &mut dyn FnMut(usize)) -> Vec<u8> {
        let mut out = Vec::with_capacity(v.len() * 2);
        for (at, x) in v.iter().enumerate() {
            let (fits, bytes) = finite(*x);
            if !fits {
                misfit(at);
            }
            out.extend_from_slice(if fits { &bytes } else { &[0, 0] });
        }
        out
    }
    match (values, datatype) {
        (Values::I64(v), DataType::Int8) => narrow(v, i8::to_le_bytes, misfit),
        (Values::I64(v), DataType::Int16) => narrow(v, i16::to_le_bytes, misfit),
        (Values::I64(v), DataType::Int32) => narrow(v, i32::to_le_bytes, misfit),
        (Values::I64(v), DataType::Uint16) => narrow(v, u16::to_le_bytes, misfit),
        (Values::I64(v), DataType::Uint32) => narrow(v, u32::to_le_bytes, misfit),
        (Values::I64(v), DataType::Uint64) => narrow(v, u64::to_le_bytes, misfit),
        (Values::F32(v), DataType::Fp16) => halves(v, |x| (f16::from_f32(x).is_finite(), f16::from_f32(x).to_le_bytes()), misfit),
        (Values::F32(v), DataType::Bf16) => halves(v, |x| (bf16::from_f32(x).is_finite(), bf16::from_f32(x).to_le_bytes()), misfit),
        _ => values.encode(),
    }
}

fn decode(tensor: &Tensor) -> Values {
    fn each<T, const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (whole, _) = data.as_chunks::<N>();
        whole.iter().map(|bytes| read(*bytes)).collect()
    }
    let data: &[u8] = tensor.data();
    match tensor.datatype() {
        DataType::Fp32 => Values::F32(each(data, f32::from_le_bytes)),
        DataType::Fp16 => Values::F32(each(data, |b| f16::from_le_bytes(b).to_f32())),
        DataType::Bf16 => Values::F32(each(data, |b| bf16::from_le_bytes(b).to_f32())),
        DataType::Fp64 => Values::F64(each(data, f64::from_le_bytes)),
        DataType::Uint8 => Values::U8(data.to_vec()),
        DataType::Bool => Values::Bool(data.iter().map(|x| *x != 0).collect()),
        DataType::Int8 => Values::I64(each(data, |b| i8::from_le_bytes(b).into())),
        DataType::Int16 => Values::I64(each(data, |b| i16::from_le_bytes(b).into())),
        DataType::Int32 => Values::I64(each(data, |b| i32::from_le_bytes(b).into())),
        DataType::Int64 => Values::I64(each(data, i64::from_le_bytes)),
        DataType::Uint16 => Values::I64(each(data, |b| u16::from_le_bytes(b).into())),
        DataType::Uint32 => Values::I64(each(data, |b| u32::from_le_bytes(b).into())),
        DataType::Uint64 => Values::Text(each(data, |b| u64::from_le_bytes(b).to_string())),
        DataType::Bytes => Values::Text(tensor.byte_elements().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()),
    }
}
