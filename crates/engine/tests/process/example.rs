//! The example of the documentation, started as it lies there.

use plinth_engine::RunnerError;
use plinth_engine::testing::{strings, tensor};
use plinth_types::{DataType, Parameter, Parameters};

use super::support::{SOON, Version, python, start};

#[tokio::test]
async fn the_words_server_counts_words() {
    let read = |name: &str| std::fs::read(format!("{}/../../examples/process/words/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let version = Version::new(&[("process.toml", &read("process.toml")), ("server.py", &read("server.py"))]);
    let mut spec = version.spec();
    spec.program_allow = vec![python().with_file_name("python3")];
    let server = start(spec).await.unwrap();
    let texts = || vec![strings("text", &["the quick brown fox", "a b"])];
    let answer = server.infer(texts(), vec![], &Parameters::new(), SOON).await.unwrap();
    let counts: Vec<u8> = [4i64, 2].iter().flat_map(|count| count.to_le_bytes()).collect();
    assert_eq!(answer, [tensor("words", DataType::Int64, &[2], counts), strings("longest", &["quick", "a"])]);
    let empty = Parameters::from([("separator".to_owned(), Parameter::Text(String::new()))]);
    let refused = server.infer(texts(), vec![], &empty, SOON).await;
    assert!(matches!(&refused, Err(RunnerError::Input(text)) if text.contains("separator")), "{refused:?}");
}
