//! The table of the users' routes, compiled from a snapshot.
//!
//! Invariants: a table never changes, the next snapshot makes another; a record that cannot be compiled is left out with a
//! warning and the others stand (`registry` refuses such records before they are stored); finding a route takes no lock and
//! allocates nothing. A tenant without routes costs one look into a map.
//!
//! Of several routes that match, the one with the highest priority is taken, then the one with the longest path, then the
//! first by name. Who may use a route is looked at by the gateway, what its targets are by [`crate::forward`].

mod cors;
mod headers;
mod matching;
mod route;
mod target;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use plinth_store::resources::gateway::{FilterRef, RouteAccess, RouteRecord};
use plinth_types::{Label, ModelName, TenantName, VersionNumber};

use crate::filters::{Filters, Handle};

pub use cors::Cors;
pub use headers::Changes;
pub use matching::Asked;
pub use route::{Fallback, Invalid, Route, Sticky, cookie};
pub(crate) use target::Named;
pub use target::{Model, Target, To};

/// Who asks on a route that needs no key: somebody who may use models and nothing else.
pub(crate) fn everybody() -> plinth_identity::Principal {
    let mut principal = plinth_identity::Principal::anybody();
    principal.role = plinth_store::resources::Role::Developer;
    principal
}

/// Says which version an alias of a model stands for now.
pub trait Aliases {
    /// The version, when the model has the alias.
    fn version(&self, tenant: &TenantName, model: &ModelName, alias: &str) -> Option<VersionNumber>;
}

/// Where a route finds its filters.
pub trait FilterSlots {
    /// What stands for a filter that a route of this tenant names.
    fn slot(&self, tenant: &TenantName, named: &FilterRef) -> Handle;
}

impl FilterSlots for Arc<Filters> {
    fn slot(&self, tenant: &TenantName, named: &FilterRef) -> Handle {
        self.handle(tenant, named)
    }
}

/// Routes by tenant.
#[derive(Debug, Default)]
pub struct RouteTable {
    tenants: HashMap<TenantName, Routes>,
    /// Those that need no key. Of the default tenant.
    public: Routes,
    /// Those that pages of other origins may use, of all tenants.
    pages: Routes,
    /// Whether any is for named hosts.
    hosts: bool,
}

/// The routes of a tenant, found by the first segment of their path.
#[derive(Debug, Default)]
struct Routes {
    segments: HashMap<String, Vec<Arc<Route>>>,
    /// Whose path may begin with anything.
    anywhere: Vec<Arc<Route>>,
    /// Whether calls must be looked at for the model that they name.
    models: bool,
}

impl Routes {
    fn add(&mut self, route: Arc<Route>) {
        self.models |= route.goes_by_models();
        match route.first_segment() {
            Some(segment) => self.segments.entry(segment.to_owned()).or_default().push(route),
            None => self.anywhere.push(route),
        }
    }

    fn sort(&mut self) {
        for routes in self.segments.values_mut().chain(std::iter::once(&mut self.anywhere)) {
            routes.sort_by(|a, b| a.order().cmp(&b.order()));
        }
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.anywhere.is_empty()
    }

    fn find(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        let segment = matching::first_segment(asked.path);
        let near = self.segments.get(segment).and_then(|routes| routes.iter().find(|route| route.matches(asked)));
        let far = self.anywhere.iter().find(|route| route.matches(asked));
        match (near, far) {
            (Some(near), Some(far)) => Some(if far.order() < near.order() { far } else { near }),
            (near, far) => near.or(far),
        }
    }
}

impl RouteTable {
    /// The table of these records.
    #[must_use]
    pub fn compile(
        records: &BTreeMap<TenantName, Arc<BTreeMap<Label, Arc<RouteRecord>>>>,
        aliases: &dyn Aliases,
        filters: &dyn FilterSlots,
    ) -> Self {
        let mut table = Self::default();
        for (tenant, routes) in records {
            for (name, record) in routes.iter() {
                match Route::compile(tenant, name, record, aliases, filters) {
                    Ok(route) => table.add(Arc::new(route)),
                    Err(Invalid(why)) => tracing::warn!(%tenant, route = %name, why, "a route is left out"),
                }
            }
        }
        table.public.sort();
        table.pages.sort();
        table.tenants.values_mut().for_each(Routes::sort);
        table
    }

    fn add(&mut self, route: Arc<Route>) {
        self.hosts |= route.names_hosts();
        if route.cors.is_some() {
            self.pages.add(route.clone());
        }
        if route.access == RouteAccess::Public {
            self.public.add(route);
        } else {
            self.tenants.entry(route.tenant.clone()).or_default().add(route);
        }
    }

    /// Whether there is any route to look for.
    #[must_use]
    pub fn may_have(&self, tenant: &TenantName, public: bool) -> bool {
        if public { !self.public.is_empty() } else { self.tenants.contains_key(tenant) }
    }

    /// Whether a route may depend on the model that the message of a call names.
    #[must_use]
    pub fn goes_by_models(&self, tenant: &TenantName, public: bool) -> bool {
        if public { self.public.models } else { self.tenants.get(tenant).is_some_and(|routes| routes.models) }
    }

    /// Whether some route may be for a host or for pages that the node itself does not know.
    #[must_use]
    pub fn welcomes_strangers(&self) -> bool {
        self.hosts || !self.pages.is_empty()
    }

    /// The route that a page of another origin asks for. Of anybody: the question carries no credentials, and its answer tells no more
    /// than which origins may ask.
    #[must_use]
    pub fn for_pages(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        if self.pages.is_empty() { None } else { self.pages.find(asked) }
    }

    /// The route that needs no key.
    #[must_use]
    pub fn public(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        if self.public.is_empty() { None } else { self.public.find(asked) }
    }

    /// The route of a tenant.
    #[must_use]
    pub fn of(&self, tenant: &TenantName, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        self.tenants.get(tenant)?.find(asked)
    }
}

#[cfg(test)]
mod tests;
