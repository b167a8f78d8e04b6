//! The client against a small server that answers what each test wants: error mapping, retries, uploads, broken answers.

#![allow(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use plinth_client::error::TransportKind;
use plinth_client::{BlobSource, BlobUpload, Client, Error, Options, Paging, Plan, Push, PushEvent, Secret, plan, wire};
use plinth_runtime::{OnEnd, TaskGroup};
use plinth_types::{DataType, Digest, Shape, Tensor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    key: Option<String>,
    length: Option<u64>,
    body: Bytes,
}

type Handler = dyn Fn(&Seen, usize) -> Response<Full<Bytes>> + Send + Sync;

struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: Cancel,
}

struct Cancel(TaskGroup);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Server {
    /// `handler` gets the request and how many came before it.
    async fn start(handler: impl Fn(&Seen, usize) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), Arc::new(Mutex::new(Vec::new())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = TaskGroup::new("server");
        let (group, requests) = (tasks.clone(), seen.clone());
        tasks.spawn("accept", OnEnd::Ignore, async move {
            let token = group.cancelled().clone();
            while let Some(Ok((stream, _))) = token.run_until_cancelled(listener.accept()).await {
                let (handler, requests) = (handler.clone(), requests.clone());
                let service = service_fn(move |request| answer(request, handler.clone(), requests.clone()));
                let token = token.clone();
                group.spawn("connection", OnEnd::Ignore, async move {
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = token.run_until_cancelled(connection).await;
                });
            }
        });
        Self { url, seen, _tasks: Cancel(tasks) }
    }

    /// Answers each connection with `bytes` once its request head is there, then closes it; `None` never answers.
    async fn raw(bytes: Option<&'static [u8]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = TaskGroup::new("raw server");
        let group = tasks.clone();
        tasks.spawn("accept", OnEnd::Ignore, async move {
            let token = group.cancelled().clone();
            let mut held = Vec::new();
            while let Some(Ok((mut stream, _))) = token.run_until_cancelled(listener.accept()).await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                match bytes {
                    Some(bytes) => drop(stream.write_all(bytes).await),
                    None => held.push(stream),
                }
            }
        });
        Self { url, seen: Arc::default(), _tasks: Cancel(tasks) }
    }

    fn client(&self) -> Client {
        self.client_with(Options::default())
    }

    fn client_with(&self, options: Options) -> Client {
        let options = Options { backoff: Duration::from_millis(1), ..options };
        Client::new(&self.url, Some(Secret::new("pk_test")), options).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|s| s.line.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
    requests: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let mut seen = Seen {
        line: format!("{} {}", request.method(), request.uri()),
        key: header("authorization"),
        length: header("content-length").map(|l| l.parse().unwrap()),
        body: Bytes::new(),
    };
    seen.body = request.into_body().collect().await?.to_bytes();
    let before = {
        let mut requests = requests.lock().unwrap();
        requests.push(seen.clone());
        requests.len() - 1
    };
    Ok(handler(&seen, before))
}

fn reply(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

fn json(status: u16, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    reply(status, serde_json::to_vec(body).unwrap())
}

fn problem(status: u16, reason: &str, retriable: bool) -> wire::Problem {
    wire::Problem {
        kind: format!("/errors/{reason}"),
        title: "A title".into(),
        status,
        detail: format!("the detail of {reason}"),
        reason: reason.into(),
        field: None,
        request_id: Some("r-1".into()),
        retriable,
        problems: Vec::new(),
    }
}

fn model_name() -> plinth_types::ModelName {
    "digits".parse().unwrap()
}

fn version(files: Vec<wire::File>) -> wire::Version {
    wire::Version {
        model: model_name(),
        number: plinth_types::VersionNumber::FIRST,
        content: Digest::of(b"list"),
        size: files.iter().map(|f| f.size).sum(),
        files,
        state: wire::VersionState::Active,
        aliases: Vec::new(),
        signature: None,
        description: String::new(),
        tags: wire::Tags::new(),
        created_by: "key/a".into(),
        created_at: plinth_types::Timestamp::from_millis(0).unwrap(),
    }
}

#[tokio::test]
async fn the_key_and_the_paging_travel() {
    let page = wire::Page::<wire::Model> { items: Vec::new(), next: Some("m".into()) };
    let server = Server::start(move |_, _| json(200, &page)).await;
    let paging = Paging { after: Some("a&b".into()), limit: Some(5) };
    assert_eq!(server.client().models(&paging).await.unwrap().next.as_deref(), Some("m"));
    assert_eq!(server.lines(), ["GET /v1/models?after=a%26b&limit=5"]);
    assert_eq!(server.seen.lock().unwrap()[0].key.as_deref(), Some("Bearer pk_test"));
}

#[tokio::test]
async fn problems_keep_their_reason_and_give_advice() {
    let server = Server::start(|_, _| json(404, &problem(404, "model_not_found", false))).await;
    let error = server.client().model(&model_name()).await.unwrap_err();
    assert_eq!((error.reason(), error.status()), (Some("model_not_found"), Some(404)));
    assert_eq!(error.to_string(), "the detail of model_not_found");
    assert_eq!(error.advice(), ["`plinth model list` shows what there is"]);
}

#[tokio::test]
async fn the_shape_of_the_inference_protocol_and_bare_statuses_are_problems_too() {
    let server = Server::start(|seen, _| match seen.line.as_str() {
        "GET /v2/models/digits" => reply(400, r#"{"error":"expected 1 inputs"}"#),
        _ => reply(401, ""),
    })
    .await;
    let error = server.client().model_metadata(&model_name(), None).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status()), ("expected 1 inputs", Some(400)));
    let error = server.client().status().await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status()), ("the node wants a key", Some(401)));
}

#[tokio::test]
async fn answers_of_something_else_are_not_mistaken_for_a_node() {
    for (status, body) in [(404, "<html>nginx</html>"), (200, "<html>hello</html>"), (200, "{}"), (302, "moved")] {
        let server = Server::start(move |_, _| reply(status, body)).await;
        let error = server.client().status().await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{status} {body}: {error}");
    }
}

#[tokio::test]
async fn reading_is_repeated_after_503_and_changing_is_not() {
    let server = Server::start(|seen, before| match (seen.line.starts_with("GET"), before) {
        (true, 2) => json(200, &wire::Page::<wire::Key> { items: Vec::new(), next: None }),
        _ => json(503, &problem(503, "store_unavailable", true)),
    })
    .await;
    server.client().keys(&Paging::default()).await.unwrap();
    assert_eq!(server.lines().len(), 3);
    let error = server.client().collect_garbage(&wire::CollectGarbage::default()).await.unwrap_err();
    assert_eq!(error.reason(), Some("store_unavailable"));
    assert_eq!(error.advice(), ["try again later"]);
    assert_eq!(server.lines()[3..], ["POST /v1/gc"]);
}

#[tokio::test]
async fn other_refusals_are_not_repeated() {
    let server = Server::start(|_, _| json(500, &problem(500, "internal", false))).await;
    assert!(server.client().status().await.is_err());
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn nobody_there_says_how_to_start_somebody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = Options { backoff: Duration::from_millis(1), ..Options::default() };
    let error = Client::new(&url, None, options).unwrap().status().await.unwrap_err();
    assert_eq!(error.to_string(), format!("no node answers at {url}"));
    assert_eq!(error.advice(), ["start a node with `plinth up`, or name another one with `--server URL`"]);
}

#[tokio::test]
async fn truncated_and_garbled_answers_are_interruptions() {
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"version\":",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
        b"SSH-2.0-x\r\n",
    ];
    for bytes in answers {
        let server = Server::raw(Some(bytes)).await;
        let error = server.client().status().await.unwrap_err();
        assert!(matches!(&error, Error::Transport(t) if t.kind == TransportKind::Interrupted), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read() {
    let server = Server::start(|_, _| reply(200, vec![b' '; 5000])).await;
    let client = server.client_with(Options { max_answer: 4096, ..Options::default() });
    assert!(matches!(client.status().await.unwrap_err(), Error::Protocol { .. }));
}

#[tokio::test]
async fn a_silent_server_ends_a_request_and_an_upload() {
    let server = Server::raw(None).await;
    let short = Duration::from_millis(30);
    let client = server.client_with(Options { request_timeout: short, idle_timeout: short, ..Options::default() });
    let error = client.status().await.unwrap_err();
    assert!(matches!(&error, Error::Transport(t) if t.kind == TransportKind::TimedOut), "{error:?}");
    let source = BlobSource::Bytes(Bytes::from(vec![7; 64 << 20]));
    let error = client.put_blob(&Digest::of(&vec![7; 64 << 20]), 64 << 20, &source, |_| {}).await.unwrap_err();
    assert!(matches!(&error, Error::Transport(t) if t.kind == TransportKind::TimedOut), "{error:?}");
}

#[tokio::test]
async fn an_upload_announces_its_length_reports_progress_and_may_be_repeated() {
    let bytes = Bytes::from((0..1_000_000u32).map(|n| n as u8).collect::<Vec<_>>());
    let server =
        Server::start(|_, before| if before == 0 { json(503, &problem(503, "over_capacity", true)) } else { reply(201, "") }).await;
    let progress = Arc::new(Mutex::new(Vec::new()));
    let reports = progress.clone();
    let (digest, source) = (Digest::of(&bytes), BlobSource::Bytes(bytes.clone()));
    let end = server.client().put_blob(&digest, bytes.len() as u64, &source, move |sent| reports.lock().unwrap().push(sent)).await.unwrap();
    assert_eq!(end, BlobUpload::Created);
    {
        let seen = server.seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|s| s.length == Some(1_000_000) && s.body == bytes && s.line == format!("PUT /v1/blobs/{digest}")));
    }
    let progress = progress.lock().unwrap();
    assert_eq!(progress.last(), Some(&1_000_000));
    assert!(progress.len() >= 8, "two attempts of four chunks: {progress:?}");
}

#[tokio::test]
async fn bytes_that_are_not_the_announced_ones_never_complete_an_upload() {
    let server = Server::start(|_, _| reply(201, "")).await;
    let good = Bytes::from(vec![1; 600_000]);
    for bad in [vec![2; 600_000], vec![1; 599_999]] {
        let source = BlobSource::Bytes(bad.into());
        let error = server.client().put_blob(&Digest::of(&good), 600_000, &source, |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::Source { changed: true, .. }), "{error:?}");
    }
    assert!(server.lines().is_empty(), "no complete body arrived");
}

#[tokio::test]
async fn an_empty_file_is_uploaded_too() {
    let server = Server::start(|_, _| reply(200, "")).await;
    let end = server.client().put_blob(&Digest::of(b""), 0, &BlobSource::Bytes(Bytes::new()), |_| {}).await.unwrap();
    assert_eq!(end, BlobUpload::Present);
    assert_eq!(server.seen.lock().unwrap()[0].length, Some(0));
}

fn directory() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in [("model.onnx", "graph"), ("twin.onnx", "graph"), ("labels.txt", "0\n1\n"), ("model.sig", "{\"a\":1}")] {
        std::fs::write(root.path().join(name), text).unwrap();
    }
    root
}

fn registering_server(seen: &Seen) -> Response<Full<Bytes>> {
    let known = format!("HEAD /v1/blobs/{}", Digest::of(b"0\n1\n"));
    match seen.line.split(' ').next().unwrap() {
        "HEAD" if seen.line == known => reply(200, ""),
        "HEAD" => reply(404, ""),
        "PUT" => reply(201, ""),
        _ => json(201, &version(serde_json::from_slice::<wire::NewVersion>(&seen.body).unwrap().files)),
    }
}

#[tokio::test]
async fn a_push_uploads_each_missing_content_once_and_registers_all_files() {
    let root = directory();
    let server = Server::start(|seen, _| registering_server(seen)).await;
    let plan = Plan::read(root.path(), &plan::Limits::default(), &|_| {}).unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let push = Push { description: "first".into(), ..Push::default() };
    let pushed = server.client().push(&model_name(), &plan, push, move |e| log.lock().unwrap().push(e)).await.unwrap();
    assert!(pushed.created);
    assert_eq!((pushed.uploaded, pushed.uploaded_bytes), (1, 5));
    assert_eq!(pushed.version.files.len(), 3);
    let expected = [PushEvent::Missing { blobs: 1, bytes: 5 }, PushEvent::Sent(5), PushEvent::Registering];
    assert_eq!(*events.lock().unwrap(), expected);
    let seen = server.seen.lock().unwrap();
    let new: wire::NewVersion = serde_json::from_slice(&seen.last().unwrap().body).unwrap();
    assert_eq!((new.signature.as_deref(), new.description.as_str()), (Some("{\"a\":1}"), "first"));
    assert!(new.files.iter().all(|f| f.path.as_str() != "model.sig"));
}

#[tokio::test]
async fn a_file_that_changes_under_a_push_stops_it_before_it_registers() {
    for changed in ["model.onnx", "labels.txt"] {
        let root = directory();
        let plan = Plan::read(root.path(), &plan::Limits::default(), &|_| {}).unwrap();
        std::fs::write(root.path().join(changed), "other").unwrap();
        let server = Server::start(|seen, _| registering_server(seen)).await;
        let error = server.client().push(&model_name(), &plan, Push::default(), |_| {}).await.unwrap_err();
        assert!(matches!(&error, Error::Changed(path) if path.as_str() == changed), "{error:?}");
        assert!(server.lines().iter().all(|l| !l.starts_with("POST")));
    }
}

#[tokio::test]
async fn an_inference_travels_in_binary_and_is_sent_once() {
    let server = Server::start(|seen, before| {
        if before > 0 {
            return reply(503, r#"{"error":"queue full"}"#);
        }
        let split = seen.body.len() - 4;
        let head: serde_json::Value = serde_json::from_slice(&seen.body[..split]).unwrap();
        assert_eq!(head["inputs"][0]["parameters"]["binary_data_size"], 4);
        let head = r#"{"model_name":"digits","model_version":"3","outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#;
        let mut response = reply(200, [head.as_bytes(), &seen.body[split..]].concat());
        response.headers_mut().insert("inference-header-content-length", head.len().into());
        response
    })
    .await;
    let input = Tensor::new("x", DataType::Fp32, Shape::new(vec![1]).unwrap(), Bytes::copy_from_slice(&2.5f32.to_le_bytes())).unwrap();
    let request = plinth_client::oip::InferRequest { inputs: vec![input.clone()], ..Default::default() };
    let number = plinth_types::VersionNumber::try_from(3).unwrap();
    let answer = server.client().infer(&model_name(), Some(number), &request).await.unwrap();
    assert_eq!((answer.outputs[0].data(), answer.model_version.as_deref()), (input.data(), Some("3")));
    let error = server.client().infer(&model_name(), None, &request).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status()), ("queue full", Some(503)));
    assert_eq!(server.lines(), ["POST /v2/models/digits/versions/3/infer", "POST /v2/models/digits/infer"]);
}

#[tokio::test]
async fn a_file_streams_and_a_broken_download_fails() {
    use futures_util::TryStreamExt;
    let path: plinth_types::ArtifactPath = "a b/labels.txt".parse().unwrap();
    let server = Server::start(|_, _| reply(200, "0\n1\n")).await;
    let stream = server.client().version_file(&model_name(), plinth_types::VersionNumber::FIRST, &path).await.unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"0\n1\n");
    assert_eq!(server.lines(), ["GET /v1/models/digits/versions/1/files/a%20b/labels.txt"]);
    let server = Server::raw(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")).await;
    let stream = server.client().version_file(&model_name(), plinth_types::VersionNumber::FIRST, &path).await.unwrap();
    assert!(stream.try_collect::<Vec<Bytes>>().await.is_err());
}

#[test]
fn calls_can_be_made_from_spawned_tasks() {
    fn is_send<T: Send>(_: &T) {}
    let client = Client::new("http://127.0.0.1:1", None, Options::default()).unwrap();
    let (name, root) = (model_name(), directory());
    let plan = Plan::read(root.path(), &plan::Limits::default(), &|_| {}).unwrap();
    is_send(&client.status());
    is_send(&client.push(&name, &plan, Push::default(), |_| {}));
    is_send(&client.infer(&name, None, &plinth_client::oip::InferRequest::default()));
}
