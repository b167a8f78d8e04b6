//! `plinth delete`: deletes one resource that nothing needs.

use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What others name is not deleted; the refusal says by what it is used.

Examples:
  plinth delete route chat
  plinth delete upstream llm --revision 17   only if that was its last change")]
pub struct Args {
    /// Kind of the resource
    #[arg(value_name = "KIND")]
    kind: String,

    /// Its name
    #[arg(value_name = "NAME")]
    name: String,

    /// Only if this revision was the last to change it
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
}

/// Deletes it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async { Ok(client.delete_resource(&args.kind, &args.name, args.revision).await?) })?;
    let answer = serde_json::json!({ "deleted": { "kind": args.kind, "name": args.name } });
    context.output.answer(&answer, || format!("deleted {} {}", plain(&args.kind), plain(&args.name)))
}
