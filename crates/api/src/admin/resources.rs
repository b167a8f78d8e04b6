//! Resources: list, show, delete. They are changed through `changes::apply`.
//!
//! What concerns all tenants is shown to administrators of the default tenant alone; the registry refuses changes of it.

use plinth_client::wire;
use plinth_net::Response;
use plinth_registry::ResourceKind;
use plinth_store::metadata::Revision;
use plinth_types::{Error, Reason, Result};

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

pub async fn list(services: Services, call: Call) -> Result<Response> {
    let page = services.registry.resources(&call.principal.tenant, readable(&call)?, &call.page("after")?).await?;
    let items = page.items.into_iter().map(view::stored_resource).collect();
    reply::json(&wire::Page { items, next: page.next })
}

pub async fn show(services: Services, call: Call) -> Result<Response> {
    let kind = readable(&call)?;
    let resource = services.registry.resource(&call.principal.tenant, kind, call.params.require("name")?).await?;
    reply::json(&view::stored_resource(resource))
}

pub async fn delete(services: Services, call: Call) -> Result<Response> {
    let if_revision = call.query("if_revision").map(|text| {
        let malformed = || Error::new(Reason::InvalidName, "'if_revision' is the number of a revision").field("if_revision");
        text.parse().map(Revision).map_err(|_| malformed())
    });
    let name = call.params.require("name")?;
    services.registry.delete_resource(&call.actor(""), kind(&call)?, name, if_revision.transpose()?).await?;
    services.show_newest().await;
    Ok(reply::nothing())
}

fn kind(call: &Call) -> Result<ResourceKind> {
    call.params.require("kind")?.parse().map_err(|error: Error| Error::new(Reason::InvalidName, error.to_string()).field("kind"))
}

fn readable(call: &Call) -> Result<ResourceKind> {
    let kind = kind(call)?;
    if kind.concerns_all() && !call.principal.is_platform() {
        let text = format!("a {kind} concerns all tenants: it is shown to administrators of the default tenant");
        return Err(Error::new(Reason::NotPermitted, text));
    }
    Ok(kind)
}
