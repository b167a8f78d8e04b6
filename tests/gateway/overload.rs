//! More requests than an upstream can bear: the critical ones are served, the others know soon, and nobody is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{apply, ask};
use crate::support::{Node, NodeOptions};

/// Answers each request after this time.
const SERVICE: Duration = Duration::from_millis(100);

/// A server whose answers take their time; where it is, and how often it was asked.
async fn slow() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let shared = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shared.clone()));
        }
    });
    (url, asked)
}

async fn serve(mut stream: TcpStream, asked: Arc<AtomicUsize>) {
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
        buffer.drain(..end);
        asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(SERVICE).await;
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn under_a_saturated_upstream_the_critical_are_served_and_nobody_is_forgotten() {
    let node = Node::start(NodeOptions::default()).await;
    let (url, asked) = slow().await;
    let (status, said) = apply(
        &node,
        json!([
            {"kind": "upstream", "name": "slow", "spec": {
                "endpoints": [{"url": url}], "allow_networks": ["127.0.0.0/8"], "max_connections": 4
            }},
            {"kind": "route", "name": "s", "spec": {"matches": {"path": {"prefix": "/s"}}, "targets": [{"to": {"upstream": "slow"}}]}}
        ]),
    )
    .await;
    assert_eq!(status, 200, "{said}");
    let client = reqwest::Client::new();
    let send = |class: &'static str| {
        let request = client.get(format!("{}/s", node.http)).bearer_auth(node.key().expect("a key")).header("x-plinth-criticality", class);
        tokio::spawn(async move {
            let began = Instant::now();
            let (status, headers, said) = ask(request).await;
            (class, status, headers, said, began.elapsed())
        })
    };
    // What it bears is 40 requests a second; for a second and a half come seven times as many sheddable ones, and some critical ones.
    let mut answers = Vec::new();
    for tick in 0..150 {
        answers.extend((0..3).map(|_| send("sheddable")));
        if tick % 10 == 5 {
            answers.push(send("critical"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut critical, mut served, mut refused) = (0, 0, Vec::new());
    for answer in answers {
        let (class, status, headers, said, took) = answer.await.expect("everybody is answered");
        match status {
            200 => {
                served += 1;
                critical += usize::from(class == "critical");
            }
            503 => {
                assert_eq!(said["reason"], "upstream_unavailable", "{said}");
                let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=45).contains(&wait), "{wait}");
                assert!(class == "sheddable" || took > SERVICE, "{said} after {took:?}");
                refused.push(took);
            }
            other => panic!("{class}: {other} {said}"),
        }
    }
    assert!(critical >= 14, "{critical} of 15 critical ones");
    assert!((30..150).contains(&served), "{served}");
    assert_eq!(asked.load(Ordering::SeqCst), served, "what is refused was not sent");
    refused.sort_unstable();
    let median = refused[refused.len() / 2];
    assert!(median <= Duration::from_millis(400), "{median:?}");
    // Afterwards it is as before.
    assert_eq!(ask(node.get("/s").header("x-plinth-criticality", "background")).await.0, 200);
    let metrics = reqwest::get(format!("{}/metrics", node.metrics)).await.unwrap().text().await.unwrap();
    let counted = metrics.lines().find_map(|line| line.strip_prefix("plinth_upstream_refused_total{")?.rsplit_once(' ')).unwrap();
    assert_eq!(counted.1.parse::<f64>().unwrap() as usize, refused.len());
}
