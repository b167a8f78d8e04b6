//! `plinth key list`: the API keys of the node, without their secrets.

use plinth_client::{Paging, wire};

use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::paging::gather;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct Args {}

/// Lists all keys.
pub fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let keys = context.wait(gather(None, async |page: Paging| client.keys(&page).await))?;
    context.output.answer(&keys, || {
        let mut table = Table::new(&["ID", "ROLE", "MODELS", "CREATED", "EXPIRES", "REPLACED BY", "DESCRIPTION"]);
        for key in &keys {
            let role = match key.role {
                wire::Role::Admin => Cell::new("admin", Tone::Warning),
                wire::Role::Operator => "operator".into(),
                wire::Role::Developer => "developer".into(),
                wire::Role::Viewer => "viewer".into(),
            };
            let expires = key.expires_at.map_or_else(|| "never".to_owned(), |t| t.to_string());
            let models: Vec<_> = key.models.iter().map(ToString::to_string).collect();
            let models = if models.is_empty() { "all".to_owned() } else { models.join(", ") };
            table.row([
                (&key.id).into(),
                role,
                models.into(),
                key.created_at.to_string().into(),
                expires.into(),
                key.replaced_by.as_deref().unwrap_or_default().into(),
                (&key.description).into(),
            ]);
        }
        table_or(&table, "no keys")
    })
}
