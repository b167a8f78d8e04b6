//! The command line as a user has it: the real binary against a real node, with exit codes and JSON.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::models;
use crate::support::{Node, NodeOptions, repository};

struct Shell<'a> {
    node: &'a Node,
    home: tempfile::TempDir,
}

impl Shell<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command.env("PLINTH_SERVER", &self.node.http);
        if let Some(key) = self.node.key() {
            command.env("PLINTH_KEY", key);
        }
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Runs a command that must succeed; its standard output.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {:?}\n{out}\n{err}", output.status);
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "no colours outside a terminal");
        out.into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{text}"))
    }

    /// Runs a command that must fail with this code; what it said.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(output.stdout.is_empty(), "an error says nothing on standard output");
        assert!(err.starts_with("error: ") && err.contains("next: "), "{arguments:?}: {err}");
        err
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_key_to_roll_back() {
    let keys = tempfile::tempdir().unwrap();
    let prefix = keys.path().join("release").to_str().unwrap().to_owned();
    let made = Command::new(env!("CARGO_BIN_EXE_plinth")).args(["key", "new", "--out", &prefix]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (private, public) = (format!("{prefix}.pem"), format!("{prefix}.pub.pem"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&private).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let options = NodeOptions::default().set("signing.require_signature", "true").set("signing.trusted_keys", &format!("[{public:?}]"));
    let node = Node::start(options).await;
    let shell = Shell { node: &node, home: tempfile::tempdir().unwrap() };
    let directory = |version| models::digits(version).to_str().unwrap().to_owned();
    let (one, two) = (directory(1), directory(2));

    let pushed =
        shell.json(&["model", "push", &one, "--name", "digits", "--sign-key", &private, "--tag", "stage=demo", "--promote", "--wait"]);
    assert_eq!((&pushed["number"], &pushed["tags"]["stage"]), (&Value::from(1), &Value::from("demo")), "{pushed}");
    shell.run(&["model", "push", &two, "--name", "digits", "--sign-key", &private]);
    shell.run(&["model", "promote", "digits@2", "--wait"]);
    let png = repository().join("examples/digits/png/7.png").to_str().unwrap().to_owned();
    let answer = shell.json(&["infer", "digits", "--input", &format!("image={png}"), "--white", "16"]);
    let label = answer["outputs"].as_array().unwrap().iter().find(|o| o["name"] == "label").unwrap();
    assert_eq!((&label["data"][0], &answer["model_version"]), (&Value::from(7), &Value::from("2")), "{answer}");

    let table = shell.run(&["model", "list"]);
    assert!(table.contains("digits") && table.contains("champion=2"), "{table}");
    shell.run(&["model", "verify", "digits@2"]);
    shell.run(&["model", "unload", "digits"]);
    let refused = shell.fails(8, &["infer", "digits", "--input", &format!("image={png}"), "--white", "16"]);
    assert!(refused.contains("digits"), "{refused}");
    shell.run(&["model", "load", "digits"]);
    shell.run(&["model", "rollback", "digits", "--sign-key", &private, "--comment", "to see it work"]);
    models::default_is(&node, "digits", 1).await;
    let audit = shell.json(&["model", "audit", "digits"]);
    assert_eq!(audit[0]["comment"], "to see it work", "{audit}");
    assert!(shell.json(&["gc", "--dry-run"])["digests"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(shell.json(&["status"])["require_signature"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_codes_and_advice() {
    let node = Node::start(NodeOptions::default()).await;
    let mut shell = Shell { node: &node, home: tempfile::tempdir().unwrap() };
    shell.run(&["model", "push", models::digits(1).to_str().unwrap(), "--name", "digits"]);
    let near = shell.fails(5, &["model", "show", "digist"]);
    assert!(near.contains("digits"), "the nearest name is offered: {near}");
    shell.fails(3, &["--server", "http://127.0.0.1:1", "status"]);
    shell.fails(4, &["--key", "plinth_0000000000000000_0000000000000000000000000000000000000000000000000000000000000000", "status"]);
    assert_eq!(shell.output(&["model", "no-such-command"]).status.code(), Some(2));
    assert!(shell.run(&["completions", "bash"]).contains("plinth"));

    // The configuration that a user mistypes.
    let file = shell.home.path().join("typo.toml");
    std::fs::write(&file, "[listen]\nhtttp = \"127.0.0.1:0\"\n").unwrap();
    let typo = shell.output(&["config", "check", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&typo.stderr).into_owned() + &String::from_utf8_lossy(&typo.stdout);
    assert!(!typo.status.success() && said.contains("listen.http"), "{said}");
    shell.home = tempfile::tempdir().unwrap();
    assert!(shell.run(&["config", "show"]).contains("data_dir"));
}
