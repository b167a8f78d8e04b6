//! `plinth apply`: brings resources to what files say, all of them or none.

use std::path::PathBuf;

use plinth_client::wire;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::table_or;
use crate::resources::Bundle;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file holds resources, in YAML (one document each), in JSON, or in TOML:

  kind: route
  name: chat
  spec:
    matches: {path: {prefix: /chat}}
    targets: [{to: {upstream: llm}}]

`-` reads from standard input. Several files are one change: what one names may stand in another.

Examples:
  plinth apply -f routes.yaml --dry-run
  plinth apply -f plans.yaml -f tenants.yaml")]
pub struct Args {
    /// File with resources; may be given several times
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

/// Sends the resources of all files as one change.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let applied = send(&args.files, args.dry_run, context)?;
    context.output.answer(&applied, || {
        let mut table = Table::new(&["KIND", "NAME", "OUTCOME"]);
        for resource in &applied.resources {
            let tone = if resource.outcome == "unchanged" { Tone::Faint } else { Tone::Good };
            table.row([(&resource.kind).into(), (&resource.name).into(), Cell::new(&resource.outcome, tone)]);
        }
        let end = match (args.dry_run, applied.revision) {
            (true, _) => "\nnothing was changed (--dry-run)".to_owned(),
            (false, Some(revision)) => format!("\nrevision {revision}; take it back with `plinth rollback {revision}`"),
            (false, None) => "\nnothing to change".to_owned(),
        };
        table_or(&table, "no resources") + &end
    })
}

/// Reads files and applies them; what the node finds wrong is told with file and line.
pub fn send(files: &[PathBuf], dry_run: bool, context: &Context) -> Result<wire::Applied, Failure> {
    let bundle = Bundle::read(files)?;
    if bundle.resources.is_empty() {
        return Err(Failure::new(Exit::Failed, "the files hold no resources").next("`plinth apply -h` shows how one looks"));
    }
    let client = context.client()?;
    let what = wire::Apply { resources: bundle.resources.clone(), dry_run };
    context.wait(async { client.apply(&what).await.map_err(|error| bundle.explain(error)) })
}
