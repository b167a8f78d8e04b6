//! The S3 adapter against a real S3 server on the loopback, in this process; and against one that is away or rude.

use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use plinth_runtime::{Clock, OnEnd, SystemClock, TaskGroup};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::conformance;

/// A server with its buckets; ends when dropped.
struct Server {
    address: SocketAddr,
    root: tempfile::TempDir,
    tasks: TaskGroup,
}

impl Server {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let service = {
            let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
            builder.set_auth(SimpleAuth::from_single("plinth", "secret-of-the-test"));
            builder.build()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), TaskGroup::new("s3 server"));
        let connections = tasks.clone();
        tasks.spawn("accept", OnEnd::Ignore, async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn("connection", OnEnd::Ignore, async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, root, tasks }
    }

    fn bucket(&self, name: &str) -> &Self {
        std::fs::create_dir(self.root.path().join(name)).unwrap();
        self
    }

    fn store(&self, url: &str) -> Arc<dyn Objects> {
        self.store_with(url, options(self.address))
    }

    fn store_with(&self, url: &str, s3: S3Options) -> Arc<dyn Objects> {
        let url = ObjectsUrl::parse(url, std::path::Path::new("")).unwrap();
        let options = ObjectsOptions { s3, ..ObjectsOptions::new(url) };
        futures_util::FutureExt::now_or_never(open(&options, &World::real())).expect("nothing is sent").unwrap()
    }

    /// Parts of uploads that nobody has ended.
    fn parts(&self) -> usize {
        let names = std::fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".upload")).count()
    }
}

fn options(address: SocketAddr) -> S3Options {
    S3Options {
        endpoint: Some(format!("http://{address}")),
        allow_http: true,
        credentials: Some(S3Credentials {
            access_key_id: "plinth".into(),
            secret_access_key: "secret-of-the-test".into(),
            session_token: None,
        }),
        ..S3Options::default()
    }
}

#[tokio::test]
async fn s3_conforms() {
    let server = Server::start().await;
    let made = std::sync::atomic::AtomicU32::new(0);
    conformance::objects(|| {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // With and without a prefix.
        let url = if number.is_multiple_of(2) { format!("s3://bucket{number}") } else { format!("s3://bucket{number}/some/prefix/") };
        let store = server.bucket(&format!("bucket{number}")).store(&url);
        std::future::ready(store)
    })
    .await;
    // Aborts of dropped uploads run in the background.
    wait_for("all multipart uploads are ended", || server.parts() == 0).await;
    server.tasks.close(Duration::from_secs(1)).await;
}

async fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("after {deadline:?} still not: {what}"));
}

#[tokio::test]
async fn prefixes_do_not_see_each_other_and_strangers_are_not_listed() {
    let server = Server::start().await;
    server.bucket("models");
    let (a, ab) = (server.store("s3://models/a"), server.store("s3://models/ab"));
    put(&*a, b"one").await.unwrap();
    put(&*ab, b"two").await.unwrap();
    let bucket = server.root.path().join("models");
    let digest = Digest::of(b"one").hex();
    assert_eq!(std::fs::read(bucket.join("a/sha256").join(&digest[..2]).join(&digest[2..])).unwrap(), b"one");
    std::fs::write(bucket.join("a/sha256/readme"), "no object").unwrap();
    let listed: Vec<_> = a.list().try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|info| info.digest).collect::<Vec<_>>(), [Digest::of(b"one")]);
    assert_eq!(ab.info(&Digest::of(b"one")).await.unwrap(), None);
}

#[tokio::test]
async fn lists_go_on_past_one_page() {
    let server = Server::start().await;
    let store = server.bucket("models").store("s3://models");
    // S3 gives at most 1000 keys at once.
    let shelf = server.root.path().join("models/sha256/ab");
    std::fs::create_dir_all(&shelf).unwrap();
    for number in 0..1234 {
        std::fs::write(shelf.join(format!("{number:062x}")), "").unwrap();
    }
    let listed: Vec<_> = store.list().try_collect().await.unwrap();
    let digests: std::collections::BTreeSet<_> = listed.iter().map(|info| info.digest).collect();
    assert_eq!((listed.len(), digests.len()), (1234, 1234));
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_bucket_are_said() {
    let server = Server::start().await;
    server.bucket("models");
    let mut wrong = options(server.address);
    wrong.credentials.as_mut().unwrap().secret_access_key = "guessed".into();
    let error = put(&*server.store_with("s3://models", wrong), b"content").await.unwrap_err();
    assert!(matches!(error, ObjectsError::Unavailable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("guessed"));
    assert!(server.store("s3://nobody").list().next().await.unwrap().is_err());
}

#[tokio::test]
async fn an_endpoint_without_tls_needs_a_word() {
    let server = Server::start().await;
    let store = server.bucket("models").store_with("s3://models", S3Options { allow_http: false, ..options(server.address) });
    assert!(matches!(put(&*store, b"content").await, Err(ObjectsError::Unavailable { .. })));
}

/// A server that answers every request the same way; how many requests came.
async fn rude(answer: &'static str, tasks: &TaskGroup) -> (SocketAddr, Arc<std::sync::atomic::AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let (counted, connections) = (requests.clone(), tasks.clone());
    tasks.spawn("accept", OnEnd::Ignore, async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counted = counted.clone();
            connections.spawn("connection", OnEnd::Ignore, async move {
                let mut request = [0; 4096];
                while socket.read(&mut request).await.is_ok_and(|length| length > 0) {
                    counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_server_that_is_away_silent_or_broken_does_not_hold_us() {
    let tasks = TaskGroup::new("rude");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (silent, _) = rude("", &tasks).await;
    let (broken, requests) = rude("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", &tasks).await;
    for address in [free, silent, broken] {
        let s3 = S3Options {
            read_timeout: Duration::from_millis(100),
            operation_timeout: Duration::from_secs(1),
            max_retries: 1,
            ..options(address)
        };
        let url = ObjectsUrl::S3 { bucket: "models".into(), prefix: String::new() };
        let store = open(&ObjectsOptions { s3, ..ObjectsOptions::new(url) }, &World::real()).await.unwrap();
        let start = SystemClock.monotonic();
        assert!(matches!(store.info(&Digest::of(b"x")).await, Err(ObjectsError::Unavailable { .. })));
        assert!(matches!(store.open(&Digest::of(b"x")).await, Err(ObjectsError::Unavailable { .. })));
        assert!(store.list().next().await.unwrap().is_err());
        assert!(SystemClock.monotonic().saturating_sub(start) < Duration::from_secs(8));
    }
    assert_eq!(requests.load(std::sync::atomic::Ordering::Relaxed), 6, "each of three requests is tried twice");
    tasks.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_full_server_is_full() {
    let tasks = TaskGroup::new("rude");
    let (full, _) = rude("HTTP/1.1 507 Insufficient Storage\r\ncontent-length: 0\r\n\r\n", &tasks).await;
    let s3 = S3Options { max_retries: 0, ..options(full) };
    let url = ObjectsUrl::S3 { bucket: "models".into(), prefix: String::new() };
    let store = open(&ObjectsOptions { s3, ..ObjectsOptions::new(url) }, &World::real()).await.unwrap();
    let error = put(&*store, b"content").await.unwrap_err();
    assert!(matches!(error, ObjectsError::Full), "{error:?}");
    tasks.close(Duration::from_secs(1)).await;
}
