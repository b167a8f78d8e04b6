//! Bad input: each has a clear error in the protocol's own shape, costs bounded memory, loses nothing.

use std::io::{Read, Write};

use plinth_types::{DataType, Dim};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::models::{self, floats, infer};
use crate::support::{Node, NodeOptions};

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn node_with_identity() -> Node {
    let node = Node::start(NodeOptions::dev()).await;
    let x = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(2)]);
    models::deploy(&node, "x", x.path()).await;
    node
}

struct Case {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    says: &'static str,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, status: u16, says: &'static str) -> Case {
    Case { name, path: "/v2/models/x/infer", headers: Vec::new(), body: body.into(), status, says }
}

fn input(extra: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x",{extra}}}]}}"#)
}

fn cases() -> Vec<Case> {
    let nested =
        format!(r#"{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":{}1{}}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let binary = |header: &str, length: &str, tail: &[u8]| {
        let mut body = header.as_bytes().to_vec();
        body.extend_from_slice(tail);
        Case { headers: vec![("inference-header-content-length", length.into())], ..case("", body, 400, "") }
    };
    let header = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#;
    let length = header.len().to_string();
    let bomb = gzip(&vec![b' '; 80 << 20]);
    vec![
        case("empty body", "", 400, ""),
        case("malformed JSON", r#"{"inputs":["#, 400, ""),
        case("not an object", "[1,2,3]", 400, ""),
        case("no inputs", "{}", 400, "inputs"),
        case("wrong data type", input(r#""shape":[1,2],"datatype":"INT32","data":[1,2]"#), 400, "FP32"),
        case("unknown data type", input(r#""shape":[1,2],"datatype":"FLOAT","data":[1,2]"#), 400, "datatype"),
        case("shape does not multiply out", input(r#""shape":[1,2],"datatype":"FP32","data":[1,2,3]"#), 400, "inputs[0]"),
        case("shape does not fit the model", input(r#""shape":[1,3],"datatype":"FP32","data":[1,2,3]"#), 400, "[-1,2]"),
        case("negative dimension", input(r#""shape":[-1,2],"datatype":"FP32","data":[1,2]"#), 400, "shape"),
        case("overflowing shape", input(r#""shape":[9223372036854775807,9223372036854775807],"datatype":"FP32","data":[1]"#), 400, "shape"),
        case("a billion elements in a hundred bytes", input(r#""shape":[1000000000],"datatype":"FP32","data":[1]"#), 400, "inputs[0]"),
        case(
            "a million dimensions",
            input(&format!(r#""shape":[{}1],"datatype":"FP32","data":[1]"#, "1,".repeat(1_000_000))),
            400,
            "shape",
        ),
        case("NaN", input(r#""shape":[1,2],"datatype":"FP32","data":[1,NaN]"#), 400, ""),
        case("a number too large for its type", input(r#""shape":[1,2],"datatype":"UINT8","data":[1,256]"#), 400, "data"),
        case("a string for a number", input(r#""shape":[1,2],"datatype":"FP32","data":[1,"2"]"#), 400, "data"),
        case("half floats in JSON", input(r#""shape":[1,2],"datatype":"FP16","data":[1,2]"#), 400, "binary"),
        case("deep nesting", nested, 400, ""),
        case("missing tensor", r#"{"inputs":[]}"#, 400, "expected 1 inputs but got 0 inputs for model 'x'"),
        case("unknown tensor", r#"{"inputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#, 400, "'y'"),
        case(
            "a tensor twice",
            r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#,
            400,
            "x",
        ),
        case(
            "unknown output",
            r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"outputs":[{"name":"z"}]}"#,
            400,
            "'z'",
        ),
        case(
            "an output twice",
            r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"outputs":[{"name":"y"},{"name":"y"}]}"#,
            400,
            "y",
        ),
        Case { name: "header length past the end", ..binary(header, "100000", &[0; 8]) },
        Case { name: "header length is no number", ..binary(header, "many", &[0; 8]) },
        Case { name: "header length too short", ..binary(header, "10", &[0; 8]) },
        Case { name: "negative header length", ..binary(header, "-1", &[0; 8]) },
        Case { name: "too few bytes", ..binary(header, &length, &[0; 7]) },
        Case { name: "too many bytes", ..binary(header, &length, &[0; 9]) },
        Case { name: "a size that lies", ..binary(&header.replace(":8}", ":4}"), &length, &[0; 4]) },
        Case { headers: vec![("content-encoding", "gzip".into())], ..case("gzip bomb", bomb, 413, "MiB") },
        Case { headers: vec![("content-encoding", "gzip".into())], ..case("not gzip at all", "{}", 400, "") },
        Case { headers: vec![("content-encoding", "br".into())], ..case("unknown encoding", "{}", 501, "gzip") },
        Case { path: "/v2/models/nobody/infer", ..case("unknown model", "{}", 404, "Request for unknown model: 'nobody' is not found") },
        Case {
            path: "/v2/models/x/versions/9/infer",
            ..case("unknown version", floats(&[1.0, 2.0]).to_string(), 404, "version 9 is not found")
        },
        Case { path: "/v2/models/x/versions/0/infer", ..case("version zero", "{}", 400, "version") },
        Case { path: "/v2/models/x/versions/-1/infer", ..case("negative version", "{}", 400, "version") },
        Case { path: "/v2/models/..%2f..%2fetc%2fpasswd/infer", ..case("path tricks", "{}", 400, "name") },
        Case { path: "/v2/models/x%00y/infer", ..case("a NUL", "{}", 400, "name") },
        Case { path: "/v2/models/%252e%252e/infer", ..case("encoded twice", "{}", 400, "name") },
        Case { path: "/v2/nothing", ..case("unknown path", "{}", 404, "") },
        Case { path: "/v2", ..case("wrong verb", "{}", 405, "") },
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_bad_inference_has_a_clear_answer_and_costs_little() {
    let node = node_with_identity().await;
    let before = resident(node.pid());
    for case in cases() {
        let mut request = node.request(Method::POST, case.path).body(case.body);
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let error = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
        let error = error.unwrap_or_else(|| panic!("{}: {status} without an error: {text}", case.name));
        assert_eq!(status, case.status, "{}: {error}", case.name);
        assert!(error.contains(case.says), "{}: {error:?} does not say {:?}", case.name, case.says);
        assert!(!error.is_empty() && error.len() < 1000, "{}: {error}", case.name);
        assert!(!error.contains("/tmp"), "{}: {error}", case.name);
    }
    let (status, answer) = infer(&node, "x", &floats(&[1.0, 2.0])).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([1.0, 2.0])));
    let grown = resident(node.pid()).saturating_sub(before);
    assert!(grown < 160 << 20, "the node grew by {} MiB", grown >> 20);
}

#[tokio::test]
async fn a_retired_or_unloaded_version_is_named_as_such() {
    let node = node_with_identity().await;
    models::push(&node, "x", &models::digits(1), &[]).await;
    node.client().retire_version(&models::name("x"), models::number(2)).await.unwrap();
    let answer = node.post("/v2/models/x/versions/2/infer").json(&floats(&[1.0, 2.0])).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("version 2 of model 'x' is retired"));

    let unload = node.post("/v2/repository/models/x/unload").send().await.unwrap();
    assert_eq!(unload.status(), 200);
    let (status, answer) = infer(&node, "x", &floats(&[1.0, 2.0])).await;
    assert!(status == 404 || status == 503, "{status}");
    assert!(answer["error"].as_str().unwrap().starts_with("Request for unknown model: 'x'"), "{answer}");

    let load = node.post("/v2/repository/models/nobody/load").send().await.unwrap();
    assert_eq!(load.status(), 404);
    let text = load.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("failed to load 'nobody'"), "{text}");
}

#[tokio::test]
async fn hostile_models_are_refused_and_the_old_version_serves() {
    let mut node = node_with_identity().await;
    let good = std::fs::read(models::digits(2).join("model.onnx")).unwrap();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("truncated", good[..good.len() / 2].to_vec()),
        ("random", (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("empty", Vec::new()),
        ("text", b"<html>not a model</html>".to_vec()),
    ];
    for (i, (name, bytes)) in hostile.into_iter().enumerate() {
        let directory = models::directory(&[("model.onnx", &bytes)]);
        let version = models::push(&node, "x", directory.path(), &["champion"]).await.number.get();
        let failed = models::state_is(&node, "x", version, "failed").await;
        let reason = failed.reason.unwrap();
        assert!(reason.contains("failed to load 'x'"), "{name}: {reason}");
        assert!(!reason.contains("/tmp") && !reason.contains("cache/"), "{name}: {reason}");
        assert_eq!(version, i as u64 + 2);
        let (status, answer) = infer(&node, "x", &floats(&[1.0, 2.0])).await;
        assert_eq!((status, &answer["model_version"]), (200, &json!("1")), "{name}");
    }
    // Four bad promotions later neither alias names the good version; it is protected all the same, also by a restart.
    for outcome in [
        node.client().delete_version(&models::name("x"), models::number(1)).await.map(drop),
        node.client().retire_version(&models::name("x"), models::number(1)).await.map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().reason(), Some("version_in_use"));
    }
    node.stop().await;
    node.restart().await;
    models::default_is(&node, "x", 1).await;
    assert_eq!(infer(&node, "x", &floats(&[1.0, 2.0])).await.0, 200);
}

#[tokio::test]
async fn bad_pushes_are_refused_with_a_reason() {
    let node = node_with_identity().await;
    let digest = plinth_types::Digest::of(b"abc");
    let put = node.request(Method::PUT, &format!("/v1/blobs/{digest}")).body("abc").send().await.unwrap();
    assert_eq!(put.status(), 201);
    let file = |path: &str, size: u64| json!({"path": path, "size": size, "digest": digest.to_string()});
    let cases: Vec<(&str, Value, u16, &str)> = vec![
        ("no files", json!({"files": []}), 422, "invalid_resource"),
        ("escaping path", json!({"files": [file("../x", 3)]}), 400, "malformed_request"),
        ("absolute path", json!({"files": [file("/etc/passwd", 3)]}), 400, "malformed_request"),
        ("the same path twice", json!({"files": [file("a", 3), file("a", 3)]}), 422, "invalid_resource"),
        ("two paths that differ by case", json!({"files": [file("a", 3), file("A", 3)]}), 422, "invalid_resource"),
        ("a file that is a directory", json!({"files": [file("a", 3), file("a/b", 3)]}), 422, "invalid_resource"),
        ("a lie about the size", json!({"files": [file("a", 4)]}), 422, ""),
        (
            "a blob that is not there",
            json!({"files": [{"path": "a", "size": 1, "digest": plinth_types::Digest::of(b"z").to_string()}]}),
            404,
            "blob_not_found",
        ),
        ("not a digest", json!({"files": [{"path": "a", "size": 3, "digest": "sha256:../../x"}]}), 400, "malformed_request"),
        ("an unknown field", json!({"files": [file("a", 3)], "fils": 1}), 400, "malformed_request"),
        ("a signature that is none", json!({"files": [file("a", 3)], "signature": "{}"}), 422, "signature_invalid"),
        ("the wrong number", json!({"files": [file("a", 3)], "expect_number": 7}), 409, "edit_conflict"),
    ];
    for (name, body, status, reason) in cases {
        let answer = node.post("/v1/models/m/versions").json(&body).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
        let found = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(found, status, "{name}: {problem}");
        assert!(reason.is_empty() || problem["reason"] == reason, "{name}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()), "{name}: {problem}");
    }
    for path in ["/v1/blobs/sha256:abc", "/v1/blobs/..%2f..%2fx"] {
        let answer = node.request(Method::PUT, path).body("abc").send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path}");
    }
    assert_eq!(node.get("/v1/models/m").send().await.unwrap().status(), 404, "nothing of all that made a model");
}

#[tokio::test]
async fn paths_that_a_polite_client_would_not_send_are_refused() {
    let node = node_with_identity().await;
    let address = node.http.trim_start_matches("http://").to_owned();
    let cases = [
        ("/v2/models/%2e%2e/infer", "400"),
        ("/v2/models/../../etc/passwd", "404"),
        ("/v2/models/..%5c..%5cx/infer", "400"),
        ("/v2/models/%ff%fe/infer", "400"),
        ("/v2/models/%zz/infer", "400"),
        ("/v1/models/x/versions/1/files/..%2f..%2f..%2fetc%2fpasswd", "400"),
        ("/v1/models/x/versions/1/files/../../../etc/passwd", "400"),
        ("/v1/blobs/../../etc/passwd", "404"),
    ];
    for (path, status) in cases {
        let method = if path.starts_with("/v2") { "POST" } else { "GET" };
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(!answer.contains("root:"), "{path}");
    }
}

#[tokio::test]
async fn slow_and_broken_clients_hold_nothing() {
    let node = Node::start(NodeOptions::dev().set("http.header_timeout", "\"300ms\"").set("http.max_connections", "32")).await;
    let address = node.http.trim_start_matches("http://").to_owned();
    let mut slow: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x").unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
    }
    assert_eq!(node.get("/v2/health/live").send().await.unwrap().status(), 200, "others are served meanwhile");
    for stream in &mut slow {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the node closes the connection by itself");
    }
    let mut huge = std::net::TcpStream::connect(&address).unwrap();
    let head = format!("GET /v2/health/live HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    let _ = huge.write_all(head.as_bytes());
    let mut answer = vec![0; 12];
    let _ = huge.read(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 431") || answer[0] == 0, "{}", String::from_utf8_lossy(&answer));
}
