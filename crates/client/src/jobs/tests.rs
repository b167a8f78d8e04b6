//! Jobs against a server that answers by a script, and events out of bytes that are cut anywhere.

use std::sync::{Arc, Mutex};

use plinth_runtime::{OnEnd, TaskGroup};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::events::Parser;
use super::*;
use crate::Options;

/// Answers the first connection with the first text, and so on; an empty text closes without an answer.
struct Server {
    client: Client,
    seen: Arc<Mutex<Vec<String>>>,
    tasks: TaskGroup,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Server {
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tasks, seen) = (TaskGroup::new("server"), Arc::new(Mutex::new(Vec::new())));
        let (requests, answers): (_, Vec<String>) = (seen.clone(), answers.iter().map(|&answer| answer.to_owned()).collect());
        let token = tasks.cancelled().clone();
        tasks.spawn("accept", OnEnd::Ignore, async move {
            for answer in answers {
                let Some(Ok((mut stream, _))) = token.run_until_cancelled(listener.accept()).await else { return };
                let request = request(&mut stream).await;
                requests.lock().unwrap().push(request);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let options = Options { backoff: Duration::from_millis(1), ..Options::default() };
        Self { client: Client::new(&url, None, options).unwrap(), seen, tasks }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Head and body of a request.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
            if body.len() >= length {
                return String::from_utf8(bytes).unwrap();
            }
        }
        match stream.read(&mut piece).await.unwrap() {
            0 => return String::from_utf8(bytes).unwrap(),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn job(state: &str) -> String {
    json!({
        "id": "0190-1", "kind": "infer", "state": state, "class": "default", "priority": 0, "attempt": 1, "max_attempts": 3, "progress": 0.5,
        "created_at": "2026-01-01T00:00:00.000Z", "run_at": "2026-01-01T00:00:00.000Z", "actor": "key/a",
    })
    .to_string()
}

#[tokio::test]
async fn a_submission_is_repeated_under_its_key_when_the_connection_breaks() {
    let done = answer("202 Accepted", "application/json", r#"{"id":"a","ids":["a","b"],"replayed":true}"#);
    let server = Server::start(&["", &answer("503 Service Unavailable", "text/plain", ""), &done]).await;
    let new = NewJob { kind: "infer".into(), model: Some("digits".into()), delay_seconds: Some(1.5), ..NewJob::default() };
    let submitted = server.client.submit_jobs(&new, "k-1").await.unwrap();
    assert!(submitted.replayed && submitted.ids == ["a", "b"], "{submitted:?}");
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for request in seen {
        assert!(request.starts_with("POST /api/v1/jobs HTTP/1.1\r\n") && request.contains("idempotency-key: k-1\r\n"), "{request}");
        assert!(request.ends_with(r#"{"kind":"infer","model":"digits","delay_seconds":1.5}"#), "{request}");
    }
}

#[tokio::test]
async fn a_submission_that_is_refused_is_not_repeated() {
    let server = Server::start(&[&answer("409 Conflict", "text/plain", "")]).await;
    assert_eq!(server.client.submit_jobs(&json!({}), "k").await.unwrap_err().status(), Some(409));
    assert!(matches!(server.client.submit_jobs(&json!({}), "k\n").await, Err(Error::Settings(_))));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn filters_paging_and_waiting_travel_in_the_query() {
    let page = answer("200 OK", "application/json", r#"{"items":[],"next":"n"}"#);
    let server = Server::start(&[&page, &answer("200 OK", "application/json", &job("running"))]).await;
    let filter = JobFilter { state: Some("dead".into()), label: Some("team=a b".into()), ..JobFilter::default() };
    let page = server.client.jobs(&filter, &Paging { after: Some("c".into()), limit: Some(7) }).await.unwrap();
    assert_eq!(page.next.as_deref(), Some("n"));
    let found = server.client.job("0190-1", Some(Duration::from_secs(20))).await.unwrap();
    assert_eq!((found.state.as_str(), found.position), ("running", None));
    let lines: Vec<String> = server.seen().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
    assert_eq!(
        lines,
        ["GET /api/v1/jobs?state=dead&label=team%3Da+b&cursor=c&limit=7 HTTP/1.1", "GET /api/v1/jobs/0190-1?wait=20 HTTP/1.1"]
    );
}

#[tokio::test]
async fn a_result_is_there_or_not_yet_and_has_a_bound() {
    let (none, some) = (answer("202 Accepted", "application/json", "{}"), answer("200 OK", "Application/JSON; charset=utf-8", "[1,2]"));
    let server = Server::start(&[&none, &some, &some]).await;
    assert!(server.client.job_result("a").await.unwrap().is_none());
    let result = server.client.job_result("a").await.unwrap().unwrap();
    assert_eq!((result.content_type().as_str(), result.length()), ("application/json", Some(5)));
    assert_eq!(result.bytes(5).await.unwrap().unwrap(), "[1,2]");
    let result = server.client.job_result("a").await.unwrap().unwrap();
    assert!(result.bytes(4).await.unwrap().is_none());
}

#[tokio::test]
async fn events_are_followed_and_taken_up_after_the_last_one() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    let first = format!("{head}content-length: 100\r\n\r\n: hello\n\nid: 1\nevent: progress\ndata: 0.5\n\nid: 2\ndata: cut");
    let second = format!("{head}\r\nid: 2\ndata: [\ndata: ]\n\nevent: end\ndata: {{}}\n\n");
    let server = Server::start(&[&first, &second]).await;
    let mut events = server.client.job_events("a", None).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.id.as_deref(), event.name.as_str(), event.data.as_str()), (Some("1"), "progress", "0.5"));
    assert!(may_pass(&events.next().await.unwrap_err()));
    let mut events = server.client.job_events("a", event.id.as_deref()).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.name.as_str(), event.data.as_str(), event.own_id), ("message", "[\n]", true));
    let end = events.next().await.unwrap().unwrap();
    assert_eq!((end.id.as_deref(), end.own_id, end.name.as_str()), (Some("2"), false, "end"));
    assert_eq!(events.next().await.unwrap(), None);
    let seen = server.seen();
    assert!(!seen[0].contains("last-event-id") && seen[1].contains("last-event-id: 1\r\n"), "{seen:?}");
}

fn parsed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut parser = Parser::default();
    for piece in pieces {
        parser.push(piece).unwrap();
    }
    parser.ready.into()
}

#[test]
fn an_event_without_end_is_not_kept() {
    let mut parser = Parser::default();
    let line = [b"data: ".as_slice(), &[b'x'; 1 << 20], b"\n"].concat();
    assert!((0..17).any(|_| parser.push(&line).is_err()));
    assert!(parser.ready.is_empty());
}

#[test]
fn lines_end_in_three_ways_and_the_rest_is_ignored() {
    let text = "\u{feff}data\r\revent: a\rdata:x\n\nid: 5\r\n\r\nretry: 7\nnone\n:c\ndata:  y\r\n\r\nid\ndata: z\n\ndata: lost";
    let found: Vec<_> = parsed([text.as_bytes()]).into_iter().map(|e| (e.id, e.name, e.data)).collect();
    let event = |id: Option<&str>, name: &str, data: &str| (id.map(str::to_owned), name.to_owned(), data.to_owned());
    let wanted = [event(None, "message", ""), event(None, "a", "x"), event(Some("5"), "message", " y"), event(None, "message", "z")];
    assert_eq!(found, wanted);
}

proptest! {
    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut(text in "([a-z\r\n: é]|data: |id: |event: |\r\n|\n\n){0,60}", size in 1usize..7) {
        let whole = parsed([text.as_bytes()]);
        prop_assert_eq!(parsed(text.as_bytes().chunks(size)), whole);
    }
}
