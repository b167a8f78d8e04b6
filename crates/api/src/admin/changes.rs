//! What touches many things at once: audit, undo, garbage collection, apply.

use std::time::Duration;

use plinth_client::wire;
use plinth_net::Response;
use plinth_registry::CollectGarbage;
use plinth_types::{Error, Result};

use crate::Services;
use crate::admin::view;
use crate::call::Call;
use crate::reply;

pub async fn audit(services: Services, call: Call) -> Result<Response> {
    let query = view::audit_query(&call)?;
    let page = services.registry.audit(&call.principal.tenant, &query).await?;
    let items = page.items.into_iter().map(view::audit_entry).collect();
    reply::json(&wire::Page { items, next: page.next })
}

/// Reads the whole audit and the whole log of refusals of this node.
pub async fn verify(services: Services, _: Call) -> Result<Response> {
    let audit = services.registry.verify_audit().await?;
    let refusals = services.probe.refusals().await.map_err(|error| Error::internal("reading the log of refusals").source(error))?;
    reply::json(&wire::AuditVerification {
        entries: audit.entries,
        unlinked: audit.unlinked,
        head: audit.head,
        broken: audit.broken.map(|revision| revision.0),
        refusals: wire::RefusalsVerification {
            lines: refusals.lines,
            first: refusals.first,
            last: refusals.last,
            head: refusals.digest,
            broken: refusals.broken.map(|at| format!("{} line {}: {}", at.file, at.line, at.why)),
        },
    })
}

pub async fn undo(services: Services, call: Call) -> Result<Response> {
    let entry = services.registry.undo(&call.actor(""), call.revision()?).await?;
    services.show(entry.revision).await;
    reply::json(&view::audit_entry(entry))
}

pub async fn collect_garbage(services: Services, mut call: Call) -> Result<Response> {
    let wish: wire::CollectGarbage = call.json().await?;
    let older_than = wish.older_than_seconds.map_or(services.settings.gc_grace, Duration::from_secs);
    let garbage = services.registry.collect_garbage(&call.actor(""), CollectGarbage { dry_run: wish.dry_run, older_than }).await?;
    reply::json(&wire::Garbage { digests: garbage.digests, bytes: garbage.bytes, kept: garbage.kept })
}

pub async fn apply(services: Services, mut call: Call) -> Result<Response> {
    let wish: wire::Apply = call.json().await?;
    let specs: Vec<_> = wish.resources.into_iter().map(view::resource_spec).collect();
    let applied = services.registry.apply(&call.actor(""), &specs, wish.dry_run).await?;
    if let Some(revision) = applied.revision {
        services.show(revision).await;
    }
    reply::json(&view::applied(applied))
}
