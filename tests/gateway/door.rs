//! The door itself on a whole node: traces, the access log, compression, and gRPC calls that go by their model.

use std::io::Read;

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn route(name: &str, more: Value) -> Value {
    let mut spec = json!({"matches": {"path": {"prefix": format!("/{name}")}}, "targets": [{"to": {"upstream": "echo"}}]});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"kind": "route", "name": name, "spec": spec})
}

/// A header of what an echoing upstream was asked.
fn asked(said: &Value, name: &str) -> Option<String> {
    let head = said["head"].as_str().expect("a head");
    head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()))
}

#[tokio::test]
async fn a_trace_goes_on_to_upstreams() {
    let node = Node::start(NodeOptions::default().set("trace.sample", r#""0%""#)).await;
    let echo = Upstream::start("echo").await;
    let quiet = json!({"request_headers": {"remove": ["traceparent", "tracestate"]}});
    let resources = json!([upstream("echo", &[&echo.url]), route("r", json!({})), route("quiet", quiet)]);
    assert_eq!(apply(&node, resources).await.0, 200);

    let traced = |request: reqwest::RequestBuilder| request.header("traceparent", PARENT).header("tracestate", "vendor=1");
    let (_, headers, said) = ask(traced(node.get("/r").header("x-request-id", "my-own"))).await;
    let parent = asked(&said, "traceparent").expect("a traceparent");
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01") && parent != PARENT, "{parent}");
    assert_eq!(asked(&said, "tracestate").as_deref(), Some("vendor=1"));
    assert_eq!((asked(&said, "x-request-id").as_deref(), &headers["x-request-id"]), (Some("my-own"), &"my-own".parse().unwrap()));

    // What is malformed begins anew, and nobody records what nobody asked for.
    let (_, _, said) = ask(node.get("/r").header("traceparent", "00-zz").header("tracestate", "vendor=1")).await;
    let parent = asked(&said, "traceparent").expect("a traceparent");
    assert!(parent.len() == 55 && !parent.contains(TRACE) && !parent.ends_with('1'), "{parent}");
    assert_eq!(asked(&said, "tracestate"), None);
    let (_, _, said) = ask(traced(node.get("/quiet"))).await;
    assert_eq!((asked(&said, "traceparent"), asked(&said, "tracestate")), (None, None), "a route may keep it to itself");
}

#[tokio::test]
async fn the_access_log_tells_everything_but_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("access.jsonl");
    let options = NodeOptions::default().set("access_log.file", &format!("{file:?}")).set("access_log.successes", r#""100%""#);
    let node = Node::start(options).await;
    let echo = Upstream::start("echo").await;
    assert_eq!(apply(&node, json!([upstream("echo", &[&echo.url]), route("r", json!({}))])).await.0, 200);

    let hidden = |mut request: reqwest::RequestBuilder| {
        for name in [
            "cookie",
            "x-api-key",
            "user-agent",
            "referer",
            "accept",
            "x-forwarded-for",
            "forwarded",
            "proxy-authorization",
            "x-plinth-secret",
            "baggage",
            "if-none-match",
            "content-type",
            "via",
            "from",
        ] {
            request = request.header(name, format!("SECRET-{name}"));
        }
        request.query(&[("key", "SECRET-query")]).body("SECRET-body")
    };
    let plain = reqwest::Client::new();
    let to = |path: &str| plain.post(format!("{}{path}", node.http));
    // The last is answered by the upstream, so it comes from no page.
    let mut statuses = Vec::new();
    for request in [
        hidden(to("/r").bearer_auth("plinth_SECRET_key")),
        hidden(to("/r").header("authorization", "Basic SECRET-basic")),
        hidden(node.post("/nowhere")),
        hidden(node.post("/nowhere").header("origin", "https://SECRET-origin")),
        node.post("/r")
            .header("cookie", "SECRET-cookie")
            .header("traceparent", PARENT)
            .query(&[("key", "SECRET-query")])
            .body("SECRET-body"),
    ] {
        statuses.push(request.send().await.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
    assert!(statuses[..4].iter().all(|status| (400..500).contains(status)), "{statuses:?}");

    let lines = eventually("the last request has its line", Duration::from_secs(5), async || {
        let text = std::fs::read_to_string(&file).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let done = lines.iter().any(|line| line["trace_id"] == TRACE);
        done.then_some(lines)
    })
    .await;
    let text = std::fs::read_to_string(&file).expect("the log");
    assert!(!text.contains("SECRET"), "{text}");
    assert!(!text.contains(&node.key().expect("a key")[24..]), "no key either");
    assert!(!node.log().contains("SECRET"), "nor in the node's own log");
    let line = lines.iter().find(|line| line["trace_id"] == TRACE).expect("the line");
    for (field, value) in [
        ("http.request.method", json!("POST")),
        ("http.response.status_code", json!(200)),
        ("plinth.route", json!("r")),
        ("url.path", json!("/r")),
        ("plinth.tenant", json!("default")),
        ("plinth.target", json!("echo")),
        ("plinth.attempts", json!(1)),
        ("http.request.body.size", json!(11)),
        ("client.address", json!("127.0.0.1")),
        ("trace_sampled", json!(true)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["user.id"].as_str().is_some_and(|user| user.starts_with("key:")), "{line}");
    assert!(line["http.response.body.size"].as_u64().is_some_and(|bytes| bytes > 100), "{line}");
    let refused: Vec<_> = lines.iter().filter_map(|line| line["error.type"].as_str()).collect();
    assert!(refused.contains(&"credentials_invalid") && refused.contains(&"credentials_missing"), "{refused:?}");
}

#[tokio::test]
async fn refusals_stand_in_the_nodes_log_where_there_is_no_file() {
    let node = Node::start(NodeOptions::default()).await;
    let (status, ..) = ask(reqwest::Client::new().get(format!("{}/v1/models?key=SECRET", node.http))).await;
    assert_eq!(status, 401);
    let line = eventually("the line", Duration::from_secs(5), async || {
        node.log().lines().find(|line| line.contains("plinth::access") && line.contains("credentials_missing")).map(str::to_owned)
    })
    .await;
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["http.response.status_code"], &line["url.path"]), (&json!(401), &json!("/v1/models")), "{line}");
}

#[tokio::test]
async fn answers_are_compressed_where_a_route_says_so() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Upstream::start("echo").await;
    let resources = json!([
        upstream("echo", &[&echo.url]),
        route("usual", json!({})),
        route("small", json!({"compression": true})),
        route("types", json!({"compression": ["application/*"]})),
        route("other", json!({"compression": ["text/*"]})),
    ]);
    let (status, said) = apply(&node, resources).await;
    assert_eq!(status, 200, "{said}");
    let (status, said) = apply(&node, json!([route("bad", json!({"compression": ["json"]}))])).await;
    assert_eq!(status, 422, "{said}");
    let large = "a".repeat(5000);
    for (path, packed) in [("/usual", false), ("/small", true), ("/types", true), ("/other", false)] {
        let answer = node.post(path).header("accept-encoding", "br, gzip;q=0.5").body(large.clone()).send().await.expect("an answer");
        assert_eq!(answer.headers().get("content-encoding").map(|coding| coding.as_bytes()), packed.then_some(&b"gzip"[..]), "{path}");
        assert_eq!(answer.headers().contains_key("vary"), packed, "{path}");
        let bytes = answer.bytes().await.expect("a body");
        let mut text = String::new();
        if packed {
            assert!(bytes.len() < 1000, "{}", bytes.len());
            flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("gzip");
        } else {
            text = String::from_utf8(bytes.to_vec()).expect("a text");
        }
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["body"], large, "{path}");
    }
    // Nobody asked; and a browser's cookie makes lengths tell too much.
    for request in [node.post("/small"), node.post("/small").header("accept-encoding", "gzip").header("cookie", "a=b")] {
        let answer = request.body(large.clone()).send().await.expect("an answer");
        assert!(!answer.headers().contains_key("content-encoding"));
    }
    let answer = node.get("/v1/routes").header("accept-encoding", "gzip").send().await.expect("an answer");
    assert_eq!(answer.headers()["content-encoding"], "gzip", "Plinth's own answers too");
}

/// A field of a protobuf message that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
}

/// A `ModelInferRequest` for one float.
fn message(model: &str, value: f32) -> Vec<u8> {
    let input = [field(1, b"x"), field(2, b"FP32"), field(3, &[1, 1])].concat();
    [field(1, model.as_bytes()), field(5, &input), field(7, &value.to_le_bytes())].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// Calls; the status where the call was refused at once, and the bytes of the answer.
async fn call(node: &Node, method: &str, body: Vec<u8>, metadata: &[(&str, &str)]) -> (Option<String>, Vec<u8>) {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let mut request = client.post(format!("http://{}/inference.GRPCInferenceService/{method}", node.grpc));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(metadata) {
        request = request.header(*name, *value);
    }
    let answer = request.bearer_auth(node.key().expect("a key")).body(body).send().await.expect("an answer");
    let status = answer.headers().get("grpc-status").map(|status| status.to_str().expect("a number").to_owned());
    (status, answer.bytes().await.expect("a body").to_vec())
}

/// The version that an answer names, which is a field behind the model's name.
fn version(model: &str, answer: &[u8]) -> Option<u8> {
    let name = [&field(1, model.as_bytes())[..], &[0x12, 1]].concat();
    let at = answer.windows(name.len()).position(|window| window == name)?;
    answer.get(at + name.len()).copied()
}

#[tokio::test]
async fn calls_over_grpc_go_by_the_model_in_their_message() {
    let node = Node::start(NodeOptions::default()).await;
    for (model, second) in [("x", Dim::Any), ("x", Dim::Fixed(1)), ("y", Dim::Any)] {
        models::deploy(&node, model, models::identity(DataType::Fp32, &[Dim::Any, second]).path()).await;
    }
    assert_eq!(version("x", &call(&node, "ModelInfer", framed(&message("x", 1.0)), &[]).await.1), Some(b'2'), "without a route");

    let limit = json!({"name": "few", "operation": "heavy", "rate": "4/minute", "burst": 4});
    let (status, said) = apply(
        &node,
        json!([
            {"kind": "deployment", "name": "x", "spec": {"versions": [1]}},
        {"kind": "plan", "name": "small", "spec": {"limits": [limit]}},
            {"kind": "tenant", "name": "default", "spec": {"plan": "small"}},
            {"kind": "route", "name": "x", "spec": {
                "matches": {"models": ["x"]}, "operation": "heavy",
                "targets": [
                    {"name": "old", "to": {"model": {"version": 1}}, "weight": 100},
                    {"name": "new", "to": {"model": {"version": 2}}, "weight": 0}
                ],
                "pins": [{"target": "new", "header": {"name": "x-canary"}}]
            }}
        ]),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    models::state_is(&node, "x", 1, "ready").await;
    let (status, answer) = call(&node, "ModelInfer", framed(&message("x", 1.0)), &[]).await;
    assert_eq!((status, version("x", &answer)), (None, Some(b'1')), "the route's target answers");
    let (_, answer) = call(&node, "ModelInfer", framed(&message("x", 1.0)), &[("x-canary", "1")]).await;
    assert_eq!(version("x", &answer), Some(b'2'), "pins count");
    let (_, answer) = call(&node, "ModelStreamInfer", framed(&message("x", 1.0)), &[]).await;
    assert_eq!(version("x", &answer), Some(b'1'), "a stream goes by its first message");
    assert_eq!(version("y", &call(&node, "ModelInfer", framed(&message("y", 1.0)), &[]).await.1), Some(b'1'), "others are as they were");

    // Who names one model first and another later gets neither, and a stream is for one model.
    let two = [message("y", 1.0), field(1, b"x")].concat();
    assert_eq!(call(&node, "ModelInfer", framed(&two), &[]).await.0.as_deref(), Some("3"));
    let both = [framed(&message("y", 1.0)), framed(&message("x", 1.0))].concat();
    let (_, answer) = call(&node, "ModelStreamInfer", both, &[]).await;
    assert_eq!((version("y", &answer), version("x", &answer)), (Some(b'1'), None));
    assert!(String::from_utf8_lossy(&answer).contains("use a stream for one model"));

    // The limit of the route holds: four were let in, three of them above.
    assert_eq!(call(&node, "ModelInfer", framed(&message("x", 1.0)), &[]).await.0, None);
    assert_eq!(call(&node, "ModelInfer", framed(&message("x", 1.0)), &[]).await.0.as_deref(), Some("8"), "over the limit");
    assert_eq!(call(&node, "ModelInfer", framed(&message("y", 1.0)), &[]).await.0, None);
}
