//! Aliases: promote, delete, roll back.

use plinth_client::wire;
use plinth_net::Response;
use plinth_registry::{Model, MoveAlias, RollBack};
use plinth_types::{AliasName, Result};

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

async fn shown(services: &Services, call: &Call, model: Model) -> Result<Response> {
    services.show(model.revision).await;
    reply::json(&view::model(model, &call.principal.tenant, &services.serving.table().report()))
}

pub async fn move_to(services: Services, mut call: Call) -> Result<Response> {
    let wish: wire::MoveAlias = call.json().await?;
    let alias: AliasName = call.param("alias")?;
    let to = MoveAlias { version: wish.version, expect: wish.expect, permission: wish.permission };
    let model = services.registry.move_alias(&call.actor(&wish.comment), &call.model()?, &alias, &to).await?;
    shown(&services, &call, model).await
}

pub async fn delete(services: Services, call: Call) -> Result<Response> {
    let model = services.registry.delete_alias(&call.actor(""), &call.model()?, &call.param("alias")?).await?;
    services.show(model.revision).await;
    Ok(reply::nothing())
}

pub async fn roll_back(services: Services, mut call: Call) -> Result<Response> {
    let wish: wire::RollBack = call.json().await?;
    let how = RollBack { permission: wish.permission };
    let model = services.registry.roll_back(&call.actor(&wish.comment), &call.model()?, &how).await?;
    shown(&services, &call, model).await
}
