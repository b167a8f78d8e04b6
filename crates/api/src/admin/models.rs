//! Models: list, show, edit, delete.

use plinth_client::wire;
use plinth_net::Response;
use plinth_types::Result;

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

pub async fn list(services: Services, call: Call) -> Result<Response> {
    let page = services.registry.models(&call.principal.tenant, &call.page("after")?).await?;
    let served = services.serving.table().report();
    let items = page
        .items
        .into_iter()
        .filter(|m| call.principal.may_use(&m.name))
        .map(|m| view::model(m, &call.principal.tenant, &served))
        .collect();
    reply::json(&wire::Page { items, next: page.next })
}

pub async fn show(services: Services, call: Call) -> Result<Response> {
    let model = services.registry.model(&call.principal.tenant, &call.model()?).await?;
    reply::json(&view::model(model, &call.principal.tenant, &services.serving.table().report()))
}

pub async fn edit(services: Services, mut call: Call) -> Result<Response> {
    let edit: wire::Edit = call.json().await?;
    let model = services.registry.edit_model(&call.actor(""), &call.model()?, &view::edit(edit)).await?;
    services.show(model.revision).await;
    reply::json(&view::model(model, &call.principal.tenant, &services.serving.table().report()))
}

pub async fn delete(services: Services, call: Call) -> Result<Response> {
    services.registry.delete_model(&call.actor(""), &call.model()?).await?;
    services.show_newest().await;
    Ok(reply::nothing())
}
