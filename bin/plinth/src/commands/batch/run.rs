//! `plinth batch run` and `resume`: upload, submit, follow, download.
//!
//! Invariant: from the moment at which the batch has an id, nothing is lost by an interruption, and what is said then names the id.

use std::path::{Path, PathBuf};

use plinth_client::Client;
use plinth_client::files::NewFile;
use plinth_client::wire::files::{BulkInput, BulkResult, NewBulk};
use plinth_client::wire::jobs::Job;
use plinth_runtime::{Random, SystemRandom};
use plinth_types::ByteSize;
use serde::Serialize;

use super::{follow, id, output};
use crate::commands::job::{advised, label, wait, words};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::progress::Progress;
use crate::reference::ModelRef;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE has a row in each line (.jsonl, .ndjson), is a CSV with a header or a Parquet file; the first three may be packed (.gz, .zst). A \
model with one input takes rows that are a bare list, or that have a field of the input's name; of CSV and Parquet also all columns in \
order.

The output has a row for each row, in the same order: its number and the model's outputs, or an error. Exit code 1 when rows have \
errors, unless --allow-errors is given.

Examples:
  plinth batch run --model digits rows.jsonl --out labels.jsonl
  plinth batch run --model digits@2 rows.csv --input image=pixels --output label --output-format csv > labels.csv")]
pub struct Args {
    /// The rows
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The model, and a version or alias of it
    #[arg(long, value_name = "MODEL[@VERSION]")]
    model: ModelRef,

    /// Write the output to this file; standard output when absent
    #[arg(long, short, value_name = "FILE", conflicts_with = "detach")]
    out: Option<PathBuf>,

    /// How the rows are written, when the file's name does not say it: json-lines, csv, parquet
    #[arg(long, value_name = "FORMAT", value_parser = ["json-lines", "jsonl", "csv", "parquet"], hide_possible_values = true)]
    format: Option<String>,

    /// Where an input's elements stand: NAME=FIELD, or NAME=PREFIX* for a column each; may be given several times
    #[arg(long = "input", value_name = "NAME=FIELD", value_parser = input)]
    inputs: Vec<(String, BulkInput)>,

    /// An output that is wanted; all when absent
    #[arg(long = "output", value_name = "NAME")]
    outputs: Vec<String>,

    /// How the output is written: jsonl or csv [default: jsonl]
    #[arg(long, value_name = "FORMAT", value_parser = ["jsonl", "csv"], hide_possible_values = true)]
    output_format: Option<String>,

    /// Rows of one inference; as many as the model takes when absent
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: Option<u32>,

    /// Inferences at a time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: Option<u32>,

    /// Which jobs go first when the node is busy: critical, default, sheddable, background [default: default, with --detach background]
    #[arg(long, value_name = "CLASS", value_parser = ["critical", "default", "sheddable", "background"], hide_possible_values = true)]
    class: Option<String>,

    /// A label by which it is found; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Print the batch's id and do not wait for it
    #[arg(long, short)]
    detach: bool,

    /// End well although rows have errors
    #[arg(long)]
    allow_errors: bool,
}

#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The batch
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    /// Write the output to this file; standard output when absent
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// End well although rows have errors
    #[arg(long)]
    allow_errors: bool,
}

/// `NAME=FIELD` or `NAME=PREFIX*`.
fn input(text: &str) -> Result<(String, BulkInput), String> {
    let (name, field) = text.split_once('=').filter(|(name, field)| !name.is_empty() && !field.is_empty()).ok_or("want NAME=FIELD")?;
    let input = match field.strip_suffix('*') {
        Some(prefix) => BulkInput { prefix: Some(prefix.to_owned()), ..BulkInput::default() },
        None => BulkInput { field: Some(field.to_owned()), ..BulkInput::default() },
    };
    Ok((name.to_owned(), input))
}

/// What `--json` writes.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a Job>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a BulkResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<&'a Path>,
}

/// Runs a file.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    if !args.detach && args.out.is_none() && context.output.is_json() {
        return Err(Failure::usage("--json needs --out or --detach: the rows and the answer cannot both go to standard output"));
    }
    let client = context.client()?;
    let (id, file) = context.wait(submit(args, &client, context))?;
    if args.detach {
        let answer = Answer { id: &id, file: Some(&file), job: None, result: None, out: None };
        return context.output.answer(&answer, || plain(&id).into_owned());
    }
    context.output.note(&format!("batch {}", plain(&id)));
    finish(&client, &id, args.out.as_deref(), args.allow_errors, context)
}

/// Goes on with one.
pub fn resume(args: &ResumeArgs, context: &Context) -> Result<(), Failure> {
    finish(&context.client()?, &args.id, args.out.as_deref(), args.allow_errors, context)
}

fn finish(client: &Client, id: &str, out: Option<&Path>, allow_errors: bool, context: &Context) -> Result<(), Failure> {
    let (job, result) = context.wait(async {
        let job = follow::until_ended(client, id, context.output).await?;
        wait::outcome(&job)?;
        let result = client.bulk_result(id).await.map_err(advised)?;
        output::get(client, id, out, context.output).await?;
        Ok((job, result))
    })?;
    let failed = result.as_ref().map_or(0, |result| result.failed);
    if out.is_some() {
        let answer = Answer { id, file: None, job: Some(&job), result: result.as_ref(), out };
        context.output.answer(&answer, || {
            let rows = result.as_ref().map_or_else(String::new, |result| words::count(result.rows, "row"));
            let errors = if failed > 0 { format!(", {failed} with errors") } else { String::new() };
            context.output.note(&format!("{rows}{errors}"));
            String::new()
        })?;
    }
    match failed {
        0 => Ok(()),
        _ if allow_errors => Ok(()),
        _ if context.output.is_json() => Err(Failure::silent(Exit::Failed)),
        _ => Err(Failure::new(Exit::Failed, format!("{} with errors; the output says which", words::count(failed, "row")))
            .next("`--allow-errors` takes that for a good end")),
    }
}

/// Uploads and submits; the ids of the batch and of the file.
async fn submit(args: &Args, client: &Client, context: &Context) -> Result<(String, String), Failure> {
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("'{}' cannot be read: {e}", args.file.display()));
    let facts = std::fs::metadata(&args.file).map_err(|e| unreadable(&e))?;
    if !facts.is_file() {
        return Err(unreadable(&"it is no file"));
    }
    let version = match &args.model.version {
        Some(selector) => Some(selector.number(&args.model.model, client).await?.get()),
        None => None,
    };
    let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "rows".to_owned());
    let size = ByteSize(facts.len());
    let new = NewFile { path: args.file.clone(), name, content_type: "application/octet-stream".into(), size };
    let bar = Progress::bytes(context.output, "upload");
    bar.total(size.0);
    let shown = bar.clone();
    let file = client.put_file(&new, move |sent| shown.done(sent)).await.map_err(advised)?;
    drop(bar);
    let bulk = NewBulk {
        model: args.model.model.to_string(),
        version,
        file: file.id.clone(),
        format: args.format.clone(),
        inputs: args.inputs.iter().cloned().collect(),
        outputs: args.outputs.clone(),
        output_format: args.output_format.clone(),
        batch_size: args.batch_size,
        concurrency: args.concurrency,
        // Somebody waits for it, unless it is detached.
        class: args.class.clone().or_else(|| (!args.detach).then(|| "default".to_owned())),
        labels: args.labels.iter().cloned().collect(),
    };
    let key = format!("{:016x}{:016x}", SystemRandom.next_u64(), SystemRandom.next_u64());
    let submitted = client.submit_bulk(&bulk, &key).await.map_err(advised)?;
    Ok((submitted.id, file.id))
}
