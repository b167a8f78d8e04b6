//! `plinth filter delete`: a version, or a filter with all its versions.

use plinth_store::resources::gateway::FilterRef;

use crate::commands::model::confirm::confirm;
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What a route names is refused. Without its newest version a filter is the one before. `plinth rollback` brings back what was deleted, \
until `plinth gc` has removed its module.

Examples:
  plinth filter delete mask@2
  plinth filter delete mask --yes")]
pub struct Args {
    /// NAME for the whole filter, NAME@VERSION for a version
    #[arg(value_name = "NAME[@VERSION]")]
    filter: FilterRef,

    /// Do not ask before a whole filter is deleted
    #[arg(long, short)]
    yes: bool,
}

/// Deletes.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let name = &args.filter.name;
    if args.filter.version.is_none() {
        confirm(&format!("this deletes the filter '{name}' with all its versions"), name.as_str(), args.yes, context)?;
    }
    let client = context.client()?;
    context.wait(async {
        match args.filter.version {
            Some(version) => client.delete_filter_version(name, version).await?,
            None => client.delete_filter(name).await?,
        }
        Ok(())
    })?;
    context.output.note(&format!("deleted {}", args.filter));
    Ok(())
}
