//! The binary as its users meet it: help texts, mistakes, exit codes, signing on this machine. No node is needed.

#![allow(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs the binary in `directory` with nothing of this machine's environment.
fn plinth(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
    command.args(arguments).current_dir(directory).env_clear().env("HOME", directory);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a failing command says, with its exit code.
fn failure(directory: &Path, line: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = plinth(directory, &arguments);
    assert!(output.stdout.is_empty(), "a failure writes nothing to standard output: {}", text(&output.stdout));
    let shown = text(&output.stderr).replace(directory.to_str().unwrap(), "<DIR>");
    format!("$ plinth {line}\n{shown}exit code {}\n", output.status.code().unwrap())
}

fn model(directory: &Path) -> std::path::PathBuf {
    let model = directory.join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("model.onnx"), "graph").unwrap();
    std::fs::write(model.join("labels.txt"), "0\n1\n").unwrap();
    model
}

#[test]
fn help_texts() {
    let root = tempfile::tempdir().unwrap();
    let commands = [
        "",
        "up",
        "status",
        "doctor",
        "model",
        "model push",
        "model list",
        "model show",
        "model sign",
        "model verify",
        "model promote",
        "model rollback",
        "model warm",
        "model retire",
        "model restore",
        "model delete",
        "model edit",
        "model unalias",
        "model audit",
        "model undo",
        "infer",
        "job",
        "job submit",
        "job list",
        "job show",
        "job wait",
        "job result",
        "job input",
        "job events",
        "job attempts",
        "job cancel",
        "job replay",
        "job counts",
        "kind",
        "kind list",
        "kind pause",
        "kind resume",
        "kind limit",
        "schedule",
        "schedule list",
        "schedule show",
        "schedule put",
        "schedule delete",
        "schedule pause",
        "schedule resume",
        "webhook",
        "webhook secret rotate",
        "key",
        "key new",
        "key create",
        "key list",
        "key delete",
        "login",
        "logout",
        "apply",
        "diff",
        "get",
        "delete",
        "history",
        "rollback",
        "gc",
        "config",
        "config check",
        "config show",
        "config docs",
        "completions",
        "exit-codes",
    ];
    let mut all = String::new();
    for command in commands {
        let mut arguments: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
        arguments.push("-h");
        let output = plinth(root.path(), &arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{command}");
        all.push_str(&format!("$ plinth {}\n{}\n", arguments.join(" "), text(&output.stdout)));
    }
    assert!(!all.contains("runner\n"), "the runner stays hidden");
    insta::assert_snapshot!(all);
}

#[test]
fn mistakes_say_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    model(root.path());
    std::fs::write(root.path().join("wrong.toml"), "[listen]\nhtp = \"127.0.0.1:1\"\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", root.path().join("model/link")).unwrap();
    let lines = [
        "status --server http://127.0.0.1:1",
        "status --server http://127.0.0.1:1 --json",
        "status --server 127.0.0.1:8000",
        "statsu",
        "model push model --name a/b",
        "model push model --name digits --server http://127.0.0.1:1",
        "model push nowhere --name digits --server http://127.0.0.1:1",
        "model retire digits --server http://127.0.0.1:1",
        "model delete digits --server http://127.0.0.1:1",
        "model sign model --sign-key k.pem",
        "model verify ../x",
        "model warm digits --file missing.jsonl",
        "model warm digits --file wrong.toml",
        "config check wrong.toml",
        "config show --set listen.htp=1",
        "up --set listen=1",
        "apply -f missing.toml",
        "login --server http://127.0.0.1:1",
        "job submit",
        "job submit --model digits",
        "job submit --kind http --model digits --input {}",
        "job submit --model digits --input missing.json",
        "job submit --file wrong.toml --server http://127.0.0.1:1",
        "job show 17",
        "job list --state lost",
        "job replay --all",
        "kind limit infer",
        "schedule put nightly --model digits",
    ];
    insta::assert_snapshot!(lines.map(|line| failure(root.path(), line)).join("\n"));
}

#[test]
fn a_directory_is_signed_and_verified_on_this_machine() {
    let root = tempfile::tempdir().unwrap();
    let model = model(root.path());
    let run = |line: &str| plinth(root.path(), &line.split(' ').collect::<Vec<_>>());
    assert!(run("key new --out release").status.success());
    let again = run("key new --out release");
    assert_eq!(again.status.code(), Some(6), "{}", text(&again.stderr));
    let mode = std::os::unix::fs::PermissionsExt::mode(&root.path().join("release.pem").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let signed = run("model sign model --name digits --version 4 --sign-key release.pem");
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    let good = run("model verify model --public-key release.pub.pem --json");
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let verdict: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!((&verdict["accepted"], verdict["detail"].as_str()), (&true.into(), Some("signed as default/digits/4")));
    std::fs::write(model.join("labels.txt"), "1\n0\n").unwrap();
    let altered = run("model verify model --public-key release.pub.pem");
    assert_eq!(altered.status.code(), Some(7));
    assert!(text(&altered.stdout).contains("content_altered") && text(&altered.stdout).contains("labels.txt"), "{}", text(&altered.stdout));
    std::fs::remove_file(model.join("model.sig")).unwrap();
    assert_eq!(run("model verify model --public-key release.pub.pem").status.code(), Some(7));
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let root = tempfile::tempdir().unwrap();
    model(root.path());
    std::fs::write(root.path().join("passphrase"), "open sesame\n").unwrap();
    let run = |line: &str| plinth(root.path(), &line.split(' ').collect::<Vec<_>>());
    assert!(run("key new --out k --passphrase-file passphrase").status.success());
    let sign = "model sign model --name digits --version 1 --sign-key k.pem";
    let refused = run(sign);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--passphrase-file"), "{}", text(&refused.stderr));
    let signed = run(&format!("{sign} --passphrase-file passphrase"));
    assert!(signed.status.success(), "{}", text(&signed.stderr));
}

#[test]
fn colours_and_bars_stay_out_of_files_and_completions_are_scripts() {
    let root = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["exit-codes"], &["completions", "bash"], &["config", "docs"]] {
        let output = plinth(root.path(), arguments);
        assert!(output.status.success());
        assert!(!output.stdout.contains(&0x1b), "{arguments:?}");
        assert!(output.stdout.len() > 100);
    }
    let show = plinth(root.path(), &["config", "show", "--json", "--set", "node.name=x"]);
    let keys: Vec<serde_json::Value> = serde_json::from_slice(&show.stdout).unwrap();
    assert!(keys.iter().any(|k| k["key"] == "node.name" && k["value"] == "\"x\""), "{keys:?}");
}
