//! `plinth key delete`: ends an API key.

use plinth_types::KeyId;

use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key's id, as `plinth key list` shows it
    #[arg(value_name = "ID")]
    id: KeyId,
}

/// Deletes the key.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async { Ok(client.delete_key(&args.id).await?) })?;
    context.output.note(&format!("deleted the key {}", args.id));
    Ok(())
}
