//! Jobs on whole nodes: over HTTP, across crashes, told by webhooks.

use std::time::{Duration, Instant};

use plinth_runtime::CrashPoint;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::models::{self, command, floats};
use crate::support::{Node, NodeOptions, eventually};

async fn villain(node: &Node) {
    let directory = models::villain("", "toil");
    models::push(node, "toil", directory.path(), &["champion"]).await;
    models::default_is(node, "toil", 1).await;
}

fn inference(body: &Value) -> Value {
    json!({ "kind": "infer", "model": "toil", "input": body })
}

async fn submit(node: &Node, body: &Value) -> Value {
    let answer = node.post("/api/v1/jobs").json(body).send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

async fn show(node: &Node, id: &str) -> Value {
    node.get(&format!("/api/v1/jobs/{id}")).send().await.unwrap().json().await.unwrap()
}

/// The job once it has ended.
async fn ended(node: &Node, id: &str) -> Value {
    eventually(&format!("the end of job {id}"), Duration::from_secs(30), async || {
        let answer = node.get(&format!("/api/v1/jobs/{id}?wait=20")).send().await.ok()?;
        let job: Value = answer.json().await.ok()?;
        job["ended_at"].is_string().then_some(job)
    })
    .await
}

async fn result(node: &Node, id: &str) -> (u16, Value) {
    let answer = node.get(&format!("/api/v1/jobs/{id}/result")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inference_is_answered_later_as_it_would_have_been_at_once() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node).await;
    let body = command("delay 1ms");
    let at_once: Value = node.post("/v2/models/toil/infer").json(&body).send().await.unwrap().json().await.unwrap();
    let asked = node.post("/v2/models/toil/infer").header("Prefer", "respond-async").header("Idempotency-Key", "one");
    let answer = asked.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("preference-applied").as_str(), header("retry-after").as_str()), ("respond-async", "1"));
    let place = header("location");
    let id = place.strip_prefix("/api/v1/jobs/").unwrap().to_owned();
    let job = ended(&node, &id).await;
    assert_eq!(
        (job["state"].as_str(), job["labels"]["model"].as_str(), job["attempt"].as_u64()),
        (Some("succeeded"), Some("toil"), Some(1))
    );
    let (status, later) = result(&node, &id).await;
    assert_eq!((status, &later["outputs"]), (200, &at_once["outputs"]));
    // The same key is the same job; with another body it is refused.
    let again = node.post("/v2/models/toil/infer").header("Prefer", "respond-async").header("Idempotency-Key", "one");
    let again: Value = again.json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!((again["id"].as_str(), again["replayed"].as_bool()), (Some(id.as_str()), Some(true)));
    let other = node.post("/v2/models/toil/infer").header("Prefer", "respond-async").header("Idempotency-Key", "one");
    assert_eq!(other.json(&command("delay 2ms")).send().await.unwrap().status(), 422);
    // What the model refuses is the job's failure, in the words that a caller would have had.
    let bad = submit(&node, &inference(&json!({ "inputs": [] }))).await;
    let job = ended(&node, bad["id"].as_str().unwrap()).await;
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("dead"), Some(1)), "{job}");
    let (status, problem) = result(&node, bad["id"].as_str().unwrap()).await;
    assert_eq!((status, &problem["reason"]), (400, &job["error"]["reason"]), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_from_where_its_reader_was() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node).await;
    let submitted = submit(&node, &inference(&command("delay 300ms"))).await;
    let id = submitted["id"].as_str().unwrap();
    let answer = node.get(&format!("/api/v1/jobs/{id}/events")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = answer.text().await.unwrap();
    let states: Vec<Value> =
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(states.last().unwrap()["state"], "succeeded", "the stream ends with the job: {text}");
    assert!(states.len() >= 2, "{text}");
    let bad = node.get(&format!("/api/v1/jobs/{id}/events")).header("Last-Event-ID", "x").send().await.unwrap();
    assert_eq!(bad.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_what_waits_and_what_runs() {
    let node = Node::start(NodeOptions::dev().villain().set("jobs.workers", "1")).await;
    villain(&node).await;
    let running = submit(&node, &inference(&command("delay 20s"))).await;
    let running = running["id"].as_str().unwrap();
    eventually("the job runs", Duration::from_secs(10), async || (show(&node, running).await["state"] == "running").then_some(())).await;
    let waiting = submit(&node, &inference(&command("delay 1ms"))).await;
    let waiting = waiting["id"].as_str().unwrap();
    assert_eq!(show(&node, waiting).await["position"], 0);
    for id in [waiting, running] {
        let answer = node.post(&format!("/api/v1/jobs/{id}/cancel")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let begun = Instant::now();
    assert_eq!(ended(&node, waiting).await["state"], "cancelled");
    assert_eq!(ended(&node, running).await["state"], "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(10), "the engine is told, and not waited for");
    assert_eq!(result(&node, running).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_costs_a_job_less_than_a_second() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    villain(&node).await;
    let submitted = submit(&node, &inference(&command("abort"))).await;
    let id = submitted["id"].as_str().unwrap();
    // The input kills each runner: attempts are used up, and the job is a dead letter with its history.
    let job = ended(&node, id).await;
    assert_eq!(job["state"], "dead", "{job}");
    let attempts: Value = node.get(&format!("/api/v1/jobs/{id}/attempts")).send().await.unwrap().json().await.unwrap();
    assert!(!attempts.as_array().unwrap().is_empty(), "{attempts}");
    let replayed: Value = node.post(&format!("/api/v1/jobs/{id}/replay")).send().await.unwrap().json().await.unwrap();
    assert_eq!(replayed["replayed"], 1);
}

/// At each point of a job's life the node dies, starts again, and the job is done once.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_anywhere_goes_on_with_its_jobs() {
    for point in CrashPoint::ALL.iter().map(|point| point.name()).filter(|name| name.starts_with("job.")) {
        // Reports and large results have points of their own, which the crates' tests reach.
        if matches!(point, "job.mid_run") {
            continue;
        }
        let options = NodeOptions::dev().villain().set("jobs.inline", "\"0B\"");
        let mut node = Node::start(options).await;
        villain(&node).await;
        node.stop().await;
        node.set("testing.crash_point", &format!("{point:?}"));
        node.restart().await;
        let key = "crash";
        let mut id = None;
        if let Ok(answer) = node.post("/api/v1/jobs").header("Idempotency-Key", key).json(&inference(&command("delay 1ms"))).send().await {
            let body: Value = answer.json().await.unwrap_or_default();
            id = body["id"].as_str().map(str::to_owned);
        }
        let status = tokio::time::timeout(Duration::from_secs(20), node.wait_end()).await;
        assert!(status.is_ok_and(|status| std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)), "{point}: the node dies");
        node.set("testing.crash_point", "\"\"");
        let begun = Instant::now();
        node.restart().await;
        // What the client does not know of, it asks for again.
        let asked = node.post("/api/v1/jobs").header("Idempotency-Key", key).json(&inference(&command("delay 1ms"))).send().await.unwrap();
        let body: Value = asked.json().await.unwrap();
        if let Some(id) = id {
            assert_eq!(body["id"].as_str(), Some(id.as_str()), "{point}: what was acknowledged is there");
        }
        let job = ended(&node, body["id"].as_str().unwrap()).await;
        assert_eq!(job["state"], "succeeded", "{point}: {job}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{point}: its node gives it back at once");
        let list: Value = node.get("/api/v1/jobs").send().await.unwrap().json().await.unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{point}: {list}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_is_told_to_a_webhook() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = Node::start(NodeOptions::dev().villain().set("jobs.allow", "[\"127.0.0.0/8\"]")).await;
    villain(&node).await;
    let mut job = inference(&command("delay 1ms"));
    job["webhook"] = json!({ "url": format!("http://{address}/hook") });
    job["labels"] = json!({ "order": "17" });
    let submitted = submit(&node, &job).await;
    let (mut stream, _) = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await.unwrap().unwrap();
    let mut request = vec![0; 8192];
    let count = stream.read(&mut request).await.unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
    let text = String::from_utf8_lossy(&request[..count]).into_owned();
    assert!(text.starts_with("POST /hook HTTP/1.1") && text.contains("webhook-signature: v1,"), "{text}");
    assert!(
        text.contains("job.succeeded") && text.contains(submitted["id"].as_str().unwrap()) && text.contains("\"order\":\"17\""),
        "{text}"
    );
    // Without the network's permission nothing inside is called.
    let closed = Node::start(NodeOptions::dev()).await;
    let refused =
        closed.post("/api/v1/jobs").json(&json!({ "kind": "http", "http": { "url": "http://x.example/" }, "webhook": job["webhook"] }));
    let problem: Value = refused.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (problem["reason"].as_str(), problem["field"].as_str()),
        (Some("webhook_refused"), Some("jobs[0].webhook.url")),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_tensors_go_through_a_job() {
    let node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(2)).await;
    let mut body = floats(&models::images()[0].0);
    body["inputs"][0]["name"] = json!("image");
    body["inputs"][0]["shape"] = json!([1, 64]);
    let at_once: Value = node.post("/v2/models/digits/infer").json(&body).send().await.unwrap().json().await.unwrap();
    let mut asked = body.clone();
    asked["parameters"] = json!({ "binary_data_output": true });
    let answer = node.post("/v2/models/digits/infer").header("Prefer", "respond-async").json(&asked).send().await.unwrap();
    let submitted: Value = answer.json().await.unwrap();
    let id = submitted["id"].as_str().unwrap();
    let job = ended(&node, id).await;
    let answer = node.get(&format!("/api/v1/jobs/{id}/result")).send().await.unwrap();
    assert!(answer.headers().contains_key("inference-header-content-length"), "{job} {:?}", answer.text().await);
    let length: usize = answer.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let bytes = answer.bytes().await.unwrap();
    let head: Value = serde_json::from_slice(&bytes[..length]).unwrap();
    assert_eq!(head["model_name"], at_once["model_name"]);
    assert!(bytes.len() > length, "tensors follow the JSON");
}

/// Two nodes on one PostgreSQL, woken by NATS where there is one: a node that dies loses nothing but time.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over_the_jobs_of_a_dead_one() {
    let Some(database) = crate::remote::Database::create().await else { return };
    // The first request is never answered, so that its node can be killed while it waits; the others are.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (first, mut begun) = tokio::sync::mpsc::channel::<String>(8);
    #[allow(clippy::disallowed_methods, reason = "the test's runtime ends with the test")]
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..count]).into_owned();
            let answered = !kept.is_empty();
            first.send(text).await.unwrap();
            if answered {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone").await.unwrap();
            }
            kept.push(stream);
        }
    });
    // All with the same name: what a node takes up again after a start is its own all the same.
    let options = |workers: u32| {
        let bus = if std::net::TcpStream::connect("127.0.0.1:4222").is_ok() { "\"nats://127.0.0.1:4222\"" } else { "\"local:\"" };
        NodeOptions::dev()
            .set("metadata.url", &format!("{:?}", database.url()))
            .set("jobs.workers", &workers.to_string())
            .set("jobs.allow", "[\"127.0.0.0/8\"]")
            .set("jobs.lease", "\"2s\"")
            .set("jobs.heartbeat", "\"500ms\"")
            .set("jobs.sweep", "\"500ms\"")
            .set("bus.url", bus)
    };
    let door = Node::start(options(0)).await;
    // One job at a time, so that the next one is another's.
    let mut doomed = Node::start(options(1)).await;
    let job = json!({ "kind": "http", "http": { "url": format!("http://{address}/work") }, "input": { "q": 1 } });
    let submitted = submit(&door, &job).await;
    let id = submitted["id"].as_str().unwrap().to_owned();
    let one = tokio::time::timeout(Duration::from_secs(10), begun.recv()).await.unwrap().unwrap();
    let worker = show(&door, &id).await["worker"].clone();
    let other = Node::start(options(4)).await;
    // When it works it has long taken up what it believes to be its own.
    let quick = submit(&door, &job).await;
    tokio::time::timeout(Duration::from_secs(10), begun.recv()).await.unwrap().unwrap();
    assert_eq!(ended(&door, quick["id"].as_str().unwrap()).await["state"], "succeeded");
    let still = show(&door, &id).await;
    assert_eq!((&still["worker"], still["attempt"].as_u64()), (&worker, Some(1)), "a node that starts leaves the others' jobs alone");
    doomed.kill();
    let killed = Instant::now();
    let two = tokio::time::timeout(Duration::from_secs(15), begun.recv()).await.unwrap().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(6), "a lease of 2 s and a sweep: {:?}", killed.elapsed());
    let key = |request: &str| request.lines().find(|line| line.to_ascii_lowercase().starts_with("idempotency-key:")).unwrap().to_owned();
    assert_eq!(key(&one), key(&two), "the endpoint can tell that it knows it");
    let job = ended(&door, &id).await;
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{job}");
    let text = door.get(&format!("/api/v1/jobs/{id}/result")).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "done");
    drop((door, doomed, other));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_writes_are_counted_once() {
    let mut node = Node::start(NodeOptions::dev()).await;
    let put = node.request(reqwest::Method::PUT, "/api/v1/streams/likes").json(&json!({ "mode": "latest", "partitions": 4 }));
    assert_eq!(put.send().await.unwrap().status(), 201);
    let append = async |node: &Node, events: Value| -> Value {
        let answer = node.post("/api/v1/streams/likes/events").json(&events).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    };
    let count = async |node: &Node| -> Value {
        let stream: Value = node.get("/api/v1/streams/likes").send().await.unwrap().json().await.unwrap();
        stream["count"].clone()
    };
    let like = |id: &str, user: &str, on: bool| json!({ "id": id, "key": format!("{user}/picture-7"), "data": on.then_some(true) });
    let both = append(&node, json!({ "events": [like("1", "ann", true), like("2", "bob", true)] })).await;
    assert_eq!((both["results"][0]["status"].as_str(), both["results"][1]["status"].as_str()), (Some("new"), Some("new")));
    assert_eq!(append(&node, like("1", "ann", true)).await["results"][0]["status"], "already", "a click that is sent again is one click");
    assert_eq!(append(&node, like("1", "ann", false)).await["results"][0]["status"], "differs");
    assert_eq!(count(&node).await, 2);
    append(&node, like("3", "ann", false)).await;
    append(&node, like("4", "ann", false)).await;
    assert_eq!(count(&node).await, 1, "taken back twice is taken back");
    node.kill();
    node.restart().await;
    assert_eq!(count(&node).await, 1);
    let latest = node.get("/api/v1/streams/likes/latest?key=bob/picture-7").send().await.unwrap();
    assert_eq!(latest.json::<Value>().await.unwrap()["data"], true);
    assert_eq!(node.get("/api/v1/streams/likes/latest?key=ann/picture-7").send().await.unwrap().status(), 404);
    let own: Value = node.get("/api/v1/streams/likes/events?key=ann/picture-7").send().await.unwrap().json().await.unwrap();
    assert_eq!(own.as_array().unwrap().len(), 3, "its history is kept: {own}");
    let bad = node.post("/api/v1/streams/likes/events").json(&json!({ "id": "", "key": "k" })).send().await.unwrap();
    assert_eq!(bad.status(), 400);
}
