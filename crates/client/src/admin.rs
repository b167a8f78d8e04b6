//! The routes about the node as a whole: status, audit, garbage collection, apply, keys.

use plinth_types::KeyId;

use crate::transport::Call;
use crate::{Client, Paging, Result, wire};

impl Client {
    /// `GET /v1/status`.
    ///
    /// # Errors
    /// Network, refusal, or an answer that is not a node's; so for every method of this client.
    pub async fn status(&self) -> Result<wire::Status> {
        self.fetch(Call::get(self.url(["v1", "status"]))).await
    }

    /// `GET /v1/audit`: newest first; `page.after` goes on before that revision.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn audit(&self, subject: Option<&str>, page: &Paging) -> Result<wire::Page<wire::AuditEntry>> {
        let mut url = self.url(["v1", "audit"]);
        query(&mut url, &[("subject", subject.map(str::to_owned)), ("before", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `GET /v1/audit/verification`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn verify_audit(&self) -> Result<wire::AuditVerification> {
        self.fetch(Call::get(self.url(["v1", "audit", "verification"])).within(self.options.work_timeout)).await
    }

    /// `POST /v1/audit/{revision}/undo`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict when what the commit changed was changed again.
    pub async fn undo(&self, revision: u64) -> Result<wire::AuditEntry> {
        self.fetch(Call::post(self.url(["v1", "audit", &revision.to_string(), "undo"]))).await
    }

    /// `POST /v1/gc`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn collect_garbage(&self, what: &wire::CollectGarbage) -> Result<wire::Garbage> {
        self.fetch(Call::post(self.url(["v1", "gc"])).json(what)?.within(self.options.work_timeout)).await
    }

    /// `POST /v1/apply`.
    ///
    /// # Errors
    /// As [`Client::status`]; nothing is applied then.
    pub async fn apply(&self, what: &wire::Apply) -> Result<wire::Applied> {
        self.fetch(Call::post(self.url(["v1", "apply"])).json(what)?).await
    }

    /// `GET /v1/resources/{kind}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn resources(&self, kind: &str, page: &Paging) -> Result<wire::Page<wire::StoredResource>> {
        let mut url = self.url(["v1", "resources", kind]);
        query(&mut url, &[("after", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `GET /v1/resources/{kind}/{name}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn resource(&self, kind: &str, name: &str) -> Result<wire::StoredResource> {
        self.fetch(Call::get(self.url(["v1", "resources", kind, name]))).await
    }

    /// `DELETE /v1/resources/{kind}/{name}`; only while `if_revision` was the last to change it, when that is given.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict while others need it.
    pub async fn delete_resource(&self, kind: &str, name: &str, if_revision: Option<u64>) -> Result<()> {
        let mut url = self.url(["v1", "resources", kind, name]);
        query(&mut url, &[("if_revision", if_revision.map(|revision| revision.to_string()))]);
        self.send(Call::delete(url)).await.map(drop)
    }

    /// `GET /v1/keys`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn keys(&self, page: &Paging) -> Result<wire::Page<wire::Key>> {
        let mut url = self.url(["v1", "keys"]);
        query(&mut url, &[("after", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `POST /v1/keys`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn create_key(&self, key: &wire::NewKey) -> Result<wire::CreatedKey> {
        self.fetch(Call::post(self.url(["v1", "keys"])).json(key)?).await
    }

    /// `POST /v1/keys/{id}/rotate`: the new key.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn rotate_key(&self, id: &KeyId, rotate: &wire::RotateKey) -> Result<wire::CreatedKey> {
        self.fetch(Call::post(self.url(["v1", "keys", id.as_str(), "rotate"])).json(rotate)?).await
    }

    /// `DELETE /v1/keys/{id}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn delete_key(&self, id: &KeyId) -> Result<()> {
        self.send(Call::delete(self.url(["v1", "keys", id.as_str()]))).await.map(drop)
    }
}

pub(crate) fn number(limit: Option<u32>) -> Option<String> {
    limit.map(|n| n.to_string())
}

/// Appends the parameters that are there.
pub(crate) fn query(url: &mut url::Url, parameters: &[(&str, Option<String>)]) {
    for (name, value) in parameters {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
}
