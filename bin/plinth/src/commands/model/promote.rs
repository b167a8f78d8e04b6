//! `plinth model promote`: moves an alias to a version.

use plinth_client::{Client, wire};
use plinth_types::{AliasName, ModelName, VersionNumber};

use super::list::aliases;
use super::wait::until_served;
use crate::context::Context;
use crate::exit::Failure;
use crate::reference::{VersionRef, with_suggestion};
use crate::signing::{KeyArgs, Signer};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A node that requires signatures moves an alias to an older version only with a signed permission: give --sign-key then.

Examples:
  plinth model promote digits@3
  plinth model promote digits@canary champion --expect 2 --comment 'canary was good for a day'")]
pub struct Args {
    /// The version
    #[arg(value_name = "NAME@VERSION")]
    version: VersionRef,

    /// The alias
    #[arg(default_value = "champion")]
    alias: AliasName,

    /// Where the alias must point now; refused when it does not
    #[arg(long, value_name = "NUMBER")]
    expect: Option<VersionNumber>,

    /// A word for the audit
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

    #[command(flatten)]
    key: KeyArgs,

    /// Come back only when the version answers, or has failed
    #[arg(long)]
    wait: bool,
}

/// Moves the alias.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let signer = args.key.load()?;
    let client = context.client()?;
    let name = &args.version.model;
    let model = context.wait(async {
        let version = args.version.number(&client).await?;
        let permission = match &signer {
            Some(signer) => Some(permit(signer, &client, name, &args.alias, version).await?),
            None => None,
        };
        let to = wire::MoveAlias { version, expect: args.expect, permission, comment: args.comment.clone() };
        let model = match client.move_alias(name, &args.alias, &to).await {
            Ok(model) => model,
            Err(error) => return Err(with_suggestion(error, &client, name).await),
        };
        if args.wait {
            until_served(&client, name, version, context.output).await?;
        }
        Ok(model)
    })?;
    context.output.answer(&model, || format!("{}: {}", model.name, aliases(&model)))
}

/// Signs that the alias may move to this version.
pub async fn permit(
    signer: &Signer,
    client: &Client,
    model: &ModelName,
    alias: &AliasName,
    version: VersionNumber,
) -> Result<String, Failure> {
    let content = client.version(model, version).await?.content;
    signer.permit(model, alias, version, content)
}
