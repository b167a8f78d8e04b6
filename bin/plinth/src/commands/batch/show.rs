//! `plinth batch list`, `show` and `cancel`.

use plinth_client::Paging;
use plinth_client::jobs::JobFilter;
use plinth_client::wire::files::BulkResult;
use plinth_client::wire::jobs::Job;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::{ByteSize, Timestamp};
use serde::Serialize;

use super::{KIND, id, model};
use crate::commands::job::{advised, words};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{plain, table_or};
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// The most that are shown
    #[arg(long, value_name = "NUMBER", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The batch
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
}

#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    /// The batch
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
}

/// Lists.
pub fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let filter = JobFilter { kind: Some(KIND.into()), ..JobFilter::default() };
    let page = Paging { after: None, limit: Some(args.limit) };
    let jobs = context.wait(async { client.jobs(&filter, &page).await.map_err(advised) })?.items;
    context.output.answer(&jobs, || table_or(&table(&jobs, SystemClock.now()), "there are no batches"))
}

fn table(jobs: &[Job], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "MODEL", "STATE", "PROGRESS#", "AGE#"]);
    for job in jobs {
        let age = words::short(now.since(job.created_at));
        table.row([(&job.id).into(), model(job).into(), words::state(&job.state), words::progress(job).into(), age.into()]);
    }
    table
}

/// What `show --json` writes.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    job: &'a Job,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a BulkResult>,
}

/// Shows one.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let (job, result) = context.wait(async {
        let job = client.job(&args.id, None).await.map_err(advised)?;
        let result = if job.state == "succeeded" { client.bulk_result(&args.id).await.map_err(advised)? } else { None };
        Ok((job, result))
    })?;
    context.output.answer(&Shown { job: &job, result: result.as_ref() }, || render(&job, result.as_ref(), SystemClock.now()))
}

fn render(job: &Job, result: Option<&BulkResult>, now: Timestamp) -> String {
    let mut facts = Table::facts();
    facts.fact("batch", Cell::new(&job.id, Tone::Strong));
    facts.fact("model", model(job));
    facts.fact("state", words::standing_cell(job, now));
    facts.fact("progress", words::progress(job));
    facts.fact("submitted", words::moment(job.created_at, now));
    if let Some(took) = words::took(job, now) {
        facts.fact("took", words::span(took));
    }
    if let Some(result) = result {
        facts.fact("rows", format!("{}, {} with errors", result.rows, result.failed));
        facts.fact("output", format!("{}, `plinth batch output ID` gets it", ByteSize(result.bytes)));
    }
    let mut text = facts.render();
    if let Some(error) = &job.error {
        text.push_str(&format!("\n\n{}: {}", error.reason, plain(&error.detail)));
    }
    text
}

/// Ends one.
pub fn cancel(args: &CancelArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let job = context.wait(async { client.cancel_job(&args.id).await.map_err(advised) })?;
    context.output.answer(&job, || {
        let id = plain(&job.id);
        if words::ended(&job.state) { format!("{id} is {}", plain(&job.state)) } else { format!("{id} is asked to end") }
    })
}
