//! `plinth model unalias`: takes an alias away. The version that it pointed to stays.

use plinth_types::{AliasName, ModelName};

use crate::context::Context;
use crate::exit::Failure;
use crate::reference::with_suggestion;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    #[arg(value_name = "NAME")]
    model: ModelName,

    /// The alias
    #[arg(value_name = "ALIAS")]
    alias: AliasName,
}

/// Takes the alias away.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async {
        match client.delete_alias(&args.model, &args.alias).await {
            Ok(()) => Ok(()),
            Err(error) => Err(with_suggestion(error, &client, &args.model).await),
        }
    })?;
    context.output.note(&format!("{} has no alias {} any more", args.model, args.alias));
    Ok(())
}
