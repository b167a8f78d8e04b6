//! The Open Inference Protocol V2 over gRPC, in Triton's dialect, with health and reflection: messages to the same services
//! that the HTTP routes ask, and back.
//!
//! Source: the Open Inference Protocol V2 (gRPC), Triton's extensions of it, gRPC over HTTP2, the gRPC health and server
//! reflection protocols. The schemas are in `proto/`.
//!
//! Invariants: a method exists in the table below with its `Access`, or not at all; the bytes of a raw tensor are a slice of
//! its message on the way in and a piece of their own on the way out; what is allocated for a message is bounded by the
//! message's length; a call that its client gives up is dropped with everything that it has asked for. Framing is left to
//! `net`, errors become a status in [`status`].

mod answer;
mod call;
mod contents;
mod health;
mod infer;
mod models;
pub mod peek;
mod reflection;
mod repository;
mod request;
mod settings;
mod shared_memory;
mod statistics;
pub mod status;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use plinth_net::{Access, Route};

use self::call::{calls, unary};
use crate::{Context, Services};

/// The messages, made by the build script. Those with tensors are read and written by hand; their types serve the tests.
#[allow(missing_docs, dead_code, clippy::all, clippy::pedantic, reason = "generated from the schemas, which hold the comments")]
mod pb {
    pub mod inference {
        include!(concat!(env!("OUT_DIR"), "/inference.rs"));
    }
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}

/// The name under which the inference service is asked for its health.
const SERVICE: &str = "inference.GRPCInferenceService";

/// The routes of a gRPC listener. Probes need no key, what reads or infers needs one for inference, what changes the node
/// an admin's.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::{Infer, Operate, Public, Read};
    macro_rules! inference {
        ($($how:ident $method:literal $access:ident $name:literal => $handler:path;)*) => {
            vec![$($how(services, concat!("/inference.GRPCInferenceService/", $method), $access, $name, $handler)),*]
        };
    }
    let mut routes = inference! {
        unary "ServerLive" Public "grpc.live" => models::live;
        unary "ServerReady" Public "grpc.ready" => models::ready;
        unary "ModelReady" Read "grpc.model_ready" => models::model_ready;
        unary "ServerMetadata" Read "grpc.server" => models::server;
        unary "ModelMetadata" Read "grpc.metadata" => models::metadata;
        calls "ModelInfer" Infer "grpc.infer" => infer::infer;
        calls "ModelStreamInfer" Infer "grpc.stream" => stream::infer;
        unary "ModelConfig" Read "grpc.config" => models::config;
        unary "ModelStatistics" Read "grpc.statistics" => statistics::statistics;
        unary "RepositoryIndex" Read "grpc.repository.index" => repository::index;
        unary "RepositoryModelLoad" Operate "grpc.repository.load" => repository::load;
        unary "RepositoryModelUnload" Operate "grpc.repository.unload" => repository::unload;
        unary "SystemSharedMemoryStatus" Infer "grpc.shared_memory.status" => shared_memory::system_status;
        unary "SystemSharedMemoryRegister" Infer "grpc.shared_memory.register" => shared_memory::system_register;
        unary "SystemSharedMemoryUnregister" Infer "grpc.shared_memory.unregister" => shared_memory::system_unregister;
        unary "CudaSharedMemoryStatus" Infer "grpc.shared_memory.status" => shared_memory::cuda_status;
        unary "CudaSharedMemoryRegister" Infer "grpc.shared_memory.register" => shared_memory::cuda_register;
        unary "CudaSharedMemoryUnregister" Infer "grpc.shared_memory.unregister" => shared_memory::cuda_unregister;
        unary "TraceSetting" Read "grpc.trace" => settings::trace;
        unary "LogSettings" Read "grpc.logging" => settings::logging;
    };
    routes.push(unary(services, "/grpc.health.v1.Health/Check", Public, "grpc.health", health::check));
    routes.push(calls(services, "/grpc.health.v1.Health/Watch", Public, "grpc.health", health::watch));
    if services.settings.grpc.reflection {
        let (v1, v1alpha) =
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
        routes.push(calls(services, v1, Public, "grpc.reflection", reflection::info));
        routes.push(calls(services, v1alpha, Public, "grpc.reflection", reflection::info));
    }
    routes
}
