//! Compiles the schemas of the gRPC services: descriptors for reflection, and the types of the messages.
//! Pure Rust; no protoc is needed.

use std::path::Path;

use prost::Message as _;

const PROTOS: [&str; 4] = [
    "grpc_service.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
];

/// The schema of model configurations lies where it is used most.
const INCLUDES: [&str; 2] = ["proto", "../serving/proto"];

/// `FieldDescriptorProto.Type.TYPE_BYTES`.
const TYPE_BYTES: i32 = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for include in INCLUDES {
        println!("cargo::rerun-if-changed={include}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let mut descriptors = protox::compile(PROTOS, INCLUDES)?;
    #[allow(clippy::disallowed_methods, reason = "cargo tells a build script where to write through the environment")]
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("services.bin"), descriptors.encode_to_vec())?;
    // A configuration arrives here encoded; its types are those of `serving`. v1alpha has the messages of v1.
    descriptors.file.retain(|file| file.name() != "model_config.proto" && file.package() != "grpc.reflection.v1alpha");
    for file in &mut descriptors.file {
        file.dependency.retain(|name| name != "model_config.proto");
        file.service.clear();
        for field in file.message_type.iter_mut().flat_map(|message| &mut message.field) {
            if field.type_name() == ".inference.ModelConfig" {
                field.r#type = Some(TYPE_BYTES);
                field.type_name = None;
            }
        }
    }
    // Maps in key order, so that the same answer is the same bytes; bytes as slices of the message that they came in.
    prost_build::Config::new().btree_map(["."]).bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
