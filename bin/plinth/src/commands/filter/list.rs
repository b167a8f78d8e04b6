//! `plinth filter list`: the filters of a tenant.

use plinth_client::{Paging, wire};

use super::show::state;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::paging::gather;
use crate::table::Table;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show at most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Lists.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let filters = context.wait(gather(args.limit, async |page: Paging| client.filters(&page).await))?;
    context.output.answer(&filters, || table_or(&table(&filters), "no filters; push one with `plinth filter push FILE --name NAME`"))
}

fn table(filters: &[wire::Filter]) -> Table {
    let mut table = Table::new(&["NAME", "NEWEST#", "STATE", "VERSIONS", "UPDATED", "DESCRIPTION"]);
    for filter in filters {
        let Some(newest) = filter.versions.first() else { continue };
        let numbers: Vec<_> = filter.versions.iter().map(|version| version.number.to_string()).collect();
        table.row([
            filter.name.as_str().into(),
            newest.number.to_string().into(),
            state(newest),
            numbers.join(" ").into(),
            filter.updated_at.to_string().into(),
            (&newest.description).into(),
        ]);
    }
    table
}
