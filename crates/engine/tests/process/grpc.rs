//! A server that speaks gRPC, made by others: the stubs of the public client package on the public gRPC library.

use std::time::Duration;

use plinth_engine::RunnerError;
use plinth_engine::testing::{floats, strings};
use plinth_types::Parameters;

use super::support::{SOON, Version, manifest, parameters};

#[tokio::test]
async fn the_grpc_form_of_the_protocol() {
    let text = manifest("oip-grpc", "", "").replace("server.py", "grpc_server.py");
    let version = Version::new(&[("process.toml", text.as_bytes()), ("grpc_server.py", include_bytes!("grpc.py"))]);
    let server = version.start().await;
    assert_eq!(server.metadata().engine, "stub");
    // Its library writes 127.0.0.1 as an address of the newer family.
    let walls = server.sandbox();
    assert!(walls.applied.iter().any(|wall| wall == "listens on loopback only"), "{walls:?}");
    let ask = |deed: &'static str, deadline| {
        let server = &server;
        async move { server.infer(vec![floats("x", &[1.0]), strings("s", &["é"])], vec![], &parameters(deed, ""), deadline).await }
    };
    assert_eq!(ask("nothing", SOON).await.unwrap(), [floats("y", &[2.0]), strings("t", &["é"])]);
    assert_eq!(ask("typed", SOON).await.unwrap(), [floats("y", &[2.0]), strings("t", &["typed"])]);
    let refused = ask("refuse", SOON).await;
    assert!(matches!(&refused, Err(RunnerError::Input(text)) if text == "100% wrong é"), "{refused:?}");
    assert!(matches!(ask("full", SOON).await, Err(RunnerError::QueueFull)));
    let late = ask("sleep", Duration::from_millis(300)).await;
    assert!(matches!(late, Err(RunnerError::Deadline("running"))), "{late:?}");
    let large = vec![0.25; 2_000_000];
    let answer =
        server.infer(vec![floats("x", &large), strings("s", &["a"])], vec!["y".to_owned()], &Parameters::new(), SOON).await.unwrap();
    assert_eq!(answer, [floats("y", &vec![1.25; 2_000_000])]);
    assert!(server.healthy());
    let text = text.replace("concurrency", "model = \"unknown\"\nstart_timeout = \"1s\"\nconcurrency");
    let unknown = Version::new(&[("process.toml", text.as_bytes()), ("grpc_server.py", include_bytes!("grpc.py"))]);
    assert!(matches!(super::support::start(unknown.spec()).await, Err(RunnerError::Deadline("loading"))));
}
