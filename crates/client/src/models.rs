//! The routes of models and their aliases.

use plinth_types::{AliasName, ModelName};

use crate::admin::{number, query};
use crate::transport::Call;
use crate::{Client, Paging, Result, wire};

impl Client {
    /// `GET /v1/models`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn models(&self, page: &Paging) -> Result<wire::Page<wire::Model>> {
        let mut url = self.url(["v1", "models"]);
        query(&mut url, &[("after", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `GET /v1/models/{m}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn model(&self, model: &ModelName) -> Result<wire::Model> {
        self.fetch(Call::get(self.url(["v1", "models", model.as_str()]))).await
    }

    /// `PATCH /v1/models/{m}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn edit_model(&self, model: &ModelName, edit: &wire::Edit) -> Result<wire::Model> {
        self.fetch(Call::patch(self.url(["v1", "models", model.as_str()])).json(edit)?).await
    }

    /// `DELETE /v1/models/{m}`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict while it is served.
    pub async fn delete_model(&self, model: &ModelName) -> Result<()> {
        self.send(Call::delete(self.url(["v1", "models", model.as_str()]))).await.map(drop)
    }

    /// `PUT /v1/models/{m}/aliases/{a}`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict when the alias does not stand where `expect` says.
    pub async fn move_alias(&self, model: &ModelName, alias: &AliasName, to: &wire::MoveAlias) -> Result<wire::Model> {
        self.fetch(Call::put(self.url(["v1", "models", model.as_str(), "aliases", alias.as_str()])).json(to)?).await
    }

    /// `DELETE /v1/models/{m}/aliases/{a}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn delete_alias(&self, model: &ModelName, alias: &AliasName) -> Result<()> {
        self.send(Call::delete(self.url(["v1", "models", model.as_str(), "aliases", alias.as_str()]))).await.map(drop)
    }

    /// `POST /v1/models/{m}/rollback`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn roll_back(&self, model: &ModelName, how: &wire::RollBack) -> Result<wire::Model> {
        self.fetch(Call::post(self.url(["v1", "models", model.as_str(), "rollback"])).json(how)?).await
    }

    /// `POST /v1/models/{m}/cache/warm`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn warm_cache(&self, model: &ModelName, list: &wire::WarmCache) -> Result<wire::WarmedCache> {
        let call = Call::post(self.url(["v1", "models", model.as_str(), "cache", "warm"])).json(list)?;
        self.fetch(call.within(self.options.work_timeout)).await
    }
}
