//! Signatures against the PyPI package `model-signing`, in both directions.
//!
//! The package is the reference implementation of OpenSSF Model Signing; `make setup` installs it at a pinned version.
#![allow(clippy::unwrap_used, reason = "a test may panic; clippy takes only #[test] functions for tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plinth_registry::signing::{self, Binding, PublicKey, SigningKey};
use plinth_runtime::SystemRandom;
use plinth_store::resources::FileEntry;
use plinth_types::{Digest, Reason, TenantName};

fn tool(arguments: &[&str], paths: &[&Path]) -> Output {
    let venv = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.plinth/venv");
    let python = venv.join("bin/python");
    assert!(python.exists(), "the Python package model-signing is not installed: run make setup");
    let output = Command::new(python).args(["-m", "model_signing"]).args(arguments).args(paths).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("No module named"),
        "the Python package model-signing is not installed completely: run make setup\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A model with folders, names that sort differently by text and by segment, an empty file and a space.
struct Model {
    directory: tempfile::TempDir,
    key: SigningKey,
}

const FILES: [(&str, &str); 7] = [
    ("model.onnx", "weights"),
    ("a-b", "1"),
    ("a/b", "2"),
    ("a/c d.txt", "3"),
    ("sub/deeper/é.bin", "4"),
    ("empty", ""),
    ("config.pbtxt", "max_batch_size: 8"),
];

impl Model {
    fn new() -> Self {
        let model = Self { directory: tempfile::tempdir().unwrap(), key: SigningKey::generate(&SystemRandom) };
        for (path, text) in FILES {
            model.write(path, text);
        }
        fs::write(model.path("key.pem"), model.key.to_pem().unwrap().as_bytes()).unwrap();
        fs::write(model.path("key.pub"), model.key.public().to_pem()).unwrap();
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("digits")
    }

    fn signature(&self) -> PathBuf {
        self.root().join("model.sig")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The files as they lie there.
    fn entries(&self) -> Vec<FileEntry> {
        fn walk(root: &Path, at: &Path, found: &mut Vec<FileEntry>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().parse().unwrap();
                    found.push(FileEntry { path: name, size: bytes.len() as u64, digest: Digest::of(&bytes) });
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root(), &self.root(), &mut found);
        found
    }

    fn sign_with_ours(&self, binding: Option<&Binding>) {
        let bundle = signing::sign("digits", &self.entries(), binding, &self.key).unwrap();
        fs::write(self.signature(), bundle).unwrap();
    }

    fn sign_with_theirs(&self, key: &str, more: &[&str]) {
        let (key, signature) = (self.path(key), self.signature());
        let mut arguments = vec!["sign", "key", "--private_key", key.to_str().unwrap(), "--signature", signature.to_str().unwrap()];
        arguments.extend(more);
        let output = tool(&arguments, &[&self.root()]);
        assert!(output.status.success(), "{output:?}");
    }

    fn theirs_accepts(&self) -> bool {
        let (key, signature) = (self.path("key.pub"), self.signature());
        let arguments = ["verify", "key", "--public_key", key.to_str().unwrap(), "--signature", signature.to_str().unwrap()];
        tool(&arguments, &[&self.root()]).status.success()
    }

    fn ours(&self) -> plinth_types::Result<signing::Verified> {
        let bundle = fs::read_to_string(self.signature()).unwrap();
        signing::verify(&bundle, &self.entries(), &[self.key.public()])
    }
}

fn binding() -> Binding {
    Binding { tenant: Some(TenantName::default_tenant()), model: "digits".parse().unwrap(), version: "2".parse().unwrap() }
}

#[test]
fn theirs_accepts_what_ours_signs_with_the_version_inside() {
    for binding in [None, Some(binding())] {
        let model = Model::new();
        model.sign_with_ours(binding.as_ref());
        assert!(model.theirs_accepts());
        assert_eq!(model.ours().unwrap().binding, binding);
    }
}

#[test]
fn ours_accepts_what_theirs_signs() {
    let model = Model::new();
    model.sign_with_theirs("key.pem", &[]);
    let verified = model.ours().unwrap();
    assert_eq!((verified.signer.as_str(), verified.binding), (model.key.public().fingerprint(), None));
    assert_eq!(verified.unlisted, ["model.sig".parse().unwrap()]);
    // The hint that the tool wrote is our fingerprint: another key is named as such.
    let bundle = fs::read_to_string(model.signature()).unwrap();
    let stranger = SigningKey::generate(&SystemRandom).public();
    assert_eq!(signing::verify(&bundle, &model.entries(), &[stranger]).unwrap_err().reason(), Reason::SignerNotTrusted);
}

#[test]
fn both_lists_are_in_the_same_order() {
    let model = Model::new();
    model.sign_with_theirs("key.pem", &[]);
    let theirs = resources(&model);
    fs::remove_file(model.signature()).unwrap();
    model.sign_with_ours(None);
    assert_eq!(resources(&model), theirs);
}

/// The subject and the resources of the bundle that lies there.
fn resources(model: &Model) -> (serde_json::Value, serde_json::Value) {
    use base64::Engine as _;
    let bundle: serde_json::Value = serde_json::from_str(&fs::read_to_string(model.signature()).unwrap()).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let payload = base64::prelude::BASE64_STANDARD.decode(payload).unwrap();
    let mut statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    (statement["subject"].take(), statement["predicate"]["resources"].take())
}

#[test]
fn both_refuse_files_that_were_altered_added_or_removed() {
    type Change = fn(&Model);
    let changes: [(&str, Change); 4] = [
        ("altered", |m| m.write("sub/deeper/é.bin", "5")),
        ("added", |m| m.write("sub/extra.so", "x")),
        ("removed", |m| fs::remove_file(m.root().join("a/b")).unwrap()),
        ("renamed", |m| fs::rename(m.root().join("empty"), m.root().join("vacant")).unwrap()),
    ];
    for ours_signs in [true, false] {
        for (name, change) in changes {
            let model = Model::new();
            if ours_signs {
                model.sign_with_ours(Some(&binding()))
            } else {
                model.sign_with_theirs("key.pem", &[])
            }
            change(&model);
            assert_eq!(model.ours().unwrap_err().reason(), Reason::ContentAltered, "{name}");
            assert!(!model.theirs_accepts(), "{name}");
        }
    }
}

#[test]
fn both_leave_out_the_files_of_git() {
    for ours_signs in [true, false] {
        let model = Model::new();
        if ours_signs {
            model.sign_with_ours(None)
        } else {
            model.sign_with_theirs("key.pem", &[])
        }
        model.write(".gitattributes", "* binary");
        model.write(".git/config", "[core]");
        assert!(model.theirs_accepts());
        assert_eq!(model.ours().unwrap().unlisted.len(), 3);
    }
}

#[test]
fn ours_refuses_what_theirs_was_told_to_ignore() {
    let model = Model::new();
    let weights = model.root().join("model.onnx");
    model.sign_with_theirs("key.pem", &["--ignore-paths", weights.to_str().unwrap()]);
    assert!(model.theirs_accepts());
    let error = model.ours().unwrap_err();
    assert_eq!((error.reason(), error.public_text().contains("'model.onnx'")), (Reason::ContentAltered, true));
}

#[test]
fn theirs_opens_our_encrypted_key() {
    let model = Model::new();
    let pem = model.key.to_encrypted_pem("open sesame", &SystemRandom).unwrap();
    fs::write(model.path("sealed.pem"), pem.as_bytes()).unwrap();
    // The tool's own --password cannot work (it passes text where bytes are needed), so its library is asked.
    let script = "import sys; from cryptography.hazmat.primitives.serialization import load_pem_private_key as load, Encoding, PublicFormat\n\
        key = load(open(sys.argv[1], 'rb').read(), b'open sesame')\n\
        print(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), end='')";
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.plinth/venv/bin/python");
    assert!(python.exists(), "the Python package model-signing is not installed: run make setup");
    let output = Command::new(python).args(["-c", script]).arg(model.path("sealed.pem")).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(PublicKey::from_pem(&printed).unwrap(), model.key.public());
    assert_eq!(printed, model.key.public().to_pem(), "the same text, so the same fingerprint");
}
