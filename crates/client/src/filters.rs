//! The routes of filters: listing, showing, pushing, deleting.

use bytes::Bytes;
use plinth_types::{Digest, Label, VersionNumber};
use reqwest::StatusCode;

use crate::admin::{number, query};
use crate::transport::Call;
use crate::{BlobSource, Client, Paging, Result, wire};

impl Client {
    /// `GET /v1/filters`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn filters(&self, page: &Paging) -> Result<wire::Page<wire::Filter>> {
        let mut url = self.url(["v1", "filters"]);
        query(&mut url, &[("after", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `GET /v1/filters/{f}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn filter(&self, name: &Label) -> Result<wire::Filter> {
        self.fetch(Call::get(self.url(["v1", "filters", name.as_str()]))).await
    }

    /// Uploads a module where the node lacks it, and makes a version of it: `POST /v1/filters/{f}/versions`. The second value says
    /// whether it is new; otherwise the newest version was just that already.
    ///
    /// # Errors
    /// As [`Client::status`]; no version is made then.
    pub async fn push_filter(&self, name: &Label, module: Bytes, new: &wire::NewFilter) -> Result<(wire::PushedFilter, bool)> {
        let digest = Digest::of(&module);
        if !self.has_blob(&digest).await? {
            self.put_blob(&digest, module.len() as u64, &BlobSource::Bytes(module), |_| ()).await?;
        }
        let url = self.url(["v1", "filters", name.as_str(), "versions"]);
        let answer = self.send(Call::post(url).json(new)?.within(self.options.work_timeout)).await?;
        Ok((self.parse(&answer.body)?, answer.status == StatusCode::CREATED))
    }

    /// `DELETE /v1/filters/{f}`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict while a route names it.
    pub async fn delete_filter(&self, name: &Label) -> Result<()> {
        self.send(Call::delete(self.url(["v1", "filters", name.as_str()]))).await.map(drop)
    }

    /// `DELETE /v1/filters/{f}/versions/{v}`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict while a route names it.
    pub async fn delete_filter_version(&self, name: &Label, version: VersionNumber) -> Result<()> {
        self.send(Call::delete(self.url(["v1", "filters", name.as_str(), "versions", &version.to_string()]))).await.map(drop)
    }
}
