//! Filters: list, show, push, delete. A module is compiled and tried before its version is registered.

use http::StatusCode;
use plinth_client::wire;
use plinth_net::Response;
use plinth_registry::{Filter, FilterFacts, NewFilter};
use plinth_store::resources::gateway::{FilterSettings, FilterVersion, OnFilterError};
use plinth_types::{Error, Label, Reason, Result, TenantName, Timestamp, VersionNumber};

use crate::Services;
use crate::call::Call;
use crate::reply;
use crate::services::FilterState;

pub async fn list(services: Services, call: Call) -> Result<Response> {
    let tenant = &call.principal.tenant;
    let page = services.registry.filters(tenant, &call.page("after")?).await?;
    let items = page.items.into_iter().map(|filter| view(&services, tenant, filter)).collect();
    reply::json(&wire::Page { items, next: page.next })
}

pub async fn show(services: Services, call: Call) -> Result<Response> {
    let filter = services.registry.filter(&call.principal.tenant, &name(&call)?).await?;
    reply::json(&view(&services, &call.principal.tenant, filter))
}

pub async fn push(services: Services, mut call: Call) -> Result<Response> {
    let (name, tenant) = (name(&call)?, call.principal.tenant.clone());
    let wire: wire::NewFilter = call.json().await?;
    let new = NewFilter {
        module: wire.module,
        size: wire.size,
        settings: settings(wire.settings)?,
        signature: wire.signature,
        expect_number: wire.expect_number,
        description: wire.description,
    };
    let number = match new.expect_number {
        Some(number) => number,
        None => services.registry.next_filter_number(&tenant, &name).await?,
    };
    let candidate = candidate(&new, &call);
    services.filters.check(FilterFacts { tenant: &tenant, name: &name, version: number }, &candidate).await?;
    let pushed = services.registry.push_filter(&call.actor(""), &name, &new).await?;
    services.show(pushed.filter.revision).await;
    let status = if pushed.created { StatusCode::CREATED } else { StatusCode::OK };
    reply::json_with(status, &wire::PushedFilter { number: pushed.number, filter: view(&services, &tenant, pushed.filter) })
}

pub async fn delete(services: Services, call: Call) -> Result<Response> {
    let kind = plinth_registry::ResourceKind::Filter;
    services.registry.delete_resource(&call.actor(""), kind, name(&call)?.as_str(), None).await?;
    services.show_newest().await;
    Ok(reply::nothing())
}

pub async fn delete_version(services: Services, call: Call) -> Result<Response> {
    services.registry.delete_filter_version(&call.actor(""), &name(&call)?, call.version()?).await?;
    services.show_newest().await;
    Ok(reply::nothing())
}

fn name(call: &Call) -> Result<Label> {
    call.param("filter")
}

/// What the version would be, for who compiles it on trial.
fn candidate(new: &NewFilter, call: &Call) -> FilterVersion {
    FilterVersion {
        description: String::new(),
        module: new.module,
        size: new.size,
        settings: new.settings.clone(),
        signature: new.signature.clone(),
        created_by: call.principal.actor(),
        created_at: Timestamp::from(std::time::UNIX_EPOCH),
    }
}

fn settings(wire: wire::FilterSettings) -> Result<FilterSettings> {
    let on_error = match wire.on_error.as_deref() {
        None | Some("refuse") => OnFilterError::Refuse,
        Some("skip") => OnFilterError::Skip,
        Some(_) => {
            let text = "'on_error' is 'refuse' or 'skip'";
            return Err(Error::new(Reason::MalformedRequest, text).field("settings.on_error"));
        }
    };
    Ok(FilterSettings { values: wire.values, timeout_ms: wire.timeout_ms, memory: wire.memory, max_body: wire.max_body, on_error })
}

fn view(services: &Services, tenant: &TenantName, filter: Filter) -> wire::Filter {
    let name = filter.name.clone();
    let version = |(number, version): (VersionNumber, FilterVersion)| {
        let FilterState { word, reason } = services.filters.state(FilterFacts { tenant, name: &name, version: number });
        let FilterSettings { values, timeout_ms, memory, max_body, on_error } = version.settings;
        let on_error = (on_error == OnFilterError::Skip).then(|| "skip".to_owned());
        wire::FilterVersion {
            number,
            description: version.description,
            module: version.module,
            size: version.size,
            settings: wire::FilterSettings { values, timeout_ms, memory, max_body, on_error },
            signed: version.signature.is_some(),
            state: word.to_owned(),
            reason,
            created_by: version.created_by,
            created_at: version.created_at,
        }
    };
    wire::Filter {
        versions: filter.record.versions.into_iter().rev().map(version).collect(),
        name: filter.name,
        last_version: filter.record.last_version,
        revision: filter.revision.0,
        updated_at: filter.updated_at,
    }
}
