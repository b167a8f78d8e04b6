//! Users' routes on a whole node: to upstreams and to models, with what stands in for them, and what is refused.

mod door;
mod ladder;
mod overload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::models::{self, floats};
use crate::support::{Node, NodeOptions, eventually};
use plinth_types::{DataType, Dim};

/// An HTTP server that says what it was asked, or fails when it shall.
struct Upstream {
    url: String,
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Upstream {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let shared = (asked.clone(), broken.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, name, shared.clone()));
            }
        });
        Self { url, asked, broken }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, name: &'static str, (asked, broken): (Arc<AtomicUsize>, Arc<AtomicBool>)) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => buffer.extend_from_slice(&piece[..n]),
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok()).unwrap_or(0);
        while buffer.len() < end + length {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => buffer.extend_from_slice(&piece[..n]),
            }
        }
        let body = String::from_utf8_lossy(&buffer[end..end + length]).into_owned();
        buffer.drain(..end + length);
        asked.fetch_add(1, Ordering::SeqCst);
        let status = if broken.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        let answer = json!({"upstream": name, "head": head, "body": body}).to_string();
        let text = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn ask(request: reqwest::RequestBuilder) -> (u16, reqwest::header::HeaderMap, Value) {
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.expect("a body");
    (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn apply(node: &Node, resources: Value) -> (u16, Value) {
    let (status, _, body) = ask(node.post("/v1/apply").json(&json!({"resources": resources}))).await;
    (status, body)
}

fn upstream(name: &str, urls: &[&str]) -> Value {
    let endpoints: Vec<_> = urls.iter().map(|url| json!({"url": url})).collect();
    json!({"kind": "upstream", "name": name, "spec": {"endpoints": endpoints, "allow_networks": ["127.0.0.0/8"]}})
}

#[tokio::test]
async fn a_route_carries_requests_to_an_upstream_and_changes_what_it_shall() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Upstream::start("echo").await;
    let (status, said) = apply(
        &node,
        json!([
            upstream("echo", &[&echo.url]),
            {"kind": "route", "name": "chat", "spec": {
                "matches": {"path": {"prefix": "/chat"}},
                "targets": [{"to": {"upstream": "echo"}}],
                "rewrite": {"prefix": "/api"},
                "request_headers": {"set": {"x-team": "blue"}, "remove": ["x-secret"]},
                "response_headers": {"set": {"x-served-by": "gateway"}},
                "cors": {"origins": ["https://app.example"]}
            }}
        ]),
    )
    .await;
    assert_eq!(status, 200, "{said}");

    let request = node.post("/chat/rooms?id=7").header("x-secret", "s").header("origin", "https://app.example").body("hello");
    let (status, headers, said) = ask(request).await;
    assert_eq!(status, 200, "{said}");
    let head = said["head"].as_str().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /api/rooms?id=7 http/1.1"), "{head}");
    assert!(head.contains("x-team: blue") && !head.contains("x-secret"), "{head}");
    assert!(!head.contains("authorization"), "the key stays here: {head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1") && head.contains("x-forwarded-proto: http"), "{head}");
    assert_eq!((said["body"].as_str(), &headers["x-served-by"]), (Some("hello"), &"gateway".parse().unwrap()));
    assert_eq!(headers["access-control-allow-origin"], "https://app.example");
    assert!(headers.contains_key("x-request-id"));

    // Without a key the route does not exist for anybody, and a browser's question is answered.
    let bare = reqwest::Client::new();
    let (status, ..) = ask(bare.post(format!("{}/chat/rooms", node.http))).await;
    assert_eq!(status, 401);
    let question = bare.request(reqwest::Method::OPTIONS, format!("{}/chat/rooms", node.http));
    let question = question.header("origin", "https://app.example").header("access-control-request-method", "POST");
    let (status, headers, _) = ask(question).await;
    assert_eq!((status, &headers["access-control-allow-origin"]), (204, &"https://app.example".parse().unwrap()));
    // Other paths are as they were.
    assert_eq!(ask(node.get("/chatter")).await.0, 404);
    assert_eq!(ask(node.get("/v2")).await.0, 200);
}

#[tokio::test]
async fn a_canary_gets_its_share_and_a_pin_all() {
    let node = Node::start(NodeOptions::default()).await;
    let (stable, canary) = (Upstream::start("stable").await, Upstream::start("canary").await);
    let (status, said) = apply(&node, json!([
        upstream("stable", &[&stable.url]), upstream("canary", &[&canary.url]),
        {"kind": "route", "name": "split", "spec": {
            "matches": {"path": {"prefix": "/s"}},
            "targets": [{"name": "old", "to": {"upstream": "stable"}, "weight": 80}, {"name": "new", "to": {"upstream": "canary"}, "weight": 20}],
            "pins": [{"target": "new", "header": {"name": "x-canary"}}]
        }}
    ])).await;
    assert_eq!(status, 200, "{said}");
    for _ in 0..400 {
        let (status, headers, said) = ask(node.get("/s")).await;
        assert_eq!(status, 200, "{said}");
        let expected = if said["upstream"] == "canary" { "new" } else { "old" };
        assert_eq!(headers["x-plinth-target"], expected);
    }
    // 80 are expected; five standard deviations are 40.
    assert!((40..120).contains(&canary.asked()), "{}", canary.asked());
    for _ in 0..10 {
        assert_eq!(ask(node.get("/s").header("x-canary", "1")).await.2["upstream"], "canary");
    }
}

#[tokio::test]
async fn what_stands_in_says_so() {
    let node = Node::start(NodeOptions::default()).await;
    let (first, second) = (Upstream::start("first").await, Upstream::start("second").await);
    let route = |name: &str, fallbacks: Value| {
        json!({"kind": "route", "name": name, "spec": {
            "matches": {"path": {"prefix": format!("/{name}")}}, "targets": [{"to": {"upstream": "first"}}], "fallbacks": fallbacks
        }})
    };
    let (status, said) = apply(
        &node,
        json!([
            upstream("first", &[&first.url]),
            upstream("second", &[&second.url]),
            route("other", json!([{"upstream": "second"}])),
            route("cached", json!([{"cached": {"max_age_seconds": 60}}, {"static": {"status": 200, "body": "{\"sorry\": true}"}}])),
        ]),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    let (status, headers, _) = ask(node.post("/cached").body("a")).await;
    assert!(status == 200 && !headers.contains_key("x-plinth-fallback"));

    first.broken.store(true, Ordering::SeqCst);
    let (status, headers, said) = ask(node.post("/other").body("x")).await;
    assert_eq!((status, &said["upstream"], &headers["x-plinth-fallback"]), (200, &json!("second"), &"second".parse().unwrap()));
    assert_eq!(said["body"], "x", "the body is sent once more");
    let (_, headers, said) = ask(node.post("/cached").body("a")).await;
    assert_eq!((&said["upstream"], &headers["x-plinth-fallback"]), (&json!("first"), &"cached".parse().unwrap()));
    let (_, headers, said) = ask(node.post("/cached").body("b")).await;
    assert_eq!((&said["sorry"], &headers["x-plinth-fallback"]), (&json!(true), &"static".parse().unwrap()));
}

#[tokio::test]
async fn an_answer_that_took_more_than_one_attempt_says_so() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Upstream::start("echo").await;
    let route = |name: &str, idempotent: Value| {
        json!({"kind": "route", "name": name, "spec": {
            "matches": {"path": {"prefix": format!("/{name}")}}, "targets": [{"to": {"upstream": "echo"}}], "idempotent": idempotent
        }})
    };
    let (status, said) =
        apply(&node, json!([upstream("echo", &[&echo.url]), route("pure", json!(true)), route("once", Value::Null)])).await;
    assert_eq!(status, 200, "{said}");
    assert!(!ask(node.post("/pure").body("x")).await.1.contains_key("x-plinth-attempts"), "one is nothing to speak of");
    echo.broken.store(true, Ordering::SeqCst);
    let (status, headers, _) = ask(node.post("/pure").body("x")).await;
    assert_eq!((status, &headers["x-plinth-attempts"], echo.asked()), (503, &"2".parse().unwrap(), 3));
    let (status, headers, _) = ask(node.post("/once").body("x")).await;
    assert!(status == 503 && !headers.contains_key("x-plinth-attempts"), "what must not happen twice is the caller's to send again");
    assert_eq!(echo.asked(), 4);
}

#[tokio::test]
async fn a_route_sends_a_share_of_a_models_requests_to_another_version() {
    let node = Node::start(NodeOptions::default()).await;
    let model = models::identity(DataType::Fp32, &[Dim::Any, Dim::Any]);
    models::deploy(&node, "x", model.path()).await;
    let (status, said) = apply(&node, json!([
        {"kind": "route", "name": "x", "spec": {"matches": {"models": ["x"]}, "targets": [{"to": {"model": {"version": 1}}}]}},
        {"kind": "route", "name": "short", "spec": {"matches": {"path": {"exact": "/ask"}}, "targets": [{"to": {"model": {"name": "x"}}}]}},
    ])).await;
    assert_eq!(status, 200, "{said}");
    let (status, said) = models::infer(&node, "x", &floats(&[1.0])).await;
    assert_eq!(status, 200, "{said}");
    let (status, _, said) = ask(node.post("/ask").json(&floats(&[2.0]))).await;
    assert_eq!((status, &said["model_name"], &said["model_version"]), (200, &json!("x"), &json!("1")), "{said}");
}

#[tokio::test]
async fn a_shadow_sees_copies_and_nobody_its_answers() {
    let node = Node::start(NodeOptions::default()).await;
    let (main, shadow) = (Upstream::start("main").await, Upstream::start("shadow").await);
    let (status, said) = apply(
        &node,
        json!([
            upstream("main", &[&main.url]), upstream("shadow", &[&shadow.url]),
            {"kind": "route", "name": "m", "spec": {
                "matches": {"path": {"prefix": "/m"}}, "targets": [{"to": {"upstream": "main"}}], "shadow": {"to": {"upstream": "shadow"}}
            }}
        ]),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    for _ in 0..20 {
        assert_eq!(ask(node.post("/m").body("x")).await.2["upstream"], "main");
    }
    eventually("the copies", Duration::from_secs(5), async || (shadow.asked() == 20).then_some(())).await;
    let differs = eventually("differences are counted", Duration::from_secs(5), async || {
        let text = reqwest::get(format!("{}/metrics", node.metrics)).await.ok()?.text().await.ok()?;
        text.lines()
            .find(|line| line.contains("shadow_requests_total") && line.contains("different") && line.ends_with(" 20"))
            .map(str::to_owned)
    });
    differs.await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_whole() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Upstream::start("echo").await;
    let route = |spec: Value| json!({"kind": "route", "name": "r", "spec": spec});
    let target = json!([{"to": {"upstream": "echo"}}]);
    let good = upstream("echo", &[&echo.url]);
    for (why, bad) in [
        ("no upstream", route(json!({"targets": [{"to": {"upstream": "nowhere"}}]}))),
        ("no weight", route(json!({"matches": {"path": {"prefix": "/a"}}, "targets": [{"to": {"upstream": "echo"}, "weight": 0}]}))),
        ("no expression", route(json!({"matches": {"path": {"regex": "(a+"}}, "targets": target}))),
        ("an expression that is too large", route(json!({"matches": {"path": {"regex": "(a{1000}){1000}"}}, "targets": target}))),
        (
            "a header with a line end",
            route(json!({"matches": {"path": {"prefix": "/a"}}, "targets": target, "request_headers": {"set": {"x": "a\r\nb: c"}}})),
        ),
        ("a reserved path", route(json!({"matches": {"path": {"prefix": "/v1/models"}}, "targets": target}))),
        ("an unknown plan", json!({"kind": "tenant", "name": "t", "spec": {"plan": "gold"}})),
        ("a metadata address", json!({"kind": "upstream", "name": "u", "spec": {"endpoints": [{"url": "http://169.254.169.254/"}]}})),
    ] {
        let (status, said) = apply(&node, json!([good, bad])).await;
        assert!(matches!(status, 404 | 422), "{why}: {status} {said}");
        let (status, ..) = ask(node.get("/v1/resources/upstream/echo")).await;
        assert_eq!(status, 404, "{why}: nothing is half applied");
    }
}

#[tokio::test]
async fn a_plan_limits_its_tenant_and_says_so() {
    let node = Node::start(NodeOptions::default()).await;
    let echo = Upstream::start("echo").await;
    let (status, said) = apply(
        &node,
        json!([
            {"kind": "plan", "name": "small", "spec": {"limits": [{"name": "slow", "operation": "proxy", "rate": "5/minute", "burst": 3}]}},
            {"kind": "tenant", "name": "default", "spec": {"plan": "small"}},
            upstream("echo", &[&echo.url]),
            {"kind": "route", "name": "r", "spec": {"matches": {"path": {"prefix": "/r"}}, "targets": [{"to": {"upstream": "echo"}}]}}
        ]),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    for left in [2, 1, 0] {
        let (status, headers, _) = ask(node.get("/r")).await;
        let shown = headers["ratelimit"].to_str().unwrap().to_owned();
        assert!(status == 200 && shown.contains(&format!("r={left}")), "{status} {shown}");
    }
    let (status, headers, said) = ask(node.get("/r")).await;
    assert_eq!((status, &said["reason"]), (429, &json!("rate_limited")), "{said}");
    let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=16).contains(&wait) && headers.contains_key("ratelimit-policy"), "{headers:?}");
    assert_eq!(echo.asked(), 3, "what is refused costs nothing");
    // Other operations are not counted.
    assert_eq!(ask(node.get("/v2")).await.0, 200);
}

#[tokio::test]
async fn changes_of_routes_fail_no_request() {
    let node = Arc::new(Node::start(NodeOptions::default()).await);
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let resources = |name: &str| {
        json!([
            upstream("one", &[&one.url]), upstream("two", &[&two.url]),
            {"kind": "route", "name": "r", "spec": {"matches": {"path": {"prefix": "/r"}}, "targets": [{"to": {"upstream": name}}]}}
        ])
    };
    assert_eq!(apply(&node, resources("one")).await.0, 200);
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (node, stop) = (node.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(ask(node.get("/r")).await.0, 200);
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for change in 0..20 {
        let name = ["two", "one"][change % 2];
        assert_eq!(apply(&node, resources(name)).await.0, 200);
        assert_eq!(ask(node.get("/r")).await.2["upstream"], name, "a change that was answered is in force");
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for task in load {
        total += task.await.expect("no request failed");
    }
    assert!(total >= 20, "{total}");
}
