//! The invariants of the gateway's records: each can be read, and what it names is there.

use std::collections::BTreeSet;

use plinth_store::metadata::{Kind, Record, RecordKey};
use plinth_store::resources::TenantRecord;
use plinth_store::resources::gateway::{
    AddressesRecord, FilterRecord, IssuerRecord, PlanRecord, RouteRecord, UpstreamRecord, builtin_plan,
};
use plinth_types::TenantName;

use super::{Report, decode};
use crate::registry::references::{Named, named};

/// Whether a record of one of these kinds can be read.
pub(super) fn read(record: &Record) -> Option<()> {
    match record.key.kind {
        Kind::Plan => drop(decode::<PlanRecord>(record)?),
        Kind::Upstream => drop(decode::<UpstreamRecord>(record)?),
        Kind::Route => drop(decode::<RouteRecord>(record)?),
        Kind::Issuer => drop(decode::<IssuerRecord>(record)?),
        Kind::Filter => drop(decode::<FilterRecord>(record)?),
        Kind::Addresses => drop(decode::<AddressesRecord>(record)?),
        _ => {}
    }
    Some(())
}

/// Names what is named and not there.
pub(super) fn check(records: &[Record], report: &mut Report) {
    let home = TenantName::default_tenant();
    let keys: BTreeSet<&RecordKey> = records.iter().map(|record| &record.key).collect();
    let there = |kind, tenant: &TenantName, name: &str| keys.contains(&RecordKey::new(kind, tenant.clone(), name));
    for record in records {
        let (tenant, name) = (&record.key.tenant, &record.key.name);
        match record.key.kind {
            Kind::Tenant => {
                let plan = decode::<TenantRecord>(record).and_then(|tenant| tenant.plan);
                let missing = plan.filter(|plan| !there(Kind::Plan, &home, plan.as_str()) && builtin_plan(plan.as_str()).is_none());
                report.must(missing.is_none(), || format!("the tenant '{name}' has the plan {missing:?}, which is not there"));
            }
            Kind::Route => {
                let Some(route) = decode::<RouteRecord>(record) else { continue };
                for (field, thing) in named(&route) {
                    let found = match thing {
                        Named::Model(model, _) => there(Kind::Model, tenant, model.as_str()),
                        Named::Upstream(label) => [tenant, &home].into_iter().any(|owner| there(Kind::Upstream, owner, label.as_str())),
                        Named::Filter(filter) => [tenant, &home].into_iter().any(|owner| there(Kind::Filter, owner, filter.name.as_str())),
                        Named::Tenant(named) => *named == home || there(Kind::Tenant, &home, named.as_str()),
                    };
                    report.must(found, || format!("the route '{name}' names in {field} what is not there"));
                }
            }
            _ => {}
        }
    }
}
