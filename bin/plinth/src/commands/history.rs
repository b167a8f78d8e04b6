//! `plinth history`: who changed what, newest first.

use plinth_client::Paging;

use crate::commands::model::audit;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::paging::gather;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  plinth history                     everything
  plinth history route/chat          one resource
  plinth rollback 17                 take back a change that is shown here")]
pub struct Args {
    /// Only changes of this: a model, or a kind and a name such as route/chat
    #[arg(value_name = "SUBJECT")]
    subject: Option<String>,

    /// Show at most so many
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
}

/// Lists the changes.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let subject = args.subject.as_deref();
    let entries = context.wait(gather(Some(args.limit), async |page: Paging| client.audit(subject, &page).await))?;
    context.output.answer(&entries, || table_or(&audit::table(&entries), "no changes"))
}
