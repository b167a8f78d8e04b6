//! `plinth webhook`: the secrets that sign what the node tells others.

use clap::Subcommand;
use plinth_types::Label;

use super::job::advised;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The secrets that sign webhooks
    #[command(subcommand)]
    Secret(Secret),
}

#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Make a new secret; it is shown this one time
    #[command(after_help = "\
Webhooks are signed as Standard Webhooks says: the receiver checks `webhook-signature` with this secret and a library for Standard \
Webhooks. From now on each is signed with the new secret and with the one before, so a receiver goes on working until it has \
the new one; rotate again to end the old one for good.

Jobs name a secret with --webhook-secret; those that do not are signed with `default`.

Example:
  plinth webhook secret rotate default > /run/secrets/webhook")]
    Rotate(Rotate),
}

#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// The secret's name; it is made when there is none of that name
    #[arg(value_name = "NAME")]
    name: Label,
}

/// Carries the command out.
pub fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let Command::Secret(Secret::Rotate(Rotate { name })) = command;
    let client = context.client()?;
    let new = context.wait(async { client.rotate_webhook_secret(name.as_str()).await.map_err(advised) })?;
    context.output.note(
        "this secret is shown one time; give it to whoever receives the webhooks, and the one before is good until the next rotation",
    );
    context.output.answer(&new, || plain(&new.secret).into_owned())
}
