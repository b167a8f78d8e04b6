//! `plinth filter show`: a filter with its versions, and what the node makes of them.

use plinth_client::wire;
use plinth_types::{ByteSize, Label};

use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The filter
    #[arg(value_name = "NAME")]
    name: Label,
}

/// Shows.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let filter = context.wait(async { Ok(client.filter(&args.name).await?) })?;
    context.output.answer(&filter, || table_or(&table(&filter), "no versions"))
}

/// A version's state on the node, in its colour.
pub fn state(version: &wire::FilterVersion) -> Cell {
    let tone = match version.state.as_str() {
        "ready" => Tone::Good,
        "failed" => Tone::Bad,
        "held" => Tone::Warning,
        _ => Tone::Faint,
    };
    Cell::new(version.state.clone(), tone)
}

fn table(filter: &wire::Filter) -> Table {
    let mut table = Table::new(&["VERSION#", "STATE", "SIZE#", "SIGNED", "PUSHED", "BY", "ABOUT"]);
    for version in &filter.versions {
        table.row([
            version.number.to_string().into(),
            state(version),
            ByteSize(version.size).to_string().into(),
            (if version.signed { "yes" } else { "no" }).into(),
            version.created_at.to_string().into(),
            version.created_by.as_str().into(),
            version.reason.as_ref().unwrap_or(&version.description).into(),
        ]);
    }
    table
}
