//! What does a filter cost a request? Prints microseconds for each call, with a fresh instance each, one after another on one thread: an empty
//! module, and a module from a file with a JSON body of 1 kB. And the time to compile the file.
//!
//! `cargo run --release -p plinth-filters --example cost -- .plinth/filters/mask.wasm`
#![allow(clippy::print_stdout, clippy::expect_used, clippy::cast_precision_loss, reason = "a program that measures and prints")]

use std::time::Duration;

use bytes::Bytes;
use plinth_filters::abi::kind;
use plinth_filters::{Filter, Hook, Host, HostOptions, Limits, Message};
use plinth_runtime::World;
use plinth_types::ByteSize;

const EMPTY: &str = r#"(module (memory (export "memory") 1)
    (func (export "plinth_abi") (result i32) i32.const 1)
    (func (export "plinth_alloc") (param i32) (result i32) i32.const 1024)
    (func (export "plinth_on_request") (param i32 i32) (result i64) i64.const 0))"#;

/// A request with a body of 1 kB, in which one text has an address and one a number.
fn message() -> Message {
    let mut message = Message::new();
    message.add(kind::METHOD, b"", b"POST");
    message.add(kind::PATH, b"", b"/v1/chat/completions");
    for (name, value) in [("content-type", "application/json"), ("accept", "*/*"), ("user-agent", "curl/8"), ("x-request-id", "0123456789")]
    {
        message.add(kind::HEADER, name.as_bytes(), value.as_bytes());
    }
    let filler = "The quick brown fox jumps over the lazy dog. ".repeat(9);
    let body = format!(
        r#"{{"model":"chat","messages":[{{"role":"system","content":"{filler}"}},{{"role":"user","content":"I am ann@example.org, call +49 151 1234-5678. {filler}"}}],"max_tokens":256}}"#
    );
    println!("body: {} bytes", body.len());
    message.with_body(Bytes::from(body))
}

async fn measure(what: &str, filter: &Filter, message: &Message, world: &World) {
    const CALLS: u32 = 20_000;
    let mut times = Vec::with_capacity(CALLS as usize);
    for _ in 0..CALLS {
        let begun = world.clock.monotonic();
        let called = filter.call(Hook::Request, message).await;
        times.push(world.clock.monotonic().saturating_sub(begun));
        called.result.expect("it works");
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0;
    println!("{what}: median {:.1} µs, p99 {:.1} µs", at(0.5), at(0.99));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let world = World::real();
    let host = Host::start(HostOptions::default()).expect("this machine runs filters");
    let limits = Limits { time: Duration::from_millis(20), memory: ByteSize::mib(16), body: ByteSize::mib(1) };
    let message = message();
    let empty = host.compile(&wat::parse_str(EMPTY).expect("a module"), limits).expect("a filter");
    measure("empty", &empty, &message, &world).await;
    let Some(path) = std::env::args().nth(1) else { return };
    let module = std::fs::read(&path).expect("the module can be read");
    let begun = world.clock.monotonic();
    let filter = host.compile(&module, limits).expect("a filter");
    println!("compiling {} bytes: {:.1} ms", module.len(), world.clock.monotonic().saturating_sub(begun).as_secs_f64() * 1e3);
    measure(&path, &filter, &message, &world).await;
}
