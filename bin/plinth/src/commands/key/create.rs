//! `plinth key create`: an API key on the node.

use std::time::Duration;

use clap::ValueEnum;
use plinth_client::wire;
use plinth_runtime::{Clock, SystemClock};
use plinth_types::{ModelName, Timestamp};

use super::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the key allows
    #[arg(long, value_enum, default_value = "developer")]
    role: Role,

    /// A word about who has it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,

    /// A model that it may use; give it again for more, leave it out for all
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<ModelName>,

    /// Refuse it after this time, such as 90d or 12h
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "expires_at")]
    expires_in: Option<Duration>,

    /// Refuse it from this moment on, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Looking: status, models, metadata
    Viewer,
    /// Using models as well
    #[value(alias = "infer")]
    Developer,
    /// Changing what is served as well
    Operator,
    /// Everything within the tenant; in the default tenant also what concerns all
    Admin,
}

/// Creates the key and shows it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let new = wire::NewKey {
        role: match args.role {
            Role::Admin => wire::Role::Admin,
            Role::Viewer => wire::Role::Viewer,
            Role::Developer => wire::Role::Developer,
            Role::Operator => wire::Role::Operator,
        },
        description: args.description.clone(),
        expires_at: args.expires_at.or_else(|| args.expires_in.map(|d| SystemClock.now().plus(d))),
        models: args.models.clone(),
    };
    let client = context.client()?;
    let created = context.wait(async { Ok(client.create_key(&new).await?) })?;
    context.output.note("this key is shown one time; keep it now");
    context.output.answer(&created, || plain(&created.secret).into_owned())
}
