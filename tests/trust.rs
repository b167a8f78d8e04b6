//! Only what was approved runs: a node that requires signatures, met with everything that is not right.

use std::path::Path;
use std::time::Duration;

use plinth_client::wire;
use plinth_registry::{Binding, RollbackPermission, SigningKey, signing};
use plinth_runtime::SystemRandom;
use plinth_store::resources::FileEntry;
use plinth_types::{AliasName, DataType, Digest, Dim, TenantName};
use serde_json::Value;

use crate::support::models::{self, floats, infer, name, number};
use crate::support::{Node, NodeOptions, eventually};

struct Signer {
    key: SigningKey,
    directory: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        let (key, directory) = (SigningKey::generate(&SystemRandom), tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("release.pub.pem"), key.public().to_pem()).unwrap();
        Self { key, directory }
    }

    async fn strict_node(&self) -> Node {
        let trusted = format!("[{:?}]", self.directory.path().join("release.pub.pem"));
        Node::start(NodeOptions::dev().set("signing.require_signature", "true").set("signing.trusted_keys", &trusted)).await
    }

    /// Signs the files of a directory as a version of a model.
    fn sign(&self, directory: &Path, model: &str, version: u64) -> String {
        let binding = Binding { tenant: Some(TenantName::default_tenant()), model: name(model), version: number(version) };
        signing::sign(model, &files(directory), Some(&binding), &self.key).unwrap()
    }

    fn permission(&self, model: &str, version: u64, content: Digest, sequence: u64) -> String {
        let permission = RollbackPermission {
            tenant: TenantName::default_tenant(),
            model: name(model),
            alias: AliasName::champion(),
            version: number(version),
            content,
            sequence,
            issued_at: plinth_types::Timestamp::from_millis(sequence).unwrap(),
        };
        permission.sign(&self.key).unwrap()
    }
}

fn files(directory: &Path) -> Vec<FileEntry> {
    let entries = std::fs::read_dir(directory).unwrap().flatten().filter(|e| e.file_name() != "model.sig");
    let file = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path()).unwrap();
        FileEntry { path: entry.file_name().to_str().unwrap().parse().unwrap(), size: bytes.len() as u64, digest: Digest::of(&bytes) }
    };
    entries.map(file).collect()
}

fn model(offset: f32) -> tempfile::TempDir {
    models::directory(&[("model.onnx", &plinth_engine::testing::onnx_model::offset(offset))])
}

async fn push_signed(node: &Node, directory: &Path, signature: String, aliases: &[&str]) -> plinth_client::Result<wire::Version> {
    std::fs::write(directory.join("model.sig"), signature).unwrap();
    models::try_push(node, "m", directory, aliases).await
}

/// Waits until the version is refused and says why; the old one goes on.
async fn refused(node: &Node, version: u64, reason: &str) {
    let served = models::state_is(node, "m", version, "failed").await;
    let text = served.reason.unwrap();
    assert!(text.starts_with(reason), "{version}: {text}");
    assert!(!text.contains("/tmp"), "{text}");
    let (status, answer) = infer(node, "m", &input()).await;
    assert_eq!((status, &answer["model_version"]), (200, &Value::from("1")), "{reason}: {answer}");
}

fn input() -> Value {
    let mut body = floats(&[1.0]);
    body["inputs"][0]["shape"] = serde_json::json!([1]);
    body
}

#[tokio::test]
async fn unsigned_wrongly_signed_and_misplaced_versions_are_refused_and_the_old_one_serves() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let node = signer.strict_node().await;
    let good = model(1.0);
    push_signed(&node, good.path(), signer.sign(good.path(), "m", 1), &["champion"]).await.unwrap();
    models::default_is(&node, "m", 1).await;

    let unsigned = model(2.0);
    models::push(&node, "m", unsigned.path(), &["champion"]).await;
    refused(&node, 2, "signature_missing").await;

    let foreign = model(3.0);
    push_signed(&node, foreign.path(), stranger.sign(foreign.path(), "m", 3), &["champion"]).await.unwrap();
    refused(&node, 3, "signer_not_trusted").await;

    // What does not even fit its own signature is not taken in at all.
    let altered = model(4.0);
    let signature = signer.sign(altered.path(), "m", 4);
    std::fs::write(altered.path().join("model.onnx"), plinth_engine::testing::onnx_model::offset(666.0)).unwrap();
    let error = push_signed(&node, altered.path(), signature, &["champion"]).await.unwrap_err();
    assert_eq!(error.reason(), Some("content_altered"), "{error}");

    // Nor is a good version under another number, or of another model.
    let elsewhere = model(5.0);
    for (as_model, as_number) in [("other", 4), ("m", 9)] {
        let error = push_signed(&node, elsewhere.path(), signer.sign(elsewhere.path(), as_model, as_number), &[]).await.unwrap_err();
        assert_eq!(error.reason(), Some("signature_invalid"), "{error}");
    }

    // A signature that comes later opens the door without another push.
    let signature = signer.sign(unsigned.path(), "m", 2);
    node.client().attach_signature(&name("m"), number(2), &wire::Signature { bundle: signature }).await.unwrap();
    models::promote(&node, "m", 2).await.unwrap();
    models::default_is(&node, "m", 2).await;
    let verification = node.client().verification(&name("m"), number(2)).await.unwrap();
    assert_eq!((verification.accepted, verification.signer.as_deref()), (true, Some(signer.key.public().fingerprint())));
    let verification = node.client().verification(&name("m"), number(3)).await.unwrap();
    assert_eq!((verification.accepted, verification.reason.as_deref()), (false, Some("signer_not_trusted")));
}

/// Flips one bit in the middle of every file below a directory; how many.
fn flip(directory: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            count += flip(&entry.path());
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if let Some(byte) = bytes.len().checked_div(2).and_then(|middle| bytes.get_mut(middle)) {
            *byte ^= 1;
            let mut permissions = entry.metadata().unwrap().permissions();
            #[allow(clippy::permissions_set_readonly_false, reason = "the test plays somebody who may")]
            permissions.set_readonly(false);
            std::fs::set_permissions(entry.path(), permissions).unwrap();
            std::fs::write(entry.path(), bytes).unwrap();
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn bytes_that_were_altered_on_disk_are_never_loaded() {
    let signer = Signer::new();
    let mut node = signer.strict_node().await;
    let (one, two) = (model(1.0), model(2.0));
    push_signed(&node, one.path(), signer.sign(one.path(), "m", 1), &["champion"]).await.unwrap();
    models::default_is(&node, "m", 1).await;
    push_signed(&node, two.path(), signer.sign(two.path(), "m", 2), &[]).await.unwrap();

    // Somebody changes the stored bytes of version 2 before it is ever loaded.
    let file = files(two.path()).remove(0).digest.hex();
    let stored = node.data_dir().join("objects/sha256").join(&file[..2]);
    assert_eq!(flip(&stored), 1);
    models::promote(&node, "m", 2).await.unwrap();
    refused(&node, 2, "content_altered").await;
    let verification = node.client().verification(&name("m"), number(2)).await.unwrap();
    assert_eq!((verification.accepted, verification.reason.as_deref()), (false, Some("content_altered")), "what is damaged is gone");

    // Another push puts the right bytes there, and a load asks for them again.
    let again = push_signed(&node, two.path(), signer.sign(two.path(), "m", 2), &[]).await.unwrap();
    assert_eq!(again.number.get(), 2);
    let load = node.post("/v2/repository/models/m/load").send().await.unwrap();
    assert!(load.status().is_success(), "{}", load.text().await.unwrap());
    models::default_is(&node, "m", 2).await;

    // A cached copy that was changed is thrown away and fetched anew, at start too.
    node.stop().await;
    assert!(flip(&node.data_dir().join("cache")) >= 1);
    node.restart().await;
    models::default_is(&node, "m", 2).await;
    let (status, answer) = infer(&node, "m", &input()).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &serde_json::json!([3.0])));
}

#[tokio::test]
async fn an_older_version_needs_a_signed_permission() {
    let signer = Signer::new();
    let mut node = signer.strict_node().await;
    let (one, two) = (model(1.0), model(2.0));
    let first = push_signed(&node, one.path(), signer.sign(one.path(), "m", 1), &["champion"]).await.unwrap();
    models::default_is(&node, "m", 1).await;
    push_signed(&node, two.path(), signer.sign(two.path(), "m", 2), &["champion"]).await.unwrap();
    models::default_is(&node, "m", 2).await;

    let back = |permission: Option<String>| wire::RollBack { permission, comment: String::new() };
    node.client().roll_back(&name("m"), &back(None)).await.unwrap();
    let served = models::state_is(&node, "m", 1, "failed").await;
    assert!(served.reason.unwrap().starts_with("downgrade_refused"));
    models::default_is(&node, "m", 2).await;

    // A permission for something else is not taken; the right one opens the way, once.
    let to =
        |permission: String| wire::MoveAlias { version: number(1), expect: None, permission: Some(permission), comment: String::new() };
    let champion = AliasName::champion();
    let wrong = signer.permission("m", 1, Digest::of(b"something else"), 1_000);
    let error = node.client().move_alias(&name("m"), &champion, &to(wrong)).await.unwrap_err();
    assert_eq!(error.reason(), Some("signature_invalid"), "{error}");
    let permission = signer.permission("m", 1, first.content, 2_000);
    node.client().move_alias(&name("m"), &champion, &to(permission.clone())).await.unwrap();
    models::default_is(&node, "m", 1).await;
    node.restart().await;
    models::default_is(&node, "m", 1).await;

    models::promote(&node, "m", 2).await.unwrap();
    models::default_is(&node, "m", 2).await;
    node.client().move_alias(&name("m"), &champion, &to(permission)).await.unwrap();
    eventually("the used permission is refused", Duration::from_secs(10), async || {
        models::served(&node, "m", 1).await.filter(|s| s.reason.as_deref().is_some_and(|r| r.starts_with("downgrade_refused")))
    })
    .await;
    models::default_is(&node, "m", 2).await;
}

#[tokio::test]
async fn a_version_that_was_let_in_by_its_number_is_judged_again_before_it_answers() {
    let signer = Signer::new();
    let node = signer.strict_node().await;
    for version in [1, 2, 3] {
        let files = model(version as f32);
        push_signed(&node, files.path(), signer.sign(files.path(), "m", version), &["champion"]).await.unwrap();
        models::default_is(&node, "m", version).await;
    }
    // Version 1 is loaded beside version 3, which is allowed, and then moved to the front, which is not.
    let pin = serde_json::json!({"resources": [{"kind": "deployment", "name": "m", "spec": {"versions": [1]}}]});
    assert!(node.post("/v1/apply").json(&pin).send().await.unwrap().status().is_success());
    models::state_is(&node, "m", 1, "ready").await;
    models::promote(&node, "m", 1).await.unwrap();
    eventually("the downgrade is refused", Duration::from_secs(10), async || {
        models::served(&node, "m", 1).await.filter(|s| s.reason.as_deref().is_some_and(|r| r.starts_with("downgrade_refused")))
    })
    .await;
    models::default_is(&node, "m", 3).await;
    assert_eq!(infer(&node, "m", &input()).await.1["model_version"], "3");
    let by_number = node.post("/v2/models/m/versions/1/infer").json(&input()).send().await.unwrap();
    assert_eq!(by_number.status(), 200, "by its number it still answers");
}

#[tokio::test]
async fn a_strict_node_falls_back_on_its_own_to_what_it_served_before() {
    let signer = Signer::new();
    let trusted = format!("[{:?}]", signer.directory.path().join("release.pub.pem"));
    let options = NodeOptions::dev().villain().set("signing.require_signature", "true").set("signing.trusted_keys", &trusted);
    let node = Node::start(options).await;
    for version in [1, 2] {
        let villain = models::villain("", &version.to_string());
        push_signed(&node, villain.path(), signer.sign(villain.path(), "m", version), &["champion"]).await.unwrap();
        models::default_is(&node, "m", version).await;
    }
    // Each is tried twice, and the third crash in a minute is one too many.
    for (deed, before, answers) in [("crash", 0, &[502][..]), ("abort", 2, &[502, 503])] {
        models::deaths_are_noticed(&node, before).await;
        models::state_is(&node, "m", 2, "ready").await;
        let (status, body) = infer(&node, "m", &models::command(deed)).await;
        assert!(answers.contains(&status), "{deed}: {status} {body}");
    }
    models::state_is(&node, "m", 2, "quarantined").await;
    models::default_is(&node, "m", 1).await;
}

#[tokio::test]
async fn a_node_that_asks_for_nothing_serves_the_unsigned() {
    let node = Node::start(NodeOptions::dev()).await;
    let x = models::identity(DataType::Fp32, &[Dim::Any]);
    models::deploy(&node, "m", x.path()).await;
    let verification = node.client().verification(&name("m"), number(1)).await.unwrap();
    assert!(verification.accepted && !verification.signed);
}
