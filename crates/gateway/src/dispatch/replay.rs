//! A request that can be asked more than once.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Method, Uri};
use plinth_net::{BodyLimits, Request, RequestBody, content_length, read_body};
use plinth_types::Result;
use serde_json::{Map, Value};

/// Its parts.
pub struct Replay {
    pub method: Method,
    pub uri: Uri,
    headers: HeaderMap,
    pub body: Bytes,
}

impl Replay {
    /// Reads the body, when it is short enough to be kept, and leaves the request as it was. `None`, and nothing is read, for bodies that
    /// are longer or do not say how long they are.
    pub async fn take(request: &mut Request, limits: &BodyLimits) -> Result<Option<Self>> {
        let length = content_length(request.headers());
        let is_empty = length.is_none() && http_body::Body::is_end_stream(request.body());
        if !is_empty && length.is_none_or(|length| length > limits.max.0) {
            return Ok(None);
        }
        let body = if is_empty { Bytes::new() } else { read_body(request, limits).await? };
        if request.headers_mut().remove(CONTENT_ENCODING).is_some() {
            request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        }
        *request.body_mut() = RequestBody::from(body.clone());
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        Ok(Some(Self { method, uri, headers, body }))
    }

    /// The same with these values in its JSON body: in the object `parameters`, where the Open Inference Protocol has them, or at the top
    /// for services outside. `None` when the body is no JSON object.
    pub fn with_parameters(&self, parameters: &BTreeMap<String, Value>, at_top: bool) -> Option<Self> {
        let mut body: Map<String, Value> = serde_json::from_slice(&self.body).ok()?;
        let place =
            if at_top { &mut body } else { body.entry("parameters").or_insert_with(|| Value::Object(Map::new())).as_object_mut()? };
        place.extend(parameters.iter().map(|(name, value)| (name.clone(), value.clone())));
        let body = Bytes::from(serde_json::to_vec(&body).ok()?);
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_LENGTH, body.len().into());
        Some(Self { method: self.method.clone(), uri: self.uri.clone(), headers, body })
    }

    /// The request once more.
    pub fn request(&self) -> Request {
        let mut request = Request::new(RequestBody::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replay(body: &'static str) -> Replay {
        Replay { method: Method::POST, uri: Uri::default(), headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn parameters_are_put_where_they_belong() {
        let parameters = [("size".to_owned(), json!(256))].into_iter().collect();
        let changed = |body, at_top| {
            let changed = replay(body).with_parameters(&parameters, at_top)?;
            assert_eq!(changed.headers[CONTENT_LENGTH], changed.body.len().to_string());
            serde_json::from_slice::<Value>(&changed.body).ok()
        };
        assert_eq!(changed(r#"{"inputs": []}"#, false).unwrap(), json!({"inputs": [], "parameters": {"size": 256}}));
        assert_eq!(changed(r#"{"parameters": {"size": 1024, "a": 1}}"#, false).unwrap(), json!({"parameters": {"size": 256, "a": 1}}));
        assert_eq!(changed(r#"{"prompt": "x", "size": 1024}"#, true).unwrap(), json!({"prompt": "x", "size": 256}));
        assert_eq!(changed("[1]", true), None);
        assert_eq!(changed(r#"{"parameters": 3}"#, false), None);
    }
}
