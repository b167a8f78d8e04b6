//! What goes in and what comes out, protocol by protocol.

use std::time::Duration;

use plinth_engine::testing::{floats, strings};
use plinth_engine::{ProcessServer, RunnerError, TextStream};
use plinth_types::{Parameter, Parameters};

use super::support::{SOON, Version, ask, eventually, says};

#[tokio::test]
async fn json_and_binary_give_the_same_answers() {
    for mode in ["plain", "binary"] {
        let version = Version::python(mode, "");
        let server = version.start().await;
        assert_eq!(server.metadata().inputs[0].name(), "x");
        assert_eq!((server.metadata().engine.as_str(), server.concurrency()), ("stub 1", 4));
        let x = floats("x", &[1.0, -2.5]);
        let all = server.infer(vec![x.clone()], vec![], &Parameters::new(), SOON).await.unwrap();
        assert_eq!(all, [floats("y", &[2.0, -1.5]), strings("says", &["done"])], "{mode}");
        let one = server.infer(vec![x], vec!["says".to_owned()], &Parameters::new(), SOON).await.unwrap();
        assert_eq!(one, [strings("says", &["done"])], "{mode}");
        let large = floats("x", &vec![0.5; 300_000]);
        let answer = server.infer(vec![large], vec!["y".to_owned()], &Parameters::new(), SOON).await.unwrap();
        assert_eq!(answer, [floats("y", &vec![1.5; 300_000])], "{mode}");
    }
}

#[tokio::test]
async fn parameters_go_along() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    let mut parameters = super::support::parameters("parameters", "é");
    parameters.insert("top".to_owned(), Parameter::Uint(3));
    parameters.insert("warm".to_owned(), Parameter::Bool(true));
    let answer = server.infer(vec![floats("x", &[1.0])], vec!["says".to_owned()], &parameters, SOON).await.unwrap();
    let text = String::from_utf8(answer[0].byte_elements().next().unwrap().to_vec()).unwrap();
    assert_eq!(text, "{\"deed\": \"parameters\", \"top\": 3, \"value\": \"\\u00e9\", \"warm\": true}");
}

#[tokio::test]
async fn inputs_are_checked_before_they_cost_anything() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    for (inputs, outputs) in [
        (vec![], vec![]),
        (vec![floats("z", &[1.0])], vec![]),
        (vec![strings("x", &["a"])], vec![]),
        (vec![floats("x", &[1.0])], vec!["z".to_owned()]),
        (vec![floats("x", &[f32::NAN])], vec![]),
    ] {
        assert!(matches!(server.infer(inputs, outputs, &Parameters::new(), SOON).await, Err(RunnerError::Input(_))));
    }
    let state = says(&server, "state", "").await;
    assert!(state.contains("\"requests\": 1,"), "{state}");
}

#[tokio::test]
async fn statuses_have_meanings_and_texts_hide_the_node() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    let outcome = ask(&server, "status", "400 bad file CWD/x").await;
    assert!(matches!(&outcome, Err(RunnerError::Input(text)) if text == "bad file {model_dir}/x"), "{outcome:?}");
    assert!(matches!(ask(&server, "status", "500 broken").await, Err(RunnerError::Execution(text)) if text == "broken"));
    assert!(matches!(ask(&server, "status", "503 full").await, Err(RunnerError::QueueFull)));
    assert!(matches!(ask(&server, "status", "418 tea").await, Err(RunnerError::BrokeProtocol(_))));
    assert!(server.healthy());
}

#[tokio::test]
async fn connections_are_kept() {
    let version = Version::python("plain", "health = { interval = \"10s\" }");
    let server = version.start().await;
    for _ in 0..20 {
        ask(&server, "nothing", "").await.unwrap();
    }
    let state: serde_json::Value = serde_json::from_str(&says(&server, "state", "").await).unwrap();
    assert!(state["connections"].as_u64().unwrap() <= 3, "{state}");
}

#[tokio::test]
async fn the_server_gets_so_many_at_a_time_and_so_many_wait() {
    let version = Version::python("plain", "");
    let mut spec = version.spec();
    spec.max_queue_requests = 5;
    let server = super::support::start(spec).await.unwrap();
    let sleep = || ask(&server, "sleep", "0.3");
    let short = super::support::ask_within(&server, "nothing", "", Duration::from_millis(100));
    let (a, b, c, d, queued, ()) = tokio::join!(sleep(), sleep(), sleep(), sleep(), short, async {
        eventually("five are in flight", || server.in_flight() == 5).await;
        assert!(matches!(ask(&server, "nothing", "").await, Err(RunnerError::QueueFull)));
    });
    assert!([a, b, c, d].iter().all(Result::is_ok));
    assert!(matches!(queued, Err(RunnerError::Deadline("queued"))), "{queued:?}");
    assert!(ask(&server, "nothing", "").await.is_ok(), "room again");
}

#[tokio::test]
async fn a_dropped_call_is_seen_by_the_server() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    let dropped = tokio::time::timeout(Duration::from_millis(200), ask(&server, "trickle", "")).await;
    assert!(dropped.is_err());
    assert_eq!(server.in_flight(), 0);
    let noticed = async {
        while !says(&server, "state", "").await.contains("\"cancelled\": 1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, noticed).await.expect("the server sees its connection closed");
}

#[tokio::test]
async fn a_token_keeps_other_processes_of_the_machine_out() {
    let version = Version::python("token", "environment = { TOKEN = \"{token}\" }");
    let server = version.start().await;
    assert!(ask(&server, "nothing", "").await.is_ok());
    let port = super::start::port_of(&server).await;
    let stranger = std::process::Command::new(super::support::python())
        .args([
            "-c",
            "import sys, urllib.request as r\nr.urlopen('http://127.0.0.1:' + sys.argv[1] + '/v2/models/m/infer', b'{}')",
            &port.to_string(),
        ])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("401"));
}

async fn complete(server: &ProcessServer, prompt: &str, parameters: &Parameters) -> Result<String, RunnerError> {
    let answer = server.infer(vec![strings("text_input", &[prompt])], vec![], parameters, SOON).await?;
    assert_eq!(answer[0].name(), "text_output");
    Ok(String::from_utf8(answer[0].byte_elements().next().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn texts_whole_and_in_pieces() {
    let tokens = Parameters::from([("max_tokens".to_owned(), Parameter::Uint(7))]);
    for endpoint in ["completions", "chat"] {
        let version = Version::openai("plain", &format!("model = \"owner/name\"\n[openai]\nendpoint = \"{endpoint}\""));
        let server = version.start().await;
        assert_eq!(complete(&server, "héllo", &tokens).await.unwrap(), "owner/name:héllo:7");
        let outcome = complete(&server, "fail", &tokens).await;
        assert!(matches!(&outcome, Err(RunnerError::Input(text)) if text == "no such thing"), "{outcome:?}");
        let reserved = Parameters::from([("stream".to_owned(), Parameter::Bool(true))]);
        assert!(matches!(complete(&server, "a", &reserved).await, Err(RunnerError::Input(_))));
        let mut stream = server.infer_stream(vec![strings("text_input", &["hi"])], &tokens, SOON).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            text.push_str(&piece.unwrap());
        }
        assert_eq!(text, "owner/name:hi:7");
        assert_eq!(server.in_flight(), 0, "an ended stream holds no place");
    }
}

async fn open(server: &ProcessServer, prompt: &str, within: Duration) -> TextStream {
    server.infer_stream(vec![strings("text_input", &[prompt])], &Parameters::new(), within).await.unwrap()
}

async fn last(stream: &mut TextStream) -> RunnerError {
    loop {
        if let Err(error) = stream.next().await.unwrap() {
            return error;
        }
    }
}

#[tokio::test]
async fn streams_that_end_badly() {
    let version = Version::openai("plain", "");
    let server = version.start().await;
    let mut cut = open(&server, "cut", SOON).await;
    assert!(matches!(last(&mut cut).await, RunnerError::Execution(_)));
    assert!(cut.next().await.is_none());
    let mut long = open(&server, "forever", Duration::from_millis(300)).await;
    assert!(matches!(last(&mut long).await, RunnerError::Deadline("running")));
    let mut dropped = open(&server, "forever", SOON).await;
    dropped.next().await.unwrap().unwrap();
    assert_eq!(server.in_flight(), 1);
    drop(dropped);
    assert_eq!(server.in_flight(), 0);
    let mut crashed = open(&server, "crash", SOON).await;
    assert!(matches!(last(&mut crashed).await, RunnerError::Crashed));
}

#[tokio::test]
async fn only_openai_servers_stream() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    let outcome = server.infer_stream(vec![floats("x", &[1.0])], &Parameters::new(), SOON).await;
    assert!(matches!(outcome, Err(RunnerError::Input(_))));
}
