//! `plinth model delete`: a version, or a model with all its versions.

use super::confirm::confirm;
use crate::context::Context;
use crate::exit::Failure;
use crate::reference::{ModelRef, with_suggestion};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is served or has an alias is refused. The files stay until `plinth gc`, and until then `plinth model undo` brings the \
version back.

Examples:
  plinth model delete digits@2
  plinth model delete digits --yes")]
pub struct Args {
    /// NAME for the whole model, NAME@VERSION for a version
    #[arg(value_name = "NAME[@VERSION]")]
    model: ModelRef,

    /// Do not ask before a whole model is deleted
    #[arg(long, short)]
    yes: bool,
}

/// Deletes.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let name = &args.model.model;
    if args.model.version.is_none() {
        confirm(&format!("this deletes the model '{name}' with all its versions"), name.as_str(), args.yes, context)?;
    }
    let client = context.client()?;
    let what = context.wait(async {
        let (what, end) = match &args.model.version {
            Some(selector) => {
                let number = selector.number(name, &client).await?;
                (format!("{name}@{number}"), client.delete_version(name, number).await)
            }
            None => (format!("the model {name}"), client.delete_model(name).await),
        };
        match end {
            Ok(()) => Ok(what),
            Err(error) => Err(with_suggestion(error, &client, name).await),
        }
    })?;
    context.output.note(&format!("deleted {what}"));
    Ok(())
}
