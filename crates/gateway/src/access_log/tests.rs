//! Which requests have a line, what is counted instead, and what a line says.

use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use plinth_api::Context;
use plinth_net::{Access, Body, HostRules, Params, Peer, Request, RequestBody, Response, Route, Service};
use plinth_telemetry::{BuildInfo, Catalogue};
use plinth_types::{Error, Reason, Result};
use serde_json::Value;

use super::*;
use crate::{Authentication, Gateway};

async fn answer(request: Request, _: Params, _: Context) -> Result<Response> {
    match request.headers().get("x-do").and_then(|word| word.to_str().ok()) {
        Some("fail") => Err(Error::new(Reason::Internal, "broken")),
        Some("stream") => Ok(Response::new(Body::stream(futures_util::stream::iter([Ok("ab".into()), Ok("cd".into())])))),
        Some("refuse") => {
            let mut answer = Response::new(Body::full("no"));
            *answer.status_mut() = StatusCode::IM_A_TEAPOT;
            Ok(answer)
        }
        Some("hang") => std::future::pending().await,
        _ => Ok(Response::new(Body::full("here"))),
    }
}

struct Rig {
    gateway: Gateway,
    lost: Counter,
    tasks: TaskGroup,
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn rig(options: AccessLogOptions) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.jsonl");
    let catalogue = Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "unknown" }));
    let (world, tasks, lost) = (World::real(), TaskGroup::new("test"), catalogue.access_log_dropped.clone());
    let options = AccessLogOptions { file: Some(path.clone()), ..options };
    let log = AccessLog::start(options, lost.clone(), &world, &tasks);
    let routes = vec![Route::new(Method::POST, "/v1/things/{thing}", Access::Infer, "things", answer)];
    let gateway = Gateway::new(routes, Authentication::open(), HostRules::new([""; 0]), catalogue, world).unwrap().logging(&log);
    Rig { gateway, lost, tasks, _directory: directory, path }
}

fn request(word: &str) -> Request {
    let request = http::Request::builder().method(Method::POST).uri("/v1/things/7?token=SECRET-query");
    let request = request.header("host", "localhost").header("x-do", word).header("authorization", "Bearer SECRET-key");
    request
        .header("cookie", "SECRET-cookie")
        .header("content-length", "11")
        .body(RequestBody::from(bytes::Bytes::from("SECRET-body")))
        .unwrap()
}

async fn ask(rig: &Rig, word: &str) {
    let answer = rig.gateway.call(request(word), Peer::new(([192, 0, 2, 1], 1).into(), "test")).await;
    let _ = answer.into_body().into_bytes().await;
}

/// The lines, once the log has ended.
async fn lines(rig: Rig) -> Vec<Value> {
    rig.tasks.close(std::time::Duration::from_secs(5)).await;
    read(&rig.path)
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(!text.contains("SECRET"), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn what_failed_has_a_line_and_of_the_others_a_share() {
    let rig = rig(AccessLogOptions { share: 0, ..AccessLogOptions::default() });
    for word in ["good", "fail", "stream", "refuse"] {
        ask(&rig, word).await;
    }
    let hanging = rig.gateway.call(request("hang"), Peer::new(([192, 0, 2, 1], 1).into(), "test"));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), hanging).await.is_err());
    let lines = lines(rig).await;
    let ended: Vec<_> =
        lines.iter().map(|line| (line["http.response.status_code"].as_u64().unwrap(), line["error.type"].as_str())).collect();
    assert_eq!(ended, [(500, Some("internal")), (418, None), (499, Some("client_went_away"))]);
    let line = &lines[0];
    for (field, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/things/{thing}"),
        ("plinth.route", "things"),
        ("url.path", "/v1/things/7"),
        ("client.address", "192.0.2.1"),
        ("plinth.tenant", "default"),
        ("user.id", "anybody"),
        ("plinth.listener", "test"),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!((line["http.request.body.size"].as_u64(), line["trace_id"].as_str().unwrap().len()), (Some(11), 32));
    assert!(line["plinth.share"].is_null() && line["plinth.dropped"].is_null() && line["plinth.duration_ms"].is_f64());
}

#[tokio::test]
async fn bytes_are_those_that_left() {
    let rig = rig(AccessLogOptions { share: u32::MAX, paths: false, ..AccessLogOptions::default() });
    for word in ["good", "stream"] {
        ask(&rig, word).await;
    }
    let lines = lines(rig).await;
    let sizes: Vec<_> = lines.iter().map(|line| line["http.response.body.size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [4, 4]);
    assert!(lines[0].get("url.path").is_none() && lines[0].get("plinth.share").is_none());
}

#[tokio::test]
async fn a_flood_is_counted_and_not_written() {
    let rig = rig(AccessLogOptions { share: 0, lines: 3, ..AccessLogOptions::default() });
    for _ in 0..50 {
        ask(&rig, "fail").await;
    }
    assert!((40..=47).contains(&rig.lost.value()), "{}", rig.lost.value());
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    ask(&rig, "fail").await;
    let lines = lines(rig).await;
    assert!((4..=12).contains(&lines.len()), "{}", lines.len());
    let said: u64 = lines.iter().filter_map(|line| line["plinth.dropped"].as_u64()).sum();
    assert_eq!(said as usize + lines.len(), 51, "who adds up lines and drops has all");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_harms_nobody() {
    let rig = rig(AccessLogOptions { share: u32::MAX, ..AccessLogOptions::default() });
    std::fs::create_dir(&rig.path).unwrap();
    ask(&rig, "good").await;
    let lost = rig.lost.clone();
    rig.tasks.close(std::time::Duration::from_secs(5)).await;
    assert_eq!(lost.value(), 1);
}
