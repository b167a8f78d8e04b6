//! What a node does once in its life: the default tenant and the first admin key.

use plinth_identity::ApiKey;
use plinth_registry::{Actor, PageQuery, Registry};
use plinth_runtime::World;
use plinth_store::resources::Role;
use plinth_types::{Reason, Result, TenantName};

/// Makes sure that the default tenant exists and, when `with_keys`, that there is an admin key. Returns a key that was
/// made now; it is not kept anywhere.
///
/// # Errors
/// When the ledger cannot be reached: then nothing was made, and the next start tries again.
pub async fn prepare(registry: &Registry, world: &World, with_keys: bool) -> Result<Option<String>> {
    let (actor, tenant) = (Actor::system().comment("first start"), TenantName::default_tenant());
    registry.ensure_tenant(&actor, &tenant, "the tenant of everything on a node where nobody made another").await?;
    if !with_keys || has_admin(registry, world, &tenant).await? {
        return Ok(None);
    }
    let key = ApiKey::generate(world.random.as_ref())?;
    let record = key.record(Role::Admin, "made at the first start", world.clock.now(), None);
    registry.put_key(&actor, key.id(), &record).await?;
    Ok(Some(key.reveal()))
}

/// Whether there is an admin key that still works.
async fn has_admin(registry: &Registry, world: &World, tenant: &TenantName) -> Result<bool> {
    let now = world.clock.now();
    let mut query = PageQuery::default();
    loop {
        let page = registry.keys(tenant, &query).await?;
        if page.items.iter().any(|(_, record)| record.role == Role::Admin && record.expires_at.is_none_or(|end| end > now)) {
            return Ok(true);
        }
        let Some(next) = page.next else { return Ok(false) };
        query.after = Some(next);
    }
}

/// Whether a failure to prepare is one that a later start mends.
pub fn may_wait(reason: Reason) -> bool {
    matches!(reason, Reason::StoreUnavailable | Reason::StorageFull | Reason::LedgerDiverged)
}
