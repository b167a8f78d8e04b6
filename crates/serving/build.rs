//! Compiles the model configuration's schema: the descriptor set for reading and showing it by name, and the types.
//! Pure Rust; no protoc is needed.

use std::path::Path;

use prost::Message as _;

const PROTO: &str = "proto/model_config.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    #[allow(clippy::disallowed_methods, reason = "cargo tells a build script where to write through the environment")]
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("model_config.bin"), descriptors.encode_to_vec())?;
    // Maps in key order, so that what is made from one configuration is the same each time.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
