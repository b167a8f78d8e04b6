//! SIGHUP on a whole node: it looks for what has changed, and does not end.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Node, NodeOptions, eventually};

fn write_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(directory.join("tls.crt"), made.cert.pem()).expect("a file");
    std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).expect("a file");
}

async fn hang_up_until(node: &Node, says: &str) {
    let pid = Pid::from_raw(i32::try_from(node.pid()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::HUP).expect("a signal");
    eventually(says, Duration::from_secs(10), async || node.log().contains(says).then_some(())).await;
}

#[tokio::test]
async fn a_hangup_takes_new_certificates_and_leaves_bad_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| format!("[{:?}]", directory.path().join(name));
    write_certificate(directory.path());
    let options =
        NodeOptions::default().set("tls.certificates", &file("tls.crt")).set("tls.keys", &file("tls.key")).set("tls.reload", "\"1h\"");
    let mut node = Node::prepare(options);
    node.spawn();
    node.wait_listening().await;
    hang_up_until(&node, "the certificates are the same as before").await;
    write_certificate(directory.path());
    hang_up_until(&node, "new certificates are in force").await;
    std::fs::write(directory.path().join("tls.crt"), "no certificate").expect("a file");
    hang_up_until(&node, "the old ones stay in force").await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_hangup_ends_no_node() {
    let mut node = Node::start(NodeOptions::default()).await;
    hang_up_until(&node, "the ledger is looked at").await;
    assert_eq!(node.get("/v2").send().await.expect("an answer").status(), 200);
    assert_eq!(node.stop().await, Some(0));
}
