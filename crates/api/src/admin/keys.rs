//! Keys: list, create, delete.

use http::StatusCode;
use plinth_client::wire;
use plinth_identity::ApiKey;
use plinth_net::Response;
use plinth_types::{Error, KeyId, Reason, Result};

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

pub async fn list(services: Services, call: Call) -> Result<Response> {
    let page = services.registry.keys(&call.principal.tenant, &call.page("after")?).await?;
    let items = page.items.into_iter().map(|(id, record)| view::key(&id, record)).collect();
    reply::json(&wire::Page { items, next: page.next })
}

pub async fn create(services: Services, mut call: Call) -> Result<Response> {
    let wish: wire::NewKey = call.json().await?;
    let now = services.world.clock.now();
    if wish.expires_at.is_some_and(|end| end <= now) {
        return Err(
            Error::new(Reason::InvalidResource, "the key would have expired already; 'expires_at' lies in the future").field("expires_at")
        );
    }
    let key = ApiKey::generate(services.world.random.as_ref())?;
    let record = key.record(view::role(wish.role), wish.description, now, wish.expires_at);
    services.registry.put_key(&call.actor(""), key.id(), &record).await?;
    services.show_newest().await;
    reply::json_with(StatusCode::CREATED, &wire::CreatedKey { key: view::key(key.id(), record), secret: key.reveal() })
}

pub async fn delete(services: Services, call: Call) -> Result<Response> {
    let id: KeyId = call.param("id")?;
    services.registry.delete_key(&call.actor(""), &id).await?;
    if services.show_newest().await {
        return Ok(reply::nothing());
    }
    // Whoever revokes a key must know when it still opens this door.
    let text = "the key is deleted, but this node has not taken that in yet and may accept it for some time; see `plinth status`";
    Err(Error::new(Reason::StoreUnavailable, text))
}
