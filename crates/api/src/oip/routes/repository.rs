//! The model repository extension: its bodies.

use http::StatusCode;
use plinth_net::Response;
use plinth_types::Result;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Services;
use crate::call::Call;
use crate::oip::repository;
use crate::reply;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IndexBody {
    ready: bool,
}

pub async fn index(services: Services, mut call: Call) -> Result<Response> {
    let wanted: IndexBody = call.json().await?;
    reply::json(&repository::index(&services, &call.principal, wanted.ready))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBody {
    parameters: Option<Map<String, Value>>,
}

impl LoadBody {
    /// The configuration that replaces the version's own.
    fn config(&self) -> Result<Option<&str>> {
        let parameters = self.parameters.iter().flatten();
        if let Some((name, _)) = parameters.clone().find(|(name, _)| name.starts_with("file:")) {
            return Err(repository::no_files(name));
        }
        let Some((_, value)) = parameters.clone().find(|(name, _)| *name == "config") else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(repository::no_text)
    }
}

pub async fn load(services: Services, mut call: Call) -> Result<Response> {
    let model = call.model()?;
    let body: LoadBody = call.json().await?;
    repository::load(&services, &call.principal, &model, body.config()).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub async fn unload(services: Services, mut call: Call) -> Result<Response> {
    let model = call.model()?;
    // Its one parameter is about ensembles, which there are none of; but what is sent is read, and must be JSON.
    let _: serde_json::Value = call.json().await?;
    repository::unload(&services, &call.principal, &model).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub async fn named(_services: Services, _call: Call) -> Result<Response> {
    Err(repository::named())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Reason;

    fn body(text: &str) -> LoadBody {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_load_takes_a_configuration_and_no_files() {
        assert_eq!(body("{}").config().unwrap(), None);
        assert_eq!(body(r#"{"parameters":null}"#).config().unwrap(), None);
        assert_eq!(body(r#"{"parameters":{"config":"{}","other":1}}"#).config().unwrap(), Some("{}"));
        let refused = body(r#"{"parameters":{"config":{}}}"#).config().unwrap_err();
        assert_eq!((refused.reason(), refused.field_name()), (Reason::MalformedRequest, Some("parameters.config")));
        let refused = body(r#"{"parameters":{"file:1/model.onnx":"AAAA"}}"#).config().unwrap_err();
        assert_eq!((refused.reason(), refused.field_name()), (Reason::NotImplemented, Some("parameters.file:1/model.onnx")));
    }
}
