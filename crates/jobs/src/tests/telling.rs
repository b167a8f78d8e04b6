//! Webhooks and HTTP kinds, with receivers on the loopback.

use std::net::SocketAddr;

use plinth_net::outbound::{Outbound, OutboundMetrics, OutboundOptions, Resolver, ResolverOptions, SystemLookup};
use plinth_policy::jobs::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::WebhookRequest;
use crate::http_kind::HttpKind;
use crate::webhook_kind::WebhookKind;
use crate::webhooks::{Sender, SenderParts};

/// A receiver that gives these answers in turn and keeps what it was sent.
async fn receiver(answers: Vec<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>, TaskGroup) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (got, tasks) = (Arc::new(Mutex::new(Vec::new())), TaskGroup::new("receiver"));
    let kept = got.clone();
    tasks.spawn("receiver", plinth_runtime::OnEnd::Ignore, async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            loop {
                let count = stream.read(&mut piece).await.unwrap();
                request.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                if count == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    break;
                }
            }
            kept.lock().unwrap().push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, got, tasks)
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfine!";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BAD: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

async fn node(directory: &std::path::Path, guard: Guard) -> Node {
    let (world, tasks) = (World::real(), TaskGroup::new("client"));
    let resolver = || Resolver::new(ResolverOptions::default(), SystemLookup);
    let parts = SenderParts {
        guard: guard.clone(),
        resolver: resolver(),
        tls: None,
        metrics: OutboundMetrics::default(),
        clock: world.clock.clone(),
    };
    let sender = Sender::new(parts, &tasks).unwrap();
    let outbound = Outbound::new(OutboundOptions::default(), guard.clone(), resolver(), OutboundMetrics::default(), &tasks).unwrap();
    let ledger = ledger(directory).await;
    let kinds: Vec<(&str, Arc<dyn Handler>)> = vec![
        ("script", Arc::new(Script::default())),
        ("webhook", Arc::new(WebhookKind::new(ledger.clone(), sender, guard.clone(), world))),
        ("http", Arc::new(HttpKind::new(outbound, guard.clone(), ByteSize::mib(1)))),
    ];
    Node::with(directory, ledger, kinds, guard).await
}

fn loopback() -> Guard {
    Guard::new(["127.0.0.0/8".parse().unwrap()])
}

#[tokio::test]
async fn the_end_of_a_job_is_told_and_told_again_after_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (address, got, _receiver) = receiver(vec![BUSY, GOOD]).await;
    let node = node(directory.path(), loopback()).await;
    let secret = node.service.rotate_secret(&node.tenant, "default").await.unwrap();
    let webhook = Some(WebhookRequest { url: format!("http://{address}/done?x=1"), secret: None });
    let id = node.submit(JobRequest { kind: "script".into(), webhook, ..JobRequest::default() }, "echo").await;
    node.ended(id).await;
    let query = plinth_queue::jobs::ListJobs {
        tenant: node.tenant.clone(),
        kind: Some("webhook".into()),
        state: None,
        parent: Some(id),
        label: None,
        before: None,
        limit: 10,
    };
    let telling = node.service.list(&query).await.unwrap();
    assert_eq!(telling.len(), 1);
    let told = node.ended(telling[0].id).await.job;
    assert_eq!((told.state, told.attempt), (State::Succeeded, 2));
    let attempts = node.service.ledger().events(&node.tenant, told.id, 0, 10).await.unwrap();
    assert_eq!(attempts.len(), 2, "each attempt is recorded");
    assert!(attempts[0].data.contains("503") && attempts[1].data.contains("200"), "{attempts:?}");

    let requests = got.lock().unwrap().clone();
    let (first, second) = (&requests[0], &requests[1]);
    let header = |request: &str, name: &str| {
        let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned()).unwrap()
    };
    assert!(first.starts_with("POST /done?x=1 HTTP/1.1\r\n"), "{first}");
    assert_eq!(header(first, "webhook-id"), header(second, "webhook-id"), "known again");
    let body = second.split_once("\r\n\r\n").unwrap().1;
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((value["type"].as_str(), value["data"]["id"].as_str()), (Some("job.succeeded"), Some(&*id.to_string())));
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, header(second, name).parse().unwrap());
    }
    let secrets = crate::webhooks::Secrets::one(crate::webhooks::Secret::parse(&secret).unwrap());
    crate::webhooks::verify(secrets.iter(), &headers, body.as_bytes(), World::real().clock.now()).unwrap();
    node.stop().await;
}

#[tokio::test]
async fn an_http_endpoint_needs_no_code() {
    let directory = tempfile::tempdir().unwrap();
    let (address, got, _receiver) = receiver(vec![BUSY, GOOD, BAD]).await;
    let node = node(directory.path(), loopback()).await;
    let submit = async |url: String| {
        let mut meta = Meta::of("application/json");
        meta.more.insert("url".into(), url.into());
        let retry = crate::RetryRequest { base_seconds: Some(0.01), ..Default::default() };
        let request = JobRequest { kind: "http".into(), retry, ..JobRequest::default() };
        let input = Input { meta, bytes: "{\"q\":1}".into() };
        let id = node.service.submit(&node.tenant, "ann", None, vec![(request, input)]).await.unwrap().ids[0];
        (id, node.ended(id).await.job)
    };
    let (id, good) = submit(format!("http://{address}/work")).await;
    assert_eq!((good.state, good.attempt), (State::Succeeded, 2));
    let (meta, bytes) = node.service.result(&node.tenant, id).await.unwrap().unwrap();
    assert_eq!((meta.content_type.as_str(), &bytes[..]), ("text/plain", &b"fine!"[..]));
    let key = format!("idempotency-key: {id}:http");
    assert!(got.lock().unwrap().iter().take(2).all(|request| request.to_ascii_lowercase().contains(&key)), "{:?}", got.lock().unwrap());
    let (_, bad) = submit(format!("http://{address}/work")).await;
    assert_eq!((bad.state, bad.attempt), (State::Dead, 1), "a 400 is not tried again");
    let (_, refused) = submit("http://10.0.0.1/".into()).await;
    assert_eq!((refused.state, refused.failure.unwrap().reason), (State::Dead, Reason::WebhookRefused));
    node.stop().await;
}
