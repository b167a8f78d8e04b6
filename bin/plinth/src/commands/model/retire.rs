//! `plinth model retire`: keeps a version, but lets nobody use it.

use crate::context::Context;
use crate::exit::Failure;
use crate::reference::{VersionRef, with_suggestion};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The version
    #[arg(value_name = "NAME@VERSION")]
    version: VersionRef,
}

/// Retires the version.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let name = &args.version.model;
    let version = context.wait(async {
        let number = args.version.number(&client).await?;
        match client.retire_version(name, number).await {
            Ok(version) => Ok(version),
            Err(error) => Err(with_suggestion(error, &client, name).await),
        }
    })?;
    context.output.answer(&version, || format!("{}@{} is retired", version.model, version.number))
}
