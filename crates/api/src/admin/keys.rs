//! Keys: list, create, rotate, delete.

use std::time::Duration;

use http::StatusCode;
use plinth_client::wire;
use plinth_identity::ApiKey;
use plinth_net::Response;
use plinth_store::resources::KeyRecord;
use plinth_types::{Error, KeyId, ModelName, Reason, Result};

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
    let models = distinct(wish.models)?;
    if !models.is_empty() && matches!(wish.role, wire::Role::Operator | wire::Role::Admin) {
        let text = "a key for some models has the role viewer or developer: the others change what is served of all models";
        return Err(Error::new(Reason::InvalidResource, text).field("models"));
    }
    let record = KeyRecord { models, ..key.record(view::role(wish.role), wish.description, now, wish.expires_at) };
    services.registry.put_key(&call.actor(""), key.id(), &record).await?;
    services.show_newest().await;
    reply::json_with(StatusCode::CREATED, &wire::CreatedKey { key: view::key(key.id(), record), secret: key.reveal() })
}

/// The longest overlap of two keys: 90 days.
const MAX_OVERLAP: u32 = 90 * 24 * 3600;

pub async fn rotate(services: Services, mut call: Call) -> Result<Response> {
    let id: KeyId = call.param("id")?;
    let wish: wire::RotateKey = call.json().await?;
    if wish.overlap_seconds > MAX_OVERLAP {
        let text = format!("the old key may stay for at most {MAX_OVERLAP} seconds (90 days)");
        return Err(Error::new(Reason::InvalidResource, text).field("overlap_seconds"));
    }
    let key = ApiKey::generate(services.world.random.as_ref())?;
    let overlap = Duration::from_secs(wish.overlap_seconds.into());
    let record = services.registry.rotate_key(&call.actor(""), &id, key.id(), key.secret_hash(), overlap).await?;
    services.show_newest().await;
    reply::json_with(StatusCode::CREATED, &wire::CreatedKey { key: view::key(key.id(), record), secret: key.reveal() })
}

/// The most models that one key names.
const MAX_MODELS: usize = 256;

/// Sorted and each once, so that keys for the same models share one list.
fn distinct(mut models: Vec<ModelName>) -> Result<Vec<ModelName>> {
    models.sort_unstable();
    models.dedup();
    if models.len() > MAX_MODELS {
        return Err(Error::new(Reason::InvalidResource, format!("a key names at most {MAX_MODELS} models")).field("models"));
    }
    Ok(models)
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
