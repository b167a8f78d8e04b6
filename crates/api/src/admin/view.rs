//! From the registry's types to the wire and back.

use plinth_client::wire;
use plinth_identity::Principal;
use plinth_registry::{Applied, AuditPage, Edit, Model, NewVersion, ResourceSpec, StoredResource, Version};
use plinth_serving::VersionReport;
use plinth_store::metadata::{AuditEntry, Revision};
use plinth_store::resources::{FileEntry, KeyRecord, Role, VersionState};
use plinth_types::{Error, KeyId, Reason, Result, TenantName};

use crate::call::Call;

/// A model, with what this node serves of it.
pub fn model(model: Model, tenant: &TenantName, report: &[VersionReport]) -> wire::Model {
    let record = model.record;
    let mine = report.iter().filter(|r| r.tenant == *tenant && r.model == model.name);
    wire::Model {
        served: mine.cloned().map(served_version).collect(),
        name: model.name,
        description: record.description,
        tags: record.tags,
        aliases: record.aliases.into_iter().map(|(alias, target)| (alias, target.version)).collect(),
        last_version: record.last_version,
        created_by: record.created_by,
        created_at: record.created_at,
        updated_at: model.updated_at,
    }
}

pub fn served(who: &Principal, report: Vec<VersionReport>) -> Vec<wire::ServedVersion> {
    report.into_iter().filter(|r| r.tenant == who.tenant && who.may_use(&r.model)).map(served_version).collect()
}

fn served_version(report: VersionReport) -> wire::ServedVersion {
    wire::ServedVersion {
        model: report.model,
        version: report.version,
        state: report.state.as_str().to_owned(),
        default: report.default,
        reason: report.refusal.map(|(reason, text)| format!("{reason}: {text}")),
        pid: report.pid,
        engine: report.engine,
        memory_bytes: report.memory,
        pinned: report.pinned,
        restarts: report.restarts,
        sandbox: report.sandbox.applied,
        sandbox_missing: report.sandbox.missing,
    }
}

pub fn memory(report: plinth_serving::MemoryReport) -> wire::ModelMemory {
    let device = |d: plinth_serving::DeviceMemory| wire::DeviceMemory {
        device: d.device,
        budget: d.budget,
        used: d.used,
        loading: d.loading,
        leaving: d.leaving,
    };
    wire::ModelMemory {
        devices: report.devices.into_iter().map(device).collect(),
        evictions: report.evictions,
        idle_unloads: report.idle_unloads,
        loads_on_demand: report.loads_on_demand,
        parked: report.parked as u64,
    }
}

pub fn version(version: Version) -> wire::Version {
    let size = version.size();
    let record = version.record;
    wire::Version {
        model: version.model,
        number: version.number,
        content: record.content,
        files: record.files.into_iter().map(|f| wire::File { path: f.path, size: f.size, digest: f.digest }).collect(),
        size,
        state: match record.state {
            VersionState::Active => wire::VersionState::Active,
            VersionState::Retired => wire::VersionState::Retired,
        },
        aliases: version.aliases,
        signature: record.signature,
        description: record.description,
        tags: record.tags,
        created_by: record.created_by,
        created_at: record.created_at,
    }
}

pub fn new_version(new: wire::NewVersion) -> NewVersion {
    NewVersion {
        files: new.files.into_iter().map(|f| FileEntry { path: f.path, size: f.size, digest: f.digest }).collect(),
        signature: new.signature,
        expect_number: new.expect_number,
        description: new.description,
        tags: new.tags,
        aliases: new.aliases,
    }
}

pub fn edit(edit: wire::Edit) -> Edit {
    Edit { description: edit.description, tags: edit.tags }
}

pub fn role(role: wire::Role) -> Role {
    match role {
        wire::Role::Viewer => Role::Viewer,
        wire::Role::Developer => Role::Developer,
        wire::Role::Operator => Role::Operator,
        wire::Role::Admin => Role::Admin,
    }
}

pub fn key(id: &KeyId, record: KeyRecord) -> wire::Key {
    let role = match record.role {
        Role::Viewer => wire::Role::Viewer,
        Role::Developer => wire::Role::Developer,
        Role::Operator => wire::Role::Operator,
        Role::Admin => wire::Role::Admin,
    };
    wire::Key {
        id: id.to_string(),
        role,
        description: record.description,
        created_at: record.created_at,
        expires_at: record.expires_at,
        models: record.models,
        replaced_by: record.replaced_by.map(|id| id.to_string()),
    }
}

pub fn audit_query(call: &Call) -> Result<AuditPage> {
    let before = call.query("before").map(|text| {
        text.parse::<u64>()
            .ok()
            .filter(|n| i64::try_from(*n).is_ok())
            .map(Revision)
            .ok_or_else(|| Error::new(Reason::InvalidName, "'before' is the number of a revision").field("before"))
    });
    Ok(AuditPage { subject: call.query("subject"), before: before.transpose()?, limit: call.page("after")?.limit })
}

pub fn audit_entry(entry: AuditEntry) -> wire::AuditEntry {
    let note = entry.note;
    wire::AuditEntry {
        revision: entry.revision.0,
        at: note.at,
        actor: note.actor,
        action: note.action,
        subject: note.subject,
        comment: note.comment,
        changes: entry
            .changes
            .into_iter()
            .map(|c| wire::AuditChange { record: format!("{}/{}", c.key.kind.as_str(), c.key.name), before: c.before, after: c.after })
            .collect(),
    }
}

pub fn resource_spec(resource: wire::Resource) -> ResourceSpec {
    ResourceSpec { kind: resource.kind, name: resource.name, expect: resource.expect.map(Revision), spec: resource.spec }
}

pub fn stored_resource(resource: StoredResource) -> wire::StoredResource {
    let StoredResource { kind, name, revision, updated_at, spec } = resource;
    wire::StoredResource { kind: kind.to_string(), name, revision: revision.0, updated_at, spec }
}

pub fn applied(applied: Applied) -> wire::Applied {
    wire::Applied {
        revision: applied.revision.map(|r| r.0),
        resources: applied
            .resources
            .into_iter()
            .map(|r| wire::AppliedResource {
                kind: r.kind.to_string(),
                name: r.name,
                outcome: r.outcome.as_str().to_owned(),
                before: r.before,
                after: r.after,
            })
            .collect(),
    }
}
