//! `plinth model rollback`: moves the champion back to where it was.

use plinth_client::wire;
use plinth_types::{AliasName, ModelName};

use super::list::aliases;
use super::promote::permit;
use crate::context::Context;
use crate::exit::Failure;
use crate::reference::{alias_of, found, with_suggestion};
use crate::signing::KeyArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A node that requires signatures goes back only with a signed permission: give --sign-key then.

Examples:
  plinth model rollback digits --comment 'accuracy fell'")]
pub struct Args {
    /// The model
    #[arg(value_name = "NAME")]
    model: ModelName,

    /// A word for the audit
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

    #[command(flatten)]
    key: KeyArgs,
}

/// Moves the champion back.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let signer = args.key.load()?;
    let client = context.client()?;
    let model = context.wait(async {
        let permission = match &signer {
            Some(signer) => {
                let previous = alias_of(&found(&client, &args.model).await?, &AliasName::previous())?;
                Some(permit(signer, &client, &args.model, &AliasName::champion(), previous).await?)
            }
            None => None,
        };
        let how = wire::RollBack { permission, comment: args.comment.clone() };
        match client.roll_back(&args.model, &how).await {
            Ok(model) => Ok(model),
            Err(error) => Err(with_suggestion(error, &client, &args.model).await),
        }
    })?;
    context.output.answer(&model, || format!("{}: {}", model.name, aliases(&model)))
}
