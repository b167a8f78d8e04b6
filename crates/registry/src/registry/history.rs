//! The audit: who changed what, when, and what stood there before.

use plinth_store::metadata::{AuditEntry, AuditQuery, Kind, Revision};
use plinth_types::{Error, Reason, Result, TenantName};
use serde_json::Value;

use super::{Page, Registry};

/// Which part of the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// On exactly this subject or anything below it: `digits` also finds `digits/2`.
    pub subject: Option<String>,
    /// Older than this commit ([`Page::next`] of the page before).
    pub before: Option<Revision>,
    /// At most so many; 0 for the default.
    pub limit: u32,
}

impl Registry {
    /// Commits that changed this tenant's things, newest first. Hashes of secrets are left out.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn audit(&self, tenant: &TenantName, page: &AuditPage) -> Result<Page<AuditEntry>> {
        let limit = if page.limit == 0 { 50 } else { page.limit.min(100) };
        let query = AuditQuery { tenant: Some(tenant.clone()), subject: page.subject.clone(), before: page.before, limit: limit + 1 };
        let mut items = self.ledger.audit(&query).await?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        items.iter_mut().for_each(hide_secrets);
        let next = if more { items.last().map(|entry| entry.revision.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// One commit of this tenant.
    ///
    /// # Errors
    /// `RecordNotFound`, also for a commit of another tenant; `StoreUnavailable`.
    pub async fn audit_entry(&self, tenant: &TenantName, revision: Revision) -> Result<AuditEntry> {
        let mut entry = self.full_entry(tenant, revision).await?;
        hide_secrets(&mut entry);
        Ok(entry)
    }

    pub(super) async fn full_entry(&self, tenant: &TenantName, revision: Revision) -> Result<AuditEntry> {
        let entry = self.ledger.audit_entry(revision).await?.filter(|entry| entry.note.tenant == *tenant);
        entry.ok_or_else(|| Error::new(Reason::RecordNotFound, format!("there is no change {revision}: list the audit")))
    }
}

fn hide_secrets(entry: &mut AuditEntry) {
    for change in entry.changes.iter_mut().filter(|change| change.key.kind == Kind::Key) {
        for value in [&mut change.before, &mut change.after].into_iter().flatten() {
            if let Some(hash) = value.get_mut("secret_hash") {
                *hash = Value::String("hidden".into());
            }
        }
    }
}
