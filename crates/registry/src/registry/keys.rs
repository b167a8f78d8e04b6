//! Tenants and API keys as plain records, for the service that knows what they mean.

use std::time::Duration;

use plinth_store::metadata::{Expect, Kind, ListQuery, RecordKey};
use plinth_store::resources::{KeyRecord, TenantRecord};
use plinth_types::{Digest, Error, KeyId, Reason, Result, TenantName};

use super::{Actor, Draft, Page, PageQuery, Registry, models};
use crate::ledger::{Label, as_read};
use crate::words::{check_comment, check_description};

impl Registry {
    /// Makes a tenant unless it is there; whether it was made.
    ///
    /// # Errors
    /// `EditConflict`, `StoreUnavailable`.
    pub async fn ensure_tenant(&self, actor: &Actor, tenant: &TenantName, description: &str) -> Result<bool> {
        check_description(description)?;
        let home = TenantName::default_tenant();
        let key = RecordKey::new(Kind::Tenant, home.clone(), tenant.as_str());
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            if self.ledger.get::<TenantRecord>(&key).await?.is_some() {
                return Ok(false);
            }
            let now = self.now();
            let mut draft = Draft::default();
            draft.put(
                key.clone(),
                Expect::Absent,
                &TenantRecord { description: description.to_owned(), created_at: now, plan: None, suspended: false },
            )?;
            let label = Label { tenant: &home, action: "tenant.create", subject: tenant.to_string(), comment: actor.comment.clone() };
            if self.ledger.commit(actor, now, label, draft).await?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Makes or replaces an API key of the actor's tenant.
    ///
    /// # Errors
    /// `EditConflict`, `StoreUnavailable`.
    pub async fn put_key(&self, actor: &Actor, id: &KeyId, record: &KeyRecord) -> Result<()> {
        check_comment(&actor.comment)?;
        check_description(&record.description)?;
        let mut draft = Draft::default();
        draft.put(api_key(&actor.tenant, id), Expect::Any, record)?;
        self.ledger.commit(actor, self.now(), Label::new(actor, "key.put", id.as_str()), draft).await?;
        Ok(())
    }

    /// One API key.
    ///
    /// # Errors
    /// `RecordNotFound`, `StoreUnavailable`.
    pub async fn key(&self, tenant: &TenantName, id: &KeyId) -> Result<KeyRecord> {
        self.ledger.get(&api_key(tenant, id)).await?.map(|stored| stored.value).ok_or_else(|| key_not_found(id))
    }

    /// API keys of a tenant by id.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn keys(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<(KeyId, KeyRecord)>> {
        let limit = page.bounded(200);
        let query =
            ListQuery { kind: Kind::Key, tenant: Some(tenant.clone()), prefix: String::new(), after: page.after.clone(), limit: limit + 1 };
        let mut found = self.ledger.list::<KeyRecord>(&query).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let items = found.into_iter().map(|(key, stored)| Ok((models::parse_name(&key.name)?, stored.value)));
        let items = items.collect::<Result<Vec<(KeyId, KeyRecord)>>>()?;
        let next = if more { items.last().map(|(id, _)| id.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// Puts a new key beside an old one, which is good for `overlap` longer and then refused. The new one allows the same,
    /// for as long as the old one would have. One commit.
    ///
    /// # Errors
    /// `RecordNotFound`, `EditConflict` also when the key was replaced or has expired already, `StoreUnavailable`.
    pub async fn rotate_key(&self, actor: &Actor, id: &KeyId, new: &KeyId, secret_hash: Digest, overlap: Duration) -> Result<KeyRecord> {
        check_comment(&actor.comment)?;
        let key = api_key(&actor.tenant, id);
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.ledger.get::<KeyRecord>(&key).await?.ok_or_else(|| key_not_found(id))?;
            let (old, now) = (found.value.clone(), self.now());
            if let Some(other) = &old.replaced_by {
                return Err(Error::new(Reason::EditConflict, format!("the key '{id}' was replaced by '{other}' already: rotate that one")));
            }
            if old.expires_at.is_some_and(|end| end <= now) {
                return Err(Error::new(Reason::EditConflict, format!("the key '{id}' has expired: create a new one")));
            }
            let made = KeyRecord { secret_hash, created_at: now, replaced_by: None, ..old.clone() };
            let end = old.expires_at.map_or(now.plus(overlap), |end| end.min(now.plus(overlap)));
            let mut draft = Draft::default();
            draft.put(key.clone(), as_read(Some(&found)), &KeyRecord { expires_at: Some(end), replaced_by: Some(new.clone()), ..old })?;
            draft.put(api_key(&actor.tenant, new), Expect::Absent, &made)?;
            if self.ledger.commit(actor, now, Label::new(actor, "key.rotate", id.as_str()), draft).await?.is_some() {
                return Ok(made);
            }
        }
    }

    /// Deletes an API key; from the next snapshot on it is refused.
    ///
    /// # Errors
    /// `RecordNotFound`, `EditConflict`, `StoreUnavailable`.
    pub async fn delete_key(&self, actor: &Actor, id: &KeyId) -> Result<()> {
        check_comment(&actor.comment)?;
        let key = api_key(&actor.tenant, id);
        let mut attempts = self.attempts();
        loop {
            attempts.next().await?;
            let found = self.ledger.get::<KeyRecord>(&key).await?.ok_or_else(|| key_not_found(id))?;
            let mut draft = Draft::default();
            draft.delete(key.clone(), as_read(Some(&found)));
            if self.ledger.commit(actor, self.now(), Label::new(actor, "key.delete", id.as_str()), draft).await?.is_some() {
                return Ok(());
            }
        }
    }
}

fn api_key(tenant: &TenantName, id: &KeyId) -> RecordKey {
    RecordKey::new(Kind::Key, tenant.clone(), id.as_str())
}

fn key_not_found(id: &KeyId) -> Error {
    Error::new(Reason::RecordNotFound, format!("there is no key '{id}': list the keys"))
}
