//! Faults: real processes killed, hung, starved, cut off; the invariant checker after each.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use plinth_runtime::{CrashPoint, World};
use plinth_store::metadata::{MetadataOptions, MetadataUrl};
use plinth_store::objects::{ObjectsOptions, ObjectsUrl};
use plinth_types::{DataType, Digest, Dim};
use serde_json::Value;

use crate::support::models::{self, command, floats, infer};
use crate::support::{Node, NodeOptions, eventually};

/// Opens the stores of a node that is not running and checks everything that must always hold.
async fn check_invariants(node: &Node) {
    let (world, data) = (World::real(), node.data_dir());
    let url = MetadataUrl::parse("sqlite:", &data).unwrap();
    let metadata = plinth_store::metadata::open(&MetadataOptions::new(url), &world).await.unwrap();
    let url = ObjectsUrl::parse("file:", &data).unwrap();
    let objects = plinth_store::objects::open(&ObjectsOptions::new(url), &world).await.unwrap();
    plinth_registry::testing::check(metadata.as_ref(), objects.as_ref()).await.expect("the invariants hold");
    metadata.close().await;
}

fn points(prefix: &str) -> Vec<&'static str> {
    let found: Vec<_> = CrashPoint::ALL.iter().map(|p| p.name()).filter(|n| n.starts_with(prefix)).collect();
    assert!(!found.is_empty());
    found
}

#[test]
fn every_crash_point_is_visited() {
    // By the three tests below and that of jobs, each of which takes all points that begin so; events by those of their crate.
    let visited = ["push.", "promote.", "snapshot.", "migrate.", "job.", "events."];
    for point in CrashPoint::ALL {
        assert!(visited.iter().any(|prefix| point.name().starts_with(prefix)), "no test dies at {}", point.name());
    }
}

fn killed(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

#[tokio::test]
async fn a_push_that_dies_anywhere_leaves_nothing_half_done() {
    for point in points("push.") {
        let mut node = Node::start(NodeOptions::dev().set("testing.crash_point", &format!("{point:?}"))).await;
        models::try_push(&node, "digits", &models::digits(1), &[]).await.expect_err("the node dies");
        assert!(killed(node.wait_end().await), "{point}");
        check_invariants(&node).await;

        node.set("testing.crash_point", "\"\"");
        node.restart().await;
        let version = models::push(&node, "digits", &models::digits(1), &["champion"]).await;
        assert_eq!(version.number.get(), 1, "{point}: the push is repeated, not doubled");
        models::default_is(&node, "digits", 1).await;
        node.stop().await;
        check_invariants(&node).await;
        assert_eq!(std::fs::read_dir(node.data_dir().join("objects/tmp")).map_or(0, Iterator::count), 0, "{point}");
    }
}

#[tokio::test]
async fn a_promotion_that_dies_anywhere_is_done_or_not_done() {
    for point in points("promote.").into_iter().chain(points("snapshot.")) {
        let mut node = Node::start(NodeOptions::dev()).await;
        models::deploy(&node, "digits", &models::digits(1)).await;
        models::push(&node, "digits", &models::digits(2), &[]).await;
        node.stop().await;

        node.set("testing.crash_point", &format!("{point:?}"));
        if point.starts_with("snapshot.") {
            // The first pass is at the start, the steady ones come by themselves; die at the one after the promotion.
            node.set("snapshot.interval", "\"1h\"");
            node.set("testing.crash_pass", "2");
        }
        node.spawn();
        node.wait_ready().await;
        let _ = models::promote(&node, "digits", 2).await;
        assert!(killed(node.wait_end().await), "{point}");
        check_invariants(&node).await;

        node.set("testing.crash_point", "\"\"");
        node.restart().await;
        let champion = node.client().model(&models::name("digits")).await.unwrap().aliases["champion" as &str].get();
        let expected = if point == "promote.before_commit" { 1 } else { 2 };
        assert_eq!(champion, expected, "{point}");
        models::default_is(&node, "digits", champion).await;
    }
}

#[tokio::test]
async fn a_migration_that_dies_anywhere_goes_on_at_the_next_start() {
    for point in points("migrate.") {
        for pass in ["1", "2"] {
            let mut node =
                Node::prepare(NodeOptions::dev().set("testing.crash_point", &format!("{point:?}")).set("testing.crash_pass", pass));
            node.spawn();
            assert!(killed(node.wait_end().await), "{point} {pass}\n{}", node.log());
            node.set("testing.crash_point", "\"\"");
            node.restart().await;
            models::deploy(&node, "digits", &models::digits(1)).await;
            node.stop().await;
            check_invariants(&node).await;
        }
    }
}

#[tokio::test]
async fn a_killed_runner_costs_its_requests_and_less_than_two_seconds() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    models::deploy(&node, "victim", models::villain("", "1").path()).await;
    let bystander = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(1)]);
    models::deploy(&node, "bystander", bystander.path()).await;

    let url = format!("{}/v2/models/victim/infer", node.http);
    let in_flight = tokio::spawn(async move { reqwest::Client::new().post(url).json(&command("delay 1s")).send().await.unwrap() });
    models::in_flight(&node, "victim", 1).await;
    let pid = models::served(&node, "victim", 1).await.unwrap().pid.unwrap();
    let start = Instant::now();
    kill(pid);
    let answer = in_flight.await.unwrap();
    assert_eq!(answer.status(), 200, "it is executed once more, by the next runner");
    assert!(start.elapsed() < Duration::from_secs(3), "one second of it is the request's own: {:?}", start.elapsed());
    assert_eq!(infer(&node, "bystander", &floats(&[1.0])).await.0, 200, "nobody else is hurt");

    let start = Instant::now();
    kill(models::served(&node, "victim", 1).await.unwrap().pid.unwrap());
    eventually("it answers again", Duration::from_secs(2), async || {
        (infer(&node, "victim", &command("delay 0ms")).await.0 == 200).then_some(())
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let after = models::served(&node, "victim", 1).await.unwrap();
    assert_ne!(after.pid, Some(pid));
    assert_eq!(after.restarts, 2);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_restart_does_not_wait_behind_slow_loads() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    models::deploy(&node, "victim", models::villain("", "1").path()).await;
    for n in 0..6 {
        models::push(&node, &format!("slow-{n}"), models::villain("load_delay = \"20s\"", &n.to_string()).path(), &["champion"]).await;
    }
    let start = Instant::now();
    kill(models::served(&node, "victim", 1).await.unwrap().pid.unwrap());
    eventually("it answers again", Duration::from_secs(2), async || {
        (infer(&node, "victim", &command("delay 0ms")).await.0 == 200).then_some(())
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_damaged_snapshot_is_set_aside_and_made_anew() {
    let mut node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    node.stop().await;
    let file = node.data_dir().join("snapshot.json");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    node.restart().await;
    models::default_is(&node, "digits", 1).await;
    assert!(node.data_dir().join("snapshot.json.damaged").exists());
    check_snapshot_is_sound(&node);
}

fn check_snapshot_is_sound(node: &Node) {
    let text = std::fs::read(node.data_dir().join("snapshot.json")).unwrap();
    let line = text.iter().position(|b| *b == b'\n').unwrap();
    let header: Value = serde_json::from_slice(&text[..line]).unwrap();
    assert_eq!(header["sha256"], Digest::of(&text[line + 1..]).to_string());
}

#[tokio::test]
async fn another_database_in_its_place_takes_nothing_away_and_gets_no_changes() {
    let mut node = Node::start(NodeOptions::default()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    node.stop().await;
    let database = node.data_dir().join("metadata.sqlite");
    let backup = std::fs::read(&database).unwrap();
    node.restart().await;
    models::deploy(&node, "digits", &models::digits(2)).await;
    node.stop().await;

    // An older backup; then nothing at all.
    for replaced in [Some(&backup), None] {
        for file in ["metadata.sqlite", "metadata.sqlite-wal", "metadata.sqlite-shm"] {
            let _ = std::fs::remove_file(node.data_dir().join(file));
        }
        if let Some(bytes) = replaced {
            std::fs::write(&database, bytes).unwrap();
        }
        node.spawn();
        node.wait_ready().await;
        models::default_is(&node, "digits", 2).await;
        let edit =
            node.request(reqwest::Method::PATCH, "/v1/models/digits").json(&serde_json::json!({"description": "x"})).send().await.unwrap();
        assert_eq!(edit.status(), 409, "the old key is known, the change is refused");
        assert_eq!(edit.json::<Value>().await.unwrap()["reason"], "ledger_diverged");
        node.stop().await;
    }
    // Somebody decides for the backup.
    std::fs::write(&database, &backup).unwrap();
    for file in ["metadata.sqlite-wal", "metadata.sqlite-shm", "snapshot.json"] {
        let _ = std::fs::remove_file(node.data_dir().join(file));
    }
    node.spawn();
    node.wait_ready().await;
    models::default_is(&node, "digits", 1).await;
    node.stop().await;
    check_invariants(&node).await;
}

#[tokio::test]
async fn three_crashes_are_quarantine_and_the_previous_version_serves() {
    let node = Node::start(NodeOptions::dev().villain()).await;
    models::deploy(&node, "m", models::villain("", "good").path()).await;
    models::deploy(&node, "m", models::villain("", "bad").path()).await;
    let bad = node.client().model(&models::name("m")).await.unwrap().served;
    assert!(bad.iter().any(|s| s.version.get() == 2 && s.default));

    // The first is tried twice and found guilty; the next one brings the third crash.
    let url = format!("{}/v2/models/m/versions/2/infer", node.http);
    for (deed, before, expected) in [("crash", 0, 502), ("crash", 2, 400), ("abort", 2, 503)] {
        models::deaths_are_noticed(&node, before).await;
        models::state_is(&node, "m", 2, "ready").await;
        let answer = reqwest::Client::new().post(&url).json(&command(deed)).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{deed}");
    }
    let held = models::state_is(&node, "m", 2, "quarantined").await;
    assert!(!held.default);
    models::default_is(&node, "m", 1).await;
    let (status, answer) = infer(&node, "m", &command("delay 0ms")).await;
    assert_eq!((status, &answer["model_version"]), (200, &Value::from("1")));

    // Somebody asks for it again by hand: a fresh start.
    let load = node.post("/v2/repository/models/m/load").send().await.unwrap();
    assert!(load.status().is_success(), "{}", load.text().await.unwrap());
    models::default_is(&node, "m", 2).await;
}

#[tokio::test]
async fn every_misdeed_of_a_model_is_answered_and_contained() {
    let options = NodeOptions::dev().villain().set("engine.execution_timeout", "\"500ms\"").set("engine.memory_limit", "\"64MiB\"");
    let node = Node::start(options).await;
    let bystander = models::identity(DataType::Fp32, &[Dim::Any, Dim::Fixed(1)]);
    models::deploy(&node, "bystander", bystander.path()).await;
    let expectations = [
        ("fail", &[500][..]),
        ("wrong_shape", &[502]),
        ("wrong_type", &[502]),
        ("missing_output", &[502]),
        ("crash", &[502]),
        ("exit 3", &[502]),
        ("hang", &[502, 504]),
    ];
    for (misdeed, statuses) in expectations {
        let model = format!("v-{}", misdeed.replace([' ', '_'], "-"));
        models::deploy(&node, &model, models::villain("", misdeed).path()).await;
        let start = Instant::now();
        let (status, answer) = infer(&node, &model, &command(misdeed)).await;
        assert!(statuses.contains(&status), "{misdeed}: {status} {answer}");
        assert!(answer["error"].as_str().is_some_and(|e| !e.is_empty()), "{misdeed}: {answer}");
        assert!(start.elapsed() < Duration::from_secs(5), "{misdeed}: {:?}", start.elapsed());
        assert_eq!(infer(&node, "bystander", &floats(&[1.0])).await.0, 200, "after {misdeed}");
        eventually(&format!("it is back after {misdeed}"), Duration::from_secs(3), async || {
            (infer(&node, &model, &command("delay 0ms")).await.0 == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_runner_does_not_get_more_memory_than_its_limit() {
    let node = Node::start(NodeOptions::dev().villain().set("engine.memory_limit", "\"64MiB\"")).await;
    models::deploy(&node, "greedy", models::villain("", "1").path()).await;
    let leak = |size: &str| {
        let mut body = command(&format!("leak {size}"));
        body["outputs"] = serde_json::json!([{"name": "report"}]);
        body
    };
    let report = async |size: &str| {
        let (status, answer) = infer(&node, "greedy", &leak(size)).await;
        assert_eq!(status, 200, "{answer}");
        answer["outputs"][0]["data"][0].as_str().unwrap().to_owned()
    };
    assert_eq!(report("16MiB").await, "done");
    assert_eq!(report("256MiB").await, "refused: no memory");
    assert_eq!(infer(&node, "greedy", &command("delay 0ms")).await.0, 200);
}

#[tokio::test]
async fn runners_end_with_their_node() {
    let mut node = Node::start(NodeOptions::dev()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    let pid = models::served(&node, "digits", 1).await.unwrap().pid.unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    node.kill();
    eventually("the runner is gone", Duration::from_secs(5), async || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let mut node = Node::start(NodeOptions::dev()).await;
    let bytes = vec![7u8; 1 << 20];
    let digest = Digest::of(&bytes);
    let address = node.http.trim_start_matches("http://").to_owned();
    let head = format!("PUT /v1/blobs/{digest} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!node.client().has_blob(&digest).await.unwrap());
    assert_eq!(std::fs::read_dir(node.data_dir().join("objects/tmp")).map_or(0, Iterator::count), 0);

    // The same bytes under another digest are refused, and say why.
    let lie = Digest::of(b"something else");
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    write!(stream, "PUT /v1/blobs/{lie} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("digest_mismatch"), "{answer}");
    node.stop().await;
    check_invariants(&node).await;
}

/// A file system of a few MiB; `None` where mounting is not allowed.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let done = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).status();
        done.is_ok_and(|s| s.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let mut node = Node::prepare(NodeOptions::dev());
    let Some(disk) = SmallDisk::mount(&node.data_dir(), "12m") else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    node.spawn();
    node.wait_ready().await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    let big = models::directory(&[("model.onnx", &vec![1u8; 16 << 20])]);
    let error = models::try_push(&node, "big", big.path(), &[]).await.unwrap_err();
    assert_eq!(error.reason(), Some("storage_full"), "{error}");
    let body = serde_json::json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": vec![1.0; 64]}]});
    assert_eq!(infer(&node, "digits", &body).await.0, 200);
    models::push(&node, "digits", &models::digits(2), &[]).await;
    node.stop().await;
    check_invariants(&node).await;
    drop(node);
    drop(disk);
}
