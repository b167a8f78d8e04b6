//! Writes into a node's ledger while the node does not run, in large commits: nobody makes a million keys one request at a time.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use plinth_identity::ApiKey;
use plinth_runtime::World;
use plinth_store::Metadata;
use plinth_store::metadata::{AuditNote, Change, Commit, Expect, Kind, MetadataOptions, MetadataUrl, RecordKey};
use plinth_store::resources::Role;
use plinth_types::{TenantName, Timestamp};
use serde_json::{Value, json};

/// Records in one commit.
const AT_ONCE: usize = 10_000;

/// A ledger that is being written.
pub struct Ledger {
    store: Arc<dyn Metadata>,
    now: Timestamp,
    waiting: Vec<Change>,
}

impl Ledger {
    /// The ledger in a node's data directory.
    pub async fn open(data: &Path) -> Result<Self> {
        let world = World::real();
        let options = MetadataOptions::new(MetadataUrl::Sqlite(data.join("metadata.sqlite")));
        let store = plinth_store::metadata::open(&options, &world).await.context("opening the node's ledger")?;
        Ok(Self { store, now: world.clock.now(), waiting: Vec::new() })
    }

    /// A plan.
    pub async fn plan(&mut self, name: &str, spec: &Value) -> Result<()> {
        self.put(RecordKey::new(Kind::Plan, TenantName::default_tenant(), name), spec.clone()).await
    }

    /// A tenant with a plan.
    pub async fn tenant(&mut self, name: &TenantName, plan: &str) -> Result<()> {
        let key = RecordKey::new(Kind::Tenant, TenantName::default_tenant(), name.as_str());
        self.put(key, json!({ "created_at": self.now, "plan": plan })).await
    }

    /// A key of a tenant, with the role developer.
    pub async fn key(&mut self, tenant: &TenantName, key: &ApiKey) -> Result<()> {
        let value = serde_json::to_value(key.record(Role::Developer, "", self.now, None))?;
        self.put(RecordKey::new(Kind::Key, tenant.clone(), key.id().as_str()), value).await
    }

    async fn put(&mut self, key: RecordKey, value: Value) -> Result<()> {
        self.waiting.push(Change { key, expect: Expect::Any, value: Some(value) });
        if self.waiting.len() < AT_ONCE { Ok(()) } else { self.commit().await }
    }

    async fn commit(&mut self) -> Result<()> {
        let note = AuditNote {
            at: self.now,
            tenant: TenantName::default_tenant(),
            actor: "bench".to_owned(),
            action: "fill".to_owned(),
            subject: "tenants".to_owned(),
            comment: String::new(),
        };
        let changes = std::mem::take(&mut self.waiting);
        self.store.commit(Commit { changes, guards: Vec::new(), if_head: None, note }).await?;
        Ok(())
    }

    /// Writes the rest.
    pub async fn finish(mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.commit().await?;
        }
        self.store.close().await;
        Ok(())
    }
}
