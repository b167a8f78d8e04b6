//! `plinth model restore`: makes a retired version usable again.

use crate::context::Context;
use crate::exit::Failure;
use crate::reference::{VersionRef, with_suggestion};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The version
    #[arg(value_name = "NAME@VERSION")]
    version: VersionRef,
}

/// Restores the version.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let name = &args.version.model;
    let version = context.wait(async {
        let number = args.version.number(&client).await?;
        match client.restore_version(name, number).await {
            Ok(version) => Ok(version),
            Err(error) => Err(with_suggestion(error, &client, name).await),
        }
    })?;
    context.output.answer(&version, || format!("{}@{} is active", version.model, version.number))
}
