//! `plinth model audit`: who changed what, newest first.

use plinth_client::{Paging, wire};

use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::paging::gather;
use crate::reference::ModelRef;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  plinth model audit                 everything
  plinth model audit digits          one model
  plinth model undo 17               undo a change that is shown here")]
pub struct Args {
    /// Only changes of this model or version
    #[arg(value_name = "NAME[@NUMBER]")]
    model: Option<ModelRef>,

    /// Show at most so many
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
}

/// Lists the changes.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let entries = context.wait(async {
        let subject = match &args.model {
            None => None,
            Some(ModelRef { model, version: None }) => Some(model.to_string()),
            Some(ModelRef { model, version: Some(selector) }) => Some(format!("{model}/{}", selector.number(model, &client).await?)),
        };
        gather(Some(args.limit), async |page: Paging| client.audit(subject.as_deref(), &page).await).await
    })?;
    context.output.answer(&entries, || table_or(&table(&entries), "no changes"))
}

pub fn table(entries: &[wire::AuditEntry]) -> Table {
    let mut table = Table::new(&["REVISION#", "WHEN", "WHO", "WHAT", "ON", "COMMENT"]);
    for entry in entries {
        table.row([
            entry.revision.to_string().into(),
            entry.at.to_string().into(),
            (&entry.actor).into(),
            Cell::new(&entry.action, Tone::Strong),
            (&entry.subject).into(),
            (&entry.comment).into(),
        ]);
    }
    table
}
