//! A request as a handler sees it: who asks, the path's parts, the query, the body.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use plinth_identity::Principal;
use plinth_net::{Access, Params, Request, Response, Route, UploadStream};
use plinth_registry::{Actor, PageQuery};
use plinth_store::metadata::Revision;
use plinth_store::objects::ByteStream;
use plinth_types::{Error, ModelName, Reason, RequestId, Result, TraceContext, VersionNumber};
use serde::de::DeserializeOwned;

use crate::Services;

/// What the gateway knows of a request.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who asks.
    pub principal: Principal,
    /// Names the request in logs and answers.
    pub request_id: RequestId,
    /// Where it stands in its trace; `None` for what nobody traces, such as probes.
    pub trace: Option<TraceContext>,
    /// Of an inference over gRPC that routes have looked at: which model it said, and which one shall answer.
    pub routed: Option<Arc<Routed>>,
}

/// A request on its way into a handler.
pub struct Call {
    /// Who asks.
    pub principal: Principal,
    /// Names the request in logs and answers.
    pub request_id: RequestId,
    /// Where it stands in its trace.
    pub trace: Option<TraceContext>,
    /// Which model shall answer an inference over gRPC.
    pub routed: Option<Arc<Routed>>,
    /// The path's parameters, decoded once.
    pub params: Params,
    /// The request; its body is not read yet.
    pub request: Request,
    services: Services,
}

/// A route whose handler gets the services and the call.
pub fn route<F, Fut>(
    services: &Services,
    method: Method,
    pattern: &'static str,
    access: Access,
    name: &'static str,
    handler: F,
) -> Route<Context>
where
    F: Fn(Services, Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    let services = services.clone();
    let changes = matches!(access, Access::Operate | Access::Admin | Access::Platform) && !matches!(method, Method::GET | Method::HEAD);
    let handler = move |request: Request, params: Params, context: Context| {
        let Context { principal, request_id, trace, routed } = context;
        let call = Call { principal, request_id, trace, routed, params, request, services: services.clone() };
        let writable = if changes { services.must_be_writable() } else { Ok(()) };
        let answer = may_use_model(&call).and(writable).map(|()| handler(services.clone(), call));
        async move { answer?.await }
    };
    Route::new(method, pattern, access, name, handler)
}

/// Refuses a model in the path that the caller's key is not for, before anybody looks whether it exists.
fn may_use_model(call: &Call) -> Result<()> {
    match call.params.get("model").map(str::parse) {
        Some(Ok(model)) => call.principal.must_use(&model),
        // What is no name is refused by whoever reads it.
        _ => Ok(()),
    }
}

/// What routes made of an inference over gRPC, whose model stands in the message and not in the path.
///
/// Invariant: what was routed is what is executed: a message that turns out to name another model than the one that routes, limits and rights were
/// asked about is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The model that the beginning of the first message names.
    pub said: String,
    /// What a route puts in its place.
    pub target: Option<(ModelName, Option<VersionNumber>)>,
}

impl Routed {
    /// The model and version that shall answer for what a message names.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`] when it names another model than was routed.
    pub fn answerer(&self, model: ModelName, version: Option<VersionNumber>) -> Result<(ModelName, Option<VersionNumber>)> {
        if model.as_str() != self.said {
            let text = "the call was routed by the model that its first message names first, and this is another one: \
                        name it once, as the first field, and use a stream for one model";
            return Err(Error::new(Reason::MalformedRequest, text).field("model_name"));
        }
        Ok(match &self.target {
            Some((target, own)) => (target.clone(), own.or(version)),
            None => (model, version),
        })
    }
}

impl Call {
    /// Where the request stands in its trace, when it is recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<TraceContext> {
        self.trace.filter(TraceContext::sampled)
    }
}

/// The most items of one page.
const MAX_PAGE: u32 = 200;

impl Call {
    /// A parameter of the path as what it must be.
    ///
    /// # Errors
    /// [`Reason::InvalidName`].
    pub fn param<T: FromStr<Err: std::fmt::Display>>(&self, name: &'static str) -> Result<T> {
        let text = self.params.require(name)?;
        text.parse().map_err(|e: T::Err| Error::new(Reason::InvalidName, format!("the {name} in the path is malformed: {e}")).field(name))
    }

    /// The model that the path names.
    ///
    /// # Errors
    /// [`Reason::InvalidName`].
    pub fn model(&self) -> Result<ModelName> {
        self.param("model")
            .map_err(|e| Error::new(Reason::InvalidName, e.to_string().replace("the model in", "the model name in")).field("model"))
    }

    /// The version that the path names.
    ///
    /// # Errors
    /// [`Reason::InvalidName`].
    pub fn version(&self) -> Result<VersionNumber> {
        self.param("version")
    }

    /// The revision that the path names.
    ///
    /// # Errors
    /// [`Reason::InvalidName`].
    pub fn revision(&self) -> Result<Revision> {
        self.param::<u64>("revision").map(Revision)
    }

    /// A parameter of the query, decoded; `None` when it is absent or empty.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.request.uri().query()?;
        let value = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name)?.1;
        (!value.is_empty()).then(|| value.into_owned())
    }

    /// Which page the query asks for: `limit`, and `cursor` for where it begins.
    ///
    /// # Errors
    /// [`Reason::InvalidName`] when the limit is no number from 1 to 200.
    pub fn page(&self, cursor: &str) -> Result<PageQuery> {
        let limit = match self.query("limit") {
            None => PageQuery::default().limit,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=MAX_PAGE).contains(n))
                .ok_or_else(|| Error::new(Reason::InvalidName, format!("'limit' is a number from 1 to {MAX_PAGE}")).field("limit"))?,
        };
        Ok(PageQuery { after: self.query(cursor), limit })
    }

    /// Who acts, for the audit.
    #[must_use]
    pub fn actor(&self, comment: &str) -> Actor {
        let platform = self.principal.is_platform() || self.principal.is_acting();
        Actor::new(self.principal.tenant.clone(), self.principal.actor()).comment(comment).platform(platform)
    }

    /// The whole body, within the limits.
    ///
    /// # Errors
    /// Those of [`plinth_net::read_body()`].
    pub async fn body(&mut self) -> Result<Bytes> {
        plinth_net::read_body(&mut self.request, &self.services.settings.body).await
    }

    /// The body as JSON of this type; an empty body counts as `{}`.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`], with the place in the text.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let body = self.body().await?;
        let text = if body.is_empty() { &b"{}"[..] } else { &body[..] };
        serde_json::from_slice(text)
            .map_err(|e| Error::new(Reason::MalformedRequest, format!("the body is not what this route takes: {e}")).field("body"))
    }

    /// The announced length of the body.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        plinth_net::content_length(self.request.headers())
    }

    /// The body as a stream, within the limits of uploads.
    #[must_use]
    pub fn into_stream(self) -> ByteStream<'static> {
        let limits = self.services.settings.upload;
        UploadStream::new(self.request.into_body(), limits).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_routed_is_what_answers() {
        let (x, y): (ModelName, ModelName) = ("x".parse().unwrap(), "y".parse().unwrap());
        let (one, two): (VersionNumber, VersionNumber) = ("1".parse().unwrap(), "2".parse().unwrap());
        let routed = |target| Routed { said: "x".into(), target };
        let ask = |routed: &Routed, model: &ModelName, version| routed.answerer(model.clone(), version).map_err(|error| error.reason());
        assert_eq!(ask(&routed(None), &x, Some(two)), Ok((x.clone(), Some(two))));
        assert_eq!(ask(&routed(Some((y.clone(), None))), &x, Some(two)), Ok((y.clone(), Some(two))), "the message's version");
        assert_eq!(ask(&routed(Some((y.clone(), Some(one)))), &x, Some(two)), Ok((y.clone(), Some(one))), "the route's is stronger");
        assert_eq!(ask(&routed(Some((y.clone(), Some(one)))), &y, None), Err(Reason::MalformedRequest), "another than was looked at");
    }
}
