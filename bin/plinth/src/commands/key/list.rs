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
        let mut table = Table::new(&["ID", "ROLE", "CREATED", "EXPIRES", "DESCRIPTION"]);
        for key in &keys {
            let role = match key.role {
                wire::Role::Admin => Cell::new("admin", Tone::Warning),
                wire::Role::Infer => "infer".into(),
            };
            let expires = key.expires_at.map_or_else(|| "never".to_owned(), |t| t.to_string());
            table.row([(&key.id).into(), role, key.created_at.to_string().into(), expires.into(), (&key.description).into()]);
        }
        table_or(&table, "no keys")
    })
}
