//! Server reflection: the descriptors of what this port speaks, from the schemas that the program was built with.

use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::stream;
use plinth_net::{Body, BodyLimits, Frame, Messages, Response};
use plinth_types::{ByteSize, Error, Reason, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, FileDescriptor};
use tokio::time::{Instant, timeout_at};

use super::call::{Head, control_limits, framed, malformed, too_late};
use super::pb::reflection::server_reflection_request::MessageRequest;
use super::pb::reflection::server_reflection_response::MessageResponse;
use super::pb::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse,
};
use super::status::{self, Code};
use crate::Services;
use crate::call::Call;

/// The largest question.
const MAX_QUESTION: ByteSize = ByteSize::kib(16);

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.bin"));
    #[allow(clippy::expect_used, reason = "the bytes are part of the program")]
    DescriptorPool::decode(bytes).expect("the build script wrote a descriptor set that holds together")
});

struct Session {
    services: Services,
    messages: Messages,
    limits: BodyLimits,
    deadline: Option<Instant>,
    ended: bool,
}

/// Answers one question after another.
pub(super) async fn info(services: Services, mut call: Call, head: Head) -> Result<Response> {
    let mut limits = control_limits(&services);
    limits.max = MAX_QUESTION;
    let messages = Messages::new(std::mem::take(call.request.body_mut()), head.coding, limits.clone());
    let deadline = head.timeout.map(|time| Instant::now() + time);
    let session = Session { services, messages, limits, deadline, ended: false };
    let frames = stream::unfold(session, |mut session| async move { Some((Ok::<_, io::Error>(session.frame().await?), session)) });
    Ok(status::accept(Body::frames(frames)))
}

impl Session {
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        if self.ended {
            return None;
        }
        let end = match self.question().await {
            Ok(Some(question)) => match framed(&answer(question)) {
                Ok(bytes) => return Some(Frame::data(bytes)),
                Err(error) => status::trailers_of(&error),
            },
            Ok(None) => status::good(),
            Err(error) => status::trailers_of(&error),
        };
        self.ended = true;
        Some(Frame::trailers(end))
    }

    async fn question(&mut self) -> Result<Option<ServerReflectionRequest>> {
        let next = async {
            let Some(packed) = self.messages.next().await? else { return Ok(None) };
            let message = packed.open(&self.limits).await?;
            ServerReflectionRequest::decode(message).map(Some).map_err(|e| malformed(&e))
        };
        let next = async {
            match self.deadline {
                None => next.await,
                Some(deadline) => timeout_at(deadline, next).await.unwrap_or_else(|_| Err(too_late())),
            }
        };
        tokio::select! {
            next = next => next,
            () = self.services.draining.cancelled() => Err(Error::new(Reason::ShuttingDown, "the node is shutting down")),
        }
    }
}

fn answer(question: ServerReflectionRequest) -> ServerReflectionResponse {
    let pool = &*POOL;
    let missing = |what: &str| {
        let error_message = format!("there is no such {what}");
        MessageResponse::ErrorResponse(ErrorResponse { error_code: Code::NotFound as i32, error_message })
    };
    let message_response = match &question.message_request {
        Some(MessageRequest::ListServices(_)) => {
            let service = pool.services().map(|service| ServiceResponse { name: service.full_name().to_owned() });
            MessageResponse::ListServicesResponse(ListServiceResponse { service: service.collect() })
        }
        Some(MessageRequest::FileByFilename(name)) => pool.get_file_by_name(name).map_or_else(|| missing("file"), |file| files(&file)),
        Some(MessageRequest::FileContainingSymbol(name)) => declares(pool, name).map_or_else(|| missing("symbol"), |file| files(&file)),
        // proto3 has no extensions but those of options, of which there are none.
        Some(MessageRequest::FileContainingExtension(_)) => missing("extension"),
        Some(MessageRequest::AllExtensionNumbersOfType(name)) if pool.get_message_by_name(name).is_some() => {
            let base_type_name = name.clone();
            MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse { base_type_name, extension_number: Vec::new() })
        }
        Some(MessageRequest::AllExtensionNumbersOfType(_)) => missing("message"),
        None => {
            let error_message = "the question has no content that is known here".to_owned();
            MessageResponse::ErrorResponse(ErrorResponse { error_code: Code::InvalidArgument as i32, error_message })
        }
    };
    let valid_host = question.host.clone();
    ServerReflectionResponse { valid_host, original_request: Some(question), message_response: Some(message_response) }
}

/// The file that declares a service, a method, a message, a field, an enumeration or one of its values.
fn declares(pool: &DescriptorPool, name: &str) -> Option<FileDescriptor> {
    let whole = |name: &str| {
        let service = pool.get_service_by_name(name).map(|s| s.parent_file());
        let message = || pool.get_message_by_name(name).map(|m| m.parent_file());
        let choice = || pool.get_enum_by_name(name).map(|e| e.parent_file());
        service.or_else(message).or_else(choice)
    };
    if let Some(file) = whole(name) {
        return Some(file);
    }
    let (parent, part) = name.rsplit_once('.')?;
    let method = pool.get_service_by_name(parent).filter(|s| s.methods().any(|m| m.name() == part)).map(|s| s.parent_file());
    let field = || pool.get_message_by_name(parent).filter(|m| m.get_field_by_name(part).is_some()).map(|m| m.parent_file());
    // A value's name stands beside its enumeration's, not in it.
    let value = || pool.all_enums().find(|e| is_value(e, parent, part)).map(|e| e.parent_file());
    method.or_else(field).or_else(value)
}

fn is_value(choice: &prost_reflect::EnumDescriptor, parent: &str, value: &str) -> bool {
    let outer = choice.full_name().rsplit_once('.').map_or("", |(outer, _)| outer);
    outer == parent && choice.get_value_by_name(value).is_some()
}

/// A file and everything that it needs.
fn files(file: &FileDescriptor) -> MessageResponse {
    let mut all = vec![file.clone()];
    let mut next = 0;
    while let Some(file) = all.get(next).cloned() {
        for needed in file.dependencies() {
            if !all.contains(&needed) {
                all.push(needed);
            }
        }
        next += 1;
    }
    let file_descriptor_proto = all.iter().map(|file| file.encode_to_vec().into()).collect();
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: MessageRequest) -> MessageResponse {
        answer(ServerReflectionRequest { host: "h".into(), message_request: Some(question) }).message_response.unwrap()
    }

    #[test]
    fn services_are_listed() {
        let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())) else { panic!() };
        let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
        names.sort();
        let wanted = [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "inference.GRPCInferenceService",
        ];
        assert_eq!(names, wanted);
    }

    #[test]
    fn files_come_with_what_they_need() {
        for symbol in [
            "inference.GRPCInferenceService",
            "inference.GRPCInferenceService.ModelInfer",
            "inference.ModelInferRequest.InferInputTensor",
            "inference.ModelInferRequest.id",
        ] {
            let MessageResponse::FileDescriptorResponse(found) = ask(MessageRequest::FileContainingSymbol(symbol.into())) else {
                panic!("{symbol}")
            };
            assert_eq!(found.file_descriptor_proto.len(), 2, "{symbol}");
        }
        for (question, count) in [
            (MessageRequest::FileContainingSymbol("inference.TYPE_FP32".into()), 1),
            (MessageRequest::FileContainingSymbol("grpc.health.v1.HealthCheckResponse.SERVING".into()), 1),
            (MessageRequest::FileByFilename("model_config.proto".into()), 1),
        ] {
            let MessageResponse::FileDescriptorResponse(found) = ask(question) else { panic!() };
            assert_eq!(found.file_descriptor_proto.len(), count);
        }
        for question in [
            MessageRequest::FileContainingSymbol("inference.Nothing".into()),
            MessageRequest::FileContainingSymbol("x".into()),
            MessageRequest::FileByFilename("/etc/passwd".into()),
            MessageRequest::AllExtensionNumbersOfType("inference.Nothing".into()),
        ] {
            assert!(matches!(ask(question), MessageResponse::ErrorResponse(e) if e.error_code == 5));
        }
    }
}
