//! From wanted resources to one commit, judged by the state that it would lead to.

use std::collections::BTreeMap;

use plinth_types::{Reason, Result, TenantName};
use serde_json::Value;

use super::{AppliedResource, ApplyOutcome, Wanted};
use crate::ledger::as_read;
use crate::problems::Problems;
use crate::registry::after::{After, Overlay};
use crate::registry::resource::{Resource, ResourceKind, shortest};
use crate::registry::{Actor, Draft, Registry};

impl Registry {
    pub(super) async fn draft_all(
        &self,
        actor: &Actor,
        wanted: &[Wanted],
        dry_run: bool,
        problems: &mut Problems,
    ) -> Result<(Draft, Vec<AppliedResource>)> {
        let (mut draft, mut overlay, mut outcomes) = (Draft::default(), Overlay::new(), Vec::with_capacity(wanted.len()));
        let mut resources = BTreeMap::new();
        for one in wanted {
            let before = problems.enter(&format!("resources[{}]", one.at));
            let (record, outcome) = self.draft_one(actor, one, dry_run, (&mut draft, &mut overlay), problems).await?;
            problems.leave(before);
            resources.insert(one.at, (one, record));
            outcomes.push(outcome);
        }
        let mut after = After { registry: self, overlay: &overlay, draft: &mut draft };
        for (at, (one, record)) in &resources {
            let before = problems.enter(&format!("resources[{at}]"));
            after.check_names(&one.kind.key(&actor.tenant, &one.name), record, problems).await?;
            problems.leave(before);
        }
        let routes = resources.values().filter_map(|(one, record)| match record {
            Resource::Route(route) => Some((one.at, &**route)),
            _ => None,
        });
        after.check_routes(&actor.tenant, &routes.collect::<Vec<_>>(), problems).await?;
        self.check_numbers(&actor.tenant, wanted, &mut after, problems).await?;
        Ok((draft, outcomes))
    }

    /// What one resource becomes, put into the draft when that is something new.
    async fn draft_one(
        &self,
        actor: &Actor,
        one: &Wanted,
        dry_run: bool,
        (draft, overlay): (&mut Draft, &mut Overlay),
        problems: &mut Problems,
    ) -> Result<(Resource, AppliedResource)> {
        let key = one.kind.key(&actor.tenant, &one.name);
        let found = self.ledger.get::<Value>(&key).await?;
        let expect = as_read(found.as_ref());
        let revision = found.as_ref().map_or(0, |found| found.revision.0);
        if one.expect.is_some_and(|expected| expected.0 != revision) {
            problems.add_as(Reason::EditConflict, "expect", conflict(one, revision));
        }
        let found = found.map(|found| Resource::read(one.kind, found.value)).transpose()?;
        let mut record = one.resource.clone().keeping(found.as_ref());
        let outcome = match &found {
            None => ApplyOutcome::Created,
            Some(found) if *found == record => ApplyOutcome::Unchanged,
            Some(_) => ApplyOutcome::Changed,
        };
        if let (None, Resource::Model(model)) = (&found, &mut record) {
            model.created_by.clone_from(&actor.id);
            let name = crate::registry::models::parse_name(&one.name)?;
            model.last_version = self.former_number(&actor.tenant, &name, draft).await?;
        }
        let value = record.value()?;
        if outcome == ApplyOutcome::Unchanged {
            draft.guard(key.clone(), expect);
        } else {
            draft.set(key.clone(), expect, Some(value.clone()));
        }
        overlay.insert(key, Some(value));
        let shown = |resource: &Resource| -> Result<Value> { Ok(Value::Object(shortest(one.kind, resource.spec()?))) };
        let (before, after) = match dry_run {
            true => (found.as_ref().map(shown).transpose()?, Some(shown(&record)?)),
            false => (None, None),
        };
        let applied = AppliedResource { kind: one.kind, name: one.name.clone(), outcome, before, after };
        Ok((record, applied))
    }

    /// A tenant has no more of a kind than its table in memory was made for.
    async fn check_numbers(&self, tenant: &TenantName, wanted: &[Wanted], after: &mut After<'_>, problems: &mut Problems) -> Result<()> {
        const MOST: usize = 1_000;
        for kind in [ResourceKind::Upstream, ResourceKind::Route, ResourceKind::Plan, ResourceKind::Issuer] {
            let Some(first) = wanted.iter().find(|one| one.kind == kind) else { continue };
            let home = kind.key(tenant, &first.name).tenant;
            let count = after.list::<serde::de::IgnoredAny>(kind.record(), Some(&home)).await?.len();
            problems.must(count <= MOST, &format!("resources[{}].kind", first.at), || {
                format!("a tenant has at most {MOST} of a kind; with these there would be {count} of {kind}")
            });
        }
        Ok(())
    }
}

fn conflict(one: &Wanted, revision: u64) -> String {
    let Wanted { kind, name, .. } = one;
    match (one.expect.map_or(0, |expected| expected.0), revision) {
        (0, revision) => format!("the {kind} '{name}' is there already, from revision {revision}"),
        (expected, 0) => format!("the {kind} '{name}' is not there any more; revision {expected} was expected"),
        (expected, revision) => format!("the {kind} '{name}' was changed by revision {revision} since {expected}: read it again"),
    }
}
