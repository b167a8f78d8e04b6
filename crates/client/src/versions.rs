//! The routes of versions: making, showing, retiring, signing, verifying, and reading their files.

use bytes::Bytes;
use futures_util::Stream;
use plinth_types::{ArtifactPath, ModelName, VersionNumber};
use reqwest::StatusCode;
use url::Url;

use crate::admin::{number, query};
use crate::transport::Call;
use crate::{Client, Paging, Result, wire};

impl Client {
    fn version_url(&self, model: &ModelName, version: VersionNumber, rest: &[&str]) -> Url {
        let number = version.to_string();
        self.url(["v1", "models", model.as_str(), "versions", &number].into_iter().chain(rest.iter().copied()))
    }

    /// `GET /v1/models/{m}/versions`: newest first.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn versions(&self, model: &ModelName, page: &Paging) -> Result<wire::Page<wire::Version>> {
        let mut url = self.url(["v1", "models", model.as_str(), "versions"]);
        query(&mut url, &[("after", page.after.clone()), ("limit", number(page.limit))]);
        self.fetch(Call::get(url)).await
    }

    /// `POST /v1/models/{m}/versions`. The second value says whether it is new; otherwise that content was a version
    /// already.
    ///
    /// # Errors
    /// As [`Client::status`]; nothing is registered then.
    pub async fn create_version(&self, model: &ModelName, new: &wire::NewVersion) -> Result<(wire::Version, bool)> {
        let url = self.url(["v1", "models", model.as_str(), "versions"]);
        let answer = self.send(Call::post(url).json(new)?.within(self.options.work_timeout)).await?;
        Ok((self.parse(&answer.body)?, answer.status == StatusCode::CREATED))
    }

    /// `GET /v1/models/{m}/versions/{v}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn version(&self, model: &ModelName, version: VersionNumber) -> Result<wire::Version> {
        self.fetch(Call::get(self.version_url(model, version, &[]))).await
    }

    /// `PATCH /v1/models/{m}/versions/{v}`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn edit_version(&self, model: &ModelName, version: VersionNumber, edit: &wire::Edit) -> Result<wire::Version> {
        self.fetch(Call::patch(self.version_url(model, version, &[])).json(edit)?).await
    }

    /// `DELETE /v1/models/{m}/versions/{v}`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict while it is served or pinned.
    pub async fn delete_version(&self, model: &ModelName, version: VersionNumber) -> Result<()> {
        self.send(Call::delete(self.version_url(model, version, &[]))).await.map(drop)
    }

    /// `POST /v1/models/{m}/versions/{v}/retire`.
    ///
    /// # Errors
    /// As [`Client::status`]; a conflict while an alias points to it.
    pub async fn retire_version(&self, model: &ModelName, version: VersionNumber) -> Result<wire::Version> {
        self.fetch(Call::post(self.version_url(model, version, &["retire"]))).await
    }

    /// `POST /v1/models/{m}/versions/{v}/restore`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn restore_version(&self, model: &ModelName, version: VersionNumber) -> Result<wire::Version> {
        self.fetch(Call::post(self.version_url(model, version, &["restore"]))).await
    }

    /// `PUT /v1/models/{m}/versions/{v}/signature`.
    ///
    /// # Errors
    /// As [`Client::status`]; refused when the signature does not hold.
    pub async fn attach_signature(&self, model: &ModelName, version: VersionNumber, signature: &wire::Signature) -> Result<wire::Version> {
        self.fetch(Call::put(self.version_url(model, version, &["signature"])).json(signature)?).await
    }

    /// `GET /v1/models/{m}/versions/{v}/verification`: the node hashes the stored bytes again.
    ///
    /// # Errors
    /// As [`Client::status`]. A version that is not accepted is an answer, not an error.
    pub async fn verification(&self, model: &ModelName, version: VersionNumber) -> Result<wire::Verification> {
        self.fetch(Call::get(self.version_url(model, version, &["verification"])).within(self.options.work_timeout)).await
    }

    /// `GET /v1/models/{m}/versions/{v}/files/{path}`: the file's bytes as they arrive. The stream fails when nothing
    /// arrives for the idle timeout or when the connection breaks; the caller compares length and digest.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn version_file(
        &self,
        model: &ModelName,
        version: VersionNumber,
        path: &ArtifactPath,
    ) -> Result<impl Stream<Item = Result<Bytes>> + use<>> {
        let segments: Vec<&str> = std::iter::once("files").chain(path.as_str().split('/')).collect();
        let request = self.http.get(self.version_url(model, version, &segments));
        let response = self.within(self.options.request_timeout, self.success(request)).await?;
        let client = self.clone();
        Ok(futures_util::stream::try_unfold(response, move |mut response| {
            let client = client.clone();
            async move {
                let next = async { response.chunk().await.map_err(|e| client.transport(e)) };
                let chunk = client.within(client.options.idle_timeout, next).await?;
                Ok(chunk.map(|bytes| (bytes, response)))
            }
        }))
    }
}
