//! What resources name, and what names them.
//!
//! Invariant: a commit leaves no resource that names what is not there. A route may name an upstream or a filter of its
//! own tenant or of the default tenant, its own first; a model only of its own tenant.

use plinth_store::metadata::{Kind, RecordKey};
use plinth_store::resources::gateway::{
    FallbackSpec, FilterRecord, FilterRef, IssuerRecord, ModelTarget, RouteRecord, Target, builtin_plan,
};
use plinth_store::resources::{TenantRecord, VersionRecord, VersionState};
use plinth_types::{Error, Label, ModelName, Reason, Result, TenantName, VersionNumber};
use serde::de::IgnoredAny;

use super::after::After;
use super::resource::Resource;
use super::{model_not_found, models, version_not_found, version_retired};
use crate::checks;
use crate::ledger::{model_key, version_key};
use crate::problems::Problems;

/// Something that a route names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Model(&'a ModelName, Option<VersionNumber>),
    Upstream(&'a Label),
    Filter(&'a FilterRef),
    Tenant(&'a TenantName),
}

/// All that a route names, each with its field.
pub(crate) fn named(route: &RouteRecord) -> Vec<(String, Named<'_>)> {
    let mut all = Vec::new();
    for (at, target) in route.targets.iter().enumerate() {
        all.extend(by_target(format!("targets[{at}].to"), &target.to));
    }
    all.extend(route.shadow.iter().filter_map(|shadow| by_target("shadow.to".into(), &shadow.to)));
    for (at, fallback) in route.fallbacks.iter().enumerate() {
        match fallback {
            FallbackSpec::Model(model) => all.extend(by_model(format!("fallbacks[{at}].model"), model)),
            FallbackSpec::Upstream(name) => all.push((format!("fallbacks[{at}].upstream"), Named::Upstream(name))),
            FallbackSpec::Cached { .. } | FallbackSpec::Static { .. } => {}
        }
    }
    for (at, step) in route.degrade.iter().enumerate() {
        all.extend(step.model.iter().filter_map(|model| by_model(format!("degrade[{at}].model"), model)));
    }
    all.extend(route.filters.iter().enumerate().map(|(at, name)| (format!("filters[{at}]"), Named::Filter(name))));
    let tenants = route.matches.tenants.iter().enumerate();
    all.extend(tenants.map(|(at, name)| (format!("matches.tenants[{at}]"), Named::Tenant(name))));
    let pins = route.pins.iter().enumerate().filter_map(|(at, pin)| Some((at, pin.tenant.as_ref()?)));
    all.extend(pins.map(|(at, name)| (format!("pins[{at}].tenant"), Named::Tenant(name))));
    all
}

fn by_target(field: String, target: &Target) -> Option<(String, Named<'_>)> {
    match target {
        Target::Model(model) => by_model(format!("{field}.model"), model),
        Target::Upstream(name) => Some((format!("{field}.upstream"), Named::Upstream(name))),
    }
}

fn by_model(field: String, model: &ModelTarget) -> Option<(String, Named<'_>)> {
    model.name.as_ref().map(|name| (field, Named::Model(name, model.version)))
}

impl After<'_> {
    /// Whether all that a resource names will be there. Fields are below the resource, such as `spec.plan`.
    pub async fn check_names(&mut self, key: &RecordKey, resource: &Resource, problems: &mut Problems) -> Result<()> {
        match resource {
            Resource::Tenant(TenantRecord { plan: Some(plan), .. }) => self.must_have_plan(plan, problems).await,
            Resource::Issuer(issuer) => {
                let Some(tenant) = &issuer.tenant else { return Ok(()) };
                self.must_have(&key.tenant, Named::Tenant(tenant), "spec.tenant", problems).await
            }
            Resource::Deployment(deployment) => {
                let model: ModelName = models::parse_name(&key.name)?;
                if !self.is_there(model_key(&key.tenant, &model)).await? {
                    let error = model_not_found(&model);
                    problems.add_as(error.reason(), "name", error.public_text());
                    return Ok(());
                }
                for (at, number) in deployment.versions.iter().enumerate() {
                    self.must_be_usable(&key.tenant, &model, *number, &format!("spec.versions[{at}]"), problems).await?;
                }
                Ok(())
            }
            Resource::Route(route) => {
                for (field, thing) in named(route) {
                    self.must_have(&key.tenant, thing, &format!("spec.{field}"), problems).await?;
                }
                Ok(())
            }
            Resource::Tenant(_)
            | Resource::Plan(_)
            | Resource::Addresses(_)
            | Resource::Model(_)
            | Resource::Upstream(_)
            | Resource::Filter(_) => Ok(()),
        }
    }

    async fn must_have_plan(&mut self, plan: &Label, problems: &mut Problems) -> Result<()> {
        let written = self.is_there(RecordKey::new(Kind::Plan, TenantName::default_tenant(), plan.as_str())).await?;
        if !written && builtin_plan(plan.as_str()).is_none() {
            problems.add_as(Reason::RecordNotFound, "spec.plan", format!("there is no plan '{plan}'"));
        }
        Ok(())
    }

    async fn must_have(&mut self, tenant: &TenantName, thing: Named<'_>, field: &str, problems: &mut Problems) -> Result<()> {
        let home = TenantName::default_tenant();
        let (found, what) = match thing {
            Named::Tenant(name) => {
                let found = *name == home || self.is_there(RecordKey::new(Kind::Tenant, home, name.as_str())).await?;
                (found, format!("tenant '{name}'"))
            }
            Named::Upstream(name) => (self.own_or_shared(Kind::Upstream, tenant, name).await?, format!("upstream '{name}'")),
            Named::Filter(filter) => (self.has_filter(tenant, filter).await?, format!("filter '{filter}'")),
            Named::Model(name, version) => {
                if !self.is_there(model_key(tenant, name)).await? {
                    let error = model_not_found(name);
                    problems.add_as(error.reason(), field, error.public_text());
                } else if let Some(number) = version {
                    self.must_be_usable(tenant, name, number, &format!("{field}.version"), problems).await?;
                }
                return Ok(());
            }
        };
        if !found {
            problems.add_as(Reason::RecordNotFound, field, format!("there is no {what}"));
        }
        Ok(())
    }

    /// Whether a tenant's own filter of this name, or else the shared one, has the version.
    async fn has_filter(&mut self, tenant: &TenantName, filter: &FilterRef) -> Result<bool> {
        let key = |owner: TenantName| RecordKey::new(Kind::Filter, owner, filter.name.as_str());
        let found = match self.get::<FilterRecord>(key(tenant.clone())).await? {
            None if *tenant != TenantName::default_tenant() => self.get(key(TenantName::default_tenant())).await?,
            found => found,
        };
        Ok(found.is_some_and(|record| filter.version.is_none_or(|version| record.versions.contains_key(&version))))
    }

    async fn own_or_shared(&mut self, kind: Kind, tenant: &TenantName, name: &Label) -> Result<bool> {
        let home = TenantName::default_tenant();
        if self.is_there(RecordKey::new(kind, tenant.clone(), name.as_str())).await? {
            return Ok(true);
        }
        Ok(*tenant != home && self.is_there(RecordKey::new(kind, home, name.as_str())).await?)
    }

    async fn must_be_usable(
        &mut self,
        tenant: &TenantName,
        model: &ModelName,
        number: VersionNumber,
        field: &str,
        problems: &mut Problems,
    ) -> Result<()> {
        let error = match self.get::<VersionRecord>(version_key(tenant, model, number)).await? {
            Some(version) if version.state == VersionState::Active => return Ok(()),
            Some(_) => version_retired(model, number),
            None => version_not_found(model, number),
        };
        problems.add_as(error.reason(), field, error.public_text());
        Ok(())
    }

    /// What can only be said of all routes of a tenant: no models that fall back on each other in a circle.
    pub async fn check_routes(&self, tenant: &TenantName, changed: &[(usize, &RouteRecord)], problems: &mut Problems) -> Result<()> {
        if changed.iter().all(|(_, route)| route.fallbacks.is_empty()) {
            return Ok(());
        }
        let all = self.list::<RouteRecord>(Kind::Route, Some(tenant)).await?;
        let Some(circle) = checks::model_cycle(all.iter().map(|(_, route)| route)) else { return Ok(()) };
        let part = changed.iter().find(|(_, route)| route.matches.models.iter().any(|model| circle.contains(model)));
        let Some((at, _)) = part else { return Ok(()) };
        let way = circle.iter().map(ModelName::as_str).collect::<Vec<_>>().join(" → ");
        problems.add(&format!("resources[{at}].spec.fallbacks"), format!("models would fall back on each other in a circle: {way}"));
        Ok(())
    }

    /// Refuses to let go of what others name.
    ///
    /// # Errors
    /// `ResourceInUse`, which says by what.
    pub async fn check_unused(&mut self, key: &RecordKey) -> Result<()> {
        // Lists decide here, and nobody may add to them meanwhile.
        self.draft.only_if_head(self.registry.ledger.head().await?);
        let user = match key.kind {
            Kind::Plan => self.user_of_plan(key).await?,
            Kind::Upstream | Kind::Filter | Kind::Model => self.route_with(key).await?,
            Kind::Tenant => self.user_of_tenant(key).await?,
            _ => None,
        };
        match user {
            None => Ok(()),
            Some(user) => {
                let text = format!("the {} '{}' is used by {user}: change or delete that first", key.kind.as_str(), key.name);
                Err(Error::new(Reason::ResourceInUse, text))
            }
        }
    }

    async fn user_of_plan(&self, key: &RecordKey) -> Result<Option<String>> {
        // Where a built-in one stands behind it, its users fall back on that.
        if builtin_plan(&key.name).is_some() {
            return Ok(None);
        }
        let tenants = self.list::<TenantRecord>(Kind::Tenant, Some(&key.tenant)).await?;
        let user = tenants.into_iter().find(|(_, record)| record.plan.as_ref().is_some_and(|plan| plan.as_str() == key.name));
        Ok(user.map(|(user, _)| format!("the tenant '{}'", user.name)))
    }

    /// The first route that needs the record of this key.
    async fn route_with(&mut self, key: &RecordKey) -> Result<Option<String>> {
        let shared = key.tenant == TenantName::default_tenant() && key.kind != Kind::Model;
        let routes = self.list::<RouteRecord>(Kind::Route, (!shared).then_some(&key.tenant)).await?;
        for (user, route) in &routes {
            let field = named(route).into_iter().find(|(_, thing)| match (key.kind, thing) {
                (Kind::Upstream, Named::Upstream(name)) => name.as_str() == key.name,
                (Kind::Filter, Named::Filter(filter)) => filter.name.as_str() == key.name,
                (Kind::Model, Named::Model(name, _)) => name.as_str() == key.name,
                _ => false,
            });
            let Some((field, _)) = field else { continue };
            if user.tenant == key.tenant {
                return Ok(Some(format!("the route '{}' ({field})", user.name)));
            }
            if !self.is_there(RecordKey::new(key.kind, user.tenant.clone(), key.name.as_str())).await? {
                return Ok(Some(format!("the route '{}' of the tenant '{}' ({field})", user.name, user.tenant)));
            }
        }
        Ok(None)
    }

    async fn user_of_tenant(&self, key: &RecordKey) -> Result<Option<String>> {
        let tenant: TenantName = models::parse_name(&key.name)?;
        let home = TenantName::default_tenant();
        if tenant == home {
            return Ok(Some("the node itself".to_owned()));
        }
        for kind in [Kind::Key, Kind::Model, Kind::Deployment, Kind::Upstream, Kind::Filter, Kind::Route] {
            if let Some((owned, _)) = self.list::<IgnoredAny>(kind, Some(&tenant)).await?.first() {
                return Ok(Some(format!("its {} '{}'", kind.as_str(), owned.name)));
            }
        }
        let issuers = self.list::<IssuerRecord>(Kind::Issuer, Some(&home)).await?;
        if let Some((user, _)) = issuers.iter().find(|(_, issuer)| issuer.tenant.as_ref() == Some(&tenant)) {
            return Ok(Some(format!("the issuer '{}'", user.name)));
        }
        let routes = self.list::<RouteRecord>(Kind::Route, Some(&home)).await?;
        let user = routes.iter().find(|(_, route)| named(route).iter().any(|(_, thing)| *thing == Named::Tenant(&tenant)));
        Ok(user.map(|(user, _)| format!("the route '{}'", user.name)))
    }
}
