//! Resources one by one: list, show, delete.

use plinth_store::metadata::{ListQuery, Revision};
use plinth_store::resources::gateway::{FilterRecord, builtin_plan, builtin_plans};
use plinth_types::{Error, Reason, Result, TenantName, Timestamp};
use serde_json::Value;

use super::after::{After, Overlay};
use super::resource::{Resource, ResourceKind, shortest};
use super::{Actor, Draft, Page, PageQuery, Registry, models};
use crate::ledger::{Label, as_read};
use crate::words::check_comment;

/// A resource as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResource {
    /// What it is about.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// The commit that last changed it; 0 for a built-in plan that nobody has written.
    pub revision: Revision,
    /// The moment of that commit; `None` for a built-in plan.
    pub updated_at: Option<Timestamp>,
    /// What it says: what may be applied again.
    pub spec: Value,
}

impl StoredResource {
    fn new(kind: ResourceKind, name: &str, revision: Revision, updated_at: Option<Timestamp>, record: Value) -> Result<Self> {
        let spec = Value::Object(shortest(kind, Resource::read(kind, record)?.spec()?));
        Ok(Self { kind, name: name.to_owned(), revision, updated_at, spec })
    }
}

impl Registry {
    /// Resources of a kind by name; those that concern all lie in the default tenant.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn resources(&self, tenant: &TenantName, kind: ResourceKind, page: &PageQuery) -> Result<Page<StoredResource>> {
        let limit = page.bounded(200);
        let home = kind.key(tenant, "").tenant;
        let query =
            ListQuery { kind: kind.record(), tenant: Some(home), prefix: String::new(), after: page.after.clone(), limit: limit + 1 };
        let found = self.ledger.list::<Value>(&query).await?;
        let items = found.into_iter().map(|(key, s)| StoredResource::new(kind, &key.name, s.revision, Some(s.updated_at), s.value));
        let mut items = items.collect::<Result<Vec<_>>>()?;
        if kind == ResourceKind::Plan {
            add_builtin(&mut items, page.after.as_deref(), limit as usize + 1)?;
        }
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = if more { items.last().map(|item| item.name.clone()) } else { None };
        Ok(Page { items, next })
    }

    /// One resource.
    ///
    /// # Errors
    /// `RecordNotFound`, `InvalidName`, `StoreUnavailable`.
    pub async fn resource(&self, tenant: &TenantName, kind: ResourceKind, name: &str) -> Result<StoredResource> {
        kind.check_name(name)?;
        if let Some(found) = self.ledger.get::<Value>(&kind.key(tenant, name)).await? {
            return StoredResource::new(kind, name, found.revision, Some(found.updated_at), found.value);
        }
        match builtin_plan(name).filter(|_| kind == ResourceKind::Plan) {
            Some(plan) => StoredResource::new(kind, name, Revision(0), None, Resource::Plan(plan).value()?),
            None => Err(not_found(kind, name)),
        }
    }

    /// Deletes a resource; only while it still stands as `if_revision` left it, when that is given.
    ///
    /// # Errors
    /// `RecordNotFound`, `ResourceInUse` and `VersionInUse` while others need it, `NotPermitted`, `EditConflict`.
    pub async fn delete_resource(&self, actor: &Actor, kind: ResourceKind, name: &str, if_revision: Option<Revision>) -> Result<()> {
        check_comment(&actor.comment)?;
        kind.check_name(name)?;
        if kind.concerns_all() && !actor.may_change_all() {
            let text =
                format!("a {kind} concerns all tenants: only an administrator of the default tenant deletes it, acting for that tenant");
            return Err(Error::new(Reason::NotPermitted, text));
        }
        let key = kind.key(&actor.tenant, name);
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.ledger.get::<Value>(&key).await?.ok_or_else(|| not_found(kind, name))?;
            if if_revision.is_some_and(|expected| expected != found.revision) {
                let text = format!("the {kind} '{name}' was changed by revision {}: read it again", found.revision);
                return Err(Error::new(Reason::EditConflict, text));
            }
            match kind {
                ResourceKind::Model => return self.delete_model(actor, &models::parse_name(name)?).await,
                ResourceKind::Deployment => return self.set_deployment(actor, &models::parse_name(name)?, None).await,
                _ => {}
            }
            let mut draft = Draft::default();
            draft.delete(key.clone(), as_read(Some(&found)));
            if kind == ResourceKind::Filter {
                let record: FilterRecord = super::after::decode(found.value)?;
                self.retain_filter_number(&key, record.last_version, &mut draft).await?;
            }
            let overlay: Overlay = [(key.clone(), None)].into();
            After { registry: self, overlay: &overlay, draft: &mut draft }.check_unused(&key).await?;
            let label = Label::new(actor, deletion(kind), format!("{kind}/{name}"));
            if self.ledger.commit(actor, self.now(), label, draft).await?.is_some() {
                return Ok(());
            }
        }
    }
}

/// Puts the built-in plans that nobody has written where they belong in a page of those that were.
fn add_builtin(items: &mut Vec<StoredResource>, after: Option<&str>, limit: usize) -> Result<()> {
    // A full page ends before what comes after its last item.
    let end = (items.len() == limit).then(|| items.last().map(|item| item.name.clone())).flatten();
    for (name, plan) in builtin_plans() {
        let name = name.as_str();
        let here = after.is_none_or(|after| name > after) && end.as_deref().is_none_or(|end| name < end);
        if here && items.iter().all(|item| item.name != name) {
            items.push(StoredResource::new(ResourceKind::Plan, name, Revision(0), None, Resource::Plan(plan).value()?)?);
        }
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

fn not_found(kind: ResourceKind, name: &str) -> Error {
    let text = match kind {
        ResourceKind::Plan if builtin_plan(name).is_some() => format!("the plan '{name}' is built in and stands as it is"),
        _ => format!("there is no {kind} '{name}': list them with `plinth get {kind}`"),
    };
    Error::new(Reason::RecordNotFound, text)
}

const fn deletion(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Tenant => "tenant.delete",
        ResourceKind::Plan => "plan.delete",
        ResourceKind::Issuer => "issuer.delete",
        ResourceKind::Addresses => "addresses.delete",
        ResourceKind::Model => "model.delete",
        ResourceKind::Deployment => "deployment.delete",
        ResourceKind::Upstream => "upstream.delete",
        ResourceKind::Filter => "filter.delete",
        ResourceKind::Route => "route.delete",
    }
}
