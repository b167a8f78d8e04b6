//! Inferences over gRPC on users' routes: their model stands in the message, and for routes it is as if it stood in the path.
//!
//! Invariants: a call is looked at only where routes go by models, and never further than [`BEGIN`] bytes; the message goes on as it came, to models
//! and to upstreams; what a route puts in the model's place travels beside the message ([`Routed`]), so that no tensor is touched; a message that
//! names another model than the one that was looked at is refused by whoever reads it.

use std::sync::Arc;

use http::HeaderName;
use plinth_api::oip::grpc::peek::{self, Said};
use plinth_api::{Context, Routed};
use plinth_net::{BodyLimits, Coding, Request, Response, peek_message};
use plinth_types::{ModelName, Result};

use super::Errand;
use crate::routes::Model;

/// How far a message is looked at. Names have at most 128 bytes, and clients write them first.
const BEGIN: usize = 4 << 10;

const SERVICE: &str = "/inference.GRPCInferenceService/";
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Whether a path is that of an inference.
pub fn is_inference(path: &str) -> bool {
    path.strip_prefix(SERVICE).is_some_and(|method| matches!(method, "ModelInfer" | "ModelStreamInfer"))
}

/// The path that stands for an inference of this model on HTTP.
pub fn path_of(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

/// The model that the first message names; empty when it names none, not soon enough, or none that can be: no route is for that.
///
/// # Errors
/// `upload_incomplete` when the call brings no message in time, or breaks off.
pub async fn model_of(request: &mut Request, limits: &BodyLimits) -> Result<String> {
    let coding = request.headers().get(&ENCODING).and_then(|name| name.to_str().ok()).and_then(Coding::named);
    let look = |begin: &[u8], whole| match peek::model(begin, whole) {
        Said::Model(name) => Some(name.to_owned()),
        Said::Nothing => Some(String::new()),
        Said::More => None,
    };
    let said = peek_message(request.body_mut(), coding, limits, BEGIN, look).await?;
    Ok(said.filter(|name| name.parse::<ModelName>().is_ok()).unwrap_or_default())
}

/// Asks a model of this node in place of the one that the call names.
pub(super) async fn to_model(errand: &Errand<'_>, model: &Model, routed: &Routed, request: Request) -> Result<Response> {
    let routed = Routed { said: routed.said.clone(), target: model.answerer(&routed.said) };
    let context = Context { routed: Some(Arc::new(routed)), ..errand.origin.context.clone() };
    let found = errand.router.find(request.method(), request.uri().path())?;
    plinth_identity::authorise(&context.principal, found.route.access)?;
    found.route.handler.call(request, found.params, context).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use plinth_net::{BodyMemory, RequestBody};
    use plinth_types::ByteSize;
    use std::time::Duration;

    #[test]
    fn only_inferences_are_looked_at() {
        assert!(is_inference("/inference.GRPCInferenceService/ModelInfer"));
        assert!(is_inference("/inference.GRPCInferenceService/ModelStreamInfer"));
        for other in ["/inference.GRPCInferenceService/ModelReady", "/x/ModelInfer", "/v2/models/x/infer", ""] {
            assert!(!is_inference(other), "{other}");
        }
    }

    #[tokio::test]
    async fn a_name_that_can_be_none_finds_no_route() {
        let limits = BodyLimits {
            max: ByteSize::mib(1),
            min_rate: ByteSize(10),
            window: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            memory: BodyMemory::new(ByteSize::mib(4)),
        };
        for (name, said) in [("digits", "digits"), ("digits/versions/3", ""), ("../x", ""), ("", "")] {
            let mut message = vec![10, name.len() as u8];
            message.extend_from_slice(name.as_bytes());
            let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
            let mut request = Request::new(RequestBody::from(Bytes::from(framed)));
            assert_eq!(model_of(&mut request, &limits).await.unwrap(), said, "{name}");
        }
    }
}
